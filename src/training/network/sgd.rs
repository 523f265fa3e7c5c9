//! Stochastic gradient descent with momentum, as PyTorch computes it, over a flat parameter vector.
//!
//! In: gradients `[n] f32`. Out: updated parameters. Weight decay is coupled: it is added to the (clipped) gradient,
//! before the momentum, `g += decay * w; m = momentum * m + g; w -= lr * m`. The momentum is not Nesterov's.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Settings of [`Sgd`]; the defaults are those of DARTS (arXiv 1806.09055, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Base learning rate.
    pub lr: f64,
    /// Share of the last update that is kept.
    pub momentum: f64,
    /// Weight decay, on all parameters.
    pub weight_decay: f64,
}

impl Default for SgdConfig {
    fn default() -> Self {
        SgdConfig { lr: 0.025, momentum: 0.9, weight_decay: 3e-4 }
    }
}

/// The optimiser with its momentum.
///
/// ```
/// use foretell::training::{Sgd, SgdConfig};
/// let mut sgd = Sgd::new(SgdConfig { lr: 0.5, momentum: 0.5, weight_decay: 0.0 }, 1);
/// let mut weights = [1.0];
/// sgd.step(&mut weights, &[1.0], 1.0, 1.0);
/// assert_eq!(weights, [0.5]);
/// sgd.step(&mut weights, &[0.0], 1.0, 1.0);
/// assert_eq!(weights, [0.25]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    config: SgdConfig,
    momentum: Vec<f32>,
}

impl Sgd {
    /// An optimiser of `n` parameters without history.
    pub fn new(config: SgdConfig, n: usize) -> Sgd {
        Sgd { config, momentum: vec![0.0; n] }
    }

    /// Takes a saved momentum over.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it has another length.
    pub fn with_momentum(self, momentum: Vec<f32>) -> Result<Sgd> {
        if momentum.len() != self.momentum.len() {
            return Err(Error::Tensor(format!(
                "momentum: {} elements, expected {}",
                momentum.len(),
                self.momentum.len()
            )));
        }
        Ok(Sgd { momentum, ..self })
    }

    /// The momentum `[n]`.
    pub fn momentum(&self) -> &[f32] {
        &self.momentum
    }

    /// Updates `params` by `gradient * scale` at `lr_factor` times the base learning rate.
    pub fn step(&mut self, params: &mut [f32], gradient: &[f32], scale: f64, lr_factor: f64) {
        let (scale, lr) = (scale as f32, (self.config.lr * lr_factor) as f32);
        let (momentum, decay) = (self.config.momentum as f32, self.config.weight_decay as f32);
        for ((param, gradient), kept) in params.iter_mut().zip(gradient).zip(&mut self.momentum) {
            *kept = momentum * *kept + (gradient * scale + decay * *param);
            *param -= lr * *kept;
        }
    }
}

/// L2 norm of a flat gradient, summed in f64 from first to last.
pub(super) fn norm(gradient: &[f32]) -> f64 {
    gradient.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}
