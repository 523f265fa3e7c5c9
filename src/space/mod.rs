//! Search spaces: what can be searched, and the genotypes in it.

mod architecture;
mod genotype;
mod op;

pub use architecture::{ArchRecord, Architecture, CellArchitecture, Norm};
pub use genotype::{Edge, Genotype};
pub use op::Op;
