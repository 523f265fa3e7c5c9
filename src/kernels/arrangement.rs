//! Ops that move, average or gate elements of one channels-last image without learned weights.

use super::columns;
use super::lanes::{Element, vectorized};

/// Mean over the rows of `x [R, C]`.
pub fn mean_rows<T: Element>(x: &[T], y: &mut [T]) {
    let c = y.len();
    let scale = T::constant(c as f64 / x.len() as f64);
    columns::total(x, None, y);
    for y in y.iter_mut() {
        *y *= scale;
    }
}

/// `dx [R, C] (+)= dy [C] / R`.
pub fn mean_rows_gradient<T: Element>(dy: &[T], dx: &mut [T], accumulate: bool) {
    let c = dy.len();
    let scale = T::constant(c as f64 / dx.len() as f64);
    vectorized(
        #[inline(always)]
        || {
            for row in dx.chunks_exact_mut(c) {
                for (dx, &dy) in row.iter_mut().zip(dy) {
                    *dx = if accumulate { *dx + dy * scale } else { dy * scale };
                }
            }
        },
    );
}

/// `y [R, C] (+)= x [R, C] * gate [C]`.
pub fn excite<T: Element>(x: &[T], gate: &[T], y: &mut [T], accumulate: bool) {
    columns::gate(x, gate, y, accumulate);
}

/// Rows whose sum is taken before it meets the total, and channels of a block of sums.
const BLOCK: usize = 64;

/// `sums [C] +=` sums over rows of `term(element of [R, C])`, in blocks: in single precision longer sums lose digits.
#[inline(always)]
fn add_sums<T: Element>(rows: usize, sums: &mut [T], term: impl Fn(usize) -> T) {
    let c = sums.len();
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        let mut total = [T::zero(); BLOCK];
        for first in (0..rows).step_by(BLOCK) {
            let mut part = [T::zero(); BLOCK];
            for row in first..rows.min(first + BLOCK) {
                for (k, part) in part[..sums.len()].iter_mut().enumerate() {
                    *part += term(row * c + block * BLOCK + k);
                }
            }
            for (total, part) in total.iter_mut().zip(part) {
                *total += part;
            }
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            *sum += total;
        }
    }
}

/// `sums [C] +=` sums over the rows of `x [R, C]`.
pub fn add_row_sums<T: Element>(x: &[T], sums: &mut [T]) {
    let rows = x.len() / sums.len();
    vectorized(
        #[inline(always)]
        || {
            add_sums(
                rows,
                sums,
                #[inline(always)]
                |i| x[i],
            );
        },
    );
}

/// `y [R, C] += bias [C]`.
pub fn add_to_rows<T: Element>(bias: &[T], y: &mut [T]) {
    vectorized(
        #[inline(always)]
        || {
            for row in y.chunks_exact_mut(bias.len()) {
                for (y, &bias) in row.iter_mut().zip(bias) {
                    *y += bias;
                }
            }
        },
    );
}

/// `dgate [C] (+)= sum over rows of x * dy`.
pub fn excite_gate_gradient<T: Element>(x: &[T], dy: &[T], dgate: &mut [T], accumulate: bool) {
    let rows = x.len() / dgate.len();
    let dy = &dy[..x.len()];
    vectorized(
        #[inline(always)]
        || {
            if !accumulate {
                dgate.fill(T::zero());
            }
            add_sums(
                rows,
                dgate,
                #[inline(always)]
                |i| x[i] * dy[i],
            );
        },
    );
}

/// `y = a + b`.
pub fn sum<T: Element>(a: &[T], b: &[T], y: &mut [T]) {
    vectorized(
        #[inline(always)]
        || {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = a + b;
            }
        },
    );
}

/// A block of columns in rows of another width: `rows` rows of `count` elements, starting at `first`.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Number of rows.
    pub rows: usize,
    /// Elements of the block in a row.
    pub count: usize,
    /// Elements of a whole row.
    pub width: usize,
    /// First element of the block.
    pub first: usize,
}

impl Columns {
    /// Writes `source [rows, count]` into the block of `target [rows, width]`.
    pub fn scatter<T: Element>(&self, source: &[T], target: &mut [T]) {
        for row in 0..self.rows {
            target[row * self.width + self.first..][..self.count]
                .copy_from_slice(&source[row * self.count..][..self.count]);
        }
    }

