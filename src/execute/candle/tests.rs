use candle_core::{DType, Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::network::{OpId, ParamId};

/// conv3x3/2 - batch norm - ReLU - conv1x1 - max pool - flatten - linear - dropout - linear, on 2x7x7.
fn network() -> Arc<Network> {
    let mut params: Vec<Param> = Vec::new();
    let shapes = [vec![4, 2, 3, 3], vec![4], vec![4], vec![3, 4, 1, 1], vec![6, 12], vec![6], vec![3, 6]];
    for (index, shape) in shapes.into_iter().enumerate() {
        let offset = params.last().map_or(0, |p| p.offset + p.numel());
        params.push(Param { name: format!("p{index}"), shape, offset });
    }
    let conv = |weight, stride, padding| OpKind::Conv {
        weight: ParamId(weight),
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: 1,
        groups: 1,
    };
    let kinds = [
        (OpKind::Input, [2, 7, 7]),
        (conv(0, 2, 1), [4, 4, 4]),
        (OpKind::BatchNorm { weight: ParamId(1), bias: ParamId(2) }, [4, 4, 4]),
        (OpKind::Relu, [4, 4, 4]),
        (conv(3, 1, 0), [3, 4, 4]),
        (OpKind::MaxPool { kernel: 3, stride: 2, padding: 1 }, [3, 2, 2]),
        (OpKind::Flatten, [12, 1, 1]),
        (OpKind::Linear { weight: ParamId(4), bias: Some(ParamId(5)) }, [6, 1, 1]),
        (OpKind::Dropout { p: 0.5 }, [6, 1, 1]),
        (OpKind::Linear { weight: ParamId(6), bias: None }, [3, 1, 1]),
    ];
    let op = |(at, (kind, shape)): (usize, (OpKind, [usize; 3]))| OpNode {
        inputs: if at == 0 { Vec::new() } else { vec![OpId(at - 1)] },
        kind,
        shape,
    };
    let ops = kinds.into_iter().enumerate().map(op).collect();
    let network = Network { ops, params, pruned: Vec::new(), n_cells: 0 };
    network.validate().unwrap();
    Arc::new(network)
}

const IMAGES: usize = 5;
const LABELS: [u8; IMAGES] = [0, 2, 1, 1, 0];

fn uniform(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn setting() -> (CandleExecutor, Vec<f64>, Vec<f64>) {
    let network = network();
    let params = uniform(network.n_params(), 1);
    (CandleExecutor::new(network, Device::Cpu), params, uniform(IMAGES * 98, 2))
}

fn loss_and_gradient(
    executor: &mut CandleExecutor,
    params: &[f64],
    images: &[f64],
    mode: Mode,
) -> (f64, Vec<f64>) {
    let mut grad = vec![0.0; params.len()];
    let loss = executor.loss_and_gradient(params, images, &LABELS, mode, &mut grad).unwrap();
    (loss, grad)
}

/// Central differences of `loss` at `at`.
fn differences(at: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-6;
    (0..at.len())
        .map(|i| {
            let mut moved = at.to_vec();
            moved[i] += step;
            let above = loss(&moved);
            moved[i] -= 2.0 * step;
            (above - loss(&moved)) / (2.0 * step)
        })
        .collect()
}

fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance, "element {i}: {f}, wanted {w}");
    }
}

#[test]
fn gradient_equals_central_differences_under_a_fixed_dropout_mask() {
    let (mut executor, params, images) = setting();
    for mode in [Mode::TrainWithoutDropout, Mode::Train { dropout_seed: 3 }] {
        let (_, grad) = loss_and_gradient(&mut executor, &params, &images, mode);
        let wanted = differences(&params, |params| loss_and_gradient(&mut executor, params, &images, mode).0);
        assert_close(&grad, &wanted, 1e-8);
    }
}

