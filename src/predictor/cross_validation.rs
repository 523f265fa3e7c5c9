//! How well regressors predict samples that they have not learned from.

use super::Sample;
use super::kendall::Tau;
use super::regressor::Regressor;
use crate::score::kendall_tau;
use crate::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Which samples are held out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    /// The fold of each sample.
    of: Vec<usize>,
    count: usize,
}

impl Folds {
    /// Assigns `samples` samples to `count` folds of equal size, give or take one, at random from `seed`.
    ///
    /// # Errors
    /// There are fewer than two folds, or a fold would hold fewer than two samples.
    pub fn new(samples: usize, count: usize, seed: u64) -> Result<Folds> {
        if count < 2 || samples < 2 * count {
            return Err(Error::Config(format!(
                "cross-validation in {count} folds needs at least 2 folds and {} samples, found {samples}",
                2 * count.max(2)
            )));
        }
        let mut of: Vec<usize> = (0..samples).map(|sample| sample % count).collect();
        of.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Ok(Folds { of, count })
    }

    /// Numbers of the samples to learn from and of those held out.
    fn split(&self, fold: usize) -> (Vec<usize>, Vec<usize>) {
        (0..self.of.len()).partition(|&sample| self.of[sample] != fold)
    }
}

/// Predictions for all samples, each by a regressor that has learned from the other folds.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossValidation {
    /// Of each sample.
    pub predicted: Vec<f64>,
    /// Kendall's tau within each fold that has one.
    pub fold_taus: Vec<f64>,
    /// Over all samples; none if all predictions or all values are equal.
    pub tau: Option<Tau>,
}

impl CrossValidation {
    /// Of one regressor.
    ///
    /// # Errors
    /// The regressor cannot learn from the samples.
    pub fn of(regressor: Regressor, samples: &[Sample], folds: &Folds, seed: u64) -> Result<CrossValidation> {
        CrossValidation::with(samples, folds, seed, |learn, ask| {
            let points: Vec<&[f64]> = ask.iter().map(|sample| sample.features.as_slice()).collect();
            let predicted = regressor.fit(learn, seed)?.predict(&points)?;
            Ok(predicted.into_iter().map(|(value, _)| value).collect())
        })
    }

    /// Of anything that predicts the second samples after it has learned from the first.
    ///
    /// # Errors
    /// Those of `predict`.
    pub fn with(
        samples: &[Sample],
        folds: &Folds,
        seed: u64,
        predict: impl Fn(&[&Sample], &[&Sample]) -> Result<Vec<f64>> + Sync,
    ) -> Result<CrossValidation> {
        let of = |numbers: &[usize]| numbers.iter().map(|&sample| &samples[sample]).collect::<Vec<_>>();
        let held_out = |fold: usize| -> Result<(Vec<usize>, Vec<f64>)> {
            let (learn, ask) = folds.split(fold);
            let predicted = predict(&of(&learn), &of(&ask))?;
            Ok((ask, predicted))
        };
        let parts = (0..folds.count).into_par_iter().map(held_out).collect::<Result<Vec<_>>>()?;
        let mut predicted = vec![0.0; samples.len()];
        let mut fold_taus = Vec::with_capacity(parts.len());
        for (ask, of_fold) in parts {
            let measured: Vec<f64> = ask.iter().map(|&sample| samples[sample].value).collect();
            fold_taus.extend(kendall_tau(&of_fold, &measured));
            ask.iter().zip(of_fold).for_each(|(&sample, value)| predicted[sample] = value);
        }
        let measured: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let tau = Tau::of(&predicted, &measured, seed);
        Ok(CrossValidation { predicted, fold_taus, tau })
    }
}
