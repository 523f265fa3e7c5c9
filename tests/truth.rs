//! Truth sets and rankings measured against them, on the bundled slice of Fashion-MNIST.

use foretell::images;
use foretell::training::Ending;
use foretell::truth::{FillObserver, FillOptions, TruthConfig, TruthRow, TruthSet, fill};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CONFIG: &str = r#"
space = "small"
architectures = 4
seed = 3

[training]
images = "fashion-mnist-slice"
train_on = "validation"
shots = 12
init = "he"
epochs = 2
batch = 24
lr = 0.05
momentum = 0.9
weight_decay = 3e-4
clip = 5.0
crop_padding = 2
flip = true
seed = 1

[evaluation]
curve_images = 64
test_images = 128
batch = 64
noise = [0.08]
noise_seed = 0
latency_batch = 1
"#;

fn config(folder: &Path, text: &str) -> TruthConfig {
    let path = folder.join("truth.toml");
    std::fs::write(&path, text).unwrap();
    TruthConfig::load(&path).unwrap()
}

/// Asks to stop after so many steps of all workers.
struct StopAfter<'a> {
    steps: AtomicUsize,
    stop: &'a AtomicBool,
}

impl FillObserver for StopAfter<'_> {
    fn resumed(&self, _macs: u64, _images: u64) {}
    fn step(&self, _macs: u64, images: u64) {
        assert_eq!(images, 24);
        if self.steps.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
    fn finished(&self, _row: &TruthRow) {}
}

/// One sitting; `steps` until it is stopped.
fn sitting(set: TruthSet, [workers, threads]: [usize; 2], steps: usize) -> (Ending, TruthSet) {
    let data = images::open("fashion-mnist-slice").unwrap();
    let stop = AtomicBool::new(false);
    let observer = StopAfter { steps: AtomicUsize::new(steps), stop: &stop };
    let options = FillOptions { workers, threads, keep_weights: workers == 2 };
    fill(set, &data, options, &stop, &observer).unwrap()
}

/// What does not depend on time.
fn timeless(set: &TruthSet) -> Vec<TruthRow> {
    let mut rows = set.rows().to_vec();
    for row in &mut rows {
        row.train_s = 0.0;
        row.curve.iter_mut().for_each(|point| point.seconds = 0.0);
        assert!(row.scores.latency_ms.take().is_some() && row.scores.latency_p95_ms.take().is_some());
    }
    rows
}

#[test]
fn a_set_filled_in_several_sittings_equals_one_filled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), CONFIG);
    let records = config.draw(10).unwrap();
    let create =
        |name: &str| TruthSet::create(&folder.path().join(name), config.clone(), records.clone()).unwrap();
    let (ending, whole) = sitting(create("whole"), [1, 2], usize::MAX);
    assert_eq!(ending, Ending::Finished);
    assert_eq!(whole.rows().len(), 4);
    for row in whole.rows() {
        assert!(row.scores.accuracy.unwrap() > 0.05 && row.accuracy_at(0.08).is_some(), "{row:?}");
        assert_eq!(row.curve.iter().map(|point| point.epoch).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(row.scores.images, Some(128));
    }
    assert!(!whole.folder().join("unfinished").exists());

    // 5 steps an epoch: stopped inside the first, inside the second, and between architectures.
    let mut set = create("parts");
    for (steps, ending) in
        [(3, Ending::Stopped), (7, Ending::Stopped), (13, Ending::Stopped), (1000, Ending::Finished)]
    {
        let filled = sitting(set, [2, 1], steps);
        assert_eq!(filled.0, ending);
        set = TruthSet::reopen(filled.1.folder(), config.clone(), records.clone()).unwrap();
    }
    assert_eq!(timeless(&set), timeless(&whole));
    assert_eq!(std::fs::read_dir(set.folder().join("weights")).unwrap().count(), 4);
    assert!(!whole.folder().join("weights").exists());
    let read = TruthSet::open(whole.folder()).unwrap();
    assert_eq!((read.rows(), read.architectures()), (whole.rows(), whole.architectures()));

    // More architectures are added behind those that are there.
    let more = self::config(folder.path(), &CONFIG.replace("architectures = 4", "architectures = 5"));
    let grown = TruthSet::reopen(whole.folder(), more.clone(), more.draw(10).unwrap()).unwrap();
    assert_eq!(grown.missing().iter().map(|(record, _)| record.id.as_str()).collect::<Vec<_>>(), ["small/4"]);
    let other = self::config(folder.path(), &CONFIG.replace("lr = 0.05", "lr = 0.1"));
    let error = TruthSet::reopen(whole.folder(), other, records.clone()).unwrap_err().to_string();
    assert!(error.contains("another value of `training.lr`"), "{error}");
    // The same trainings from another sitting are kept once, and strangers are refused.
    let rows = whole.folder().join("rows.jsonl");
    let text = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, format!("{text}{text}")).unwrap();
    assert_eq!(TruthSet::open(whole.folder()).unwrap().rows(), whole.rows());
    std::fs::write(&rows, text.replace("small/3", "small/9")).unwrap();
    let error = TruthSet::open(whole.folder()).unwrap_err().to_string();
    assert!(error.contains("small/9") && error.contains("not in architectures.jsonl"), "{error}");
    std::fs::write(&rows, text.replacen("{", "", 1)).unwrap();
    let error = TruthSet::open(whole.folder()).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl") && error.contains("line 1"), "{error}");
}

