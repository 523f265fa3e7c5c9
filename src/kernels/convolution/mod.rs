//! Dense convolutions of channels-last images as one register-tiled matrix product over an affine view.
//!
//! In: a zero-padded image `[H, W, I]` (as [`super::arrangement`] makes it) or a plain matrix, weights packed in blocks of output
//! channels. Out: `[OH, OW, O]`, or the weights' gradient `[taps, depth, O]`. A tap is an offset into the image;
//! nothing is copied into columns. The gradient of the input is the same product over the spread gradient of
//! the output with flipped, transposed weights.

mod fast;
mod product;
mod toom_cook;
mod weight_gradient;
mod winograd;

#[cfg(test)]
mod tests;

pub use fast::{Fast, Plain};
pub use product::{Packing, Product};
pub use toom_cook::ToomCook;
pub use weight_gradient::WeightGradient;
pub use winograd::Winograd;

use super::{Element, Lanes};

/// Rows of an affine view: pixel `(y, x)` starts at element `y * row + x * column`.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Rows and columns of pixels.
    pub size: [usize; 2],
    /// Elements from a pixel to the one below.
    pub row: usize,
    /// Elements from a pixel to the next.
    pub column: usize,
}

impl View {
    /// `count` rows of a dense matrix with `depth` columns.
    pub fn matrix(count: usize, depth: usize) -> Self {
        Self { size: [1, count], row: 0, column: depth }
    }

    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Largest start of a pixel.
    fn last(&self) -> usize {
        (self.size[0].max(1) - 1) * self.row + (self.size[1].max(1) - 1) * self.column
    }
}

/// Copies `image [H, W, C]` into `target [rows, columns, C]` filled with zeros: pixel `(y, x)` goes to
/// `(top + y * step, left + x * step)`; pixels outside are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Size of the image.
    pub image: [usize; 2],
    /// Size of the target.
    pub target: [usize; 2],
    /// Place of the first pixel; may be negative.
    pub origin: [isize; 2],
    /// Distance of neighbours.
    pub step: [usize; 2],
    /// Channels.
    pub channels: usize,
}

impl Spread {
    /// Elements of the target.
    pub fn len(&self) -> usize {
        self.target[0] * self.target[1] * self.channels
    }

    /// Whether the target has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the target equals the image.
    pub fn is_identity(&self) -> bool {
        self.image == self.target && self.origin == [0, 0] && self.step == [1, 1]
    }

    /// Copies `image` into `target`, which is overwritten.
    pub fn run<T: Element>(&self, image: &[T], target: &mut [T]) {
        let target = &mut target[..self.len()];
        target.fill(T::zero());
        let c = self.channels;
        let [height, width] = self.image;
        let [rows, columns] = self.target;
        for y in 0..height {
            let ty = self.origin[0] + (y * self.step[0]) as isize;
            if ty < 0 || ty >= rows as isize {
                continue;
            }
            let from = &image[y * width * c..(y + 1) * width * c];
            let to = &mut target[ty as usize * columns * c..(ty as usize + 1) * columns * c];
            if self.step[1] == 1 {
                let skip = (-self.origin[1]).max(0) as usize;
                let left = self.origin[1].max(0) as usize;
                if skip < width && left < columns {
                    let count = (width - skip).min(columns - left);
                    to[left * c..(left + count) * c].copy_from_slice(&from[skip * c..(skip + count) * c]);
                }
                continue;
            }
            for x in 0..width {
                let tx = self.origin[1] + (x * self.step[1]) as isize;
                if tx >= 0 && tx < columns as isize {
                    let tx = tx as usize;
                    to[tx * c..(tx + 1) * c].copy_from_slice(&from[x * c..(x + 1) * c]);
                }
            }
        }
    }
}

/// Weights in any order of channels: the taps of a pair start at `output o * output + input i * input`.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a, T> {
    /// The weights.
    pub weight: &'a [T],
    /// Elements from an input channel to the next.
    pub input: usize,
    /// Elements from an output channel to the next.
    pub output: usize,
    /// Whether the taps are taken in reverse.
    pub reversed: bool,
}

/// Bytes of the points of a block of tiles before and after the product, for algorithms that transform both: a share
/// of the second-level cache, which machines with wider vectors have larger.
fn block_bytes<T: Element>() -> usize {
    T::lanes() * size_of::<T>() * 16 * 1024
}

/// Stores the first `part` lanes, all if there are as many.
#[inline(always)]
pub(super) unsafe fn store<T, V: Lanes<T>>(value: V, target: *mut T, part: usize) {
    // SAFETY: the caller's.
    unsafe {
        if part >= V::N {
            value.store(target);
        } else {
            value.store_part(target, part);
        }
    }
}

/// Loads the first `part` lanes, all if there are as many.
#[inline(always)]
pub(super) unsafe fn load<T, V: Lanes<T>>(source: *const T, part: usize) -> V {
    // SAFETY: the caller's.
    unsafe { if part >= V::N { V::load(source) } else { V::load_part(source, part) } }
}

/// Calls `work` with the first channel of each vector and the number of its channels, a constant except for the last.
#[inline(always)]
pub(super) fn vectors<T, V: Lanes<T>>(channels: usize, mut work: impl FnMut(usize, usize)) {
    let whole = channels - channels % V::N;
    for channel in (0..whole).step_by(V::N) {
        work(channel, V::N);
    }
    if whole < channels {
        work(whole, channels - whole);
    }
}
