//! Checkpoints: the reference's `.pt` files, our own safetensors, and everything that can be wrong with either.

mod golden;

use foretell::checkpoint::{Checkpoint, read_tensors, write_tensors};
use foretell::ghn::{Ghn, GhnConfig};
use golden::f64s;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const PYTORCH: [&str; 5] =
    ["ghn2_random", "ghn1_random", "mlp_random", "ghn2_tiny_trained", "ghn2_tiny_trained_torch2"];

fn unpack(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, golden::bytes(&format!("ghn/{name}.gz"))).unwrap();
    path
}

fn values(ghn: &Ghn) -> Vec<(String, Vec<f64>)> {
    ghn.vars().into_iter().map(|(name, var)| (name, f64s(&var))).collect()
}

#[test]
fn pytorch_checkpoints_become_safetensors() {
    let configs: BTreeMap<String, GhnConfig> = golden::json("ghn/configs.json");
    let folder = tempfile::tempdir().unwrap();
    for name in PYTORCH {
        let checkpoint = Checkpoint::read(unpack(folder.path(), &format!("{name}.pt"))).unwrap();
        assert!(checkpoint.has_config, "{name}");
        assert!(checkpoint.epoch.is_some(), "{name}");
        let wanted = configs.get(name).unwrap_or(&configs["ghn2_tiny"]);
        assert_eq!(checkpoint.ghn.config(), wanted, "{name}");
        assert_eq!(checkpoint.optimizer.is_some(), name.contains("trained"), "{name}");

        let path = folder.path().join(format!("{name}.safetensors"));
        checkpoint.ghn.save(&path).unwrap();
        let again = Ghn::load(&path).unwrap();
        assert_eq!(again.config(), wanted, "{name}");
        assert_eq!(values(&again), values(&checkpoint.ghn), "{name}");
    }
}

#[test]
fn half_precision_halves_the_file_and_rounds_to_11_bits() {
    let folder = tempfile::tempdir().unwrap();
    let ghn = Ghn::load(unpack(folder.path(), "ghn2_tiny_trained.pt")).unwrap();
    let (whole, half) = (folder.path().join("whole.safetensors"), folder.path().join("half.safetensors"));
    ghn.save(&whole).unwrap();
    ghn.save_half(&half).unwrap();
    let data = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.len() - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
    };
    assert_eq!(2 * data(&half), data(&whole));
    let read = Ghn::load(&half).unwrap();
    assert_eq!(read.config(), ghn.config());
    let mut rounded = 0;
    for ((name, read), (_, exact)) in values(&read).into_iter().zip(values(&ghn)) {
        for (read, exact) in read.into_iter().zip(exact) {
            // Half a unit in the last of 11 bits; below 2^-14 the spacing stays 2^-24.
            assert!(
                (read - exact).abs() <= (exact.abs() / 2048.0).max(2f64.powi(-25)),
                "{name}: {exact} {read}"
            );
            rounded += usize::from(read != exact);
        }
    }
    assert!(rounded > 0);

    let mut tensors = read_tensors(&whole).unwrap().tensors;
    let name = tensors.keys().next().unwrap().clone();
    tensors.insert(name.clone(), (tensors[&name].ones_like().unwrap() * 1e5).unwrap());
    let message =
        Ghn::from_tensors(ghn.config().clone(), tensors).unwrap().save_half(&half).unwrap_err().to_string();
    assert!(message.contains(&name) && message.contains("f16"), "{message}");
    assert_eq!(values(&Ghn::load(&half).unwrap()), values(&read), "the former file stays");
}

#[test]
fn both_versions_of_pytorch_hold_the_same_training_state() {
    let folder = tempfile::tempdir().unwrap();
    let old = Checkpoint::read(unpack(folder.path(), "ghn2_tiny_trained.pt")).unwrap();
    let new = Checkpoint::read(unpack(folder.path(), "ghn2_tiny_trained_torch2.pt")).unwrap();
    assert_eq!(values(&old.ghn), values(&new.ghn));
    let (old, new) = (old.optimizer.unwrap(), new.optimizer.unwrap());
    assert_eq!((old.step, new.step), (10, 10));
    assert_eq!(old.lr, Some(0.001));
    assert_eq!(old.exp_avg.len(), 31);
    for (name, moment) in &old.exp_avg {
        assert_eq!(f64s(moment), f64s(&new.exp_avg[name]), "{name}");
    }
    for (name, moment) in &old.exp_avg_sq {
        assert_eq!(f64s(moment), f64s(&new.exp_avg_sq[name]), "{name}");
        assert!(f64s(moment).iter().all(|value| *value >= 0.0), "{name}");
    }
}

#[derive(serde::Deserialize)]
struct Traces {
    traces: Vec<Trace>,
}

#[derive(serde::Deserialize)]
struct Trace {
    ghn: String,
    final_params: Vec<FinalParam>,
}

#[derive(serde::Deserialize)]
struct FinalParam {
    name: String,
    samples: Vec<f64>,
}

