//! The contract of ladders: stages take the best of what is below, whatever the number of workers and wherever a
//! session ended; and the answer is the best at the highest fidelity.

use super::search::{Setup, setup, study_in, timeless};
use super::*;
use crate::predictor::Forecaster;
use crate::score::{Fidelity, Scores};
use crate::search::contract::{self, strategies};
use crate::search::formula::FormulaEvaluator;
use crate::search::{
    Budget, Evaluator, Limits, Measured, Objective, Outcome, Parents, Proposals, Random, Refine, Screened,
    StopReason, Strategy, StrategySettings,
};
use crate::space::{CellArchitecture, Op};
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const STAGES: &str = "predicted@2,sgd:5=9,predicted@1,sgd:5=9,sgd:50=4,trained=2";

fn staged(strategy: &StrategySettings, ladder: &str) -> Setup {
    Setup {
        ladder: Some(ladder.parse().unwrap()),
        // A limit on latency, which only a measurement shows, would rule races out.
        limits: Limits { max_params: Some(30_000), ..Limits::default() },
        ..setup(strategy)
    }
}

fn evolution() -> StrategySettings {
    contract::evolution(6, 3)
}

const ROUNDS: &str = "predicted@2,sgd:5=6,predicted@1,sgd:5=12,sgd:50=4,trained=2";

fn evolution_of_trained() -> StrategySettings {
    StrategySettings::Evolution { population: 4, sample: 2, parents: Parents::Trained }
}

fn sgd(steps: u64) -> Fidelity {
    Fidelity::Sgd { steps }
}

#[test]
fn every_stage_takes_the_best_of_the_fidelity_below_and_at_most_half() {
    for strategy in &strategies() {
        let setup = staged(strategy, STAGES);
        let mut study = study_in(&Memory::default());
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::Refined, "{strategy:?}");
        assert_eq!(study.evaluated(), 40);
        let stages: Vec<usize> = study.stages().iter().map(|record| record.stage).collect();
        assert_eq!(stages, [0, 1, 2, 3, 4, 5]);
        let at = |fidelity: Fidelity| -> Vec<&Trial> {
            study.trials().iter().filter(|t| t.refined.iter().any(|r| r.fidelity == fidelity)).collect()
        };
        assert!((9..=18).contains(&at(sgd(5)).len()) && at(sgd(50)).len() == 4, "{strategy:?}");
        assert_eq!(at(Fidelity::Trained).len(), 2);
        let all = [sgd(5), sgd(50), Fidelity::Trained].iter().map(|&f| at(f).len() as u64).sum::<u64>();
        assert_eq!(setup.evaluator.refinements.load(Ordering::Relaxed), all, "none is trained twice");
        if !setup.objective.is_pareto() {
            let value = |trial: &Trial| trial.value_at(sgd(5));
            let worst_taken = at(sgd(50)).into_iter().filter_map(value).fold(f64::INFINITY, f64::min);
            let left = |trial: &&Trial| trial.refinement(sgd(50)).is_none();
            let best_left =
                at(sgd(5)).into_iter().filter(left).filter_map(value).fold(f64::NEG_INFINITY, f64::max);
            assert!(worst_taken >= best_left, "{strategy:?}: {worst_taken} {best_left}");
            let best = study.best().unwrap();
            let trained = at(Fidelity::Trained).into_iter().filter_map(|t| t.value_at(Fidelity::Trained));
            let highest = trained.fold(f64::NEG_INFINITY, f64::max);
            if highest.is_finite() {
                assert_eq!((best.fidelity(), best.best_value()), (Fidelity::Trained, Some(highest)));
            }
        }
        // Costs and times come from the search.
        let refined = at(sgd(5))[0].refined[0].scores.clone();
        assert_eq!(refined.params, at(sgd(5))[0].scores.params);
    }
}

