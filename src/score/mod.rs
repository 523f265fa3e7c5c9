//! Scores of a candidate: accuracy, noise robustness, latency and cost.
//!
//! How far scores agree about an order is measured here too.
//!
//! In: an executor made for the candidate's network, its weights, prepared images. Out: [`Scores`].

mod accuracy;
mod agreement;
mod answers;
mod confusion;
mod fidelity;
mod latency;
mod race;
mod scores;

pub use accuracy::{Accuracy, accuracy, noise_accuracy};
pub use agreement::{Agreement, Measure, bootstrap, kendall_tau, mean_ranks, spearman, top_regret};
pub use answers::Answers;
pub use confusion::{Confusion, confusion};
pub use fidelity::Fidelity;
pub use latency::{Latency, LatencyOptions, latency};
pub use race::{Bar, Raced, race};
pub use scores::{NoiseScore, Scores};

#[cfg(test)]
mod fake;
