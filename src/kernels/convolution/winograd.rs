//! Convolutions 3x3 of stride 1 with 16 multiplications for four outputs instead of 36: Winograd's F(2x2, 3x3).
//!
//! In: channels-last images without padding, weights transformed to sixteen matrices. Out: the result, or the
//! gradient of the weights. Tiles of 2x2 outputs become sixteen points, each of which is a plain matrix product
//! over all tiles; transforms only add and subtract, so rounding errors stay those of the direct sum. Source:
//! Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.

use super::{Packing, Product, View, WeightGradient};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Points of a tile.
const POINTS: usize = 16;

/// Bytes of the points of a block of tiles before and after the product: a share of the second-level cache.
const BLOCK_BYTES: usize = 512 * 1024;

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

/// Weights 3x3 in any order of channels: tap `t` of a pair starts at `output o * output + input i * input`.
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
    fn block<T>(&self, images: usize) -> usize {
        let [rows, columns] = self.tiles();
        let total = (images * rows * columns).max(1);
        total.div_ceil(total.div_ceil(self.most::<T>())).next_multiple_of(8)
    }

    /// Most tiles of a block, a multiple of eight.
    fn most<T>(&self) -> usize {
        let tile = size_of::<T>() * POINTS * (self.inputs + self.outputs);
        (BLOCK_BYTES / tile).max(16).next_multiple_of(8)
    }

    /// Elements from a point to the next: a cache line more than needed, for powers of two would share cache sets.
    fn stride<T>(tiles: usize, channels: usize) -> usize {
        let line = 64 / size_of::<T>();
        (tiles * channels).next_multiple_of(line) + line
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let tiles = self.most::<T>().min(self.tiles().iter().product::<usize>() * images).next_multiple_of(8);
        let gradient = self.inputs * self.outputs;
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
        let size = self.inputs * self.outputs;
        let (sums, scratch) = scratch.split_at_mut(POINTS * size);
        sums.fill(T::zero());
        for first in (0..total).step_by(most) {
            let count = most.min(total - first);
            let (from, to) = (Self::stride::<T>(count, self.inputs), Self::stride::<T>(count, self.outputs));
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let slopes = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, x, points, stride: from, first, count });
            T::dispatch(Slope { geometry: self, dy, points: slopes, stride: to, first, count });
            for p in 0..POINTS {
                WeightGradient {
                    x: &points[p * from..],
                    view: View::matrix(count, self.inputs),
                    taps: &[0],
                    depth: self.inputs,
                    dy: &slopes[p * to..],
                    outputs: self.outputs,
                    gradient: &mut sums[p * size..(p + 1) * size],
                }
                .run();
            }
        }
        T::dispatch(Taps { sums, size, gradient });
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

/// Stores the first `part` lanes, all if there are as many.
#[inline(always)]
unsafe fn store<T, V: Lanes<T>>(value: V, target: *mut T, part: usize) {
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
unsafe fn load<T, V: Lanes<T>>(source: *const T, part: usize) -> V {
    // SAFETY: the caller's.
    unsafe { if part >= V::N { V::load(source) } else { V::load_part(source, part) } }
}

/// Points of three taps: `G g`.
#[inline(always)]
unsafe fn tap_points<T: Element, V: Lanes<T>>(g: [V; 3]) -> [V; 4] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (half, zero) = (V::splat(T::constant(0.5)), V::splat(T::zero()));
        let (sum, middle) = (half.mul_add(g[0].add(g[2]), zero), half.mul_add(g[1], zero));
        [g[0], sum.add(middle), sum.sub(middle), g[2]]
    }
}

/// Transforms weights.
struct Pack<'a, T> {
    geometry: &'a Winograd,
    filters: Filters<'a, T>,
    packed: &'a mut [T],
}

