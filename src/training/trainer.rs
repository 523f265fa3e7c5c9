//! One GHN in training (arXiv 2110.13100, section 3): its weights, its optimiser and where it stands in the data.
//!
//! In: a [`TrainConfig`] and images. Out: step after step, a GHN that predicts weights with a lower mean cross
//! entropy over the architectures of the meta-batch.

use super::adam::{Adam, collect_gradients, global_norm};
use super::average::Average;
use super::config::TrainConfig;
use super::draw::{ArchitectureSource, Candidate, Purpose, stream};
use super::loss::attach_gradient;
use super::resident::{Resident, images_and_labels, mean_loss};
use crate::execute::{Executor, Mode, NativeExecutor, Workspace};
use crate::ghn::Ghn;
use crate::images::{Augmentation, BatchState, DataSet, PreparedImages, TrainingBatches};
use crate::network::Network;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Reverse;

/// Elements of all activations of a batch from which on a network is large: 256 MiB.
const LARGE: usize = 64 << 20;
/// Threads that a large network keeps busy.
const LARGE_THREADS: usize = 4;

/// What one optimiser step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Step number, from 0.
    pub step: u64,
    /// Epoch of the images.
    pub epoch: u64,
    /// Mean cross entropy over the meta-batch, nats; none if it was not finite.
    pub loss: Option<f64>,
    /// L2 norm of the gradient before clipping; none if it was not finite.
    pub grad_norm: Option<f64>,
    /// Learning rate.
    pub lr: f64,
    /// Nodes of all graphs.
    pub nodes: usize,
    /// Parameters predicted.
    pub params: usize,
    /// Whether the update was left out because something was not finite.
    pub skipped: bool,
}

/// Accuracy with predicted weights on held-out architectures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutReport {
    /// Optimiser steps taken.
    pub step: u64,
    /// Accuracy of each held-out architecture on validation images, 0..1.
    pub accuracies: Vec<f64>,
    /// Mean over the architectures.
    pub mean: f64,
    /// Standard error of the mean over the architectures.
    pub se: f64,
    /// Best architecture.
    pub best: f64,
}

