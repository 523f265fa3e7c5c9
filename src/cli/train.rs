//! `foretell train`: trains one network on real images, from random or from predicted weights.

use super::device::{DeviceFlag, on};
use super::interrupt::stop_flag;
use super::output::print;
use super::train_outcome::{Tested, write_outcome};
use super::train_progress::Progress;
use crate::deepnets::resolve;
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{self, Augmentation, DataSet};
use crate::network::Network;
use crate::report::network_training_plot;
use crate::training::{
    Ending, NetworkTraining, RandomInit, SgdConfig, TrainOn, fit_network, orthogonalize, random_weights,
    weights_from_file,
};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// Train one network on images by SGD, from random or predicted weights.
///
/// The recipe is that of DARTS: SGD with momentum, weight decay on all parameters, half a cosine over the learning
/// rate, gradients clipped, random crops and flips. The defaults suit some ten epochs; DARTS itself trains 600 with
/// --cutout 16 --drop-path 0.2 (and an auxiliary head, which this program does not have).
///
/// The run folder gets config.json, metrics.csv and training.png (the curve), weights.safetensors (named as in a
/// PyTorch state dict, with the running statistics of batch norms), and from the final test result.csv (one row)
/// and confusion.csv (a row for every class, with its accuracy). Ctrl-C stops after the current step; the same command with --resume goes on as if it had
/// never stopped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a GPU runs the prediction of --init ghn; the network is trained on the CPU in any case."
)]
pub struct Args {
    /// Architecture: FILE, FILE#ID (as runs/search-001/leaderboard.jsonl#trial/143) or the name of a predefined
    /// network, e.g. resnet18
    #[arg(value_name = "ARCH")]
    arch: String,
    /// Architecture to pick from the file
    #[arg(long)]
    id: Option<String>,
    /// Initial weights: he (normal, variance 2/fan_in), torch (uniform within 1/sqrt(fan_in), as PyTorch's layers
    /// begin), ghn (predicted), or a safetensors file
    #[arg(long, value_name = "he|torch|ghn|FILE", default_value = "he")]
    init: String,
    /// Hypernetwork for --init ghn: bundled, or a .safetensors or .pt file
    #[arg(long, value_name = "bundled|FILE", default_value = "bundled")]
    ghn: String,
    /// With --init ghn, how far the singular values of depthwise convolutions are drawn together before the training, so
    /// that it goes faster: from 0, as predicted, to 1, orthogonal
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    orthogonal: f64,
    /// Data set: fashion-mnist, cifar10, fashion-mnist-slice or a folder
    #[arg(long, default_value = "fashion-mnist")]
    images: String,
    /// Images to train on: the training images, or, for a set without any (as the bundled slice), the first four
    /// fifths of the validation images
    #[arg(long, value_name = "train|validation", default_value = "train", value_parser = train_on)]
    train_on: TrainOn,
    /// Train on this many images of each class only [default: all]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,
    /// Passes over the training images
    #[arg(long, default_value_t = 50)]
    epochs: u64,
    /// Images in a batch; all, if there are fewer
    #[arg(long, default_value_t = 96)]
    batch: usize,
    /// Learning rate
    #[arg(long, default_value_t = 0.025)]
    lr: f64,
    /// Epochs of linear warm-up of the learning rate
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    warmup: u64,
    /// Momentum
    #[arg(long, default_value_t = 0.9)]
    momentum: f64,
    /// Weight decay
    #[arg(long, default_value_t = 3e-4)]
    weight_decay: f64,
    /// Largest L2 norm of the gradient
    #[arg(long, default_value_t = 5.0)]
    clip: f64,
    /// Show images as they are: no random crops, no flips
    #[arg(long)]
    no_augment: bool,
    /// Side of a random square that is cut out of each training image, pixels; 0: none
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    cutout: usize,
    /// Probability of dropping a branch of a cell's sum for an image, in the last epoch; grows from 0
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    drop_path: f64,
    /// Validation images after each epoch
    #[arg(long, value_name = "N", default_value_t = 2000)]
    eval_images: usize,
    /// Images of a batch in evaluation; norm layers use the statistics of this many images
    #[arg(long, value_name = "N", default_value_t = 64)]
    eval_batch: usize,
    /// Test images of the final test [default: all]
    #[arg(long, value_name = "N")]
    test_images: Option<usize>,
    /// Standard deviations of the pixel noise of the final test, e.g. 0.04,0.08; 0 for none
    #[arg(long, value_name = "SD,...", value_delimiter = ',', default_value = "0.08")]
    noise: Vec<f64>,
    /// Seed of everything: random weights, order and augmentation of images, dropout, choice of shots
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the run [default: runs/train- and the architecture's id and the initial weights]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the run's checkpoint; the other flags as at its beginning (--epochs may differ)
    #[arg(long)]
    resume: bool,
    /// Threads [default: all cores]; the result does not depend on it
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    device: DeviceFlag,
}

fn train_on(text: &str) -> Result<TrainOn, String> {
    match text {
        "train" => Ok(TrainOn::Train),
        "validation" => Ok(TrainOn::Validation),
        _ => Err("expected train or validation".into()),
    }
}

/// Where initial weights come from.
enum Source {
    Random(RandomInit),
    Predicted(Box<Ghn>, f64),
    File(PathBuf),
}

impl Source {
    fn open(args: &Args, classes: usize) -> anyhow::Result<Source> {
        Ok(match args.init.as_str() {
            "he" => Source::Random(RandomInit::He),
            "torch" => Source::Random(RandomInit::Torch),
            "ghn" => {
                let ghn = Ghn::open(&args.ghn)?;
                ghn.check_classes(classes, &args.images).with_context(|| format!("--ghn {}", args.ghn))?;
                Source::Predicted(Box::new(on(ghn, args.device)?), args.orthogonal)
            }
            file => {
                ensure!(
                    Path::new(file).is_file(),
                    "--init {file}: expected he, torch, ghn, or a safetensors file that exists"
                );
                Source::File(PathBuf::from(file))
            }
        })
    }

