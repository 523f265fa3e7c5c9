//! Graphs of networks: nodes, edges, virtual edges and the visiting schedule.

mod node;

pub use node::{Graph, Neighbours, Node, Primitive};
