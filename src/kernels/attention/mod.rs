//! Scaled dot-product self-attention of one image; the products are those of convolutions.
//!
//! In: `[T, 3 * heads * width]` with queries, keys and values one after the other, head after head. Out:
//! `[T, heads * width]`. Scores are kept transposed, `[key, query]`, so that the softmax has no horizontal sums.

mod narrow;

use super::convolution::{Packing, Product, View, WeightGradient};
use super::lanes::{Element, vectorized};

/// Geometry of self-attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Number of positions.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
}

/// Which third of the input a head reads.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

/// Lowest exponent of two of a probability before it is normalised. What is less likely is lost in rounding anyway, and
/// gradients by it would be subnormal numbers, with which processors compute ten times slower or worse.
fn lowest<T: Element>() -> f64 {
    if size_of::<T>() == 4 { -60.0 } else { -126.0 }
}

impl Attention {
    /// Elements of scratch space that the forward and backward passes need.
    pub fn scratch_len<T: Element>(&self) -> usize {
        if narrow::serves::<T>(self.width) {
            return narrow::scratch_len(self);
        }
        let across = Packing::new::<T>(self.tokens).len(self.width);
        let along = Packing::new::<T>(self.width).len(self.tokens);
        2 * self.tokens * self.tokens + 2 * self.tokens + self.tokens * self.width + across.max(along)
    }

    /// Numbers that the forward pass can keep for the backward pass.
    pub fn sums_len(&self) -> usize {
        narrow::sums_len(self)
    }

    /// `y = softmax(q k^T / sqrt(width)) v` for every head; `sums` is empty or has room for what the gradient needs.
    pub fn run<T: Element>(&self, x: &[T], y: &mut [T], sums: &mut [T], scratch: &mut [T]) {
        if narrow::serves::<T>(self.width) {
            return narrow::run(self, x, y, sums, scratch);
        }
        let (t, w, inner) = (self.tokens, self.width, self.heads * self.width);
        let (probabilities, rest) = scratch.split_at_mut(t * t);
        for head in 0..self.heads {
            self.probabilities(x, head, probabilities, rest);
            let result = &mut rest[..t * w];
            result.fill(T::zero());
            self.gather(x, head, Part::Values, probabilities, result);
            for (d, row) in result.chunks_exact(t).enumerate() {
                for (i, &value) in row.iter().enumerate() {
                    y[i * inner + head * w + d] = value;
                }
            }
        }
    }

    /// `dx = ` gradient by queries, keys and values, overwritten; `y` and `sums` are what [`Attention::run`] gave for `x`.
    pub fn gradient<T: Element>(
        &self,
        x: &[T],
        [y, dy]: [&[T]; 2],
        sums: &[T],
        dx: &mut [T],
        scratch: &mut [T],
    ) {
        if narrow::serves::<T>(self.width) {
            return narrow::gradient(self, x, [y, dy], sums, dx, scratch);
        }
        let (t, w, inner) = (self.tokens, self.width, self.heads * self.width);
        let (probabilities, rest) = scratch.split_at_mut(t * t);
        let (slopes, rest) = rest.split_at_mut(t * t);
        let (result, rest) = rest.split_at_mut(t * w);
        let scale = self.scale::<T>();
        for head in 0..self.heads {
            self.probabilities(x, head, probabilities, rest);
            // [key, query] of dP = v dy^T, then of the scores' gradient.
            let output = |i: usize, d: usize| dy[i * inner + head * w + d];
            self.scores(x, head, Part::Values, output, slopes, rest);
            self.scatter(probabilities, output, result, rest);
            self.place(result, head, Part::Values, T::one(), dx);
            let mean = &mut rest[..t];
            vectorized(
                #[inline(always)]
                || {
                    mean.fill(T::zero());
                    for (p, slope) in probabilities.chunks_exact(t).zip(slopes.chunks_exact(t)) {
                        for ((mean, &p), &slope) in mean.iter_mut().zip(p).zip(slope) {
                            *mean += p * slope;
                        }
                    }
                    for (p, slope) in probabilities.chunks_exact(t).zip(slopes.chunks_exact_mut(t)) {
                        for ((slope, &p), &mean) in slope.iter_mut().zip(p).zip(mean.iter()) {
                            *slope = p * (*slope - mean);
                        }
                    }
                },
            );
            let query = |i: usize, d: usize| x[i * 3 * inner + head * w + d];
            self.scatter(slopes, query, result, rest);
            self.place(result, head, Part::Keys, scale, dx);
            result.fill(T::zero());
            self.gather(x, head, Part::Keys, slopes, result);
            let (first, view) = self.part(head, Part::Queries);
            for (d, row) in result.chunks_exact(t).enumerate() {
                for (i, &value) in row.iter().enumerate() {
                    dx[first + i * view.column + d] = value * scale;
                }
            }
        }
    }

