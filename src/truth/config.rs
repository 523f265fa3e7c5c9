//! What a truth set is: parsed from TOML, checked, saved with the set.

use crate::images::Augmentation;
use crate::space::{ArchRecord, Space};
use crate::training::{NetworkTraining, RandomInit, SgdConfig, TrainOn};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A truth set: which architectures, how each is trained, what is measured. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthConfig {
    /// Search space: a bundled name or a TOML file.
    pub space: String,
    /// Architectures, drawn as [`Space::sample_distinct`] draws them.
    pub architectures: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// Trainings of each architecture, with the seeds `training.seed`, `training.seed + 1` and so on.
    #[serde(default = "one")]
    pub trainings: u64,
    /// The recipe, the same for all.
    pub training: Recipe,
    /// What is measured afterwards.
    pub evaluation: TruthEvaluation,
}

/// How each architecture is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Data set: a name or a folder.
    pub images: String,
    /// The part of it that is trained on.
    #[serde(default = "train")]
    pub train_on: TrainOn,
    /// Images of each class; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
    /// Initial weights: `he` or `torch`.
    pub init: String,
    /// Passes over the images.
    pub epochs: u64,
    /// Images in a batch.
    pub batch: usize,
    /// Learning rate; it falls along half a cosine to 0.
    pub lr: f64,
    /// Epochs of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Largest L2 norm of the gradient.
    pub clip: f64,
    /// Pixels that random crops shift by at most.
    pub crop_padding: usize,
    /// Random mirroring.
    pub flip: bool,
    /// Side of the square that is cut out, pixels.
    #[serde(default)]
    pub cutout: usize,
    /// Seed of weights, order and augmentation. It is the same for all architectures, so that they differ in nothing
    /// else.
    pub seed: u64,
}

/// What is measured of each trained architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthEvaluation {
    /// Validation images after each epoch: the curve.
    pub curve_images: usize,
    /// Test images of the final accuracies; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<usize>,
    /// Images of a batch; norm layers use the statistics of this many images.
    pub batch: usize,
    /// Standard deviations of the pixel noise.
    pub noise: Vec<f64>,
    /// Seed of the noise.
    pub noise_seed: u64,
    /// Images of a timed forward pass.
    pub latency_batch: usize,
}

fn one() -> u64 {
    1
}

fn train() -> TrainOn {
    TrainOn::Train
}

impl TruthConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// If the file cannot be read, holds unknown or missing keys, or values out of range; the message names file,
    /// line and key.
    pub fn load(path: &Path) -> Result<TruthConfig> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let config: TruthConfig =
            toml::from_str(&text).map_err(|e| Error::format(path, e.to_string().trim_end().to_owned()))?;
        config.check().map_err(|reason| Error::format(path, reason))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("architectures", self.architectures),
            ("trainings", self.trainings as usize),
            ("evaluation.curve_images", self.evaluation.curve_images),
            ("evaluation.test_images", self.evaluation.test_images.unwrap_or(1)),
            ("evaluation.batch", self.evaluation.batch),
            ("evaluation.latency_batch", self.evaluation.latency_batch),
        ] {
            if value == 0 {
                return Err(format!("{key} is 0, expected at least 1"));
            }
        }
        if let Some(sd) = self.evaluation.noise.iter().find(|sd| !(**sd > 0.0 && sd.is_finite())) {
            return Err(format!("evaluation.noise holds {sd}, expected positive standard deviations"));
        }
        self.training.initial()?;
        Space::find(&self.space).map_err(|error| format!("space: {error}"))?;
        Ok(())
    }

    /// The architectures, with classifiers of `classes` classes.
    ///
    /// # Errors
    /// If the space cannot be opened or holds too few.
    pub fn draw(&self, classes: usize) -> Result<Vec<ArchRecord>> {
        let mut records = Space::find(&self.space)?.sample_distinct(self.architectures, self.seed)?;
        records.iter_mut().for_each(|record| record.num_classes = classes);
        Ok(records)
    }

    /// The training number `repeat` of an architecture.
    pub fn training_of(&self, architecture: &ArchRecord, repeat: u64) -> NetworkTraining {
        let recipe = &self.training;
        NetworkTraining {
            architecture: architecture.clone(),
            init: recipe.init.clone(),
            images: recipe.images.clone(),
            train_on: recipe.train_on,
            shots: recipe.shots,
            epochs: recipe.epochs,
            batch: recipe.batch,
            optimizer: SgdConfig {
                lr: recipe.lr,
                momentum: recipe.momentum,
                weight_decay: recipe.weight_decay,
            },
            warmup: recipe.warmup,
            clip: recipe.clip,
            augmentation: Augmentation {
                crop_padding: recipe.crop_padding,
                flip: recipe.flip,
                cutout: recipe.cutout,
            },
            drop_path: 0.0,
            eval_images: self.evaluation.curve_images,
            eval_batch: self.evaluation.batch,
            seed: recipe.seed + repeat,
        }
    }
}

impl Recipe {
    /// How weights are drawn.
    ///
    /// # Errors
    /// If `init` is unknown.
    pub(super) fn initial(&self) -> Result<RandomInit, String> {
        match self.init.as_str() {
            "he" => Ok(RandomInit::He),
            "torch" => Ok(RandomInit::Torch),
            other => Err(format!("training.init is {other:?}, expected \"he\" or \"torch\"")),
        }
    }
}
