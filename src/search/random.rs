//! Random search: the baseline that every other strategy has to beat.

use super::{Outcome, Proposals, Strategy};
use crate::Result;
use crate::space::CellArchitecture;
use rand_chacha::ChaCha8Rng;

/// Independent draws from the space.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Strategy for Random {
    fn ask(&self, space: &dyn Proposals, _attempt: u32, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        space.sample(rng)
    }

    fn tell(&mut self, _outcome: Outcome<'_>) {}
}
