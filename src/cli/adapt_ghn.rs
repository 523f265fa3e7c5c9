//! `foretell adapt-ghn`: trains a graph hypernetwork that is there already for other images.

use super::device::DeviceFlag;
use super::output::print;
use super::train_ghn;
use crate::ghn::{Ghn, GhnConfig};
use crate::images;
use crate::training::{
    AdamConfig, ArchitecturesConfig, Ending, EvaluationConfig, ImagesConfig, Schedule, SpaceShare,
    TrainConfig,
};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// Flags of `foretell adapt-ghn`.
///
/// A hypernetwork predicts weights for images like those that it was trained on. This goes on with its training on
/// others, in minutes where training a new one takes hours; a new classifier is learned if the number of classes
/// differs. `foretell train-ghn` does the same with all settings in a file (`start`).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a GPU run the hypernetwork, the networks and all gradients; the optimiser runs on the CPU in any case."
)]
pub struct Args {
    /// Images to adapt to: cifar10, fashion-mnist or a folder; they need training images
    #[arg(long, value_name = "NAME_OR_DIR")]
    images: String,
    /// Hypernetwork to start from: bundled, or a .safetensors or .pt file
    #[arg(long, value_name = "bundled|FILE", default_value = "bundled")]
    ghn: String,
    /// Search space to train on: a bundled one or a TOML file
    #[arg(long, value_name = "NAME_OR_FILE", default_value = "small")]
    space: String,
    /// Optimiser steps, each with two networks
    #[arg(long, value_name = "N", default_value_t = 1000)]
    steps: u64,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    lr: f64,
    /// Random crops and flips of the images
    #[arg(long)]
    augment: bool,
    /// Seed of architectures, order of images and new classifiers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder of the run [default: runs/ghn- and the name of the images]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run that the folder holds; the other flags as at its beginning (--steps may differ)
    #[arg(long)]
    resume: bool,
    /// Threads [default: all cores]; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Networks of a step.
const META_BATCH: usize = 2;
/// Decay of the average of the weights: over the last fifty steps or so.
const AVERAGE: f64 = 0.98;
/// Held-out evaluations of a run.
const EVALUATIONS: u64 = 5;

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::threads::limit(args.threads)?;
    ensure!(args.steps > 0, "--steps is 0, expected at least 1");
    ensure!(
        args.batch > 1,
        "--batch is {}, expected at least 2: norm layers compute statistics of a batch",
        args.batch
    );
    ensure!(args.lr > 0.0 && args.lr.is_finite(), "--lr is {}, expected a positive number", args.lr);
    let device = args.device.open()?;
    let data = images::open(&args.images)?;
    let training = data.training()?;
    let start = Ghn::open(&args.ghn).with_context(|| format!("--ghn {}", args.ghn))?;
    let ghn = GhnConfig { num_classes: training.classes().len(), ..start.config().clone() };
    let config = args.config(ghn, training.len())?;
    let folder = match args.out {
        Some(folder) => folder,
        None => Path::new("runs").join(format!("ghn-{}", data.name)),
    };
    let ending = train_ghn::fit(&device, config, &data, &folder, args.resume)?;
    if ending == Ending::Finished {
        print(&format!(
            "to search with it: foretell search --images {} --ghn {}\n",
            args.images,
            folder.join("best.safetensors").display()
        ))?;
    }
    train_ghn::outcome(ending)
}

impl Args {
    /// The run for hypernetworks of `ghn` on a set of `count` training images.
    fn config(&self, ghn: GhnConfig, count: usize) -> anyhow::Result<TrainConfig> {
        let config = TrainConfig {
            seed: self.seed,
            steps: self.steps,
            ghn,
            start: Some(self.ghn.clone()),
            images: ImagesConfig {
                source: self.images.clone(),
                batch: self.batch.min(count),
                augment: self.augment,
            },
            architectures: ArchitecturesConfig {
                spaces: vec![SpaceShare { space: self.space.clone(), share: 1.0 }],
                meta_batch: META_BATCH,
                reference_width: false,
                small_first: 0.0,
                max_nodes: 2200,
            },
            optimizer: AdamConfig { lr: self.lr, ..AdamConfig::default() },
            schedule: Schedule::Cosine { warmup: (self.steps / 10).min(100), floor: 0.01 },
            clip_norm: 5.0,
            clip_network: None,
            average: AVERAGE,
            max_skips_in_a_row: 20,
            checkpoint_every: 100,
            evaluation: EvaluationConfig {
                every: (self.steps / EVALUATIONS).max(1),
                architectures: 16,
                images: 1024,
            },
        };
        config.check().map_err(crate::Error::Config)?;
        Ok(config)
    }
}
