//! Groups of architectures that the table has a line for.

use crate::deepnets::{PREDEFINED_NAMES, Split, generate, predefined};
use crate::space::{ArchRecord, Architecture, Space, arch_hash};
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// Draws for one place that may turn out to be duplicates.
const MAX_ATTEMPTS: u64 = 1000;

/// Architectures that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// A split of DeepNets-1M, drawn by its generator.
    Split(Split),
    /// The small search space.
    Small,
    /// One predefined network.
    Named(&'static str),
}

impl Group {
    /// The lines of the paper's table, and the small search space.
    pub const DEFAULT: [Group; 8] = [
        Group::Split(Split::Test),
        Group::Split(Split::Wide),
        Group::Split(Split::Deep),
        Group::Split(Split::Dense),
        Group::Split(Split::BnFree),
        Group::Small,
        Group::Named("resnet50"),
        Group::Named("ViT"),
    ];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Group::Split(split) => split.name(),
            Group::Small => "small",
            Group::Named(name) => name,
        }
    }

    /// The first `count` architectures, in an order that a larger count continues; a predefined network is one.
    ///
    /// Training draws its architectures from streams of another kind, so no seed makes the two draw the same
    /// numbers; a network of the small space may still be met by chance in both.
    ///
    /// # Errors
    /// None are expected of the bundled spaces.
    pub fn architectures(self, count: usize, seed: u64) -> Result<Vec<ArchRecord>> {
        match self {
            Group::Split(split) => generate(split, count, seed)?.collect(),
            Group::Named(name) => Ok(vec![predefined(name)?]),
            Group::Small => small(count, seed),
        }
    }
}

fn small(count: usize, seed: u64) -> Result<Vec<ArchRecord>> {
    let space = Space::builtin("small")?;
    let mut seen = HashSet::new();
    let mut records = Vec::with_capacity(count);
    for place in 0..count {
        let drawn = (0..MAX_ATTEMPTS).find_map(|attempt| {
            let text = format!("foretell evaluation 1 small {seed} {place} {attempt}");
            let mut rng = ChaCha8Rng::from_seed(Sha256::digest(text.as_bytes()).into());
            match space.sample(&mut rng) {
                Ok(arch) => seen.insert(arch_hash(&arch)).then_some(Ok(arch)),
                Err(error) => Some(Err(error)),
            }
        });
        let arch = drawn.ok_or_else(|| {
            Error::Config(format!("{MAX_ATTEMPTS} draws for small/{place} were all duplicates"))
        })??;
        records.push(ArchRecord {
            id: format!("small/{place}"),
            split: "small".into(),
            num_classes: 10,
            arch: Architecture::Cells(arch),
        });
    }
    Ok(records)
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(name: &str) -> Result<Group> {
        if name == "small" {
            return Ok(Group::Small);
        }
        if let Some(known) = PREDEFINED_NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(Group::Named(known));
        }
        name.parse().map(Group::Split).map_err(|_| {
            let splits = Split::ALL.map(Split::name).join(", ");
            Error::Config(format!(
                "no group `{name}`; there are {splits}, small, and the networks {}",
                PREDEFINED_NAMES.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_a_name_that_names_it_and_longer_lists_begin_as_shorter_ones() {
        for group in Group::DEFAULT {
            assert_eq!(group.name().parse::<Group>().unwrap(), group);
            let (short, long) = (group.architectures(2, 9).unwrap(), group.architectures(3, 9).unwrap());
            assert_eq!(short[..], long[..short.len()]);
            assert_eq!(long.len(), if matches!(group, Group::Named(_)) { 1 } else { 3 });
        }
        assert_ne!(Group::Small.architectures(2, 1).unwrap(), Group::Small.architectures(2, 2).unwrap());
        assert_eq!("vit".parse::<Group>().unwrap().name(), "ViT");
        let message = "tset".parse::<Group>().unwrap_err().to_string();
        assert!(message.contains("no group `tset`; there are train, val, test"), "{message}");
    }
}
