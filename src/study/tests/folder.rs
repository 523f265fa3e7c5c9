//! Run folders: nothing is overwritten, settings are compared by key.

use super::*;
use crate::search::{Budget, Limits, StrategySettings, contract};
use serde_json::json;

fn settings() -> SearchSettings {
    SearchSettings {
        space: json!({"name": "small", "cells": [2, 6]}),
        seed: u64::MAX,
        strategy: contract::evolution(24, 6),
        objective: "accuracy=1,latency=-0.01".parse().unwrap(),
        limits: Limits { max_params: Some(100_000), ..Limits::default() },
        lookahead: 4,
        evaluation: json!({"images": "fashion-mnist", "noise_levels": [0.08, 0.16]}),
        warm_start: vec![architecture(8, 3, Op::Conv3x3)],
        ladder: None,
        predictor: None,
        vote: false,
    }
}

fn record() -> StudyRecord {
    StudyRecord::new(settings(), Budget { trials: Some(10), seconds: Some(0.1 + 0.2), patience: Some(3) })
}

#[test]
fn a_folder_is_read_as_it_was_written_and_never_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let written = record();
    Folder::create(&path, &written).unwrap();
    let (folder, read) = Folder::open(&path).unwrap();
    assert_eq!(read, written);
    assert_eq!(folder.events().unwrap(), []);
    let error = Folder::create(&path, &record()).unwrap_err().to_string();
    assert!(error.contains("already holds a study; give --resume"), "{error}");
    assert_eq!(Folder::open(&path).unwrap().1, written);
    let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["study.json"], "temporary files stayed");
}

#[test]
fn numbered_folders_go_on_behind_the_last() {
    let parent = tempfile::tempdir().unwrap();
    let runs = parent.path().join("runs");
    assert!(Folder::latest(&runs, "search").unwrap_err().to_string().contains("no run search-NNN"));
    for expected in ["search-001", "search-002"] {
        let folder = Folder::create_numbered(&runs, "search", &record()).unwrap();
        assert_eq!(folder.path(), runs.join(expected));
    }
    std::fs::create_dir(runs.join("search-0999")).unwrap();
    std::fs::create_dir(runs.join("search-x")).unwrap();
    assert_eq!(Folder::create_numbered(&runs, "search", &record()).unwrap().path(), runs.join("search-1000"));
    assert_eq!(Folder::latest(&runs, "search").unwrap(), runs.join("search-1000"));
}

#[test]
fn settings_that_differ_are_named_with_both_values() {
    let ours = settings();
    assert_eq!(ours.differences(&settings()), [""; 0]);
    let mut theirs = settings();
    theirs.seed = 1;
    theirs.limits = Limits { max_macs: Some(5), ..Limits::default() };
    theirs.strategy = StrategySettings::Random;
    theirs.evaluation["noise_levels"] = json!([0.08]);
    assert_eq!(
        ours.differences(&theirs),
        [
            "evaluation.noise_levels: [0.08,0.16], not [0.08]",
            "limits.max_macs: none, not 5",
            "limits.max_params: 100000, not none",
            "seed: 18446744073709551615, not 1",
            "strategy.name: \"evolution\", not \"random\"",
            "strategy.population: 24, not none",
            "strategy.sample: 6, not none",
        ]
    );
}

#[test]
fn folders_without_a_readable_study_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(folder.path().join("study.json"), text).unwrap();
        }
        Folder::open(folder.path()).unwrap_err().to_string()
    };
    assert!(error(None).contains("no study here"));
    assert!(error(Some("{")).contains("study.json: EOF"));
    assert!(error(Some("{}")).contains("no \"version\""));
    assert!(error(Some("{\"version\": 4}")).contains("study version 4; this foretell reads 1 to 3"));
    assert!(error(Some("{\"version\": 1, \"sed\": 1}")).contains("unknown field `sed`"));
    let error = Folder::create(&folder.path().join("study.json/run"), &record()).unwrap_err().to_string();
    assert!(error.contains("cannot create folder"), "{error}");
}

#[test]
fn a_study_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"version": 1, "foretell": "0.1.0", "created": "2026-01-31T23:59:59.123Z",
        "machine": {"os": "linux", "arch": "x86_64", "processor": null, "threads": 2},
        "budget": {"trials": 5, "seconds": null},
        "settings": {"space": {"name": "small"}, "seed": 3,
            "strategy": {"name": "evolution", "population": 24, "sample": 6},
            "objective": "accuracy=1,latency=-1",
            "limits": {"max_params": null, "max_macs": null, "max_latency_ms": null},
            "lookahead": 4, "evaluation": {}}}"#;
    std::fs::write(folder.path().join("study.json"), text).unwrap();
    let (_, record) = Folder::open(folder.path()).unwrap();
    assert_eq!(record.budget, Budget { trials: Some(5), ..Budget::default() });
    assert!(!record.settings.objective.is_pareto() && record.settings.warm_start.is_empty());
}

#[test]
fn digests_name_the_settings_that_changed_and_nothing_where_they_are_unknown() {
    let ours = settings().digest();
    let reread: SearchSettings =
        serde_json::from_str(&serde_json::to_string_pretty(&settings()).unwrap()).unwrap();
    assert_eq!(reread.digest(), ours);
    let mut theirs = settings();
    theirs.seed -= 1;
    theirs.warm_start.clear();
    assert_eq!(ours.differences(&theirs.digest()), ["seed", "warm_start"]);
    assert_eq!(ours.differences(&SettingsDigest::default()), [""; 0]);
    assert_eq!(SettingsDigest::default().differences(&ours), [""; 0]);
}
