//! A predictor: the regressor that ranks best in cross-validation, fitted to all samples.

use super::Sample;
use super::cross_validation::{CrossValidation, Folds};
use super::kendall::Tau;
use super::regressor::{Fitted, Regressor};
use crate::{Error, Result};
use rayon::prelude::*;

/// What a predictor says of an architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// In the units of the samples' values.
    pub value: f64,
    /// Its deviation: the regressor's own, or the root mean square error of the cross-validation.
    pub spread: f64,
}

/// Predicts values of architectures that were not measured.
///
/// ```
/// use foretell::predictor::{Predictor, Sample};
/// let sample = |x: f64| Sample { features: vec![x, 1.0], value: 2.0 * x };
/// let samples: Vec<Sample> = (0..20).map(|i| sample(i as f64)).collect();
/// let predictor = Predictor::fit(&samples, 0)?;
/// assert!(predictor.tau().unwrap().tau > 0.9);
/// let estimate = predictor.predict(&[[5.5, 1.0]])?[0];
/// assert!((estimate.value - 11.0).abs() < 1.0);
/// # Ok::<(), foretell::Error>(())
/// ```
pub struct Predictor {
    fitted: Fitted,
    validation: CrossValidation,
    error: f64,
}

impl Predictor {
    /// Fewest samples that a predictor is fitted to.
    pub const FEWEST: usize = 10;
    /// Folds of the cross-validation.
    pub const FOLDS: usize = 5;

    /// Chooses the regressor by its tau in cross-validation and fits it to all samples.
    ///
    /// # Errors
    /// Fewer than [`Predictor::FEWEST`] samples, a value that is not finite, or features of different number.
    pub fn fit(samples: &[Sample], seed: u64) -> Result<Predictor> {
        Predictor::fit_one_of(&Regressor::ALL, samples, seed)
    }

    /// As [`Predictor::fit`], among given regressors.
    ///
    /// # Errors
    /// As [`Predictor::fit`]; no regressor is given.
    pub fn fit_one_of(regressors: &[Regressor], samples: &[Sample], seed: u64) -> Result<Predictor> {
        if samples.len() < Predictor::FEWEST {
            return Err(Error::Config(format!(
                "a predictor needs {} measured architectures, found {}",
                Predictor::FEWEST,
                samples.len()
            )));
        }
        if let Some(at) = samples.iter().position(|sample| !sample.value.is_finite()) {
            return Err(Error::NonFinite(format!("sample {at} has the value {}", samples[at].value)));
        }
        let folds = Folds::new(samples.len(), Predictor::FOLDS, seed)?;
        let validate =
            |&regressor: &Regressor| Ok((regressor, CrossValidation::of(regressor, samples, &folds, seed)?));
        let validated = regressors.par_iter().map(validate).collect::<Result<Vec<_>>>()?;
        let tau = |validation: &CrossValidation| validation.tau.map_or(f64::NEG_INFINITY, |tau| tau.tau);
        let best = validated.into_iter().reduce(|best, next| {
            // The first of equals.
            if tau(&next.1) > tau(&best.1) { next } else { best }
        });
        let Some((regressor, validation)) = best else {
            return Err(Error::Config("no regressor to choose from".into()));
        };
        let squares = samples.iter().zip(&validation.predicted);
        let squares: f64 = squares.map(|(sample, predicted)| (sample.value - predicted).powi(2)).sum();
        let error = (squares / samples.len() as f64).sqrt();
        let all: Vec<&Sample> = samples.iter().collect();
        Ok(Predictor { fitted: regressor.fit(&all, seed)?, validation, error })
    }

    /// The regressor that was chosen.
    pub fn regressor(&self) -> Regressor {
        self.fitted.regressor()
    }

    /// Kendall's tau of its cross-validation with a 95 % interval; none if it tells no two samples apart. As the best
    /// of several regressors it is slightly flattering: by the difference between the lines `chosen` and the best
    /// one in the table of `foretell properties`.
    pub fn tau(&self) -> Option<Tau> {
        self.validation.tau
    }

    /// Root mean square error of the cross-validation, in the units of the values.
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Estimates for architectures of given features.
    ///
    /// # Errors
    /// The regressor fails, which would be a bug.
    pub fn predict<F: AsRef<[f64]>>(&self, features: &[F]) -> Result<Vec<Estimate>> {
        let predicted = self.fitted.predict(features)?;
        let estimate =
            |(value, spread): (f64, Option<f64>)| Estimate { value, spread: spread.unwrap_or(self.error) };
        Ok(predicted.into_iter().map(estimate).collect())
    }
}
