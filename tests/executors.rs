//! The executors against PyTorch: op by op with gradients (fixture made by `tests/scripts/torch_ops.py`), and
//! whole networks with predicted weights (logits of the reference); and against each other.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use candle_core::{Device, Tensor, WithDType};
use flate2::read::GzDecoder;
use foretell::execute::{CandleExecutor, Executor, Mode, NativeExecutor, Precision, Real};
use foretell::kernels::Element;
use foretell::network::{Network, build};
use foretell::space::ArchRecord;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    origin: BTreeMap<String, String>,
    networks: BTreeMap<String, Network>,
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn unpacked(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fixture(name).as_slice()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn numbers<T: Real>(tensors: &SafeTensors, name: &str) -> Vec<T> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    match tensor.dtype() {
        Dtype::F64 => tensor.data().as_chunks().0.iter().map(|b| T::of(f64::from_le_bytes(*b))).collect(),
        Dtype::F32 => {
            tensor.data().as_chunks().0.iter().map(|b| T::of(f64::from(f32::from_le_bytes(*b)))).collect()
        }
        other => panic!("{name}: {other:?}"),
    }
}

/// Absolute differences within `tolerance` times the largest wanted value (at least 1).
fn assert_close<T: Real>(what: &str, found: &[T], wanted: &[T], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let scale = wanted.iter().fold(1.0, |max: f64, v| max.max(Real::to_f64(*v).abs()));
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        let difference = Real::to_f64(*f - *w).abs();
        assert!(difference <= tolerance * scale, "{what}, element {i}: {f}, wanted {w}");
    }
}

/// Every case of the fixture on the executor that `make` makes.
fn equals_torch<T: Real>(make: impl Fn(Arc<Network>) -> Box<dyn Executor<T>>, tolerance: f64) {
    let cases: Cases = serde_json::from_slice(&fixture("torch_ops.json")).unwrap();
    assert!(cases.origin["torch"].starts_with("2."));
    assert!(cases.networks.len() >= 40);
    let bytes = fixture("torch_ops.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (name, network) in cases.networks {
        network.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        let get = |field: &str| numbers::<T>(&tensors, &format!("{name}|{field}"));
        let (params, images) = (get("params"), get("images"));
        let labels = tensors.tensor(&format!("{name}|labels")).unwrap();
        let mut executor = make(Arc::new(network));
        let logits = executor.logits(&params, &images, Mode::Evaluate).unwrap();
        assert_close(&format!("{name}: logits"), &logits, &get("logits"), tolerance);
        let ones = vec![T::one(); params.len()];
        let mut grad = ones.clone();
        let mode = Mode::TrainWithoutDropout;
        let loss = executor.loss_and_gradient(&params, &images, labels.data(), mode, &mut grad).unwrap();
        assert_close(&format!("{name}: loss"), &[loss], &get("loss"), tolerance);
        grad.iter_mut().zip(ones).for_each(|(g, one)| *g -= one);
        assert_close(&format!("{name}: gradient"), &grad, &get("grad"), tolerance);
    }
}

fn candle<T: Real + WithDType>(network: Arc<Network>) -> Box<dyn Executor<T>> {
    Box::new(CandleExecutor::new(network, Device::Cpu))
}

fn native<T: Real + Element>(network: Arc<Network>) -> Box<dyn Executor<T>>
where
    NativeExecutor<T>: Executor<T>,
{
    Box::new(NativeExecutor::<T>::new(&network, 8).unwrap())
}

#[test]
fn native_equals_torch_in_double_precision() {
    equals_torch::<f64>(native, 1e-12);
}

#[test]
fn native_equals_torch_in_single_precision() {
    equals_torch::<f32>(native, 1e-4);
}

#[test]
fn candle_equals_torch_in_double_precision() {
    equals_torch::<f64>(candle, 1e-12);
}

#[test]
fn candle_equals_torch_in_single_precision() {
    equals_torch::<f32>(candle, 1e-4);
}

/// Logits of networks whose predicted weights are stored completely (in f32, which limits the agreement).
fn equals_reference<T: Real>(make: impl Fn(Arc<Network>) -> Box<dyn Executor<T>>) {
    let records: Vec<ArchRecord> = serde_json::from_slice(&fixture("archs.json")).unwrap();
    let (inputs, predictions) =
        (unpacked("inputs.safetensors.gz"), unpacked("predictions/ghn2_random.safetensors.gz"));
    let images = numbers::<T>(&SafeTensors::deserialize(&inputs).unwrap(), "images");
    let predictions = SafeTensors::deserialize(&predictions).unwrap();
    for id in ["bnfree/1", "dense/6", "micro/conv_7x1_1x7", "micro/msa", "train/7"] {
        let record = records.iter().find(|record| record.id == id).unwrap();
        let network = build(&record.arch, record.num_classes).unwrap();
        let weights = unpacked(&format!("full/ghn2_random/{}.safetensors.gz", id.replace('/', "__")));
        let weights = SafeTensors::deserialize(&weights).unwrap();
        let params: Vec<T> = network.params.iter().flat_map(|p| numbers::<T>(&weights, &p.name)).collect();
        let logits = make(Arc::new(network)).logits(&params, &images, Mode::Evaluate).unwrap();
        let wanted = numbers::<T>(&predictions, &format!("{id}|logits_f64"));
        assert_close(id, &logits, &wanted, 1e-4);
    }
}

