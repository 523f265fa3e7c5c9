//! Arithmetic per channel over channels-last rows `[R, C]`, coefficients and sums held in registers.

use super::lanes::{Element, Kernel, Lanes};
use super::pairs::{Twice, pairs, twice_each};

/// Rows that join before they meet the total: in single precision the rounding error of a sum then grows with the
/// square root of tens of terms and not of thousands (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
pub(super) const ROWS: usize = 64;

/// Pixels that gradients of weights sum in registers before they are added to memory, for the same reason.
pub(super) const PIXELS: usize = 128;

/// Work on a block of neighbouring channels, over all rows.
pub(super) trait Block<T: Element> {
    /// Number of channels.
    fn channels(&self) -> usize;

    /// Works on `NV` vectors from channel `first`; with `PART` on the remaining channels, fewer than a vector.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`; the channels must exist in all slices.
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize);
}

/// Runs a [`Block`] over all channels.
pub(super) struct Blocks<B>(pub(super) B);

impl<T: Element, B: Block<T>> Kernel<T> for Blocks<B> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let channels = self.0.channels();
        let mut first = 0;
        // SAFETY: blocks stay below the number of channels; the instruction set is the caller's promise.
        unsafe {
            while first + 4 * V::N <= channels {
                self.0.block::<V, 4, false>(first);
                first += 4 * V::N;
            }
            if first + 3 * V::N <= channels {
                self.0.block::<V, 3, false>(first);
                first += 3 * V::N;
            }
            if first + 2 * V::N <= channels {
                self.0.block::<V, 2, false>(first);
                first += 2 * V::N;
            }
            if first + V::N <= channels {
                self.0.block::<V, 1, false>(first);
                first += V::N;
            }
            if first < channels {
                self.0.block::<V, 1, true>(first);
            }
        }
    }
}

/// `NV` vectors from `source`, or its first `part` elements.
#[inline(always)]
pub(super) unsafe fn load<T, V: Lanes<T>, const NV: usize, const PART: bool>(
    source: *const T,
    part: usize,
) -> [V; NV] {
    // SAFETY: the caller's.
    unsafe {
        std::array::from_fn(|j| if PART { V::load_part(source, part) } else { V::load(source.add(j * V::N)) })
    }
}

#[inline(always)]
pub(super) unsafe fn store<T, V: Lanes<T>, const NV: usize, const PART: bool>(
    vectors: [V; NV],
    target: *mut T,
    part: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for (j, vector) in vectors.into_iter().enumerate() {
            if PART {
                vector.store_part(target, part);
            } else {
                vector.store(target.add(j * V::N));
            }
        }
    }
}

/// `-vectors`.
#[inline(always)]
pub(super) unsafe fn negated<T: Element, V: Lanes<T>, const NV: usize>(vectors: [V; NV]) -> [V; NV] {
    // SAFETY: the caller's.
    unsafe { vectors.map(|vector| vector.mul_add(V::splat(-T::one()), V::splat(T::zero()))) }
}

/// `y = (x - mean) * scale + bias`.
pub(super) fn shift_and_scale<T: Element>(x: &[T], mean: &[T], scale: &[T], bias: &[T], y: &mut [T]) {
    let c = bias.len();
    assert!(mean.len() == c && scale.len() == c && x.len() == y.len() && x.len().is_multiple_of(c));
    if pairs::<T>(c, x.len()) {
        let [mean, scale, bias] = [mean, scale, bias].map(Twice::of);
        let (mean, scale, bias) = (&mean[..], &scale[..], &bias[..]);
        return T::dispatch(Blocks(ShiftAndScale { x, mean, scale, bias, y }));
    }
    T::dispatch(Blocks(ShiftAndScale { x, mean, scale, bias, y }));
}

struct ShiftAndScale<'a, T> {
    x: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    bias: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Block<T> for ShiftAndScale<'_, T> {
    fn channels(&self) -> usize {
        self.bias.len()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.bias.len();
        let part = c - first;
        // SAFETY: all slices hold whole rows or one row of channels.
        unsafe {
            let shift = negated(load::<T, V, NV, PART>(self.mean.as_ptr().add(first), part));
            let scale = load::<T, V, NV, PART>(self.scale.as_ptr().add(first), part);
            let bias = load::<T, V, NV, PART>(self.bias.as_ptr().add(first), part);
            for row in 0..self.x.len() / c {
                let x = load::<T, V, NV, PART>(self.x.as_ptr().add(row * c + first), part);
                let y = std::array::from_fn(|j| x[j].add(shift[j]).mul_add(scale[j], bias[j]));
                store::<T, V, NV, PART>(y, self.y.as_mut_ptr().add(row * c + first), part);
            }
        }
    }
}

