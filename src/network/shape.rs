//! Shape inference: from an op, its inputs' shapes and its parameters' shapes to the shape of its output.
//!
//! Every check that makes a network runnable is here, so that building a network and validating one that was
//! read from a file reject the same things.

use super::ir::{OpKind, Shape};
use crate::{Error, Result};

/// Length of an axis after a window of `kernel` (dilated) slides over it; none if it does not fit.
fn slide(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let window = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    size.checked_add(padding.checked_mul(2)?)?.checked_sub(window)?.checked_div(stride).map(|steps| steps + 1)
}

/// Shape of the output of `kind` for inputs of shapes `inputs` and parameters of shapes `params` (weight, bias).
pub(super) fn infer(kind: &OpKind, inputs: &[Shape], params: &[&[usize]]) -> Result<Shape> {
    let fail = |what: String| Err(Error::Architecture(format!("{}: {what}", kind.name())));
    let arity = match kind {
        OpKind::Input => 0,
        OpKind::Add | OpKind::Excite => 2,
        OpKind::Concat => inputs.len().max(1),
        _ => 1,
    };
    if inputs.len() != arity {
        return fail(format!("expected {arity} inputs, found {}", inputs.len()));
    }
    let Some(&[c, h, w]) = inputs.first() else {
        return fail("the shape of the input op is given, not inferred".into());
    };
    match *kind {
        OpKind::Input => fail("has no inputs".into()),
        OpKind::Conv { stride, padding, dilation, groups, .. } => {
            let &[out, per_group, kh, kw] = params[0] else {
                return fail(format!("a weight of shape [O, I, kH, kW] is needed, found {:?}", params[0]));
            };
            if groups == 0 || per_group.saturating_mul(groups) != c || !out.is_multiple_of(groups) || out == 0
            {
                return fail(format!("weight {:?} in {groups} groups does not fit {c} channels", params[0]));
            }
            match (
                slide(h, kh, stride[0], padding[0], dilation),
                slide(w, kw, stride[1], padding[1], dilation),
            ) {
                (Some(h), Some(w)) => Ok([out, h, w]),
                _ => fail(format!("a {kh}x{kw} kernel does not fit an input of {h}x{w}")),
            }
        }
        OpKind::Linear { bias, .. } => {
            let &[out, inner] = params[0] else {
                return fail(format!("a weight of shape [O, I] is needed, found {:?}", params[0]));
            };
            if inner != c || out == 0 {
                return fail(format!("weight {:?} does not fit {c} channels", params[0]));
            }
            if bias.is_some() && params[1] != [out] {
                return fail(format!("bias {:?} does not fit weight {:?}", params[1], params[0]));
            }
            Ok([out, h, w])
        }
        OpKind::BatchNorm { .. } | OpKind::LayerNorm { .. } => {
            if params[0] != [c] || params[1] != [c] {
                return fail(format!(
                    "weight {:?} and bias {:?} do not fit {c} channels",
                    params[0], params[1]
                ));
            }
            Ok([c, h, w])
        }
        OpKind::Relu | OpKind::Gelu | OpKind::HardSwish | OpKind::Zeros | OpKind::Dropout { .. } => {
            Ok([c, h, w])
        }
        OpKind::MaxPool { kernel, stride, padding } | OpKind::AvgPool { kernel, stride, padding } => {
            if kernel == 0 || padding > kernel / 2 {
                return fail(format!("padding {padding} is more than half of kernel {kernel}"));
            }
            match (slide(h, kernel, stride, padding, 1), slide(w, kernel, stride, padding, 1)) {
                (Some(h), Some(w)) => Ok([c, h, w]),
                _ => fail(format!("a {kernel}x{kernel} window does not fit an input of {h}x{w}")),
            }
        }
        OpKind::GlobalAvgPool | OpKind::SqueezeMean => Ok([c, 1, 1]),
        OpKind::Excite => {
            if inputs[1] != [c, 1, 1] {
                return fail(format!("gate {:?} does not fit {c} channels", inputs[1]));
            }
            Ok([c, h, w])
        }
        OpKind::Attention { heads, head_dim } => {
            let inner = heads.saturating_mul(head_dim);
            if inner == 0 || inner.saturating_mul(3) != c {
                return fail(format!("{heads} heads of {head_dim} channels do not fit {c} channels"));
            }
            Ok([inner, h, w])
        }
        OpKind::PosEnc { .. } => {
            if params[0] != [1, c, h, w] {
                return fail(format!("weight {:?} does not fit an input of {:?}", params[0], inputs[0]));
            }
            Ok([c, h, w])
        }
        OpKind::Add => {
            if inputs[0] != inputs[1] {
                return fail(format!("inputs differ in shape: {:?} and {:?}", inputs[0], inputs[1]));
            }
            Ok([c, h, w])
        }
        OpKind::Concat => {
            if let Some(other) = inputs.iter().find(|other| other[1..] != [h, w]) {
                return fail(format!("inputs differ in size: {:?} and {other:?}", inputs[0]));
            }
            Ok([inputs.iter().fold(0, |sum: usize, shape| sum.saturating_add(shape[0])), h, w])
        }
        OpKind::Subsample { stride } => {
            if stride == 0 {
                return fail("stride 0".into());
            }
            Ok([c, h.div_ceil(stride), w.div_ceil(stride)])
        }
        OpKind::Crop => {
            if h < 2 || w < 2 {
                return fail(format!("an input of {h}x{w} has no second row and column"));
            }
            Ok([c, h - 1, w - 1])
        }
        OpKind::Flatten => Ok([c.saturating_mul(h).saturating_mul(w), 1, 1]),
    }
}
