//! Genotypes: the normal and the reduction cell of a DARTS-style network (Liu et al., arXiv 1806.09055).
//!
//! In: nothing but numbers and op names. Out: a value that serialises as the reference writes it,
//! `{"normal": [["conv_3x3", 0], ...], "normal_concat": [2], "reduce": ..., "reduce_concat": ...}`.

use super::op::Op;
use serde::{Deserialize, Serialize};

/// One edge: an operation applied to an earlier state.
///
/// States 0 and 1 are the cell's inputs, state `2 + k` is the sum made by step `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge(pub Op, pub usize);

/// Cell pair of a network: each step of a cell sums two consecutive edges.
///
/// ```
/// use foretell::space::{Genotype, Op};
/// let json = r#"{"normal": [["conv_3x3", 0], ["skip_connect", 1]], "normal_concat": [2],
///                "reduce": [["max_pool_3x3", 0], ["cse", 1]], "reduce_concat": [2]}"#;
/// let genotype: Genotype = serde_json::from_str(json).unwrap();
/// assert_eq!(genotype.steps(), 1);
/// assert_eq!(genotype.reduce[1].0, Op::Cse);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genotype {
    /// Edges of the normal cell, two a step.
    pub normal: Vec<Edge>,
    /// States concatenated to the normal cell's output.
    pub normal_concat: Vec<usize>,
    /// Edges of the reduction cell, two a step.
    pub reduce: Vec<Edge>,
    /// States concatenated to the reduction cell's output.
    pub reduce_concat: Vec<usize>,
}

impl Genotype {
    /// Number of summation steps of the normal cell.
    pub fn steps(&self) -> usize {
        self.normal.len() / 2
    }

    /// Whether either cell holds `op`.
    pub fn contains(&self, op: Op) -> bool {
        self.normal.iter().chain(&self.reduce).any(|edge| edge.0 == op)
    }
}
