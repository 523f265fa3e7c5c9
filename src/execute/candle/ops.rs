//! Ops without windows in candle ops, on activations `[C, N, H, W]` (channels outermost, so that a pointwise
//! map is one matrix product and a channel's statistics are over contiguous values).

use candle_core::{DType, Result, Tensor};

const NORM_EPSILON: f64 = 1e-5;

/// `of(x)`, computed in f32 where `x` has less.
fn widely(x: &Tensor, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => of(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype()),
        _ => of(x),
    }
}

/// Sums the last axis to the axis `from`, axis by axis: short sums lose less in f32 than one long one.
fn mean_from(x: &Tensor, from: usize) -> Result<Tensor> {
    let count: usize = x.dims()[from..].iter().product();
    let sum = (from..x.rank()).rev().try_fold(x.clone(), |sum, axis| sum.sum_keepdim(axis))?;
    sum / count as f64
}

/// Per-channel parameter `[C]` beside `[C, N, H, W]`.
fn per_channel(weight: &Tensor) -> Result<Tensor> {
    weight.reshape(((), 1, 1, 1))
}

/// Pointwise map with `weight [O, I]` and `bias [O]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (_, n, h, w) = x.dims4()?;
    let y = weight.matmul(&x.flatten_from(1)?)?.reshape((weight.dim(0)?, n, h, w))?;
    match bias {
        Some(bias) => y.broadcast_add(&per_channel(bias)?),
        None => Ok(y),
    }
}

/// `(x - mean) / sqrt(var + eps)`, where `mean_of` takes means; then scale and shift.
fn normalise(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean_of: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let normal = widely(x, |x| {
        let centred = x.broadcast_sub(&mean_of(x)?)?;
        let deviation = (mean_of(&centred.sqr()?)? + NORM_EPSILON)?.sqrt()?;
        centred.broadcast_div(&deviation)
    })?;
    normal.broadcast_mul(&per_channel(weight)?)?.broadcast_add(&per_channel(bias)?)
}

/// Batch norm over images and positions.
pub(super) fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    normalise(x, weight, bias, |x| mean_from(x, 1))
}

/// Layer norm over channels.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    normalise(x, weight, bias, |x| x.mean_keepdim(0))
}

/// `max(x, 0)`; no gradient at 0, NaN stays.
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.detach().le(0.0)?.where_cond(&x.zeros_like()?, x)
}

/// Exact GELU; composed, because candle's own rounds the constants of its gradient.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    widely(x, |x| {
        let cumulative = (((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?;
        x * cumulative
    })
}

/// `x * clamp(x + 3, 0, 6) / 6`; beyond 3 on either side the gradient is 1 or 0.
pub(super) fn hard_swish(x: &Tensor) -> Result<Tensor> {
    let middle = ((x * (x + 3.0)?)? / 6.0)?;
    let at = x.detach();
    at.le(-3.0)?.where_cond(&x.zeros_like()?, &at.ge(3.0)?.where_cond(x, &middle)?)
}

/// Mean over positions, `[C, N, 1, 1]`.
pub(super) fn mean(x: &Tensor) -> Result<Tensor> {
    widely(x, |x| mean_from(x, 2))
}

/// Softmax over the last axis.
fn softmax(x: &Tensor) -> Result<Tensor> {
    widely(x, |x| {
        let exp = x.broadcast_sub(&x.detach().max_keepdim(x.rank() - 1)?)?.exp()?;
        exp.broadcast_div(&exp.sum_keepdim(x.rank() - 1)?)
    })
}

/// Self-attention over all positions; `x [3 * heads * width, N, H, W]` to `[heads * width, N, H, W]`.
pub(super) fn attention(x: &Tensor, heads: usize, width: usize) -> Result<Tensor> {
    let (_, n, h, w) = x.dims4()?;
    // [3, heads, N, positions, width]
    let parts = x.reshape((3, heads, width, n, h * w))?.permute((0, 1, 3, 4, 2))?;
    let part = |which: usize| parts.narrow(0, which, 1)?.reshape((heads * n, h * w, width))?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = (q.matmul(&k.t()?.contiguous()?)? * (width as f64).powf(-0.5))?;
    let mixed = softmax(&scores)?.matmul(&v)?;
    mixed.reshape((heads, n, h * w, width))?.permute((0, 3, 1, 2))?.reshape((heads * width, n, h, w))
}

/// `[C, N, H, W]` to `[C * H * W, N, 1, 1]`.
pub(super) fn flatten(x: &Tensor) -> Result<Tensor> {
    let (c, n, h, w) = x.dims4()?;
    x.permute((0, 2, 3, 1))?.reshape((c * h * w, n, 1, 1))
}

/// Mean cross entropy of `logits [N, classes]` with `labels [N]` (u32).
pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    let of_label = shifted.gather(&labels.unsqueeze(1)?, 1)?;
    (log_sum - of_label)?.mean_all()
}
