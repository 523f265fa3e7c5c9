//! Scores of a candidate: accuracy, noise robustness, latency, cost, and those that need one batch at most.
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
mod resident;
mod scores;
mod synflow;
mod zero_cost;

pub use accuracy::{Accuracy, accuracy, noise_accuracy};
pub use agreement::{Agreement, Measure, bootstrap, kendall_tau, mean_ranks, spearman, top_regret, vote};
pub use answers::Answers;
pub use confusion::{Confusion, confusion};
pub use fidelity::Fidelity;
pub use latency::{Latency, LatencyOptions, latency};
pub use race::{Bar, Raced, race};
pub use resident::ResidentImages;
pub use scores::{NoiseScore, Scores};
pub use synflow::synflow;
pub use zero_cost::{gradient_norm, naswot};

#[cfg(test)]
mod fake;
