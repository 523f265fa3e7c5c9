//! Attention with heads of a few channels, where the softmax and not the products takes the time: scores live in
//! registers only.
//!
//! A vector holds neighbouring positions, queries or keys, and meets all positions of the other kind one after the
//! other. The forward pass takes the scores twice, first for their maxima. The backward pass takes them with queries in
//! the vectors for the gradient of the queries, then with keys in the vectors for those of keys and values; of the
//! softmax's gradient `p (dp - sum of p dp)` the sum is known only after the last key, so both parts are summed apart.

use super::{Attention, Part};
use crate::kernels::lanes::{Element, Kernel, Lanes, vectorized};
use crate::kernels::special::exp;

/// Most channels of a head.
pub(super) const WIDEST: usize = 8;

/// Buffers of `tokens` times padded `width` elements, and of `tokens` elements, that a pass needs at most.
const WIDE: usize = 11;
const SINGLE: usize = 7;

/// Work on one head at a time; see the module.
pub(super) struct Narrow<'a> {
    geometry: &'a Attention,
    /// Positions in whole vectors of any machine.
    padded: usize,
    /// Channels that kernels compute, the last may be zero.
    width: usize,
}

/// What is read along vectors of positions, `[width, padded]`.
#[derive(Clone, Copy)]
struct Across<'a, T>(&'a [T], &'a [T]);

impl<'a> Narrow<'a> {
    /// The kernel, if there is one for this width.
    pub(super) fn new(geometry: &'a Attention) -> Option<Self> {
        let width = geometry.width.next_power_of_two().max(2);
        (width <= WIDEST).then(|| Self { geometry, padded: geometry.tokens.next_multiple_of(16), width })
    }

    pub(super) fn scratch_len(&self) -> usize {
        (WIDE * self.width + SINGLE) * self.padded
    }