#[test]
fn tensors_carry_their_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let ghn = Ghn::load(unpack(folder.path(), "ghn2_tiny_trained.pt")).unwrap();
    let traces: Traces = golden::json("training_trace.json");
    let trace = traces.traces.iter().rfind(|trace| trace.ghn == "ghn2_tiny").unwrap();
    assert_eq!(trace.final_params.len(), 31);
    for param in &trace.final_params {
        let values = f64s(ghn.tensor(&param.name).unwrap());
        let found: Vec<f64> = golden::samples(values.len()).map(|position| values[position]).collect();
        let gap = golden::difference(&found, &param.samples);
        assert!(gap <= 1e-6 * golden::largest(&values).max(1e-3), "{}: differs by {gap}", param.name);
    }
}

#[test]
fn settings_are_inferred_without_a_file_beside() {
    let folder = tempfile::tempdir().unwrap();
    let configs: BTreeMap<String, GhnConfig> = golden::json("ghn/configs.json");
    for name in ["ghn2_tiny", "mlpdec_tiny", "ghn2_tiny_imagenet"] {
        let checkpoint = Checkpoint::read(unpack(folder.path(), &format!("{name}.safetensors"))).unwrap();
        assert!(!checkpoint.has_config);
        assert_eq!(checkpoint.ghn.config(), &configs[name], "{name}");
    }
}

fn error(path: &Path) -> String {
    let message = Checkpoint::read(path).map(|_| ()).unwrap_err().to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "the message names the file: {message}");
    message
}

#[test]
fn damaged_pytorch_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpack(folder.path(), "ghn2_tiny_trained.pt");
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 50).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        error(&path);
    }
    // A flipped bit anywhere in a record is found by the archive's checksums; elsewhere it may be harmless.
    let start = whole.windows(4).position(|window| window == b"\x80\x02}q").unwrap();
    for offset in (start..start + 10_000).step_by(97) {
        let mut flipped = whole.clone();
        flipped[offset] ^= 4;
        std::fs::write(&path, &flipped).unwrap();
        error(&path);
    }
    std::fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert!(error(&path).contains("before 1.6"));
    std::fs::write(&path, b"hello").unwrap();
    assert!(error(&path).contains("neither a PyTorch checkpoint (a zip archive) nor safetensors"));
    std::fs::write(&path, b"").unwrap();
    assert!(error(&path).contains("the file is empty"));
    std::fs::remove_file(&path).unwrap();
    assert!(error(&path).contains("cannot read"));
}

#[test]
fn wrong_tensors_and_versions_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ghn.safetensors");
    let config = GhnConfig { hid: 8, max_shape: [8, 8, 11, 11], ..GhnConfig::ghn2(10) };
    Ghn::new(config, 3).unwrap().save(&path).unwrap();
    let file = read_tensors(&path).unwrap();

    let mut tensors = file.tensors.clone();
    tensors.remove("decoder.conv.2.bias");
    write_tensors(&path, &tensors, &file.metadata).unwrap();
    assert!(error(&path).contains("decoder.conv.2.bias is missing"));

    let mut tensors = file.tensors.clone();
    tensors.insert("ln.bias".into(), tensors["ln.bias"].narrow(0, 0, 7).unwrap());
    write_tensors(&path, &tensors, &file.metadata).unwrap();
    assert!(error(&path).contains("ln.bias has shape [7]"));

    let mut metadata = file.metadata.clone();
    metadata.insert("foretell.ghn".into(), "2".into());
    write_tensors(&path, &file.tensors, &metadata).unwrap();
    assert!(error(&path).contains("version 2"));

    let mut metadata = file.metadata.clone();
    metadata.insert("config".into(), file.metadata["config"].replace("hid", "hidden"));
    write_tensors(&path, &file.tensors, &metadata).unwrap();
    assert!(error(&path).contains("hidden"));

    write_tensors(&path, &file.tensors, &file.metadata).unwrap();
    Ghn::load(&path).unwrap();
}

fn foretell(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_foretell")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_imports_and_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpack(folder.path(), "ghn2_random.pt");
    let (code, stdout, stderr) = foretell(&["ghn", "import", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("GHN-2 for 10 classes, 1.621 M parameters"), "{stdout}");
    let imported = folder.path().join("ghn2_random.safetensors");
    assert_eq!(values(&Ghn::load(&imported).unwrap()), values(&Ghn::load(&path).unwrap()));

    let (code, stdout, _) = foretell(&["ghn", "show", imported.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("gatedgnn") && stdout.contains("4096 x 256 x 1 x 1"), "{stdout}");

    let (code, _, stderr) = foretell(&["ghn", "import", imported.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--out"), "{stderr}");

    let missing = folder.path().join("none/x.safetensors");
    let (code, _, stderr) =
        foretell(&["ghn", "import", path.to_str().unwrap(), "--out", missing.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("none/x.safetensors"), "{stderr}");
}
