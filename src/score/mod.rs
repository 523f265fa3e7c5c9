//! Scores of a candidate: accuracy, noise robustness, latency and cost.
//!
//! In: an executor made for the candidate's network, its weights, prepared images. Out: [`Scores`].

mod accuracy;
mod confusion;
mod fidelity;
mod latency;
mod scores;

pub use accuracy::{Accuracy, accuracy, noise_accuracy};
pub use confusion::{Confusion, confusion};
pub use fidelity::Fidelity;
pub use latency::{Latency, LatencyOptions, latency};
pub use scores::{NoiseScore, Scores};

#[cfg(test)]
mod fake;
