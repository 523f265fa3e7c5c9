//! All result files of a study.

use super::anytime::{AnytimeFigure, Run, anytime};
use super::canvas::save;
use super::noise::NoiseFigure;
use super::pareto::ParetoFigure;
use super::progress::ProgressFigure;
use super::{Leaderboard, SortKey, trials_frame, write_csv, write_parquet};
use crate::Result;
use crate::search::{Metric, Objective};
use crate::space::{ArchRecord, Architecture, save_records};
use crate::study::{Trial, TrialState};
use std::path::{Path, PathBuf};

/// What [`write_results`] or [`write_plots`] did.
#[derive(Debug, Default)]
pub struct Plots {
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// Plots that were left out, with the reason.
    pub left_out: Vec<String>,
}

/// Writes `leaderboard.csv` and `leaderboard.jsonl` (sorted by the objective), `trials.parquet` (in the order of
/// trials) and the plots into `folder`. The JSON lines hold the architectures of the finished trials, named
/// `trial/N`, with classifiers of `num_classes` classes, as other commands read them.
///
/// # Errors
/// As [`write_plots`].
pub fn write_results(
    trials: &[Trial],
    objective: &Objective,
    num_classes: usize,
    folder: &Path,
) -> Result<Plots> {
    let (csv, parquet) = (folder.join("leaderboard.csv"), folder.join("trials.parquet"));
    let architectures = folder.join("leaderboard.jsonl");
    let leaderboard = Leaderboard::of(trials, SortKey::Objective, objective);
    write_csv(&leaderboard.frame()?, &csv)?;
    let records: Vec<ArchRecord> = leaderboard
        .ranked()
        .iter()
        .map(|trial| ArchRecord {
            id: format!("trial/{}", trial.number),
            split: String::new(),
            num_classes,
            arch: Architecture::Cells(trial.arch.clone()),
        })
        .collect();
    save_records(&architectures, &records)?;
    write_parquet(&trials_frame(trials, objective)?, &parquet)?;
    let mut results = write_plots(trials, objective, folder)?;
    results.written.splice(0..0, [csv, architectures, parquet]);
    Ok(results)
}

/// Plots show scores with predicted weights, which all trials have, and beside them those with trained weights where
/// there are any; fronts are those of predicted weights, the winner is the study's.
///
/// Writes `accuracy-latency`, `best-so-far` and `clean-noisy`, each as PNG and SVG, into `folder`. With several
/// objectives, `hypervolume` takes the place of `best-so-far`, and there is a plot of each two of them.
///
/// # Errors
/// A file cannot be written; earlier ones stay whole.
pub fn write_plots(trials: &[Trial], objective: &Objective, folder: &Path) -> Result<Plots> {
    let winner = Trial::best_of(trials);
    let mut plots = Plots::default();
    let mut add = |name: &str, files: Option<Result<Vec<PathBuf>>>, reason: &str| {
        match files {
            Some(files) => plots.written.extend(files?),
            None => plots.left_out.push(format!("{name}: {reason}")),
        }
        Ok::<(), crate::Error>(())
    };
    let name = "accuracy-latency";
    let figure = ParetoFigure::accuracy_latency(trials, objective, winner);
    let files = figure.map(|figure| save(&figure, &folder.join(name)));
    add(name, files, "no finished candidate has an accuracy and a latency")?;
    if objective.is_pareto() {
        for (y, x) in pairs(objective) {
            let name = format!("{}-{}", y.name(), x.name());
            let figure = ParetoFigure::new(trials, objective, y, x);
            let files = figure.map(|figure| save(&figure, &folder.join(&name)));
            add(&name, files, "no candidate is finished")?;
        }
        let run = Run { group: "candidates so far".into(), name: String::new(), trials: trials.to_vec() };
        let curves = anytime(std::slice::from_ref(&run), objective)?;
        let figure = AnytimeFigure::new(&[run], &curves, objective);
        let is_any = trials.iter().any(|trial| trial.state == TrialState::Finished);
        let files = is_any.then(|| save(&figure, &folder.join("hypervolume")));
        add("hypervolume", files, "no candidate is finished")?;
    } else {
        let name = "best-so-far";
        let figure = ProgressFigure::new(trials, objective, winner);
        let files = figure.map(|figure| save(&figure, &folder.join(name)));
        add(name, files, "no candidate is finished")?;
    }
    let name = "clean-noisy";
    let files = NoiseFigure::new(trials, winner).map(|figure| save(&figure, &folder.join(name)));
    add(name, files, "no finished candidate was scored under noise")?;
    Ok(plots)
}

/// Each two of several objectives, a cost behind a gain, but for accuracy and latency, which have their plot anyway.
fn pairs(objective: &Objective) -> Vec<(Metric, Metric)> {
    let metrics: Vec<Metric> = objective.terms().iter().map(|term| term.0).collect();
    let mut pairs = Vec::new();
    for (i, &a) in metrics.iter().enumerate() {
        for &b in &metrics[i + 1..] {
            pairs.push(if a.is_cost() && !b.is_cost() { (b, a) } else { (a, b) });
        }
    }
    pairs.retain(|&pair| pair != (Metric::Accuracy, Metric::Latency));
    pairs
}
