//! Narrow heads against the definition in double precision and its numeric derivative.

use super::Narrow;
use crate::kernels::attention::Attention;
use crate::kernels::lanes::Element;
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
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            for d in 0..width {
                let mix = |(j, s): (usize, &f64)| (s - largest).exp() / sum * at(2, j, d);
                y[i * inner + head * width + d] = scores.iter().enumerate().map(mix).sum();
            }
        }
    }
    y
}

/// Result and gradient by the kernels.
fn both<T: Element>(geometry: &Attention, x: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
    let cast = |values: &[f64]| values.iter().map(|&v| T::constant(v)).collect::<Vec<T>>();
    let (x, dy) = (cast(x), cast(dy));
    let mut scratch = vec![T::nan(); geometry.scratch_len::<T>()];
    let mut sums = vec![T::nan(); geometry.sums_len()];
    let (mut y, mut dx) = (vec![T::nan(); dy.len()], vec![T::nan(); x.len()]);
    geometry.run(&x, &mut y, &mut sums, &mut scratch);
    let mut again = vec![T::nan(); dy.len()];
    geometry.run(&x, &mut again, &mut [], &mut scratch);
    let bits = |y: &[T]| y.iter().map(|y| y.double().to_bits()).collect::<Vec<u64>>();
    assert_eq!(bits(&y), bits(&again), "results do not depend on whether sums are kept");
    scratch.fill(T::nan());
    geometry.gradient(&x, [&y, &dy], &sums, &mut dx, &mut scratch);
    [y, dx].map(|values| values.iter().map(|v| v.double()).collect())
}

fn number(i: usize) -> f64 {
    ((i as f64 + 0.3) * 0.618_033_988_749_895).fract() * 4.0 - 2.0
}

/// Compares both precisions with the definition; tolerances are of results and gradients, each with `f64` and `f32`.
fn check(name: &str, geometry: &Attention, x: &[f64], tolerances: [[f64; 2]; 2]) {
    let dy: Vec<f64> = (0..x.len() / 3).map(|i| number(7 * i + 1)).collect();
    let [y, dx] = both::<f64>(geometry, x, &dy);
    for (got, expected) in y.iter().zip(plain(geometry, x)) {
        assert!((got - expected).abs() < tolerances[0][0], "{name}: {got} instead of {expected}");
    }
    let loss = |x: &[f64]| plain(geometry, x).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
    // All channels and parts, some of the positions.
    for (i, got) in dx.iter().enumerate().step_by((dx.len() / 50) | 1) {
        let shifted = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            loss(&x)
        };
        let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
        assert!((got - expected).abs() < tolerances[1][0], "{name}: dx[{i}] {got} instead of {expected}");
    }
    let [y32, dx32] = both::<f32>(geometry, x, &dy);
    for (pairs, tolerance) in
        [(y32.iter().zip(&y), tolerances[0][1]), (dx32.iter().zip(&dx), tolerances[1][1])]
    {
        for (at, (got, expected)) in pairs.enumerate() {
            assert!((got - expected).abs() < tolerance, "{name}, f32 at {at}: {got} instead of {expected}");
        }
    }
}

#[test]
fn narrow_heads_agree_with_the_definition_and_its_derivative() {
    for level in levels() {
        force(level);
        for (tokens, heads, width) in [
            (1, 1, 1),
            (5, 2, 2),
            (16, 3, 3),
            (17, 1, 4),
            (33, 2, 4),
            (21, 2, 5),
            (9, 1, 8),
            (35, 1, 8),
            (7, 2, 11),
            (19, 2, 16),
        ] {
            let geometry = Attention { tokens, heads, width };
            let x: Vec<f64> = (0..3 * tokens * heads * width).map(number).collect();
            let name = format!("{level:?}, {geometry:?}");
            check(&name, &geometry, &x, [[1e-12, 2e-5], [1e-8, 4e-5]]);
        }
    }
}

