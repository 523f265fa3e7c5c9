//! Jobs that are worked on side by side, each in the thread pool of its worker.

use crate::training::Ending;
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Calls `work` for each job, in order; `workers` calls run side by side, each in a rayon pool of `threads` threads.
/// Stops early, without an error, when `stop` becomes true or a call says so.
///
/// # Errors
/// The first worker's that failed; the others end their calls before.
pub(super) fn side_by_side<J: Sync>(
    jobs: &[J],
    [workers, threads]: [usize; 2],
    stop: &AtomicBool,
    work: impl Fn(&J) -> Result<Ending> + Sync,
) -> Result<Ending> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let worker = || -> Result<Ending> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Config(format!("{threads} threads cannot be started: {error}")))?;
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            if pool.install(|| work(job))? == Ending::Stopped {
                return Ok(Ending::Stopped);
            }
        }
        Ok(Ending::Finished)
    };
    let run = || {
        let ending = worker();
        // A disk that is full for one worker is full for all.
        failed.fetch_or(ending.is_err(), Ordering::Relaxed);
        ending
    };
    let endings: Vec<Result<Ending>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(run)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.map(|ending| ending.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let endings = endings.into_iter().collect::<Result<Vec<Ending>>>()?;
    Ok(if endings.contains(&Ending::Stopped) { Ending::Stopped } else { Ending::Finished })
}
