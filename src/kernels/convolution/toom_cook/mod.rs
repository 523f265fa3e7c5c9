//! Convolutions of stride 1 whose rows or columns have five or seven taps, with 8 or 10 multiplications for four
//! outputs of such a line instead of 20 or 28: 5x5, 7x7, 1x7, 7x1.
//!
//! In: channels-last images without padding, weights transformed to a matrix for each point. Out: the result, or the
//! gradient of the weights. Along a line four outputs are the transposed product of two polynomials, taps and outputs,
//! by their values at points; a point is a plain matrix product over all tiles. The lines of a kernel are taps of these
//! products, which the transforms along the lines do not touch. Sources: Toom 1963 and Cook 1966 for the product;
//! Winograd, Arithmetic Complexity of Computations, 1980, for filters by transposition.
//!
//! Values at points are larger than the results, so their rounding errors grow; the points decide by how much
//! (Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution, 2020). Five taps have the usual
//! points 0, 1, 2 and 1/2 with both signs and infinity. For seven taps the pairs 7/16, 13/16, 5/4, 19/8 minimise the
//! errors that independent roundings of the products cause, up to rounding to numbers with exact squares and
//! cubes. Root mean squares of relative errors in single precision, 64 channels of 16x16 with AVX-512, as `cargo test
//! single_precision_keeps -- --nocapture` prints them:
//!
//! | kernel | result | direct sum | gradient of weights | direct sum |
//! |---|---|---|---|---|
//! | 5x5 | 9.3e-7 | 6.8e-7 | 7.0e-7 | 1.9e-7 |
//! | 1x7 | 1.7e-6 | 3.6e-7 | 1.8e-6 | 2.0e-7 |
//! | 7x7 | 2.3e-6 | 9.2e-7 | 1.6e-6 | 1.9e-7 |
//!
//! With the pairs 1, 2, 1/2 and 3/4 those of 1x7 would be 1.6 times as large, with 1, 2, 1/2 and 4 nearly four times,
//! and with the minimum itself, which has no exact squares, 1.1 to 1.2 times. Scaling the values of a point changes
//! nothing but the range, and differences taken one after the other instead of sums of multiples nothing either: the
//! products' errors prevail.

mod pack;
mod points;
mod transforms;

use std::iter::once;
use std::ops::Range;

use pack::Pack;
use points::TILE;
use transforms::{Image, Outcome, Slope, Taps};

use super::{Filters, Packing, Plain, Product, View, WeightGradient, block_bytes};
use crate::kernels::lanes::Element;

/// Most taps along an axis.
const MOST_TAPS: usize = 7;
/// Terms that a product sums in registers, if the kernel has several lines: longer sums lose digits, and so few weights
/// stay in the first-level cache.
const TERMS: usize = 128;

/// Geometry of a convolution of stride 1, transformed along one axis.
#[derive(Clone, Copy, Debug)]
pub struct ToomCook {
    /// Axis of the transform: 1 if the kernel has several lines.
    pub axis: usize,
    /// Taps along the axis, 5 or 7.
    pub taps: usize,
    /// Lines of the kernel across.
    pub rows: usize,
    /// Size of the image along the axis and across.
    pub input: [usize; 2],
    /// Size of the result along the axis and across.
    pub output: [usize; 2],
    /// Zeros before the image along the axis and across; behind it as many as the result needs.
    pub padding: [usize; 2],
    /// Channels of the image.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
}

/// Lines of results that go through the products together: of whole images, if the kernel has several lines.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
    /// Images, 1 if the kernel has one line: their lines of the same place lie side by side, so that a range of lines
    /// is a range of rows of a product.
    images: usize,
}

impl ToomCook {
    /// The geometry of a convolution, if its kernel is one of those above.
    pub fn new(plain: Plain) -> Option<Self> {
        let Plain { kernel, input, output, padding, inputs, outputs } = plain;
        if ![[1, 7], [7, 1], [5, 5], [7, 7]].contains(&kernel) || (0..2).any(|k| padding[k] >= kernel[k]) {
            return None;
        }
        let axis = usize::from(kernel[1] > 1);
        let turned = |sizes: [usize; 2]| [sizes[axis], sizes[1 - axis]];
        let [taps, rows] = turned(kernel);
        let (input, output, padding) = (turned(input), turned(output), turned(padding));
        Some(Self { axis, taps, rows, input, output, padding, inputs, outputs })
    }

    /// The geometry of the gradient by the image, which is a convolution of the result's gradient.
    pub fn back(&self) -> Self {
        Self {
            input: self.output,
            output: self.input,
            padding: [self.taps - 1 - self.padding[0], self.rows - 1 - self.padding[1]],
            inputs: self.outputs,
            outputs: self.inputs,
            ..*self
        }
    }

    fn packing<T: Element>(&self) -> Packing {
        Packing::new::<T>(self.outputs)
    }

    /// Elements of a line across, of an image of this size, and from an element along a line to the next.
    #[inline(always)]
    fn strides(&self, [length, lines]: [usize; 2], channels: usize) -> [usize; 3] {
        let image = lines * length * channels;
        if self.axis == 1 {
            [length * channels, image, channels]
        } else {
            [channels, image, lines * channels]
        }
    }