    /// `target [rows, count] (+)= ` the block of `source [rows, width]`.
    pub fn gather<T: Element>(&self, source: &[T], target: &mut [T], accumulate: bool) {
        vectorized(
            #[inline(always)]
            || {
                for row in 0..self.rows {
                    let source = &source[row * self.width + self.first..][..self.count];
                    let target = &mut target[row * self.count..][..self.count];
                    for (target, &source) in target.iter_mut().zip(source) {
                        *target = if accumulate { *target + source } else { source };
                    }
                }
            },
        );
    }
}

/// Pixels `origin + step * i` of an image: subsampling, cropping, and the phases of a stride.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    /// Width of the image.
    pub input_width: usize,
    /// Size of the result.
    pub output: [usize; 2],
    /// First row and column.
    pub origin: [usize; 2],
    /// Distance of rows and columns.
    pub step: [usize; 2],
    /// Channels.
    pub channels: usize,
}

impl Pick {
    /// Runs `work` on each run of contiguous elements: first in the image, first in the result, their number.
    #[inline(always)]
    fn each(&self, mut work: impl FnMut(usize, usize, usize)) {
        let c = self.channels;
        // Neighbouring columns are one run.
        let (runs, run) = if self.step[1] == 1 { (1, self.output[1] * c) } else { (self.output[1], c) };
        for row in 0..self.output[0] {
            let from = (self.origin[0] + row * self.step[0]) * self.input_width + self.origin[1];
            let to = row * self.output[1] * c;
            for column in 0..runs {
                work((from + column * self.step[1]) * c, to + column * c, run);
            }
        }
    }

    /// Copies the pixels from `x` to `y`.
    pub fn run<T: Element>(&self, x: &[T], y: &mut [T]) {
        self.each(|from, to, run| y[to..to + run].copy_from_slice(&x[from..from + run]));
    }

    /// The pixels of `dx` become `dy`, or `dy` is added to them.
    pub fn scatter<T: Element>(&self, dy: &[T], dx: &mut [T], accumulate: bool) {
        vectorized(
            #[inline(always)]
            || {
                self.each(
                    #[inline(always)]
                    |from, to, run| {
                        for (dx, &dy) in dx[from..from + run].iter_mut().zip(&dy[to..to + run]) {
                            *dx = if accumulate { *dx + dy } else { dy };
                        }
                    },
                );
            },
        );
    }

    /// Adds `dy` to the pixels of `dx`.
    pub fn gradient<T: Element>(&self, dy: &[T], dx: &mut [T]) {
        self.scatter(dy, dx, true);
    }
}

/// `[R, C] -> [C, R]`; `accumulate` adds to `y`.
pub fn transpose<T: Element>(x: &[T], columns: usize, y: &mut [T], accumulate: bool) {
    let rows = x.len() / columns.max(1);
    for column in 0..columns {
        for row in 0..rows {
            let value = x[row * columns + column];
            let slot = &mut y[column * rows + row];
            *slot = if accumulate { *slot + value } else { value };
        }
    }
}

/// Factor of element `index` under dropout with probability `p`: 0, or `1 / (1 - p)`.
///
/// Counter-based (SplitMix64 finaliser over seed, stream and index), so masks do not depend on the order in
/// which elements are visited.
#[inline(always)]
pub fn dropout_factor<T: Element>(seed: u64, stream: u64, index: u64, p: f32) -> T {
    let mix = |z: u64| {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let key = mix(seed.wrapping_add(GOLDEN.wrapping_mul(stream.wrapping_add(1))));
    let bits = mix(key.wrapping_add(GOLDEN.wrapping_mul(index.wrapping_add(1))));
    let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
    if uniform < f64::from(p) { T::zero() } else { T::constant(1.0 / (1.0 - f64::from(p))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_rows_cross_blocks() {
        for (rows, c) in [(1, 1), (63, 64), (64, 65), (130, 7), (200, 129)] {
            let x: Vec<f64> = (0..rows * c).map(|i| (i as f64 * 0.37).sin()).collect();
            let dy: Vec<f64> = (0..rows * c).map(|i| (i as f64 * 0.73).cos()).collect();
            let (mut plain, mut gate) = (vec![1.0; c], vec![f64::NAN; c]);
            add_row_sums(&x, &mut plain);
            excite_gate_gradient(&x, &dy, &mut gate, false);
            for channel in 0..c {
                let at = |row: usize| row * c + channel;
                let sum: f64 = 1.0 + (0..rows).map(|row| x[at(row)]).sum::<f64>();
                assert!((plain[channel] - sum).abs() < 1e-11, "{rows} x {c}: {}", plain[channel]);
                let sum: f64 = (0..rows).map(|row| x[at(row)] * dy[at(row)]).sum();
                assert!((gate[channel] - sum).abs() < 1e-11, "{rows} x {c}: {}", gate[channel]);
            }
        }
    }
}
