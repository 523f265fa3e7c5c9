//! The best candidate so far, over trials and over time: with predicted weights, and of those that were trained longest.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, Mark, ORANGE, PURPLE, RED_STAR, crowd, opacity};
use super::measure::Measure;
use crate::score::Fidelity;
use crate::search::Objective;
use crate::study::{Trial, TrialState};
use plotters::prelude::{Color, DrawingBackend};
use std::ops::Range;

/// Best so far over trials and over time.
pub(super) struct ProgressFigure {
    /// Trial, time, value as shown.
    points: Vec<(f64, f64, f64)>,
    /// The same with trained weights, and with which.
    trained: Vec<(f64, f64, f64, Fidelity)>,
    value: Shown,
    time: (&'static str, f64),
    winner: Option<(u64, f64, f64, f64)>,
    explanation: String,
}

/// How an objective's value is shown: a lone score in its own unit, anything else as it is.
struct Shown {
    label: String,
    factor: f64,
    bounds: Range<f64>,
    suffix: &'static str,
}

impl Shown {
    fn new(objective: &Objective) -> Shown {
        let any = f64::NEG_INFINITY..f64::INFINITY;
        let shown = |label: &str, factor: f64, bounds: Range<f64>, suffix: &'static str| Shown {
            label: label.into(),
            factor,
            bounds,
            suffix,
        };
        match objective.terms() {
            [(metric, weight)] if weight.abs() == 1.0 => {
                let measure = Measure::of(*metric);
                shown(measure.label, weight.signum() * measure.factor, measure.bounds, measure.suffix)
            }
            _ => shown("Objective", 1.0, any, ""),
        }
    }
}

impl ProgressFigure {
    /// Nothing if no trial is finished.
    pub(super) fn new(
        trials: &[Trial],
        objective: &Objective,
        winner: Option<&Trial>,
    ) -> Option<ProgressFigure> {
        let value = Shown::new(objective);
        let refined =
            || trials.iter().flat_map(|trial| trial.refined.iter().map(move |refined| (trial, refined)));
        let ends = refined().map(|(_, refined)| refined.elapsed_s);
        let last = trials.iter().filter_map(|trial| trial.elapsed_s).chain(ends).fold(0.0, f64::max);
        let time = match last {
            ..300.0 => ("Search time (s)", 1.0),
            300.0..10_800.0 => ("Search time (min)", 60.0),
            _ => ("Search time (h)", 3_600.0),
        };
        let place = |trial: &Trial| {
            Some((trial.number as f64, trial.elapsed_s? / time.1, trial.value? * value.factor))
        };
        let mut points: Vec<(f64, f64, f64)> = trials.iter().filter_map(place).collect();
        let mut trained: Vec<(f64, f64, f64, Fidelity)> = refined()
            .filter_map(|(trial, refined)| {
                let value = refined.value? * value.factor;
                Some((trial.number as f64, refined.elapsed_s / time.1, value, refined.fidelity))
            })
            .collect();
        let count = |state: TrialState| trials.iter().filter(|trial| trial.state == state).count();
        let mut explanation = format!(
            "objective {objective}: {} candidates finished, {} failed, {} rejected",
            points.len(),
            count(TrialState::Failed),
            count(TrialState::Rejected)
        );
        if !trained.is_empty() {
            explanation += &format!("; {} trainings", trained.len());
        }
        let near = crowd(points.iter().map(|p| p.2));
        let near_trained = crowd(trained.iter().map(|p| p.2));
        let all = points.len() + trained.len();
        let wins = |number: f64| winner.is_some_and(|trial| trial.number as f64 == number);
        points.retain(|p| near.contains(&p.2) || wins(p.0));
        trained.retain(|p| near.contains(&p.2) || near_trained.contains(&p.2) || wins(p.0));
        match all - points.len() - trained.len() {
            0 => {}
            far => explanation += &format!("; {far} far from the others not shown"),
        }
        let winner = winner.and_then(|trial| {
            let (number, time, value) = place(trial)?;
            let mut own = trained.iter().filter(|point| point.0 == number && point.3 == trial.fidelity());
            let (time, value) = own.next().map_or((time, value), |point| (point.1, point.2));
            Some((trial.number, number, time, value))
        });
        (!points.is_empty()).then_some(ProgressFigure { points, trained, value, time, winner, explanation })
    }

