//! Staged rankings: all architectures are scored at a cheap fidelity, the best few again at a dearer one, and so on.
//!
//! In: the scores of every architecture at every fidelity, as cheap scores hold them. Out: the order that the stages
//! would have given, and what they would have cost.

use super::cheap::CheapRow;
use crate::score::{Fidelity, vote};
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Stages: a fidelity, and how many of the stage before reach it; the first is for all.
///
/// ```
/// use foretell::truth::Stages;
/// let stages: Stages = "predicted,sgd:50=32,sgd:200=8".parse()?;
/// assert_eq!(stages.fidelities().len(), 3);
/// assert_eq!(stages.to_string(), "predicted,sgd:50=32,sgd:200=8");
/// # Ok::<(), foretell::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Stages(Vec<(Fidelity, Option<usize>)>);

impl FromStr for Stages {
    type Err = Error;

    fn from_str(text: &str) -> Result<Stages> {
        let wrong = |reason: String| Error::Config(format!("stages \"{text}\": {reason}"));
        let mut stages = Vec::new();
        for part in text.split(',') {
            let (fidelity, count) = match part.split_once('=') {
                Some((fidelity, count)) => match count.parse::<usize>() {
                    Ok(count) if count > 0 => (fidelity, Some(count)),
                    _ => return Err(wrong(format!("\"{count}\" is not a number of architectures"))),
                },
                None => (part, None),
            };
            let fidelity: Fidelity =
                fidelity.trim().parse().map_err(|error: Error| wrong(error.to_string()))?;
            if stages.is_empty() == count.is_some() {
                return Err(wrong(format!(
                    "{part}: the first stage is for all, every other says for how many, as in {fidelity}=16"
                )));
            }
            if fidelity == Fidelity::Trained {
                return Err(wrong("`trained` is the truth itself".into()));
            }
            stages.push((fidelity, count));
        }
        Ok(Stages(stages))
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (fidelity, count)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match count {
                Some(count) => write!(f, "{comma}{fidelity}={count}")?,
                None => write!(f, "{comma}{fidelity}")?,
            }
        }
        Ok(())
    }
}

/// What stages come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// A number for each architecture, higher for a better place; none where the first stage has no score.
    pub order: Vec<Option<f64>>,
    /// Time of all stages, s.
    pub seconds: f64,
    /// Multiply-accumulates of all stages.
    pub macs: f64,
}

impl Stages {
    /// The fidelities, first stage first.
    pub fn fidelities(&self) -> Vec<Fidelity> {
        self.0.iter().map(|stage| stage.0).collect()
    }

