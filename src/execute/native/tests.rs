mod build;

use self::build::{Build, Case, case, cells};
use super::layer::prepare;
use super::lower::lower;
use super::plan::{Place, Plan};
use super::{NativeExecutor, Workspace, reference};
use crate::execute::{Executor, Mode};
use crate::network::{Network, OpId, OpKind};

fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what}[{i}]: {g} instead of {e} (scale {scale})");
    }
}

/// Logits and gradient in f64 and f32 against the reference and its finite differences.
fn check_mode(name: &str, network: &Network, count: usize, mode: Mode) {
    let Case { params, images, labels } = case(network, count, 7);
    let seed = super::seed(mode);
    let mut executor = NativeExecutor::<f64>::new(network, count + 2).unwrap();
    let got = executor.logits(&params, &images, mode).unwrap();
    let expected = reference::logits(network, &params, &images, seed);
    assert_close(&format!("{name}: logits"), &got, &expected, 1e-11);

    let mut gradient = vec![1.0; params.len()];
    let loss = executor.loss_and_gradient(&params, &images, &labels, mode, &mut gradient).unwrap();
    let expected_loss = reference::loss(network, &params, &images, &labels, seed);
    assert!((loss - expected_loss).abs() <= 1e-11 * expected_loss.abs().max(1.0), "{name}: loss {loss}");
    let gradient: Vec<f64> = gradient.into_iter().map(|g| g - 1.0).collect();
    let h = 1e-5;
    for param in &network.params {
        // A few elements of large tensors suffice, the first and last among them.
        let numel = param.numel();
        let step = numel.div_ceil(12).max(1);
        let chosen: Vec<usize> =
            (0..numel).step_by(step).chain([numel - 1]).map(|i| param.offset + i).collect();
        let numeric: Vec<f64> = chosen
            .iter()
            .map(|&i| {
                let at = |delta: f64| {
                    let mut shifted = params.clone();
                    shifted[i] += delta;
                    reference::loss(network, &shifted, &images, &labels, seed)
                };
                (at(h) - at(-h)) / (2.0 * h)
            })
            .collect();
        let got: Vec<f64> = chosen.iter().map(|&i| gradient[i]).collect();
        assert_close(&format!("{name}: gradient of {} {:?}", param.name, param.shape), &got, &numeric, 1e-6);
    }

    let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let double = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (params, images) = (single(&params), single(&images));
    let mut executor = NativeExecutor::<f32>::new(network, count).unwrap();
    let got = double(&executor.logits(&params, &images, mode).unwrap());
    assert_close(&format!("{name}: f32 logits"), &got, &expected, 2e-5);
    let mut single_gradient = vec![0f32; params.len()];
    executor.loss_and_gradient(&params, &images, &labels, mode, &mut single_gradient).unwrap();
    assert_close(&format!("{name}: f32 gradient"), &double(&single_gradient), &gradient, 2e-4);
}

fn check(name: &str, network: &Network, count: usize) {
    check_mode(name, network, count, Mode::TrainWithoutDropout);
}

