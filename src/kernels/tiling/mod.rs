//! Tiling and normalisation: from the decoder's tables to the flat parameter vectors of the networks
//! (arXiv 2110.13100, section 2 and appendix B).
//!
//! In: a vector of tables `[M]` (all that the decoders wrote, flattened) and one [`Tile`] for every parameter.
//! Out: the parameter vector `[P]`, same dtype (f32 or f64): of one network, or of several one after the other.
//!
//! Each parameter is the top-left part of its table (`min(target, table)` in all four axes), repeated
//! cyclically along the out and in channels, and along rows and columns where the kernel is larger than the
//! table, then scaled or squashed. The gradient of a table element is the sum over its copies.

mod cpu;
pub mod cuda;
#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor};

use super::scalar::{Scalar, contiguous};
use crate::{Error, Result};

/// What is done to every value of a parameter after tiling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transform {
    /// Nothing.
    Identity,
    /// Times a constant, e.g. `sqrt(2 / fan_in)`.
    Scale(f64),
    /// Weight of a norm layer: `2 * sigmoid(p / 2)`.
    NormWeight,
    /// Bias: `tanh(p / 5)`.
    Bias,
}

/// How one parameter is cut from the tables. Shapes are `[out, in, height, width]`; 1-d parameters are
/// `[n, 1, 1, 1]`, 2-d ones `[out, in, 1, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Offset of table element (0, 0, 0, 0) in the input.
    pub source: usize,
    /// Sizes of the part that is repeated, each `1..=` the target's size.
    pub size: [usize; 4],
    /// Distances in the input between neighbours along each axis of the table; any memory order of the
    /// decoder's output will do.
    pub strides: [usize; 4],
    /// Shape of the parameter; its element `(o, i, y, x)` is table element
    /// `(o % size[0], i % size[1], y % size[2], x % size[3])`.
    pub shape: [usize; 4],
    /// Offset of the parameter in the output (row-major there).
    pub target: usize,
    /// What is done to the values.
    pub transform: Transform,
}

impl Tile {
    fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Part of the input from the first to the last element read.
    fn reach(&self) -> Range<usize> {
        let last: usize = self.size.iter().zip(self.strides).map(|(&n, stride)| (n - 1) * stride).sum();
        self.source..self.source + last + 1
    }

    /// Whether two positions of the table share an element of the input. Sufficient for "no": every axis
    /// steps over all that the axes of smaller stride reach.
    fn may_overlap_itself(&self) -> bool {
        let mut axes: Vec<(usize, usize)> =
            self.strides.into_iter().zip(self.size).filter(|&(_, size)| size > 1).collect();
        axes.sort_unstable();
        let mut reached = 0;
        axes.into_iter().any(|(stride, size)| {
            let overlaps = stride <= reached;
            reached += (size - 1) * stride;
            overlaps
        })
    }
}

/// A checked list of tiles, by target.
#[derive(Clone, Debug)]
pub struct Tiling {
    tiles: Vec<Tile>,
    /// Groups of tiles (indices) whose reaches overlap: within one, gradients are summed in order.
    groups: Vec<Vec<usize>>,
    source_len: usize,
    target_len: usize,
}

impl Tiling {
    /// Tiles that read `source_len` table values and write `target_len` parameters.
    ///
    /// # Errors
    /// If a tile reads or writes outside or its strides overlap, a size is 0 or larger than the target, or the
    /// targets do not cover `0..target_len` exactly once.
    pub fn new(mut tiles: Vec<Tile>, source_len: usize, target_len: usize) -> Result<Tiling> {
        let refuse = |tile: &Tile, reason: &str| Err(Error::Tensor(format!("tiling: {reason}: {tile:?}")));
        tiles.sort_by_key(|tile| tile.target);
        let mut covered = 0;
        for tile in &tiles {
            if (0..4).any(|axis| tile.size[axis] == 0 || tile.size[axis] > tile.shape[axis]) {
                return refuse(tile, "sizes must be 1 to the target's");
            }
            if tile.reach().end > source_len {
                return refuse(tile, &format!("reads beyond the {source_len} table values"));
            }
            if tile.may_overlap_itself() {
                return refuse(tile, "strides overlap");
            }
            if tile.target != covered {
                return refuse(tile, &format!("the next parameter must start at {covered}"));
            }
            covered += tile.numel();
        }
        if covered != target_len {
            let message =
                format!("tiling: tiles write {covered} values, the parameter vector has {target_len}");
            return Err(Error::Tensor(message));
        }
        Ok(Tiling { groups: groups(&tiles), tiles, source_len, target_len })
    }

