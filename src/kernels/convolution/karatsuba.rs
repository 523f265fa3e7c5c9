//! Convolutions 1x7 and 7x1 of stride 1 with 17 multiplications for four outputs instead of 28.
//!
//! In: channels-last images without padding, weights transformed to nine matrices. Out: the result, or the
//! gradient of the weights. The taps are two pieces of four, the last one zero; each is Karatsuba's product of
//! two halves, twice nested and transposed: nine points of a tile of four outputs, with sums and differences only.
//! The second piece meets the first one's points of the next tile, so that a point is one product of twice the depth.

use super::{Filters, Packing, Product, View, WeightGradient, block_bytes, load, store, vectors};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Taps of the kernel.
const TAPS: usize = 7;
/// Outputs of a tile.
const TILE: usize = 4;
/// Points of a tile.
const POINTS: usize = 9;

/// Geometry of a convolution 7x1 (axis 0) or 1x7 (axis 1) of stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Karatsuba {
    /// Axis of the kernel.
    pub axis: usize,
    /// Length of the image along the axis.
    pub input: usize,
    /// Length of the result along the axis.
    pub output: usize,
    /// Length of both across.
    pub lines: usize,
    /// Zeros before the image along the axis; behind it as many as the result needs.
    pub padding: usize,
    /// Channels of the image.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
}

/// Lines that go through the products together.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
}

impl Karatsuba {
    /// The geometry of the gradient by the image, which is a convolution of the result's gradient.
    pub fn back(&self) -> Self {
        Self {
            input: self.output,
            output: self.input,
            padding: TAPS - 1 - self.padding,
            inputs: self.outputs,
            outputs: self.inputs,
            ..*self
        }
    }

    fn packing<T: Element>(&self) -> Packing {
        Packing::new::<T>(self.outputs)
    }

    /// Elements of a line across, of an image, and from an element along a line to the next.
    #[inline(always)]
    fn strides(&self, length: usize, channels: usize) -> [usize; 3] {
        let image = self.lines * length * channels;
        if self.axis == 1 {
            [length * channels, image, channels]
        } else {
            [channels, image, self.lines * channels]
        }
    }

    /// Channels of the image that a point reads: the last point of the second piece has the missing tap only.
    fn depth(&self, point: usize) -> usize {
        if point + 1 == POINTS { self.inputs } else { 2 * self.inputs }
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        POINTS * self.packing::<T>().len(2 * self.inputs)
    }

