//! Training curves of a hypernetwork: loss over steps, and accuracy on held-out architectures.
//!
//! In: the metrics file of a training run (one CSV row a step). Out: `training.png` and `training.svg`.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, GREY, Mark, ORANGE, save};
use super::html::duration;
use crate::{Error, Result};
use plotters::prelude::{Color, DrawingBackend};
use std::path::{Path, PathBuf};

/// Steps of which the smoothed loss is the median.
const SMOOTHING: usize = 50;

struct TrainingFigure {
    /// Step and loss.
    losses: Vec<(f64, f64)>,
    /// Steps taken, mean accuracy and its standard error, best accuracy, in percent.
    held_out: Vec<(f64, f64, f64, f64)>,
    explanation: String,
}

/// Draws the curves of `metrics` into `folder`; a run without a finished step draws nothing.
///
/// # Errors
/// If the metrics cannot be read, lack a column or hold something else than numbers, or a file cannot be written.
pub fn training_plot(metrics: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(metrics).map_err(Error::io("read", metrics))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| {
        header
            .iter()
            .position(|found| *found == name)
            .ok_or_else(|| Error::format(metrics, format!("no column `{name}`")))
    };
    let columns = [
        column("step")?,
        column("loss")?,
        column("held_out_mean")?,
        column("held_out_se")?,
        column("held_out_best")?,
    ];
    let mut figure = TrainingFigure { losses: Vec::new(), held_out: Vec::new(), explanation: String::new() };
    let mut seconds = 0.0;
    let time = column("seconds")?;
    for (number, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |index: usize| -> Result<Option<f64>> {
            match fields.get(index) {
                Some(&"") => Ok(None),
                Some(text) => text.parse().map(Some).map_err(|_| {
                    Error::format(metrics, format!("line {}: `{text}` is not a number", number + 2))
                }),
                None => Err(Error::format(metrics, format!("line {} has too few fields", number + 2))),
            }
        };
        let [step, loss, mean, se, best] = columns.map(field);
        let Some(step) = step? else { continue };
        seconds += field(time)?.unwrap_or(0.0);
        figure.losses.extend(loss?.map(|loss| (step, loss)));
        if let (Some(mean), Some(se), Some(best)) = (mean?, se?, best?) {
            figure.held_out.push((step + 1.0, 100.0 * mean, 100.0 * se, 100.0 * best));
        }
    }
    if figure.losses.is_empty() {
        return Ok(Vec::new());
    }
    figure.explanation = format!("{} steps in {}", figure.losses.len(), duration(seconds));
    save(&figure, &folder.join("training"))
}

/// Medians over runs of `SMOOTHING` losses, at the run's middle: a network in a thousand has a loss that a mean would
/// follow out of the picture.
fn smoothed(losses: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let median = |part: &[(f64, f64)]| {
        let mut values: Vec<f64> = part.iter().map(|p| p.1).collect();
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    };
    let middle = |part: &[(f64, f64)]| part.iter().map(|p| p.0).sum::<f64>() / part.len() as f64;
    losses.chunks(SMOOTHING).map(|part| (middle(part), median(part))).collect()
}

impl Figure for TrainingFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let (raw, line) = (Mark::Dot(GREY.mix(0.25), 1.2), Mark::Line(BLUE.mix(1.0)));
        let (mean, best) = (Mark::Line(ORANGE.mix(1.0)), Mark::Dashes(ORANGE.mix(0.8)));
        let mut legend = vec![(raw, "step".to_owned()), (line, format!("median of {SMOOTHING} steps"))];
        if !self.held_out.is_empty() {
            legend.push((mean, "held-out mean +- s.e.".to_owned()));
            legend.push((best, "best held-out".to_owned()));
        }
        let body = canvas.head("Training of the hypernetwork", &self.explanation, &legend)?;
        let (left, right) = body.split_horizontally(body.dim_in_pixel().0 / 2);
        let any = f64::NEG_INFINITY..f64::INFINITY;
        let x = Axis::around("Step", self.losses.iter().map(|p| p.0), 0.0..f64::INFINITY);
        // Single bad steps would squeeze the curve into a corner; the few beyond the axis are not drawn.
        let mut sorted: Vec<f64> = self.losses.iter().map(|p| p.1).collect();
        sorted.sort_by(f64::total_cmp);
        let highest = sorted[(sorted.len() * 199 / 200).min(sorted.len() - 1)];
        let shown: Vec<(f64, f64)> = self.losses.iter().copied().filter(|p| p.1 <= highest).collect();
        let y = Axis::around("Cross entropy (nats)", shown.iter().map(|p| p.1), any);
        let mut chart = canvas.chart(&left, &x, &y)?;
        canvas.points(&mut chart, raw, &shown)?;
        canvas.points(&mut chart, line, &smoothed(&self.losses))?;
        if self.held_out.is_empty() {
            return Ok(());
        }
        let values = self.held_out.iter().flat_map(|&(_, mean, se, best)| [mean - se, mean + se, best]);
        let y = Axis::around("Accuracy with predicted weights (%)", values, 0.0..100.0);
        let mut chart = canvas.chart(&right, &x, &y)?;
        let bars = self.held_out.iter().map(|&(step, mean, se, _)| (step, mean - se, mean + se));
        canvas.bars(&mut chart, ORANGE.mix(0.6), &y, bars)?;
        canvas.points(&mut chart, mean, &self.held_out.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>())?;
        canvas.points(&mut chart, best, &self.held_out.iter().map(|p| (p.0, p.3)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "step,loss,seconds,held_out_mean,held_out_se,held_out_best\n";

    fn plot(rows: &str) -> (Result<Vec<PathBuf>>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let metrics = folder.path().join("metrics.csv");
        std::fs::write(&metrics, format!("{HEADER}{rows}")).unwrap();
        (training_plot(&metrics, folder.path()), folder)
    }

    #[test]
    fn a_run_is_drawn_with_and_without_evaluations() {
        let (files, _folder) = plot("0,2.3,0.1,,,\n1,2.2,0.1,0.2,0.01,0.3\n");
        let files = files.unwrap();
        assert_eq!(files.len(), 2);
        assert!(std::fs::read_to_string(&files[1]).unwrap().contains("held-out mean"));
        let (files, _folder) = plot("0,2.3,0.1,,,\n1,,0.1,,,\n");
        assert!(!std::fs::read_to_string(&files.unwrap()[1]).unwrap().contains("held-out mean"));
    }

    #[test]
    fn a_single_bad_step_does_not_move_the_line() {
        let mut losses: Vec<(f64, f64)> = (0..75).map(|step| (f64::from(step), 1.0)).collect();
        losses[10].1 = 1e6;
        losses[60].1 = 3.0;
        assert_eq!(smoothed(&losses), [(24.5, 1.0), (62.0, 1.0)]);
    }

    #[test]
    fn damage_is_named_by_line() {
        let (result, _folder) = plot("0,2.3,0.1,,,\n1,high,0.1,,,\n");
        let message = result.unwrap_err().to_string();
        assert!(message.contains("metrics.csv: line 3: `high` is not a number"), "{message}");
    }
}
