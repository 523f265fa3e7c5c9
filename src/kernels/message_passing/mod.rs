//! Gated message passing over the graphs of a meta-batch (arXiv 2110.13100, equations 3 and 4): one round, a
//! forward sweep in topological order over incoming edges, then a backward sweep in reverse order over
//! outgoing edges.
//!
//! In: node states `x [N, hid]` of all graphs, concatenated; the weights as one vector; the edges.
//! Out: the node states after both sweeps, `[N, hid]`, same dtype (f32 or f64), differentiable by both tensors.
//!
//! Node `v` becomes `GRU(m_v, h_v)`, in place, with
//! `m_v = sum over direct neighbours u of MLP(h_u) + sum over all neighbours u at distance d of MLP_ve(h_u) / d`
//! (direct neighbours included again in the second sum, which GHN-1 lacks). Both MLPs have a ReLU after both
//! layers. A node without neighbours is updated with a zero message. Every neighbour comes earlier in the
//! sweep, so a node's two MLP messages are computed once, right after it took its new value.

use std::sync::Arc;

use candle_core::Tensor;

use crate::graph::Graph;
use crate::{Error, Result};

/// Sizes of the message functions and of the gate, and where each weight lies in the packed vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Size of a node's state.
    pub hid: usize,
    /// Hidden width of the MLPs: `hid / 2` with virtual edges, `hid` without in the published GHNs.
    pub hidden: usize,
    /// Whether there is an `MLP_ve` for virtual edges.
    pub virtual_edges: bool,
}

impl Weights {
    /// Name (as in the reference's `state_dict`, without the prefix `gnn.`) and shape of every weight, in the
    /// order in which [`Weights::pack`] wants them: the MLP, the MLP of virtual edges, the GRU cell (gate rows
    /// reset, update, new).
    pub fn tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (h, k) = (self.hid, self.hidden);
        let mut tensors = vec![
            ("mlp.fc.0.weight", vec![k, h]),
            ("mlp.fc.0.bias", vec![k]),
            ("mlp.fc.2.weight", vec![h, k]),
            ("mlp.fc.2.bias", vec![h]),
        ];
        if self.virtual_edges {
            tensors.extend([
                ("mlp_ve.fc.0.weight", vec![k, h]),
                ("mlp_ve.fc.0.bias", vec![k]),
                ("mlp_ve.fc.2.weight", vec![h, k]),
                ("mlp_ve.fc.2.bias", vec![h]),
            ]);
        }
        tensors.extend([
            ("gru.weight_ih", vec![3 * h, h]),
            ("gru.weight_hh", vec![3 * h, h]),
            ("gru.bias_ih", vec![3 * h]),
            ("gru.bias_hh", vec![3 * h]),
        ]);
        tensors
    }

    /// Length of the packed vector.
    pub fn len(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Whether there is no weight at all (`hid` is 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Packs the weights, in the order and shapes of [`Weights::tensors`], into one vector, differentiably.
    pub fn pack(&self, weights: &[&Tensor]) -> Result<Tensor> {
        let wanted = self.tensors();
        if weights.len() != wanted.len() {
            let message =
                format!("message passing: {} weights expected, {} given", wanted.len(), weights.len());
            return Err(Error::Tensor(message));
        }
        let mut flat = Vec::with_capacity(weights.len());
        for (tensor, (name, shape)) in weights.iter().zip(&wanted) {
            if tensor.dims() != shape.as_slice() {
                let message = format!("message passing: {name} must be {shape:?}, found {:?}", tensor.dims());
                return Err(Error::Tensor(message));
            }
            flat.push(tensor.flatten_all().map_err(|e| Error::Tensor(e.to_string()))?);
        }
        Tensor::cat(&flat, 0).map_err(|e| Error::Tensor(e.to_string()))
    }
}

/// Edges of a batch of graphs, concatenated, ready for the kernels. Made once per meta-batch.
#[derive(Clone, Debug, Default)]
pub struct Edges {}

impl Edges {
    /// Edges of `graphs`, whose nodes stand one graph after the other; real edges only (distance 1) unless
    /// `virtual_edges`.
    ///
    /// # Errors
    /// If a graph's edges do not respect its topological order.
    pub fn new(graphs: &[&Graph], virtual_edges: bool) -> Result<Edges> {
        let _ = (graphs, virtual_edges);
        Ok(Edges {})
    }

    /// Nodes of all graphs.
    pub fn n_nodes(&self) -> usize {
        0
    }
}

/// States after one round of message passing: `states [N, hid]`, `packed [weights.len()]` (see
/// [`Weights::pack`]) to `[N, hid]`.
///
/// # Errors
/// If shapes or dtypes do not fit `weights` and `edges`.
pub fn message_passing(
    states: &Tensor,
    packed: &Tensor,
    weights: Weights,
    edges: &Arc<Edges>,
) -> Result<Tensor> {
    let _ = (states, packed, weights, edges);
    Err(Error::Tensor("message passing: not built yet".into()))
}
