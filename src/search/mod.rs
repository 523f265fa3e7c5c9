//! Search: what is proposed next, what counts as good, and when it ends.
//!
//! In: a space to draw from ([`Proposals`]), an [`Evaluator`], an [`Objective`], [`Limits`] and a [`Budget`].
//! Out: the next architecture. A [`Strategy`] is asked for a candidate and told outcomes; the loop that joins it
//! with evaluation and storage is [`crate::study::run`].
//!
//! Everything random about trial `n` derives from (study seed, `n`), and asking leaves a strategy unchanged, so
//! its state is a function of what it was told: a resumed search replays the outcomes and goes on identically.

mod budget;
mod evolution;
mod limits;
mod local;
mod nsga2;
mod objective;
mod pareto;
mod random;
mod strategy;

pub use budget::{Budget, StopReason};
pub use evolution::RegularisedEvolution;
pub use limits::Limits;
pub use local::LocalSearch;
pub use nsga2::Nsga2;
pub use objective::{Metric, Objective};
pub use pareto::{Front, crowding, dominates, fronts, hypervolume};
pub use random::Random;
pub use strategy::{Outcome, Proposals, Strategy, StrategySettings, proposal_rng, trial_seed};

use crate::score::Scores;
use crate::space::CellArchitecture;

/// Turns an architecture into scores. The real one predicts weights and runs images; tests use a formula.
pub trait Evaluator: Sync {
    /// Cheap exact costs (parameters, MACs, peak activations) before any compute; an error rejects the candidate.
    fn cost(&self, arch: &CellArchitecture) -> crate::Result<Scores>;

    /// All scores. `seed` is the trial's own. Deterministic but for the times.
    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> crate::Result<Scores>;
}

#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
pub(crate) mod formula;
#[cfg(test)]
mod tests;
