//! Which trials the stages of a ladder take: functions of the trials alone, so that a resumed study takes the same.

use super::{StageRecord, Trial, TrialState};
use crate::Result;
use crate::score::{Bar, Fidelity, Scores, vote};
use crate::search::{self, Ladder, Objective};
use crate::space::CellArchitecture;

/// Trials whose trained weights are kept.
const FINALISTS: usize = 3;

/// Numbers with merits, best first: by the one merit, or by front and, within a front, the least crowded first.
fn best_first(candidates: &[(u64, Vec<f64>)]) -> Vec<u64> {
    let merits: Vec<&[f64]> = candidates.iter().map(|(_, merits)| merits.as_slice()).collect();
    let several = merits.first().is_some_and(|first| first.len() > 1);
    // Two numbers for each, higher is better.
    let mut keys: Vec<(f64, f64, u64)> =
        candidates.iter().map(|(number, merits)| (merits[0], 0.0, *number)).collect();
    if several {
        let fronts = search::fronts(&merits);
        for front in 0..=fronts.iter().copied().max().unwrap_or(0) {
            let members: Vec<usize> = (0..merits.len()).filter(|&i| fronts[i] == front).collect();
            let of_front: Vec<&[f64]> = members.iter().map(|&i| merits[i]).collect();
            for (&i, distance) in members.iter().zip(search::crowding(&of_front)) {
                (keys[i].0, keys[i].1) = (-(front as f64), distance);
            }
        }
    }
    keys.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    keys.into_iter().map(|key| key.2).collect()
}

/// Finished trials with scores at `fidelity`, best first.
pub(super) fn ranked_at(trials: &[Trial], objective: &Objective, fidelity: Fidelity) -> Result<Vec<u64>> {
    let scored = trials.iter().filter_map(|trial| Some((trial, trial.scores_at(fidelity)?)));
    let merits = scored.map(|(trial, scores)| {
        let merits = match trial.value_at(fidelity) {
            Some(value) => vec![value],
            None => objective.merits(scores)?,
        };
        Ok((trial.number, merits))
    });
    Ok(best_first(&merits.collect::<Result<Vec<_>>>()?))
}

/// What candidates with their values at `predicted` would be worth after training, if that can be foretold.
type Foretell<'f> = &'f dyn Fn(&[(&CellArchitecture, f64)]) -> Result<Option<Vec<f64>>>;

/// Candidates, for each that a stage takes, of which a predictor chooses.
const CHOICE: usize = 8;

/// How stages choose whom they take.
pub(super) struct Choice<'c> {
    pub objective: &'c Objective,
    pub foretell: Foretell<'c>,
    /// Whether sizes vote.
    pub vote: bool,
    /// What stages at the same fidelity chose before.
    pub before: Before,
}

/// What stages at some fidelity chose so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Trials that there were when the last of them chose.
    pub trials: u64,
    /// Trials that were scored in them since the first stage of the ladder began, which begins anew with a larger budget.
    pub scored: usize,
}

impl Before {
    /// By the stages that a study went through.
    pub fn of(stages: &[StageRecord], fidelity: Fidelity) -> Before {
        let own = |record: &&StageRecord| record.fidelity == fidelity;
        let begun = stages.iter().rposition(|record| record.stage == 0).unwrap_or(0);
        Before {
            trials: stages.iter().rev().find(own).map_or(0, |record| record.after),
            scored: stages[begun..].iter().filter(own).map(|record| record.scored.len()).sum(),
        }
    }
}

