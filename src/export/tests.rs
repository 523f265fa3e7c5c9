//! Statistics against a plain computation, frozen networks, weights from files, and PyTorch text.

use super::pytorch::to_pytorch;
use super::*;
use crate::checkpoint::{read_tensors, write_tensors};
use crate::deepnets::resolve;
use crate::execute::{Executor, Mode, NativeExecutor};
use crate::images::{DataSet, ImageSet, Normalisation, PreparedImages};
use crate::network::{Network, OpId, OpKind, OpNode, Param, ParamId, Shape, build};
use crate::score::Accuracy;
use crate::space::{ArchRecord, Space, read_records};
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

const ARCHS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");

/// A model of `id` in the fixtures with random weights and statistics.
pub(super) fn random_model(id: &str) -> Model {
    let record = resolve(ARCHS, Some(id), None).unwrap();
    model_of(record)
}

fn model_of(record: ArchRecord) -> Model {
    let network = build(&record.arch, record.num_classes).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut uniform = |low: f32, high: f32| rng.random_range(low..high);
    let mut params = Vec::with_capacity(network.n_params());
    for param in &network.params {
        let fan_in: usize = param.shape[1..].iter().product();
        let bound = if param.shape.len() > 1 { (6.0 / fan_in as f32).sqrt() } else { 0.5 };
        let centre = if param.shape.len() == 1 && param.name.ends_with("weight") { 1.0 } else { 0.0 };
        params.extend((0..param.numel()).map(|_| centre + uniform(-bound, bound)));
    }
    let mut moments = BTreeMap::new();
    for op in super::statistics::batch_norms(&network) {
        let channels = network.ops[op].shape[0];
        let mean = (0..channels).map(|_| uniform(-0.5, 0.5)).collect();
        let variance = (0..channels).map(|_| uniform(0.5, 2.0)).collect();
        moments.insert(op, Moments { mean, variance });
    }
    let preparation = Preparation {
        data: "noise".into(),
        classes: (0..record.num_classes).map(|class| format!("class \"{class}\"")).collect(),
        stored: [1, 28, 28],
        normalisation: Normalisation { mean: [0.25; 3], sd: [0.5; 3] },
    };
    let statistics = Statistics { moments, batches: 3 };
    let origin = vec!["weights: drawn".to_string()];
    Model { record, network, params, statistics, origin, preparation, accuracies: Vec::new() }
}

/// Noise of zero mean and unit range, `count` images of 3x32x32.
pub(super) fn noise(count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..count * 3 * 32 * 32).map(|_| rng.random_range(-2.0..2.0)).collect()
}

fn run(network: &Network, params: &[f32], images: &[f32]) -> Vec<f32> {
    let count = images.len() / network.input_shape().iter().product::<usize>();
    NativeExecutor::<f32>::new(network, count).unwrap().logits(params, images, Mode::Evaluate).unwrap()
}

fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= tolerance * largest, "{what}: {found} where {wanted} is due");
    }
}

/// Pointwise convolution 1 -> 2, batch norm, ReLU, pointwise convolution 2 -> 2, batch norm, mean.
fn two_norms() -> Network {
    let shape: Shape = [2, 2, 3];
    let mut ops = vec![OpNode { kind: OpKind::Input, inputs: vec![], shape: [1, 2, 3] }];
    let conv = |weight: usize| OpKind::Conv {
        weight: ParamId(weight),
        stride: [1; 2],
        padding: [0; 2],
        dilation: 1,
        groups: 1,
    };
    let norm = |weight: usize| OpKind::BatchNorm { weight: ParamId(weight), bias: ParamId(weight + 1) };
    for kind in [conv(0), norm(1), OpKind::Relu, conv(3), norm(4)] {
        let inputs = vec![OpId(ops.len() - 1)];
        ops.push(OpNode { kind, inputs, shape });
    }
    ops.push(OpNode { kind: OpKind::GlobalAvgPool, inputs: vec![OpId(5)], shape: [2, 1, 1] });
    let names = [
        ("a", vec![2, 1, 1, 1]),
        ("n", vec![2]),
        ("", vec![2]),
        ("b", vec![2, 2, 1, 1]),
        ("m", vec![2]),
        ("", vec![2]),
    ];
    let (mut params, mut offset, mut module) = (Vec::new(), 0, "");
    for (name, shape) in names {
        module = if name.is_empty() { module } else { name };
        let part = if name.is_empty() { "bias" } else { "weight" };
        let param = Param { name: format!("{module}.{part}"), shape, offset };
        offset += param.numel();
        params.push(param);
    }
    Network { ops, params, pruned: vec![], n_cells: 0 }
}

