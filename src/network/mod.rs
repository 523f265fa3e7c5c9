//! Networks: the intermediate representation, its expansion from a genotype, pruning and cost.

mod builder;
mod check;
mod cost;
mod expand;
mod ir;
mod module;
mod shape;
mod torchvision;
mod validate;

pub use cost::Cost;
pub use expand::{expand, expand_at, expand_with_branches};
pub use ir::{Network, OpId, OpKind, OpNode, Param, ParamId, Shape};
pub use torchvision::{TORCHVISION_NAMES, build, torchvision};
