//! How well each property of architectures can be predicted from each set of features, by each regressor.
//!
//! In: measured properties and features of the same architectures. Out: a row for every property, set of features and
//! regressor, with Kendall's tau over the folds of one cross-validation, whose folds are the same in all rows. Source
//! of the comparison: arXiv 2110.13100, section 4 and table 6 (embeddings of hypernetworks, support vectors).

use super::Sample;
use super::cross_validation::{CrossValidation, Folds};
use super::kendall::Tau;
use super::predict::Predictor;
use super::regressor::Regressor;
use crate::{Error, Result};

/// A property that architectures have.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Of each architecture; none where it was not measured.
    pub values: Vec<Option<f64>>,
}

/// What a property is predicted from.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSet {
    /// Its name.
    pub name: String,
    /// Features of each architecture.
    pub rows: Vec<Vec<f64>>,
}

/// How one regressor did.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyRow {
    /// The property.
    pub property: String,
    /// The set of features.
    pub features: String,
    /// The regressor; [`CHOSEN`] chooses one by a cross-validation of its own in every fold, [`NO_REGRESSOR`] ranks by
    /// the one feature itself.
    pub predictor: &'static str,
    /// Architectures with the property.
    pub samples: usize,
    /// Mean of Kendall's tau over the folds; none where predictions or values are all equal.
    pub tau: Option<f64>,
    /// Its standard error over the folds.
    pub tau_se: Option<f64>,
    /// Of the held-out predictions of all folds together.
    pub pooled: Option<Tau>,
}

/// Name of the predictor that chooses its regressor.
pub const CHOSEN: &str = "chosen";
/// Name of no regressor at all.
pub const NO_REGRESSOR: &str = "none";

/// Rows of one property: a set of a single feature by itself, others by every regressor and by the chosen one.
///
/// # Errors
/// Too few architectures have the property for so many folds.
pub fn property_rows(
    property: &Property,
    sets: &[FeatureSet],
    folds: usize,
    seed: u64,
) -> Result<Vec<PropertyRow>> {
    let known: Vec<(usize, f64)> =
        property.values.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))).collect();
    // In every fold a regressor is chosen, so enough samples for that must be left.
    let needed = (2 * folds).max((Predictor::FEWEST * folds).div_ceil(folds.saturating_sub(1).max(1)));
    if known.len() < needed {
        return Err(Error::Config(format!(
            "{}: {} architectures have it, {needed} are needed for {folds} folds",
            property.name,
            known.len()
        )));
    }
    let folds = Folds::new(known.len(), folds, seed)?;
    let mut rows = Vec::new();
    for set in sets {
        let sample = |&(at, value): &(usize, f64)| Sample { features: set.rows[at].clone(), value };
        let samples: Vec<Sample> = known.iter().map(sample).collect();
        let mut add = |predictor, validation: CrossValidation| {
            let (tau, tau_se) = mean_and_error(&validation.fold_taus);
            rows.push(PropertyRow {
                property: property.name.clone(),
                features: set.name.clone(),
                predictor,
                samples: samples.len(),
                tau,
                tau_se,
                pooled: validation.tau,
            });
        };
        if samples[0].features.len() == 1 {
            let itself = |_: &[&Sample], ask: &[&Sample]| Ok(ask.iter().map(|s| s.features[0]).collect());
            add(NO_REGRESSOR, CrossValidation::with(&samples, &folds, seed, itself)?);
            continue;
        }
        for regressor in Regressor::ALL {
            add(regressor.name(), CrossValidation::of(regressor, &samples, &folds, seed)?);
        }
        let chosen = CrossValidation::with(&samples, &folds, seed, |learn, ask| {
            let learn: Vec<Sample> = learn.iter().map(|&sample| sample.clone()).collect();
            let ask: Vec<&[f64]> = ask.iter().map(|sample| &sample.features[..]).collect();
            Ok(Predictor::fit(&learn, seed)?.predict(&ask)?.iter().map(|estimate| estimate.value).collect())
        })?;
        add(CHOSEN, chosen);
    }
    Ok(rows)
}

/// Mean, and standard error where there are two values at least.
fn mean_and_error(values: &[f64]) -> (Option<f64>, Option<f64>) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (None, None);
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (Some(mean), (values.len() > 1).then(|| (variance / n).sqrt()))
}
