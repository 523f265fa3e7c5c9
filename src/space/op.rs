//! The 15 operations that an edge of a cell can hold (METHOD: DeepNets-1M, arXiv 2110.13100, section 3).

use serde::{Deserialize, Serialize};

/// Operation on an edge of a cell, in the order of the reference's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Op {
    /// Drops the edge.
    #[serde(rename = "none")]
    None,
    /// 3x3 max pooling.
    #[serde(rename = "max_pool_3x3")]
    MaxPool3x3,
    /// 3x3 average pooling, padding not counted.
    #[serde(rename = "avg_pool_3x3")]
    AvgPool3x3,
    /// Identity, or a factorised reduction where the edge is strided.
    #[serde(rename = "skip_connect")]
    SkipConnect,
    /// Depthwise-separable 3x3 convolution, applied twice.
    #[serde(rename = "sep_conv_3x3")]
    SepConv3x3,
    /// Depthwise-separable 5x5 convolution, applied twice.
    #[serde(rename = "sep_conv_5x5")]
    SepConv5x5,
    /// Dilated depthwise-separable 3x3 convolution.
    #[serde(rename = "dil_conv_3x3")]
    DilConv3x3,
    /// Dilated depthwise-separable 5x5 convolution.
    #[serde(rename = "dil_conv_5x5")]
    DilConv5x5,
    /// Dense 1x1 convolution.
    #[serde(rename = "conv_1x1")]
    Conv1x1,
    /// 1x7 followed by 7x1 convolution.
    #[serde(rename = "conv_7x1_1x7")]
    Conv7x1_1x7,
    /// Dense 3x3 convolution.
    #[serde(rename = "conv_3x3")]
    Conv3x3,
    /// Dense 5x5 convolution.
    #[serde(rename = "conv_5x5")]
    Conv5x5,
    /// Dense 7x7 convolution.
    #[serde(rename = "conv_7x7")]
    Conv7x7,
    /// Transformer block: multi-head self-attention and feed-forward, pre-norm.
    #[serde(rename = "msa")]
    Msa,
    /// Channel squeeze-and-excitation.
    #[serde(rename = "cse")]
    Cse,
}

impl Op {
    /// All operations in the reference's order.
    pub const ALL: [Op; 15] = [
        Op::None,
        Op::MaxPool3x3,
        Op::AvgPool3x3,
        Op::SkipConnect,
        Op::SepConv3x3,
        Op::SepConv5x5,
        Op::DilConv3x3,
        Op::DilConv5x5,
        Op::Conv1x1,
        Op::Conv7x1_1x7,
        Op::Conv3x3,
        Op::Conv5x5,
        Op::Conv7x7,
        Op::Msa,
        Op::Cse,
    ];

    /// The name used in genotypes and files.
    pub const fn name(self) -> &'static str {
        match self {
            Op::None => "none",
            Op::MaxPool3x3 => "max_pool_3x3",
            Op::AvgPool3x3 => "avg_pool_3x3",
            Op::SkipConnect => "skip_connect",
            Op::SepConv3x3 => "sep_conv_3x3",
            Op::SepConv5x5 => "sep_conv_5x5",
            Op::DilConv3x3 => "dil_conv_3x3",
            Op::DilConv5x5 => "dil_conv_5x5",
            Op::Conv1x1 => "conv_1x1",
            Op::Conv7x1_1x7 => "conv_7x1_1x7",
            Op::Conv3x3 => "conv_3x3",
            Op::Conv5x5 => "conv_5x5",
            Op::Conv7x7 => "conv_7x7",
            Op::Msa => "msa",
            Op::Cse => "cse",
        }
    }

    /// Whether it has parameters wherever it stands: every operation but `none`, pooling and the identity (which
    /// has some only where it is strided).
    pub const fn is_learnable(self) -> bool {
        !matches!(self, Op::None | Op::MaxPool3x3 | Op::AvgPool3x3 | Op::SkipConnect)
    }

    /// Whether it is a convolution of any kind (separable and dilated ones too).
    pub const fn is_convolution(self) -> bool {
        self.is_learnable() && !matches!(self, Op::Msa | Op::Cse)
    }

    /// Whether it is a dense 5x5 or 7x7 convolution, the most expensive operations.
    pub const fn is_large_convolution(self) -> bool {
        matches!(self, Op::Conv5x5 | Op::Conv7x7)
    }

    /// The operation of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
