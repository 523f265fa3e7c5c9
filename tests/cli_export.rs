//! `foretell export`: trials and architectures as files, what is printed, errors, exit codes.

mod golden;

use foretell::checkpoint::{read_tensors, write_tensors};
use std::path::Path;
use std::process::Command;

fn foretell(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_foretell")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs `foretell export` on few images of the bundled slice.
fn export(args: &[&str]) -> (Option<i32>, String, String) {
    let few = ["--images", "fashion-mnist-slice", "--batch", "32"];
    let eval: &[&str] = if args.contains(&"--eval-images") { &[] } else { &["--eval-images", "64"] };
    let statistics: &[&str] = if args.contains(&"--weights") { &[] } else { &["--statistics-images", "64"] };
    foretell(&[&["export"], args, &few, eval, statistics].concat())
}

fn arch(id: &str) -> String {
    format!("{}#{id}", golden::path("archs.json").display())
}

fn text(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_string()
}

#[test]
fn every_format_is_written_and_says_the_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(folder.path(), "net");
    let formats = "safetensors,onnx,pytorch";
    let (code, stdout, stderr) =
        export(&["--arch", &arch("micro/sep_conv_3x3"), "--format", formats, "--out", &out]);
    assert_eq!(code, Some(0), "{stderr}");
    for piece in [
        "weights: predicted by the bundled hypernetwork",
        "running statistics of 64 validation images in batches of 32",
        "validation, 64 images",
        "test, 64 images",
        "stored statistics",
        " ± ",
        "net.onnx",
        "net.py",
        "net.safetensors",
    ] {
        assert!(stdout.contains(piece), "{piece}: {stdout}");
    }
    let files = ["net.onnx", "net.py", "net.safetensors"];
    let bytes = || files.map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let first = bytes();
    let tensors = read_tensors(&folder.path().join("net.safetensors")).unwrap();
    assert!(tensors.tensors.contains_key("cells.0._ops.0.op.3.running_mean"));
    assert!(tensors.tensors.contains_key("cells.0._ops.0.op.3.num_batches_tracked"));
    let accuracy: serde_json::Value = serde_json::from_str(&tensors.metadata["accuracy"]).unwrap();
    for split in [0, 1] {
        for statistics in ["batch_statistics", "stored_statistics"] {
            let share = accuracy[split][statistics]["accuracy"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&share), "{accuracy}");
            // The bundled hypernetwork knows these images: far from chance with either.
            assert!(share > 0.3, "{split} {statistics}: {share}");
        }
    }
    let python = String::from_utf8(first[1].clone()).unwrap();
    assert!(
        python.contains("with_name(\"net.safetensors\")") && python.contains("\"ankle boot\""),
        "{python}"
    );

    export(&["--arch", &arch("micro/sep_conv_3x3"), "--format", formats, "--out", &out]);
    assert!(first == bytes(), "the same command writes the same bytes");

    // The file is its own architecture and weights, and its statistics are kept.
    let again = text(folder.path(), "again.safetensors");
    let (code, stdout, stderr) =
        export(&["--weights", &text(folder.path(), "net.safetensors"), "--out", &again]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("the weights' own running statistics"), "{stdout}");
    let reread = read_tensors(Path::new(&again)).unwrap();
    assert_eq!(reread.metadata["accuracy"], tensors.metadata["accuracy"]);
    let anew = text(folder.path(), "anew.onnx");
    let (_, stdout, _) = export(&["--weights", &again, "--statistics-images", "128", "--out", &anew]);
    assert!(stdout.contains("running statistics of 128 validation images"), "{stdout}");
    let mut metadata = reread.metadata.clone();
    metadata.insert("training".into(), r#"{"train_on":"validation"}"#.into());
    write_tensors(Path::new(&again), &reread.tensors, &metadata).unwrap();
    let (_, stdout, _) = export(&["--weights", &again, "--out", &anew]);
    assert!(stdout.contains("test, 64 images") && !stdout.contains("validation, 64"), "{stdout}");
    for (name, tensor) in &tensors.tensors {
        assert_eq!(format!("{}", reread.tensors[name]), format!("{tensor}"), "{name}");
    }
}

