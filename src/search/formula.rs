//! A space and an evaluator by formula, for tests of strategies and studies.

use super::{Evaluator, Measured, Proposals, Refine};
use crate::score::{Accuracy, Answers, Bar, NoiseScore, Raced, Scores};
use crate::space::{CellArchitecture, Edge, Genotype, Norm, Op};
use crate::{Error, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

/// Architectures of `sizes` channels times `sizes` cells times an op: `sizes * sizes * 15` of them.
pub(crate) struct FormulaSpace {
    pub(crate) sizes: usize,
}

pub(crate) fn architecture(channels: usize, n_cells: usize, op: Op) -> CellArchitecture {
    let edges = vec![Edge(op, 0), Edge(Op::SkipConnect, 1)];
    let genotype =
        Genotype { normal: edges.clone(), normal_concat: vec![2], reduce: edges, reduce_concat: vec![2] };
    CellArchitecture {
        channels,
        fc_dim: 64,
        genotype,
        n_cells,
        stem_kernel: 3,
        stem_type: 0,
        stem_pool: false,
        norm: Some(Norm::Batch),
        preproc: true,
        channel_multiplier: 2,
        fc_layers: 1,
        global_pool: true,
        imagenet_input: false,
    }
}

impl Proposals for FormulaSpace {
    fn sample(&self, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let channels = rng.random_range(1..=self.sizes as u32) as usize;
        let n_cells = rng.random_range(1..=self.sizes as u32) as usize;
        Ok(architecture(channels, n_cells, Op::ALL[rng.random_range(0..15u32) as usize]))
    }

    fn mutate(&self, parent: &CellArchitecture, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let mut child = parent.clone();
        let step = |value: usize, rng: &mut ChaCha8Rng| {
            let moved = if rng.random_bool(0.5) { value + 1 } else { value.saturating_sub(1) };
            moved.clamp(1, self.sizes)
        };
        match rng.random_range(0..3u32) {
            0 => child.channels = step(child.channels, rng),
            1 => child.n_cells = step(child.n_cells, rng),
            _ => child.genotype.normal[0].0 = Op::ALL[rng.random_range(0..15u32) as usize],
        }
        child.genotype.reduce = child.genotype.normal.clone();
        Ok(child)
    }

    fn crossover(
        &self,
        a: &CellArchitecture,
        b: &CellArchitecture,
        rng: &mut ChaCha8Rng,
    ) -> Result<CellArchitecture> {
        let mut child = a.clone();
        if rng.random_bool(0.5) {
            child.channels = b.channels;
        }
        if rng.random_bool(0.5) {
            child.n_cells = b.n_cells;
        }
        if rng.random_bool(0.5) {
            child.genotype = b.genotype.clone();
        }
        Ok(child)
    }

    fn hash(&self, arch: &CellArchitecture) -> String {
        format!("{:08x}{:04x}{:04x}", arch.genotype.normal[0].0 as u32, arch.channels, arch.n_cells)
    }
}

/// Accuracy has one smooth optimum; some architectures fail, some cannot be built.
#[derive(Default)]
pub(crate) struct FormulaEvaluator {
    pub(crate) evaluations: AtomicU64,
    pub(crate) delay_us: u64,
    /// Refinements.
    pub(crate) refinements: AtomicU64,
    /// Time of a step of SGD.
    pub(crate) step_us: u64,
}

/// Images of a race.
const IMAGES: usize = 512;

/// Answers of a network of this accuracy: which images are hard is the same for all.
fn answers(accuracy: f64, count: usize) -> Answers {
    let mut answers = Answers::default();
    (0..count).for_each(|image| answers.push(((image * 197) % IMAGES) as f64 <= accuracy * IMAGES as f64));
    answers
}

impl Evaluator for FormulaEvaluator {
    fn cost(&self, arch: &CellArchitecture) -> Result<Scores> {
        if arch.genotype.contains(Op::None) {
            return Err(Error::Architecture("no path from input to output".into()));
        }
        let params = (arch.channels * arch.channels * arch.n_cells) as u64;
        let peak = (arch.channels * 1_000 / arch.n_cells) as u64;
        let (params, macs, peak_activations) = (Some(params), Some(params * 100), Some(peak));
        Ok(Scores { params, macs, peak_activations, ..Scores::default() })
    }

    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> Result<Scores> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        // Later trials may be faster than earlier ones, so that results come in out of order.
        std::thread::sleep(std::time::Duration::from_micros(self.delay_us * (seed % 7)));
        match arch.genotype.normal[0].0 {
            Op::Cse => return Err(Error::NonFinite("the loss is NaN".into())),
            Op::Msa => return Err(Error::Tensor("8 heads do not divide the channels".into())),
            _ => {}
        }
        let (c, n) = (arch.channels as f64 - 20.0, arch.n_cells as f64 - 20.0);
        let accuracy = 0.9 * (-(c * c + n * n) / 400.0).exp() + (seed % 1000) as f64 * 1e-6;
        let noisy = accuracy * 0.8;
        Ok(Scores {
            accuracy: Some(accuracy),
            accuracy_se: Some(0.01),
            loss: Some(-accuracy.ln()),
            images: Some(1000),
            noise: vec![NoiseScore { sd: 0.08, accuracy: noisy, accuracy_se: 0.012 }],
            robustness: Some(noisy),
            latency_ms: Some(arch.channels as f64 * arch.n_cells as f64 * 0.01),
            latency_p95_ms: Some(arch.channels as f64 * arch.n_cells as f64 * 0.012),
            latency_batch: Some(1),
            latency_threads: Some(1),
            predict_ms: Some(3.0),
            ..Scores::default()
        })
    }

    fn race(&self, arch: &CellArchitecture, seed: u64, bar: Option<&Bar>) -> Result<Measured> {
        let mut scores = self.evaluate(arch, seed)?;
        let own = scores.accuracy.unwrap_or(0.0);
        let looks = [64, 128, 256].into_iter();
        let seen = looks
            .chain([IMAGES])
            .find(|&seen| seen == IMAGES || bar.is_some_and(|bar| bar.is_out_of_reach(&answers(own, seen))));
        let answers = answers(own, seen.unwrap_or(IMAGES));
        let images = answers.len() as u64;
        let accuracy = Accuracy { correct: answers.correct() as u64, images, loss: 1.0 };
        let raced = Raced { accuracy, dropped: answers.len() < IMAGES, answers };
        scores.set_raced(&raced, bar);
        match raced.dropped {
            true => Ok(Measured { scores, answers: None, dropped_by: bar.map(|bar| bar.trial) }),
            false => Ok(Measured { scores, answers: Some(raced.answers), dropped_by: None }),
        }
    }

    fn step_seconds(&self, _: &CellArchitecture) -> Result<Option<f64>> {
        Ok((self.step_us > 0).then_some(self.step_us as f64 * 1e-6))
    }

    fn refine(&self, task: &Refine<'_>) -> Result<Scores> {
        self.refinements.fetch_add(1, Ordering::Relaxed);
        let steps = self.steps(task.fidelity).unwrap_or(1_000);
        std::thread::sleep(std::time::Duration::from_micros(self.step_us * steps));
        if task.arch.genotype.normal[0].0 == Op::Conv7x7 {
            return Err(Error::NonFinite("training diverged".into()));
        }
        // Training prefers other networks than prediction.
        let (c, n) = (task.arch.channels as f64 - 23.0, task.arch.n_cells as f64 - 19.0);
        let gain = 1.0 - 1.0 / (2.0 + steps as f64).ln();
        let accuracy = 0.5 + 0.5 * gain * (-(c * c + n * n) / 400.0).exp();
        let noise = vec![NoiseScore { sd: 0.08, accuracy: accuracy * 0.7, accuracy_se: 0.012 }];
        let (accuracy, robustness) = (Some(accuracy), Some(accuracy * 0.7));
        Ok(Scores { accuracy, accuracy_se: Some(0.01), noise, robustness, ..Scores::default() })
    }
}
