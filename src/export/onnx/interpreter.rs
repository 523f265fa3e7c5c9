//! A plain interpreter of the ONNX operators that exports use, written from their specification, in f64.

use super::messages::{GraphProto, ModelProto, NodeProto, TensorProto};
use std::collections::BTreeMap;

/// A tensor; integers are kept as f64 too.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dims: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn new(dims: &[usize], values: Vec<f64>) -> Array {
        assert_eq!(dims.iter().product::<usize>(), values.len(), "{dims:?}");
        Array { dims: dims.to_vec(), values }
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array::new(&self.dims, self.values.iter().map(|&value| f(value)).collect())
    }

    /// Computes an array from the indices of its elements.
    fn build(dims: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut at = vec![0; dims.len()];
        let count = dims.iter().product();
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(f(&at));
            for axis in (0..dims.len()).rev() {
                at[axis] += 1;
                if at[axis] < dims[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Array::new(dims, values)
    }

    fn get(&self, at: &[usize]) -> f64 {
        let flat = at.iter().zip(&self.dims).fold(0, |flat, (&at, &side)| {
            assert!(at < side);
            flat * side + at
        });
        self.values[flat]
    }

    fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|&value| value as i64).collect()
    }
}

fn constant(tensor: &TensorProto) -> Array {
    let dims: Vec<usize> = tensor.dims.iter().map(|&side| side as usize).collect();
    let values = match tensor.data_type {
        1 => tensor.raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        7 => tensor.raw_data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        other => panic!("{}: element type {other}", tensor.name),
    };
    Array::new(&dims, values)
}

struct Attributes<'a>(&'a NodeProto);

impl Attributes<'_> {
    fn int(&self, name: &str, default: i64) -> i64 {
        self.0.attribute.iter().find(|a| a.name == name).map_or(default, |a| {
            assert_eq!(a.kind, 2);
            a.i.unwrap()
        })
    }

    fn float(&self, name: &str) -> f64 {
        let attribute = self.0.attribute.iter().find(|a| a.name == name).unwrap();
        assert_eq!(attribute.kind, 1);
        attribute.f.unwrap().into()
    }

    fn ints(&self, name: &str, default: &[i64]) -> Vec<usize> {
        let ints = self.0.attribute.iter().find(|a| a.name == name).map_or(default, |a| {
            assert_eq!(a.kind, 7);
            &a.ints
        });
        ints.iter().map(|&value| value as usize).collect()
    }
}

/// Runs a model of one input and one output.
pub fn run(model: &ModelProto, images: Array) -> Array {
    let graph: &GraphProto = model.graph.as_ref().unwrap();
    let mut values: BTreeMap<&str, Array> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), constant(tensor))).collect();
    assert_eq!(values.len(), graph.initializer.len(), "two constants of one name");
    values.insert(&graph.input[0].name, images);
    for node in &graph.node {
        let inputs: Vec<&Array> = node
            .input
            .iter()
            .map(|name| {
                values.get(name.as_str()).unwrap_or_else(|| panic!("{}: {name} is unknown", node.name))
            })
            .collect();
        let outputs = compute(node, &inputs);
        assert_eq!(outputs.len(), node.output.len(), "{}", node.name);
        for (name, output) in node.output.iter().zip(outputs) {
            assert!(values.insert(name, output).is_none(), "{name} is computed twice");
        }
    }
    values.remove(graph.output[0].name.as_str()).unwrap()
}

