//! `foretell eval-ghn`: how good the weights of hypernetworks are, on architectures that they were not trained on.

use super::device::{DeviceFlag, PrecisionFlag, check};
use super::interrupt::stop_flag;
use super::output::print;
use crate::evaluation::{
    CurvePoint, Evaluation, EvaluationPlan, Group, Line, Progress, Row, Source, Weights, read_curves,
    read_rows, table, table_csv,
};
use crate::files::write_atomically;
use crate::ghn::Ghn;
use crate::images;
use crate::report::evaluation_plot;
use crate::training::RandomInit;
use anyhow::{Context, ensure};
use candle_core::Device;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Measure how accurate networks are with predicted weights, group by group of architectures.
///
/// Writes architectures.csv (a row for every architecture and source of weights, as it is measured), table.csv (mean,
/// standard error, 95 % interval, best) and accuracy-by-group.png into --out. The same command goes on where it was
/// interrupted; more groups, architectures or checkpoints are added to what is there. Bundled images and the bundled
/// hypernetwork are the default.
#[derive(Debug, clap::Args)]
#[command(after_help = "On a GPU run prediction and accuracies; --sgd-steps train on the CPU in any case.")]
pub struct Args {
    /// Hypernetwork: bundled, or a .safetensors or .pt file; NAME=FILE names it in the table; may be repeated, e.g. for
    /// GHN-1 and the MLP baseline
    #[arg(long, value_name = "[NAME=]bundled|FILE", default_value = "bundled")]
    ghn: Vec<String>,
    /// Random weights beside them: he, torch, or both
    #[arg(long, value_name = "he|torch", value_delimiter = ',')]
    control: Vec<String>,
    /// Groups: splits of DeepNets-1M (test, wide, deep, dense, bnfree, ...), small, names of networks
    #[arg(
        long,
        value_name = "GROUP,...",
        value_delimiter = ',',
        default_value = "test,wide,deep,dense,bnfree,small,resnet50,ViT"
    )]
    splits: Vec<Group>,
    /// Architectures of each group
    #[arg(long, value_name = "N", default_value_t = 20)]
    archs: usize,
    /// Data set: fashion-mnist, cifar10, fashion-mnist-slice or a folder
    #[arg(long, default_value = "fashion-mnist")]
    images: String,
    /// Images to measure on
    #[arg(long, value_name = "test|validation", default_value = "test", value_parser = ["test", "validation"])]
    on: String,
    /// How many of them, from the first
    #[arg(long, value_name = "N", default_value_t = 1024)]
    eval_images: usize,
    /// Images of a batch; norm layers use the statistics of this many images
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Also train every architecture from He's random weights for so many steps, and count the steps that reach the
    /// accuracy of predicted weights (slow: tens of milliseconds to seconds a step)
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    sgd_steps: u64,
    /// Learning rate of that training
    #[arg(long, value_name = "LR", default_value_t = 0.025)]
    sgd_lr: f64,
    /// Seed of the architectures and of random weights; training draws from other streams whatever the seed
    #[arg(long, default_value_t = 1000)]
    seed: u64,
    /// Folder of the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Threads [default: all cores]; the result does not depend on it
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    precision: PrecisionFlag,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::threads::limit(args.threads)?;
    ensure!(args.archs > 0, "--archs is 0, expected at least 1");
    ensure!(
        args.sgd_lr > 0.0 && args.sgd_lr.is_finite(),
        "--sgd-lr is {}, expected a positive number",
        args.sgd_lr
    );
    let device = args.device.open()?;
    let precision = args.precision.precision.unwrap_or_default();
    check(precision, &device)?;
    let weights = sources(&args, &device)?;
    let data = images::open(&args.images)?;
    let plan = EvaluationPlan {
        images: args.images.clone(),
        on: args.on.clone(),
        eval_images: args.eval_images,
        batch: args.batch,
        seed: args.seed,
        sgd_steps: args.sgd_steps,
        sgd_lr: args.sgd_lr,
        weights: Default::default(),
        precision,
    };
    let mut evaluation = Evaluation::new(plan, &data)?;
    if !device.is_cpu() {
        evaluation = evaluation.on(&device)?;
    }
    let mut bar = Bar::new();
    let measured = evaluation.run(&args.splits, args.archs, &weights, &args.out, stop_flag(), &mut bar);
    bar.bar.finish_and_clear();
    if let Err(error @ crate::Error::Interrupted) = measured {
        print(&format!("stopped; the same command goes on ({} holds the rows)\n", args.out.display()))?;
        return Err(error.into());
    }
    measured?;

    let rows = read_rows(&args.out.join("architectures.csv"))?;
    let curves = read_curves(&args.out.join("sgd.csv"))?;
    let lines = table(&rows, &curves);
    let csv = args.out.join("table.csv");
    write_atomically(&csv, table_csv(&lines).as_bytes())?;
    let mut text = printed(&lines);
    for file in [csv].iter().chain(&evaluation_plot(&rows, &lines, &args.out, &args.on)?) {
        text += &format!("  {}\n", file.display());
    }
    print(&text)
}

