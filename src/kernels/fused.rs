//! Batch normalisation together with what follows it: ReLU, or the sum of two branches.
//!
//! In: channels-last rows `[R, C]` and the affine map of each channel. Out: results and gradients in one pass over
//! memory. The sign that a ReLU saw is computed again from the input, operation by operation as before.

use super::columns::{Block, Blocks, ROWS, load, negated, store};
use super::lanes::{Element, Lanes};
use super::pairs::{Twice, pairs, twice_each};

/// `(x - mean) * scale + bias` of every channel.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, T> {
    /// Subtracted first.
    pub mean: &'a [T],
    /// Factor.
    pub scale: &'a [T],
    /// Added last.
    pub bias: &'a [T],
}

impl<'a, T: Element> Affine<'a, T> {
    /// The map of a batch norm with `statistics [2, C]` (mean, reciprocal deviation); `scale [C]` is scratch.
    pub fn new(statistics: &'a [T], weight: &[T], bias: &'a [T], scale: &'a mut [T]) -> Self {
        let c = weight.len();
        assert!(statistics.len() == 2 * c && bias.len() == c && scale.len() == c);
        for (i, scale) in scale.iter_mut().enumerate() {
            *scale = weight[i] * statistics[c + i];
        }
        Self { mean: &statistics[..c], scale, bias }
    }

    fn channels(&self) -> usize {
        self.bias.len()
    }

    /// The map of two rows.
    fn twice(&self) -> [Twice<T>; 3] {
        [self.mean, self.scale, self.bias].map(Twice::of)
    }

    fn of_two([mean, scale, bias]: &'a [Twice<T>; 3]) -> Self {
        Self { mean, scale, bias }
    }

    /// The map in registers: negative mean, scale, bias.
    #[inline(always)]
    unsafe fn load<V: Lanes<T>, const NV: usize, const PART: bool>(&self, first: usize) -> [[V; NV]; 3] {
        let part = self.channels() - first;
        // SAFETY: the channels exist; the instruction set is the caller's promise.
        unsafe {
            [
                negated(load::<T, V, NV, PART>(self.mean.as_ptr().add(first), part)),
                load::<T, V, NV, PART>(self.scale.as_ptr().add(first), part),
                load::<T, V, NV, PART>(self.bias.as_ptr().add(first), part),
            ]
        }
    }
}

#[inline(always)]
unsafe fn apply<T, V: Lanes<T>, const NV: usize>(map: &[[V; NV]; 3], x: [V; NV]) -> [V; NV] {
    // SAFETY: the instruction set is the caller's promise.
    unsafe { std::array::from_fn(|j| x[j].add(map[0][j]).mul_add(map[1][j], map[2][j])) }
}

fn check<T: Element>(map: &Affine<'_, T>, x: &[T], y: &[T]) {
    let c = map.channels();
    assert!(map.mean.len() == c && map.scale.len() == c && x.len() == y.len() && x.len().is_multiple_of(c));
}

/// `y = max(map(x), 0)`, NaN stays.
pub fn relu_of<T: Element>(map: Affine<'_, T>, x: &[T], y: &mut [T]) {
    check(&map, x, y);
    if pairs::<T>(map.channels(), x.len()) {
        return T::dispatch(Blocks(ReluOf { map: Affine::of_two(&map.twice()), x, y }));
    }
    T::dispatch(Blocks(ReluOf { map, x, y }));
}

struct ReluOf<'a, T> {
    map: Affine<'a, T>,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Block<T> for ReluOf<'_, T> {
    fn channels(&self) -> usize {
        self.map.channels()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.map.channels();
        let part = c - first;
        // SAFETY: all slices hold whole rows.
        unsafe {
            let map = self.map.load::<V, NV, PART>(first);
            for row in 0..self.x.len() / c {
                let x = load::<T, V, NV, PART>(self.x.as_ptr().add(row * c + first), part);
                let y = apply(&map, x);
                let y = std::array::from_fn(|j| y[j].rectified());
                store::<T, V, NV, PART>(y, self.y.as_mut_ptr().add(row * c + first), part);
            }
        }
    }
}

