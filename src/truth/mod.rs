//! Truth sets: what a plain sample of architectures reaches when each is trained on real images, all with the same
//! recipe. Rankings by cheaper means are measured against them.
//!
//! In: a [`TruthConfig`] (space, number, seed, recipe, what is measured) and images. Out: a folder that grows by one
//! row for each architecture as its training ends, and that anyone can compute again.

mod cheap;
mod config;
mod fill;
mod ladder;
mod methods;
mod rows;
mod selection;
mod set;
mod workers;

pub use cheap::{
    CheapPlan, CheapRow, CheapScorer, IMAGE_SCORES, Measured, OneBatchScore, SIZES, read_stored,
};
pub use config::{Recipe, TruthConfig, TruthEvaluation};
pub use fill::{FillObserver, FillOptions, fill};
pub use ladder::{Staged, Stages};
pub use methods::{Method, Truth, VOTERS, epoch_methods, repeated, single_methods, staged_methods, vote_of};
pub use rows::{CurvePoint, TruthRow};
pub use selection::{Selection, select_on_half};
pub use set::TruthSet;
