//! One network in training: its parameters, its optimiser, its running statistics, and where it stands in the data.
//!
//! In: a [`NetworkTraining`], images, initial parameters `[n_params]`. Out: step after step, parameters with a lower
//! cross entropy. What a step does depends on the settings, the seed and the number of the step alone.

use super::config::NetworkTraining;
use super::drop_path::with_drop_path;
use super::running::RunningStatistics;
use super::sgd::{Sgd, norm};
use crate::execute::{Executor, Mode, NativeExecutor};
use crate::images::{BatchState, DataSet, PreparedImages, TrainingBatches};
use crate::network::{Network, OpId, build, expand_with_branches};
use crate::score::{self, Accuracy};
use crate::space::Architecture;
use crate::training::draw::{Purpose, stream};
use crate::{Error, Result};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Sums over the steps of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochSums {
    pub loss: f64,
    pub gradient_norm: f64,
    pub clipped: u64,
    pub steps: u64,
    pub seconds: f64,
}

/// What an epoch did; the one numbered 0 is the evaluation before the first step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochReport {
    /// Epochs finished.
    pub epoch: u64,
    /// Optimiser steps taken.
    pub step: u64,
    /// Mean cross entropy over the epoch's training batches, nats; none before the first epoch.
    pub loss: Option<f64>,
    /// Mean L2 norm of the gradients before clipping.
    pub gradient_norm: Option<f64>,
    /// Steps whose gradient was clipped.
    pub clipped: u64,
    /// Learning rate of the last step.
    pub lr: Option<f64>,
    /// Time of the epoch's steps, s.
    pub seconds: f64,
    /// Accuracy on validation images.
    pub validation: Accuracy,
}

/// A network in training.
pub struct NetworkTrainer {
    pub(super) config: NetworkTraining,
    pub(super) network: Network,
    pub(super) params: Vec<f32>,
    pub(super) sgd: Sgd,
    pub(super) running: RunningStatistics,
    pub(super) batches: TrainingBatches,
    pub(super) step: u64,
    pub(super) sums: EpochSums,
    /// Steps of the whole training, if they are not those of the epochs.
    length: Option<u64>,
    branches: Vec<OpId>,
    executor: NativeExecutor<f32>,
    /// The executor's network: with drop path, if there is any in this epoch.
    running_network: Network,
    /// Constants that follow the parameters in the executor's vector.
    constants: Vec<f32>,
    /// The epoch that the executor was made for.
    made_for: u64,
    validation: PreparedImages,
    images: Vec<f32>,
    labels: Vec<u8>,
    gradient: Vec<f32>,
}

impl NetworkTrainer {
    /// A training at its beginning. `initial` makes the initial parameters of the network.
    ///
    /// # Errors
    /// If settings are out of range, or architecture, images and parameters do not fit together.
    pub fn new(
        config: NetworkTraining,
        data: &DataSet,
        initial: impl FnOnce(&Network) -> Result<Vec<f32>>,
    ) -> Result<NetworkTrainer> {
        config.check()?;
        let (train, validation) = config.split(data)?;
        let classes = train.classes().len();
        let (network, branches) = match &config.architecture.arch {
            Architecture::Cells(cells) => expand_with_branches(cells, classes)?,
            other => (build(other, classes)?, Vec::new()),
        };
        if network.input_shape() != train.batch_shape() {
            let ([_, h, w], [_, rows, columns]) = (network.input_shape(), train.batch_shape());
            return Err(Error::Config(format!(
                "{} is built for images of {h}x{w}, {} has {rows}x{columns}",
                config.architecture.id,
                train.name()
            )));
        }
        if config.drop_path > 0.0 && branches.is_empty() {
            return Err(Error::Config(format!(
                "--drop-path {}: {} has no cells that add up ops, so there is nothing to drop",
                config.drop_path, config.architecture.id
            )));
        }
        let params = initial(&network)?;
        if params.len() != network.n_params() {
            return Err(Error::Tensor(format!(
                "initial weights: {} numbers for {} parameters",
                params.len(),
                network.n_params()
            )));
        }
        let batch = config.batch.min(train.len());
        let batches = TrainingBatches::new(train, batch, config.augmentation, BatchState::new(config.seed))?;
        Ok(NetworkTrainer {
            sgd: Sgd::new(config.optimizer, params.len()),
            running: RunningStatistics::new(&network),
            step: 0,
            sums: EpochSums::default(),
            length: None,
            executor: NativeExecutor::new(&network, batch)?,
            running_network: network.clone(),
            constants: Vec::new(),
            made_for: 0,
            validation: validation.prepare(config.eval_images)?,
            images: Vec::new(),
            labels: Vec::new(),
            gradient: Vec::new(),
            config,
            network,
            params,
            batches,
            branches,
        })
    }

