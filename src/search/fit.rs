//! Ladders that fit a budget of seconds: how many candidates train for how many steps in the time that is left.
//!
//! In: the time, and the measured [`Speed`] of training. Out: a [`Ladder`] with steps and counts. It is planned when
//! the first candidates are found, and again whenever a stage begins, with the speed of all trainings so far.
//!
//! Successive halving: five candidates in the last stage, three times as many at a third of the steps in the stage
//! before it, and so on; every stage takes the same time, and there are as many as leave the first one at least 60
//! steps. They train from He's random weights: candidates were found by their predicted weights, and steps that begin
//! at these would repeat their verdict. Time for one stage only is spent on steps from predicted weights, which are the
//! best that few steps can give.
//!
//! If the first stage is large enough to learn from, it goes in up to four rounds with another search for candidates
//! between: children of the best that were trained so far, or what a predictor likes. Where that leaves enough steps, it
//! takes twice as many in twice the time.
//! Where training to the end fits into the last stage, that is it, with as many candidates as fit.

use super::ladder::{Ladder, Stage};
use crate::score::Fidelity;

/// Candidates of the last stage.
const TOP: u64 = 5;
/// How many times as many the stage before takes.
const RATIO: u64 = 3;
/// Stages of training at most.
const RUNGS: u32 = 4;
/// Steps of the first stage at least, where there are several.
const STEPS: f64 = 60.0;
/// Part of the time left that is planned for; the rest is for candidates that are slower than the mean.
const FILL: f64 = 0.95;
/// Rounds of the first stage at most, where what one teaches serves the next.
const ROUNDS: u64 = 4;
/// How many times as many the first stage takes then, in as many times the time.
const WIDE: u64 = 2;
/// Part of the time for training that goes to the searches for candidates between rounds.
const SEARCH: f64 = 0.12;
/// How many times the steps of the stage before it a stage is worth beginning for.
const WORTH: f64 = 1.5;
/// Candidates of a round beyond what is needed to learn from: some trainings may fail.
const SPARE: u64 = 2;

/// The fidelity of so many steps.
type From = fn(u64) -> Fidelity;
const HE: From = |steps| Fidelity::He { steps };
const PREDICTED: From = |steps| Fidelity::Sgd { steps };

/// How fast candidates are trained, and what else decides a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Seconds until the budget is spent.
    pub left_s: f64,
    /// Seconds of search so far.
    pub elapsed_s: f64,
    /// Mean seconds of a step.
    pub step_s: f64,
    /// Mean seconds to score a candidate once it is trained.
    pub scoring_s: f64,
    /// Candidates that were scored with predicted weights.
    pub candidates: u64,
    /// Steps of training to the end.
    pub whole: Option<u64>,
    /// Trained candidates that the search needs to learn from, if it does.
    pub lessons: Option<u64>,
}

impl Speed {
    /// Steps that each of `count` candidates can take in `seconds`.
    fn steps(&self, seconds: f64, count: u64) -> f64 {
        (seconds / count as f64 - self.scoring_s) / self.step_s.max(1e-9)
    }

    /// Time of `count` candidates with `steps` each.
    fn seconds(&self, steps: u64, count: u64) -> f64 {
        count as f64 * (steps as f64 * self.step_s + self.scoring_s)
    }

    /// A stage of `seconds` that trains `count` candidates `from` some weights, fewer if they could not take `least`
    /// steps; training to the end, if there is time for it. Nothing if not even one could take them.
    fn stage(&self, seconds: f64, count: u64, least: f64, from: From) -> Option<Stage> {
        let count = (1..=count).rev().find(|&count| self.steps(seconds, count) >= least.max(1.0))?;
        let steps = self.steps(seconds, count) as u64;
        let (fidelity, count) = match self.whole.filter(|&whole| steps >= whole) {
            None => (from(steps), count),
            Some(whole) => {
                let fitting = (seconds / self.seconds(whole, 1)) as u64;
                (Fidelity::Trained, fitting.clamp(count, self.candidates.div_ceil(2).max(count)))
            }
        };
        Some(Stage { fidelity, count: Some(count), share: rounded(seconds) })
    }

