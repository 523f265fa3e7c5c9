//! Running statistics of batch norms, computed on images after the weights are known.
//!
//! In: a network, its weights, images. Out: mean and variance of every batch norm's input. Each batch runs with
//! its own statistics, as in training and in the search; moments are pooled over all batches with equal weight
//! ("precise" statistics: Wu, Johnson, "Rethinking Batch in BatchNorm", arXiv 2105.07576, section 3). The variance
//! is the pooled one, not the mean of the batches' variances, and unbiased, as PyTorch's buffers hold it.

use crate::execute::{Executor, Mode, NativeExecutor};
use crate::images::{Augmentation, BatchState, DataSet, PreparedImages, TrainingBatches};
use crate::network::{Network, OpKind};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Seed of the draw of training images.
const SEED: u64 = 0;

/// Mean and unbiased variance of the input of one batch norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C]`.
    pub variance: Vec<f32>,
}

/// Running statistics of all batch norms of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// By the index of the batch norm's op.
    pub moments: BTreeMap<usize, Moments>,
    /// Batches that they were computed on.
    pub batches: u64,
}

impl Statistics {
    /// Pools the statistics of batches of `batch` images; a last, smaller batch is left out.
    ///
    /// # Errors
    /// There are fewer than two images, or an activation is not finite.
    pub fn compute(
        network: &Network,
        params: &[f32],
        images: &PreparedImages,
        batch: usize,
    ) -> Result<Statistics> {
        let batch = batch.min(images.len());
        if batch < 2 {
            return Err(Error::Config(format!(
                "the statistics of batch norms need batches of two images or more, found {batch}"
            )));
        }
        let norms = batch_norms(network);
        let mut pooled: BTreeMap<usize, Vec<Pool>> =
            norms.iter().map(|&op| (op, vec![Pool::default(); network.ops[op].shape[0]])).collect();
        let mut batches = 0;
        if !norms.is_empty() {
            let mut executor = NativeExecutor::<f32>::new(network, batch)?;
            for (pixels, _) in images.batches(batch) {
                executor.logits(params, pixels, Mode::Evaluate)?;
                batches += 1;
                for (&op, pools) in &mut pooled {
                    let [mean, variance] = executor.batch_moments(op).ok_or_else(|| {
                        Error::Tensor(format!("{}: a run left no statistics", norm_name(network, op)))
                    })?;
                    for ((pool, mean), variance) in pools.iter_mut().zip(mean).zip(variance) {
                        pool.add(mean, variance);
                    }
                }
            }
        }
        let mut moments = BTreeMap::new();
        for (op, pools) in pooled {
            let [_, h, w] = network.ops[op].shape;
            let values = (batches * batch as u64) as f64 * (h * w) as f64;
            let of = |value: &dyn Fn(&Pool) -> f64| pools.iter().map(|pool| value(pool) as f32).collect();
            let joined = Moments { mean: of(&|pool| pool.mean), variance: of(&|pool| pool.variance(values)) };
            if joined.mean.iter().chain(&joined.variance).any(|value| !value.is_finite()) {
                let name = norm_name(network, op);
                return Err(Error::NonFinite(format!("{name}: the statistics are not finite")));
            }
            moments.insert(op, joined);
        }
        Ok(Statistics { moments, batches })
    }
}

/// Ops of all batch norms, in running order.
pub(super) fn batch_norms(network: &Network) -> Vec<usize> {
    (0..network.ops.len()).filter(|&op| matches!(network.ops[op].kind, OpKind::BatchNorm { .. })).collect()
}

/// Module path of a batch norm.
pub(super) fn norm_name(network: &Network, op: usize) -> &str {
    let weight = network.ops[op].kind.params().next().map_or("", |id| &network.params[id.0].name);
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// Moments of one channel over equal batches (Welford 1962, on the batches' means).
#[derive(Clone, Copy, Debug, Default)]
struct Pool {
    batches: f64,
    mean: f64,
    /// Sum of squared deviations of the batches' means.
    between: f64,
    /// Sum of the batches' variances.
    within: f64,
}

impl Pool {
    fn add(&mut self, mean: f64, variance: f64) {
        self.batches += 1.0;
        let deviation = mean - self.mean;
        self.mean += deviation / self.batches;
        self.between += deviation * (mean - self.mean);
        self.within += variance;
    }

    /// Unbiased variance of `values` values.
    fn variance(&self, values: f64) -> f64 {
        (self.within + self.between) / self.batches * values / (values - 1.0)
    }
}

/// Images that statistics are computed on, and which they are.
pub struct StatisticsImages {
    /// The images.
    pub images: PreparedImages,
    /// `training images`, or validation images where a set has no others.
    pub split: &'static str,
    /// Validation images, from the first, that the statistics did not see.
    pub unseen_validation: usize,
}

impl StatisticsImages {
    /// Draws `count` training images (all, if there are fewer), without augmentation.
    ///
    /// A set without training images lends the last `count` validation images, at most half of them, so that
    /// accuracy can be measured on the others. Labels are never used.
    ///
    /// # Errors
    /// There are fewer than two images to draw from.
    pub fn draw(data: &DataSet, count: usize) -> Result<StatisticsImages> {
        let classes = data.classes().len();
        if let Some(train) = &data.train {
            let count = count.min(train.len());
            let state = BatchState::new(SEED);
            let mut draw = TrainingBatches::new(Arc::clone(train), count, Augmentation::NONE, state)?;
            let (mut images, mut labels) = (Vec::new(), Vec::new());
            draw.next_batch(&mut images, &mut labels)?;
            let images = PreparedImages::new(images, labels, classes)?;
            let unseen_validation = data.validation.len();
            return Ok(StatisticsImages { images, split: "training images", unseen_validation });
        }
        let all = data.validation.len();
        let unseen_validation = all - count.min(all / 2);
        let images = data.validation.slice("statistics", unseen_validation..all).prepare(all)?;
        Ok(StatisticsImages { images, split: "validation images", unseen_validation })
    }
}