    /// The same training, `steps` long: the schedule of the learning rate ends there.
    pub fn of_length(self, steps: u64) -> NetworkTrainer {
        NetworkTrainer { length: Some(steps), ..self }
    }

    /// The training's settings.
    pub fn config(&self) -> &NetworkTraining {
        &self.config
    }

    /// The network, without what drop path adds in training.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The parameters as they are now, `[n_params]`.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// Steps taken.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.batches.batches_per_epoch() as u64
    }

    /// Steps of the whole training.
    pub fn total_steps(&self) -> u64 {
        self.length.unwrap_or(self.steps_per_epoch() * self.config.epochs)
    }

    /// Images that are trained on.
    pub fn training_images(&self) -> usize {
        self.batches.set().len()
    }

    /// One step on the next batch; returns its loss.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if loss or gradient are not finite: the training has diverged.
    pub fn step(&mut self) -> Result<f64> {
        let began = std::time::Instant::now();
        let epoch = self.step / self.steps_per_epoch();
        self.batches.next_batch(&mut self.images, &mut self.labels)?;
        self.prepare_executor(epoch)?;
        let lr_factor = self.lr_factor(self.step);
        let n = self.params.len();
        // The constants of drop path follow the parameters for the time of the run only.
        self.params.extend_from_slice(&self.constants);
        self.gradient.clear();
        self.gradient.resize(self.params.len(), 0.0);
        let dropout_seed = stream(self.config.seed, Purpose::NetworkDropout, self.step).random();
        let mode = Mode::Train { dropout_seed };
        let loss = self.executor.loss_and_gradient(
            &self.params,
            &self.images,
            &self.labels,
            mode,
            &mut self.gradient,
        );
        self.params.truncate(n);
        self.gradient.truncate(n);
        let (loss, norm) = (f64::from(loss?), norm(&self.gradient));
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(Error::NonFinite(format!(
                "training diverged in step {} (epoch {}): loss {loss}, gradient norm {norm}; try a lower --lr or --clip, or --warmup",
                self.step,
                epoch + 1
            )));
        }
        self.running.update(&self.running_network, &self.executor, self.labels.len());
        let scale = (self.config.clip / (norm + 1e-6)).min(1.0);
        self.sgd.step(&mut self.params, &self.gradient, scale, lr_factor);
        if self.step.is_multiple_of(self.steps_per_epoch()) {
            self.sums = EpochSums::default();
        }
        self.sums.loss += loss;
        self.sums.gradient_norm += norm;
        self.sums.clipped += u64::from(scale < 1.0);
        self.sums.steps += 1;
        self.sums.seconds += began.elapsed().as_secs_f64();
        self.step += 1;
        Ok(loss)
    }

    fn lr_factor(&self, step: u64) -> f64 {
        self.config.schedule(self.steps_per_epoch()).factor(step, self.total_steps())
    }

    /// Drop path's probability grows over the epochs, and with it the network that is run.
    fn prepare_executor(&mut self, epoch: u64) -> Result<()> {
        if self.made_for == epoch || self.config.drop_path == 0.0 {
            return Ok(());
        }
        let p = self.config.drop_path * epoch as f64 / self.config.epochs as f64;
        let (network, constants) = with_drop_path(&self.network, &self.branches, p);
        self.executor = NativeExecutor::new(&network, self.config.batch.min(self.training_images()))?;
        (self.running_network, self.constants, self.made_for) = (network, constants, epoch);
        Ok(())
    }

    /// Accuracy on the validation images, norm layers with the statistics of the batch.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn evaluate(&self) -> Result<Accuracy> {
        self.accuracy_on(&self.validation)
    }

    /// Accuracy on `images`, as [`NetworkTrainer::evaluate`].
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn accuracy_on(&self, images: &PreparedImages) -> Result<Accuracy> {
        let batch = self.config.eval_batch.min(images.len());
        let mut executor = NativeExecutor::<f32>::new(&self.network, batch)?;
        score::accuracy(&mut executor, &self.params, images, batch)
    }

    /// Evaluates and sums the last epoch up.
    ///
    /// # Errors
    /// As [`NetworkTrainer::evaluate`].
    pub fn report(&self) -> Result<EpochReport> {
        let EpochSums { loss, gradient_norm, clipped, steps, seconds } = self.sums;
        let mean = |sum: f64| (steps > 0).then(|| sum / steps as f64);
        Ok(EpochReport {
            epoch: self.step / self.steps_per_epoch(),
            step: self.step,
            loss: mean(loss),
            gradient_norm: mean(gradient_norm),
            clipped,
            lr: self.step.checked_sub(1).map(|last| self.config.optimizer.lr * self.lr_factor(last)),
            seconds,
            validation: self.evaluate()?,
        })
    }
}