/// A GHN in training.
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) ghn: Ghn,
    pub(super) adam: Adam,
    pub(super) average: Option<Average>,
    pub(super) batches: TrainingBatches,
    pub(super) step: u64,
    pub(super) skips_in_a_row: u64,
    source: ArchitectureSource,
    validation: PreparedImages,
    workspace: Workspace<f32>,
    /// The device that everything but the optimiser runs on; none: the CPU, with the native executor.
    resident: Option<Resident>,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// If spaces, images and hypernetwork do not fit together, or the hypernetwork to start from cannot be read or has
    /// other settings.
    pub fn new(config: TrainConfig, data: &DataSet) -> Result<Trainer> {
        let ghn = match &config.start {
            None => Ghn::new(config.ghn.clone(), config.seed)?,
            Some(start) => Ghn::open(start)?
                .adapted(&config.ghn, config.seed)
                .map_err(|error| Error::Config(format!("start: {start}: {error}")))?,
        };
        Trainer::with_ghn(config, ghn, data)
    }

    /// A run at its beginning with given weights.
    pub(super) fn with_ghn(config: TrainConfig, ghn: Ghn, data: &DataSet) -> Result<Trainer> {
        let train = data.training()?.clone();
        let classes = train.classes().len();
        if classes != config.ghn.num_classes {
            return Err(Error::Config(format!(
                "ghn.num_classes is {}, but {} has {classes} classes",
                config.ghn.num_classes, config.images.source
            )));
        }
        let adam = Adam::new(config.optimizer.clone(), ghn.vars());
        let decay = config.average;
        let average = (decay > 0.0).then(|| Average::new(decay, &ghn.vars())).transpose()?;
        let augmentation = if config.images.augment { Augmentation::default() } else { Augmentation::NONE };
        let batches =
            TrainingBatches::new(train, config.images.batch, augmentation, BatchState::new(config.seed))?;
        let source = ArchitectureSource::new(
            &config.architectures,
            config.steps,
            config.seed,
            classes,
            config.evaluation.architectures,
        )?;
        let validation = data.validation.prepare(config.evaluation.images)?;
        Ok(Trainer {
            config,
            ghn,
            adam,
            average,
            batches,
            step: 0,
            skips_in_a_row: 0,
            source,
            validation,
            workspace: Workspace::default(),
            resident: None,
        })
    }

    /// The run's settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Steps taken.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// The hypernetwork as it is now.
    pub fn ghn(&self) -> &Ghn {
        &self.ghn
    }

    /// Goes on with `device`: the hypernetwork, its gradients, and the networks, by the candle executor. Optimiser and
    /// averages stay where they are, on the CPU.
    ///
    /// # Errors
    /// If the device fails.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        let shape = self.batches.set().batch_shape();
        let batch = self.config.images.batch.min(self.validation.len());
        self.resident = Some(Resident::new(device, &self.validation, shape, batch)?);
        self.ghn = self.ghn.to_device(device)?;
        self.adam.take_vars(self.ghn.vars());
        Ok(())
    }

    /// What the run has made so far: the hypernetwork with averaged weights, if they are averaged.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn trained(&self) -> Result<Cow<'_, Ghn>> {
        Ok(match &self.average {
            Some(average) => Cow::Owned(average.ghn(&self.ghn)?),
            None => Cow::Borrowed(&self.ghn),
        })
    }

    /// One optimiser step on a fresh meta-batch and the next batch of images.
    ///
    /// # Errors
    /// If too many steps in a row were not finite, or a computation fails.
    pub fn step(&mut self) -> Result<StepReport> {
        let candidates = self.source.meta_batch(self.step)?;
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let epoch = self.batches.next_batch(&mut images, &mut labels)?;
        let lr_factor = self.config.schedule.factor(self.step, self.config.steps);
        let mut report = StepReport {
            step: self.step,
            epoch,
            loss: None,
            grad_norm: None,
            lr: self.config.optimizer.lr * lr_factor,
            nodes: candidates.iter().map(|c| c.graph.nodes.len()).sum(),
            params: candidates.iter().map(|c| c.network.n_params()).sum(),
            skipped: true,
        };
        let loss = self.loss(&candidates, &images, &labels)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if value.is_finite() {
            report.loss = Some(value);
            let gradients = collect_gradients(&self.ghn.vars(), &loss.backward()?);
            let norm = global_norm(&gradients)?;
            if norm.is_finite() {
                report.grad_norm = Some(norm);
                let scale = (self.config.clip_norm / (norm + 1e-6)).min(1.0);
                self.adam.step(&gradients, scale, lr_factor)?;
                if let Some(average) = &mut self.average {
                    average.update(self.step + 1, &self.ghn.vars())?;
                }
                report.skipped = false;
            }
        }
        self.skips_in_a_row = if report.skipped { self.skips_in_a_row + 1 } else { 0 };
        if self.skips_in_a_row > self.config.max_skips_in_a_row {
            return Err(Error::NonFinite(format!(
                "loss or gradient was not finite in {} steps in a row (up to step {}); lower optimizer.lr or clip_norm",
                self.skips_in_a_row, self.step
            )));
        }
        self.step += 1;
        Ok(report)
    }

    /// Mean loss of the meta-batch, differentiable by the GHN's weights.
    fn loss(&self, candidates: &[Candidate], images: &[f32], labels: &[u8]) -> Result<Tensor> {
        let inputs: Vec<_> = candidates.iter().map(|c| (&c.network, &c.graph)).collect();
        let prediction = self.ghn.predict_batch(&inputs)?;
        let mut seeds = stream(self.config.seed, Purpose::Dropout, self.step);
        if let Some(resident) = &self.resident {
            let networks: Vec<_> = candidates.iter().map(|c| (&c.network, seeds.random::<u64>())).collect();
            let batch =
                images_and_labels(images, labels, self.batches.set().batch_shape(), resident.device())?;
            return mean_loss(resident.device(), &networks, &prediction, &batch, self.config.clip_network);
        }
        let params = prediction.params.to_vec1::<f32>()?;
        let mut gradient = vec![0f32; params.len()];
        let mut work = Vec::with_capacity(candidates.len());
        let mut rest = gradient.as_mut_slice();
        for (candidate, range) in candidates.iter().zip(&prediction.ranges) {
            let (gradient, after) = std::mem::take(&mut rest).split_at_mut(range.len());
            rest = after;
            work.push((&candidate.network, &params[range.clone()], gradient, seeds.random::<u64>()));
        }
        // The longest come first. Small networks run side by side, for each is too small to keep all threads busy by
        // itself; of large ones few at a time, for together they would not fit into the caches.
        let mut work: Vec<_> = work.into_iter().enumerate().collect();
        work.sort_by_key(|(_, (network, ..))| Reverse(network.cost().macs));
        let (large, small): (Vec<_>, Vec<_>) =
            work.into_iter().partition(|(_, (network, ..))| elements(network) * labels.len() > LARGE);
        let run = |(index, (network, params, gradient, dropout_seed)): (usize, Work<'_>)| {
            let mut executor = NativeExecutor::with_workspace(network, labels.len(), &self.workspace)?;
            let mode = Mode::Train { dropout_seed };
            let loss = executor.loss_and_gradient(params, images, labels, mode, &mut *gradient)?;
            if let Some(limit) = self.config.clip_network {
                clip(gradient, limit);
            }
            Ok::<_, Error>((index, f64::from(loss)))
        };
        let mut losses = Vec::with_capacity(candidates.len());
        let mut large = large.into_iter();
        let together = rayon::current_num_threads().div_ceil(LARGE_THREADS);
        loop {
            let group: Vec<_> = large.by_ref().take(together).collect();
            if group.is_empty() {
                break;
            }
            losses.extend(group.into_par_iter().map(run).collect::<Result<Vec<_>>>()?);
        }
        losses.extend(small.into_par_iter().with_max_len(1).map(run).collect::<Result<Vec<_>>>()?);
        losses.sort_unstable_by_key(|&(index, _)| index);
        let networks = candidates.len() as f64;
        gradient.iter_mut().for_each(|g| *g /= networks as f32);
        let loss = losses.iter().map(|(_, loss)| loss).sum::<f64>() / networks;
        attach_gradient(&prediction.params, loss, gradient)
    }

    /// Accuracies of the held-out architectures on validation images.
    ///
    /// # Errors
    /// If a computation fails.
    pub fn evaluate(&self) -> Result<HeldOutReport> {
        let ghn = self.trained()?;
        let held_out = self.source.held_out();
        let accuracies = match &self.resident {
            Some(resident) => {
                held_out.iter().map(|c| resident.accuracy(&ghn, c)).collect::<Result<Vec<f64>>>()
            }
            None => held_out.par_iter().map(|candidate| self.accuracy(&ghn, candidate)).collect(),
        }?;
        let n = accuracies.len() as f64;
        let mean = accuracies.iter().sum::<f64>() / n;
        let variance = accuracies.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let best = accuracies.iter().copied().fold(0.0, f64::max);
        Ok(HeldOutReport { step: self.step, accuracies, mean, se: (variance / n).sqrt(), best })
    }

    fn accuracy(&self, ghn: &Ghn, candidate: &Candidate) -> Result<f64> {
        let prediction = ghn.predict_batch(&[(&candidate.network, &candidate.graph)])?;
        let params = prediction.params.to_vec1::<f32>()?;
        let batch = self.config.images.batch.min(self.validation.len());
        let mut executor = NativeExecutor::with_workspace(&candidate.network, batch, &self.workspace)?;
        let (mut right, mut seen) = (0usize, 0usize);
        for (images, labels) in self.validation.batches(batch) {
            let logits = executor.logits(&params, images, Mode::Evaluate)?;
            right += count_right(&logits, labels);
            seen += labels.len();
        }
        Ok(right as f64 / seen.max(1) as f64)
    }
}

