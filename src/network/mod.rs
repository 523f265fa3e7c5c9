//! Networks: the intermediate representation, its expansion from a genotype, pruning and cost.

mod ir;

pub use ir::{Network, OpId, OpKind, OpNode, Param, ParamId, Shape};
