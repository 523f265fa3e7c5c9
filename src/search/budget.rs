//! When a search ends, and why it did.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much a study may spend, over all its sessions; whichever part runs out first ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Candidates that reach evaluation. Those rejected by their cost alone are free.
    pub trials: Option<u64>,
    /// Seconds of search. Candidates in flight at the end are finished.
    pub seconds: Option<f64>,
    /// Candidates in a row that bring nothing better: no higher value, or with several objectives no new member of
    /// the Pareto front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
}

impl Budget {
    /// Checks that the budget can be met and ends.
    ///
    /// # Errors
    /// No limit at all, zero trials or patience, or seconds that are not a positive number.
    pub fn check(&self) -> Result<()> {
        if self.trials == Some(0) {
            return Err(Error::Config("--trials 0: at least one trial is needed".into()));
        }
        if self.patience == Some(0) {
            return Err(Error::Config("--patience 0: at least one candidate is needed".into()));
        }
        if let Some(seconds) = self.seconds
            && !(seconds > 0.0 && seconds.is_finite())
        {
            return Err(Error::Config(format!("--seconds {seconds}: must be a positive number")));
        }
        if *self == Budget::default() {
            let needed = "a search needs --trials, --seconds or --patience, or it would never end";
            return Err(Error::Config(needed.into()));
        }
        Ok(())
    }

    /// The reason to stop for trials or time after `evaluated` candidates and `seconds` of search, if there is one.
    pub fn spent(&self, evaluated: u64, seconds: f64) -> Option<StopReason> {
        if self.trials.is_some_and(|limit| evaluated >= limit) {
            Some(StopReason::Trials)
        } else if self.seconds.is_some_and(|limit| seconds >= limit) {
            Some(StopReason::Seconds)
        } else {
            None
        }
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// The budget of trials is spent.
    Trials,
    /// The budget of seconds is spent.
    Seconds,
    /// Too many candidates in a row were no better.
    Patience,
    /// The strategy found no architecture that is not yet a trial.
    SpaceExhausted,
    /// Every one of many candidates in a row broke a limit before it was evaluated.
    LimitsTooTight,
    /// Every one of many candidates in a row failed.
    Failing,
    /// Every stage after the search for candidates is done.
    Refined,
    /// The user asked to stop.
    Interrupted,
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StopReason::Trials => "the budget of trials is spent",
            StopReason::Seconds => "the budget of seconds is spent",
            StopReason::Patience => "no better candidate came for as long as the patience lasts",
            StopReason::SpaceExhausted => {
                "the space is exhausted: every architecture found was already tried"
            }
            StopReason::LimitsTooTight => "the limits are too tight: too many candidates in a row broke them",
            StopReason::Failing => "too many candidates in a row failed",
            StopReason::Refined => "all stages are done",
            StopReason::Interrupted => "interrupted",
        })
    }
}
