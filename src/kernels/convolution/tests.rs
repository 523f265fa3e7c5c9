//! The fast algorithms against the direct products, and the products against plain sums.

use super::*;
use crate::kernels::{force, levels};

fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|i| ((i as f64 + seed) * 0.618_033_988_749_895).fract() - 0.5).collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() < 1e-11, "{what}[{i}]: {g} instead of {e}");
    }
}

/// A convolution of stride 1.
#[derive(Debug)]
struct Direct {
    images: usize,
    kernel: [usize; 2],
    padding: [usize; 2],
    input: [usize; 2],
    inputs: usize,
    outputs: usize,
}

impl Direct {
    fn output(&self) -> [usize; 2] {
        std::array::from_fn(|axis| self.input[axis] + 2 * self.padding[axis] + 1 - self.kernel[axis])
    }

    fn x(&self) -> Vec<f64> {
        numbers(self.images * self.input[0] * self.input[1] * self.inputs, 0.5)
    }

    fn dy(&self) -> Vec<f64> {
        numbers(self.images * self.output()[0] * self.output()[1] * self.outputs, 0.1)
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Weights `[outputs, inputs, taps]`.
    fn weight(&self) -> Vec<f64> {
        numbers(self.taps() * self.inputs * self.outputs, 0.7)
    }

    /// Result, and a gradient `[taps, inputs, outputs]` of the weights that starts at 1.
    fn run(&self) -> (Vec<f64>, Vec<f64>) {
        let (x, dy, weight) = (self.x(), self.dy(), self.weight());
        let [height, width] = self.output();
        let mut y = vec![0.0; dy.len()];
        let mut gradient = vec![1.0; weight.len()];
        for image in 0..self.images {
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                let out = ((image * height + row) * width + column) * self.outputs;
                for tap in 0..self.taps() {
                    let v = (row + tap / self.kernel[1]).wrapping_sub(self.padding[0]);
                    let u = (column + tap % self.kernel[1]).wrapping_sub(self.padding[1]);
                    if v >= self.input[0] || u >= self.input[1] {
                        continue;
                    }
                    let from = ((image * self.input[0] + v) * self.input[1] + u) * self.inputs;
                    for input in 0..self.inputs {
                        for output in 0..self.outputs {
                            let w = (output * self.inputs + input) * self.taps() + tap;
                            y[out + output] += x[from + input] * weight[w];
                            gradient[(tap * self.inputs + input) * self.outputs + output] +=
                                x[from + input] * dy[out + output];
                        }
                    }
                }
            }
        }
        (y, gradient)
    }
}

/// Compares an algorithm with the direct sum; `run` gets images, weights, a result to add to, a gradient of the
/// result and a gradient of the weights to add to.
fn compare(direct: &Direct, name: &str, run: impl Fn(&[f64], &[f64], &mut [f64], &[f64], &mut [f64])) {
    let (x, dy, weight) = (direct.x(), direct.dy(), direct.weight());
    let (expected, expected_gradient) = direct.run();
    let (mut y, mut gradient) = (vec![0.25; dy.len()], vec![1.0; weight.len()]);
    run(&x, &weight, &mut y, &dy, &mut gradient);
    let y: Vec<f64> = y.into_iter().map(|y| y - 0.25).collect();
    assert_close(&format!("{name} {direct:?}"), &y, &expected);
    assert_close(&format!("{name} {direct:?}: gradient"), &gradient, &expected_gradient);
}

const SIZES: [([usize; 2], usize, usize, usize); 9] = [
    ([8, 8], 16, 16, 3),
    ([7, 9], 3, 21, 2),
    ([8, 7], 33, 5, 2),
    ([3, 4], 7, 40, 1),
    ([32, 32], 40, 9, 2),
    ([1, 1], 4, 4, 5),
    ([12, 13], 13, 36, 2),
    ([5, 6], 150, 3, 2),
    ([2, 1], 130, 4, 3),
];

/// Result and gradient of the weights by the direct products, added to.
fn products<T: Element>(direct: &Direct, x: &[T], weight: &[T], y: &mut [T], dy: &[T], gradient: &mut [T]) {
    let Direct { kernel, padding, input, inputs, outputs, .. } = *direct;
    let spread = Spread {
        image: input,
        target: std::array::from_fn(|axis| input[axis] + 2 * padding[axis]),
        origin: padding.map(|padding| padding as isize),
        step: [1, 1],
        channels: inputs,
    };
    let row = spread.target[1] * inputs;
    let view = View { size: direct.output(), row, column: inputs };
    let taps: Vec<usize> = (0..kernel[0]).map(|y| y * row).collect();
    let depth = kernel[1] * inputs;
    let packing = Packing::new::<T>(outputs);
    let mut packed = vec![T::nan(); packing.len(direct.taps() * inputs)];
    let mut padded = vec![T::nan(); spread.len()];
    packing.pack(direct.taps() * inputs, outputs, &mut packed, |row, output| {
        weight[(output * inputs + row % inputs) * direct.taps() + row / inputs]
    });
    spread.run(x, &mut padded);
    let (x, taps) = (&padded[..], &taps[..]);
    Product { x, view, taps, depth, weight: &packed, packing, outputs, y, accumulate: true }.run();
    let (stride, accumulate) = (outputs, true);
    WeightGradient { x, view, taps, depth, dy, stride, outputs, gradient, accumulate }.run();
}

