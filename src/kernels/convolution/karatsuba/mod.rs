//! Convolutions of stride 1 whose rows or columns have five or seven taps, with 13 or 17 multiplications for four outputs
//! of such a line instead of 20 or 28: 5x5, 7x7, 1x7, 7x1.
//!
//! In: channels-last images without padding, weights transformed to nine matrices. Out: the result, or the
//! gradient of the weights. The taps are two pieces of four, filled up with zeros; each is Karatsuba's product of
//! two halves, twice nested and transposed: nine points of a tile of four outputs, with sums and differences only.
//! The second piece meets the first one's points of the next tile, so that a point is one product of twice the depth,
//! unless the second piece's zeros leave nothing of it. The lines of a kernel are taps of these products, which the
//! transforms along the lines do not touch.

mod transforms;

use transforms::{Image, Outcome, Slope, Taps};

use super::{Filters, Packing, Product, View, WeightGradient, block_bytes};
use crate::kernels::lanes::Element;

/// Outputs of a tile.
const TILE: usize = 4;
/// Points of a tile.
const POINTS: usize = 9;
/// Most taps along an axis.
const MOST_TAPS: usize = 7;

/// Geometry of a convolution of stride 1, transformed along one axis.
#[derive(Clone, Copy, Debug)]
pub struct Karatsuba {
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
}

impl Block {
    /// Parts of the block that products can take at once: their number and lines.
    fn parts(self, geometry: &Karatsuba) -> (usize, usize) {
        if geometry.rows == 1 {
            (1, self.count)
        } else {
            (self.count / geometry.output[1], geometry.output[1])
        }
    }
}

impl Karatsuba {
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

    /// Channels of the image that a point reads: those of the second piece only if one of its taps is in the point.
    fn depth(&self, point: usize) -> usize {
        let second = if self.taps == 5 { [0, 1, 3, 4].contains(&point) } else { point + 1 < POINTS };
        if second { 2 * self.inputs } else { self.inputs }
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        POINTS * self.packing::<T>().len(2 * self.rows * self.inputs)
    }

