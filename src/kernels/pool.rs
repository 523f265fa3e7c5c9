//! Max and average pooling of one channels-last image `[H, W, C]`.

use std::ops::Range;

use super::lanes::{Element, vectorized};

/// Geometry of a pooling.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Kernel size.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Padding on all sides.
    pub padding: usize,
    /// Size of the image.
    pub input: [usize; 2],
    /// Size of the result.
    pub output: [usize; 2],
    /// Channels.
    pub channels: usize,
}

impl Pool {
    /// Rows or columns of the image under output `o`.
    #[inline(always)]
    fn window(&self, axis: usize, o: usize) -> Range<usize> {
        let start = o * self.stride;
        let first = start.saturating_sub(self.padding);
        let end = (start + self.kernel).saturating_sub(self.padding).min(self.input[axis]);
        first..end.max(first)
    }

    /// `y = max of the window`; NaN wins.
    pub fn max<T: Element>(&self, x: &[T], y: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each(|c, rows, columns, out| {
                    let y = &mut y[out..out + c];
                    y.fill(T::neg_infinity());
                    for row in rows {
                        for column in columns.clone() {
                            let at = (row * self.input[1] + column) * c;
                            for (y, &x) in y.iter_mut().zip(&x[at..at + c]) {
                                // False for NaN on either side: a new NaN is taken, an old one stays.
                                let keep = (*y >= x) | y.is_nan();
                                *y = if keep { *y } else { x };
                            }
                        }
                    }
                });
            },
        );
    }

    /// Adds `dy` to the first element of each window that equals the maximum; `done [C]` is scratch.
    pub fn max_gradient<T: Element>(&self, x: &[T], y: &[T], dy: &[T], dx: &mut [T], left: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each(|c, rows, columns, out| {
                    let y = &y[out..out + c];
                    let left = &mut left[..c];
                    left.copy_from_slice(&dy[out..out + c]);
                    for row in rows {
                        for column in columns.clone() {
                            let at = (row * self.input[1] + column) * c;
                            let x = &x[at..at + c];
                            let dx = &mut dx[at..at + c];
                            for i in 0..c {
                                let hit = x[i] == y[i];
                                dx[i] += if hit { left[i] } else { T::zero() };
                                left[i] = if hit { T::zero() } else { left[i] };
                            }
                        }
                    }
                });
            },
        );
    }

    /// `y = mean of the window`, padding not counted.
    pub fn average<T: Element>(&self, x: &[T], y: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each(|c, rows, columns, out| {
                    let y = &mut y[out..out + c];
                    let scale = self.scale(&rows, &columns);
                    y.fill(T::zero());
                    for row in rows {
                        for column in columns.clone() {
                            let at = (row * self.input[1] + column) * c;
                            for (y, &x) in y.iter_mut().zip(&x[at..at + c]) {
                                *y += x;
                            }
                        }
                    }
                    for y in y {
                        *y *= scale;
                    }
                });
            },
        );
    }

    /// Adds `dy` divided by the size of the window to all its elements.
    pub fn average_gradient<T: Element>(&self, dy: &[T], dx: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each(|c, rows, columns, out| {
                    let dy = &dy[out..out + c];
                    let scale: T = self.scale(&rows, &columns);
                    for row in rows {
                        for column in columns.clone() {
                            let at = (row * self.input[1] + column) * c;
                            for (dx, &dy) in dx[at..at + c].iter_mut().zip(dy) {
                                *dx += dy * scale;
                            }
                        }
                    }
                });
            },
        );
    }

    #[inline(always)]
    fn scale<T: Element>(&self, rows: &Range<usize>, columns: &Range<usize>) -> T {
        T::constant(1.0 / (rows.len() * columns.len()) as f64)
    }

    #[inline(always)]
    fn each(&self, mut work: impl FnMut(usize, Range<usize>, Range<usize>, usize)) {
        for row in 0..self.output[0] {
            let rows = self.window(0, row);
            for column in 0..self.output[1] {
                let out = (row * self.output[1] + column) * self.channels;
                work(self.channels, rows.clone(), self.window(1, column), out);
            }
        }
    }
}