#[test]
fn convolutions_of_every_geometry() {
    // (inputs, outputs, size, kernel, stride, padding, dilation, groups)
    for (i, o, size, kernel, stride, padding, dilation, groups) in [
        (3, 5, [7, 6], [3, 3], [1, 1], [1, 1], 1, 1),
        (3, 16, [8, 8], [3, 3], [2, 2], [1, 1], 1, 1),
        (16, 21, [7, 6], [3, 3], [1, 1], [1, 1], 1, 1),
        (18, 16, [6, 5], [3, 3], [1, 1], [0, 2], 1, 1),
        (32, 33, [5, 9], [1, 7], [1, 1], [0, 3], 1, 1),
        (32, 32, [9, 6], [7, 1], [1, 1], [3, 0], 1, 1),
        (5, 33, [5, 9], [1, 7], [1, 2], [0, 3], 1, 1),
        (17, 6, [9, 5], [7, 1], [2, 1], [3, 0], 1, 1),
        (8, 48, [6, 6], [1, 1], [1, 1], [0, 0], 1, 1),
        (9, 20, [7, 7], [1, 1], [2, 2], [0, 0], 1, 1),
        (4, 7, [9, 8], [3, 3], [1, 1], [2, 2], 2, 1),
        (4, 7, [9, 8], [5, 5], [2, 2], [4, 4], 2, 1),
        (3, 70, [6, 6], [5, 5], [1, 1], [2, 2], 1, 1),
        (2, 3, [4, 4], [1, 1], [1, 1], [1, 1], 1, 1),
        (3, 9, [8, 8], [4, 4], [4, 4], [0, 0], 1, 1),
        (6, 4, [6, 5], [3, 3], [2, 1], [1, 1], 1, 2),
        (4, 4, [7, 12], [3, 3], [1, 1], [1, 1], 1, 4),
        (19, 19, [7, 6], [3, 3], [1, 1], [1, 1], 1, 19),
        (16, 16, [9, 9], [5, 5], [2, 2], [2, 2], 1, 16),
        (35, 35, [8, 11], [3, 3], [1, 1], [2, 2], 2, 35),
        (5, 5, [9, 9], [5, 5], [2, 2], [4, 4], 2, 5),
        (8, 8, [7, 7], [7, 7], [1, 1], [3, 3], 1, 8),
    ] {
        let mut net = Build::new([i, size[0], size[1]]);
        // A convolution below, so that the gradient of the input matters.
        let x = net.conv1(OpId(0), i);
        let x = net.conv(x, o, kernel, stride, padding, dilation, groups);
        let network = net.head(x, 4);
        check(
            &format!("{o}x{i} {kernel:?}/{stride:?}+{padding:?} d{dilation} g{groups} on {size:?}"),
            &network,
            3,
        );
    }
}

#[test]
fn pooling_of_every_geometry() {
    for (channels, size, kernel, stride, padding) in [
        (5, [7, 6], 3, 1, 1),
        (17, [8, 7], 3, 2, 1),
        (4, [5, 5], 2, 2, 0),
        (3, [4, 6], 5, 1, 2),
        (2, [1, 1], 3, 2, 1),
    ] {
        for max in [true, false] {
            let mut net = Build::new([3, size[0], size[1]]);
            let x = net.conv1(OpId(0), channels);
            let x = net.pool(x, max, kernel, stride, padding);
            let network = net.head(x, 3);
            check(&format!("pool max {max} {kernel}/{stride}+{padding} on {size:?}"), &network, 3);
        }
    }
}

#[test]
fn norms_and_activations() {
    for count in [1, 5] {
        for kind in [OpKind::Relu, OpKind::Gelu, OpKind::HardSwish] {
            let mut net = Build::new([3, 5, 4]);
            let x = net.conv(OpId(0), 18, [3, 3], [1, 1], [1, 1], 1, 1);
            let x = net.batch_norm(x);
            let x = net.same(kind.clone(), x);
            let x = net.conv1(x, 7);
            let x = net.layer_norm(x);
            let x = net.same(kind.clone(), x);
            let network = net.head(x, 3);
            check(&format!("norms and {kind:?}, batch {count}"), &network, count);
        }
    }
}

#[test]
fn batch_norm_of_one_value_per_channel_gives_its_bias() {
    let mut net = Build::new([3, 1, 1]);
    let x = net.conv1(OpId(0), 4);
    let x = net.batch_norm(x);
    let network = net.head(x, 2);
    let Case { params, images, labels } = case(&network, 1, 3);
    let mut executor = NativeExecutor::<f64>::new(&network, 1).unwrap();
    let got = executor.logits(&params, &images, Mode::Evaluate).unwrap();
    assert_close("logits", &got, &reference::logits(&network, &params, &images, None), 1e-12);
    let mut gradient = vec![0.0; params.len()];
    executor.loss_and_gradient(&params, &images, &labels, Mode::TrainWithoutDropout, &mut gradient).unwrap();
    assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    // Up to rounding: the reciprocal deviation is 316 here.
    assert!(
        gradient[..12].iter().all(|g| g.abs() <= 1e-13),
        "nothing flows through a constant: {gradient:?}"
    );
}

