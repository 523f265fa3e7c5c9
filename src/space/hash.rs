//! Identity of architectures: a hash of the canonical form that is the same on every platform and in every version
//! that writes the same prefix.

use super::architecture::{Architecture, CellArchitecture, Norm};
use super::canonical::canonical;
use super::genotype::Edge;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// First 128 bits of the SHA-256 of an architecture's canonical form; equal for architectures that are the same
/// network up to the numbering of steps. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ArchHash(u128);

impl ArchHash {
    fn of_text(text: &str) -> ArchHash {
        let digest = Sha256::digest(text.as_bytes());
        ArchHash(digest.iter().take(16).fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    /// The hash as a number.
    pub fn value(self) -> u128 {
        self.0
    }
}

/// The hash of a cell architecture.
pub fn arch_hash(arch: &CellArchitecture) -> ArchHash {
    ArchHash::of_text(&spelling(&canonical(arch)))
}

impl Architecture {
    /// The hash of the architecture; predefined networks are told apart by name.
    pub fn arch_hash(&self) -> ArchHash {
        match self {
            Architecture::Cells(cells) => arch_hash(cells),
            Architecture::Torchvision(name) => ArchHash::of_text(&format!("foretell 1 torchvision {name}")),
        }
    }
}

// Written out field by field, so that a change of the JSON form cannot change a hash.
fn spelling(arch: &CellArchitecture) -> String {
    let mut text = format!(
        "foretell 1 C={} fc_dim={} n_cells={} ks={} stem={} pool={} norm={} preproc={} C_mult={} fc={} avg={} imagenet={}",
        arch.channels,
        arch.fc_dim,
        arch.n_cells,
        arch.stem_kernel,
        arch.stem_type,
        arch.stem_pool,
        match arch.norm {
            None => "none",
            Some(Norm::Batch) => "bnorm",
            Some(Norm::BatchTracked) => "bn-track",
        },
        arch.preproc,
        arch.channel_multiplier,
        arch.fc_layers,
        arch.global_pool,
        arch.imagenet_input,
    );
    let genotype = &arch.genotype;
    for (cell, concat) in
        [(&genotype.normal, &genotype.normal_concat), (&genotype.reduce, &genotype.reduce_concat)]
    {
        text.push_str(" |");
        for Edge(op, input) in cell {
            let _ = write!(text, " {op}@{input}");
        }
        let _ = write!(text, " > {concat:?}");
    }
    text
}

impl std::fmt::Display for ArchHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for ArchHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArchHash({self})")
    }
}

impl std::str::FromStr for ArchHash {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<ArchHash> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| digits).map(ArchHash).ok_or_else(|| {
            crate::Error::Config(format!("`{text}` is not an architecture hash (32 hexadecimal digits)"))
        })
    }
}

impl TryFrom<String> for ArchHash {
    type Error = crate::Error;

    fn try_from(text: String) -> crate::Result<ArchHash> {
        text.parse()
    }
}

impl From<ArchHash> for String {
    fn from(hash: ArchHash) -> String {
        hash.to_string()
    }
}
