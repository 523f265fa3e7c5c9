//! Leaderboards: finished trials from best to worst, then the others.
//!
//! Where trials were scored with trained weights, those of the highest fidelity stand first and every score is the one
//! at the highest fidelity that its trial reached.

use super::frame::{frame, frame_error, insert_fronts};
use super::pareto::fronts_reached;
use super::table::{aligned, count_of, or_dash, percent, with_prefix};
use crate::search::Objective;
use crate::study::{Trial, TrialState};
use crate::{Error, Result};
use polars::prelude::{DataFrame, NamedFrom, Series};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

/// What a leaderboard is sorted by, best first: gains descend, costs ascend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The highest fidelity reached, descending; then the objective value, descending, or with several objectives the
    /// number of the front, ascending, then the first objective.
    Objective,
    /// Clean accuracy, descending.
    Accuracy,
    /// Accuracy under noise, descending.
    Robustness,
    /// Median latency, ascending.
    Latency,
    /// Cross entropy, ascending.
    Loss,
    /// Parameters, ascending.
    Params,
    /// Multiply-accumulates, ascending.
    Macs,
    /// Time of prediction, ascending.
    Predict,
    /// Number, ascending.
    Trial,
}

impl SortKey {
    /// All keys.
    pub const ALL: [SortKey; 9] = [
        SortKey::Objective,
        SortKey::Accuracy,
        SortKey::Robustness,
        SortKey::Latency,
        SortKey::Loss,
        SortKey::Params,
        SortKey::Macs,
        SortKey::Predict,
        SortKey::Trial,
    ];

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            SortKey::Objective => "objective",
            SortKey::Accuracy => "accuracy",
            SortKey::Robustness => "robustness",
            SortKey::Latency => "latency",
            SortKey::Loss => "loss",
            SortKey::Params => "params",
            SortKey::Macs => "macs",
            SortKey::Predict => "predict",
            SortKey::Trial => "trial",
        }
    }

    /// A number that is larger for better trials.
    fn merit(self, trial: &Trial) -> Option<f64> {
        let scores = trial.best_scores();
        match self {
            SortKey::Objective => trial.best_value(),
            SortKey::Accuracy => scores.accuracy,
            SortKey::Robustness => scores.robustness,
            SortKey::Latency => scores.latency_ms.map(|ms| -ms),
            SortKey::Loss => scores.loss.map(|loss| -loss),
            SortKey::Params => scores.params.map(|n| -(n as f64)),
            SortKey::Macs => scores.macs.map(|n| -(n as f64)),
            SortKey::Predict => scores.predict_ms.map(|ms| -ms),
            SortKey::Trial => Some(-(trial.number as f64)),
        }
    }
}

impl FromStr for SortKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<SortKey> {
        SortKey::ALL.into_iter().find(|key| key.name() == text).ok_or_else(|| {
            let known = SortKey::ALL.map(SortKey::name).join(", ");
            Error::Config(format!("unknown sort key \"{text}\"; known are {known}"))
        })
    }
}

/// Trials in the order of a leaderboard.
pub struct Leaderboard<'a> {
    trials: Vec<&'a Trial>,
    /// Finished trials, which stand first and have ranks.
    ranked: usize,
    /// With several objectives, the front of each finished trial.
    fronts: Option<BTreeMap<u64, u64>>,
}

