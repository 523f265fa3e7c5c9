//! The stages of a ladder inside the search loop: when one ends, whom the next takes, and what they score.

use super::{Driver, Job, Step};
use crate::score::{Bar, Fidelity, Scores};
use crate::search::{Ladder, Limits, Metric, Objective, Outcome, StopReason};
use crate::space::CellArchitecture;
use crate::study::stages::{Before, Choice, bar};
use crate::study::{Event, StageRecord, now_ms};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// How much longer than its estimate a training may take.
const SLACK: f64 = 1.02;

/// Candidates that a stage fitted to the time takes beyond its number; they begin only if there is time.
const SPARE: u64 = 3;

/// A stage above `predicted` at work.
pub(super) struct Rung {
    fidelity: Fidelity,
    queue: VecDeque<u64>,
    started: u64,
}

/// Whether candidates may be dropped before the last image: only if the accuracy alone decides.
pub(super) fn races(objective: &Objective, limits: &Limits) -> bool {
    matches!(objective.terms(), [(Metric::Accuracy, _)]) && limits.max_latency_ms.is_none()
}

impl Driver<'_> {
    /// The stage that an earlier session left.
    pub(super) fn go_on(&mut self) {
        let Some(record) = self.plan.ladder.and(self.study.stage()) else { return };
        self.stage = Some(record.stage);
        if let Some(ladder) = &record.ladder {
            self.ladder = Some(ladder.clone());
        }
        let fidelity = record.fidelity;
        let is_open = |number: &u64| {
            let refined = &self.study.trials()[*number as usize].refined;
            !refined.iter().any(|refined| refined.fidelity == fidelity)
        };
        let queue: VecDeque<u64> = record.trials.iter().copied().filter(is_open).collect();
        let started = (record.trials.len() - queue.len()) as u64;
        self.rung = fidelity.is_refined().then_some(Rung { fidelity, queue, started });
    }

    /// Begins `stage`, or says why there is none.
    pub(super) fn begin(&mut self, stage: usize) -> Result<Option<StopReason>> {
        // Nobody is at work, so the strategy can know all.
        self.tell_up_to(self.study.trials().len() as u64)?;
        let is_planned = self.plan_from(stage)?;
        let ladder = self.ladder.clone().unwrap_or_default();
        let Some(fidelity) = ladder.stages().get(stage).map(|stage| stage.fidelity) else {
            let seconds = self.plan.budget.seconds;
            let is_late = seconds.is_some_and(|seconds| self.elapsed_s() >= seconds);
            return Ok(Some(if is_late { StopReason::Seconds } else { StopReason::Refined }));
        };
        // Who is faster than was thought leaves time for more in the last stage.
        let spare = if is_planned && stage + 1 == ladder.stages().len() { SPARE } else { 0 };
        let foretell = |scored: &[(&CellArchitecture, f64)]| self.strategy.foretell(scored);
        let trials = match fidelity.is_refined() {
            true => {
                let (objective, vote) = (self.plan.objective, self.plan.vote);
                let before = Before::of(self.study.stages(), fidelity);
                let choice = Choice { objective, foretell: &foretell, vote, before };
                choice.taken(self.study.trials(), &ladder, stage, spare)?
            }
            false => Vec::new(),
        };
        let forecast = if stage > 0 { self.strategy.forecast()? } else { None };
        let (time_ms, elapsed_s) = (now_ms(), self.elapsed_s());
        self.study.record(&[Event::Staged {
            stage,
            time_ms,
            elapsed_s,
            fidelity,
            trials: trials.clone(),
            ladder: is_planned.then_some(ladder),
            forecast,
        }])?;
        self.stage = Some(stage);
        self.rung = fidelity.is_refined().then(|| Rung { fidelity, queue: trials.into(), started: 0 });
        Ok(None)
    }

    /// The next candidate of the rung, or the end of it.
    pub(super) fn climb(&mut self) -> Result<Option<Step>> {
        let stage = self.stage.unwrap_or(0);
        while let Some(rung) = &mut self.rung {
            let Some(trial) = rung.queue.pop_front() else {
                if self.in_flight > 0 {
                    return Ok(Some(Step::Wait));
                }
                return Ok(self.begin(stage + 1)?.map(Step::Stop));
            };
            let (fidelity, is_first) = (rung.fidelity, rung.started == 0);
            if !self.fits(stage, trial, fidelity, is_first) {
                continue;
            }
            if let Some(rung) = &mut self.rung {
                rung.started += 1;
            }
            let arch = self.study.trials()[trial as usize].arch.clone();
            let keep = match self.plan.weights {
                Some(weights) => Some(weights.prepared(trial, fidelity)?),
                None => None,
            };
            return Ok(Some(Step::Dispatch(Box::new(Job::Refine { trial, arch, fidelity, keep }))));
        }
        Ok(None)
    }

    /// Whether the time left allows to begin a candidate: before the end of the stage's share, though one of each
    /// stage may begin later, and never if it would last beyond the budget. In the last stage of a ladder that was
    /// fitted to the time a quarter of it may: what a whole candidate leaves unused is much of a short budget.
    fn fits(&self, stage: usize, trial: u64, fidelity: Fidelity, is_first: bool) -> bool {
        let Some((seconds, ladder)) = self.plan.budget.seconds.zip(self.ladder.as_ref()) else { return true };
        let elapsed_s = self.elapsed_s();
        let is_last = self.plan.ladder.is_some_and(Ladder::is_auto) && stage + 1 == ladder.stages().len();
        let lasts = self.estimate(trial, fidelity).unwrap_or(0.0) * if is_last { 0.75 } else { 1.0 };
        elapsed_s + lasts < seconds && (is_first || elapsed_s < seconds * ladder.end(stage))
    }

    /// Seconds that a refinement will take, from the trial's own last one, or the mean of those at the same fidelity.
    fn estimate(&self, trial: u64, fidelity: Fidelity) -> Option<f64> {
        let steps = |fidelity| self.plan.evaluator.steps(fidelity).filter(|&steps| steps > 0);
        let trial = &self.study.trials()[trial as usize];
        let by_steps = trial.refined.last().and_then(|own| {
            let times = steps(fidelity)? as f64 / steps(own.fidelity)? as f64;
            // Scoring takes no longer with other weights, on as many images.
            let scored = trial.wall_s.filter(|_| trial.dropped_by.is_none()).unwrap_or(0.0);
            let eval_times = |fidelity| self.plan.evaluator.eval_times(fidelity);
            let training_s = (own.wall_s - scored * eval_times(own.fidelity)).max(0.1 * own.wall_s);
            let scoring_s = (own.wall_s - training_s) * eval_times(fidelity) / eval_times(own.fidelity);
            Some(SLACK * (scoring_s + training_s * times))
        });
        by_steps.or_else(|| {
            let all = self.study.trials().iter().flat_map(|trial| &trial.refined);
            let same: Vec<f64> =
                all.filter(|refined| refined.fidelity == fidelity).map(|refined| refined.wall_s).collect();
            (!same.is_empty()).then(|| same.iter().sum::<f64>() / same.len() as f64)
        })
    }

    /// What trial `number` has to reach to be scored on all images; the same whenever it is asked.
    pub(super) fn bar(&self, number: u64) -> Option<Bar> {
        let (widest, known) = (self.plan.ladder?.widest()?, self.known_to(number));
        // A vote chooses out of the better half.
        let count = if self.plan.vote { widest.max(known.div_ceil(2)) } else { widest };
        // Who is to be trained may be somebody else than the best with predicted weights: with a predictor, and among the
        // children of those that were trained.
        let is_chosen = |record: &StageRecord| {
            let is_bred = self.plan.vote && record.fidelity.is_refined();
            is_bred || record.forecast.is_some_and(|forecast| forecast.chooses)
        };
        if self.study.stages().iter().any(|record| record.after <= number && is_chosen(record)) {
            return None;
        }
        if !races(self.plan.objective, &self.plan.limits) {
            return None;
        }
        bar(self.study.trials(), known, count)
    }

    /// Tells the strategy the outcomes of stages whose turn has come: just when it knows all trials before them.
    pub(super) fn tell_stages(&mut self) -> Result<()> {
        while let Some(record) = self.study.stages().get(self.told_stages) {
            if record.after > self.told {
                return Ok(());
            }
            for &number in record.trials.iter().filter(|number| record.scored.contains(number)) {
                let trial = &self.study.trials()[number as usize];
                let Some(refined) = trial.refined.iter().find(|r| r.fidelity == record.fidelity) else {
                    continue;
                };
                let merits = match (&refined.reason, refined.value) {
                    (Some(_), _) => None,
                    (None, Some(value)) => Some(vec![value]),
                    (None, None) => Some(self.plan.objective.merits(&refined.scores)?),
                };
                let chosen_after = Some(self.known_to(number));
                let (arch, merits) = (&trial.arch, merits.as_deref());
                let outcome = Outcome { trial: number, arch, merits, chosen_after };
                self.strategy.tell_refined(outcome, record.fidelity);
            }
            self.told_stages += 1;
        }
        Ok(())
    }

    /// Records what a refinement came to.
    pub(super) fn conclude_refined(
        &mut self,
        trial: u64,
        fidelity: Fidelity,
        wall_s: f64,
        result: Result<Scores>,
    ) -> Result<()> {
        let known = &self.study.trials()[trial as usize].scores;
        let outcome = match result {
            // Left without outcome: a resume runs it again.
            Err(Error::Interrupted) => {
                self.plan.interrupted.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => Err((error.to_string(), Scores::default())),
            Ok(scores) => {
                let scores = scores.or(known);
                match (scores.first_non_finite(), self.plan.objective.merits(&scores)) {
                    (Some(name), _) => Err((format!("the score {name} is not a finite number"), scores)),
                    (None, Err(error)) => Err((error.to_string(), scores)),
                    (None, Ok(merits)) => Ok(((!self.plan.objective.is_pareto()).then(|| merits[0]), scores)),
                }
            }
        };
        let (value, reason, scores) = match outcome {
            Ok((value, scores)) => (value, None, scores),
            Err((reason, scores)) => (None, Some(reason), scores.finite()),
        };
        let (time_ms, elapsed_s) = (now_ms(), self.elapsed_s());
        self.study.record(&[Event::Refined {
            trial,
            time_ms,
            wall_s,
            elapsed_s,
            fidelity,
            value,
            reason,
            scores,
        }])?;
        if let Some(weights) = self.plan.weights {
            weights.prune(self.study.trials(), self.plan.objective)?;
        }
        (self.watch)(self.study);
        Ok(())
    }
}
