//! Weights under the names of a PyTorch `state_dict`, from a file and to one.
//!
//! In: safetensors with every parameter of a network, and perhaps `running_mean` and `running_var` of its batch
//! norms. Out: the flat parameter vector with the statistics; or the tensors of both, named.

use super::statistics::{Moments, Statistics, batch_norms, norm_name};
use crate::checkpoint::{TensorFile, read_tensors};
use crate::network::Network;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a network was trained to, or was predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// `[n_params]`, as [`Network::params`] says.
    pub params: Vec<f32>,
    /// Statistics of all batch norms, where the file has them.
    pub statistics: Option<Statistics>,
    /// The file's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the weights of `network`. Tensors of modules that cannot reach the output are ignored.
///
/// # Errors
/// The file cannot be read; a tensor is missing, unknown, of another shape or not finite; or statistics are there
/// for a part of the batch norms only.
pub fn read_weights(path: &Path, network: &Network) -> Result<Weights> {
    let file = read_tensors(path)?;
    let mut known = BTreeSet::new();
    let mut params = Vec::with_capacity(network.n_params());
    for param in &network.params {
        let shape = &param.shape;
        params.extend(values(path, &file, &param.name, shape)?.ok_or_else(|| {
            let count = file.tensors.len();
            let reason = format!("{} {shape:?} is missing among its {count} tensors", param.name);
            Error::format(path, reason)
        })?);
        known.insert(param.name.clone());
    }
    let mut moments = BTreeMap::new();
    let mut lacking = None;
    let mut batches = 0;
    for op in batch_norms(network) {
        let name = norm_name(network, op);
        let shape = [network.ops[op].shape[0]];
        let buffer = |part: &str| values(path, &file, &format!("{name}.{part}"), &shape);
        match (buffer("running_mean")?, buffer("running_var")?) {
            (Some(mean), Some(variance)) => {
                if let Some(value) = variance.iter().find(|value| **value < 0.0) {
                    return Err(Error::format(path, format!("{name}.running_var holds {value}")));
                }
                moments.insert(op, Moments { mean, variance });
            }
            (None, None) => lacking = Some(name),
            _ => {
                return Err(Error::format(
                    path,
                    format!("{name}: half of the running statistics is missing"),
                ));
            }
        }
        let count = format!("{name}.num_batches_tracked");
        if let Some(tensor) = file.tensors.get(&count) {
            let tracked =
                tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f64>());
            let tracked = tracked.map_err(|error| Error::format(path, format!("{count}: {error}")))?;
            batches = tracked.first().map_or(batches, |&tracked| batches.max(tracked as u64));
        }
        known.extend(
            ["running_mean", "running_var", "num_batches_tracked"].map(|part| format!("{name}.{part}")),
        );
    }
    if let Some(name) = lacking.filter(|_| !moments.is_empty()) {
        let reason = format!("{name} has no running statistics, other batch norms of the file have");
        return Err(Error::format(path, reason));
    }
    let dead = |name: &str| {
        let module = |name: &str| name.rsplit_once('.').map(|(module, _)| module.to_owned());
        network.pruned.iter().any(|(pruned, _)| module(pruned) == module(name))
    };
    if let Some(name) = file.tensors.keys().find(|name| !known.contains(*name) && !dead(name)) {
        return Err(Error::format(path, format!("the architecture has no tensor {name}")));
    }
    let complete = lacking.is_none() && !moments.is_empty();
    let statistics = complete.then_some(Statistics { moments, batches });
    Ok(Weights { params, statistics, metadata: file.metadata })
}

/// The elements of a tensor, if it is there.
fn values(path: &Path, file: &TensorFile, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = file.tensors.get(name) else { return Ok(None) };
    if tensor.dims() != shape {
        let reason = format!("{name} has the shape {:?}, the architecture needs {shape:?}", tensor.dims());
        return Err(Error::format(path, reason));
    }
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::format(path, format!("{name} holds {value}"))),
        None => Ok(Some(values)),
    }
}

/// Parameters and statistics as a `state_dict` holds them.
///
/// # Errors
/// `params` or `statistics` do not fit the network.
pub fn state_dict(
    network: &Network,
    params: &[f32],
    statistics: &Statistics,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for param in &network.params {
        let values = params.get(param.offset..param.offset + param.numel()).ok_or_else(|| {
            Error::Tensor(format!("{}: {} parameters are too few", param.name, params.len()))
        })?;
        tensors.insert(param.name.clone(), Tensor::from_slice(values, param.shape.as_slice(), &Device::Cpu)?);
    }
    for op in batch_norms(network) {
        let name = norm_name(network, op);
        let moments = statistics
            .moments
            .get(&op)
            .ok_or_else(|| Error::Tensor(format!("{name}: there are no statistics")))?;
        let channels = network.ops[op].shape[0];
        for (part, values) in [("running_mean", &moments.mean), ("running_var", &moments.variance)] {
            let tensor = Tensor::from_slice(values.as_slice(), channels, &Device::Cpu)?;
            tensors.insert(format!("{name}.{part}"), tensor);
        }
        let batches = Tensor::new(statistics.batches as i64, &Device::Cpu)?;
        tensors.insert(format!("{name}.num_batches_tracked"), batches);
    }
    Ok(tensors)
}
