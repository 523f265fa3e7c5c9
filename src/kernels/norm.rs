//! Batch and layer normalisation of channels-last rows `[R, C]`.

use super::lanes::{Element, vectorized};

/// Added to variances.
pub const EPSILON: f64 = 1e-5;

/// Mean and sum of squared deviations of each channel of `x [R, C]`, to `moments [2, C]`.
///
/// Two passes over rows that fit into the cache: no cancellation.
pub fn moments<T: Element>(x: &[T], moments: &mut [T]) {
    let c = moments.len() / 2;
    let (mean, squares) = moments.split_at_mut(c);
    vectorized(
        #[inline(always)]
        || {
            mean.fill(T::zero());
            squares.fill(T::zero());
            for row in x.chunks_exact(c) {
                for (mean, &x) in mean.iter_mut().zip(row) {
                    *mean += x;
                }
            }
            let scale = T::constant(1.0 / (x.len() / c) as f64);
            for mean in mean.iter_mut() {
                *mean *= scale;
            }
            for row in x.chunks_exact(c) {
                for ((square, &mean), &x) in squares.iter_mut().zip(mean.iter()).zip(row) {
                    let d = x - mean;
                    *square += d * d;
                }
            }
        },
    );
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
    let mean = &statistics[..c];
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                for i in 0..c {
                    y[i] = (x[i] - mean[i]) * scale[i] + bias[i];
                }
            }
        },
    );
}

/// Sums over rows of `dy` and of `dy * (x - mean) / sigma`, to `sums [2, C]`.
pub fn gradient_sums<T: Element>(x: &[T], dy: &[T], statistics: &[T], sums: &mut [T]) {
    let c = sums.len() / 2;
    let (plain, scaled) = sums.split_at_mut(c);
    let mean = &statistics[..c];
    vectorized(
        #[inline(always)]
        || {
            plain.fill(T::zero());
            scaled.fill(T::zero());
            for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                for i in 0..c {
                    plain[i] += dy[i];
                    scaled[i] += dy[i] * (x[i] - mean[i]);
                }
            }
        },
    );
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
    let mean = &statistics[..c];
    let (a, rest) = coefficients[..3 * c].split_at(c);
    let (b, d) = rest.split_at(c);
    let keep = if accumulate { T::one() } else { T::zero() };
    vectorized(
        #[inline(always)]
        || {
            for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
                if !accumulate {
                    dx.fill(T::zero());
                }
                for i in 0..c {
                    dx[i] = dx[i] * keep + (a[i] * dy[i] + b[i] * (x[i] - mean[i]) + d[i]);
                }
            }
        },
    );
}

/// Mean and `1 / sqrt(variance + eps)` of a row.
#[inline(always)]
fn row_statistics<T: Element>(x: &[T]) -> (T, T) {
    let count = T::constant(x.len() as f64);
    let mean = x.iter().copied().sum::<T>() / count;
    let variance = x.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / count;
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
                for i in 0..c {
                    y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
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
    mut dx: Option<(&mut [T], bool)>,
) {
    let c = weight.len();
    let (dweight, dbias) = parameters.split_at_mut(c);
    let count = T::constant(c as f64);
    vectorized(
        #[inline(always)]
        || {
            for (row, (x, dy)) in x.chunks_exact(c).zip(dy.chunks_exact(c)).enumerate() {
                let (mean, inverse) = row_statistics(x);
                let (mut plain, mut scaled) = (T::zero(), T::zero());
                for i in 0..c {
                    let normal = (x[i] - mean) * inverse;
                    dweight[i] += dy[i] * normal;
                    dbias[i] += dy[i];
                    plain += dy[i] * weight[i];
                    scaled += dy[i] * weight[i] * normal;
                }
                let Some((dx, accumulate)) = &mut dx else { continue };
                for (i, dx) in dx[row * c..(row + 1) * c].iter_mut().enumerate() {
                    let normal = (x[i] - mean) * inverse;
                    let value = inverse * (dy[i] * weight[i] - (plain + normal * scaled) / count);
                    *dx = if *accumulate { *dx + value } else { value };
                }
            }
        },
    );
}
