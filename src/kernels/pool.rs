//! Max and average pooling of one channels-last image `[H, W, C]`.

use std::ops::Range;

use super::convolution::{load, store, vectors};
use super::lanes::{Element, Kernel, Lanes};

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
        self.check(x, y);
        T::dispatch(Windows { pool: self, work: Max { x, y } });
    }

    /// Adds `dy` to the first element of each window that equals the maximum `y`.
    pub fn max_gradient<T: Element>(&self, x: &[T], y: &[T], dy: &[T], dx: &mut [T]) {
        self.check(x, y);
        self.check(dx, dy);
        T::dispatch(Windows { pool: self, work: MaxGradient { x, y, dy, dx } });
    }

    /// `y = mean of the window`, padding not counted.
    pub fn average<T: Element>(&self, x: &[T], y: &mut [T]) {
        self.check(x, y);
        T::dispatch(Windows { pool: self, work: Average { x, y } });
    }

    /// Adds `dy` divided by the size of the window to all its elements.
    pub fn average_gradient<T: Element>(&self, dy: &[T], dx: &mut [T]) {
        self.check(dx, dy);
        T::dispatch(Windows { pool: self, work: AverageGradient { dy, dx } });
    }

    fn check<T>(&self, x: &[T], y: &[T]) {
        assert!(x.len() >= self.input[0] * self.input[1] * self.channels, "image too short");
        assert!(y.len() >= self.output[0] * self.output[1] * self.channels, "result too short");
    }
}

/// A window and its place.
struct Window {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Elements of a row of the image, and of a pixel.
    row: usize,
    pixel: usize,
    /// First element of the pixel in the result.
    out: usize,
}

impl Window {
    fn scale<T: Element>(&self) -> T {
        T::constant(1.0 / (self.rows.len() * self.columns.len()) as f64)
    }

    /// First element of a pixel in the image.
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        row * self.row + column * self.pixel
    }
}

/// What is done with `part` channels of a window, a vector or less.
trait Work<T: Element> {
    /// # Safety
    /// The machine must have the instruction set of `V`; the window must lie in image and result.
    unsafe fn window<V: Lanes<T>>(&mut self, window: &Window, channel: usize, part: usize);
}

struct Windows<'a, W> {
    pool: &'a Pool,
    work: W,
}

impl<T: Element, W: Work<T>> Kernel<T> for Windows<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let pool = self.pool;
        let pixel = pool.channels;
        for row in 0..pool.output[0] {
            let rows = pool.window(0, row);
            for column in 0..pool.output[1] {
                let columns = pool.window(1, column);
                let out = (row * pool.output[1] + column) * pixel;
                let window = Window { rows: rows.clone(), columns, row: pool.input[1] * pixel, pixel, out };
                vectors::<T, V>(
                    pixel,
                    #[inline(always)]
                    |channel, part| {
                        // SAFETY: windows are cut to the image, and `Pool::check` saw the lengths of the slices.
                        unsafe { self.work.window::<V>(&window, channel, part) };
                    },
                );
            }
        }
    }
}

struct Max<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Work<T> for Max<'_, T> {
    #[inline(always)]
    unsafe fn window<V: Lanes<T>>(&mut self, window: &Window, channel: usize, part: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut largest = V::splat(T::neg_infinity());
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    let x = load::<T, V>(self.x.as_ptr().add(window.at(row, column) + channel), part);
                    largest = largest.max(x);
                }
            }
            store(largest, self.y.as_mut_ptr().add(window.out + channel), part);
        }
    }
}

struct MaxGradient<'a, T> {
    x: &'a [T],
    y: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Element> Work<T> for MaxGradient<'_, T> {
    #[inline(always)]
    unsafe fn window<V: Lanes<T>>(&mut self, window: &Window, channel: usize, part: usize) {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(T::zero());
            let y = load::<T, V>(self.y.as_ptr().add(window.out + channel), part);
            let mut left = load::<T, V>(self.dy.as_ptr().add(window.out + channel), part);
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    let at = window.at(row, column) + channel;
                    let x = load::<T, V>(self.x.as_ptr().add(at), part);
                    let dx = self.dx.as_mut_ptr().add(at);
                    let sum = load::<T, V>(dx, part).add(x.select_equal(y, left, zero));
                    store(sum, dx, part);
                    left = x.select_equal(y, zero, left);
                }
            }
        }
    }
}

struct Average<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Work<T> for Average<'_, T> {
    #[inline(always)]
    unsafe fn window<V: Lanes<T>>(&mut self, window: &Window, channel: usize, part: usize) {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(T::zero());
            let mut sum = zero;
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    sum = sum.add(load(self.x.as_ptr().add(window.at(row, column) + channel), part));
                }
            }
            let mean = sum.mul_add(V::splat(window.scale()), zero);
            store(mean, self.y.as_mut_ptr().add(window.out + channel), part);
        }
    }
}

struct AverageGradient<'a, T> {
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Element> Work<T> for AverageGradient<'_, T> {
    #[inline(always)]
    unsafe fn window<V: Lanes<T>>(&mut self, window: &Window, channel: usize, part: usize) {
        // SAFETY: the caller's.
        unsafe {
            let dy = load::<T, V>(self.dy.as_ptr().add(window.out + channel), part);
            let share = dy.mul_add(V::splat(window.scale()), V::splat(T::zero()));
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    let dx = self.dx.as_mut_ptr().add(window.at(row, column) + channel);
                    store(share.add(load(dx, part)), dx, part);
                }
            }
        }
    }
}
