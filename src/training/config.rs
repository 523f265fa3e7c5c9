//! What a GHN training run is: parsed from TOML, checked, saved with the run.

use super::adam::AdamConfig;
use super::schedule::Schedule;
use crate::ghn::GhnConfig;
use crate::space::Space;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A training run of a graph hypernetwork. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of everything: initial weights, architectures, order of images, augmentation, dropout.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// The hypernetwork.
    pub ghn: GhnConfig,
    /// Hypernetwork that the run starts from, `bundled` or a file, of the same settings but for the number of classes;
    /// none: random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Images.
    pub images: ImagesConfig,
    /// Architectures.
    pub architectures: ArchitecturesConfig,
    /// Adam.
    #[serde(default)]
    pub optimizer: AdamConfig,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Largest L2 norm of the gradient over all weights.
    #[serde(default = "default_clip")]
    pub clip_norm: f64,
    /// Largest L2 norm of the gradient by one network's predicted weights, before the mean over the meta-batch; keeps
    /// single networks from drowning the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_network: Option<f64>,
    /// Decay of the running average of the GHN's weights, which is what is evaluated and saved; 0 for the weights
    /// themselves.
    #[serde(default)]
    pub average: f64,
    /// Steps with a loss or gradient that is not finite are skipped; after so many in a row the run stops.
    #[serde(default = "default_skips")]
    pub max_skips_in_a_row: u64,
    /// Steps between checkpoints.
    #[serde(default = "default_checkpoint")]
    pub checkpoint_every: u64,
    /// Held-out evaluation.
    pub evaluation: EvaluationConfig,
}

/// Images of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Data set: a name or a folder.
    pub source: String,
    /// Images in a batch.
    pub batch: usize,
    /// Random crops out of 4 pixels of padding, and horizontal flips.
    #[serde(default = "yes")]
    pub augment: bool,
}

/// Architectures of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchitecturesConfig {
    /// Search spaces (bundled names or files) with the share of draws from each.
    pub spaces: Vec<SpaceShare>,
    /// Architectures in a step.
    pub meta_batch: usize,
    /// Draw the width and the hidden size of the head anew for every use, wider for smaller networks, as the
    /// reference does on DeepNets-1M; otherwise take them as the space drew them.
    #[serde(default)]
    pub reference_width: bool,
    /// Share of the steps over which networks grow: at first only the quarter of a space's networks with the fewest
    /// parameters is drawn, then ever larger ones; 0: all sizes from the beginning.
    #[serde(default)]
    pub small_first: f64,
    /// Largest number of graph nodes in a meta-batch; networks are drawn again until they fit.
    #[serde(default = "default_nodes")]
    pub max_nodes: usize,
}

/// A space and how often it is drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceShare {
    /// Bundled name or TOML file.
    pub space: String,
    /// Relative frequency.
    pub share: f64,
}

/// Evaluation on architectures that are never trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Steps between evaluations.
    pub every: u64,
    /// Held-out architectures of each space.
    pub architectures: usize,
    /// Validation images.
    pub images: usize,
}

fn default_clip() -> f64 {
    5.0
}
fn default_skips() -> u64 {
    20
}
fn default_checkpoint() -> u64 {
    100
}
fn default_nodes() -> usize {
    2200
}
fn yes() -> bool {
    true
}

impl TrainConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// If the file cannot be read, holds unknown or missing keys, or values out of range; the message names file,
    /// line and key.
    pub fn load(path: &Path) -> Result<TrainConfig> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let config: TrainConfig =
            toml::from_str(&text).map_err(|e| Error::format(path, e.to_string().trim_end().to_owned()))?;
        config.check().map_err(|reason| Error::format(path, reason))?;
        Ok(config)
    }

    /// Why the values make no run, if they do not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("steps", self.steps),
            ("images.batch", self.images.batch as u64),
            ("architectures.meta_batch", self.architectures.meta_batch as u64),
            ("architectures.max_nodes", self.architectures.max_nodes as u64),
            ("checkpoint_every", self.checkpoint_every),
            ("evaluation.every", self.evaluation.every),
            ("evaluation.architectures", self.evaluation.architectures as u64),
            ("evaluation.images", self.evaluation.images as u64),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} is 0, expected at least 1"));
        }
        if self.images.batch < 2 {
            return Err("images.batch is 1: batch normalisation needs at least 2 images".into());
        }
        let clip_network = self.clip_network.unwrap_or(1.0);
        for (key, value) in [
            ("clip_norm", self.clip_norm),
            ("clip_network", clip_network),
            ("optimizer.lr", self.optimizer.lr),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}, expected a positive number"));
            }
        }
        for (key, value) in
            [("optimizer.eps", self.optimizer.eps), ("optimizer.weight_decay", self.optimizer.weight_decay)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}, expected 0 or more"));
            }
        }
        if !(0.0..=1.0).contains(&self.architectures.small_first) {
            return Err(format!(
                "architectures.small_first is {}, expected a share of the steps from 0 to 1",
                self.architectures.small_first
            ));
        }
        if !(0.0..1.0).contains(&self.average) {
            return Err(format!("average is {}, expected at least 0 and less than 1", self.average));
        }
        if let Some(beta) = self.optimizer.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            return Err(format!("optimizer.betas holds {beta}, expected at least 0 and less than 1"));
        }
        if let Schedule::Cosine { warmup, floor } = self.schedule {
            if !(0.0..=1.0).contains(&floor) {
                return Err(format!(
                    "schedule.floor is {floor}, expected a share of the base rate from 0 to 1"
                ));
            }
            if warmup > self.steps {
                return Err(format!("schedule.warmup is {warmup}, expected at most steps, {}", self.steps));
            }
        }
        self.ghn.validate().map_err(|error| format!("ghn.{error}"))?;
        if self.architectures.spaces.is_empty() {
            return Err("architectures.spaces is empty, expected at least one space".into());
        }
        for SpaceShare { space, share } in &self.architectures.spaces {
            if !(*share > 0.0 && share.is_finite()) {
                return Err(format!("share of space {space} is {share}, expected a positive number"));
            }
            Space::find(space).map_err(|error| format!("architectures.spaces: {error}"))?;
        }
        Ok(())
    }
}