#[test]
fn products_equal_plain_sums() {
    for level in levels() {
        force(level);
        for (input, inputs, outputs, _) in SIZES {
            for (kernel, padding) in [([3, 3], [1, 1]), ([1, 7], [0, 3]), ([1, 1], [0, 0])] {
                let direct = Direct { images: 1, kernel, padding, input, inputs, outputs };
                compare(&direct, &format!("{level:?} product"), |x, weight, y, dy, gradient| {
                    products(&direct, x, weight, y, dy, gradient);
                });
            }
        }
    }
}

#[test]
fn winograd_equals_plain_sums() {
    for level in levels() {
        force(level);
        for (input, inputs, outputs, images) in SIZES {
            for padding in [[1, 1], [0, 2], [2, 1]] {
                let direct = Direct { images, kernel: [3, 3], padding, input, inputs, outputs };
                if input[0] + 2 * padding[0] < 3 {
                    continue;
                }
                let winograd = Winograd { input, output: direct.output(), padding, inputs, outputs };
                compare(&direct, &format!("{level:?} winograd"), |x, weight, y, dy, gradient| {
                    let mut packed = vec![f64::NAN; winograd.packed_len::<f64>()];
                    winograd
                        .pack(Filters { weight, input: 9, output: 9 * inputs, reversed: false }, &mut packed);
                    let mut scratch = vec![f64::NAN; winograd.scratch_len::<f64>(images)];
                    winograd.run(images, x, &packed, y, true, &mut scratch);
                    winograd.gradient(images, x, dy, gradient, &mut scratch);
                });
            }
        }
    }
}

#[test]
fn toom_cook_equals_plain_sums() {
    for level in levels() {
        force(level);
        for (input, inputs, outputs, images) in SIZES {
            for (kernel, padding) in [
                ([7, 1], [3, 0]),
                ([1, 7], [0, 3]),
                ([1, 7], [0, 6]),
                ([7, 1], [4, 0]),
                ([5, 5], [2, 2]),
                ([7, 7], [3, 3]),
                ([5, 5], [4, 1]),
                ([7, 7], [2, 5]),
            ] {
                if (0..2).any(|axis| input[axis] + 2 * padding[axis] < kernel[axis]) {
                    continue;
                }
                let direct = Direct { images, kernel, padding, input, inputs, outputs };
                let plain = Plain { kernel, input, output: direct.output(), padding, inputs, outputs };
                let toom_cook = ToomCook::new(plain).expect("a kernel of five or seven taps");
                let taps = direct.taps();
                compare(&direct, &format!("{level:?} toom_cook"), |x, weight, y, dy, gradient| {
                    let mut packed = vec![f64::NAN; toom_cook.packed_len::<f64>()];
                    toom_cook.pack(
                        Filters { weight, input: taps, output: taps * inputs, reversed: false },
                        &mut packed,
                    );
                    let mut scratch = vec![f64::NAN; toom_cook.scratch_len::<f64>(images)];
                    toom_cook.run(images, x, &packed, y, true, &mut scratch);
                    toom_cook.gradient(images, x, dy, gradient, &mut scratch);
                });
            }
        }
    }
}

/// `<conv(x), dy> = <x, back(dy)>`.
fn assert_adjoint(y: &[f64], dy: &[f64], x: &[f64], dx: &[f64]) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (left, right) = (dot(y, dy), dot(x, dx));
    assert!((left - right).abs() < 1e-11, "{left} and {right}");
}