#[test]
fn sizes_vote_about_who_is_trained() {
    let setup = |vote: bool| Setup {
        objective: "accuracy".parse().unwrap(),
        vote,
        ..staged(&StrategySettings::Random, "predicted,sgd:5=8,sgd:50=3")
    };
    let run = |vote: bool| {
        let mut study = study_in(&Memory::default());
        setup(vote).run(&mut study).unwrap();
        study
    };
    let study = run(true);
    // Places from 1, the lowest value first.
    let place = |of: &dyn Fn(&Trial) -> f64, pool: &[&Trial], own: &Trial| -> f64 {
        let below = pool.iter().filter(|trial| of(trial) < of(own)).count();
        let equal = pool.iter().filter(|trial| of(trial) == of(own)).count();
        below as f64 + (equal + 1) as f64 / 2.0
    };
    let params = |trial: &Trial| trial.scores.params.unwrap() as f64;
    let peak = |trial: &Trial| trial.scores.peak_activations.unwrap() as f64;
    for (stage, source) in [(1, Fidelity::Predicted), (2, sgd(5))] {
        let value = |trial: &Trial| trial.value_at(source).unwrap();
        let scored = |trial: &&Trial| trial.value_at(source).is_some();
        let mut pool: Vec<&Trial> = study.trials().iter().filter(scored).collect();
        pool.sort_by(|a, b| value(b).total_cmp(&value(a)).then(a.number.cmp(&b.number)));
        if stage == 1 {
            pool.truncate(pool.len().div_ceil(2));
        }
        // What training said counts twice.
        let times = if stage == 1 { 1.0 } else { 2.0 };
        let votes = |trial: &Trial| {
            times * place(&value, &pool, trial) + place(&params, &pool, trial) + place(&peak, &pool, trial)
        };
        let mut expected: Vec<&Trial> = pool.clone();
        expected.sort_by(|a, b| votes(b).total_cmp(&votes(a)).then(a.number.cmp(&b.number)));
        let taken = &study.stages()[stage].trials;
        let expected: Vec<u64> = expected.iter().take(taken.len()).map(|trial| trial.number).collect();
        assert_eq!(taken, &expected, "stage {stage}");
        assert_eq!(taken.len(), if stage == 1 { 8 } else { 3 });
    }
    assert_ne!(run(false).stages()[1].trials, study.stages()[1].trials, "the vote changes nothing");
}

#[test]
fn another_round_takes_children_of_those_that_were_trained() {
    let setup = Setup {
        objective: "accuracy".parse().unwrap(),
        vote: true,
        sizes: 500,
        budget: Budget { trials: Some(90), ..Budget::default() },
        ..staged(&evolution_of_trained(), "predicted@2,he:5=8,predicted@1,he:5=16")
    };
    let mut study = study_in(&Memory::default());
    setup.run(&mut study).unwrap();
    let [_, first, search, second] = study.stages() else { panic!("{:?}", study.stages()) };
    let (seen, trials) = (search.after, study.trials());
    assert!(first.trials.len() == 8 && second.trials.len() == 8, "{first:?} {second:?}");
    assert!(second.trials.iter().all(|&number| number >= seen), "{:?}, {seen} before", second.trials);
    // Most of what the second search found is one mutation away from somebody trained; of random draws hardly any is.
    let is_bred = |trial: &&Trial| {
        first.trials.iter().any(|&parent| {
            let parent = &trials[parent as usize].arch;
            parent.channels.abs_diff(trial.arch.channels) <= 1
                && parent.n_cells.abs_diff(trial.arch.n_cells) <= 1
        })
    };
    let found = &trials[seen as usize..];
    assert!(found.iter().filter(is_bred).count() * 2 > found.len());
    assert!(found.iter().all(|trial| trial.dropped_by.is_none()), "predicted weights do not judge children");
    let random = &trials[..seen as usize];
    let others: Vec<&Trial> = random.iter().filter(|trial| !first.trials.contains(&trial.number)).collect();
    assert!(others.iter().filter(|trial| is_bred(trial)).count() * 10 < others.len());
}