#[test]
fn batch_norm_survives_a_large_mean() {
    let mut net = Build::new([2, 4, 4]);
    let x = net.batch_norm(OpId(0));
    let network = net.head(x, 2);
    let Case { params, images, .. } = case(&network, 6, 3);
    let images: Vec<f64> = images.iter().map(|x| x + 3000.0).collect();
    let expected = reference::logits(&network, &params, &images, None);
    let single: Vec<f32> = images.iter().map(|&x| x as f32).collect();
    let params: Vec<f32> = params.iter().map(|&x| x as f32).collect();
    let mut executor = NativeExecutor::<f32>::new(&network, 6).unwrap();
    let got = executor.logits(&params, &single, Mode::Evaluate).unwrap();
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    assert_close("logits", &got, &expected, 1e-3);
}

#[test]
fn attention_block_with_positions() {
    let mut net = Build::new([3, 9, 9]);
    let x = net.conv(OpId(0), 8, [3, 3], [3, 3], [1, 1], 1, 1);
    let weight = net.param(&[1, 8, 3, 3]);
    let x = net.same(OpKind::PosEnc { weight }, x);
    let y = net.layer_norm(x);
    let y = net.attention(y, 4, 2);
    let y = net.linear(y, 8, true);
    let x = net.add(x, y);
    let y = net.layer_norm(x);
    let y = net.linear(y, 8, true);
    let y = net.same(OpKind::Gelu, y);
    let y = net.linear(y, 8, true);
    let x = net.add(x, y);
    let network = net.head(x, 5);
    check("attention", &network, 3);
}

#[test]
fn attention_with_many_tokens() {
    let mut net = Build::new([3, 7, 6]);
    let x = net.conv1(OpId(0), 6);
    let y = net.attention(x, 2, 3);
    // The input's gradient gathers several parts.
    let z = net.attention(x, 2, 3);
    let x = net.add(y, z);
    let network = net.head(x, 5);
    check("attention over 42 tokens", &network, 2);
}

#[test]
fn squeeze_and_excitation() {
    let mut net = Build::new([3, 5, 5]);
    let x = net.conv1(OpId(0), 9);
    let x = net.excite(x);
    let x = net.op(OpKind::Subsample { stride: 2 }, &[x], [9, 3, 3]);
    let network = net.head(x, 5);
    check("squeeze and excitation", &network, 4);
}

#[test]
fn concatenation_crop_zeros_and_shared_inputs() {
    let mut net = Build::new([3, 6, 7]);
    let x = net.conv1(OpId(0), 5);
    let relu = net.same(OpKind::Relu, x);
    let a = net.conv(relu, 3, [1, 1], [2, 2], [0, 0], 1, 1);
    let crop = net.op(OpKind::Crop, &[relu], [5, 5, 6]);
    let b = net.conv(crop, 4, [1, 1], [2, 2], [0, 0], 1, 1);
    let b = net.pool(b, false, 1, 1, 0);
    let a = net.pool(a, true, 1, 1, 0);
    let a = net.op(OpKind::Crop, &[a], [3, 2, 3]);
    let b = net.op(OpKind::Crop, &[b], [4, 2, 2]);
    let a = net.op(OpKind::Subsample { stride: 2 }, &[a], [3, 1, 2]);
    let b = net.op(OpKind::Subsample { stride: 2 }, &[b], [4, 1, 1]);
    let a = net.op(OpKind::Subsample { stride: 3 }, &[a], [3, 1, 1]);
    let zeros = net.same(OpKind::Zeros, b);
    let joined = net.concat(&[a, b, zeros, a]);
    let doubled = net.add(joined, joined);
    let normed = net.batch_norm(doubled);
    let x = net.add(doubled, normed);
    let network = net.head(x, 3);
    check("arrangements", &network, 6);
}