#[test]
fn gradients_of_images_are_adjoint() {
    let (inputs, outputs) = (5, 8);
    let (x, dy) = (numbers(30 * inputs, 0.5), numbers(30 * outputs, 0.1));
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    let mut scratch = vec![0.0; 100_000];

    let winograd = Winograd { input: [6, 5], output: [6, 5], padding: [1, 1], inputs, outputs };
    let weight = &numbers(9 * inputs * outputs, 0.7)[..];
    let mut packed = vec![0.0; 16 * 64];
    winograd.pack(Filters { weight, input: 9, output: 9 * inputs, reversed: false }, &mut packed);
    winograd.run(1, &x, &packed, &mut y, false, &mut scratch);
    winograd.back().pack(Filters { weight, input: 9 * inputs, output: 9, reversed: true }, &mut packed);
    winograd.back().run(1, &dy, &packed, &mut dx, false, &mut scratch);
    assert_adjoint(&y, &dy, &x, &dx);

    for (kernel, padding) in [([7, 1], [3, 0]), ([1, 7], [0, 3]), ([5, 5], [2, 2]), ([7, 7], [3, 3])] {
        let plain = Plain { kernel, input: [6, 5], output: [6, 5], padding, inputs, outputs };
        let toom_cook = ToomCook::new(plain).expect("a kernel of five or seven taps");
        let taps = kernel[0] * kernel[1];
        let weight = &numbers(taps * inputs * outputs, 0.7)[..];
        let mut packed = vec![0.0; 10 * (7 * 64 + 8)];
        toom_cook.pack(Filters { weight, input: taps, output: taps * inputs, reversed: false }, &mut packed);
        toom_cook.run(1, &x, &packed, &mut y, false, &mut scratch);
        let filters = Filters { weight, input: taps * inputs, output: taps, reversed: true };
        toom_cook.back().pack(filters, &mut packed);
        toom_cook.back().run(1, &dy, &packed, &mut dx, false, &mut scratch);
        assert_adjoint(&y, &dy, &x, &dx);
    }
}

/// Result and gradient of the weights.
fn result_and_gradient<T: Element>(direct: &Direct, numbers: [&[f64]; 3], fast: bool) -> [Vec<f64>; 2] {
    let elements = |x: &[f64]| x.iter().map(|&x| T::constant(f64::from(x as f32))).collect();
    let [x, weight, dy]: [Vec<T>; 3] = numbers.map(elements);
    let Direct { kernel, padding, input, inputs, outputs, .. } = *direct;
    let (mut y, mut gradient) = (vec![T::zero(); dy.len()], vec![T::zero(); weight.len()]);
    if fast {
        let plain = Plain { kernel, input, output: direct.output(), padding, inputs, outputs };
        let fast = Fast::new(plain).expect("a fast algorithm");
        let mut scratch = vec![T::zero(); fast.scratch_len::<T>(1)];
        let mut packed = vec![T::zero(); fast.packed_len::<T>()];
        let taps = direct.taps();
        let filters = Filters { weight: &weight, input: taps, output: taps * inputs, reversed: false };
        fast.pack(filters, &mut packed);
        fast.run(1, &x, &packed, &mut y, false, &mut scratch);
        fast.gradient(1, &x, &dy, &mut gradient, &mut scratch);
    } else {
        products(direct, &x, &weight, &mut y, &dy, &mut gradient);
    }
    [y, gradient].map(|values| values.into_iter().map(T::double).collect())
}

#[test]
fn single_precision_keeps_its_digits() {
    let noise = |count: usize, seed: f64| -> Vec<f64> {
        (0..count).map(|i| (i as f64 * i as f64 * 0.618_033_988_749_895 + seed).fract() - 0.5).collect()
    };
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    // Largest relative errors of result and gradient, and how many times those of the direct products they may be: a
    // quarter above what the chosen points give, while the usual ones for seven taps give 1.6 times as much.
    for (kernel, limits, times) in [
        ([3, 3], [6e-7, 6e-7], [2.0, 3.0]),
        ([5, 5], [1.2e-6, 9e-7], [1.8, 5.0]),
        ([1, 7], [2.3e-6, 2.2e-6], [6.3, 11.5]),
        ([7, 1], [2.3e-6, 2.2e-6], [6.3, 11.5]),
        ([7, 7], [3e-6, 2.2e-6], [3.2, 11.5]),
    ] {
        let padding = kernel.map(|size| size / 2);
        let direct = Direct { images: 1, kernel, padding, input: [16, 16], inputs: 64, outputs: 64 };
        let (x, weight, dy) =
            (noise(256 * 64, 0.5), noise(direct.taps() * 64 * 64, 0.7), noise(256 * 64, 0.3));
        let numbers = [&x[..], &weight, &dy];
        let exact = result_and_gradient::<f64>(&direct, numbers, false);
        for level in levels() {
            force(level);
            let [plain, fast] = [false, true].map(|fast| result_and_gradient::<f32>(&direct, numbers, fast));
            for (part, name) in ["result", "gradient"].into_iter().enumerate() {
                let error = |found: &[f64]| {
                    let gap = norm(&mut found.iter().zip(&exact[part]).map(|(found, exact)| found - exact));
                    gap / norm(&mut exact[part].iter().copied())
                };
                let (plain, fast) = (error(&plain[part]), error(&fast[part]));
                println!("{level:?}, {kernel:?}, {name}: relative error {fast:e}, directly {plain:e}");
                let good = fast < limits[part] && fast < times[part] * plain;
                assert!(good, "{level:?}, {kernel:?}, {name}: relative error {fast:e}, directly {plain:e}");
            }
        }
    }
}
