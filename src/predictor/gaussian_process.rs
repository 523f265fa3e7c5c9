//! Gaussian process regression: Bayesian linear regression (ridge) and radial basis functions.
//!
//! In: standardised features `[n, d]` and values `[n]`. Out: mean and deviation at other points. Length scale and noise
//! are those of a small grid with the highest marginal likelihood, the amplitude has a closed form. Source: Rasmussen
//! and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1 and section 5.4.1. Unlike ridge
//! regression by normal equations it works with fewer samples than features.

use crate::kernels::cholesky;

/// How alike two points are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Covariance {
    /// `x x' / d`: functions are linear.
    Linear,
    /// `exp(-|x - x'|^2 / (2 d l^2))` with length scale `l`: functions are smooth.
    Radial {
        /// In deviations of a feature.
        length: f64,
    },
}

impl Covariance {
    fn of(self, a: &[f64], b: &[f64]) -> f64 {
        let d = a.len().max(1) as f64;
        match self {
            Covariance::Linear => cholesky::dot(a, b) / d,
            Covariance::Radial { length } => {
                let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
                (-distance / (2.0 * d * length * length)).exp()
            }
        }
    }
}

/// Length scales that are tried.
const LENGTHS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
/// Variances of the noise that are tried, as parts of the amplitude.
const NOISES: [f64; 5] = [0.003, 0.03, 0.1, 0.5, 3.0];

/// A fitted process.
#[derive(Clone, Debug)]
pub(super) struct GaussianProcess {
    points: Vec<Vec<f64>>,
    covariance: Covariance,
    noise: f64,
    amplitude: f64,
    /// Lower factor of the covariances of the points, with noise.
    factor: Vec<f64>,
    /// These times the inverse of that matrix.
    weights: Vec<f64>,
}

impl GaussianProcess {
    /// A process of linear functions.
    pub(super) fn linear(points: &[Vec<f64>], values: &[f64]) -> Option<GaussianProcess> {
        GaussianProcess::likeliest(points, values, &[Covariance::Linear])
    }

    /// A process of smooth functions.
    pub(super) fn radial(points: &[Vec<f64>], values: &[f64]) -> Option<GaussianProcess> {
        GaussianProcess::likeliest(points, values, &LENGTHS.map(|length| Covariance::Radial { length }))
    }

    /// Of the covariances and noises; none if there is no point.
    fn likeliest(points: &[Vec<f64>], values: &[f64], covariances: &[Covariance]) -> Option<GaussianProcess> {
        let n = points.len();
        let mut best: Option<(f64, GaussianProcess)> = None;
        for &covariance in covariances {
            let mut matrix = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    matrix[i * n + j] = covariance.of(&points[i], &points[j]);
                }
            }
            for noise in NOISES {
                let mut factor = matrix.clone();
                (0..n).for_each(|i| factor[i * n + i] += noise);
                if n == 0 || !cholesky::factor(&mut factor, n) {
                    continue;
                }
                let mut weights = values.to_vec();
                cholesky::solve(&factor, &mut weights);
                let amplitude = (cholesky::dot(values, &weights) / n as f64).max(f64::MIN_POSITIVE);
                let likelihood = -0.5 * (n as f64 * amplitude.ln() + cholesky::log_determinant(&factor, n));
                if best.as_ref().is_none_or(|best| likelihood > best.0) {
                    let points = points.to_vec();
                    let process = GaussianProcess { points, covariance, noise, amplitude, factor, weights };
                    best = Some((likelihood, process));
                }
            }
        }
        best.map(|best| best.1)
    }

    /// Mean and deviation of a measurement at `point`.
    pub(super) fn predict(&self, point: &[f64]) -> (f64, f64) {
        let mut alike: Vec<f64> = self.points.iter().map(|other| self.covariance.of(point, other)).collect();
        let mean = cholesky::dot(&alike, &self.weights);
        cholesky::solve_lower(&self.factor, &mut alike);
        let known = cholesky::dot(&alike, &alike);
        let variance = (self.covariance.of(point, point) - known).max(0.0) + self.noise;
        (mean, (self.amplitude * variance).sqrt())
    }
}
