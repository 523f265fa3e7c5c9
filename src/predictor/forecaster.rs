//! The predictor of a search: what training would make of candidates, learned from those that were trained.
//!
//! In: outcomes at all fidelities, as they come. Out: values of candidates that were not trained, twice: of proposals,
//! from the embedding and costs alone, and of candidates that were scored with predicted weights, from that score too.
//! Either is used only if it ranks the trained candidates in cross-validation: proposals if it does so at all, scored
//! candidates if it does so better than their score by itself.
//!
//! It is a function of what it was told, so a resumed search goes on identically.

use super::{Learner, Tau};
use crate::Result;
use crate::score::{Fidelity, kendall_tau};
use crate::search::{Forecast, Outcome, Screen};
use crate::space::{ArchHash, CellArchitecture, arch_hash};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Kendall's tau in cross-validation under which it does not act.
const LEAST: f64 = 0.2;

type Memory<T> = Arc<Mutex<BTreeMap<ArchHash, T>>>;

/// Learns from trained candidates and screens others.
pub struct Forecaster {
    unscored: Learner<Fidelity>,
    scored: Learner<Fidelity>,
    /// Values with predicted weights.
    predicted: Memory<f64>,
}

fn known<T: Clone>(memory: &Memory<T>, hash: &ArchHash) -> Option<T> {
    memory.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
}

fn remember<T>(memory: &Memory<T>, hash: ArchHash, value: T) {
    memory.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, value);
}

impl Forecaster {
    /// Proposals of the strategy for each candidate that is run.
    pub const PROPOSALS: usize = 8;

    /// Has heard of nothing yet; `describe` gives embedding and cheap scores of an architecture.
    pub fn new(
        describe: impl Fn(&CellArchitecture) -> Result<Vec<f64>> + Send + Sync + 'static,
        seed: u64,
    ) -> Forecaster {
        let features: Memory<Vec<f64>> = Memory::default();
        let described = Arc::new(move |arch: &CellArchitecture| -> Result<Vec<f64>> {
            let hash = arch_hash(arch);
            if let Some(features) = known(&features, &hash) {
                return Ok(features);
            }
            let described = describe(arch)?;
            remember(&features, hash, described.clone());
            Ok(described)
        });
        let predicted: Memory<f64> = Memory::default();
        let (of_unscored, values) = (Arc::clone(&described), Arc::clone(&predicted));
        let with_score = move |arch: &CellArchitecture| {
            let mut features = described(arch)?;
            features.push(known(&values, &arch_hash(arch)).unwrap_or(f64::NAN));
            Ok(features)
        };
        Forecaster {
            unscored: Learner::new(move |arch| of_unscored(arch), seed),
            scored: Learner::new(with_score, seed),
            predicted,
        }
    }

    /// Kendall's tau of the values with predicted weights, of the candidates that it learns from.
    fn tau_of_predicted(&self, fidelity: Fidelity) -> Option<f64> {
        let told = self.scored.told(fidelity);
        let pairs =
            told.iter().filter_map(|(arch, value)| Some((known(&self.predicted, &arch_hash(arch))?, *value)));
        let (predicted, trained): (Vec<f64>, Vec<f64>) = pairs.unzip();
        kendall_tau(&predicted, &trained)
    }

    fn proposes(&self) -> Result<bool> {
        Ok(self.unscored.tau()?.is_some_and(|tau| tau.tau >= LEAST))
    }

    fn chooses(&self) -> Result<bool> {
        let Some((fidelity, tau)) = self.scored.fidelity().zip(self.scored.tau()?) else { return Ok(false) };
        let alone = self.tau_of_predicted(fidelity).unwrap_or(0.0);
        Ok(tau.tau >= LEAST && tau.tau > alone)
    }
}

impl Screen for Forecaster {
    fn tell(&mut self, outcome: Outcome<'_>, fidelity: Fidelity) {
        let Some([value]) = outcome.merits else { return };
        if fidelity == Fidelity::Predicted {
            remember(&self.predicted, arch_hash(outcome.arch), *value);
        } else {
            self.unscored.tell(outcome.arch, fidelity, *value);
            self.scored.tell(outcome.arch, fidelity, *value);
        }
    }

    fn values(&self, candidates: &[CellArchitecture]) -> Result<Option<Vec<f64>>> {
        if !self.proposes()? {
            return Ok(None);
        }
        self.unscored.values(candidates)
    }

    fn values_of_scored(&self, candidates: &[(&CellArchitecture, f64)]) -> Result<Option<Vec<f64>>> {
        if !self.chooses()? {
            return Ok(None);
        }
        candidates.iter().for_each(|(arch, value)| remember(&self.predicted, arch_hash(arch), *value));
        let archs: Vec<CellArchitecture> = candidates.iter().map(|(arch, _)| (*arch).clone()).collect();
        self.scored.values(&archs)
    }

    fn forecast(&self) -> Result<Option<Forecast>> {
        let fidelity = self.scored.fidelity().or_else(|| self.scored.most_told());
        let triple = |tau: Tau| [tau.tau, tau.low, tau.high];
        Ok(Some(Forecast {
            fidelity,
            trials: fidelity.map_or(0, |fidelity| self.scored.told(fidelity).len() as u64),
            needed: self.lessons(),
            tau: self.scored.tau()?.map(triple),
            unscored: self.unscored.tau()?.map(|tau| tau.tau),
            predicted: fidelity.and_then(|fidelity| self.tau_of_predicted(fidelity)),
            proposes: self.proposes()?,
            chooses: self.chooses()?,
        }))
    }

    fn lessons(&self) -> u64 {
        Learner::<Fidelity>::FEWEST as u64
    }
}
