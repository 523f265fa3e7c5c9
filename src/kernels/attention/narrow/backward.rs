//! Gradients, keys in the vectors.

use super::{LANES, Narrow, TILE, WIDEST, by_width};
use crate::kernels::attention::{Attention, Part, lowest};
use crate::kernels::lanes::{Element, Kernel, Lanes};
use crate::kernels::special::exp2;

/// Gradient by queries, keys and values of an image.
pub(super) struct Backward<'a, T> {
    pub narrow: Narrow,
    pub maxima: &'a [T],
    pub x: &'a [T],
    pub y: &'a [T],
    pub dy: &'a [T],
    /// `[heads, tokens]` as the forward pass left them.
    pub sums: &'a [T],
    pub dx: &'a mut [T],
    pub scratch: &'a mut [T],
}

/// Parts of the scratch space.
struct Room<'a, T> {
    /// Mean of each channel of the values: a common part of all changes no score's gradient, only its rounding error.
    centre: &'a mut [T],
    /// Keys and values of a head `[vector, 2, W, lanes]`: keys times the factor of the scores, values less their mean.
    across: &'a mut [T],
    /// Gradients by them, those by keys but for a factor.
    gradients: &'a mut [T],
    /// Gradients by the queries of a tile, `[query, W, lanes]`.
    tile: &'a mut [T],
    /// Of each query of a head: itself, the gradient of its result, and of exponent and slope what they start from.
    rows: &'a mut [T],
}

impl Narrow {
    /// Elements of a row of [`Room`].
    fn row_len(&self) -> usize {
        2 * self.width + 2
    }

    /// Elements of the parts of [`Room`].
    fn backward_lens(&self) -> [usize; 5] {
        let across = 2 * self.width * self.padded;
        let tile = (TILE + LANES) * LANES;
        [across, across, tile, self.row_len() * self.geometry.tokens, self.inner()]
    }

    pub(super) fn backward_len(&self) -> usize {
        self.backward_lens().iter().sum()
    }
}

impl<T: Element> Kernel<T> for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        // SAFETY: the instruction set is the caller's promise.
        unsafe { by_width!(self, self.narrow.width, heads, V) }
    }
}

