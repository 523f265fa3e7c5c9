//! Networks to take away: safetensors, ONNX and PyTorch files that work on single images.
//!
//! In: an architecture, its weights and images. Out: files that other programs run. While searching, batch norms
//! use the statistics of their batch; what leaves the program carries running statistics of training images
//! ([`Statistics`]), and says what accuracy it has with them ([`Accuracies`]).

mod accuracy;
mod frozen;
mod model;
mod onnx;
mod pytorch;
mod statistics;
mod weights;

#[cfg(test)]
mod tests;

pub use accuracy::{Accuracies, Split, measure};
pub use frozen::freeze;
pub use model::{Model, Preparation};
pub use onnx::to_onnx;
pub use pytorch::to_pytorch;
pub use statistics::{Moments, Statistics, StatisticsImages};
pub use weights::{Weights, read_weights, state_dict};
