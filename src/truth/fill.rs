//! Trains what a truth set lacks, several architectures side by side.
//!
//! Each worker trains one architecture at a time in a thread pool of its own. What a training gives depends on the
//! configuration alone, not on workers or threads; only times do. While a latency is measured all other workers wait.

use super::rows::{CurvePoint, TruthRow};
use super::set::TruthSet;
use super::workers::side_by_side;
use crate::execute::NativeExecutor;
use crate::files::create_folders;
use crate::images::{DataSet, PreparedImages};
use crate::network::{Network, build};
use crate::score::{LatencyOptions, Scores, latency};
use crate::space::ArchRecord;
use crate::training::{
    Ending, EpochReport, NetworkObserver, NetworkTrainer, NetworkTraining, fit_network, random_weights,
};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// Is told what happens while a set is filled, by all workers.
pub trait FillObserver: Sync {
    /// A training of `macs` multiply-accumulates an image goes on; `images` were seen before this session.
    fn resumed(&self, macs: u64, images: u64);
    /// A step on `images` images was taken.
    fn step(&self, macs: u64, images: u64);
    /// A training is over and stored.
    fn finished(&self, row: &TruthRow);
}

/// How a set is filled; results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillOptions {
    /// Trainings that run side by side.
    pub workers: usize,
    /// Threads of each.
    pub threads: usize,
    /// Whether trained weights are kept, in the folder `weights` of the set, for other measurements.
    pub keep_weights: bool,
}

