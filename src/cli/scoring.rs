//! Flags that say how candidates are scored, shared by the commands that score them, and how studies keep them.

use super::device::{DeviceFlag, PrecisionFlag, check};
use crate::execute::Precision;
use crate::ghn::Ghn;
use crate::pipeline::{EvaluationSettings, GhnEvaluator};
use crate::search::{Limits, Metric, Objective};
use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Flags of scoring.
#[derive(Debug, clap::Args)]
pub(super) struct ScoringArgs {
    /// Images to score on: fashion-mnist, cifar10 or a folder [default: fashion-mnist]
    #[arg(long, value_name = "NAME_OR_DIR")]
    images: Option<String>,
    /// Hypernetwork that predicts the weights: bundled, or a .safetensors or .pt file [default: bundled]
    #[arg(long, value_name = "bundled|FILE")]
    ghn: Option<String>,
    /// Validation images that accuracies are measured on [default: 1024, or all of a smaller set]
    #[arg(long, value_name = "N")]
    eval_images: Option<usize>,
    /// Images of a forward pass, whose statistics the norm layers use [default: 64]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Standard deviations of the Gaussian noise on pixels in [0, 1], or none [default: 0.08]
    #[arg(long, value_name = "SD,SD,...")]
    noise: Option<NoiseLevels>,
    /// Seed of the noise, the same for all candidates [default: 0]
    #[arg(long, value_name = "N")]
    noise_seed: Option<u64>,
    /// Images of a timed forward pass [default: 1]
    #[arg(long, value_name = "N")]
    latency_batch: Option<usize>,
    /// Threads of a timed forward pass [default: 1]
    #[arg(long, value_name = "N")]
    latency_threads: Option<usize>,
    /// Do not time candidates
    #[arg(long)]
    no_latency: bool,
    #[command(flatten)]
    precision: PrecisionFlag,
    #[command(flatten)]
    device: DeviceFlag,
}

#[derive(Clone, Debug)]
struct NoiseLevels(Vec<f64>);

impl std::str::FromStr for NoiseLevels {
    type Err = String;

    fn from_str(text: &str) -> Result<NoiseLevels, String> {
        if text == "none" {
            return Ok(NoiseLevels(Vec::new()));
        }
        let level = |part: &str| match part.trim().parse::<f64>() {
            Ok(sd) if sd > 0.0 && sd.is_finite() => Ok(sd),
            _ => Err(format!("\"{part}\" is not a standard deviation: expected positive numbers, or none")),
        };
        let levels = text.split(',').map(level).collect::<Result<Vec<f64>, String>>()?;
        for (i, sd) in levels.iter().enumerate() {
            if levels[..i].contains(sd) {
                return Err(format!("the level {sd} is given twice"));
            }
        }
        Ok(NoiseLevels(levels))
    }
}

/// Images like those that the bundled hypernetwork was trained on.
const KNOWN: [&str; 2] = ["fashion-mnist", "fashion-mnist-slice"];

/// What is scored without any flag.
pub(super) fn default_evaluation() -> EvaluationSettings {
    EvaluationSettings {
        ghn: None,
        images: "fashion-mnist".into(),
        eval_images: 1024,
        batch: 64,
        noise_levels: vec![0.08],
        noise_seed: 0,
        latency_batch: 1,
        latency_threads: 1,
        measure_latency: true,
        precision: Precision::default(),
        refinement: None,
    }
}

