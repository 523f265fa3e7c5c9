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
mod fit;
mod forecast;
mod ladder;
mod limits;
mod local;
mod nsga2;
mod objective;
mod pareto;
mod random;
mod screened;
mod strategy;

pub use budget::{Budget, StopReason};
pub use evolution::{Parents, RegularisedEvolution};
pub use fit::Speed;
pub use forecast::Forecast;
pub use ladder::{Ladder, Stage};
pub use limits::Limits;
pub use local::LocalSearch;
pub use nsga2::Nsga2;
pub use objective::{Metric, Objective};
pub use pareto::{Front, crowding, dominates, fronts, hypervolume};
pub use random::Random;
pub use screened::{Screen, Screened};
pub use strategy::{Outcome, Proposals, Strategy, StrategySettings, proposal_rng, trial_seed};

use crate::score::{Answers, Bar, Fidelity, Scores};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Scores at `predicted`, perhaps on a part of the images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The scores.
    pub scores: Scores,
    /// Which images were classified correctly, if all were seen.
    pub answers: Option<Answers>,
    /// The trial whose bar was out of reach, if the candidate was dropped; the scores are then estimates.
    pub dropped_by: Option<u64>,
}

/// A candidate to be scored with trained weights.
pub struct Refine<'a> {
    /// The candidate.
    pub arch: &'a CellArchitecture,
    /// How far its weights are trained.
    pub fidelity: Fidelity,
    /// File that the trained weights are written to.
    pub keep: Option<&'a Path>,
    /// Becomes true when the training is to end early, with [`Error::Interrupted`].
    pub stop: &'a AtomicBool,
}

/// Turns an architecture into scores. The real one predicts weights and runs images; tests use a formula.
pub trait Evaluator: Sync {
    /// Cheap exact costs (parameters, MACs, peak activations) before any compute; an error rejects the candidate.
    fn cost(&self, arch: &CellArchitecture) -> Result<Scores>;

    /// All scores with predicted weights. `seed` is the trial's own. Deterministic but for the times.
    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> Result<Scores>;

    /// As [`Evaluator::evaluate`], but may end early once `bar` is out of the candidate's reach.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    fn race(&self, arch: &CellArchitecture, seed: u64, bar: Option<&Bar>) -> Result<Measured> {
        let _ = bar;
        Ok(Measured { scores: self.evaluate(arch, seed)?, ..Measured::default() })
    }

    /// Scores with trained weights; times may be left out, since weights do not change them.
    ///
    /// # Errors
    /// Training diverges, is interrupted, or this evaluator cannot train.
    fn refine(&self, task: &Refine<'_>) -> Result<Scores> {
        Err(Error::Config(format!("{} needs an evaluator that trains", task.fidelity)))
    }

    /// Seconds of a step of SGD on a candidate, measured on a few steps now; none if it cannot be told.
    ///
    /// # Errors
    /// Training fails.
    fn step_seconds(&self, arch: &CellArchitecture) -> Result<Option<f64>> {
        let _ = arch;
        Ok(None)
    }

    /// How many times as many images candidates are scored on at a fidelity as with predicted weights.
    fn eval_times(&self, fidelity: Fidelity) -> f64 {
        let _ = fidelity;
        1.0
    }

    /// Optimiser steps of a fidelity, if they are known.
    fn steps(&self, fidelity: Fidelity) -> Option<u64> {
        match fidelity {
            Fidelity::Predicted => Some(0),
            Fidelity::He { steps } | Fidelity::Sgd { steps } => Some(steps),
            Fidelity::Trained => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
pub(crate) mod formula;
#[cfg(test)]
mod tests;