/// `y (+)= a * z + b * (x - mean) + d` with `coefficients [3, C]` a, b, d.
pub(super) fn combine<T: Element>(
    x: &[T],
    z: &[T],
    mean: &[T],
    coefficients: &[T],
    y: &mut [T],
    accumulate: bool,
) {
    let c = mean.len();
    assert!(
        coefficients.len() == 3 * c && x.len() == y.len() && z.len() == y.len() && x.len().is_multiple_of(c)
    );
    if pairs::<T>(c, x.len()) {
        let (mean, wide) = (Twice::of(mean), twice_each(coefficients, c));
        let (mean, coefficients) = (&mean[..], &wide[..6 * c]);
        return T::dispatch(Blocks(Combine { x, z, mean, coefficients, y, accumulate }));
    }
    T::dispatch(Blocks(Combine { x, z, mean, coefficients, y, accumulate }));
}

struct Combine<'a, T> {
    x: &'a [T],
    z: &'a [T],
    mean: &'a [T],
    coefficients: &'a [T],
    y: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Block<T> for Combine<'_, T> {
    fn channels(&self) -> usize {
        self.mean.len()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.mean.len();
        let part = c - first;
        // SAFETY: all slices hold whole rows or rows of coefficients.
        unsafe {
            let shift = negated(load::<T, V, NV, PART>(self.mean.as_ptr().add(first), part));
            let a = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(first), part);
            let b = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(c + first), part);
            let d = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(2 * c + first), part);
            for row in 0..self.x.len() / c {
                let at = row * c + first;
                let x = load::<T, V, NV, PART>(self.x.as_ptr().add(at), part);
                let z = load::<T, V, NV, PART>(self.z.as_ptr().add(at), part);
                let mut y =
                    std::array::from_fn(|j| a[j].mul_add(z[j], b[j].mul_add(x[j].add(shift[j]), d[j])));
                if self.accumulate {
                    let old = load::<T, V, NV, PART>(self.y.as_ptr().add(at), part);
                    y = std::array::from_fn(|j| y[j].add(old[j]));
                }
                store::<T, V, NV, PART>(y, self.y.as_mut_ptr().add(at), part);
            }
        }
    }
}

/// `y (+)= x * gate`.
pub(super) fn gate<T: Element>(x: &[T], gate: &[T], y: &mut [T], accumulate: bool) {
    let c = gate.len();
    assert!(x.len() == y.len() && x.len().is_multiple_of(c));
    T::dispatch(Blocks(Gate { x, gate, y, accumulate }));
}

struct Gate<'a, T> {
    x: &'a [T],
    gate: &'a [T],
    y: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Block<T> for Gate<'_, T> {
    fn channels(&self) -> usize {
        self.gate.len()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.gate.len();
        let part = c - first;
        // SAFETY: all slices hold whole rows or one row of channels.
        unsafe {
            let gate = load::<T, V, NV, PART>(self.gate.as_ptr().add(first), part);
            for row in 0..self.x.len() / c {
                let at = row * c + first;
                let x = load::<T, V, NV, PART>(self.x.as_ptr().add(at), part);
                let old = if self.accumulate {
                    load::<T, V, NV, PART>(self.y.as_ptr().add(at), part)
                } else {
                    [V::splat(T::zero()); NV]
                };
                let y = std::array::from_fn(|j| x[j].mul_add(gate[j], old[j]));
                store::<T, V, NV, PART>(y, self.y.as_mut_ptr().add(at), part);
            }
        }
    }
}

/// `plain = sum of z` and `product = sum of z * (x - mean)` over rows, overwritten.
pub(super) fn sums<T: Element>(z: &[T], x: &[T], mean: &[T], plain: &mut [T], product: &mut [T]) {
    let c = plain.len();
    assert!(mean.len() == c && product.len() == c && x.len() == z.len() && x.len().is_multiple_of(c));
    if pairs::<T>(c, x.len()) {
        let (mean, mut sums) = (Twice::of(mean), [Twice::zeros(c); 2]);
        let [a, b] = &mut sums;
        T::dispatch(Blocks(Sums { z, x, mean: &mean, plain: a, product: b }));
        a.sum(plain);
        return b.sum(product);
    }
    T::dispatch(Blocks(Sums { z, x, mean, plain, product }));
}

