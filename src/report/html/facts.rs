//! The parts of a page that are plain HTML: head, key figures, settings, drawings of the winners.

use super::ReportedStudy;
use super::escape::text;
use crate::report::Leaderboard;
use crate::report::cells::{cell_svg, in_words};
use crate::study::{Event, Foretold, SearchSettings, Trial, TrialState, utc};
use serde_json::Value;
use std::fmt::Write;

/// Architectures that are drawn.
const DRAWN: usize = 3;

/// The strategy with its settings in words: `evolution (population 24, sample 6)`.
pub(super) fn strategy(settings: &SearchSettings) -> String {
    let value = serde_json::to_value(&settings.strategy).unwrap_or_default();
    let name = value["name"].as_str().unwrap_or("unknown").to_string();
    let parts: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "name")
        .map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value)))
        .collect();
    if parts.is_empty() { name } else { format!("{name} ({})", parts.join(", ")) }
}

/// The command that takes a trial away, with the weights that the search kept of it if it did, with `{trial}` for its
/// number; run in the page's folder.
pub(super) const TAKE_AWAY: &str = "foretell export . --trial {trial} --out trial-{trial}.onnx";

fn setting<'v>(settings: &'v SearchSettings, pointer: &str) -> Option<&'v Value> {
    settings.evaluation.pointer(pointer).filter(|value| !value.is_null())
}

/// A value without the quotes of a string.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<String>>().join(", "),
        value => value.to_string(),
    }
}

/// One sentence: what was searched for, where, how.
pub(super) fn head(study: &ReportedStudy) -> String {
    let settings = &study.record.settings;
    let space = settings.space.get("name").map_or_else(|| "unnamed".into(), plain);
    let images = setting(settings, "/settings/images")
        .map_or_else(String::new, |images| format!(", scored on <b>{}</b>", text(&plain(images))));
    format!(
        "Space <b>{}</b>, objective <b>{}</b>, strategy <b>{}</b>, seed <b>{}</b>{images}.",
        text(&space),
        text(&settings.objective.to_string()),
        text(&strategy(settings)),
        settings.seed
    )
}

/// Search time, why it ended, and the sessions.
struct Course {
    elapsed_s: f64,
    ended: String,
    sessions: Vec<[String; 4]>,
}

fn course(study: &ReportedStudy) -> Course {
    let elapsed_s = study.trials.iter().filter_map(|trial| trial.elapsed_s).fold(0.0, f64::max);
    let ended = "it has not ended, or ended without a word".to_string();
    let mut course = Course { elapsed_s, ended: ended.clone(), sessions: Vec::new() };
    for event in &study.events {
        match event {
            Event::Opened { time_ms, version, workers, .. } => {
                course.ended.clone_from(&ended);
                let opened = [utc(*time_ms), String::new(), version.clone(), workers.to_string()];
                course.sessions.push(opened);
            }
            Event::Stopped { time_ms, elapsed_s, reason, .. } => {
                course.elapsed_s = *elapsed_s;
                course.ended = reason.to_string();
                if let Some(session) = course.sessions.last_mut() {
                    session[1] = utc(*time_ms);
                }
            }
            _ => {}
        }
    }
    course
}

fn count(study: &ReportedStudy, state: TrialState) -> usize {
    study.trials.iter().filter(|trial| trial.state == state).count()
}

