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

const SIZES: [([usize; 2], usize, usize, usize); 7] = [
    ([8, 8], 16, 16, 3),
    ([7, 9], 3, 21, 2),
    ([8, 7], 33, 5, 2),
    ([3, 4], 7, 40, 1),
    ([32, 32], 40, 9, 2),
    ([1, 1], 4, 4, 5),
    ([12, 13], 13, 36, 2),
];

#[test]
fn products_equal_plain_sums() {
    for level in levels() {
        force(level);
        for (input, inputs, outputs, _) in SIZES {
            for (kernel, padding) in [([3, 3], [1, 1]), ([1, 7], [0, 3]), ([1, 1], [0, 0])] {
                let direct = Direct { images: 1, kernel, padding, input, inputs, outputs };
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
                let packing = Packing::new::<f64>(outputs);
                compare(&direct, &format!("{level:?} product"), |x, weight, y, dy, gradient| {
                    let mut packed = vec![f64::NAN; packing.len(direct.taps() * inputs)];
                    let mut padded = vec![f64::NAN; spread.len()];
                    packing.pack(direct.taps() * inputs, outputs, &mut packed, |row, output| {
                        weight[(output * inputs + row % inputs) * direct.taps() + row / inputs]
                    });
                    spread.run(x, &mut padded);
                    let (x, taps) = (&padded[..], &taps[..]);
                    Product { x, view, taps, depth, weight: &packed, packing, outputs, y, accumulate: true }
                        .run();
                    let (stride, accumulate) = (outputs, true);
                    WeightGradient { x, view, taps, depth, dy, stride, outputs, gradient, accumulate }.run();
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

/// The algorithm, however few the channels.
fn karatsuba(plain: Plain) -> Karatsuba {
    match Fast::new(Plain { inputs: 64, outputs: 64, ..plain }) {
        Some(Fast::Karatsuba(known)) => Karatsuba { inputs: plain.inputs, outputs: plain.outputs, ..known },
        other => panic!("{plain:?}: {other:?}"),
    }
}

#[test]
fn karatsuba_equals_plain_sums() {
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
                let karatsuba = karatsuba(plain);
                let taps = direct.taps();
                compare(&direct, &format!("{level:?} karatsuba"), |x, weight, y, dy, gradient| {
                    let mut packed = vec![f64::NAN; karatsuba.packed_len::<f64>()];
                    karatsuba.pack(
                        Filters { weight, input: taps, output: taps * inputs, reversed: false },
                        &mut packed,
                    );
                    let mut scratch = vec![f64::NAN; karatsuba.scratch_len::<f64>(images)];
                    karatsuba.run(images, x, &packed, y, true, &mut scratch);
                    karatsuba.gradient(images, x, dy, gradient, &mut scratch);
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
        let (karatsuba, taps) = (karatsuba(plain), kernel[0] * kernel[1]);
        let weight = &numbers(taps * inputs * outputs, 0.7)[..];
        let mut packed = vec![0.0; 18 * 7 * 64];
        karatsuba.pack(Filters { weight, input: taps, output: taps * inputs, reversed: false }, &mut packed);
        karatsuba.run(1, &x, &packed, &mut y, false, &mut scratch);
        let filters = Filters { weight, input: taps * inputs, output: taps, reversed: true };
        karatsuba.back().pack(filters, &mut packed);
        karatsuba.back().run(1, &dy, &packed, &mut dx, false, &mut scratch);
        assert_adjoint(&y, &dy, &x, &dx);
    }
}

#[test]
fn sums_in_single_precision_keep_their_digits() {
    // Relative errors of result and gradient; those of direct sums are about 1e-7.
    fn run<T: Element>(x: &[f64], weight: &[f64], kernel: [usize; 2]) -> Vec<f64> {
        let element = |x: &f64| T::constant(f64::from(*x as f32));
        let x: Vec<T> = x.iter().map(element).collect();
        let weight: Vec<T> = weight.iter().map(element).collect();
        let (inputs, outputs) = (64, 64);
        let (mut y, mut gradient) = (vec![T::zero(); x.len()], vec![T::zero(); weight.len()]);
        let mut scratch = vec![T::zero(); 1_000_000];
        let mut packed = vec![T::zero(); 1_000_000];
        let (weight, reversed) = (&weight[..], false);
        let padding = kernel.map(|size| size / 2);
        let plain = Plain { kernel, input: [16, 16], output: [16, 16], padding, inputs, outputs };
        let fast = Fast::new(plain).expect("a fast algorithm");
        let taps = kernel[0] * kernel[1];
        fast.pack(Filters { weight, input: taps, output: taps * inputs, reversed }, &mut packed);
        fast.run(1, &x, &packed, &mut y, false, &mut scratch);
        fast.gradient(1, &x, &y, &mut gradient, &mut scratch);
        y.into_iter().chain(gradient).map(T::double).collect()
    }
    let noise = |count: usize, seed: f64| -> Vec<f64> {
        (0..count).map(|i| (i as f64 * i as f64 * 0.618_033_988_749_895 + seed).fract() - 0.5).collect()
    };
    let x = noise(256 * 64, 0.5);
    // Larger kernels sum more products one after the other, as direct sums do.
    for (kernel, limit) in [([3, 3], 6e-7), ([1, 7], 6e-7), ([5, 5], 1e-6), ([7, 7], 1.5e-6)] {
        let taps = kernel[0] * kernel[1];
        let weight = noise(taps * 64 * 64, 0.7);
        let (got, exact) = (run::<f32>(&x, &weight, kernel), run::<f64>(&x, &weight, kernel));
        for part in [0..x.len(), x.len()..x.len() + weight.len()] {
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
            let error = norm(&mut got[part.clone()].iter().zip(&exact[part.clone()]).map(|(g, e)| g - e));
            let error = error / norm(&mut exact[part.clone()].iter().copied());
            assert!(error < limit, "{taps} taps, {part:?}: relative error {error:e}");
            println!("{taps} taps, {part:?}: relative error {error:e}");
        }
    }
}
