//! Settings of a graph hypernetwork and the tensors that follow from them.
//!
//! In: the constructor arguments of the reference (arXiv 2110.13100, section 4), under its names. Out: a checked
//! [`GhnConfig`] and the list of tensors, named and shaped as in the reference's `state_dict`.

use super::vocabulary::Vocabulary;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What turns initial node states into final ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypernet {
    /// Message passing with a gated recurrent unit.
    GatedGnn,
    /// Two linear layers per node; no node sees another (the MLP baseline).
    Mlp,
}

/// What turns a node's final state into a table of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// A linear layer to a spatial map and 1x1 convolutions to the channels.
    Conv,
    /// Two linear layers.
    Mlp,
}

/// Constructor arguments of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GhnConfig {
    /// Table that the decoder predicts: out channels, in channels, height, width.
    pub max_shape: [usize; 4],
    /// Classes of the networks whose classifier is predicted.
    pub num_classes: usize,
    /// Message passing, or none.
    pub hypernet: Hypernet,
    /// Decoder of tensors with two or more dimensions.
    pub decoder: Decoder,
    /// Normalise predicted tensors by fan-in.
    pub weight_norm: bool,
    /// Virtual edges between nodes up to 50 edges apart.
    pub ve: bool,
    /// Layer norm on the final node states.
    pub layernorm: bool,
    /// Width of a node state.
    pub hid: usize,
}

impl GhnConfig {
    /// GHN-2 as published for CIFAR-10.
    pub fn ghn2(num_classes: usize) -> GhnConfig {
        GhnConfig {
            max_shape: [64, 64, 11, 11],
            num_classes,
            hypernet: Hypernet::GatedGnn,
            decoder: Decoder::Conv,
            weight_norm: true,
            ve: true,
            layernorm: true,
            hid: 32,
        }
    }

    /// Checks that a hypernetwork of these settings exists.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting, its value and the valid ones.
    pub fn validate(&self) -> Result<()> {
        if self.hid == 0 || !self.hid.is_multiple_of(4) || self.hid > 4096 {
            return Err(Error::Config(format!(
                "hid = {}: must be a multiple of 4 from 4 to 4096 (a shape has four embeddings of hid / 4)",
                self.hid
            )));
        }
        let [o, i, h, w] = self.max_shape;
        if o == 0 || i == 0 || o > 1024 || i > 1024 {
            return Err(Error::Config(format!(
                "max_shape = {:?}: channels must lie in 1..=1024",
                self.max_shape
            )));
        }
        if h == 0 || w == 0 || h > 64 || w > 64 {
            return Err(Error::Config(format!(
                "max_shape = {:?}: height and width must lie in 1..=64",
                self.max_shape
            )));
        }
        if self.num_classes == 0 || self.num_classes > 1 << 20 {
            return Err(Error::Config(format!(
                "num_classes = {}: must lie in 1..=1048576",
                self.num_classes
            )));
        }
        Ok(())
    }

    /// Length of one half of the head for one-dimensional tensors: the larger number of channels.
    pub fn max_channels(&self) -> usize {
        self.max_shape[0].max(self.max_shape[1])
    }

