//! Trials, and a study as the list of them.

use super::{Event, SettingsDigest, Storage};
use crate::score::{Answers, Fidelity, Scores};
use crate::search::{Forecast, Ladder, StopReason};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialState {
    /// Chosen, without an outcome yet.
    Running,
    /// Scored.
    Finished,
    /// Its evaluation went wrong.
    Failed,
    /// It cannot be built or broke a limit.
    Rejected,
}

impl TrialState {
    /// The name used in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            TrialState::Running => "running",
            TrialState::Finished => "finished",
            TrialState::Failed => "failed",
            TrialState::Rejected => "rejected",
        }
    }
}

/// One candidate of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Number from 0, without gaps.
    pub number: u64,
    /// What became of it.
    pub state: TrialState,
    /// Why it failed or was rejected.
    pub reason: Option<String>,
    /// Canonical hash of the architecture.
    pub hash: String,
    /// The candidate.
    pub arch: CellArchitecture,
    /// Objective value, higher is better; only of a finished trial, and only where there is one objective.
    pub value: Option<f64>,
    /// All scores known.
    pub scores: Scores,
    /// When it was (last) started, ms since 1970 UTC.
    pub started_ms: u64,
    /// When its outcome was known, ms since 1970 UTC.
    pub finished_ms: Option<u64>,
    /// Seconds that its evaluation took; absent where none took place.
    pub wall_s: Option<f64>,
    /// Search time of the study when the outcome was known, s.
    pub elapsed_s: Option<f64>,
    /// Which images were classified correctly, in studies that race.
    pub answers: Option<Answers>,
    /// The trial that it could not reach, if it was dropped before the last image; its accuracy is an estimate.
    pub dropped_by: Option<u64>,
    /// Scores at higher fidelities, in the order in which they came. `value` and `scores` above are those with
    /// predicted weights.
    pub refined: Vec<Refinement>,
}

/// What a trial scored at a higher fidelity than `predicted`.
#[derive(Clone, Debug, PartialEq)]
pub struct Refinement {
    /// With which weights.
    pub fidelity: Fidelity,
    /// Objective value, higher is better; absent where there are several objectives or it went wrong.
    pub value: Option<f64>,
    /// What went wrong.
    pub reason: Option<String>,
    /// All scores.
    pub scores: Scores,
    /// When it was known, ms since 1970 UTC.
    pub finished_ms: u64,
    /// Seconds that it took.
    pub wall_s: f64,
    /// Search time of the study when it was known, s.
    pub elapsed_s: f64,
}

impl Trial {
    /// The refinement at `fidelity` that has scores.
    pub fn refinement(&self, fidelity: Fidelity) -> Option<&Refinement> {
        self.refined.iter().find(|refined| refined.fidelity == fidelity && refined.reason.is_none())
    }

    fn highest(&self) -> Option<&Refinement> {
        self.refined.iter().filter(|refined| refined.reason.is_none()).max_by_key(|refined| refined.fidelity)
    }

    /// The highest fidelity that it has scores at.
    pub fn fidelity(&self) -> Fidelity {
        self.highest().map_or(Fidelity::Predicted, |refined| refined.fidelity)
    }

    /// The scores at the highest fidelity.
    pub fn best_scores(&self) -> &Scores {
        self.highest().map_or(&self.scores, |refined| &refined.scores)
    }

    /// The objective value at the highest fidelity.
    pub fn best_value(&self) -> Option<f64> {
        self.highest().map_or(self.value, |refined| refined.value)
    }

    /// The scores of a finished trial at `fidelity`, if it was scored there.
    pub fn scores_at(&self, fidelity: Fidelity) -> Option<&Scores> {
        match fidelity {
            Fidelity::Predicted => (self.state == TrialState::Finished).then_some(&self.scores),
            fidelity => self.refinement(fidelity).map(|refined| &refined.scores),
        }
    }

    /// The objective value at `fidelity`, if there is one.
    pub fn value_at(&self, fidelity: Fidelity) -> Option<f64> {
        match fidelity {
            Fidelity::Predicted => self.value,
            fidelity => self.refinement(fidelity).and_then(|refined| refined.value),
        }
    }

    /// Whether it counts against a budget of trials: all do but those rejected before any compute.
    pub fn is_evaluated(&self) -> bool {
        !(self.state == TrialState::Rejected && self.wall_s.is_none())
    }

    /// The finished trial with the highest value among those of the highest fidelity; among equals the first.
    pub fn best_of(trials: &[Trial]) -> Option<&Trial> {
        trials
            .iter()
            .filter_map(|trial| Some((trial, trial.fidelity(), trial.best_value()?)))
            .max_by(|(a, f, x), (b, g, y)| f.cmp(g).then(x.total_cmp(y)).then(b.number.cmp(&a.number)))
            .map(|(trial, _, _)| trial)
    }
}

