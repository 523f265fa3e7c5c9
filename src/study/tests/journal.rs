//! Journals under truncation, damage and failing disks.

use super::*;
use std::fs;
use std::path::PathBuf;

struct Sample {
    _folder: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    events: Vec<Event>,
}

fn sample() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let events = some_events();
    Journal::open(&path).unwrap().append(&events).unwrap();
    let bytes = fs::read(&path).unwrap();
    Sample { _folder: folder, path, bytes, events }
}

/// Whole lines, header not counted, in the first `len` bytes, or one more if only its end is missing.
fn whole_events(bytes: &[u8], len: usize) -> usize {
    let ends = bytes[..len].iter().filter(|&&byte| byte == b'\n').count();
    let complete = if bytes.get(len) == Some(&b'\n') { ends + 1 } else { ends };
    complete.saturating_sub(1)
}

#[test]
fn a_journal_recovers_from_truncation_at_every_byte() {
    let Sample { path, bytes, events, .. } = &sample();
    for len in 0..=bytes.len() {
        fs::write(path, &bytes[..len]).unwrap();
        let kept = whole_events(bytes, len);
        if len > 0 {
            assert_eq!(Journal::read(path).unwrap(), events[..kept], "reading {len} bytes");
            assert_eq!(fs::metadata(path).unwrap().len(), len as u64, "reading changed the file");
        }
        let mut journal = Journal::open(path).unwrap();
        assert_eq!(journal.events().unwrap(), events[..kept], "opening {len} bytes");
        let is_boundary = len == 0 || bytes[len - 1] == b'\n';
        assert_eq!(journal.repair().is_none(), is_boundary, "{len} bytes");
        journal.append(&events[kept..]).unwrap();
        drop(journal);
        assert_eq!(fs::read(path).unwrap(), *bytes, "after {len} bytes the mended journal differs");
    }
}

#[test]
fn a_repair_says_what_was_cut() {
    let Sample { path, bytes, .. } = &sample();
    fs::write(path, &bytes[..bytes.len() - 10]).unwrap();
    let last_line = bytes[..bytes.len() - 1].iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    let expected = Repair { line: 9, bytes: last_line as u64 - 10 };
    assert_eq!(Journal::open(path).unwrap().repair(), Some(&expected));
    assert_eq!(Journal::open(path).unwrap().repair(), None);
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(Journal::open(path).unwrap().repair(), Some(&Repair { line: 9, bytes: 0 }));
}

#[test]
fn a_changed_byte_of_a_whole_line_is_an_error_that_names_the_line() {
    let Sample { path, bytes, .. } = &sample();
    // Without the very last line end the last line counts as torn.
    for at in 0..bytes.len() - 1 {
        let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(path, &damaged).unwrap();
        let error =
            Journal::open(path).err().unwrap_or_else(|| panic!("byte {at} went unnoticed")).to_string();
        let names_version = line == 1 && error.contains("version");
        assert!(error.contains(&format!("line {line}: ")) || names_version, "byte {at}: {error}");
        assert_eq!(fs::read(path).unwrap(), damaged, "a refused journal was changed");
    }
}

#[test]
fn lost_doubled_and_swapped_lines_are_errors() {
    let Sample { path, bytes, .. } = &sample();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let without_third = [&lines[..2], &lines[3..]].concat().concat();
    let doubled = [&lines[..3], &lines[2..]].concat().concat();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().concat();
    for (name, wrong) in [("lost", without_third), ("doubled", doubled), ("swapped", swapped)] {
        fs::write(path, wrong).unwrap();
        assert!(Journal::open(path).is_err(), "{name} line");
    }
}

#[test]
fn other_files_and_other_versions_are_refused_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let future = "{\"sum\":\"0123456789abcdef\",\"event\":{\"format\":\"foretell-journal\",\"version\":2}}\n";
    for (content, message) in [
        ("hello", "line 1: not a journal"),
        ("hello\nworld\n", "line 1: not a journal"),
        ("\n", "line 1: not a journal"),
        (future, "journal version 2; this foretell reads version 1"),
    ] {
        fs::write(&path, content).unwrap();
        for error in [Journal::open(&path).err(), Journal::read(&path).err()] {
            let error = error.expect("refused").to_string();
            assert!(error.contains(message), "{content:?}: {error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

/// A journal as version 0.1.0 wrote it: no digest of the settings, a value in every finished trial.
#[test]
fn a_journal_of_the_first_version_is_read() {
    let texts = [
        r#"{"format":"foretell-journal","version":1}"#,
        r#"{"type":"opened","time_ms":1,"version":"0.1.0","workers":1,"budget":{"trials":4,"seconds":null}}"#,
        r#"{"type":"started","trial":0,"time_ms":2,"hash":"ab","arch":ARCH}"#,
        r#"{"type":"finished","trial":0,"time_ms":3,"wall_s":0.1,"elapsed_s":0.2,"value":0.5,"scores":SCORES}"#,
    ];
    let arch = serde_json::to_string(&architecture(8, 3, Op::Conv3x3)).unwrap();
    let scores = serde_json::to_string(&Scores { accuracy: Some(0.5), ..Scores::default() }).unwrap();
    let (mut content, mut previous) = (String::new(), vec![0u8; 8]);
    for text in texts {
        let text = text.replace("ARCH", &arch).replace("SCORES", &scores);
        use sha2::{Digest, Sha256};
        previous = Sha256::new().chain_update(&previous).chain_update(&text).finalize()[..8].to_vec();
        let sum: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
        content += &format!("{{\"sum\":\"{sum}\",\"event\":{text}}}\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    fs::write(&path, content).unwrap();
    let study = Study::open(Journal::open(&path).unwrap()).unwrap();
    assert_eq!(study.best().map(|trial| (trial.number, trial.value)), Some((0, Some(0.5))));
    assert!(study.settings().is_empty());
}
