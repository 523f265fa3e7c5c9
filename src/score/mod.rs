//! Scores of a candidate: accuracy, noise robustness, latency and cost.

mod scores;

pub use scores::{NoiseScore, Scores};
