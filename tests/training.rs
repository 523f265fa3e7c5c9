//! Training a small GHN: it learns, it does not depend on threads, and a resumed run equals an uninterrupted one.

use foretell::ghn::Ghn;
use foretell::images::{DataSet, ImageSet, Normalisation};
use foretell::training::{Ending, HeldOutReport, Observer, StepReport, TrainConfig, Trainer, fit_ghn};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CONFIG: &str = r#"
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

fn config() -> TrainConfig {
    toml::from_str(CONFIG).unwrap()
}

/// Two classes, dark and bright images: what global pooling can tell apart.
fn data() -> DataSet {
    let set = |name: &str, count: usize| {
        let labels: Vec<u8> = (0..count).map(|i| (i % 2) as u8).collect();
        let pixels = labels
            .iter()
            .enumerate()
            .flat_map(|(i, &label)| {
                (0..1024).map(move |p| {
                    let texture = ((p * 31 + i * 17) % 100) as u8;
                    if label == 1 { 150 + texture } else { texture }
                })
            })
            .collect();
        let classes = vec!["dark".to_owned(), "bright".to_owned()];
        let normalisation = Normalisation { mean: [0.4; 3], sd: [0.35; 3] };
        Arc::new(ImageSet::new(name, classes, [1, 32, 32], pixels, labels, normalisation).unwrap())
    };
    DataSet {
        name: "shades".into(),
        source: "in memory".into(),
        train: Some(set("train", 40)),
        validation: set("validation", 16),
        test: None,
    }
}

#[derive(Default)]
struct Log {
    losses: Vec<Option<f64>>,
    held_out: Vec<HeldOutReport>,
    stop_after: Option<usize>,
    stop: Arc<AtomicBool>,
}

impl Observer for Log {
    fn step(&mut self, report: &StepReport, _total: u64) {
        self.losses.push(report.loss);
        if self.stop_after == Some(self.losses.len()) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn held_out(&mut self, report: &HeldOutReport, _best: f64) {
        self.held_out.push(report.clone());
    }
}

fn train(folder: &Path, resume: bool, stop_after: Option<usize>) -> (Ending, Log) {
    let mut log = Log { stop_after, ..Log::default() };
    let stop = log.stop.clone();
    let ending = fit_ghn(config(), &data(), folder, resume, &stop, &mut log).unwrap();
    (ending, log)
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), false, Some(2));
    let lock = std::fs::File::open(folder.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let again =
        || fit_ghn(config(), &data(), folder.path(), true, &AtomicBool::new(true), &mut Log::default());
    let error = again().unwrap_err().to_string();
    assert!(error.contains("in use: another process is training"), "{error}");
    lock.unlock().unwrap();
    assert_eq!(again().unwrap(), Ending::Stopped);
}

#[test]
fn settings_that_make_no_run_are_refused_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    for (old, new, reason) in [
        ("lr = 2e-3", "lr = 2e-3\nbetas = [0.9, 1.0]", "optimizer.betas holds 1"),
        ("meta_batch = 2", "meta_batch = 2\nsmall_first = 1.5", "architectures.small_first is 1.5"),
        ("average = 0.9", "average = 1.0", "average is 1, expected at least 0"),
        ("clip_network = 2.0", "clip_network = 0.0", "clip_network is 0, expected a positive number"),
        ("lr = 2e-3", "lr = 2e-3\nweight_decay = nan", "optimizer.weight_decay is NaN"),
        ("warmup = 2", "warmup = 7", "schedule.warmup is 7, expected at most steps, 6"),
        ("warmup = 2", "warmup = 2\nfloor = 7.0", "schedule.floor is 7"),
        ("hid = 8", "hid = 7", "ghn.hid = 7"),
        ("space = \"small\"", "space = \"smal\"", "architectures.spaces: "),
        ("[16, 16, 11, 11]", "[16, 0, 11, 11]", "ghn.max_shape = [16, 0, 11, 11]"),
    ] {
        std::fs::write(&path, CONFIG.replace(old, new)).unwrap();
        let error = TrainConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("run.toml: ") && error.contains(reason), "{reason}: {error}");
    }
    std::fs::write(&path, CONFIG).unwrap();
    TrainConfig::load(&path).unwrap();
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("last.safetensors")).unwrap()
}

/// Metrics without the measured times.
fn metrics(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    let seconds = text.lines().next().unwrap().split(',').position(|name| name == "seconds").unwrap();
    text.lines()
        .map(|line| {
            let kept =
                line.split(',').enumerate().filter(|(index, _)| *index != seconds).map(|(_, field)| field);
            kept.collect::<Vec<_>>().join(",")
        })
        .collect()
}

#[test]
fn a_stopped_and_resumed_run_equals_an_uninterrupted_one() {
    let whole = tempfile::tempdir().unwrap();
    let (ending, log) = train(whole.path(), false, None);
    assert_eq!(ending, Ending::Finished);
    assert_eq!(log.losses.len(), 6);
    assert_eq!(log.held_out.len(), 2);
    for stop_after in [1, 3, 5] {
        let parts = tempfile::tempdir().unwrap();
        let (ending, _) = train(parts.path(), false, Some(stop_after));
        assert_eq!(ending, Ending::Stopped);
        let (ending, rest) = train(parts.path(), true, None);
        assert_eq!(ending, Ending::Finished);
        assert_eq!(rest.losses, log.losses[stop_after..], "stopped after {stop_after}");
        assert_eq!(weights(parts.path()), weights(whole.path()), "stopped after {stop_after}");
        assert_eq!(metrics(parts.path()), metrics(whole.path()), "stopped after {stop_after}");
    }
}

