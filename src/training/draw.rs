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
    num_classes: usize,
    held_out: Vec<Candidate>,
    held_out_hashes: BTreeSet<ArchHash>,
}

impl ArchitectureSource {
    /// Opens the spaces and draws `held_out` architectures from each.
    ///
    /// # Errors
    /// If a space cannot be opened or holds too few architectures.
    pub fn new(
        config: &ArchitecturesConfig,
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
        }
        Ok(source)
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
                let arch = self.draw_one(index.unwrap_or(self.spaces.len() - 1), &mut rng)?;
                if !self.held_out_hashes.contains(&arch_hash(&arch)) {
                    batch.push(self.candidate(arch)?);
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
