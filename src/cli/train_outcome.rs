//! What a network's training came to: files and text.

use crate::files::write_atomically;
use crate::training::{NetworkTrainer, Outcome, TrainOn};
use std::path::{Path, PathBuf};

/// A trained network with the outcome of its test.
pub(super) struct Tested<'a> {
    pub trainer: &'a NetworkTrainer,
    pub outcome: &'a Outcome,
    /// What it was tested on, in words.
    pub on: &'static str,
}

impl Tested<'_> {
    /// Accuracies and the confusion matrix, for a terminal.
    pub(super) fn summary(&self) -> String {
        let Outcome { clean, noise, confusion } = self.outcome;
        let mut text = format!(
            "{}: accuracy {:.2} ± {:.2} % on {} {}\n",
            self.trainer.config().architecture.id,
            100.0 * clean.share(),
            100.0 * clean.standard_error(),
            clean.images,
            self.on
        );
        for level in noise {
            text += &format!(
                "  with noise of sd {}: {:.2} ± {:.2} %\n",
                level.sd,
                100.0 * level.accuracy,
                100.0 * level.accuracy_se
            );
        }
        text + "rows: true classes, columns: predicted ones\n" + &confusion.to_text()
    }

    /// One row with the settings that matter and all results; noise levels as `sd=accuracy` joined by semicolons.
    fn result_csv(&self) -> String {
        let (config, clean) = (self.trainer.config(), &self.outcome.clean);
        let noise: Vec<String> =
            self.outcome.noise.iter().map(|level| format!("{}={}", level.sd, level.accuracy)).collect();
        let columns: Vec<(&str, String)> = vec![
            ("architecture", config.architecture.id.clone()),
            ("hash", config.architecture.arch.arch_hash().to_string()),
            ("init", config.init.clone()),
            ("images", config.images.clone()),
            (
                "train_on",
                match config.train_on {
                    TrainOn::Train => "train".into(),
                    TrainOn::Validation => "validation".into(),
                },
            ),
            ("shots", config.shots.map_or_else(String::new, |shots| shots.to_string())),
            ("seed", config.seed.to_string()),
            ("lr", config.optimizer.lr.to_string()),
            ("epochs", config.epochs.to_string()),
            ("steps", self.trainer.steps_taken().to_string()),
            ("params", self.trainer.params().len().to_string()),
            ("test_images", clean.images.to_string()),
            ("accuracy", clean.share().to_string()),
            ("accuracy_se", clean.standard_error().to_string()),
            ("loss", clean.loss.to_string()),
            ("noisy", noise.join(";")),
        ];
        let (names, values): (Vec<&str>, Vec<String>) =
            columns.into_iter().map(|(name, value)| (name, value.replace([',', '\n'], " "))).unzip();
        format!("{}\n{}\n", names.join(","), values.join(","))
    }
}

/// Writes `result.csv` (one row) and `confusion.csv` (a row for every class, with its accuracy) into `folder`.
pub(super) fn write_outcome(tested: &Tested<'_>, folder: &Path) -> crate::Result<Vec<PathBuf>> {
    let files = [("result.csv", tested.result_csv()), ("confusion.csv", tested.outcome.confusion.to_csv())];
    let mut written = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes())?;
        written.push(path);
    }
    Ok(written)
}
