//! Batch and layer normalisation of channels-last rows `[R, C]`.

use super::columns;
use super::convolution::{load, store, vectors};
use super::lanes::{Element, Kernel, Lanes, vectorized};

/// Added to variances.
pub const EPSILON: f64 = 1e-5;

/// Mean and sum of squared deviations of each channel of `x [R, C]`, to `moments [2, C]`.
///
/// Two passes over rows that fit into the cache: no cancellation.
pub fn moments<T: Element>(x: &[T], moments: &mut [T]) {
    let c = moments.len() / 2;
    let (mean, squares) = moments.split_at_mut(c);
    columns::total(x, None, mean);
    let scale = T::constant(c as f64 / x.len() as f64);
    for mean in mean.iter_mut() {
        *mean *= scale;
    }
    columns::total(x, Some(mean), squares);
}

/// Joins the `moments [images, 2, C]` of images with `rows` rows each: `statistics [2, C]` gets mean and
/// `1 / sqrt(variance + eps)` (Chan, Golub, LeVeque 1979).
pub fn join_moments<T: Element>(moments: &[T], rows: usize, statistics: &mut [T]) {
    let c = statistics.len() / 2;
    let images = moments.len() / (2 * c);
    for channel in 0..c {
        let mean = (0..images).map(|i| moments[2 * c * i + channel].double()).sum::<f64>() / images as f64;
        let squares: f64 = (0..images)
            .map(|i| {
                let d = moments[2 * c * i + channel].double() - mean;
                moments[2 * c * i + c + channel].double() + d * d * rows as f64
            })
            .sum();
        let variance = squares / (images * rows) as f64;
        statistics[channel] = T::constant(mean);
        statistics[c + channel] = T::constant(1.0 / (variance + EPSILON).sqrt());
    }
}

/// `y = (x - mean) * (w / sigma) + b`.
pub fn normalise<T: Element>(
    x: &[T],
    statistics: &[T],
    weight: &[T],
    bias: &[T],
    scale: &mut [T],
    y: &mut [T],
) {
    let c = weight.len();
    let scale = &mut scale[..c];
    for i in 0..c {
        scale[i] = weight[i] * statistics[c + i];
    }
    columns::shift_and_scale(x, &statistics[..c], scale, bias, y);
}

/// Sums over rows of `dy` and of `dy * (x - mean) / sigma`, to `sums [2, C]`.
pub fn gradient_sums<T: Element>(x: &[T], dy: &[T], statistics: &[T], sums: &mut [T]) {
    let c = sums.len() / 2;
    let (plain, scaled) = sums.split_at_mut(c);
    columns::sums(dy, x, &statistics[..c], plain, scaled);
    for (scaled, &inverse) in scaled.iter_mut().zip(&statistics[c..]) {
        *scaled *= inverse;
    }
}

/// Coefficients `[3, C]` of the input's gradient `dx = a * dy + b * (x - mean) + d` from the batch's sums.
pub fn gradient_coefficients<T: Element>(
    sums: &[f64],
    statistics: &[T],
    weight: &[T],
    count: usize,
    coefficients: &mut [T],
) {
    let c = weight.len();
    for i in 0..c {
        let inverse = statistics[c + i].double();
        let a = weight[i].double() * inverse;
        coefficients[i] = T::constant(a);
        coefficients[c + i] = T::constant(-a * inverse * sums[c + i] / count as f64);
        coefficients[2 * c + i] = T::constant(-a * sums[i] / count as f64);
    }
}

/// `dx (+)= a * dy + b * (x - mean) + d`.
pub fn normalise_gradient<T: Element>(
    x: &[T],
    dy: &[T],
    statistics: &[T],
    coefficients: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    let c = statistics.len() / 2;
    columns::combine(x, dy, &statistics[..c], coefficients, dx, accumulate);
}

/// Sum of `f(x)` in sixteen partial sums, joined in a fixed order.
#[inline(always)]
fn row_sum<T: Element>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut sums = [T::zero(); 16];
    let blocks = x.chunks_exact(16);
    let tail: T = blocks.remainder().iter().map(|&x| f(x)).sum();
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += f(x);
        }
    }
    sums.into_iter().sum::<T>() + tail
}

/// Mean and `1 / sqrt(variance + eps)` of a row.
#[inline(always)]
fn row_statistics<T: Element>(x: &[T]) -> (T, T) {
    let count = T::constant(x.len() as f64);
    let mean = row_sum(
        x,
        #[inline(always)]
        |x| x,
    ) / count;
    let variance = row_sum(
        x,
        #[inline(always)]
        |x| (x - mean) * (x - mean),
    ) / count;
    (mean, (variance + T::constant(EPSILON)).sqrt().recip())
}

