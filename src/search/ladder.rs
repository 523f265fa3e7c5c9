//! Ladders: how a search spends its budget over fidelities, from many cheap scores to a few dear ones.
//!
//! In: text, stages separated by commas or lines, each `FIDELITY[=COUNT][@SHARE]`. Out: a [`Ladder`].
//!
//! A stage at `predicted` searches: the strategy proposes, candidates are scored with predicted weights. Every other
//! stage takes the best of the candidates known at the fidelity below it, COUNT of them but at most half, and scores
//! them with weights that were trained longer: successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943).
//! A search may come back to `predicted` later in the list, with what it has learned.
//!
//! The ladder `auto` has no stages of its own choice: with a budget in seconds they are fitted to the time and to the
//! speed of training, see [`Speed`](super::Speed); without one they are those of [`Ladder::default`].
//!
//! With a budget in seconds, a stage ends when the shares up to its own are spent, so time that a stage leaves goes
//! to the next ones. With a budget in trials, stages at `predicted` divide the trials by their shares, the others
//! run all they take.

use crate::score::Fidelity;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One stage of a [`Ladder`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How candidates are scored.
    pub fidelity: Fidelity,
    /// Candidates that it takes; none for `predicted`, whose number the budget decides.
    pub count: Option<u64>,
    /// Its part of the budget; only the ratio to the other stages' counts.
    pub share: f64,
}

/// The stages of a search.
///
/// ```
/// use foretell::{score::Fidelity, search::Ladder};
/// let ladder: Ladder = "predicted@0.6,sgd:100=8@0.3,trained".parse().unwrap();
/// assert_eq!(ladder.stages()[1].fidelity, Fidelity::Sgd { steps: 100 });
/// assert_eq!(ladder.stages()[2].count, Some(1));
/// assert_eq!(ladder.to_string(), "predicted@0.6,sgd:100=8@0.3,trained=1@0.2");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ladder {
    stages: Vec<Stage>,
    is_auto: bool,
}

/// Share of a `predicted` stage that names none, and of any other.
const SHARES: (f64, f64) = (0.4, 0.2);
/// The ladder whose stages fit the budget.
const AUTO: &str = "auto";
/// Candidates of a stage that names no number: of training to the end, and of any other.
const COUNTS: (u64, u64) = (1, 8);

impl Ladder {
    /// The stages, at least one.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Of at least one stage.
    pub(super) fn of(stages: Vec<Stage>) -> Ladder {
        Ladder { stages, is_auto: false }
    }

    /// Whether its stages are to be fitted to a budget of seconds.
    pub fn is_auto(&self) -> bool {
        self.is_auto
    }

    /// Whether a stage needs training images.
    pub fn is_refined(&self) -> bool {
        self.stages.iter().any(|stage| stage.fidelity.is_refined())
    }

    /// The part of a budget of seconds, 0..1, after which `stage` ends.
    pub fn end(&self, stage: usize) -> f64 {
        if stage + 1 >= self.stages.len() {
            return 1.0;
        }
        let sum = |stages: &[Stage]| stages.iter().map(|stage| stage.share).sum::<f64>();
        sum(&self.stages[..=stage]) / sum(&self.stages)
    }

    /// How many of a budget of `trials` are evaluated when `stage`, one at `predicted`, ends.
    pub fn trials(&self, stage: usize, trials: u64) -> u64 {
        let sum = |stages: &[Stage]| {
            let predicted = stages.iter().filter(|stage| !stage.fidelity.is_refined());
            predicted.map(|stage| stage.share).sum::<f64>()
        };
        let rest = &self.stages[(stage + 1).min(self.stages.len())..];
        if rest.iter().all(|stage| stage.fidelity.is_refined()) {
            return trials;
        }
        (trials as f64 * sum(&self.stages[..=stage]) / sum(&self.stages)).round().max(1.0) as u64
    }

    /// The fidelity whose best candidates `stage` takes: the highest below its own among the stages before it.
    pub fn source(&self, stage: usize) -> Fidelity {
        let own = self.stages[stage].fidelity;
        let before = self.stages[..stage].iter().map(|stage| stage.fidelity);
        before.filter(|&fidelity| fidelity < own).max().unwrap_or(Fidelity::Predicted)
    }

