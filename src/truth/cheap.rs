//! Cheap scores of the architectures of a truth set, with what each costs.
//!
//! In: a truth set, a hypernetwork, images. Out: for each architecture a [`CheapRow`], stored as soon as it is measured:
//! parameters, multiply-accumulates and peak activations; accuracy and loss on clean and on noisy validation images with predicted
//! weights, and after some steps of SGD that begin at predicted or at He's random weights. Every number of steps is a
//! training of its own, with a cosine over its own length. Truth and cheap scores use different images: these the
//! training and validation images, the truth's verdict the test images.

use super::set::TruthSet;
use super::workers::side_by_side;
use crate::execute::NativeExecutor;
use crate::files::write_atomically;
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{Augmentation, DataSet, NoiseBank, PreparedImages};
use crate::network::{Network, build};
use crate::score::{Fidelity, accuracy};
use crate::space::{ArchHash, ArchRecord};
use crate::training::{
    Ending, NetworkTrainer, NetworkTraining, RandomInit, SgdConfig, first_difference, random_weights,
};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How cheap scores are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheapPlan {
    /// The hypernetwork: its file, or `bundled`.
    pub ghn: String,
    /// The first digits of its SHA-256, so that another one of the same name is noticed.
    pub ghn_sha256: String,
    /// Validation images that scores are measured on.
    pub eval_images: usize,
    /// Images of a batch in evaluation.
    pub eval_batch: usize,
    /// Standard deviation of the noise.
    pub noise: f64,
    /// Seed of the noise.
    pub noise_seed: u64,
    /// Images of a batch in training; all else is as in the stages of a search.
    pub train_batch: usize,
    /// Learning rate from predicted weights.
    pub lr_predicted: f64,
    /// Learning rate from random weights.
    pub lr_he: f64,
    /// Seed of the images' order and of random weights.
    pub seed: u64,
}

/// One way of scoring an architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Scores by name, higher is better; what is not finite is absent.
    pub scores: BTreeMap<String, f64>,
    /// Time, s; depends on what else the machine did.
    pub seconds: f64,
    /// Multiply-accumulates: forward passes count once, training steps three times. Prediction of weights is not
    /// in it.
    pub macs: f64,
}

/// The cheap scores of one architecture, by the way of scoring: `params`, `predicted`, `sgd:50`, ...
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheapRow {
    /// Name in the truth set.
    pub id: String,
    /// Canonical hash.
    pub hash: ArchHash,
    /// Ways of scoring.
    pub ways: BTreeMap<String, Measured>,
}

/// Names of the scores that need no image: parameters, multiply-accumulates and the most activations alive at once.
pub const SIZES: [&str; 3] = ["params", "macs", "peak activations"];

/// Names of the scores that weights have on images.
pub const IMAGE_SCORES: [&str; 4] = ["accuracy", "loss", "noisy accuracy", "noisy loss"];

/// A score that needs one batch of training images at most, of a network with given weights; higher is better.
pub type OneBatchScore = fn(&Network, &[f32], &PreparedImages) -> Result<f64>;

/// Measures what is missing of `fidelities` for the architectures of a truth set.
pub struct CheapScorer<'a> {
    plan: CheapPlan,
    ghn: Ghn,
    data: &'a DataSet,
    train_images: usize,
    clean: PreparedImages,
    noisy: NoiseBank,
    set: &'a TruthSet,
    one_batch: Vec<(&'static str, OneBatchScore)>,
    batch: PreparedImages,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    plan: CheapPlan,
}

const FORMAT: &str = "foretell-cheap-scores";
const VERSION: u32 = 1;

/// Reads stored scores; those measured by another plan are an error. The hypernetwork need not be there any more: which
/// one it was is not compared beyond its name.
///
/// # Errors
/// If the file cannot be read, a line is damaged, or the plan differs; the message names it.
pub fn read_stored(path: &Path, plan: &CheapPlan) -> Result<Vec<CheapRow>> {
    let Some((header, rows)) = read(path)? else { return Ok(Vec::new()) };
    let known = CheapPlan { ghn_sha256: header.ghn_sha256.clone(), ..plan.clone() };
    same_plan(path, &header, &known).map(|()| rows)
}

/// Reads stored scores to go on with `plan`.
fn read_to_go_on(path: &Path, plan: &CheapPlan) -> Result<Vec<CheapRow>> {
    let Some((header, rows)) = read(path)? else { return Ok(Vec::new()) };
    same_plan(path, &header, plan).map(|()| rows)
}

fn same_plan(path: &Path, header: &CheapPlan, plan: &CheapPlan) -> Result<()> {
    match first_difference(header, plan) {
        None => Ok(()),
        Some(key) => Err(Error::format(
            path,
            format!(
                "the scores were measured with another value of `{key}`; go on with that one, or name another folder"
            ),
        )),
    }
}

