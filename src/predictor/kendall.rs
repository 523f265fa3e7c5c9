//! Kendall's rank correlation with an interval.
//!
//! In: pairs of numbers. Out: [tau-b](kendall_tau) and the percentile interval of a bootstrap over the pairs.

use crate::score::kendall_tau;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Resamples of the bootstrap.
const RESAMPLES: u64 = 500;

/// A rank correlation and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tau {
    /// Kendall's tau-b.
    pub tau: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Standard error: the deviation of tau over the resamples.
    pub se: f64,
}

impl Tau {
    /// Of pairs, with a bootstrap drawn from `seed`; none where there is no tau.
    pub fn of(a: &[f64], b: &[f64], seed: u64) -> Option<Tau> {
        let tau = kendall_tau(a, b)?;
        let resample = |number: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let drawn: Vec<usize> = a.iter().map(|_| rng.random_range(0..a.len())).collect();
            let pick = |from: &[f64]| drawn.iter().map(|&i| from[i]).collect::<Vec<f64>>();
            kendall_tau(&pick(a), &pick(b))
        };
        let mut taus: Vec<f64> = (0..RESAMPLES).into_par_iter().filter_map(resample).collect();
        taus.sort_by(f64::total_cmp);
        let n = taus.len();
        let at = |share: f64| taus.get((share * n as f64) as usize).copied().unwrap_or(tau);
        let mean = taus.iter().sum::<f64>() / n as f64;
        let variance = taus.iter().map(|tau| (tau - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
        let se = if n > 1 { variance.sqrt() } else { 0.0 };
        Some(Tau { tau, low: at(0.025), high: at(0.975), se })
    }
}
