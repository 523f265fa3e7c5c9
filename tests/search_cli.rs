//! `foretell search` and `foretell leaderboard` as processes: results, resume after kill -9, refusals, full disks.

use foretell::study::{Folder, Study, Trial, TrialState};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Settings under which a candidate takes little time.
const TINY: [&str; 10] =
    ["--eval-images", "64", "--batch", "32", "--noise", "0.1", "--max-macs", "6000000", "--threads", "1"];

fn foretell(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn search(folder: &Path, args: &[&str]) -> Output {
    foretell(folder).arg("search").args(TINY).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The exit code and stderr of a command that must fail.
fn failed(output: &Output) -> (Option<i32>, String) {
    assert!(!output.status.success(), "{}", text(&output.stdout));
    (output.status.code(), text(&output.stderr))
}

fn trials(run: &Path) -> Vec<Trial> {
    let (folder, _) = Folder::open(run).unwrap();
    Study::trials_of(&folder.events().unwrap(), &folder.journal_path()).unwrap()
}

/// Trials without what the clock decides.
fn timeless(run: &Path) -> Vec<Trial> {
    let mut trials = trials(run);
    for trial in &mut trials {
        (trial.started_ms, trial.finished_ms, trial.wall_s, trial.elapsed_s) = (0, None, None, None);
        let scores = &mut trial.scores;
        (scores.latency_ms, scores.latency_p95_ms, scores.predict_ms) = (None, None, None);
        for refined in &mut trial.refined {
            (refined.finished_ms, refined.wall_s, refined.elapsed_s) = (0, 0.0, 0.0);
            let scores = &mut refined.scores;
            (scores.latency_ms, scores.latency_p95_ms, scores.predict_ms) = (None, None, None);
        }
    }
    trials
}

/// Names and contents of the weights that a run keeps.
fn kept_weights(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(run.join("weights"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_search_with_training_resumes_exactly_and_gives_its_weights_away() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--trials",
        "8",
        "--seed",
        "5",
        "--strategy",
        "random",
        "--images",
        "fashion-mnist-slice",
        "--epochs",
        "1",
        "--train-batch",
        "500",
        "--fidelities",
        "predicted,sgd:2=4,he:3=2,trained=1",
    ];
    let printed = succeeded(&search(folder.path(), &[&args[..], &["--name", "whole"]].concat()));
    let whole = folder.path().join("runs/whole");
    let expected = timeless(&whole);
    let weights = kept_weights(&whole);
    assert_eq!(weights.len(), 3, "those of the three best");
    let (winner, rest) =
        printed.lines().nth(1).unwrap().trim().split_once("trained").expect("the best first");
    let header: Vec<&str> = printed.split_whitespace().take(4).collect();
    assert_eq!(header, ["rank", "trial", "weights", "objective"], "{printed}");
    assert!(rest.contains(" cells, C "), "{printed}");
    let winner = winner.split_whitespace().nth(1).unwrap().to_string();

    // Two threads, and killed in the middle of the stages.
    let run = folder.path().join("runs/killed");
    let journal = run.join("journal.jsonl");
    let refined = || std::fs::read_to_string(&journal).map_or(0, |text| text.matches("\"refined\"").count());
    for (session, wanted) in [1, 3, 5].into_iter().enumerate() {
        let resume: &[&str] = if session == 0 { &[] } else { &["--resume"] };
        let mut child = foretell(folder.path())
            .arg("search")
            .args(&TINY[..8])
            .args(["--threads", "2", "--workers", "2"])
            .args([&args[..], &["--name", "killed"], resume].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while refined() < wanted && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(300), "the journal does not grow");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeded(&search(folder.path(), &[&args[..], &["--name", "killed", "--resume"]].concat()));
    assert_eq!(timeless(&run), expected);
    assert_eq!(kept_weights(&run), weights);

    let csv = std::fs::read_to_string(run.join("leaderboard.csv")).unwrap();
    let header = csv.lines().next().unwrap();
    for column in ["fidelity", "accuracy@predicted", "accuracy@sgd:2", "objective@he:3", "accuracy@trained"] {
        assert!(header.split(',').any(|name| name == column), "{column}: {header}");
    }
    let exported =
        foretell(folder.path()).args(["export", "runs/killed", "--out", "best.onnx"]).output().unwrap();
    let printed = succeeded(&exported);
    let named = format!("weights: trial-{winner}.trained.safetensors, trained by the search (trained)");
    assert!(printed.contains(&named), "{printed}");
    assert!(printed.contains("batch norms: the weights' own running statistics"), "{printed}");

    // The same fidelity by itself gives the same score, and settings of training need training.
    let scored = expected.iter().find(|trial| trial.refined.iter().any(|r| r.fidelity.to_string() == "he:3"));
    let scored = scored.unwrap();
    let source = format!("runs/whole/leaderboard.jsonl#trial/{}", scored.number);
    let rank =
        ["rank", &source, "--fidelity", "he:3", "--train-batch", "500", "--train-seed", "5", "--epochs", "1"];
    let rank = foretell(folder.path())
        .args(rank)
        .args(["--images", "fashion-mnist-slice"])
        .args([&TINY[..6], &["--threads", "1"]].concat())
        .output()
        .unwrap();
    succeeded(&rank);
    let csv = std::fs::read_to_string(folder.path().join("ranking.csv")).unwrap();
    let place = csv.lines().next().unwrap().split(',').position(|name| name == "accuracy").unwrap();
    let accuracy: f64 = csv.lines().nth(1).unwrap().split(',').nth(place).unwrap().parse().unwrap();
    let of_search = scored.refined.iter().find(|r| r.fidelity.to_string() == "he:3").unwrap();
    assert_eq!(Some(accuracy), of_search.scores.accuracy);
    let (_, error) = failed(&search(folder.path(), &["--trials", "1", "--epochs", "3"]));
    assert!(error.contains("--epochs: no weights are trained"), "{error}");
    for (fidelity, flag) in [("he:3", "--lr"), ("sgd:3", "--he-lr")] {
        let out =
            foretell(folder.path()).args(["rank", "DARTS", "--fidelity", fidelity, flag, "0.1"]).output();
        let error = String::from_utf8_lossy(&out.unwrap().stderr).into_owned();
        assert!(error.contains(&format!("{flag}: {fidelity} begins at")), "{error}");
    }
    for (flag, reason) in [
        (&["--fidelities", "predicted,sgd:3", "--he-lr", "0.1"][..], "--he-lr: no stage begins at He's"),
        (&["--fidelities", "predicted,he:3", "--lr", "0.1"], "--lr: every stage begins at He's"),
        (&["--parents", "trained"], "--parents trained: no weights are trained"),
        (&["--strategy", "random", "--parents", "scored"], "--parents needs --strategy evolution"),
        (&["--no-vote"], "--no-vote: no weights are trained"),
        (&["--no-predictor"], "--no-predictor: no weights are trained"),
    ] {
        let (_, error) = failed(&search(folder.path(), &[&["--trials", "1"], flag].concat()));
        assert!(error.contains(reason), "{flag:?}: {error}");
    }
    let (_, error) = failed(&search(folder.path(), &["--trials", "1", "--fidelities", "sgd:3"]));
    assert!(error.contains("--fidelities: the first stage is sgd:3"), "{error}");
}

#[test]
fn a_search_killed_at_any_time_resumes_to_the_trials_of_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--trials", "8", "--seed", "3", "--population", "3", "--sample", "2"];
    succeeded(&search(folder.path(), &[&args[..], &["--name", "whole"]].concat()));
    let expected = timeless(&folder.path().join("runs/whole"));
    assert!(expected.iter().any(|trial| trial.state == TrialState::Finished));

    let run = folder.path().join("runs/killed");
    let journal = run.join("journal.jsonl");
    let lines =
        || std::fs::read(&journal).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
    for (session, wanted) in [2, 5, 9, 12].into_iter().enumerate() {
        let resume: &[&str] = if session == 0 { &[] } else { &["--resume"] };
        let args = [&args[..], &["--name", "killed"], resume].concat();
        let mut child = foretell(folder.path())
            .arg("search")
            .args(TINY)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while lines() < wanted && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "the journal does not grow");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A write that never ended.
    let torn = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [&torn[..], b"{\"sum\":\"0123"].concat()).unwrap();
    let output = search(folder.path(), &[&args[..], &["--name", "killed", "--resume"]].concat());
    succeeded(&output);
    assert!(text(&output.stderr).contains("cut off the torn line"), "{}", text(&output.stderr));
    assert_eq!(timeless(&run), expected);
}

#[test]
fn a_search_writes_its_results_and_the_leaderboard_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let printed = succeeded(&search(folder.path(), &["--trials", "4", "--strategy", "random"]));
    let run = folder.path().join("runs/search-001");
    assert!(printed.starts_with("rank  trial  objective"), "{printed}");
    assert!(printed.contains("the budget of trials is spent"), "{printed}");
    assert!(printed.contains("to continue: foretell search --resume --out runs/search-001"), "{printed}");
    let plots = ["accuracy-latency", "best-so-far", "clean-noisy"];
    let plots = plots.iter().flat_map(|stem| ["png", "svg"].map(|kind| format!("{stem}.{kind}")));
    let files = ["leaderboard.csv", "leaderboard.jsonl", "trials.parquet", "report.html"].map(String::from);
    for name in plots.chain(files) {
        assert!(printed.contains(&format!("runs/search-001/{name}")), "{name} is not named: {printed}");
        assert!(std::fs::metadata(run.join(&name)).unwrap().len() > 0, "{name}");
    }
    let csv = std::fs::read_to_string(run.join("leaderboard.csv")).unwrap();
    assert_eq!(csv.lines().count(), trials(&run).len() + 1);

    let (_, named) = printed.split_once("to take the winner away: foretell ").unwrap();
    let take_away: Vec<&str> = named.lines().next().unwrap().split(' ').collect();
    succeeded(&foretell(folder.path()).args(take_away).output().unwrap());
    assert!(std::fs::metadata(folder.path().join("winner.onnx")).unwrap().len() > 1000);

    let args = ["leaderboard", "runs/search-001", "--sort", "latency", "--top", "2", "--csv", "out.csv"];
    let printed = succeeded(&foretell(folder.path()).args(args).output().unwrap());
    assert_eq!(printed.lines().filter(|line| line.contains(" cells, C ")).count(), 2, "{printed}");
    assert!(folder.path().join("out.csv").exists());
    let board =
        foretell(folder.path()).args(["leaderboard", "runs/search-001", "--sort", "speed"]).output().unwrap();
    let (code, error) = failed(&board);
    assert!(code == Some(2) && error.contains("unknown sort key \"speed\""), "{error}");

    // The page is the same whenever it is written.
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<h1>search-001</h1>") && page.contains("the budget of trials is spent"), "{page}");
    let report = |args: &[&str]| foretell(folder.path()).arg("report").args(args).output().unwrap();
    let printed = succeeded(&report(&["runs/search-001", "--out", "again.html"]));
    assert_eq!(printed, "wrote again.html\n");
    assert_eq!(std::fs::read_to_string(folder.path().join("again.html")).unwrap(), page);
    let args = ["leaderboard", "runs/search-001", "--html", "board.html"];
    succeeded(&foretell(folder.path()).args(args).output().unwrap());
    assert_eq!(std::fs::read_to_string(folder.path().join("board.html")).unwrap(), page);
    succeeded(&report(&["runs/search-001", "--control", "runs/search-001", "--out", "again.html"]));
    assert!(std::fs::read_to_string(folder.path().join("again.html")).unwrap().len() > page.len());
    let (code, error) = failed(&report(&["runs/search-001", "--control", "runs"]));
    assert!(code == Some(1) && error.contains("runs: no study here"), "{error}");

    // Another search does not touch the first.
    let before = std::fs::read(run.join("journal.jsonl")).unwrap();
    succeeded(&search(folder.path(), &["--trials", "1"]));
    assert!(folder.path().join("runs/search-002/leaderboard.csv").exists());
    let (code, error) = failed(&search(folder.path(), &["--trials", "1", "--name", "search-001"]));
    assert!(code == Some(1) && error.contains("already holds a study; give --resume"), "{error}");
    assert_eq!(std::fs::read(run.join("journal.jsonl")).unwrap(), before);

    succeeded(&search(folder.path(), &["--trials", "1", "--objective", "latency", "--name", "fast"]));
    let (code, error) = failed(&report(&["runs/search-001", "--control", "runs/fast"]));
    assert!(code == Some(1) && error.contains("(objective: \"accuracy\", not \"latency\")"), "{error}");

    let resumed = ["--out", "runs/search-001", "--resume", "--seed", "5", "--objective", "latency"];
    let (code, error) = failed(&search(folder.path(), &resumed));
    assert!(code == Some(1), "{error}");
    assert!(error.contains("objective: \"accuracy\", not \"latency\"; seed: 0, not 5"), "{error}");
    assert_eq!(std::fs::read(run.join("journal.jsonl")).unwrap(), before);
}

#[test]
fn wrong_flags_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code, message) in [
        (&["--objective", "acc"][..], 2, "unknown score \"acc\""),
        (&["--objective=latency=1"], 2, "weight must be negative"),
        (&["--noise", "0.1,x"], 2, "\"x\" is not a standard deviation"),
        (&["--trials", "0"], 1, "--trials 0"),
        (&["--seconds", "-1"], 1, "--seconds -1"),
        (&["--max-params", "-1"], 2, "'-1' for '--max-params"),
        (&["--name", "../x"], 2, "for '--name"),
        (&["--name", ""], 2, "for '--name"),
        (&["--threads", "100000"], 1, "--threads is 100000, expected 1 to 1024"),
        (&["--latency-threads", "100000"], 1, "--latency-threads is 100000"),
        (&["--max-params", "0"], 1, "no network can keep this limit"),
        (&["--max-latency-ms", "nan"], 1, "positive number of milliseconds"),
        (&["--workers", "0"], 1, "--workers 0"),
        (&["--strategy", "random", "--sample", "3"], 1, "--sample needs --strategy evolution"),
        (&["--strategy", "nsga2", "--starts", "3"], 1, "--starts needs --strategy local, here it is nsga2"),
        (&["--strategy", "local", "--neighbours", "0"], 1, "--neighbours 0"),
        (&["--strategy", "local", "--objective", "accuracy,macs"], 1, "--strategy local takes one objective"),
        (&["--patience", "0"], 1, "--patience 0"),
        (&["--warm-start", "absent.jsonl"], 1, "--warm-start: \"absent.jsonl\" is neither a file nor"),
        (&["--warm-start", "resnet50"], 1, "a search cannot start from it"),
        (&["--warm-top", "3"], 2, "--warm-start"),
        (&["--eval-images", "1000000"], 1, "--eval-images 1000000: fashion-mnist has "),
        (&["--population", "5", "--sample", "6"], 1, "--sample 6"),
        (&["--no-latency", "--objective", "latency"], 1, "--no-latency"),
        (&["--space", "smal"], 1, "did you mean `small`?"),
        (&["--ghn", "absent.safetensors"], 1, "--ghn: cannot read"),
        (&["--images", "absent"], 1, "absent"),
        (&["--resume"], 1, "no run search-NNN to resume"),
        (&["--resume", "--name", "x"], 1, "no study here"),
    ] {
        let (found, error) = failed(&foretell(folder.path()).arg("search").args(args).output().unwrap());
        assert_eq!(found, Some(code), "{args:?}: {error}");
        assert!(error.contains(message), "{args:?}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let (code, error) = failed(&search(folder.path(), &["--out", "file/run", "--trials", "1"]));
    assert!(code == Some(1) && error.contains("cannot create folder file/run"), "{error}");
    assert_eq!(error.matches("os error").count(), 1, "the cause is told twice: {error}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_search_with_an_error_and_the_study_resumes() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on the size of files: the journal's appends fail half-way, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 6; exec \"$0\" \"$@\"";
    let args = ["search", "--trials", "8", "--seed", "3", "--name", "full"];
    let output = Command::new("bash")
        .args(["-c", limited, env!("CARGO_BIN_EXE_foretell")])
        .args(args)
        .args(TINY)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (code, error) = failed(&output);
    assert!(code == Some(1) && error.contains("cannot append to runs/full/journal.jsonl"), "{error}");
    let journal = std::fs::read(folder.path().join("runs/full/journal.jsonl")).unwrap();
    assert_eq!(journal.last(), Some(&b'\n'), "a half-written line stayed");
    succeeded(&search(folder.path(), &["--resume", "--name", "full"]));
    succeeded(&search(folder.path(), &["--trials", "8", "--seed", "3", "--name", "whole"]));
    let runs = folder.path().join("runs");
    assert_eq!(timeless(&runs.join("full")), timeless(&runs.join("whole")));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_search_in_order_and_a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let child = foretell(folder.path())
        .arg("search")
        .args(TINY)
        .args(["--seconds", "300", "--name", "run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let run = folder.path().join("runs/run");
    let began = Instant::now();
    let finished = || {
        let known = run.join("journal.jsonl").exists() && run.join("study.json").exists();
        known && trials(&run).iter().any(|trial| trial.state == TrialState::Finished)
    };
    while !finished() {
        assert!(began.elapsed() < Duration::from_secs(120), "no candidate finishes");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (code, error) = failed(&search(folder.path(), &["--resume", "--name", "run"]));
    assert!(code == Some(1) && error.contains("in use: another process is searching"), "{error}");
    let pid = child.id().to_string();
    assert!(Command::new("bash").args(["-c", "kill -INT \"$0\"", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (code, error) = failed(&output);
    assert!(code == Some(130) && error.contains("interrupted"), "{error}");
    assert!(
        text(&output.stdout).contains("to continue: foretell search --resume"),
        "{}",
        text(&output.stdout)
    );
    assert!(trials(&run).iter().all(|trial| trial.state != TrialState::Running));
    assert!(run.join("leaderboard.csv").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    succeeded(&search(folder.path(), &["--trials", "1", "--name", "run"]));
    for args in [&["leaderboard", "runs/run"][..], &["space", "show", "small"], &["arch", "show", "ViT"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, error) = failed(&foretell(folder.path()).args(args).stdout(full).output().unwrap());
        assert!(code == Some(1) && error.contains("cannot write to standard output"), "{args:?}: {error}");
    }
}

#[test]
fn a_resume_says_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fixture = |name: &str, to: &Path| {
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ghn").join(name);
        let mut content = flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap());
        std::io::copy(&mut content, &mut std::fs::File::create(to).unwrap()).unwrap();
    };
    fixture("ghn2_tiny_trained.pt.gz", &at("ghn.pt"));
    // A sample that is not given follows a small population.
    let args = ["--trials", "1", "--population", "3", "--ghn", "ghn.pt", "--out", "run"];
    succeeded(&search(folder.path(), &args));
    let resumed = |args: &[&str]| {
        let resume = ["search", "--resume", "--out", "run"];
        let (code, error) = failed(&foretell(folder.path()).args(resume).args(args).output().unwrap());
        assert_eq!(code, Some(1), "{error}");
        error
    };
    let error = resumed(&["--ghn", "bundled", "--space", "wide", "--eval-images", "9"]);
    assert!(error.contains("(eval_images: 64, not 9; ghn: \"") && error.contains("not none"), "{error}");
    assert!(error.contains("space.name: \"small\", not \"wide\")"), "{error}");

    fixture("mlp_random.pt.gz", &at("ghn.pt"));
    let error = resumed(&[]);
    assert!(error.contains("ghn.pt: the file changed since the study in run was begun"), "{error}");

    // Put back, so that a seed changed by hand is all that is wrong.
    fixture("ghn2_tiny_trained.pt.gz", &at("ghn.pt"));
    let study = std::fs::read_to_string(at("run/study.json")).unwrap();
    std::fs::write(at("run/study.json"), study.replace("\"seed\": 0", "\"seed\": 1")).unwrap();
    let error = resumed(&["--trials", "2"]);
    assert!(error.contains("study.json was changed since the study was begun (seed)"), "{error}");
    fixture("mlp_random.pt.gz", &at("ghn.pt"));
    let study = std::fs::read_to_string(at("run/study.json")).unwrap();
    for (old, new, reason) in [
        ("\"lookahead\": 4", "\"lookahead\": 0", "run: study.json: lookahead is 0"),
        ("input_size = 32", "input_size = 3", "run: study.json: space: line 2"),
        ("\"eval_images\"", "\"evil_images\"", "run: study.json: evaluation settings: unknown field"),
    ] {
        assert!(study.contains(old), "{study}");
        std::fs::write(at("run/study.json"), study.replace(old, new)).unwrap();
        let error = resumed(&[]);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn several_objectives_have_a_front_a_warm_start_and_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let objective = ["--objective", "accuracy,macs", "--no-latency"];
    let first = ["--trials", "6", "--strategy", "random", "--out", "random"];
    let printed = succeeded(&search(folder.path(), &[&objective[..], &first].concat()));
    assert!(printed.starts_with("rank  trial  front "), "{printed}");
    assert!(printed.contains("on the Pareto front") && printed.contains("hypervolume.png"), "{printed}");
    assert!(at("random/accuracy-macs.svg").exists() && !at("random/best-so-far.png").exists());
    let header = std::fs::read_to_string(at("random/leaderboard.csv")).unwrap();
    assert!(header.starts_with("rank,trial,state,reason,hash,objective,front,accuracy"), "{header}");

    // From the two best, with the strategy that several objectives imply; in parts it is the same search.
    let second = ["--population", "3", "--warm-start", "random", "--warm-top", "2"];
    let from_random = [&objective[..], &second].concat();
    succeeded(&search(folder.path(), &[&from_random[..], &["--out", "warm", "--trials", "6"]].concat()));
    succeeded(&search(folder.path(), &[&from_random[..], &["--out", "parts", "--trials", "3"]].concat()));
    let resume = ["search", "--resume", "--out", "parts", "--trials", "6", "--threads", "1"];
    succeeded(&foretell(folder.path()).args(resume).output().unwrap());
    assert_eq!(timeless(&at("parts")), timeless(&at("warm")));
    let given = std::fs::read_to_string(at("random/leaderboard.jsonl")).unwrap();
    let best: serde_json::Value = serde_json::from_str(given.lines().next().unwrap()).unwrap();
    let start = serde_json::to_value(&trials(&at("warm"))[0].arch).unwrap();
    assert_eq!(start, best["args"], "the first trial is the best of the run that was given");
    let study = std::fs::read_to_string(at("warm/study.json")).unwrap();
    assert!(study.contains("\"nsga2\"") && study.contains("\"warm_start\""), "{study}");

    let compare = ["compare", "random", "warm", "parts", "--out", "comparison"];
    let printed = succeeded(&foretell(folder.path()).args(compare).output().unwrap());
    assert!(printed.contains("of accuracy,macs after 6 candidates"), "{printed}");
    assert!(printed.contains("  nsga2\n") && printed.contains("  random\n"), "{printed}");
    let csv = std::fs::read_to_string(at("comparison/anytime.csv")).unwrap();
    assert!(csv.starts_with("group,run,candidates,hypervolume\n") && csv.lines().count() >= 19, "{csv}");
}

#[test]
fn given_architectures_are_ranked_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let draw = ["space", "sample", "small", "--count", "3", "--out", "three.jsonl"];
    succeeded(&foretell(folder.path()).args(draw).output().unwrap());
    let rank = |args: &[&str]| {
        let scoring = ["--eval-images", "64", "--batch", "32", "--threads", "1"];
        foretell(folder.path()).arg("rank").args(args).args(scoring).output().unwrap()
    };
    let printed = succeeded(&rank(&["three.jsonl", "resnet18"]));
    assert!(printed.starts_with("rank  could be  objective  accuracy"), "{printed}");
    assert!(printed.contains("4 architectures ranked") && printed.contains("wrote ranking.csv"), "{printed}");
    assert!(!at("ranking.csv.part").exists());
    let csv = std::fs::read_to_string(at("ranking.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5);

    let (code, error) = failed(&rank(&["three.jsonl", "--objective", "accuracy=x"]));
    assert!(code == Some(2) && error.contains("not a number"), "{error}");
    let (code, error) = failed(&rank(&["absent"]));
    assert!(code == Some(1) && error.contains("neither a file nor a predefined network"), "{error}");
    assert!(!at("ranking.csv.part").exists(), "something was begun for input that cannot be read");
}