    /// Transforms `filters` to nine packed matrices.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        let last = (self.inputs - 1) * filters.input + (self.outputs - 1) * filters.output;
        assert!(filters.weight.len() >= last + TAPS, "weights too short");
        assert!(packed.len() >= self.packed_len::<T>(), "room for packed weights too short");
        let packing = self.packing::<T>();
        let point = packing.len(2 * self.inputs);
        for block in 0..packing.blocks {
            for row in 0..2 * self.inputs {
                let (piece, input) = (row / self.inputs, row % self.inputs);
                for j in 0..packing.width {
                    let output = block * packing.width + j;
                    let mut taps = [T::zero(); TILE];
                    if output < self.outputs {
                        let weight =
                            &filters.weight[input * filters.input + output * filters.output..][..TAPS];
                        for (t, tap) in taps.iter_mut().enumerate().take(TAPS - TILE * piece) {
                            let t = TILE * piece + t;
                            *tap = weight[if filters.reversed { TAPS - 1 - t } else { t }];
                        }
                    }
                    for (p, value) in tap_points(taps).into_iter().enumerate() {
                        if row < self.depth(p) {
                            let start = (block * self.depth(p) + row) * packing.width;
                            packed[p * point + start + j] = value;
                        }
                    }
                }
            }
        }
    }

    fn tiles(&self) -> usize {
        self.output.div_ceil(TILE)
    }

    /// Most lines of a block.
    fn most<T: Element>(&self) -> usize {
        let tiles = self.tiles();
        let line = size_of::<T>() * POINTS * ((tiles + 1) * self.inputs + tiles * self.outputs);
        (block_bytes::<T>() / line).max(16_usize.div_ceil(tiles))
    }

    /// Blocks of equal size, the last may be smaller.
    fn blocks<T: Element>(&self, images: usize) -> impl Iterator<Item = Block> {
        let total = images * self.lines;
        let size = total.div_ceil(total.div_ceil(self.most::<T>()).max(1)).max(1);
        (0..total).step_by(size).map(move |first| Block { first, count: size.min(total - first) })
    }

    /// Elements from a point of the image and of the result to the next: a cache line more than needed, for powers
    /// of two would share cache sets.
    fn point_strides<T>(&self, lines: usize) -> [usize; 2] {
        let line = 64 / size_of::<T>();
        let tiles = self.tiles();
        [lines * (tiles + 1) * self.inputs, lines * tiles * self.outputs]
            .map(|elements| elements.next_multiple_of(line) + line)
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let [from, to] = self.point_strides::<T>(self.most::<T>().min(images * self.lines));
        POINTS * (from + to + 2 * self.inputs * (2 * T::lanes()).min(self.outputs))
    }

    fn check<T>(&self, images: usize, x: &[T], y: &[T]) {
        assert!(self.padding < TAPS, "padding wider than the kernel");
        assert!(
            self.output + TAPS <= self.input + 2 * self.padding + 1,
            "result larger than image and padding"
        );
        assert!(x.len() >= images * self.lines * self.input * self.inputs, "image too short");
        assert!(y.len() >= images * self.lines * self.output * self.outputs, "result too short");
    }

    /// The points of a block as rows of a product.
    fn view(&self, block: Block) -> View {
        let tiles = self.tiles();
        View { size: [block.count, tiles], row: (tiles + 1) * self.inputs, column: self.inputs }
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
        let packing = self.packing::<T>();
        let size = packing.len(2 * self.inputs);
        for block in self.blocks::<T>(images) {
            let [from, to] = self.point_strides::<T>(block.count);
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let products = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, block, x, points, stride: from });
            for p in 0..POINTS {
                Product {
                    x: &points[p * from..],
                    view: self.view(block),
                    taps: &[0],
                    depth: self.depth(p),
                    weight: &packed[p * size..(p + 1) * size],
                    packing,
                    outputs: self.outputs,
                    y: &mut products[p * to..],
                    accumulate: false,
                }
                .run();
            }
            T::dispatch(Outcome { geometry: self, block, products, stride: to, y, accumulate });
        }
    }

    /// Adds the gradient of the weights by `images` images to `gradient [7, inputs, outputs]`.
    pub fn gradient<T: Element>(
        &self,
        images: usize,
        x: &[T],
        dy: &[T],
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        self.check(images, x, dy);
        assert!(gradient.len() >= TAPS * self.inputs * self.outputs, "gradient too short");
        // A few output channels at a time: their sums stay in the second-level cache.
        let width = (2 * T::lanes()).min(self.outputs);
        let size = 2 * self.inputs * width;
        let (sums, scratch) = scratch.split_at_mut(POINTS * size);
        for block in self.blocks::<T>(images) {
            let [from, to] = self.point_strides::<T>(block.count);
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let slopes = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, block, x, points, stride: from });
            T::dispatch(Slope { geometry: self, block, dy, points: slopes, stride: to });
            for output in (0..self.outputs).step_by(width) {
                let outputs = width.min(self.outputs - output);
                for p in 0..POINTS {
                    WeightGradient {
                        x: &points[p * from..],
                        view: self.view(block),
                        taps: &[0],
                        depth: self.depth(p),
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
}

/// Points of four taps.
fn tap_points<T: Element>(g: [T; TILE]) -> [T; POINTS] {
    let inner = |a: T, b: T| [a, a + b, b];
    let ([a, b, c], [d, e, f], [g, h, i]) =
        (inner(g[0], g[1]), inner(g[0] + g[2], g[1] + g[3]), inner(g[2], g[3]));
    [a, b, c, d, e, f, g, h, i]
}

/// What a window of three contributes to the points of two taps.
#[inline(always)]
unsafe fn input_points<T, V: Lanes<T>>(d: [V; 3]) -> [V; 3] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [d[0].sub(d[1]), d[1], d[1].sub(d[2])] }
}

/// Gradients of three points by those of two outputs.
#[inline(always)]
unsafe fn output_points<T: Element, V: Lanes<T>>(y: [V; 2]) -> [V; 3] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [y[0], y[0].add(y[1]), V::splat(T::zero()).sub(y[1])] }
}

/// Transforms lines of images to points `[9, lines, tiles + 1, channels]`.
struct Image<'a, T> {
    geometry: &'a Karatsuba,
    block: Block,
    x: &'a [T],
    points: &'a mut [T],
    stride: usize,
}

