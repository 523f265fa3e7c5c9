//! Running statistics of batch norms, as PyTorch keeps them: `r = 0.9 r + 0.1 x` with the batch's mean and its
//! unbiased variance. Training itself uses the statistics of each batch; these are for running the network later,
//! one image at a time.

use crate::execute::NativeExecutor;
use crate::network::{Network, OpKind, ParamId};
use std::collections::BTreeMap;

/// Share of the latest batch.
const SHARE: f64 = 0.1;

/// Mean and variance of the inputs of all batch norms of a network.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RunningStatistics {
    /// Where each batch norm's channels begin, by its weight.
    first: BTreeMap<ParamId, usize>,
    /// Means of all channels.
    pub mean: Vec<f32>,
    /// Variances of all channels.
    pub variance: Vec<f32>,
}

impl RunningStatistics {
    /// Mean 0 and variance 1.
    pub fn new(network: &Network) -> RunningStatistics {
        let mut first = BTreeMap::new();
        let mut total = 0;
        for op in &network.ops {
            if let OpKind::BatchNorm { weight, .. } = op.kind {
                first.insert(weight, total);
                total += op.shape[0];
            }
        }
        RunningStatistics { first, mean: vec![0.0; total], variance: vec![1.0; total] }
    }

    /// Takes in the batch of `images` that `executor` ran last; `running` is its network.
    pub fn update(&mut self, running: &Network, executor: &NativeExecutor<f32>, images: usize) {
        let mix = |old: &mut f32, new: f64| *old = ((1.0 - SHARE) * f64::from(*old) + SHARE * new) as f32;
        for (index, op) in running.ops.iter().enumerate() {
            let OpKind::BatchNorm { weight, .. } = op.kind else { continue };
            let (Some(&first), Some([mean, variance])) =
                (self.first.get(&weight), executor.batch_moments(index))
            else {
                continue;
            };
            let [channels, height, width] = op.shape;
            let values = (images * height * width) as f64;
            let unbiased = values / (values - 1.0).max(1.0);
            for c in 0..channels {
                mix(&mut self.mean[first + c], mean[c]);
                mix(&mut self.variance[first + c], unbiased * variance[c]);
            }
        }
    }

    /// Module path, means and variances of each batch norm.
    pub fn of_modules<'a>(
        &'a self,
        network: &'a Network,
    ) -> impl Iterator<Item = (&'a str, &'a [f32], &'a [f32])> {
        self.first.iter().map(|(&weight, &first)| {
            let param = &network.params[weight.0];
            let module = param.name.strip_suffix(".weight").unwrap_or(&param.name);
            let channels = first..first + param.numel();
            (module, &self.mean[channels.clone()], &self.variance[channels])
        })
    }
}
