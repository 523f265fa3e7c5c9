//! Fidelities: with which weights a network is scored, from the cheapest to the dearest.
//!
//! In: text, `predicted`, `he:N`, `sgd:N` or `trained`. Out: a [`Fidelity`], ordered by how far its scores can be
//! trusted: by the amount of training, in which a step from random weights counts half of one from predicted weights,
//! because the first steps from random weights only lead to where prediction begins. Each fidelity begins anew from
//! its own initial weights and takes a learning-rate schedule of its own length, so a score at `sgd:400` means the same
//! whether the network was scored at `sgd:100` before or not.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Which weights a score belongs to.
///
/// ```
/// use foretell::score::Fidelity;
/// let fidelity: Fidelity = "sgd:400".parse().unwrap();
/// assert_eq!(fidelity, Fidelity::Sgd { steps: 400 });
/// assert_eq!(fidelity.to_string(), "sgd:400");
/// assert!(Fidelity::Predicted < fidelity && fidelity < Fidelity::Trained);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fidelity {
    /// Weights that the hypernetwork predicts.
    Predicted,
    /// So many steps of SGD from He's random weights; the control of [`Fidelity::Sgd`].
    He {
        /// Optimiser steps, at least 1.
        steps: u64,
    },
    /// So many steps of SGD from predicted weights.
    Sgd {
        /// Optimiser steps, at least 1.
        steps: u64,
    },
    /// Training to the end from predicted weights, for the epochs that the settings say.
    Trained,
}

impl Fidelity {
    /// Whether weights are trained, so that training images are needed.
    pub const fn is_refined(self) -> bool {
        !matches!(self, Fidelity::Predicted)
    }

    /// How often a score at this fidelity counts in a vote with sizes that count once each. Sizes are worth less once
    /// training has spoken.
    pub const fn votes(self) -> usize {
        if self.is_refined() { 2 } else { 1 }
    }

    /// The name in the names of files and columns: `sgd-400`.
    pub fn slug(self) -> String {
        self.to_string().replace(':', "-")
    }

    /// Class, half steps from predicted weights, and random before predicted initial weights.
    fn level(self) -> (u8, u64, u8) {
        match self {
            Fidelity::Predicted => (0, 0, 0),
            Fidelity::He { steps } => (1, steps, 0),
            Fidelity::Sgd { steps } => (1, steps.saturating_mul(2), 1),
            Fidelity::Trained => (2, 0, 0),
        }
    }
}

impl Ord for Fidelity {
    fn cmp(&self, other: &Fidelity) -> Ordering {
        self.level().cmp(&other.level())
    }
}

impl PartialOrd for Fidelity {
    fn partial_cmp(&self, other: &Fidelity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Fidelity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fidelity> {
        let wrong = |reason: String| Error::Config(format!("fidelity \"{text}\": {reason}"));
        let (name, steps) = match text.split_once(':') {
            Some((name, steps)) => (name, Some(steps)),
            None => (text, None),
        };
        let counted = || {
            let steps = steps.ok_or_else(|| wrong(format!("steps are missing, as in {name}:400")))?;
            match steps.parse::<u64>() {
                Ok(steps) if steps > 0 => Ok(steps),
                _ => Err(wrong(format!("\"{steps}\" is not a number of steps, expected at least 1"))),
            }
        };
        match (name, steps) {
            ("sgd", _) => Ok(Fidelity::Sgd { steps: counted()? }),
            ("he", _) => Ok(Fidelity::He { steps: counted()? }),
            ("predicted", None) => Ok(Fidelity::Predicted),
            ("trained", None) => Ok(Fidelity::Trained),
            ("predicted" | "trained", Some(_)) => Err(wrong(format!("{name} takes no number of steps"))),
            _ => Err(wrong("expected predicted, sgd:STEPS, he:STEPS or trained".into())),
        }
    }
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fidelity::Predicted => f.write_str("predicted"),
            Fidelity::He { steps } => write!(f, "he:{steps}"),
            Fidelity::Sgd { steps } => write!(f, "sgd:{steps}"),
            Fidelity::Trained => f.write_str("trained"),
        }
    }
}

impl TryFrom<String> for Fidelity {
    type Error = Error;

    fn try_from(text: String) -> Result<Fidelity> {
        text.parse()
    }
}

impl From<Fidelity> for String {
    fn from(fidelity: Fidelity) -> String {
        fidelity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back_in_the_order_of_trust() {
        let names = ["predicted", "he:3", "sgd:2", "he:400", "sgd:200", "trained"];
        let fidelities = names.map(|name| name.parse::<Fidelity>().unwrap());
        assert_eq!(fidelities.map(|fidelity| fidelity.to_string()), names);
        assert!(fidelities.is_sorted_by(|a, b| a < b));
        assert_eq!(fidelities[3].slug(), "he-400");
        assert!("he:401".parse::<Fidelity>().unwrap() > fidelities[4]);
        let json = serde_json::to_string(&fidelities).unwrap();
        assert_eq!(json, r#"["predicted","he:3","sgd:2","he:400","sgd:200","trained"]"#);
        assert_eq!(serde_json::from_str::<[Fidelity; 6]>(&json).unwrap(), fidelities);
    }

    #[test]
    fn other_texts_are_refused_with_their_reason() {
        for (text, reason) in [
            ("sgd", "steps are missing, as in sgd:400"),
            ("he:0", "\"0\" is not a number of steps"),
            ("sgd:-3", "\"-3\" is not a number of steps"),
            ("trained:5", "trained takes no number of steps"),
            ("full", "expected predicted, sgd:STEPS, he:STEPS or trained"),
        ] {
            let error = text.parse::<Fidelity>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
