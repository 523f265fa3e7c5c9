//! Search spaces: what can be searched, and the genotypes in it.
//!
//! A [`Space`] comes from a TOML file. It draws, mutates and crosses [`CellArchitecture`]s; [`canonical`] and
//! [`arch_hash`] tell which of them are the same network; [`ArchRecord`]s are how files list them.

mod architecture;
mod canonical;
mod definition;
mod distinct;
mod document;
mod genotype;
mod hash;
mod limits;
mod mutate;
mod op;
mod records;
mod rules;
mod sample;

pub use architecture::{ArchRecord, Architecture, CellArchitecture, Norm};
pub use canonical::{canonical, canonical_genotype};
pub use definition::Space;
pub use genotype::{Edge, Genotype};
pub use hash::{ArchHash, arch_hash};
pub use op::Op;
pub use records::{read_records, records_to_text, save_records};
pub use sample::{Rejections, training_width};
