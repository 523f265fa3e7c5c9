//! Several graphs side by side, so that a meta-batch is visited level by level in one sweep.

use super::node::{Graph, Neighbours};
use super::schedule::Schedule;
use std::borrow::Borrow;
use std::ops::Range;

/// Graphs concatenated: node indices are global, no edge joins two graphs, and a level of the schedule holds that
/// level of every graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphBatch {
    /// First node of each graph, one more than there are graphs.
    pub offset: Vec<u32>,
    /// Incoming neighbours of every node.
    pub incoming: Neighbours,
    /// Outgoing neighbours of every node.
    pub outgoing: Neighbours,
    /// Levels over all graphs.
    pub schedule: Schedule,
}

impl GraphBatch {
    /// Joins `graphs` in their order.
    pub fn of<G: Borrow<Graph>>(graphs: &[G]) -> GraphBatch {
        let mut offset = vec![0u32];
        let mut incoming = Neighbours { start: vec![0], ..Neighbours::default() };
        let mut outgoing = incoming.clone();
        for graph in graphs {
            let graph = graph.borrow();
            let first = offset[offset.len() - 1];
            append(&mut incoming, &graph.incoming, first);
            append(&mut outgoing, &graph.outgoing, first);
            offset.push(first + graph.nodes.len() as u32);
        }
        let schedule = Schedule::of_neighbours(&incoming, &outgoing);
        GraphBatch { offset, incoming, outgoing, schedule }
    }

    /// Number of nodes of all graphs.
    pub fn n_nodes(&self) -> usize {
        self.offset.last().map_or(0, |&last| last as usize)
    }

    /// Number of graphs.
    pub fn n_graphs(&self) -> usize {
        self.offset.len().saturating_sub(1)
    }

    /// Nodes of graph `index`.
    pub fn nodes_of(&self, index: usize) -> Range<usize> {
        self.offset[index] as usize..self.offset[index + 1] as usize
    }
}

fn append(all: &mut Neighbours, one: &Neighbours, first_node: u32) {
    let edges = all.node.len() as u32;
    all.start.extend(one.start.iter().skip(1).map(|start| start + edges));
    all.node.extend(one.node.iter().map(|node| node + first_node));
    all.distance.extend_from_slice(&one.distance);
}

#[cfg(test)]
mod tests {
    use super::super::distance::{shortest_distances, tests::graphs};
    use super::super::node::{Node, Primitive};
    use super::super::schedule::Levels;
    use super::*;
    use proptest::prelude::*;

    fn graph(predecessors: &[Vec<usize>]) -> Graph {
        let node = Node { primitive: Primitive::Sum, param: None, norm_bias: None, shape: None };
        let (incoming, outgoing) = shortest_distances(predecessors);
        Graph { nodes: vec![node; predecessors.len()], incoming, outgoing }
    }

    fn check(levels: &Levels, neighbours: &Neighbours, n: usize) -> Result<(), TestCaseError> {
        let mut done = vec![false; n];
        for level in levels.iter() {
            prop_assert!(!level.is_empty());
            for &v in level {
                prop_assert!(neighbours.of(v as usize).all(|(p, _)| done[p]));
            }
            for &v in level {
                prop_assert!(!std::mem::replace(&mut done[v as usize], true));
            }
        }
        prop_assert!(done.into_iter().all(|done| done));
        Ok(())
    }

    proptest! {
        #[test]
        fn neighbours_are_visited_before(many in prop::collection::vec(graphs(), 0..4)) {
            let graphs: Vec<Graph> = many.iter().map(|one| graph(one)).collect();
            let batch = GraphBatch::of(&graphs);
            prop_assert_eq!(batch.n_graphs(), graphs.len());
            check(&batch.schedule.forward, &batch.incoming, batch.n_nodes())?;
            check(&batch.schedule.backward, &batch.outgoing, batch.n_nodes())?;
            for (index, graph) in graphs.iter().enumerate() {
                let nodes = batch.nodes_of(index);
                prop_assert_eq!(nodes.len(), graph.nodes.len());
                for v in nodes.clone() {
                    let local: Vec<_> = batch.incoming.of(v).map(|(p, d)| (p - nodes.start, d)).collect();
                    prop_assert_eq!(local, graph.incoming.of(v - nodes.start).collect::<Vec<_>>());
                    let local: Vec<_> = batch.outgoing.of(v).map(|(s, d)| (s - nodes.start, d)).collect();
                    prop_assert_eq!(local, graph.outgoing.of(v - nodes.start).collect::<Vec<_>>());
                }
            }
            if let [only] = graphs.as_slice() {
                prop_assert_eq!(batch.schedule, Schedule::of(only));
            }
        }
    }
}
