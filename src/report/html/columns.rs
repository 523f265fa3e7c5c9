//! The leaderboard's frame as columns of JSON, each with its meaning: label, unit and which way is better.
//!
//! Columns that this file does not know are shown under their own names, so that every column of the frame reaches
//! the page.

use crate::search::{Metric, Objective};
use crate::space::{Genotype, Op};
use crate::{Error, Result};
use polars::prelude::{AnyValue, Column, DataFrame};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a column means.
struct Meaning {
    label: String,
    /// Shorter label for the head of a table.
    short: Option<&'static str>,
    unit: &'static str,
    /// Factor from the stored to the shown value.
    factor: f64,
    /// Decimals of the shown value; `None` for counts, which get a prefix.
    digits: Option<u32>,
    /// 1 if more is better, -1 if less is, 0 if neither; of the shown value.
    better: i8,
    role: Role,
    /// Whether a table shows it unless told otherwise.
    shown: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Score,
    Setting,
    About,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Role::Score => "score",
            Role::Setting => "setting",
            Role::About => "about",
        }
    }
}

/// The columns of `frame` with their meanings; the genotype is left to [`genotypes`].
pub(super) fn columns(frame: &DataFrame, objective: &Objective) -> Result<Vec<Value>> {
    let kept = frame.columns().iter().filter(|column| column.name().as_str() != "genotype");
    kept.map(|column| described(column, objective)).collect()
}

fn described(column: &Column, objective: &Objective) -> Result<Value> {
    let name = column.name().as_str();
    let meaning = meaning(name, objective);
    let values = values(column)?;
    let kind = match values.iter().find(|value| !value.is_null()) {
        Some(Value::Bool(_)) => "flag",
        Some(Value::String(_)) => "text",
        // A column without any value counts as numbers.
        _ => "number",
    };
    let mut entry = Map::new();
    entry.insert("name".into(), name.into());
    entry.insert("label".into(), meaning.label.into());
    entry.insert("short".into(), meaning.short.map_or(Value::Null, Value::from));
    entry.insert("unit".into(), meaning.unit.into());
    entry.insert("factor".into(), meaning.factor.into());
    entry.insert("digits".into(), meaning.digits.map_or(Value::Null, Value::from));
    entry.insert("better".into(), meaning.better.into());
    entry.insert("role".into(), meaning.role.name().into());
    entry.insert("shown".into(), meaning.shown.into());
    entry.insert("kind".into(), kind.into());
    entry.insert("values".into(), packed(values));
    Ok(Value::Object(entry))
}

fn meaning(name: &str, objective: &Objective) -> Meaning {
    let score = |label: &str, unit: &'static str, factor: f64, digits: u32, better: i8| Meaning {
        label: label.into(),
        short: None,
        unit,
        factor,
        digits: Some(digits),
        better,
        role: Role::Score,
        shown: false,
    };
    let count = |label: &str, better: i8| Meaning { digits: None, ..score(label, "", 1.0, 0, better) };
    let setting = |label: &str| Meaning { role: Role::Setting, ..score(label, "", 1.0, 0, 0) };
    let about = |label: &str| Meaning { role: Role::About, ..score(label, "", 1.0, 0, 0) };
    let shown = |meaning: Meaning| Meaning { shown: true, ..meaning };
    let short = |short: &'static str, meaning: Meaning| Meaning { short: Some(short), ..meaning };
    if let Some(level) = name.strip_prefix("accuracy_noise_") {
        return match level.strip_suffix("_se") {
            Some(level) => about_share(&format!("Standard error at noise sd {level}")),
            None => score(&format!("Accuracy at noise sd {level}"), "%", 100.0, 2, 1),
        };
    }
    if let Some((name, fidelity)) = name.split_once('@') {
        let of_all = match name {
            "seconds" => Meaning { unit: "s", digits: Some(1), ..about("Evaluation time") },
            "accuracy_se" => about_share("Standard error of the accuracy"),
            name => meaning(name, objective),
        };
        let label = format!("{} ({fidelity})", of_all.label);
        return Meaning { label, short: None, shown: false, ..of_all };
    }
    match name {
        "fidelity" => shown(short("Weights", about("Weights of the scores"))),
        "dropped_by" => about("Dropped against trial"),
        "rank" => shown(Meaning { better: -1, ..about("Rank") }),
        "trial" => shown(Meaning { better: -1, ..about("Trial") }),
        "state" => shown(about("State")),
        "reason" => about("Reason"),
        "hash" => about("Hash"),
        "front" => shown(Meaning { better: -1, ..about("Pareto front") }),
        "objective" => of_objective(objective),
        "accuracy" => shown(score("Accuracy", "%", 100.0, 2, 1)),
        "accuracy_se" => about_share("Standard error of the accuracy"),
        "loss" => score("Cross entropy", "nats", 1.0, 4, -1),
        "images" => about("Images scored on"),
        "robustness" => shown(short("Under noise", score("Accuracy under noise", "%", 100.0, 2, 1))),
        "latency_ms" => shown(score("Latency", "ms", 1.0, 2, -1)),
        "latency_p95_ms" => score("Latency, 95th percentile", "ms", 1.0, 2, -1),
        "latency_batch" => about("Images of a timed pass"),
        "latency_threads" => about("Threads of a timed pass"),
        "params" => shown(count("Parameters", -1)),
        "macs" => shown(short("MACs", count("Multiply-accumulates", -1))),
        "peak_activations" => count("Peak activations", -1),
        "predict_ms" => score("Time to predict the weights", "ms", 1.0, 1, -1),
        "C" => shown(setting("Channels")),
        "n_cells" => shown(setting("Cells")),
        "C_mult" => setting("Channel multiplier"),
        "fc_layers" => setting("Linear layers"),
        "fc_dim" => setting("Hidden width"),
        "ks" => setting("Stem kernel"),
        "stem_type" => setting("Stem type"),
        "stem_pool" => setting("Stem pooling"),
        "norm" => setting("Normalisation"),
        "preproc" => short("Preproc", setting("Preprocessing")),
        "glob_avg" => setting("Global pooling"),
        "is_imagenet_input" => setting("ImageNet input"),
        "started" => about("Started (UTC)"),
        "finished" => about("Finished (UTC)"),
        "wall_s" => Meaning { unit: "s", digits: Some(2), ..about("Evaluation time") },
        "elapsed_s" => Meaning { unit: "s", digits: Some(1), ..about("Search time at its end") },
        other => Meaning { better: 0, digits: Some(4), ..score(&other.replace('_', " "), "", 1.0, 4, 0) },
    }
}