fn foretell(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
    command.args(arguments).current_dir(folder).env_remove("XDG_DATA_HOME").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn rankings_are_measured_against_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    config(path, CONFIG);
    let out = foretell(&["truth", "--config", "truth.toml", "--out", "set"], path);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("4 trainings") && text(&out.stderr).contains("4/4"));
    let csv = std::fs::read_to_string(path.join("set/truth.csv")).unwrap();
    assert!(csv.starts_with("id,hash,seed,accuracy,") && csv.contains(",accuracy_sd_0.08,"), "{csv}");
    assert_eq!(csv.lines().count(), 5);
    let out = foretell(&["truth", "--config", "truth.toml", "--out", "set"], path);
    assert!(text(&out.stderr).contains("continue it with --resume"), "{}", text(&out.stderr));

    let bench = ["bench", "ranking", "--truth", "set", "--out", "ranking", "--eval-images", "64"];
    let with = |more: &[&str]| foretell(&[&bench[..], more].concat(), path);
    let short = ["--steps", "2,4", "--he-steps", "4", "--samples", "50", "--top", "1"];
    let out = with(&short);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = text(&out.stdout);
    for method in [
        "random order",
        "params",
        "synflow",
        "naswot",
        "gradient norm",
        "predicted accuracy",
        "predicted noisy accuracy",
        "sgd:4 training loss",
        "he:4 accuracy",
        "sgd:4 accuracy + params + peak activations",
        "predicted,sgd:2=2,sgd:4=1 noisy accuracy + params + peak activations",
        "on the other half",
        "predicted,sgd:2=2,sgd:4=1 accuracy",
        "epoch 1 of the full training",
    ] {
        assert!(table.contains(method), "{method}: {table}");
    }
    assert!(path.join("ranking/ranking.svg").exists() && path.join("ranking/ranking.csv").exists());
    // Nothing is measured again; the table is the same.
    let scores = std::fs::read(path.join("ranking/scores.jsonl")).unwrap();
    for more in [&[][..], &["--stored"]] {
        let again = with(&[&short[..], more].concat());
        assert_eq!(text(&again.stdout), table);
        assert_eq!(std::fs::read(path.join("ranking/scores.jsonl")).unwrap(), scores);
    }
    // Scores of another hypernetwork of the same name can still be shown, but not added to.
    let key = "\"ghn_sha256\":\"";
    let at = text(&scores).find(key).unwrap() + key.len();
    let mut others = scores.clone();
    others[at] = if others[at] == b'0' { b'1' } else { b'0' };
    std::fs::write(path.join("ranking/scores.jsonl"), others).unwrap();
    assert_eq!(text(&with(&[&short[..], &["--stored"]].concat()).stdout), table);
    assert!(text(&with(&short).stderr).contains("another value of `ghn_sha256`"));
    std::fs::write(path.join("ranking/scores.jsonl"), scores).unwrap();
    // Another number of steps is measured beside the others.
    let out = with(&["--steps", "3", "--samples", "50", "--top", "1"]);
    assert!(text(&out.stdout).contains("sgd:3 accuracy") && text(&out.stdout).contains("sgd:4 accuracy"));

    for (more, message) in [
        (&["--eval-images", "32"][..], "another value of `eval_images`"),
        (&["--noise", "0.5"], "was tested at [0.08]"),
        (&["--stages", "sgd:4=2"], "the first stage is for all"),
        (&["--lr", "-1"], "--lr is -1"),
        (&["--train-batch", "0"], "--train-batch is 0"),
        (&["--train-batch", "16"], "another value of `train_batch`"),
        (&["--truth", "nowhere"], "nowhere"),
    ] {
        let mut arguments = bench.to_vec();
        if let Some(at) = arguments.iter().position(|argument| *argument == more[0]) {
            arguments.drain(at..at + 2);
        }
        let out = foretell(&[&arguments[..], more].concat(), path);
        assert!(
            !out.status.success() && text(&out.stderr).contains(message),
            "{more:?}: {}",
            text(&out.stderr)
        );
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, message) in [
        ("architectures = 4", "architectures = 0", "architectures is 0"),
        ("seed = 3", "seeds = 3", "unknown field `seeds`"),
        ("init = \"he\"", "init = \"ghn\"", "training.init is \"ghn\""),
        ("noise = [0.08]", "noise = [-1.0]", "evaluation.noise holds -1"),
        ("space = \"small\"", "space = \"smal\"", "smal"),
    ] {
        let path = folder.path().join("truth.toml");
        std::fs::write(&path, CONFIG.replace(from, to)).unwrap();
        let error = TruthConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("truth.toml"), "{error}");
    }
}

