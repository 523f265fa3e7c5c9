//! What can happen in a study, as it is written to storage.

use super::SettingsDigest;
use crate::score::{Answers, Fidelity, Scores};
use crate::search::{Budget, Forecast, Ladder, StopReason};
use crate::space::CellArchitecture;
use serde::{Deserialize, Serialize};

/// One event. Times are milliseconds since 1970 UTC; `elapsed_s` is the search time of all sessions so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Event {
    /// A process began or resumed the search.
    Opened {
        /// When.
        time_ms: u64,
        /// Version of the program.
        version: String,
        /// Evaluations at once.
        workers: usize,
        /// What this session may spend.
        budget: Budget,
        /// Digest of the settings; absent in studies of earlier versions.
        #[serde(default, skip_serializing_if = "SettingsDigest::is_empty")]
        settings: SettingsDigest,
    },
    /// A candidate was chosen; again for one that an earlier session left unfinished.
    Started {
        /// Number of the trial, from 0 without gaps.
        trial: u64,
        /// When.
        time_ms: u64,
        /// Canonical hash of the architecture.
        hash: String,
        /// The candidate.
        arch: CellArchitecture,
    },
    /// A candidate was scored.
    Finished {
        /// Number of the trial.
        trial: u64,
        /// When.
        time_ms: u64,
        /// Seconds that the evaluation took.
        wall_s: f64,
        /// Search time so far, s.
        elapsed_s: f64,
        /// Objective value, higher is better; absent where there are several objectives, whose merits derive from
        /// the scores.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
        /// All scores.
        scores: Scores,
        /// Which images were classified correctly; in studies that race, for a candidate that saw all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<Answers>,
        /// The trial that the candidate could not reach, if it was dropped before the last image; its accuracy is
        /// then an estimate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped_by: Option<u64>,
    },
    /// The evaluation of a candidate went wrong.
    Failed {
        /// Number of the trial.
        trial: u64,
        /// When.
        time_ms: u64,
        /// Seconds that the evaluation took.
        wall_s: f64,
        /// Search time so far, s.
        elapsed_s: f64,
        /// What went wrong.
        reason: String,
        /// The costs that were known.
        scores: Scores,
    },
    /// A candidate cannot be built or broke a limit.
    Rejected {
        /// Number of the trial.
        trial: u64,
        /// When.
        time_ms: u64,
        /// Seconds that the evaluation took; absent if the candidate was rejected before it.
        wall_s: Option<f64>,
        /// Search time so far, s.
        elapsed_s: f64,
        /// The limit that was broken.
        reason: String,
        /// The scores that were known.
        scores: Scores,
    },
    /// A stage of a study with several fidelities began.
    Staged {
        /// Number of the stage, from 0.
        stage: usize,
        /// When.
        time_ms: u64,
        /// Search time so far, s.
        elapsed_s: f64,
        /// How candidates are scored.
        fidelity: Fidelity,
        /// The trials that it scores anew, best first; none at `predicted`, where candidates are proposed.
        trials: Vec<u64>,
        /// The stages as the time that is left and the measured speed let them be planned now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ladder: Option<Ladder>,
        /// What a predictor knows now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forecast: Option<Forecast>,
    },
    /// A finished trial was scored at a higher fidelity, or could not be.
    Refined {
        /// Number of the trial.
        trial: u64,
        /// When.
        time_ms: u64,
        /// Seconds that it took.
        wall_s: f64,
        /// Search time so far, s.
        elapsed_s: f64,
        /// With which weights.
        fidelity: Fidelity,
        /// Objective value, higher is better; absent where there are several objectives or it went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// All scores.
        scores: Scores,
    },
    /// The search ended in order.
    Stopped {
        /// When.
        time_ms: u64,
        /// Search time so far, s.
        elapsed_s: f64,
        /// Why.
        reason: StopReason,
        /// What a predictor knew in the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forecast: Option<Forecast>,
    },
}
