//! Genotype in, scores out: the whole flow in one readable function, [`GhnEvaluator::score`].
//!
//! Images, noise and the hypernetwork are loaded once and shared by all candidates; a candidate costs its graph,
//! one pass of the hypernetwork, and forward passes of its own. On a GPU all of that stays there, in `lanes`.

mod lanes;
mod refine;

use crate::execute::{CandleExecutor, NativeExecutor, Precision, Workspace};
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{self, NoiseBank, PreparedImages};
use crate::network::{Network, build, expand};
use crate::score::{self, Bar, Fidelity, LatencyOptions, Scores};
use crate::search::{Evaluator, Measured, Refine};
use crate::space::{Architecture, CellArchitecture};
use crate::{Error, Result};
use candle_core::Device;
use lanes::Lanes;
pub use refine::RefinementSettings;
use refine::Refinery;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// More threads than any machine has cores take minutes to start.
const MAX_THREADS: usize = 1024;

/// How candidates are scored. Two studies with equal settings and weights give equal scores, but for times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Checkpoint of the hypernetwork; none is the bundled one.
    pub ghn: Option<PathBuf>,
    /// Data set: a name or a folder.
    pub images: String,
    /// Validation images that accuracies are measured on.
    pub eval_images: usize,
    /// Images of a forward pass; norm layers use the statistics of this many images.
    pub batch: usize,
    /// Standard deviations of the Gaussian noise on pixels in `[0, 1]`.
    pub noise_levels: Vec<f64>,
    /// Seed of the noise bank.
    pub noise_seed: u64,
    /// Images of a timed forward pass.
    pub latency_batch: usize,
    /// Threads of a timed forward pass.
    pub latency_threads: usize,
    /// Whether forward passes are timed at all.
    pub measure_latency: bool,
    /// Numbers that networks run in on a GPU; the CPU knows f32 only.
    #[serde(default, skip_serializing_if = "Precision::is_single")]
    pub precision: Precision,
    /// How weights are trained for fidelities above `predicted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<RefinementSettings>,
}

/// Time that the timed forward passes of a candidate take at least, ms.
const LATENCY_MS: f64 = 60.0;

/// Scores architectures with weights that a hypernetwork predicts.
pub struct GhnEvaluator {
    settings: EvaluationSettings,
    ghn: Ghn,
    classes: usize,
    validation_images: usize,
    size: [usize; 2],
    clean: PreparedImages,
    noisy: NoiseBank,
    timed: PreparedImages,
    timing: LatencyOptions,
    timing_pool: rayon::ThreadPool,
    refinery: Option<Refinery>,
    workspace: Workspace<f32>,
    /// Where candidates are scored; none: on the CPU, by the native executor.
    lanes: Option<Lanes>,
    /// Held for reading by candidates at work, for writing while one is timed: the others wait meanwhile.
    quiet: RwLock<()>,
}

