//! Convolutions 3x3 of stride 1 with 16 multiplications for four outputs instead of 36: Winograd's F(2x2, 3x3).
//!
//! In: channels-last images without padding, weights transformed to sixteen matrices. Out: the result, or the
//! gradient of the weights. Tiles of 2x2 outputs become sixteen points, each of which is a plain matrix product
//! over all tiles; transforms only add and subtract, so rounding errors stay those of the direct sum. Source:
//! Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.

use super::{Filters, Packing, Product, View, WeightGradient, block_bytes, load, store, vectors};
use crate::kernels::lanes::{Element, Kernel, Lanes};

mod pack;

use pack::Pack;

/// Points of a tile.
const POINTS: usize = 16;

/// Geometry of a convolution 3x3 of stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    /// Size of the image.
    pub input: [usize; 2],
    /// Size of the result.
    pub output: [usize; 2],
    /// Rows and columns of zeros before the image; behind it as many as the result needs.
    pub padding: [usize; 2],
    /// Channels of the image.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
}

impl Winograd {
    /// The geometry of the gradient by the image, which is a convolution of the result's gradient.
    pub fn back(&self) -> Self {
        Self {
            input: self.output,
            output: self.input,
            padding: self.padding.map(|padding| 2 - padding),
            inputs: self.outputs,
            outputs: self.inputs,
        }
    }

    fn packing<T: Element>(&self) -> Packing {
        Packing::new::<T>(self.outputs)
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        POINTS * self.packing::<T>().len(self.inputs)
    }

    /// Transforms `filters` to sixteen packed matrices.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        let last = (self.inputs - 1) * filters.input + (self.outputs - 1) * filters.output;
        assert!(filters.weight.len() >= last + 9, "weights too short");
        assert!(packed.len() >= self.packed_len::<T>(), "room for packed weights too short");
        T::dispatch(Pack { geometry: self, filters, packed });
    }

    fn tiles(&self) -> [usize; 2] {
        self.output.map(|size| size.div_ceil(2))
    }

    /// Tiles that go through the products together, of `images` images.
    fn block<T: Element>(&self, images: usize) -> usize {
        let [rows, columns] = self.tiles();
        let total = (images * rows * columns).max(1);
        total.div_ceil(total.div_ceil(self.most::<T>())).next_multiple_of(8)
    }

    /// Most tiles of a block, a multiple of eight.
    fn most<T: Element>(&self) -> usize {
        let tile = size_of::<T>() * POINTS * (self.inputs + self.outputs);
        (block_bytes::<T>() / tile).max(16).next_multiple_of(8)
    }

    /// Elements from a point to the next: a cache line more than needed, for powers of two would share cache sets.
    fn stride<T>(tiles: usize, channels: usize) -> usize {
        let line = 64 / size_of::<T>();
        (tiles * channels).next_multiple_of(line) + line
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let tiles = self.most::<T>().min(self.tiles().iter().product::<usize>() * images).next_multiple_of(8);
        let gradient = self.inputs * (2 * T::lanes()).min(self.outputs);
        POINTS * (Self::stride::<T>(tiles, self.inputs) + Self::stride::<T>(tiles, self.outputs) + gradient)
    }

    fn check<T>(&self, images: usize, x: &[T], y: &[T]) {
        assert!(self.padding.iter().all(|&padding| padding <= 2), "padding wider than the kernel");
        let expected: [usize; 2] = std::array::from_fn(|axis| self.input[axis] + 2 * self.padding[axis]);
        assert!(
            (0..2).all(|axis| self.output[axis] + 2 <= expected[axis]),
            "result larger than image and padding"
        );
        assert!(x.len() >= images * self.input[0] * self.input[1] * self.inputs, "image too short");
        assert!(y.len() >= images * self.output[0] * self.output[1] * self.outputs, "result too short");
    }

    /// `y (+)=` the convolution of `images` images.
    pub fn run<T: Element>(
        &self,
        images: usize,
        x: &[T],
        packed: &[T],
        y: &mut [T],
        accumulate: bool,
        scratch: &mut [T],
    ) {
        self.check(images, x, y);
        let [rows, columns] = self.tiles();
        let (total, most) = (images * rows * columns, self.block::<T>(images));
        let packing = self.packing::<T>();
        let point = packing.len(self.inputs);
        for first in (0..total).step_by(most) {
            let count = most.min(total - first);
            let (from, to) = (Self::stride::<T>(count, self.inputs), Self::stride::<T>(count, self.outputs));
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let products = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, x, points, stride: from, first, count });
            for p in 0..POINTS {
                Product {
                    x: &points[p * from..],
                    view: View::matrix(count, self.inputs),
                    taps: &[0],
                    depth: self.inputs,
                    weight: &packed[p * point..(p + 1) * point],
                    packing,
                    outputs: self.outputs,
                    y: &mut products[p * to..],
                    accumulate: false,
                }
                .run();
            }
            T::dispatch(Result { geometry: self, products, stride: to, first, count, y, accumulate });
        }
    }

    /// Adds the gradient of the weights by `images` images to `gradient [9, inputs, outputs]`.
    pub fn gradient<T: Element>(
        &self,
        images: usize,
        x: &[T],
        dy: &[T],
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        self.check(images, x, dy);
        assert!(gradient.len() >= 9 * self.inputs * self.outputs, "gradient too short");
        let [rows, columns] = self.tiles();
        let (total, most) = (images * rows * columns, self.block::<T>(images));
        // A few output channels at a time: their sums stay in the second-level cache.
        let width = (2 * T::lanes()).min(self.outputs);
        let size = self.inputs * width;
        let (sums, scratch) = scratch.split_at_mut(POINTS * size);
        for first in (0..total).step_by(most) {
            let count = most.min(total - first);
            let (from, to) = (Self::stride::<T>(count, self.inputs), Self::stride::<T>(count, self.outputs));
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let slopes = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, x, points, stride: from, first, count });
            T::dispatch(Slope { geometry: self, dy, points: slopes, stride: to, first, count });
            for output in (0..self.outputs).step_by(width) {
                let outputs = width.min(self.outputs - output);
                for p in 0..POINTS {
                    WeightGradient {
                        x: &points[p * from..],
                        view: View::matrix(count, self.inputs),
                        taps: &[0],
                        depth: self.inputs,
                        dy: &slopes[p * to + output..],
                        stride: self.outputs,
                        outputs,
                        gradient: &mut sums[p * size..(p + 1) * size],
                        accumulate: false,
                    }
                    .run();
                }
                T::dispatch(Taps { geometry: self, sums, size, output, outputs, gradient });
            }
        }
    }

    /// Image, row and column of tile `index`.
    #[inline(always)]
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let [rows, columns] = self.tiles();
        (index / (rows * columns), index / columns % rows, index % columns)
    }
}