fn sources(args: &Args, device: &Device) -> anyhow::Result<Vec<Weights>> {
    let mut weights: Vec<Weights> = Vec::new();
    for given in &args.ghn {
        let (name, file) = match given.split_once('=') {
            Some((name, file)) if !Path::new(given).exists() => (name.to_owned(), file),
            _ => {
                let stem = Path::new(given).file_stem().context("--ghn names no file")?;
                (stem.to_string_lossy().into_owned(), given.as_str())
            }
        };
        let ghn = Ghn::open(file).with_context(|| format!("--ghn {given}"))?;
        let identity = format!("sha256 {}", Ghn::sha256(file)?);
        let ghn = if device.is_cpu() { ghn } else { ghn.to_device(device)? };
        weights.push(Weights { name, identity, source: Source::Ghn(Box::new(ghn)) });
    }
    for control in &args.control {
        let init = match control.as_str() {
            "he" => RandomInit::He,
            "torch" => RandomInit::Torch,
            other => anyhow::bail!("--control {other}: expected he or torch"),
        };
        let identity = format!("random ({control}), seed {}", args.seed);
        weights.push(Weights { name: control.clone(), identity, source: Source::Random(init) });
    }
    for (index, one) in weights.iter().enumerate() {
        ensure!(
            !one.name.is_empty() && !one.name.contains([',', '\n', '"']),
            "--ghn: `{}` cannot be a name in a table; give another as NAME=FILE",
            one.name
        );
        ensure!(
            weights[..index].iter().all(|other| other.name != one.name),
            "two sources of weights are called `{}`; name them apart as NAME=FILE",
            one.name
        );
    }
    Ok(weights)
}

fn printed(lines: &[Line]) -> String {
    let width = |name: fn(&Line) -> &str, least: usize| {
        lines.iter().map(|line| name(line).chars().count()).max().unwrap_or(0).max(least)
    };
    let (w, g) = (width(|line| &line.weights, 7), width(|line| &line.group, 5));
    let with_curves = lines.iter().any(|line| line.reached.is_some());
    let mut text = format!("{:<w$}  {:<g$}  archs  mean ± s.e. (95 % interval)   best", "weights", "group");
    if with_curves {
        text += "    reached by SGD";
    }
    text.push('\n');
    for line in lines {
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let mean = match (line.mean, line.se, line.interval) {
            (Some(mean), Some(se), Some((low, high))) => {
                format!("{} ± {} % ({} to {})", percent(mean), percent(se), percent(low), percent(high))
            }
            _ => "all failed".into(),
        };
        let best = line.best.as_ref().map_or_else(String::new, |(best, _)| percent(*best) + " %");
        text += &format!(
            "{:<w$}  {:<g$}  {:>5}  {mean:<29} {best:<7}",
            line.weights, line.group, line.architectures
        );
        if let Some((reached, curves, median)) = line.reached {
            text += &format!(" {reached} of {curves}");
            if let Some(median) = median {
                text += &format!(", median {median:.0} steps");
            }
        }
        if line.failed > 0 {
            text += &format!("  ({} failed)", line.failed);
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

/// Progress on stderr: a bar on a terminal, now and then a line elsewhere.
struct Bar {
    bar: ProgressBar,
    started: Instant,
    printed: Instant,
    /// Index of the first architecture that is measured now; those before were there.
    first: Option<usize>,
    rows: u64,
    best: f64,
}

const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} architectures  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        let now = Instant::now();
        Bar { bar, started: now, printed: now, first: None, rows: 0, best: 0.0 }
    }

    /// Shows what has just been done for architecture `index` of `total`.
    fn show(&mut self, index: usize, total: usize, what: &str) {
        let first = *self.first.get_or_insert(index);
        let elapsed = self.started.elapsed().as_secs_f64();
        let per = elapsed / (index - first + 1) as f64;
        let left = Duration::from_secs_f64((per * (total - index - 1) as f64).min(1e9));
        let rate = self.rows as f64 / elapsed.max(1e-9);
        let best = 100.0 * self.best;
        let message = format!("{what}, best {best:.1} %, {rate:.1} rows/s, {} left", HumanDuration(left));
        self.bar.set_length(total as u64);
        self.bar.set_position(index as u64 + 1);
        if self.bar.is_hidden() && self.printed.elapsed() >= PLAIN_EVERY {
            self.printed = Instant::now();
            eprintln!("{}/{total}  {message}", index + 1);
        }
        self.bar.set_message(message);
    }
}

impl Progress for Bar {
    fn resumed(&mut self, rows: &[Row]) {
        self.best = rows.iter().filter_map(|row| row.accuracy).fold(0.0, f64::max);
    }

    fn row(&mut self, done: usize, total: usize, row: &Row) {
        self.rows += 1;
        self.best = self.best.max(row.accuracy.unwrap_or(0.0));
        let accuracy = row.accuracy.map_or("failed".into(), |accuracy| format!("{:.1} %", 100.0 * accuracy));
        self.show(done, total, &format!("{} with {}: {accuracy}", row.architecture, row.weights));
    }

    fn curve(&mut self, done: usize, total: usize, points: &[CurvePoint]) {
        if let Some(last) = points.last() {
            let (accuracy, steps) = (100.0 * last.accuracy, last.step);
            let what = format!("{} after {steps} steps of SGD: {accuracy:.1} %", last.architecture);
            self.show(done, total, &what);
        }
    }
}