impl GhnEvaluator {
    /// Loads the hypernetwork and prepares the images and their noisy versions.
    ///
    /// # Errors
    /// If a file cannot be read, a setting is out of range, or checkpoint and images differ in their classes.
    pub fn new(settings: EvaluationSettings) -> Result<GhnEvaluator> {
        for (flag, value) in [
            ("--eval-images", settings.eval_images),
            ("--batch", settings.batch),
            ("--latency-batch", settings.latency_batch),
            ("--latency-threads", settings.latency_threads),
        ] {
            if value == 0 {
                return Err(Error::Config(format!("{flag} is 0, expected at least 1")));
            }
        }
        if settings.latency_threads > MAX_THREADS {
            let given = settings.latency_threads;
            return Err(Error::Config(format!(
                "--latency-threads is {given}, expected at most {MAX_THREADS}"
            )));
        }
        let ghn = match &settings.ghn {
            Some(path) => Ghn::load(path)?,
            None => Ghn::bundled()?,
        };
        let data = images::open(&settings.images)?;
        let classes = data.classes().len();
        ghn.check_classes(classes, &settings.images)?;
        let clean = data.validation.prepare(settings.eval_images)?;
        let noisy = NoiseBank::new(
            &data.validation,
            settings.eval_images,
            &settings.noise_levels,
            settings.noise_seed,
        )?;
        let timed = data.validation.prepare(settings.latency_batch)?;
        let timing =
            LatencyOptions { batch: settings.latency_batch, min_ms: LATENCY_MS, ..Default::default() };
        let [_, height, width] = data.validation.batch_shape();
        let timing_pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.latency_threads)
            .build()
            .map_err(|e| Error::Config(format!("--latency-threads {}: {e}", settings.latency_threads)))?;
        let validation_images = data.validation.len();
        let refinery = match &settings.refinement {
            Some(refinement) => Some(Refinery::new(refinement.clone(), &settings, data)?),
            None => None,
        };
        Ok(GhnEvaluator {
            settings,
            ghn,
            classes,
            validation_images,
            size: [height, width],
            clean,
            noisy,
            timed,
            timing,
            timing_pool,
            refinery,
            workspace: Workspace::default(),
            lanes: None,
            quiet: RwLock::new(()),
        })
    }

    /// The same on `device`: hypernetwork, images and the networks' forward passes (by the candle executor), for up to
    /// `candidates` at once, each on a stream of its own as far as the device's memory allows. Latencies are measured on
    /// the CPU as before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn on(mut self, device: &Device, candidates: usize) -> Result<GhnEvaluator> {
        let batch = self.settings.batch.min(self.clean.len());
        let shape = [3, self.size[0], self.size[1]];
        let precision = self.settings.precision;
        let images = lanes::Images { clean: &self.clean, noisy: &self.noisy, shape, batch };
        self.lanes = Some(Lanes::new(device, precision, candidates, &self.ghn, images)?);
        Ok(self)
    }

    /// Candidates that are scored at once on a device; none on the CPU, where threads decide.
    pub fn lanes(&self) -> Option<usize> {
        self.lanes.as_ref().map(Lanes::len)
    }

    /// How candidates are scored.
    pub fn settings(&self) -> &EvaluationSettings {
        &self.settings
    }

    /// Validation images that there are; settings that ask for more are scored on these.
    pub fn validation_images(&self) -> usize {
        self.validation_images
    }

    /// The hypernetwork.
    pub fn ghn(&self) -> &Ghn {
        &self.ghn
    }

    /// Classes of the images.
    pub fn num_classes(&self) -> usize {
        self.classes
    }

    fn network(&self, arch: &CellArchitecture) -> Result<Network> {
        self.fitting(expand(arch, self.classes)?)
    }

    /// A network that takes the images.
    fn fitting(&self, network: Network) -> Result<Network> {
        let [_, height, width] = network.input_shape();
        if [height, width] != self.size {
            return Err(Error::Architecture(format!(
                "built for {height}x{width} input, the images are {}x{}",
                self.size[0], self.size[1]
            )));
        }
        Ok(network)
    }

    /// Genotype, network, graph, weights, images, scores.
    ///
    /// # Errors
    /// If the architecture cannot be built, or its predicted weights or logits are not finite.
    pub fn score(&self, arch: &CellArchitecture) -> Result<Scores> {
        let started = Instant::now();
        Ok(self.scored(started, &self.network(arch)?, None)?.scores)
    }

    /// As [`GhnEvaluator::score`], for predefined networks without cells too.
    ///
    /// # Errors
    /// As [`GhnEvaluator::score`].
    pub fn score_any(&self, arch: &Architecture) -> Result<Scores> {
        let started = Instant::now();
        Ok(self.scored(started, &self.fitting(build(arch, self.classes)?)?, None)?.scores)
    }

    /// What a predictor learns from, without any image: the hypernetwork's mean embedding of the network's nodes, and the
    /// logarithms of parameters, multiply-accumulates, peak activations and nodes.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    pub fn describe(&self, arch: &CellArchitecture) -> Result<Vec<f64>> {
        let network = self.network(arch)?;
        let graph = Graph::of(&network);
        let cost = network.cost();
        let counts = [cost.params, cost.macs, cost.peak_activations, graph.nodes.len() as u64];
        let embedding = self.ghn.mean_embeddings(&[&graph])?.concat();
        let embedding = embedding.into_iter().map(f64::from);
        Ok(embedding.chain(counts.map(|count| (count.max(1) as f64).ln())).collect())
    }

    /// The weights that the hypernetwork predicts, `[n_params]`.
    fn predicted(&self, network: &Network) -> Result<Vec<f32>> {
        let graph = Graph::of(network);
        Ok(self.ghn.predict_batch(&[(network, &graph)])?.params.to_vec1::<f32>()?)
    }

    /// Scores with predicted weights; with `race`, the clean images are raced against its bar, and a candidate that
    /// is dropped is scored no further.
    fn scored(&self, started: Instant, network: &Network, race: Option<Option<&Bar>>) -> Result<Measured> {
        let at_work = || self.quiet.read().unwrap_or_else(PoisonError::into_inner);
        let turn = at_work();
        if let Some(lanes) = &self.lanes {
            let lane = lanes.take();
            let params = lane.ghn.predict_batch(&[(network, &Graph::of(network))])?.params;
            // Reading the weights waits for them.
            let values = params.to_vec1::<f32>()?;
            let predict_ms = Some(started.elapsed().as_secs_f64() * 1e3);
            let mut scores = Scores { predict_ms, ..costs(network) };
            let executor = CandleExecutor::new(Arc::new(network.clone()), lane.device.clone());
            let logits = lane.clean.logits(&executor, &params)?;
            let mut answers = None;
            match race {
                None => scores.set_accuracy(&lane.clean.accuracy_of(&logits)?),
                // All logits are there at once, so the race only decides whether noise and latency are measured.
                Some(bar) => {
                    let raced = lane.clean.race(&logits, self.settings.batch, bar)?;
                    scores.set_raced(&raced, bar);
                    if raced.dropped {
                        return Ok(Measured { scores, answers, dropped_by: bar.map(|bar| bar.trial) });
                    }
                    answers = Some(raced.answers);
                }
            }
            scores.set_noise(lane.noise_accuracy(&executor, &params)?);
            drop((lane, turn));
            if self.settings.measure_latency {
                let batch = self.settings.latency_batch;
                let mut executor = NativeExecutor::with_workspace(network, batch, &self.workspace)?;
                self.time(&mut executor, &values, &mut scores)?;
            }
            return Ok(Measured { scores, answers, dropped_by: None });
        }
        let params = self.predicted(network)?;
        let predict_ms = started.elapsed().as_secs_f64() * 1e3;
        let batch = self.settings.batch.min(self.clean.len());
        let largest = batch.max(self.settings.latency_batch);
        let mut executor = NativeExecutor::with_workspace(network, largest, &self.workspace)?;
        let mut scores = Scores { predict_ms: Some(predict_ms), ..costs(network) };
        drop(turn);
        let turn = at_work();
        let mut answers = None;
        match race {
            None => scores.set_accuracy(&score::accuracy(&mut executor, &params, &self.clean, batch)?),
            Some(bar) => {
                let raced = score::race(&mut executor, &params, &self.clean, batch, bar)?;
                scores.set_raced(&raced, bar);
                if raced.dropped {
                    return Ok(Measured { scores, answers, dropped_by: bar.map(|bar| bar.trial) });
                }
                answers = Some(raced.answers);
            }
        }
        scores.set_noise(score::noise_accuracy(&mut executor, &params, &self.noisy, batch)?);
        drop(turn);
        if self.settings.measure_latency {
            self.time(&mut executor, &params, &mut scores)?;
        }
        Ok(Measured { scores, answers, dropped_by: None })
    }

    /// Fills in the latency, measured while no other candidate is at work.
    fn time(&self, executor: &mut NativeExecutor<f32>, params: &[f32], scores: &mut Scores) -> Result<()> {
        let _alone = self.quiet.write().unwrap_or_else(PoisonError::into_inner);
        let timed = || score::latency(executor, params, &self.timed, &self.timing);
        scores.set_latency(&self.timing_pool.install(timed)?);
        Ok(())
    }
}

