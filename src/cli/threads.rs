//! The number of threads, for every command that computes.

use anyhow::{Context, ensure};

/// More threads than any machine has cores only cost; far more take minutes to start.
const MAX: usize = 1024;

/// Limits all computation to `threads` threads, if a number is given.
pub fn limit(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        ensure!((1..=MAX).contains(&threads), "--threads is {threads}, expected 1 to {MAX}");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("--threads: the thread pool is already running")?;
    }
    Ok(())
}
