//! From a network to its graph: which ops are nodes, and which of them are bypassed (arXiv 2110.13100, appendix;
//! the rules are those of the reference's tracer).
//!
//! In: a [`Network`]. Out: a [`Graph`] whose nodes follow the network's op order.

use super::distance::shortest_distances;
use super::node::{Graph, Node, Primitive};
use crate::network::{Network, OpKind, ParamId};

impl Graph {
    /// The graph of `network` with virtual edges up to 50 long.
    pub fn of(network: &Network) -> Graph {
        let mut draft = Draft::default();
        // The node that stands for each op's output; none for zeros, which come from nowhere.
        let mut source: Vec<Option<usize>> = Vec::with_capacity(network.ops.len());
        for op in &network.ops {
            let inputs: Vec<usize> = op.inputs.iter().filter_map(|input| source[input.0]).collect();
            source.push(match op.kind {
                OpKind::Zeros => None,
                OpKind::Relu
                | OpKind::Gelu
                | OpKind::HardSwish
                | OpKind::SqueezeMean
                | OpKind::Subsample { .. }
                | OpKind::Crop
                | OpKind::Flatten
                | OpKind::Dropout { .. } => inputs.first().copied(),
                ref kind => Some(draft.nodes_of(network, kind, inputs)),
            });
        }
        draft.bypass(Primitive::Sum);
        draft.bypass(Primitive::Concat);
        let (incoming, outgoing) = shortest_distances(&draft.predecessors);
        Graph { nodes: draft.nodes, incoming, outgoing }
    }
}

/// Nodes with their direct predecessors (ascending, distinct).
#[derive(Default)]
struct Draft {
    nodes: Vec<Node>,
    predecessors: Vec<Vec<usize>>,
}

impl Draft {
    /// Adds the nodes of an op that has any; returns the one that gives its output.
    fn nodes_of(&mut self, network: &Network, kind: &OpKind, inputs: Vec<usize>) -> usize {
        match *kind {
            OpKind::Conv { weight, dilation, groups, .. } => {
                let primitive = match (groups, dilation) {
                    (1, _) => Primitive::Conv,
                    (_, 1) => Primitive::SepConv,
                    _ => Primitive::DilConv,
                };
                self.param(network, primitive, weight, None, inputs)
            }
            OpKind::Linear { weight, bias } => {
                let weight = self.param(network, Primitive::Conv, weight, None, inputs);
                match bias {
                    Some(bias) => self.param(network, Primitive::Bias, bias, None, vec![weight]),
                    None => weight,
                }
            }
            OpKind::BatchNorm { weight, bias } => {
                self.param(network, Primitive::BatchNorm, weight, Some(bias), inputs)
            }
            OpKind::LayerNorm { weight, bias } => {
                self.param(network, Primitive::LayerNorm, weight, Some(bias), inputs)
            }
            OpKind::PosEnc { weight } => {
                let encoding = self.param(network, Primitive::PosEnc, weight, None, Vec::new());
                let terms = inputs.into_iter().chain([encoding]).collect();
                self.plain(Primitive::Sum, None, terms)
            }
            OpKind::MaxPool { kernel, .. } => {
                self.plain(Primitive::MaxPool, Some(vec![1, 1, kernel, kernel]), inputs)
            }
            OpKind::AvgPool { kernel, .. } => {
                self.plain(Primitive::AvgPool, Some(vec![1, 1, kernel, kernel]), inputs)
            }
            OpKind::Input => self.plain(Primitive::Input, None, inputs),
            OpKind::GlobalAvgPool => self.plain(Primitive::GlobAvg, None, inputs),
            OpKind::Excite => self.plain(Primitive::Cse, None, inputs),
            OpKind::Attention { .. } => self.plain(Primitive::Msa, None, inputs),
            OpKind::Add => self.plain(Primitive::Sum, None, inputs),
            OpKind::Concat => self.plain(Primitive::Concat, None, inputs),
            OpKind::Relu
            | OpKind::Gelu
            | OpKind::HardSwish
            | OpKind::SqueezeMean
            | OpKind::Subsample { .. }
            | OpKind::Crop
            | OpKind::Flatten
            | OpKind::Dropout { .. }
            | OpKind::Zeros => unreachable!("{} has no node", kind.name()),
        }
    }

    fn param(
        &mut self,
        network: &Network,
        primitive: Primitive,
        param: ParamId,
        norm_bias: Option<ParamId>,
        inputs: Vec<usize>,
    ) -> usize {
        let shape = Some(network.params[param.0].shape.clone());
        self.node(Node { primitive, param: Some(param), norm_bias, shape }, inputs)
    }

    fn plain(&mut self, primitive: Primitive, shape: Option<Vec<usize>>, inputs: Vec<usize>) -> usize {
        self.node(Node { primitive, param: None, norm_bias: None, shape }, inputs)
    }

    fn node(&mut self, node: Node, mut inputs: Vec<usize>) -> usize {
        inputs.sort_unstable();
        inputs.dedup();
        self.nodes.push(node);
        self.predecessors.push(inputs);
        self.nodes.len() - 1
    }

    /// Removes the nodes of this type that at most one other node feeds, and joins their neighbours.
    ///
    /// As in the reference's sweep, a bypassed node still counts as a neighbour of the nodes behind it until the
    /// sweep is over, besides its own predecessor: of two such nodes in a row the second is kept.
    fn bypass(&mut self, primitive: Primitive) {
        let n = self.nodes.len();
        let mut bypassed = vec![false; n];
        for v in 0..n {
            let inherited: Vec<usize> = self.predecessors[v]
                .iter()
                .filter(|&&p| bypassed[p])
                .flat_map(|&p| self.predecessors[p].iter().copied())
                .collect();
            let row = &mut self.predecessors[v];
            row.extend(inherited);
            row.sort_unstable();
            row.dedup();
            bypassed[v] = self.nodes[v].primitive == primitive && row.len() <= 1;
        }
        let mut index = vec![0; n];
        let mut kept = 0;
        for v in 0..n {
            index[v] = kept;
            kept += usize::from(!bypassed[v]);
        }
        for row in &mut self.predecessors {
            row.retain(|&p| !bypassed[p]);
            row.iter_mut().for_each(|p| *p = index[*p]);
        }
        let mut keep = bypassed.iter().map(|bypassed| !bypassed);
        self.nodes.retain(|_| keep.next().unwrap_or(true));
        let mut keep = bypassed.iter().map(|bypassed| !bypassed);
        self.predecessors.retain(|_| keep.next().unwrap_or(true));
    }
}
