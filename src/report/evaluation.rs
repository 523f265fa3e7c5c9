//! The table of an evaluation as a picture: accuracies of all architectures, means with intervals, and the best.

use super::canvas::{
    Axis, BLUE, Canvas, Drawn, Figure, GREEN, GREY, Mark, ORANGE, PURPLE, SKY, YELLOW, opacity, save,
};
use crate::Result;
use crate::evaluation::{Line, Row};
use plotters::prelude::{Color, DrawingBackend, RGBColor};
use std::path::{Path, PathBuf};

const COLOURS: [RGBColor; 6] = [BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW];
/// Share of the distance between two groups that their sources of weights fill.
const SPREAD: f64 = 0.7;

struct EvaluationFigure<'a> {
    rows: &'a [Row],
    lines: &'a [Line],
    groups: Vec<String>,
    weights: Vec<String>,
    explanation: String,
}

/// Draws `accuracy-by-group.png` and `.svg` into `folder`; nothing if no architecture has an accuracy.
///
/// # Errors
/// A file cannot be written.
pub fn evaluation_plot(rows: &[Row], lines: &[Line], folder: &Path, on: &str) -> Result<Vec<PathBuf>> {
    let (mut groups, mut weights) = (Vec::new(), Vec::new());
    for line in lines.iter().filter(|line| line.mean.is_some()) {
        for (list, name) in [(&mut groups, &line.group), (&mut weights, &line.weights)] {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let images = lines.iter().map(|line| line.images).max().unwrap_or(0);
    let most = lines.iter().map(|line| line.architectures).max().unwrap_or(0);
    let explanation = format!(
        "{images} {on} images, up to {most} architectures in a group; bars: 95 % interval of the mean"
    );
    let figure = EvaluationFigure { rows, lines, groups, weights, explanation };
    save(&figure, &folder.join("accuracy-by-group"))
}

impl EvaluationFigure<'_> {
    /// Where a source's column stands within a group.
    fn x(&self, group: &str, weights: &str) -> Option<f64> {
        let group = self.groups.iter().position(|name| name == group)? as f64;
        let place = self.weights.iter().position(|name| name == weights)? as f64;
        Some(group + SPREAD * ((place + 0.5) / self.weights.len() as f64 - 0.5))
    }
}

impl Figure for EvaluationFigure<'_> {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let colours: Vec<RGBColor> = COLOURS.into_iter().cycle().take(self.weights.len()).collect();
        let mut legend: Vec<(Mark, String)> = self
            .weights
            .iter()
            .zip(&colours)
            .map(|(name, colour)| (Mark::Dot(colour.mix(1.0), 5.0), format!("{name}, mean")))
            .collect();
        legend.push((Mark::Dot(GREY.mix(0.6), 2.5), "architecture".into()));
        legend.push((Mark::Cross(GREY.mix(1.0), 4.5), "best".into()));
        let body = canvas.head("Accuracy on architectures never trained on", &self.explanation, &legend)?;
        let scored = self.rows.iter().filter_map(|row| row.accuracy);
        let ends = self.lines.iter().filter_map(|line| line.interval).flat_map(|(low, high)| [low, high]);
        let values: Vec<f64> = scored.chain(ends).map(|share| 100.0 * share).collect();
        let y = Axis::around("Accuracy (%)", values.into_iter(), 0.0..100.0);
        let mut chart = canvas.chart_of(&body, &self.groups, &y)?;
        for (weights, colour) in self.weights.iter().zip(&colours) {
            let places = |row: &Row| Some((self.x(&row.group, weights)?, 100.0 * row.accuracy?));
            let points: Vec<(f64, f64)> =
                self.rows.iter().filter(|row| row.weights == *weights).filter_map(places).collect();
            let faint = opacity(points.len() / self.groups.len().max(1));
            canvas.points(&mut chart, Mark::Dot(colour.mix(0.5 * faint), 2.5), &points)?;
            let lines = || self.lines.iter().filter(|line| line.weights == *weights);
            let best = |line: &Line| Some((self.x(&line.group, weights)?, 100.0 * line.best.as_ref()?.0));
            let best: Vec<(f64, f64)> = lines().filter_map(best).collect();
            canvas.points(&mut chart, Mark::Cross(colour.mix(1.0), 4.5), &best)?;
            let interval = |line: &Line| {
                let (low, high) = line.interval?;
                Some((self.x(&line.group, weights)?, 100.0 * low, 100.0 * high))
            };
            canvas.bars(&mut chart, colour.mix(1.0), &y, lines().filter_map(interval))?;
            let mean = |line: &Line| Some((self.x(&line.group, weights)?, 100.0 * line.mean?));
            let means: Vec<(f64, f64)> = lines().filter_map(mean).collect();
            canvas.points(&mut chart, Mark::Dot(colour.mix(1.0), 5.0), &means)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::table;

    #[test]
    fn groups_and_sources_are_named_in_the_picture() {
        let row = |weights: &str, group: &str, place: usize, accuracy| Row {
            weights: weights.into(),
            group: group.into(),
            architecture: format!("{group}/{place}"),
            hash: String::new(),
            params: 1,
            macs: 1,
            nodes: 1,
            images: 64,
            accuracy,
            accuracy_se: Some(0.01),
            loss: None,
            seconds: 0.0,
            reason: String::new(),
        };
        let rows = [
            row("bundled", "test", 0, Some(0.7)),
            row("bundled", "test", 1, Some(0.6)),
            row("he", "test", 0, Some(0.1)),
            row("bundled", "ViT", 0, Some(0.5)),
            row("he", "ViT", 0, None),
        ];
        let folder = tempfile::tempdir().unwrap();
        let files = evaluation_plot(&rows, &table(&rows, &[]), folder.path(), "test").unwrap();
        let svg = std::fs::read_to_string(&files[1]).unwrap();
        for text in ["bundled, mean", "he, mean", "ViT", "test", "64 test images"] {
            assert!(svg.contains(text), "{text}");
        }
        let failed = [row("he", "ViT", 0, None)];
        assert!(evaluation_plot(&failed, &table(&failed, &[]), folder.path(), "test").unwrap().is_empty());
    }
}