/// What the input of a tile contributes to each point: `B^T d`.
#[inline(always)]
unsafe fn input_points<T, V: Lanes<T>>(d: [V; 4]) -> [V; 4] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])] }
}

/// Outputs of a tile from its points: `A^T m`.
#[inline(always)]
unsafe fn outputs<T, V: Lanes<T>>(m: [V; 4]) -> [V; 2] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])] }
}

/// Gradients of the points from those of the outputs: `A dy`.
#[inline(always)]
unsafe fn output_points<T: Element, V: Lanes<T>>(y: [V; 2]) -> [V; 4] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [y[0], y[0].add(y[1]), y[0].sub(y[1]), V::splat(T::zero()).sub(y[1])] }
}

/// Gradients of the taps from those of the points: `G^T u`.
#[inline(always)]
unsafe fn taps<T: Element, V: Lanes<T>>(u: [V; 4]) -> [V; 3] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let half = V::splat(T::constant(0.5));
        let (sum, difference) = (u[1].add(u[2]), u[1].sub(u[2]));
        [half.mul_add(sum, u[0]), half.mul_add(difference, V::splat(T::zero())), half.mul_add(sum, u[3])]
    }
}

/// Transforms tiles of images to points `[16, tiles, channels]`.
struct Image<'a, T> {
    geometry: &'a Winograd,
    x: &'a [T],
    points: &'a mut [T],
    stride: usize,
    first: usize,
    count: usize,
}

impl<T: Element> Kernel<T> for Image<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { input: [height, width], padding, inputs: channels, .. } = *self.geometry;
        for tile in 0..self.count {
            let (image, row, column) = self.geometry.place(self.first + tile);
            let (top, left) =
                ((2 * row) as isize - padding[0] as isize, (2 * column) as isize - padding[1] as isize);
            let inside = |position: isize, size: usize| position >= 0 && position < size as isize;
            let whole = top >= 0 && left >= 0 && top as usize + 4 <= height && left as usize + 4 <= width;
            // SAFETY: elements that are loaded lie in the image, see `Winograd::check`; partial accesses stop at
            // the last channel.
            unsafe {
                let x = self.x.as_ptr().wrapping_add(image * height * width * channels);
                let start = x.wrapping_offset((top * width as isize + left) * channels as isize);
                let target = self.points.as_mut_ptr().add(tile * channels);
                vectors::<T, V>(
                    channels,
                    #[inline(always)]
                    |channel, part| {
                        let start = start.wrapping_add(channel);
                        let mut rows = [[V::splat(T::zero()); 4]; 4];
                        for (y, values) in rows.iter_mut().enumerate() {
                            let start = start.wrapping_add(y * width * channels);
                            if whole {
                                for (x, value) in values.iter_mut().enumerate() {
                                    *value = load(start.add(x * channels), part);
                                }
                            } else if inside(top + y as isize, height) {
                                for (x, value) in values.iter_mut().enumerate() {
                                    if inside(left + x as isize, width) {
                                        *value = load(start.wrapping_add(x * channels), part);
                                    }
                                }
                            }
                            *values = input_points(*values);
                        }
                        for x in 0..4 {
                            let points = input_points([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
                            for (y, point) in points.into_iter().enumerate() {
                                store(point, target.add((4 * y + x) * self.stride + channel), part);
                            }
                        }
                    },
                );
            }
        }
    }
}