    /// Transforms `filters` to nine packed matrices.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        let taps = self.taps * self.rows;
        let last = (self.inputs - 1) * filters.input + (self.outputs - 1) * filters.output;
        assert!(filters.weight.len() >= last + taps, "weights too short");
        assert!(packed.len() >= self.packed_len::<T>(), "room for packed weights too short");
        let packing = self.packing::<T>();
        let point = packing.len(2 * self.rows * self.inputs);
        for block in 0..packing.blocks {
            for (line, row) in
                (0..self.rows).flat_map(|line| (0..2 * self.inputs).map(move |row| (line, row)))
            {
                let (piece, input) = (row / self.inputs, row % self.inputs);
                for j in 0..packing.width {
                    let output = block * packing.width + j;
                    let mut tile = [T::zero(); TILE];
                    if output < self.outputs {
                        let weight =
                            &filters.weight[input * filters.input + output * filters.output..][..taps];
                        for (t, tap) in tile.iter_mut().enumerate().take(self.taps - TILE * piece) {
                            let t = line * self.taps + TILE * piece + t;
                            *tap = weight[if filters.reversed { taps - 1 - t } else { t }];
                        }
                    }
                    for (p, value) in tap_points(tile).into_iter().enumerate() {
                        let depth = self.depth(p);
                        if row < depth {
                            let start = ((block * self.rows + line) * depth + row) * packing.width;
                            packed[p * point + start + j] = value;
                        }
                    }
                }
            }
        }
    }

    fn tiles(&self) -> usize {
        self.output[0].div_ceil(TILE)
    }

    /// Most lines of a block.
    fn most<T: Element>(&self) -> usize {
        let tiles = self.tiles();
        let bytes = |lines: usize, stored: usize| {
            size_of::<T>() * POINTS * ((tiles + 1) * self.inputs * stored + tiles * self.outputs * lines)
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
        (0..total).step_by(size).map(move |first| Block { first, count: size.min(total - first) })
    }

    /// Elements from a point of the image and of the result to the next: a cache line more than needed, for powers
    /// of two would share cache sets.
    fn point_strides<T>(&self, lines: usize) -> [usize; 2] {
        let line = 64 / size_of::<T>();
        let tiles = self.tiles();
        let stored = if self.rows == 1 { lines } else { lines / self.output[1] * self.stored() };
        [stored * (tiles + 1) * self.inputs, lines * tiles * self.outputs]
            .map(|elements| elements.next_multiple_of(line) + line)
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let [from, to] = self.point_strides::<T>(self.most::<T>().min(images * self.output[1]));
        POINTS * (from + to + 2 * self.inputs * (2 * T::lanes()).min(self.outputs))
    }

    fn check<T>(&self, images: usize, x: &[T], y: &[T]) {
        let kernel = [self.taps, self.rows];
        assert!([5, MOST_TAPS].contains(&self.taps) && (self.rows == 1 || self.axis == 1), "no such kernel");
        assert!((0..2).all(|k| self.padding[k] < kernel[k]), "padding wider than the kernel");
        assert!(
            (0..2).all(|k| self.output[k] + kernel[k] <= self.input[k] + 2 * self.padding[k] + 1),
            "result larger than image and padding"
        );
        assert!(x.len() >= images * self.input[0] * self.input[1] * self.inputs, "image too short");
        assert!(y.len() >= images * self.output[0] * self.output[1] * self.outputs, "result too short");
    }

    /// Points of some lines as rows of a product.
    fn view(&self, lines: usize) -> View {
        let tiles = self.tiles();
        View { size: [lines, tiles], row: (tiles + 1) * self.inputs, column: self.inputs }
    }

    /// Where the kernel's lines meet the points.
    fn line_taps(&self) -> [usize; MOST_TAPS] {
        std::array::from_fn(|line| line * (self.tiles() + 1) * self.inputs)
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
        let size = packing.len(2 * self.rows * self.inputs);
        let taps = self.line_taps();
        let taps = &taps[..self.rows];
        for block in self.blocks::<T>(images) {
            let (parts, lines) = block.parts(self);
            let [part_from, part_to] =
                [self.stored() * (self.tiles() + 1) * self.inputs, lines * self.tiles() * self.outputs];
            let [from, to] = self.point_strides::<T>(block.count);
            let (points, rest) = scratch.split_at_mut(POINTS * from);
            let products = &mut rest[..POINTS * to];
            T::dispatch(Image { geometry: self, block, x, points, stride: from });
            for (p, part) in (0..POINTS).flat_map(|p| (0..parts).map(move |part| (p, part))) {
                Product {
                    x: &points[p * from + part * part_from..],
                    view: self.view(lines),
                    taps,
                    depth: self.depth(p),
                    weight: &packed[p * size..(p + 1) * size],
                    packing,
                    outputs: self.outputs,
                    y: &mut products[p * to + part * part_to..],
                    accumulate: false,
                }
                .run();
            }
            T::dispatch(Outcome { geometry: self, block, products, stride: to, y, accumulate });
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
            let (parts, lines) = block.parts(self);
            let [part_from, part_to] =
                [self.stored() * (self.tiles() + 1) * self.inputs, lines * self.tiles() * self.outputs];
            let taps = self.line_taps();
            for (output, line) in (0..self.outputs)
                .step_by(width)
                .flat_map(|output| (0..self.rows).map(move |line| (output, line)))
            {
                let outputs = width.min(self.outputs - output);
                for (p, part) in (0..POINTS).flat_map(|p| (0..parts).map(move |part| (p, part))) {
                    WeightGradient {
                        x: &points[p * from + part * part_from..],
                        view: self.view(lines),
                        taps: &taps[line..=line],
                        depth: self.depth(p),
                        dy: &slopes[p * to + part * part_to + output..],
                        stride: self.outputs,
                        outputs,
                        gradient: &mut sums[p * size..(p + 1) * size],
                        accumulate: part > 0,
                    }
                    .run();
                }
                let all = self.inputs * self.outputs;
                let gradient = &mut gradient[line * self.taps * all..(line + 1) * self.taps * all];
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