    /// The channels of each position of a part of the input.
    fn rows<'x, T>(&self, x: &'x [T], head: usize, part: Part) -> impl Iterator<Item = &'x [T]> {
        let (first, view) = self.geometry.part(head, part);
        self.channels(&x[first..], view.column)
    }

    /// The channels at the start of rows of `stride` elements.
    fn channels<'x, T>(&self, x: &'x [T], stride: usize) -> impl Iterator<Item = &'x [T]> {
        let width = self.geometry.width;
        x.chunks(stride).take(self.geometry.tokens).map(move |row| &row[..width])
    }

    /// Writes `[width, padded]`: `value(element, d)`, zeros around it.
    fn pack_across<'x, T: Element>(
        &self,
        target: &mut [T],
        rows: impl Iterator<Item = &'x [T]>,
        value: impl Fn(T, usize) -> T,
    ) {
        target.fill(T::zero());
        for (i, row) in rows.enumerate() {
            for (d, &element) in row.iter().enumerate() {
                target[d * self.padded + i] = value(element, d);
            }
        }
    }

    /// Writes `width` elements of each position, at `first` of rows of `stride`.
    fn pack_rows<'x, T: Element>(
        &self,
        target: &mut [T],
        (first, stride): (usize, usize),
        rows: impl Iterator<Item = &'x [T]>,
        value: impl Fn(T, usize) -> T,
    ) {
        for (target, row) in target.chunks_exact_mut(stride).zip(rows) {
            let target = &mut target[first..first + self.width];
            for (d, (slot, &element)) in target.iter_mut().zip(row).enumerate() {
                *slot = value(element, d);
            }
            target[row.len()..].fill(T::zero());
        }
    }

    /// Writes what `value` gives for each channel and position to a part of `dx`.
    fn place<T: Element>(&self, head: usize, part: Part, dx: &mut [T], value: impl Fn(usize, usize) -> T) {
        let (first, view) = self.geometry.part(head, part);
        for (i, row) in dx[first..].chunks_mut(view.column).enumerate().take(self.geometry.tokens) {
            for (d, slot) in row[..self.geometry.width].iter_mut().enumerate() {
                *slot = value(i, d);
            }
        }
    }

    /// `y = softmax(q k^T / sqrt(width)) v` for every head.
    pub(super) fn run<T: Element>(&self, x: &[T], y: &mut [T], scratch: &mut [T]) {
        let (wide, inner) = (self.width * self.padded, self.geometry.heads * self.geometry.width);
        let (queries, rest) = scratch.split_at_mut(wide);
        let (pairs, rest) = rest.split_at_mut(2 * wide);
        let (result, rest) = rest.split_at_mut(wide);
        let sum = &mut rest[..self.padded];
        let scale = self.geometry.scale::<T>();
        for head in 0..self.geometry.heads {
            let [keys, values] = [Part::Keys, Part::Values].map(|part| self.rows(x, head, part));
            self.pack_across(queries, self.rows(x, head, Part::Queries), |q, _| q * scale);
            self.pack_rows(pairs, (0, 2 * self.width), keys, |k, _| k);
            self.pack_rows(pairs, (self.width, 2 * self.width), values, |v, _| v);
            T::dispatch(Forward { narrow: self, queries, pairs, sum, result });
            invert(sum);
            let width = self.geometry.width;
            for (i, row) in y.chunks_exact_mut(inner).enumerate() {
                for (d, slot) in row[head * width..][..width].iter_mut().enumerate() {
                    *slot = result[d * self.padded + i] * sum[i];
                }
            }
        }
    }

    /// `dx = ` gradient by queries, keys and values, overwritten.
    pub(super) fn gradient<T: Element>(&self, x: &[T], dy: &[T], dx: &mut [T], scratch: &mut [T]) {
        let Attention { tokens, heads, width } = *self.geometry;
        let (wide, inner) = (self.width * self.padded, heads * width);
        let (a, rest) = scratch.split_at_mut(wide);
        let (b, rest) = rest.split_at_mut(wide);
        // Keys and values, or queries, gradients of the result and three numbers of each query.
        let (rows, rest) = rest.split_at_mut(2 * wide + 4 * self.padded);
        let (first, rest) = rest.split_at_mut(wide);
        let (second, rest) = rest.split_at_mut(wide);
        let [largest, sum, mean] = {
            let (largest, rest) = rest.split_at_mut(self.padded);
            let (sum, rest) = rest.split_at_mut(self.padded);
            [largest, sum, &mut rest[..self.padded]]
        };
        let scale = self.geometry.scale::<T>();
        for head in 0..heads {
            // A common part of all values changes no score's gradient, only its rounding error.
            let mut centre = [T::zero(); WIDEST];
            for row in self.rows(x, head, Part::Values) {
                for (centre, &value) in centre.iter_mut().zip(row) {
                    *centre += value;
                }
            }
            let share = T::constant(1.0 / tokens as f64);
            centre.iter_mut().for_each(|centre| *centre *= share);
            let part = |part| self.rows(x, head, part);
            let slopes = || self.channels(&dy[head * width..], inner);

            self.pack_across(a, part(Part::Queries), |q, _| q * scale);
            self.pack_across(b, slopes(), |slope, _| slope);
            self.pack_rows(rows, (0, 2 * self.width), part(Part::Keys), |k, _| k);
            self.pack_rows(rows, (self.width, 2 * self.width), part(Part::Values), |v, d| v - centre[d]);
            let across = Across(a, b);
            T::dispatch(ByQueries { narrow: self, across, rows, largest, sum, mean, first, second });
            invert(sum);
            for (mean, &inverse) in mean.iter_mut().zip(sum.iter()) {
                *mean *= inverse;
            }
            self.place(head, Part::Queries, dx, |i, d| {
                let at = d * self.padded + i;
                (first[at] - mean[i] * second[at]) * sum[i] * scale
            });

            let stride = 2 * self.width + 4;
            self.pack_across(a, part(Part::Keys), |k, _| k);
            self.pack_across(b, part(Part::Values), |v, d| v - centre[d]);
            self.pack_rows(rows, (0, stride), part(Part::Queries), |q, _| q * scale);
            self.pack_rows(rows, (self.width, stride), slopes(), |slope, _| slope);
            for (i, row) in rows.chunks_exact_mut(stride).enumerate().take(tokens) {
                let numbers = &mut row[2 * self.width..];
                (numbers[0], numbers[1], numbers[2]) = (-largest[i], sum[i], -mean[i]);
            }
            T::dispatch(ByKeys { narrow: self, across: Across(a, b), rows, keys: first, values: second });
            self.place(head, Part::Keys, dx, |i, d| first[d * self.padded + i]);
            self.place(head, Part::Values, dx, |i, d| second[d * self.padded + i]);
        }
    }
}