impl<'a> Leaderboard<'a> {
    /// Sorts trials of one objective: finished ones by `key`, those without that score behind them, then trials that
    /// did not finish. Equal trials stand in the order of their numbers.
    pub fn new(trials: &'a [Trial], key: SortKey) -> Leaderboard<'a> {
        Leaderboard::sorted(trials, key, |trial| key.merit(trial).map(|merit| [merit, 0.0]), None)
    }

    /// As [`Leaderboard::new`], and with several objectives the front of each trial is shown and sorted by.
    pub fn of(trials: &'a [Trial], key: SortKey, objective: &Objective) -> Leaderboard<'a> {
        if !objective.is_pareto() {
            return Leaderboard::new(trials, key);
        }
        let fronts = fronts_reached(trials, objective);
        let merit = |trial: &Trial| match key {
            SortKey::Objective => {
                let first = objective.merits(trial.best_scores()).ok()?[0];
                Some([-(*fronts.get(&trial.number)? as f64), first])
            }
            _ => key.merit(trial).map(|merit| [merit, 0.0]),
        };
        Leaderboard::sorted(trials, key, merit, Some(fronts.clone()))
    }

    fn sorted(
        trials: &'a [Trial],
        key: SortKey,
        merit: impl Fn(&Trial) -> Option<[f64; 2]>,
        fronts: Option<BTreeMap<u64, u64>>,
    ) -> Leaderboard<'a> {
        let (mut finished, others): (Vec<&Trial>, Vec<&Trial>) =
            trials.iter().partition(|trial| trial.state == TrialState::Finished);
        // Values of other fidelities cannot be compared.
        let level = |trial: &Trial| (key == SortKey::Objective).then(|| trial.fidelity());
        finished.sort_by(|a, b| match (merit(a), merit(b)) {
            (Some(x), Some(y)) => {
                let by_merit = y[0].total_cmp(&x[0]).then(y[1].total_cmp(&x[1]));
                level(b).cmp(&level(a)).then(by_merit).then(a.number.cmp(&b.number))
            }
            (x, y) => y.is_some().cmp(&x.is_some()).then(a.number.cmp(&b.number)),
        });
        let ranked = finished.len();
        finished.extend(others);
        Leaderboard { trials: finished, ranked, fronts }
    }

    /// The finished trials, best first.
    pub fn ranked(&self) -> &[&'a Trial] {
        &self.trials[..self.ranked]
    }

    /// A frame of all trials in this order, the first column their `rank` (null if not finished).
    ///
    /// # Errors
    /// See [`frame`].
    pub fn frame(&self) -> Result<DataFrame> {
        let mut frame = frame(&self.trials)?;
        if let Some(fronts) = &self.fronts {
            insert_fronts(&mut frame, &self.trials, fronts)?;
        }
        let ranks: Vec<Option<u64>> =
            (0..self.trials.len()).map(|i| (i < self.ranked).then_some(i as u64 + 1)).collect();
        frame.insert_column(0, Series::new("rank".into(), ranks).into()).map_err(frame_error)?;
        Ok(frame)
    }

    /// The first `top` ranks as an aligned table of text, and a line that counts the trials.
    pub fn table(&self, top: usize) -> String {
        let is_refined = self.trials.iter().any(|trial| !trial.refined.is_empty());
        let mut header = vec!["rank", "trial"];
        header.extend(is_refined.then_some("weights"));
        header.push(if self.fronts.is_some() { "front" } else { "objective" });
        header.extend(["accuracy", "robustness", "latency", "params", "MACs", "hash", "network"]);
        let mut rows: Vec<Vec<String>> = vec![header.into_iter().map(String::from).collect()];
        for (i, trial) in self.ranked().iter().take(top).enumerate() {
            let scores = trial.best_scores();
            let accuracy = match (scores.accuracy, scores.accuracy_se) {
                (Some(share), Some(se)) => format!("{:.2} ± {:.2} %", 100.0 * share, 100.0 * se),
                (share, _) => or_dash(share.map(percent)),
            };
            let mut row = vec![(i + 1).to_string(), trial.number.to_string()];
            row.extend(is_refined.then(|| trial.fidelity().to_string()));
            row.push(or_dash(match &self.fronts {
                Some(fronts) => fronts.get(&trial.number).map(u64::to_string),
                None => trial.best_value().map(|value| format!("{value:.4}")),
            }));
            row.extend([
                accuracy,
                or_dash(scores.robustness.map(percent)),
                or_dash(scores.latency_ms.map(|ms| format!("{ms:.2} ms"))),
                or_dash(scores.params.map(with_prefix)),
                or_dash(scores.macs.map(with_prefix)),
                trial.hash.chars().take(8).collect(),
                network(trial),
            ]);
            rows.push(row);
        }
        let mut text = if self.ranked > 0 { aligned(&rows, 2) } else { String::new() };
        let count = |state: TrialState| self.trials.iter().filter(|trial| trial.state == state).count();
        let mut counts = format!("{}: {} finished", count_of(self.trials.len(), "trial"), self.ranked);
        for state in [TrialState::Failed, TrialState::Rejected, TrialState::Running] {
            if count(state) > 0 {
                let _ = write!(counts, ", {} {}", count(state), state.name());
            }
        }
        if let Some(fronts) = &self.fronts {
            let _ = write!(counts, ", {} on the Pareto front", fronts.values().filter(|&&f| f == 1).count());
        }
        text += &counts;
        text + "\n"
    }
}

/// Size of the network, and the operations of its normal cell.
fn network(trial: &Trial) -> String {
    let mut ops: Vec<&str> = trial.arch.genotype.normal.iter().map(|edge| edge.0.name()).collect();
    ops.sort_unstable();
    ops.dedup();
    format!("{} cells, C {}: {}", trial.arch.n_cells, trial.arch.channels, ops.join(" "))
}
