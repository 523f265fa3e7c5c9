//! Ways to rank the architectures of a truth set, each with its scores and its cost.
//!
//! In: the truth, cheap scores. Out: [`Method`]s, to be compared with the truth.

use super::cheap::{CheapRow, IMAGE_SCORES, SIZES};
use super::ladder::Stages;
use super::set::TruthSet;
use crate::score::vote;
use std::collections::BTreeSet;

/// What a ranking is measured against: each architecture's means over its trainings.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Names of the trained architectures.
    pub ids: Vec<String>,
    /// Accuracy on clean test images.
    pub clean: Vec<Option<f64>>,
    /// Accuracy on noisy test images.
    pub noisy: Vec<Option<f64>>,
    /// Time of one training of each, s.
    pub seconds: f64,
    /// Multiply-accumulates of one training of each.
    pub macs: f64,
}

/// A way to rank, with a score for each architecture of a [`Truth`].
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// What kind it is, in one word, for tables.
    pub kind: &'static str,
    /// Scores, higher is better.
    pub scores: Vec<Option<f64>>,
    /// Time for all architectures, s.
    pub seconds: f64,
    /// Multiply-accumulates for all architectures.
    pub macs: f64,
}

impl Method {
    /// The way of scoring, without the name of the score: `sgd:50` of `sgd:50 accuracy`.
    pub fn way(&self) -> &str {
        let scores = IMAGE_SCORES.iter().rev().chain(&["training loss"]);
        let mut ways = scores.filter_map(|score| self.name.strip_suffix(score)?.strip_suffix(' '));
        ways.next().unwrap_or(&self.name)
    }
}

impl Truth {
    /// Of the trained architectures of `set`, with the noise level `noise`.
    pub fn of(set: &TruthSet, noise: f64, images_of_a_training: u64) -> Truth {
        let mut truth =
            Truth { ids: Vec::new(), clean: Vec::new(), noisy: Vec::new(), seconds: 0.0, macs: 0.0 };
        for record in set.architectures() {
            let rows: Vec<_> = set.rows().iter().filter(|row| row.id == record.id).collect();
            let Some(first) = rows.first() else { continue };
            let mean = |level: f64| {
                let values: Vec<f64> = rows.iter().filter_map(|row| row.accuracy_at(level)).collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            truth.ids.push(record.id.clone());
            truth.clean.push(mean(0.0));
            truth.noisy.push(mean(noise));
            truth.seconds += rows.iter().map(|row| row.train_s).sum::<f64>() / rows.len() as f64;
            truth.macs += 3.0 * first.scores.macs.unwrap_or(0) as f64 * images_of_a_training as f64;
        }
        truth
    }
}

/// Every score of every way as a method, in the order of their names' costs.
pub fn single_methods(truth: &Truth, rows: &[CheapRow]) -> Vec<Method> {
    let rows = in_order(truth, rows);
    let ways: BTreeSet<(&str, &str)> = rows
        .iter()
        .flatten()
        .flat_map(|row| {
            row.ways.iter().flat_map(|(way, measured)| {
                measured.scores.keys().map(move |score| (way.as_str(), score.as_str()))
            })
        })
        .collect();
    let mut methods: Vec<Method> = ways
        .into_iter()
        .map(|(way, score)| {
            let measured = || rows.iter().map(|row| row.and_then(|row| row.ways.get(way)));
            Method {
                name: if way == score { way.to_owned() } else { format!("{way} {score}") },
                kind: kind_of(way),
                scores: measured().map(|m| m.and_then(|m| m.scores.get(score)).copied()).collect(),
                seconds: measured().flatten().map(|m| m.seconds).sum(),
                macs: measured().flatten().map(|m| m.macs).sum(),
            }
        })
        .collect();
    methods.sort_by(|a, b| a.macs.total_cmp(&b.macs).then_with(|| a.name.cmp(&b.name)));
    methods
}

fn kind_of(way: &str) -> &'static str {
    match way.split(':').next() {
        Some(way) if SIZES.contains(&way) => "size",
        Some("predicted") => "GHN-2",
        Some("sgd") => "SGD from GHN-2",
        Some("he") => "SGD from He",
        _ => "zero-cost",
    }
}

/// The rows of the truth's architectures.
fn in_order<'a>(truth: &Truth, rows: &'a [CheapRow]) -> Vec<Option<&'a CheapRow>> {
    truth.ids.iter().map(|id| rows.iter().find(|row| row.id == *id)).collect()
}