#[test]
fn flattened_head_with_dropout() {
    let mut net = Build::new([3, 4, 5]);
    let x = net.conv(OpId(0), 6, [3, 3], [1, 1], [1, 1], 1, 1);
    let x = net.same(OpKind::Dropout { p: 0.2 }, x);
    let x = net.op(OpKind::Flatten, &[x], [120, 1, 1]);
    let x = net.linear(x, 11, true);
    let x = net.same(OpKind::Relu, x);
    let x = net.same(OpKind::Dropout { p: 0.5 }, x);
    net.linear(x, 4, true);
    let network = net.0;
    check("without dropout", &network, 5);
    check_mode("with dropout", &network, 5, Mode::Train { dropout_seed: 12 });
    let Case { params, images, .. } = case(&network, 5, 1);
    let mut executor = NativeExecutor::<f64>::new(&network, 5).unwrap();
    let mut run = |dropout_seed| executor.logits(&params, &images, Mode::Train { dropout_seed }).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_network_of_cells() {
    let network = cells();
    check("cells", &network, 2);
}

#[test]
fn results_do_not_depend_on_threads() {
    let network = cells();
    let Case { params, images, labels } = case(&network, 37, 5);
    let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let (params, images) = (single(&params), single(&images));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut executor = NativeExecutor::<f32>::new(&network, 40).unwrap();
            let logits = executor.logits(&params, &images, Mode::Evaluate).unwrap();
            let mut gradient = vec![0.0; params.len()];
            let mode = Mode::Train { dropout_seed: 3 };
            let loss = executor.loss_and_gradient(&params, &images, &labels, mode, &mut gradient).unwrap();
            (logits, loss, gradient)
        })
    };
    let bits = |(logits, loss, gradient): (Vec<f32>, f32, Vec<f32>)| {
        logits.into_iter().chain([loss]).chain(gradient).map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(run(1));
    assert!(one == bits(run(3)), "one and three threads differ");
}

#[test]
fn cheap_outputs_are_computed_again_and_not_kept() {
    let mut net = Build::new([3, 6, 6]);
    let x = net.conv1(OpId(0), 8);
    let x = net.batch_norm(x);
    let x = net.same(OpKind::Relu, x);
    let x = net.conv(x, 8, [3, 3], [1, 1], [1, 1], 1, 8);
    let x = net.conv1(x, 8);
    let lowered = lower(&net.head(x, 4));
    let (layers, _) = prepare::<f32>(&lowered.network, &lowered.marks);
    let plan = Plan::new(&lowered, &layers, true);
    // Input, convolution, norm with ReLU, depthwise convolution, convolution.
    assert_eq!(plan.again[..5], [false, false, true, true, false]);
    for op in [2, 3] {
        assert!(matches!(plan.values[op], Place::Local(_)), "output {op} is kept in {:?}", plan.values[op]);
        let stages = plan.backward.iter().filter(|stage| stage.again.iter().any(|again| again.0 == op));
        assert_eq!(stages.count(), 1, "output {op} is read in one stage");
    }
}