const TWO_NORMS: [f32; 14] = [1.5, -0.5, 1.2, 0.7, 0.3, -0.1, 0.5, -1.0, 2.0, 0.25, 0.9, 1.1, 0.0, 0.4];

/// Mean and biased variance.
fn moments_of(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

#[test]
fn statistics_are_those_of_all_values_of_all_batches() {
    let network = two_norms();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    // Images of ever larger mean: statistics of single batches differ much from the pooled ones.
    let images: Vec<f32> = (0..13 * 6).map(|i| (i / 6) as f32 + rng.random_range(-1.0f32..1.0)).collect();
    let prepared = PreparedImages::new(images.clone(), vec![0; 13], 2).unwrap();
    let found = Statistics::compute(&network, &TWO_NORMS, &prepared, 4).unwrap();
    assert_eq!(found.batches, 3);

    let w = TWO_NORMS.map(f64::from);
    let (mut first, mut second) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    for batch in images[..12 * 6].chunks(4 * 6) {
        let mut rectified = Vec::new();
        for channel in 0..2 {
            let x: Vec<f64> = batch.iter().map(|&pixel| f64::from(pixel) * w[channel]).collect();
            let (mean, variance) = moments_of(&x);
            let normal = |x: &f64| (x - mean) / (variance + 1e-5).sqrt() * w[2 + channel] + w[4 + channel];
            rectified.push(x.iter().map(|x| normal(x).max(0.0)).collect::<Vec<f64>>());
            first[channel].extend(x);
        }
        for (channel, second) in second.iter_mut().enumerate() {
            let mix = |i: usize| w[6 + 2 * channel] * rectified[0][i] + w[7 + 2 * channel] * rectified[1][i];
            second.extend((0..batch.len()).map(mix));
        }
    }
    for (op, values) in [(2, first), (5, second)] {
        for (channel, values) in values.iter().enumerate() {
            let (mean, variance) = moments_of(values);
            let unbiased = variance * values.len() as f64 / (values.len() - 1) as f64;
            let Moments { mean: means, variance: variances } = &found.moments[&op];
            assert!((f64::from(means[channel]) - mean).abs() < 1e-5 * mean.abs().max(1.0), "op {op}");
            assert!((f64::from(variances[channel]) - unbiased).abs() < 1e-5 * unbiased, "op {op}");
        }
    }
}

#[test]
fn statistics_need_two_images_and_finite_activations() {
    let network = two_norms();
    let one = PreparedImages::new(vec![1.0; 6], vec![0], 2).unwrap();
    let error = Statistics::compute(&network, &TWO_NORMS, &one, 64).unwrap_err().to_string();
    assert!(error.contains("two images or more, found 1"), "{error}");
    let mut params = TWO_NORMS;
    params[0] = f32::MAX;
    let two = PreparedImages::new((0..12).map(|i| i as f32).collect(), vec![0; 2], 2).unwrap();
    let error = Statistics::compute(&network, &params, &two, 2).unwrap_err().to_string();
    assert!(error.contains("n: the statistics are not finite"), "{error}");
}

#[test]
fn a_network_frozen_with_a_batchs_statistics_gives_the_batchs_logits() {
    for id in ["micro/sep_conv_3x3", "micro/cse", "micro/skip_connect", "train/7"] {
        let Model { network, params, .. } = random_model(id);
        let count = 6;
        let images = noise(count);
        let prepared = PreparedImages::new(images.clone(), vec![0; count], 10).unwrap();
        let mut statistics = Statistics::compute(&network, &params, &prepared, count).unwrap();
        // A batch normalises by its biased variance.
        for (&op, moments) in &mut statistics.moments {
            let values = (count * network.ops[op].shape[1] * network.ops[op].shape[2]) as f32;
            moments.variance.iter_mut().for_each(|variance| *variance *= (values - 1.0) / values);
        }
        let (frozen, frozen_params) = freeze(&network, &params, &statistics).unwrap();
        assert!(frozen.ops.iter().all(|op| !matches!(op.kind, OpKind::BatchNorm { .. })));
        let logits = run(&frozen, &frozen_params, &images);
        assert_close(&logits, &run(&network, &params, &images), 2e-4, id);
        let alone: Vec<f32> =
            images.chunks(3 * 32 * 32).flat_map(|image| run(&frozen, &frozen_params, image)).collect();
        assert_close(&alone, &logits, 1e-5, id);
        assert!(statistics.moments.is_empty() || run(&network, &params, &images[..3072])[0] != logits[0]);
    }
}

#[test]
fn what_does_not_fit_is_not_frozen() {
    let Model { network, params, mut statistics, .. } = random_model("micro/conv_1x1");
    assert!(freeze(&network, &params[1..], &statistics).is_err());
    statistics.moments.pop_last();
    let error = freeze(&network, &params, &statistics).unwrap_err().to_string();
    assert!(error.contains("no statistics of"), "{error}");
}

#[test]
fn accuracies_with_both_statistics() {
    let Model { network, params, statistics, .. } = random_model("micro/conv_3x3");
    let labels: Vec<u8> = (0..20).map(|i| i % 10).collect();
    let images = PreparedImages::new(noise(20), labels.clone(), 10).unwrap();
    let splits = [Split { name: "validation", images }];
    let [measured] = measure(&network, &params, &statistics, &splits, 8).unwrap().try_into().unwrap();
    let share = |logits: Vec<f32>| {
        let best = |row: &[f32]| (0..10).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        logits.chunks(10).zip(&labels).filter(|(row, label)| best(row) == usize::from(**label)).count() as u64
    };
    let (frozen, frozen_params) = freeze(&network, &params, &statistics).unwrap();
    let images = noise(20);
    // Two batches of 8; the last 4 images fill none.
    let batches = images.chunks(8 * 3072).take(2).flat_map(|batch| run(&network, &params, batch)).collect();
    let batches = share(batches);
    assert_eq!((measured.with_batch.correct, measured.with_batch.images), (batches, 16));
    let stored = share(run(&frozen, &frozen_params, &images[..16 * 3072]));
    assert_eq!((measured.with_stored.correct, measured.with_stored.images), (stored, 16));
    assert_ne!(measured.with_batch.loss, measured.with_stored.loss);

    let Model { network, params, statistics, .. } = random_model("bnfree/5");
    let images = PreparedImages::new(noise(4), vec![0; 4], 10).unwrap();
    let splits = [Split { name: "test", images }];
    let measured = measure(&network, &params, &statistics, &splits, 4).unwrap().swap_remove(0);
    assert_eq!(measured.with_batch, measured.with_stored);
}

#[test]
fn statistics_images_are_drawn_without_validation_images_where_there_are_others() {
    let set = |name: &str, count: usize| {
        let pixels = (0..count).flat_map(|i| [i as u8; 4]).collect();
        let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        let classes = vec!["a".to_string(), "b".to_string()];
        Arc::new(ImageSet::new(name, classes, [1, 2, 2], pixels, vec![0; count], plain).unwrap())
    };
    let mut data = DataSet {
        name: "set".into(),
        source: "memory".into(),
        train: Some(set("train", 40)),
        validation: set("validation", 10),
        test: None,
    };
    let drawn = StatisticsImages::draw(&data, 16).unwrap();
    assert_eq!((drawn.images.len(), drawn.split, drawn.unseen_validation), (16, "training images", 10));
    assert_eq!(drawn.images, StatisticsImages::draw(&data, 16).unwrap().images);
    assert_eq!(StatisticsImages::draw(&data, 1000).unwrap().images.len(), 40);
    data.train = None;
    let drawn = StatisticsImages::draw(&data, 1000).unwrap();
    assert_eq!((drawn.images.len(), drawn.split, drawn.unseen_validation), (5, "validation images", 5));
    let brightest = drawn.images.images().iter().fold(0f32, |most, &pixel| most.max(pixel));
    assert_eq!(brightest, 9.0 / 255.0, "the last images are lent");
}

#[test]
fn weights_are_read_back_with_their_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let model = random_model("micro/none-a");
    model.write_safetensors(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let read = read_weights(&path, &model.network).unwrap();
    assert_eq!((&read.params, read.statistics.as_ref()), (&model.params, Some(&model.statistics)));
    model.write_safetensors(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "equal models give equal files");
    let metadata = read_tensors(&path).unwrap().metadata;
    let record: ArchRecord = serde_json::from_str(&metadata["architecture"]).unwrap();
    assert_eq!(record, model.record);
    assert!(metadata["classes"].contains("class \\\"3\\\""), "{metadata:?}");

    let whole = read_tensors(&path).unwrap();
    type Tensors = BTreeMap<String, Tensor>;
    let reread = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = whole.tensors.clone();
        change(&mut tensors);
        write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        read_weights(&path, &model.network)
    };
    let statistics =
        reread(&|tensors| tensors.retain(|name, _| !name.contains("running_"))).unwrap().statistics;
    assert_eq!(statistics, None);
    let dead = model.network.pruned[0].0.clone();
    let extra = |name: &str| {
        let name = name.to_string();
        move |tensors: &mut Tensors| {
            tensors.insert(name.clone(), Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap());
        }
    };
    assert_eq!(reread(&extra(&dead)).unwrap().params, model.params, "dead modules are ignored");
    let refused = |reason: &str, change: &dyn Fn(&mut Tensors)| {
        let error = reread(change).map(drop).expect_err(reason).to_string();
        assert!(error.contains(reason) && error.contains("w.safetensors"), "{reason}: {error}");
    };
    refused("stem0.0.weight [8, 3, 5, 5] is missing", &|tensors| drop(tensors.remove("stem0.0.weight")));
    refused("no tensor stem0.7.weight", &extra("stem0.7.weight"));
    refused("stem0.0.weight has the shape [2]", &extra("stem0.0.weight"));
    refused("half of the running statistics", &|tensors| drop(tensors.remove("stem0.1.running_var")));
    refused("stem0.1 has no running statistics", &|tensors| {
        tensors.retain(|name, _| !name.starts_with("stem0.1.running_"));
    });
    refused("stem0.1.bias holds NaN", &|tensors| {
        tensors.insert("stem0.1.bias".into(), Tensor::new(&[f32::NAN; 8], &Device::Cpu).unwrap());
    });
    refused("stem0.1.running_var holds -1", &|tensors| {
        tensors.insert("stem0.1.running_var".into(), Tensor::new(&[-1f32; 8], &Device::Cpu).unwrap());
    });
}