/// The stages as methods, by accuracy and by noisy accuracy, each alone and in a vote with [`VOTERS`]; none if a score
/// is missing.
pub fn staged_methods(truth: &Truth, rows: &[CheapRow], stages: &Stages) -> Vec<Method> {
    let Some(rows) =
        in_order(truth, rows).into_iter().map(Option::<&CheapRow>::cloned).collect::<Option<Vec<_>>>()
    else {
        return Vec::new();
    };
    let method = |(voters, score): (&[&str], &str)| {
        let staged = stages.run(&rows, score, voters)?;
        let (name, kind) = match voters {
            [] => (format!("{stages} {score}"), "staged"),
            _ => (format!("{stages} {}", voted(score)), "staged vote"),
        };
        Some(Method { name, kind, scores: staged.order, seconds: staged.seconds, macs: staged.macs })
    };
    let scores = ["accuracy", "noisy accuracy"];
    [&[][..], &VOTERS].into_iter().flat_map(|voters| scores.map(|s| (voters, s))).filter_map(method).collect()
}

/// Sizes that vote with a score about the order of architectures: every score misjudges large networks, which learn
/// slowly and win in the end.
pub const VOTERS: [&str; 2] = ["params", "peak activations"];

fn voted(score: &str) -> String {
    format!("{score} + {}", VOTERS.join(" + "))
}

/// What several methods say together ([`vote`]): the mean of the ranks that they give. Each counts as run, those of the
/// same way once. Where one gives no score, neither does the vote.
///
/// # Panics
/// If no method is given.
pub fn vote_of(methods: &[&Method], kind: &'static str) -> Method {
    let architectures = methods[0].scores.len();
    let known: Vec<usize> =
        (0..architectures).filter(|&i| methods.iter().all(|method| method.scores[i].is_some())).collect();
    let voters: Vec<Vec<Option<f64>>> =
        methods.iter().map(|method| known.iter().map(|&i| method.scores[i]).collect()).collect();
    let mut scores = vec![None; architectures];
    known.iter().zip(vote(&voters)).for_each(|(&i, mean)| scores[i] = Some(mean));
    let names: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
    let [seconds, macs] = cost_of(methods);
    Method { name: names.join(" + "), kind, scores, seconds, macs }
}

/// Seconds and multiply-accumulates of methods, of which those of the same way are run once.
pub(super) fn cost_of(methods: &[&Method]) -> [f64; 2] {
    let mut run: Vec<&Method> = Vec::new();
    for &method in methods {
        let is_same = |other: &&Method| {
            other.way() == method.way() && (other.macs, other.seconds) == (method.macs, method.seconds)
        };
        if !run.iter().any(is_same) {
            run.push(method);
        }
    }
    [run.iter().map(|method| method.seconds).sum(), run.iter().map(|method| method.macs).sum()]
}

/// The validation accuracy after each whole epoch of the full training but the last.
pub fn epoch_methods(truth: &Truth, set: &TruthSet) -> Vec<Method> {
    let epochs = set.config().training.epochs;
    let after = |epoch: u64| {
        let of = |id: &String| {
            let row = set.rows().iter().find(|row| row.id == *id)?;
            row.curve.iter().find(|point| point.epoch == epoch).map(|point| point.accuracy)
        };
        let share = epoch as f64 / epochs as f64;
        Method {
            name: format!("epoch {epoch} of the full training"),
            kind: "full training",
            scores: truth.ids.iter().map(of).collect(),
            seconds: share * truth.seconds,
            macs: share * truth.macs,
        }
    };
    (1..epochs).map(after).collect()
}

/// With several trainings of each architecture: the first training as a score. Against the mean of the others it shows
/// how far the truth itself can be repeated.
pub fn repeated(set: &TruthSet, truth: &Truth, noise: f64) -> Option<(Truth, [Method; 2])> {
    if set.config().trainings < 2 {
        return None;
    }
    let first = set.config().training.seed;
    let rest = |id: &String, level: f64| {
        let rows = set.rows().iter().filter(|row| row.id == *id && row.seed != first);
        let values: Vec<f64> = rows.filter_map(|row| row.accuracy_at(level)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let own = |id: &String, level: f64| {
        set.rows().iter().find(|row| row.id == *id && row.seed == first)?.accuracy_at(level)
    };
    let column = |of: &dyn Fn(&String) -> Option<f64>| truth.ids.iter().map(of).collect::<Vec<_>>();
    let others =
        Truth { clean: column(&|id| rest(id, 0.0)), noisy: column(&|id| rest(id, noise)), ..truth.clone() };
    let method = |name: &str, level: f64| Method {
        name: format!("full training, another seed, {name}"),
        kind: "full training",
        scores: column(&|id| own(id, level)),
        seconds: truth.seconds,
        macs: truth.macs,
    };
    Some((others, [method("accuracy", 0.0), method("noisy accuracy", noise)]))
}
