//! Rows of a truth set: JSON lines, one for each trained architecture, and tables made from them.

use crate::score::Scores;
use crate::space::ArchHash;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The state after an epoch; the one numbered 0 is before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Epochs finished.
    pub epoch: u64,
    /// Optimiser steps taken.
    pub step: u64,
    /// Mean cross entropy over the epoch's training batches, nats.
    pub loss: Option<f64>,
    /// Share of the validation images classified correctly.
    pub accuracy: f64,
    /// Mean cross entropy on them, nats.
    pub validation_loss: f64,
    /// Time of the epoch's steps, s.
    pub seconds: f64,
}

/// What became of one architecture with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthRow {
    /// Name of the architecture in the set.
    pub id: String,
    /// Its canonical hash.
    pub hash: ArchHash,
    /// Seed of the training.
    pub seed: u64,
    /// On test images; without accuracies if the training diverged.
    pub scores: Scores,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Validation accuracy over the epochs.
    pub curve: Vec<CurvePoint>,
    /// Time of all steps, s; depends on what else the machine did.
    pub train_s: f64,
}

impl TruthRow {
    /// The accuracy on test images at the noise level `sd`; 0 is clean.
    pub fn accuracy_at(&self, sd: f64) -> Option<f64> {
        if sd == 0.0 {
            return self.scores.accuracy;
        }
        self.scores.noise.iter().find(|level| level.sd == sd).map(|level| level.accuracy)
    }

    /// How soon it learned: the mean of the validation accuracy over the training's steps, 0..1 (area under the curve
    /// by the trapezoid rule). None of a training that diverged, or of fewer than two points.
    pub fn convergence(&self) -> Option<f64> {
        self.scores.accuracy?;
        let steps =
            self.curve.last()?.step.checked_sub(self.curve.first()?.step).filter(|&steps| steps > 0)?;
        let area = |pair: &[CurvePoint]| {
            (pair[1].step - pair[0].step) as f64 * f64::midpoint(pair[0].accuracy, pair[1].accuracy)
        };
        Some(self.curve.windows(2).map(area).sum::<f64>() / steps as f64)
    }
}

/// Reads rows; one that came twice is kept once, so that files of several sittings can be joined.
///
/// # Errors
/// If the file cannot be read or a line is damaged; the message names it.
pub(super) fn read_rows(path: &Path) -> Result<Vec<TruthRow>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut rows: Vec<TruthRow> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: TruthRow = serde_json::from_str(line)
            .map_err(|error| Error::format(path, format!("line {}: {error}", number + 1)))?;
        if !rows.iter().any(|known| (&known.id, known.seed) == (&row.id, row.seed)) {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Rows as JSON lines.
pub(super) fn rows_to_text(rows: &[TruthRow]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).expect("plain data serialises") + "\n").collect()
}

/// A row for each training; absent numbers are empty fields.
pub(super) fn table_csv(rows: &[TruthRow], noise: &[f64]) -> String {
    let levels: String = noise.iter().map(|sd| format!(",accuracy_sd_{sd}")).collect();
    let mut text = format!(
        "id,hash,seed,accuracy,accuracy_se,loss,test_images{levels},robustness,last_validation_accuracy,convergence,\
         latency_ms,params,macs,train_s,reason\n"
    );
    fn optional(value: Option<impl ToString>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    for row in rows {
        let scores = &row.scores;
        let noisy: String = noise.iter().map(|&sd| format!(",{}", optional(row.accuracy_at(sd)))).collect();
        text += &format!(
            "{},{},{},{},{},{},{}{noisy},{},{},{},{},{},{},{:.1},{}\n",
            row.id,
            row.hash,
            row.seed,
            optional(scores.accuracy),
            optional(scores.accuracy_se),
            optional(scores.loss),
            optional(scores.images),
            optional(scores.robustness),
            optional(row.curve.last().map(|point| point.accuracy)),
            optional(row.convergence()),
            optional(scores.latency_ms),
            optional(scores.params),
            optional(scores.macs),
            row.train_s,
            row.reason.as_deref().unwrap_or_default().replace([',', '\n'], " "),
        );
    }
    text
}

/// A row for each epoch of each training.
pub(super) fn curves_csv(rows: &[TruthRow]) -> String {
    let mut text = "id,seed,epoch,step,loss,validation_accuracy,validation_loss,seconds\n".to_owned();
    for row in rows {
        for point in &row.curve {
            let loss = point.loss.map_or_else(String::new, |loss| loss.to_string());
            let CurvePoint { epoch, step, accuracy, validation_loss, seconds, .. } = point;
            text += &format!(
                "{},{},{epoch},{step},{loss},{accuracy},{validation_loss},{seconds:.2}\n",
                row.id, row.seed
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convergence_is_the_area_under_the_curve() {
        let point = |step: u64, accuracy: f64| CurvePoint {
            epoch: 0,
            step,
            loss: None,
            accuracy,
            validation_loss: 1.0,
            seconds: 1.0,
        };
        let mut row = TruthRow {
            id: "small/0".into(),
            hash: serde_json::from_str("\"00000000000000000000000000000007\"").unwrap(),
            seed: 1,
            scores: Scores { accuracy: Some(0.8), ..Scores::default() },
            reason: None,
            curve: vec![point(0, 0.1), point(10, 0.5), point(40, 0.7)],
            train_s: 1.0,
        };
        // 10 steps at 0.3 and 30 at 0.6 in the mean.
        assert!((row.convergence().unwrap() - 0.525).abs() < 1e-12);
        let header = table_csv(&[], &[]);
        let column = header.trim_end().split(',').position(|name| name == "convergence").unwrap();
        let table = table_csv(std::slice::from_ref(&row), &[]);
        let fields: Vec<&str> = table.lines().nth(1).unwrap().split(',').collect();
        assert_eq!(fields.len(), header.split(',').count());
        assert!(fields[column].starts_with("0.52"), "{table}");
        row.scores.accuracy = None;
        assert_eq!(row.convergence(), None);
        row.scores.accuracy = Some(0.1);
        row.curve.truncate(1);
        assert_eq!(row.convergence(), None);
    }
}
