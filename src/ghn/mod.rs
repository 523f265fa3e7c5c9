//! Graph hypernetworks: GHN-2, GHN-1 and the MLP baseline (arXiv 2110.13100, section 4; arXiv 1810.05749).
//!
//! In: networks with their graphs. Out: the weights of every network, in one forward pass, differentiable by the
//! hypernetwork's own tensors, and the mean node embedding, which serves property prediction.
//!
//! A node's primitive and shape are looked up in embeddings ([`Vocabulary`]), states pass along the graph
//! ([`crate::kernels::message_passing`]), decoders turn final states into tables of weights, and tables are tiled
//! and normalised into the flat parameter vector ([`crate::kernels::tiling`]).

mod config;
mod decoder;
mod model;
mod predict;
mod requests;
mod vocabulary;

pub use config::{Decoder, GhnConfig, Hypernet, Init, TensorSpec};
pub use model::Ghn;
pub use predict::{BatchPrediction, NodeStates, Prediction};
pub use vocabulary::Vocabulary;