#[test]
fn a_search_in_stages_tells_how_reliable_its_scores_are() {
    let folder = tempfile::tempdir().unwrap();
    let search = |name: &str, more: &[&str]| {
        let mut arguments =
            vec!["search", "--trials", "8", "--strategy", "random", "--images", "fashion-mnist-slice"];
        arguments.extend(["--eval-images", "64", "--no-latency", "--name", name]);
        let out = foretell(&[&arguments, more].concat(), folder.path());
        assert!(out.status.success(), "{}", text(&out.stderr));
    };
    search("stages", &["--fidelities", "predicted,sgd:2=4", "--train-batch", "32"]);
    let out =
        foretell(&["reliability", "runs/stages", "--top", "1", "--csv", "reliability.csv"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = text(&out.stdout);
    assert!(table.contains("accuracy    predicted") && table.contains("robustness  predicted"), "{table}");
    assert!(table.contains("random order of those at predicted") && table.contains("sgd:2"), "{table}");
    let csv = std::fs::read_to_string(folder.path().join("reliability.csv")).unwrap();
    assert!(csv.starts_with("score,fidelity,against,trials,tau,"), "{csv}");
    let page = std::fs::read_to_string(folder.path().join("runs/stages/report.html")).unwrap();
    assert!(page.contains("How far the scores can be trusted"));
    let out = foretell(&["reliability", "runs/stages", "--objective", "accuracy,robustness"], folder.path());
    assert!(text(&out.stderr).contains("one at a time"), "{}", text(&out.stderr));

    search("plain", &[]);
    let out = foretell(&["reliability", "runs/plain"], folder.path());
    assert!(text(&out.stderr).contains("scored at one fidelity only"), "{}", text(&out.stderr));
}