    fn weights(&self, network: &Network, seed: u64) -> crate::Result<Vec<f32>> {
        match self {
            Source::Random(init) => Ok(random_weights(network, *init, seed)),
            Source::Predicted(ghn, share) => {
                let graph = Graph::of(network);
                let mut params = ghn.predict_batch(&[(network, &graph)])?.params.to_vec1::<f32>()?;
                orthogonalize(network, &mut params, *share)?;
                Ok(params)
            }
            Source::File(path) => weights_from_file(network, path),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::threads::limit(args.threads)?;
    let data = images::open(&args.images)?;
    let config = settings(&args, &data)?;
    let source = Source::open(&args, data.classes().len())?;
    ensure!(
        (0.0..=1.0).contains(&args.orthogonal),
        "--orthogonal is {}, expected a share from 0 to 1",
        args.orthogonal
    );
    let noise = noise_levels(&args.noise)?;
    ensure!(args.test_images != Some(0), "--test-images is 0, expected at least 1");
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&config));

    let mut progress = Progress::new(&config);
    let (seed, subject) = (config.seed, config.architecture.id.clone());
    let initial = |network: &Network| source.weights(network, seed);
    let fitted = fit_network(config, &data, &folder, args.resume, initial, stop_flag(), &mut progress);
    progress.finish();
    let (ending, trainer) = fitted?;

    let plots = network_training_plot(&folder.join("metrics.csv"), &folder, &subject)?;
    if ending == Ending::Stopped {
        print(&format!("stopped; go on with --resume ({} holds the run)\n", folder.display()))?;
        return Err(crate::Error::Interrupted.into());
    }
    let (set, on) = match &data.test {
        Some(test) => (test, "test images"),
        None => (&data.validation, "validation images, for want of test images"),
    };
    let outcome = trainer.test(set, args.test_images.unwrap_or(set.len()), &noise, seed)?;
    let tested = Tested { trainer: &trainer, outcome: &outcome, on };
    let written = write_outcome(&tested, &folder)?;
    let mut text = tested.summary();
    let weights = folder.join("weights.safetensors");
    for file in [weights].iter().chain(&written).chain(&plots) {
        text += &format!("  {}\n", file.display());
    }
    print(&text)
}

fn settings(args: &Args, data: &DataSet) -> anyhow::Result<NetworkTraining> {
    let mut architecture = resolve(&args.arch, args.id.as_deref(), None)?;
    architecture.num_classes = data.classes().len();
    let plain = if args.no_augment { Augmentation::NONE } else { Augmentation::default() };
    let config = NetworkTraining {
        architecture,
        init: initial(args),
        images: args.images.clone(),
        train_on: args.train_on,
        shots: args.shots,
        epochs: args.epochs,
        batch: args.batch,
        optimizer: SgdConfig { lr: args.lr, momentum: args.momentum, weight_decay: args.weight_decay },
        warmup: args.warmup,
        clip: args.clip,
        augmentation: Augmentation { cutout: args.cutout, ..plain },
        drop_path: args.drop_path,
        eval_images: args.eval_images,
        eval_batch: args.eval_batch,
        seed: args.seed,
    };
    config.check()?;
    Ok(config)
}

/// Where the initial weights come from, in words.
fn initial(args: &Args) -> String {
    match args.init.as_str() {
        "ghn" if args.orthogonal > 0.0 => format!("ghn {} orthogonal {}", args.ghn, args.orthogonal),
        "ghn" => format!("ghn {}", args.ghn),
        other => other.into(),
    }
}

fn noise_levels(given: &[f64]) -> anyhow::Result<Vec<f64>> {
    let wrong = given.iter().find(|sd| !(sd.is_finite() && **sd >= 0.0));
    if let Some(sd) = wrong {
        return Err(anyhow::anyhow!("{sd} is no standard deviation, expected 0 or more")).context("--noise");
    }
    Ok(given.iter().copied().filter(|sd| *sd > 0.0).collect())
}

fn default_folder(config: &NetworkTraining) -> PathBuf {
    let init = config.init.split_whitespace().next().unwrap_or("file");
    let init = Path::new(init).file_stem().map_or("file".into(), |stem| stem.to_string_lossy());
    let id: String = config
        .architecture
        .id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    PathBuf::from("runs").join(format!("train-{id}-{init}"))
}
