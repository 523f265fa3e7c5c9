//! Trials as a polars frame, one row a trial. An absent number is null.
//!
//! Accuracies are shares of 1, times end in their unit, and each noise level has the columns
//! `accuracy_noise_<sd>` and `accuracy_noise_<sd>_se`.
//!
//! In a study with several fidelities every score is the one at the highest that its trial reached, which the column
//! `fidelity` names; and `objective@F`, `accuracy@F` and `robustness@F` are those at each fidelity F, `seconds@F` what
//! they took and `elapsed_s@F` when they were known.

use super::pareto::fronts_reached;
use crate::score::{Fidelity, NoiseScore, Scores};
use crate::search::Objective;
use crate::study::{Trial, TrialState, utc};
use crate::{Error, Result};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::collections::BTreeMap;

/// A frame of `trials` in the order given.
///
/// # Errors
/// The frame cannot be built, which would be a bug.
pub fn frame(trials: &[&Trial]) -> Result<DataFrame> {
    let columns = columns(trials)?;
    DataFrame::new(trials.len(), columns).map_err(frame_error)
}

/// A frame of all `trials` in their order; with several objectives a column `front` behind `objective`, 1 for the
/// Pareto front.
///
/// # Errors
/// As [`frame`].
pub fn trials_frame(trials: &[Trial], objective: &Objective) -> Result<DataFrame> {
    let trials_of: Vec<&Trial> = trials.iter().collect();
    let mut frame = frame(&trials_of)?;
    if objective.is_pareto() {
        insert_fronts(&mut frame, &trials_of, &fronts_reached(trials, objective))?;
    }
    Ok(frame)
}

/// Puts the column `front` behind `objective`.
pub(super) fn insert_fronts(
    frame: &mut DataFrame,
    trials: &[&Trial],
    fronts: &BTreeMap<u64, u64>,
) -> Result<()> {
    let place = frame.get_column_index("objective").map_or(0, |at| at + 1);
    let values: Vec<Option<u64>> = trials.iter().map(|trial| fronts.get(&trial.number).copied()).collect();
    frame.insert_column(place, Series::new("front".into(), values).into()).map_err(frame_error)?;
    Ok(())
}

pub(super) fn frame_error(error: polars::prelude::PolarsError) -> Error {
    Error::Config(format!("cannot build the frame of trials: {error}"))
}

/// The noise levels of all trials, ascending.
pub(super) fn noise_levels(trials: &[&Trial]) -> Vec<f64> {
    let mut levels: Vec<f64> =
        trials.iter().flat_map(|trial| &trial.best_scores().noise).map(|score| score.sd).collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    levels
}

/// All fidelities of a study with several, the lowest first; else none.
fn fidelities(trials: &[&Trial]) -> Vec<Fidelity> {
    let refined = trials.iter().flat_map(|trial| &trial.refined).map(|refined| refined.fidelity);
    let mut fidelities: Vec<Fidelity> = refined.collect();
    if !fidelities.is_empty() {
        fidelities.push(Fidelity::Predicted);
    }
    fidelities.sort_unstable();
    fidelities.dedup();
    fidelities
}

fn at_level(trial: &Trial, sd: f64) -> Option<&NoiseScore> {
    trial.best_scores().noise.iter().find(|score| score.sd == sd)
}