fn invert<T: Element>(values: &mut [T]) {
    vectorized(
        #[inline(always)]
        || values.iter_mut().for_each(|value| *value = value.recip()),
    );
}

/// Vectors of all channels at position `i`.
#[inline(always)]
unsafe fn load<T, V: Lanes<T>, const W: usize>(source: &[T], padded: usize, i: usize) -> [V; W] {
    // SAFETY: the slice holds `[W, padded]`, and `i` starts a whole vector.
    unsafe { std::array::from_fn(|d| V::load(source.as_ptr().add(d * padded + i))) }
}

#[inline(always)]
unsafe fn store<T, V: Lanes<T>, const W: usize>(vectors: [V; W], target: &mut [T], padded: usize, i: usize) {
    for (d, vector) in vectors.into_iter().enumerate() {
        // SAFETY: as in `load`.
        unsafe { vector.store(target.as_mut_ptr().add(d * padded + i)) };
    }
}

/// `start + a . b` over channels, `b` at `row`.
#[inline(always)]
unsafe fn dot<T: Copy, V: Lanes<T>, const W: usize>(a: &[V; W], row: *const T, start: V) -> V {
    let mut sum = start;
    for (d, a) in a.iter().enumerate() {
        // SAFETY: the row holds `W` elements; the instruction set is the caller's promise.
        sum = unsafe { V::splat(*row.add(d)).mul_add(*a, sum) };
    }
    sum
}

/// `sums += factor * row`.
#[inline(always)]
unsafe fn gather<T: Copy, V: Lanes<T>, const W: usize>(factor: V, row: *const T, sums: &mut [V; W]) {
    for (d, sum) in sums.iter_mut().enumerate() {
        // SAFETY: as in `dot`.
        *sum = unsafe { V::splat(*row.add(d)).mul_add(factor, *sum) };
    }
}

/// Largest score of each query of a vector.
#[inline(always)]
unsafe fn largest<T: Element, V: Lanes<T>, const W: usize>(queries: &[V; W], rows: &[T], tokens: usize) -> V {
    // SAFETY: the caller's: rows of `2 W`, as many as tokens.
    unsafe {
        let mut largest = [V::splat(T::neg_infinity()); 2];
        for key in 0..tokens {
            let score = dot(queries, rows.as_ptr().add(2 * W * key), V::splat(T::zero()));
            largest[key % 2] = largest[key % 2].larger(score);
        }
        largest[0].larger(largest[1])
    }
}

macro_rules! by_width {
    ($kernel:ty) => {
        impl<T: Element> Kernel<T> for $kernel {
            type Output = ();

            #[inline(always)]
            unsafe fn run<V: Lanes<T>>(mut self) {
                let Narrow { padded, width, .. } = *self.narrow;
                for i in (0..padded).step_by(V::N) {
                    // SAFETY: buffers hold whole vectors of positions; the instruction set is the caller's promise.
                    unsafe {
                        match width {
                            2 => self.vector::<V, 2>(i),
                            4 => self.vector::<V, 4>(i),
                            _ => self.vector::<V, WIDEST>(i),
                        }
                    }
                }
            }
        }
    };
}

