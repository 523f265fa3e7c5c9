//! A network with all that its files need: weights, statistics, and how images are prepared for it.

use super::accuracy::Accuracies;
use super::statistics::Statistics;
use super::weights::state_dict;
use crate::Result;
use crate::checkpoint::write_tensors;
use crate::images::{DataSet, Normalisation};
use crate::network::{Network, Shape};
use crate::space::ArchRecord;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// How an image becomes the network's input: resized to `stored`, padded with black to the input's size, grey
/// replicated to three channels, scaled to `[0, 1]`, then normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// Name of the data set.
    pub data: String,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Channels (1 or 3), height and width before padding.
    pub stored: [usize; 3],
    /// `(x - mean) / sd` for each channel of pixels in `[0, 1]`.
    pub normalisation: Normalisation,
}

impl Preparation {
    /// How the images of `data` are prepared.
    pub fn of(data: &DataSet) -> Preparation {
        Preparation {
            data: data.name.clone(),
            classes: data.classes().to_vec(),
            stored: data.validation.stored_shape(),
            normalisation: data.normalisation(),
        }
    }

    fn to_json(&self, input: Shape) -> Value {
        json!({
            "data": self.data,
            "shape": input,
            "stored": self.stored,
            "mean": self.normalisation.mean,
            "sd": self.normalisation.sd,
        })
    }
}

/// A network to take away.
#[derive(Clone, Debug)]
pub struct Model {
    /// The architecture.
    pub record: ArchRecord,
    /// The architecture as a network.
    pub network: Network,
    /// `[n_params]`.
    pub params: Vec<f32>,
    /// Statistics of all batch norms.
    pub statistics: Statistics,
    /// Where weights and statistics are from, in words.
    pub origin: Vec<String>,
    /// What becomes of an image first.
    pub preparation: Preparation,
    /// What accuracies were measured.
    pub accuracies: Vec<Accuracies>,
}

impl Model {
    /// What every format keeps beside the tensors; structured values are JSON. Nothing in it depends on when or
    /// how often the model is written.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let json = |value: &Value| value.to_string();
        let accuracy = Value::Array(self.accuracies.iter().map(Accuracies::to_json).collect());
        let record = serde_json::to_value(&self.record)
            .map_err(|error| crate::Error::Config(format!("{}: {error}", self.record.id)))?;
        let entries = [
            ("accuracy", json(&accuracy)),
            ("architecture", json(&record)),
            ("classes", json(&json!(self.preparation.classes))),
            ("foretell", env!("CARGO_PKG_VERSION").to_string()),
            ("format", "pt".to_string()),
            ("input", json(&self.preparation.to_json(self.network.input_shape()))),
            ("origin", json(&json!(self.origin))),
        ];
        Ok(entries.map(|(key, value)| (key.to_string(), value)).into())
    }

    /// Writes a safetensors file with the names of a `state_dict`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_safetensors(&self, path: &Path) -> Result<()> {
        let tensors = state_dict(&self.network, &self.params, &self.statistics)?;
        write_tensors(path, &tensors, &self.metadata()?)
    }
}
