//! Training of one network: equal to PyTorch's SGD, independent of threads, exact on resume, clear about bad input.

mod golden;

use foretell::checkpoint::read_tensors;
use foretell::images::{Augmentation, DataSet, ImageSet, Normalisation};
use foretell::space::{ArchRecord, read_records};
use foretell::training::{
    Ending, EpochReport, NetworkObserver, NetworkTrainer, NetworkTraining, RandomInit, SgdConfig, TrainOn,
    fit_network, random_weights, weights_from_file,
};
use golden::f64s;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Images of the script `tests/scripts/torch_sgd.py`: a hash, brighter for higher classes.
fn pixels(images: usize) -> Vec<u8> {
    (0..images * 3 * 1024)
        .map(|n| {
            let mut u = (n as u64 * 2_654_435_761) as u32;
            u ^= u >> 16;
            u = u.wrapping_mul(2_246_822_519);
            let (noise, label, row) =
                (u64::from((u >> 8) % 128), (n / 3072 % 3) as u64, (n / 32 % 32) as u64);
            (noise + label * 20 + row * (label + 1)).min(255) as u8
        })
        .collect()
}

fn data(images: usize) -> DataSet {
    let constants = Normalisation { mean: [0.5; 3], sd: [0.25; 3] };
    let set = |name: &str, count: usize| {
        let labels = (0..count).map(|image| (image % 3) as u8).collect();
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        Arc::new(ImageSet::new(name, classes, [3, 32, 32], pixels(count), labels, constants).unwrap())
    };
    DataSet {
        name: "hashes".into(),
        source: "memory".into(),
        train: Some(set("train", images)),
        validation: set("validation", 12),
        test: None,
    }
}

fn record() -> ArchRecord {
    read_records(golden::path("sgd/arch.json")).unwrap().remove(0)
}

fn config() -> NetworkTraining {
    NetworkTraining {
        architecture: record(),
        init: "he".into(),
        images: "memory".into(),
        train_on: TrainOn::Train,
        shots: None,
        epochs: 3,
        batch: 8,
        optimizer: SgdConfig { lr: 0.05, ..SgdConfig::default() },
        warmup: 0,
        clip: 5.0,
        augmentation: Augmentation::NONE,
        drop_path: 0.0,
        eval_images: 12,
        eval_batch: 6,
        seed: 7,
    }
}

#[derive(serde::Deserialize)]
struct Trace {
    steps: u64,
    warmup: u64,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    clip: f64,
    losses: Vec<f64>,
    gradient_norms: Vec<f64>,
    running: BTreeMap<String, [Vec<f64>; 2]>,
    /// Sum, sum of absolute values, first four elements at most.
    last: BTreeMap<String, Vec<f64>>,
}