#[test]
fn a_run_killed_between_checkpoints_repeats_the_lost_steps() {
    let whole = tempfile::tempdir().unwrap();
    train(whole.path(), false, None);
    let killed = tempfile::tempdir().unwrap();
    train(killed.path(), false, Some(5));
    // A kill after step 5 leaves the checkpoint of step 4 and a torn row behind.
    let early = tempfile::tempdir().unwrap();
    train(early.path(), false, Some(4));
    std::fs::copy(early.path().join("checkpoint.safetensors"), killed.path().join("checkpoint.safetensors"))
        .unwrap();
    let path = killed.path().join("metrics.csv");
    let torn = format!("{}5,0,2.", std::fs::read_to_string(&path).unwrap());
    std::fs::write(&path, torn).unwrap();
    train(killed.path(), true, None);
    assert_eq!(metrics(killed.path()), metrics(whole.path()));
    assert_eq!(weights(killed.path()), weights(whole.path()));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(folder.path(), false, Some(3)));
        std::fs::read(folder.path().join("checkpoint.safetensors")).unwrap()
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_run_starts_from_a_given_hypernetwork_and_does_not_need_it_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    train(&first, false, None);
    let file = folder.path().join("start.safetensors");
    std::fs::copy(first.join("best.safetensors"), &file).unwrap();
    let start = TrainConfig { start: Some(file.display().to_string()), seed: 4, ..config() };
    let tensors = |ghn: &Ghn| -> Vec<Vec<f32>> {
        ghn.vars().iter().map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let given = Ghn::load(&file).unwrap();
    let trainer = Trainer::new(start.clone(), &data()).unwrap();
    assert_eq!(tensors(trainer.ghn()), tensors(&given));
    assert_eq!(tensors(&trainer.trained().unwrap()), tensors(&given));

    let run = |name: &str, resume, stop_after| {
        let mut log = Log { stop_after, ..Log::default() };
        let stop = log.stop.clone();
        fit_ghn(start.clone(), &data(), &folder.path().join(name), resume, &stop, &mut log).unwrap()
    };
    assert_eq!(run("whole", false, None), Ending::Finished);
    assert_eq!(run("stopped", false, Some(2)), Ending::Stopped);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run("stopped", true, None), Ending::Finished);
    assert_eq!(weights(&folder.path().join("stopped")), weights(&folder.path().join("whole")));
    let error = Trainer::new(start.clone(), &data()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("start.safetensors"), "{error}");

    given.save(&file).unwrap();
    let mut other = start;
    other.ghn.hid = 16;
    let error = Trainer::new(other, &data()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("start.safetensors") && error.contains("\"hid\":8"), "{error}");
}

#[test]
fn it_learns_a_simple_task() {
    let mut config = config();
    config.steps = 150;
    config.optimizer.lr = 5e-3;
    let mut trainer = Trainer::new(config, &data()).unwrap();
    let losses: Vec<f64> = (0..150).map(|_| trainer.step().unwrap().loss.unwrap()).collect();
    let last = losses[120..].iter().sum::<f64>() / 30.0;
    // Guessing costs ln 2 = 0.69 nats.
    assert!(last < 0.5, "the last 30 losses have the mean {last}: {losses:?}");
}

#[test]
fn steps_that_are_not_finite_are_skipped_until_there_are_too_many() {
    let mut config = config();
    // The first updates throw the weights far out; what follows is not finite.
    config.optimizer.lr = 1e30;
    config.max_skips_in_a_row = 2;
    config.steps = 30;
    let mut trainer = Trainer::new(config, &data()).unwrap();
    let mut skipped = 0;
    let error = loop {
        match trainer.step() {
            Ok(report) => skipped += u32::from(report.skipped),
            Err(error) => break error.to_string(),
        }
        assert!(trainer.steps_taken() < 30, "no step failed");
    };
    assert_eq!(skipped, 2);
    assert!(error.contains("not finite in 3 steps in a row"), "{error}");
}

#[test]
fn runs_are_neither_overwritten_nor_mixed() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), false, Some(2));
    let attempt = |config: TrainConfig, resume: bool| {
        let stop = AtomicBool::new(false);
        fit_ghn(config, &data(), folder.path(), resume, &stop, &mut Log::default()).unwrap_err().to_string()
    };
    assert!(attempt(config(), false).contains("--resume"));
    let mut longer = config();
    longer.steps = 4;
    let mut log = Log::default();
    let ending = fit_ghn(longer, &data(), folder.path(), true, &AtomicBool::new(false), &mut log).unwrap();
    assert_eq!((ending, log.losses.len()), (Ending::Finished, 2), "a run may change its length");
    let mut other = config();
    other.optimizer.lr = 1e-4;
    let message = attempt(other, true);
    assert!(message.contains("`optimizer.lr`"), "{message}");
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let message = attempt(config(), true);
    assert!(message.contains("checkpoint.safetensors"), "{message}");
}

#[test]
fn a_wrong_configuration_names_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.toml");
    for (from, to, expected) in [
        ("steps = 6", "stepz = 6", "stepz"),
        ("steps = 6", "steps = 0", "steps is 0"),
        ("batch = 8", "batch = 1", "images.batch is 1"),
        ("share = 1.0", "share = 0.0", "share of space small is 0"),
        ("lr = 2e-3", "lr = -1.0", "optimizer.lr is -1"),
    ] {
        std::fs::write(&path, CONFIG.replace(from, to)).unwrap();
        let message = TrainConfig::load(&path).unwrap_err().to_string();
        assert!(message.contains("train.toml") && message.contains(expected), "{message}");
    }
}
