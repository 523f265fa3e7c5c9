//! Screening: a strategy proposes several candidates, a model of earlier results picks the one that is run.
//!
//! In: a [`Strategy`] and a [`Screen`], such as a regression on embeddings that learns from every outcome. Out: a
//! strategy. The screen is a function of what it was told, as strategies are, so a resumed search goes on
//! identically.

use super::{Forecast, Outcome, Proposals, Strategy};
use crate::score::Fidelity;
use crate::space::{ArchHash, CellArchitecture, arch_hash};
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Foretells how good candidates are.
pub trait Screen: Send {
    /// Learns an outcome at a fidelity.
    fn tell(&mut self, outcome: Outcome<'_>, fidelity: Fidelity);

    /// A value for each candidate, higher is better; nothing while too little is known.
    ///
    /// # Errors
    /// A candidate cannot be described.
    fn values(&self, candidates: &[CellArchitecture]) -> Result<Option<Vec<f64>>>;

    /// As [`Screen::values`], for candidates whose value with predicted weights is known; nothing if that value alone
    /// orders them as well.
    ///
    /// # Errors
    /// As [`Screen::values`].
    fn values_of_scored(&self, candidates: &[(&CellArchitecture, f64)]) -> Result<Option<Vec<f64>>> {
        let _ = candidates;
        Ok(None)
    }

    /// How well it foretells, as far as it can tell.
    ///
    /// # Errors
    /// As [`Screen::values`].
    fn forecast(&self) -> Result<Option<Forecast>> {
        Ok(None)
    }

    /// Trained candidates that it learns from at least.
    fn lessons(&self) -> u64 {
        1
    }
}

/// A strategy whose proposals are screened.
pub struct Screened {
    inner: Box<dyn Strategy>,
    screen: Box<dyn Screen>,
    proposals: usize,
    told: BTreeSet<ArchHash>,
}

impl Screened {
    /// `inner` proposes `proposals` candidates for each that is run.
    ///
    /// # Errors
    /// No proposal at all.
    pub fn new(inner: Box<dyn Strategy>, screen: Box<dyn Screen>, proposals: usize) -> Result<Screened> {
        match proposals {
            0 => Err(Error::Config("a screen needs at least one proposal to choose from".into())),
            _ => Ok(Screened { inner, screen, proposals, told: BTreeSet::new() }),
        }
    }
}

impl Strategy for Screened {
    fn check(&self, merits: usize) -> Result<()> {
        self.inner.check(merits)
    }

    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let draws = (0..self.proposals).map(|_| self.inner.ask(space, attempt, rng));
        let mut candidates = draws.collect::<Result<Vec<CellArchitecture>>>()?;
        // What was tried is no candidate, and a screen would like the best of it most.
        if candidates.iter().any(|arch| !self.told.contains(&arch_hash(arch))) {
            candidates.retain(|arch| !self.told.contains(&arch_hash(arch)));
        }
        let best = self.screen.values(&candidates)?.and_then(|values| {
            let numbered = values.into_iter().enumerate().filter(|(at, _)| *at < candidates.len());
            // Among equals the first proposal.
            numbered.max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i))).map(|(at, _)| at)
        });
        Ok(candidates.swap_remove(best.unwrap_or(0)))
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        self.inner.tell(outcome);
        self.screen.tell(outcome, Fidelity::Predicted);
        self.told.insert(arch_hash(outcome.arch));
    }

    fn tell_refined(&mut self, outcome: Outcome<'_>, fidelity: Fidelity) {
        self.inner.tell_refined(outcome, fidelity);
        self.screen.tell(outcome, fidelity);
    }

    fn foretell(&self, candidates: &[(&CellArchitecture, f64)]) -> Result<Option<Vec<f64>>> {
        self.screen.values_of_scored(candidates)
    }

    fn forecast(&self) -> Result<Option<Forecast>> {
        self.screen.forecast()
    }

    fn lessons(&self) -> Option<u64> {
        let own = self.screen.lessons();
        Some(self.inner.lessons().map_or(own, |inner| inner.min(own)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::formula::{FormulaSpace, architecture};
    use super::super::{Random, proposal_rng};
    use super::*;
    use crate::space::Op;

    /// Likes wide networks once it was told of a refined one.
    struct Wide {
        ready: bool,
    }

    impl Screen for Wide {
        fn tell(&mut self, _: Outcome<'_>, fidelity: Fidelity) {
            self.ready |= fidelity.is_refined();
        }

        fn values(&self, candidates: &[CellArchitecture]) -> Result<Option<Vec<f64>>> {
            Ok(self.ready.then(|| candidates.iter().map(|arch| arch.channels as f64).collect()))
        }
    }

    #[test]
    fn the_screen_picks_among_the_proposals_of_the_strategy() {
        let space = FormulaSpace { sizes: 100 };
        let ask = |strategy: &Screened| strategy.ask(&space, 0, &mut proposal_rng(1, 5)).unwrap();
        let proposals = |count: usize| {
            let mut rng = proposal_rng(1, 5);
            (0..count).map(|_| Random.ask(&space, 0, &mut rng).unwrap()).collect::<Vec<_>>()
        };
        let mut strategy = Screened::new(Box::new(Random), Box::new(Wide { ready: false }), 8).unwrap();
        assert_eq!(ask(&strategy), proposals(1)[0], "the first, while the screen knows nothing");
        let arch = architecture(1, 1, Op::Conv3x3);
        let outcome = Outcome { trial: 0, arch: &arch, merits: Some(&[0.5]), chosen_after: Some(0) };
        strategy.tell(outcome);
        assert_eq!(ask(&strategy), proposals(1)[0]);
        strategy.tell_refined(outcome, Fidelity::Sgd { steps: 5 });
        let mut widest = proposals(8);
        widest.sort_by_key(|arch| std::cmp::Reverse(arch.channels));
        assert_eq!(ask(&strategy).channels, widest[0].channels);
        // One that was tried is passed over.
        strategy.tell(Outcome { trial: 1, arch: &widest[0], ..outcome });
        assert_eq!(ask(&strategy).channels, widest[1].channels);
        assert!(Screened::new(Box::new(Random), Box::new(Wide { ready: false }), 0).is_err());
    }
}