/// Trains the missing architectures of `set` until all are there or `stop` becomes true.
///
/// # Errors
/// If files cannot be written or a training cannot be set up; what was finished is stored. A training that diverges
/// is no error but a row that says so.
pub fn fill(
    set: TruthSet,
    data: &DataSet,
    options: FillOptions,
    stop: &AtomicBool,
    observer: &dyn FillObserver,
) -> Result<(Ending, TruthSet)> {
    let jobs: Vec<(ArchRecord, u64)> =
        set.missing().into_iter().map(|(record, repeat)| (record.clone(), repeat)).collect();
    let unfinished = set.folder().join("unfinished");
    create_folders(&unfinished)?;
    let config = set.config().clone();
    let shared =
        Shared { set: Mutex::new(set), quiet: RwLock::new(()), observer, stop, data, unfinished, options };
    let ending = side_by_side(&jobs, [options.workers, options.threads], stop, |(record, repeat)| {
        shared.train(config.training_of(record, *repeat))
    })?;
    let Shared { set, unfinished, .. } = shared;
    if ending == Ending::Finished {
        // Fails where something else lies in it, which is then left alone.
        let _ = std::fs::remove_dir(&unfinished);
    }
    Ok((ending, set.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What the workers share.
struct Shared<'a> {
    set: Mutex<TruthSet>,
    /// Held for reading by trainings at work, for writing while a latency is measured.
    quiet: RwLock<()>,
    observer: &'a dyn FillObserver,
    stop: &'a AtomicBool,
    data: &'a DataSet,
    unfinished: PathBuf,
    options: FillOptions,
}

impl Shared<'_> {
    fn train(&self, training: NetworkTraining) -> Result<Ending> {
        let (record, seed) = (training.architecture.clone(), training.seed);
        let name = format!("{}-seed{seed}", record.id.replace('/', "-"));
        let folder = self.unfinished.join(&name);
        let resume = folder.join("checkpoint.safetensors").exists();
        let config = self.set.lock().unwrap_or_else(PoisonError::into_inner).config().clone();
        let init = config.training.initial().map_err(Error::Config)?;
        let network = build(&record.arch, record.num_classes)?;
        let macs = network.cost().macs;
        let mut pupil = Pupil { shared: self, macs, batch: 0, turn: Some(self.turn()) };
        let initial = |network: &Network| Ok(random_weights(network, init, seed));
        let fitted = fit_network(training, self.data, &folder, resume, initial, self.stop, &mut pupil);
        let mut row = TruthRow {
            id: record.id.clone(),
            hash: record.arch.arch_hash(),
            seed,
            scores: Scores { params: Some(network.cost().params), macs: Some(macs), ..Scores::default() },
            reason: None,
            curve: Vec::new(),
            train_s: 0.0,
        };
        let trainer = match fitted {
            Ok((Ending::Stopped, _)) => return Ok(Ending::Stopped),
            Ok((Ending::Finished, trainer)) => Some(trainer),
            Err(Error::NonFinite(reason)) => {
                row.reason = Some(reason);
                None
            }
            Err(error) => return Err(error),
        };
        row.curve = curve_of(&folder)?;
        row.train_s = row.curve.iter().map(|point| point.seconds).sum();
        if let Some(trainer) = trainer {
            let evaluation = &config.evaluation;
            let images = self.data.test.as_ref().unwrap_or(&self.data.validation);
            let count = evaluation.test_images.unwrap_or(images.len());
            let outcome = trainer.test(images, count, &evaluation.noise, evaluation.noise_seed)?;
            row.scores.set_accuracy(&outcome.clean);
            row.scores.set_noise(outcome.noise);
            drop(pupil);
            let timed = self.data.validation.prepare(evaluation.latency_batch)?;
            self.time(&network, trainer.params(), &timed, &mut row.scores)?;
        }
        if self.options.keep_weights && row.reason.is_none() {
            let kept = self.unfinished.with_file_name("weights");
            create_folders(&kept)?;
            let kept = kept.join(format!("{name}.safetensors"));
            let weights = folder.join("weights.safetensors");
            std::fs::rename(&weights, &kept).map_err(Error::io("keep", &weights))?;
        }
        self.set.lock().unwrap_or_else(PoisonError::into_inner).add(row.clone())?;
        std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        self.observer.finished(&row);
        Ok(Ending::Finished)
    }

    /// The latency on one thread, with nothing else of this program running.
    fn time(
        &self,
        network: &Network,
        params: &[f32],
        images: &PreparedImages,
        scores: &mut Scores,
    ) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(|error| Error::Config(format!("a thread cannot be started: {error}")))?;
        let options = LatencyOptions { batch: images.len(), ..LatencyOptions::default() };
        let mut executor = NativeExecutor::<f32>::new(network, images.len())?;
        let _alone = self.quiet.write().unwrap_or_else(PoisonError::into_inner);
        scores.set_latency(&pool.install(|| latency(&mut executor, params, images, &options))?);
        Ok(())
    }

    fn turn(&self) -> RwLockReadGuard<'_, ()> {
        self.quiet.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epochs of a training, from the metrics in its folder: one that was resumed saw its end only.
fn curve_of(folder: &Path) -> Result<Vec<CurvePoint>> {
    let path = folder.join("metrics.csv");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let point = |line: &str| -> Option<CurvePoint> {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |name: &str| fields.get(header.iter().position(|column| *column == name)?).copied();
        let number = |name: &str| field(name)?.parse::<f64>().ok();
        Some(CurvePoint {
            epoch: field("epoch")?.parse().ok()?,
            step: field("step")?.parse().ok()?,
            loss: number("loss"),
            accuracy: number("validation_accuracy")?,
            validation_loss: number("validation_loss")?,
            seconds: number("seconds")?,
        })
    };
    lines
        .enumerate()
        .map(|(i, line)| {
            point(line).ok_or_else(|| Error::format(&path, format!("line {}: not an epoch", i + 2)))
        })
        .collect()
}

/// Watches one training.
struct Pupil<'a> {
    shared: &'a Shared<'a>,
    macs: u64,
    /// Images of a step.
    batch: u64,
    turn: Option<RwLockReadGuard<'a, ()>>,
}

impl NetworkObserver for Pupil<'_> {
    fn begins(&mut self, trainer: &NetworkTrainer) {
        let config = trainer.config();
        self.batch = config.batch.min(trainer.training_images()) as u64;
        self.shared.observer.resumed(self.macs, trainer.steps_taken() * self.batch);
    }

    fn step(&mut self, _step: u64, _loss: f64) {
        self.shared.observer.step(self.macs, self.batch);
        // Lets a latency be measured between two steps.
        self.turn = None;
        self.turn = Some(self.shared.turn());
    }

    fn epoch(&mut self, _report: &EpochReport, _best: f64) {}
}