struct Sums<'a, T> {
    z: &'a [T],
    x: &'a [T],
    mean: &'a [T],
    plain: &'a mut [T],
    product: &'a mut [T],
}

impl<T: Element> Block<T> for Sums<'_, T> {
    fn channels(&self) -> usize {
        self.plain.len()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.plain.len();
        let part = c - first;
        let rows = self.x.len() / c;
        // SAFETY: all slices hold whole rows or one row of channels.
        unsafe {
            let shift = negated(load::<T, V, NV, PART>(self.mean.as_ptr().add(first), part));
            let mut totals = [[V::splat(T::zero()); NV]; 2];
            for start in (0..rows).step_by(ROWS) {
                let end = rows.min(start + ROWS);
                let even = end - (end - start) % 2;
                // Two rows at a time: additions of a row need not wait for those of the row before.
                let mut plain = [[V::splat(T::zero()); NV]; 2];
                let mut product = plain;
                for row in (start..even).step_by(2) {
                    for k in 0..2 {
                        self.add::<V, NV, PART>(first, row + k, shift, &mut plain[k], &mut product[k]);
                    }
                }
                if even < end {
                    self.add::<V, NV, PART>(first, even, shift, &mut plain[0], &mut product[0]);
                }
                for (total, part) in totals.iter_mut().zip([plain, product]) {
                    for j in 0..NV {
                        total[j] = total[j].add(part[0][j].add(part[1][j]));
                    }
                }
            }
            let [plain, product] = totals;
            store::<T, V, NV, PART>(plain, self.plain.as_mut_ptr().add(first), part);
            store::<T, V, NV, PART>(product, self.product.as_mut_ptr().add(first), part);
        }
    }
}

// The bodies of unrolled loops are methods: closures would not be inlined, and so compiled without the vectors'
// instruction set.
impl<T: Element> Sums<'_, T> {
    #[inline(always)]
    unsafe fn add<V: Lanes<T>, const NV: usize, const PART: bool>(
        &self,
        first: usize,
        row: usize,
        shift: [V; NV],
        plain: &mut [V; NV],
        product: &mut [V; NV],
    ) {
        let c = self.plain.len();
        let (at, part) = (row * c + first, c - first);
        // SAFETY: the row exists.
        unsafe {
            let z = load::<T, V, NV, PART>(self.z.as_ptr().add(at), part);
            let x = load::<T, V, NV, PART>(self.x.as_ptr().add(at), part);
            for j in 0..NV {
                plain[j] = plain[j].add(z[j]);
                product[j] = z[j].mul_add(x[j].add(shift[j]), product[j]);
            }
        }
    }
}

/// `sum` of `x` over rows, or of `(x - shift)^2` if a shift is given; overwritten.
pub(super) fn total<T: Element>(x: &[T], shift: Option<&[T]>, sum: &mut [T]) {
    let c = sum.len();
    assert!(shift.is_none_or(|shift| shift.len() == c) && x.len().is_multiple_of(c));
    if pairs::<T>(c, x.len()) {
        let (shift, mut sums) = (shift.map(Twice::of), Twice::zeros(c));
        T::dispatch(Blocks(Total { x, shift: shift.as_deref(), sum: &mut sums }));
        return sums.sum(sum);
    }
    T::dispatch(Blocks(Total { x, shift, sum }));
}

struct Total<'a, T> {
    x: &'a [T],
    shift: Option<&'a [T]>,
    sum: &'a mut [T],
}

