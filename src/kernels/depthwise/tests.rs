//! Sliding windows against plain taps over padded images.

use super::*;
use crate::kernels::convolution::Spread;
use crate::kernels::{force, levels};

fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|i| ((i as f64 + seed) * 0.618_033_988_749_895).fract() - 0.5).collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() < 1e-11, "{what}[{i}]: {g} instead of {e}");
    }
}

/// Result, and gradient of the weights added to ones, with taps over a padded copy.
fn plain(
    size: [usize; 2],
    channels: usize,
    (kernel, dilation, padding): (usize, usize, [usize; 2]),
    output: [usize; 2],
    x: &[f64],
    weight: &[f64],
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let target = std::array::from_fn(|axis| size[axis] + 2 * padding[axis]);
    let origin = padding.map(|padding| padding as isize);
    let spread = Spread { image: size, target, origin, step: [1, 1], channels };
    let mut padded = vec![0.0; spread.len()];
    spread.run(x, &mut padded);
    let row = target[1] * channels;
    let taps: Vec<usize> =
        (0..kernel * kernel).map(|t| (t / kernel * row + t % kernel * channels) * dilation).collect();
    let (x, view, taps) = (&padded[..], View { size: output, row, column: channels }, &taps[..]);
    let (mut y, mut gradient) = (vec![0.0; dy.len()], vec![1.0; weight.len()]);
    Depthwise { x, view, taps, channels, weight, y: &mut y, accumulate: false }.run();
    DepthwiseGradient { x, view, taps, channels, dy, gradient: &mut gradient }.run();
    (y, gradient)
}

#[test]
fn sliding_windows_equal_plain_taps() {
    for level in levels() {
        force(level);
        for (size, channels) in [([8, 8], 16), ([5, 9], 19), ([1, 3], 5), ([17, 32], 33), ([2, 13], 64)] {
            for (kernel, dilation, padding) in [
                (3, 1, [1, 1]),
                (3, 1, [0, 2]),
                (5, 1, [2, 2]),
                (3, 2, [2, 2]),
                (5, 2, [4, 4]),
                (5, 2, [8, 3]),
            ] {
                let extent = (kernel - 1) * dilation;
                if (0..2).any(|axis: usize| size[axis] + 2 * padding[axis] <= extent) {
                    continue;
                }
                let output = std::array::from_fn(|axis: usize| size[axis] + 2 * padding[axis] - extent);
                let name = format!("{level:?} {size:?} x {channels}, {kernel} d{dilation} +{padding:?}");
                let x = numbers(size[0] * size[1] * channels, 0.5);
                let dy = numbers(output[0] * output[1] * channels, 0.1);
                let weight = numbers(kernel * kernel * channels, 0.7);
                let (expected, expected_gradient) =
                    plain(size, channels, (kernel, dilation, padding), output, &x, &weight, &dy);

                let sliding =
                    Sliding::new([kernel; 2], dilation, size, output, padding, channels).expect(&name);
                let mut y = vec![0.25; dy.len()];
                sliding.run(&x, &weight, false, &mut y, true);
                let y: Vec<f64> = y.into_iter().map(|y| y - 0.25).collect();
                assert_close(&name, &y, &expected);
                let mut gradient = vec![1.0; weight.len()];
                sliding.gradient(&x, &dy, &mut gradient);
                assert_close(&format!("{name}: gradient"), &gradient, &expected_gradient);

                let mut dx = vec![f64::NAN; x.len()];
                sliding.back().run(&dy, &weight, true, &mut dx, false);
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let (left, right) = (dot(&y, &dy), dot(&x, &dx));
                assert!((left - right).abs() < 1e-9, "{name}: {left} and {right}");
            }
        }
    }
}

#[test]
fn other_geometries_are_refused() {
    assert!(Sliding::new([7, 7], 1, [8, 8], [8, 8], [3, 3], 4).is_none());
    assert!(Sliding::new([3, 5], 1, [8, 8], [8, 8], [1, 2], 4).is_none());
    assert!(Sliding::new([3, 3], 3, [8, 8], [8, 8], [3, 3], 4).is_none());
    assert!(Sliding::new([3, 3], 1, [8, 8], [9, 9], [1, 1], 4).is_none());
}
