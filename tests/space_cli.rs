//! `foretell space` and `foretell deepnets` as a user runs them.

use foretell::space::read_records;
use std::process::{Command, Output};

fn foretell(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foretell")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn show_prints_a_space_that_can_be_narrowed_and_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let shown = foretell(&["space", "show", "small"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let narrowed = text(&shown.stdout).replace("count = [4, 8]", "count = [6, 6]");
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, narrowed).unwrap();
    let sampled = foretell(&["space", "sample", path.to_str().unwrap(), "--count", "5", "--seed", "3"]);
    assert!(sampled.status.success(), "{}", text(&sampled.stderr));
    let lines: Vec<_> = text(&sampled.stdout).lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.contains("\"n_cells\":6,")), "{lines:?}");
}

#[test]
fn the_same_seed_writes_the_same_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.jsonl");
    let out = path.to_str().unwrap();
    let args = ["deepnets", "generate", "--split", "test", "--count", "20", "--seed", "1"];
    let written = foretell(&[args.as_slice(), &["--out", out]].concat());
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(written.stdout.is_empty() && text(&written.stderr).contains("20 architectures"));
    let printed = foretell(&args);
    assert_eq!(std::fs::read(&path).unwrap(), printed.stdout);
    assert_eq!(foretell(&[args.as_slice(), &["--out", "-"]].concat()).stdout, printed.stdout);
    assert_eq!(read_records(&path).unwrap()[19].id, "test/19");
}

#[test]
fn mistakes_are_named_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    let shown = foretell(&["space", "show", "small"]);
    let space = text(&shown.stdout).replace("\"conv_3x3\"", "\"conv3x3\"");
    std::fs::write(&wrong, space).unwrap();
    let out = folder.path().join("list.jsonl");
    let absent = folder.path().join("absent").join("list.jsonl");
    let (wrong, out, absent) = (wrong.to_str().unwrap(), out.to_str().unwrap(), absent.to_str().unwrap());
    let cases: [(&[&str], &str); 6] = [
        (&["space", "sample", wrong, "--out", out], "did you mean `conv_3x3`?"),
        (&["space", "show", "nothing.toml"], "cannot read nothing.toml"),
        (&["space", "show", "deepnet"], "did you mean `deepnets1m`?"),
        (&["space", "sample", "small", "--out", absent], "absent"),
        (&["deepnets", "generate", "--split", "validation", "--out", out], "train, val, test, wide"),
        (&["deepnets", "generate", "--split", "test", "--count", "many", "--out", out], "--count"),
    ];
    for (args, expected) in cases {
        let failed = foretell(args);
        assert!(matches!(failed.status.code(), Some(1 | 2)), "{args:?}: {:?}", failed.status);
        assert!(text(&failed.stderr).contains(expected), "{args:?}: {}", text(&failed.stderr));
        assert!(failed.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_space_with_fewer_networks_than_asked_for_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.toml");
    let shown = foretell(&["space", "show", "small"]);
    let mut tiny: Vec<String> = Vec::new();
    for line in text(&shown.stdout).lines() {
        let key = line.split(" = ").next().unwrap();
        tiny.push(match (key, line) {
            ("normal", _) => "normal = [\"conv_3x3\"]".into(),
            ("reduce", _) => "reduce = [\"max_pool_3x3\"]".into(),
            ("count", _) => "count = [4, 4]".into(),
            ("steps" | "steps_deep", _) => format!("{key} = [1, 1]"),
            ("channels", _) => "channels = [16]".into(),
            ("multiplier", _) => "multiplier = [1]".into(),
            ("kernel", _) => "kernel = [3]".into(),
            ("type", _) => "type = [1]".into(),
            ("layers", _) => "layers = [1]".into(),
            _ => line.to_owned(),
        });
    }
    std::fs::write(&path, tiny.join("\n")).unwrap();
    let failed = foretell(&["space", "sample", path.to_str().unwrap(), "--count", "10"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("gave 1 distinct networks"), "{}", text(&failed.stderr));
}
