//! Kendall's rank correlation with an interval.
//!
//! In: pairs of numbers. Out: tau-b (Kendall 1945, doi:10.1093/biomet/33.3.239), which counts ties, and the percentile
//! interval of a bootstrap over the pairs.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::cmp::Ordering;

/// Resamples of the bootstrap.
const RESAMPLES: u64 = 500;

/// Kendall's tau-b of `a` and `b`; none if fewer than two pairs differ in either.
///
/// ```
/// use foretell::predictor::kendall_tau;
/// assert_eq!(kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 30.0, 20.0]), Some(1.0 / 3.0));
/// assert_eq!(kendall_tau(&[1.0, 1.0], &[10.0, 30.0]), None);
/// ```
///
/// # Panics
/// The lengths differ.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "pairs of numbers");
    // Concordant less discordant pairs, and pairs that are not tied in a and in b.
    let (mut balance, mut of_a, mut of_b) = (0i64, 0i64, 0i64);
    for i in 1..a.len() {
        for j in 0..i {
            let (x, y) = (sign(a[i], a[j]), sign(b[i], b[j]));
            balance += x * y;
            of_a += x * x;
            of_b += y * y;
        }
    }
    (of_a > 0 && of_b > 0).then(|| balance as f64 / ((of_a as f64) * (of_b as f64)).sqrt())
}

/// 1, 0 or -1, by the total order, which holds NaN too.
fn sign(x: f64, y: f64) -> i64 {
    if x == y { 0 } else { i64::from(x.total_cmp(&y) == Ordering::Greater) * 2 - 1 }
}

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
