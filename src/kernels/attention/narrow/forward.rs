//! Results, queries in the vectors.

use super::{LANES, Narrow, Rows, WIDEST, by_width};
use crate::kernels::attention::{Attention, lowest};
use crate::kernels::lanes::{Element, Kernel, Lanes};
use crate::kernels::special::exp2;

/// `y = softmax(q k^T) v` of an image, and of each head and query what the backward pass needs of its sum.
pub(super) struct Forward<'a, T> {
    pub narrow: Narrow,
    pub maxima: &'a [T],
    pub x: &'a [T],
    pub keys: Rows<'a, T>,
    pub values: Rows<'a, T>,
    pub y: &'a mut [T],
    /// `[heads, tokens]`, or nothing.
    pub sums: &'a mut [T],
}

impl<T: Element> Kernel<T> for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        // SAFETY: the instruction set is the caller's promise.
        unsafe { by_width!(self, self.narrow.width, heads, V) }
    }
}

/// Sums over the keys, of `NV` vectors of queries.
struct Totals<V, const NV: usize, const W: usize> {
    sum: [V; NV],
    result: [[V; NV]; W],
}

impl<T: Element> Forward<'_, T> {
    #[inline(always)]
    unsafe fn heads<V: Lanes<T>, const W: usize, const B: usize>(&mut self) {
        for head in 0..self.narrow.geometry.heads {
            let calm = self.narrow.is_calm(self.maxima, head);
            // SAFETY: the instruction set is the caller's promise.
            unsafe {
                match (calm, W <= 4) {
                    (true, true) if V::REGISTERS > 16 => self.head::<V, W, 1, 2, true>(head),
                    (true, true) => self.head::<V, W, 4, 1, true>(head),
                    (true, false) => self.head::<V, W, B, 1, true>(head),
                    (false, _) => self.head::<V, W, 2, 1, false>(head),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn head<V: Lanes<T>, const W: usize, const B: usize, const NV: usize, const CALM: bool>(
        &mut self,
        head: usize,
    ) {
        let tokens = self.narrow.geometry.tokens;
        let mut first = 0;
        // SAFETY: positions beyond the last are neither read nor written; the instruction set is the caller's promise.
        unsafe {
            while NV > 1 && first + (NV - 1) * V::N < tokens {
                self.vectors::<V, W, B, NV, CALM>(head, first);
                first += NV * V::N;
            }
            while first < tokens {
                self.vectors::<V, W, B, 1, CALM>(head, first);
                first += V::N;
            }
        }
    }

    /// Queries from `first`, each meets `B` keys at a time.
    #[inline(always)]
    unsafe fn vectors<V: Lanes<T>, const W: usize, const B: usize, const NV: usize, const CALM: bool>(
        &mut self,
        head: usize,
        first: usize,
    ) {
        let narrow = self.narrow;
        let tokens = narrow.geometry.tokens;
        // SAFETY: the caller's; rows exist for all tokens.
        unsafe {
            let zero = V::splat(T::zero());
            let queries: [[V; NV]; W] = self.queries(head, first);
            let mut shift = [zero; NV];
            if !CALM {
                let mut largest = [V::splat(T::neg_infinity()); NV];
                for key in 0..tokens {
                    let [score] = self.scores::<V, W, 1, NV>(&queries, head, key, &shift);
                    largest = std::array::from_fn(|j| largest[j].larger(score[j]));
                }
                shift = largest.map(|largest| zero.sub(largest));
            }
            let mut totals = Totals { sum: [zero; NV], result: [[zero; NV]; W] };
            let mut key = 0;
            while key + B <= tokens {
                self.keys::<V, W, B, NV, CALM>(&queries, head, key, &shift, &mut totals);
                key += B;
            }
            while B > 1 && key < tokens {
                self.keys::<V, W, 1, NV, CALM>(&queries, head, key, &shift, &mut totals);
                key += 1;
            }
            self.finish::<V, W, NV, CALM>(head, first, &shift, totals);
        }
    }

    /// Vectors of queries times the factor of the scores, zero beyond the last.
    #[inline(always)]
    unsafe fn queries<V: Lanes<T>, const W: usize, const NV: usize>(
        &self,
        head: usize,
        first: usize,
    ) -> [[V; NV]; W] {
        let narrow = self.narrow;
        let stride = 3 * narrow.inner();
        let Attention { tokens, width, .. } = narrow.geometry;
        // SAFETY: only positions below the number of tokens are read; the instruction set is the caller's promise.
        unsafe {
            let scale = V::splat(T::constant(narrow.scale()));
            let zero = V::splat(T::zero());
            let mut queries = [[zero; NV]; W];
            for (d, queries) in queries.iter_mut().enumerate().take(width) {
                for (j, query) in queries.iter_mut().enumerate() {
                    let i = first + j * V::N;
                    let count = tokens.saturating_sub(i).min(V::N);
                    let source = self.x.as_ptr().wrapping_add(i * stride + head * width + d);
                    *query = V::load_strided(source, stride, count).mul_add(scale, zero);
                }
            }
            queries
        }
    }

    /// Scores of `B` keys, less what is subtracted from them.
    #[inline(always)]
    unsafe fn scores<V: Lanes<T>, const W: usize, const B: usize, const NV: usize>(
        &self,
        queries: &[[V; NV]; W],
        head: usize,
        key: usize,
        shift: &[V; NV],
    ) -> [[V; NV]; B] {
        let mut scores = [*shift; B];
        for (d, queries) in queries.iter().enumerate() {
            for (b, scores) in scores.iter_mut().enumerate() {
                // SAFETY: the caller's.
                unsafe {
                    let k = V::splat(*self.keys.row(head, key + b).add(d));
                    for (score, &q) in scores.iter_mut().zip(queries) {
                        *score = k.mul_add(q, *score);
                    }
                }
            }
        }
        scores
    }

    #[inline(always)]
    unsafe fn keys<V: Lanes<T>, const W: usize, const B: usize, const NV: usize, const CALM: bool>(
        &self,
        queries: &[[V; NV]; W],
        head: usize,
        key: usize,
        shift: &[V; NV],
        totals: &mut Totals<V, NV, W>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let lowest = V::splat(T::constant(lowest::<T>()));
            let mut p = self.scores::<V, W, B, NV>(queries, head, key, shift);
            for p in &mut p {
                for (p, sum) in p.iter_mut().zip(&mut totals.sum) {
                    // The second operand counts where either is NaN.
                    *p = exp2(if CALM { *p } else { lowest.larger(*p) });
                    *sum = sum.add(*p);
                }
            }
            for (d, result) in totals.result.iter_mut().enumerate() {
                for (b, p) in p.iter().enumerate() {
                    let v = V::splat(*self.values.row(head, key + b).add(d));
                    for (result, &p) in result.iter_mut().zip(p) {
                        *result = v.mul_add(p, *result);
                    }
                }
            }
        }
    }

    /// Writes results, and of each query the reciprocal sum; in heads that are not calm the logarithm of the sum of
    /// powers of its scores themselves.
    #[inline(always)]
    unsafe fn finish<V: Lanes<T>, const W: usize, const NV: usize, const CALM: bool>(
        &mut self,
        head: usize,
        first: usize,
        shift: &[V; NV],
        totals: Totals<V, NV, W>,
    ) {
        let inner = self.narrow.inner();
        let Attention { tokens, width, .. } = self.narrow.geometry;
        // SAFETY: only positions below the number of tokens are written; the instruction set is the caller's promise.
        unsafe {
            let (zero, one) = (V::splat(T::zero()), V::splat(T::one()));
            for j in 0..NV {
                let i = first + j * V::N;
                let count = tokens.saturating_sub(i).min(V::N);
                let inverse = one.div(totals.sum[j]);
                for (d, result) in totals.result.iter().enumerate().take(width) {
                    let target = self.y.as_mut_ptr().wrapping_add(i * inner + head * width + d);
                    result[j].mul_add(inverse, zero).store_strided(target, inner, count);
                }
                let Some(kept) = self.sums.get_mut(head * tokens + i..head * tokens + i + count) else {
                    continue;
                };
                if CALM {
                    inverse.store_strided(kept.as_mut_ptr(), 1, count);
                } else {
                    let [mut sums, mut shifts] = [[T::zero(); LANES]; 2];
                    totals.sum[j].store(sums.as_mut_ptr());
                    shift[j].store(shifts.as_mut_ptr());
                    for ((kept, sum), shift) in kept.iter_mut().zip(sums).zip(shifts) {
                        *kept = sum.log2() - shift;
                    }
                }
            }
        }
    }
}