    /// The stage of `count` candidates again, in `seconds`, after `stages` and before `rest`; nothing if it is not worth
    /// it.
    fn rung(&self, seconds: f64, count: u64, rest: &[Stage], stages: &[Stage]) -> Option<Stage> {
        let before = stages.iter().map(|stage| trained_steps(stage, self.whole)).max();
        let least = WORTH * before.unwrap_or(0) as f64;
        let rungs = rest.iter().filter(|stage| stage.count.is_some()).count();
        if rungs == 0 {
            // The last takes fewer candidates rather than fewer steps, and more only if they are trained to the end.
            let is_alone = stages.iter().all(|stage| stage.count.is_none());
            return self.stage(seconds, count.min(TOP), least, if is_alone { PREDICTED } else { HE });
        }
        let most = self.whole.map_or(f64::INFINITY, |whole| whole as f64 / (RATIO as f64).powi(rungs as i32));
        let steps = self.steps(seconds, count).min(most);
        let fidelity = Fidelity::He { steps: steps as u64 };
        let share = rounded(self.seconds(steps as u64, count).min(seconds));
        (steps >= least.max(1.0)).then_some(Stage { fidelity, count: Some(count), share })
    }
}

/// A share in tenths of seconds.
fn rounded(seconds: f64) -> f64 {
    (10.0 * seconds).round().max(1.0) / 10.0
}

fn searching(seconds: f64) -> Stage {
    Stage { fidelity: Fidelity::Predicted, count: None, share: rounded(seconds) }
}

fn trained_steps(stage: &Stage, whole: Option<u64>) -> u64 {
    match stage.fidelity {
        Fidelity::Predicted => 0,
        Fidelity::He { steps } | Fidelity::Sgd { steps } => steps,
        Fidelity::Trained => whole.unwrap_or(u64::MAX),
    }
}

impl Ladder {
    /// The stages that fit, after a first one that searched.
    pub fn fitting(speed: &Speed) -> Ladder {
        let mut stages = vec![searching(speed.elapsed_s)];
        let time = FILL * speed.left_s;
        let half = speed.candidates.div_ceil(2);
        let shapes = (1..=RUNGS).rev().flat_map(|rungs| [(rungs, WIDE), (rungs, 1)]);
        let rungs =
            shapes.into_iter().find_map(|(rungs, wide)| Ladder::rungs(rungs, wide, time, half, speed));
        match rungs.or_else(|| Some(vec![speed.stage(time, TOP.min(half), 1.0, PREDICTED)?])) {
            Some(rungs) => stages.extend(rungs),
            // Not one step: candidates with predicted weights are all that there is time for.
            None => stages.push(searching(time)),
        }
        Ladder::of(stages)
    }

    /// So many stages of training, the first of them so many times as wide as successive halving has it, if it leaves
    /// enough steps and, where it is wider, is worth rounds.
    fn rungs(rungs: u32, wide: u64, time: f64, half: u64, speed: &Speed) -> Option<Vec<Stage>> {
        let count = wide * TOP * RATIO.pow(rungs - 1);
        let rounds = match speed.lessons {
            Some(lessons) if rungs > 1 => (count / (lessons + SPARE)).clamp(1, ROUNDS),
            _ => 1,
        };
        if wide > rounds {
            return None;
        }
        let search = if rounds > 1 { SEARCH * time } else { 0.0 };
        let seconds = (time - search) / (u64::from(rungs) - 1 + wide) as f64;
        let most = speed.whole.map_or(f64::INFINITY, |whole| whole as f64);
        let first_s = wide as f64 * seconds;
        let first = speed.steps(first_s, count).min(most / RATIO.pow(rungs - 1) as f64);
        if count > half || first < STEPS {
            return None;
        }
        let mut stages = Vec::new();
        for rung in 0..rungs {
            let plain = TOP * RATIO.pow(rungs - 1 - rung);
            if rung + 1 == rungs {
                stages.push(speed.stage(seconds, plain, 1.0, if rungs > 1 { HE } else { PREDICTED })?);
                continue;
            }
            let stage = |steps: f64, count, share| {
                let fidelity = Fidelity::He { steps: steps as u64 };
                Stage { fidelity, count: Some(count), share: rounded(share) }
            };
            if rung > 0 {
                let most = most / RATIO.pow(rungs - 1 - rung) as f64;
                stages.push(stage(speed.steps(seconds, plain).min(most), plain, seconds));
                continue;
            }
            for round in 1..=rounds {
                if round > 1 {
                    stages.push(searching(search / (rounds - 1) as f64));
                }
                stages.push(stage(first, count * round / rounds, first_s / rounds as f64));
            }
        }
        Some(stages)
    }

