//! The intermediate representation: a validated DAG of ops with parameter shapes.
//!
//! It is the one description of a network. The graph that GHN-2 reads, the executors, the cost model,
//! drawings and exports all derive from it. Activations are written `[C, H, W]` (one image).

use serde::{Deserialize, Serialize};

/// Index of an op in [`Network::ops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub usize);

/// Index of a parameter in [`Network::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParamId(pub usize);

/// Shape of an activation of one image: channels, height, width. Vectors are `[C, 1, 1]`.
pub type Shape = [usize; 3];

/// A parameter tensor, named and shaped as in the reference's `state_dict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Dotted module path, e.g. `cells.0._ops.1.op.1.weight`.
    pub name: String,
    /// PyTorch layout: convolution `[O, I/groups, kH, kW]`, linear `[O, I]`, norm and bias `[C]`, positions `[1, C, H, W]`.
    pub shape: Vec<usize>,
    /// First element in the network's flat parameter vector: row-major tensors in the order of [`Network::params`].
    pub offset: usize,
}

impl Param {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What an op computes. `x` is its first input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OpKind {
    /// The images, `[3, H, W]`.
    Input,
    /// Convolution without bias (biases are never used by convolutions here), zero padding.
    Conv {
        /// `[O, I/groups, kH, kW]`.
        weight: ParamId,
        /// Vertical and horizontal stride.
        stride: [usize; 2],
        /// Vertical and horizontal padding, both sides.
        padding: [usize; 2],
        /// Dilation in both directions.
        dilation: usize,
        /// Groups; equal to the channels for depthwise convolutions.
        groups: usize,
    },
    /// `weight * x + bias` over the channels of every position.
    Linear {
        /// `[O, I]`.
        weight: ParamId,
        /// `[O]`.
        bias: Option<ParamId>,
    },
    /// Batch normalisation over images and positions, eps 1e-5; batch statistics (biased variance).
    BatchNorm {
        /// `[C]`.
        weight: ParamId,
        /// `[C]`.
        bias: ParamId,
    },
    /// Layer normalisation over the channels of every position, eps 1e-5.
    LayerNorm {
        /// `[C]`.
        weight: ParamId,
        /// `[C]`.
        bias: ParamId,
    },
    /// `max(x, 0)`.
    Relu,
    /// Exact GELU, `x * Phi(x)`.
    Gelu,
    /// `x * clamp(x + 3, 0, 6) / 6`.
    HardSwish,
    /// Max pooling with square kernel; padding counts as minus infinity.
    MaxPool {
        /// Kernel size.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Padding on all sides.
        padding: usize,
    },
    /// Average pooling with square kernel; padding is not counted.
    AvgPool {
        /// Kernel size.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Padding on all sides.
        padding: usize,
    },
    /// Mean over all positions before the classifier, `[C, H, W] -> [C, 1, 1]`; a node of the graph.
    GlobalAvgPool,
    /// The same mean inside squeeze-and-excitation; not a node of the graph.
    SqueezeMean,
    /// Excitation: inputs `x [C, H, W]` and gate `g [C, 1, 1]`; `x * g`.
    Excite,
    /// Scaled dot-product self-attention over all positions; input `[3 * heads * head_dim, H, W]` holds queries,
    /// keys and values one after the other, each head after head; output `[heads * head_dim, H, W]`;
    /// scale `head_dim^-1/2`.
    Attention {
        /// Number of heads.
        heads: usize,
        /// Channels of a head.
        head_dim: usize,
    },
    /// `x + weight`, a learned positional encoding `[1, C, H, W]`.
    PosEnc {
        /// `[1, C, H, W]`.
        weight: ParamId,
    },
    /// Sum of two inputs of equal shape.
    Add,
    /// Concatenation of the inputs over channels.
    Concat,
    /// Zeros in the shape of the input, which gets no gradient (a missing state of a cell's concatenation).
    Zeros,
    /// Every `stride`-th row and column, from the first.
    Subsample {
        /// Stride in both directions.
        stride: usize,
    },
    /// Drops the first row and the first column, `[C, H, W] -> [C, H-1, W-1]` (second half of a factorised reduction).
    Crop,
    /// `[C, H, W] -> [C*H*W, 1, 1]`, channels outermost.
    Flatten,
    /// Dropout in training, identity otherwise.
    Dropout {
        /// Probability of dropping an element.
        p: f32,
    },
}

impl OpKind {
    /// The parameters that the op reads: weight, then bias.
    pub fn params(&self) -> impl Iterator<Item = ParamId> + use<> {
        let (weight, bias) = match *self {
            OpKind::Conv { weight, .. } | OpKind::PosEnc { weight } => (Some(weight), None),
            OpKind::Linear { weight, bias } => (Some(weight), bias),
            OpKind::BatchNorm { weight, bias } | OpKind::LayerNorm { weight, bias } => {
                (Some(weight), Some(bias))
            }
            _ => (None, None),
        };
        weight.into_iter().chain(bias)
    }

