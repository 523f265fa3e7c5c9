//! The forward pass: from networks and their graphs to flat parameter vectors.
//!
//! In: networks with their graphs. Out: a parameter vector `[n_params]` for each (tensors in the order and layout of
//! [`Network::params`]) and the mean of its node embeddings `[hid]`; both differentiable by the hypernetwork's
//! tensors. Networks of a batch do not influence each other. Source: arXiv 2110.13100, equations 3 and 4.

use super::config::Hypernet;
use super::decoder::decode;
use super::model::Ghn;
use super::requests::Requests;
use crate::graph::Graph;
use crate::kernels::message_passing::{Edges, Weights, message_passing};
use crate::kernels::tiling::{Tiling, tile};
use crate::network::Network;
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// What the hypernetwork says about one network.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// All parameters `[n_params]`, row-major tensors in the order of [`Network::params`].
    pub params: Tensor,
    /// Mean over the nodes of their final states `[hid]`: the embedding of the architecture.
    pub mean_embedding: Tensor,
}

/// What the hypernetwork says about several networks, in one piece.
#[derive(Clone, Debug)]
pub struct BatchPrediction {
    /// Parameters of all networks, one network after the other.
    pub params: Tensor,
    /// Where each network's parameters lie.
    pub ranges: Vec<Range<usize>>,
    /// Mean node embeddings `[networks, hid]`.
    pub mean_embeddings: Tensor,
}

/// States of the nodes of all graphs, concatenated, `[N, hid]`.
#[derive(Clone, Debug)]
pub struct NodeStates {
    /// Sum of the embeddings of primitive and shape.
    pub initial: Tensor,
    /// After message passing (or the node-wise MLP).
    pub after_gnn: Tensor,
    /// After the layer norm, if there is one.
    pub embedding: Tensor,
    /// Rows of each graph.
    pub ranges: Vec<Range<usize>>,
}

impl Ghn {
    /// Predicts the parameters of every network of a batch.
    ///
    /// # Errors
    /// A network whose class count differs from the hypernetwork's, a graph that does not belong to its network, or
    /// a kernel more than twice as large as the decoder's table.
    pub fn predict(&self, batch: &[(&Network, &Graph)]) -> Result<Vec<Prediction>> {
        let BatchPrediction { params, ranges, mean_embeddings } = self.predict_batch(batch)?;
        let mut predictions = Vec::with_capacity(batch.len());
        for (index, range) in ranges.into_iter().enumerate() {
            predictions.push(Prediction {
                params: params.narrow(0, range.start, range.len())?,
                mean_embedding: mean_embeddings.get(index)?,
            });
        }
        Ok(predictions)
    }

    /// As [`Ghn::predict`], with all networks in one vector: cheaper to differentiate.
    ///
    /// # Errors
    /// Those of [`Ghn::predict`], and an empty batch.
    pub fn predict_batch(&self, batch: &[(&Network, &Graph)]) -> Result<BatchPrediction> {
        let graphs: Vec<&Graph> = batch.iter().map(|&(_, graph)| graph).collect();
        let states = self.node_states(&graphs)?;
        let mut means = Vec::with_capacity(batch.len());
        for range in &states.ranges {
            means.push(states.embedding.narrow(0, range.start, range.len())?.mean(0)?);
        }
        let mut requests = Requests::new(&self.config, batch, &states.ranges)?;
        let (n_params, ranges) = (requests.n_params, std::mem::take(&mut requests.ranges));
        let (tables, tiles) = decode(self, &states.embedding, requests)?;
        let tiling = Arc::new(Tiling::new(tiles, tables.elem_count(), n_params)?);
        Ok(BatchPrediction {
            params: tile(&tables, &tiling)?,
            ranges,
            mean_embeddings: Tensor::stack(&means, 0)?,
        })
    }

