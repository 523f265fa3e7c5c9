//! The visiting order of the gated graph network as data: levels of nodes that can be updated together.
//!
//! A node is visited after all its neighbours on the incoming side (forward sweep) or the outgoing side (backward
//! sweep). Virtual edges run along paths of real ones, so both sets of edges give the same levels.

use super::node::{Graph, Neighbours};

/// Nodes by level; every neighbour that a node reads lies in an earlier level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// First entry of each level in [`Levels::node`], one more than there are levels.
    pub start: Vec<u32>,
    /// Nodes, ascending within a level; each node once.
    pub node: Vec<u32>,
}

impl Levels {
    /// The levels in visiting order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.start.windows(2).map(|range| &self.node[range[0] as usize..range[1] as usize])
    }

    /// Number of levels.
    pub fn len(&self) -> usize {
        self.start.len().saturating_sub(1)
    }

    /// Whether there is no level.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sorts nodes by their level.
    fn of(level: &[u32]) -> Levels {
        let levels = level.iter().max().map_or(0, |&last| last as usize + 1);
        let mut start = vec![0u32; levels + 1];
        level.iter().for_each(|&l| start[l as usize + 1] += 1);
        for l in 0..levels {
            start[l + 1] += start[l];
        }
        let (mut next, mut node) = (start.clone(), vec![0; level.len()]);
        for (v, &l) in level.iter().enumerate() {
            node[next[l as usize] as usize] = v as u32;
            next[l as usize] += 1;
        }
        Levels { start, node }
    }
}

/// Levels of both sweeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Predecessors first.
    pub forward: Levels,
    /// Successors first.
    pub backward: Levels,
}

impl Schedule {
    /// The schedule of one graph.
    pub fn of(graph: &Graph) -> Schedule {
        Schedule::of_neighbours(&graph.incoming, &graph.outgoing)
    }

    /// The schedule of nodes that are numbered in topological order, in one graph or in several side by side.
    pub fn of_neighbours(incoming: &Neighbours, outgoing: &Neighbours) -> Schedule {
        let n = incoming.start.len().saturating_sub(1);
        let (mut forward, mut backward) = (vec![0u32; n], vec![0u32; n]);
        for v in 0..n {
            forward[v] = incoming.of(v).map(|(p, _)| forward[p] + 1).max().unwrap_or(0);
        }
        for v in (0..n).rev() {
            backward[v] = outgoing.of(v).map(|(s, _)| backward[s] + 1).max().unwrap_or(0);
        }
        Schedule { forward: Levels::of(&forward), backward: Levels::of(&backward) }
    }
}
