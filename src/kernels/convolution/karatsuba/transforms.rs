//! The transforms along lines, from images and results to points and back.

use super::super::{load, store, vectors};
use super::{Block, Karatsuba, TILE};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// What a window of three contributes to the points of two taps.
#[inline(always)]
unsafe fn input_points<T, V: Lanes<T>>(d: [V; 3]) -> [V; 3] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [d[0].sub(d[1]), d[1], d[1].sub(d[2])] }
}

/// Gradients of three points by those of two outputs.
#[inline(always)]
unsafe fn output_points<T: Element, V: Lanes<T>>(y: [V; 2]) -> [V; 3] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [y[0], y[0].add(y[1]), V::splat(T::zero()).sub(y[1])] }
}

/// Transforms lines of images to points `[9, lines with those of zeros, tiles + 1, channels]`.
pub(super) struct Image<'a, T> {
    pub(super) geometry: &'a Karatsuba,
    pub(super) block: Block,
    pub(super) x: &'a [T],
    pub(super) points: &'a mut [T],
    pub(super) stride: usize,
}

impl<T: Element> Kernel<T> for Image<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { input, output, rows, padding, inputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(input, channels);
        let (tiles, stored) = (self.geometry.tiles() + 1, self.geometry.stored());
        let (first, count) = if rows == 1 {
            (self.block.first, self.block.count)
        } else {
            (self.block.first / output[1] * stored, self.block.count / output[1] * stored)
        };
        for line in 0..count {
            let number = first + line;
            let row = (number % stored).wrapping_sub(padding[1]);
            // Zeros above and below the image.
            let outside = row >= input[1];
            let start = (number / stored) * image + if outside { 0 } else { row * across };
            for tile in 0..tiles {
                // Elements of the window that lie in the image.
                let begin = padding[0].saturating_sub(TILE * tile).min(7);
                let end =
                    if outside { 0 } else { (input[0] + padding[0]).saturating_sub(TILE * tile).min(7) };
                let end = end.max(begin);
                // SAFETY: elements that are loaded lie in the image, see `Karatsuba::check`; partial accesses stop
                // at the last channel.
                unsafe {
                    let x = self.x.as_ptr().add(start);
                    let x = x.wrapping_offset((TILE * tile) as isize * along as isize);
                    let x = x.wrapping_offset(-(padding[0] as isize * along as isize));
                    let target = self.points.as_mut_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let x = x.wrapping_add(channel);
                            let mut d = [V::splat(T::zero()); 7];
                            if end - begin == 7 {
                                for (k, d) in d.iter_mut().enumerate() {
                                    *d = load(x.wrapping_add(k * along), part);
                                }
                            } else {
                                for k in begin..end {
                                    d[k] = load(x.wrapping_add(k * along), part);
                                }
                            }
                            let windows = [
                                [d[0].sub(d[2]), d[1].sub(d[3]), d[2].sub(d[4])],
                                [d[2], d[3], d[4]],
                                [d[2].sub(d[4]), d[3].sub(d[5]), d[4].sub(d[6])],
                            ];
                            for (outer, window) in windows.into_iter().enumerate() {
                                for (inner, point) in input_points(window).into_iter().enumerate() {
                                    let p = 3 * outer + inner;
                                    store(point, target.add(p * self.stride + channel), part);
                                }
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Transforms points `[9, lines, tiles, channels]` to outputs.
pub(super) struct Outcome<'a, T> {
    pub(super) geometry: &'a Karatsuba,
    pub(super) block: Block,
    pub(super) products: &'a [T],
    pub(super) stride: usize,
    pub(super) y: &'a mut [T],
    pub(super) accumulate: bool,
}

impl<T: Element> Kernel<T> for Outcome<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { output, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let [output, lines] = output;
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let number = self.block.first + line;
            let start = (number / lines) * image + (number % lines) * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are accessed, see `Karatsuba::check`; partial accesses stop at the
                // last channel.
                unsafe {
                    let target = self.y.as_mut_ptr().add(start + TILE * tile * along);
                    let source = self.products.as_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let mut pairs = [[V::splat(T::zero()); 2]; 3];
                            for (outer, pair) in pairs.iter_mut().enumerate() {
                                let source = source.add(3 * outer * self.stride + channel);
                                let a = load::<T, V>(source, part);
                                let b = load::<T, V>(source.add(self.stride), part);
                                let c = load::<T, V>(source.add(2 * self.stride), part);
                                *pair = [a.add(b), b.sub(c)];
                            }
                            let values = [
                                pairs[0][0].add(pairs[1][0]),
                                pairs[0][1].add(pairs[1][1]),
                                pairs[1][0].sub(pairs[2][0]),
                                pairs[1][1].sub(pairs[2][1]),
                            ];
                            for (k, value) in values.into_iter().enumerate() {
                                if k < count {
                                    let target = target.add(k * along + channel);
                                    let value =
                                        if self.accumulate { value.add(load(target, part)) } else { value };
                                    store(value, target, part);
                                }
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Transforms gradients of outputs to those of points `[9, lines, tiles, channels]`.
pub(super) struct Slope<'a, T> {
    pub(super) geometry: &'a Karatsuba,
    pub(super) block: Block,
    pub(super) dy: &'a [T],
    pub(super) points: &'a mut [T],
    pub(super) stride: usize,
}

impl<T: Element> Kernel<T> for Slope<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { output, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let [output, lines] = output;
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let number = self.block.first + line;
            let start = (number / lines) * image + (number % lines) * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are read, see `Karatsuba::check`; partial accesses stop at the last
                // channel.
                unsafe {
                    let source = self.dy.as_ptr().add(start + TILE * tile * along);
                    let target = self.points.as_mut_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let mut y = [V::splat(T::zero()); TILE];
                            for (k, y) in y.iter_mut().enumerate() {
                                if k < count {
                                    *y = load(source.add(k * along + channel), part);
                                }
                            }
                            let (low, high) = (output_points([y[0], y[2]]), output_points([y[1], y[3]]));
                            for outer in 0..3 {
                                let points = output_points([low[outer], high[outer]]);
                                for (inner, point) in points.into_iter().enumerate() {
                                    let p = 3 * outer + inner;
                                    store(point, target.add(p * self.stride + channel), part);
                                }
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Adds gradients of points `[9, pieces, inputs, outputs]` of some outputs to those of taps
/// `[taps, inputs, all outputs]` of a line.
pub(super) struct Taps<'a, T> {
    pub(super) geometry: &'a Karatsuba,
    pub(super) sums: &'a [T],
    /// Elements from a point to the next.
    pub(super) size: usize,
    /// First output.
    pub(super) output: usize,
    /// Number of outputs.
    pub(super) outputs: usize,
    pub(super) gradient: &'a mut [T],
}

impl<T: Element> Kernel<T> for Taps<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { taps, inputs, outputs: all, .. } = *self.geometry;
        for row in 0..2 * inputs {
            let (piece, input) = (row / inputs, row % inputs);
            vectors::<T, V>(
                self.outputs,
                #[inline(always)]
                |first, part| {
                    // SAFETY: the slices hold whole points and taps; partial accesses stop at the last output.
                    unsafe {
                        let source = self.sums.as_ptr().add(row * self.outputs + first);
                        let target = self.gradient.as_mut_ptr().add(input * all + self.output + first);
                        let mut pairs = [[V::splat(T::zero()); 2]; 3];
                        for (outer, pair) in pairs.iter_mut().enumerate() {
                            let source = source.add(3 * outer * self.size);
                            let a = load::<T, V>(source, part);
                            let b = load::<T, V>(source.add(self.size), part);
                            let c = load::<T, V>(source.add(2 * self.size), part);
                            *pair = [a.add(b), b.add(c)];
                        }
                        let values = [
                            pairs[0][0].add(pairs[1][0]),
                            pairs[0][1].add(pairs[1][1]),
                            pairs[1][0].add(pairs[2][0]),
                            pairs[1][1].add(pairs[2][1]),
                        ];
                        for (k, value) in values.into_iter().enumerate().take(taps - TILE * piece) {
                            let target = target.add((TILE * piece + k) * inputs * all);
                            store(value.add(load(target, part)), target, part);
                        }
                    }
                },
            );
        }
    }
}
