//! Clean against noisy accuracy.

use super::canvas::{
    Axis, BLUE, Canvas, Drawn, Figure, GREEN, GREY, INK, Mark, ORANGE, PURPLE, RED_STAR, SKY, YELLOW, crowd,
    opacity,
};
use super::frame::noise_levels;
use crate::score::Scores;
use crate::study::{Trial, TrialState};
use plotters::prelude::{Color, DrawingBackend, RGBColor};

const COLOURS: [RGBColor; 6] = [BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY];

/// Clean accuracy, its s.e., noisy accuracy, its s.e., all per cent.
type Point = (f64, f64, f64, f64);

/// Accuracy under each noise level against clean accuracy.
pub(super) struct NoiseFigure {
    levels: Vec<(f64, Vec<Point>)>,
    /// With trained weights, at all levels.
    trained: Vec<(f64, f64)>,
    winner: Option<(u64, Vec<(f64, f64)>)>,
    explanation: String,
}

impl NoiseFigure {
    /// Nothing if no finished trial was scored under noise.
    pub(super) fn new(trials: &[Trial], winner: Option<&Trial>) -> Option<NoiseFigure> {
        let finished: Vec<&Trial> =
            trials.iter().filter(|trial| trial.state == TrialState::Finished).collect();
        let place = |scores: &Scores, sd: f64| {
            let noisy = scores.noise.iter().find(|score| score.sd == sd)?;
            let clean_se = scores.accuracy_se.unwrap_or(0.0);
            let shares = (scores.accuracy?, clean_se, noisy.accuracy, noisy.accuracy_se);
            Some((100.0 * shares.0, 100.0 * shares.1, 100.0 * shares.2, 100.0 * shares.3))
        };
        let mut levels: Vec<(f64, Vec<Point>)> = noise_levels(&finished)
            .into_iter()
            .map(|sd| {
                (sd, finished.iter().filter_map(|trial| place(&trial.scores, sd)).collect::<Vec<Point>>())
            })
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let winner = winner.map(|trial| {
            let places =
                levels.iter().filter_map(|(sd, _)| place(trial.best_scores(), *sd)).map(|p| (p.0, p.2));
            (trial.number, places.collect())
        });
        let refined = finished.iter().filter(|trial| trial.fidelity().is_refined());
        let trained = refined
            .flat_map(|trial| levels.iter().filter_map(|(sd, _)| place(trial.best_scores(), *sd)))
            .map(|p| (p.0, p.2))
            .collect();
        let images = finished.first().and_then(|trial| trial.scores.images);
        let images = images.map_or(String::new(), |images| format!(" on {images} images, bars: ±1 s.e."));
        let near = crowd(levels.iter().flat_map(|(_, points)| points).map(|p| p.2));
        let mut far = 0;
        for (_, points) in &mut levels {
            let before = points.len();
            points.retain(|p| near.contains(&p.2));
            far += before - points.len();
        }
        let mut explanation = format!(
            "{} finished candidates; Gaussian noise on pixels in [0, 1]; accuracy{images}",
            finished.len()
        );
        if far > 0 {
            explanation += &format!("; {far} far from the others not shown");
        }
        (!levels.is_empty()).then_some(NoiseFigure { levels, trained, winner, explanation })
    }
}

impl Figure for NoiseFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let points = || self.levels.iter().flat_map(|(_, points)| points);
        let bounds = 0.0..100.0;
        let clean = points().flat_map(|p| [p.0 - p.1, p.0 + p.1]).chain(self.trained.iter().map(|p| p.0));
        let noisy = points().flat_map(|p| [p.2 - p.3, p.2 + p.3]).chain(self.trained.iter().map(|p| p.1));
        let x = Axis::around("Clean accuracy (%)", clean, bounds.clone());
        let y = Axis::around("Accuracy under noise (%)", noisy, bounds);
        let faint = opacity(points().count());
        let marks: Vec<(RGBColor, Mark)> = COLOURS
            .iter()
            .cycle()
            .take(self.levels.len())
            .map(|c| (*c, Mark::Dot(c.mix(faint), 3.6)))
            .collect();
        let predicted = if self.trained.is_empty() { "" } else { ", predicted weights" };
        let mut legend: Vec<(Mark, String)> = self
            .levels
            .iter()
            .zip(&marks)
            .map(|((sd, _), (_, mark))| (*mark, format!("noise sd {sd}{predicted}")))
            .collect();
        let trained = Mark::Cross(INK.mix(0.9), 3.4);
        if !self.trained.is_empty() {
            legend.push((trained, "trained weights".into()));
        }
        let diagonal = Mark::Dashes(GREY.mix(0.9));
        let (from, to) = (x.range.start.max(y.range.start), x.range.end.min(y.range.end));
        if from < to {
            legend.push((diagonal, "no loss".into()));
        }
        if let Some((number, _)) = self.winner {
            legend.push((RED_STAR, format!("best objective: trial {number}")));
        }
        let body = canvas.head("Accuracy under noise against clean accuracy", &self.explanation, &legend)?;
        let mut chart = canvas.chart(&body, &x, &y)?;
        if from < to {
            canvas.points(&mut chart, diagonal, &[(from, from), (to, to)])?;
        }
        for ((_, points), (color, mark)) in self.levels.iter().zip(&marks) {
            let color = color.mix(0.4 * faint);
            canvas.bars(&mut chart, color, &y, points.iter().map(|p| (p.0, p.2 - p.3, p.2 + p.3)))?;
            canvas.level_bars(&mut chart, color, &x, points.iter().map(|p| (p.2, p.0 - p.1, p.0 + p.1)))?;
            let places: Vec<(f64, f64)> = points.iter().map(|p| (p.0, p.2)).collect();
            canvas.points(&mut chart, *mark, &places)?;
        }
        canvas.points(&mut chart, trained, &self.trained)?;
        let places = self.winner.as_ref().map_or(&[][..], |(_, places)| places);
        canvas.points(&mut chart, RED_STAR, places)
    }
}