    /// Lines of points that an image has, those of zeros around it included.
    #[inline(always)]
    fn stored(&self) -> usize {
        self.output[1] + self.rows - 1
    }

    fn points(&self) -> usize {
        self.taps + TILE - 1
    }

    /// Lines of the kernel that a product takes together.
    #[inline(always)]
    fn group(&self) -> usize {
        (TERMS / self.inputs.max(1)).clamp(1, self.rows)
    }

    /// Where a line of a block starts in a point's packed weights `[groups of lines][blocks][lines][inputs][width]`.
    #[inline(always)]
    fn weight_line(&self, packing: &Packing, line: usize, block: usize) -> usize {
        let group = self.group();
        let first = line - line % group;
        let lines = group.min(self.rows - first);
        (first * packing.blocks + block * lines + line - first) * self.inputs * packing.width
    }

    /// Elements from a point's packed weights to the next: a cache line more than needed, see `point_strides`.
    #[inline(always)]
    fn weight_stride<T>(&self, packing: &Packing) -> usize {
        packing.len(self.rows * self.inputs) + 64 / size_of::<T>()
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        self.points() * self.weight_stride::<T>(&self.packing::<T>())
    }

    /// Transforms `filters` to packed matrices, one for each point.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        let last = (self.inputs - 1) * filters.input + (self.outputs - 1) * filters.output;
        assert!(filters.weight.len() >= last + self.taps * self.rows, "weights too short");
        assert!(packed.len() >= self.packed_len::<T>(), "room for packed weights too short");
        assert!(self.rows <= MOST_TAPS, "no such kernel");
        match self.taps {
            5 => T::dispatch(Pack::<T, 8> { geometry: self, filters, packed }),
            7 => T::dispatch(Pack::<T, 10> { geometry: self, filters, packed }),
            taps => panic!("no algorithm for {taps} taps"),
        }
    }

    fn tiles(&self) -> usize {
        self.output[0].div_ceil(TILE)
    }

    /// Most lines of a block.
    fn most<T: Element>(&self) -> usize {
        let tiles = self.tiles();
        let bytes = |lines: usize, stored: usize| {
            size_of::<T>() * self.points() * tiles * (self.inputs * stored + self.outputs * lines)
        };
        if self.rows == 1 {
            return (block_bytes::<T>() / bytes(1, 1)).max(16_usize.div_ceil(tiles));
        }
        let lines = self.output[1];
        (block_bytes::<T>() / bytes(lines, self.stored())).max(1) * lines
    }

    /// Blocks of equal size, the last may be smaller.
    fn blocks<T: Element>(&self, images: usize) -> impl Iterator<Item = Block> {
        let unit = if self.rows == 1 { 1 } else { self.output[1] };
        let total = images * self.output[1];
        let size = total.div_ceil(total.div_ceil(self.most::<T>()).max(1)).max(1).next_multiple_of(unit);
        (0..total).step_by(size).map(move |first| {
            let count = size.min(total - first);
            Block { first, count, images: if self.rows == 1 { 1 } else { count / unit } }
        })
    }

    /// Image and line of line `index` of a block, where images have `lines`.
    #[inline(always)]
    fn place(&self, block: Block, lines: usize, index: usize) -> (usize, usize) {
        if self.rows == 1 {
            let number = block.first + index;
            return (number / lines, number % lines);
        }
        (block.first / self.output[1] + index % block.images, index / block.images)
    }

    /// Elements from a point of the image and of the result to the next: a cache line more than needed, for powers
    /// of two would share cache sets.
    fn point_strides<T>(&self, lines: usize) -> [usize; 2] {
        let line = 64 / size_of::<T>();
        let tiles = self.tiles();
        let stored = if self.rows == 1 { lines } else { lines / self.output[1] * self.stored() };
        [stored * tiles * self.inputs, lines * tiles * self.outputs]
            .map(|elements| elements.next_multiple_of(line) + line)
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let [from, to] = self.point_strides::<T>(self.most::<T>().min(images * self.output[1]));
        self.points() * (from + to + self.inputs * (2 * T::lanes()).min(self.outputs))
    }

    fn check<T>(&self, images: usize, x: &[T], y: &[T]) {
        let kernel = [self.taps, self.rows];
        assert!(self.rows <= MOST_TAPS && (self.rows == 1 || self.axis == 1), "no such kernel");
        assert!((0..2).all(|k| self.padding[k] < kernel[k]), "padding wider than the kernel");
        assert!(
            (0..2).all(|k| self.output[k] + kernel[k] <= self.input[k] + 2 * self.padding[k] + 1),
            "result larger than image and padding"
        );
        assert!(x.len() >= images * self.input[0] * self.input[1] * self.inputs, "image too short");
        assert!(y.len() >= images * self.output[0] * self.output[1] * self.outputs, "result too short");
    }

    /// Lines of results of a block, side by side, that some lines of the kernel reach: for the others they meet zeros.
    fn reached(&self, block: Block, lines: Range<usize>) -> Range<usize> {
        if self.rows == 1 {
            return 0..block.count;
        }
        let start = self.padding[1].saturating_sub(lines.end - 1);
        let end = (self.input[1] + self.padding[1]).saturating_sub(lines.start).min(self.output[1]);
        start..end.max(start)
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
        match self.taps {
            5 => self.result::<T, 8>(images, x, packed, y, accumulate, scratch),
            7 => self.result::<T, 10>(images, x, packed, y, accumulate, scratch),
            taps => panic!("no algorithm for {taps} taps"),
        }
    }

    fn result<T: Element, const P: usize>(
        &self,
        images: usize,
        x: &[T],
        packed: &[T],
        y: &mut [T],
        accumulate: bool,
        scratch: &mut [T],
    ) {
        let packing = self.packing::<T>();
        let size = self.weight_stride::<T>(&packing);
        let group = self.group();
        // The first group overwrites all lines: the one that meets the fewest zeros.
        let first = self.padding[1] - self.padding[1] % group;
        let groups = || once(first).chain((0..self.rows).step_by(group).filter(move |&line| line != first));
        for block in self.blocks::<T>(images) {
            let [from, to] = self.point_strides::<T>(block.count);
            let (points, rest) = scratch.split_at_mut(P * from);
            let products = &mut rest[..P * to];
            T::dispatch(Image::<T, P> { geometry: self, block, x, points, stride: from });
            let pitch = block.images * self.tiles();
            let taps: [usize; MOST_TAPS] = std::array::from_fn(|line| line * pitch * self.inputs);
            for (p, line) in (0..P).flat_map(|p| groups().map(move |line| (p, line))) {
                let lines = line..self.rows.min(line + group);
                let accumulate = line != first;
                let reached = self.reached(block, if accumulate { lines.clone() } else { 0..self.rows });
                if reached.is_empty() {
                    continue;
                }
                Product {
                    x: &points[p * from + reached.start * pitch * self.inputs..],
                    view: View::matrix(reached.len() * pitch, self.inputs),
                    taps: &taps[lines],
                    depth: self.inputs,
                    weight: &packed[p * size + self.weight_line(&packing, line, 0)..],
                    packing,
                    outputs: self.outputs,
                    y: &mut products[p * to + reached.start * pitch * self.outputs..],
                    accumulate,
                }
                .run();
            }
            T::dispatch(Outcome::<T, P> { geometry: self, block, products, stride: to, y, accumulate });
        }
    }

    /// Adds the gradient of the weights by `images` images to `gradient [lines, taps, inputs, outputs]`.
    pub fn gradient<T: Element>(
        &self,
        images: usize,
        x: &[T],
        dy: &[T],
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        self.check(images, x, dy);
        assert!(gradient.len() >= self.taps * self.rows * self.inputs * self.outputs, "gradient too short");
        match self.taps {
            5 => self.weight_gradient::<T, 8>(images, x, dy, gradient, scratch),
            7 => self.weight_gradient::<T, 10>(images, x, dy, gradient, scratch),
            taps => panic!("no algorithm for {taps} taps"),
        }
    }

    fn weight_gradient<T: Element, const P: usize>(
        &self,
        images: usize,
        x: &[T],
        dy: &[T],
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        // A few output channels at a time: their sums stay in the second-level cache.
        let width = (2 * T::lanes()).min(self.outputs);
        let size = self.inputs * width;
        let (sums, scratch) = scratch.split_at_mut(P * size);
        for block in self.blocks::<T>(images) {
            let [from, to] = self.point_strides::<T>(block.count);
            let (points, rest) = scratch.split_at_mut(P * from);
            let slopes = &mut rest[..P * to];
            T::dispatch(Image::<T, P> { geometry: self, block, x, points, stride: from });
            T::dispatch(Slope::<T, P> { geometry: self, block, dy, points: slopes, stride: to });
            let pitch = block.images * self.tiles();
            for (output, line) in (0..self.outputs)
                .step_by(width)
                .flat_map(|output| (0..self.rows).map(move |line| (output, line)))
            {
                let reached = self.reached(block, line..line + 1);
                if reached.is_empty() {
                    continue;
                }
                let outputs = width.min(self.outputs - output);
                for p in 0..P {
                    WeightGradient {
                        x: &points[p * from + (reached.start + line) * pitch * self.inputs..],
                        view: View::matrix(reached.len() * pitch, self.inputs),
                        taps: &[0],
                        depth: self.inputs,
                        dy: &slopes[p * to + reached.start * pitch * self.outputs + output..],
                        stride: self.outputs,
                        outputs,
                        gradient: &mut sums[p * size..(p + 1) * size],
                        accumulate: false,
                    }
                    .run();
                }
                let all = self.inputs * self.outputs;
                let gradient = &mut gradient[line * self.taps * all..(line + 1) * self.taps * all];
                T::dispatch(Taps::<T, P> { geometry: self, sums, size, output, outputs, gradient });
            }
        }
    }
}
