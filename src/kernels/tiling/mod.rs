//! Tiling and normalisation: from the decoder's tables to the flat parameter vectors of the networks
//! (arXiv 2110.13100, section 2 and appendix B).
//!
//! In: a vector of tables `[M]` (all that the decoders wrote, flattened) and one [`Tile`] for every parameter.
//! Out: the parameter vector `[P]`, same dtype (f32 or f64): of one network, or of several one after the other.
//!
//! Each parameter is the top-left part of its table (`min(target, table)` in all four axes), repeated
//! cyclically along the out and in channels, and along rows and columns where the kernel is larger than the
//! table, then scaled or squashed. The gradient of a table element is the sum over its copies.

use std::sync::Arc;

use candle_core::Tensor;

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
    /// Sizes of the part that is repeated, each `1..=` the table's size.
    pub size: [usize; 4],
    /// Distances in the input between neighbours along each axis of the table; any memory order of the
    /// decoder's output will do.
    pub strides: [usize; 4],
    /// Shape of the parameter; element `(o, i, y, x)` is table element `(o % size[0], i % size[1], y % size[2], x % size[3])`.
    pub shape: [usize; 4],
    /// Offset of the parameter in the output (row-major there).
    pub target: usize,
    /// What is done to the values.
    pub transform: Transform,
}

/// A checked list of tiles.
#[derive(Clone, Debug)]
pub struct Tiling {}

impl Tiling {
    /// Tiles that read `source_len` table values and write `target_len` parameters.
    ///
    /// # Errors
    /// If a tile reads or writes outside, a size is 0 or larger than the target, or the targets do not cover
    /// `0..target_len` exactly once.
    pub fn new(tiles: Vec<Tile>, source_len: usize, target_len: usize) -> Result<Tiling> {
        let _ = (tiles, source_len, target_len);
        Ok(Tiling {})
    }
}

/// The parameter vector `[target_len]` from `tables [source_len]`; differentiable.
///
/// # Errors
/// If `tables` is not a vector of `source_len` f32 or f64 values.
pub fn tile(tables: &Tensor, tiling: &Arc<Tiling>) -> Result<Tensor> {
    let _ = (tables, tiling);
    Err(Error::Tensor("tiling: not built yet".into()))
}
