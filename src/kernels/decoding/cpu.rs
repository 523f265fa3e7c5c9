//! CPU kernels of decoding: products with packed panels, parallel over out channels and positions. Every sum has
//! one order, so results do not depend on the thread count.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{Slice, Slices};
use crate::kernels::Element;
use crate::kernels::matrix::{Panels, Product};
use crate::kernels::scalar::{Scalar, fill, written};

/// Table rows of a task of the forward pass: their weights stay in the second-level cache.
const CHUNK: usize = 128;
/// Positions of a task of the backward pass.
const POSITIONS: usize = 64;
/// Table rows that a task of the backward pass transposes at a time.
const DEPTH: usize = 256;

/// Blocks of all slices and the tables after them, from `hidden [rows * depth + extra]`, `weight [outputs, depth]` and
/// `bias [outputs]`.
pub(super) fn forward<T: Scalar + Element>(
    slices: &Slices,
    hidden: &[T],
    weight: &[T],
    bias: &[T],
) -> Vec<T> {
    let depth = weight.len() / bias.len();
    let (hidden, extra) = hidden.split_at(slices.rows * depth);
    let panels: Vec<Panels<T>> = slices
        .slices
        .par_iter()
        .map(|slice| {
            let first = slice.rows.start;
            Panels::of_columns(depth, slice.rows.len(), |c| &hidden[(first + c) * depth..][..depth])
        })
        .collect();
    let write = |tables: &mut [MaybeUninit<T>]| {
        let (blocks, tail) = tables.split_at_mut(slices.len());
        for (slot, &value) in tail.iter_mut().zip(extra) {
            slot.write(value);
        }
        write_blocks(slices, &panels, weight, bias, blocks);
    };
    // SAFETY: the tail is as long as `extra`, and the tasks of `write_blocks` cover all blocks.
    unsafe { written(slices.len() + extra.len(), write) }
}

/// Sets all blocks.
fn write_blocks<T: Scalar + Element>(
    slices: &Slices,
    panels: &[Panels<T>],
    weight: &[T],
    bias: &[T],
    blocks: &mut [MaybeUninit<T>],
) {
    let depth = weight.len() / bias.len();
    let inner = slices.table[1];
    let mut tasks = Vec::new();
    let mut rest = blocks;
    for (slice, panels) in slices.slices.iter().zip(panels) {
        let [o, i] = slice.channels;
        let outs = (CHUNK / i).max(1);
        for first in (0..o).step_by(outs) {
            let outs = first..o.min(first + outs);
            let (block, tail) = rest.split_at_mut(outs.len() * i * slice.rows.len());
            rest = tail;
            tasks.push((slice, panels, outs, block));
        }
    }
    tasks.into_par_iter().for_each(|(slice, panels, outs, block)| {
        let [_, i] = slice.channels;
        let positions = slice.rows.len();
        for (block, out) in block.chunks_exact_mut(i * positions).zip(outs.clone()) {
            for (row, &bias) in block.chunks_exact_mut(positions).zip(&bias[out * inner..]) {
                fill(row, bias);
            }
        }
        // SAFETY: the biases above are a whole block, and `MaybeUninit<T>` is laid out as `T`.
        let block = unsafe { &mut *(std::ptr::from_mut(block) as *mut [T]) };
        // Rows of the weight are evenly spaced within one in channel and within one out channel: the longer run.
        let (runs, rows, [across, along], [y_across, y_along]) = if i >= outs.len() {
            (outs.len(), i, [inner, 1], [i, 1])
        } else {
            (i, outs.len(), [1, inner], [1, i])
        };
        for run in 0..runs {
            Product {
                a: &weight[(outs.start * inner + run * across) * depth..],
                a_stride: along * depth,
                rows,
                b: panels,
                y: &mut block[run * y_across * positions..],
                y_stride: y_along * positions,
            }
            .run();
        }
    });
}

