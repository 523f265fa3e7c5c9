//! Scores of a candidate: accuracy, noise robustness, latency, cost, and those that need one batch at most.
//!
//! In: an executor made for the candidate's network, its weights, prepared images. Out: [`Scores`].

mod accuracy;
mod confusion;
mod latency;
mod scores;
mod synflow;
mod zero_cost;

pub use accuracy::{Accuracy, accuracy, noise_accuracy};
pub use confusion::{Confusion, confusion};
pub use latency::{Latency, LatencyOptions, latency};
pub use scores::{NoiseScore, Scores};
pub use synflow::synflow;
pub use zero_cost::{gradient_norm, naswot};

#[cfg(test)]
mod fake;
