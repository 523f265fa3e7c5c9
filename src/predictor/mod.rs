//! Predictors of what architectures measure, learned from those that were measured.
//!
//! In: a vector of features for each architecture ([`FeatureProbe`]: the hypernetwork's mean node embedding and cheap
//! scores) and a measured value, such as the accuracy after training. Out: a [`Predictor`], which knows how well it
//! ranks architectures that it has not seen, by Kendall's tau in cross-validation. The paper searches so, with a
//! support vector machine on the embedding alone (arXiv 2110.13100, section 4).
//!
//! Everything is a function of samples and seed, whatever the number of threads.

mod cross_validation;
mod features;
mod forecaster;
mod gaussian_process;
mod kendall;
mod learner;
mod predict;
mod properties;
mod regressor;
mod standard;

pub use cross_validation::{CrossValidation, Folds};
pub use features::{CHEAP_SCORES, CheapScores, FeatureProbe, Features};
pub use forecaster::Forecaster;
pub use kendall::Tau;
pub use learner::Learner;
pub use predict::{Estimate, Predictor};
pub use properties::{CHOSEN, FeatureSet, NO_REGRESSOR, Property, PropertyRow, property_rows};
pub use regressor::{Fitted, Regressor};

/// Features of one architecture, and what it measured. A feature that is not known is NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// In an order that is the same for all samples.
    pub features: Vec<f64>,
    /// Finite.
    pub value: f64,
}

#[cfg(test)]
mod tests;
