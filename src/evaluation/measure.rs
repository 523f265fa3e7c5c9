//! Measuring: every architecture of every group with weights from every source.
//!
//! The folder holds `evaluation.json` (the settings), `architectures.csv` (a row for every architecture and source) and,
//! if networks are trained for comparison, `sgd.csv` (their curves). What is there is not measured again, so more
//! architectures, groups or sources can be added, and an interrupted run goes on.

use super::groups::Group;
use super::rows::{Appended, CurvePoint, Row};
use crate::execute::{CandleExecutor, NativeExecutor, Precision};
use crate::files::{create_folders, write_atomically};
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{Augmentation, DataSet, ImageSet, PreparedImages};
use crate::network::{Network, build};
use crate::score::{self, ResidentImages};
use crate::space::ArchRecord;
use crate::training::{NetworkTrainer, NetworkTraining, RandomInit, SgdConfig, TrainOn, random_weights};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Points of a training curve after its start.
const CURVE_POINTS: u64 = 20;
/// So many epochs that the cosine over the learning rate stays flat: the base rate is compared, not a schedule.
const ENDLESS: u64 = 1_000_000;

/// What is measured. Rows of equal settings can be compared and joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationPlan {
    /// Data set: a name or a folder.
    pub images: String,
    /// The part of it that accuracies are measured on: `test` or `validation`.
    pub on: String,
    /// Images, from the first; all, if there are fewer.
    pub eval_images: usize,
    /// Images of a batch; norm layers use the statistics of this many images.
    pub batch: usize,
    /// Seed of the architectures and of random weights.
    pub seed: u64,
    /// Steps of training from random weights for every architecture; 0: none.
    pub sgd_steps: u64,
    /// Learning rate of that training.
    pub sgd_lr: f64,
    /// What each source of weights is, by its name.
    pub weights: BTreeMap<String, String>,
    /// Numbers that networks run in on a GPU; the CPU knows f32 only.
    #[serde(default, skip_serializing_if = "Precision::is_single")]
    pub precision: Precision,
}

/// Where weights come from.
pub enum Source {
    /// Predicted.
    Ghn(Box<Ghn>),
    /// Random.
    Random(RandomInit),
}

/// A source of weights under a name.
pub struct Weights {
    /// Its name in rows; no commas.
    pub name: String,
    /// What it is, to tell another source of the same name apart: the checkpoint's digest.
    pub identity: String,
    /// The source.
    pub source: Source,
}

/// Is told what happens.
pub trait Progress {
    /// The rows that were there before anything is measured.
    fn resumed(&mut self, _rows: &[Row]) {}

    /// `done` of `total` architectures are measured with all weights; `row` is the latest row.
    fn row(&mut self, done: usize, total: usize, row: &Row);

    /// `done` of `total` architectures have their curves; `points` are the latest.
    fn curve(&mut self, _done: usize, _total: usize, _points: &[CurvePoint]) {}
}

/// Images, ready.
pub struct Evaluation<'a> {
    plan: EvaluationPlan,
    data: &'a DataSet,
    images: PreparedImages,
    shape: [usize; 3],
    /// A device and the images on it; none: the CPU and the native executor.
    resident: Option<(Device, ResidentImages)>,
}

impl<'a> Evaluation<'a> {
    /// Prepares the images of `plan`.
    ///
    /// # Errors
    /// A setting is out of range, or the set lacks the images.
    pub fn new(plan: EvaluationPlan, data: &'a DataSet) -> Result<Evaluation<'a>> {
        for (flag, value) in [("--eval-images", plan.eval_images), ("--batch", plan.batch)] {
            if value == 0 {
                return Err(Error::Config(format!("{flag} is 0, expected at least 1")));
            }
        }
        let set: &ImageSet = if plan.on == "test" { data.testing()? } else { &data.validation };
        if plan.sgd_steps > 0 && data.train.is_none() && plan.on != "test" {
            return Err(Error::Config(format!(
                "--sgd-steps: {} has no training images, and its validation images are what is measured on",
                data.name
            )));
        }
        let images = set.prepare(plan.eval_images)?;
        Ok(Evaluation { plan, data, images, shape: set.batch_shape(), resident: None })
    }

    /// The same with accuracies and predictions on `device`, by the candle executor; training for comparison stays on
    /// the CPU.
    ///
    /// # Errors
    /// If the device fails.
    pub fn on(mut self, device: &Device) -> Result<Evaluation<'a>> {
        let (batch, precision) = (self.plan.batch.min(self.images.len()), self.plan.precision);
        let images = ResidentImages::new(&self.images, self.shape, batch, device, precision)?;
        self.resident = Some((device.clone(), images));
        Ok(self)
    }

