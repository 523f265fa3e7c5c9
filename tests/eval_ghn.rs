//! `foretell eval-ghn`: the table, going on after an interruption, adding to what is there, clear refusals.

use std::path::Path;
use std::process::Command;

fn foretell(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_foretell")).arg("eval-ghn").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const COMMON: [&str; 3] = ["--images=fashion-mnist-slice", "--eval-images=64", "--batch=32"];

fn rows(folder: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder.join("architectures.csv")).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Rows without their times.
fn timeless(folder: &Path) -> Vec<Vec<String>> {
    let mut rows = rows(folder);
    rows.iter_mut().for_each(|row| drop(row.remove(11)));
    rows.sort();
    rows
}

#[test]
fn a_table_grows_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (whole, parts) = (at("whole"), at("parts"));
    let run = |out: &Path, more: &[&str]| {
        let (code, stdout, stderr) =
            foretell(&[&COMMON[..], &["--out", out.to_str().unwrap()], more].concat());
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let stdout = run(&whole, &["--splits=small,ViT", "--archs=3", "--control=he", "--sgd-steps=2"]);
    for text in ["bundled  small", "he       ViT", "reached by SGD"] {
        assert!(stdout.contains(text), "{stdout}");
    }
    assert_eq!(rows(&whole).len(), 2 * 4);
    assert!(whole.join("accuracy-by-group.png").exists());
    let table = std::fs::read_to_string(whole.join("table.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 4);
    let curves = std::fs::read_to_string(whole.join("sgd.csv")).unwrap();
    assert_eq!(curves.lines().count(), 1 + 4 * 3, "{curves}");
    let mean: f64 = rows(&whole)
        .iter()
        .filter(|row| row[0] == "bundled" && row[1] == "small")
        .map(|row| row[8].parse::<f64>().unwrap() / 3.0)
        .sum();
    let found = table.lines().find(|line| line.starts_with("bundled,small,3,0,")).unwrap();
    assert!(
        (found.split(',').nth(4).unwrap().parse::<f64>().unwrap() - mean).abs() < 1e-12,
        "{found} {mean}"
    );

    // In parts: fewer architectures, then more of them, with another source, after a torn line, on one thread.
    run(&parts, &["--splits=small", "--archs=1"]);
    let path = parts.join("architectures.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.clone() + "bundled,small,sma").unwrap();
    run(&parts, &["--splits=small,ViT", "--archs=3", "--control=he", "--threads=1"]);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(&text), "rows were measured again");
    assert_eq!(timeless(&parts), timeless(&whole));
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    std::fs::write(folder.path().join("file"), "in the way").unwrap();
    let blocked = folder.path().join("file/out").to_str().unwrap().to_owned();
    for (args, out, code, reason) in [
        (vec!["--splits=tset"], &out, 2, "no group `tset`"),
        (vec!["--on=train"], &out, 2, "--on"),
        (vec!["--archs=0"], &out, 1, "--archs is 0"),
        (vec!["--ghn=missing.pt"], &out, 1, "missing.pt"),
        (vec!["--ghn=bundled", "--ghn=bundled"], &out, 1, "called `bundled`"),
        (vec!["--ghn=a,b=bundled"], &out, 1, "cannot be a name"),
        (vec!["--control=his"], &out, 1, "--control his"),
        (vec!["--on=validation", "--sgd-steps=1"], &out, 1, "--sgd-steps"),
        (vec!["--sgd-lr=-1"], &out, 1, "--sgd-lr is -1"),
        (vec!["--splits=small"], &blocked, 1, "file/out"),
    ] {
        let (found, _, stderr) = foretell(&[&COMMON[..], &["--out", out], &args].concat());
        assert_eq!(found, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
    // Rows of other settings are not mixed.
    let args = |seed| [&COMMON[..], &["--out", &out, "--splits=small", "--archs=1", seed]].concat();
    assert_eq!(foretell(&args("--seed=1")).0, Some(0));
    let (code, _, stderr) = foretell(&args("--seed=2"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("another value of `seed`"), "{stderr}");
}
