//! The ask/tell interface of strategies, and how each trial's randomness derives from the study's seed.

use super::{Forecast, LocalSearch, Nsga2, Parents, Random, RegularisedEvolution};
use crate::score::Fidelity;
use crate::space::{CellArchitecture, Space, arch_hash};
use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What a strategy needs of a search space.
pub trait Proposals: Sync {
    /// A random architecture.
    fn sample(&self, rng: &mut ChaCha8Rng) -> Result<CellArchitecture>;

    /// A random neighbour of `parent`.
    fn mutate(&self, parent: &CellArchitecture, rng: &mut ChaCha8Rng) -> Result<CellArchitecture>;

    /// A random child of two parents.
    fn crossover(
        &self,
        a: &CellArchitecture,
        b: &CellArchitecture,
        rng: &mut ChaCha8Rng,
    ) -> Result<CellArchitecture>;

    /// Stable hash under which equivalent architectures are equal, in hexadecimal.
    fn hash(&self, arch: &CellArchitecture) -> String;
}

impl Proposals for Space {
    fn sample(&self, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        Space::sample(self, rng)
    }

    fn mutate(&self, parent: &CellArchitecture, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        Space::mutate(self, parent, rng)
    }

    fn crossover(
        &self,
        a: &CellArchitecture,
        b: &CellArchitecture,
        rng: &mut ChaCha8Rng,
    ) -> Result<CellArchitecture> {
        Space::crossover(self, a, b, rng)
    }

    fn hash(&self, arch: &CellArchitecture) -> String {
        arch_hash(arch).to_string()
    }
}

/// What a strategy learns of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The trial's number.
    pub trial: u64,
    /// Its architecture.
    pub arch: &'a CellArchitecture,
    /// How good it is in each objective, higher is better; `None` for a failed or rejected candidate.
    pub merits: Option<&'a [f64]>,
    /// How many outcomes the strategy knew when it chose the candidate; `None` for one that was given to start
    /// from.
    pub chosen_after: Option<u64>,
}

/// Chooses the next candidate.
///
/// Trials are told in the order of their numbers, failed and rejected ones included.
pub trait Strategy: Send {
    /// Checks that it can search for so many objectives at once.
    ///
    /// # Errors
    /// It takes one only.
    fn check(&self, merits: usize) -> Result<()> {
        let _ = merits;
        Ok(())
    }

    /// Proposes a candidate. `attempt` counts the proposals of the same trial that were already known, so that a
    /// strategy can widen its aim; `rng` is the trial's own.
    fn ask(&self, space: &dyn Proposals, attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture>;

    /// Takes in an outcome.
    fn tell(&mut self, outcome: Outcome<'_>);

    /// Takes in what a trial that it was told of scored at a higher fidelity. The order of such outcomes among the
    /// others depends on the settings alone.
    fn tell_refined(&mut self, outcome: Outcome<'_>, fidelity: Fidelity) {
        let _ = (outcome, fidelity);
    }

    /// What candidates would be worth after training, higher is better, given their values with predicted weights;
    /// nothing unless it knows better than these values do.
    ///
    /// # Errors
    /// A candidate cannot be described.
    fn foretell(&self, candidates: &[(&CellArchitecture, f64)]) -> Result<Option<Vec<f64>>> {
        let _ = candidates;
        Ok(None)
    }

    /// How well it foretells what training brings; nothing if it does not try.
    ///
    /// # Errors
    /// As [`Strategy::foretell`].
    fn forecast(&self) -> Result<Option<Forecast>> {
        Ok(None)
    }

    /// Trained candidates that it needs to choose better ones than without; nothing if it does not learn of training.
    fn lessons(&self) -> Option<u64> {
        None
    }
}

/// A strategy by name, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum StrategySettings {
    /// Independent draws from the space.
    Random,
    /// Regularised evolution.
    Evolution {
        /// Candidates alive at once.
        population: usize,
        /// Candidates drawn from the population, the best of which is the parent.
        sample: usize,
        /// Who is in the population.
        #[serde(default, skip_serializing_if = "Parents::is_scored")]
        parents: Parents,
    },
    /// Hill climbing with restarts.
    Local {
        /// Random candidates, the best of which is climbed from.
        starts: usize,
        /// Neighbours without success after which it starts anew.
        neighbours: usize,
    },
    /// Non-dominated sorting genetic algorithm, for several objectives.
    Nsga2 {
        /// Parents, and children of a generation.
        population: usize,
    },
}

impl StrategySettings {
    /// Builds the strategy in its initial state.
    ///
    /// # Errors
    /// A setting out of its range, such as a population below 2.
    pub fn build(&self) -> Result<Box<dyn Strategy>> {
        Ok(match *self {
            StrategySettings::Random => Box::new(Random),
            StrategySettings::Evolution { population, sample, parents } => {
                Box::new(RegularisedEvolution::new(population, sample, parents)?)
            }
            StrategySettings::Local { starts, neighbours } => Box::new(LocalSearch::new(starts, neighbours)?),
            StrategySettings::Nsga2 { population } => Box::new(Nsga2::new(population)?),
        })
    }

    /// The name used on the command line.
    pub const fn name(&self) -> &'static str {
        match self {
            StrategySettings::Random => "random",
            StrategySettings::Evolution { .. } => "evolution",
            StrategySettings::Local { .. } => "local",
            StrategySettings::Nsga2 { .. } => "nsga2",
        }
    }
}

/// Proposals after which a known mutant gains one more mutation.
const ATTEMPTS_PER_MUTATION: u32 = 8;
/// Known mutants after which a trial draws at random.
pub(super) const ATTEMPTS_BEFORE_RANDOM: u32 = 64;

/// A mutant of `parent`, the further away the more of them were known; a random draw without a parent and after
/// many attempts.
pub(super) fn mutant(
    space: &dyn Proposals,
    parent: Option<&CellArchitecture>,
    attempt: u32,
    rng: &mut ChaCha8Rng,
) -> Result<CellArchitecture> {
    let Some(parent) = parent.filter(|_| attempt < ATTEMPTS_BEFORE_RANDOM) else {
        return space.sample(rng);
    };
    let mut child = space.mutate(parent, rng)?;
    for _ in 0..attempt / ATTEMPTS_PER_MUTATION {
        child = space.mutate(&child, rng)?;
    }
    Ok(child)
}

/// Refuses several objectives on behalf of a strategy for one.
pub(super) fn needs_one_objective(name: &str, merits: usize) -> Result<()> {
    match merits {
        0 | 1 => Ok(()),
        _ => Err(Error::Config(format!(
            "--strategy {name} takes one objective, found {merits}: give weights, as in \
             accuracy=1,latency=-0.01, or take --strategy nsga2"
        ))),
    }
}

/// Two purposes of a trial's randomness; distinct streams of one generator.
#[derive(Clone, Copy)]
enum Stream {
    Proposal = 0,
    Evaluation = 1,
}

fn stream(study_seed: u64, trial: u64, stream: Stream) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&study_seed.to_le_bytes());
    key[8..16].copy_from_slice(&trial.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream as u64);
    rng
}

/// The generator from which trial `trial` of a study proposes.
pub fn proposal_rng(study_seed: u64, trial: u64) -> ChaCha8Rng {
    stream(study_seed, trial, Stream::Proposal)
}

/// The seed that the evaluation of trial `trial` is given.
pub fn trial_seed(study_seed: u64, trial: u64) -> u64 {
    stream(study_seed, trial, Stream::Evaluation).next_u64()
}
