//! `foretell adapt-ghn` on a folder of images with classes of its own, and what a search says of such images.

use foretell::ghn::Ghn;
use std::path::Path;
use std::process::{Command, Output};

fn foretell(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
    command.args(arguments).current_dir(folder).env_remove("XDG_DATA_HOME").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two classes, dark and bright images of 28 x 28 pixels, 24 of each.
fn shades(folder: &Path) {
    for (class, base) in [("bright", 150u32), ("dark", 0)] {
        let path = folder.join("shades/train").join(class);
        std::fs::create_dir_all(&path).unwrap();
        for number in 0..24 {
            let pixel = |x, y| image::Luma([(base + (x * 31 + y * 7 + number * 17) % 100) as u8]);
            image::ImageBuffer::from_fn(28, 28, pixel).save(path.join(format!("{number}.png"))).unwrap();
        }
    }
}

#[test]
fn the_bundled_hypernetwork_learns_other_images_and_classes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shades(path);
    let adapt = |more: &[&str]| {
        let arguments =
            ["adapt-ghn", "--images", "shades", "--steps", "4", "--batch", "16", "--threads", "2"];
        foretell(path, &[&arguments[..], more].concat())
    };
    let out = adapt(&[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert!(
        said.contains("foretell search --images shades --ghn runs/ghn-shades/best.safetensors"),
        "{said}"
    );
    let adapted = Ghn::load(path.join("runs/ghn-shades/last.safetensors")).unwrap();
    assert_eq!(adapted.config().num_classes, 2);
    let values = |ghn: &Ghn| -> Vec<f32> {
        ghn.tensor("embed.weight").unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (before, after) = (values(&Ghn::bundled().unwrap()), values(&adapted));
    let moved: Vec<f32> = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).collect();
    assert!(moved.iter().any(|&by| by > 0.0), "nothing was learned");
    // Adam moves a weight by the learning rate at most, and four steps warm up to 1e-3.
    assert!(moved.iter().all(|&by| by < 0.01), "it did not start from the bundled one");

    let out = adapt(&[]);
    assert!(!out.status.success() && text(&out.stderr).contains("--resume"), "{}", text(&out.stderr));
    let out = adapt(&["--resume"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = adapt(&["--resume", "--lr", "0.01"]);
    assert!(text(&out.stderr).contains("another value of `optimizer.lr`"), "{}", text(&out.stderr));

    for (arguments, reason) in [
        (["--images", "fashion-mnist-slice", "--steps", "4"], "no training images"),
        (["--images", "shades", "--steps", "0"], "--steps is 0"),
        (["--images", "shades", "--lr", "-1"], "--lr is -1"),
        (["--images", "shades", "--ghn", "none.pt"], "none.pt"),
    ] {
        let out = foretell(path, &[&["adapt-ghn", "--out", "refused"][..], &arguments].concat());
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(text(&out.stderr).contains(reason), "{arguments:?}: {}", text(&out.stderr));
    }
    assert!(!path.join("refused").exists());
}

#[test]
fn a_search_on_other_images_says_what_the_bundled_hypernetwork_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shades(path);
    let search = ["search", "--trials", "1", "--out", "run", "--no-latency", "--images"];
    // Two classes: the bundled one predicts ten.
    let out = foretell(path, &[&search[..], &["shades"]].concat());
    assert!(!out.status.success());
    let said = text(&out.stderr);
    assert!(said.contains("10 classes") && said.contains("foretell adapt-ghn --images shades"), "{said}");
    let out = foretell(path, &[&search[..], &["fashion-mnist-slice"]].concat());
    assert!(out.status.success() && !text(&out.stderr).contains("adapt-ghn"), "{}", text(&out.stderr));

    // A later build may come with another hypernetwork: what was begun with this one does not go on with that.
    let study = path.join("run/study.json");
    let written = std::fs::read_to_string(&study).unwrap();
    let sha256 = Ghn::sha256("bundled").unwrap();
    assert!(written.contains(&sha256), "{written}");
    std::fs::write(&study, written.replace(&sha256, &sha256.replace('0', "1"))).unwrap();
    for (arguments, reason) in [
        (
            &["search", "--resume", "--out", "run", "--trials", "2"][..],
            "bundled hypernetwork of another build",
        ),
        (&["export", "run", "--out", "winner.onnx"], "another one than when the study in run was begun"),
    ] {
        let out = foretell(path, arguments);
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(text(&out.stderr).contains(reason), "{arguments:?}: {}", text(&out.stderr));
    }
    std::fs::write(&study, written.replace(&format!("\"{sha256}\""), "null")).unwrap();
    let out = foretell(path, &["search", "--resume", "--out", "run", "--trials", "2"]);
    assert!(text(&out.stderr).contains("does not say which bundled hypernetwork"), "{}", text(&out.stderr));
}