/// Gradients of hidden activations and further tables, weight, and bias, one after the other, from that of the result.
pub(super) fn backward<T: Scalar + Element>(
    slices: &Slices,
    hidden: &[T],
    weight: &[T],
    grad: &[T],
) -> Vec<T> {
    let outputs = slices.table[0] * slices.table[1];
    let depth = weight.len() / outputs;
    let mut gradients = vec![T::default(); hidden.len() + weight.len() + outputs];
    let (by_hidden, rest) = gradients.split_at_mut(slices.rows * depth);
    let (by_extra, rest) = rest.split_at_mut(hidden.len() - slices.rows * depth);
    by_extra.copy_from_slice(&grad[slices.len()..]);
    let (by_weight, by_bias) = rest.split_at_mut(weight.len());
    let blocks: Vec<(&Slice, &[T])> =
        slices.slices.iter().zip(slices.offsets.windows(2).map(|at| &grad[at[0]..at[1]])).collect();
    weight_gradient(slices, &blocks, hidden, by_weight, by_bias);
    hidden_gradient(slices, &blocks, weight, depth, by_hidden);
    gradients
}

/// Adds to the gradients of weight and bias, parallel over the table's out channels, slice after slice.
fn weight_gradient<T: Scalar + Element>(
    slices: &Slices,
    blocks: &[(&Slice, &[T])],
    hidden: &[T],
    by_weight: &mut [T],
    by_bias: &mut [T],
) {
    let inner = slices.table[1];
    let depth = by_weight.len() / by_bias.len();
    let panels: Vec<Panels<T>> = blocks
        .par_iter()
        .map(|(slice, _)| {
            let first = slice.rows.start;
            Panels::of_rows(slice.rows.len(), depth, |p| &hidden[(first + p) * depth..][..depth])
        })
        .collect();
    by_weight.par_chunks_mut(inner * depth).zip(by_bias.par_chunks_mut(inner)).enumerate().for_each(
        |(out, (by_weight, by_bias))| {
            for ((slice, block), panels) in blocks.iter().zip(&panels) {
                let [o, i] = slice.channels;
                if out >= o {
                    continue;
                }
                let positions = slice.rows.len();
                let a = &block[out * i * positions..(out + 1) * i * positions];
                Product { a, a_stride: positions, rows: i, b: panels, y: by_weight, y_stride: depth }.run();
                for (bias, row) in by_bias.iter_mut().zip(a.chunks_exact(positions)) {
                    *bias += row.iter().copied().sum::<T>();
                }
            }
        },
    );
}

/// Adds to the gradient of the hidden activations, parallel over positions.
fn hidden_gradient<T: Scalar + Element>(
    slices: &Slices,
    blocks: &[(&Slice, &[T])],
    weight: &[T],
    depth: usize,
    by_hidden: &mut [T],
) {
    let inner = slices.table[1];
    let mut rest = by_hidden;
    for (slice, block) in blocks {
        let [o, i] = slice.channels;
        let positions = slice.rows.len();
        let (rows, tail) = rest.split_at_mut(positions * depth);
        rest = tail;
        let used = |row: usize| &weight[(row / i * inner + row % i) * depth..][..depth];
        let panels: Vec<(usize, Panels<T>)> = (0..(o * i).div_ceil(DEPTH))
            .into_par_iter()
            .map(|chunk| {
                let first = chunk * DEPTH;
                (first, Panels::of_rows(DEPTH.min(o * i - first), depth, |d| used(first + d)))
            })
            .collect();
        rows.par_chunks_mut(POSITIONS * depth).enumerate().for_each(|(index, y)| {
            let (start, count) = (index * POSITIONS, y.len() / depth);
            let mut a = vec![T::default(); count * DEPTH];
            for (first, panels) in &panels {
                let chunk = &block[first * positions..(first + DEPTH).min(o * i) * positions];
                for (d, row) in chunk.chunks_exact(positions).enumerate() {
                    for (cell, &value) in a[d..].iter_mut().step_by(DEPTH).zip(&row[start..start + count]) {
                        *cell = value;
                    }
                }
                Product { a: &a, a_stride: DEPTH, rows: count, b: panels, y, y_stride: depth }.run();
            }
        });
    }
}
