//! Lists of architectures by split.

use crate::error::{Error, Result};
use crate::network;
use crate::space::{ArchHash, ArchRecord, Architecture, CellArchitecture, Space, arch_hash, training_width};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Classes of the architectures of all lists.
const CLASSES: usize = 10;
/// Draws for one place of a list that may turn out to be duplicates.
const MAX_ATTEMPTS: u64 = 1000;

/// A list of DeepNets-1M.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// Training architectures, each with a width and a head as training would draw them.
    Train,
    /// Validation architectures.
    Val,
    /// Test architectures.
    Test,
    /// The test architectures with 128 channels instead of 32.
    Wide,
    /// 10 to 36 cells.
    Deep,
    /// 2 to 10 steps in a cell.
    Dense,
    /// Without normalisation layers.
    BnFree,
    /// The space in which the paper searches.
    Search,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 8] = [
        Split::Train,
        Split::Val,
        Split::Test,
        Split::Wide,
        Split::Deep,
        Split::Dense,
        Split::BnFree,
        Split::Search,
    ];

    /// The name used in ids and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
            Split::Wide => "wide",
            Split::Deep => "deep",
            Split::Dense => "dense",
            Split::BnFree => "bnfree",
            Split::Search => "search",
        }
    }

    /// The space that its architectures are drawn from.
    pub fn space(self) -> Result<Space> {
        Space::builtin(match self {
            Split::Train | Split::Val | Split::Test => "deepnets1m",
            other => other.name(),
        })
    }

    // Wide architectures are the test architectures at another width, so they share their random numbers.
    const fn stream(self) -> &'static str {
        match self {
            Split::Wide => Split::Test.name(),
            other => other.name(),
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Split> {
        Split::ALL.into_iter().find(|split| split.name() == name).ok_or_else(|| {
            let names = Split::ALL.map(Split::name).join(", ");
            Error::Config(format!("no split `{name}`; there are {names}"))
        })
    }
}

/// The first `count` architectures of a split, with ids `test/0`, `test/1`, ...
///
/// Every place of the list has its own random numbers, derived from (split, seed, place), so a longer list begins
/// with the shorter one. No network stands in a list twice.
///
/// ```
/// use foretell::deepnets::{Split, generate};
/// let list: Vec<_> = generate(Split::Deep, 3, 1)?.collect::<Result<_, _>>()?;
/// assert_eq!(list[2].id, "deep/2");
/// # Ok::<(), foretell::Error>(())
/// ```
///
/// # Errors
/// None are expected: the bundled spaces can be sampled.
pub fn generate(split: Split, count: usize, seed: u64) -> Result<Generator> {
    Ok(Generator { split, space: split.space()?, seed, next: 0, count, seen: HashSet::new() })
}

/// Iterator over the architectures of a list; see [`generate`].
#[derive(Debug)]
pub struct Generator {
    split: Split,
    space: Space,
    seed: u64,
    next: usize,
    count: usize,
    seen: HashSet<ArchHash>,
}

impl Generator {
    fn draw(&mut self, place: usize) -> Result<CellArchitecture> {
        for attempt in 0..MAX_ATTEMPTS {
            let mut rng = place_rng(self.split, self.seed, place as u64, attempt);
            let mut arch = self.space.sample(&mut rng)?;
            let hash = arch_hash(&arch);
            if !self.seen.insert(hash) {
                continue;
            }
            if self.split == Split::Train {
                let n_params = network::expand(&arch, CLASSES)?.n_params_unpruned();
                (arch.channels, arch.fc_dim) = training_width(&arch, n_params, &mut rng);
            }
            return Ok(arch);
        }
        Err(Error::Config(format!("{MAX_ATTEMPTS} draws for {}/{place} were all duplicates", self.split)))
    }
}

impl Iterator for Generator {
    type Item = Result<ArchRecord>;

    fn next(&mut self) -> Option<Result<ArchRecord>> {
        if self.next >= self.count {
            return None;
        }
        let place = self.next;
        self.next += 1;
        Some(self.draw(place).map(|arch| ArchRecord {
            id: format!("{}/{place}", self.split),
            split: self.split.name().to_owned(),
            num_classes: CLASSES,
            arch: Architecture::Cells(arch),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

fn place_rng(split: Split, seed: u64, place: u64, attempt: u64) -> ChaCha8Rng {
    let text = format!("foretell deepnets 1 {} {seed} {place} {attempt}", split.stream());
    ChaCha8Rng::from_seed(Sha256::digest(text.as_bytes()).into())
}
