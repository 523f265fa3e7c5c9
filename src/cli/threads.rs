//! The number of threads, for every command that computes.

use anyhow::{Context, ensure};

/// Limits all computation to `threads` threads, if a number is given.
pub fn limit(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        ensure!(threads > 0, "--threads is 0, expected at least 1");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("--threads: the thread pool is already running")?;
    }
    Ok(())
}
