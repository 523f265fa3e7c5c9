//! The loss of a network as a differentiable function of its flat parameter vector.
//!
//! In: parameters `[n_params]` (f32 or f64, any candle graph behind them), a batch of images and labels.
//! Out: the mean cross entropy as a candle scalar whose backward pass hands on the executor's gradient. The
//! executor computes loss and gradient in one go, so nothing of the network is kept between the two passes.

use crate::execute::{Executor, Mode, Real};
use crate::{Error, Result};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Shape, Tensor, WithDType};

/// A scalar with a known gradient by its one argument.
struct KnownGradient {
    value: f64,
    gradient: Tensor,
}

impl CustomOp1 for KnownGradient {
    fn name(&self) -> &'static str {
        "network-loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, _layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let scalar = match storage {
            CpuStorage::F32(_) => CpuStorage::F32(vec![self.value as f32]),
            CpuStorage::F64(_) => CpuStorage::F64(vec![self.value]),
            other => candle_core::bail!("network loss takes f32 or f64 parameters, found {other:?}"),
        };
        Ok((scalar, Shape::from(())))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let zero = match storage.dtype() {
            DType::F64 => CpuStorage::F64(vec![0.0]),
            _ => CpuStorage::F32(vec![0.0]),
        };
        let (scalar, shape) = self.cpu_fwd(&zero, layout)?;
        Ok((storage.device().storage_from_cpu_storage_owned(scalar)?, shape))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.gradient.broadcast_mul(grad_res)?))
    }
}

/// Mean cross entropy of `executor`'s network on `images [N, 3, H, W]`, `labels [N]`, differentiable by `params`.
///
/// # Errors
/// If the executor refuses its arguments.
pub fn network_loss<T: Real + WithDType>(
    executor: &mut dyn Executor<T>,
    params: &Tensor,
    images: &[T],
    labels: &[u8],
    mode: Mode,
) -> Result<Tensor> {
    let values = params.to_vec1::<T>()?;
    let mut gradient = vec![T::default(); values.len()];
    let loss = executor.loss_and_gradient(&values, images, labels, mode, &mut gradient)?;
    attach_gradient(params, Real::to_f64(loss), gradient)
}

/// The scalar `value` as a function of `params` whose gradient is `gradient`.
///
/// # Errors
/// If the gradient's length is not that of `params`.
pub fn attach_gradient<T: Real + WithDType>(params: &Tensor, value: f64, gradient: Vec<T>) -> Result<Tensor> {
    if gradient.len() != params.elem_count() {
        return Err(Error::Tensor(format!(
            "gradient of {} elements for {} parameters",
            gradient.len(),
            params.elem_count()
        )));
    }
    let gradient = Tensor::from_vec(gradient, params.elem_count(), params.device())?;
    Ok(params.apply_op1(KnownGradient { value, gradient })?)
}
