//! Last layer of the convolutional decoder, for the channels that are used (arXiv 2110.13100, appendix B).
//!
//! In: hidden activations `[P, K]`, a row for every position of every kernel; the layer's weight `[O * I, K]` and
//! bias `[O * I]`; [`Slices`], which say what part of a table `[O, I]` each run of rows asks for; tables that come from
//! elsewhere. Out: one vector with a block `[o, i, rows]` for every slice and the other tables behind them, same dtype
//! (f32 or f64), differentiable by all tensors. Blocks have their positions innermost, as the parameters that are cut
//! from them.

mod cpu;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};

use super::Element;
use super::scalar::{Scalar, contiguous};
use crate::{Error, Result};

/// What some rows ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Rows of the hidden activations.
    pub rows: Range<usize>,
    /// Out and in channels that are used, from the first.
    pub channels: [usize; 2],
}

impl Slice {
    /// Length of the block.
    pub fn len(&self) -> usize {
        self.channels[0] * self.channels[1] * self.rows.len()
    }

    /// Whether the block holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A checked list of slices; their blocks lie one after the other in the result.
#[derive(Clone, Debug)]
pub struct Slices {
    slices: Vec<Slice>,
    /// Start of each block, and the end of the last.
    offsets: Vec<usize>,
    /// Out and in channels of the whole table.
    table: [usize; 2],
    /// Rows of the hidden activations.
    rows: usize,
}

impl Slices {
    /// Slices of tables of `table` channels, from `rows` hidden rows.
    ///
    /// # Errors
    /// If a slice reaches beyond the table or the rows, or the slices do not use every row once, in order.
    pub fn new(slices: Vec<Slice>, table: [usize; 2], rows: usize) -> Result<Slices> {
        let mut offsets = vec![0];
        let (mut end, mut next) = (0, 0);
        for slice in &slices {
            let fits = (0..2).all(|axis| (1..=table[axis]).contains(&slice.channels[axis]));
            if !fits || slice.rows.start != next || slice.rows.end > rows || slice.rows.is_empty() {
                let message = format!("decoding: slice does not fit {rows} rows of {table:?}: {slice:?}");
                return Err(Error::Tensor(message));
            }
            next = slice.rows.end;
            end += slice.len();
            offsets.push(end);
        }
        if next != rows {
            return Err(Error::Tensor(format!("decoding: slices use {next} of {rows} rows")));
        }
        Ok(Slices { slices, offsets, table, rows })
    }

    /// Where each slice's block starts.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets[..self.slices.len()]
    }

    /// Length of the result.
    pub fn len(&self) -> usize {
        self.offsets[self.slices.len()]
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Blocks of all slices, then `others`, from `hidden [P, K]`, `weight [O * I, K]` and `bias [O * I]`; differentiable.
///
/// # Errors
/// If shapes do not fit, or dtypes differ.
pub fn decode_slices(
    [hidden, weight, bias]: [&Tensor; 3],
    slices: &Arc<Slices>,
    others: &[Tensor],
) -> Result<Tensor> {
    let depth = hidden.dims().get(1).copied().unwrap_or(0);
    let outputs = slices.table[0] * slices.table[1];
    for (what, tensor, wanted) in [
        ("hidden", hidden, &[slices.rows, depth] as &[usize]),
        ("weight", weight, &[outputs, depth]),
        ("bias", bias, &[outputs]),
    ] {
        if tensor.dims() != wanted || depth == 0 {
            let found = tensor.dims();
            return Err(Error::Tensor(format!("decoding: {what} must be {wanted:?}, found {found:?}")));
        }
    }
    let mut parts = vec![hidden.flatten_all()?];
    if !hidden.device().is_cpu() {
        parts = from_operations([hidden, weight, bias], slices)?;
    }
    for other in others {
        parts.push(other.flatten_all()?);
    }
    // The other tables pass through the op: copying the blocks, which are large, to join them would take longer.
    let joined = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(&parts, 0)? };
    if !hidden.device().is_cpu() {
        return Ok(joined);
    }
    Ok(joined.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Forward(slices.clone()))?)
}

