//! Graphs of networks: nodes, edges, virtual edges and the visiting schedule.

mod batch;
mod build;
mod distance;
mod fingerprint;
mod node;
mod schedule;

pub use batch::GraphBatch;
pub use distance::MAX_DISTANCE;
pub use node::{Graph, Neighbours, Node, Primitive};
pub use schedule::{Levels, Schedule};