/// `result [width, padded] = exp(scores) v` and `sum [padded]` of each query's exponentials.
struct Forward<'a, T> {
    narrow: &'a Narrow<'a>,
    queries: &'a [T],
    /// Keys and values `[tokens, 2, width]`.
    pairs: &'a [T],
    sum: &'a mut [T],
    result: &'a mut [T],
}

by_width!(Forward<'_, T>);

impl<T: Element> Forward<'_, T> {
    #[inline(always)]
    unsafe fn vector<V: Lanes<T>, const W: usize>(&mut self, i: usize) {
        let Narrow { geometry, padded, .. } = *self.narrow;
        // SAFETY: see `by_width`.
        unsafe {
            let queries: [V; W] = load(self.queries, padded, i);
            let shift = V::splat(T::zero()).sub(largest(&queries, self.pairs, geometry.tokens));
            let mut sum = V::splat(T::zero());
            let mut result = [sum; W];
            for key in 0..geometry.tokens {
                let row = self.pairs.as_ptr().add(2 * W * key);
                let p = exp(dot(&queries, row, shift));
                sum = sum.add(p);
                gather(p, row.add(W), &mut result);
            }
            sum.store(self.sum.as_mut_ptr().add(i));
            store(result, self.result, padded, i);
        }
    }
}

/// Of each query the largest score, the sum of exponentials `p`, that of `p dp`, and with keys `[width, padded]` the sums
/// of `p dp k` and of `p k`.
struct ByQueries<'a, T> {
    narrow: &'a Narrow<'a>,
    /// Queries and gradients of the result.
    across: Across<'a, T>,
    /// Keys and values `[tokens, 2, width]`.
    rows: &'a [T],
    largest: &'a mut [T],
    sum: &'a mut [T],
    mean: &'a mut [T],
    first: &'a mut [T],
    second: &'a mut [T],
}

by_width!(ByQueries<'_, T>);

impl<T: Element> ByQueries<'_, T> {
    #[inline(always)]
    unsafe fn vector<V: Lanes<T>, const W: usize>(&mut self, i: usize) {
        let Narrow { geometry, padded, .. } = *self.narrow;
        // SAFETY: see `by_width`.
        unsafe {
            let queries: [V; W] = load(self.across.0, padded, i);
            let slopes: [V; W] = load(self.across.1, padded, i);
            let zero = V::splat(T::zero());
            let largest = largest(&queries, self.rows, geometry.tokens);
            let shift = zero.sub(largest);
            let [mut sum, mut mean] = [zero; 2];
            let [mut first, mut second] = [[zero; W]; 2];
            for key in 0..geometry.tokens {
                let row = self.rows.as_ptr().add(2 * W * key);
                let p = exp(dot(&queries, row, shift));
                let slope = p.mul_add(dot(&slopes, row.add(W), zero), zero);
                sum = sum.add(p);
                mean = mean.add(slope);
                gather(slope, row, &mut first);
                gather(p, row, &mut second);
            }
            largest.store(self.largest.as_mut_ptr().add(i));
            sum.store(self.sum.as_mut_ptr().add(i));
            mean.store(self.mean.as_mut_ptr().add(i));
            store(first, self.first, padded, i);
            store(second, self.second, padded, i);
        }
    }
}

/// Gradients `[width, padded]` of keys and values.
struct ByKeys<'a, T> {
    narrow: &'a Narrow<'a>,
    /// Keys and values.
    across: Across<'a, T>,
    /// Of each query: itself, the gradient of its result, the negative largest score, the reciprocal sum, the negative
    /// mean slope, one unused.
    rows: &'a [T],
    keys: &'a mut [T],
    values: &'a mut [T],
}