#[test]
fn candle_equals_the_reference_on_whole_networks() {
    equals_reference::<f32>(candle);
    equals_reference::<f64>(candle);
}

#[test]
fn native_equals_the_reference_on_whole_networks() {
    equals_reference::<f32>(native);
    equals_reference::<f64>(native);
}

/// Parameters of the usual scale, seeded by the architecture's place in the fixture.
fn random_params(network: &Network, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut params = Vec::with_capacity(network.n_params());
    for param in &network.params {
        let norm_weight = param.shape.len() == 1 && param.name.ends_with("weight");
        let fan_in: usize = param.shape[1..].iter().product();
        let scale = if param.shape.len() > 1 { (6.0 / fan_in as f64).sqrt() } else { 0.3 };
        let centre = if norm_weight { 1.0 } else { 0.0 };
        params.extend((0..param.numel()).map(|_| centre + rng.random_range(-scale..scale)));
    }
    params
}

type Outcome = (Vec<f64>, f64, Vec<f64>);

fn outcome(
    executor: &mut dyn Executor<f64>,
    params: &[f64],
    images: &[f64],
    labels: &[u8],
    mode: Mode,
) -> Outcome {
    let logits = executor.logits(params, images, mode).unwrap();
    let mut grad = vec![0.0; params.len()];
    let loss = executor.loss_and_gradient(params, images, labels, mode, &mut grad).unwrap();
    (logits, loss, grad)
}

#[test]
fn both_executors_agree_on_whole_networks_with_any_number_of_threads() {
    let records: Vec<ArchRecord> = serde_json::from_slice(&fixture("archs.json")).unwrap();
    let inputs = unpacked("inputs.safetensors.gz");
    let images = numbers::<f64>(&SafeTensors::deserialize(&inputs).unwrap(), "images");
    let some = [
        "train/7",
        "train/12",
        "train/19",
        "bnfree/1",
        "deep/3",
        "dense/1",
        "search/2",
        "search/6",
        "wide/8",
        "quirk/0",
        "quirk/5",
        "quirk/20",
        "named/ViT",
        "named/DARTS",
    ];
    let wanted = |id: &str| id.starts_with("micro/") || some.contains(&id);
    let mut compared = 0;
    for (seed, record) in records.iter().enumerate().filter(|(_, record)| wanted(&record.id)) {
        let id = &record.id;
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let network = Arc::new(build(&record.arch, record.num_classes).unwrap());
        let params = random_params(&network, &mut rng);
        let images = &images[..3 * network.input_shape().iter().product::<usize>()];
        let labels = [1, 0, 7];
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = |threads: usize, mode| {
            let mut executor = NativeExecutor::<f64>::new(&network, 3).unwrap();
            pool(threads).install(|| outcome(&mut executor, &params, images, &labels, mode))
        };
        let mode = Mode::Train { dropout_seed: 5 };
        let (logits, loss, grad) = run(1, mode);
        assert!((logits.clone(), loss, grad.clone()) == run(3, mode), "{id}: one and three threads differ");
        let mut executor = candle::<f64>(network.clone());
        let (candle_logits, candle_loss, candle_grad) =
            outcome(executor.as_mut(), &params, images, &labels, mode);
        assert_close(&format!("{id}: logits"), &logits, &candle_logits, 1e-10);
        assert_close(&format!("{id}: loss"), &[loss], &[candle_loss], 1e-10);
        for param in &network.params {
            let part = param.offset..param.offset + param.numel();
            let what = format!("{id}: gradient of {}", param.name);
            assert_close(&what, &grad[part.clone()], &candle_grad[part], 1e-8);
        }
        compared += 1;
    }
    assert_eq!(compared, 18 + some.len());
}

/// Every case of the fixture in numbers of fewer bits, without gradients.
#[test]
fn candle_stays_near_torch_in_half_precision() {
    let cases: Cases = serde_json::from_slice(&fixture("torch_ops.json")).unwrap();
    let bytes = fixture("torch_ops.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (name, network) in cases.networks {
        let get = |field: &str| numbers::<f32>(&tensors, &format!("{name}|{field}"));
        let (params, images, wanted) = (get("params"), get("images"), get("logits"));
        let [c, h, w] = network.input_shape();
        let executor = CandleExecutor::new(Arc::new(network), Device::Cpu);
        let params = Tensor::new(params, &Device::Cpu).unwrap();
        let images = Tensor::new(images, &Device::Cpu).unwrap().reshape(((), c, h, w)).unwrap();
        // Some tens of roundings of half a unit in the last of 11 or 8 bits.
        for (precision, tolerance) in [(Precision::F16, 0.01), (Precision::Bf16, 0.08)] {
            let [params, images] = [&params, &images].map(|x| x.to_dtype(precision.dtype()).unwrap());
            let logits = executor.forward(&params, &images, Mode::Evaluate).unwrap();
            assert_eq!(logits.dtype(), precision.dtype());
            let logits = logits.to_dtype(candle_core::DType::F32).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_close(&format!("{name} in {precision}"), &logits, &wanted, tolerance);
        }
    }
}