    /// The order by the score named `score`: who reached a later stage stands before all who did not, and those of a
    /// stage stand in the order of their scores there, or of the vote of these, as often as
    /// [`Fidelity::votes`] says, and of the sizes named `voters`. None if a fidelity was not measured for someone who
    /// reaches it.
    pub fn run(&self, rows: &[CheapRow], score: &str, voters: &[&str]) -> Option<Staged> {
        let mut at = (0..rows.len()).collect::<Vec<usize>>();
        let mut result = Staged { order: vec![None; rows.len()], seconds: 0.0, macs: 0.0 };
        for (stage, (fidelity, count)) in self.0.iter().enumerate() {
            at.truncate(count.unwrap_or(at.len()));
            let name = fidelity.to_string();
            for &i in &at {
                let measured = rows[i].ways.get(&name)?;
                result.seconds += measured.seconds;
                result.macs += measured.macs;
            }
            // One that failed here stands behind the others of its stage.
            let of = |i: usize, way: &str, score: &str| {
                rows[i].ways.get(way).and_then(|measured| measured.scores.get(score)).copied()
            };
            if stage == 0 {
                at.retain(|&i| of(i, &name, score).is_some());
            }
            if at.is_empty() {
                break;
            }
            let column = |way: &str, score: &str| at.iter().map(|&i| of(i, way, score)).collect();
            let votes = voters.iter().map(|voter| column(voter, voter));
            let scores = std::iter::repeat_n(column(&name, score), fidelity.votes());
            let all: Vec<Vec<Option<f64>>> = scores.chain(votes).collect();
            let mut ranked: Vec<(f64, usize)> = vote(&all).into_iter().zip(at).collect();
            if !voters.is_empty() {
                let failed = |i: usize| of(i, &name, score).is_none();
                ranked.iter_mut().filter(|(_, i)| failed(*i)).for_each(|(rank, _)| *rank = 0.0);
            }
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
            // Places of this stage are the first; those behind keep theirs.
            let mut place = 0;
            for (position, &(rank, i)) in ranked.iter().enumerate() {
                if position == 0 || rank != ranked[position - 1].0 {
                    place = position;
                }
                result.order[i] = Some(-(place as f64));
            }
            at = ranked.into_iter().map(|(_, i)| i).collect();
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cheap::Measured;
    use super::*;
    use std::collections::BTreeMap;

    fn row(id: usize, ways: &[(&str, Option<f64>)]) -> CheapRow {
        let hash = format!("{id:032x}").parse().unwrap();
        let measured = |score: &Option<f64>| Measured {
            scores: score.map(|score| ("accuracy".to_owned(), score)).into_iter().collect(),
            seconds: 2.0,
            macs: 10.0,
        };
        let ways: BTreeMap<String, Measured> =
            ways.iter().map(|(name, score)| ((*name).to_owned(), measured(score))).collect();
        CheapRow { id: format!("a/{id}"), hash, ways }
    }

    #[test]
    fn later_stages_stand_before_earlier_ones() {
        let rows = [
            row(0, &[("predicted", Some(0.1)), ("sgd:5", Some(0.9))]),
            row(1, &[("predicted", Some(0.4)), ("sgd:5", Some(0.5))]),
            row(2, &[("predicted", Some(0.3)), ("sgd:5", Some(0.6))]),
            row(3, &[("predicted", Some(0.1))]),
            row(4, &[("predicted", None)]),
            row(5, &[("predicted", Some(0.5)), ("sgd:5", None)]),
        ];
        let stages: Stages = "predicted,sgd:5=3".parse().unwrap();
        let staged = stages.run(&rows, "accuracy", &[]).unwrap();
        assert_eq!(staged.order, [Some(-3.0), Some(-1.0), Some(0.0), Some(-3.0), None, Some(-2.0)]);
        assert_eq!((staged.seconds, staged.macs), (18.0, 90.0));
        // The third of the first stage was not measured at the second.
        let lacking: Stages = "predicted,sgd:5=5".parse().unwrap();
        assert_eq!(lacking.run(&rows, "accuracy", &[]), None);
    }

    #[test]
    fn sizes_vote_in_every_stage() {
        let sized = |id, size: f64, predicted, trained| {
            let mut row = row(id, &[("predicted", Some(predicted)), ("sgd:5", trained)]);
            let scores = BTreeMap::from([("params".to_owned(), size)]);
            row.ways.insert("params".to_owned(), Measured { scores, seconds: 0.0, macs: 0.0 });
            row
        };
        // Ranks of size and score: 1 + 4, 4 + 2, 3 + 3, 2 + 1.
        let rows = [
            sized(0, 1.0, 0.9, Some(0.9)),
            sized(1, 9.0, 0.3, Some(0.6)),
            sized(2, 5.0, 0.5, None),
            sized(3, 2.0, 0.1, Some(0.9)),
        ];
        let stages: Stages = "predicted".parse().unwrap();
        let order = |stages: &Stages| stages.run(&rows, "accuracy", &["params"]).unwrap().order;
        assert_eq!(order(&stages), [Some(-2.0), Some(0.0), Some(0.0), Some(-3.0)]);
        // The first two go on; one of them fails and stands behind the other.
        let stages: Stages = "predicted,sgd:5=2".parse().unwrap();
        assert_eq!(order(&stages), [Some(-2.0), Some(0.0), Some(-1.0), Some(-3.0)]);
    }

    #[test]
    fn stages_that_make_no_sense_are_refused() {
        for (text, reason) in [
            ("predicted=3", "the first stage is for all"),
            ("predicted,sgd:5", "says for how many"),
            ("predicted,sgd:5=0", "\"0\" is not a number"),
            ("sgd", "steps are missing"),
            ("trained", "the truth itself"),
        ] {
            let error = text.parse::<Stages>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