/// Layer normalisation over the channels of each row.
pub fn layer_norm<T: Element>(x: &[T], weight: &[T], bias: &[T], y: &mut [T]) {
    let c = weight.len();
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                let (mean, inverse) = row_statistics(x);
                for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = (x - mean) * inverse * weight + bias;
                }
            }
        },
    );
}

/// Gradients of layer normalisation: of the input if `dx` is given (with whether to add to it), added for
/// `parameters [2, C]` (weight, bias).
pub fn layer_norm_gradient<T: Element>(
    x: &[T],
    weight: &[T],
    dy: &[T],
    parameters: &mut [T],
    dx: Option<(&mut [T], bool)>,
) {
    let c = weight.len();
    assert!(parameters.len() == 2 * c && dy.len() == x.len() && x.len().is_multiple_of(c));
    assert!(dx.as_ref().is_none_or(|(dx, _)| dx.len() == x.len()), "gradient of another length");
    T::dispatch(LayerNormGradient { x, weight, dy, parameters, dx });
}

struct LayerNormGradient<'a, T> {
    x: &'a [T],
    weight: &'a [T],
    dy: &'a [T],
    parameters: &'a mut [T],
    dx: Option<(&'a mut [T], bool)>,
}

impl<T: Element> Kernel<T> for LayerNormGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let c = self.weight.len();
        let share = T::constant(1.0 / c as f64);
        let ones = [T::one(); LANES];
        let (dweight, dbias) = self.parameters.split_at_mut(c);
        let (weight, dweight, dbias) = (self.weight.as_ptr(), dweight.as_mut_ptr(), dbias.as_mut_ptr());
        for (row, (x, dy)) in self.x.chunks_exact(c).zip(self.dy.chunks_exact(c)).enumerate() {
            let (x, dy) = (x.as_ptr(), dy.as_ptr());
            // SAFETY: all pointers are to rows of `c` elements; the instruction set is the caller's promise.
            unsafe {
                let zero = V::splat(T::zero());
                let mut sum = zero;
                vectors::<T, V>(
                    c,
                    #[inline(always)]
                    |first, part| sum = sum.add(load(x.add(first), part)),
                );
                let mean = V::splat(total::<T, V>(sum) * share);
                let mut squares = zero;
                vectors::<T, V>(
                    c,
                    #[inline(always)]
                    |first, part| {
                        // Lanes behind the last channel stay out.
                        let centred = load::<T, V>(x.add(first), part).sub(mean);
                        let centred = centred.mul_add(load(ones.as_ptr(), part), zero);
                        squares = centred.mul_add(centred, squares);
                    },
                );
                let inverse = (total::<T, V>(squares) * share + T::constant(EPSILON)).sqrt().recip();
                let normal = V::splat(inverse);
                let [mut plain, mut scaled] = [zero; 2];
                vectors::<T, V>(
                    c,
                    #[inline(always)]
                    |first, part| {
                        let slope: V = load(dy.add(first), part);
                        let x = load::<T, V>(x.add(first), part).sub(mean).mul_add(normal, zero);
                        let (by_weight, by_bias) = (dweight.add(first), dbias.add(first));
                        store(slope.mul_add(x, load(by_weight, part)), by_weight, part);
                        store(slope.add(load(by_bias, part)), by_bias, part);
                        let slope = slope.mul_add(load(weight.add(first), part), zero);
                        plain = plain.add(slope);
                        scaled = slope.mul_add(x, scaled);
                    },
                );
                let Some((dx, accumulate)) = &mut self.dx else { continue };
                let (dx, accumulate) = (dx.as_mut_ptr().add(row * c), *accumulate);
                let plain = V::splat(-total::<T, V>(plain) * share);
                let scaled = V::splat(-total::<T, V>(scaled) * share);
                vectors::<T, V>(
                    c,
                    #[inline(always)]
                    |first, part| {
                        let x = load::<T, V>(x.add(first), part).sub(mean).mul_add(normal, zero);
                        let slope = load::<T, V>(dy.add(first), part);
                        let slope = slope.mul_add(load(weight.add(first), part), x.mul_add(scaled, plain));
                        let old = if accumulate { load(dx.add(first), part) } else { zero };
                        store(slope.mul_add(normal, old), dx.add(first), part);
                    },
                );
            }
        }
    }
}

/// Most lanes of any vector.
const LANES: usize = 16;

/// Sum over lanes, in pairs.
#[inline(always)]
unsafe fn total<T: Element, V: Lanes<T>>(vector: V) -> T {
    let mut lanes = [T::zero(); LANES];
    // SAFETY: the array holds a vector; the instruction set is the caller's promise.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    let mut count = V::N / 2;
    while count > 0 {
        for lane in 0..count {
            lanes[lane] += lanes[lane + count];
        }
        count /= 2;
    }
    lanes[0]
}