#[test]
fn every_instruction_set_gives_the_same_results() {
    let mut net = Build::new([3, 9, 10]);
    let x = net.conv(OpId(0), 24, [3, 3], [2, 2], [1, 1], 1, 1);
    let y = net.layer_norm(x);
    let y = net.attention(y, 3, 8);
    let y = net.same(OpKind::Gelu, y);
    let x = net.add(x, y);
    let x = net.conv(x, 24, [5, 5], [1, 1], [4, 4], 2, 24);
    let x = net.op(OpKind::Flatten, &[x], [24 * 5 * 5, 1, 1]);
    net.linear(x, 70, true);
    for (name, network) in [("cells", cells()), ("attention", net.0)] {
        let Case { params, images, labels } = case(&network, 5, 5);
        let results: Vec<Vec<f64>> = crate::kernels::levels()
            .into_iter()
            .map(|level| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
                let pool = pool.start_handler(move |_| crate::kernels::force(level)).build().unwrap();
                pool.install(|| {
                    let mut executor = NativeExecutor::<f64>::new(&network, 5).unwrap();
                    let mut gradient = vec![0.0; params.len()];
                    let mode = Mode::TrainWithoutDropout;
                    executor.loss_and_gradient(&params, &images, &labels, mode, &mut gradient).unwrap();
                    gradient
                })
            })
            .collect();
        for result in &results[1..] {
            assert_close(name, result, &results[0], 1e-11);
        }
        let logits: Vec<Vec<f64>> = crate::kernels::levels()
            .into_iter()
            .map(|level| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
                let pool = pool.start_handler(move |_| crate::kernels::force(level)).build().unwrap();
                let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
                pool.install(|| {
                    let mut executor = NativeExecutor::<f32>::new(&network, 5).unwrap();
                    let logits = executor.logits(&single(&params), &single(&images), Mode::Evaluate).unwrap();
                    logits.into_iter().map(f64::from).collect()
                })
            })
            .collect();
        for result in &logits[1..] {
            assert_close(name, result, &logits[0], 1e-5);
        }
    }
}

#[test]
fn an_executor_can_be_reused() {
    let network = cells();
    let mut reused = NativeExecutor::<f64>::new(&network, 9).unwrap();
    for (count, seed) in [(9, 1), (2, 2), (5, 3), (9, 4)] {
        let Case { params, images, labels } = case(&network, count, seed);
        let run = |executor: &mut NativeExecutor<f64>| {
            let logits = executor.logits(&params, &images, Mode::Evaluate).unwrap();
            let mut gradient = vec![0.0; params.len()];
            let loss = executor
                .loss_and_gradient(&params, &images, &labels, Mode::TrainWithoutDropout, &mut gradient)
                .unwrap();
            (logits, loss, gradient)
        };
        let mut fresh = NativeExecutor::<f64>::new(&network, count).unwrap();
        assert!(run(&mut reused) == run(&mut fresh), "batch of {count}");
    }
}

#[test]
fn what_earlier_runs_left_in_a_workspace_does_not_matter() {
    let mut small = Build::new([3, 6, 5]);
    let x = small.conv(OpId(0), 17, [3, 3], [2, 2], [1, 1], 1, 1);
    let x = small.conv(x, 17, [3, 3], [1, 1], [1, 1], 1, 1);
    let x = small.batch_norm(x);
    let small = small.head(x, 4);
    let workspace = Workspace::<f64>::default();
    // One thread: how many workers run at once, and so their memory, is else a matter of timing.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for network in [&cells(), &small, &cells()] {
            let Case { params, images, labels } = case(network, 5, 2);
            let mode = Mode::TrainWithoutDropout;
            let mut borrowing = NativeExecutor::with_workspace(network, 5, &workspace).unwrap();
            let run = |executor: &mut NativeExecutor<f64>, images: &[f64]| {
                let mut gradient = vec![0.0; params.len()];
                let logits = executor.logits(&params, images, mode).unwrap();
                let loss = executor.loss_and_gradient(&params, images, &labels, mode, &mut gradient).unwrap();
                (logits, loss, gradient)
            };
            run(&mut borrowing, &vec![f64::NAN; images.len()]);
            let idle = workspace.idle_bytes();
            let mut fresh = NativeExecutor::<f64>::new(network, 5).unwrap();
            assert!(run(&mut borrowing, &images) == run(&mut fresh, &images));
            assert_eq!(workspace.idle_bytes(), idle, "the second run needs no more memory");
        }
    });
}

#[test]
fn several_ops_may_read_a_parameter() {
    let mut net = Build::new([3, 5, 4]);
    let x = net.conv1(OpId(0), 6);
    let a = net.conv(x, 6, [3, 3], [1, 1], [1, 1], 1, 1);
    let kind = net.0.ops[a.0].kind.clone();
    let b = net.same(kind.clone(), a);
    let c = net.same(kind, x);
    let x = net.add(b, c);
    let network = net.head(x, 3);
    check("a weight read three times", &network, 4);
}