by_width!(ByKeys<'_, T>);

impl<T: Element> ByKeys<'_, T> {
    #[inline(always)]
    unsafe fn vector<V: Lanes<T>, const W: usize>(&mut self, i: usize) {
        let Narrow { geometry, padded, .. } = *self.narrow;
        // SAFETY: see `by_width`.
        unsafe {
            let keys: [V; W] = load(self.across.0, padded, i);
            let values: [V; W] = load(self.across.1, padded, i);
            let zero = V::splat(T::zero());
            let [mut by_keys, mut by_values] = [[zero; W]; 2];
            for query in 0..geometry.tokens {
                let row = self.rows.as_ptr().add((2 * W + 4) * query);
                let numbers = row.add(2 * W);
                let exponential = exp(dot(&keys, row, V::splat(*numbers)));
                let p = exponential.mul_add(V::splat(*numbers.add(1)), zero);
                let slope = p.mul_add(dot(&values, row.add(W), V::splat(*numbers.add(2))), zero);
                gather(p, row.add(W), &mut by_values);
                gather(slope, row, &mut by_keys);
            }
            store(by_keys, self.keys, padded, i);
            store(by_values, self.values, padded, i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{force, levels};

    /// The result, straight from the definition.
    fn plain(geometry: &Attention, x: &[f64]) -> Vec<f64> {
        let Attention { tokens, heads, width } = *geometry;
        let inner = heads * width;
        let mut y = vec![0.0; tokens * inner];
        for head in 0..heads {
            let at = |part: usize, i: usize, d: usize| x[i * 3 * inner + part * inner + head * width + d];
            for i in 0..tokens {
                let score = |j| (0..width).map(|d| at(0, i, d) * at(1, j, d)).sum::<f64>();
                let scores: Vec<f64> = (0..tokens).map(|j| score(j) / (width as f64).sqrt()).collect();
                let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                for d in 0..width {
                    let mix = |(j, s): (usize, &f64)| s.exp() / sum * at(2, j, d);
                    y[i * inner + head * width + d] = scores.iter().enumerate().map(mix).sum();
                }
            }
        }
        y
    }

    #[test]
    fn narrow_heads_agree_with_the_definition_and_its_derivative() {
        for level in levels() {
            force(level);
            for (tokens, heads, width) in
                [(1, 1, 1), (5, 2, 2), (16, 3, 3), (17, 1, 4), (21, 2, 5), (9, 1, 8)]
            {
                let geometry = Attention { tokens, heads, width };
                let narrow = Narrow::new(&geometry).expect("narrow");
                let count = tokens * heads * width;
                let number = |i: usize| ((i as f64 + 0.3) * 0.618_033_988_749_895).fract() * 4.0 - 2.0;
                let x: Vec<f64> = (0..3 * count).map(number).collect();
                let dy: Vec<f64> = (0..count).map(|i| number(7 * i + 1)).collect();
                let name = format!("{level:?}, {geometry:?}");

                let mut scratch = vec![f64::NAN; narrow.scratch_len()];
                let mut y = vec![f64::NAN; count];
                narrow.run(&x, &mut y, &mut scratch);
                for (got, expected) in y.iter().zip(plain(&geometry, &x)) {
                    assert!((got - expected).abs() < 1e-12, "{name}: {got} instead of {expected}");
                }
                let mut dx = vec![f64::NAN; 3 * count];
                narrow.gradient(&x, &dy, &mut dx, &mut scratch);
                let loss = |x: &[f64]| plain(&geometry, x).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
                for (i, got) in dx.iter().enumerate() {
                    let shifted = |by: f64| {
                        let mut x = x.clone();
                        x[i] += by;
                        loss(&x)
                    };
                    let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                    assert!((got - expected).abs() < 1e-8, "{name}: dx[{i}] {got} instead of {expected}");
                }

                let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
                let mut scratch = vec![f32::NAN; narrow.scratch_len()];
                let (mut y32, mut dx32) = (vec![f32::NAN; count], vec![f32::NAN; 3 * count]);
                narrow.run(&single(&x), &mut y32, &mut scratch);
                narrow.gradient(&single(&x), &single(&dy), &mut dx32, &mut scratch);
                for (got, expected) in y32.iter().zip(&y).chain(dx32.iter().zip(&dx)) {
                    assert!((f64::from(*got) - expected).abs() < 2e-5, "{name}: {got} instead of {expected}");
                }
            }
        }
    }
}
