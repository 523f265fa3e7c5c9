//! Ladders that fit the budget, inside the search loop: what is measured, and when stages are planned.
//!
//! A plan depends on the clock, so it is recorded with the stage that begins, and a resume goes on by the recorded one.

use super::Driver;
use crate::Result;
use crate::score::Fidelity;
use crate::search::{Ladder, Speed};
use crate::study::stages::ranked_at;
use crate::study::{Trial, TrialState};

/// Candidates that are timed before the first stage of training.
const TIMED: usize = 5;

impl Driver<'_> {
    /// Plans the stages from `stage` on, if they are to fit a budget of seconds; whether they were.
    pub(super) fn plan_from(&mut self, stage: usize) -> Result<bool> {
        let Some((seconds, asked)) = self.plan.budget.seconds.zip(self.plan.ladder) else { return Ok(false) };
        if !asked.is_auto() {
            return Ok(false);
        }
        if stage == 0 {
            // A search that goes on with more time begins with the first stage.
            self.ladder = Some(asked.clone());
            return Ok(false);
        }
        let is_first = self.ladder.as_ref().is_none_or(Ladder::is_auto);
        let Some(speed) = self.speed(seconds)? else { return Ok(!is_first) };
        self.ladder = Some(match &self.ladder {
            Some(ladder) if !is_first => ladder.fitted_from(stage, &speed),
            _ => Ladder::fitting(&speed),
        });
        Ok(true)
    }

    /// How fast training is: of the candidates that were trained longest so far, else of the best found, timed now.
    /// Nothing if it cannot be told.
    fn speed(&self, seconds: f64) -> Result<Option<Speed>> {
        let trials = self.study.trials();
        let finished: Vec<&Trial> =
            trials.iter().filter(|trial| trial.state == TrialState::Finished).collect();
        let ranked = ranked_at(trials, self.plan.objective, Fidelity::Predicted)?;
        let steps = |fidelity| self.plan.evaluator.steps(fidelity).filter(|&steps| steps > 0);
        // Scoring takes as long with other weights, on as many images; who was dropped early tells too little.
        let scored = finished.iter().filter(|trial| trial.dropped_by.is_none());
        let scoring_s = mean(&scored.filter_map(|trial| trial.wall_s).collect::<Vec<f64>>()).unwrap_or(0.0);
        let workers = self.plan.workers as f64;
        let highest = trials.iter().map(Trial::fidelity).max().unwrap_or(Fidelity::Predicted);
        let scoring_of_highest_s = scoring_s * self.plan.evaluator.eval_times(highest);
        let of_trainings: Vec<f64> = trials
            .iter()
            .filter_map(|trial| trial.refinement(highest))
            .filter_map(|refined| {
                Some(
                    (refined.wall_s - scoring_of_highest_s).max(0.1 * refined.wall_s)
                        / steps(highest)? as f64
                        / workers,
                )
            })
            .collect();
        let step_s = match mean(&of_trainings) {
            Some(step_s) => step_s,
            None => {
                let mut timed = Vec::new();
                for &number in ranked.iter().take(TIMED) {
                    // One that cannot be trained is none to plan by.
                    timed.extend(
                        self.plan.evaluator.step_seconds(&trials[number as usize].arch).ok().flatten(),
                    );
                }
                match mean(&timed) {
                    Some(step_s) => step_s,
                    None => return Ok(None),
                }
            }
        };
        let elapsed_s = self.elapsed_s();
        Ok(Some(Speed {
            left_s: (seconds - elapsed_s).max(0.0),
            elapsed_s,
            step_s,
            scoring_s: scoring_s / workers,
            candidates: finished.len() as u64,
            whole: self.plan.evaluator.steps(Fidelity::Trained),
            lessons: self.strategy.lessons(),
        }))
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