#[test]
fn a_training_that_fails_is_recorded_and_goes_no_higher() {
    let setup = staged(&StrategySettings::Random, "predicted,sgd:5=20,sgd:50=20");
    let setup = Setup { sizes: 64, seed: 11, ..setup };
    let mut study = study_in(&Memory::default());
    setup.run(&mut study).unwrap();
    let is_failing = |trial: &&Trial| trial.arch.genotype.normal[0].0 == Op::Conv7x7;
    let failing: Vec<&Trial> =
        study.trials().iter().filter(|t| !t.refined.is_empty()).filter(is_failing).collect();
    assert!(!failing.is_empty(), "the seed should draw one");
    for trial in failing {
        let [refined] = &trial.refined[..] else { panic!("trial {} went on", trial.number) };
        assert!(refined.reason.as_ref().unwrap().contains("training diverged"));
        assert_eq!((refined.value, trial.fidelity()), (None, Fidelity::Predicted));
        assert_eq!(trial.best_value(), trial.value);
    }
}

/// Trials after a run that goes on from the first `count` events of `events`.
fn resumed(setup: &Setup, events: &[Event], count: usize) -> Vec<Trial> {
    let memory = Memory::default();
    memory.open().unwrap().append(&events[..count]).unwrap();
    let mut study = study_in(&memory);
    setup.run(&mut study).unwrap();
    timeless(&study)
}

#[test]
fn a_study_that_died_after_any_event_goes_on_to_the_same_trials() {
    let objective = "accuracy,macs".parse().unwrap();
    for setup in [
        staged(&evolution(), STAGES),
        Setup { objective, ..staged(&StrategySettings::Nsga2 { population: 5 }, STAGES) },
        Setup {
            objective: "accuracy".parse().unwrap(),
            vote: true,
            ..staged(&evolution_of_trained(), ROUNDS)
        },
    ] {
        let memory = Memory::default();
        let mut study = study_in(&memory);
        setup.run(&mut study).unwrap();
        let expected = timeless(&study);
        drop(study);
        let events = memory.open().unwrap().events().unwrap();
        let refined = events.iter().filter(|event| matches!(event, Event::Refined { .. })).count();
        assert!(refined >= 15, "{refined}");
        for count in 0..events.len() {
            assert_eq!(resumed(&setup, &events, count), expected, "after {count} events");
        }
        // A study that ended has nothing left to do.
        let again = resumed(&setup, &events, events.len());
        assert_eq!(again, expected);
    }
}

#[test]
fn workers_change_only_the_time() {
    let one = staged(&evolution(), STAGES);
    let expected = super::search::uninterrupted(&one);
    for workers in [2, 3] {
        let evaluator = FormulaEvaluator { delay_us: 200, step_us: 3, ..FormulaEvaluator::default() };
        let several = Setup { workers, evaluator, ..staged(&evolution(), STAGES) };
        let mut found = super::search::uninterrupted(&several);
        // Refinements of one trial keep their order; trials are in the order of their numbers anyway.
        found.iter_mut().for_each(|trial| trial.refined.sort_by_key(|refined| refined.fidelity));
        assert_eq!(found, expected, "{workers} workers");
    }
}

#[test]
fn a_larger_budget_goes_through_the_stages_again_and_trains_only_what_is_new() {
    let small = Setup {
        budget: Budget { trials: Some(20), ..Budget::default() },
        ..staged(&evolution(), "predicted,sgd:5=6,trained=2")
    };
    let memory = Memory::default();
    let mut study = study_in(&memory);
    small.run(&mut study).unwrap();
    let before = timeless(&study);
    let large = Setup { budget: Budget { trials: Some(40), ..Budget::default() }, ..small };
    assert_eq!(large.run(&mut study).unwrap(), StopReason::Refined);
    assert_eq!(study.evaluated(), 40);
    for (old, new) in before.iter().zip(study.trials()) {
        assert!(new.refined.len() >= old.refined.len());
    }
    let trained = study.trials().iter().filter(|trial| trial.refinement(Fidelity::Trained).is_some());
    assert!((2..=4).contains(&trained.count()));
    // With a vote too, what is found later is trained.
    let [small, large] = [20, 40].map(|trials| Setup {
        budget: Budget { trials: Some(trials), ..Budget::default() },
        objective: "accuracy".parse().unwrap(),
        vote: true,
        ..staged(&evolution(), "predicted,sgd:5=6,trained=2")
    });
    let mut study = study_in(&Memory::default());
    small.run(&mut study).unwrap();
    let first = study.trials().len() as u64;
    large.run(&mut study).unwrap();
    let later = study.trials().iter().filter(|trial| trial.refinement(sgd(5)).is_some());
    assert_eq!(later.filter(|trial| trial.number >= first).count(), 6, "{:?}", study.stages());
}

