//! A study as one HTML page that needs nothing else: no network, no other file.
//!
//! In: what `study.json` and the journal hold, and perhaps a second study as control. Out: the page as text, the
//! same for the same study, whenever it is written. The facts at the top and the drawings of cells are plain HTML
//! and SVG; the tables and charts are made by the page's own script (the `.js` files beside this one) from data that
//! the page holds once, as JSON. The page's policy forbids every outside resource and every other script.

mod columns;
mod escape;
mod expected;
mod facts;
mod reliability;

pub(super) use facts::duration;

use super::cells::cell_style;
use super::{Leaderboard, SortKey};
use crate::files::write_atomically;
use crate::study::{Event, Folder, SearchSettings, Study, StudyRecord, Trial, TrialState};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("report.css");
/// In the order in which they build on each other.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("study.js"),
    include_str!("chart.js"),
    include_str!("table.js"),
    include_str!("scatter.js"),
    include_str!("anytime.js"),
    include_str!("parallel.js"),
    include_str!("page.js"),
    "})();\n"
);

/// A study as a page needs it.
#[derive(Clone, Debug)]
pub struct ReportedStudy {
    /// What it is called, such as the name of its folder.
    pub name: String,
    /// What was asked.
    pub record: StudyRecord,
    /// What happened.
    pub events: Vec<Event>,
    /// What it adds up to.
    pub trials: Vec<Trial>,
}

impl ReportedStudy {
    /// The study in a run folder, also while its search goes on.
    ///
    /// # Errors
    /// There is no study, or it cannot be read.
    pub fn open(run: &Path) -> Result<ReportedStudy> {
        let (folder, record) = Folder::open(run)?;
        let events = folder.events()?;
        let trials = Study::trials_of(&events, &folder.journal_path())?;
        let whole = run.canonicalize().map_err(Error::io("find", run))?;
        let name =
            whole.file_name().map_or_else(|| "study".into(), |name| name.to_string_lossy().into_owned());
        Ok(ReportedStudy { name, record, events, trials })
    }
}

/// The settings of `control` that keep it from being a control for `study`; strategies and seeds may differ.
pub fn obstacles_to_control(study: &SearchSettings, control: &SearchSettings) -> Vec<String> {
    let mut differences = study.differences(control);
    let free = ["strategy", "seed", "lookahead", "warm_start"];
    differences.retain(|text| {
        let key = text.split([':', '.']).next().unwrap_or_default();
        !free.contains(&key)
    });
    differences
}

/// Writes the page of a study; `control` is compared with it in the anytime chart.
///
/// # Errors
/// The file cannot be written; an earlier one is then unchanged.
pub fn write_report(study: &ReportedStudy, control: Option<&ReportedStudy>, path: &Path) -> Result<()> {
    write_atomically(path, report_page(study, control)?.as_bytes())
}

/// The page of a study as text; `control` is compared with it in the anytime chart.
///
/// # Errors
/// A value cannot be encoded, which would be a bug.
pub fn report_page(study: &ReportedStudy, control: Option<&ReportedStudy>) -> Result<String> {
    let style = format!("{}{STYLE}", cell_style());
    let board = Leaderboard::of(&study.trials, SortKey::Objective, &study.record.settings.objective);
    let data = escape::json(&data(study, control, &board)?)?;
    let title = escape::text(&study.name);
    let head = facts::head(study);
    let figures = facts::key_figures(study);
    let reliability = reliability::section(study);
    let settings = facts::settings(study);
    let cells = facts::winners(&board);
    let hash = escape::script_hash(SCRIPT);
    escape::filled(
        TEMPLATE,
        &[
            ("title", &title),
            ("script-hash", &hash),
            ("style", &style),
            ("head", &head),
            ("figures", &figures),
            ("reliability", &reliability),
            ("settings", &settings),
            ("cells", &cells),
            ("version", &escape::text(&study.record.foretell)),
            ("data", &data),
            ("script", SCRIPT),
        ],
    )
}

