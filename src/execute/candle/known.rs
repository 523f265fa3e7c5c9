//! Results with a backward pass of our own: the value is computed in plain candle ops without a tape, the
//! gradient is a rule in candle ops. Unlike a composition on the tape this keeps no intermediate tensors, and
//! it runs on any device.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor};

/// Gradient of an op with arguments `x` and `weight`.
pub(super) trait Rule2: Send + Sync + 'static {
    /// The value; its arguments are off the tape.
    fn value(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor>;
    /// Gradient by `x`.
    fn by_x(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor>;
    /// Gradient by `weight`.
    fn by_weight(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor>;
}

/// Gradient of an op with one argument.
pub(super) trait Rule1: Send + Sync + 'static {
    /// The value; its argument is off the tape.
    fn value(&self, x: &Tensor) -> Result<Tensor>;
    /// Gradient by `x`, given the value.
    fn by_x(&self, x: &Tensor, value: &Tensor, grad: &Tensor) -> Result<Tensor>;
}

/// `rule` applied to two arguments.
pub(super) fn apply2(rule: impl Rule2, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let value = rule.value(&x.detach(), &weight.detach())?.contiguous()?;
    if !x.track_op() && !weight.track_op() {
        return Ok(value);
    }
    x.apply_op2(weight, Known { rule, value: Mutex::new(Some(value)) })
}

/// `rule` applied to one argument.
pub(super) fn apply1(rule: impl Rule1, x: &Tensor) -> Result<Tensor> {
    let value = rule.value(&x.detach())?.contiguous()?;
    if !x.track_op() {
        return Ok(value);
    }
    x.apply_op1(Known { rule, value: Mutex::new(Some(value)) })
}

struct Known<R> {
    rule: R,
    /// Handed over in the one forward call.
    value: Mutex<Option<Tensor>>,
}

impl<R> Known<R> {
    fn take<S>(&self, copy: impl Fn(&Storage, &Layout) -> Result<S>) -> Result<(S, Shape)> {
        let value = self.value.lock().expect("no panic while locked").take();
        let value = value.ok_or_else(|| candle_core::Error::Msg("known value: already taken".into()))?;
        let (storage, layout) = value.storage_and_layout();
        if layout.start_offset() != 0 {
            candle_core::bail!("known value: a view where a whole tensor was expected");
        }
        Ok((copy(&storage, layout)?, layout.shape().clone()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cpu(values) => values.try_clone(layout),
            _ => candle_core::bail!("known value: on another device than its arguments"),
        })
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cuda(values) => values.try_clone(layout),
            _ => candle_core::bail!("known value: on another device than its arguments"),
        })
    }
}

impl<R: Rule1> CustomOp1 for Known<R> {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, x: &Tensor, value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.rule.by_x(&x.detach(), &value.detach(), &grad.detach())?))
    }
}

impl<R: Rule2> CustomOp2 for Known<R> {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (plain_x, plain_weight, grad) = (x.detach(), weight.detach(), grad.detach());
        let by_x = x.track_op().then(|| self.rule.by_x(&plain_x, &plain_weight, &grad));
        let by_weight = weight.track_op().then(|| self.rule.by_weight(&plain_x, &plain_weight, &grad));
        Ok((by_x.transpose()?, by_weight.transpose()?))
    }
}