    /// Length of the tables.
    pub fn source_len(&self) -> usize {
        self.source_len
    }

    /// Length of the parameter vector.
    pub fn target_len(&self) -> usize {
        self.target_len
    }
}

/// Splits tiles (indices) into runs of overlapping reach.
fn groups(tiles: &[Tile]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tiles.len()).collect();
    order.sort_by_key(|&t| tiles[t].source);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut end = 0;
    for t in order {
        let reach = tiles[t].reach();
        match groups.last_mut() {
            Some(group) if reach.start < end => group.push(t),
            _ => groups.push(vec![t]),
        }
        end = end.max(reach.end);
    }
    groups
}

/// The parameter vector `[target_len]` from `tables [source_len]`; differentiable.
///
/// # Errors
/// If `tables` is not a vector of `source_len` f32 or f64 values.
pub fn tile(tables: &Tensor, tiling: &Arc<Tiling>) -> Result<Tensor> {
    if tables.dims() != [tiling.source_len] {
        let message = format!("tiling: tables must be [{}], found {:?}", tiling.source_len, tables.dims());
        return Err(Error::Tensor(message));
    }
    Ok(tables.contiguous()?.apply_op1(Forward(tiling.clone()))?)
}

struct Forward(Arc<Tiling>);

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "tiling"
    }

    fn cpu_fwd(&self, tables: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Scalar>(
            tiling: &Tiling,
            tables: &CpuStorage,
            layout: &Layout,
        ) -> candle_core::Result<CpuStorage> {
            let params = cpu::forward::<T>(tiling, contiguous("tiling", tables, layout)?);
            Ok(T::to_cpu_storage_owned(params))
        }
        let params = match tables.dtype() {
            DType::F64 => run::<f64>(&self.0, tables, layout)?,
            _ => run::<f32>(&self.0, tables, layout)?,
        };
        Ok((params, Shape::from(self.0.target_len)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, tables: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let params = device::run(cuda::forward(&self.0, device::THREADS), &[(tables, layout)])?;
        Ok((params, Shape::from(self.0.target_len)))
    }

    fn bwd(&self, _tables: &Tensor, params: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let params = params.detach();
        Ok(Some(grad.contiguous()?.apply_op2_no_bwd(&params, &Backward(self.0.clone()))?))
    }
}

/// Arguments: gradient of the parameters, the parameters.
struct Backward(Arc<Tiling>);

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "tiling_backward"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        grad_layout: &Layout,
        params: &CpuStorage,
        params_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        type Tensor<'a> = (&'a CpuStorage, &'a Layout);
        fn run<T: Scalar>(tiling: &Tiling, grad: Tensor, params: Tensor) -> candle_core::Result<CpuStorage> {
            let grad = contiguous("tiling", grad.0, grad.1)?;
            let params = contiguous("tiling", params.0, params.1)?;
            Ok(T::to_cpu_storage_owned(cpu::backward::<T>(tiling, grad, params)))
        }
        let (grad, params) = ((grad, grad_layout), (params, params_layout));
        let tables = match grad.0.dtype() {
            DType::F64 => run::<f64>(&self.0, grad, params)?,
            _ => run::<f32>(&self.0, grad, params)?,
        };
        Ok((tables, Shape::from(self.0.source_len)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        grad: &CudaStorage,
        grad_layout: &Layout,
        params: &CudaStorage,
        params_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let program = cuda::backward(&self.0, device::THREADS);
        let tables = device::run(program, &[(grad, grad_layout), (params, params_layout)])?;
        Ok((tables, Shape::from(self.0.source_len)))
    }
}
