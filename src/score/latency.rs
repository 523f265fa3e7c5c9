//! Time of a forward pass: median and 95th percentile.
//!
//! In: weights and one batch of images. Out: milliseconds, with the batch size and the number of threads that
//! they hold for. The threads are those of the current rayon pool: call inside `pool.install` for another
//! number. Only one latency should be measured at a time, on an otherwise quiet machine.

use super::scores::Scores;
use crate::execute::{Executor, Mode};
use crate::images::PreparedImages;
use crate::{Error, Result};
use std::hint::black_box;
use std::time::Instant;

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyOptions {
    /// Images in a pass.
    pub batch: usize,
    /// Passes that are run first and not counted.
    pub warm_up: usize,
    /// Passes that are timed at least.
    pub repetitions: usize,
    /// Time that is measured at least, ms; reached by more passes, 10,000 at the most.
    pub min_ms: f64,
}

impl Default for LatencyOptions {
    /// Batches of 64, 3 passes to warm up, then at least 10 passes and 200 ms.
    fn default() -> Self {
        LatencyOptions { batch: 64, warm_up: 3, repetitions: 10, min_ms: 200.0 }
    }
}

const MOST_REPETITIONS: usize = 10_000;

/// Measured times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Median, ms.
    pub median_ms: f64,
    /// 95th percentile (nearest rank), ms.
    pub p95_ms: f64,
    /// Images in a pass.
    pub batch: u64,
    /// Threads of the pool.
    pub threads: u64,
    /// Timed passes.
    pub repetitions: u64,
}

impl Scores {
    /// Fills in the times with batch size and threads.
    pub fn set_latency(&mut self, measured: &Latency) {
        self.latency_ms = Some(measured.median_ms);
        self.latency_p95_ms = Some(measured.p95_ms);
        self.latency_batch = Some(measured.batch);
        self.latency_threads = Some(measured.threads);
    }
}

/// Times forward passes of the first `options.batch` images.
///
/// # Errors
/// If there are fewer images, if nothing is to be timed, or if the executor fails.
pub fn latency(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    options: &LatencyOptions,
) -> Result<Latency> {
    if options.batch == 0 || options.batch > images.len() || options.repetitions == 0 {
        return Err(Error::Config(format!(
            "latency needs at least 1 repetition and a batch of 1 to {} images; asked for {} of {}",
            images.len(),
            options.repetitions,
            options.batch
        )));
    }
    let pixels = &images.images()[..options.batch * images.image_len()];
    for _ in 0..options.warm_up {
        black_box(executor.logits(params, pixels, Mode::Evaluate)?);
    }
    let (mut times_ms, mut total_ms) = (Vec::new(), 0.0);
    while times_ms.len() < options.repetitions
        || (total_ms < options.min_ms && times_ms.len() < MOST_REPETITIONS)
    {
        let start = Instant::now();
        black_box(executor.logits(params, pixels, Mode::Evaluate)?);
        let time_ms = start.elapsed().as_secs_f64() * 1e3;
        times_ms.push(time_ms);
        total_ms += time_ms;
    }
    let (median_ms, p95_ms) = median_and_p95(&mut times_ms);
    Ok(Latency {
        median_ms,
        p95_ms,
        batch: options.batch as u64,
        threads: rayon::current_num_threads() as u64,
        repetitions: times_ms.len() as u64,
    })
}

/// Of at least one time; sorts them.
fn median_and_p95(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let n = times.len();
    let median = (times[(n - 1) / 2] + times[n / 2]) / 2.0;
    (median, times[(n * 95).div_ceil(100) - 1])
}

#[cfg(test)]
mod tests {
    use super::super::fake::FirstPixels;
    use super::*;

    #[test]
    fn the_median_and_the_nearest_rank_are_taken() {
        assert_eq!(median_and_p95(&mut [4.0]), (4.0, 4.0));
        assert_eq!(median_and_p95(&mut [3.0, 1.0, 2.0, 10.0]), (2.5, 10.0));
        let mut times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median_and_p95(&mut times), (50.5, 95.0));
    }

    #[test]
    fn warm_up_and_repetitions_are_kept() {
        let images = PreparedImages::new(vec![0.5; 30], vec![0; 10], 3).unwrap();
        let options = LatencyOptions { batch: 4, warm_up: 2, repetitions: 5, min_ms: 0.0 };
        let mut executor = FirstPixels::new(3, 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let measured = pool.install(|| latency(&mut FirstPixels::new(3, 3), &[], &images, &options).unwrap());
        assert_eq!((measured.batch, measured.threads, measured.repetitions), (4, 1, 5));
        latency(&mut executor, &[], &images, &options).unwrap();
        assert_eq!(executor.batches, [4; 7]);
        assert!(measured.median_ms >= 0.0 && measured.p95_ms >= measured.median_ms);
        let longer = LatencyOptions { min_ms: 20.0, ..options };
        let measured_longer = latency(&mut executor, &[], &images, &longer).unwrap();
        assert!(measured_longer.repetitions > 5);
        let mut scores = Scores::default();
        scores.set_latency(&measured);
        assert_eq!(
            (scores.latency_ms, scores.latency_p95_ms),
            (Some(measured.median_ms), Some(measured.p95_ms))
        );
        assert_eq!((scores.latency_batch, scores.latency_threads), (Some(4), Some(1)));
    }

    #[test]
    fn impossible_measurements_are_refused() {
        let images = PreparedImages::new(vec![0.5; 6], vec![0; 2], 3).unwrap();
        let options = LatencyOptions { batch: 2, ..LatencyOptions::default() };
        for (batch, repetitions) in [(3, 10), (0, 10), (2, 0)] {
            let options = LatencyOptions { batch, repetitions, ..options };
            let error = latency(&mut FirstPixels::new(3, 3), &[], &images, &options).unwrap_err().to_string();
            assert!(error.contains("a batch of 1 to 2 images"), "{error}");
        }
    }
}
