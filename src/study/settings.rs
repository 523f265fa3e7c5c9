//! What a study was asked to do, as `study.json` holds it.

use crate::search::{Budget, Ladder, Limits, Objective, StrategySettings};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that decides which trials a search makes. A resumed study must have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    /// The space, with all its settings.
    pub space: Value,
    /// Seed of everything random.
    pub seed: u64,
    /// Strategy and its settings.
    pub strategy: StrategySettings,
    /// What is maximised.
    pub objective: Objective,
    /// Limits on candidates.
    pub limits: Limits,
    /// A trial is chosen when all but the latest `lookahead - 1` outcomes are known, however many workers there
    /// are; so at most this many can work at once.
    pub lookahead: u64,
    /// Settings of the evaluation.
    pub evaluation: Value,
    /// Architectures that are the first trials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm_start: Vec<CellArchitecture>,
    /// The stages of a search with several fidelities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Ladder>,
    /// The predictor of such a search; none is a search without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictor: Option<PredictorSettings>,
    /// Whether parameters and peak activations vote about who is trained, beside the score.
    #[serde(default, skip_serializing_if = "is_false")]
    pub vote: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How a predictor takes part in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictorSettings {
    /// Proposals of the strategy of which it picks one.
    pub proposals: usize,
}

/// Digests of settings by their names, so that a later change is noticed and can be named: the first 8 bytes of
/// SHA-256 over the JSON text, in hexadecimal. Empty if they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingsDigest(BTreeMap<String, String>);

impl SettingsDigest {
    /// Whether nothing is known of the settings.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of settings that differ; none if either side is not known.
    pub fn differences<'a>(&'a self, other: &'a SettingsDigest) -> Vec<&'a str> {
        if self.is_empty() || other.is_empty() {
            return Vec::new();
        }
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|&name| self.0.get(name) != other.0.get(name)).map(String::as_str).collect()
    }
}

impl SearchSettings {
    /// The settings that differ between two searches, as `key: ours, not theirs`.
    pub fn differences(&self, other: &SearchSettings) -> Vec<String> {
        let (ours, theirs) = (self.flat(), other.flat());
        let keys: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let absent = Value::Null;
        keys.into_iter()
            .filter_map(|key| {
                let (our, their) = (ours.get(key).unwrap_or(&absent), theirs.get(key).unwrap_or(&absent));
                (our != their).then(|| format!("{key}: {}, not {}", shown(our), shown(their)))
            })
            .collect()
    }

    /// Digests of all settings.
    pub fn digest(&self) -> SettingsDigest {
        let Ok(Value::Object(settings)) = serde_json::to_value(self) else {
            return SettingsDigest::default();
        };
        let digest = |value: &Value| {
            let sum = Sha256::digest(value.to_string());
            sum[..8].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        SettingsDigest(settings.iter().map(|(name, value)| (name.clone(), digest(value))).collect())
    }

    fn flat(&self) -> BTreeMap<String, Value> {
        let mut flat = BTreeMap::new();
        // Plain data with string keys always encodes; should it not, all settings compare as absent and equal
        // settings stay equal.
        flatten("", serde_json::to_value(self).unwrap_or_default(), &mut flat);
        flat
    }
}

/// A value for messages; long ones, such as the text of a space, are cut.
fn shown(value: &Value) -> String {
    let text = if value.is_null() { "none".into() } else { value.to_string() };
    if text.chars().count() <= 60 { text } else { text.chars().take(57).collect::<String>() + "..." }
}

fn flatten(prefix: &str, value: Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&key, value, flat);
            }
        }
        Value::Null => {}
        value => {
            flat.insert(prefix.to_string(), value);
        }
    }
}

/// The machine that a study began on; times depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Processor model, where the system tells it.
    pub processor: Option<String>,
    /// Threads that the process may run at once.
    pub threads: usize,
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_string())
        });
        Machine {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            processor,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The content of `study.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRecord {
    /// Version of this file's format.
    pub version: u32,
    /// Version of the program that began the study.
    pub foretell: String,
    /// When it began, UTC.
    pub created: String,
    /// Where it began.
    pub machine: Machine,
    /// What it may spend, unless a resume says otherwise.
    pub budget: Budget,
    /// What it does.
    pub settings: SearchSettings,
}

impl StudyRecord {
    /// Version of the format that this program writes. It also reads version 1, which knew neither several
    /// objectives nor a warm start, and version 2, which knew one fidelity.
    pub const VERSION: u32 = 3;

    /// The record of a study that begins now, here.
    pub fn new(settings: SearchSettings, budget: Budget) -> StudyRecord {
        StudyRecord {
            version: StudyRecord::VERSION,
            foretell: env!("CARGO_PKG_VERSION").into(),
            created: super::utc(super::now_ms()),
            machine: Machine::here(),
            budget,
            settings,
        }
    }

    /// Reads the text of `study.json`; `path` is for messages.
    ///
    /// # Errors
    /// Not JSON, another version, or keys that are missing or unknown.
    pub fn parse(path: &Path, text: &str) -> Result<StudyRecord> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Error::format(path, error.to_string()))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if (1..=u64::from(StudyRecord::VERSION)).contains(&version) => {}
            Some(version) => {
                return Err(Error::format(
                    path,
                    format!("study version {version}; this foretell reads 1 to {}", StudyRecord::VERSION),
                ));
            }
            None => return Err(Error::format(path, "not a study of foretell: there is no \"version\"")),
        }
        serde_json::from_value(value).map_err(|error| Error::format(path, error.to_string()))
    }

    /// The text of `study.json`.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|error| Error::Config(format!("cannot encode the study: {error}")))? + "\n")
    }
}