/// Several tiles of queries.
#[test]
fn many_queries_agree_with_few() {
    for level in levels() {
        force(level);
        for (width, tokens) in [(2, 150), (3, 110), (4, 90), (8, 70), (16, 50)] {
            let few = 5;
            let whole = Attention { tokens, heads: 1, width };
            let x: Vec<f64> = (0..3 * tokens * width).map(number).collect();
            // Only a few queries have slopes, in the first and the last tile.
            let slopes = |i: usize| if (few..tokens - few).contains(&(i / width)) { 0.0 } else { number(i) };
            let dy: Vec<f64> = (0..tokens * width).map(slopes).collect();
            let [y, dx] = both::<f64>(&whole, &x, &dy);
            let expected = plain(&whole, &x);
            assert!(y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{level:?}, {width}");
            let loss = |x: &[f64]| plain(&whole, x).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
            for i in (0..dx.len()).step_by((dx.len() / 12) | 1) {
                let shifted = |by: f64| {
                    let mut x = x.clone();
                    x[i] += by;
                    loss(&x)
                };
                let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((dx[i] - expected).abs() < 1e-8, "{level:?}, width {width}: dx[{i}] {}", dx[i]);
            }
        }
    }
}

/// Scores of hundreds, other ones for each query and head.
#[test]
fn scores_beyond_the_exponents_are_shifted() {
    for level in levels() {
        force(level);
        for (tokens, width) in [(1, 2), (6, 2), (18, 3), (21, 4), (19, 8), (20, 16)] {
            let geometry = Attention { tokens, heads: 2, width };
            let inner = 2 * width;
            for (case, shift) in [("spread", 0.0), ("all low", -1.0), ("all high", 1.0)] {
                let x: Vec<f64> = (0..3 * tokens * inner)
                    .map(|at| {
                        let (i, part, d) = (at / (3 * inner), at % (3 * inner) / inner, at % width);
                        // The second head is calm.
                        match (part, at % inner < width) {
                            (0, true) if d == 0 => (i + 1) as f64 * 300.0 / tokens as f64,
                            (1, true) if d == 0 => (width as f64).sqrt() * (shift + number(at) / 30.0),
                            _ => number(at) / 4.0,
                        }
                    })
                    .collect();
                let narrow = Narrow::new(&geometry);
                let mut maxima = vec![0.0; 3 * inner];
                narrow.maxima(&x, &mut maxima);
                let calm = [0, 1].map(|head| narrow.is_calm(&maxima, head));
                assert!(calm[1] && (case == "spread" || !calm[0]), "{case}: {calm:?}");
                let name = format!("{level:?}, {case}, {geometry:?}");
                check(&name, &geometry, &x, [[1e-11, 2e-4], [1e-5, 2e-2]]);
            }
        }
    }
}

/// Arithmetic with subnormal numbers is many times slower, and they would pass through the whole backward pass.
#[test]
fn keys_that_nobody_attends_to_get_no_subnormal_gradients() {
    for level in levels() {
        force(level);
        for (width, steep) in [2, 4, 8, 16, 24].into_iter().flat_map(|width| [(width, 3.0), (width, 60.0)]) {
            let geometry = Attention { tokens: 40, heads: 1, width };
            let x: Vec<f64> = (0..120 * width).map(|at| steep * number(at)).collect();
            let dy: Vec<f64> = (0..40 * width).map(|at| 1e-4 * number(7 * at + 1)).collect();
            let [y, dx] = both::<f32>(&geometry, &x, &dy);
            let tiny = f64::from(f32::MIN_POSITIVE);
            for value in y.iter().chain(&dx) {
                assert!(*value == 0.0 || value.abs() >= tiny, "{level:?}, {geometry:?}: {value:e}");
            }
        }
    }
}

#[test]
fn lost_and_endless_inputs_reach_the_queries_that_they_touch() {
    for level in levels() {
        force(level);
        for width in [2, 4, 16] {
            let geometry = Attention { tokens: 20, heads: 2, width };
            let inner = 2 * width;
            for lost in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut x: Vec<f64> = (0..60 * inner).map(number).collect();
                // A channel of the third query of the first head.
                x[2 * 3 * inner] = lost;
                let dy: Vec<f64> = (0..20 * inner).map(number).collect();
                let [y, dx] = both::<f32>(&geometry, &x, &dy);
                for (i, y) in y.iter().enumerate() {
                    let touched = i / inner == 2 && i % inner < width;
                    assert_eq!(y.is_nan(), touched, "{level:?}, {lost}: y[{i}] = {y}");
                }
                for (i, dx) in dx.iter().enumerate() {
                    let first_head = i % inner < width;
                    let by_query = i % (3 * inner) < inner;
                    let touched = first_head && (!by_query || i / (3 * inner) == 2);
                    assert_eq!(dx.is_nan(), touched, "{level:?}, {lost}: dx[{i}] = {dx}");
                }
            }
        }
    }
}
