//! The edges of a batch of graphs, as both sweeps need them.

use crate::graph::{Graph, Neighbours};
use crate::{Error, Result};

/// Edges of a batch of graphs, concatenated, ready for the kernels. Made once per meta-batch.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    /// One entry per graph.
    pub(super) graphs: Vec<GraphEdges>,
    n_nodes: usize,
    virtual_edges: bool,
    /// What the kernels for GPUs read, made when it is first asked for.
    #[cfg(feature = "cuda")]
    pub(super) tables: std::sync::OnceLock<std::sync::Arc<super::cuda::Tables>>,
}

/// Edges of one graph; nodes count from 0 within it.
#[derive(Clone, Debug)]
pub(super) struct GraphEdges {
    /// First node in the batch.
    pub first: usize,
    /// Number of nodes.
    pub len: usize,
    /// Edges into each node: direct ones and, with virtual edges, all.
    pub incoming: Vec<Neighbours>,
    /// The transposes of `incoming`.
    pub outgoing: Vec<Neighbours>,
}

impl Edges {
    /// Edges of `graphs`, whose nodes stand one graph after the other; real edges only (distance 1) unless
    /// `virtual_edges`. Outgoing edges are derived from the incoming ones.
    ///
    /// # Errors
    /// If an edge does not lead from an earlier to a later node of its graph, or has distance 0.
    pub fn new(graphs: &[&Graph], virtual_edges: bool) -> Result<Edges> {
        let mut edges = Edges { virtual_edges, ..Edges::default() };
        for (index, graph) in graphs.iter().enumerate() {
            let len = graph.nodes.len();
            check(&graph.incoming, len)
                .map_err(|e| Error::Tensor(format!("message passing: graph {index}: {e}")))?;
            let mut incoming = vec![select(&graph.incoming, |distance| distance == 1)];
            if virtual_edges {
                incoming.push(graph.incoming.clone());
            }
            let outgoing = incoming.iter().map(transpose).collect();
            edges.graphs.push(GraphEdges { first: edges.n_nodes, len, incoming, outgoing });
            edges.n_nodes += len;
        }
        Ok(edges)
    }

    /// Nodes of all graphs.
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// Whether virtual edges are there.
    pub fn virtual_edges(&self) -> bool {
        self.virtual_edges
    }
}

fn check(incoming: &Neighbours, len: usize) -> Result<(), String> {
    if incoming.start.len() != len + 1 {
        return Err(format!("{len} nodes, but {} row starts", incoming.start.len()));
    }
    let ascending = incoming.start.is_sorted() && incoming.start[0] == 0;
    let ends = [incoming.node.len(), incoming.distance.len()];
    if !ascending || ends != [incoming.start[len] as usize; 2] {
        return Err(format!("row starts do not fit {} neighbours, {} distances", ends[0], ends[1]));
    }
    for v in 0..len {
        if let Some((u, distance)) = incoming.of(v).find(|&(u, distance)| u >= v || distance == 0) {
            return Err(format!("edge {u} -> {v} at distance {distance} is not topological"));
        }
    }
    Ok(())
}

/// The edges whose distance is wanted.
fn select(neighbours: &Neighbours, wanted: impl Fn(u8) -> bool) -> Neighbours {
    let mut chosen = Neighbours { start: vec![0], ..Neighbours::default() };
    for v in 0..neighbours.start.len() - 1 {
        for (u, distance) in neighbours.of(v).filter(|&(_, distance)| wanted(distance)) {
            chosen.node.push(u as u32);
            chosen.distance.push(distance);
        }
        chosen.start.push(chosen.node.len() as u32);
    }
    chosen
}

/// Edges in the other direction.
fn transpose(neighbours: &Neighbours) -> Neighbours {
    let n = neighbours.start.len() - 1;
    let mut start = vec![0u32; n + 1];
    for &u in &neighbours.node {
        start[u as usize + 1] += 1;
    }
    for u in 0..n {
        start[u + 1] += start[u];
    }
    let mut next = start.clone();
    let mut node = vec![0; neighbours.node.len()];
    let mut distance = vec![0; neighbours.node.len()];
    for v in 0..n {
        for (u, d) in neighbours.of(v) {
            let at = next[u] as usize;
            next[u] += 1;
            node[at] = v as u32;
            distance[at] = d;
        }
    }
    Neighbours { start, node, distance }
}
