//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// How the learning rate changes over a run of a known number of steps.
///
/// ```
/// use foretell::training::Schedule;
/// let schedule = Schedule::Cosine { warmup: 10, floor: 0.0 };
/// assert_eq!(schedule.factor(4, 100), 0.5);
/// assert_eq!(schedule.factor(10, 100), 1.0);
/// assert!(schedule.factor(99, 100) < 0.001);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the base rate.
    Constant,
    /// Multiplied by `factor` at each of the given shares of the run (the reference: 0.1 at 2/3 and 5/6).
    Steps {
        /// Shares of the run in 0..1, ascending.
        at: Vec<f64>,
        /// Multiplier at each of them.
        factor: f64,
    },
    /// Linear warm-up, then half a cosine down to `floor` times the base rate.
    Cosine {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup: u64,
        /// Final share of the base rate.
        #[serde(default)]
        floor: f64,
    },
}

impl Schedule {
    /// Multiplier of the base rate at `step` (from 0) of `total`.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Steps { at, factor } => {
                let passed = at.iter().filter(|&&share| step as f64 >= share * total as f64).count();
                factor.powi(passed as i32)
            }
            Schedule::Cosine { warmup, floor } => {
                if step < *warmup {
                    return (step + 1) as f64 / *warmup as f64;
                }
                let span = total.saturating_sub(*warmup).max(1) as f64;
                let progress = ((step - warmup) as f64 / span).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_multiply_at_their_shares() {
        let schedule = Schedule::Steps { at: vec![0.5, 0.75], factor: 0.1 };
        let factors: Vec<f64> = [0, 49, 50, 74, 75, 99].map(|step| schedule.factor(step, 100)).to_vec();
        for (found, expected) in factors.iter().zip([1.0, 1.0, 0.1, 0.1, 0.01, 0.01]) {
            assert!((found - expected).abs() < 1e-12, "{factors:?}");
        }
    }

    #[test]
    fn a_run_of_no_steps_has_a_finite_factor() {
        assert!(Schedule::Cosine { warmup: 0, floor: 0.0 }.factor(0, 0).is_finite());
    }
}
