//! The regressors that are compared; features and values are standardised around all of them.
//!
//! Support vector machine, forest and boosting are smartcore's, with its seeded generator.

use super::Sample;
use super::gaussian_process::GaussianProcess;
use super::standard::Standard;
use crate::{Error, Result};
use smartcore::ensemble::extra_trees_regressor::{ExtraTreesRegressor, ExtraTreesRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::svm::Kernels;
use smartcore::svm::svr::{SVR, SVRParameters};
use smartcore::xgboost::{XGRegressor, XGRegressorParameters};

/// A way to learn values from features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regressor {
    /// Bayesian linear regression: ridge regression whose penalty has the highest marginal likelihood.
    Ridge,
    /// Gaussian process with a radial basis function.
    GaussianProcess,
    /// Epsilon support vector regression with a radial basis function.
    SupportVectors,
    /// 200 extremely randomised trees (doi:10.1007/s10994-006-6226-1).
    ExtraTrees,
    /// 150 boosted trees of depth 3 (arXiv 1603.02754).
    Boosting,
}

/// Penalty of a support vector machine and width of its insensitive tube, in deviations of the values.
const PENALTY: f64 = 3.0;
const TUBE: f64 = 0.1;

type Matrix = DenseMatrix<f64>;

impl Regressor {
    /// All, in the order in which ties between them are broken.
    pub const ALL: [Regressor; 5] = [
        Regressor::Ridge,
        Regressor::GaussianProcess,
        Regressor::SupportVectors,
        Regressor::ExtraTrees,
        Regressor::Boosting,
    ];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Regressor::Ridge => "ridge",
            Regressor::GaussianProcess => "gaussian-process",
            Regressor::SupportVectors => "support-vectors",
            Regressor::ExtraTrees => "extra-trees",
            Regressor::Boosting => "boosting",
        }
    }

    /// Learns from `samples`, of which there must be at least two.
    ///
    /// # Errors
    /// The samples cannot be learned from: none at all, or features of different number.
    pub fn fit(self, samples: &[&Sample], seed: u64) -> Result<Fitted> {
        let columns = samples.first().map_or(0, |sample| sample.features.len());
        if samples.len() < 2 || columns == 0 {
            let reason = format!("{} samples of {columns} features", samples.len());
            return Err(Error::Config(format!(
                "a predictor learns from two samples at least; found {reason}"
            )));
        }
        if let Some(sample) = samples.iter().find(|sample| sample.features.len() != columns) {
            let found = sample.features.len();
            return Err(Error::Config(format!("samples of {columns} and of {found} features")));
        }
        let standard = Standard::of(samples);
        let points: Vec<Vec<f64>> =
            samples.iter().map(|sample| standard.features(&sample.features)).collect();
        let values: Vec<f64> = samples.iter().map(|sample| standard.value(sample.value)).collect();
        let singular = || Error::NonFinite(format!("{}: the samples are not finite", self.name()));
        let model = match self {
            Regressor::Ridge => {
                Model::Process(GaussianProcess::linear(&points, &values).ok_or_else(singular)?)
            }
            Regressor::GaussianProcess => {
                Model::Process(GaussianProcess::radial(&points, &values).ok_or_else(singular)?)
            }
            Regressor::SupportVectors => {
                // smartcore's machine cuts points to as many features as there are samples. Copies of all samples at
                // a part of the penalty are the same problem.
                let copies = columns.div_ceil(points.len());
                // The width of the function: the usual 1 / d for standardised features.
                let kernel = Kernels::rbf().with_gamma(1.0 / columns as f64);
                let c = PENALTY / copies as f64;
                let parameters = SVRParameters { eps: TUBE, c, tol: 1e-3, kernel: Some(kernel) };
                let all = copies * points.len();
                let points: Vec<Vec<f64>> = points.into_iter().cycle().take(all).collect();
                Model::SupportVectors(Box::new((matrix(&points)?, values.repeat(copies), parameters)))
            }
            Regressor::ExtraTrees => {
                let parameters = ExtraTreesRegressorParameters::default()
                    .with_n_trees(200)
                    .with_min_samples_leaf(2)
                    .with_m(columns.div_ceil(3))
                    .with_seed(seed);
                Model::ExtraTrees(
                    ExtraTreesRegressor::fit(&matrix(&points)?, &values, parameters).map_err(failed)?,
                )
            }
            Regressor::Boosting => {
                let parameters = XGRegressorParameters::default()
                    .with_n_estimators(150)
                    .with_learning_rate(0.07)
                    .with_max_depth(3)
                    .with_base_score(0.0)
                    .with_subsample(0.7)
                    .with_seed(seed);
                Model::Boosting(XGRegressor::fit(&matrix(&points)?, &values, parameters).map_err(failed)?)
            }
        };
        Ok(Fitted { regressor: self, standard, model })
    }
}

/// A regressor that has learned.
pub struct Fitted {
    regressor: Regressor,
    standard: Standard,
    model: Model,
}

enum Model {
    Process(GaussianProcess),
    /// Points, values and settings: the machine borrows them, so it is trained when it is asked.
    SupportVectors(Box<(Matrix, Vec<f64>, SVRParameters<f64>)>),
    ExtraTrees(ExtraTreesRegressor<f64, f64, Matrix, Vec<f64>>),
    Boosting(XGRegressor<f64, f64, Matrix, Vec<f64>>),
}

impl Fitted {
    /// Which regressor it is.
    pub fn regressor(&self) -> Regressor {
        self.regressor
    }

    /// Value of each point, and its deviation where the regressor knows one.
    ///
    /// # Errors
    /// A point has another number of features than the samples had.
    pub fn predict<F: AsRef<[f64]>>(&self, features: &[F]) -> Result<Vec<(f64, Option<f64>)>> {
        let points: Vec<Vec<f64>> =
            features.iter().map(|features| self.standard.features(features.as_ref())).collect();
        if points.is_empty() {
            return Ok(Vec::new());
        }
        let plain = |values: Vec<f64>| values.into_iter().map(|value| (value, None)).collect();
        let predicted: Vec<(f64, Option<f64>)> = match &self.model {
            Model::Process(process) => points
                .iter()
                .map(|point| {
                    let (mean, sd) = process.predict(point);
                    (mean, Some(self.standard.spread_of(sd)))
                })
                .collect(),
            Model::SupportVectors(trained) => {
                let (points_of, values, parameters) = &**trained;
                let points = matrix(&points)?;
                let machine = SVR::fit(points_of, values, parameters).map_err(failed)?;
                plain(machine.predict(&points).map_err(failed)?)
            }
            Model::ExtraTrees(trees) => plain(trees.predict(&matrix(&points)?).map_err(failed)?),
            Model::Boosting(trees) => plain(trees.predict(&matrix(&points)?).map_err(failed)?),
        };
        Ok(predicted.into_iter().map(|(value, spread)| (self.standard.value_of(value), spread)).collect())
    }
}

fn matrix(points: &[Vec<f64>]) -> Result<Matrix> {
    let (rows, columns) = (points.len(), points.first().map_or(0, Vec::len));
    DenseMatrix::new(rows, columns, points.concat(), false).map_err(failed)
}

fn failed(error: smartcore::error::Failed) -> Error {
    Error::Config(format!("cannot learn from the samples: {error}"))
}
