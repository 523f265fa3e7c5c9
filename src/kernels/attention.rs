//! Scaled dot-product self-attention of one image; all loops run side by side over queries.
//!
//! In: `[T, 3 * heads * width]` with queries, keys and values one after the other, head after head. Out:
//! `[T, heads * width]`. Scores are kept transposed, `[key, query]`, so that the softmax has no horizontal sums.

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

impl Attention {
    /// Elements of scratch space that the forward and backward passes need.
    pub fn scratch_len(&self) -> usize {
        2 * self.tokens * self.tokens + (3 * self.width + 2) * self.tokens
    }

    /// `y = softmax(q k^T / sqrt(width)) v` for every head.
    pub fn run<T: Element>(&self, x: &[T], y: &mut [T], scratch: &mut [T]) {
        let (t, w, inner) = (self.tokens, self.width, self.heads * self.width);
        let (probabilities, rest) = scratch.split_at_mut(t * t);
        let (queries, rest) = rest.split_at_mut(t * w);
        let (result, rest) = rest.split_at_mut(t * w);
        vectorized(
            #[inline(always)]
            || {
                for head in 0..self.heads {
                    self.probabilities(x, head, queries, probabilities, rest);
                    result.fill(T::zero());
                    for key in 0..t {
                        let p = &probabilities[key * t..(key + 1) * t];
                        let v = &x[key * 3 * inner + 2 * inner + head * w..][..w];
                        for d in 0..w {
                            add_scaled(&mut result[d * t..(d + 1) * t], p, v[d]);
                        }
                    }
                    for d in 0..w {
                        for i in 0..t {
                            y[i * inner + head * w + d] = result[d * t + i];
                        }
                    }
                }
            },
        );
    }

    /// `dx = ` gradient by queries, keys and values, overwritten.
    pub fn gradient<T: Element>(&self, x: &[T], dy: &[T], dx: &mut [T], scratch: &mut [T]) {
        let (t, w, inner) = (self.tokens, self.width, self.heads * self.width);
        let (probabilities, rest) = scratch.split_at_mut(t * t);
        let (slopes, rest) = rest.split_at_mut(t * t);
        let (queries, rest) = rest.split_at_mut(t * w);
        let (dresult, rest) = rest.split_at_mut(t * w);
        let (dqueries, rest) = rest.split_at_mut(t * w);
        vectorized(
            #[inline(always)]
            || {
                let scale = self.scale::<T>();
                for head in 0..self.heads {
                    self.probabilities(x, head, queries, probabilities, rest);
                    for d in 0..w {
                        for i in 0..t {
                            dresult[d * t + i] = dy[i * inner + head * w + d];
                        }
                    }
                    let mean = &mut rest[..t];
                    mean.fill(T::zero());
                    for key in 0..t {
                        let p = &probabilities[key * t..(key + 1) * t];
                        let slope = &mut slopes[key * t..(key + 1) * t];
                        let at = key * 3 * inner + 2 * inner + head * w;
                        slope.fill(T::zero());
                        for d in 0..w {
                            let dresult = &dresult[d * t..(d + 1) * t];
                            add_scaled(slope, dresult, x[at + d]);
                            dx[at + d] = dot(p, dresult);
                        }
                        for i in 0..t {
                            mean[i] += p[i] * slope[i];
                        }
                    }
                    dqueries.fill(T::zero());
                    for key in 0..t {
                        let p = &probabilities[key * t..(key + 1) * t];
                        let slope = &mut slopes[key * t..(key + 1) * t];
                        for i in 0..t {
                            slope[i] = p[i] * (slope[i] - mean[i]);
                        }
                        let at = key * 3 * inner + inner + head * w;
                        for d in 0..w {
                            add_scaled(&mut dqueries[d * t..(d + 1) * t], slope, x[at + d]);
                            dx[at + d] = dot(slope, &queries[d * t..(d + 1) * t]);
                        }
                    }
                    for d in 0..w {
                        for i in 0..t {
                            dx[i * 3 * inner + head * w + d] = dqueries[d * t + i] * scale;
                        }
                    }
                }
            },
        );
    }

    #[inline(always)]
    fn scale<T: Element>(&self) -> T {
        T::constant(1.0 / (self.width as f64).sqrt())
    }

    /// Scaled queries `[width, T]` and probabilities `[key, query]` of a head; `rest` has room for `2 T`.
    #[inline(always)]
    fn probabilities<T: Element>(
        &self,
        x: &[T],
        head: usize,
        queries: &mut [T],
        p: &mut [T],
        rest: &mut [T],
    ) {
        let (t, w, inner) = (self.tokens, self.width, self.heads * self.width);
        let (largest, rest) = rest.split_at_mut(t);
        let sum = &mut rest[..t];
        let scale = self.scale::<T>();
        for i in 0..t {
            for d in 0..w {
                queries[d * t + i] = x[i * 3 * inner + head * w + d] * scale;
            }
        }
        largest.fill(T::neg_infinity());
        for key in 0..t {
            let p = &mut p[key * t..(key + 1) * t];
            let k = &x[key * 3 * inner + inner + head * w..][..w];
            p.fill(T::zero());
            for d in 0..w {
                add_scaled(p, &queries[d * t..(d + 1) * t], k[d]);
            }
            for (largest, &p) in largest.iter_mut().zip(p.iter()) {
                *largest = if *largest < p { p } else { *largest };
            }
        }
        sum.fill(T::zero());
        for p in p.chunks_exact_mut(t) {
            for i in 0..t {
                p[i] = (p[i] - largest[i]).exp_lane();
                sum[i] += p[i];
            }
        }
        for sum in sum.iter_mut() {
            *sum = sum.recip();
        }
        for p in p.chunks_exact_mut(t) {
            for i in 0..t {
                p[i] *= sum[i];
            }
        }
    }
}

#[inline(always)]
fn add_scaled<T: Element>(target: &mut [T], source: &[T], factor: T) {
    for (target, &source) in target.iter_mut().zip(source) {
        *target += source * factor;
    }
}

/// Dot product in sixteen partial sums, joined in a fixed order.
#[inline(always)]
fn dot<T: Element>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::zero(); 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: T = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.into_iter().sum::<T>() + tail
}
