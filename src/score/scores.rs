//! What is known of a candidate. An absent number is `None`, never 0.

use serde::{Deserialize, Serialize};

/// Accuracy at one level of Gaussian pixel noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseScore {
    /// Standard deviation of the noise on pixels in `[0, 1]`.
    pub sd: f64,
    /// Share of images classified correctly, 0..1.
    pub accuracy: f64,
    /// Its binomial standard error.
    pub accuracy_se: f64,
}

/// Scores of one candidate with one set of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of clean validation images classified correctly, 0..1.
    pub accuracy: Option<f64>,
    /// Its binomial standard error.
    pub accuracy_se: Option<f64>,
    /// Mean cross entropy on clean validation images, nats.
    pub loss: Option<f64>,
    /// Images that the accuracies were measured on.
    pub images: Option<u64>,
    /// Accuracy at each noise level, in the order asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<NoiseScore>,
    /// Mean accuracy over the noise levels, 0..1.
    pub robustness: Option<f64>,
    /// Median time of a forward pass, ms.
    pub latency_ms: Option<f64>,
    /// 95th percentile of the time of a forward pass, ms.
    pub latency_p95_ms: Option<f64>,
    /// Images in a timed forward pass.
    pub latency_batch: Option<u64>,
    /// Threads of a timed forward pass.
    pub latency_threads: Option<u64>,
    /// Parameters that reach the output.
    pub params: Option<u64>,
    /// Multiply-accumulates of a forward pass of one image.
    pub macs: Option<u64>,
    /// Largest sum of live activations in a forward pass of one image, elements.
    pub peak_activations: Option<u64>,
    /// Time from genotype to all weights, ms.
    pub predict_ms: Option<f64>,
}

impl Scores {
    /// The name of the first score that is NaN or infinite, if there is one.
    pub fn first_non_finite(&self) -> Option<&'static str> {
        let scalars = [
            ("accuracy", self.accuracy),
            ("accuracy_se", self.accuracy_se),
            ("loss", self.loss),
            ("robustness", self.robustness),
            ("latency_ms", self.latency_ms),
            ("latency_p95_ms", self.latency_p95_ms),
            ("predict_ms", self.predict_ms),
        ];
        let broken = |value: f64| !value.is_finite();
        let scalar = scalars.into_iter().find(|(_, value)| value.is_some_and(broken)).map(|(name, _)| name);
        let noisy =
            |score: &NoiseScore| [score.sd, score.accuracy, score.accuracy_se].into_iter().any(broken);
        scalar.or_else(|| self.noise.iter().any(noisy).then_some("noise"))
    }

    /// The same scores, and those of `other` where there are none: costs and times that do not depend on weights.
    pub fn or(self, other: &Scores) -> Scores {
        Scores {
            latency_ms: self.latency_ms.or(other.latency_ms),
            latency_p95_ms: self.latency_p95_ms.or(other.latency_p95_ms),
            latency_batch: self.latency_batch.or(other.latency_batch),
            latency_threads: self.latency_threads.or(other.latency_threads),
            params: self.params.or(other.params),
            macs: self.macs.or(other.macs),
            peak_activations: self.peak_activations.or(other.peak_activations),
            predict_ms: self.predict_ms.or(other.predict_ms),
            ..self
        }
    }

    /// The same scores without those that are NaN or infinite, which files cannot hold.
    pub fn finite(mut self) -> Scores {
        for value in [
            &mut self.accuracy,
            &mut self.accuracy_se,
            &mut self.loss,
            &mut self.robustness,
            &mut self.latency_ms,
            &mut self.latency_p95_ms,
            &mut self.predict_ms,
        ] {
            *value = value.filter(|value| value.is_finite());
        }
        self.noise.retain(|score| {
            [score.sd, score.accuracy, score.accuracy_se].iter().all(|value| value.is_finite())
        });
        self
    }
}