/// Ends a refinement as Ctrl-C does.
struct Interrupting<'a> {
    inner: FormulaEvaluator,
    flag: &'a AtomicBool,
    at: u64,
    count: AtomicU64,
}

impl Evaluator for Interrupting<'_> {
    fn cost(&self, arch: &CellArchitecture) -> Result<Scores> {
        self.inner.cost(arch)
    }

    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> Result<Scores> {
        self.inner.evaluate(arch, seed)
    }

    fn race(&self, arch: &CellArchitecture, seed: u64, bar: Option<&crate::score::Bar>) -> Result<Measured> {
        self.inner.race(arch, seed, bar)
    }

    fn refine(&self, task: &Refine<'_>) -> Result<Scores> {
        if self.count.fetch_add(1, Ordering::Relaxed) == self.at {
            self.flag.store(true, Ordering::Relaxed);
            return Err(Error::Interrupted);
        }
        self.inner.refine(task)
    }
}

#[test]
fn a_training_that_is_interrupted_is_run_again() {
    let setup = staged(&evolution(), STAGES);
    let expected = super::search::uninterrupted(&setup);
    for at in [0, 4, 12, 14] {
        let flag = AtomicBool::new(false);
        let inner = FormulaEvaluator::default();
        let evaluator = Interrupting { inner, flag: &flag, at, count: AtomicU64::new(0) };
        let mut study = study_in(&Memory::default());
        assert_eq!(setup.run_with(&evaluator, &mut study, &flag).unwrap(), StopReason::Interrupted);
        assert_eq!(setup.run(&mut study).unwrap(), StopReason::Refined);
        assert_eq!(timeless(&study), expected, "interrupted in training {at}");
    }
}

#[test]
fn candidates_out_of_reach_see_fewer_images_and_are_not_trained() {
    let budget = Budget { trials: Some(150), ..Budget::default() };
    let objective: Objective = "accuracy".parse().unwrap();
    let setup = Setup { budget, objective, ..staged(&StrategySettings::Random, "predicted,sgd:5=8") };
    let mut study = study_in(&Memory::default());
    setup.run(&mut study).unwrap();
    let finished = || study.trials().iter().filter(|trial| trial.state == TrialState::Finished);
    let dropped: Vec<&Trial> = finished().filter(|trial| trial.dropped_by.is_some()).collect();
    assert!(dropped.len() > 40, "{} of {}", dropped.len(), finished().count());
    for trial in &dropped {
        let rival = &study.trials()[trial.dropped_by.unwrap() as usize];
        assert!(rival.answers.is_some() && trial.answers.is_none());
        assert!(trial.value < rival.value, "{:?} {:?}", trial.value, rival.value);
        assert!(trial.scores.images < rival.scores.images && trial.refined.is_empty());
        assert!(rival.number < trial.number, "the bar is set by what was told");
    }
    // Nobody is dropped before the stage would be full.
    let first = dropped.iter().map(|trial| trial.number).min().unwrap();
    assert!(finished().filter(|trial| trial.number < first).count() >= 8);
    let plain = Setup { objective: "accuracy=1,params=-0.001".parse().unwrap(), ..setup };
    let mut study = study_in(&Memory::default());
    plain.run(&mut study).unwrap();
    assert!(study.trials().iter().all(|trial| trial.dropped_by.is_none()), "other objectives do not race");
}

