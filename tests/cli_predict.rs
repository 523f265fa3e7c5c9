//! `foretell predict` and the predictions of `foretell fixture`: files, errors, exit codes.

mod golden;

use foretell::checkpoint::read_tensors;
use foretell::space::ArchRecord;
use golden::{difference, f64s, largest};
use std::path::Path;
use std::process::Command;

fn foretell(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_foretell")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn unpack(folder: &Path, name: &str) -> String {
    let path = folder.join(Path::new(name).file_name().unwrap());
    std::fs::write(&path, golden::bytes(&format!("{name}.gz"))).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn predicted_weights_are_named_as_in_a_state_dict() {
    let folder = tempfile::tempdir().unwrap();
    let ghn = unpack(folder.path(), "ghn/ghn2_random.pt");
    let out = folder.path().join("weights.safetensors");
    let arch = format!("{}#train/7", golden::path("archs.json").display());
    let (code, stdout, stderr) =
        foretell(&["predict", "--arch", &arch, "--ghn", &ghn, "--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("train/7"), "{stdout}");

    let file = read_tensors(&out).unwrap();
    let wanted = golden::tensors("full/ghn2_random/train__7.safetensors.gz");
    assert_eq!(file.tensors.len(), wanted.len());
    for (name, wanted) in &wanted {
        let found = &file.tensors[name];
        assert_eq!(found.dims(), wanted.dims(), "{name}");
        let wanted = f64s(wanted);
        assert!(difference(&f64s(found), &wanted) <= 1e-5 * largest(&wanted), "{name}");
    }
    let record: ArchRecord = serde_json::from_str(&file.metadata["architecture"]).unwrap();
    assert_eq!((record.id.as_str(), record.num_classes), ("train/7", 10));
}

#[test]
fn what_cannot_be_predicted_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let ghn = unpack(folder.path(), "ghn/ghn2_tiny.safetensors");
    let out = folder.path().join("weights.safetensors").to_str().unwrap().to_string();
    for (arch, ghn, out, reason) in [
        ("resnet19", ghn.as_str(), out.as_str(), "neither a file nor a predefined network"),
        ("resnet50", "missing.pt", out.as_str(), "missing.pt"),
        ("resnet50", golden::path("archs.json").to_str().unwrap(), out.as_str(), "archs.json"),
        ("resnet50", ghn.as_str(), "/nonexistent/w.safetensors", "/nonexistent/w.safetensors"),
    ] {
        let (code, _, stderr) = foretell(&["predict", "--arch", arch, "--ghn", ghn, "--out", out]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn fixture_writes_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let name = "ghn2_tiny";
    let ghn = unpack(folder.path(), &format!("ghn/{name}.safetensors"));
    let inputs = unpack(folder.path(), "inputs.safetensors");
    let info: golden::PredictionFile = golden::json(&format!("predictions/{name}.json"));
    let mut records: Vec<serde_json::Value> = golden::json("archs.json");
    records.retain(|record| info.archs.contains_key(record["id"].as_str().unwrap()));
    let count = records.len();
    records.extend(golden::json::<Vec<serde_json::Value>>("archs_invalid.json"));
    let archs = folder.path().join("archs.json").to_str().unwrap().to_string();
    std::fs::write(&archs, serde_json::to_string(&records).unwrap()).unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_string();
    let args = ["fixture", "--archs", &archs, "--ghn", &ghn, "--inputs", &inputs, "--out", &out];
    let (code, _, stderr) = foretell(&args);
    assert_eq!(code, Some(0), "{stderr}");

    let found = read_tensors(&Path::new(&out).join("predictions.safetensors")).unwrap().tensors;
    let wanted = golden::tensors(&format!("predictions/{name}.safetensors.gz"));
    assert_eq!(found.len(), 4 * count);
    for (key, found) in &found {
        let wanted = &wanted[key];
        assert_eq!((found.dims(), found.dtype()), (wanted.dims(), wanted.dtype()), "{key}");
        let (found, wanted) = (f64s(found), f64s(wanted));
        let gap = difference(&found, &wanted);
        assert!(gap <= 2e-4 * largest(&wanted), "{key}: differs by {gap}");
    }
    let rejected = std::fs::read_to_string(Path::new(&out).join("rejected.json")).unwrap();
    assert!(rejected.contains("invalid/"), "{rejected}");
}