/// `y = a + b`, each of them mapped first if it has a map.
pub fn sum_of<T: Element>(a: (Option<Affine<'_, T>>, &[T]), b: (Option<Affine<'_, T>>, &[T]), y: &mut [T]) {
    match (a, b) {
        ((Some(map), a), (Some(other), b)) => {
            check(&map, a, y);
            check(&other, b, y);
            if pairs::<T>(map.channels(), y.len()) {
                let (map, other) = (map.twice(), other.twice());
                let (map, other) = (Affine::of_two(&map), Affine::of_two(&other));
                return T::dispatch(Blocks(SumOf::<T, true> { map, other, a, b, y }));
            }
            T::dispatch(Blocks(SumOf::<T, true> { map, other, a, b, y }));
        }
        ((Some(map), a), (None, b)) | ((None, b), (Some(map), a)) => {
            check(&map, a, y);
            check(&map, b, y);
            if pairs::<T>(map.channels(), y.len()) {
                let map = map.twice();
                let map = Affine::of_two(&map);
                return T::dispatch(Blocks(SumOf::<T, false> { map, other: map, a, b, y }));
            }
            T::dispatch(Blocks(SumOf::<T, false> { map, other: map, a, b, y }));
        }
        ((None, a), (None, b)) => super::arrangement::sum(a, b, y),
    }
}

struct SumOf<'a, T, const BOTH: bool> {
    map: Affine<'a, T>,
    other: Affine<'a, T>,
    a: &'a [T],
    b: &'a [T],
    y: &'a mut [T],
}

impl<T: Element, const BOTH: bool> Block<T> for SumOf<'_, T, BOTH> {
    fn channels(&self) -> usize {
        self.map.channels()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.map.channels();
        let part = c - first;
        // SAFETY: all slices hold whole rows.
        unsafe {
            let map = self.map.load::<V, NV, PART>(first);
            let other = self.other.load::<V, NV, PART>(first);
            for row in 0..self.a.len() / c {
                let at = row * c + first;
                let a = apply(&map, load::<T, V, NV, PART>(self.a.as_ptr().add(at), part));
                let b = load::<T, V, NV, PART>(self.b.as_ptr().add(at), part);
                let b = if BOTH { apply(&other, b) } else { b };
                let y = std::array::from_fn(|j| a[j].add(b[j]));
                store::<T, V, NV, PART>(y, self.y.as_mut_ptr().add(at), part);
            }
        }
    }
}

/// As [`norm::gradient_sums`](super::norm::gradient_sums) when a ReLU follows: `dy` counts where `map(x) > 0`.
pub fn relu_gradient_sums<T: Element>(
    map: Affine<'_, T>,
    x: &[T],
    dy: &[T],
    statistics: &[T],
    sums: &mut [T],
) {
    check(&map, x, dy);
    let c = map.channels();
    assert!(sums.len() == 2 * c && statistics.len() == 2 * c);
    let (plain, product) = sums.split_at_mut(c);
    if pairs::<T>(c, x.len()) {
        let (map, mut both) = (map.twice(), [Twice::zeros(c); 2]);
        let [a, b] = &mut both;
        T::dispatch(Blocks(ReluSums { map: Affine::of_two(&map), x, dy, plain: a, product: b }));
        a.sum(plain);
        b.sum(product);
    } else {
        T::dispatch(Blocks(ReluSums { map, x, dy, plain, product }));
    }
    for (scaled, &inverse) in sums[c..].iter_mut().zip(&statistics[c..]) {
        *scaled *= inverse;
    }
}

struct ReluSums<'a, T> {
    map: Affine<'a, T>,
    x: &'a [T],
    dy: &'a [T],
    plain: &'a mut [T],
    product: &'a mut [T],
}

