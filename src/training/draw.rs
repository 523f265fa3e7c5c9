//! Drawing meta-batches: architectures made on the fly from search spaces, with their networks and graphs.
//!
//! Every draw derives from (seed, purpose, step), so a resumed run draws what the uninterrupted one would have,
//! and held-out architectures never depend on the number of steps.

use super::config::ArchitecturesConfig;
use crate::graph::Graph;
use crate::network::{Network, expand};
use crate::space::{ArchHash, CellArchitecture, Space, arch_hash, training_width};
use crate::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Networks of a space whose sizes stand for all of it, where small ones come first.
const SIZES: usize = 256;
/// Share of a space's networks, the smallest ones, that such a run begins with.
const FIRST_SHARE: f64 = 0.25;

/// An architecture ready for prediction.
pub struct Candidate {
    /// The architecture.
    pub arch: CellArchitecture,
    /// Its network.
    pub network: Network,
    /// Its graph.
    pub graph: Graph,
}

/// What a stream of random numbers is for; each purpose has streams of its own.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Architectures of a training step.
    Training = 1,
    /// Architectures that are never trained on.
    HeldOut = 2,
    /// Dropout masks of a training step.
    Dropout = 3,
    /// Initial weights of one tensor of a network.
    NetworkWeights = 4,
    /// Dropout masks and dropped paths of a step of a network's training.
    NetworkDropout = 5,
    /// Architectures that tell the sizes of a space's networks.
    Sizes = 6,
}

/// Numbers for `purpose` at `index`, independent of all others.
pub(super) fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (chunk, number) in key.chunks_exact_mut(8).zip([seed, 0x6768_6e00 + purpose as u64, index]) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Source of architectures: several spaces with their shares, and the held-out architectures of each.
pub struct ArchitectureSource {
    spaces: Vec<(Space, f64)>,
    config: ArchitecturesConfig,
    seed: u64,
    /// Steps over which networks grow; 0 if all sizes come from the beginning.
    growth: f64,
    /// Parameters of [`SIZES`] networks of each space, ascending; empty without growth.
    sizes: Vec<Vec<usize>>,
    num_classes: usize,
    held_out: Vec<Candidate>,
    held_out_hashes: BTreeSet<ArchHash>,
}

impl ArchitectureSource {
    /// Opens the spaces and draws `held_out` architectures from each, for a run of `steps` steps.
    ///
    /// # Errors
    /// If a space cannot be opened or holds too few architectures.
    pub fn new(
        config: &ArchitecturesConfig,
        steps: u64,
        seed: u64,
        num_classes: usize,
        held_out: usize,
    ) -> Result<ArchitectureSource> {
        let spaces = config
            .spaces
            .iter()
            .map(|entry| Ok((Space::find(&entry.space)?, entry.share)))
            .collect::<Result<Vec<_>>>()?;
        let mut source = ArchitectureSource {
            spaces,
            config: config.clone(),
            seed,
            growth: config.small_first * steps as f64,
            sizes: Vec::new(),
            num_classes,
            held_out: Vec::new(),
            held_out_hashes: BTreeSet::new(),
        };
        for index in 0..source.spaces.len() {
            let mut rng = stream(seed, Purpose::HeldOut, index as u64);
            let wanted = source.held_out.len() + held_out;
            let mut tries = 0;
            while source.held_out.len() < wanted {
                tries += 1;
                if tries > 100 * held_out {
                    return Err(Error::Config(format!(
                        "space {}: fewer than {held_out} different architectures to hold out",
                        config.spaces[index].space
                    )));
                }
                let arch = source.draw_one(index, &mut rng)?;
                if source.held_out_hashes.insert(arch_hash(&arch)) {
                    let candidate = source.candidate(arch)?;
                    source.held_out.push(candidate);
                }
            }
            if source.growth > 0.0 {
                let mut rng = stream(seed, Purpose::Sizes, index as u64);
                let size = |_| Ok(expand(&source.draw_one(index, &mut rng)?, num_classes)?.n_params());
                let mut sizes = (0..SIZES).map(size).collect::<Result<Vec<_>>>()?;
                sizes.sort_unstable();
                source.sizes.push(sizes);
            }
        }
        Ok(source)
    }

