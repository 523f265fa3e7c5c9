//! Local search: White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021,
//! arXiv:2005.02960.
//!
//! The best of `starts` random candidates is climbed from: its neighbours are tried, and the first that is better
//! takes its place. After `neighbours` of them without success it counts as a local optimum, and the search starts
//! anew. The paper visits every neighbour of spaces with tens of them; cell spaces have thousands, so here a
//! bounded number is drawn, and the climb goes on at the first improvement (the paper's "query until lower").
//!
//! Neighbours of an earlier place that come in late count only where they are better; candidates that failed or
//! broke a limit count as tried. Given candidates compete with the random ones.

use super::strategy::{mutant, needs_one_objective};
use super::{Outcome, Proposals, Strategy};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;

struct Place {
    arch: CellArchitecture,
    value: f64,
}

/// First-improvement hill climbing with restarts.
pub struct LocalSearch {
    starts: usize,
    neighbours: usize,
    /// The best of this climb; of this start, while it is drawn.
    best: Option<Place>,
    climbing: bool,
    /// Starts drawn, or neighbours tried since the last step.
    tried: usize,
    /// Outcomes known when the current place or start was taken.
    since: u64,
}

impl LocalSearch {
    /// Default number of random candidates, the best of which is climbed from; the paper's 10.
    pub const STARTS: usize = 10;
    /// Default number of neighbours without success after which a place is a local optimum.
    pub const NEIGHBOURS: usize = 24;

    /// Before its first start.
    ///
    /// # Errors
    /// No start or no neighbour.
    pub fn new(starts: usize, neighbours: usize) -> Result<LocalSearch> {
        for (flag, value) in [("--starts", starts), ("--neighbours", neighbours)] {
            if value == 0 {
                return Err(Error::Config(format!("{flag} 0: at least 1 is needed")));
            }
        }
        Ok(LocalSearch { starts, neighbours, best: None, climbing: false, tried: 0, since: 0 })
    }

    fn enter(&mut self, climbing: bool, outcome: &Outcome<'_>) {
        (self.climbing, self.tried, self.since) = (climbing, 0, outcome.trial + 1);
    }
}

impl Strategy for LocalSearch {
    fn check(&self, merits: usize) -> Result<()> {
        needs_one_objective("local", merits)
    }

    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let centre = self.best.as_ref().filter(|_| self.climbing);
        mutant(space, centre.map(|place| &place.arch), attempt, rng)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let value = outcome.merits.map(|merits| merits[0]);
        // Chosen before this climb or start began.
        let is_late = outcome.chosen_after.is_some_and(|known| known < self.since);
        if is_late && !self.climbing {
            return;
        }
        let is_better = value.is_some_and(|value| self.best.as_ref().is_none_or(|best| value > best.value));
        if let Some(value) = value.filter(|_| is_better) {
            self.best = Some(Place { arch: outcome.arch.clone(), value });
        }
        match self.climbing {
            true if is_better => self.enter(true, &outcome),
            true => {
                self.tried += usize::from(!is_late && outcome.chosen_after.is_some());
                if self.tried >= self.neighbours {
                    self.best = None;
                    self.enter(false, &outcome);
                }
            }
            false => {
                self.tried += usize::from(value.is_some());
                if self.tried >= self.starts {
                    self.enter(true, &outcome);
                }
            }
        }
    }
}