impl<T: Element> Block<T> for ReluSums<'_, T> {
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
            let map = self.map.load::<V, NV, PART>(first);
            let mut totals = [[V::splat(T::zero()); NV]; 2];
            for start in (0..rows).step_by(ROWS) {
                let mut sums = [[V::splat(T::zero()); NV]; 2];
                for row in start..rows.min(start + ROWS) {
                    let at = row * c + first;
                    let x = load::<T, V, NV, PART>(self.x.as_ptr().add(at), part);
                    let dy = load::<T, V, NV, PART>(self.dy.as_ptr().add(at), part);
                    for j in 0..NV {
                        let centred = x[j].add(map[0][j]);
                        let dy = dy[j].where_positive(centred.mul_add(map[1][j], map[2][j]));
                        sums[0][j] = sums[0][j].add(dy);
                        sums[1][j] = dy.mul_add(centred, sums[1][j]);
                    }
                }
                for (total, sum) in totals.iter_mut().zip(sums) {
                    for j in 0..NV {
                        total[j] = total[j].add(sum[j]);
                    }
                }
            }
            store::<T, V, NV, PART>(totals[0], self.plain.as_mut_ptr().add(first), part);
            store::<T, V, NV, PART>(totals[1], self.product.as_mut_ptr().add(first), part);
        }
    }
}

/// As [`norm::normalise_gradient`](super::norm::normalise_gradient) when a ReLU follows, with `coefficients [3, C]`.
pub fn relu_gradient<T: Element>(
    map: Affine<'_, T>,
    x: &[T],
    dy: &[T],
    coefficients: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    check(&map, x, dy);
    check(&map, x, dx);
    assert!(coefficients.len() == 3 * map.channels());
    let c = map.channels();
    if pairs::<T>(c, x.len()) {
        let (map, wide) = (map.twice(), twice_each(coefficients, c));
        let (map, coefficients) = (Affine::of_two(&map), &wide[..6 * c]);
        return T::dispatch(Blocks(ReluGradient { map, x, dy, coefficients, dx, accumulate }));
    }
    T::dispatch(Blocks(ReluGradient { map, x, dy, coefficients, dx, accumulate }));
}

struct ReluGradient<'a, T> {
    map: Affine<'a, T>,
    x: &'a [T],
    dy: &'a [T],
    coefficients: &'a [T],
    dx: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Block<T> for ReluGradient<'_, T> {
    fn channels(&self) -> usize {
        self.map.channels()
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<T>, const NV: usize, const PART: bool>(&mut self, first: usize) {
        let c = self.map.channels();
        let part = c - first;
        // SAFETY: all slices hold whole rows or rows of coefficients.
        unsafe {
            let map = self.map.load::<V, NV, PART>(first);
            let a = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(first), part);
            let b = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(c + first), part);
            let d = load::<T, V, NV, PART>(self.coefficients.as_ptr().add(2 * c + first), part);
            for row in 0..self.x.len() / c {
                let at = row * c + first;
                let x = load::<T, V, NV, PART>(self.x.as_ptr().add(at), part);
                let dy = load::<T, V, NV, PART>(self.dy.as_ptr().add(at), part);
                let target = self.dx.as_mut_ptr().add(at);
                let mut dx = [V::splat(T::zero()); NV];
                for j in 0..NV {
                    let centred = x[j].add(map[0][j]);
                    let dy = dy[j].where_positive(centred.mul_add(map[1][j], map[2][j]));
                    dx[j] = a[j].mul_add(dy, b[j].mul_add(centred, d[j]));
                }
                if self.accumulate {
                    let old = load::<T, V, NV, PART>(target, part);
                    dx = std::array::from_fn(|j| dx[j].add(old[j]));
                }
                store::<T, V, NV, PART>(dx, target, part);
            }
        }
    }
}
