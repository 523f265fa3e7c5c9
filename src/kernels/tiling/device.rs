//! Tiling on an NVIDIA GPU: a program on candle's CUDA storage, f32.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Error, Layout, Result};

use crate::kernels::cuda::{self, Uploaded, values};
use crate::kernels::program::Program;

/// Threads of a block.
pub(super) const THREADS: u32 = 256;

/// The output of a program with one.
pub(super) fn run(
    program: crate::Result<Program>,
    inputs: &[(&CudaStorage, &Layout)],
) -> Result<CudaStorage> {
    let program = program.map_err(|error| Error::Msg(error.to_string()))?;
    let device = inputs[0].0.device().clone();
    let views = inputs.iter().map(|(storage, layout)| values("tiling", storage, layout));
    let mut outputs = cuda::run(&device, &program, views.collect::<Result<_>>()?, &mut Uploaded::default())?;
    match outputs.pop() {
        Some(output) => Ok(CudaStorage::wrap_cuda_slice(output, device)),
        None => candle_core::bail!("tiling: a program without output"),
    }
}
