//! CPU kernels of tiling: bound by memory bandwidth, parallel over parameters and over their out channels.
//! Every value is computed by one thread in a fixed order, so results do not depend on the thread count.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{Tile, Tiling, Transform};
use crate::kernels::scalar::{Scalar, written};

/// Elements that one task should have at least.
const GRAIN: usize = 16 * 1024;

/// Parameters `[target_len]` of `tables [source_len]`.
pub(super) fn forward<T: Scalar>(tiling: &Tiling, tables: &[T]) -> Vec<T> {
    let write = |params: &mut [MaybeUninit<T>]| {
        let mut parts = Vec::with_capacity(tiling.tiles.len());
        let mut rest = params;
        for tile in &tiling.tiles {
            let (part, tail) = rest.split_at_mut(tile.numel());
            parts.push((tile, part));
            rest = tail;
        }
        parts.into_par_iter().for_each(|(tile, part)| fill(tile, tables, part));
    };
    // SAFETY: the targets of a tiling cover its parameters, and `fill` sets a whole target.
    unsafe { written(tiling.target_len, write) }
}

/// Sets one parameter.
fn fill<T: Scalar>(tile: &Tile, tables: &[T], part: &mut [MaybeUninit<T>]) {
    let constant = <T as candle_core::WithDType>::from_f64;
    let (one, two, five) = (T::one(), constant(2.0), constant(5.0));
    match tile.transform {
        Transform::Identity => fill_with(tile, tables, part, |v| v),
        Transform::Scale(factor) => {
            let factor = constant(factor);
            fill_with(tile, tables, part, move |v| v * factor);
        }
        Transform::NormWeight => fill_with(tile, tables, part, move |v| two / (one + (-v / two).exp())),
        Transform::Bias => fill_with(tile, tables, part, move |v| (v / five).tanh()),
    }
}

/// Sets one parameter to the transformed values of its table.
fn fill_with<T: Scalar>(
    tile: &Tile,
    tables: &[T],
    part: &mut [MaybeUninit<T>],
    transform: impl Fn(T) -> T + Sync,
) {
    let [_, i, h, w] = tile.shape;
    let row = i * h * w;
    let grain = (GRAIN / row).max(1);
    let period = tile.size[1] * h * w;
    let (first, copies) = part.split_at_mut(tile.size[0] * row);
    first.par_chunks_mut(row).with_min_len(grain).enumerate().for_each(|(o, values)| {
        let (period, copies) = values.split_at_mut(period);
        gather(tile, tables, o, period, &transform);
        copies.chunks_mut(period.len()).for_each(|copy| copy.copy_from_slice(&period[..copy.len()]));
    });
    let first = &*first;
    copies.par_chunks_mut(row).with_min_len(grain).enumerate().for_each(|(o, copy)| {
        let start = o % tile.size[0] * row;
        copy.copy_from_slice(&first[start..start + row]);
    });
}

/// Sets `values`, the first `size[1]` in channels of out channel `o`, repeated spatially.
fn gather<T: Scalar>(
    tile: &Tile,
    tables: &[T],
    o: usize,
    values: &mut [MaybeUninit<T>],
    transform: &impl Fn(T) -> T,
) {
    let [_, _, h, w] = tile.shape;
    let out = tile.source + o * tile.strides[0];
    if h * w == 1 {
        for (i, cell) in values.iter_mut().enumerate() {
            cell.write(transform(tables[out + i * tile.strides[1]]));
        }
        return;
    }
    // Where a kernel is a run of the table, as the convolutional decoder lays it out, it is read as one.
    let run = tile.size[2..] == [h, w] && tile.strides[3] == 1 && (h == 1 || tile.strides[2] == w);
    for (i, kernel) in values.chunks_exact_mut(h * w).enumerate() {
        let channel = out + i * tile.strides[1];
        if run {
            for (cell, &value) in kernel.iter_mut().zip(&tables[channel..channel + h * w]) {
                cell.write(transform(value));
            }
            continue;
        }
        for (y, line) in kernel.chunks_exact_mut(w).enumerate() {
            let start = channel + y % tile.size[2] * tile.strides[2];
            for (x, cell) in line.iter_mut().enumerate() {
                cell.write(transform(tables[start + x % tile.size[3] * tile.strides[3]]));
            }
        }
    }
}

/// Derivative of the transform, from its result.
fn derivative<T: Scalar>(transform: Transform, result: T) -> T {
    let constant = <T as candle_core::WithDType>::from_f64;
    match transform {
        Transform::Identity => T::one(),
        Transform::Scale(factor) => constant(factor),
        Transform::NormWeight => {
            let sigmoid = result / constant(2.0);
            sigmoid * (T::one() - sigmoid)
        }
        Transform::Bias => (T::one() - result * result) / constant(5.0),
    }
}

/// Gradient of the tables `[source_len]` from that of the parameters and from the parameters, `[target_len]`.
pub(super) fn backward<T: Scalar>(tiling: &Tiling, grad: &[T], params: &[T]) -> Vec<T> {
    let mut tables = vec![T::default(); tiling.source_len];
    let cells = Cells(tables.as_mut_ptr());
    tiling.groups.par_iter().for_each(|group| {
        for &t in group {
            let tile = &tiling.tiles[t];
            let part = tile.target..tile.target + tile.numel();
            add_copies(tile, &grad[part.clone()], &params[part], &cells);
        }
    });
    tables
}

/// Pointer to the gradient of the tables, shared by threads that write different elements.
struct Cells<T>(*mut T);

// SAFETY: every element is written by one thread only: groups reach disjoint ranges, tiles of a group follow
// one another, and the out channels of a tile are disjoint (`Tiling::new` refuses overlapping strides).
unsafe impl<T: Send> Sync for Cells<T> {}

/// Adds one parameter's gradient to that of its table.
fn add_copies<T: Scalar>(tile: &Tile, grad: &[T], params: &[T], tables: &Cells<T>) {
    let [_, i, h, w] = tile.shape;
    let row = i * h * w;
    let period = tile.size[1] * h * w;
    let grain = (GRAIN / (row * tile.shape[0].div_ceil(tile.size[0]))).max(1);
    (0..tile.size[0]).into_par_iter().with_min_len(grain).for_each_init(
        || vec![T::default(); period],
        |sum, o| {
            sum.fill(T::default());
            for copy in grad.chunks(row).skip(o).step_by(tile.size[0]) {
                for block in copy.chunks(period) {
                    sum.iter_mut().zip(block).for_each(|(s, &g)| *s += g);
                }
            }
            let results = &params[o * row..o * row + period];
            let mut cells = sum.iter().zip(results).map(|(&s, &r)| s * derivative(tile.transform, r));
            for i in 0..tile.size[1] {
                let channel = tile.source + o * tile.strides[0] + i * tile.strides[1];
                for y in 0..h {
                    let line = channel + y % tile.size[2] * tile.strides[2];
                    for (x, cell) in cells.by_ref().take(w).enumerate() {
                        let at = line + x % tile.size[3] * tile.strides[3];
                        // SAFETY: `at` lies within the tile's reach, which `Tiling::new` checked against
                        // `source_len`, the length of the allocation; no other thread has this element.
                        unsafe { *tables.0.add(at) += cell };
                    }
                }
            }
        },
    );
}
