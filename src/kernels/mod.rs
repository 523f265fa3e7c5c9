//! Ops that have their own kernels, one folder each: `mod.rs` is the op and its API, `cpu.rs` the kernel,
//! `cuda.rs` and `*.cu` those for GPUs.

pub mod activation;
pub mod arrangement;
pub mod attention;
mod buffer;
pub mod cholesky;
pub mod codes;
mod columns;
pub mod convolution;
#[cfg(feature = "cuda")]
mod cuda;
pub mod decoding;
pub mod depthwise;
pub mod fused;
mod lanes;
mod matrix;
pub mod message_passing;
pub mod norm;
mod pairs;
pub mod pool;
pub mod program;
mod scalar;
mod special;
pub mod tiling;

pub use buffer::Buffer;
#[cfg(feature = "cuda")]
pub(crate) use cuda::stream;
pub use lanes::{Element, Kernel, Lanes, vectorized};
#[cfg(test)]
pub(crate) use lanes::{force, levels};
