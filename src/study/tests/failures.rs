//! Searches that something ends or disturbs: interruptions, evaluations that fail or panic, storage that is full.

use super::search::{Setup, setup, study_in, timeless, uninterrupted};
use super::*;
use crate::search::contract::{evolution, strategies};
use crate::search::formula::FormulaEvaluator;
use crate::search::{Budget, Evaluator, StopReason, StrategySettings};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Interrupts the search from inside its `at`th evaluation.
struct Interrupting<'a> {
    inner: FormulaEvaluator,
    flag: &'a AtomicBool,
    at: u64,
    abandon: bool,
    count: AtomicU64,
}

impl Evaluator for Interrupting<'_> {
    fn cost(&self, arch: &CellArchitecture) -> Result<Scores> {
        self.inner.cost(arch)
    }

    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> Result<Scores> {
        if self.count.fetch_add(1, Ordering::Relaxed) == self.at {
            self.flag.store(true, Ordering::Relaxed);
            if self.abandon {
                return Err(Error::Interrupted);
            }
        }
        self.inner.evaluate(arch, seed)
    }
}

#[test]
fn an_interrupted_search_ends_in_order_and_resumes_to_the_same_trials() {
    for strategy in &strategies() {
        for (at, abandon, workers) in [(0, false, 1), (5, true, 1), (20, false, 3), (20, true, 3)] {
            let setup = Setup { workers, ..setup(strategy) };
            let flag = AtomicBool::new(false);
            let inner = FormulaEvaluator::default();
            let interrupting = Interrupting { inner, flag: &flag, at, abandon, count: AtomicU64::new(0) };
            let mut study = study_in(&Memory::default());
            assert_eq!(setup.run_with(&interrupting, &mut study, &flag).unwrap(), StopReason::Interrupted);
            let running = study.trials().iter().filter(|trial| trial.state == TrialState::Running).count();
            assert_eq!(running, usize::from(abandon), "only an abandoned candidate stays without outcome");
            assert!(study.evaluated() <= at + workers as u64);
            assert_eq!(setup.run(&mut study).unwrap(), StopReason::Trials);
            assert_eq!(timeless(&study), uninterrupted(&setup), "{strategy:?}");
        }
    }
}

/// Scores NaN, or panics.
struct Broken {
    panics: bool,
}

impl Evaluator for Broken {
    fn cost(&self, _: &CellArchitecture) -> Result<Scores> {
        Ok(Scores { params: Some(1), macs: Some(1), ..Scores::default() })
    }

    fn evaluate(&self, _: &CellArchitecture, _: u64) -> Result<Scores> {
        assert!(!self.panics, "heads do not divide {}", "channels");
        Ok(Scores { accuracy: Some(f64::NAN), latency_ms: Some(1.0), loss: Some(0.5), ..Scores::default() })
    }
}

#[test]
fn failures_are_recorded_and_too_many_in_a_row_end_the_search() {
    let setup = setup(&StrategySettings::Random);
    let mut study = study_in(&Memory::default());
    let flag = AtomicBool::new(false);
    assert_eq!(setup.run_with(&Broken { panics: false }, &mut study, &flag).unwrap(), StopReason::Failing);
    for trial in study.trials() {
        assert_eq!(trial.state, TrialState::Failed);
        assert!(trial.reason.as_ref().unwrap().contains("accuracy is not a finite number"), "{trial:?}");
        assert_eq!((trial.scores.accuracy, trial.scores.loss, trial.value), (None, Some(0.5), None));
    }
}

#[test]
fn a_panic_of_an_evaluation_is_the_reason_of_a_failed_trial() {
    let budget = Budget { trials: Some(2), ..Budget::default() };
    let setup = Setup { budget, ..setup(&StrategySettings::Random) };
    let mut study = study_in(&Memory::default());
    setup.run_with(&Broken { panics: true }, &mut study, &AtomicBool::new(false)).unwrap();
    assert_eq!(study.trials().len(), 2);
    for trial in study.trials() {
        assert_eq!(trial.state, TrialState::Failed);
        assert_eq!(trial.reason.as_deref(), Some("the evaluation panicked: heads do not divide channels"));
    }
}

/// Refuses the append with number `at`, as a full disk does.
struct Failing {
    inner: crate::study::storage::MemoryWriter,
    at: u64,
    appends: u64,
}

impl Storage for Failing {
    fn append(&mut self, events: &[Event]) -> Result<()> {
        self.appends += 1;
        if self.appends > self.at {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::io("append to", "journal.jsonl")(full));
        }
        self.inner.append(events)
    }

    fn events(&self) -> Result<Vec<Event>> {
        self.inner.events()
    }

    fn origin(&self) -> &Path {
        self.inner.origin()
    }
}

#[test]
fn a_search_that_cannot_record_ends_with_the_error_and_resumes() {
    for at in [0, 1, 2, 3, 30] {
        let setup = Setup { workers: 3, ..setup(&evolution(6, 3)) };
        let memory = Memory::default();
        let inner = memory.open().unwrap();
        let mut study = Study::open(Failing { inner, at, appends: 0 }).unwrap();
        let error = setup.run(&mut study).unwrap_err().to_string();
        assert!(error.contains("cannot append to journal.jsonl"), "{error}");
        drop(study);
        let mut study = study_in(&memory);
        setup.run(&mut study).unwrap();
        assert_eq!(timeless(&study), uninterrupted(&setup));
    }
}