/// 95 % interval of a share of `n` images (Wilson, JASA 1927, doi:10.1080/01621459.1927.10502953).
fn wilson(share: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let scale = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

/// The best accuracy, the trials and the speed of the search.
pub(super) fn key_figures(study: &ReportedStudy) -> String {
    let mut html = String::new();
    let mut figure = |label: &str, value: &str, note: &str| {
        // A number and its unit stay on one line.
        let note = note.replace(" %", "\u{a0}%").replace(" ms", "\u{a0}ms").replace(" s ", "\u{a0}s ");
        let _ = writeln!(
            html,
            "<div class=\"figure\"><dt>{label}</dt><dd><span class=\"value\">{value}</span><span \
             class=\"note\">{note}</span></dd></div>"
        );
    };
    let finished = || study.trials.iter().filter(|trial| trial.state == TrialState::Finished);
    let best = finished().filter_map(|trial| Some((trial, trial.best_scores().accuracy?))).max_by(
        |(a, x), (b, y)| a.fidelity().cmp(&b.fidelity()).then(x.total_cmp(y)).then(b.number.cmp(&a.number)),
    );
    match best {
        None => figure("Best accuracy", "–", "no candidate was scored"),
        Some((trial, accuracy)) => {
            let mut note = format!("trial {}", trial.number);
            if trial.fidelity().is_refined() {
                let _ = write!(note, " with weights {}", trial.fidelity());
            }
            if let Some(se) = trial.best_scores().accuracy_se {
                let _ = write!(note, ", standard error {:.2} %", 100.0 * se);
            }
            if let Some(images) = trial.best_scores().images.filter(|&images| images > 0) {
                let (low, high) = wilson(accuracy, images as f64);
                let _ = write!(
                    note,
                    "; 95 % interval {:.1} to {:.1} % ({images} images)",
                    100.0 * low,
                    100.0 * high
                );
            }
            figure("Best accuracy", &format!("{:.2} %", 100.0 * accuracy), &note);
        }
    }
    type Score = fn(&Trial) -> Option<f64>;
    let ranges: [(&str, &str, Score, bool); 2] = [
        ("Best under noise", " %", |trial| trial.best_scores().robustness.map(|share| 100.0 * share), true),
        ("Lowest latency", " ms", |trial| trial.scores.latency_ms, false),
    ];
    for (label, unit, score, gain) in ranges {
        let merit = |value: f64| if gain { value } else { -value };
        let best = finished()
            .filter_map(|trial| Some((trial, score(trial)?)))
            .max_by(|(a, x), (b, y)| merit(*x).total_cmp(&merit(*y)).then(b.number.cmp(&a.number)));
        if let Some((trial, value)) = best {
            let accuracy = trial
                .best_scores()
                .accuracy
                .map_or_else(String::new, |share| format!(", accuracy {:.2} %", 100.0 * share));
            figure(label, &format!("{value:.2}{unit}"), &format!("trial {}{accuracy}", trial.number));
        }
    }
    if let Some(foretold) = Foretold::of(&study.events) {
        let tau = foretold.forecast.tau.map_or_else(|| "–".into(), |[tau, _, _]| format!("tau {tau:.2}"));
        figure("Predictor", &tau, &text(&foretold.to_string()));
    }
    let mut others: Vec<String> = [TrialState::Failed, TrialState::Rejected, TrialState::Running]
        .into_iter()
        .filter(|&state| count(study, state) > 0)
        .map(|state| format!("{} {}", count(study, state), state.name()))
        .collect();
    others.insert(0, format!("{} finished", count(study, TrialState::Finished)));
    figure("Trials", &study.trials.len().to_string(), &others.join(", "));
    let course = course(study);
    let evaluated = study
        .trials
        .iter()
        .filter(|trial| trial.state != TrialState::Running && trial.is_evaluated())
        .count();
    if course.elapsed_s > 0.0 {
        figure(
            "Speed",
            &format!("{:.1} / min", 60.0 * evaluated as f64 / course.elapsed_s),
            &format!("{evaluated} evaluated in {} of search", duration(course.elapsed_s)),
        );
    }
    html
}

/// `95.2 s`, `12.3 min` or `4.5 h`.
pub(in crate::report) fn duration(seconds: f64) -> String {
    match seconds {
        ..600.0 => format!("{seconds:.1} s"),
        600.0..18_000.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Everything that decides the study, its machine, and when it ran.
pub(super) fn settings(study: &ReportedStudy) -> String {
    let record = &study.record;
    let settings = &record.settings;
    let course = course(study);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |key: &str, value: String| rows.push((key.into(), value));
    row("Space", settings.space.get("name").map_or_else(|| "unnamed".into(), plain));
    row("Objective", settings.objective.to_string());
    row("Strategy", strategy(settings));
    if let Some(ladder) = &settings.ladder {
        row("Stages", ladder.to_string());
    }
    let planned = study.events.iter().rev().find_map(|event| match event {
        Event::Staged { ladder, .. } => ladder.as_ref(),
        _ => None,
    });
    if let Some(planned) = planned {
        row("Stages that fitted the time", planned.in_seconds());
    }
    if let Some(predictor) = settings.predictor {
        row("Predictor", format!("picks one of {} proposals, once it can", predictor.proposals));
    }
    if settings.vote {
        row("Vote", "parameters and peak activations vote with the score about who is trained longer".into());
    }
    row("Seed", settings.seed.to_string());
    row("Budget of the first session", worded(&serde_json::to_value(record.budget).unwrap_or_default()));
    row("Limits", worded(&serde_json::to_value(settings.limits).unwrap_or_default()));
    row("Stopped", course.ended.clone());
    row("Search time", duration(course.elapsed_s));
    row("Began", record.created.clone());
    row("foretell", record.foretell.clone());
    let machine = &record.machine;
    let processor = machine.processor.as_deref().unwrap_or("unknown processor");
    row("Machine", format!("{processor}, {} threads, {} {}", machine.threads, machine.os, machine.arch));
    match settings.evaluation.get("settings") {
        Some(Value::Object(evaluation)) => {
            for (key, value) in evaluation {
                let value = if value.is_null() && key == "ghn" { "bundled".into() } else { plain(value) };
                row(&format!("Evaluation: {}", key.replace('_', " ")), value);
            }
        }
        _ => row("Evaluation", settings.evaluation.to_string()),
    }
    if let Some(sum) = settings.evaluation.get("ghn_sha256").and_then(Value::as_str) {
        row("Evaluation: SHA-256 of the ghn", sum.into());
    }
    let mut html = String::from("<table class=\"facts\"><tbody>\n");
    for (key, value) in rows {
        let value = if value.is_empty() { "none".into() } else { value };
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", text(&key), text(&value));
    }
    html += "</tbody></table>\n";
    if !course.sessions.is_empty() {
        html += "<h3>Sessions</h3>\n<div class=\"scroll\"><table class=\"facts\"><thead><tr><th \
                 scope=\"col\">Began (UTC)</th><th scope=\"col\">Ended (UTC)</th><th scope=\"col\">foretell</th>\
                 <th scope=\"col\">Workers</th></tr></thead><tbody>\n";
        for session in course.sessions {
            let cells = session
                .map(|cell| format!("<td>{}</td>", if cell.is_empty() { "–".into() } else { text(&cell) }));
            let _ = writeln!(html, "<tr>{}</tr>", cells.concat());
        }
        html += "</tbody></table></div>\n";
    }
    if let Some(toml) = settings.space.get("toml").and_then(Value::as_str) {
        let _ = writeln!(
            html,
            "<h3>The space</h3>\n<div class=\"scroll\"><pre tabindex=\"0\">{}</pre></div>",
            text(toml.trim_end())
        );
    }
    html
}

/// The values of an object that are set: `seconds 90`.
fn worded(value: &Value) -> String {
    let set = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    set.map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value)))
        .collect::<Vec<String>>()
        .join(", ")
}

