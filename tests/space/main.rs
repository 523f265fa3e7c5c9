//! Search spaces from outside: files, sampling, identity of architectures, mutation and crossover, lists.

mod files;
mod identity;
mod lists;
mod moves;
mod statistics;

use foretell::space::{CellArchitecture, Space};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A generator of random numbers.
fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// The bundled spaces.
fn spaces() -> Vec<Space> {
    Space::builtin_names().map(|name| Space::builtin(name).unwrap()).collect()
}

/// An architecture of one of the bundled spaces.
fn architecture(seed: u64) -> CellArchitecture {
    let spaces = spaces();
    spaces[(seed % spaces.len() as u64) as usize].sample(&mut rng(seed)).unwrap()
}
