//! The contract of searches, over all strategies: same seed, same trials; a resume equals an uninterrupted run;
//! the budget is kept; no architecture twice; workers change only the time.

use super::*;
use crate::Result;
use crate::search::contract::{evolution, objective, strategies};
use crate::search::formula::{FormulaEvaluator, FormulaSpace};
use crate::search::{Budget, Evaluator, Ladder, Limits, Objective, StopReason, Strategy, StrategySettings};
use crate::space::CellArchitecture;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Setup {
    pub(super) strategy: StrategySettings,
    pub(super) sizes: usize,
    pub(super) objective: Objective,
    pub(super) limits: Limits,
    pub(super) ladder: Option<Ladder>,
    pub(super) vote: bool,
    pub(super) warm_start: Vec<CellArchitecture>,
    pub(super) budget: Budget,
    pub(super) seed: u64,
    pub(super) lookahead: u64,
    pub(super) workers: usize,
    pub(super) evaluator: FormulaEvaluator,
}

pub(super) fn setup(strategy: &StrategySettings) -> Setup {
    Setup {
        strategy: strategy.clone(),
        sizes: 40,
        objective: objective(strategy),
        limits: Limits { max_params: Some(30_000), max_latency_ms: Some(8.0), ..Limits::default() },
        ladder: None,
        vote: false,
        warm_start: Vec::new(),
        budget: Budget { trials: Some(40), ..Budget::default() },
        seed: 7,
        lookahead: 3,
        workers: 1,
        evaluator: FormulaEvaluator::default(),
    }
}

impl Setup {
    pub(super) fn run(&self, study: &mut Study) -> Result<StopReason> {
        self.run_with(&self.evaluator, study, &AtomicBool::new(false))
    }

    pub(super) fn run_with(
        &self,
        evaluator: &dyn Evaluator,
        study: &mut Study,
        interrupted: &AtomicBool,
    ) -> Result<StopReason> {
        self.run_strategy(self.strategy.build()?.as_mut(), evaluator, study, interrupted)
    }

    pub(super) fn run_strategy(
        &self,
        strategy: &mut dyn Strategy,
        evaluator: &dyn Evaluator,
        study: &mut Study,
        interrupted: &AtomicBool,
    ) -> Result<StopReason> {
        let plan = Plan {
            ladder: self.ladder.as_ref(),
            vote: self.vote,
            weights: None,
            space: &FormulaSpace { sizes: self.sizes },
            evaluator,
            objective: &self.objective,
            limits: self.limits,
            warm_start: &self.warm_start,
            budget: self.budget,
            seed: self.seed,
            lookahead: self.lookahead,
            workers: self.workers,
            settings: SettingsDigest::default(),
            interrupted,
        };
        run(&plan, strategy, study, &mut |_| {})
    }
}

pub(super) fn study_in(memory: &Memory) -> Study {
    Study::open(memory.open().unwrap()).unwrap()
}

fn untimed(refined: &Refinement) -> Refinement {
    Refinement { finished_ms: 0, wall_s: 0.0, elapsed_s: 0.0, ..refined.clone() }
}

/// Trials without what the clock decides.
pub(super) fn timeless(study: &Study) -> Vec<Trial> {
    let strip = |trial: &Trial| Trial {
        started_ms: 0,
        finished_ms: None,
        wall_s: trial.wall_s.map(|_| 0.0),
        elapsed_s: None,
        refined: trial.refined.iter().map(untimed).collect(),
        ..trial.clone()
    };
    study.trials().iter().map(strip).collect()
}

pub(super) fn uninterrupted(setup: &Setup) -> Vec<Trial> {
    let mut study = study_in(&Memory::default());
    setup.run(&mut study).unwrap();
    timeless(&study)
}

#[test]
fn the_same_seed_gives_the_same_trials_and_another_seed_others() {
    for strategy in &strategies() {
        let first = uninterrupted(&setup(strategy));
        assert_eq!(first, uninterrupted(&setup(strategy)), "{strategy:?}");
        let other = Setup { seed: 8, ..setup(strategy) };
        assert_ne!(first, uninterrupted(&other), "{strategy:?}");
        let states: BTreeSet<TrialState> = first.iter().map(|trial| trial.state).collect();
        assert!(
            states.contains(&TrialState::Rejected) && states.contains(&TrialState::Finished),
            "{states:?}"
        );
    }
}

