//! Depthwise convolution on an NVIDIA GPU: a candle op on CUDA storage, f32, without a gradient of its own.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};

use super::cuda::{Planes, forward};
use crate::kernels::cuda::{Uploaded, run, values};

/// Threads of a block.
const THREADS: u32 = 256;

/// `[C, N, OH, OW]` from `x [C, N, H, W]` and `weight [C, 1, kH, kW]`, both on a GPU and f32.
pub(crate) fn on_device(x: &Tensor, weight: &Tensor, planes: Planes) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &Op(planes))
}

struct Op(Planes);

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("depthwise: this op is for GPUs")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Planes { channels, images, out, .. } = self.0;
        let program = forward(&self.0, THREADS).map_err(|error| Error::Msg(error.to_string()))?;
        let device = x.device().clone();
        let inputs = vec![values("depthwise", x, x_layout)?, values("depthwise", weight, weight_layout)?];
        let Some(output) = run(&device, &program, inputs, &mut Uploaded::default())?.pop() else {
            candle_core::bail!("depthwise: a program without output");
        };
        Ok((CudaStorage::wrap_cuda_slice(output, device), Shape::from((channels, images, out[0], out[1]))))
    }
}
