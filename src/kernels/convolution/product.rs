//! The product `y[pixel, o] = sum over taps t and depth d of x[pixel + t, d] * w[t, d, o]`.

use super::View;
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// How weights are packed: `[blocks][taps][depth][width]`, `width` output channels side by side, zero-filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Vectors of a block.
    pub vectors: usize,
    /// Channels of a block.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
}

impl Packing {
    /// The packing of `outputs` channels on this machine.
    pub fn new<T: Element>(outputs: usize) -> Self {
        let lanes = T::lanes();
        let needed = outputs.div_ceil(lanes).max(1);
        let vectors = match needed {
            1 => 1,
            n if n % 3 == 0 && n % 2 != 0 => 3,
            _ => 2,
        };
        Self { vectors, width: vectors * lanes, blocks: needed.div_ceil(vectors) }
    }

    /// Elements of the packed weights for `rows` = taps x depth.
    pub fn len(&self, rows: usize) -> usize {
        self.blocks * rows * self.width
    }

    /// Packs `rows` rows: `weight(row, output)` gives the element.
    pub fn pack<T: Element>(
        &self,
        rows: usize,
        outputs: usize,
        packed: &mut [T],
        weight: impl Fn(usize, usize) -> T,
    ) {
        for block in 0..self.blocks {
            let first = block * self.width;
            for row in 0..rows {
                let start = (block * rows + row) * self.width;
                for (j, slot) in packed[start..start + self.width].iter_mut().enumerate() {
                    *slot = if first + j < outputs { weight(row, first + j) } else { T::zero() };
                }
            }
        }
    }
}

/// One product; see the module.
pub struct Product<'a, T> {
    /// The image.
    pub x: &'a [T],
    /// The pixels of `x` that a tap of offset zero meets.
    pub view: View,
    /// Offsets of the taps in `x`.
    pub taps: &'a [usize],
    /// Contiguous elements read at a tap.
    pub depth: usize,
    /// Packed weights.
    pub weight: &'a [T],
    /// Their packing.
    pub packing: Packing,
    /// Output channels.
    pub outputs: usize,
    /// Result `[pixels, outputs]`.
    pub y: &'a mut [T],
    /// Whether to add to `y` instead of overwriting it.
    pub accumulate: bool,
}

impl<T: Element> Product<'_, T> {
    /// Computes the product.
    pub fn run(self) {
        let pixels = self.view.pixels();
        if pixels == 0 || self.outputs == 0 {
            return;
        }
        assert!(self.y.len() >= pixels * self.outputs, "result too short");
        let reach = self.view.last() + self.taps.iter().max().copied().unwrap_or(0) + self.depth;
        assert!(self.x.len() >= reach, "image too short: {} for {reach}", self.x.len());
        assert!(self.weight.len() >= self.packing.len(self.taps.len() * self.depth), "weights too short");
        assert!(
            self.packing.width * self.packing.blocks >= self.outputs
                && self.packing.width == self.packing.vectors * T::lanes()
        );
        T::dispatch(self);
    }
}

impl<T: Element> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        // SAFETY: `Product::run` checked all lengths; the instruction set is the caller's promise.
        unsafe {
            match (self.packing.vectors, V::REGISTERS >= 32) {
                (1, true) => self.blocks::<V, 12, 1>(),
                (1, false) => self.blocks::<V, 8, 1>(),
                (2, true) => self.blocks::<V, 8, 2>(),
                (2, false) => self.blocks::<V, 6, 2>(),
                (_, true) => self.blocks::<V, 8, 3>(),
                (_, false) => self.blocks::<V, 4, 3>(),
            }
        }
    }
}

