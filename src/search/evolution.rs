//! Regularised (aging) evolution: Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier
//! Architecture Search", AAAI 2019, doi:10.1609/aaai.v33i01.33014780, algorithm 1.
//!
//! The population is a queue. While it fills, candidates are random; then each candidate is a mutant of the best
//! of `sample` members drawn without replacement, enters at the young end, and the oldest member dies, however
//! good it is. The paper used a population of 100 and a sample of 25 for 20,000 candidates; the defaults here
//! are for hundreds, so the population is smaller at the same selection pressure.
//!
//! Two differences: candidates that failed or broke a limit never enter the population, and a mutant that is
//! already known is mutated further and finally replaced by a random draw, since known candidates are not
//! evaluated again.

use super::strategy::{mutant, needs_one_objective};
use super::{Outcome, Proposals, Strategy};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

struct Member {
    trial: u64,
    arch: CellArchitecture,
    value: f64,
}

/// Aging evolution over a fixed-size population.
pub struct RegularisedEvolution {
    capacity: usize,
    sample: usize,
    members: VecDeque<Member>,
}

impl RegularisedEvolution {
    /// Default number of living candidates.
    pub const POPULATION: usize = 24;
    /// Default number of candidates that compete to be the parent.
    pub const SAMPLE: usize = 6;

    /// An empty population.
    ///
    /// # Errors
    /// A population below 2, or a sample outside `1..=population`.
    pub fn new(population: usize, sample: usize) -> Result<RegularisedEvolution> {
        if population < 2 {
            return Err(Error::Config(format!("--population {population}: at least 2 are needed to evolve")));
        }
        if !(1..=population).contains(&sample) {
            return Err(Error::Config(format!(
                "--sample {sample}: must be from 1 to the population, {population}"
            )));
        }
        Ok(RegularisedEvolution { capacity: population, sample, members: VecDeque::new() })
    }

    /// The best of a random sample; among equals the older trial.
    fn parent(&self, rng: &mut ChaCha8Rng) -> Option<&Member> {
        if self.members.is_empty() {
            return None;
        }
        index::sample(rng, self.members.len(), self.sample.min(self.members.len()))
            .iter()
            .map(|i| &self.members[i])
            .max_by(|a, b| a.value.total_cmp(&b.value).then(b.trial.cmp(&a.trial)))
    }
}

impl Strategy for RegularisedEvolution {
    fn check(&self, merits: usize) -> Result<()> {
        needs_one_objective("evolution", merits)
    }

    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let is_full = self.members.len() >= self.capacity;
        let parent = self.parent(rng).filter(|_| is_full);
        mutant(space, parent.map(|member| &member.arch), attempt, rng)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let Some(value) = outcome.merits.map(|merits| merits[0]) else { return };
        self.members.push_back(Member { trial: outcome.trial, arch: outcome.arch.clone(), value });
        if self.members.len() > self.capacity {
            self.members.pop_front();
        }
    }
}