#[test]
fn a_training_that_would_outlast_the_budget_does_not_begin() {
    let evaluator = FormulaEvaluator { delay_us: 300, step_us: 100, ..FormulaEvaluator::default() };
    let ladder = "predicted@0.2,sgd:100=4@0.4,sgd:100000=2@0.4";
    let budget = Budget { seconds: Some(1.0), ..Budget::default() };
    let setup = Setup { evaluator, budget, sizes: 200, ..staged(&StrategySettings::Random, ladder) };
    let mut study = study_in(&Memory::default());
    let began = std::time::Instant::now();
    setup.run(&mut study).unwrap();
    assert!(began.elapsed().as_secs_f64() < 5.0, "ten seconds of training began");
    let highest = study.trials().iter().map(Trial::fidelity).max().unwrap();
    assert_eq!(highest, sgd(100));
}

#[test]
fn stages_that_fit_use_the_budget_and_are_kept_by_a_resume() {
    let evaluator = FormulaEvaluator { delay_us: 300, step_us: 100, ..FormulaEvaluator::default() };
    let budget = Budget { seconds: Some(2.5), ..Budget::default() };
    let setup = Setup { evaluator, budget, sizes: 200, ..staged(&StrategySettings::Random, "auto") };
    let memory = Memory::default();
    let mut study = study_in(&memory);
    setup.run(&mut study).unwrap();
    let elapsed_s = study.elapsed_s();
    assert!((2.1..2.9).contains(&elapsed_s), "{elapsed_s} of 2.5 s");
    let last = study.stages().last().unwrap();
    assert!(last.scored.len() >= 4, "{:?}", study.stages());
    let planned: Vec<Option<String>> =
        study.stages().iter().map(|record| record.ladder.as_ref().map(ToString::to_string)).collect();
    assert!(
        planned[0].is_none() && planned.len() > 2 && planned[1..].iter().all(Option::is_some),
        "{planned:?}"
    );
    let highest = study.trials().iter().map(Trial::fidelity).max().unwrap();
    assert_eq!(highest, last.fidelity);
    drop(study);
    // Killed in the first stage of training, and again in the last: the stages stay as they were planned.
    let events = memory.open().unwrap().events().unwrap();
    for stage in [1, planned.len() - 1] {
        let begun =
            events.iter().position(|event| matches!(event, Event::Staged { stage: s, .. } if *s == stage));
        let again = Memory::default();
        again.open().unwrap().append(&events[..begun.unwrap() + 2]).unwrap();
        let mut study = study_in(&again);
        setup.run(&mut study).unwrap();
        let plans = study.stages().iter().take(stage + 1).map(|r| r.ladder.as_ref().map(ToString::to_string));
        assert_eq!(plans.collect::<Vec<_>>(), planned[..=stage]);
        assert!(study.stages()[stage].scored.len() > 1, "{:?}", study.stages());
    }
    // In trials the stages are those that the settings name.
    let counted = Setup { budget: Budget { trials: Some(60), ..Budget::default() }, ..setup };
    let mut study = study_in(&Memory::default());
    counted.run(&mut study).unwrap();
    assert!(study.stages().iter().all(|record| record.ladder.is_none()));
    let at = |fidelity| study.trials().iter().filter(|trial| trial.refinement(fidelity).is_some()).count();
    assert!((18..=36).contains(&at(Fidelity::He { steps: 100 })) && at(Fidelity::Trained) == 1);
}

/// Evolution with a predictor on channels, cells and the score with predicted weights.
fn predicting() -> Screened {
    let describe = |arch: &CellArchitecture| {
        let op = f64::from(arch.genotype.normal[0].0 as u32);
        Ok(vec![arch.channels as f64, arch.n_cells as f64, (arch.channels as f64 - 23.0).powi(2), op])
    };
    let forecaster = Box::new(Forecaster::new(describe, 3));
    Screened::new(evolution().build().unwrap(), forecaster, 8).unwrap()
}