impl<T: Element> Kernel<T> for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { inputs, outputs, .. } = *self.geometry;
        let Filters { weight, input: across, output: along, reversed } = self.filters;
        let packing = self.geometry.packing::<T>();
        let point = packing.len(inputs);
        // Nine taps of up to 16 channels.
        let mut gathered = [T::zero(); 9 * 16];
        for first in (0..packing.blocks * packing.width).step_by(V::N) {
            let (block, within) = (first / packing.width, first % packing.width);
            for input in 0..inputs {
                for j in 0..V::N {
                    let output = first + j;
                    if output < outputs {
                        let taps = &weight[input * across + output * along..][..9];
                        for (t, &tap) in taps.iter().enumerate() {
                            let t = if reversed { 8 - t } else { t };
                            gathered[t * V::N + j] = tap;
                        }
                    } else {
                        for t in 0..9 {
                            gathered[t * V::N + j] = T::zero();
                        }
                    }
                }
                let start = (block * inputs + input) * packing.width + within;
                // SAFETY: vectors have at most 16 lanes; the room was checked by `Winograd::pack`.
                unsafe {
                    let mut rows = [[V::splat(T::zero()); 4]; 3];
                    for (y, row) in rows.iter_mut().enumerate() {
                        let source = gathered.as_ptr().add(3 * y * V::N);
                        let taps =
                            [V::load(source), V::load(source.add(V::N)), V::load(source.add(2 * V::N))];
                        *row = tap_points(taps);
                    }
                    for x in 0..4 {
                        let column = tap_points([rows[0][x], rows[1][x], rows[2][x]]);
                        for (y, value) in column.into_iter().enumerate() {
                            value.store(self.packed.as_mut_ptr().add((4 * y + x) * point + start));
                        }
                    }
                }
            }
        }
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
                for channel in (0..channels).step_by(V::N) {
                    let part = channels - channel;
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
                }
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
                for channel in (0..channels).step_by(V::N) {
                    let part = channels - channel;
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
                }
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
                for channel in (0..channels).step_by(V::N) {
                    let part = channels - channel;
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
                }
            }
        }
    }
}

/// Adds gradients of points `[16, size]` to those of taps `[9, size]`.
struct Taps<'a, T> {
    sums: &'a [T],
    size: usize,
    gradient: &'a mut [T],
}