    /// Every tensor with its initialisation, in the reference's module order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Specs::default();
        let (hid, channels) = (self.hid, self.max_channels());
        let [o, i, h, w] = self.max_shape;
        if self.layernorm {
            list.push("ln.weight", &[hid], Init::Constant(1.0));
            list.push("ln.bias", &[hid], Init::Constant(0.0));
        }
        let vocabulary = Vocabulary::new(self);
        list.push("embed.weight", &[crate::graph::Primitive::ALL.len(), hid], Init::Normal);
        list.push("shape_enc.embed_spatial.weight", &[vocabulary.spatial_rows(), hid / 4], Init::Normal);
        list.push("shape_enc.embed_channel.weight", &[vocabulary.channel_rows(), hid / 4], Init::Normal);
        match self.hypernet {
            Hypernet::Mlp => {
                list.linear("gnn.fc.0", &[hid, hid]);
                list.linear("gnn.fc.2", &[hid, hid]);
            }
            Hypernet::GatedGnn => {
                let hidden = if self.ve { hid / 2 } else { hid };
                list.linear("gnn.mlp.fc.0", &[hidden, hid]);
                list.linear("gnn.mlp.fc.2", &[hid, hidden]);
                if self.ve {
                    list.linear("gnn.mlp_ve.fc.0", &[hidden, hid]);
                    list.linear("gnn.mlp_ve.fc.2", &[hid, hidden]);
                }
                let bound = 1.0 / (hid as f64).sqrt();
                for (name, shape) in [
                    ("gnn.gru.weight_ih", &[3 * hid, hid] as &[usize]),
                    ("gnn.gru.weight_hh", &[3 * hid, hid]),
                    ("gnn.gru.bias_ih", &[3 * hid]),
                    ("gnn.gru.bias_hh", &[3 * hid]),
                ] {
                    list.push(name, shape, Init::Uniform(bound));
                }
            }
        }
        match self.decoder {
            Decoder::Conv => {
                list.linear("decoder.fc.0", &[4 * hid * h * w, hid]);
                list.linear("decoder.conv.0", &[8 * hid, 4 * hid, 1, 1]);
                list.linear("decoder.conv.2", &[o * i, 8 * hid, 1, 1]);
                list.linear("decoder.class_layer_predictor.1", &[self.num_classes, o, 1, 1]);
            }
            Decoder::Mlp => {
                list.linear("decoder.mlp.fc.0", &[2 * hid, hid]);
                list.linear("decoder.mlp.fc.2", &[o * i * h * w, 2 * hid]);
                list.linear("decoder.class_layer_predictor.1", &[self.num_classes * i, 2 * hid]);
            }
        }
        list.linear("decoder_1d.fc.0", &[2 * hid, hid]);
        list.linear("decoder_1d.fc.2", &[2 * channels, 2 * hid]);
        list.linear("bias_class.1", &[self.num_classes, channels]);
        list.0
    }

    /// Settings that explain the tensors of a checkpoint without settings; `shape` looks a tensor up by name.
    ///
    /// Shapes do not tell whether predicted tensors are normalised: they are taken to be where node states have a
    /// layer norm, as in GHN-2, and not where they have none, as in GHN-1. Tables are taken to be square in space.
    ///
    /// # Errors
    /// [`Error::Config`] names the tensor that is missing or does not fit.
    pub fn infer(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<GhnConfig> {
        let dim = |name: &str, axis: usize| -> Result<usize> {
            let dims = shape(name).ok_or_else(|| {
                Error::Config(format!(
                    "no settings, and tensor {name}, from which they could be read, is missing"
                ))
            })?;
            match dims.get(axis) {
                Some(&size) if size > 0 => Ok(size),
                _ => Err(Error::Config(format!("tensor {name} has shape {dims:?}: no size in axis {axis}"))),
            }
        };
        let hid = dim("embed.weight", 1)?;
        let num_classes = dim("bias_class.1.weight", 0)?;
        let channels = dim("bias_class.1.weight", 1)?;
        let decoder = if shape("decoder.fc.0.weight").is_some() { Decoder::Conv } else { Decoder::Mlp };
        let (o, i, positions) = match decoder {
            Decoder::Conv => {
                let o = dim("decoder.class_layer_predictor.1.weight", 1)?;
                (o, dim("decoder.conv.2.weight", 0)? / o, dim("decoder.fc.0.weight", 0)? / (4 * hid))
            }
            Decoder::Mlp => {
                let i = dim("decoder.class_layer_predictor.1.weight", 0)? / num_classes;
                if i == 0 {
                    return Err(Error::Config(
                        "decoder.class_layer_predictor.1.weight has too few rows".into(),
                    ));
                }
                (channels, i, dim("decoder.mlp.fc.2.weight", 0)? / (channels * i))
            }
        };
        let side = positions.isqrt();
        if side * side != positions {
            return Err(Error::Config(format!(
                "no settings, and the decoder's {positions} positions are not a square: max_shape is unknown"
            )));
        }
        let layernorm = shape("ln.weight").is_some();
        let gated = shape("gnn.gru.weight_ih").is_some();
        let config = GhnConfig {
            max_shape: [o, i, side, side],
            num_classes,
            hypernet: if gated { Hypernet::GatedGnn } else { Hypernet::Mlp },
            decoder,
            weight_norm: layernorm,
            ve: if gated { shape("gnn.mlp_ve.fc.0.weight").is_some() } else { layernorm },
            layernorm,
            hid,
        };
        config.validate()?;
        Ok(config)
    }
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All elements equal.
    Constant(f64),
    /// Uniform in `-bound..bound`.
    Uniform(f64),
    /// Standard normal.
    Normal,
}

/// Name, shape and initialisation of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in the reference's `state_dict`.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// PyTorch's default for the module that owns it.
    pub init: Init,
}

#[derive(Default)]
struct Specs(Vec<TensorSpec>);

impl Specs {
    fn push(&mut self, name: &str, shape: &[usize], init: Init) {
        self.0.push(TensorSpec { name: name.to_string(), shape: shape.to_vec(), init });
    }

    /// Weight and bias of a linear layer or convolution; both uniform within `fan_in^-1/2`.
    fn linear(&mut self, module: &str, weight: &[usize]) {
        let fan_in: usize = weight[1..].iter().product();
        let init = Init::Uniform(1.0 / (fan_in as f64).sqrt());
        self.push(&format!("{module}.weight"), weight, init);
        self.push(&format!("{module}.bias"), &weight[..1], init);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_from_shapes() {
        for (hypernet, decoder, ghn2) in [
            (Hypernet::GatedGnn, Decoder::Conv, true),
            (Hypernet::GatedGnn, Decoder::Mlp, true),
            (Hypernet::GatedGnn, Decoder::Conv, false),
            (Hypernet::Mlp, Decoder::Conv, true),
        ] {
            let config = GhnConfig {
                max_shape: [32, 16, 11, 11],
                hypernet,
                decoder,
                weight_norm: ghn2,
                ve: ghn2,
                layernorm: ghn2,
                hid: 16,
                ..GhnConfig::ghn2(10)
            };
            let specs = config.tensors();
            let find = |name: &str| specs.iter().find(|s| s.name == name).map(|s| s.shape.clone());
            assert_eq!(GhnConfig::infer(&find).unwrap(), config);
        }
    }

    #[test]
    fn published_size() {
        let total: usize =
            GhnConfig::ghn2(10).tensors().iter().map(|s| s.shape.iter().product::<usize>()).sum();
        assert_eq!(total, 1_620_764);
    }

    #[test]
    fn impossible_settings_are_named() {
        let broken = GhnConfig { hid: 6, ..GhnConfig::ghn2(10) };
        assert!(broken.validate().unwrap_err().to_string().contains("hid = 6"));
        let broken = GhnConfig { max_shape: [64, 0, 11, 11], ..GhnConfig::ghn2(10) };
        assert!(broken.validate().unwrap_err().to_string().contains("max_shape"));
    }
}