#[test]
fn every_architecture_is_written_for_pytorch() {
    let mut records = read_records(ARCHS).unwrap();
    for space in ["small", "deepnets1m", "wide", "bnfree", "search", "dense"] {
        let space = Space::find(space).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for draw in 0..40 {
            let Ok(arch) = space.sample(&mut rng) else { continue };
            let id = format!("{}/{draw}", space.name());
            let arch = crate::space::Architecture::Cells(arch);
            records.push(ArchRecord { id, split: String::new(), num_classes: 10, arch });
        }
    }
    assert!(records.len() > 150, "{}", records.len());
    let mut written = 0;
    for record in records {
        let id = record.id.clone();
        let Ok(network) = build(&record.arch, record.num_classes) else { continue };
        let empty = model_without_weights(record, network);
        let text = to_pytorch(&empty, "w.safetensors").unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(text, to_pytorch(&empty, "w.safetensors").unwrap());
        assert!(text.lines().all(|line| line.len() <= 120 && line.trim_end() == line), "{id}");
        // A name that is not assigned before it is used would show here.
        for scope in text.split("def forward(self, ").skip(1) {
            let arguments: Vec<&str> = scope[..scope.find(')').unwrap()].split(", ").collect();
            let mut known: Vec<&str> = arguments;
            for line in scope.lines().skip(1).take_while(|line| line.starts_with("        ")) {
                let used = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                let (target, _) = line.split_once(" = ").unwrap_or(("", line));
                for word in used.filter(|word| is_variable(word) && *word != target.trim()) {
                    assert!(known.contains(&word), "{id}: {word} in {line}");
                }
                known.push(target.trim());
            }
        }
        written += 1;
    }
    assert!(written > 150, "{written}");
}

