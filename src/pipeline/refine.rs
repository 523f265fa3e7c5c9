//! Scores with trained weights: some steps of SGD, or training to the end, then the same images as ever.
//!
//! The recipe is that of `foretell train`: SGD with momentum, weight decay, clipping, crops and flips, and a learning
//! rate that falls along half a cosine over the length of this very training. A dearer fidelity therefore begins
//! anew instead of going on from a cheaper one, whose learning rate has fallen to 0. That costs at most what the
//! cheaper stages cost, and makes a score independent of what was scored before.
//!
//! Accuracies after a long training differ by less than the standard error of 1,024 images. So where it costs at most a
//! quarter of the training, weights are scored on four times as many images.
//!
//! A set without training images trains on the first four fifths of its validation images and is scored on the rest.

use super::{EvaluationSettings, GhnEvaluator, costs};
use crate::execute::NativeExecutor;
use crate::images::{Augmentation, DataSet, NoiseBank, PreparedImages};
use crate::network::Network;
use crate::score::{self, Fidelity, Scores};
use crate::space::{ArchRecord, Architecture, CellArchitecture};
use crate::training::{NetworkTrainer, NetworkTraining, RandomInit, SgdConfig, TrainOn, random_weights};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Steps that a candidate is timed by.
const TIMED_STEPS: u64 = 4;

/// How weights are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefinementSettings {
    /// Epochs of the fidelity `trained`.
    pub epochs: u64,
    /// Images in a batch.
    pub batch: usize,
    /// Learning rate at the beginning, from predicted weights.
    pub lr: f64,
    /// The same from He's random weights; none is `lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub he_lr: Option<f64>,
    /// Seed of the order of the images, of augmentation and of random initial weights.
    pub seed: u64,
    /// Weights that were trained for long are scored on so many times [`EvaluationSettings::eval_images`] validation
    /// images, as far as there are so many.
    #[serde(default = "once")]
    pub eval_times: usize,
}

/// In settings of former versions.
fn once() -> usize {
    1
}

/// Part of a training's cost, in passes of images, that scoring its weights on more images may have at most.
const SCORING: f64 = 0.25;

impl Default for RefinementSettings {
    fn default() -> Self {
        RefinementSettings { epochs: 10, batch: 64, lr: 0.025, he_lr: Some(0.05), seed: 0, eval_times: 4 }
    }
}

/// Images to train on and to score trained weights on.
pub(super) struct Refinery {
    settings: RefinementSettings,
    train_on: TrainOn,
    data: DataSet,
    steps_per_epoch: u64,
    /// Held-out images, where the validation images are trained on.
    held_out: Option<(PreparedImages, NoiseBank)>,
    /// More validation images, once somebody has trained for long.
    more: OnceLock<(PreparedImages, NoiseBank)>,
}

impl Refinery {
    /// Splits the images.
    ///
    /// # Errors
    /// A setting is out of range, or there are too few images.
    pub(super) fn new(
        settings: RefinementSettings,
        evaluation: &EvaluationSettings,
        data: DataSet,
    ) -> Result<Refinery> {
        let train_on = if data.train.is_some() { TrainOn::Train } else { TrainOn::Validation };
        let arch = Architecture::Torchvision("resnet18".into());
        let with = |lr: f64| {
            let settings = RefinementSettings { lr, ..settings.clone() };
            training(&settings, evaluation, train_on, record(&arch, 0), settings.epochs)
        };
        let training = with(settings.lr);
        training.check()?;
        settings.he_lr.map_or(Ok(()), |lr| with(lr).check())?;
        let (train, validation) = training.split(&data)?;
        if train.len() < 2 {
            return Err(Error::Config(format!("{} has too few images to train on", data.name)));
        }
        let held_out = match train_on {
            TrainOn::Train => None,
            TrainOn::Validation => {
                let (count, levels) = (evaluation.eval_images, &evaluation.noise_levels);
                let noisy = NoiseBank::new(&validation, count, levels, evaluation.noise_seed)?;
                Some((validation.prepare(count)?, noisy))
            }
        };
        let steps_per_epoch = (train.len() / settings.batch.min(train.len())) as u64;
        Ok(Refinery { settings, train_on, data, steps_per_epoch, held_out, more: OnceLock::new() })
    }

    /// Optimiser steps of a fidelity.
    pub(super) fn steps(&self, fidelity: Fidelity) -> u64 {
        match fidelity {
            Fidelity::Predicted => 0,
            Fidelity::He { steps } | Fidelity::Sgd { steps } => steps,
            Fidelity::Trained => self.settings.epochs * self.steps_per_epoch,
        }
    }

    /// Learning rate of a fidelity.
    fn lr(&self, fidelity: Fidelity) -> f64 {
        match fidelity {
            Fidelity::He { .. } => self.settings.he_lr.unwrap_or(self.settings.lr),
            _ => self.settings.lr,
        }
    }

