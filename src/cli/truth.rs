//! `foretell truth`: trains a plain sample of architectures, the truth that rankings are measured against.

use super::configured::ConfiguredArgs;
use super::interrupt::stop_flag;
use super::output::print;
use crate::images;
use crate::network::build;
use crate::training::Ending;
use crate::truth::{FillObserver, FillOptions, TruthConfig, TruthRow, TruthSet, fill};
use anyhow::ensure;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Train a plain sample of architectures: the truth that rankings are measured against.
///
/// All architectures are trained with one recipe, each from random weights; rows.jsonl gets a line as each is
/// finished, with clean and noisy accuracy on test images, loss, latency and the curve over the epochs; truth.csv and
/// curves.csv are the same as tables. Ctrl-C stops after the current steps, and the same command with --resume goes
/// on as if it had never stopped. A configuration that asks for more architectures or more trainings of each adds
/// them to what is there.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: ConfiguredArgs,
    /// Architectures that are trained side by side [default: one for each core]; results do not depend on it
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Keep the trained weights, in the folder's weights/
    #[arg(long)]
    keep_weights: bool,
    /// Threads of each of them; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = args.workers.unwrap_or(cores);
    for (flag, value) in [("--workers", workers), ("--threads", args.threads)] {
        ensure!((1..=1024).contains(&value), "{flag} is {value}, expected 1 to 1024");
    }
    let config = TruthConfig::load(&args.run.config)?;
    let folder = args.run.folder()?;
    let data = images::open(&config.training.images)?;
    let architectures = config.draw(data.classes().len())?;
    let set = if args.run.resume {
        TruthSet::reopen(&folder, config, architectures)?
    } else {
        TruthSet::create(&folder, config, architectures)?
    };
    let progress = Progress::new(&set, &data)?;
    let options = FillOptions { workers, threads: args.threads, keep_weights: args.keep_weights };
    let filled = fill(set, &data, options, stop_flag(), &progress);
    progress.bar.finish_and_clear();
    let (ending, set) = filled?;
    let (done, left) = (set.rows().len(), set.missing().len());
    match ending {
        Ending::Finished => print(&format!("{done} trainings; {}\n", folder.join("truth.csv").display())),
        Ending::Stopped => {
            let folder = folder.display();
            print(&format!(
                "stopped: {done} trainings are stored, {left} left; go on with --resume ({folder})\n"
            ))?;
            Err(crate::Error::Interrupted.into())
        }
    }
}

/// Time between two plain progress lines.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Shows how far the set is; plain lines where there is no terminal.
struct Progress {
    bar: ProgressBar,
    state: Mutex<State>,
}

struct State {
    trainings: usize,
    done: usize,
    /// Multiply-accumulates of all images still to come.
    left_macs: f64,
    done_macs: f64,
    images: u64,
    began: Instant,
    printed: Instant,
    best: Option<(f64, String)>,
}

impl Progress {
    fn new(set: &TruthSet, data: &images::DataSet) -> anyhow::Result<Progress> {
        let missing = set.missing();
        let mut left_macs = 0.0;
        if let Some((record, repeat)) = missing.first() {
            let training = set.config().training_of(record, *repeat);
            let images = training.epochs as f64 * training.split(data)?.0.len() as f64;
            for (record, _) in &missing {
                left_macs += images * build(&record.arch, record.num_classes)?.cost().macs as f64;
            }
        }
        let (trainings, done) = (set.rows().len() + missing.len(), set.rows().len());
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{bar:24} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        let now = Instant::now();
        let state = State {
            trainings,
            done,
            left_macs,
            done_macs: 0.0,
            images: 0,
            began: now,
            printed: now,
            best: set.rows().iter().fold(None, better),
        };
        let progress = Progress { bar, state: Mutex::new(state) };
        progress.line(format!(
            "{trainings} trainings of {} architectures of the space {}, {done} of them done",
            set.architectures().len(),
            set.config().space
        ));
        Ok(progress)
    }

    fn line(&self, text: String) {
        if self.bar.is_hidden() { eprintln!("{text}") } else { self.bar.println(text) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn better(best: Option<(f64, String)>, row: &TruthRow) -> Option<(f64, String)> {
    match (best, row.scores.accuracy) {
        (Some(best), Some(accuracy)) if best.0 >= accuracy => Some(best),
        (_, Some(accuracy)) => Some((accuracy, row.id.clone())),
        (best, None) => best,
    }
}

impl FillObserver for Progress {
    fn resumed(&self, macs: u64, images: u64) {
        self.state().left_macs -= macs as f64 * images as f64;
    }

    fn step(&self, macs: u64, images: u64) {
        let mut state = self.state();
        let work = macs as f64 * images as f64;
        state.done_macs += work;
        state.left_macs -= work;
        state.images += images;
        let seconds = state.began.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64((state.left_macs / state.done_macs * seconds).clamp(0.0, 1e9));
        let best = state
            .best
            .as_ref()
            .map_or_else(String::new, |(accuracy, id)| format!("; best {:.2} % ({id})", 100.0 * accuracy));
        let message = format!(
            "{} of {} trained, {:.0} images/s, {} left{best}",
            state.done,
            state.trainings,
            state.images as f64 / seconds.max(1e-9),
            HumanDuration(left)
        );
        let share = state.done_macs / (state.done_macs + state.left_macs).max(1.0);
        self.bar.set_position((1000.0 * share) as u64);
        if self.bar.is_hidden() && state.printed.elapsed() >= PLAIN_EVERY {
            state.printed = Instant::now();
            eprintln!("{message}");
        }
        self.bar.set_message(message);
    }

    fn finished(&self, row: &TruthRow) {
        let mut state = self.state();
        state.done += 1;
        state.best = better(state.best.take(), row);
        let outcome = match (row.scores.accuracy, &row.reason) {
            (Some(accuracy), _) => {
                let noisy =
                    row.scores.noise.iter().map(|n| format!(", {:.2} % at {}", 100.0 * n.accuracy, n.sd));
                format!("{:.2} %{}", 100.0 * accuracy, noisy.collect::<String>())
            }
            (None, reason) => reason.clone().unwrap_or_default(),
        };
        let done = format!("{}/{}", state.done, state.trainings);
        drop(state);
        self.line(format!("{done} {}: {outcome}, {:.0} s", row.id, row.train_s));
    }
}
