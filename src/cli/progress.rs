//! Progress of a search on stderr: a bar on a terminal, now and then a line elsewhere.

use crate::search::Budget;
use crate::study::{Study, TrialState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const STEPS: u64 = 1000;
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Shows how far a search is.
pub(super) struct Progress {
    budget: Budget,
    began: Instant,
    /// Trials and search time before this session.
    before: (u64, f64),
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Of a session that continues `study`.
    pub(super) fn new(budget: Budget, study: &Study) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:24.cyan/blue} {wide_msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let before = (study.evaluated(), study.elapsed_s());
        Progress { budget, began: Instant::now(), before, bar, last_line: None }
    }

    /// Takes in the latest outcome.
    pub(super) fn update(&mut self, study: &Study) {
        let (share, text) = self.state(study);
        if let Some(bar) = &self.bar {
            bar.set_position((share * STEPS as f64) as u64);
            bar.set_message(text);
        } else if self.last_line.is_none_or(|at| at.elapsed() >= BETWEEN_LINES) {
            eprintln!("{text}");
            self.last_line = Some(Instant::now());
        }
    }

    /// Clears the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The spent share of the budget, and a line of text.
    fn state(&self, study: &Study) -> (f64, String) {
        let session_s = self.began.elapsed().as_secs_f64();
        let elapsed_s = self.before.1 + session_s;
        let outcomes =
            study.trials().iter().filter(|trial| trial.state != TrialState::Running && trial.is_evaluated());
        let done = outcomes.count() as u64;
        let rate = done.saturating_sub(self.before.0) as f64 / session_s.max(1e-9);
        let by_trials = self.budget.trials.map(|limit| {
            let left = limit.saturating_sub(done) as f64 / rate;
            (done as f64 / limit as f64, left)
        });
        let by_time = self.budget.seconds.map(|limit| (elapsed_s / limit, (limit - elapsed_s).max(0.0)));
        let nearest =
            by_trials.into_iter().chain(by_time).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 0.0));
        let of = self.budget.trials.map_or(String::new(), |limit| format!(" of {limit}"));
        let best = study.best().map_or_else(
            || match study.trials().iter().filter(|trial| trial.state == TrialState::Finished).count() {
                0 => "no candidate finished yet".to_string(),
                finished => format!("{finished} finished"),
            },
            |trial| {
                let mut text = format!(
                    "best: trial {}, objective {:.4}",
                    trial.number,
                    trial.best_value().unwrap_or(f64::NAN)
                );
                if let Some(accuracy) = trial.best_scores().accuracy {
                    text += &format!(", accuracy {:.1} %", 100.0 * accuracy);
                }
                if let Some(ms) = trial.scores.latency_ms {
                    text += &format!(", {ms:.2} ms");
                }
                text
            },
        );
        // A session that continues has no rate of its own before its first outcome.
        let rate = if rate > 0.0 { format!("{rate:.1}/s, ") } else { String::new() };
        if let Some(stage) = study.stage().filter(|stage| stage.fidelity.is_refined()) {
            let is_done = |number: &&u64| {
                let refined = &study.trials()[**number as usize].refined;
                refined.iter().any(|refined| refined.fidelity == stage.fidelity)
            };
            let (count, of) = (stage.trials.iter().filter(is_done).count(), stage.trials.len());
            let left = match self.budget.seconds {
                Some(limit) => format!(", {} left", duration((limit - elapsed_s).max(0.0))),
                None => String::new(),
            };
            return (
                nearest.0.clamp(0.0, 1.0),
                format!("{}: {count} of {of} trained{left}; {best}", stage.fidelity),
            );
        }
        let text = format!("{done}{of} candidates, {rate}{} left; {best}", duration(nearest.1));
        (nearest.0.clamp(0.0, 1.0), text)
    }
}

/// Seconds as `1:02:03` or `2:03`; unknown if they are not finite, as before the first outcome.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown time".into();
    }
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(0.4), "0:00");
        assert_eq!(duration(123.0), "2:03");
        assert_eq!(duration(3_723.4), "1:02:03");
        assert_eq!(duration(5.0 / 0.0), "unknown time");
    }
}