fn data(study: &ReportedStudy, control: Option<&ReportedStudy>, board: &Leaderboard<'_>) -> Result<Value> {
    let frame = board.frame()?;
    let objective = &study.record.settings.objective;
    let columns = columns::columns(&frame, objective)?;
    let control = match control {
        None => Value::Null,
        Some(control) => {
            let frame = super::frame(&control.trials.iter().collect::<Vec<&Trial>>())?;
            let columns = columns::columns(&frame, objective)?;
            json!({
                "name": control.name,
                "strategy": facts::strategy(&control.record.settings),
                "best": best_so_far(&columns, &control.trials),
                "random": random_part(&columns, control),
            })
        }
    };
    Ok(json!({
        "study": study.name,
        "objective": objective.to_string(),
        "target": columns::target(objective),
        "strategy": facts::strategy(&study.record.settings),
        "take": facts::TAKE_AWAY,
        "rows": frame.height(),
        "operations": columns::operations(),
        "genotypes": columns::genotypes(&frame)?,
        "random": random_part(&columns, study),
        "control": control,
        "columns": columns,
    }))
}

/// A column's value in a row, and 1 or -1: what makes larger values better.
fn merit(column: &Value) -> Option<(&str, f64)> {
    let sign = column["better"].as_f64()? * column["factor"].as_f64()?.signum();
    (column["role"] == "score" && sign != 0.0).then_some((column["name"].as_str()?, sign))
}

/// The numbers of a packed column by trial, in the order of trials.
fn by_trial(columns: &[Value], column: &Value, trials: usize) -> Vec<Option<f64>> {
    let at = |values: &Value, row: usize| values.get("same").unwrap_or(&values[row]).as_f64();
    let numbers = columns.iter().find(|column| column["name"] == "trial");
    let mut sorted = vec![None; trials];
    for row in 0..trials {
        let trial = numbers.and_then(|numbers| at(&numbers["values"], row));
        if let Some(place) = trial.and_then(|trial| sorted.get_mut(trial as usize)) {
            *place = at(&column["values"], row);
        }
    }
    sorted
}

/// The expected best of random draws for each score, from the study's random trials.
fn random_part(columns: &[Value], study: &ReportedStudy) -> Value {
    let mut random = expected::random_trials(&study.record.settings, &study.trials);
    let screened = screened_from(&study.events);
    random.retain(|trial| trial.number < screened);
    let mut curves = Map::new();
    for column in columns {
        let Some((name, sign)) = merit(column) else { continue };
        let values = by_trial(columns, column, study.trials.len());
        let drawn: Vec<f64> =
            random.iter().filter_map(|trial| Some(sign * values[trial.number as usize]?)).collect();
        // A score that only some trials have says nothing of the draws.
        if drawn.len() == random.len() && drawn.len() > 1 {
            let mut curve = expected::expected_best(&drawn);
            curve.iter_mut().for_each(|point| point.1 *= sign);
            curves.insert(name.into(), expected::as_json(&curve));
        }
    }
    json!({ "trials": random.len(), "expected": curves })
}

/// The first trial that a predictor may have picked.
fn screened_from(events: &[Event]) -> u64 {
    let mut trials = 0;
    for event in events {
        match event {
            Event::Started { trial, .. } => trials = trials.max(trial + 1),
            Event::Staged { forecast: Some(forecast), .. } if forecast.proposes => return trials,
            _ => {}
        }
    }
    u64::MAX
}

/// For each score the steps of the best so far: scored candidates, search time and value.
fn best_so_far(columns: &[Value], trials: &[Trial]) -> Value {
    let mut curves = Map::new();
    for column in columns {
        let Some((name, sign)) = merit(column) else { continue };
        let values = by_trial(columns, column, trials.len());
        let mut steps: Vec<(usize, f64, f64)> = Vec::new();
        let mut scored = 0;
        let mut last = None;
        for trial in trials.iter().filter(|trial| trial.state == TrialState::Finished) {
            scored += 1;
            let (Some(value), Some(elapsed_s)) = (values[trial.number as usize], trial.elapsed_s) else {
                continue;
            };
            if steps.last().is_none_or(|best| sign * value > sign * best.2) {
                steps.push((scored, elapsed_s, value));
            }
            last = Some((scored, elapsed_s));
        }
        if let (Some((n, elapsed_s)), Some(&best)) = (last, steps.last()) {
            steps.push((n, elapsed_s, best.2));
            let part = |pick: fn(&(usize, f64, f64)) -> f64| steps.iter().map(pick).collect::<Vec<f64>>();
            let curve =
                json!({ "n": part(|s| s.0 as f64), "elapsed_s": part(|s| s.1), "value": part(|s| s.2) });
            curves.insert(name.into(), curve);
        }
    }
    Value::Object(curves)
}

#[cfg(test)]
mod tests;
