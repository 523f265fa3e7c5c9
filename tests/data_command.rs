//! `foretell data`: what it prints, where it writes, and how it fails.

use std::path::Path;
use std::process::{Command, Output};

fn foretell(root: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foretell")).env("XDG_DATA_HOME", root).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_bundled_slice_is_shown_without_any_download() {
    let root = tempfile::tempdir().unwrap();
    let png = root.path().join("sheet.png");
    let output = foretell(root.path(), &["data", "show", "fashion-mnist", "--png", png.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("training    none\nvalidation  5000 images\ntest        5000 images"), "{text}");
    assert!(text.contains("mean        [0.2860406, "), "{text}");
    assert!(text.contains("\n    9 ankle boot              522\n"), "{text}");
    // Ten rows and columns of 28 pixels with gaps of 2.
    assert_eq!(image::image_dimensions(png).unwrap(), (302, 302));
}

#[test]
fn failures_name_what_was_asked_for_once() {
    let root = tempfile::tempdir().unwrap();
    let cases = [
        (vec!["data", "show", "nowhere"], "data set nowhere: neither a folder nor one of"),
        (vec!["data", "show", "cifar10"], "`foretell data fetch cifar10` gets it"),
        (vec!["data", "fetch", "imagenet"], "fashion-mnist and cifar10 can be fetched"),
        (
            vec!["data", "fetch", "cifar10", "--from", "/no/such/folder"],
            "cannot read /no/such/folder/cifar-10",
        ),
        (vec!["data", "slice", "--from", "/no/such/folder", "--to", "/no"], "/no/such/folder"),
    ];
    for (args, reason) in cases {
        let output = foretell(root.path(), &args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: ") && text.contains(reason), "{args:?}: {text}");
        assert!(text.matches("No such file").count() <= 1, "{text}");
    }
}
