//! Checkpoints of hypernetworks, and files of named tensors.
//!
//! In: safetensors with the settings in their metadata, plain safetensors, or PyTorch checkpoints of the
//! reference. Out: a [`Ghn`], and what else the checkpoint holds. Every file is written beside its target, synced
//! and renamed, so that a reader never meets half of it.

mod hypernetwork;
mod pytorch;
mod tensor_file;

pub use hypernetwork::{AdamState, Checkpoint};
pub use tensor_file::{TensorFile, read_tensors, write_tensors};

#[cfg(doc)]
use crate::ghn::Ghn;