#[test]
fn moments_are_those_of_the_ops_of_the_network_given() {
    let mut net = Build::new([2, 3, 3]);
    let a = net.same(OpKind::Relu, OpId(0));
    let b = net.same(OpKind::Relu, OpId(0));
    let sum = net.add(a, b);
    let norm = net.batch_norm(sum);
    let network = net.head(norm, 2);
    let Case { params, images, .. } = case(&network, 4, 9);
    let mut executor = NativeExecutor::<f64>::new(&network, 4).unwrap();
    executor.logits(&params, &images, Mode::Evaluate).unwrap();
    assert!(executor.batch_moments(sum.0).is_none());
    let [mean, variance] = executor.batch_moments(norm.0).unwrap();
    for c in 0..2 {
        let values: Vec<f64> = images
            .chunks(18)
            .flat_map(|image| &image[9 * c..9 * (c + 1)])
            .map(|x| 2.0 * x.max(0.0))
            .collect();
        let expected = values.iter().sum::<f64>() / 36.0;
        let squares = values.iter().map(|x| (x - expected).powi(2)).sum::<f64>() / 36.0;
        assert!((mean[c] - expected).abs() < 1e-12 && (variance[c] - squares).abs() < 1e-9, "channel {c}");
    }
}

#[test]
fn nan_spreads_to_the_logits() {
    let network = cells();
    let Case { params, mut images, .. } = case(&network, 3, 1);
    images[200] = f64::NAN;
    let mut executor = NativeExecutor::<f64>::new(&network, 3).unwrap();
    let logits = executor.logits(&params, &images, Mode::Evaluate).unwrap();
    assert!(logits.iter().all(|x| x.is_nan()), "{logits:?}");

    let mut net = Build::new([2, 4, 4]);
    let x = net.pool(OpId(0), true, 3, 1, 1);
    let x = net.same(OpKind::Relu, x);
    let network = net.head(x, 2);
    let Case { params, mut images, .. } = case(&network, 2, 1);
    images[5] = f64::NAN;
    let mut executor = NativeExecutor::<f64>::new(&network, 2).unwrap();
    let logits = executor.logits(&params, &images, Mode::Evaluate).unwrap();
    assert!(logits[0].is_nan() && logits[1].is_nan(), "max pooling and ReLU keep NaN");
    assert!(logits[2].is_finite() && logits[3].is_finite(), "other images stay clean");
}

#[test]
fn bad_arguments_are_errors_with_numbers() {
    let network = cells();
    let Case { params, images, labels } = case(&network, 3, 1);
    let mut executor = NativeExecutor::<f64>::new(&network, 2).unwrap();
    let mut message = |params: &[f64], images: &[f64], labels: &[u8], grad: usize| {
        let mut grad = vec![0.0; grad];
        executor.loss_and_gradient(params, images, labels, Mode::Evaluate, &mut grad).unwrap_err().to_string()
    };
    let (n, size) = (params.len(), 3 * 12 * 12);
    let expected = format!("parameters: {} elements, expected {n}", n - 1);
    assert_eq!(message(&params[1..], &images[..size], &labels[..1], n), expected);
    for len in [0, size - 1, 3 * size] {
        let text = message(&params, &images[..len], &labels[..1], n);
        assert!(text.contains(&format!("images: {len} elements, expected 1 to 2 images")), "{text}");
    }
    assert_eq!(message(&params, &images[..size], &labels[..2], n), "labels: 2 elements, expected 1");
    assert_eq!(message(&params, &images[..size], &[10], n), "label 10 of image 0 is not below 10 classes");
    let expected = format!("gradient: 3 elements, expected {n}");
    assert_eq!(message(&params, &images[..size], &labels[..1], 3), expected);
    assert!(NativeExecutor::<f32>::new(&network, 0).is_err());

    let mut broken = network.clone();
    broken.ops[1].shape[1] = 5;
    let text = NativeExecutor::<f32>::new(&broken, 1).unwrap_err().to_string();
    assert!(text.contains("op 1") && text.contains("[20, 5, 12]"), "{text}");
}