#[test]
fn the_budget_of_trials_is_kept_and_no_architecture_comes_twice() {
    for strategy in &strategies() {
        let setup = setup(strategy);
        let mut study = study_in(&Memory::default());
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::Trials);
        assert_eq!(study.evaluated(), 40);
        assert_eq!(
            setup.evaluator.evaluations.load(Ordering::Relaxed),
            40,
            "rejected candidates were evaluated"
        );
        let hashes: BTreeSet<&str> = study.trials().iter().map(|trial| trial.hash.as_str()).collect();
        assert_eq!(hashes.len(), study.trials().len());
        assert_eq!(study.stopped(), Some(StopReason::Trials));
    }
}

#[test]
fn candidates_over_a_limit_are_rejected_with_the_reason_and_never_win() {
    let none = Limits::default();
    let cases = [
        (none, "architecture rejected: no path", false),
        (Limits { max_params: Some(4_000), ..none }, "over the limit 4000", false),
        (Limits { max_macs: Some(400_000), ..none }, "over the limit 400000", false),
        (Limits { max_latency_ms: Some(1.5), ..none }, "over the limit 1.5 ms", true),
    ];
    for strategy in &strategies() {
        for (limits, reason, evaluated) in cases {
            let budget = Budget { trials: Some(100), ..Budget::default() };
            let mut study = study_in(&Memory::default());
            Setup { limits, budget, ..setup(strategy) }.run(&mut study).unwrap();
            let of_reason = |trial: &&Trial| trial.reason.as_ref().is_some_and(|text| text.contains(reason));
            let rejected: Vec<&Trial> = study.trials().iter().filter(of_reason).collect();
            assert!(!rejected.is_empty(), "{strategy:?}: nothing {reason}");
            for trial in rejected {
                assert_eq!((trial.state, trial.value), (TrialState::Rejected, None));
                assert_eq!(trial.is_evaluated(), evaluated, "{reason}");
            }
            let finished = || study.trials().iter().filter(|trial| trial.state == TrialState::Finished);
            assert!(finished().count() > 10);
            for Trial { scores, .. } in finished() {
                assert_eq!(limits.breach_of_cost(scores).or(limits.breach_of_latency(scores)), None);
            }
        }
    }
}

#[test]
fn a_resume_after_any_number_of_events_equals_an_uninterrupted_run() {
    for strategy in &strategies() {
        for lookahead in [1, 3] {
            let setup = Setup { lookahead, ..setup(strategy) };
            let whole = Memory::default();
            let mut study = study_in(&whole);
            setup.run(&mut study).unwrap();
            let expected = timeless(&study);
            drop(study);
            let events = whole.open().unwrap().events().unwrap();
            for kept in 0..=events.len() {
                let memory = Memory::default();
                memory.open().unwrap().append(&events[..kept]).unwrap();
                let mut study = study_in(&memory);
                assert_eq!(setup.run(&mut study).unwrap(), StopReason::Trials);
                assert_eq!(timeless(&study), expected, "{strategy:?}, resumed after {kept} events");
            }
        }
    }
}

#[test]
fn a_budget_raised_on_resume_continues_the_same_search() {
    for strategy in &strategies() {
        let memory = Memory::default();
        for trials in [1, 2, 17, 40] {
            let budget = Budget { trials: Some(trials), ..Budget::default() };
            let mut study = study_in(&memory);
            Setup { budget, ..setup(strategy) }.run(&mut study).unwrap();
            assert_eq!(study.evaluated(), trials);
        }
        assert_eq!(timeless(&study_in(&memory)), uninterrupted(&setup(strategy)), "{strategy:?}");
    }
}