/// One batch holds all images, so their order does not matter, and an epoch is a step. PyTorch's own float32 run stays
/// within 3e-7 of its float64 run; the tolerance of the losses leaves an order of magnitude for another order of sums.
/// Gradients jump where an activation crosses a ReLU's kink, which rounding decides: their norms, and the weights that
/// twelve steps lead to, get more room.
#[test]
fn steps_equal_pytorch() {
    let trace: Trace = golden::json("sgd/trace.json");
    let config = NetworkTraining {
        epochs: trace.steps,
        warmup: trace.warmup,
        batch: 24,
        optimizer: SgdConfig { lr: trace.lr, momentum: trace.momentum, weight_decay: trace.weight_decay },
        clip: trace.clip,
        ..config()
    };
    let mut trainer = NetworkTrainer::new(config, &data(24), |network| {
        weights_from_file(network, &golden::path("sgd/initial.safetensors"))
    })
    .unwrap();
    assert_eq!(trainer.total_steps(), trace.steps);
    for (step, (&loss, &norm)) in trace.losses.iter().zip(&trace.gradient_norms).enumerate() {
        let found = trainer.step().unwrap();
        assert!((found - loss).abs() <= 3e-6, "step {step}: loss {found}, PyTorch {loss}");
        let found = trainer.report().unwrap().gradient_norm.unwrap();
        assert!((found - norm).abs() <= 5e-4 * norm, "step {step}: gradient norm {found}, PyTorch {norm}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    trainer.write_weights(&path).unwrap();
    let file = read_tensors(&path).unwrap();
    for (name, wanted) in &trace.last {
        let values = f64s(&file.tensors[name]);
        let sums = [values.iter().sum::<f64>(), values.iter().map(|v| v.abs()).sum()];
        for (found, wanted) in sums.iter().chain(&values).zip(wanted) {
            assert!((found - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{name}: {found} {wanted}");
        }
    }
    for (module, [mean, variance]) in &trace.running {
        for (kind, wanted) in [("running_mean", mean), ("running_var", variance)] {
            let found = f64s(&file.tensors[&format!("{module}.{kind}")]);
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{module}.{kind}");
            }
        }
        assert_eq!(f64s(&file.tensors[&format!("{module}.num_batches_tracked")]), [trace.steps as f64]);
    }
    let parameters = trainer.network().params.len();
    assert_eq!(file.tensors.len(), parameters + 3 * trace.running.len());
}

/// Stops after a number of steps of this session, never if there is none.
#[derive(Default)]
struct Stopping {
    after: Option<u64>,
    steps: u64,
    flag: AtomicBool,
    losses: Vec<(u64, f64)>,
}

struct Watch<'a>(&'a mut Stopping, &'a AtomicBool);

impl NetworkObserver for Watch<'_> {
    fn begins(&mut self, _trainer: &NetworkTrainer) {}

    fn step(&mut self, step: u64, loss: f64) {
        self.0.steps += 1;
        self.0.losses.push((step, loss));
        if Some(self.0.steps) == self.0.after {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn epoch(&mut self, _report: &EpochReport, best: f64) {
        assert!((0.0..=1.0).contains(&best));
    }
}

/// All random parts at once: crops, flips, cutout, drop path, dropout in the head, low-shot choice, warm-up.
fn random_config() -> NetworkTraining {
    let mut architecture = record();
    let foretell::space::Architecture::Cells(cells) = &mut architecture.arch else { panic!("made of cells") };
    (cells.fc_layers, cells.fc_dim) = (2, 16);
    NetworkTraining {
        architecture,
        shots: Some(11),
        augmentation: Augmentation { cutout: 8, ..Augmentation::default() },
        drop_path: 0.4,
        warmup: 1,
        ..config()
    }
}

fn fit(
    config: NetworkTraining,
    folder: &Path,
    resume: bool,
    after: Option<u64>,
) -> (Ending, Vec<(u64, f64)>) {
    let mut stopping = Stopping { after, ..Stopping::default() };
    let flag = std::mem::take(&mut stopping.flag);
    let initial = |network: &_| Ok(random_weights(network, RandomInit::He, 3));
    let mut watch = Watch(&mut stopping, &flag);
    let (ending, _) = fit_network(config, &data(36), folder, resume, initial, &flag, &mut watch).unwrap();
    (ending, stopping.losses)
}

fn metrics_without_times(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    let without = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        [&fields[..6], &fields[7..]].concat().join(",")
    };
    text.lines().map(without).collect()
}

#[test]
fn a_resumed_training_equals_an_uninterrupted_one_to_the_bit() {
    let whole = tempfile::tempdir().unwrap();
    let (ending, losses) = fit(random_config(), whole.path(), false, None);
    // 33 images in batches of 8: 4 steps an epoch.
    assert_eq!((ending, losses.len()), (Ending::Finished, 12));
    let weights = |folder: &Path| std::fs::read(folder.join("weights.safetensors")).unwrap();
    for stop in [1, 4, 6, 11] {
        let parts = tempfile::tempdir().unwrap();
        let (ending, first) = fit(random_config(), parts.path(), false, Some(stop));
        assert_eq!(ending, Ending::Stopped);
        assert!(!parts.path().join("weights.safetensors").exists());
        let (ending, second) = fit(random_config(), parts.path(), true, None);
        assert_eq!(ending, Ending::Finished);
        assert_eq!([first, second].concat(), losses, "stopped after {stop} steps");
        assert_eq!(weights(parts.path()), weights(whole.path()), "stopped after {stop} steps");
        assert_eq!(metrics_without_times(parts.path()), metrics_without_times(whole.path()));
    }
    // A finished training has nothing left to do, and another one does not begin in its folder.
    let (ending, losses) = fit(random_config(), whole.path(), true, None);
    assert_eq!((ending, losses.len()), (Ending::Finished, 0));
    let refused = |config: NetworkTraining, resume: bool, folder: &Path| {
        let initial = |network: &_| Ok(random_weights(network, RandomInit::He, 3));
        let (mut stopping, flag) = (Stopping::default(), AtomicBool::new(false));
        fit_network(config, &data(36), folder, resume, initial, &flag, &mut Watch(&mut stopping, &flag))
            .err()
            .expect("refused")
            .to_string()
    };
    assert!(refused(random_config(), false, whole.path()).contains("--resume"));
    let other = NetworkTraining { seed: 8, ..random_config() };
    assert!(refused(other, true, whole.path()).contains("another value of `seed`"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(random_config(), true, empty.path()).contains("holds no training"));
    std::fs::write(empty.path().join("checkpoint.safetensors"), b"damaged").unwrap();
    assert!(refused(random_config(), true, empty.path()).contains("checkpoint.safetensors"));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let folder = tempfile::tempdir().unwrap();
            let (_, losses) = fit(random_config(), folder.path(), false, None);
            (losses, std::fs::read(folder.path().join("weights.safetensors")).unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn the_shots_and_all_else_follow_the_seed() {
    let losses = |seed| {
        let config = NetworkTraining { seed, epochs: 1, ..random_config() };
        let folder = tempfile::tempdir().unwrap();
        fit(config, folder.path(), false, None).1
    };
    assert_eq!(losses(1), losses(1));
    assert_ne!(losses(1), losses(2));
}

#[test]
fn divergence_is_an_error_and_leaves_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = NetworkTraining {
        optimizer: SgdConfig { lr: 1e30, ..SgdConfig::default() },
        clip: 1e30,
        epochs: 20,
        ..config()
    };
    let initial = |network: &_| Ok(random_weights(network, RandomInit::He, 3));
    let (mut stopping, flag) = (Stopping::default(), AtomicBool::new(false));
    let result = fit_network(
        config,
        &data(36),
        folder.path(),
        false,
        initial,
        &flag,
        &mut Watch(&mut stopping, &flag),
    );
    let message = result.err().expect("it diverges").to_string();
    assert!(message.contains("diverged") || message.contains("logit"), "{message}");
    assert!(read_tensors(&folder.path().join("checkpoint.safetensors")).is_ok());
}

fn foretell(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_foretell")).arg("train").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_trains_on_the_bundled_images_and_tests() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let arch = golden::path("sgd/arch.json");
    let args = [
        arch.to_str().unwrap(),
        "--images=fashion-mnist-slice",
        "--train-on=validation",
        "--shots=8",
        "--epochs=2",
        "--batch=40",
        "--init=ghn",
        "--eval-images=128",
        "--test-images=256",
        "--noise=0.04,0.08",
    ];
    let out_flag = ["--out", out.to_str().unwrap()];
    let (code, stdout, stderr) = foretell(&[&args[..], &out_flag].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("epoch 2/2"), "{stderr}");
    assert!(stdout.contains("noise of sd 0.04") && stdout.contains("ankle boot"), "{stdout}");
    let confusion = std::fs::read_to_string(out.join("confusion.csv")).unwrap();
    let mut sum = 0;
    for line in confusion.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let row: u64 = fields[1..11].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        assert_eq!(row.to_string(), fields[11], "{line}");
        sum += row;
    }
    assert_eq!(sum, 256);
    let result = std::fs::read_to_string(out.join("result.csv")).unwrap();
    assert!(
        result.starts_with("architecture,hash,init,") && result.contains(",ghn bundled orthogonal 0.5,"),
        "{result}"
    );
    assert!(out.join("training.png").exists());
    let metrics = std::fs::read_to_string(out.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 4, "a header, the start and two epochs: {metrics}");

    // The weights go on from where they are as those of another training.
    let weights = out.join("weights.safetensors");
    let again = folder.path().join("again");
    let (code, _, stderr) = foretell(&[
        arch.to_str().unwrap(),
        "--images=fashion-mnist-slice",
        "--train-on=validation",
        "--epochs=1",
        "--shots=4",
        "--eval-images=128",
        "--test-images=64",
        "--init",
        weights.to_str().unwrap(),
        "--out",
        again.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(0), "{stderr}");
    let last = metrics.lines().last().unwrap().split(',').nth(7).unwrap().to_owned();
    let metrics = std::fs::read_to_string(again.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().nth(1).unwrap().split(',').nth(7).unwrap(), last);
}

#[test]
fn bad_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let arch = golden::path("sgd/arch.json").to_str().unwrap().to_owned();
    let slice = ["--images=fashion-mnist-slice", "--train-on=validation"];
    std::fs::write(path("file"), b"in the way").unwrap();
    let other = golden::path("sgd/initial.safetensors").to_str().unwrap().to_owned();
    // An idx set with the labels 0, 1 and 10: eleven classes, one more than the bundled hypernetwork predicts.
    std::fs::create_dir(path("idx")).unwrap();
    for stem in ["train", "t10k"] {
        let images = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1][..], &[9; 3]].concat();
        std::fs::write(path(&format!("idx/{stem}-images-idx3-ubyte")), images).unwrap();
        let labels = [0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 10];
        std::fs::write(path(&format!("idx/{stem}-labels-idx1-ubyte")), labels).unwrap();
    }
    let idx = format!("--images={}", path("idx"));
    let unwritable = path("file/run");
    for (args, reason) in [
        (vec!["resnet19"], "neither a file nor a predefined network"),
        (vec![&arch, slice[0]], "--train-on validation"),
        (vec![&arch, slice[0], slice[1], "--shots=5000"], "5000 images of each class asked for, class"),
        (vec![&arch, slice[0], slice[1], "--shots=0"], "0 images of each class"),
        (vec![&arch, slice[0], slice[1], "--epochs=0"], "--epochs is 0"),
        (vec![&arch, slice[0], slice[1], "--batch=1"], "--batch is 1"),
        (vec![&arch, slice[0], slice[1], "--lr=nan"], "--lr is NaN"),
        (vec![&arch, slice[0], slice[1], "--drop-path=1"], "--drop-path is 1"),
        (vec!["resnet18", slice[0], slice[1], "--drop-path=0.2"], "nothing to drop"),
        (vec![&arch, slice[0], slice[1], "--warmup=51"], "--warmup is 51"),
        (vec![&arch, slice[0], slice[1], "--noise=-1"], "--noise"),
        (vec![&arch, slice[0], slice[1], "--init=hee"], "--init hee"),
        (vec![&arch, slice[0], slice[1], "--init", &other], "classifier"),
        (vec![&arch, slice[0], slice[1], "--init=ghn", "--ghn=none.pt"], "none.pt"),
        (vec![&arch, slice[0], slice[1], "--threads=0"], "--threads is 0"),
        (vec![&arch, slice[0], slice[1], "--resume"], "holds no training"),
        (vec![&arch, &idx, "--init=ghn"], "has 11"),
        (vec![&arch, slice[0], slice[1], "--out", &unwritable], "file/run"),
    ] {
        let run = path("run");
        let out = if args.contains(&"--out") { vec![] } else { vec!["--out", run.as_str()] };
        let (code, _, stderr) = foretell(&[args.clone(), out].concat());
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
        assert!(!folder.path().join("run/checkpoint.safetensors").exists(), "{args:?}");
    }
}
