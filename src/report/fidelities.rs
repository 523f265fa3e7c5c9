//! The scores of a study's trials at every fidelity, and how far each can be trusted.

use super::methods::AgreementOptions;
use super::reliability::{FidelityScores, ReliabilityRow, reliability};
use crate::score::Fidelity;
use crate::search::{Metric, Objective};
use crate::study::Trial;
use std::collections::BTreeSet;

/// What finished trials scored at every fidelity of a study, as the merit of an objective of one value.
///
/// A candidate that a race dropped before the last image has an estimate only, which stays out.
pub fn fidelity_scores(trials: &[Trial], objective: &Objective) -> Vec<FidelityScores> {
    let refined = trials.iter().flat_map(|trial| trial.refined.iter().map(|refined| refined.fidelity));
    let fidelities: BTreeSet<Fidelity> = std::iter::once(Fidelity::Predicted).chain(refined).collect();
    let value = |trial: &Trial, fidelity: Fidelity| {
        if fidelity == Fidelity::Predicted && trial.dropped_by.is_some() {
            return None;
        }
        objective.merits(trial.scores_at(fidelity)?).ok()?.first().copied()
    };
    fidelities
        .into_iter()
        .map(|fidelity| FidelityScores {
            name: fidelity.to_string(),
            values: trials.iter().map(|trial| value(trial, fidelity)).collect(),
        })
        .collect()
}

/// The comparisons of a study: of its objective, or of each of several, and of accuracy and robustness where the
/// objective does not hold them alone.
pub fn study_reliability(
    trials: &[Trial],
    objective: &Objective,
    options: AgreementOptions,
) -> Vec<ReliabilityRow> {
    let mut judged: Vec<String> = match objective.is_pareto() {
        true => objective.terms().iter().map(|(metric, _)| metric.name().to_owned()).collect(),
        false => vec![objective.to_string()],
    };
    for metric in [Metric::Accuracy, Metric::Robustness] {
        if !judged.iter().any(|name| name == metric.name()) {
            judged.push(metric.name().to_owned());
        }
    }
    judged
        .iter()
        .filter_map(|name| Some((name, name.parse::<Objective>().ok()?)))
        .flat_map(|(name, objective)| reliability(name, &fidelity_scores(trials, &objective), options))
        .collect()
}
