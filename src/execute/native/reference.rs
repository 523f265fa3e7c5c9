//! The obviously correct executor of the tests: `f64`, `[N, C, H, W]`, straight loops, forward only.

use crate::kernels::arrangement::dropout_factor;
use crate::network::{Network, OpKind, Shape};

/// Erf by Simpson's rule on its integral, good to 1e-13.
fn erf(x: f64) -> f64 {
    const STEPS: i32 = 600;
    let h = x.clamp(-6.0, 6.0) / f64::from(STEPS);
    let sum: f64 = (0..=STEPS)
        .map(|i| {
            let weight = if i == 0 || i == STEPS { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
            weight * (-(f64::from(i) * h).powi(2)).exp()
        })
        .sum();
    sum * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
}

/// A batch of activations.
#[derive(Clone)]
struct Tensor {
    shape: Shape,
    data: Vec<f64>,
}

impl Tensor {
    fn new(count: usize, shape: Shape) -> Self {
        Self { shape, data: vec![0.0; count * shape.iter().product::<usize>()] }
    }

    fn at(&self, n: usize, c: usize, y: usize, x: usize) -> usize {
        let [channels, height, width] = self.shape;
        ((n * channels + c) * height + y) * width + x
    }

    fn get(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        self.data[self.at(n, c, y, x)]
    }

    fn padded(&self, n: usize, c: usize, y: isize, x: isize) -> Option<f64> {
        let inside = y >= 0 && x >= 0 && (y as usize) < self.shape[1] && (x as usize) < self.shape[2];
        inside.then(|| self.get(n, c, y as usize, x as usize))
    }
}

/// Logits `[N, classes]`.
pub(super) fn logits(network: &Network, params: &[f64], images: &[f64], seed: Option<u64>) -> Vec<f64> {
    let count = images.len() / network.input_shape().iter().product::<usize>();
    let mut values: Vec<Tensor> = Vec::new();
    for (index, op) in network.ops.iter().enumerate() {
        let mut out = Tensor::new(count, op.shape);
        let inputs: Vec<&Tensor> = op.inputs.iter().map(|input| &values[input.0]).collect();
        let weights = |id: crate::network::ParamId| {
            let param = &network.params[id.0];
            &params[param.offset..param.offset + param.numel()]
        };
        if op.kind == OpKind::Input {
            out.data.copy_from_slice(images);
            values.push(out);
            continue;
        }
        let x = inputs.first().copied();
        let [channels, height, width] = op.shape;
        // Whole-batch statistics first.
        let mut moments = vec![(0.0, 0.0); channels];
        if let (OpKind::BatchNorm { .. }, Some(x)) = (&op.kind, x) {
            for (c, moment) in moments.iter_mut().enumerate() {
                let mut all = Vec::new();
                for n in 0..count {
                    for i in 0..height * width {
                        all.push(x.data[(n * channels + c) * height * width + i]);
                    }
                }
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                *moment = (mean, all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64);
            }
        }
        for n in 0..count {
            for c in 0..channels {
                for row in 0..height {
                    for column in 0..width {
                        let same = |x: &Tensor| x.get(n, c, row, column);
                        let value = match (&op.kind, inputs.as_slice()) {
                            (OpKind::Conv { weight, stride, padding, dilation, groups }, [x]) => {
                                let w = weights(*weight);
                                let &[o, i, kh, kw] = network.params[weight.0].shape.as_slice() else {
                                    panic!()
                                };
                                let group = c / (o / groups);
                                let mut sum = 0.0;
                                for k in 0..i {
                                    for ky in 0..kh {
                                        for kx in 0..kw {
                                            let y = (row * stride[0] + ky * dilation) as isize
                                                - padding[0] as isize;
                                            let z = (column * stride[1] + kx * dilation) as isize
                                                - padding[1] as isize;
                                            let v = x.padded(n, group * i + k, y, z).unwrap_or(0.0);
                                            sum += v * w[((c * i + k) * kh + ky) * kw + kx];
                                        }
                                    }
                                }
                                sum
                            }
                            (OpKind::Linear { weight, bias }, [x]) => {
                                let (w, depth) = (weights(*weight), x.shape[0]);
                                (0..depth).map(|k| w[c * depth + k] * x.get(n, k, row, column)).sum::<f64>()
                                    + bias.map_or(0.0, |bias| weights(bias)[c])
                            }
                            (OpKind::BatchNorm { weight, bias }, [x]) => {
                                let (mean, variance) = moments[c];
                                (same(x) - mean) / (variance + 1e-5).sqrt() * weights(*weight)[c]
                                    + weights(*bias)[c]
                            }
                            (OpKind::LayerNorm { weight, bias }, [x]) => {
                                let all: Vec<f64> = (0..channels).map(|k| x.get(n, k, row, column)).collect();
                                let mean = all.iter().sum::<f64>() / channels as f64;
                                let variance =
                                    all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
                                (same(x) - mean) / (variance + 1e-5).sqrt() * weights(*weight)[c]
                                    + weights(*bias)[c]
                            }
                            (OpKind::Relu, [x]) => same(x).max(0.0),
                            (OpKind::Gelu, [x]) => same(x) * 0.5 * (1.0 + erf(same(x) / 2f64.sqrt())),
                            (OpKind::HardSwish, [x]) => same(x) * (same(x) + 3.0).clamp(0.0, 6.0) / 6.0,
                            (&OpKind::MaxPool { kernel, stride, padding }, [x])
                            | (&OpKind::AvgPool { kernel, stride, padding }, [x]) => {
                                let mut seen = Vec::new();
                                for ky in 0..kernel {
                                    for kx in 0..kernel {
                                        let y = (row * stride + ky) as isize - padding as isize;
                                        let z = (column * stride + kx) as isize - padding as isize;
                                        seen.extend(x.padded(n, c, y, z));
                                    }
                                }
                                if matches!(op.kind, OpKind::MaxPool { .. }) {
                                    seen.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                                } else {
                                    seen.iter().sum::<f64>() / seen.len() as f64
                                }
                            }
                            (OpKind::GlobalAvgPool | OpKind::SqueezeMean, [x]) => {
                                let area = x.shape[1] * x.shape[2];
                                let first = x.at(n, c, 0, 0);
                                x.data[first..first + area].iter().sum::<f64>() / area as f64
                            }
                            (OpKind::Excite, [x, gate]) => same(x) * gate.get(n, c, 0, 0),
                            (&OpKind::Attention { heads, head_dim }, [x]) => {
                                attention(x, n, heads, head_dim, c, row * width + column)
                            }
                            (OpKind::PosEnc { weight }, [x]) => {
                                same(x) + weights(*weight)[(c * height + row) * width + column]
                            }
                            (OpKind::Add, [a, b]) => same(a) + same(b),
                            (OpKind::Concat, all) => {
                                let (mut c, mut k) = (c, 0);
                                while c >= all[k].shape[0] {
                                    c -= all[k].shape[0];
                                    k += 1;
                                }
                                all[k].get(n, c, row, column)
                            }
                            (OpKind::Zeros, _) => 0.0,
                            (OpKind::Subsample { stride }, [x]) => x.get(n, c, row * stride, column * stride),
                            (OpKind::Crop, [x]) => x.get(n, c, row + 1, column + 1),
                            (OpKind::Flatten, [x]) => x.data[n * channels + c],
                            (&OpKind::Dropout { p }, [x]) => {
                                let element = ((n * height + row) * width + column) * channels + c;
                                same(x)
                                    * seed.map_or(1.0, |seed| {
                                        dropout_factor::<f64>(seed, index as u64, element as u64, p)
                                    })
                            }
                            (kind, inputs) => panic!("{kind:?} with {} inputs", inputs.len()),
                        };
                        let at = out.at(n, c, row, column);
                        out.data[at] = value;
                    }
                }
            }
        }
        values.push(out);
    }
    values.pop().expect("networks have ops").data
}

fn attention(x: &Tensor, n: usize, heads: usize, width: usize, c: usize, query: usize) -> f64 {
    let tokens = x.shape[1] * x.shape[2];
    let get = |part: usize, head: usize, d: usize, token: usize| {
        x.data[(n * x.shape[0] + (part * heads + head) * width + d) * tokens + token]
    };
    let head = c / width;
    let scores: Vec<f64> = (0..tokens)
        .map(|key| {
            (0..width).map(|d| get(0, head, d, query) * get(1, head, d, key)).sum::<f64>()
                / (width as f64).sqrt()
        })
        .collect();
    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
    (0..tokens).map(|key| scores[key].exp() / sum * get(2, head, c % width, key)).sum()
}

/// Mean cross entropy.
pub(super) fn loss(
    network: &Network,
    params: &[f64],
    images: &[f64],
    labels: &[u8],
    seed: Option<u64>,
) -> f64 {
    let logits = logits(network, params, images, seed);
    let classes = network.num_classes();
    let total: f64 = logits
        .chunks(classes)
        .zip(labels)
        .map(|(row, &label)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[usize::from(label)])
        .sum();
    total / labels.len() as f64
}