    /// Largest number of parameters of networks of a space at a step; none if all sizes are drawn.
    fn largest(&self, space: usize, step: u64) -> Option<usize> {
        // Without growth this is infinite, or no number at step 0: not less than 1 either way.
        let grown = step as f64 / self.growth;
        (grown < 1.0).then(|| {
            let share = FIRST_SHARE + (1.0 - FIRST_SHARE) * grown;
            self.sizes[space][(share * (SIZES - 1) as f64) as usize]
        })
    }

    /// Architectures that are never trained on, space after space.
    pub fn held_out(&self) -> &[Candidate] {
        &self.held_out
    }

    /// The meta-batch of a step.
    ///
    /// # Errors
    /// If no meta-batch within the limit on nodes could be drawn.
    pub fn meta_batch(&self, step: u64) -> Result<Vec<Candidate>> {
        let mut rng = stream(self.seed, Purpose::Training, step);
        let total: f64 = self.spaces.iter().map(|(_, share)| share).sum();
        for _ in 0..100 {
            let mut batch = Vec::with_capacity(self.config.meta_batch);
            while batch.len() < self.config.meta_batch {
                let mut at = rng.random::<f64>() * total;
                let index = self.spaces.iter().position(|(_, share)| {
                    at -= share;
                    at < 0.0
                });
                let index = index.unwrap_or(self.spaces.len() - 1);
                let largest = self.largest(index, step);
                let candidate = loop {
                    let candidate = self.candidate(self.draw_one(index, &mut rng)?)?;
                    if largest.is_none_or(|largest| candidate.network.n_params() <= largest) {
                        break candidate;
                    }
                };
                if !self.held_out_hashes.contains(&arch_hash(&candidate.arch)) {
                    batch.push(candidate);
                }
            }
            if batch.iter().map(|c| c.graph.nodes.len()).sum::<usize>() <= self.config.max_nodes {
                return Ok(batch);
            }
        }
        Err(Error::Config(format!(
            "100 meta-batches of {} architectures all had more than {} nodes (architectures.max_nodes)",
            self.config.meta_batch, self.config.max_nodes
        )))
    }

    fn draw_one(&self, space: usize, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        let mut arch = self.spaces[space].0.sample(rng)?;
        if self.config.reference_width {
            (arch.channels, arch.fc_dim) = (32, 256);
            let n_params = expand(&arch, 10)?.n_params_unpruned();
            (arch.channels, arch.fc_dim) = training_width(&arch, n_params, rng);
        }
        Ok(arch)
    }

    fn candidate(&self, arch: CellArchitecture) -> Result<Candidate> {
        let network = expand(&arch, self.num_classes)?;
        let graph = Graph::of(&network);
        Ok(Candidate { arch, network, graph })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::config::SpaceShare;

    fn source(small_first: f64) -> ArchitectureSource {
        let spaces = vec![SpaceShare { space: "small".into(), share: 1.0 }];
        let config = ArchitecturesConfig {
            spaces,
            meta_batch: 4,
            reference_width: false,
            small_first,
            max_nodes: 2200,
        };
        ArchitectureSource::new(&config, 100, 7, 10, 2).unwrap()
    }

    #[test]
    fn networks_grow_until_all_are_drawn() {
        let (growing, all) = (source(0.5), source(0.0));
        let sizes = |source: &ArchitectureSource, step| {
            source.meta_batch(step).unwrap().iter().map(|c| c.network.n_params()).collect::<Vec<_>>()
        };
        let limits: Vec<usize> = (0..50).map(|step| growing.largest(0, step).unwrap()).collect();
        assert!(limits.is_sorted() && 2 * limits[0] < limits[49], "{limits:?}");
        for (step, limit) in (0..).zip(limits) {
            assert!(sizes(&growing, step).iter().all(|&size| size <= limit), "step {step}");
        }
        let small = growing.largest(0, 0).unwrap();
        assert!((0..5).flat_map(|step| sizes(&all, step)).any(|size| size > small));
        let hashes = |source: &ArchitectureSource, step| {
            source.meta_batch(step).unwrap().iter().map(|c| arch_hash(&c.arch)).collect::<Vec<_>>()
        };
        assert_eq!(growing.largest(0, 50), None);
        assert_eq!(hashes(&growing, 50), hashes(&all, 50));
        assert_ne!(hashes(&growing, 0), hashes(&all, 0));
    }
}
