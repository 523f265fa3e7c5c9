//! What the training of one network is: the DARTS recipe (arXiv 1806.09055, section 3.2) with its numbers.

use super::sgd::SgdConfig;
use crate::images::{Augmentation, DataSet, ImageSet};
use crate::space::ArchRecord;
use crate::training::Schedule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which images of a data set are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// The training images; the validation images show how far it got.
    Train,
    /// The first four fifths of the validation images, for sets that have no others; the last fifth validates.
    Validation,
}

/// The training of one network. Everything that its weights depend on, but for the initial ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTraining {
    /// The architecture; its number of classes is that of the images.
    pub architecture: ArchRecord,
    /// Where the initial weights come from, in words: `he`, `torch`, the name of a hypernetwork or of a file.
    pub init: String,
    /// Data set: a name or a folder.
    pub images: String,
    /// The part of it that is trained on.
    pub train_on: TrainOn,
    /// Images of each class; none: all.
    pub shots: Option<usize>,
    /// Passes over the images.
    pub epochs: u64,
    /// Images in a batch, or all, if there are fewer.
    pub batch: usize,
    /// The optimiser.
    pub optimizer: SgdConfig,
    /// Epochs of linear warm-up; then the learning rate falls along half a cosine to 0, step by step.
    pub warmup: u64,
    /// Largest L2 norm of the gradient.
    pub clip: f64,
    /// Random changes of the images.
    pub augmentation: Augmentation,
    /// Probability of dropping a branch of a sum at the end of training; it grows from 0, epoch by epoch.
    pub drop_path: f64,
    /// Validation images that the accuracy after each epoch is measured on.
    pub eval_images: usize,
    /// Images of a batch in evaluation; norm layers use the statistics of this many images.
    pub eval_batch: usize,
    /// Seed of the order of the images, augmentation, dropout, choice of shots, and of random weights.
    pub seed: u64,
}

impl NetworkTraining {
    /// Refuses values out of range, named as the flags of the command line.
    ///
    /// # Errors
    /// [`Error::Config`] names the first of them.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        for (flag, value) in [
            ("--epochs", self.epochs as usize),
            ("--eval-images", self.eval_images),
            ("--eval-batch", self.eval_batch),
        ] {
            if value == 0 {
                return refuse(format!("{flag} is 0, expected at least 1"));
            }
        }
        if self.batch < 2 {
            return refuse(format!(
                "--batch is {}, expected at least 2: batch normalisation needs several images",
                self.batch
            ));
        }
        for (flag, value) in [("--lr", self.optimizer.lr), ("--clip", self.clip)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(format!("{flag} is {value}, expected a positive number"));
            }
        }
        let decay = self.optimizer.weight_decay;
        if !(decay >= 0.0 && decay.is_finite()) {
            return refuse(format!("--weight-decay is {decay}, expected 0 or more"));
        }
        for (flag, value) in [("--momentum", self.optimizer.momentum), ("--drop-path", self.drop_path)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(format!("{flag} is {value}, expected at least 0 and less than 1"));
            }
        }
        if self.warmup > self.epochs {
            return refuse(format!(
                "--warmup is {}, expected at most the number of epochs, {}",
                self.warmup, self.epochs
            ));
        }
        Ok(())
    }

    /// The learning rate's course, given the steps of an epoch.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        Schedule::Cosine { warmup: self.warmup * steps_per_epoch, floor: 0.0 }
    }

    /// The images to train on and the images to validate on.
    ///
    /// # Errors
    /// If the set has no training images, or a class fewer images than shots.
    pub fn split(&self, data: &DataSet) -> Result<(Arc<ImageSet>, Arc<ImageSet>)> {
        let (train, validation) = match self.train_on {
            TrainOn::Train => {
                let advice = "; --train-on validation trains on four fifths of its validation images";
                let train = data.training().map_err(|error| Error::Config(format!("{error}{advice}")))?;
                (train.clone(), data.validation.clone())
            }
            TrainOn::Validation => {
                let (all, name) = (&data.validation, &data.name);
                let cut = all.len() * 4 / 5;
                let train = all.slice(format!("{name}/validation, first four fifths"), 0..cut);
                let rest = all.slice(format!("{name}/validation, last fifth"), cut..all.len());
                (Arc::new(train), Arc::new(rest))
            }
        };
        if validation.is_empty() {
            return Err(Error::Config(format!("{}: no images are left to validate on", data.name)));
        }
        match self.shots {
            Some(shots) => Ok((Arc::new(train.few_shot(shots, self.seed)?), validation)),
            None => Ok((train, validation)),
        }
    }
}