#[test]
fn logits_are_differentiable_by_the_flat_vector_and_by_images() {
    let (mut executor, params, images) = setting();
    let vector = Var::new(params.clone(), &Device::Cpu).unwrap();
    let pixels = Tensor::new(images.clone(), &Device::Cpu).unwrap().reshape((IMAGES, 2, 7, 7)).unwrap();
    let pixels = Var::from_tensor(&pixels).unwrap();
    let logits = executor.forward(&vector, &pixels, Mode::Evaluate).unwrap();
    let labels = Tensor::new(LABELS.map(u32::from).as_slice(), &Device::Cpu).unwrap();
    let grads = ops::cross_entropy(&logits, &labels).unwrap().backward().unwrap();
    let mode = Mode::TrainWithoutDropout;
    let (_, wanted) = loss_and_gradient(&mut executor, &params, &images, mode);
    assert_close(&grads.get(&vector).unwrap().to_vec1::<f64>().unwrap(), &wanted, 1e-14);
    let by_images = grads.get(&pixels).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let wanted = differences(&images, |images| loss_and_gradient(&mut executor, &params, images, mode).0);
    assert_close(&by_images, &wanted, 1e-8);
}

#[test]
fn dropout_acts_in_training_only_and_follows_its_seed() {
    let (mut executor, params, images) = setting();
    let mut logits = |mode| executor.logits(&params, &images, mode).unwrap();
    let plain: Vec<f64> = logits(Mode::Evaluate);
    assert_eq!(plain, logits(Mode::TrainWithoutDropout));
    let seeded = logits(Mode::Train { dropout_seed: 1 });
    assert_ne!(plain, seeded);
    assert_eq!(seeded, logits(Mode::Train { dropout_seed: 1 }));
    assert_ne!(seeded, logits(Mode::Train { dropout_seed: 2 }));
}

#[test]
fn gradient_is_added_to_what_is_there() {
    let (mut executor, params, images) = setting();
    let mode = Mode::TrainWithoutDropout;
    let (_, once) = loss_and_gradient(&mut executor, &params, &images, mode);
    let mut sum = vec![10.0; params.len()];
    executor.loss_and_gradient(&params, &images, &LABELS, mode, &mut sum).unwrap();
    let wanted: Vec<f64> = once.iter().map(|g| g + 10.0).collect();
    assert_close(&sum, &wanted, 1e-12);
}

#[test]
fn relu_passes_nan_and_stops_the_gradient_at_zero() {
    let x = Var::new(&[-1.0, 0.0, 2.0, f64::NAN, f64::NEG_INFINITY], &Device::Cpu).unwrap();
    let y = ops::relu(&x).unwrap();
    let values = y.to_vec1::<f64>().unwrap();
    assert_eq!((&values[..3], values[3].is_nan(), values[4]), ([0.0, 0.0, 2.0].as_slice(), true, 0.0));
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>().unwrap()[..3], [0.0, 0.0, 1.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut executor, params, images) = setting();
    let mut reason = |params: &[f64], images: &[f64], labels: &[u8]| {
        let mut grad = vec![0.0; params.len()];
        executor.loss_and_gradient(params, images, labels, Mode::Evaluate, &mut grad).unwrap_err().to_string()
    };
    assert!(reason(&params[1..], &images, &LABELS).contains("parameters: shape"));
    assert!(reason(&params, &images[1..], &LABELS).contains("multiple of 2 * 7 * 7"));
    assert!(reason(&params, &[], &[]).contains("multiple of 2 * 7 * 7"));
    assert!(reason(&params, &images, &LABELS[1..]).contains("labels: 5 below 3"));
    assert!(reason(&params, &images, &[0, 1, 2, 3, 0]).contains("labels: 5 below 3"));
    let images = Tensor::zeros((2, 2, 7, 6), DType::F64, &Device::Cpu).unwrap();
    let params = Tensor::new(params, &Device::Cpu).unwrap();
    let error = executor.forward(&params, &images, Mode::Evaluate).unwrap_err().to_string();
    assert!(error.contains("[2, 2, 7, 7] expected, found [2, 2, 7, 6]"), "{error}");
}
