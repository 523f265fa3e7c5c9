//! Accuracy against latency, with the Pareto front.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, GREY, Mark, ORANGE, RED_STAR, opacity};
use crate::study::{Trial, TrialState};
use plotters::prelude::{Color, DrawingBackend};

#[derive(Clone, Copy)]
struct Point {
    trial: u64,
    latency_ms: f64,
    /// Per cent.
    accuracy: f64,
    /// Per cent.
    se: Option<f64>,
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

/// Accuracy against latency.
pub(super) struct ParetoFigure {
    finished: Vec<Point>,
    over_limit: Vec<Point>,
    front: Vec<Point>,
    winner: Option<Point>,
    explanation: String,
}

fn point(trial: &Trial) -> Option<Point> {
    Some(Point {
        trial: trial.number,
        latency_ms: trial.scores.latency_ms?,
        accuracy: 100.0 * trial.scores.accuracy?,
        se: trial.scores.accuracy_se.map(|se| 100.0 * se),
    })
}

impl ParetoFigure {
    /// Nothing if no finished trial has both scores.
    pub(super) fn new(trials: &[Trial], winner: Option<&Trial>) -> Option<ParetoFigure> {
        let of_state = |state: TrialState| -> Vec<Point> {
            trials.iter().filter(|trial| trial.state == state).filter_map(point).collect()
        };
        let finished = of_state(TrialState::Finished);
        let first = trials.iter().find(|trial| trial.number == finished.first().map_or(0, |p| p.trial))?;
        let mut explanation = format!("{} finished candidates", finished.len());
        if let (Some(batch), Some(threads)) = (first.scores.latency_batch, first.scores.latency_threads) {
            let plural = |n: u64| if n == 1 { "" } else { "s" };
            explanation += &format!(
                "; latency: median forward pass of {batch} image{} on {threads} thread{}",
                plural(batch),
                plural(threads)
            );
        }
        if let Some(images) = first.scores.images {
            explanation += &format!("; accuracy on {images} images, bars: ±1 s.e.");
        }
        let figure = ParetoFigure {
            over_limit: of_state(TrialState::Rejected),
            front: pareto_front(trials).into_iter().filter_map(point).collect(),
            winner: winner.and_then(point),
            explanation,
            finished,
        };
        (!figure.finished.is_empty()).then_some(figure)
    }
}

impl Figure for ParetoFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let all = || self.finished.iter().chain(&self.over_limit);
        let x = Axis::around("Latency (ms)", all().map(|p| p.latency_ms), 0.0..f64::INFINITY);
        let reach = |p: &Point| {
            let se = p.se.unwrap_or(0.0);
            [p.accuracy - se, p.accuracy + se]
        };
        let y = Axis::around("Accuracy (%)", all().flat_map(reach), 0.0..100.0);
        let faint = opacity(self.finished.len());
        let dot = Mark::Dot(BLUE.mix(faint), 3.6);
        let cross = Mark::Cross(GREY.mix(0.8), 3.2);
        let line = Mark::Line(ORANGE.mix(1.0));
        let mut legend = vec![(dot, "candidate".to_string())];
        if !self.over_limit.is_empty() {
            legend.push((cross, "over a limit".into()));
        }
        legend.push((line, "Pareto front".into()));
        if let Some(best) = self.winner {
            let text =
                format!("best: trial {} ({:.1} %, {:.2} ms)", best.trial, best.accuracy, best.latency_ms);
            legend.push((RED_STAR, text));
        }
        canvas.head("Accuracy against latency", &self.explanation, &legend)?;
        let body = canvas.body();
        let mut chart = canvas.chart(&body, &x, &y)?;
        let bar = |p: &Point| Some((p.latency_ms, p.accuracy - p.se?, p.accuracy + p.se?));
        let place = |points: &[Point]| -> Vec<(f64, f64)> {
            points.iter().map(|p| (p.latency_ms, p.accuracy)).collect()
        };
        canvas.points(&mut chart, cross, &place(&self.over_limit))?;
        canvas.bars(&mut chart, BLUE.mix(0.4 * faint), &y, self.finished.iter().filter_map(bar))?;
        canvas.points(&mut chart, dot, &place(&self.finished))?;
        let mut stairs: Vec<(f64, f64)> = Vec::new();
        for p in &self.front {
            stairs.extend(stairs.last().map(|last| (p.latency_ms, last.1)));
            stairs.push((p.latency_ms, p.accuracy));
        }
        stairs.extend(stairs.last().map(|last| (x.range.end, last.1)));
        canvas.points(&mut chart, line, &stairs)?;
        canvas.bars(&mut chart, ORANGE.mix(0.8), &y, self.front.iter().filter_map(bar))?;
        canvas.points(&mut chart, Mark::Dot(ORANGE.mix(1.0), 4.8), &place(&self.front))?;
        canvas.points(&mut chart, RED_STAR, &place(self.winner.as_slice()))
    }
}
