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
//!
//! Where a search trains candidates, evolution by the accuracy of predicted weights breeds near relatives that the
//! hypernetwork likes and training does not. There, only trained candidates are parents: draws are random until some
//! were trained, then each candidate is a mutant of the best of `sample` among the `population` best that were trained,
//! by the highest fidelity they reached. These do not age: there are few of them, and each took seconds.

use super::strategy::{mutant, needs_one_objective};
use super::{Outcome, Proposals, Strategy};
use crate::score::Fidelity;
use crate::space::CellArchitecture;
use crate::{Error, Result};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::VecDeque;

struct Member {
    trial: u64,
    arch: CellArchitecture,
    fidelity: Fidelity,
    value: f64,
}

impl Member {
    /// The better of two; among equals the older trial.
    fn against(&self, other: &Member) -> Ordering {
        let values = self.fidelity.cmp(&other.fidelity).then(self.value.total_cmp(&other.value));
        values.then(other.trial.cmp(&self.trial))
    }
}

/// Who becomes a parent in evolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parents {
    /// The latest candidates, by their values with predicted weights.
    #[default]
    Scored,
    /// The best that were trained, by their values after training.
    Trained,
}

impl Parents {
    /// The default, which former versions knew alone.
    pub(super) fn is_scored(&self) -> bool {
        *self == Parents::Scored
    }
}

/// Aging evolution over a fixed-size population, or evolution of what was trained.
pub struct RegularisedEvolution {
    capacity: usize,
    sample: usize,
    parents: Parents,
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
    pub fn new(population: usize, sample: usize, parents: Parents) -> Result<RegularisedEvolution> {
        if population < 2 {
            return Err(Error::Config(format!("--population {population}: at least 2 are needed to evolve")));
        }
        if !(1..=population).contains(&sample) {
            return Err(Error::Config(format!(
                "--sample {sample}: must be from 1 to the population, {population}"
            )));
        }
        Ok(RegularisedEvolution { capacity: population, sample, parents, members: VecDeque::new() })
    }

    /// The best of a random sample.
    fn parent(&self, rng: &mut ChaCha8Rng) -> Option<&Member> {
        if self.members.is_empty() {
            return None;
        }
        index::sample(rng, self.members.len(), self.sample.min(self.members.len()))
            .iter()
            .map(|i| &self.members[i])
            .max_by(|a, b| a.against(b))
    }
}

impl Strategy for RegularisedEvolution {
    fn check(&self, merits: usize) -> Result<()> {
        needs_one_objective("evolution", merits)
    }

    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let is_grown = self.parents == Parents::Trained || self.members.len() >= self.capacity;
        let parent = self.parent(rng).filter(|_| is_grown);
        mutant(space, parent.map(|member| &member.arch), attempt, rng)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        if self.parents == Parents::Scored {
            self.members.extend(member(outcome, Fidelity::Predicted));
            if self.members.len() > self.capacity {
                self.members.pop_front();
            }
        }
    }

    fn tell_refined(&mut self, outcome: Outcome<'_>, fidelity: Fidelity) {
        if self.parents == Parents::Trained
            && let Some(member) = member(outcome, fidelity)
        {
            self.members.retain(|known| known.trial != member.trial);
            self.members.push_back(member);
            self.members.make_contiguous().sort_by(|a, b| b.against(a));
            self.members.truncate(self.capacity);
        }
    }

    fn lessons(&self) -> Option<u64> {
        (self.parents == Parents::Trained).then_some(self.sample as u64)
    }
}

fn member(outcome: Outcome<'_>, fidelity: Fidelity) -> Option<Member> {
    let value = outcome.merits?[0];
    Some(Member { trial: outcome.trial, arch: outcome.arch.clone(), fidelity, value })
}
