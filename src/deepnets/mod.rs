//! DeepNets-1M: the generator of every split and predefined networks (arXiv 2110.13100, section 3).
//!
//! In: a split, a count, a seed. Out: [`crate::space::ArchRecord`]s; or a network's name and its architecture.

mod predefined;
mod resolve;
mod split;

pub use predefined::{PREDEFINED_NAMES, predefined};
pub use resolve::resolve;
pub use split::{Generator, Split, generate};
