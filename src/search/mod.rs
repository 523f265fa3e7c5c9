//! Search: strategies, objectives, limits and budgets over one evaluator trait.

use crate::score::Scores;
use crate::space::CellArchitecture;

/// Turns an architecture into scores. The real one predicts weights and runs images; tests use a formula.
pub trait Evaluator: Sync {
    /// Cheap exact costs (parameters, MACs, peak activations) before any compute; an error rejects the candidate.
    fn cost(&self, arch: &CellArchitecture) -> crate::Result<Scores>;

    /// All scores. `seed` is the trial's own. Deterministic but for the times.
    fn evaluate(&self, arch: &CellArchitecture, seed: u64) -> crate::Result<Scores>;
}