    /// The best so far at the highest fidelity so far as stairs.
    fn stairs(&self, mut points: Vec<(f64, f64, Fidelity)>, end: f64) -> Vec<(f64, f64)> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sign = self.value.factor.signum();
        let mut stairs: Vec<(f64, f64)> = Vec::new();
        let mut highest = Fidelity::Predicted;
        for (x, value, fidelity) in points {
            match stairs.last() {
                Some(&(_, best))
                    if fidelity < highest || (fidelity == highest && sign * value <= sign * best) =>
                {
                    continue;
                }
                Some(&(_, best)) => stairs.extend([(x, best), (x, value)]),
                None => stairs.push((x, value)),
            }
            highest = fidelity;
        }
        stairs.extend(stairs.last().map(|&(_, best)| (end, best)));
        stairs
    }
}

impl Figure for ProgressFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let values = self.points.iter().map(|p| p.2).chain(self.trained.iter().map(|p| p.2));
        let y = Axis::around(&self.value.label, values, self.value.bounds.clone());
        let dot = Mark::Dot(BLUE.mix(opacity(self.points.len())), 3.2);
        let line = Mark::Line(ORANGE.mix(1.0));
        let (trained_dot, trained_line) = (Mark::Dot(PURPLE.mix(0.9), 4.2), Mark::Line(PURPLE.mix(1.0)));
        let highest = self.trained.iter().map(|point| point.3).max();
        let (all, best) = match highest {
            None => ("candidate", "best so far"),
            Some(_) => ("predicted weights", "best of these"),
        };
        let mut legend = vec![(dot, all.to_string()), (line, best.to_string())];
        if let Some(highest) = highest {
            legend.push((trained_dot, "trained weights".into()));
            legend.push((trained_line, format!("best, longest trained ({highest})")));
        }
        if let Some((number, _, _, value)) = self.winner {
            let decimals = if self.value.suffix.is_empty() { 4 } else { 2 };
            legend
                .push((RED_STAR, format!("best: trial {number} ({value:.decimals$}{})", self.value.suffix)));
        }
        let body = canvas.head("Best candidate so far", &self.explanation, &legend)?;
        let (left, right) = body.split_horizontally(body.dim_in_pixel().0 / 2);
        let by_trial = |p: (f64, f64, f64)| (p.0, p.2);
        let by_time = |p: (f64, f64, f64)| (p.1, p.2);
        type Place = fn((f64, f64, f64)) -> (f64, f64);
        let panels: [(_, &str, Place); 2] = [(left, "Trial", by_trial), (right, self.time.0, by_time)];
        for (area, label, place) in panels {
            let points: Vec<(f64, f64)> = self.points.iter().copied().map(place).collect();
            let trained: Vec<(f64, f64, Fidelity)> = self
                .trained
                .iter()
                .map(|&(trial, time, value, fidelity)| (place((trial, time, value)), fidelity))
                .map(|((x, value), fidelity)| (x, value, fidelity))
                .collect();
            let places: Vec<(f64, f64)> = trained.iter().map(|p| (p.0, p.1)).collect();
            let x = Axis::around(label, points.iter().chain(&places).map(|p| p.0), 0.0..f64::INFINITY);
            let mut chart = canvas.chart(&area, &x, &y)?;
            canvas.points(&mut chart, dot, &points)?;
            let predicted = points.into_iter().map(|(x, value)| (x, value, Fidelity::Predicted)).collect();
            canvas.points(&mut chart, line, &self.stairs(predicted, x.range.end))?;
            canvas.points(&mut chart, trained_dot, &places)?;
            canvas.points(&mut chart, trained_line, &self.stairs(trained, x.range.end))?;
            let winner = self.winner.map(|(_, number, time, value)| place((number, time, value)));
            canvas.points(&mut chart, RED_STAR, winner.as_slice())?;
        }
        Ok(())
    }
}