impl<T: Element> Product<'_, T> {
    #[inline(always)]
    unsafe fn blocks<V: Lanes<T>, const M: usize, const NV: usize>(self) {
        let Self { x, view, taps, depth, weight, packing, outputs, y, accumulate } = self;
        let x = x.as_ptr();
        let y = y.as_mut_ptr();
        let pixels = view.pixels();
        for block in 0..packing.blocks {
            let first = block * packing.width;
            let tile = Tile {
                taps,
                depth,
                // SAFETY: within the packed weights.
                weight: unsafe { weight.as_ptr().add(block * taps.len() * depth * packing.width) },
                columns: (outputs - first).min(packing.width),
                accumulate,
            };
            let mut pixels_of = Cursor { x, view, row: 0, column: 0 };
            let mut pixel = 0;
            // SAFETY: starts and outputs of pixels below `pixels` are in bounds.
            unsafe {
                while pixel + M <= pixels {
                    let rows: [*const T; M] = pixels_of.next();
                    tile.run::<V, M, NV>(rows, y.add(pixel * outputs + first), outputs);
                    pixel += M;
                }
                while pixel + 4 <= pixels {
                    let rows: [*const T; 4] = pixels_of.next();
                    tile.run::<V, 4, NV>(rows, y.add(pixel * outputs + first), outputs);
                    pixel += 4;
                }
                while pixel < pixels {
                    let rows: [*const T; 1] = pixels_of.next();
                    tile.run::<V, 1, NV>(rows, y.add(pixel * outputs + first), outputs);
                    pixel += 1;
                }
            }
        }
    }
}

/// The pixels of a view, one after the other.
struct Cursor<T> {
    x: *const T,
    view: View,
    row: usize,
    column: usize,
}

impl<T> Cursor<T> {
    /// The next `M` pixels.
    #[inline(always)]
    unsafe fn next<const M: usize>(&mut self) -> [*const T; M] {
        let View { size: [_, width], row, column } = self.view;
        // SAFETY: the caller asks for pixels that the view has.
        unsafe {
            let start = self.x.add(self.row * row + self.column * column);
            if self.column + M < width {
                self.column += M;
                return std::array::from_fn(|m| start.add(m * column));
            }
            std::array::from_fn(|_| {
                let start = self.x.add(self.row * row + self.column * column);
                self.column += 1;
                if self.column == width {
                    self.column = 0;
                    self.row += 1;
                }
                start
            })
        }
    }
}

struct Tile<'a, T> {
    taps: &'a [usize],
    depth: usize,
    weight: *const T,
    columns: usize,
    accumulate: bool,
}

impl<T: Element> Tile<'_, T> {
    /// `M` pixels by one block of channels, accumulated in registers.
    #[inline(always)]
    unsafe fn run<V: Lanes<T>, const M: usize, const NV: usize>(
        &self,
        rows: [*const T; M],
        y: *mut T,
        stride: usize,
    ) {
        // SAFETY: the caller checked the reach of taps and depth; `columns` bounds partial accesses.
        unsafe {
            let mut sums = [[V::splat(T::zero()); NV]; M];
            let mut weight = self.weight;
            for &tap in self.taps {
                let at: [*const T; M] = std::array::from_fn(|m| rows[m].add(tap));
                for d in 0..self.depth {
                    let w: [V; NV] = std::array::from_fn(|j| V::load(weight.add(j * V::N)));
                    for m in 0..M {
                        let value = V::splat(*at[m].add(d));
                        for j in 0..NV {
                            sums[m][j] = value.mul_add(w[j], sums[m][j]);
                        }
                    }
                    weight = weight.add(NV * V::N);
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                let y = y.add(m * stride);
                for (j, &sum) in sums.iter().enumerate() {
                    let first = j * V::N;
                    if first >= self.columns {
                        break;
                    }
                    let y = y.add(first);
                    let count = self.columns - first;
                    if count >= V::N {
                        let sum = if self.accumulate { sum.add(V::load(y)) } else { sum };
                        sum.store(y);
                    } else {
                        let sum = if self.accumulate { sum.add(V::load_part(y, count)) } else { sum };
                        sum.store_part(y, count);
                    }
                }
            }
        }
    }
}
