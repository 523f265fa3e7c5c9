//! The operations of a cell as modules: declared with their parameters in module order, run where the cell needs
//! them (METHOD: DeepNets-1M, arXiv 2110.13100, section 3; DARTS, arXiv 1806.09055; attention, arXiv 2010.11929;
//! squeeze-and-excitation, arXiv 1709.01507).

use super::builder::Builder;
use super::ir::{OpId, OpKind};
use crate::space::Op;
use crate::{Error, Result};

/// Attention heads; a head has an eighth of the channels.
const HEADS: usize = 8;

/// A declared module: its parameters exist, its ops do not yet.
pub(super) enum Module {
    /// Ops of one input one after the other; none: the identity.
    Chain(Vec<OpKind>),
    /// ReLU, two strided 1x1 convolutions on grids shifted by one pixel, concatenation, norm.
    FactorisedReduction { halves: [OpKind; 2], norm: Option<OpKind> },
    /// Pre-norm transformer block: each of the two chains is added to its input.
    Attention { attend: Vec<OpKind>, feed_forward: Vec<OpKind> },
    /// Squeeze-and-excitation; strided after the product.
    SqueezeExcitation { fc1: OpKind, fc2: OpKind, stride: usize },
}

/// What the modules of a cell have in common.
#[derive(Clone, Copy)]
pub(super) struct Width {
    /// Channels in and out.
    pub channels: usize,
    /// 2 where the resolution is halved, else 1.
    pub stride: usize,
    /// Whether convolutions are followed by batch norm.
    pub norm: bool,
}

impl Module {
    /// Declares `op` under the module path `name`; none for [`Op::None`].
    pub fn declare(b: &mut Builder, name: &str, op: Op, width: Width) -> Result<Option<Module>> {
        let Width { channels: c, stride, norm } = width;
        Ok(Some(match op {
            Op::None => return Ok(None),
            Op::MaxPool3x3 => Module::Chain(vec![OpKind::MaxPool { kernel: 3, stride, padding: 1 }]),
            Op::AvgPool3x3 => Module::Chain(vec![OpKind::AvgPool { kernel: 3, stride, padding: 1 }]),
            Op::SkipConnect if stride == 1 => Module::Chain(Vec::new()),
            Op::SkipConnect => Module::factorised_reduction(b, name, [c, c], norm)?,
            Op::SepConv3x3 => Module::separable(b, name, 3, width),
            Op::SepConv5x5 => Module::separable(b, name, 5, width),
            Op::DilConv3x3 => Module::dilated(b, name, 3, width),
            Op::DilConv5x5 => Module::dilated(b, name, 5, width),
            Op::Conv1x1 => Module::relu_conv_norm(b, &format!("{name}.op"), [c, c, 1, 1], stride, norm),
            Op::Conv3x3 => Module::relu_conv_norm(b, &format!("{name}.op"), [c, c, 3, 3], stride, norm),
            Op::Conv5x5 => Module::relu_conv_norm(b, &format!("{name}.op"), [c, c, 5, 5], stride, norm),
            Op::Conv7x7 => Module::relu_conv_norm(b, &format!("{name}.op"), [c, c, 7, 7], stride, norm),
            Op::Conv7x1_1x7 => {
                let mut kinds = vec![OpKind::Relu];
                kinds.push(b.conv(&format!("{name}.op.1"), [c, c, 1, 7], [1, stride]));
                kinds.push(b.conv(&format!("{name}.op.2"), [c, c, 7, 1], [stride, 1]));
                kinds.extend(norm.then(|| b.batch_norm(&format!("{name}.op.3"), c)));
                Module::Chain(kinds)
            }
            Op::Msa => Module::attention(b, name, c)?,
            Op::Cse => {
                let squeezed = c / 2;
                if squeezed == 0 {
                    return Err(Error::Architecture(format!(
                        "{name}: cse needs 2 channels or more, found {c}"
                    )));
                }
                let fc1 = b.linear(&format!("{name}.fc1"), [squeezed, c], true);
                let fc2 = b.linear(&format!("{name}.fc2"), [c, squeezed], true);
                Module::SqueezeExcitation { fc1, fc2, stride }
            }
        }))
    }

    /// ReLU, convolution, norm; the convolution is module `name.1`.
    pub fn relu_conv_norm(
        b: &mut Builder,
        name: &str,
        weight: [usize; 4],
        stride: usize,
        norm: bool,
    ) -> Module {
        let mut kinds = vec![OpKind::Relu, b.conv(&format!("{name}.1"), weight, [stride; 2])];
        kinds.extend(norm.then(|| b.batch_norm(&format!("{name}.2"), weight[0])));
        Module::Chain(kinds)
    }

