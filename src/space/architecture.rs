//! Architectures: a genotype with the macro settings that turn it into a network, and the record in which files hold it.

use super::genotype::Genotype;
use serde::{Deserialize, Serialize};

/// Normalisation layers of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Norm {
    /// Batch normalisation.
    #[serde(rename = "bnorm")]
    Batch,
    /// Batch normalisation with running statistics; the same network wherever batch statistics are used.
    #[serde(rename = "bn-track")]
    BatchTracked,
}

/// A cell network of the DeepNets-1M family: the constructor arguments of the reference, with its JSON names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellArchitecture {
    /// Channels of the first cells (`C`).
    #[serde(rename = "C")]
    pub channels: usize,
    /// Width of the hidden fully connected layer, used when `fc_layers` is 2.
    pub fc_dim: usize,
    /// The two cells.
    pub genotype: Genotype,
    /// Number of cells.
    pub n_cells: usize,
    /// Kernel size of the stem's first convolution.
    #[serde(rename = "ks")]
    pub stem_kernel: usize,
    /// 0: one convolution; 1: ImageNet style, three convolutions.
    pub stem_type: u8,
    /// 3x3 stride-2 max pooling behind stem 0.
    pub stem_pool: bool,
    /// Normalisation, or none.
    pub norm: Option<Norm>,
    /// 1x1 convolutions on the cells' inputs.
    pub preproc: bool,
    /// Channel multiplier of reduction cells (`C_mult`).
    #[serde(rename = "C_mult")]
    pub channel_multiplier: usize,
    /// Linear layers of the head (0 means 1).
    pub fc_layers: usize,
    /// Global average pooling before the head, else flattening.
    #[serde(rename = "glob_avg")]
    pub global_pool: bool,
    /// Built for 224x224 input instead of 32x32.
    #[serde(rename = "is_imagenet_input")]
    pub imagenet_input: bool,
}

/// What a record describes: a cell network, or one of torchvision's by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// A cell network.
    #[serde(rename = "args")]
    Cells(CellArchitecture),
    /// A predefined network named as in torchvision, e.g. `resnet50` (CIFAR variant: 3x3 stem, no max pooling).
    #[serde(rename = "torchvision")]
    Torchvision(String),
}

/// One architecture as a line of a JSON-lines file; extra keys are ignored so that annotated lists can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchRecord {
    /// Unique name, e.g. `test/17`.
    pub id: String,
    /// The list that it was drawn for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub split: String,
    /// Classes of the classifier.
    pub num_classes: usize,
    /// The network.
    #[serde(flatten)]
    pub arch: Architecture,
}