impl<T: Element> Backward<'_, T> {
    #[inline(always)]
    unsafe fn heads<V: Lanes<T>, const W: usize, const B: usize>(&mut self) {
        let mut rest = std::mem::take(&mut self.scratch);
        let [across, gradients, tile, rows, centre] = self.narrow.backward_lens().map(|len| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            part
        });
        let mut room = Room { centre, across, gradients, tile, rows };
        self.average(room.centre);
        for head in 0..self.narrow.geometry.heads {
            let calm = self.narrow.is_calm(self.maxima, head);
            if self.narrow.geometry.width == W {
                self.pack_queries::<W, true>(head, calm, &mut room);
            } else {
                self.pack_queries::<W, false>(head, calm, &mut room);
            }
            // SAFETY: the instruction set is the caller's promise.
            unsafe {
                self.pack_keys::<V, W>(head, &mut room);
                if calm {
                    self.tiles::<V, W, B, true>(head, &mut room);
                } else {
                    self.tiles::<V, W, 2, false>(head, &mut room);
                }
                self.place_keys::<V, W>(head, &room);
            }
        }
    }

    /// Writes the means of the values.
    #[inline(always)]
    fn average(&self, centre: &mut [T]) {
        let inner = centre.len();
        centre.fill(T::zero());
        for row in self.x.chunks_exact(3 * inner) {
            for (centre, &v) in centre.iter_mut().zip(&row[Part::Values as usize * inner..]) {
                *centre += v;
            }
        }
        let share = T::constant(1.0 / self.narrow.geometry.tokens as f64);
        centre.iter_mut().for_each(|centre| *centre *= share);
    }

    /// Writes keys and values; clears the gradients by them.
    #[inline(always)]
    unsafe fn pack_keys<V: Lanes<T>, const W: usize>(&self, head: usize, room: &mut Room<'_, T>) {
        let Attention { tokens, width, .. } = self.narrow.geometry;
        let inner = self.narrow.inner();
        room.gradients.fill(T::zero());
        // SAFETY: only positions below the number of tokens are read; the instruction set is the caller's promise.
        unsafe {
            let zero = V::splat(T::zero());
            let scale = V::splat(T::constant(self.narrow.scale()));
            for (i, vectors) in room.across.chunks_exact_mut(2 * W * V::N).enumerate() {
                let count = tokens.saturating_sub(i * V::N).min(V::N);
                for d in 0..W {
                    let [mut k, mut v] = [zero; 2];
                    if d < width {
                        let at = i * V::N * 3 * inner + inner + head * width + d;
                        let source = self.x.as_ptr().wrapping_add(at);
                        let centre = zero.sub(V::splat(room.centre[head * width + d]));
                        k = V::load_strided(source, 3 * inner, count).mul_add(scale, zero);
                        v = V::load_strided(source.wrapping_add(inner), 3 * inner, count).add(centre);
                    }
                    k.store(vectors.as_mut_ptr().add(d * V::N));
                    // No value where no key is.
                    zero.store(vectors.as_mut_ptr().add((W + d) * V::N));
                    match count == V::N {
                        true => v.store(vectors.as_mut_ptr().add((W + d) * V::N)),
                        false => v.store_part(vectors.as_mut_ptr().add((W + d) * V::N), count),
                    }
                }
            }
        }
    }

    /// Writes rows. Gradients of results contain the reciprocal sums of calm heads.
    #[inline(always)]
    fn pack_queries<const W: usize, const EXACT: bool>(
        &self,
        head: usize,
        calm: bool,
        room: &mut Room<'_, T>,
    ) {
        let Attention { tokens, width, .. } = self.narrow.geometry;
        let inner = self.narrow.inner();
        let width = if EXACT { W } else { width };
        let first = head * width;
        let sums = &self.sums[head * tokens..][..tokens];
        let centre = &room.centre[first..][..width];
        let given = self.x.chunks_exact(3 * inner).zip(self.dy.chunks_exact(inner));
        let given = given.zip(self.y.chunks_exact(inner)).zip(sums);
        for (target, (((x, dy), y), &sum)) in room.rows.chunks_exact_mut(2 * W + 2).zip(given) {
            let (x, dy, y) = (&x[first..][..width], &dy[first..][..width], &y[first..][..width]);
            let (factor, shift) = if calm { (sum, T::zero()) } else { (T::one(), -sum) };
            let mut mean = T::zero();
            for d in 0..W {
                let within = EXACT || d < width;
                let slope = if within { dy[d] * factor } else { T::zero() };
                target[d] = if within { x[d] } else { T::zero() };
                target[W + d] = slope;
                if within {
                    mean += slope * (y[d] - centre[d]);
                }
            }
            target[2 * W] = shift;
            target[2 * W + 1] = -mean;
        }
    }

    /// Writes the gradients by keys and values.
    #[inline(always)]
    unsafe fn place_keys<V: Lanes<T>, const W: usize>(&mut self, head: usize, room: &Room<'_, T>) {
        let Attention { tokens, width, .. } = self.narrow.geometry;
        let inner = self.narrow.inner();
        // SAFETY: only positions below the number of tokens are written; the instruction set is the caller's promise.
        unsafe {
            let zero = V::splat(T::zero());
            let scale = V::splat(self.narrow.geometry.scale::<T>());
            for (i, vectors) in room.gradients.chunks_exact(2 * W * V::N).enumerate() {
                let count = tokens.saturating_sub(i * V::N).min(V::N);
                for d in 0..width {
                    let at = i * V::N * 3 * inner + inner + head * width + d;
                    let target = self.dx.as_mut_ptr().wrapping_add(at);
                    let k = V::load(vectors.as_ptr().add(d * V::N)).mul_add(scale, zero);
                    k.store_strided(target, 3 * inner, count);
                    let v = V::load(vectors.as_ptr().add((W + d) * V::N));
                    v.store_strided(target.wrapping_add(inner), 3 * inner, count);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles<V: Lanes<T>, const W: usize, const B: usize, const CALM: bool>(
        &mut self,
        head: usize,
        room: &mut Room<'_, T>,
    ) {
        let Attention { tokens, width, .. } = self.narrow.geometry;
        let inner = self.narrow.inner();
        let most = TILE / W / B * B;
        for first in (0..tokens).step_by(most) {
            let count = most.min(tokens - first);
            room.tile[..(count * W).next_multiple_of(LANES) * LANES].fill(T::zero());
            let rows = &room.rows[first * (2 * W + 2)..];
            // SAFETY: buffers hold whole vectors of positions; the instruction set is the caller's promise.
            unsafe {
                let vectors = room.across.chunks_exact(2 * W * V::N);
                for (across, gradients) in vectors.zip(room.gradients.chunks_exact_mut(2 * W * V::N)) {
                    meet_all::<T, V, W, B, CALM>(across, gradients, rows, &mut room.tile[..count * W * V::N]);
                }
                let mut sums = [T::zero(); TILE + LANES];
                for i in (0..count * W).step_by(V::N) {
                    V::sums(room.tile.as_ptr().add(i * V::N)).store(sums.as_mut_ptr().add(i));
                }
                let rows = self.dx[first * 3 * inner..].chunks_exact_mut(3 * inner);
                for (row, sums) in rows.zip(sums[..count * W].chunks_exact(W)) {
                    let row = &mut row[head * width..][..width];
                    // Keys contain the factor of the scores and that of the logarithm; only the former belongs here.
                    let factor = T::constant(std::f64::consts::LN_2);
                    if width == W {
                        (0..W).for_each(|d| row[d] = sums[d] * factor);
                    } else {
                        (0..width).for_each(|d| row[d] = sums[d] * factor);
                    }
                }
            }
        }
    }
}

/// Adds what the queries of `tile` give to the gradients by a vector of keys and values, and theirs to the tile.
///
/// # Safety
/// The machine must have the instruction set of `V`; slices hold what [`Room`] says.
#[inline(always)]
unsafe fn meet_all<T: Element, V: Lanes<T>, const W: usize, const B: usize, const CALM: bool>(
    across: &[T],
    gradients: &mut [T],
    rows: &[T],
    tile: &mut [T],
) {
    let count = tile.len() / (W * V::N);
    // SAFETY: the caller's.
    unsafe {
        let mut at = 0;
        if 4 * W + 12 <= V::REGISTERS {
            let [mut keys, mut sums] = [[V::splat(T::zero()); W]; 2].map(|zeros| [zeros; 2]);
            for (i, (key, sum)) in keys.iter_mut().flatten().zip(sums.iter_mut().flatten()).enumerate() {
                *key = V::load(across.as_ptr().add(i * V::N));
                *sum = V::load(gradients.as_ptr().add(i * V::N));
            }
            let mut held = Held(keys, sums);
            while at + B <= count {
                meet::<T, V, _, W, B, CALM>(&mut held, rows, tile, at);
                at += B;
            }
            while at < count {
                meet::<T, V, _, W, 1, CALM>(&mut held, rows, tile, at);
                at += 1;
            }
            for (i, sum) in held.1.iter().flatten().enumerate() {
                sum.store(gradients.as_mut_ptr().add(i * V::N));
            }
        } else {
            let mut stored = Stored(across.as_ptr(), gradients.as_mut_ptr());
            while at + B <= count {
                meet::<T, V, _, W, B, CALM>(&mut stored, rows, tile, at);
                at += B;
            }
            while at < count {
                meet::<T, V, _, W, 1, CALM>(&mut stored, rows, tile, at);
                at += 1;
            }
        }
    }
}

/// Keys and values of a vector of positions, part 0 and 1, and the gradients by them.
trait Vectors<T, V, const W: usize> {
    unsafe fn load(&self, part: usize, d: usize) -> V;
    unsafe fn gradient(&self, part: usize, d: usize) -> V;
    unsafe fn set_gradient(&mut self, part: usize, d: usize, value: V);
}

/// In registers.
struct Held<V, const W: usize>([[V; W]; 2], [[V; W]; 2]);

impl<T, V: Copy, const W: usize> Vectors<T, V, W> for Held<V, W> {
    #[inline(always)]
    unsafe fn load(&self, part: usize, d: usize) -> V {
        self.0[part][d]
    }

    #[inline(always)]
    unsafe fn gradient(&self, part: usize, d: usize) -> V {
        self.1[part][d]
    }

    #[inline(always)]
    unsafe fn set_gradient(&mut self, part: usize, d: usize, value: V) {
        self.1[part][d] = value;
    }
}

/// In memory.
struct Stored<T>(*const T, *mut T);

impl<T, V: Lanes<T>, const W: usize> Vectors<T, V, W> for Stored<T> {
    #[inline(always)]
    unsafe fn load(&self, part: usize, d: usize) -> V {
        // SAFETY: the caller's: all parts exist.
        unsafe { V::load(self.0.add((part * W + d) * V::N)) }
    }

    #[inline(always)]
    unsafe fn gradient(&self, part: usize, d: usize) -> V {
        // SAFETY: as above.
        unsafe { V::load(self.1.add((part * W + d) * V::N)) }
    }

    #[inline(always)]
    unsafe fn set_gradient(&mut self, part: usize, d: usize, value: V) {
        // SAFETY: as above.
        unsafe { value.store(self.1.add((part * W + d) * V::N)) }
    }
}

/// The same of `B` queries, the first at `at`.
#[inline(always)]
unsafe fn meet<T, V, S, const W: usize, const B: usize, const CALM: bool>(
    vectors: &mut S,
    rows: &[T],
    tile: &mut [T],
    at: usize,
) where
    T: Element,
    V: Lanes<T>,
    S: Vectors<T, V, W>,
{
    // SAFETY: the caller's: there are as many rows, and vectors of the tile.
    unsafe {
        let row = rows.as_ptr().add(at * (2 * W + 2));
        let tile = tile.as_mut_ptr().add(at * W * V::N);
        let zero = V::splat(T::zero());
        let [mut p, mut slopes] = [[zero; B]; 2];
        for b in 0..B {
            if !CALM {
                p[b] = V::splat(*row.add(b * (2 * W + 2) + 2 * W));
            }
            slopes[b] = V::splat(*row.add(b * (2 * W + 2) + 2 * W + 1));
        }
        for d in 0..W {
            let key = vectors.load(0, d);
            for (b, p) in p.iter_mut().enumerate() {
                *p = V::splat(*row.add(b * (2 * W + 2) + d)).mul_add(key, *p);
            }
        }
        for d in 0..W {
            let value = vectors.load(1, d);
            for (b, slope) in slopes.iter_mut().enumerate() {
                *slope = V::splat(*row.add(b * (2 * W + 2) + W + d)).mul_add(value, *slope);
            }
        }
        for (p, slope) in p.iter_mut().zip(&mut slopes) {
            if !CALM {
                // Not above zero, where only lanes without a key are.
                let below = zero.sub(zero.sub(*p).rectified());
                *p = V::splat(T::constant(lowest::<T>())).larger(below);
            }
            *p = exp2(*p);
            *slope = slope.mul_add(*p, zero);
        }
        for d in 0..W {
            let mut sum = vectors.gradient(1, d);
            for (b, &p) in p.iter().enumerate() {
                sum = V::splat(*row.add(b * (2 * W + 2) + W + d)).mul_add(p, sum);
            }
            vectors.set_gradient(1, d, sum);
        }
        for d in 0..W {
            let key = vectors.load(0, d);
            let mut sum = vectors.gradient(0, d);
            for (b, &slope) in slopes.iter().enumerate() {
                sum = V::splat(*row.add(b * (2 * W + 2) + d)).mul_add(slope, sum);
                let target = tile.add((b * W + d) * V::N);
                slope.mul_add(key, V::load(target)).store(target);
            }
            vectors.set_gradient(0, d, sum);
        }
    }
}