#[test]
fn a_predictor_acts_once_it_can_and_a_resume_goes_on_the_same() {
    let ladder = "predicted@2,sgd:5=20,predicted@1,sgd:5=30,sgd:50=6";
    let budget = Budget { trials: Some(75), ..Budget::default() };
    let objective: Objective = "accuracy".parse().unwrap();
    let make = || Setup { budget, objective: objective.clone(), ..staged(&evolution(), ladder) };
    let run = |setup: &Setup, events: &[Event]| {
        let memory = Memory::default();
        memory.open().unwrap().append(events).unwrap();
        let mut study = study_in(&memory);
        setup.run_strategy(&mut predicting(), &setup.evaluator, &mut study, &AtomicBool::new(false)).unwrap();
        let forecasts: Vec<_> = study.stages().iter().map(|record| (record.stage, record.forecast)).collect();
        let trials = timeless(&study);
        drop(study);
        (trials, forecasts, memory.open().unwrap().events().unwrap())
    };
    let (expected, forecasts, events) = run(&make(), &[]);
    let known = |stage: usize| forecasts.iter().find(|(s, _)| *s == stage).unwrap().1;
    assert_eq!(known(0), None);
    let untrained = known(1).unwrap();
    assert_eq!((untrained.trials, untrained.proposes, untrained.chooses), (0, false, false));
    let able = known(3).unwrap();
    assert!(able.trials >= 16 && able.tau.unwrap()[0] > 0.4, "{able:?}");
    assert!(able.proposes, "{able:?}");
    let later = known(4).unwrap();
    assert!(later.trials > able.trials);
    let foretold = Foretold::of(&events).unwrap();
    assert!(foretold.stages.contains(&2) && foretold.forecast.trials == later.trials, "{foretold}");
    assert!(foretold.to_string().contains("it took part in stage"), "{foretold}");
    for count in (0..events.len()).step_by(23) {
        let (trials, again, _) = run(&make(), &events[..count]);
        assert!(again == forecasts, "after {count} events: {again:?}, not {forecasts:?}");
        assert!(trials == expected, "other trials after {count} events");
    }
    // Nor does it depend on the workers.
    let evaluator = FormulaEvaluator { delay_us: 100, step_us: 3, ..FormulaEvaluator::default() };
    let (mut found, again, _) = run(&Setup { workers: 3, evaluator, ..make() }, &[]);
    found.iter_mut().for_each(|trial| trial.refined.sort_by_key(|refined| refined.fidelity));
    assert!(found == expected && again == forecasts, "{again:?}");
    assert!(super::search::uninterrupted(&make()) != expected, "what it learned changes nothing");
}

/// Random draws, with a list of what it was told.
struct Listening {
    heard: Arc<Mutex<Vec<(u64, Fidelity)>>>,
}

impl Strategy for Listening {
    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        Random.ask(space, attempt, rng)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        self.heard.lock().unwrap().push((outcome.trial, Fidelity::Predicted));
    }

    fn tell_refined(&mut self, outcome: Outcome<'_>, fidelity: Fidelity) {
        self.heard.lock().unwrap().push((outcome.trial, fidelity));
    }
}

#[test]
fn a_strategy_is_told_the_same_in_the_same_order_after_a_resume() {
    let setup = staged(&StrategySettings::Random, STAGES);
    let heard_from = |events: &[Event]| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let memory = Memory::default();
        memory.open().unwrap().append(events).unwrap();
        let (mut strategy, flag) = (Listening { heard: Arc::clone(&heard) }, AtomicBool::new(false));
        let mut study = study_in(&memory);
        setup.run_strategy(&mut strategy, &setup.evaluator, &mut study, &flag).unwrap();
        drop(study);
        let heard = heard.lock().unwrap().clone();
        (heard, memory.open().unwrap().events().unwrap())
    };
    let (expected, events) = heard_from(&[]);
    let searched = expected.iter().rposition(|(_, fidelity)| !fidelity.is_refined()).unwrap();
    let refined: BTreeSet<u64> = expected[..searched]
        .iter()
        .filter(|(_, fidelity)| fidelity.is_refined())
        .map(|(trial, _)| *trial)
        .collect();
    assert_eq!(refined.len(), 9, "the second search knows the first stage of training");
    let last_search = events.iter().rposition(|event| matches!(event, Event::Started { .. })).unwrap();
    for count in (0..last_search).step_by(7) {
        assert_eq!(heard_from(&events[..count]).0, expected, "after {count} events");
    }
}