/// Transforms points `[16, tiles, channels]` to outputs.
struct Result<'a, T> {
    geometry: &'a Winograd,
    products: &'a [T],
    stride: usize,
    first: usize,
    count: usize,
    y: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Kernel<T> for Result<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { output: [height, width], outputs: channels, .. } = *self.geometry;
        for tile in 0..self.count {
            let (image, row, column) = self.geometry.place(self.first + tile);
            let (top, left) = (2 * row, 2 * column);
            // SAFETY: only outputs that exist are accessed, see `Winograd::check`; partial accesses stop at the last
            // channel.
            unsafe {
                let target = self.y.as_mut_ptr().add(((image * height + top) * width + left) * channels);
                let source = self.products.as_ptr().add(tile * channels);
                vectors::<T, V>(
                    channels,
                    #[inline(always)]
                    |channel, part| {
                        let mut rows = [[V::splat(T::zero()); 2]; 4];
                        for (y, row) in rows.iter_mut().enumerate() {
                            let mut points = [V::splat(T::zero()); 4];
                            for (x, point) in points.iter_mut().enumerate() {
                                *point = load(source.add((4 * y + x) * self.stride + channel), part);
                            }
                            *row = outputs(points);
                        }
                        for x in 0..2 {
                            let column = outputs([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
                            for (y, value) in column.into_iter().enumerate() {
                                if top + y < height && left + x < width {
                                    let target = target.add((y * width + x) * channels + channel);
                                    let value =
                                        if self.accumulate { value.add(load(target, part)) } else { value };
                                    store(value, target, part);
                                }
                            }
                        }
                    },
                );
            }
        }
    }
}

/// Transforms gradients of outputs to those of points `[16, tiles, channels]`.
struct Slope<'a, T> {
    geometry: &'a Winograd,
    dy: &'a [T],
    points: &'a mut [T],
    stride: usize,
    first: usize,
    count: usize,
}

impl<T: Element> Kernel<T> for Slope<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { output: [height, width], outputs: channels, .. } = *self.geometry;
        for tile in 0..self.count {
            let (image, row, column) = self.geometry.place(self.first + tile);
            let (top, left) = (2 * row, 2 * column);
            // SAFETY: only outputs that exist are read, see `Winograd::check`; partial accesses stop at the last
            // channel.
            unsafe {
                let source = self.dy.as_ptr().add(((image * height + top) * width + left) * channels);
                let target = self.points.as_mut_ptr().add(tile * channels);
                vectors::<T, V>(
                    channels,
                    #[inline(always)]
                    |channel, part| {
                        let mut rows = [[V::splat(T::zero()); 4]; 2];
                        for (y, row) in rows.iter_mut().enumerate() {
                            let mut values = [V::splat(T::zero()); 2];
                            for (x, value) in values.iter_mut().enumerate() {
                                if top + y < height && left + x < width {
                                    *value = load(source.add((y * width + x) * channels + channel), part);
                                }
                            }
                            *row = output_points(values);
                        }
                        for x in 0..4 {
                            let points = output_points([rows[0][x], rows[1][x]]);
                            for (y, point) in points.into_iter().enumerate() {
                                store(point, target.add((4 * y + x) * self.stride + channel), part);
                            }
                        }
                    },
                );
            }
        }
    }
}

/// Adds gradients of points `[16, inputs, outputs]` of some outputs to those of taps `[9, inputs, all outputs]`.
struct Taps<'a, T> {
    geometry: &'a Winograd,
    sums: &'a [T],
    /// Elements from a point to the next.
    size: usize,
    /// First output.
    output: usize,
    /// Number of outputs.
    outputs: usize,
    gradient: &'a mut [T],
}

impl<T: Element> Kernel<T> for Taps<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { inputs, outputs: all, .. } = *self.geometry;
        for input in 0..inputs {
            vectors::<T, V>(
                self.outputs,
                #[inline(always)]
                |first, part| {
                    // SAFETY: the slices hold whole points and taps; partial accesses stop at the last output.
                    unsafe {
                        let source = self.sums.as_ptr().add(input * self.outputs + first);
                        let target = self.gradient.as_mut_ptr().add(input * all + self.output + first);
                        let mut rows = [[V::splat(T::zero()); 3]; 4];
                        for (y, row) in rows.iter_mut().enumerate() {
                            let mut points = [V::splat(T::zero()); 4];
                            for (x, point) in points.iter_mut().enumerate() {
                                *point = load(source.add((4 * y + x) * self.size), part);
                            }
                            *row = taps(points);
                        }
                        for x in 0..3 {
                            let column = taps([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
                            for (y, value) in column.into_iter().enumerate() {
                                let target = target.add((3 * y + x) * inputs * all);
                                store(value.add(load(target, part)), target, part);
                            }
                        }
                    }
                },
            );
        }
    }
}