#[test]
fn the_number_of_workers_changes_only_the_time() {
    for strategy in &strategies() {
        let expected = uninterrupted(&setup(strategy));
        for workers in [2, 3, 8] {
            let evaluator = FormulaEvaluator { delay_us: 200, ..FormulaEvaluator::default() };
            let found = uninterrupted(&Setup { workers, evaluator, ..setup(strategy) });
            assert_eq!(found, expected, "{strategy:?} with {workers} workers");
        }
    }
}

#[test]
fn an_exhausted_space_ends_the_search_when_every_architecture_is_a_trial() {
    for strategy in &strategies() {
        let budget = Budget { trials: Some(1_000), ..Budget::default() };
        let setup = Setup { sizes: 2, budget, limits: Limits::default(), ..setup(strategy) };
        let mut study = study_in(&Memory::default());
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::SpaceExhausted);
        assert_eq!(study.trials().len(), 60, "{strategy:?}");
    }
}

#[test]
fn limits_that_nothing_keeps_end_the_search() {
    let limits = Limits { max_macs: Some(1), ..Limits::default() };
    let setup = Setup { limits, ..setup(&StrategySettings::Random) };
    let mut study = study_in(&Memory::default());
    assert_eq!(setup.run(&mut study).unwrap(), StopReason::LimitsTooTight);
    assert_eq!((study.evaluated(), study.best()), (0, None));
    assert_eq!(setup.run(&mut study).unwrap(), StopReason::LimitsTooTight);
}

#[test]
fn a_budget_of_seconds_ends_the_search_and_covers_all_sessions() {
    let evaluator = FormulaEvaluator { delay_us: 2_000, ..FormulaEvaluator::default() };
    let budget = Budget { seconds: Some(0.2), ..Budget::default() };
    let setup = Setup { evaluator, budget, ..setup(&StrategySettings::Random) };
    let mut study = study_in(&Memory::default());
    let began = std::time::Instant::now();
    assert_eq!(setup.run(&mut study).unwrap(), StopReason::Seconds);
    assert!(began.elapsed().as_secs_f64() >= 0.2);
    let count = study.trials().len();
    assert!(count > 3);
    assert_eq!(setup.run(&mut study).unwrap(), StopReason::Seconds);
    assert!(study.trials().len() <= count + 5, "the second session had a budget of its own");
}

/// Architectures of which the second is equivalent to the first, the fourth cannot be built and the last fails.
fn given() -> Vec<CellArchitecture> {
    use crate::space::Op;
    let arch = crate::search::formula::architecture;
    vec![
        arch(18, 21, Op::Conv3x3),
        arch(18, 21, Op::Conv3x3),
        arch(3, 4, Op::Conv3x3),
        arch(5, 5, Op::None),
        arch(30, 30, Op::MaxPool3x3),
        arch(6, 7, Op::Cse),
    ]
}

#[test]
fn given_architectures_are_the_first_trials_and_a_resume_equals_an_uninterrupted_run() {
    for strategy in &strategies() {
        let setup = Setup { warm_start: given(), ..setup(strategy) };
        let whole = Memory::default();
        let mut study = study_in(&whole);
        setup.run(&mut study).unwrap();
        let expected = timeless(&study);
        let sizes: Vec<usize> = expected.iter().take(5).map(|trial| trial.arch.channels).collect();
        assert_eq!(sizes, [18, 3, 5, 30, 6], "{strategy:?}");
        use TrialState::{Failed, Finished, Rejected};
        let states: Vec<TrialState> = expected.iter().take(5).map(|trial| trial.state).collect();
        assert_eq!(states, [Finished, Finished, Rejected, Rejected, Failed], "{strategy:?}");
        drop(study);
        let events = whole.open().unwrap().events().unwrap();
        for kept in (0..=events.len()).step_by(3) {
            let memory = Memory::default();
            memory.open().unwrap().append(&events[..kept]).unwrap();
            let mut study = study_in(&memory);
            setup.run(&mut study).unwrap();
            assert_eq!(timeless(&study), expected, "{strategy:?}, resumed after {kept} events");
        }
        let workers = Setup { workers: 3, warm_start: given(), ..self::setup(strategy) };
        assert_eq!(uninterrupted(&workers), expected, "{strategy:?}");
    }
}

