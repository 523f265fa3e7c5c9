//! `foretell train-ghn`: trains a graph hypernetwork as a configuration file says.

use super::configured::ConfiguredArgs;
use super::device::DeviceFlag;
use super::interrupt::stop_flag;
use super::output::print;
use crate::images::{self, DataSet};
use crate::report::training_plot;
use crate::training::{Ending, HeldOutReport, Observer, StepReport, TrainConfig, fit_ghn_on};
use candle_core::Device;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// Train a graph hypernetwork on architectures drawn on the fly.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a GPU run the hypernetwork, the networks and all gradients; the optimiser runs on the CPU in any case."
)]
pub struct Args {
    #[command(flatten)]
    run: ConfiguredArgs,
    /// Threads [default: all cores]; the result does not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::threads::limit(args.threads)?;
    let config = TrainConfig::load(&args.run.config)?;
    let folder = args.run.folder()?;
    let device = args.device.open()?;
    let data = images::open(&config.images.source)?;
    outcome(fit(&device, config, &data, &folder, args.run.resume)?)
}

/// Trains in `folder`, shows how it goes, plots the curve and says where the result lies.
pub(super) fn fit(
    device: &Device,
    config: TrainConfig,
    data: &DataSet,
    folder: &Path,
    resume: bool,
) -> anyhow::Result<Ending> {
    let mut progress = Progress::new(config.steps);
    let ending = fit_ghn_on(device, config, data, folder, resume, stop_flag(), &mut progress)?;
    progress.bar.finish_and_clear();
    let plots = training_plot(&folder.join("metrics.csv"), folder)?;
    let mut text = match ending {
        Ending::Finished => {
            format!("trained; the best GHN is {}\n", folder.join("best.safetensors").display())
        }
        Ending::Stopped => format!("stopped; go on with --resume ({} holds the run)\n", folder.display()),
    };
    for plot in plots {
        text += &format!("  {}\n", plot.display());
    }
    print(&text)?;
    Ok(ending)
}

/// What a command that trained ends with.
pub(super) fn outcome(ending: Ending) -> anyhow::Result<()> {
    match ending {
        Ending::Finished => Ok(()),
        Ending::Stopped => Err(crate::Error::Interrupted.into()),
    }
}

/// Shows rate, time left, smoothed loss and the best held-out accuracy; plain lines where there is no terminal.
struct Progress {
    bar: ProgressBar,
    losses: VecDeque<f64>,
    started: Instant,
    steps: u64,
    printed: Instant,
    best: Option<f64>,
}

/// Steps that the shown loss is averaged over.
const SMOOTHING: usize = 50;
/// Time between two plain progress lines.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    fn new(total: u64) -> Progress {
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        let now = Instant::now();
        Progress { bar, losses: VecDeque::new(), started: now, steps: 0, printed: now, best: None }
    }
}

impl Observer for Progress {
    fn step(&mut self, report: &StepReport, total: u64) {
        self.steps += 1;
        if let Some(loss) = report.loss {
            self.losses.push_back(loss);
            if self.losses.len() > SMOOTHING {
                self.losses.pop_front();
            }
        }
        let mean = self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64;
        let rate = self.steps as f64 / self.started.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64(((total - report.step - 1) as f64 / rate).min(1e9));
        let best =
            self.best.map_or_else(String::new, |best| format!("  best held-out {:.1} %", 100.0 * best));
        let message =
            format!("loss {mean:.3}{best}  {rate:.2} steps/s  {} left", indicatif::HumanDuration(left));
        self.bar.set_position(report.step + 1);
        self.bar.set_message(message.clone());
        if self.bar.is_hidden() && self.printed.elapsed() >= PLAIN_EVERY {
            self.printed = Instant::now();
            eprintln!("step {}/{total}  {message}", report.step + 1);
        }
    }

    fn held_out(&mut self, report: &HeldOutReport, best: f64) {
        self.best = Some(best);
        let line = format!(
            "step {}: held-out accuracy {:.1} ± {:.1} %, best architecture {:.1} %",
            report.step,
            100.0 * report.mean,
            100.0 * report.se,
            100.0 * report.best
        );
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }
}