/// A study: storage and the trials rebuilt from it.
pub struct Study {
    storage: Box<dyn Storage>,
    history: History,
}

/// What events add up to.
#[derive(Debug, Default)]
struct History {
    trials: Vec<Trial>,
    elapsed_s: f64,
    stopped: Option<StopReason>,
    settings: SettingsDigest,
    /// All stages that began.
    stages: Vec<StageRecord>,
    /// Whether the last of them is still going on, or was when a session died or was interrupted.
    is_staged: bool,
}

/// A stage that began, as [`Event::Staged`] tells.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRecord {
    /// Its number in the ladder.
    pub stage: usize,
    /// How candidates are scored.
    pub fidelity: Fidelity,
    /// The trials that it scores anew, best first.
    pub trials: Vec<u64>,
    /// The stages as they were planned when it began, where the budget decides them.
    pub ladder: Option<Ladder>,
    /// What a predictor knew when it began.
    pub forecast: Option<Forecast>,
    /// How many trials there were when it began.
    pub after: u64,
    /// Those of its trials that were scored in it.
    pub scored: BTreeSet<u64>,
}

impl Study {
    /// The study that `storage` holds.
    ///
    /// # Errors
    /// The events contradict each other, as after edits by hand; the message names the line.
    pub fn open(storage: impl Storage + 'static) -> Result<Study> {
        let history = History::replay(&storage.events()?, storage.origin())?;
        Ok(Study { storage: Box::new(storage), history })
    }

    /// The trials of a list of events; `origin` is for messages.
    ///
    /// # Errors
    /// As [`Study::open`].
    pub fn trials_of(events: &[Event], origin: &std::path::Path) -> Result<Vec<Trial>> {
        Ok(History::replay(events, origin)?.trials)
    }

    /// All trials in the order of their numbers.
    pub fn trials(&self) -> &[Trial] {
        &self.history.trials
    }

    /// Search time of all sessions up to the last outcome, s.
    pub fn elapsed_s(&self) -> f64 {
        self.history.elapsed_s
    }

    /// Why the last session ended, if it ended in order.
    pub fn stopped(&self) -> Option<StopReason> {
        self.history.stopped
    }

    /// The settings that the search was first run with, as far as they were recorded.
    pub fn settings(&self) -> &SettingsDigest {
        &self.history.settings
    }

    /// The stages that began, oldest first; none in a study of one fidelity.
    pub fn stages(&self) -> &[StageRecord] {
        &self.history.stages
    }

    /// The stage that goes on, or that an interrupted or dead session left.
    pub fn stage(&self) -> Option<&StageRecord> {
        self.stages().last().filter(|_| self.history.is_staged)
    }

    /// Trials that count against a budget.
    pub fn evaluated(&self) -> u64 {
        self.trials().iter().filter(|trial| trial.is_evaluated()).count() as u64
    }

    /// The finished trial with the highest value; among equals the first. None where there are several objectives.
    pub fn best(&self) -> Option<&Trial> {
        Trial::best_of(self.trials())
    }

    /// Stores events, then takes them in.
    ///
    /// # Errors
    /// Storage refused them, and the study is as before; or they contradict what is known.
    pub fn record(&mut self, events: &[Event]) -> Result<()> {
        self.storage.append(events)?;
        for event in events {
            let applied = self.history.apply(event);
            applied.map_err(|reason| Error::format(self.storage.origin(), reason))?;
        }
        Ok(())
    }
}

impl History {
    fn replay(events: &[Event], origin: &std::path::Path) -> Result<History> {
        let mut history = History::default();
        for (i, event) in events.iter().enumerate() {
            // Line 1 is the header, and lines count from 1.
            history
                .apply(event)
                .map_err(|reason| Error::format(origin, format!("line {}: {reason}", i + 2)))?;
        }
        Ok(history)
    }

