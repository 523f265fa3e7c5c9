//! The worker threads of a search: each takes a job, evaluates it and tells the driver.

use super::Plan;
use super::rungs::races;
use crate::score::{Bar, Fidelity, Scores};
use crate::search::{Measured, Refine, trial_seed};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

/// What a worker is asked for.
pub(super) enum Job {
    Score { trial: u64, arch: CellArchitecture, cost: Box<Scores>, bar: Option<Bar> },
    Refine { trial: u64, arch: CellArchitecture, fidelity: Fidelity, keep: Option<PathBuf> },
}

/// What came of a job.
pub(super) enum Done {
    Score { trial: u64, wall_s: f64, cost: Box<Scores>, result: Result<Measured> },
    Refine { trial: u64, wall_s: f64, fidelity: Fidelity, result: Result<Scores> },
}

/// Works until the driver closes the queue.
pub(super) fn work(plan: &Plan<'_>, jobs: &Mutex<mpsc::Receiver<Job>>, done: &mpsc::Sender<Done>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let began = Instant::now();
        let wall_s = || began.elapsed().as_secs_f64();
        let outcome = match job {
            Job::Score { trial, arch, cost, bar } => {
                let (seed, evaluator) = (trial_seed(plan.seed, trial), plan.evaluator);
                let result = caught(|| match plan.ladder {
                    Some(_) if races(plan.objective, &plan.limits) => {
                        evaluator.race(&arch, seed, bar.as_ref())
                    }
                    _ => Ok(Measured { scores: evaluator.evaluate(&arch, seed)?, ..Measured::default() }),
                });
                Done::Score { trial, wall_s: wall_s(), cost, result }
            }
            Job::Refine { trial, arch, fidelity, keep } => {
                let (keep, stop) = (keep.as_deref(), plan.interrupted);
                let task = Refine { arch: &arch, fidelity, keep, stop };
                let result = caught(|| plan.evaluator.refine(&task));
                Done::Refine { trial, wall_s: wall_s(), fidelity, result }
            }
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// What `evaluation` gives; a panic is an error with its message.
fn caught<T>(evaluation: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(evaluation)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::Config(format!("the evaluation panicked: {text}")))
    })
}