    /// Measures `count` architectures of every group with all `weights`, as far as `folder` lacks them.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `stop` became true; rows are then on disk. Other settings than those in the folder,
    /// an architecture that cannot be built, a file that cannot be written.
    pub fn run(
        &self,
        groups: &[Group],
        count: usize,
        weights: &[Weights],
        folder: &Path,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let classes = self.images.classes();
        for one in weights {
            if let Source::Ghn(ghn) = &one.source {
                let named = |error| Error::Config(format!("{}: {error}", one.name));
                ghn.check_classes(classes, &self.plan.images).map_err(named)?;
            }
        }
        create_folders(folder)?;
        self.join_settings(folder, weights)?;
        let (mut file, rows) = Appended::rows(&folder.join("architectures.csv"))?;
        progress.resumed(&rows);
        let done: HashSet<(String, String, String)> =
            rows.into_iter().map(|row| (row.weights, row.group, row.architecture)).collect();
        let mut curves = match self.plan.sgd_steps {
            0 => None,
            _ => Some(Appended::curves(&folder.join("sgd.csv"))?),
        };
        let mut work = Vec::new();
        for &group in groups {
            work.extend(
                group.architectures(count, self.plan.seed)?.into_iter().map(|record| (group, record)),
            );
        }
        for (index, (group, record)) in work.iter().enumerate() {
            let network = self.network(record)?;
            for one in weights {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let key = (one.name.clone(), group.name().to_owned(), record.id.clone());
                if !done.contains(&key) {
                    let row = self.measure(*group, record, &network, one)?;
                    file.add_row(&row)?;
                    progress.row(index, work.len(), &row);
                }
            }
            if let Some((file, there)) = &mut curves {
                let known =
                    |point: &CurvePoint| point.group == group.name() && point.architecture == record.id;
                if !there.iter().any(known) {
                    let points = self.curve(*group, record, stop)?;
                    file.add_curve(&points)?;
                    progress.curve(index, work.len(), &points);
                }
            }
        }
        Ok(())
    }

