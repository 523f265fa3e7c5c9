//! Features and values on one scale: mean 0, deviation 1.

use super::Sample;

/// Where a number of the samples lies and how it spreads.
#[derive(Clone, Copy, Debug)]
struct Scale {
    mean: f64,
    /// 0 for a constant, which then stays at 0.
    inverse: f64,
}

impl Scale {
    /// Of the finite ones among `values`.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let n = finite.clone().count().max(1) as f64;
        let mean = finite.clone().sum::<f64>() / n;
        let sd = (finite.map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
        let inverse = if sd > 1e-9 * mean.abs().max(1e-9) { 1.0 / sd } else { 0.0 };
        Scale { mean, inverse }
    }

    /// What is not known stands at the mean.
    fn apply(&self, value: f64) -> f64 {
        if value.is_finite() { (value - self.mean) * self.inverse } else { 0.0 }
    }
}

/// The scales of features and values.
#[derive(Clone, Debug)]
pub(super) struct Standard {
    features: Vec<Scale>,
    value: Scale,
}

impl Standard {
    pub(super) fn of(samples: &[&Sample]) -> Standard {
        let columns = samples.first().map_or(0, |sample| sample.features.len());
        let column = |at: usize| Scale::of(samples.iter().map(move |sample| sample.features[at]));
        Standard {
            features: (0..columns).map(column).collect(),
            value: Scale::of(samples.iter().map(|sample| sample.value)),
        }
    }

    pub(super) fn features(&self, features: &[f64]) -> Vec<f64> {
        self.features.iter().zip(features).map(|(scale, &value)| scale.apply(value)).collect()
    }

    pub(super) fn value(&self, value: f64) -> f64 {
        self.value.apply(value)
    }

    /// Back to the units of the samples.
    pub(super) fn value_of(&self, standardised: f64) -> f64 {
        self.value.mean + self.spread_of(standardised)
    }

    /// A deviation in the units of the samples.
    pub(super) fn spread_of(&self, standardised: f64) -> f64 {
        if self.value.inverse == 0.0 { 0.0 } else { standardised / self.value.inverse }
    }
}