fn columns(trials: &[&Trial]) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    macro_rules! column {
        ($name:expr, $type:ty, |$trial:ident| $value:expr) => {{
            let values: Vec<$type> = trials.iter().map(|&$trial| $value).collect();
            let name: &str = $name;
            columns.push(Series::new(name.into(), values).into());
        }};
    }
    column!("trial", u64, |trial| trial.number);
    column!("state", &str, |trial| trial.state.name());
    column!("reason", Option<&str>, |trial| trial.reason.as_deref());
    column!("hash", &str, |trial| trial.hash.as_str());
    column!("objective", Option<f64>, |trial| trial.best_value());
    let fidelities = fidelities(trials);
    if !fidelities.is_empty() {
        column!("fidelity", Option<String>, |trial| (trial.state == TrialState::Finished)
            .then(|| trial.fidelity().to_string()));
    }
    column!("accuracy", Option<f64>, |trial| trial.best_scores().accuracy);
    column!("accuracy_se", Option<f64>, |trial| trial.best_scores().accuracy_se);
    column!("loss", Option<f64>, |trial| trial.best_scores().loss);
    column!("images", Option<u64>, |trial| trial.best_scores().images);
    column!("robustness", Option<f64>, |trial| trial.best_scores().robustness);
    for sd in noise_levels(trials) {
        column!(&format!("accuracy_noise_{sd}"), Option<f64>, |trial| at_level(trial, sd)
            .map(|s| s.accuracy));
        column!(&format!("accuracy_noise_{sd}_se"), Option<f64>, |trial| at_level(trial, sd)
            .map(|s| s.accuracy_se));
    }
    column!("latency_ms", Option<f64>, |trial| trial.best_scores().latency_ms);
    column!("latency_p95_ms", Option<f64>, |trial| trial.best_scores().latency_p95_ms);
    column!("latency_batch", Option<u64>, |trial| trial.best_scores().latency_batch);
    column!("latency_threads", Option<u64>, |trial| trial.best_scores().latency_threads);
    column!("params", Option<u64>, |trial| trial.best_scores().params);
    column!("macs", Option<u64>, |trial| trial.best_scores().macs);
    column!("peak_activations", Option<u64>, |trial| trial.best_scores().peak_activations);
    column!("predict_ms", Option<f64>, |trial| trial.best_scores().predict_ms);
    for &fidelity in &fidelities {
        let score = |trial: &Trial, of: fn(&Scores) -> Option<f64>| of(trial.scores_at(fidelity)?);
        column!(&format!("objective@{fidelity}"), Option<f64>, |trial| trial.value_at(fidelity));
        column!(&format!("accuracy@{fidelity}"), Option<f64>, |trial| score(trial, |s| s.accuracy));
        column!(&format!("accuracy_se@{fidelity}"), Option<f64>, |trial| score(trial, |s| s.accuracy_se));
        column!(&format!("robustness@{fidelity}"), Option<f64>, |trial| score(trial, |s| s.robustness));
        if fidelity.is_refined() {
            column!(&format!("seconds@{fidelity}"), Option<f64>, |trial| trial
                .refinement(fidelity)
                .map(|refined| refined.wall_s));
            column!(&format!("elapsed_s@{fidelity}"), Option<f64>, |trial| trial
                .refinement(fidelity)
                .map(|refined| refined.elapsed_s));
        }
    }
    if !fidelities.is_empty() {
        column!("dropped_by", Option<u64>, |trial| trial.dropped_by);
    }
    let genotypes: std::result::Result<Vec<String>, _> =
        trials.iter().map(|trial| serde_json::to_string(&trial.arch.genotype)).collect();
    let genotypes = genotypes.map_err(|error| Error::Config(format!("cannot encode a genotype: {error}")))?;
    columns.push(Series::new("genotype".into(), genotypes).into());
    column!("C", u64, |trial| trial.arch.channels as u64);
    column!("n_cells", u64, |trial| trial.arch.n_cells as u64);
    column!("C_mult", u64, |trial| trial.arch.channel_multiplier as u64);
    column!("fc_layers", u64, |trial| trial.arch.fc_layers as u64);
    column!("fc_dim", u64, |trial| trial.arch.fc_dim as u64);
    column!("ks", u64, |trial| trial.arch.stem_kernel as u64);
    column!("stem_type", u64, |trial| u64::from(trial.arch.stem_type));
    column!("stem_pool", bool, |trial| trial.arch.stem_pool);
    column!("norm", Option<&str>, |trial| trial.arch.norm.map(|norm| match norm {
        crate::space::Norm::Batch => "bnorm",
        crate::space::Norm::BatchTracked => "bn-track",
    }));
    column!("preproc", bool, |trial| trial.arch.preproc);
    column!("glob_avg", bool, |trial| trial.arch.global_pool);
    column!("is_imagenet_input", bool, |trial| trial.arch.imagenet_input);
    column!("started", String, |trial| utc(trial.started_ms));
    column!("finished", Option<String>, |trial| trial.finished_ms.map(utc));
    column!("wall_s", Option<f64>, |trial| trial.wall_s);
    column!("elapsed_s", Option<f64>, |trial| trial.elapsed_s);
    Ok(columns)
}
