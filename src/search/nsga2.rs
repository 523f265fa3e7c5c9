//! NSGA-II: Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
//! IEEE Transactions on Evolutionary Computation 6(2), 2002, doi:10.1109/4235.996017.
//!
//! The first `population` candidates are random. Then parents win binary tournaments by front and crowding
//! distance, with probability 0.9 (the paper's) two of them are crossed, and the child is mutated in one decision,
//! which is what the paper's rate of one over the number of variables changes on average. When `population`
//! children are scored, the best of parents and children together are the next parents, whole fronts first and of
//! the last front the least crowded.
//!
//! Limits are constraints. In the paper's constrained domination every feasible candidate dominates every
//! infeasible one; here candidates that failed or broke a limit are not members at all, so that they never become
//! parents, even while too few feasible ones are known. Another difference: a known child is mutated further and
//! finally replaced by a random draw, since known candidates are not evaluated again. The paper used a population
//! of 100 for 25,000 evaluations; the default here is for hundreds.

use super::pareto::{crowding, fronts};
use super::strategy::{ATTEMPTS_BEFORE_RANDOM, mutant};
use super::{Outcome, Proposals, Strategy};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const CROSSOVER: f64 = 0.9;

struct Member {
    trial: u64,
    arch: CellArchitecture,
    merits: Vec<f64>,
    front: usize,
    crowding: f64,
}

/// Non-dominated sorting genetic algorithm.
pub struct Nsga2 {
    population: usize,
    parents: Vec<Member>,
    children: Vec<Member>,
}

impl Nsga2 {
    /// Default number of parents, and of children of a generation.
    pub const POPULATION: usize = 24;

    /// Before its first candidate.
    ///
    /// # Errors
    /// A population below 2.
    pub fn new(population: usize) -> Result<Nsga2> {
        if population < 2 {
            return Err(Error::Config(format!("--population {population}: at least 2 are needed to evolve")));
        }
        Ok(Nsga2 { population, parents: Vec::new(), children: Vec::new() })
    }

    /// The better of two random parents; among equals the older trial.
    fn parent(&self, rng: &mut ChaCha8Rng) -> &Member {
        let [a, b] = [(); 2].map(|()| &self.parents[rng.random_range(0..self.parents.len())]);
        let order = a.front.cmp(&b.front).then(b.crowding.total_cmp(&a.crowding)).then(a.trial.cmp(&b.trial));
        if order.is_le() { a } else { b }
    }

    /// Numbers of the parents.
    #[cfg(test)]
    pub(super) fn trials(&self) -> impl Iterator<Item = u64> {
        self.parents.iter().map(|member| member.trial)
    }

    /// Parents and children become the next parents.
    fn select(&mut self) {
        let mut members = std::mem::take(&mut self.parents);
        members.append(&mut self.children);
        members.sort_by_key(|member| member.trial);
        let front = fronts(&members.iter().map(|member| member.merits.as_slice()).collect::<Vec<_>>());
        for number in 0..=front.iter().copied().max().unwrap_or(0) {
            let of_front: Vec<usize> = (0..members.len()).filter(|&i| front[i] == number).collect();
            let merits: Vec<&[f64]> = of_front.iter().map(|&i| members[i].merits.as_slice()).collect();
            for (&i, crowding) in of_front.iter().zip(crowding(&merits)) {
                (members[i].front, members[i].crowding) = (number, crowding);
            }
        }
        members.sort_by(|a, b| {
            a.front.cmp(&b.front).then(b.crowding.total_cmp(&a.crowding)).then(a.trial.cmp(&b.trial))
        });
        members.truncate(self.population);
        self.parents = members;
    }
}

impl Strategy for Nsga2 {
    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        if self.parents.is_empty() || attempt >= ATTEMPTS_BEFORE_RANDOM {
            return space.sample(rng);
        }
        let (a, b) = (self.parent(rng), self.parent(rng));
        let child = match a.trial != b.trial && rng.random_bool(CROSSOVER) {
            true => space.crossover(&a.arch, &b.arch, rng)?,
            false => a.arch.clone(),
        };
        mutant(space, Some(&child), attempt, rng)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let Some(merits) = outcome.merits else { return };
        self.children.push(Member {
            trial: outcome.trial,
            arch: outcome.arch.clone(),
            merits: merits.to_vec(),
            front: 0,
            crowding: 0.0,
        });
        if self.children.len() >= self.population {
            self.select();
        }
    }
}
