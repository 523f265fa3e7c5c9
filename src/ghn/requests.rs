//! What a batch of networks asks of the decoders.
//!
//! In: networks and their graphs. Out: the nodes to decode, with the used part of the table of each, and the
//! [`Tile`] of every parameter, whose place in the tables the decoders fill in.

use super::config::GhnConfig;
use crate::graph::{Graph, Node, Primitive};
use crate::kernels::tiling::{Tile, Transform};
use crate::network::{Network, Param, ParamId};
use crate::{Error, Result};
use std::ops::Range;

/// A node whose parameter has two or four dimensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// Row of the node in the embeddings.
    pub node: usize,
    /// Its tile.
    pub tile: usize,
    /// Used part of the table: out and in channels, height, width.
    pub part: [usize; 4],
    /// Weight of a classifier, for which `part` holds all out channels.
    pub classifier: bool,
}

/// A node of one-dimensional parameters: a norm layer, or a stand-alone bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector {
    /// Row of the node in the embeddings.
    pub node: usize,
    /// Tile of a norm layer's weight.
    pub weight: Option<usize>,
    /// Tile of a norm layer's bias or of a stand-alone one.
    pub bias: Option<usize>,
    /// Bias of a classifier.
    pub classifier: bool,
}

/// All that a batch asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    pub kernels: Vec<Kernel>,
    pub vectors: Vec<Vector>,
    pub tiles: Vec<Tile>,
    /// Parameters of each network in the output.
    pub ranges: Vec<Range<usize>>,
    /// Length of the output.
    pub n_params: usize,
}

impl Requests {
    /// Collects the requests of a batch; `rows` are the rows of each graph's nodes.
    ///
    /// # Errors
    /// See [`super::Ghn::predict`].
    pub fn new(config: &GhnConfig, batch: &[(&Network, &Graph)], rows: &[Range<usize>]) -> Result<Requests> {
        let mut requests = Requests::default();
        for (&(network, graph), rows) in batch.iter().zip(rows) {
            requests.add(config, network, graph, rows.start)?;
        }
        Ok(requests)
    }

    fn add(&mut self, config: &GhnConfig, network: &Network, graph: &Graph, first: usize) -> Result<()> {
        if network.num_classes() != config.num_classes {
            return Err(Error::Architecture(format!(
                "the network has {} classes, but the hypernetwork predicts classifiers of {}",
                network.num_classes(),
                config.num_classes
            )));
        }
        let n = graph.nodes.len();
        if n < 2 || graph.nodes[n - 1].primitive != Primitive::Bias || graph.nodes[n - 2].param.is_none() {
            return Err(Error::Architecture(
                "the last two nodes of a graph must be weight and bias of a classifier".into(),
            ));
        }
        let start = self.n_params;
        let mut covered = vec![false; network.params.len()];
        let mut take = |id: ParamId| {
            let param = network.params.get(id.0).filter(|_| !std::mem::replace(&mut covered[id.0], true));
            param.ok_or_else(|| Error::Architecture("graph and network do not belong together".into()))
        };
        for (v, node) in graph.nodes.iter().enumerate() {
            let Some(id) = node.param else { continue };
            let param = take(id)?;
            let norm_bias = node.norm_bias.map(&mut take).transpose()?;
            let classifier = v + 2 >= n;
            if param.shape.len() == 1 {
                self.vector(config, node, (param, norm_bias), (start, first + v, classifier));
            } else {
                self.kernel(config, param, (start, first + v, classifier))?;
            }
        }
        if let Some(missing) = covered.iter().position(|&covered| !covered) {
            return Err(Error::Architecture(format!(
                "parameter {} of the network has no node in its graph",
                network.params[missing].name
            )));
        }
        self.n_params += network.n_params();
        self.ranges.push(start..self.n_params);
        Ok(())
    }

    fn vector(
        &mut self,
        config: &GhnConfig,
        node: &Node,
        (param, norm_bias): (&Param, Option<&Param>),
        (start, row, classifier): (usize, usize, bool),
    ) {
        let mut tile = |param: &Param, transform: Transform| {
            let n = param.shape[0];
            self.tiles.push(Tile {
                source: 0,
                size: [if classifier { n } else { n.min(config.max_channels()) }, 1, 1, 1],
                strides: [1; 4],
                shape: [n, 1, 1, 1],
                target: start + param.offset,
                transform: if config.weight_norm { transform } else { Transform::Identity },
            });
            Some(self.tiles.len() - 1)
        };
        let vector = if node.primitive == Primitive::Bias {
            Vector { node: row, weight: None, bias: tile(param, Transform::Bias), classifier }
        } else {
            let weight = tile(param, Transform::NormWeight);
            let bias = norm_bias.and_then(|bias| tile(bias, Transform::Bias));
            Vector { node: row, weight, bias, classifier: false }
        };
        self.vectors.push(vector);
    }

    fn kernel(
        &mut self,
        config: &GhnConfig,
        param: &Param,
        (start, row, classifier): (usize, usize, bool),
    ) -> Result<()> {
        let shape: [usize; 4] = match param.shape[..] {
            [o, i] => [o, i, 1, 1],
            [o, i, h, w] => [o, i, h, w],
            _ => {
                return Err(Error::Architecture(format!(
                    "parameter {} has shape {:?}: 1, 2 or 4 dimensions can be predicted",
                    param.name, param.shape
                )));
            }
        };
        let [o_max, _, h_max, w_max] = config.max_shape;
        // The reference repeats its table once in space where a kernel is larger.
        if shape[2] > 2 * h_max || shape[3] > 2 * w_max {
            return Err(Error::Architecture(format!(
                "parameter {} has shape {:?}, more than twice the {h_max}x{w_max} positions that the \
                 hypernetwork predicts",
                param.name, param.shape
            )));
        }
        let size: [usize; 4] = std::array::from_fn(|axis| shape[axis].min(config.max_shape[axis]));
        let (size, part) =
            if classifier { ([shape[0], size[1], 1, 1], [o_max, size[1], 1, 1]) } else { (size, size) };
        self.kernels.push(Kernel { node: row, tile: self.tiles.len(), part, classifier });
        self.tiles.push(Tile {
            source: 0,
            size,
            strides: [0; 4],
            shape,
            target: start + param.offset,
            transform: if config.weight_norm { fan_in_scale(&param.shape) } else { Transform::Identity },
        });
        Ok(())
    }
}

/// Normalisation of a tensor with two or more dimensions, by its own shape: the variance that keeps that of
/// activations, halved for depthwise kernels and for the 1 x k half of a factorised kernel, as in the reference.
fn fan_in_scale(shape: &[usize]) -> Transform {
    if let [1, _, h, w] = shape[..]
        && h >= 11
        && w >= 11
    {
        return Transform::Identity; // a positional encoding
    }
    let beta = match shape[..] {
        [_, 1, _, _] => 1.0,
        [_, _, h, w] if h < w => 1.0,
        _ => 2.0,
    };
    let fan_in: usize = shape[1..].iter().product();
    Transform::Scale((beta / fan_in as f64).sqrt())
}