    /// Mean node embedding `[hid]` of every graph, without predicting a weight.
    ///
    /// # Errors
    /// As [`Ghn::node_states`].
    pub fn mean_embeddings(&self, graphs: &[&Graph]) -> Result<Vec<Vec<f32>>> {
        let states = self.node_states(graphs)?;
        let mean = |range: &Range<usize>| {
            Ok(states.embedding.narrow(0, range.start, range.len())?.mean(0)?.to_vec1::<f32>()?)
        };
        states.ranges.iter().map(mean).collect()
    }

    /// States of all nodes before and after message passing.
    ///
    /// # Errors
    /// No graph, a graph without nodes, or one whose edges contradict the order of its nodes.
    pub fn node_states(&self, graphs: &[&Graph]) -> Result<NodeStates> {
        let mut ranges = Vec::with_capacity(graphs.len());
        let mut end = 0;
        for graph in graphs {
            ranges.push(end..end + graph.nodes.len());
            end += graph.nodes.len();
        }
        if end == 0 || ranges.iter().any(Range::is_empty) {
            return Err(Error::Architecture("prediction needs at least one graph, each with nodes".into()));
        }
        let initial = self.initial_states(graphs)?;
        let after_gnn = match self.config.hypernet {
            Hypernet::Mlp => {
                let hidden = self.linear("gnn.fc.0", &initial)?.relu()?;
                self.linear("gnn.fc.2", &hidden)?.relu()?
            }
            Hypernet::GatedGnn => {
                let weights = Weights {
                    hid: self.config.hid,
                    hidden: self.tensor("gnn.mlp.fc.0.weight")?.dim(0)?,
                    virtual_edges: self.config.ve,
                };
                let names = weights.tensors();
                let mut tensors = Vec::with_capacity(names.len());
                for (name, _) in names {
                    tensors.push(self.tensor(&format!("gnn.{name}"))?);
                }
                let edges = Arc::new(Edges::new(graphs, self.config.ve)?);
                message_passing(&initial, &weights.pack(&tensors)?, weights, &edges)?
            }
        };
        let embedding = if self.config.layernorm { self.layer_norm(&after_gnn)? } else { after_gnn.clone() };
        Ok(NodeStates { initial, after_gnn, embedding, ranges })
    }

    fn initial_states(&self, graphs: &[&Graph]) -> Result<Tensor> {
        let nodes = || graphs.iter().flat_map(|graph| &graph.nodes);
        let rows: Vec<[u32; 4]> = nodes().map(|node| self.vocabulary.rows(node.shape.as_deref())).collect();
        let look_up = |table: &str, index: Vec<u32>| -> Result<Tensor> {
            let count = index.len();
            let index = Tensor::from_vec(index, count, self.device())?;
            Ok(self.tensor(table)?.index_select(&index, 0)?)
        };
        let axis = |axis: usize| rows.iter().map(|row| row[axis]).collect::<Vec<u32>>();
        let shape = Tensor::cat(
            &[
                look_up("shape_enc.embed_channel.weight", axis(0))?,
                look_up("shape_enc.embed_channel.weight", axis(1))?,
                look_up("shape_enc.embed_spatial.weight", axis(2))?,
                look_up("shape_enc.embed_spatial.weight", axis(3))?,
            ],
            1,
        )?;
        let primitive = look_up("embed.weight", nodes().map(|node| node.primitive as u32).collect())?;
        Ok((primitive + shape)?)
    }

    fn layer_norm(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-5)?.sqrt()?;
        let normal = centred.broadcast_div(&deviation)?;
        Ok(normal.broadcast_mul(self.tensor("ln.weight")?)?.broadcast_add(self.tensor("ln.bias")?)?)
    }

    /// `x [N, in] -> [N, out]` with a layer's weight `[out, in]` and bias `[out]`.
    pub(super) fn linear(&self, module: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.tensor(&format!("{module}.weight"))?;
        let weight = weight.reshape((weight.dim(0)?, weight.dim(1)?))?;
        Ok(x.matmul(&weight.t()?)?.broadcast_add(self.tensor(&format!("{module}.bias"))?)?)
    }
}
