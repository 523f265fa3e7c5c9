//! `foretell properties` and `foretell rank --by` as processes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn foretell(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
    command.current_dir(folder).args(args).stdin(Stdio::null()).output().unwrap()
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failed(output: Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// The columns of a CSV without quotes.
fn columns(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(String::from).collect()).collect()
}

#[test]
fn cheap_scores_rank_and_properties_are_predicted_from_them() {
    let folder = tempfile::tempdir().unwrap();
    let (at, run) = (|name: &str| folder.path().join(name), |args: &[&str]| foretell(folder.path(), args));
    succeeded(run(&["space", "sample", "small", "--count", "30", "--out", "archs.jsonl"]));
    let printed = succeeded(run(&["rank", "archs.jsonl", "--by", "macs", "--csv", "macs.csv"]));
    assert!(printed.starts_with("rank") && printed.contains("30 architectures ranked"), "{printed}");
    let ranked = columns(&at("macs.csv"));
    assert_eq!(ranked[0][..3], ["name", "params", "macs"]);
    assert_eq!(ranked[0][5..], ["synflow", "naswot", "grad_norm", "grad_norm_predicted"]);
    let macs: Vec<f64> = ranked[1..].iter().map(|row| row[2].parse().unwrap()).collect();
    assert!(macs.len() == 30 && macs.is_sorted(), "fewest first: {macs:?}");
    succeeded(run(&["rank", "archs.jsonl", "--by", "synflow", "--csv", "flow.csv", "--threads", "1"]));
    let flow: Vec<f64> = columns(&at("flow.csv"))[1..].iter().map(|row| row[5].parse().unwrap()).collect();
    assert!(flow.is_sorted_by(|a, b| a >= b), "most first: {flow:?}");
    let mut rows = [columns(&at("macs.csv")), columns(&at("flow.csv"))];
    rows.iter_mut().for_each(|rows| rows.sort());
    assert_eq!(rows[0], rows[1], "scores depend on the order or the threads");

    // A property that the costs tell, one that nothing tells, and one that hardly anybody has.
    let mut csv = String::from("name,time,luck,rare\n");
    for (i, row) in ranked[1..].iter().enumerate() {
        let rare = if i < 5 { "1.5" } else { "" };
        csv += &format!("{},{},{},{rare}\n", row[0], macs[i].sqrt(), (i * 7 + 3) * 11 % 31);
    }
    std::fs::write(at("measured.csv"), csv).unwrap();
    let properties = |more: &[&str]| {
        run(&[&["properties", "archs.jsonl", "--measured", "measured.csv", "--folds", "3"], more].concat())
    };
    let printed = succeeded(properties(&["--property", "time,luck"]));
    assert!(printed.contains("time, 30 architectures") && printed.contains("luck, 30"), "{printed}");
    let table = columns(&at("properties/properties.csv"));
    assert_eq!(table[0][..5], ["property", "features", "predictor", "architectures", "tau"]);
    let tau = |property: &str, features: &str, predictor: &str| -> f64 {
        let row = table.iter().find(|row| row[..3] == [property, features, predictor]).unwrap();
        row[4].parse().unwrap()
    };
    assert_eq!(tau("time", "macs", "none"), 1.0);
    assert!(tau("time", "cheap scores", "chosen") > 0.7, "{printed}");
    assert!(tau("luck", "cheap scores", "chosen") < 0.6, "{printed}");
    assert!(tau("time", "embedding (bundled)", "ridge") < 1.0);
    for file in ["features.csv", "properties.png", "properties.svg"] {
        assert!(at("properties").join(file).exists(), "{file}");
    }
    assert_eq!(columns(&at("properties/features.csv")).len(), 31);

    let error = failed(properties(&["--property", "rare"]));
    assert!(error.contains("rare: 5 architectures have it, 15 are needed for 3 folds"), "{error}");
    let error = failed(properties(&["--property", "name"]));
    assert!(error.contains("no column of numbers \"name\"; there are time, luck, rare"), "{error}");
    let error = failed(properties(&[]));
    assert!(error.contains("--property: measured.csv has none of accuracy"), "{error}");
    let error = failed(run(&["properties", "archs.jsonl"]));
    assert!(error.contains("--measured: archs.jsonl is no run folder"), "{error}");
    let error = failed(run(&["rank", "archs.jsonl", "--by", "magic"]));
    assert!(error.contains("possible values: params, macs"), "{error}");
}
