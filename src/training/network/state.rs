//! Files of a network's training: the checkpoint to go on from, and the trained weights.

use super::config::NetworkTraining;
use super::sgd::Sgd;
use super::trainer::{EpochSums, NetworkTrainer};
use crate::checkpoint::{TensorFile, read_tensors, write_tensors};
use crate::images::{BatchState, DataSet, TrainingBatches};
use crate::training::state::first_difference;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "foretell-network-training-1";

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    format: String,
    step: u64,
    batches: BatchState,
    sums: EpochSums,
    best: Option<f64>,
    config: NetworkTraining,
}

fn vector(values: &[f32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), &Device::Cpu)?)
}

impl NetworkTrainer {
    /// Saves the training so that [`NetworkTrainer::resume`] goes on exactly.
    ///
    /// # Errors
    /// If the file cannot be written; the former checkpoint then stays.
    pub fn save(&self, path: &Path, best: Option<f64>) -> Result<()> {
        let tensors = [
            ("params", vector(&self.params)?),
            ("momentum", vector(self.sgd.momentum())?),
            ("running_mean", vector(&self.running.mean)?),
            ("running_var", vector(&self.running.variance)?),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor));
        let position = Position {
            format: FORMAT.into(),
            step: self.step,
            batches: self.batches.state(),
            sums: self.sums,
            best,
            config: self.config.clone(),
        };
        let position = serde_json::to_string(&position).expect("plain data serialises");
        write_tensors(path, &tensors.into(), &BTreeMap::from([("training".to_owned(), position)]))
    }

    /// Takes a training up where [`NetworkTrainer::save`] left it; the second value is the best validation accuracy
    /// so far.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or was made with other settings than `config`, the number of epochs apart (the
    /// message names the first that differs).
    pub fn resume(
        path: &Path,
        config: NetworkTraining,
        data: &DataSet,
    ) -> Result<(NetworkTrainer, Option<f64>)> {
        let damaged = |reason: String| Error::format(path, format!("not a training checkpoint: {reason}"));
        let file = read_tensors(path)?;
        let text =
            file.metadata.get("training").ok_or_else(|| damaged("it holds no training state".into()))?;
        let position: Position = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if position.format != FORMAT {
            return Err(damaged(format!("format {}, expected {FORMAT}", position.format)));
        }
        // The length may change on the way; the cosine then bends to the new end.
        let started_with = NetworkTraining { epochs: config.epochs, ..position.config };
        if let Some(key) = first_difference(&started_with, &config) {
            return Err(Error::format(
                path,
                format!(
                    "the training was started with another value of `{key}`; resume it with the same flags"
                ),
            ));
        }
        let params = values(&file, "params", path)?;
        let mut trainer = NetworkTrainer::new(config, data, |_| Ok(params))?;
        trainer.sgd = Sgd::new(trainer.config.optimizer, trainer.params.len())
            .with_momentum(values(&file, "momentum", path)?)?;
        let channels = trainer.running.mean.len();
        trainer.running.mean = values(&file, "running_mean", path)?;
        trainer.running.variance = values(&file, "running_var", path)?;
        if [trainer.running.mean.len(), trainer.running.variance.len()] != [channels; 2] {
            return Err(damaged(format!("running statistics, expected of {channels} channels")));
        }
        trainer.batches = TrainingBatches::new(
            trainer.batches.set().clone(),
            trainer.config.batch.min(trainer.training_images()),
            trainer.config.augmentation,
            position.batches,
        )?;
        trainer.step = position.step;
        trainer.sums = position.sums;
        Ok((trainer, position.best))
    }

    /// Writes the parameters and the running statistics of batch norms as safetensors, named as in a PyTorch state
    /// dict; the architecture and the settings are in the metadata.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_weights(&self, path: &Path) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for param in &self.network.params {
            let values = &self.params[param.offset..][..param.numel()];
            tensors.insert(
                param.name.clone(),
                Tensor::from_slice(values, param.shape.as_slice(), &Device::Cpu)?,
            );
        }
        let steps = Tensor::new(self.step as i64, &Device::Cpu)?;
        for (module, mean, variance) in self.running.of_modules(&self.network) {
            tensors.insert(format!("{module}.running_mean"), vector(mean)?);
            tensors.insert(format!("{module}.running_var"), vector(variance)?);
            tensors.insert(format!("{module}.num_batches_tracked"), steps.clone());
        }
        let json = |value: serde_json::Result<String>| value.expect("plain data serialises");
        let metadata = [
            ("architecture", json(serde_json::to_string(&self.config.architecture))),
            ("format", "pt".to_owned()),
            ("training", json(serde_json::to_string(&self.config))),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        write_tensors(path, &tensors, &metadata.into())
    }
}

fn values(file: &TensorFile, name: &str, path: &Path) -> Result<Vec<f32>> {
    let tensor = file
        .tensors
        .get(name)
        .ok_or_else(|| Error::format(path, format!("not a training checkpoint: no tensor {name}")))?;
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
}
