//! Hypernetworks in files.
//!
//! In: `.safetensors` as [`Ghn::save`] writes it, plain `.safetensors` of a state dict (settings from a JSON file
//! beside it, or from the tensors' shapes), or a PyTorch checkpoint of the reference with keys `state_dict`, `config`,
//! `epoch` and `optimzer` (its spelling). Out: [`Checkpoint`].

use super::pytorch::{Archive, entry, size, sizes};
use super::tensor_file::{parse_tensors, write_tensors};
use crate::ghn::{Ghn, GhnConfig};
use crate::{Error, Result};
use candle_core::pickle::Object;
use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Metadata key of the format's version.
const VERSION_KEY: &str = "foretell.ghn";
/// The version that is written, and the only one that is read.
const VERSION: &str = "1";

/// The checkpoint of [`Ghn::bundled`].
const BUNDLED: &[u8] = include_bytes!("../../data/ghn2-fashion.safetensors");

/// A hypernetwork with what else its file holds.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The hypernetwork, on the CPU.
    pub ghn: Ghn,
    /// Whether the settings came from the file (or one beside it); else they were read off the tensors' shapes.
    pub has_config: bool,
    /// The last epoch of its training.
    pub epoch: Option<u64>,
    /// State of its optimiser.
    pub optimizer: Option<AdamState>,
}

/// State of PyTorch's Adam.
#[derive(Clone, Debug)]
pub struct AdamState {
    /// Learning rate at the time of saving.
    pub lr: Option<f64>,
    /// Updates that were made.
    pub step: u64,
    /// First moments by parameter name.
    pub exp_avg: BTreeMap<String, Tensor>,
    /// Second moments by parameter name.
    pub exp_avg_sq: BTreeMap<String, Tensor>,
}

impl Ghn {
    /// Reads a hypernetwork; see [`Checkpoint::read`].
    ///
    /// # Errors
    /// See [`Checkpoint::read`].
    pub fn load(path: impl AsRef<Path>) -> Result<Ghn> {
        Ok(Checkpoint::read(path)?.ghn)
    }

    /// The hypernetwork that comes with the program: GHN-2 trained on Fashion-MNIST over the small search space and the
    /// lighter networks of DeepNets-1M (`experiments/train-ghn2-fashion.toml` and `train-ghn2-fashion-plain.toml`).
    ///
    /// # Errors
    /// None unless the program was built from a damaged tree.
    pub fn bundled() -> Result<Ghn> {
        Ok(from_safetensors(Path::new("bundled/ghn2-fashion.safetensors"), BUNDLED)?.ghn)
    }

    /// A hypernetwork by what a user names it: `bundled`, or a file.
    ///
    /// # Errors
    /// See [`Checkpoint::read`].
    pub fn open(name: &str) -> Result<Ghn> {
        if name == "bundled" { Ghn::bundled() } else { Ghn::load(name) }
    }

    /// SHA-256 of the file that [`Ghn::open`] reads, in hexadecimal digits: which hypernetwork it is, whatever its name.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn sha256(name: &str) -> Result<String> {
        let digest = match name {
            "bundled" => Sha256::digest(BUNDLED),
            file => Sha256::digest(std::fs::read(file).map_err(Error::io("read", Path::new(file)))?),
        };
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Writes tensors and settings as safetensors, as a whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let tensors = self.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())).collect();
        self.write(path.as_ref(), &tensors)
    }

    /// Like [`Ghn::save`] with tensors rounded to `f16`, in half the bytes; reading makes them `f32` again.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path; [`Error::NonFinite`] if a weight is beyond the range of `f16`.
    pub fn save_half(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (name, var) in self.vars() {
            let half = var.as_tensor().to_dtype(DType::F16)?;
            let largest = half.to_dtype(DType::F64)?.abs()?.max_all()?.to_scalar::<f64>()?;
            if !largest.is_finite() {
                return Err(Error::NonFinite(format!("tensor {name} holds values beyond the range of f16")));
            }
            tensors.insert(name, half);
        }
        self.write(path.as_ref(), &tensors)
    }

    fn write(&self, path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let config = serde_json::to_string(self.config()).map_err(|e| Error::Config(e.to_string()))?;
        let metadata = [("config", config.as_str()), ("format", "pt"), (VERSION_KEY, VERSION)]
            .map(|(key, value)| (key.to_string(), value.to_string()));
        write_tensors(path, tensors, &metadata.into())
    }
}

