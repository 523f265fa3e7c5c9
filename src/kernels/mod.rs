//! Ops that have their own kernels, one folder each: `mod.rs` is the op and its API, `cpu.rs` the kernel.

mod element;
pub mod message_passing;
pub mod tiling;