/// The blocks from operations that every device has.
fn from_operations([hidden, weight, bias]: [&Tensor; 3], slices: &Slices) -> Result<Vec<Tensor>> {
    let [outer, inner] = slices.table;
    let mut blocks = Vec::with_capacity(slices.slices.len());
    for Slice { rows, channels: [o, i] } in &slices.slices {
        let used = |tensor: &Tensor| -> candle_core::Result<Tensor> {
            let depth = tensor.elem_count() / (outer * inner);
            let table = tensor.reshape((outer, inner, depth))?;
            table.narrow(0, 0, *o)?.narrow(1, 0, *i)?.contiguous()?.reshape((o * i, depth))
        };
        let positions = hidden.narrow(0, rows.start, rows.len())?;
        let block = used(weight)?.matmul(&positions.t()?)?.broadcast_add(&used(bias)?)?;
        blocks.push(block.flatten_all()?);
    }
    Ok(blocks)
}

type Arg<'a> = (&'a CpuStorage, &'a Layout);

fn elements<T: Scalar>(arg: Arg<'_>) -> candle_core::Result<&[T]> {
    contiguous("decoding", arg.0, arg.1)
}

/// Arguments: hidden activations with the other tables behind them, weight, bias.
struct Forward(Arc<Slices>);

impl Forward {
    fn run<T: Scalar + Element>(
        &self,
        hidden: Arg,
        weight: Arg,
        bias: Arg,
    ) -> candle_core::Result<CpuStorage> {
        let tables = cpu::forward::<T>(&self.0, elements(hidden)?, elements(weight)?, elements(bias)?);
        Ok(T::to_cpu_storage_owned(tables))
    }
}

impl CustomOp3 for Forward {
    fn name(&self) -> &'static str {
        "decoding"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let args = ((hidden, hidden_layout), (weight, weight_layout), (bias, bias_layout));
        let tables = match hidden.dtype() {
            DType::F64 => self.run::<f64>(args.0, args.1, args.2)?,
            _ => self.run::<f32>(args.0, args.1, args.2)?,
        };
        let depth = weight_layout.shape().elem_count() / bias_layout.shape().elem_count();
        let others = hidden_layout.shape().elem_count() - self.0.rows * depth;
        Ok((tables, Shape::from(self.0.len() + others)))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _tables: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let op = Backward(self.0.clone());
        let gradients = hidden.apply_op3_no_bwd(weight, &grad.contiguous()?, &op)?;
        let mut start = 0;
        let mut part = |like: &Tensor| {
            let part = gradients.narrow(0, start, like.elem_count())?.reshape(like.shape());
            start += like.elem_count();
            part
        };
        Ok((Some(part(hidden)?), Some(part(weight)?), Some(part(bias)?)))
    }
}

/// Arguments: hidden activations with the other tables behind them, weight, gradient of the result. Result: gradients of
/// the first two and of the bias, one after the other.
struct Backward(Arc<Slices>);

impl Backward {
    fn run<T: Scalar + Element>(
        &self,
        hidden: Arg,
        weight: Arg,
        grad: Arg,
    ) -> candle_core::Result<CpuStorage> {
        let gradients = cpu::backward::<T>(&self.0, elements(hidden)?, elements(weight)?, elements(grad)?);
        Ok(T::to_cpu_storage_owned(gradients))
    }
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "decoding_backward"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let args = ((hidden, hidden_layout), (weight, weight_layout), (grad, grad_layout));
        let gradients = match hidden.dtype() {
            DType::F64 => self.run::<f64>(args.0, args.1, args.2)?,
            _ => self.run::<f32>(args.0, args.1, args.2)?,
        };
        let [o, i] = self.0.table;
        let len = hidden_layout.shape().elem_count() + weight_layout.shape().elem_count() + o * i;
        Ok((gradients, Shape::from(len)))
    }
}
