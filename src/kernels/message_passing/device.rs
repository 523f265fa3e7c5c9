//! Message passing on an NVIDIA GPU: the op's halves on candle's CUDA storage, f32.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, Error, Layout, Result};

use super::{Run, cuda};
use crate::kernels::cuda::{Uploaded, limits, run, values};

const OP: &str = "message passing";

/// What the forward pass leaves for the backward pass, all of it on the device.
struct Saved {
    tables: Arc<cuda::Tables>,
    uploaded: Mutex<Uploaded>,
    rows: CudaSlice<f32>,
}

/// An argument of a kernel.
type Arg<'a> = (&'a CudaStorage, &'a Layout);

fn refused(error: crate::Error) -> Error {
    Error::Msg(error.to_string())
}

impl Run {
    /// States after both sweeps.
    pub(super) fn forward_on_device(&self, states: Arg, packed: Arg) -> Result<CudaStorage> {
        let device = states.0.device().clone();
        let tables = match self.edges.tables.get() {
            Some(tables) => tables.clone(),
            None => {
                let made = Arc::new(cuda::Tables::new(&self.edges).map_err(refused)?);
                self.edges.tables.get_or_init(|| made).clone()
            }
        };
        let program = cuda::forward(&self.weights, &tables, limits(&device)?).map_err(refused)?;
        let inputs = vec![values(OP, states.0, states.1)?, values(OP, packed.0, packed.1)?];
        let mut uploaded = Uploaded::default();
        let mut outputs = run(&device, &program, inputs, &mut uploaded)?;
        let (Some(out), Some(rows)) = (outputs.pop(), outputs.pop()) else {
            candle_core::bail!("{OP}: a program with another number of outputs");
        };
        let saved = Saved { tables, uploaded: Mutex::new(uploaded), rows };
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(saved));
        Ok(CudaStorage::wrap_cuda_slice(out, device))
    }

    /// Gradients of states and weights, one after the other.
    pub(super) fn backward_on_device(&self, states: Arg, packed: Arg, grad: Arg) -> Result<CudaStorage> {
        let device = states.0.device().clone();
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let saved = saved.as_deref().and_then(|saved| saved.downcast_ref::<Saved>());
        let saved = saved.ok_or_else(|| Error::Msg(format!("{OP}: backward before forward")))?;
        let program = cuda::backward(&self.weights, &saved.tables, limits(&device)?).map_err(refused)?;
        let rows = saved.rows.slice(0..cuda::saved_len(&self.weights, &saved.tables));
        let inputs = vec![
            values(OP, states.0, states.1)?,
            values(OP, packed.0, packed.1)?,
            rows,
            values(OP, grad.0, grad.1)?,
        ];
        let mut uploaded = saved.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outputs = run(&device, &program, inputs, &mut uploaded)?;
        let Some(gradients) = outputs.pop() else {
            candle_core::bail!("{OP}: a program without output");
        };
        Ok(CudaStorage::wrap_cuda_slice(gradients, device))
    }
}