impl Checkpoint {
    /// Reads a checkpoint; its content, not its name, decides on the format.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the file and, where it is one, the tensor: missing, unexpected, of
    /// the wrong shape, not finite; truncated or damaged files; PyTorch's format before 1.6.
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if bytes.starts_with(b"PK") {
            return from_pytorch(Archive::open(path, bytes)?).map_err(|e| in_file(path, e));
        }
        // A pickle without an archive around it: protocol opcode, protocol 2 to 5.
        if bytes.len() > 1 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
            return Err(Error::format(
                path,
                "written by PyTorch before 1.6 (a bare pickle): load it there and save it again with a newer one",
            ));
        }
        if bytes.is_empty() {
            return Err(Error::format(path, "the file is empty"));
        }
        let named_pytorch = path.extension().is_some_and(|ending| ending == "pt" || ending == "pth");
        if named_pytorch && safetensors::SafeTensors::read_metadata(&bytes).is_err() {
            return Err(Error::format(path, "neither a PyTorch checkpoint (a zip archive) nor safetensors"));
        }
        from_safetensors(path, &bytes).map_err(|e| in_file(path, e))
    }
}

/// Adds the file to errors that do not name it.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Io { .. } | Error::Format { .. } => error,
        other => Error::format(path, other.to_string()),
    }
}

fn from_safetensors(path: &Path, bytes: &[u8]) -> Result<Checkpoint> {
    let mut file = parse_tensors(path, bytes)?;
    for tensor in file.tensors.values_mut() {
        if matches!(tensor.dtype(), DType::F16 | DType::BF16) {
            *tensor = tensor.to_dtype(DType::F32)?;
        }
    }
    if let Some(version) = file.metadata.get(VERSION_KEY)
        && version != VERSION
    {
        return Err(Error::format(
            path,
            format!("format version {version}; this program reads version {VERSION}"),
        ));
    }
    let config = match file.metadata.get("config") {
        Some(text) => {
            Some(serde_json::from_str(text).map_err(|e| Error::format(path, format!("config: {e}")))?)
        }
        None => config_beside(path)?,
    };
    let has_config = config.is_some();
    let config = match config {
        Some(config) => config,
        None => infer(&file.tensors)?,
    };
    Ok(Checkpoint { ghn: Ghn::from_tensors(config, file.tensors)?, has_config, epoch: None, optimizer: None })
}

fn infer(tensors: &BTreeMap<String, Tensor>) -> Result<GhnConfig> {
    GhnConfig::infer(&|name| tensors.get(name).map(|tensor| tensor.dims().to_vec()))
}

/// Settings beside a plain `NAME.safetensors`: `NAME.json`, or the entry `NAME` of `configs.json`.
fn config_beside(path: &Path) -> Result<Option<GhnConfig>> {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return Ok(None) };
    for (file, key) in
        [(path.with_extension("json"), None), (path.with_file_name("configs.json"), Some(stem))]
    {
        if !file.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let mut value: Value =
            serde_json::from_str(&text).map_err(|e| Error::format(&file, format!("not JSON: {e}")))?;
        if let Some(key) = key {
            match value.get_mut(key) {
                Some(entry) => value = entry.take(),
                None => continue,
            }
        }
        return serde_json::from_value(value).map(Some).map_err(|e| Error::format(&file, e.to_string()));
    }
    Ok(None)
}

