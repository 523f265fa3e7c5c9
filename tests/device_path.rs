//! What runs on a GPU, on the CPU: evaluation, search and training through the candle executor with everything resident
//! on one device, against the native executor's path.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use foretell::evaluation::{Evaluation, EvaluationPlan, Progress, Row, Source, Weights, read_rows};
use foretell::execute::Precision;
use foretell::ghn::Ghn;
use foretell::images::{self, DataSet, ImageSet, Normalisation};
use foretell::pipeline::{EvaluationSettings, GhnEvaluator};
use foretell::score::Scores;
use foretell::space::{CellArchitecture, Space};
use foretell::training::{RandomInit, TrainConfig, Trainer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const IMAGES: &str = "fashion-mnist-slice";

fn settings(precision: Precision) -> EvaluationSettings {
    EvaluationSettings {
        ghn: None,
        images: IMAGES.into(),
        eval_images: 64,
        batch: 32,
        noise_levels: vec![0.08],
        noise_seed: 0,
        latency_batch: 1,
        latency_threads: 1,
        measure_latency: false,
        precision,
        refinement: None,
    }
}

fn candidates(count: usize) -> Vec<CellArchitecture> {
    let space = Space::find("small").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    (0..count).map(|_| space.sample(&mut rng).unwrap()).collect()
}

/// Differences of accuracy and of loss.
fn gaps(found: &Scores, wanted: &Scores) -> [f64; 3] {
    let gap = |of: fn(&Scores) -> Option<f64>| (of(found).unwrap() - of(wanted).unwrap()).abs();
    [gap(|s| s.accuracy), gap(|s| s.robustness), gap(|s| s.loss)]
}

#[test]
fn candidates_in_flight_on_a_device_score_as_on_the_cpu() {
    let cpu = GhnEvaluator::new(settings(Precision::F32)).unwrap();
    assert_eq!(cpu.lanes(), None);
    let device = GhnEvaluator::new(settings(Precision::F32)).unwrap().on(&Device::Cpu, 2).unwrap();
    assert_eq!(device.lanes(), Some(2));
    let candidates = candidates(3);
    let wanted: Vec<Scores> = candidates.iter().map(|arch| cpu.score(arch).unwrap()).collect();
    // More at once than there are lanes.
    let found: Vec<Scores> = std::thread::scope(|scope| {
        let device = &device;
        let threads: Vec<_> =
            candidates.iter().map(|arch| scope.spawn(move || device.score(arch).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (found, wanted) in found.iter().zip(&wanted) {
        let [accuracy, robustness, loss] = gaps(found, wanted);
        // An image whose two best logits are equal but for rounding may change its class.
        assert!(accuracy <= 1.5 / 64.0 && robustness <= 1.5 / 64.0 && loss <= 1e-4, "{found:?}, {wanted:?}");
        assert_eq!((found.params, found.macs, found.images), (wanted.params, wanted.macs, wanted.images));
        assert!(found.predict_ms.is_some() && found.latency_ms.is_none());
    }
    let again = device.score(&candidates[0]).unwrap();
    assert_eq!(gaps(&again, &found[0]), [0.0; 3]);
}

#[test]
fn candidates_run_in_half_precision() {
    let arch = &candidates(1)[0];
    let wanted = GhnEvaluator::new(settings(Precision::F32)).unwrap().score(arch).unwrap();
    for (precision, tolerance) in [(Precision::F16, 0.01), (Precision::Bf16, 0.08)] {
        let evaluator = GhnEvaluator::new(settings(precision)).unwrap().on(&Device::Cpu, 1).unwrap();
        let found = evaluator.score(arch).unwrap();
        let [accuracy, robustness, loss] = gaps(&found, &wanted);
        assert!(
            accuracy <= 0.05 && robustness <= 0.05 && loss <= tolerance,
            "{precision}: {found:?}, {wanted:?}"
        );
        assert!(loss > 1e-6, "{precision}: as if it had run in f32");
    }
}

#[test]
fn settings_name_a_precision_that_is_not_single() {
    let text = |precision| serde_json::to_string(&settings(precision)).unwrap();
    assert!(!text(Precision::F32).contains("precision"));
    assert!(text(Precision::Bf16).contains(r#""precision":"bf16""#));
    let read: EvaluationSettings = serde_json::from_str(&text(Precision::F16)).unwrap();
    assert_eq!(read, settings(Precision::F16));
}

struct Silent;

impl Progress for Silent {
    fn row(&mut self, _: usize, _: usize, _: &Row) {}
}

#[test]
fn hypernetworks_are_measured_on_a_device_as_on_the_cpu() {
    let data = images::open(IMAGES).unwrap();
    let plan = EvaluationPlan {
        images: IMAGES.into(),
        on: "validation".into(),
        eval_images: 64,
        batch: 32,
        seed: 1,
        sgd_steps: 0,
        sgd_lr: 0.1,
        weights: Default::default(),
        precision: Precision::F32,
    };
    let weights = [Source::Ghn(Box::new(Ghn::bundled().unwrap())), Source::Random(RandomInit::He)];
    let names = ["bundled", "he"];
    let weights: Vec<Weights> = weights
        .into_iter()
        .zip(names)
        .map(|(source, name)| Weights { name: name.into(), identity: name.into(), source })
        .collect();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let rows = |evaluation: Evaluation, folder: &Path| {
        let groups = ["small".parse().unwrap()];
        evaluation.run(&groups, 1, &weights, folder, &AtomicBool::new(false), &mut Silent).unwrap();
        read_rows(&folder.join("architectures.csv")).unwrap()
    };
    let wanted = rows(Evaluation::new(plan.clone(), &data).unwrap(), folders[0].path());
    let resident = Evaluation::new(plan, &data).unwrap().on(&Device::Cpu).unwrap();
    let found = rows(resident, folders[1].path());
    assert_eq!((found.len(), wanted.len()), (2, 2));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(
            (&found.weights, &found.hash, found.images),
            (&wanted.weights, &wanted.hash, wanted.images)
        );
        assert!((found.accuracy.unwrap() - wanted.accuracy.unwrap()).abs() <= 1.5 / 64.0);
        assert!((found.loss.unwrap() - wanted.loss.unwrap()).abs() <= 1e-4, "{found:?}, {wanted:?}");
    }
}

const TRAINING: &str = r#"
seed = 3
steps = 6
checkpoint_every = 2

average = 0.9
clip_network = 2.0

[ghn]
max_shape = [16, 16, 11, 11]
num_classes = 2
hypernet = "gatedgnn"
decoder = "conv"
weight_norm = true
ve = true
layernorm = true
hid = 8

[images]
source = "in memory"
batch = 8

[architectures]
meta_batch = 2
spaces = [{ space = "small", share = 1.0 }]

[optimizer]
lr = 2e-3

[schedule]
kind = "cosine"
warmup = 2

[evaluation]
every = 3
architectures = 2
images = 16
"#;

/// Dark and bright images.
fn shades() -> DataSet {
    let set = |name: &str, count: usize| {
        let labels: Vec<u8> = (0..count).map(|i| (i % 2) as u8).collect();
        let pixels = (0..count * 1024).map(|p| (p / 1024 % 2 * 150 + p * 31 % 100) as u8).collect();
        let classes = vec!["dark".to_owned(), "bright".to_owned()];
        let normalisation = Normalisation { mean: [0.4; 3], sd: [0.35; 3] };
        Arc::new(ImageSet::new(name, classes, [1, 32, 32], pixels, labels, normalisation).unwrap())
    };
    let (train, validation) = (Some(set("train", 24)), set("validation", 16));
    DataSet { name: "shades".into(), source: "in memory".into(), train, validation, test: None }
}

#[test]
fn a_hypernetwork_trains_on_a_device_as_on_the_cpu() {
    let data = shades();
    let config: TrainConfig = toml::from_str(TRAINING).unwrap();
    let mut cpu = Trainer::new(config.clone(), &data).unwrap();
    let mut device = Trainer::new(config, &data).unwrap();
    device.move_to(&Device::Cpu).unwrap();
    for step in 0..3 {
        let (wanted, found) = (cpu.step().unwrap(), device.step().unwrap());
        let close = |a: Option<f64>, b: Option<f64>, tolerance: f64| {
            let (a, b) = (a.unwrap(), b.unwrap());
            (a - b).abs() <= tolerance * b.abs()
        };
        // Later steps stand on earlier ones, whose rounding an activation at a ReLU's kink amplifies.
        let tolerance = if step == 0 { 1e-4 } else { 2e-2 };
        assert!(close(found.loss, wanted.loss, tolerance), "{found:?}, {wanted:?}");
        assert!(close(found.grad_norm, wanted.grad_norm, 10.0 * tolerance), "{found:?}, {wanted:?}");
        assert!(!found.skipped);
    }
    let (wanted, found) = (cpu.evaluate().unwrap(), device.evaluate().unwrap());
    assert_eq!((found.step, found.accuracies.len()), (wanted.step, 2));
    assert!((found.mean - wanted.mean).abs() <= 0.13, "{found:?}, {wanted:?}");
}
