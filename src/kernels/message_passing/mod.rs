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

mod affine;
mod cpu;
pub mod cuda;
#[cfg(feature = "cuda")]
mod device;
mod edges;
pub mod forecast;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::{Arc, Mutex};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};

use super::scalar::{Scalar, contiguous};
use crate::{Error, Result};

pub use edges::Edges;

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
            flat.push(tensor.flatten_all()?);
        }
        Ok(Tensor::cat(&flat, 0)?)
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
    let refuse = |what: &str, wanted: &[usize], found: &Tensor| {
        let message = format!("message passing: {what} must be {wanted:?}, found {:?}", found.dims());
        Err(Error::Tensor(message))
    };
    if weights.hid == 0 || weights.hidden == 0 {
        return Err(Error::Tensor(format!("message passing: sizes must not be 0: {weights:?}")));
    }
    if states.dims() != [edges.n_nodes(), weights.hid] {
        return refuse("states", &[edges.n_nodes(), weights.hid], states);
    }
    if packed.dims() != [weights.len()] {
        return refuse("packed weights", &[weights.len()], packed);
    }
    if weights.virtual_edges != edges.virtual_edges() {
        let message = "message passing: weights and edges disagree about virtual edges";
        return Err(Error::Tensor(message.into()));
    }
    let op = Forward(Arc::new(Run { weights, edges: edges.clone(), saved: Mutex::default() }));
    Ok(states.contiguous()?.apply_op2(&packed.contiguous()?, op)?)
}

/// One application of the op; what its forward pass leaves for the backward pass.
struct Run {
    weights: Weights,
    edges: Arc<Edges>,
    /// `cpu::Saved<T>` of the element type, or what the device keeps.
    saved: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Run {
    fn forward<T: Scalar>(&self, states: Arg, packed: Arg) -> candle_core::Result<CpuStorage> {
        let (states, packed) = (states.elements::<T>()?, packed.elements::<T>()?);
        let (out, saved) = cpu::forward(&self.weights, &self.edges, states, packed);
        *self.saved.lock().expect("no panic while locked") = Some(Arc::new(saved));
        Ok(T::to_cpu_storage_owned(out))
    }

    fn backward<T: Scalar>(&self, states: Arg, packed: Arg, grad: Arg) -> candle_core::Result<CpuStorage> {
        let (states, packed, grad) =
            (states.elements::<T>()?, packed.elements::<T>()?, grad.elements::<T>()?);
        let saved = self.saved.lock().expect("no panic while locked").clone();
        let saved = saved.as_deref().and_then(|saved| saved.downcast_ref::<cpu::Saved<T>>());
        let saved = saved
            .ok_or_else(|| candle_core::Error::Msg("message passing: backward before forward".into()))?;
        let gradients = cpu::backward(&self.weights, &self.edges, saved, states, packed, grad);
        Ok(T::to_cpu_storage_owned(gradients))
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
struct Arg<'a>(&'a CpuStorage, &'a Layout);

impl<'a> Arg<'a> {
    fn elements<T: Scalar>(self) -> candle_core::Result<&'a [T]> {
        contiguous("message passing", self.0, self.1)
    }
}

struct Forward(Arc<Run>);

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "message_passing"
    }

    fn cpu_fwd(
        &self,
        states: &CpuStorage,
        states_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (states, packed) = (Arg(states, states_layout), Arg(packed, packed_layout));
        let out = match states.0.dtype() {
            DType::F64 => self.0.forward::<f64>(states, packed)?,
            _ => self.0.forward::<f32>(states, packed)?,
        };
        Ok((out, states_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        states: &CudaStorage,
        states_layout: &Layout,
        packed: &CudaStorage,
        packed_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let out = self.0.forward_on_device((states, states_layout), (packed, packed_layout))?;
        Ok((out, states_layout.shape().clone()))
    }

    fn bwd(
        &self,
        states: &Tensor,
        packed: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = states.apply_op3_no_bwd(packed, &grad.contiguous()?, &Backward(self.0.clone()))?;
        let n = states.elem_count();
        let by_states = gradients.narrow(0, 0, n)?.reshape(states.shape())?;
        let by_weights = gradients.narrow(0, n, packed.elem_count())?;
        Ok((Some(by_states), Some(by_weights)))
    }
}

/// Arguments: states, weights, gradient of the result. Result: gradients of states and weights, one after the other.
struct Backward(Arc<Run>);

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "message_passing_backward"
    }

    fn cpu_fwd(
        &self,
        states: &CpuStorage,
        states_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (states, packed) = (Arg(states, states_layout), Arg(packed, packed_layout));
        let grad = Arg(grad, grad_layout);
        let gradients = match states.0.dtype() {
            DType::F64 => self.0.backward::<f64>(states, packed, grad)?,
            _ => self.0.backward::<f32>(states, packed, grad)?,
        };
        let len = states_layout.shape().elem_count() + packed_layout.shape().elem_count();
        Ok((gradients, Shape::from(len)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        states: &CudaStorage,
        states_layout: &Layout,
        packed: &CudaStorage,
        packed_layout: &Layout,
        grad: &CudaStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (states, packed) = ((states, states_layout), (packed, packed_layout));
        let gradients = self.0.backward_on_device(states, packed, (grad, grad_layout))?;
        let len = states.1.shape().elem_count() + packed.1.shape().elem_count();
        Ok((gradients, Shape::from(len)))
    }
}
