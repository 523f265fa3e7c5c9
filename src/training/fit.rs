//! Runs a training to its end: steps, evaluations, checkpoints, metrics.
//!
//! The run's folder holds `config.toml` (resolved), `checkpoint.safetensors` (everything needed to resume),
//! `metrics.csv`, `last.safetensors` and `best.safetensors` (the GHN alone; best by held-out mean accuracy), and
//! `lock`, a file that is locked while a process trains.

use super::config::TrainConfig;
use super::metrics::Metrics;
use super::trainer::{HeldOutReport, StepReport, Trainer};
use crate::files::{create_folders, write_atomically};
use crate::images::DataSet;
use crate::{Error, Result};
use candle_core::Device;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Is told what happens in a run.
pub trait Observer {
    /// A step was taken.
    fn step(&mut self, report: &StepReport, total: u64);
    /// The held-out architectures were evaluated.
    fn held_out(&mut self, report: &HeldOutReport, best: f64);
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were taken.
    Finished,
    /// It was stopped and can be resumed.
    Stopped,
}

/// Keeps other processes from training in `folder` while the file is held.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Config(format!(
            "{} is in use: another process is training in this run folder",
            folder.display()
        ))),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
    }
}

pub(super) fn holds_a_run(folder: &Path) -> Error {
    Error::Config(format!(
        "{} holds a training run; continue it with --resume, or choose another folder with --out",
        folder.display()
    ))
}

/// Trains in `folder` until the configured number of steps is reached or `stop` becomes true.
///
/// # Errors
/// If the folder holds a run and `resume` is false, or none and `resume` is true; if files cannot be written, or
/// training fails. The last checkpoint stays whole.
pub fn fit_ghn(
    config: TrainConfig,
    data: &DataSet,
    folder: &Path,
    resume: bool,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Ending> {
    fit_ghn_on(&Device::Cpu, config, data, folder, resume, stop, observer)
}

/// [`fit_ghn`] with the hypernetwork and the networks whose weights it predicts on `device`; the optimiser stays on the
/// CPU. A run may change its device on resume: checkpoints do not name one.
///
/// # Errors
/// As [`fit_ghn`], and if the device fails.
pub fn fit_ghn_on(
    device: &Device,
    config: TrainConfig,
    data: &DataSet,
    folder: &Path,
    resume: bool,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Ending> {
    let checkpoint = folder.join("checkpoint.safetensors");
    let (mut trainer, mut best, _lock) = match (checkpoint.exists(), resume) {
        (true, true) => {
            let lock = lock(folder)?;
            let (trainer, best) = Trainer::resume(&checkpoint, config, data)?;
            (trainer, best, lock)
        }
        (false, false) => {
            let trainer = Trainer::new(config, data)?;
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
                "--resume: {} holds no training run with a checkpoint; begin it without --resume",
                folder.display()
            )));
        }
    };
    if !device.is_cpu() {
        trainer.move_to(device)?;
    }
    let resolved = toml::to_string(trainer.config()).expect("a checked configuration serialises");
    write_atomically(folder.join("config.toml"), resolved.as_bytes())?;
    let mut metrics = Metrics::open(&folder.join("metrics.csv"), trainer.steps_taken())?;
    let total = trainer.config().steps;
    while trainer.steps_taken() < total {
        if stop.load(Ordering::Relaxed) {
            trainer.save(&checkpoint, best)?;
            return Ok(Ending::Stopped);
        }
        let started = Instant::now();
        let report = trainer.step()?;
        let seconds = started.elapsed().as_secs_f64();
        observer.step(&report, total);
        let taken = trainer.steps_taken();
        let evaluated = if taken.is_multiple_of(trainer.config().evaluation.every) || taken == total {
            let held_out = trainer.evaluate()?;
            let ghn = trainer.trained()?;
            ghn.save(folder.join("last.safetensors"))?;
            if best.is_none_or(|best| held_out.mean > best) {
                best = Some(held_out.mean);
                ghn.save(folder.join("best.safetensors"))?;
            }
            observer.held_out(&held_out, best.unwrap_or(held_out.mean));
            Some(held_out)
        } else {
            None
        };
        metrics.append(&report, seconds, evaluated.as_ref())?;
        if taken.is_multiple_of(trainer.config().checkpoint_every) || taken == total {
            trainer.save(&checkpoint, best)?;
        }
    }
    Ok(Ending::Finished)
}