/// What is known of a network without running it.
fn costs(network: &Network) -> Scores {
    let cost = network.cost();
    Scores {
        params: Some(cost.params),
        macs: Some(cost.macs),
        peak_activations: Some(cost.peak_activations),
        ..Scores::default()
    }
}

impl Evaluator for GhnEvaluator {
    fn cost(&self, arch: &CellArchitecture) -> Result<Scores> {
        Ok(costs(&self.network(arch)?))
    }

    fn evaluate(&self, arch: &CellArchitecture, _seed: u64) -> Result<Scores> {
        self.score(arch)
    }

    fn race(&self, arch: &CellArchitecture, _seed: u64, bar: Option<&Bar>) -> Result<Measured> {
        let started = Instant::now();
        self.scored(started, &self.network(arch)?, Some(bar))
    }

    fn refine(&self, task: &Refine<'_>) -> Result<Scores> {
        self.refined(&Architecture::Cells(task.arch.clone()), task.fidelity, task.keep, task.stop, false)
    }

    fn step_seconds(&self, arch: &CellArchitecture) -> Result<Option<f64>> {
        self.refinery.as_ref().map(|_| self.timed_steps(arch)).transpose()
    }

    fn steps(&self, fidelity: Fidelity) -> Option<u64> {
        Some(self.refinery.as_ref()?.steps(fidelity))
    }

    fn eval_times(&self, fidelity: Fidelity) -> f64 {
        self.refinery.as_ref().map_or(1.0, |refinery| refinery.eval_times(fidelity, &self.settings))
    }
}