/// Images whose largest logit is that of their label; logits that are not finite are wrong.
pub(super) fn count_right(logits: &[f32], labels: &[u8]) -> usize {
    let rows = logits.chunks_exact(logits.len() / labels.len()).zip(labels);
    rows.filter(|(row, label)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(usize::from(**label)) && row.iter().all(|v| v.is_finite())
    })
    .count()
}

/// A network of a meta-batch: itself, its parameters, their gradient, the seed of its dropout masks.
type Work<'a> = (&'a Network, &'a [f32], &'a mut [f32], u64);

/// Elements of all activations of an image.
fn elements(network: &Network) -> usize {
    network.ops.iter().map(|op| op.shape.iter().product::<usize>()).sum()
}

/// Scales `gradient` down to an L2 norm of at most `limit`.
fn clip(gradient: &mut [f32], limit: f64) {
    let norm = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    if norm > limit && norm.is_finite() {
        let scale = (limit / norm) as f32;
        gradient.iter_mut().for_each(|g| *g *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn only_long_gradients_are_shortened() {
        let mut gradient = [3.0, 4.0];
        clip(&mut gradient, 5.0);
        assert_eq!(gradient, [3.0, 4.0]);
        clip(&mut gradient, 1.0);
        assert!((gradient[0] - 0.6).abs() < 1e-6 && (gradient[1] - 0.8).abs() < 1e-6, "{gradient:?}");
        let mut broken = [f32::NAN, 1.0];
        clip(&mut broken, 1.0);
        assert_eq!(broken[1], 1.0);
    }
}