impl ScoringArgs {
    /// `base` with the settings given by flags in their places.
    pub(super) fn over(&self, base: EvaluationSettings) -> anyhow::Result<EvaluationSettings> {
        let mut evaluation = base;
        set(&mut evaluation.images, &self.images);
        set(&mut evaluation.eval_images, &self.eval_images);
        set(&mut evaluation.batch, &self.batch);
        set(&mut evaluation.noise_levels, &self.noise.clone().map(|levels| levels.0));
        set(&mut evaluation.noise_seed, &self.noise_seed);
        set(&mut evaluation.latency_batch, &self.latency_batch);
        set(&mut evaluation.latency_threads, &self.latency_threads);
        evaluation.measure_latency &= !self.no_latency;
        set(&mut evaluation.precision, &self.precision.precision);
        if let Some(ghn) = &self.ghn {
            evaluation.ghn = match ghn.as_str() {
                "bundled" => None,
                file => Some(std::path::absolute(file).with_context(|| format!("--ghn {file}"))?),
            };
        }
        Ok(evaluation)
    }

    /// What scores up to `candidates` at once, on the device that the flags name.
    pub(super) fn evaluator(
        &self,
        evaluation: &EvaluationSettings,
        candidates: usize,
    ) -> anyhow::Result<GhnEvaluator> {
        let device = self.device.open()?;
        check(evaluation.precision, &device)?;
        let evaluator = GhnEvaluator::new(evaluation.clone())?;
        let images = &evaluation.images;
        if evaluation.ghn.is_none() && !KNOWN.contains(&images.as_str()) {
            eprintln!(
                "note: the bundled hypernetwork was trained on Fashion-MNIST; weights that it predicts for {images} are \
                 poor until it is adapted: foretell adapt-ghn --images {images}"
            );
        }
        if device.is_cpu() {
            return Ok(evaluator);
        }
        let evaluator = evaluator.on(&device, candidates)?;
        if let Some(lanes) = evaluator.lanes().filter(|&lanes| lanes < candidates) {
            eprintln!("note: the GPU has memory for {lanes} candidates at once, not {candidates}");
        }
        Ok(evaluator)
    }

    /// The number of images to score on, which the images in `evaluator` may not hold: a default shrinks to them, a
    /// flag is refused.
    pub(super) fn eval_images(&self, evaluator: &GhnEvaluator) -> anyhow::Result<usize> {
        let (asked, there) = (evaluator.settings().eval_images, evaluator.validation_images());
        if asked > there && self.eval_images.is_some() {
            bail!("--eval-images {asked}: {} has {there} validation images", evaluator.settings().images);
        }
        Ok(asked.min(there))
    }
}

/// Puts a given value in its place.
pub(super) fn set<T: Clone>(place: &mut T, given: &Option<T>) {
    if let Some(value) = given {
        *place = value.clone();
    }
}

/// Evaluation settings with the hypernetwork's SHA-256, so that another one of the same name is noticed.
pub(super) fn evaluation_value(evaluation: &EvaluationSettings) -> anyhow::Result<Value> {
    let name = evaluation.ghn.as_ref().map_or("bundled".into(), |path| path.to_string_lossy());
    let sha256 = Ghn::sha256(&name)?;
    Ok(json!({ "settings": serde_json::to_value(evaluation)?, "ghn_sha256": sha256 }))
}

/// What [`evaluation_value`] made: the settings and the hypernetwork's SHA-256, which early studies with the bundled one
/// do not have.
pub(super) fn evaluation_of(value: &Value) -> anyhow::Result<(EvaluationSettings, Option<String>)> {
    let part = |key: &str| value.get(key).cloned().unwrap_or_default();
    let evaluation = serde_json::from_value(part("settings")).context("study.json: evaluation settings")?;
    Ok((evaluation, part("ghn_sha256").as_str().map(String::from)))
}

/// Whether the scores that an objective and limits need are measured.
pub(super) fn measured(
    evaluation: &EvaluationSettings,
    objective: &Objective,
    limits: &Limits,
) -> anyhow::Result<()> {
    if !evaluation.measure_latency && (objective.uses(Metric::Latency) || limits.max_latency_ms.is_some()) {
        bail!("--no-latency: the objective or --max-latency-ms needs the latency");
    }
    if evaluation.noise_levels.is_empty() && objective.uses(Metric::Robustness) {
        bail!("--noise none: the objective needs the accuracy under noise");
    }
    Ok(())
}
