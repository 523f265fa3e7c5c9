//! Depthwise convolutions of channels-last images.
//!
//! In: a zero-padded image `[H, W, C]`, weights `[taps, C]`. Out: `[OH, OW, C]`, or the weights' gradient. A
//! register tile is one vector of channels by several pixels; the gradient of the input is the same convolution
//! of the spread gradient of the output with the taps reversed.

pub mod cuda;
#[cfg(feature = "cuda")]
mod device;
mod sliding;

#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(crate) use device::on_device;
pub use sliding::Sliding;

use super::columns::PIXELS;
use super::convolution::View;
use super::lanes::{Element, Kernel, Lanes};

/// `y[pixel, c] = sum over taps t of x[pixel + t, c] * w[t, c]`.
pub struct Depthwise<'a, T> {
    /// The image.
    pub x: &'a [T],
    /// The pixels of `x` that a tap of offset zero meets.
    pub view: View,
    /// Offsets of the taps in `x`.
    pub taps: &'a [usize],
    /// Channels.
    pub channels: usize,
    /// Weights `[taps, channels]`.
    pub weight: &'a [T],
    /// Result `[pixels, channels]`.
    pub y: &'a mut [T],
    /// Whether to add to `y` instead of overwriting it.
    pub accumulate: bool,
}

impl<T: Element> Depthwise<'_, T> {
    /// Computes the convolution.
    pub fn run(self) {
        let pixels = self.view.pixels();
        if pixels == 0 || self.channels == 0 {
            return;
        }
        check(self.x, self.view, self.taps, self.channels);
        assert!(self.y.len() >= pixels * self.channels, "result too short");
        assert!(self.weight.len() >= self.taps.len() * self.channels, "weights too short");
        T::dispatch(self);
    }
}

fn check<T>(x: &[T], view: View, taps: &[usize], channels: usize) {
    let last = (view.size[0] - 1) * view.row + (view.size[1] - 1) * view.column;
    let reach = last + taps.iter().max().copied().unwrap_or(0) + channels;
    assert!(x.len() >= reach, "image too short: {} for {reach}", x.len());
}

impl<T: Element> Kernel<T> for Depthwise<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let [height, width] = self.view.size;
        let mut channel = 0;
        while channel < self.channels {
            let part = self.channels - channel;
            for row in 0..height {
                let mut column = 0;
                // SAFETY: `run` checked the reach of pixels and taps; partial accesses stop at the last channel.
                unsafe {
                    while column + 8 <= width {
                        if part >= V::N {
                            self.tile::<V, 8, false>(channel, row, column);
                        } else {
                            self.tile::<V, 8, true>(channel, row, column);
                        }
                        column += 8;
                    }
                    while column + 3 <= width {
                        if part >= V::N {
                            self.tile::<V, 3, false>(channel, row, column);
                        } else {
                            self.tile::<V, 3, true>(channel, row, column);
                        }
                        column += 3;
                    }
                    while column < width {
                        if part >= V::N {
                            self.tile::<V, 1, false>(channel, row, column);
                        } else {
                            self.tile::<V, 1, true>(channel, row, column);
                        }
                        column += 1;
                    }
                }
            }
            channel += V::N;
        }
    }
}

impl<T: Element> Depthwise<'_, T> {
    #[inline(always)]
    unsafe fn tile<V: Lanes<T>, const M: usize, const PART: bool>(
        &mut self,
        channel: usize,
        row: usize,
        column: usize,
    ) {
        let part = self.channels - channel;
        // SAFETY: see the caller.
        unsafe {
            let load = |p: *const T| if PART { V::load_part(p, part) } else { V::load(p) };
            let x = self.x.as_ptr().add(row * self.view.row + column * self.view.column + channel);
            let mut sums = [V::splat(T::zero()); M];
            let mut weight = self.weight.as_ptr().add(channel);
            for &tap in self.taps {
                let w = load(weight);
                let x = x.add(tap);
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = w.mul_add(load(x.add(m * self.view.column)), *sum);
                }
                weight = weight.wrapping_add(self.channels);
            }
            let y = self.y.as_mut_ptr().add((row * self.view.size[1] + column) * self.channels + channel);
            for (m, &sum) in sums.iter().enumerate() {
                let y = y.add(m * self.channels);
                let sum = if self.accumulate { sum.add(load(y)) } else { sum };
                if PART {
                    sum.store_part(y, part);
                } else {
                    sum.store(y);
                }
            }
        }
    }
}