/// `h0`, `p1`, `x12`.
fn is_variable(word: &str) -> bool {
    let mut letters = word.chars();
    matches!(letters.next(), Some('h' | 'p' | 'x')) && word.len() > 1 && letters.all(|c| c.is_ascii_digit())
}

fn model_without_weights(record: ArchRecord, network: Network) -> Model {
    let accuracy = Accuracy { correct: 3, images: 4, loss: 1.0 };
    let split = "test".to_string();
    let accuracies = vec![Accuracies { split, batch: 4, with_batch: accuracy, with_stored: accuracy }];
    let Model { preparation, origin, .. } = random_model("micro/conv_1x1");
    let (params, statistics) = (Vec::new(), Statistics::default());
    Model { record, network, params, statistics, origin, preparation, accuracies }
}

#[test]
fn python_text_escapes_what_users_typed() {
    let mut model = random_model("micro/conv_1x1");
    model.origin = vec!["weights: a\"\"\"b\\c".into()];
    let text = to_pytorch(&model, "we\"ird.safetensors").unwrap();
    assert!(text.contains(r#"weights: a\"\"\"b\\c"#), "{text}");
    assert!(text.contains(r#"with_name("we\"ird.safetensors")"#), "{text}");
    assert!(text.contains(r#"    "class \"3\"","#), "{text}");
}