/// The cells of the best architectures; one whose cells a better one has is passed over.
pub(super) fn winners(board: &Leaderboard<'_>) -> String {
    let mut drawn: Vec<(usize, &Trial)> = Vec::new();
    for (index, trial) in board.ranked().iter().enumerate() {
        if drawn.len() < DRAWN && drawn.iter().all(|(_, other)| other.arch.genotype != trial.arch.genotype) {
            drawn.push((index + 1, trial));
        }
    }
    if drawn.is_empty() {
        return "<p>No candidate finished, so there is nothing to draw.</p>\n".into();
    }
    let mut html = String::new();
    for (rank, trial) in drawn {
        let genotype = &trial.arch.genotype;
        let scores = trial
            .best_scores()
            .accuracy
            .map_or_else(String::new, |share| format!(", accuracy {:.2} %", 100.0 * share));
        let _ = writeln!(
            html,
            "<article class=\"winner\"><h3>Rank {rank}: trial {}{scores}</h3>\n<p>{} cells, {} channels, stem {}x{} \
             of type {}</p>",
            trial.number,
            trial.arch.n_cells,
            trial.arch.channels,
            trial.arch.stem_kernel,
            trial.arch.stem_kernel,
            trial.arch.stem_type
        );
        for (name, edges, concat) in [
            ("Normal cell", &genotype.normal, &genotype.normal_concat),
            ("Reduction cell", &genotype.reduce, &genotype.reduce_concat),
        ] {
            let title = format!("{name} of trial {}", trial.number);
            let _ = writeln!(
                html,
                "<figure><figcaption>{name}</figcaption><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
                 aria-label=\"{title}\">{}</div><p class=\"words\">{}</p></figure>",
                cell_svg(edges, concat, &title),
                text(&in_words(edges, concat))
            );
        }
        html += "</article>\n";
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        // Known values: 0 of 10 and 5 of 10.
        let (low, high) = wilson(0.0, 10.0);
        assert!(low.abs() < 1e-12 && (high - 0.277_533).abs() < 1e-6, "{low} {high}");
        let (low, high) = wilson(0.5, 10.0);
        assert!((low - 0.236_593).abs() < 1e-6 && (high - 0.763_407).abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!([1.0, 900.0, 36_000.0].map(duration), ["1.0 s", "15.0 min", "10.0 h"].map(String::from));
    }
}