fn compute(node: &NodeProto, inputs: &[&Array]) -> Vec<Array> {
    let x = inputs[0];
    let attributes = Attributes(node);
    vec![match node.op_type.as_str() {
        "Identity" => x.clone(),
        "Relu" => x.map(|x| x.max(0.0)),
        "Erf" => x.map(erf),
        "HardSwish" => x.map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Add" => broadcast(x, inputs[1], |a, b| a + b),
        "Mul" => broadcast(x, inputs[1], |a, b| a * b),
        "MatMul" => matmul(x, inputs[1]),
        "Conv" => conv(x, inputs[1], inputs.get(2).copied(), &attributes),
        "MaxPool" => {
            pool(x, &attributes, |window, _| window.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        }
        "AveragePool" => {
            let padded = attributes.int("count_include_pad", 0) == 1;
            pool(x, &attributes, move |window, size| {
                window.iter().sum::<f64>() / if padded { size as f64 } else { window.len() as f64 }
            })
        }
        "GlobalAveragePool" => Array::build(&[x.dims[0], x.dims[1], 1, 1], |at| {
            let plane = x.dims[2] * x.dims[3];
            let first = (at[0] * x.dims[1] + at[1]) * plane;
            x.values[first..first + plane].iter().sum::<f64>() / plane as f64
        }),
        "BatchNormalization" => {
            let epsilon = attributes.float("epsilon");
            Array::build(&x.dims, |at| {
                let [scale, bias, mean, variance] =
                    [1, 2, 3, 4].map(|input: usize| inputs[input].get(&[at[1]]));
                (x.get(at) - mean) / (variance + epsilon).sqrt() * scale + bias
            })
        }
        "LayerNormalization" => {
            assert_eq!(attributes.int("axis", -1), -1);
            let width = *x.dims.last().unwrap();
            let epsilon = attributes.float("epsilon");
            let rows = x.values.chunks(width).flat_map(|row| {
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let scaled = move |(i, x): (usize, &f64)| {
                    (x - mean) / (variance + epsilon).sqrt() * inputs[1].values[i] + inputs[2].values[i]
                };
                row.iter().enumerate().map(scaled).collect::<Vec<f64>>()
            });
            Array::new(&x.dims, rows.collect())
        }
        "Softmax" => {
            let axis = attributes.int("axis", -1) as usize;
            let at_position = |at: &[usize], position: usize| {
                let mut at = at.to_vec();
                at[axis] = position;
                x.get(&at)
            };
            Array::build(&x.dims, |at| {
                let all: Vec<f64> = (0..x.dims[axis]).map(|position| at_position(at, position)).collect();
                let largest = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                (x.get(at) - largest).exp() / all.iter().map(|x| (x - largest).exp()).sum::<f64>()
            })
        }
        "Gemm" => {
            assert_eq!(attributes.int("transB", 0), 1);
            let (weight, bias) = (inputs[1], inputs.get(2));
            Array::build(&[x.dims[0], weight.dims[0]], |at| {
                let product: f64 = (0..x.dims[1]).map(|i| x.get(&[at[0], i]) * weight.get(&[at[1], i])).sum();
                product + bias.map_or(0.0, |bias| bias.values[at[1]])
            })
        }
        "Flatten" => {
            assert_eq!(attributes.int("axis", 1), 1);
            Array::new(&[x.dims[0], x.values.len() / x.dims[0]], x.values.clone())
        }
        "Reshape" => {
            let dims = inputs[1].ints();
            let dims: Vec<usize> = dims
                .iter()
                .enumerate()
                .map(|(i, &side)| if side == 0 { x.dims[i] } else { side as usize })
                .collect();
            Array::new(&dims, x.values.clone())
        }
        "Transpose" => {
            let order = attributes.ints("perm", &[]);
            let dims: Vec<usize> = order.iter().map(|&axis| x.dims[axis]).collect();
            Array::build(&dims, |at| {
                let mut from = vec![0; at.len()];
                order.iter().zip(at).for_each(|(&axis, &at)| from[axis] = at);
                x.get(&from)
            })
        }
        "Concat" => {
            assert_eq!(attributes.int("axis", 0), 1);
            let mut dims = x.dims.clone();
            dims[1] = inputs.iter().map(|input| input.dims[1]).sum();
            Array::build(&dims, |at| {
                let (mut at, mut part) = (at.to_vec(), 0);
                while at[1] >= inputs[part].dims[1] {
                    at[1] -= inputs[part].dims[1];
                    part += 1;
                }
                inputs[part].get(&at)
            })
        }
        "Slice" => {
            let [starts, ends, axes, steps] = [1, 2, 3, 4].map(|input: usize| inputs[input].ints());
            let (mut dims, mut start, mut step) =
                (x.dims.clone(), vec![0; x.dims.len()], vec![1; x.dims.len()]);
            for (i, &axis) in axes.iter().enumerate() {
                let axis = axis as usize;
                (start[axis], step[axis]) = (starts[i] as usize, steps[i] as usize);
                let end = (ends[i] as usize).min(x.dims[axis]);
                dims[axis] = (end - start[axis]).div_ceil(step[axis]);
            }
            Array::build(&dims, |at| {
                let from: Vec<usize> =
                    at.iter().enumerate().map(|(i, &at)| start[i] + at * step[i]).collect();
                x.get(&from)
            })
        }
        "Shape" => Array::new(&[x.dims.len()], x.dims.iter().map(|&side| side as f64).collect()),
        "ConstantOfShape" => {
            let dims: Vec<usize> = x.ints().iter().map(|&side| side as usize).collect();
            Array::build(&dims, |_| 0.0)
        }
        "Split" => {
            assert_eq!(attributes.int("axis", 0), 1);
            let parts = node.output.len();
            let mut dims = x.dims.clone();
            dims[1] /= parts;
            let part = |part: usize| {
                Array::build(&dims, |at| {
                    let mut at = at.to_vec();
                    at[1] += part * dims[1];
                    x.get(&at)
                })
            };
            return (0..parts).map(part).collect();
        }
        other => panic!("{}: operator {other}", node.name),
    }]
}

/// Numpy's broadcasting.
fn broadcast(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
    let rank = a.dims.len().max(b.dims.len());
    let side =
        |array: &Array, axis: usize| (axis + array.dims.len()).checked_sub(rank).map_or(1, |i| array.dims[i]);
    let dims: Vec<usize> = (0..rank).map(|axis| side(a, axis).max(side(b, axis))).collect();
    let at = |array: &Array, at: &[usize]| -> f64 {
        let from = rank - array.dims.len();
        let at: Vec<usize> =
            array.dims.iter().zip(&at[from..]).map(|(&side, &at)| if side == 1 { 0 } else { at }).collect();
        array.get(&at)
    };
    Array::build(&dims, |index| f(at(a, index), at(b, index)))
}

fn matmul(a: &Array, b: &Array) -> Array {
    let rank = a.dims.len();
    let mut dims = a.dims.clone();
    dims[rank - 1] = b.dims[rank - 1];
    Array::build(&dims, |at| {
        let (mut left, mut right) = (at.to_vec(), at.to_vec());
        (0..a.dims[rank - 1])
            .map(|i| {
                (left[rank - 1], right[rank - 2]) = (i, i);
                a.get(&left) * b.get(&right)
            })
            .sum()
    })
}

/// Positions of a window's elements along an axis that lie inside.
fn window(
    at: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    side: usize,
) -> Vec<(usize, usize)> {
    (0..kernel)
        .filter_map(|tap| {
            let position = (at * stride + tap * dilation).checked_sub(pad)?;
            (position < side).then_some((tap, position))
        })
        .collect()
}

fn conv(x: &Array, weight: &Array, bias: Option<&Array>, attributes: &Attributes<'_>) -> Array {
    let kernel = [weight.dims[2], weight.dims[3]];
    assert_eq!(attributes.ints("kernel_shape", &[]), kernel);
    let strides = attributes.ints("strides", &[1, 1]);
    let dilations = attributes.ints("dilations", &[1, 1]);
    let pads = attributes.ints("pads", &[0, 0, 0, 0]);
    let groups = attributes.int("group", 1) as usize;
    let per_group = weight.dims[1];
    assert_eq!(per_group * groups, x.dims[1]);
    let side = |i: usize| {
        (x.dims[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1) - 1) / strides[i] + 1
    };
    let dims = [x.dims[0], weight.dims[0], side(0), side(1)];
    Array::build(&dims, |at| {
        let first = at[1] / (dims[1] / groups) * per_group;
        let rows = window(at[2], kernel[0], strides[0], pads[0], dilations[0], x.dims[2]);
        let columns = window(at[3], kernel[1], strides[1], pads[1], dilations[1], x.dims[3]);
        let mut sum = bias.map_or(0.0, |bias| bias.values[at[1]]);
        for channel in 0..per_group {
            for &(i, row) in &rows {
                for &(j, column) in &columns {
                    sum +=
                        weight.get(&[at[1], channel, i, j]) * x.get(&[at[0], first + channel, row, column]);
                }
            }
        }
        sum
    })
}

fn pool(x: &Array, attributes: &Attributes<'_>, join: impl Fn(&[f64], usize) -> f64) -> Array {
    let kernel = attributes.ints("kernel_shape", &[]);
    let strides = attributes.ints("strides", &[1, 1]);
    let pads = attributes.ints("pads", &[0, 0, 0, 0]);
    let side = |i: usize| (x.dims[2 + i] + pads[i] + pads[2 + i] - kernel[i]) / strides[i] + 1;
    Array::build(&[x.dims[0], x.dims[1], side(0), side(1)], |at| {
        let columns = window(at[3], kernel[1], strides[1], pads[1], 1, x.dims[3]);
        let values: Vec<f64> = window(at[2], kernel[0], strides[0], pads[0], 1, x.dims[2])
            .iter()
            .flat_map(|&(_, row)| columns.iter().map(move |&(_, column)| x.get(&[at[0], at[1], row, column])))
            .collect();
        join(&values, kernel[0] * kernel[1])
    })
}

/// The error function by its Taylor series, and by the continued fraction of its complement for large arguments.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let root = std::f64::consts::PI.sqrt();
    let value = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            term *= -z * z / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        2.0 / root * sum
    } else {
        let fraction = (1..60).rev().fold(z, |tail, n| z + n as f64 / 2.0 / tail);
        1.0 - (-z * z).exp() / root / fraction
    };
    value.copysign(x)
}

#[test]
fn the_error_function_has_its_known_values() {
    for (x, value) in [
        (0.0, 0.0),
        (0.5, 0.520_499_877_813_046_5),
        (-1.0, -0.842_700_792_949_714_9),
        (3.5, 0.999_999_256_901_627_7),
    ] {
        assert!((erf(x) - value).abs() < 1e-13, "{x}");
    }
}