    fn running(&mut self, number: u64) -> Result<&mut Trial, String> {
        match self.trials.get_mut(number as usize) {
            None => Err(format!("trial {number} has an outcome but was never started")),
            Some(trial) if trial.state != TrialState::Running => {
                Err(format!("trial {number} has two outcomes, the first is \"{}\"", trial.state.name()))
            }
            Some(trial) => Ok(trial),
        }
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Opened { settings, .. } => {
                self.stopped = None;
                if self.settings.is_empty() {
                    self.settings.clone_from(settings);
                }
            }
            Event::Stopped { elapsed_s, reason, .. } => {
                self.elapsed_s = *elapsed_s;
                self.stopped = Some(*reason);
                // What was interrupted goes on where it was; what ended begins with the first stage.
                self.is_staged &= matches!(reason, StopReason::Interrupted);
            }
            Event::Staged { stage, fidelity, trials, elapsed_s, ladder, forecast, .. } => {
                if let Some(number) = trials.iter().find(|&&number| number >= self.trials.len() as u64) {
                    return Err(format!("stage {stage} takes trial {number}, which was never started"));
                }
                let after = self.trials.len() as u64;
                self.stages.push(StageRecord {
                    stage: *stage,
                    fidelity: *fidelity,
                    trials: trials.clone(),
                    ladder: ladder.clone(),
                    forecast: *forecast,
                    after,
                    scored: BTreeSet::new(),
                });
                self.is_staged = true;
                self.elapsed_s = self.elapsed_s.max(*elapsed_s);
            }
            Event::Refined { trial, time_ms, wall_s, elapsed_s, fidelity, value, reason, scores } => {
                let Some(of) = self.trials.get_mut(*trial as usize) else {
                    return Err(format!("trial {trial} is refined but was never started"));
                };
                if of.state != TrialState::Finished {
                    return Err(format!("trial {trial} is refined, but it is {}", of.state.name()));
                }
                if of.refined.iter().any(|refined| refined.fidelity == *fidelity) {
                    return Err(format!("trial {trial} has two outcomes at {fidelity}"));
                }
                of.refined.push(Refinement {
                    fidelity: *fidelity,
                    value: *value,
                    reason: reason.clone(),
                    scores: scores.clone(),
                    finished_ms: *time_ms,
                    wall_s: *wall_s,
                    elapsed_s: *elapsed_s,
                });
                if let Some(record) = self.stages.last_mut().filter(|record| record.fidelity == *fidelity) {
                    record.scored.insert(*trial);
                }
                self.elapsed_s = self.elapsed_s.max(*elapsed_s);
            }
            Event::Started { trial, time_ms, hash, arch } => {
                let known = self.trials.len() as u64;
                if *trial < known {
                    let earlier = self.running(*trial)?;
                    if earlier.hash != *hash {
                        return Err(format!("trial {trial} is started again with another architecture"));
                    }
                    earlier.started_ms = *time_ms;
                } else if *trial > known {
                    return Err(format!("trial {trial} is started, but trial {known} is missing"));
                } else {
                    self.trials.push(Trial {
                        number: *trial,
                        state: TrialState::Running,
                        reason: None,
                        hash: hash.clone(),
                        arch: arch.clone(),
                        value: None,
                        scores: Scores::default(),
                        started_ms: *time_ms,
                        finished_ms: None,
                        wall_s: None,
                        elapsed_s: None,
                        answers: None,
                        dropped_by: None,
                        refined: Vec::new(),
                    });
                }
            }
            Event::Finished { trial, time_ms, wall_s, elapsed_s, value, scores, answers, dropped_by } => {
                let state = TrialState::Finished;
                self.conclude(*trial, state, *time_ms, Some(*wall_s), *elapsed_s, Ok(*value), scores)?;
                let trial = &mut self.trials[*trial as usize];
                trial.answers.clone_from(answers);
                trial.dropped_by = *dropped_by;
            }
            Event::Failed { trial, time_ms, wall_s, elapsed_s, reason, scores } => {
                let state = TrialState::Failed;
                self.conclude(*trial, state, *time_ms, Some(*wall_s), *elapsed_s, Err(reason), scores)?;
            }
            Event::Rejected { trial, time_ms, wall_s, elapsed_s, reason, scores } => {
                let state = TrialState::Rejected;
                self.conclude(*trial, state, *time_ms, *wall_s, *elapsed_s, Err(reason), scores)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of three events, used here only")]
    fn conclude(
        &mut self,
        number: u64,
        state: TrialState,
        time_ms: u64,
        wall_s: Option<f64>,
        elapsed_s: f64,
        outcome: Result<Option<f64>, &String>,
        scores: &Scores,
    ) -> Result<(), String> {
        let trial = self.running(number)?;
        trial.state = state;
        trial.finished_ms = Some(time_ms);
        trial.wall_s = wall_s;
        trial.elapsed_s = Some(elapsed_s);
        trial.scores = scores.clone();
        (trial.value, trial.reason) = match outcome {
            Ok(value) => (value, None),
            Err(reason) => (None, Some(reason.clone())),
        };
        self.elapsed_s = self.elapsed_s.max(elapsed_s);
        Ok(())
    }
}
