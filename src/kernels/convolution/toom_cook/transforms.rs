//! The transforms along lines, from images and results to points and back.

use super::super::{load, store, vectors};
use super::points::{Points, TILE};
use super::{Block, ToomCook};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Transforms lines of images to points `[P, lines with those of zeros, images, tiles, channels]`.
pub(super) struct Image<'a, T, const P: usize> {
    pub(super) geometry: &'a ToomCook,
    pub(super) block: Block,
    pub(super) x: &'a [T],
    pub(super) points: &'a mut [T],
    pub(super) stride: usize,
}

impl<T: Element, const P: usize> Kernel<T> for Image<'_, T, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let ToomCook { input, padding, inputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(input, channels);
        let (tiles, stored) = (self.geometry.tiles(), self.geometry.stored());
        let count = if self.geometry.rows == 1 { self.block.count } else { self.block.images * stored };
        for line in 0..count {
            let (number, row) = self.geometry.place(self.block, stored, line);
            let row = row.wrapping_sub(padding[1]);
            if row >= input[1] {
                // Zeros above and below the image.
                for point in self.points.chunks_mut(self.stride).take(P) {
                    point[line * tiles * channels..][..tiles * channels].fill(T::zero());
                }
                continue;
            }
            let start = number * image + row * across;
            for tile in 0..tiles {
                // Elements of the window that lie in the image.
                let begin = padding[0].saturating_sub(TILE * tile).min(P);
                let end = (input[0] + padding[0]).saturating_sub(TILE * tile).min(P);
                let whole = begin == 0 && end == P;
                // SAFETY: elements that are loaded lie in the image, see `ToomCook::check`; partial accesses stop
                // at the last channel.
                unsafe {
                    let x = self.x.as_ptr().wrapping_add(start + TILE * tile * along);
                    let x = x.wrapping_sub(padding[0] * along);
                    let target = self.points.as_mut_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let x = x.wrapping_add(channel);
                            let mut d = [V::splat(T::zero()); P];
                            for (k, d) in d.iter_mut().enumerate() {
                                if whole || (begin <= k && k < end) {
                                    *d = load(x.wrapping_add(k * along), part);
                                }
                            }
                            for (p, point) in Points::<P>::image::<T, V>(d).into_iter().enumerate() {
                                store(point, target.add(p * self.stride + channel), part);
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Transforms points `[P, lines, images, tiles, channels]` to outputs.
pub(super) struct Outcome<'a, T, const P: usize> {
    pub(super) geometry: &'a ToomCook,
    pub(super) block: Block,
    pub(super) products: &'a [T],
    pub(super) stride: usize,
    pub(super) y: &'a mut [T],
    pub(super) accumulate: bool,
}

impl<T: Element, const P: usize> Kernel<T> for Outcome<'_, T, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let ToomCook { output, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let [output, lines] = output;
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let (number, row) = self.geometry.place(self.block, lines, line);
            let start = number * image + row * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are accessed, see `ToomCook::check`; partial accesses stop at the
                // last channel.
                unsafe {
                    let target = self.y.as_mut_ptr().add(start + TILE * tile * along);
                    let source = self.products.as_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let mut points = [V::splat(T::zero()); P];
                            for (p, point) in points.iter_mut().enumerate() {
                                *point = load(source.add(p * self.stride + channel), part);
                            }
                            let values = Points::<P>::outputs::<T, V>(points);
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

/// Transforms gradients of outputs to those of points `[P, lines, images, tiles, channels]`.
pub(super) struct Slope<'a, T, const P: usize> {
    pub(super) geometry: &'a ToomCook,
    pub(super) block: Block,
    pub(super) dy: &'a [T],
    pub(super) points: &'a mut [T],
    pub(super) stride: usize,
}

impl<T: Element, const P: usize> Kernel<T> for Slope<'_, T, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let ToomCook { output, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let [output, lines] = output;
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let (number, row) = self.geometry.place(self.block, lines, line);
            let start = number * image + row * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are read, see `ToomCook::check`; partial accesses stop at the last
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
                            for (p, point) in Points::<P>::slopes::<T, V>(y).into_iter().enumerate() {
                                store(point, target.add(p * self.stride + channel), part);
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Adds gradients of points `[P, inputs, outputs]` of some outputs to those of taps `[taps, inputs, all outputs]` of a
/// line.
pub(super) struct Taps<'a, T, const P: usize> {
    pub(super) geometry: &'a ToomCook,
    pub(super) sums: &'a [T],
    /// Elements from a point to the next.
    pub(super) size: usize,
    /// First output.
    pub(super) output: usize,
    /// Number of outputs.
    pub(super) outputs: usize,
    pub(super) gradient: &'a mut [T],
}

impl<T: Element, const P: usize> Kernel<T> for Taps<'_, T, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let ToomCook { inputs, outputs: all, .. } = *self.geometry;
        for input in 0..inputs {
            vectors::<T, V>(
                self.outputs,
                #[inline(always)]
                |first, part| {
                    // SAFETY: the slices hold whole points and taps; partial accesses stop at the last output.
                    unsafe {
                        let source = self.sums.as_ptr().add(input * self.outputs + first);
                        let target = self.gradient.as_mut_ptr().add(input * all + self.output + first);
                        let mut points = [V::splat(T::zero()); P];
                        for (p, point) in points.iter_mut().enumerate() {
                            *point = load(source.add(p * self.size), part);
                        }
                        let taps = Points::<P>::tap_slopes::<T, V>(points);
                        for (t, value) in taps.into_iter().enumerate().take(Points::<P>::TAPS) {
                            let target = target.add(t * inputs * all);
                            store(value.add(load(target, part)), target, part);
                        }
                    }
                },
            );
        }
    }
}