fn about_share(label: &str) -> Meaning {
    Meaning {
        label: label.into(),
        short: None,
        unit: "%",
        factor: 100.0,
        digits: Some(2),
        better: 0,
        role: Role::About,
        shown: false,
    }
}

/// A lone score is shown in its own unit, a sum as it is.
fn of_objective(objective: &Objective) -> Meaning {
    let meaning = |label: String, unit: &'static str, factor: f64, digits: u32, shown: bool| Meaning {
        label,
        short: Some("Objective"),
        unit,
        factor,
        digits: Some(digits),
        better: if factor < 0.0 { -1 } else { 1 },
        role: Role::Score,
        shown,
    };
    match objective.terms() {
        [(metric, weight)] if weight.abs() == 1.0 => {
            let (unit, factor, digits) = match metric {
                Metric::Accuracy | Metric::Robustness => ("%", 100.0, 2),
                Metric::Latency => ("ms", -1.0, 2),
                Metric::Params | Metric::Macs => ("millions", -1.0, 3),
                Metric::Loss => ("nats", -1.0, 4),
            };
            // The score has a column of its own.
            meaning(format!("Objective: {}", metric.name()), unit, factor, digits, false)
        }
        _ => meaning(format!("Objective: {objective}"), "", 1.0, 4, true),
    }
}

/// The column of what is searched for: a lone score's own, the first of several objectives', or the sum.
pub(super) fn target(objective: &Objective) -> &'static str {
    // Weights are written for sums only.
    let is_sum = objective.to_string().contains('=');
    match objective.terms().first() {
        Some((metric, _)) if !is_sum => match metric {
            Metric::Latency => "latency_ms",
            other => other.name(),
        },
        _ => "objective",
    }
}

fn values(column: &Column) -> Result<Vec<Value>> {
    (0..column.len())
        .map(|row| {
            let value = column.get(row).map_err(super::super::frame::frame_error)?;
            Ok(match value {
                AnyValue::Null => Value::Null,
                AnyValue::Boolean(flag) => flag.into(),
                AnyValue::String(text) => text.into(),
                AnyValue::StringOwned(text) => text.as_str().into(),
                AnyValue::UInt32(count) => count.into(),
                AnyValue::UInt64(count) => count.into(),
                AnyValue::Int32(count) => count.into(),
                AnyValue::Int64(count) => count.into(),
                AnyValue::Float32(number) => f64::from(number).into(),
                AnyValue::Float64(number) => number.into(),
                other => other.to_string().into(),
            })
        })
        .collect()
}

/// A column as its one value, as codes into its few values, or as it is.
fn packed(values: Vec<Value>) -> Value {
    if values.len() > 1 && values.iter().all(|value| *value == values[0]) {
        return json!({ "same": values[0] });
    }
    if values.iter().any(Value::is_string) {
        let mut codes: BTreeMap<String, usize> = BTreeMap::new();
        let mut distinct: Vec<&Value> = Vec::new();
        let at: Vec<usize> = values
            .iter()
            .map(|value| {
                *codes.entry(value.to_string()).or_insert_with(|| {
                    distinct.push(value);
                    distinct.len() - 1
                })
            })
            .collect();
        if 2 * distinct.len() <= values.len() {
            return json!({ "of": distinct, "at": at });
        }
    }
    Value::Array(values)
}

/// The genotypes of a frame: for each row the edges of the normal cell as operation and input in turns, its
/// concatenation, then the same of the reduction cell; operations are positions in [`operations`].
///
/// # Errors
/// The frame has no genotypes, which would be a bug.
pub(super) fn genotypes(frame: &DataFrame) -> Result<Value> {
    let column = frame.column("genotype").map_err(super::super::frame::frame_error)?;
    let coded = |text: Value| -> Result<Value> {
        let text = text.as_str().unwrap_or_default();
        let genotype: Genotype = serde_json::from_str(text)
            .map_err(|error| Error::Config(format!("cannot read a genotype of the frame: {error}")))?;
        let edges = |cell: &[crate::space::Edge]| -> Vec<usize> {
            cell.iter().flat_map(|edge| [edge.0 as usize, edge.1]).collect()
        };
        Ok(json!([
            edges(&genotype.normal),
            genotype.normal_concat,
            edges(&genotype.reduce),
            genotype.reduce_concat
        ]))
    };
    values(column)?.into_iter().map(coded).collect::<Result<Vec<Value>>>().map(Value::Array)
}

/// The names of all operations in their order.
pub(super) fn operations() -> Vec<&'static str> {
    Op::ALL.map(Op::name).to_vec()
}
