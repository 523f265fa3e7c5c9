//! One score against another, with the Pareto front.

use super::canvas::{
    Axis, BLUE, Canvas, Drawn, Figure, GREY, Mark, ORANGE, PURPLE, RED_STAR, crowd, opacity,
};
use super::measure::Measure;
use crate::score::{Fidelity, Scores};
use crate::search::{self, Metric, Objective};
use crate::study::{Trial, TrialState};
use plotters::prelude::{Color, DrawingBackend};
use std::collections::BTreeMap;

/// The number of the front of every finished trial by the trial's number, from 1: trials of front 1, the Pareto
/// front, are dominated by nobody, those of front 2 only by front 1, and so on. Nothing if there is one objective.
pub fn fronts(trials: &[Trial], objective: &Objective) -> BTreeMap<u64, u64> {
    if !objective.is_pareto() {
        return BTreeMap::new();
    }
    let finished = trials.iter().filter(|trial| trial.state == TrialState::Finished);
    let merits: Vec<(u64, Vec<f64>)> =
        finished.filter_map(|trial| Some((trial.number, objective.merits(&trial.scores).ok()?))).collect();
    let slices: Vec<&[f64]> = merits.iter().map(|(_, merits)| merits.as_slice()).collect();
    let numbers = merits.iter().map(|(number, _)| *number);
    numbers.zip(search::fronts(&slices).into_iter().map(|front| front as u64 + 1)).collect()
}

/// As [`fronts`], by the scores at the highest fidelity that each trial reached, and among the trials that reached the
/// same.
pub(super) fn fronts_reached(trials: &[Trial], objective: &Objective) -> BTreeMap<u64, u64> {
    let mut groups: BTreeMap<Fidelity, Vec<Trial>> = BTreeMap::new();
    for trial in trials {
        let scores = trial.best_scores().clone();
        groups.entry(trial.fidelity()).or_default().push(Trial { scores, ..trial.clone() });
    }
    groups.values().flat_map(|group| fronts(group, objective)).collect()
}

/// The trials whose accuracy no trial with at most their latency reaches.
///
/// Only finished trials with both scores take part; among equals the first stands for all. In the order of
/// latency.
pub fn pareto_front(trials: &[Trial]) -> Vec<&Trial> {
    let scored = |trial: &&Trial| trial.state == TrialState::Finished;
    let mut candidates: Vec<(f64, f64, &Trial)> = trials
        .iter()
        .filter(scored)
        .filter_map(|trial| Some((trial.scores.latency_ms?, trial.scores.accuracy?, trial)))
        .collect();
    candidates
        .sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.number.cmp(&b.2.number)));
    let mut best = f64::NEG_INFINITY;
    candidates.retain(|candidate| {
        let better = candidate.1 > best;
        best = best.max(candidate.1);
        better
    });
    candidates.into_iter().map(|(_, _, trial)| trial).collect()
}

#[derive(Clone, Copy)]
struct Point {
    trial: u64,
    x: f64,
    y: f64,
    /// Standard error of y.
    se: Option<f64>,
}

/// Two scores of all candidates.
pub(super) struct ParetoFigure {
    x: (Metric, Measure),
    y: (Metric, Measure),
    finished: Vec<Point>,
    /// Finished trials by their scores with trained weights.
    trained: Vec<Point>,
    over_limit: Vec<Point>,
    /// In the order of x.
    front: Vec<Point>,
    /// Whether these two scores alone decide who is on the front.
    is_whole_front: bool,
    winner: Option<Point>,
    explanation: String,
}

fn point(number: u64, scores: &Scores, x: &(Metric, Measure), y: &(Metric, Measure)) -> Option<Point> {
    let se = scores.accuracy_se.filter(|_| y.0 == Metric::Accuracy);
    Some(Point {
        trial: number,
        x: x.1.factor * x.0.of(scores)?,
        y: y.1.factor * y.0.of(scores)?,
        se: se.map(|se| y.1.factor * se),
    })
}

impl ParetoFigure {
    /// Accuracy against latency; nothing if no finished trial has both. The front is that of several objectives, if
    /// there are any, else that of these two scores.
    pub(super) fn accuracy_latency(
        trials: &[Trial],
        objective: &Objective,
        winner: Option<&Trial>,
    ) -> Option<ParetoFigure> {
        if objective.is_pareto() {
            return ParetoFigure::new(trials, objective, Metric::Accuracy, Metric::Latency);
        }
        let pair = "accuracy,latency".parse().ok()?;
        let mut figure = ParetoFigure::new(trials, &pair, Metric::Accuracy, Metric::Latency)?;
        // Among equals the first stands for all.
        let front: Vec<u64> = pareto_front(trials).iter().map(|trial| trial.number).collect();
        figure.front.retain(|p| front.contains(&p.trial));
        figure.winner =
            winner.and_then(|winner| point(winner.number, winner.best_scores(), &figure.x, &figure.y));
        Some(figure)
    }