    /// How many times the usual number of validation images weights of `fidelity` are scored on.
    pub(super) fn eval_times(&self, fidelity: Fidelity, evaluation: &EvaluationSettings) -> f64 {
        let usual = evaluation.eval_images.min(self.data.validation.len());
        let most = (usual * self.settings.eval_times.max(1)).min(self.data.validation.len());
        // A training step is worth three forward passes.
        let training = 3.0 * (self.steps(fidelity) * self.settings.batch as u64) as f64;
        let scoring = (most * (1 + evaluation.noise_levels.len())) as f64;
        let is_long = scoring <= SCORING * training;
        if self.held_out.is_none() && is_long { most as f64 / usual.max(1) as f64 } else { 1.0 }
    }

    /// The images that weights of `fidelity` are scored on; none for the usual ones.
    fn images(
        &self,
        fidelity: Fidelity,
        evaluation: &EvaluationSettings,
    ) -> Result<Option<&(PreparedImages, NoiseBank)>> {
        if self.held_out.is_some() {
            return Ok(self.held_out.as_ref());
        }
        let times = self.eval_times(fidelity, evaluation);
        if times <= 1.0 {
            return Ok(None);
        }
        if let Some(images) = self.more.get() {
            return Ok(Some(images));
        }
        let validation = &self.data.validation;
        let count = (times * evaluation.eval_images.min(validation.len()) as f64).round() as usize;
        let noisy = NoiseBank::new(validation, count, &evaluation.noise_levels, evaluation.noise_seed)?;
        let images = (validation.prepare(count)?, noisy);
        Ok(Some(self.more.get_or_init(|| images)))
    }
}

fn record(arch: &Architecture, num_classes: usize) -> ArchRecord {
    ArchRecord { id: arch.arch_hash().to_string(), split: String::new(), num_classes, arch: arch.clone() }
}

fn training(
    settings: &RefinementSettings,
    evaluation: &EvaluationSettings,
    train_on: TrainOn,
    architecture: ArchRecord,
    epochs: u64,
) -> NetworkTraining {
    NetworkTraining {
        architecture,
        init: String::new(),
        images: evaluation.images.clone(),
        train_on,
        shots: None,
        epochs,
        batch: settings.batch,
        optimizer: SgdConfig { lr: settings.lr, ..SgdConfig::default() },
        warmup: 0,
        clip: 5.0,
        augmentation: Augmentation::default(),
        drop_path: 0.0,
        // Scores are measured on prepared images instead.
        eval_images: 1,
        eval_batch: evaluation.batch,
        seed: settings.seed,
    }
}

impl GhnEvaluator {
    /// Scores at any fidelity, latency included, for predefined networks without cells too.
    ///
    /// # Errors
    /// As [`GhnEvaluator::score`]; training diverges, or `stop` became true; or the settings know no refinement.
    pub fn score_any_at(&self, arch: &Architecture, fidelity: Fidelity, stop: &AtomicBool) -> Result<Scores> {
        match fidelity {
            Fidelity::Predicted => self.score_any(arch),
            fidelity => self.refined(arch, fidelity, None, stop, self.settings.measure_latency),
        }
    }

    /// A training at its beginning, and the time that its initial weights took to predict.
    fn trainer(
        &self,
        arch: &Architecture,
        fidelity: Fidelity,
        predict_ms: &mut Option<f64>,
    ) -> Result<(&Refinery, NetworkTrainer)> {
        let Some(refinery) = &self.refinery else {
            return Err(Error::Config(format!("{fidelity} needs settings for training")));
        };
        let (steps, seed) = (refinery.steps(fidelity), refinery.settings.seed);
        let epochs = steps.div_ceil(refinery.steps_per_epoch).max(1);
        let source = self.settings.ghn.as_ref().map_or("bundled".into(), |path| path.display().to_string());
        let config = NetworkTraining {
            init: match fidelity {
                Fidelity::He { .. } => format!("he, {fidelity}"),
                _ => format!("ghn {source}, {fidelity}"),
            },
            ..training(
                &RefinementSettings { lr: refinery.lr(fidelity), ..refinery.settings.clone() },
                &self.settings,
                refinery.train_on,
                record(arch, self.classes),
                epochs,
            )
        };
        let initial = |network: &Network| match fidelity {
            Fidelity::He { .. } => Ok(random_weights(network, RandomInit::He, seed)),
            _ => {
                let started = Instant::now();
                let params = self.predicted(network);
                *predict_ms = Some(started.elapsed().as_secs_f64() * 1e3);
                params
            }
        };
        Ok((refinery, NetworkTrainer::new(config, &refinery.data, initial)?.of_length(steps)))
    }

