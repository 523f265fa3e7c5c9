//! Limits that a candidate has to keep.

use crate::score::Scores;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Upper limits; a candidate over one is recorded as rejected and cannot win.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Parameters.
    pub max_params: Option<u64>,
    /// Multiply-accumulates of one image.
    pub max_macs: Option<u64>,
    /// Median latency of a forward pass, ms.
    pub max_latency_ms: Option<f64>,
}

impl Limits {
    /// Checks that some candidate could keep the limits.
    ///
    /// # Errors
    /// A limit of zero, or a latency that is not a positive number.
    pub fn check(&self) -> Result<()> {
        for (flag, limit) in [("--max-params", self.max_params), ("--max-macs", self.max_macs)] {
            if limit == Some(0) {
                return Err(Error::Config(format!("{flag} 0: no network can keep this limit")));
            }
        }
        match self.max_latency_ms {
            Some(ms) if !(ms > 0.0 && ms.is_finite()) => Err(Error::Config(format!(
                "--max-latency-ms {ms}: must be a positive number of milliseconds"
            ))),
            _ => Ok(()),
        }
    }

    /// The reason to reject a candidate by what is known before any compute.
    pub fn breach_of_cost(&self, cost: &Scores) -> Option<String> {
        let over = |what: &str, found: Option<u64>, limit: Option<u64>| match (found, limit) {
            (Some(found), Some(limit)) if found > limit => {
                Some(format!("{what} {found} over the limit {limit}"))
            }
            (None, Some(limit)) => Some(format!("{what} unknown, so the limit {limit} cannot be checked")),
            _ => None,
        };
        over("params", cost.params, self.max_params).or_else(|| over("MACs", cost.macs, self.max_macs))
    }

    /// The reason to reject a candidate by its measured latency.
    pub fn breach_of_latency(&self, scores: &Scores) -> Option<String> {
        match (scores.latency_ms, self.max_latency_ms) {
            (Some(found), Some(limit)) if !(found <= limit) => {
                Some(format!("latency {found:.3} ms over the limit {limit} ms"))
            }
            (None, Some(limit)) => {
                Some(format!("latency not measured, so the limit {limit} ms cannot be checked"))
            }
            _ => None,
        }
    }
}