impl<T: Element> Kernel<T> for Image<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { input, lines, padding, inputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(input, channels);
        let tiles = self.geometry.tiles() + 1;
        for line in 0..self.block.count {
            let number = self.block.first + line;
            let start = (number / lines) * image + (number % lines) * across;
            for tile in 0..tiles {
                // Elements of the window that lie in the image.
                let begin = padding.saturating_sub(TILE * tile).min(7);
                let end = (input + padding).saturating_sub(TILE * tile).min(7).max(begin);
                // SAFETY: elements that are loaded lie in the image, see `Karatsuba::check`; partial accesses stop
                // at the last channel.
                unsafe {
                    let x = self.x.as_ptr().add(start);
                    let x = x.wrapping_offset((TILE * tile) as isize * along as isize);
                    let x = x.wrapping_offset(-(padding as isize * along as isize));
                    let target = self.points.as_mut_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let x = x.wrapping_add(channel);
                            let mut d = [V::splat(T::zero()); 7];
                            if end - begin == 7 {
                                for (k, d) in d.iter_mut().enumerate() {
                                    *d = load(x.wrapping_add(k * along), part);
                                }
                            } else {
                                for k in begin..end {
                                    d[k] = load(x.wrapping_add(k * along), part);
                                }
                            }
                            let windows = [
                                [d[0].sub(d[2]), d[1].sub(d[3]), d[2].sub(d[4])],
                                [d[2], d[3], d[4]],
                                [d[2].sub(d[4]), d[3].sub(d[5]), d[4].sub(d[6])],
                            ];
                            for (outer, window) in windows.into_iter().enumerate() {
                                for (inner, point) in input_points(window).into_iter().enumerate() {
                                    let p = 3 * outer + inner;
                                    store(point, target.add(p * self.stride + channel), part);
                                }
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Transforms points `[9, lines, tiles, channels]` to outputs.
struct Outcome<'a, T> {
    geometry: &'a Karatsuba,
    block: Block,
    products: &'a [T],
    stride: usize,
    y: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Kernel<T> for Outcome<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { output, lines, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let number = self.block.first + line;
            let start = (number / lines) * image + (number % lines) * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are accessed, see `Karatsuba::check`; partial accesses stop at the
                // last channel.
                unsafe {
                    let target = self.y.as_mut_ptr().add(start + TILE * tile * along);
                    let source = self.products.as_ptr().add((line * tiles + tile) * channels);
                    vectors::<T, V>(
                        channels,
                        #[inline(always)]
                        |channel, part| {
                            let mut pairs = [[V::splat(T::zero()); 2]; 3];
                            for (outer, pair) in pairs.iter_mut().enumerate() {
                                let source = source.add(3 * outer * self.stride + channel);
                                let a = load::<T, V>(source, part);
                                let b = load::<T, V>(source.add(self.stride), part);
                                let c = load::<T, V>(source.add(2 * self.stride), part);
                                *pair = [a.add(b), b.sub(c)];
                            }
                            let values = [
                                pairs[0][0].add(pairs[1][0]),
                                pairs[0][1].add(pairs[1][1]),
                                pairs[1][0].sub(pairs[2][0]),
                                pairs[1][1].sub(pairs[2][1]),
                            ];
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

/// Transforms gradients of outputs to those of points `[9, lines, tiles, channels]`.
struct Slope<'a, T> {
    geometry: &'a Karatsuba,
    block: Block,
    dy: &'a [T],
    points: &'a mut [T],
    stride: usize,
}

impl<T: Element> Kernel<T> for Slope<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Karatsuba { output, lines, outputs: channels, .. } = *self.geometry;
        let [across, image, along] = self.geometry.strides(output, channels);
        let tiles = self.geometry.tiles();
        for line in 0..self.block.count {
            let number = self.block.first + line;
            let start = (number / lines) * image + (number % lines) * across;
            for tile in 0..tiles {
                let count = TILE.min(output - TILE * tile);
                // SAFETY: only outputs that exist are read, see `Karatsuba::check`; partial accesses stop at the last
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
                            let (low, high) = (output_points([y[0], y[2]]), output_points([y[1], y[3]]));
                            for outer in 0..3 {
                                let points = output_points([low[outer], high[outer]]);
                                for (inner, point) in points.into_iter().enumerate() {
                                    let p = 3 * outer + inner;
                                    store(point, target.add(p * self.stride + channel), part);
                                }
                            }
                        },
                    );
                }
            }
        }
    }
}

/// Adds gradients of points `[9, pieces, inputs, outputs]` of some outputs to those of taps
/// `[7, inputs, all outputs]`.
struct Taps<'a, T> {
    geometry: &'a Karatsuba,
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
        let Karatsuba { inputs, outputs: all, .. } = *self.geometry;
        for row in 0..2 * inputs {
            let (piece, input) = (row / inputs, row % inputs);
            vectors::<T, V>(
                self.outputs,
                #[inline(always)]
                |first, part| {
                    // SAFETY: the slices hold whole points and taps; partial accesses stop at the last output.
                    unsafe {
                        let source = self.sums.as_ptr().add(row * self.outputs + first);
                        let target = self.gradient.as_mut_ptr().add(input * all + self.output + first);
                        let mut pairs = [[V::splat(T::zero()); 2]; 3];
                        for (outer, pair) in pairs.iter_mut().enumerate() {
                            let source = source.add(3 * outer * self.size);
                            let a = load::<T, V>(source, part);
                            let b = load::<T, V>(source.add(self.size), part);
                            let c = load::<T, V>(source.add(2 * self.size), part);
                            *pair = [a.add(b), b.add(c)];
                        }
                        let values = [
                            pairs[0][0].add(pairs[1][0]),
                            pairs[0][1].add(pairs[1][1]),
                            pairs[1][0].add(pairs[2][0]),
                            pairs[1][1].add(pairs[2][1]),
                        ];
                        for (k, value) in values.into_iter().enumerate().take(TAPS - TILE * piece) {
                            let target = target.add((TILE * piece + k) * inputs * all);
                            store(value.add(load(target, part)), target, part);
                        }
                    }
                },
            );
        }
    }
}
