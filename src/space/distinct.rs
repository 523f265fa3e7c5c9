//! Lists of different architectures, drawn plainly: one draw after the other from one stream of random numbers,
//! repeats left out, nothing balanced. The first of a long list are a shorter list of the same seed.

use super::architecture::{ArchRecord, Architecture};
use super::definition::Space;
use super::hash::arch_hash;
use crate::error::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

/// Draws in a row that may repeat a network before a space counts as exhausted.
const MAX_REPEATS: usize = 1000;

impl Space {
    /// The first `count` different architectures of `seed`, named `SPACE/0`, `SPACE/1` and so on.
    ///
    /// ```
    /// let space = foretell::space::Space::find("small")?;
    /// assert_eq!(space.sample_distinct(3, 7)?[..2], space.sample_distinct(2, 7)?);
    /// # Ok::<(), foretell::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the space gives fewer, or a draw fails as in [`Space::sample`].
    pub fn sample_distinct(&self, count: usize, seed: u64) -> Result<Vec<ArchRecord>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut seen = HashSet::new();
        let mut records = Vec::new();
        let mut repeats = 0;
        while records.len() < count {
            let arch = self.sample(&mut rng)?;
            if seen.insert(arch_hash(&arch)) {
                repeats = 0;
                records.push(ArchRecord {
                    id: format!("{}/{}", self.name(), records.len()),
                    split: self.name().to_owned(),
                    num_classes: self.num_classes(),
                    arch: Architecture::Cells(arch),
                });
                continue;
            }
            repeats += 1;
            if repeats == MAX_REPEATS {
                return Err(Error::Config(format!(
                    "space `{}` gave {} distinct networks, then only repeats; ask for fewer than {count}",
                    self.name(),
                    records.len()
                )));
            }
        }
        Ok(records)
    }
}