/// `g[t, c] += sum over pixels of x[pixel + t, c] * dy[pixel, c]`.
pub struct DepthwiseGradient<'a, T> {
    /// The image.
    pub x: &'a [T],
    /// The pixels of `x` that a tap of offset zero meets.
    pub view: View,
    /// Offsets of the taps in `x`.
    pub taps: &'a [usize],
    /// Channels.
    pub channels: usize,
    /// Gradient of the result `[pixels, channels]`.
    pub dy: &'a [T],
    /// Gradient of the weights `[taps, channels]`.
    pub gradient: &'a mut [T],
}

impl<T: Element> DepthwiseGradient<'_, T> {
    /// Adds the gradient.
    pub fn run(self) {
        let pixels = self.view.pixels();
        if pixels == 0 || self.channels == 0 {
            return;
        }
        check(self.x, self.view, self.taps, self.channels);
        assert!(self.dy.len() >= pixels * self.channels, "gradient of the result too short");
        assert!(self.gradient.len() >= self.taps.len() * self.channels, "gradient too short");
        T::dispatch(self);
    }
}

impl<T: Element> Kernel<T> for DepthwiseGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let mut channel = 0;
        while channel < self.channels {
            let full = self.channels - channel >= V::N;
            let mut tap = 0;
            while tap < self.taps.len() {
                // SAFETY: `run` checked the reach of pixels and taps; partial accesses stop at the last channel.
                unsafe {
                    match (self.taps.len() - tap, full) {
                        (9.., true) => self.taps::<V, 9, false>(channel, &mut tap),
                        (7.., true) => self.taps::<V, 7, false>(channel, &mut tap),
                        (5.., true) => self.taps::<V, 5, false>(channel, &mut tap),
                        (_, true) => self.taps::<V, 1, false>(channel, &mut tap),
                        (5.., false) => self.taps::<V, 5, true>(channel, &mut tap),
                        (_, false) => self.taps::<V, 1, true>(channel, &mut tap),
                    }
                }
            }
            channel += V::N;
        }
    }
}

impl<T: Element> DepthwiseGradient<'_, T> {
    /// `K` taps at once, so that a load of `dy` serves all of them.
    #[inline(always)]
    unsafe fn taps<V: Lanes<T>, const K: usize, const PART: bool>(
        &mut self,
        channel: usize,
        tap: &mut usize,
    ) {
        let part = self.channels - channel;
        // SAFETY: see the caller.
        unsafe {
            let load = |p: *const T| if PART { V::load_part(p, part) } else { V::load(p) };
            let offsets: [usize; K] = std::array::from_fn(|k| self.taps[*tap + k]);
            let mut dy = self.dy.as_ptr().add(channel);
            let [height, width] = self.view.size;
            let (mut row, mut column) = (0, 0);
            while row < height {
                // A block of pixels in registers: in single precision longer sums lose digits.
                let mut sums = [V::splat(T::zero()); K];
                let mut room = PIXELS;
                while room > 0 && row < height {
                    let count = room.min(width - column);
                    let start = row * self.view.row + column * self.view.column + channel;
                    let mut x = self.x.as_ptr().add(start);
                    for _ in 0..count {
                        let g = load(dy);
                        for k in 0..K {
                            sums[k] = g.mul_add(load(x.add(offsets[k])), sums[k]);
                        }
                        dy = dy.wrapping_add(self.channels);
                        x = x.wrapping_add(self.view.column);
                    }
                    room -= count;
                    column += count;
                    if column == width {
                        (row, column) = (row + 1, 0);
                    }
                }
                for (k, &sum) in sums.iter().enumerate() {
                    let target = self.gradient.as_mut_ptr().add((*tap + k) * self.channels + channel);
                    let sum = sum.add(load(target));
                    if PART {
                        sum.store_part(target, part);
                    } else {
                        sum.store(target);
                    }
                }
            }
        }
        *tap += K;
    }
}