    fn scale<T: Element>(&self) -> T {
        T::constant(1.0 / (self.width as f64).sqrt())
    }

    /// First element of a head's part, and the view of its tokens.
    fn part(&self, head: usize, part: Part) -> (usize, View) {
        let inner = self.heads * self.width;
        let first = part as usize * inner + head * self.width;
        (first, View { size: [1, self.tokens], row: 0, column: 3 * inner })
    }

    /// `scores [T, T] = part [T, width] * other^T` with `other(query, d)`.
    fn scores<T: Element>(
        &self,
        x: &[T],
        head: usize,
        part: Part,
        other: impl Fn(usize, usize) -> T,
        scores: &mut [T],
        packed: &mut [T],
    ) {
        let packing = Packing::new::<T>(self.tokens);
        packing.pack(self.width, self.tokens, packed, |d, query| other(query, d));
        let (first, view) = self.part(head, part);
        Product {
            x: &x[first..],
            view,
            taps: &[0],
            depth: self.width,
            weight: packed,
            packing,
            outputs: self.tokens,
            y: scores,
            accumulate: false,
        }
        .run();
    }

    /// `result [width, T] += part^T [width, T] * matrix [T, T]`.
    fn gather<T: Element>(&self, x: &[T], head: usize, part: Part, matrix: &[T], result: &mut [T]) {
        let (first, view) = self.part(head, part);
        let (x, taps, depth) = (&x[first..], &[0][..], self.width);
        let (stride, outputs, accumulate) = (self.tokens, self.tokens, true);
        WeightGradient { x, view, taps, depth, dy: matrix, stride, outputs, gradient: result, accumulate }
            .run();
    }

    /// `result [T, width] = matrix [T, T] * other [T, width]` with `other(query, d)`.
    fn scatter<T: Element>(
        &self,
        matrix: &[T],
        other: impl Fn(usize, usize) -> T,
        result: &mut [T],
        packed: &mut [T],
    ) {
        let packing = Packing::new::<T>(self.width);
        packing.pack(self.tokens, self.width, packed, other);
        Product {
            x: matrix,
            view: View::matrix(self.tokens, self.tokens),
            taps: &[0],
            depth: self.tokens,
            weight: packed,
            packing,
            outputs: self.width,
            y: result,
            accumulate: false,
        }
        .run();
    }

    /// Writes `values [T, width]` times `factor` to a head's part.
    fn place<T: Element>(&self, values: &[T], head: usize, part: Part, factor: T, dx: &mut [T]) {
        let (first, view) = self.part(head, part);
        for (i, row) in values.chunks_exact(self.width).enumerate() {
            for (d, &value) in row.iter().enumerate() {
                dx[first + i * view.column + d] = value * factor;
            }
        }
    }

    /// Probabilities `[key, query]` of a head.
    fn probabilities<T: Element>(&self, x: &[T], head: usize, p: &mut [T], rest: &mut [T]) {
        let (t, inner) = (self.tokens, self.heads * self.width);
        let scale = self.scale::<T>();
        let query = |i: usize, d: usize| x[i * 3 * inner + head * self.width + d] * scale;
        self.scores(x, head, Part::Keys, query, p, rest);
        let (largest, rest) = rest.split_at_mut(t);
        let sum = &mut rest[..t];
        let lowest = T::constant(lowest::<T>() * std::f64::consts::LN_2);
        vectorized(
            #[inline(always)]
            || {
                largest.fill(T::neg_infinity());
                for p in p.chunks_exact(t) {
                    for (largest, &p) in largest.iter_mut().zip(p) {
                        *largest = if *largest < p { p } else { *largest };
                    }
                }
                sum.fill(T::zero());
                for p in p.chunks_exact_mut(t) {
                    for ((p, &largest), sum) in p.iter_mut().zip(largest.iter()).zip(sum.iter_mut()) {
                        let below = *p - largest;
                        // NaN stays.
                        *p = if below < lowest { lowest } else { below }.exp_lane();
                        *sum += *p;
                    }
                }
                for sum in sum.iter_mut() {
                    *sum = sum.recip();
                }
                for p in p.chunks_exact_mut(t) {
                    for (p, &sum) in p.iter_mut().zip(sum.iter()) {
                        *p *= sum;
                    }
                }
            },
        );
    }
}
