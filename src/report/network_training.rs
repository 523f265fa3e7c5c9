//! Training curves of one network: loss and validation accuracy over epochs.
//!
//! In: the metrics of a training (one CSV row an epoch). Out: `training.png` and `training.svg`.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, Mark, ORANGE, RED_STAR, save};
use crate::{Error, Result};
use plotters::prelude::{Color, DrawingBackend};
use std::path::{Path, PathBuf};

struct NetworkTrainingFigure {
    title: String,
    /// Epoch and training loss.
    training: Vec<(f64, f64)>,
    /// Epoch and validation loss.
    validation: Vec<(f64, f64)>,
    /// Epoch, validation accuracy and its standard error, per cent.
    accuracy: Vec<(f64, f64, f64)>,
    explanation: String,
}

/// Draws the curves of `metrics` into `folder`; `subject` says what was trained.
///
/// # Errors
/// If the metrics cannot be read, lack a column or hold something else than numbers, or a file cannot be written.
pub fn network_training_plot(metrics: &Path, folder: &Path, subject: &str) -> Result<Vec<PathBuf>> {
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
        column("epoch")?,
        column("loss")?,
        column("validation_loss")?,
        column("validation_accuracy")?,
        column("validation_se")?,
        column("seconds")?,
    ];
    let mut figure = NetworkTrainingFigure {
        title: format!("Training of {subject}"),
        training: Vec::new(),
        validation: Vec::new(),
        accuracy: Vec::new(),
        explanation: String::new(),
    };
    let mut total_s = 0.0;
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
        let [epoch, loss, validation, accuracy, se, seconds] = columns.map(field);
        let Some(epoch) = epoch? else { continue };
        total_s += seconds?.unwrap_or(0.0);
        figure.training.extend(loss?.map(|loss| (epoch, loss)));
        figure.validation.extend(validation?.map(|loss| (epoch, loss)));
        if let (Some(accuracy), Some(se)) = (accuracy?, se?) {
            figure.accuracy.push((epoch, 100.0 * accuracy, 100.0 * se));
        }
    }
    if figure.accuracy.is_empty() {
        return Ok(Vec::new());
    }
    figure.explanation =
        format!("{} epochs, {:.1} min of steps; bars: ±1 s.e.", figure.training.len(), total_s / 60.0);
    save(&figure, &folder.join("training"))
}

impl Figure for NetworkTrainingFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let (train, validate) = (Mark::Line(BLUE.mix(1.0)), Mark::Line(ORANGE.mix(1.0)));
        let best = self.accuracy.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.total_cmp(&a.0)));
        let mut legend =
            vec![(train, "training images".to_owned()), (validate, "validation images".to_owned())];
        legend.extend(best.map(|best| (RED_STAR, format!("best: {:.1} %", best.1))));
        let body = canvas.head(&self.title, &self.explanation, &legend)?;
        let (left, right) = body.split_horizontally(body.dim_in_pixel().0 / 2);
        let x = Axis::around("Epoch", self.accuracy.iter().map(|p| p.0), 0.0..f64::INFINITY);
        let losses = self.training.iter().chain(&self.validation).map(|p| p.1);
        let y = Axis::around("Cross entropy (nats)", losses, f64::NEG_INFINITY..f64::INFINITY);
        let mut chart = canvas.chart(&left, &x, &y)?;
        canvas.points(&mut chart, train, &self.training)?;
        canvas.points(&mut chart, validate, &self.validation)?;
        let values = self.accuracy.iter().flat_map(|&(_, accuracy, se)| [accuracy - se, accuracy + se]);
        let y = Axis::around("Validation accuracy (%)", values, 0.0..100.0);
        let mut chart = canvas.chart(&right, &x, &y)?;
        let bars = self.accuracy.iter().map(|&(epoch, accuracy, se)| (epoch, accuracy - se, accuracy + se));
        canvas.bars(&mut chart, ORANGE.mix(0.6), &y, bars)?;
        let places: Vec<(f64, f64)> = self.accuracy.iter().map(|p| (p.0, p.1)).collect();
        canvas.points(&mut chart, validate, &places)?;
        canvas.points(&mut chart, RED_STAR, best.map(|best| (best.0, best.1)).as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_and_damage_is_named_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = folder.path().join("metrics.csv");
        let header = "epoch,loss,seconds,validation_accuracy,validation_se,validation_loss\n";
        let draw = |rows: &str| {
            std::fs::write(&metrics, format!("{header}{rows}")).unwrap();
            network_training_plot(&metrics, folder.path(), "resnet18")
        };
        let files = draw("0,,0,0.1,0.01,2.3\n1,1.5,60,0.5,0.02,1.4\n").unwrap();
        let svg = std::fs::read_to_string(&files[1]).unwrap();
        assert!(svg.contains("Training of resnet18") && svg.contains("best: 50.0 %"));
        assert!(draw("").unwrap().is_empty());
        let message = draw("0,,0,0.1,0.01,2.3\n1,high,60,0.5,0.02,1.4\n").unwrap_err().to_string();
        assert!(message.contains("line 3: `high` is not a number"), "{message}");
    }
}