    /// Keeps rows of different settings apart; sources of weights may be added.
    fn join_settings(&self, folder: &Path, weights: &[Weights]) -> Result<()> {
        let path = folder.join("evaluation.json");
        let mut plan = self.plan.clone();
        plan.weights = weights.iter().map(|one| (one.name.clone(), one.identity.clone())).collect();
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            let mut old: EvaluationPlan =
                serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string()))?;
            for (name, identity) in std::mem::take(&mut old.weights) {
                let here = plan.weights.entry(name.clone()).or_insert(identity.clone());
                if *here != identity {
                    return Err(Error::format(&path, format!("`{name}` were other weights there")));
                }
            }
            old.weights = plan.weights.clone();
            // Curves can be added to rows that have none, and stay where none are asked for.
            match (old.sgd_steps, plan.sgd_steps) {
                (0, _) => (old.sgd_steps, old.sgd_lr) = (plan.sgd_steps, plan.sgd_lr),
                (_, 0) => (plan.sgd_steps, plan.sgd_lr) = (old.sgd_steps, old.sgd_lr),
                _ => {}
            }
            if let Some(key) = crate::training::first_difference(&old, &plan) {
                return Err(Error::format(
                    &path,
                    format!("the folder was made with another value of `{key}`; choose another with --out"),
                ));
            }
        } else if folder.join("architectures.csv").exists() {
            return Err(Error::format(&path, "is missing beside architectures.csv; choose another folder"));
        }
        let text = serde_json::to_string_pretty(&plan).expect("plain data serialises");
        write_atomically(&path, (text + "\n").as_bytes())
    }

    fn network(&self, record: &ArchRecord) -> Result<Network> {
        let network = build(&record.arch, self.images.classes())?;
        let ([_, h, w], [_, rows, columns]) = (network.input_shape(), self.shape);
        if [h, w] != [rows, columns] {
            return Err(Error::Config(format!(
                "{} is built for {h}x{w} images, {} has {rows}x{columns}",
                record.id, self.plan.images
            )));
        }
        Ok(network)
    }

    fn measure(&self, group: Group, record: &ArchRecord, network: &Network, one: &Weights) -> Result<Row> {
        let began = Instant::now();
        let graph = Graph::of(network);
        let measured = match &self.resident {
            None => {
                let params = match &one.source {
                    Source::Ghn(ghn) => ghn.predict_batch(&[(network, &graph)])?.params.to_vec1::<f32>()?,
                    Source::Random(init) => random_weights(network, *init, self.plan.seed),
                };
                let batch = self.plan.batch.min(self.images.len());
                let mut executor = NativeExecutor::<f32>::new(network, batch)?;
                score::accuracy(&mut executor, &params, &self.images, batch)
            }
            Some((device, images)) => {
                let params = match &one.source {
                    Source::Ghn(ghn) => ghn.predict_batch(&[(network, &graph)])?.params,
                    Source::Random(init) => {
                        let values = random_weights(network, *init, self.plan.seed);
                        Tensor::from_vec(values, network.n_params(), device)?
                    }
                };
                images.accuracy(&CandleExecutor::new(Arc::new(network.clone()), device.clone()), &params)
            }
        };
        let measured = match measured {
            Ok(accuracy) => Ok(accuracy),
            Err(Error::NonFinite(reason)) => Err(reason),
            Err(error) => return Err(error),
        };
        let cost = network.cost();
        let accuracy = measured.as_ref().ok();
        Ok(Row {
            weights: one.name.clone(),
            group: group.name().into(),
            architecture: record.id.clone(),
            hash: record.arch.arch_hash().to_string(),
            params: cost.params,
            macs: cost.macs,
            nodes: graph.nodes.len(),
            images: accuracy.map_or(0, |accuracy| accuracy.images),
            accuracy: accuracy.map(|accuracy| accuracy.share()),
            accuracy_se: accuracy.map(|accuracy| accuracy.standard_error()),
            loss: accuracy.map(|accuracy| accuracy.loss).filter(|loss| loss.is_finite()),
            seconds: began.elapsed().as_secs_f64(),
            reason: measured.err().unwrap_or_default(),
        })
    }

    /// The curve of training from He's weights at the base learning rate; it ends where training diverges.
    fn curve(&self, group: Group, record: &ArchRecord, stop: &AtomicBool) -> Result<Vec<CurvePoint>> {
        let config = NetworkTraining {
            architecture: record.clone(),
            init: "he".into(),
            images: self.plan.images.clone(),
            train_on: if self.data.train.is_some() { TrainOn::Train } else { TrainOn::Validation },
            shots: None,
            epochs: ENDLESS,
            batch: self.plan.batch,
            optimizer: SgdConfig { lr: self.plan.sgd_lr, ..SgdConfig::default() },
            warmup: 0,
            clip: 5.0,
            augmentation: Augmentation::default(),
            drop_path: 0.0,
            eval_images: 1,
            eval_batch: self.plan.batch,
            seed: self.plan.seed,
        };
        let seed = self.plan.seed;
        let initial = |network: &Network| Ok(random_weights(network, RandomInit::He, seed));
        let mut trainer = NetworkTrainer::new(config, self.data, initial)?;
        let between = (self.plan.sgd_steps / CURVE_POINTS).max(1);
        let mut points = Vec::new();
        loop {
            let step = trainer.steps_taken();
            if step.is_multiple_of(between) || step == self.plan.sgd_steps {
                match trainer.accuracy_on(&self.images) {
                    Ok(accuracy) => points.push(CurvePoint {
                        group: group.name().into(),
                        architecture: record.id.clone(),
                        step,
                        accuracy: accuracy.share(),
                    }),
                    Err(Error::NonFinite(_)) => break,
                    Err(error) => return Err(error),
                }
            }
            if step == self.plan.sgd_steps {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            match trainer.step() {
                Ok(_) => {}
                Err(Error::NonFinite(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(points)
    }
}