    /// Factorised reduction from `channels[1]` to `channels[0]` channels.
    pub fn factorised_reduction(
        b: &mut Builder,
        name: &str,
        channels: [usize; 2],
        norm: bool,
    ) -> Result<Module> {
        let [out, inner] = channels;
        if !out.is_multiple_of(2) {
            return Err(Error::Architecture(format!(
                "{name}: a factorised reduction needs an even number of channels, found {out}"
            )));
        }
        let halves = ["conv_1", "conv_2"]
            .map(|half| b.conv(&format!("{name}.{half}"), [out / 2, inner, 1, 1], [2, 2]));
        let norm = norm.then(|| b.batch_norm(&format!("{name}.bn"), out));
        Ok(Module::FactorisedReduction { halves, norm })
    }

    fn separable(b: &mut Builder, name: &str, kernel: usize, width: Width) -> Module {
        let Width { channels: c, stride, norm } = width;
        let mut kinds = Vec::with_capacity(8);
        for (first, stride) in [(1, stride), (5, 1)] {
            kinds.push(OpKind::Relu);
            kinds.push(b.depthwise(&format!("{name}.op.{first}"), c, kernel, stride, 1));
            kinds.push(b.conv(&format!("{name}.op.{}", first + 1), [c, c, 1, 1], [1, 1]));
            kinds.extend(norm.then(|| b.batch_norm(&format!("{name}.op.{}", first + 2), c)));
        }
        Module::Chain(kinds)
    }

    fn dilated(b: &mut Builder, name: &str, kernel: usize, width: Width) -> Module {
        let Width { channels: c, stride, norm } = width;
        let mut kinds = vec![OpKind::Relu];
        kinds.push(b.depthwise(&format!("{name}.op.1"), c, kernel, stride, 2));
        kinds.push(b.conv(&format!("{name}.op.2"), [c, c, 1, 1], [1, 1]));
        kinds.extend(norm.then(|| b.batch_norm(&format!("{name}.op.3"), c)));
        Module::Chain(kinds)
    }

    fn attention(b: &mut Builder, name: &str, c: usize) -> Result<Module> {
        let head_dim = c / HEADS;
        if head_dim == 0 {
            return Err(Error::Architecture(format!(
                "{name}: attention needs {HEADS} channels or more, found {c}"
            )));
        }
        let inner = HEADS * head_dim;
        let qkv = b.linear(&format!("{name}.to_qkv"), [3 * inner, c], false);
        let out = b.linear(&format!("{name}.to_out.0"), [c, inner], true);
        let [ln1, ln2] = ["ln1", "ln2"].map(|norm| b.layer_norm(&format!("{name}.{norm}"), c));
        let [ff1, ff2] = [0, 3].map(|layer| b.linear(&format!("{name}.ff.net.{layer}"), [c, c], true));
        let attend = vec![ln1, qkv, OpKind::Attention { heads: HEADS, head_dim }, out];
        Ok(Module::Attention { attend, feed_forward: vec![ln2, ff1, OpKind::Gelu, ff2] })
    }

    /// Runs the module on `x`.
    pub fn apply(self, b: &mut Builder, x: OpId) -> Result<OpId> {
        match self {
            Module::Chain(kinds) => b.chain(kinds, x),
            Module::FactorisedReduction { halves: [first, second], norm } => {
                let [_, h, w] = b.shape(x);
                if !h.is_multiple_of(2) || !w.is_multiple_of(2) {
                    return Err(Error::Architecture(format!(
                        "a factorised reduction needs an even height and width, found {h}x{w}"
                    )));
                }
                let x = b.push(OpKind::Relu, &[x])?;
                let first = b.push(first, &[x])?;
                let second = b.chain([OpKind::Crop, second], x)?;
                let joined = b.push(OpKind::Concat, &[first, second])?;
                b.chain(norm, joined)
            }
            Module::Attention { attend, feed_forward } => {
                let attended = b.chain(attend, x)?;
                let x = b.push(OpKind::Add, &[attended, x])?;
                let fed = b.chain(feed_forward, x)?;
                b.push(OpKind::Add, &[fed, x])
            }
            Module::SqueezeExcitation { fc1, fc2, stride } => {
                let gate = b.chain([OpKind::SqueezeMean, fc1, OpKind::Relu, fc2, OpKind::HardSwish], x)?;
                let y = b.push(OpKind::Excite, &[x, gate])?;
                b.chain((stride > 1).then_some(OpKind::Subsample { stride }), y)
            }
        }
    }
}
