//! Checkpoints of a training run: one safetensors file with the GHN's weights, Adam's moments, and everything
//! else a run needs to go on as if it had never stopped.

use super::config::TrainConfig;
use super::trainer::Trainer;
use crate::checkpoint::{read_tensors, write_tensors};
use crate::ghn::Ghn;
use crate::images::{Augmentation, BatchState, DataSet, TrainingBatches};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "foretell-training-1";

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    format: String,
    step: u64,
    skips_in_a_row: u64,
    batches: BatchState,
    adam_steps: BTreeMap<String, u64>,
    best_mean: Option<f64>,
    config: TrainConfig,
}

impl Trainer {
    /// Saves the run so that [`Trainer::resume`] goes on exactly.
    ///
    /// # Errors
    /// If the file cannot be written; the former checkpoint then stays.
    pub fn save(&self, path: &Path, best_mean: Option<f64>) -> Result<()> {
        let (mut tensors, adam_steps) = self.adam.state()?;
        for (name, var) in self.ghn.vars() {
            tensors.insert(format!("ghn|{name}"), var.as_tensor().clone());
        }
        if let Some(average) = &self.average {
            let averages = average.tensors(&self.ghn.vars())?;
            tensors.extend(averages.into_iter().map(|(name, tensor)| (format!("average|{name}"), tensor)));
        }
        let position = Position {
            format: FORMAT.into(),
            step: self.step,
            skips_in_a_row: self.skips_in_a_row,
            batches: self.batches.state(),
            adam_steps,
            best_mean,
            config: self.config.clone(),
        };
        let position = serde_json::to_string(&position).expect("plain data serialises");
        let metadata = BTreeMap::from([("training".to_owned(), position)]);
        write_tensors(path, &tensors, &metadata)
    }

    /// Takes a run up where [`Trainer::save`] left it; the second value is the best held-out mean so far.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or was made with other settings than `config`, the number of steps apart (the
    /// message names the first that differs).
    pub fn resume(path: &Path, config: TrainConfig, data: &DataSet) -> Result<(Trainer, Option<f64>)> {
        let damaged = |reason: String| Error::format(path, format!("not a training checkpoint: {reason}"));
        let file = read_tensors(path)?;
        let text =
            file.metadata.get("training").ok_or_else(|| damaged("it holds no training state".into()))?;
        let position: Position = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if position.format != FORMAT {
            return Err(damaged(format!("format {}, expected {FORMAT}", position.format)));
        }
        // The length of a run may change on the way; the schedule then bends to the new end.
        let started_with = TrainConfig { steps: config.steps, ..position.config };
        if let Some(key) = first_difference(&started_with, &config) {
            return Err(Error::format(
                path,
                format!(
                    "the run was started with another value of `{key}`; resume it with its own configuration"
                ),
            ));
        }
        let mut weights = BTreeMap::new();
        let (mut averages, mut moments) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in file.tensors {
            match (name.strip_prefix("ghn|"), name.strip_prefix("average|")) {
                (Some(name), _) => weights.insert(name.to_owned(), tensor),
                (_, Some(name)) => averages.insert(name.to_owned(), tensor),
                _ => moments.insert(name, tensor),
            };
        }
        let ghn = Ghn::from_tensors(config.ghn.clone(), weights)?;
        let mut trainer = Trainer::with_ghn(config, ghn, data)?;
        trainer.adam.restore(&moments, &position.adam_steps)?;
        if let Some(average) = &mut trainer.average {
            average.restore(&averages)?;
        }
        let augmentation =
            if trainer.config.images.augment { Augmentation::default() } else { Augmentation::NONE };
        let set = trainer.batches.set().clone();
        trainer.batches =
            TrainingBatches::new(set, trainer.config.images.batch, augmentation, position.batches)?;
        trainer.step = position.step;
        trainer.skips_in_a_row = position.skips_in_a_row;
        Ok((trainer, position.best_mean))
    }
}

/// The first key, as a dotted path, in which two configurations differ.
pub(crate) fn first_difference<T: Serialize>(old: &T, new: &T) -> Option<String> {
    let value = |config| serde_json::to_value(config).expect("plain data serialises");
    differing_key(&value(old), &value(new), "")
}

fn differing_key(old: &serde_json::Value, new: &serde_json::Value, at: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Some(at.to_owned()) };
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter().find_map(|key| {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) => differing_key(old, new, &path),
            _ => Some(path),
        }
    })
}