    /// Mean seconds of a step of training, without the first, which takes its memory.
    pub(super) fn timed_steps(&self, arch: &CellArchitecture) -> Result<f64> {
        let arch = Architecture::Cells(arch.clone());
        let (_, mut trainer) = self.trainer(&arch, Fidelity::Sgd { steps: TIMED_STEPS + 1 }, &mut None)?;
        trainer.step()?;
        let began = Instant::now();
        for _ in 0..TIMED_STEPS {
            trainer.step()?;
        }
        Ok(began.elapsed().as_secs_f64() / TIMED_STEPS as f64)
    }

    /// Trains and scores; writes the weights to `keep`.
    pub(super) fn refined(
        &self,
        arch: &Architecture,
        fidelity: Fidelity,
        keep: Option<&Path>,
        stop: &AtomicBool,
        is_timed: bool,
    ) -> Result<Scores> {
        let mut predict_ms = None;
        let (refinery, mut trainer) = self.trainer(arch, fidelity, &mut predict_ms)?;
        while trainer.steps_taken() < trainer.total_steps() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            trainer.step()?;
        }
        let (clean, noisy) = match refinery.images(fidelity, &self.settings)? {
            Some((clean, noisy)) => (clean, noisy),
            None => (&self.clean, &self.noisy),
        };
        let (network, params) = (trainer.network(), trainer.params());
        let batch = self.settings.batch.min(clean.len());
        let largest = if is_timed { batch.max(self.settings.latency_batch) } else { batch };
        let mut executor = NativeExecutor::with_workspace(network, largest, &self.workspace)?;
        let mut scores = Scores { predict_ms, ..costs(network) };
        scores.set_accuracy(&score::accuracy(&mut executor, params, clean, batch)?);
        scores.set_noise(score::noise_accuracy(&mut executor, params, noisy, batch)?);
        if is_timed {
            self.time(&mut executor, params, &mut scores)?;
        }
        if let Some(path) = keep {
            trainer.write_weights(path)?;
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::Precision;
    use crate::images::{ImageSet, Normalisation};
    use std::sync::Arc;

    /// 640 training and 100 validation images of one pixel.
    fn refinery(with_train: bool, evaluation: &EvaluationSettings) -> Refinery {
        let set = |count: usize| {
            let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
            let pixels = vec![0; count];
            Arc::new(
                ImageSet::new("set", vec!["a".into()], [1, 1, 1], pixels, vec![0; count], plain).unwrap(),
            )
        };
        let data = DataSet {
            name: "set".into(),
            source: "memory".into(),
            train: with_train.then(|| set(640)),
            validation: set(100),
            test: None,
        };
        Refinery::new(RefinementSettings::default(), evaluation, data).unwrap()
    }

    fn evaluation() -> EvaluationSettings {
        EvaluationSettings {
            ghn: None,
            images: "set".into(),
            eval_images: 16,
            batch: 8,
            noise_levels: vec![0.08],
            noise_seed: 0,
            latency_batch: 1,
            latency_threads: 1,
            measure_latency: false,
            precision: Precision::default(),
            refinement: None,
        }
    }

    #[test]
    fn weights_are_scored_on_more_images_where_training_costs_four_times_as_much() {
        let evaluation = evaluation();
        let own = refinery(true, &evaluation);
        let times = |steps: u64| own.eval_times(Fidelity::Sgd { steps }, &evaluation);
        // Clean and noisy, 4 x 16 images each, are worth 128 passes; a step of 64 images is worth 192.
        assert_eq!((times(1), times(2), times(3), times(100)), (1.0, 1.0, 4.0, 4.0));
        assert_eq!(own.eval_times(Fidelity::Predicted, &evaluation), 1.0);
        let images = |steps: u64| {
            let images = own.images(Fidelity::He { steps }, &evaluation).unwrap();
            images.map(|(clean, _)| clean.len())
        };
        assert_eq!((images(2), images(3)), (None, Some(64)));
        // No more than there are, and none of those that were trained on.
        let most = EvaluationSettings { eval_images: 40, ..evaluation.clone() };
        assert_eq!(own.eval_times(Fidelity::Trained, &most), 2.5);
        let held_out = refinery(false, &evaluation);
        assert_eq!(held_out.eval_times(Fidelity::Trained, &evaluation), 1.0);
    }

    #[test]
    fn random_weights_have_a_learning_rate_of_their_own() {
        let mut own = refinery(true, &evaluation());
        let rates = |own: &Refinery| {
            let all = [Fidelity::He { steps: 5 }, Fidelity::Sgd { steps: 5 }, Fidelity::Trained];
            all.map(|fidelity| own.lr(fidelity))
        };
        assert_eq!(rates(&own), [0.05, 0.025, 0.025]);
        own.settings.he_lr = None;
        assert_eq!(rates(&own), [0.025; 3]);
        let wrong = RefinementSettings { he_lr: Some(-1.0), ..RefinementSettings::default() };
        assert!(Refinery::new(wrong, &evaluation(), own.data.clone()).is_err());
    }
}
