//! Progress of a network's training on stderr: a bar on a terminal, a line an epoch (and now and then) elsewhere.

use crate::training::{EpochReport, NetworkObserver, NetworkTrainer, NetworkTraining};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Steps that the shown loss is averaged over.
const SMOOTHING: usize = 50;
/// Time between two plain progress lines.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Shows rate, time left, smoothed loss and the best accuracy.
pub(super) struct Progress {
    bar: ProgressBar,
    epochs: u64,
    total: u64,
    losses: VecDeque<f64>,
    started: Instant,
    steps: u64,
    printed: Instant,
    best: Option<f64>,
}

impl Progress {
    pub(super) fn new(config: &NetworkTraining) -> Progress {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        let now = Instant::now();
        Progress {
            bar,
            epochs: config.epochs,
            total: 0,
            losses: VecDeque::new(),
            started: now,
            steps: 0,
            printed: now,
            best: None,
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: String) {
        if self.bar.is_hidden() { eprintln!("{text}") } else { self.bar.println(text) }
    }
}

impl NetworkObserver for Progress {
    fn begins(&mut self, trainer: &NetworkTrainer) {
        self.total = trainer.total_steps();
        self.bar.set_length(self.total);
        self.bar.set_position(trainer.steps_taken());
        let config = trainer.config();
        self.line(format!(
            "{}: {:.1} k parameters from {}, {} images in batches of {}, {} epochs of {} steps",
            config.architecture.id,
            trainer.params().len() as f64 / 1e3,
            config.init,
            trainer.training_images(),
            config.batch.min(trainer.training_images()),
            config.epochs,
            trainer.steps_per_epoch(),
        ));
        self.started = Instant::now();
    }

    fn step(&mut self, step: u64, loss: f64) {
        self.steps += 1;
        self.losses.push_back(loss);
        if self.losses.len() > SMOOTHING {
            self.losses.pop_front();
        }
        let mean = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        let rate = self.steps as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let left = Duration::from_secs_f64((self.total.saturating_sub(step) as f64 / rate).min(1e9));
        let best = self.best.map_or_else(String::new, |best| format!("  best {:.1} %", 100.0 * best));
        let message = format!("loss {mean:.3}{best}  {rate:.2} steps/s  {} left", HumanDuration(left));
        self.bar.set_position(step);
        if self.bar.is_hidden() && self.printed.elapsed() >= PLAIN_EVERY {
            self.printed = Instant::now();
            eprintln!("step {step}/{}  {message}", self.total);
        }
        self.bar.set_message(message);
    }

    fn epoch(&mut self, report: &EpochReport, best: f64) {
        self.best = Some(best);
        let accuracy = report.validation;
        let loss = report.loss.map_or_else(String::new, |loss| format!("loss {loss:.3}, "));
        self.line(format!(
            "epoch {}/{}: {loss}validation accuracy {:.1} ± {:.1} %, {:.0} s",
            report.epoch,
            self.epochs,
            100.0 * accuracy.share(),
            100.0 * accuracy.standard_error(),
            report.seconds,
        ));
    }
}
