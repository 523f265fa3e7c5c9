//! The product `g[t, d, o] += sum over pixels of x[pixel + t, d] * dy[pixel, o]`.

use super::{View, load, store};
use crate::kernels::columns::PIXELS;
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Gradient of the weights of one image: `gradient [taps, depth, outputs]`.
pub struct WeightGradient<'a, T> {
    /// The image.
    pub x: &'a [T],
    /// The pixels of `x` that a tap of offset zero meets.
    pub view: View,
    /// Offsets of the taps in `x`.
    pub taps: &'a [usize],
    /// Contiguous elements read at a tap.
    pub depth: usize,
    /// Gradient of the result, `outputs` elements at each pixel.
    pub dy: &'a [T],
    /// Elements of `dy` from a pixel to the next.
    pub stride: usize,
    /// Output channels.
    pub outputs: usize,
    /// Gradient of the weights `[taps, depth, outputs]`.
    pub gradient: &'a mut [T],
    /// Whether to add to `gradient` instead of overwriting it.
    pub accumulate: bool,
}

impl<T: Element> WeightGradient<'_, T> {
    /// Computes the gradient.
    pub fn run(self) {
        let pixels = self.view.pixels();
        if pixels == 0 || self.outputs == 0 {
            return;
        }
        assert!(
            self.dy.len() >= (pixels - 1) * self.stride + self.outputs,
            "gradient of the result too short"
        );
        let reach = self.view.last() + self.taps.iter().max().copied().unwrap_or(0) + self.depth;
        assert!(self.x.len() >= reach, "image too short: {} for {reach}", self.x.len());
        assert!(self.gradient.len() >= self.taps.len() * self.depth * self.outputs, "gradient too short");
        T::dispatch(self);
    }
}

impl<T: Element> Kernel<T> for WeightGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let pixels = self.view.pixels();
        let mut block = Block { row: 0, column: 0, pixel: 0, count: 0 };
        // A block of pixels stays in the first-level cache while all tiles pass. It is also what a sum in registers
        // spans: in single precision longer sums lose digits.
        while block.pixel < pixels {
            block.count = PIXELS.min(pixels - block.pixel);
            let mut first = 0;
            // SAFETY: `WeightGradient::run` checked all lengths; the instruction set is the caller's promise.
            unsafe {
                while first < self.outputs {
                    let left = self.outputs - first;
                    if left >= 2 * V::N {
                        if V::REGISTERS >= 32 {
                            self.columns::<V, 12, 8, 2, false>(&block, first);
                        } else {
                            self.columns::<V, 6, 4, 2, false>(&block, first);
                        }
                        first += 2 * V::N;
                    } else if left > V::N {
                        if V::REGISTERS >= 32 {
                            self.columns::<V, 12, 8, 2, true>(&block, first);
                        } else {
                            self.columns::<V, 6, 4, 2, true>(&block, first);
                        }
                        first = self.outputs;
                    } else if left == V::N {
                        if V::REGISTERS >= 32 {
                            self.columns::<V, 16, 4, 1, false>(&block, first);
                        } else {
                            self.columns::<V, 8, 4, 1, false>(&block, first);
                        }
                        first += V::N;
                    } else {
                        self.columns::<V, 8, 4, 1, true>(&block, first);
                        first = self.outputs;
                    }
                }
            }
            self.accumulate = true;
            block.pixel += block.count;
            (block.row, block.column) = (block.pixel / self.view.size[1], block.pixel % self.view.size[1]);
        }
    }
}

/// Neighbouring pixels, row by row.
struct Block {
    row: usize,
    column: usize,
    /// Number of the first pixel.
    pixel: usize,
    count: usize,
}

impl<T: Element> WeightGradient<'_, T> {
    #[inline(always)]
    unsafe fn columns<V: Lanes<T>, const M: usize, const S: usize, const NV: usize, const PART: bool>(
        &mut self,
        block: &Block,
        first: usize,
    ) {
        for t in 0..self.taps.len() {
            let mut d = 0;
            while d < self.depth {
                let left = self.depth - d;
                // SAFETY: each tile ends at `depth` at most.
                unsafe {
                    // Two tiles of `S` are faster than one of `M` and a few rows.
                    if left >= M && left != 2 * S {
                        self.tile::<V, M, NV, PART>(block, t, d, first);
                        d += M;
                    } else if left >= S {
                        self.tile::<V, S, NV, PART>(block, t, d, first);
                        d += S;
                    } else {
                        self.tile::<V, 1, NV, PART>(block, t, d, first);
                        d += 1;
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Lanes<T>, const M: usize, const NV: usize, const PART: bool>(
        &mut self,
        block: &Block,
        t: usize,
        d: usize,
        first: usize,
    ) {
        let left = self.outputs - first;
        // SAFETY: reads stay below the reach that was checked, partial accesses below `left`.
        unsafe {
            let mut dy = self.dy.as_ptr().add(block.pixel * self.stride + first);
            let target = self.gradient.as_mut_ptr().add((t * self.depth + d) * self.outputs + first);
            let mut sums = [[V::splat(T::zero()); NV]; M];
            let (mut row, mut column, mut room) = (block.row, block.column, block.count);
            while room > 0 {
                let count = room.min(self.view.size[1] - column);
                let start = self.taps[t] + d + row * self.view.row + column * self.view.column;
                let mut x = self.x.as_ptr().add(start);
                for _ in 0..count {
                    // With `PART` the last vector has some of its lanes only.
                    let g: [V; NV] = std::array::from_fn(|j| {
                        let dy = dy.add(j * V::N);
                        if PART && j + 1 == NV { V::load_part(dy, left - j * V::N) } else { V::load(dy) }
                    });
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let value = V::splat(*x.add(m));
                        for j in 0..NV {
                            sums[j] = value.mul_add(g[j], sums[j]);
                        }
                    }
                    dy = dy.wrapping_add(self.stride);
                    x = x.wrapping_add(self.view.column);
                }
                room -= count;
                (row, column) = (row + 1, 0);
            }
            for (m, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let target = target.add(m * self.outputs + j * V::N);
                    let part = if PART && j + 1 == NV { left - j * V::N } else { V::N };
                    let sum = if self.accumulate { sum.add(load(target, part)) } else { sum };
                    store(sum, target, part);
                }
            }
        }
    }
}