#[test]
fn trials_of_a_search_are_exported_with_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let run = text(folder.path(), "run");
    let (code, _, stderr) = foretell(&[
        "search",
        "--out",
        &run,
        "--trials",
        "3",
        "--images",
        "fashion-mnist-slice",
        "--eval-images",
        "128",
        "--batch",
        "32",
        "--noise",
        "none",
        "--no-latency",
        "--strategy",
        "random",
    ]);
    assert_eq!(code, Some(0), "{stderr}");
    let leaderboard = std::fs::read_to_string(folder.path().join("run/leaderboard.csv")).unwrap();
    let mut lines = leaderboard.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let best: Vec<&str> = lines.next().unwrap().split(',').collect();
    let cell = |name: &str| best[columns.iter().position(|column| *column == name).unwrap()];
    let out = text(folder.path(), "best.safetensors");
    let (code, stdout, stderr) = foretell(&["export", &run, "--out", &out, "--statistics-images", "64"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&format!("trial/{}", cell("trial"))), "{stdout}");
    let metadata = read_tensors(Path::new(&out)).unwrap().metadata;
    let accuracy: serde_json::Value = serde_json::from_str(&metadata["accuracy"]).unwrap();
    // With the statistics of batches, on the study's images: the trial's own figure.
    assert_eq!(accuracy[0]["images"], 128);
    let share = accuracy[0]["batch_statistics"]["accuracy"].as_f64().unwrap();
    assert_eq!(share, cell("accuracy").parse::<f64>().unwrap());
    let numbered = text(folder.path(), "numbered.safetensors");
    let number = cell("trial");
    foretell(&["export", &run, "--trial", number, "--out", &numbered, "--statistics-images", "64"]);
    assert_eq!(std::fs::read(numbered).unwrap(), std::fs::read(&out).unwrap(), "best is trial {number}");

    for (args, reason) in [
        (vec![run.as_str(), "--trial", "3"], "there is no trial 3, only 0 to 2"),
        (vec![run.as_str(), "--trial", "worst"], "expected a number, or best"),
        (vec!["nowhere"], "nowhere: no study here"),
        (vec![run.as_str(), "--arch", "resnet18"], "cannot be used with"),
    ] {
        let (code, _, stderr) = foretell(&[&["export"], &args[..], &["--out", &out]].concat());
        assert_ne!(code, Some(0), "{reason}");
        assert!(stderr.contains(reason), "{reason}: {stderr}");
    }
}

#[test]
fn what_cannot_be_exported_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let micro = arch("micro/conv_1x1");
    let out = text(folder.path(), "net.onnx");
    let weights = text(folder.path(), "w.safetensors");
    let whole = text(folder.path(), "whole.safetensors");
    assert_eq!(export(&["--arch", &micro, "--eval-images", "0", "--out", &whole]).0, Some(0));
    let file = read_tensors(Path::new(&whole)).unwrap();
    assert_eq!(file.metadata["accuracy"], "[]");
    let mut tensors = file.tensors.clone();
    let name = tensors.keys().find(|name| name.ends_with("op.1.weight")).unwrap().clone();
    tensors.remove(&name);
    write_tensors(Path::new(&weights), &tensors, &file.metadata).unwrap();
    let nothing = text(folder.path(), "nothing.safetensors");
    write_tensors(Path::new(&nothing), &file.tensors, &Default::default()).unwrap();
    let nowhere = text(folder.path(), "absent/net.onnx");
    let directory = text(folder.path(), "directory.onnx");
    std::fs::create_dir(&directory).unwrap();
    let imagenet = arch("imagenet/wide-5");
    let shape = text(folder.path(), "shape.safetensors");
    let mut reshaped = file.tensors.clone();
    reshaped.insert("classifier.0.bias".into(), file.tensors["classifier.0.bias"].narrow(0, 0, 3).unwrap());
    write_tensors(Path::new(&shape), &reshaped, &file.metadata).unwrap();
    for (args, reason) in [
        (vec!["--out", &out], "give a run folder, --arch or --weights"),
        (vec!["--arch", "resnet19", "--out", &out], "neither a file nor a predefined network"),
        (
            vec!["--arch", &micro, "--weights", &weights, "--out", &out],
            "op.1.weight [16, 16, 1, 1] is missing",
        ),
        (
            vec!["--weights", &shape, "--out", &out],
            "classifier.0.bias has the shape [3], the architecture needs [",
        ),
        (vec!["--weights", &nothing, "--out", &out], "name no architecture, give --arch"),
        (vec!["--arch", &micro, "--weights", "absent.safetensors", "--out", &out], "absent.safetensors"),
        (vec!["--arch", &micro, "--ghn", "absent.pt", "--out", &out], "absent.pt"),
        (
            vec!["--arch", &micro, "--weights", &whole, "--ghn", "bundled", "--out", &out],
            "cannot be used with",
        ),
        (vec!["--arch", &micro, "--trial", "1", "--out", &out], "run folder, but none is given"),
        (vec!["--arch", &micro, "--out", &nowhere], "there is no folder"),
        (vec!["--arch", &micro, "--out", &directory], "directory.onnx"),
        (vec!["--arch", &micro, "--out", "net"], "--format is needed"),
        (vec!["--arch", &micro, "--format", "pytorch", "--out", &out], "another format"),
        (
            vec!["--arch", &imagenet, "--out", &out],
            "made for images of 224x224, fashion-mnist-slice has 32x32",
        ),
    ] {
        let (code, _, stderr) = export(&args);
        assert!(matches!(code, Some(1 | 2)), "{reason}: {code:?} {stderr}");
        assert!(stderr.contains(reason), "{reason}: {stderr}");
        assert!(!Path::new(&out).exists(), "{reason}");
    }
    for flag in ["--statistics-images", "--batch"] {
        let (code, _, stderr) = foretell(&["export", "--arch", &micro, "--out", &out, flag, "1"]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains(&format!("{flag} is 1, expected at least 2")), "{stderr}");
    }
}