    /// The same parameters, to renumber them.
    pub(super) fn params_mut(&mut self) -> impl Iterator<Item = &mut ParamId> {
        let (weight, bias) = match self {
            OpKind::Conv { weight, .. } | OpKind::PosEnc { weight } => (Some(weight), None),
            OpKind::Linear { weight, bias } => (Some(weight), bias.as_mut()),
            OpKind::BatchNorm { weight, bias } | OpKind::LayerNorm { weight, bias } => {
                (Some(weight), Some(bias))
            }
            _ => (None, None),
        };
        weight.into_iter().chain(bias)
    }

    /// The same op with its parameters renumbered.
    #[must_use]
    pub fn map_params(mut self, mut to: impl FnMut(ParamId) -> ParamId) -> OpKind {
        self.params_mut().for_each(|id| *id = to(*id));
        self
    }

    /// The op's name in the JSON form, e.g. `batch_norm`.
    pub const fn name(&self) -> &'static str {
        match self {
            OpKind::Input => "input",
            OpKind::Conv { .. } => "conv",
            OpKind::Linear { .. } => "linear",
            OpKind::BatchNorm { .. } => "batch_norm",
            OpKind::LayerNorm { .. } => "layer_norm",
            OpKind::Relu => "relu",
            OpKind::Gelu => "gelu",
            OpKind::HardSwish => "hard_swish",
            OpKind::MaxPool { .. } => "max_pool",
            OpKind::AvgPool { .. } => "avg_pool",
            OpKind::GlobalAvgPool => "global_avg_pool",
            OpKind::SqueezeMean => "squeeze_mean",
            OpKind::Excite => "excite",
            OpKind::Attention { .. } => "attention",
            OpKind::PosEnc { .. } => "pos_enc",
            OpKind::Add => "add",
            OpKind::Concat => "concat",
            OpKind::Zeros => "zeros",
            OpKind::Subsample { .. } => "subsample",
            OpKind::Crop => "crop",
            OpKind::Flatten => "flatten",
            OpKind::Dropout { .. } => "dropout",
        }
    }
}

/// An op with its inputs and the shape of its output for one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpNode {
    /// What is computed.
    #[serde(flatten)]
    pub kind: OpKind,
    /// Inputs, all at smaller indices.
    pub inputs: Vec<OpId>,
    /// Output shape.
    pub shape: Shape,
}

/// A feed-forward network: ops in topological order, the last is the output (logits `[classes, 1, 1]`).
///
/// Only ops that can reach the output are listed; the first is the only [`OpKind::Input`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Ops in topological order.
    pub ops: Vec<OpNode>,
    /// Parameters that the output depends on, in the reference's module order.
    pub params: Vec<Param>,
    /// Parameters that were built but cannot reach the output (name, shape), in module order.
    pub pruned: Vec<(String, Vec<usize>)>,
    /// Number of cells (0 for networks that are not made of cells).
    pub n_cells: usize,
}

impl Network {
    /// Number of elements of the flat parameter vector.
    pub fn n_params(&self) -> usize {
        self.params.iter().map(Param::numel).sum()
    }

    /// Parameters including the pruned ones.
    pub fn n_params_unpruned(&self) -> usize {
        self.n_params() + self.pruned.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
    }

    /// Shape of the images.
    pub fn input_shape(&self) -> Shape {
        self.ops[0].shape
    }

    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        self.ops.last().map_or(0, |op| op.shape[0])
    }
}