impl Choice<'_> {
    /// The trials that a stage takes and that were not scored at its fidelity yet, best first: the best at the fidelity
    /// below, as many as the ladder says and `spare` more, but at most half of them.
    ///
    /// Of those that were scored with predicted weights only, the best are those that are `foretold` to be, if that can
    /// be told: out of eight times as many, at most half of all. With a vote, they are those of the better half with the
    /// highest mean rank by this value, parameters and peak activations; a value after training counts twice, see
    /// [`Fidelity::votes`]. A stage with a vote that chooses for the same fidelity again chooses among the candidates
    /// found since then with what was learned, if they are at least twice as many as it takes, whatever their predicted
    /// weights said.
    pub(super) fn taken(
        &self,
        trials: &[Trial],
        ladder: &Ladder,
        stage: usize,
        spare: u64,
    ) -> Result<Vec<u64>> {
        let (fidelity, count) = (ladder.stages()[stage].fidelity, ladder.stages()[stage].count);
        let source = ladder.source(stage);
        let mut ranked = ranked_at(trials, self.objective, source)?;
        let half = ranked.len().div_ceil(2);
        let count = count.map_or(0, |count| usize::try_from(count + spare).unwrap_or(half).min(half));
        let is_new = |number: &u64| {
            !trials[*number as usize].refined.iter().any(|refined| refined.fidelity == fidelity)
        };
        if !self.objective.is_pareto() {
            let (pool, most) = match source {
                Fidelity::Predicted if self.vote => self.pool(trials, &ranked, count, is_new),
                Fidelity::Predicted => {
                    let known = ranked.iter().filter(|number| !is_new(number)).count();
                    let half = ranked[..half].iter().copied().filter(is_new);
                    (half.take(CHOICE.saturating_mul(count)).collect(), count.saturating_sub(known))
                }
                _ => (ranked.clone(), count),
            };
            if self.vote && pool.is_empty() {
                return Ok(pool);
            }
            if let Some(values) = self.values(trials, &pool, source)? {
                let mut chosen: Vec<(f64, u64)> = values.into_iter().zip(pool).collect();
                chosen.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                return Ok(chosen.into_iter().take(most).map(|(_, number)| number).filter(is_new).collect());
            }
        }
        ranked.truncate(count);
        ranked.retain(is_new);
        Ok(ranked)
    }

    /// Of `ranked` by their values with predicted weights those that sizes vote about, for a stage that takes `count` with
    /// those it took before, and how many of them it takes.
    fn pool(
        &self,
        trials: &[Trial],
        ranked: &[u64],
        count: usize,
        is_new: impl Fn(&u64) -> bool,
    ) -> (Vec<u64>, usize) {
        let new = count.saturating_sub(self.before.scored);
        if self.before.trials > 0 {
            let is_whole = |number: &u64| trials[*number as usize].dropped_by.is_none();
            let found = ranked.iter().copied().filter(|&number| number >= self.before.trials);
            let found: Vec<u64> = found.filter(&is_new).filter(is_whole).collect();
            let half = found.len().div_ceil(2);
            // A ladder that begins anew takes what was found since, nothing if that is nothing.
            if half >= new || self.before.scored == 0 {
                return (found, new.min(half));
            }
        }
        let half = ranked.len().div_ceil(2);
        (ranked[..half].iter().copied().filter(is_new).collect(), new)
    }

    /// What the trials of `pool` are worth beyond their values at `source`; none if it is no more than these.
    fn values(&self, trials: &[Trial], pool: &[u64], source: Fidelity) -> Result<Option<Vec<f64>>> {
        let pool: Vec<&Trial> = pool.iter().map(|&number| &trials[number as usize]).collect();
        let scored: Option<Vec<(&CellArchitecture, f64)>> =
            pool.iter().map(|trial| Some((&trial.arch, trial.value_at(source)?))).collect();
        let Some(scored) = scored.filter(|scored| !scored.is_empty()) else { return Ok(None) };
        let foretold = match source {
            Fidelity::Predicted => (self.foretell)(&scored)?.filter(|values| values.len() == pool.len()),
            _ => None,
        };
        if !self.vote {
            return Ok(foretold);
        }
        let values = foretold.unwrap_or_else(|| scored.iter().map(|(_, value)| *value).collect());
        let size = |of: fn(&Scores) -> Option<u64>| {
            pool.iter().map(|trial| of(&trial.scores).map(|size| size as f64)).collect()
        };
        let sizes = [size(|scores| scores.params), size(|scores| scores.peak_activations)];
        let values = std::iter::repeat_n(values.into_iter().map(Some).collect(), source.votes());
        let voters: Vec<Vec<Option<f64>>> = values.chain(sizes).collect();
        Ok(Some(vote(&voters)))
    }
}

/// What a candidate has to reach, to be scored on all images: the `count`th best of the first `known` trials. Nothing
/// while there are fewer.
pub(super) fn bar(trials: &[Trial], known: u64, count: u64) -> Option<Bar> {
    let told = trials.iter().take(known as usize).filter(|trial| trial.state == TrialState::Finished);
    let mut full: Vec<(f64, u64, &Trial)> = told
        .filter(|trial| trial.answers.is_some())
        .filter_map(|trial| Some((trial.value?, trial.number, trial)))
        .collect();
    full.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (_, number, trial) = full.get(usize::try_from(count.checked_sub(1)?).ok()?)?;
    Some(Bar { trial: *number, answers: trial.answers.clone()? })
}

/// The trials whose trained weights a study keeps, best first: three of those that were refined, the highest fidelity
/// first, then the best.
///
/// # Errors
/// A score of the objective is missing, which would be a bug.
pub fn finalists(trials: &[Trial], objective: &Objective) -> Result<Vec<(u64, Fidelity)>> {
    let refined = trials.iter().map(Trial::fidelity).filter(|fidelity| fidelity.is_refined());
    let mut levels: Vec<Fidelity> = refined.collect();
    levels.sort_unstable();
    levels.dedup();
    let mut kept = Vec::new();
    for &level in levels.iter().rev() {
        let ranked = ranked_at(trials, objective, level)?;
        let reached = ranked.into_iter().filter(|&number| trials[number as usize].fidelity() == level);
        kept.extend(reached.map(|number| (number, level)));
    }
    kept.truncate(FINALISTS);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_merit_sorts_by_itself_and_several_by_fronts_and_crowding() {
        let one = [(0, vec![0.1]), (1, vec![0.3]), (2, vec![0.3]), (3, vec![0.2])];
        assert_eq!(best_first(&one), [1, 2, 3, 0]);
        let several = [
            (0, vec![0.1, 0.1]),
            (1, vec![0.9, 0.1]),
            (2, vec![0.5, 0.5]),
            (3, vec![0.45, 0.52]),
            (4, vec![0.1, 0.9]),
        ];
        // The ends of the front, then its less crowded members, then who is dominated.
        assert_eq!(best_first(&several), [1, 4, 2, 3, 0]);
        assert!(best_first(&[]).is_empty());
    }
}
