//! A predictor that learns while a search runs: from outcomes at several fidelities, of which it believes the most
//! trusted one that it has heard enough of.
//!
//! In: architectures with values, as they come. Out: values of others. It is a function of what it was told, in that
//! order, so a resumed search goes on identically. Features are computed once for an architecture.

use super::{Predictor, Sample, Tau};
use crate::Result;
use crate::space::{ArchHash, CellArchitecture, arch_hash};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Describe = dyn Fn(&CellArchitecture) -> Result<Vec<f64>> + Send + Sync;

/// Learns values of architectures at fidelities `F`, the most trusted ones last in their order.
pub struct Learner<F> {
    describe: Box<Describe>,
    seed: u64,
    told: BTreeMap<F, Vec<(CellArchitecture, f64)>>,
    known: Mutex<BTreeMap<ArchHash, Vec<f64>>>,
    /// The fidelity and the number of outcomes that the predictor has learned from.
    fitted: Mutex<Option<(F, usize, Arc<Predictor>)>>,
}

impl<F: Ord + Copy + Send + Sync> Learner<F> {
    /// Outcomes at a fidelity that it learns from at least.
    pub const FEWEST: usize = 16;

    /// Has heard of nothing yet; `describe` gives the features of an architecture.
    pub fn new(
        describe: impl Fn(&CellArchitecture) -> Result<Vec<f64>> + Send + Sync + 'static,
        seed: u64,
    ) -> Learner<F> {
        let told = BTreeMap::new();
        let describe = Box::new(describe);
        Learner { describe, seed, told, known: Mutex::default(), fitted: Mutex::new(None) }
    }

    /// Hears of an architecture's value; one that is not finite teaches nothing.
    pub fn tell(&mut self, arch: &CellArchitecture, fidelity: F, value: f64) {
        if value.is_finite() {
            self.told.entry(fidelity).or_default().push((arch.clone(), value));
        }
    }

    /// The fidelity that it predicts, once it has heard enough.
    pub fn fidelity(&self) -> Option<F> {
        let enough = |(&fidelity, told): (&F, &Vec<_>)| (told.len() >= Self::FEWEST).then_some(fidelity);
        self.told.iter().rev().find_map(enough)
    }

    /// The fidelity that it heard most of; of several the most trusted.
    pub fn most_told(&self) -> Option<F> {
        self.told
            .iter()
            .max_by_key(|(fidelity, told)| (told.len(), **fidelity))
            .map(|(&fidelity, _)| fidelity)
    }

    /// Outcomes at a fidelity, in the order in which it heard of them.
    pub fn told(&self, fidelity: F) -> &[(CellArchitecture, f64)] {
        self.told.get(&fidelity).map_or(&[], Vec::as_slice)
    }

    /// Kendall's tau of its predictions in cross-validation; none while it knows too little.
    ///
    /// # Errors
    /// An architecture cannot be described.
    pub fn tau(&self) -> Result<Option<Tau>> {
        Ok(self.predictor()?.and_then(|predictor| predictor.tau()))
    }

    /// A value for each of `candidates` at [`Learner::fidelity`]; none while it knows too little.
    ///
    /// # Errors
    /// An architecture cannot be described.
    pub fn values(&self, candidates: &[CellArchitecture]) -> Result<Option<Vec<f64>>> {
        let Some(predictor) = self.predictor()? else { return Ok(None) };
        let features = candidates.par_iter().map(|arch| self.features(arch)).collect::<Result<Vec<_>>>()?;
        let estimates = predictor.predict(&features)?;
        Ok(Some(estimates.into_iter().map(|estimate| estimate.value).collect()))
    }

    /// Fitted anew if more was told since.
    fn predictor(&self) -> Result<Option<Arc<Predictor>>> {
        let Some(fidelity) = self.fidelity() else { return Ok(None) };
        let told = &self.told[&fidelity];
        let mut fitted = self.fitted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, count, predictor)) = &*fitted
            && (*of, *count) == (fidelity, told.len())
        {
            return Ok(Some(Arc::clone(predictor)));
        }
        let sample = |(arch, value): &(CellArchitecture, f64)| -> Result<Sample> {
            Ok(Sample { features: self.features(arch)?, value: *value })
        };
        let samples = told.par_iter().map(sample).collect::<Result<Vec<Sample>>>()?;
        let predictor = Arc::new(Predictor::fit(&samples, self.seed)?);
        *fitted = Some((fidelity, told.len(), Arc::clone(&predictor)));
        Ok(Some(predictor))
    }

    fn features(&self, arch: &CellArchitecture) -> Result<Vec<f64>> {
        let hash = arch_hash(arch);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(features) = known().get(&hash) {
            return Ok(features.clone());
        }
        let features = (self.describe)(arch)?;
        known().insert(hash, features.clone());
        Ok(features)
    }
}