    /// The stages of a ladder whose shares are seconds, for people: `37 s predicted, 38 s sgd:39 for 15`.
    pub fn in_seconds(&self) -> String {
        let words = |Stage { fidelity, count, share }: &Stage| match count {
            Some(count) => format!("{share:.0} s {fidelity} for {count}"),
            None => format!("{share:.0} s {fidelity}"),
        };
        self.stages.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    /// Candidates that a stage takes at most.
    pub fn widest(&self) -> Option<u64> {
        self.stages.iter().filter_map(|stage| stage.count).max()
    }
}

impl Default for Ladder {
    /// `auto`, which begins with 20 % of the time at `predicted`. Without a budget of seconds: two thirds of the trials find
    /// candidates, 18 of which take 100 steps of SGD from He's weights; a third is found with what was learned, and 18 of
    /// these take such steps too; then 9 take 400 steps, 3 take 1,600 and 1 is trained to the end.
    fn default() -> Ladder {
        let stage = |fidelity, count, share| Stage { fidelity, count, share };
        Ladder {
            stages: vec![
                stage(Fidelity::Predicted, None, 0.2),
                stage(Fidelity::He { steps: 100 }, Some(18), 0.15),
                stage(Fidelity::Predicted, None, 0.1),
                stage(Fidelity::He { steps: 100 }, Some(36), 0.1),
                stage(Fidelity::He { steps: 400 }, Some(9), 0.15),
                stage(Fidelity::He { steps: 1600 }, Some(3), 0.15),
                stage(Fidelity::Trained, Some(1), 0.15),
            ],
            is_auto: true,
        }
    }
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Stage> {
        let wrong = |reason: String| Error::Config(format!("stage \"{text}\": {reason}"));
        let (rest, share) = match text.split_once('@') {
            Some((rest, share)) => (rest, Some(share.trim())),
            None => (text, None),
        };
        let (name, count) = match rest.split_once('=') {
            Some((name, count)) => (name.trim(), Some(count.trim())),
            None => (rest.trim(), None),
        };
        let fidelity: Fidelity = name.parse()?;
        let default = if fidelity.is_refined() { SHARES.1 } else { SHARES.0 };
        let share = match share.map(|share| (share, share.parse::<f64>())) {
            None => default,
            Some((_, Ok(share))) if share > 0.0 && share.is_finite() => share,
            Some((share, _)) => {
                return Err(wrong(format!("\"{share}\" is no share, expected a positive number")));
            }
        };
        let count = match count.map(|count| (count, count.parse::<u64>())) {
            Some(_) if !fidelity.is_refined() => {
                let reason =
                    "the budget decides how many candidates are scored at predicted, leave out the number";
                return Err(wrong(reason.into()));
            }
            None if !fidelity.is_refined() => None,
            None => Some(if fidelity == Fidelity::Trained { COUNTS.0 } else { COUNTS.1 }),
            Some((_, Ok(count))) if count > 0 => Some(count),
            Some((count, _)) => {
                return Err(wrong(format!("\"{count}\" is no number of candidates, expected at least 1")));
            }
        };
        Ok(Stage { fidelity, count, share })
    }
}

impl FromStr for Ladder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ladder> {
        if text.trim() == AUTO {
            return Ok(Ladder::default());
        }
        let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let stages = parts.map(str::parse).collect::<Result<Vec<Stage>>>()?;
        match stages.first() {
            None => Err(Error::Config("no fidelity is given, as in predicted,sgd:100=16,trained=1".into())),
            Some(first) if first.fidelity.is_refined() => Err(Error::Config(format!(
                "the first stage is {}: a search begins with predicted",
                first.fidelity
            ))),
            Some(_) => Ok(Ladder::of(stages)),
        }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_auto {
            return f.write_str(AUTO);
        }
        for (i, Stage { fidelity, count, share }) in self.stages.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{fidelity}")?;
            if let Some(count) = count {
                write!(f, "={count}")?;
            }
            write!(f, "@{share}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Ladder {
    type Error = Error;

    fn try_from(text: String) -> Result<Ladder> {
        text.parse()
    }
}

impl From<Ladder> for String {
    fn from(ladder: Ladder) -> String {
        ladder.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let ladder = Ladder::default();
        assert_eq!((ladder.to_string().as_str(), "auto".parse::<Ladder>().unwrap()), ("auto", ladder));
        let lines: Ladder = "predicted\nsgd:10=3\n\n trained @ 0.5\n".parse().unwrap();
        assert_eq!(lines.to_string(), "predicted@0.4,sgd:10=3@0.2,trained=1@0.5");
    }

    #[test]
    fn a_fitted_ladder_is_told_in_seconds() {
        let ladder: Ladder = "predicted@36.69,sgd:39=15@37.56".parse().unwrap();
        assert_eq!(ladder.in_seconds(), "37 s predicted, 38 s sgd:39 for 15");
    }

    #[test]
    fn shares_add_up_and_trials_go_to_the_stages_that_search() {
        let ladder: Ladder = "predicted@3,sgd:5@1,predicted@1,sgd:5@1,sgd:50@4".parse().unwrap();
        let ends: Vec<f64> = (0..5).map(|stage| ladder.end(stage)).collect();
        assert_eq!(ends, [0.3, 0.4, 0.5, 0.6, 1.0]);
        assert_eq!((ladder.trials(0, 100), ladder.trials(2, 100)), (75, 100));
        assert_eq!(ladder.source(1), Fidelity::Predicted);
        assert_eq!(ladder.source(3), Fidelity::Predicted);
        assert_eq!(ladder.source(4), Fidelity::Sgd { steps: 5 });
    }

    #[test]
    fn wrong_stages_are_refused_by_name() {
        for (text, reason) in [
            ("", "no fidelity is given"),
            ("sgd:5", "the first stage is sgd:5"),
            ("predicted=5", "leave out the number"),
            ("predicted,sgd:5=0", "\"0\" is no number of candidates"),
            ("predicted@0", "\"0\" is no share"),
            ("predicted,sgd", "steps are missing"),
        ] {
            let error = text.parse::<Ladder>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