/// The plan and the rows of a file, if there is one.
fn read(path: &Path) -> Result<Option<(CheapPlan, Vec<CheapRow>)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let wrong = |line: usize, reason: String| Error::format(path, format!("line {line}: {reason}"));
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap_or_default())
        .map_err(|error| wrong(1, error.to_string()))?;
    if (header.format.as_str(), header.version) != (FORMAT, VERSION) {
        return Err(wrong(1, format!("{} version {}", header.format, header.version)));
    }
    let rows = lines
        .enumerate()
        .map(|(i, line)| serde_json::from_str(line).map_err(|error| wrong(i + 2, error.to_string())))
        .collect::<Result<_>>()?;
    Ok(Some((header.plan, rows)))
}

fn write_cheap(path: &Path, plan: &CheapPlan, rows: &[CheapRow]) -> Result<()> {
    let header = Header { format: FORMAT.into(), version: VERSION, plan: plan.clone() };
    let json = |text: serde_json::Result<String>| text.expect("plain data serialises") + "\n";
    let mut text = json(serde_json::to_string(&header));
    rows.iter().for_each(|row| text += &json(serde_json::to_string(row)));
    write_atomically(path, text.as_bytes())
}

impl<'a> CheapScorer<'a> {
    /// Prepares images and noise.
    ///
    /// # Errors
    /// If hypernetwork and images differ in their classes, or a setting is out of range.
    pub fn new(set: &'a TruthSet, plan: CheapPlan, ghn: Ghn, data: &'a DataSet) -> Result<CheapScorer<'a>> {
        ghn.check_classes(data.classes().len(), &set.config().training.images)?;
        let Some(first) = set.architectures().first() else {
            return Err(Error::Config(format!("{} holds no architecture", set.folder().display())));
        };
        let training = NetworkTraining { shots: None, ..set.config().training_of(first, 0) };
        let (train, validation) = training.split(data)?;
        let noisy = NoiseBank::new(&validation, plan.eval_images, &[plan.noise], plan.noise_seed)?;
        let clean = validation.prepare(plan.eval_images)?;
        let batch = train.prepare(plan.train_batch)?;
        let train_images = train.len();
        Ok(CheapScorer { plan, ghn, data, train_images, clean, noisy, set, one_batch: Vec::new(), batch })
    }

    /// Measures these scores too, with He's random weights on the first training images.
    pub fn with_one_batch_scores(mut self, scores: &[(&'static str, OneBatchScore)]) -> CheapScorer<'a> {
        self.one_batch.extend_from_slice(scores);
        self
    }

    /// Scores every trained architecture at every fidelity that `path` does not hold yet, and stores the scores there
    /// as they come. `parallel` is the number of architectures that are scored side by side and the threads of each.
    ///
    /// # Errors
    /// If files cannot be read or written, or an architecture cannot be built.
    pub fn fill(
        &self,
        path: &Path,
        fidelities: &[Fidelity],
        parallel: [usize; 2],
        stop: &AtomicBool,
        observer: &(dyn Fn(usize, usize, &str) + Sync),
    ) -> Result<(Ending, Vec<CheapRow>)> {
        let rows = read_to_go_on(path, &self.plan)?;
        let names: Vec<String> = fidelities.iter().map(ToString::to_string).collect();
        let is_known = |record: &ArchRecord, name: &str| {
            rows.iter().any(|row| row.id == record.id && row.ways.contains_key(name))
        };
        let mut jobs: Vec<(&ArchRecord, Vec<Fidelity>)> = Vec::new();
        let is_trained = |record: &&ArchRecord| self.set.rows().iter().any(|row| row.id == record.id);
        for record in self.set.architectures().iter().filter(is_trained) {
            let missing = fidelities.iter().zip(&names).filter(|(_, name)| !is_known(record, name));
            let missing: Vec<Fidelity> = missing.map(|(fidelity, _)| *fidelity).collect();
            let mut rest = SIZES.into_iter().chain(self.one_batch.iter().map(|(name, _)| *name));
            let has_rest = rest.all(|name| is_known(record, name));
            if !missing.is_empty() || !has_rest {
                jobs.push((record, missing));
            }
        }
        let total = jobs.len();
        let rows = Mutex::new((rows, 0));
        let ending = side_by_side(&jobs, parallel, stop, |(record, missing)| {
            let Some(ways) = self.score(record, missing, stop)? else { return Ok(Ending::Stopped) };
            let mut state = rows.lock().unwrap_or_else(PoisonError::into_inner);
            let (rows, done) = &mut *state;
            match rows.iter_mut().find(|row| row.id == record.id) {
                Some(row) => row.ways.extend(ways),
                None => {
                    rows.push(CheapRow { id: record.id.clone(), hash: record.arch.arch_hash(), ways });
                }
            }
            *done += 1;
            let place = |row: &CheapRow| self.set.architectures().iter().position(|r| r.id == row.id);
            rows.sort_by_key(place);
            write_cheap(path, &self.plan, rows)?;
            observer(*done, total, &record.id);
            Ok(Ending::Finished)
        })?;
        Ok((ending, rows.into_inner().unwrap_or_else(PoisonError::into_inner).0))
    }

    /// None if it was stopped.
    fn score(
        &self,
        record: &ArchRecord,
        fidelities: &[Fidelity],
        stop: &AtomicBool,
    ) -> Result<Option<BTreeMap<String, Measured>>> {
        let mut ways = BTreeMap::new();
        let network = build(&record.arch, record.num_classes)?;
        let began = Instant::now();
        let cost = network.cost();
        let seconds = began.elapsed().as_secs_f64();
        let sizes = [cost.params, cost.macs, cost.peak_activations];
        for (name, value) in SIZES.into_iter().zip(sizes) {
            let scores = BTreeMap::from([(name.to_owned(), value as f64)]);
            ways.insert(name.to_owned(), Measured { scores, seconds, macs: 0.0 });
        }
        for (name, score) in &self.one_batch {
            let began = Instant::now();
            let params = random_weights(&network, RandomInit::He, self.plan.seed);
            let scores = match score(&network, &params, &self.batch) {
                Ok(value) => BTreeMap::from([((*name).to_owned(), value)]),
                Err(Error::NonFinite(_)) => BTreeMap::new(),
                Err(error) => return Err(error),
            };
            let seconds = began.elapsed().as_secs_f64();
            // A forward and a backward pass at the most.
            let macs = 3.0 * cost.macs as f64 * self.batch.len() as f64;
            ways.insert((*name).to_owned(), Measured { scores, seconds, macs });
        }
        for &fidelity in fidelities {
            let began = Instant::now();
            let (steps, lr) = match fidelity {
                Fidelity::Predicted => (0, 0.0),
                Fidelity::Sgd { steps } => (steps, self.plan.lr_predicted),
                Fidelity::He { steps } => (steps, self.plan.lr_he),
                Fidelity::Trained => return Err(Error::Config("`trained` is the truth itself".into())),
            };
            let mut params = match fidelity {
                Fidelity::He { .. } => random_weights(&network, RandomInit::He, self.plan.seed),
                _ => {
                    let graph = Graph::of(&network);
                    self.ghn.predict_batch(&[(&network, &graph)])?.params.to_vec1::<f32>()?
                }
            };
            let mut scores = BTreeMap::new();
            match self.train(record, &mut params, steps, lr, stop) {
                Ok(None) => return Ok(None),
                Ok(Some(losses)) => {
                    if steps > 0 {
                        let mean = losses.iter().sum::<f64>() / steps as f64;
                        scores.insert("training loss".to_owned(), -mean);
                    }
                    scores.extend(self.on_images(&network, &params)?);
                }
                Err(Error::NonFinite(_)) => {}
                Err(error) => return Err(error),
            }
            let seconds = began.elapsed().as_secs_f64();
            let evaluated = 2.0 * self.clean.len() as f64;
            let macs = cost.macs as f64 * (3.0 * (steps * self.plan.train_batch as u64) as f64 + evaluated);
            ways.insert(fidelity.to_string(), Measured { scores, seconds, macs });
        }
        Ok(Some(ways))
    }

    /// Scores of weights on clean and noisy images, higher is better.
    fn on_images(&self, network: &Network, params: &[f32]) -> Result<BTreeMap<String, f64>> {
        let batch = self.plan.eval_batch.min(self.clean.len());
        let mut executor = NativeExecutor::<f32>::new(network, batch)?;
        let mut scores = BTreeMap::new();
        let noisy = self.noisy.levels().iter().map(|(_, images)| images);
        for (images, names) in std::iter::once(&self.clean).chain(noisy).zip(IMAGE_SCORES.chunks(2)) {
            match accuracy(&mut executor, params, images, batch) {
                Ok(found) => {
                    scores.insert(names[0].to_owned(), found.share());
                    scores.insert(names[1].to_owned(), -found.loss);
                }
                Err(Error::NonFinite(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(scores)
    }

    /// `steps` of SGD with a cosine over them, as in a search's stages; returns the losses of the batches, or nothing if
    /// it was stopped.
    fn train(
        &self,
        record: &ArchRecord,
        params: &mut Vec<f32>,
        steps: u64,
        lr: f64,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>> {
        if steps == 0 {
            return Ok(Some(Vec::new()));
        }
        let per_epoch = self.train_images / self.plan.train_batch.min(self.train_images);
        let config = NetworkTraining {
            shots: None,
            epochs: steps.div_ceil(per_epoch as u64),
            batch: self.plan.train_batch,
            optimizer: SgdConfig { lr, ..SgdConfig::default() },
            warmup: 0,
            clip: 5.0,
            augmentation: Augmentation::default(),
            eval_images: 1,
            seed: self.plan.seed,
            ..self.set.config().training_of(record, 0)
        };
        let initial = std::mem::take(params);
        let mut trainer = NetworkTrainer::new(config, self.data, |_| Ok(initial))?.of_length(steps);
        let mut losses = Vec::with_capacity(steps as usize);
        while trainer.steps_taken() < steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            losses.push(trainer.step()?);
        }
        *params = trainer.params().to_vec();
        Ok(Some(losses))
    }
}
