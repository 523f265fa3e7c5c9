//! Initial weights of a network: random, or read from a file of named tensors.
//!
//! In: a network and a seed. Out: its flat parameter vector. Every tensor draws from a stream of its own, so equal
//! layers of different networks do not depend on what stands before them.

use crate::checkpoint::read_tensors;
use crate::network::{Network, OpKind, ParamId};
use crate::training::draw::{Purpose, stream};
use crate::{Error, Result};
use candle_core::DType;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

/// How weights are drawn. Norm layers begin as the identity (weight 1, bias 0) in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomInit {
    /// He's: normal with variance `2 / fan_in` for every convolution and linear layer, biases 0
    /// (arXiv 1502.01852, equation 10).
    He,
    /// What PyTorch's layers do by themselves: uniform in `±1 / sqrt(fan_in)`, biases too.
    Torch,
}

/// Deviation of positional weights, as vision transformers draw them (arXiv 2010.11929).
const POSITION_SD: f32 = 0.02;

/// Draws all parameters `[n_params]` of `network`.
pub fn random_weights(network: &Network, init: RandomInit, seed: u64) -> Vec<f32> {
    let mut params = vec![0f32; network.n_params()];
    for op in &network.ops {
        match op.kind {
            OpKind::Conv { weight, .. } => fill(network, &mut params, weight, weight, init, seed),
            OpKind::Linear { weight, bias } => {
                fill(network, &mut params, weight, weight, init, seed);
                if let (Some(bias), RandomInit::Torch) = (bias, init) {
                    fill(network, &mut params, bias, weight, init, seed);
                }
            }
            OpKind::BatchNorm { weight, .. } | OpKind::LayerNorm { weight, .. } => {
                slice(network, &mut params, weight).fill(1.0);
            }
            OpKind::PosEnc { weight } => {
                let rng = &mut rng(seed, weight);
                for value in slice(network, &mut params, weight) {
                    let normal: f32 = StandardNormal.sample(rng);
                    *value = POSITION_SD * normal;
                }
            }
            _ => {}
        }
    }
    params
}

fn slice<'a>(network: &Network, params: &'a mut [f32], id: ParamId) -> &'a mut [f32] {
    let param = &network.params[id.0];
    &mut params[param.offset..][..param.numel()]
}

fn rng(seed: u64, id: ParamId) -> ChaCha8Rng {
    stream(seed, Purpose::NetworkWeights, id.0 as u64)
}

/// Draws tensor `id` with the fan-in of `weight`.
fn fill(network: &Network, params: &mut [f32], id: ParamId, weight: ParamId, init: RandomInit, seed: u64) {
    let fan_in: usize = network.params[weight.0].shape[1..].iter().product();
    let rng = &mut rng(seed, id);
    let values = slice(network, params, id);
    match init {
        RandomInit::He => {
            let sd = (2.0 / fan_in as f32).sqrt();
            for value in values {
                let normal: f32 = StandardNormal.sample(rng);
                *value = sd * normal;
            }
        }
        RandomInit::Torch => {
            let bound = 1.0 / (fan_in as f32).sqrt();
            values.iter_mut().for_each(|value| *value = bound * (2.0 * rng.random::<f32>() - 1.0));
        }
    }
}

/// Reads the parameters of `network` from safetensors with the names of its state dict; others are passed over.
///
/// # Errors
/// Names the file and the first tensor that is missing, of another shape or not finite.
pub fn weights_from_file(network: &Network, path: &Path) -> Result<Vec<f32>> {
    let file = read_tensors(path)?;
    let mut params = Vec::with_capacity(network.n_params());
    for param in &network.params {
        let tensor = file
            .tensors
            .get(&param.name)
            .ok_or_else(|| Error::format(path, format!("no tensor {}, which the network has", param.name)))?;
        if tensor.dims() != param.shape {
            let found = tensor.dims();
            return Err(Error::format(
                path,
                format!("{}: shape {found:?}, the network has {:?}", param.name, param.shape),
            ));
        }
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::format(path, format!("{} holds {value}", param.name)));
        }
        params.extend(values);
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepnets::predefined;
    use crate::network::build;

    #[test]
    fn deviations_follow_the_fan_in() {
        for name in ["DARTS", "ViT", "resnet18"] {
            let network = build(&predefined(name).unwrap().arch, 10).unwrap();
            for (init, gain) in [(RandomInit::He, 2.0), (RandomInit::Torch, 1.0 / 3.0)] {
                let params = random_weights(&network, init, 5);
                assert_eq!(params, random_weights(&network, init, 5));
                let first = network.params.iter().find(|param| param.shape.len() == 4).unwrap();
                assert_ne!(params[first.offset], random_weights(&network, init, 6)[first.offset]);
                for op in &network.ops {
                    let (OpKind::Conv { weight, .. } | OpKind::Linear { weight, .. }) = op.kind else {
                        continue;
                    };
                    let param = &network.params[weight.0];
                    let values = &params[param.offset..][..param.numel()];
                    let n = values.len() as f64;
                    let fan_in: usize = param.shape[1..].iter().product();
                    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                    let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
                    let expected = gain / fan_in as f64;
                    // Relative error of a variance of n normal values: sqrt(2 / n).
                    let tolerance = 6.0 * (2.0 / n).sqrt();
                    assert!((variance / expected - 1.0).abs() < tolerance, "{}: {variance}", param.name);
                    assert!(mean.abs() < 6.0 * (expected / n).sqrt(), "{}: mean {mean}", param.name);
                }
            }
        }
    }
}