    /// The front of several objectives in the plane of two scores, if a finished trial has both.
    pub(super) fn new(trials: &[Trial], objective: &Objective, y: Metric, x: Metric) -> Option<ParetoFigure> {
        let is_whole_front = objective.count() == 2 && objective.uses(x) && objective.uses(y);
        let (x, y) = ((x, Measure::of(x)), (y, Measure::of(y)));
        let of_state = |state: TrialState| -> Vec<Point> {
            let of_state = trials.iter().filter(|trial| trial.state == state);
            of_state.filter_map(|trial| point(trial.number, &trial.scores, &x, &y)).collect()
        };
        let refined = trials.iter().filter(|trial| trial.fidelity().is_refined());
        let trained: Vec<Point> =
            refined.filter_map(|trial| point(trial.number, trial.best_scores(), &x, &y)).collect();
        let finished = of_state(TrialState::Finished);
        let first = trials.iter().find(|trial| trial.number == finished.first().map_or(0, |p| p.trial))?;
        let mut explanation = format!("{} finished candidates", finished.len());
        if let (Some(batch), Some(threads), true) =
            (first.scores.latency_batch, first.scores.latency_threads, [x.0, y.0].contains(&Metric::Latency))
        {
            let plural = |n: u64| if n == 1 { "" } else { "s" };
            explanation += &format!(
                "; latency: median forward pass of {batch} image{} on {threads} thread{}",
                plural(batch),
                plural(threads)
            );
        }
        if let Some(images) = first.scores.images.filter(|_| y.0 == Metric::Accuracy) {
            explanation += &format!("; accuracy on {images} images, bars: ±1 s.e.");
        }
        let fronts = fronts(trials, objective);
        let mut front: Vec<Point> =
            finished.iter().filter(|p| fronts.get(&p.trial) == Some(&1)).copied().collect();
        front.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)).then(a.trial.cmp(&b.trial)));
        let over_limit = of_state(TrialState::Rejected);
        let figure = ParetoFigure {
            over_limit,
            front,
            is_whole_front,
            winner: None,
            explanation,
            finished,
            trained,
            x,
            y,
        };
        (!figure.finished.is_empty()).then_some(figure)
    }

    /// The border of what the front dominates.
    fn stairs(&self, x: &Axis) -> Vec<(f64, f64)> {
        let is_cost = self.x.0.is_cost();
        let mut stairs: Vec<(f64, f64)> = Vec::new();
        for p in &self.front {
            match stairs.last() {
                Some(last) if is_cost => stairs.push((p.x, last.1)),
                Some(last) => stairs.push((last.0, p.y)),
                None if is_cost => {}
                None => stairs.push((x.range.start, p.y)),
            }
            stairs.push((p.x, p.y));
        }
        if is_cost {
            stairs.extend(stairs.last().map(|last| (x.range.end, last.1)));
        }
        stairs
    }
}

impl Figure for ParetoFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let near = crowd(self.finished.iter().map(|p| p.y));
        let shown: Vec<Point> = self.finished.iter().copied().filter(|p| near.contains(&p.y)).collect();
        let explanation = match self.finished.len() - shown.len() {
            0 => self.explanation.clone(),
            far => format!("{}; {far} far from the others not shown", self.explanation),
        };
        let all = || shown.iter().chain(&self.front).chain(&self.over_limit).chain(&self.trained);
        let x = Axis::around(self.x.1.label, all().map(|p| p.x), self.x.1.bounds.clone());
        let reach = |p: &Point| {
            let se = p.se.unwrap_or(0.0);
            [p.y - se, p.y + se]
        };
        let y = Axis::around(self.y.1.label, all().flat_map(reach), self.y.1.bounds.clone());
        let faint = opacity(self.finished.len());
        let dot = Mark::Dot(BLUE.mix(faint), 3.6);
        let cross = Mark::Cross(GREY.mix(0.8), 3.2);
        let line = Mark::Line(ORANGE.mix(1.0));
        let front_dot = Mark::Dot(ORANGE.mix(1.0), 4.8);
        let trained_dot = Mark::Dot(PURPLE.mix(0.9), 4.2);
        let predicted = if self.trained.is_empty() { "" } else { ", predicted weights" };
        let mut legend = vec![(dot, format!("candidate{predicted}"))];
        if !self.trained.is_empty() {
            legend.push((trained_dot, "candidate, trained weights".into()));
        }
        if !self.over_limit.is_empty() {
            legend.push((cross, "over a limit".into()));
        }
        match self.is_whole_front {
            true => legend.push((line, format!("Pareto front{predicted}"))),
            false => legend.push((front_dot, format!("Pareto front of all objectives{predicted}"))),
        }
        if let Some(best) = self.winner {
            let (x, y) = (self.x.1.suffix, self.y.1.suffix);
            let text = format!("best: trial {} ({:.1}{y}, {:.2}{x})", best.trial, best.y, best.x);
            legend.push((RED_STAR, text));
        }
        let mut title = format!("{} against {}", self.y.1.name, self.x.1.name);
        title[..1].make_ascii_uppercase();
        let body = canvas.head(&title, &explanation, &legend)?;
        let mut chart = canvas.chart(&body, &x, &y)?;
        let bar = |p: &Point| Some((p.x, p.y - p.se?, p.y + p.se?));
        let place = |points: &[Point]| -> Vec<(f64, f64)> { points.iter().map(|p| (p.x, p.y)).collect() };
        canvas.points(&mut chart, cross, &place(&self.over_limit))?;
        canvas.bars(&mut chart, BLUE.mix(0.4 * faint), &y, shown.iter().filter_map(bar))?;
        canvas.points(&mut chart, dot, &place(&shown))?;
        if self.is_whole_front {
            canvas.points(&mut chart, line, &self.stairs(&x))?;
        }
        canvas.bars(&mut chart, ORANGE.mix(0.8), &y, self.front.iter().filter_map(bar))?;
        canvas.points(&mut chart, front_dot, &place(&self.front))?;
        canvas.bars(&mut chart, PURPLE.mix(0.6), &y, self.trained.iter().filter_map(bar))?;
        canvas.points(&mut chart, trained_dot, &place(&self.trained))?;
        canvas.points(&mut chart, RED_STAR, &place(self.winner.as_slice()))
    }
}