impl<T: Element> Block<T> for Total<'_, T> {
    fn channels(&self) -> usize {
        self.sum.len()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.sum.len();
        let part = c - first;
        let rows = self.x.len() / c;
        // SAFETY: all slices hold whole rows or one row of channels.
        unsafe {
            // Four rows at a time: additions of a row need not wait for those of the row before.
            let mut sums = [[V::splat(T::zero()); NV]; 4];
            let shift = match self.shift {
                Some(shift) => negated(load::<T, V, NV, PART>(shift.as_ptr().add(first), part)),
                None => sums[0],
            };
            let mut total = sums[0];
            for start in (0..rows).step_by(ROWS) {
                let end = rows.min(start + ROWS);
                let whole = end - (end - start) % 4;
                sums = [[V::splat(T::zero()); NV]; 4];
                for row in (start..whole).step_by(4) {
                    for (k, sum) in sums.iter_mut().enumerate() {
                        self.add::<V, NV, PART>(first, row + k, shift, sum);
                    }
                }
                for row in whole..end {
                    self.add::<V, NV, PART>(first, row, shift, &mut sums[0]);
                }
                for j in 0..NV {
                    total[j] = total[j].add(sums[0][j].add(sums[1][j]).add(sums[2][j].add(sums[3][j])));
                }
            }
            let sum = total;
            store::<T, V, NV, PART>(sum, self.sum.as_mut_ptr().add(first), part);
        }
    }
}

impl<T: Element> Total<'_, T> {
    #[inline(always)]
    unsafe fn add<V: Lanes<T>, const NV: usize, const PART: bool>(
        &self,
        first: usize,
        row: usize,
        shift: [V; NV],
        sum: &mut [V; NV],
    ) {
        let c = self.sum.len();
        // SAFETY: the row exists.
        unsafe {
            let x = load::<T, V, NV, PART>(self.x.as_ptr().add(row * c + first), c - first);
            for j in 0..NV {
                sum[j] = if self.shift.is_some() {
                    let d = x[j].add(shift[j]);
                    d.mul_add(d, sum[j])
                } else {
                    sum[j].add(x[j])
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{force, levels};

    fn numbers(count: usize, seed: f64) -> Vec<f64> {
        (0..count).map(|i| ((i as f64 + seed) * 0.618_033_988_749_895).fract() - 0.5).collect()
    }

    fn assert_close(what: &str, got: &[f64], expected: impl Fn(usize) -> f64) {
        for (i, g) in got.iter().enumerate() {
            assert!((g - expected(i)).abs() < 1e-11, "{what}[{i}]: {g} instead of {}", expected(i));
        }
    }

    /// Channels around the borders of vectors and their groups, rows around those of blocks of rows.
    #[test]
    fn every_border_of_blocks_is_crossed() {
        for level in levels() {
            force(level);
            for c in [1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 79] {
                for rows in [1, 2, 3, 4, 5, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 2 * ROWS + 3] {
                    let name = format!("{level:?}, {rows} rows of {c}");
                    let (x, z) = (numbers(rows * c, 0.5), numbers(rows * c, 0.2));
                    let (mean, scale, bias) = (numbers(c, 0.1), numbers(c, 0.3), numbers(c, 0.9));
                    let over = |term: &dyn Fn(usize) -> f64, channel: usize| -> f64 {
                        (0..rows).map(|row| term(row * c + channel)).sum()
                    };

                    let (mut sum, mut product) = (vec![f64::NAN; c], vec![f64::NAN; c]);
                    total(&x, None, &mut sum);
                    assert_close(&format!("{name}: total"), &sum, |k| over(&|i| x[i], k));
                    total(&x, Some(&mean), &mut sum);
                    assert_close(&format!("{name}: squares"), &sum, |k| {
                        over(&|i| (x[i] - mean[k]).powi(2), k)
                    });
                    sums(&z, &x, &mean, &mut sum, &mut product);
                    assert_close(&format!("{name}: sums"), &sum, |k| over(&|i| z[i], k));
                    assert_close(&format!("{name}: products"), &product, |k| {
                        over(&|i| z[i] * (x[i] - mean[k]), k)
                    });

                    let mut y = vec![f64::NAN; rows * c];
                    shift_and_scale(&x, &mean, &scale, &bias, &mut y);
                    assert_close(&format!("{name}: scaled"), &y, |i| {
                        (x[i] - mean[i % c]) * scale[i % c] + bias[i % c]
                    });
                    gate(&x, &scale, &mut y, false);
                    gate(&z, &bias, &mut y, true);
                    assert_close(&format!("{name}: gated"), &y, |i| x[i] * scale[i % c] + z[i] * bias[i % c]);
                    let coefficients = numbers(3 * c, 0.4);
                    combine(&x, &z, &mean, &coefficients, &mut y, false);
                    assert_close(&format!("{name}: combined"), &y, |i| {
                        let k = i % c;
                        coefficients[k] * z[i]
                            + coefficients[c + k] * (x[i] - mean[k])
                            + coefficients[2 * c + k]
                    });
                }
            }
        }
    }
}