impl<T: Element> Kernel<T> for Taps<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        for first in (0..self.size).step_by(V::N) {
            let part = self.size - first;
            // SAFETY: the slices hold whole points and taps; partial accesses stop at the last element.
            unsafe {
                let mut rows = [[V::splat(T::zero()); 3]; 4];
                for (y, row) in rows.iter_mut().enumerate() {
                    let mut points = [V::splat(T::zero()); 4];
                    for (x, point) in points.iter_mut().enumerate() {
                        *point = load(self.sums.as_ptr().add((4 * y + x) * self.size + first), part);
                    }
                    *row = taps(points);
                }
                for x in 0..3 {
                    let column = taps([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
                    for (y, value) in column.into_iter().enumerate() {
                        let target = self.gradient.as_mut_ptr().add((3 * y + x) * self.size + first);
                        store(value.add(load(target, part)), target, part);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::convolution::Spread;
    use crate::kernels::{force, levels};

    fn numbers(count: usize, seed: f64) -> Vec<f64> {
        (0..count).map(|i| ((i as f64 + seed) * 0.618_033_988_749_895).fract() - 0.5).collect()
    }

    fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() < 1e-11, "{what}[{i}]: {g} instead of {e}");
        }
    }

    /// Result and gradient of the weights by the direct kernels.
    fn direct(w: &Winograd, images: usize, x: &[f64], weight: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let spread = Spread {
            image: w.input,
            target: [w.output[0] + 2, w.output[1] + 2],
            origin: w.padding.map(|padding| padding as isize),
            step: [1, 1],
            channels: w.inputs,
        };
        let row = spread.target[1] * w.inputs;
        let view = View { size: w.output, row, column: w.inputs };
        let taps = [0, row, 2 * row];
        let packing = Packing::new::<f64>(w.outputs);
        let mut packed = vec![0.0; packing.len(9 * w.inputs)];
        packing.pack(9 * w.inputs, w.outputs, &mut packed, |row, output| {
            weight[(output * w.inputs + row % w.inputs) * 9 + row / w.inputs]
        });
        let (mut padded, mut y) = (vec![0.0; spread.len()], vec![0.0; dy.len()]);
        let mut gradient = vec![1.0; 9 * w.inputs * w.outputs];
        let outputs = w.outputs;
        for image in 0..images {
            let y = &mut y[image * view.pixels() * outputs..][..view.pixels() * outputs];
            let dy = &dy[image * view.pixels() * outputs..][..view.pixels() * outputs];
            spread.run(&x[image * w.input[0] * w.input[1] * w.inputs..], &mut padded);
            let (x, taps, depth) = (&padded[..], &taps[..], 3 * w.inputs);
            Product { x, view, taps, depth, weight: &packed, packing, outputs, y, accumulate: false }.run();
            WeightGradient { x, view, taps, depth, dy, outputs, gradient: &mut gradient }.run();
        }
        (y, gradient)
    }

    #[test]
    fn equals_the_direct_convolution_on_every_geometry() {
        for level in levels() {
            force(level);
            for (input, padding, inputs, outputs, images) in [
                ([8, 8], [1, 1], 16, 16, 3),
                ([5, 7], [1, 1], 3, 21, 2),
                ([6, 4], [0, 0], 33, 5, 2),
                ([3, 4], [2, 1], 7, 40, 1),
                ([32, 32], [1, 1], 40, 9, 2),
                ([1, 1], [1, 1], 4, 4, 5),
            ] {
                let output = std::array::from_fn(|axis| input[axis] + 2 * padding[axis] - 2);
                let winograd = Winograd { input, output, padding, inputs, outputs };
                let name = format!("{level:?} {winograd:?}");
                let x = numbers(images * input[0] * input[1] * inputs, 0.5);
                let dy = numbers(images * output[0] * output[1] * outputs, 0.1);
                let weight = numbers(9 * inputs * outputs, 0.7);
                let (expected, expected_gradient) = direct(&winograd, images, &x, &weight, &dy);

                let mut packed = vec![f64::NAN; winograd.packed_len::<f64>()];
                let filters = Filters { weight: &weight, input: 9, output: 9 * inputs, reversed: false };
                winograd.pack(filters, &mut packed);
                let mut scratch = vec![f64::NAN; winograd.scratch_len::<f64>(images)];
                let mut y = vec![0.25; dy.len()];
                winograd.run(images, &x, &packed, &mut y, true, &mut scratch);
                let y: Vec<f64> = y.into_iter().map(|y| y - 0.25).collect();
                assert_close(&name, &y, &expected);

                let mut gradient = vec![1.0; 9 * inputs * outputs];
                winograd.gradient(images, &x, &dy, &mut gradient, &mut scratch);
                assert_close(&format!("{name}: gradient"), &gradient, &expected_gradient);
            }
        }
    }

    #[test]
    fn the_gradient_of_the_image_is_the_adjoint() {
        let winograd = Winograd { input: [6, 5], output: [6, 5], padding: [1, 1], inputs: 5, outputs: 8 };
        let (x, dy, weight) = (numbers(150, 0.5), numbers(240, 0.1), numbers(360, 0.7));
        let mut scratch =
            vec![0.0; winograd.scratch_len::<f64>(1).max(winograd.back().scratch_len::<f64>(1))];
        let mut run = |geometry: &Winograd, filters, x: &[f64], y: &mut [f64]| {
            let mut packed = vec![0.0; geometry.packed_len::<f64>()];
            geometry.pack(filters, &mut packed);
            geometry.run(1, x, &packed, y, false, &mut scratch);
        };
        let (mut y, mut dx) = (vec![0.0; 240], vec![0.0; 150]);
        let (weight, reversed) = (&weight[..], false);
        run(&winograd, Filters { weight, input: 9, output: 45, reversed }, &x, &mut y);
        run(&winograd.back(), Filters { weight, input: 45, output: 9, reversed: true }, &dy, &mut dx);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (left, right) = (dot(&y, &dy), dot(&x, &dx));
        assert!((left - right).abs() < 1e-11, "{left} and {right}");
    }
}
