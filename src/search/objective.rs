//! Objectives: what makes a candidate good, from its scores.
//!
//! In: text. `accuracy` or `latency` is one score; `accuracy=1,robustness=0.5,latency=-0.01` is one weighted sum;
//! `accuracy,latency`, several names without any weight, are several objectives, whose best compromises (the
//! Pareto front) are searched for. Out: a candidate's merits, one number for each objective, higher is better.
//!
//! Gains (accuracy, robustness) take positive weights; costs (latency, loss, params, macs) take negative ones,
//! and a name without a weight means 1 for a gain and -1 for a cost, so `latency` alone is minimised.

use crate::score::Scores;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A score that an objective can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Clean accuracy, 0..1.
    Accuracy,
    /// Mean accuracy under noise, 0..1.
    Robustness,
    /// Median latency, ms.
    Latency,
    /// Cross entropy, nats.
    Loss,
    /// Parameters, millions.
    Params,
    /// Multiply-accumulates of one image, millions.
    Macs,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 6] =
        [Metric::Accuracy, Metric::Robustness, Metric::Latency, Metric::Loss, Metric::Params, Metric::Macs];

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Robustness => "robustness",
            Metric::Latency => "latency",
            Metric::Loss => "loss",
            Metric::Params => "params",
            Metric::Macs => "macs",
        }
    }

    /// Whether less is better.
    pub const fn is_cost(self) -> bool {
        !matches!(self, Metric::Accuracy | Metric::Robustness)
    }

    /// The metric's value in the units of objectives, if it was measured.
    pub fn of(self, scores: &Scores) -> Option<f64> {
        match self {
            Metric::Accuracy => scores.accuracy,
            Metric::Robustness => scores.robustness,
            Metric::Latency => scores.latency_ms,
            Metric::Loss => scores.loss,
            Metric::Params => scores.params.map(|n| n as f64 / 1e6),
            Metric::Macs => scores.macs.map(|n| n as f64 / 1e6),
        }
    }
}

/// A weighted sum of metrics, to be maximised; or several metrics, of which the Pareto front is wanted.
///
/// ```
/// use foretell::{score::Scores, search::Objective};
/// let objective: Objective = "accuracy=1,latency=-0.01".parse().unwrap();
/// let scores = Scores { accuracy: Some(0.75), latency_ms: Some(5.0), ..Scores::default() };
/// assert_eq!(objective.merits(&scores).unwrap(), [0.75 - 0.05]);
/// let objective: Objective = "accuracy,latency".parse().unwrap();
/// assert_eq!(objective.merits(&scores).unwrap(), [0.75, -5.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Objective {
    terms: Vec<(Metric, f64)>,
    is_pareto: bool,
}

impl Objective {
    /// The metrics and their weights.
    pub fn terms(&self) -> &[(Metric, f64)] {
        &self.terms
    }

    /// Whether `metric` takes part.
    pub fn uses(&self, metric: Metric) -> bool {
        self.terms.iter().any(|term| term.0 == metric)
    }

    /// Whether there are several objectives instead of one sum.
    pub fn is_pareto(&self) -> bool {
        self.is_pareto
    }

    /// Whether it is one sum of what weights achieve on images alone, so that training decides it.
    pub fn is_learned(&self) -> bool {
        let is_learned = |term: &(Metric, f64)| matches!(term.0, Metric::Accuracy | Metric::Robustness);
        !self.is_pareto && self.terms.iter().all(|term| is_learned(term) && term.1 > 0.0)
    }

    /// How many merits a candidate has.
    pub fn count(&self) -> usize {
        if self.is_pareto { self.terms.len() } else { 1 }
    }

    /// What `scores` are worth, higher is better: the sum, or each of several objectives.
    ///
    /// # Errors
    /// A metric of the objective was not measured, or a merit is not finite.
    pub fn merits(&self, scores: &Scores) -> Result<Vec<f64>> {
        let parts = self.terms.iter().map(|&(metric, weight)| match metric.of(scores) {
            Some(value) => Ok(weight * value),
            None => {
                Err(Error::Config(format!("the objective needs {}, which was not measured", metric.name())))
            }
        });
        let parts = parts.collect::<Result<Vec<f64>>>()?;
        let merits = if self.is_pareto { parts } else { vec![parts.iter().sum()] };
        match merits.iter().find(|merit| !merit.is_finite()) {
            Some(merit) => Err(Error::NonFinite(format!("the objective {self} is {merit}"))),
            None => Ok(merits),
        }
    }
}

impl FromStr for Objective {
    type Err = Error;

    fn from_str(text: &str) -> Result<Objective> {
        let wrong = |reason: String| Error::Config(format!("objective \"{text}\": {reason}"));
        let mut terms: Vec<(Metric, f64)> = Vec::new();
        let mut is_weighted = false;
        for part in text.split(',') {
            let (name, weight) = match part.split_once('=') {
                Some((name, weight)) => (name.trim(), Some(weight.trim())),
                None => (part.trim(), None),
            };
            let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
                let known = Metric::ALL.map(Metric::name).join(", ");
                wrong(format!("unknown score \"{name}\"; known are {known}"))
            })?;
            is_weighted |= weight.is_some();
            let sign = if metric.is_cost() { -1.0 } else { 1.0 };
            let weight: f64 = match weight {
                None => sign,
                Some(weight) => weight
                    .parse()
                    .map_err(|_| wrong(format!("\"{weight}\" is not a number (weight of {name})")))?,
            };
            if !(weight * sign > 0.0 && weight.is_finite()) {
                return Err(wrong(match metric.is_cost() {
                    true => format!("{name} is a cost, so its weight must be negative, as in {name}=-0.01"),
                    false => format!("{name} is a gain, so its weight must be positive, as in {name}=1"),
                }));
            }
            if terms.iter().any(|term| term.0 == metric) {
                return Err(wrong(format!("{name} is given twice")));
            }
            terms.push((metric, weight));
        }
        let is_pareto = terms.len() > 1 && !is_weighted;
        Ok(Objective { terms, is_pareto })
    }
}

impl fmt::Display for Objective {
    /// Writes what parses to the same objective; a lone metric of weight 1 or -1, and several objectives, by their
    /// names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(metric, weight)] = self.terms[..]
            && weight.abs() == 1.0
        {
            return f.write_str(metric.name());
        }
        if self.is_pareto {
            let names: Vec<&str> = self.terms.iter().map(|term| term.0.name()).collect();
            return f.write_str(&names.join(","));
        }
        for (i, (metric, weight)) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}={weight}", metric.name())?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Objective {
    type Error = Error;

    fn try_from(text: String) -> Result<Objective> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> String {
        objective.to_string()
    }
}
