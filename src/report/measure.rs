//! How a score is shown on an axis: label, unit, bounds.

use crate::search::Metric;
use std::ops::Range;

/// A metric on an axis. A shown value is the score's own, costs included, times `factor`.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    /// With its unit.
    pub(super) label: &'static str,
    /// In words, for titles.
    pub(super) name: &'static str,
    pub(super) factor: f64,
    pub(super) bounds: Range<f64>,
    pub(super) suffix: &'static str,
}

impl Measure {
    pub(super) fn of(metric: Metric) -> Measure {
        let shown = |label, name, factor, bounds, suffix| Measure { label, name, factor, bounds, suffix };
        let positive = 0.0..f64::INFINITY;
        match metric {
            Metric::Accuracy => shown("Accuracy (%)", "accuracy", 100.0, 0.0..100.0, " %"),
            Metric::Robustness => {
                shown("Accuracy under noise (%)", "accuracy under noise", 100.0, 0.0..100.0, " %")
            }
            Metric::Latency => shown("Latency (ms)", "latency", 1.0, positive, " ms"),
            Metric::Loss => shown("Cross entropy (nats)", "cross entropy", 1.0, positive, ""),
            Metric::Params => shown("Parameters (millions)", "parameters", 1.0, positive, " M"),
            Metric::Macs => {
                shown("Multiply-accumulates (millions)", "multiply-accumulates", 1.0, positive, " M")
            }
        }
    }
}