    /// The same stages with the steps of those from `stage` on fitted to the time left; one that would bring little more
    /// than the one before it is left out.
    #[must_use]
    pub fn fitted_from(&self, stage: usize, speed: &Speed) -> Ladder {
        let (before, after) = self.stages().split_at(stage.min(self.stages().len()));
        let mut stages = before.to_vec();
        let spent: f64 = before.iter().map(|stage| stage.share).sum();
        // Shares of the stages before the last one are what these took: they were set here too.
        if let Some(last) = stages.last_mut() {
            last.share = rounded(last.share + speed.elapsed_s - spent);
        }
        let mut time = FILL * speed.left_s;
        for (at, stage) in after.iter().enumerate() {
            let rest = &after[at + 1..];
            let seconds = time * stage.share / after[at..].iter().map(|stage| stage.share).sum::<f64>();
            let fitted = match stage.count {
                None => Some(Stage { share: rounded(seconds), ..*stage }),
                // Another round of the same stage.
                Some(_) if stages.iter().any(|known| known.fidelity == stage.fidelity) => {
                    Some(Stage { share: rounded(seconds), ..*stage })
                }
                Some(count) => speed.rung(seconds, count, rest, &stages),
            };
            if let Some(fitted) = fitted {
                time -= fitted.share.min(time);
                stages.push(fitted);
            }
        }
        Ladder::of(stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(seconds: f64, step_s: f64) -> Speed {
        let (elapsed_s, left_s) = (0.2 * seconds, 0.8 * seconds);
        Speed {
            left_s,
            elapsed_s,
            step_s,
            scoring_s: 0.3,
            candidates: 400,
            whole: Some(9370),
            lessons: Some(16),
        }
    }

    /// Seconds that the stages after the first take at this speed, candidates of several rounds counted once.
    fn time(ladder: &Ladder, speed: &Speed) -> f64 {
        let mut time = 0.0;
        let mut known: Option<(Fidelity, u64)> = None;
        for stage in &ladder.stages()[1..] {
            let Some(count) = stage.count else {
                time += stage.share;
                continue;
            };
            let steps = trained_steps(stage, speed.whole);
            let is_round = known.is_some_and(|(fidelity, _)| fidelity == stage.fidelity);
            let new = count - known.filter(|_| is_round).map_or(0, |(_, count)| count);
            known = Some((stage.fidelity, count));
            time += speed.seconds(steps, new);
        }
        time
    }

    #[test]
    fn any_budget_is_used_and_a_handful_reaches_the_top() {
        for (seconds, step_s) in
            [(60.0, 0.1), (120.0, 0.1), (120.0, 0.02), (600.0, 0.1), (1800.0, 0.1), (7200.0, 0.03)]
        {
            let speed = speed(seconds, step_s);
            let ladder = Ladder::fitting(&speed);
            let used = (speed.elapsed_s + time(&ladder, &speed)) / seconds;
            assert!((0.9..1.0).contains(&used), "{seconds} s: {ladder} takes {used}");
            let last = ladder.stages().last().unwrap();
            assert!(last.count.unwrap() >= TOP, "{ladder}");
            let steps: Vec<u64> =
                ladder.stages().iter().map(|stage| trained_steps(stage, speed.whole)).collect();
            let rising: Vec<u64> = steps.into_iter().filter(|&steps| steps > 0).collect();
            assert!(rising.is_sorted(), "{ladder}");
        }
        let long = Ladder::fitting(&speed(1800.0, 0.1));
        let counts: Vec<u64> = long.stages().iter().filter_map(|stage| stage.count).collect();
        assert_eq!(counts, [22, 45, 67, 90, 15, 5], "{long}: rounds to learn from");
        let searches = long.stages().iter().filter(|stage| stage.count.is_none()).count();
        assert_eq!(searches, 1 + 3, "{long}");
        let quick = Ladder::fitting(&Speed { lessons: Some(6), ..speed(600.0, 0.1) });
        let counts: Vec<u64> = quick.stages().iter().filter_map(|stage| stage.count).collect();
        assert_eq!(counts, [10, 20, 30, 5], "{quick}");
        // A tenth slower, and the first stage is not twice as wide.
        let slower = Ladder::fitting(&speed(1800.0, 0.11));
        let counts: Vec<u64> = slower.stages().iter().filter_map(|stage| stage.count).collect();
        assert_eq!(counts, [22, 45, 15, 5], "{slower}");
        let alone = Ladder::fitting(&Speed { lessons: None, ..speed(1800.0, 0.1) });
        let counts: Vec<u64> = alone.stages().iter().filter_map(|stage| stage.count).collect();
        assert_eq!(counts, [45, 15, 5]);
        // Whether one stage or several: where training begins.
        let begins = |ladder: &Ladder| -> Vec<bool> {
            let trained = ladder.stages().iter().filter(|stage| stage.count.is_some());
            trained.map(|stage| matches!(stage.fidelity, Fidelity::He { .. })).collect()
        };
        assert_eq!(begins(&long), [true; 6]);
        assert_eq!(begins(&Ladder::fitting(&speed(60.0, 0.1))), [false]);
    }

    #[test]
    fn where_training_to_the_end_fits_it_is_the_last_stage() {
        let quick = Speed { whole: Some(200), ..speed(600.0, 0.05) };
        let ladder = Ladder::fitting(&quick);
        let last = ladder.stages().last().unwrap();
        assert_eq!(last.fidelity, Fidelity::Trained, "{ladder}");
        assert!(last.count.unwrap() > TOP, "{ladder}");
    }

    #[test]
    fn without_time_for_a_step_the_search_goes_on() {
        let ladder = Ladder::fitting(&speed(2.0, 100.0));
        assert!(ladder.stages().iter().all(|stage| stage.fidelity == Fidelity::Predicted), "{ladder}");
        // Few candidates and little time: fewer are trained.
        let few = Speed { candidates: 3, ..speed(60.0, 5.0) };
        let ladder = Ladder::fitting(&few);
        assert_eq!(ladder.stages()[1].count, Some(2), "{ladder}");
    }

    #[test]
    fn later_stages_are_fitted_again_to_what_is_left() {
        let planned = Ladder::fitting(&speed(1800.0, 0.1));
        let last = planned.stages().len() - 1;
        // Twice as slow as it was thought, with 300 s left.
        let slow = Speed { left_s: 300.0, elapsed_s: 1500.0, step_s: 0.2, ..speed(1800.0, 0.1) };
        let ladder = planned.fitted_from(last, &slow);
        assert_eq!(ladder.stages().len(), planned.stages().len());
        assert_eq!(ladder.stages()[1].fidelity, planned.stages()[1].fidelity);
        let top = ladder.stages()[last];
        let used = slow.seconds(trained_steps(&top, None), top.count.unwrap());
        assert!((270.0..300.0).contains(&used), "{ladder} takes {used}");
        assert!((ladder.end(last - 1) - 1500.0 / 1788.0).abs() < 0.01, "{}", ladder.end(last - 1));
        let shares = |ladder: &Ladder| -> Vec<f64> {
            ladder.stages()[..last - 1].iter().map(|stage| stage.share).collect()
        };
        assert_eq!(shares(&ladder), shares(&planned), "only the stage that just ended took something else");
        // Hardly any time left: not one more stage that would bring nothing new.
        let late = planned.fitted_from(last, &Speed { left_s: 5.0, ..slow });
        assert_eq!(late.stages().len(), last, "{late}");
    }
}
