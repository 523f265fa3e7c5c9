//! Runs the training of a network to its end: steps, evaluations, checkpoints, metrics.
//!
//! The run's folder holds `config.json`, `checkpoint.safetensors` (everything needed to resume), `metrics.csv` (a row
//! an epoch), `weights.safetensors` (written at the end), and `lock`, a file that is locked while a process trains.

use super::config::NetworkTraining;
use super::trainer::{EpochReport, NetworkTrainer};
use crate::files::{create_folders, write_atomically};
use crate::images::DataSet;
use crate::network::Network;
use crate::training::fit::{Ending, holds_a_run, lock};
use crate::{Error, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const HEADER: &str =
    "epoch,step,loss,gradient_norm,clipped,lr,seconds,validation_accuracy,validation_se,validation_loss";

/// Is told what happens in a training.
pub trait NetworkObserver {
    /// The training begins, or goes on, at `step`.
    fn begins(&mut self, trainer: &NetworkTrainer);
    /// A step was taken; `step` counts them.
    fn step(&mut self, step: u64, loss: f64);
    /// An epoch is over; `best` is the best validation accuracy so far.
    fn epoch(&mut self, report: &EpochReport, best: f64);
}

/// Trains in `folder` until the epochs are over or `stop` becomes true; `initial` makes the weights of a training
/// that begins.
///
/// # Errors
/// If the folder holds a training and `resume` is false, or none and `resume` is true; if files cannot be written,
/// or the training diverges. The last checkpoint stays whole.
pub fn fit_network(
    config: NetworkTraining,
    data: &DataSet,
    folder: &Path,
    resume: bool,
    initial: impl FnOnce(&Network) -> Result<Vec<f32>>,
    stop: &AtomicBool,
    observer: &mut dyn NetworkObserver,
) -> Result<(Ending, NetworkTrainer)> {
    let checkpoint = folder.join("checkpoint.safetensors");
    let (mut trainer, mut best, _lock) = match (checkpoint.exists(), resume) {
        (true, true) => {
            let lock = lock(folder)?;
            let (trainer, best) = NetworkTrainer::resume(&checkpoint, config, data)?;
            (trainer, best, lock)
        }
        (false, false) => {
            let trainer = NetworkTrainer::new(config, data, initial)?;
            create_folders(folder)?;
            let lock = lock(folder)?;
            // Another process may have trained here until now.
            if checkpoint.exists() {
                return Err(holds_a_run(folder));
            }
            (trainer, None, lock)
        }
        (true, false) => return Err(holds_a_run(folder)),
        (false, true) => {
            return Err(Error::Config(format!(
                "--resume: {} holds no training with a checkpoint; begin it without --resume",
                folder.display()
            )));
        }
    };
    let settings = serde_json::to_string_pretty(trainer.config()).expect("plain data serialises");
    write_atomically(folder.join("config.json"), (settings + "\n").as_bytes())?;
    let metrics = folder.join("metrics.csv");
    let mut rows = kept_rows(&metrics, trainer.steps_taken())?;
    observer.begins(&trainer);
    if trainer.steps_taken() == 0 {
        let report = trainer.report()?;
        best = Some(report.validation.share());
        observer.epoch(&report, report.validation.share());
        rows += &row(&report);
        write_atomically(&metrics, rows.as_bytes())?;
        trainer.save(&checkpoint, best)?;
    }
    while trainer.steps_taken() < trainer.total_steps() {
        if stop.load(Ordering::Relaxed) {
            trainer.save(&checkpoint, best)?;
            return Ok((Ending::Stopped, trainer));
        }
        let loss = trainer.step()?;
        observer.step(trainer.steps_taken(), loss);
        if trainer.steps_taken().is_multiple_of(trainer.steps_per_epoch()) {
            let report = trainer.report()?;
            let accuracy = report.validation.share();
            let so_far = best.map_or(accuracy, |best| best.max(accuracy));
            best = Some(so_far);
            observer.epoch(&report, so_far);
            rows += &row(&report);
            write_atomically(&metrics, rows.as_bytes())?;
            trainer.save(&checkpoint, best)?;
        }
    }
    trainer.write_weights(&folder.join("weights.safetensors"))?;
    Ok((Ending::Finished, trainer))
}

/// The rows of the metrics up to `step`; later ones come again.
fn kept_rows(path: &Path, step: u64) -> Result<String> {
    let mut kept = format!("{HEADER}\n");
    let old = match std::fs::read_to_string(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(kept),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut lines = old.lines();
    if lines.next().is_some_and(|header| header != HEADER) {
        return Err(Error::format(path, format!("first line is not `{HEADER}`")));
    }
    for line in lines {
        let at = line.split(',').nth(1).and_then(|field| field.parse::<u64>().ok());
        if step > 0 && at.is_some_and(|at| at <= step) {
            kept += line;
            kept.push('\n');
        }
    }
    Ok(kept)
}

fn row(report: &EpochReport) -> String {
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let EpochReport { epoch, step, loss, gradient_norm, clipped, lr, seconds, validation } = report;
    format!(
        "{epoch},{step},{},{},{clipped},{},{seconds:.3},{},{},{}\n",
        optional(*loss),
        optional(*gradient_norm),
        optional(*lr),
        validation.share(),
        validation.standard_error(),
        validation.loss
    )
}