fn from_pytorch(mut archive: Archive) -> Result<Checkpoint> {
    let root = archive.root()?;
    // A checkpoint holds the state dict under its key; a bare state dict is accepted too.
    let state = match entry(&root, "state_dict") {
        Some(state) => state,
        None if entry(&root, "embed.weight").is_some() => &root,
        None => return Err(archive.error("no key state_dict: not a checkpoint of a hypernetwork")),
    };
    let Object::Dict(entries) = state else {
        return Err(archive.error("state_dict is not a dictionary"));
    };
    let mut tensors = BTreeMap::new();
    let mut names = Vec::new();
    // The pickle reader returns the items of a dictionary in reverse.
    for (key, value) in entries.iter().rev() {
        let Object::Unicode(key) = key else { continue };
        let name = key.strip_prefix("module.").unwrap_or(key);
        if let Some(tensor) = archive.tensor(name, value)? {
            names.push(name.to_string());
            tensors.insert(name.to_string(), tensor);
        }
    }
    if tensors.is_empty() {
        return Err(archive.error("state_dict holds no tensors"));
    }
    let config = match entry(&root, "config") {
        Some(config) => {
            Some(settings(config, &tensors).map_err(|reason| archive.error(format!("config: {reason}")))?)
        }
        None => None,
    };
    let has_config = config.is_some();
    let config = match config {
        Some(config) => config,
        None => infer(&tensors)?,
    };
    let ghn = Ghn::from_tensors(config, tensors)?;
    let epoch = entry(&root, "epoch").and_then(size).map(|epoch| epoch as u64);
    let optimizer = match entry(&root, "optimzer").or_else(|| entry(&root, "optimizer")) {
        Some(state) => adam(&mut archive, state, &names, &ghn)?,
        None => None,
    };
    Ok(Checkpoint { ghn, has_config, epoch, optimizer })
}

/// Settings from the pickled constructor arguments; keys that do not change predictions are passed over, and
/// absent ones follow from the tensors.
fn settings(object: &Object, tensors: &BTreeMap<String, Tensor>) -> std::result::Result<GhnConfig, String> {
    let mut fields = match infer(tensors).ok().and_then(|config| serde_json::to_value(config).ok()) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    for key in ["max_shape", "num_classes", "hypernet", "decoder", "weight_norm", "ve", "layernorm", "hid"] {
        let value = match entry(object, key) {
            None => continue,
            Some(Object::Bool(value)) => json!(value),
            Some(Object::Int(value)) if matches!(key, "weight_norm" | "ve" | "layernorm") => {
                json!(*value != 0)
            }
            Some(Object::Unicode(value)) => json!(value),
            Some(other) => match (size(other), sizes(other)) {
                (Some(value), _) => json!(value),
                (_, Some(values)) => json!(values),
                _ => return Err(format!("{key} is neither a number, a text nor a tuple of sizes")),
            },
        };
        fields.insert(key.to_string(), value);
    }
    serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())
}

/// Adam's state; its parameters are numbered in the order of the state dict. `None` for another optimiser.
fn adam(archive: &mut Archive, object: &Object, names: &[String], ghn: &Ghn) -> Result<Option<AdamState>> {
    let Some(Object::Dict(states)) = entry(object, "state") else {
        return Err(archive.error("optimzer holds no state"));
    };
    let lr = match entry(object, "param_groups") {
        Some(Object::List(groups)) => match groups.first().and_then(|group| entry(group, "lr")) {
            Some(Object::Float(lr)) => Some(*lr),
            _ => None,
        },
        _ => None,
    };
    let mut adam = AdamState { lr, step: 0, exp_avg: BTreeMap::new(), exp_avg_sq: BTreeMap::new() };
    for (key, state) in states {
        let Some(name) = size(key).and_then(|number| names.get(number)) else {
            return Err(archive.error(format!("optimzer: {key:?} is not the number of a parameter")));
        };
        let (Some(first), Some(second)) = (entry(state, "exp_avg"), entry(state, "exp_avg_sq")) else {
            return Ok(None);
        };
        let step = match entry(state, "step") {
            Some(step) => match size(step) {
                Some(step) => step as u64,
                None => match archive.tensor("step", step)? {
                    Some(step) => {
                        step.to_dtype(DType::F64)?.flatten_all()?.get(0)?.to_scalar::<f64>()? as u64
                    }
                    None => 0,
                },
            },
            None => 0,
        };
        adam.step = adam.step.max(step);
        for (moments, object, kind) in
            [(&mut adam.exp_avg, first, "exp_avg"), (&mut adam.exp_avg_sq, second, "exp_avg_sq")]
        {
            let label = format!("{kind} of {name}");
            let moment = archive.tensor(&label, object)?;
            let moment = moment.ok_or_else(|| archive.error(format!("{label} is not a tensor")))?;
            let wanted = ghn.tensor(name)?.dims();
            if moment.dims() != wanted {
                return Err(archive.error(format!("{label} has shape {:?}, not {wanted:?}", moment.dims())));
            }
            moments.insert(name.clone(), moment);
        }
    }
    Ok(Some(adam))
}
