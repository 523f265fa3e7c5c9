//! What a predictor knows of its own worth.

use crate::score::Fidelity;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How well a predictor foretells the value of candidates after training, in cross-validation on those trained so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// The fidelity that it foretells; none before anyone was trained.
    pub fidelity: Option<Fidelity>,
    /// Candidates trained so far at this fidelity.
    pub trials: u64,
    /// Candidates that it learns from at least.
    pub needed: u64,
    /// Kendall's tau with the value after training of what it foretells from embedding, cheap scores and the value with
    /// predicted weights, with a 95 % interval.
    pub tau: Option<[f64; 3]>,
    /// Kendall's tau of what it foretells from embedding and cheap scores alone.
    pub unscored: Option<f64>,
    /// Kendall's tau of the value with predicted weights by itself.
    pub predicted: Option<f64>,
    /// Whether it picks among the proposals of the strategy.
    pub proposes: bool,
    /// Whether it chooses who is trained.
    pub chooses: bool,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |tau: Option<f64>| tau.map_or_else(|| "none".into(), |tau| format!("{tau:.2}"));
        match (self.fidelity, self.tau) {
            (Some(fidelity), Some([tau, low, high])) => {
                let (predicted, unscored) = (number(self.predicted), number(self.unscored));
                write!(
                    f,
                    "Kendall's tau with {fidelity} in cross-validation {tau:.2} ({low:.2} to {high:.2}), n = {}; of \
                     predicted weights alone {predicted}, without their score {unscored}",
                    self.trials
                )
            }
            (Some(fidelity), None) => {
                write!(f, "{} trained at {fidelity}, {} needed to learn from", self.trials, self.needed)
            }
            (None, _) => write!(f, "nothing trained, {} needed to learn from", self.needed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_knows() {
        let none = Forecast {
            fidelity: None,
            trials: 0,
            needed: 16,
            tau: None,
            unscored: None,
            predicted: None,
            proposes: false,
            chooses: false,
        };
        assert_eq!(none.to_string(), "nothing trained, 16 needed to learn from");
        let fidelity = Some(Fidelity::Sgd { steps: 50 });
        let few = Forecast { fidelity, trials: 5, ..none };
        assert_eq!(few.to_string(), "5 trained at sgd:50, 16 needed to learn from");
        let (tau, unscored, predicted) = (Some([0.5, 0.25, 0.75]), Some(0.375), Some(-0.125));
        let able = Forecast { trials: 40, tau, unscored, predicted, chooses: true, ..few };
        let text = able.to_string();
        assert!(text.contains("0.50 (0.25 to 0.75), n = 40") && text.ends_with("0.38"), "{text}");
    }
}