#[test]
fn a_good_start_is_searched_from() {
    // Next to the optimum, which random candidates miss.
    let start = vec![crate::search::formula::architecture(20, 19, crate::space::Op::Conv3x3)];
    let strategy = StrategySettings::Local { starts: 1, neighbours: 100 };
    let (budget, limits) = (Budget { trials: Some(60), ..Budget::default() }, Limits::default());
    let mut study = study_in(&Memory::default());
    Setup { warm_start: start, budget, limits, sizes: 200, ..setup(&strategy) }.run(&mut study).unwrap();
    let best = &study.best().unwrap().arch;
    assert_eq!((best.channels, best.n_cells), (20, 20));
}

#[test]
fn patience_ends_a_search_after_candidates_that_are_no_better() {
    for strategy in &strategies() {
        let budget = Budget { patience: Some(12), ..Budget::default() };
        let setup = Setup { budget, ..setup(strategy) };
        let memory = Memory::default();
        let mut study = study_in(&memory);
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::Patience, "{strategy:?}");
        // The last two were chosen before the last of the twelve was known.
        let told = &study.trials()[..study.trials().len() - 2];
        let evaluated: Vec<&Trial> = told.iter().filter(|trial| trial.is_evaluated()).collect();
        let mut front = crate::search::Front::default();
        let mut behind = 0;
        for trial in &evaluated {
            let merits = setup.objective.merits(&trial.scores);
            let is_better = trial.state == TrialState::Finished && front.improve(&merits.unwrap());
            behind = if is_better { 0 } else { behind + 1 };
        }
        let evaluated = evaluated.len();
        assert_eq!(behind, 12, "{strategy:?}");
        let ended = timeless(&study);
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::Patience);
        assert_eq!(timeless(&study), ended, "a second session went on");
        let patient =
            Setup { budget: Budget { trials: Some(40), ..Budget::default() }, ..self::setup(strategy) };
        if evaluated + 2 < 40 {
            patient.run(&mut study).unwrap();
            assert_eq!(timeless(&study), uninterrupted(&patient), "{strategy:?}");
        }
    }
}

#[test]
fn settings_changed_behind_the_back_of_a_study_are_named() {
    let settings = |seed: u64| SearchSettings {
        space: serde_json::Value::Null,
        seed,
        strategy: StrategySettings::Random,
        objective: "accuracy".parse().unwrap(),
        limits: Limits::default(),
        lookahead: 1,
        evaluation: serde_json::Value::Null,
        warm_start: Vec::new(),
        ladder: None,
        predictor: None,
        vote: false,
    };
    let memory = Memory::default();
    let run_with = |seed: u64| {
        let plan = Plan {
            ladder: None,
            vote: false,
            weights: None,
            space: &FormulaSpace { sizes: 9 },
            evaluator: &FormulaEvaluator::default(),
            objective: &"accuracy".parse().unwrap(),
            limits: Limits::default(),
            warm_start: &[],
            budget: Budget { trials: Some(3), ..Budget::default() },
            seed,
            lookahead: 1,
            workers: 1,
            settings: settings(seed).digest(),
            interrupted: &AtomicBool::new(false),
        };
        run(&plan, settings(seed).strategy.build().unwrap().as_mut(), &mut study_in(&memory), &mut |_| {})
    };
    run_with(4).unwrap();
    run_with(4).unwrap();
    let error = run_with(5).unwrap_err().to_string();
    assert!(error.contains("study.json was changed since the study was begun (seed);"), "{error}");
}

#[test]
fn strategies_for_one_objective_do_not_start_with_several() {
    let several = Setup { objective: "accuracy,params".parse().unwrap(), ..setup(&evolution(6, 3)) };
    let memory = Memory::default();
    let error = several.run(&mut study_in(&memory)).unwrap_err().to_string();
    assert!(error.contains("--strategy evolution takes one objective, found 2"), "{error}");
    assert_eq!(memory.open().unwrap().events().unwrap(), []);
}
