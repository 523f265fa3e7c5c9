//! `foretell arch` and `foretell fixture`: output, errors, exit codes.

use flate2::read::GzDecoder;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn foretell(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foretell")).args(args).output().unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_reader(File::open(path).unwrap()).unwrap()
}

#[test]
fn arch_show_prints_a_summary_or_the_network() {
    let archs = format!("{}#train/7", fixture("archs.json").display());
    let output = foretell(&["arch", "show", &archs]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("75 nodes"), "{text}");
    assert!(text.contains("classifier.3"), "{text}");

    let output = foretell(&["arch", "show", "resnet18", "--json", "--classes", "7"]);
    assert!(output.status.success());
    let network: foretell::network::Network = serde_json::from_slice(&output.stdout).unwrap();
    network.validate().unwrap();
    assert_eq!(network, foretell::network::torchvision("resnet18", 7).unwrap());

    let output = foretell(&["arch", "show", &archs, "--size", "64x48"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("3x64x48"));
}

#[test]
fn arch_show_explains_what_is_wrong() {
    let invalid = format!("{}#invalid/0", fixture("archs_invalid.json").display());
    for (arch, reason) in [
        ("resnet19", "neither a file nor a predefined network"),
        (invalid.as_str(), "lost through none ops"),
        (fixture("graphs.json.gz").to_str().unwrap(), "no UTF-8"),
    ] {
        let output = foretell(&["arch", "show", arch]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(reason), "{message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn arch_draw_writes_the_cells_and_refuses_what_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("cells.svg");
    let draw = |arch: &str| foretell(&["arch", "draw", arch, "--out", out.to_str().unwrap()]);
    let archs = format!("{}#train/7", fixture("archs.json").display());
    let output = draw(&archs);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = std::fs::read_to_string(&out).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"), "{svg}");
    let records = json(&fixture("archs.json"));
    let record = records.as_array().unwrap().iter().find(|record| record["id"] == "train/7").unwrap();
    for cell in ["normal", "reduce"] {
        for edge in record["args"]["genotype"][cell].as_array().unwrap() {
            let op = edge[0].as_str().unwrap();
            assert!(svg.contains(&format!(">{op}</text>")), "{op} is not drawn");
        }
    }
    std::fs::remove_file(&out).unwrap();
    let output = draw("resnet50");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("resnet50 is not made of cells"), "{message}");
    assert!(!out.exists());
}

#[test]
fn fixture_writes_graphs_and_rejections() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = json(&fixture("archs.json"));
    let invalid = json(&fixture("archs_invalid.json"));
    let records = records.as_array_mut().unwrap();
    let n_good = records.len();
    records.extend(invalid.as_array().unwrap().iter().cloned());
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    let archs = folder.path().join("archs.jsonl");
    std::fs::write(&archs, lines.join("\n")).unwrap();

    let out = folder.path().join("out");
    let output = foretell(&["fixture", "--archs", archs.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Value =
        serde_json::from_reader(GzDecoder::new(File::open(fixture("graphs.json.gz")).unwrap())).unwrap();
    let graphs = json(&out.join("graphs.json"));
    assert_eq!(graphs.as_object().unwrap().len(), n_good);
    for (id, graph) in graphs.as_object().unwrap() {
        let graph = graph.as_object().unwrap();
        assert_eq!(graph.len(), 9, "{id}");
        for (key, value) in graph {
            assert_eq!(value, &expected[id][key], "{id}: {key}");
        }
    }
    let rejected = json(&out.join("rejected.json"));
    let ids = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|record| record["id"].clone()).collect()
    };
    assert_eq!(ids(&rejected), ids(&invalid));
    assert!(rejected[0]["reason"].as_str().unwrap().contains("none"));
}
