//! CUDA kernels of message passing, as programs for a device: the launches, and the tables that they read.
//!
//! In: weights' sizes, edges, the device's limits. Out: the [`Program`] of the forward or the backward pass, f32. One
//! block of threads sweeps one graph in one launch; see `block.cuh`.

use std::sync::Arc;

use super::Weights;
use super::edges::Edges;
use crate::graph::{Levels, Neighbours, Schedule};
use crate::kernels::program::{Argument, Buffer, Launch, Limits, Program, Source};
use crate::{Error, Result};

/// `SLOTS` in `block.cuh`: nodes of a visit at most.
pub(super) const SLOTS: usize = 8;
/// Nodes over which one block sums a part of the weights' gradient.
const NODES_PER_PART: usize = 64;
/// Threads of a block of the kernels that sum weights' gradients.
const SUM_THREADS: u32 = 256;

/// A batch of graphs as the kernels read it.
#[derive(Clone, Debug)]
pub struct Tables {
    nodes: usize,
    /// Nodes of the largest graph.
    largest: usize,
    virtual_edges: bool,
    /// First node of each graph, and the end.
    pub(super) graphs: Arc<[u32]>,
    /// Of the sweep over incoming and of that over outgoing edges.
    pub(super) sweeps: [Visits; 2],
}

/// Visits of one sweep: nodes of one level, whose neighbours were all visited before.
#[derive(Clone, Debug)]
pub(super) struct Visits {
    /// First visit of each graph, and the end.
    pub first: Arc<[u32]>,
    /// `[visits, SLOTS, 4]`: node within its graph, first edge, end of its edges, nodes of the visit.
    pub slots: Arc<[u32]>,
    /// Neighbour within its graph in the lower 24 bits, distance above.
    pub edges: Arc<[u32]>,
}

impl Tables {
    /// # Errors
    /// If there are too many nodes or edges for the kernels' indices.
    pub fn new(edges: &Edges) -> Result<Tables> {
        let largest = edges.graphs.iter().map(|graph| graph.len).max().unwrap_or(0);
        if largest >= 1 << 24 {
            return Err(Error::Tensor(format!("message passing: {largest} nodes in a graph are too many")));
        }
        let mut graphs = vec![0];
        graphs.extend(edges.graphs.iter().map(|graph| (graph.first + graph.len) as u32));
        let rows: Vec<_> =
            edges.graphs.iter().map(|graph| (graph.incoming.last(), graph.outgoing.last())).collect();
        let mut pairs = Vec::with_capacity(rows.len());
        for (incoming, outgoing) in rows {
            let (Some(incoming), Some(outgoing)) = (incoming, outgoing) else {
                return Err(Error::Tensor("message passing: a graph without edge lists".into()));
            };
            pairs.push((incoming, outgoing, Schedule::of_neighbours(incoming, outgoing)));
        }
        let sweeps = [
            Visits::new(pairs.iter().map(|(incoming, _, schedule)| (*incoming, &schedule.forward)))?,
            Visits::new(pairs.iter().map(|(_, outgoing, schedule)| (*outgoing, &schedule.backward)))?,
        ];
        let virtual_edges = edges.virtual_edges();
        Ok(Tables { nodes: edges.n_nodes(), largest, virtual_edges, graphs: graphs.into(), sweeps })
    }

    fn graphs(&self) -> usize {
        self.graphs.len() - 1
    }

    /// The arguments that both sweeps' kernels have in common.
    fn arguments(&self, program: &mut Program) -> Vec<Argument> {
        let mut arguments = vec![program.buffer(Buffer::Table(self.graphs.clone()))];
        for sweep in &self.sweeps {
            for table in [&sweep.first, &sweep.slots, &sweep.edges] {
                arguments.push(program.buffer(Buffer::Table(table.clone())));
            }
        }
        arguments
    }
}

impl Visits {
    fn new<'a>(graphs: impl Iterator<Item = (&'a Neighbours, &'a Levels)>) -> Result<Visits> {
        let (mut first, mut slots, mut edges) = (vec![0], Vec::new(), Vec::new());
        for (neighbours, levels) in graphs {
            for nodes in levels.iter().flat_map(|level| level.chunks(SLOTS)) {
                for &node in nodes {
                    let begin = edges.len() as u32;
                    let heard = neighbours.of(node as usize);
                    edges.extend(heard.map(|(u, distance)| u as u32 | u32::from(distance) << 24));
                    slots.extend([node, begin, edges.len() as u32, nodes.len() as u32]);
                }
                slots.extend(std::iter::repeat_n(0, 4 * (SLOTS - nodes.len())));
            }
            first.push((slots.len() / (4 * SLOTS)) as u32);
        }
        if edges.len() > u32::MAX as usize || slots.len() > u32::MAX as usize {
            return Err(Error::Tensor(format!("message passing: {} edges are too many", edges.len())));
        }
        Ok(Visits { first: first.into(), slots: slots.into(), edges: edges.into() })
    }
}

/// Sizes of the kernels' buffers, in floats.
struct Sizes {
    hid: usize,
    functions: usize,
    /// `SAVED` and `DELTAS` in `block.cuh`.
    saved: usize,
    deltas: usize,
    /// What a block needs in any case, and the weights with their padding: `Shared` and `Maps` in `block.cuh`.
    shared: usize,
    resident_weights: usize,
}

impl Sizes {
    fn new(weights: &Weights, tables: &Tables, limits: Limits) -> Result<Sizes> {
        let Weights { hid, hidden, virtual_edges } = *weights;
        let refuse = |reason: String| Err(Error::Tensor(format!("message passing on a GPU: {reason}")));
        if hid == 0 || !hid.is_multiple_of(8) || hidden == 0 || !hidden.is_multiple_of(4) {
            return refuse(format!(
                "multiples of 8 and 4 expected for hid and hidden, found {hid} and {hidden}"
            ));
        }
        if tables.nodes * hid > u32::MAX as usize {
            return refuse(format!("{} nodes are too many", tables.nodes));
        }
        if virtual_edges != tables.virtual_edges {
            return refuse("weights and edges disagree about virtual edges".into());
        }
        if limits.threads == 0 || !limits.threads.is_multiple_of(32) || limits.threads > 512 {
            return refuse(format!("32, 64 .. 512 threads a block expected, found {}", limits.threads));
        }
        let functions = 1 + usize::from(virtual_edges);
        let per_function = hidden * (hid + 4) + hidden + hid * (hidden + 4) + hid;
        let sizes = Sizes {
            hid,
            functions,
            saved: 6 * hid + functions * (hid + hidden),
            deltas: 5 * hid + functions * (hid + hidden),
            shared: 256 + 2 * SLOTS * 4 + SLOTS * 9 * hid + SLOTS * functions * (hidden + hid),
            resident_weights: functions * per_function + 6 * hid * (hid + 4) + 6 * hid,
        };
        if 4 * sizes.shared > limits.shared_bytes as usize {
            let (needed, given) = (4 * sizes.shared, limits.shared_bytes);
            return refuse(format!(
                "hid {hid} needs {needed} bytes of shared memory a block, but has {given}"
            ));
        }
        Ok(sizes)
    }

    /// Shared memory for a sweep that keeps `rows` rows for each node: no more than the largest graph can use.
    fn shared_bytes(&self, limits: Limits, tables: &Tables, rows: usize) -> u32 {
        let wish = 4 * (self.shared + self.resident_weights + rows * self.hid * tables.largest);
        let given = limits.shared_bytes as usize / 4 * 4;
        wish.min(given) as u32
    }
}

fn source(name: &'static str, weights: &Weights, texts: &'static [&'static str]) -> Source {
    let functions = 1 + usize::from(weights.virtual_edges);
    Source {
        name,
        texts,
        defines: vec![("HID", weights.hid), ("HIDDEN", weights.hidden), ("FUNCTIONS", functions)],
    }
}

/// Length of what the forward pass leaves for the backward pass.
#[cfg(feature = "cuda")]
pub(super) fn saved_len(weights: &Weights, tables: &Tables) -> usize {
    let functions = 1 + usize::from(weights.virtual_edges);
    2 * tables.nodes * (6 * weights.hid + functions * (weights.hid + weights.hidden))
}

/// States after both sweeps. Inputs: states `[nodes, hid]`, packed weights. Outputs: what the backward pass needs,
/// then the states `[nodes, hid]`.
///
/// # Errors
/// If `hid` is not a multiple of 8 or `hidden` of 4, or the device has too little shared memory.
pub fn forward(weights: &Weights, tables: &Tables, limits: Limits) -> Result<Program> {
    let sizes = Sizes::new(weights, tables, limits)?;
    let mut program = Program::default();
    let mut arguments = vec![
        program.buffer(Buffer::Input(tables.nodes * sizes.hid)),
        program.buffer(Buffer::Input(weights.len())),
    ];
    arguments.extend(tables.arguments(&mut program));
    arguments.push(program.buffer(Buffer::Output(2 * tables.nodes * sizes.saved)));
    arguments.push(program.buffer(Buffer::Output(tables.nodes * sizes.hid)));
    let shared_bytes = sizes.shared_bytes(limits, tables, sizes.functions);
    arguments.extend([Argument::Number(tables.nodes as u32), Argument::Number(shared_bytes / 4)]);
    if tables.nodes > 0 {
        program.launches.push(Launch {
            source: source(
                "message passing, forward",
                weights,
                &[include_str!("block.cuh"), include_str!("forward.cu")],
            ),
            kernel: "message_passing_forward",
            grid: [tables.graphs() as u32, 1],
            threads: limits.threads,
            shared_bytes,
            arguments,
        });
    }
    Ok(program)
}

/// Gradients. Inputs: states, packed weights, what the forward pass left, gradient of its states. Output: gradients of
/// the states `[nodes, hid]` and of the packed weights, one after the other.
///
/// # Errors
/// As [`forward`].
pub fn backward(weights: &Weights, tables: &Tables, limits: Limits) -> Result<Program> {
    let sizes = Sizes::new(weights, tables, limits)?;
    let nodes = tables.nodes;
    let mut program = Program::default();
    let states = program.buffer(Buffer::Input(nodes * sizes.hid));
    let packed = program.buffer(Buffer::Input(weights.len()));
    let saved = program.buffer(Buffer::Input(2 * nodes * sizes.saved));
    let grad = program.buffer(Buffer::Input(nodes * sizes.hid));
    let deltas = program.buffer(Buffer::Scratch(2 * nodes * sizes.deltas));
    let gradients = program.buffer(Buffer::Output(nodes * sizes.hid + weights.len()));
    let shared_bytes = sizes.shared_bytes(limits, tables, 1);
    let count = nodes.div_ceil(NODES_PER_PART);
    let parts = program.buffer(Buffer::Scratch(count * weights.len()));

    if nodes > 0 {
        let mut arguments = vec![states, packed];
        arguments.extend(tables.arguments(&mut program));
        arguments.extend([saved, grad, deltas, gradients]);
        arguments.extend([Argument::Number(nodes as u32), Argument::Number(shared_bytes / 4)]);
        program.launches.push(Launch {
            source: source(
                "message passing, backward",
                weights,
                &[include_str!("block.cuh"), include_str!("backward.cu")],
            ),
            kernel: "message_passing_backward",
            grid: [tables.graphs() as u32, 1],
            threads: limits.threads,
            shared_bytes,
            arguments,
        });
    }
    let (h, k) = (weights.hid, weights.hidden);
    // A thread for four outputs and one input, or the bias, of every map.
    let tasks = sizes.functions * (k / 4 * (h + 1) + h / 4 * (k + 1)) + 2 * (3 * h / 4 * (h + 1));
    let texts = &[include_str!("block.cuh"), include_str!("weight_gradient.cu")];
    let sum = |kernel, grid, arguments| Launch {
        source: source("message passing, weights", weights, texts),
        kernel,
        grid,
        threads: SUM_THREADS,
        shared_bytes: 0,
        arguments,
    };
    if nodes > 0 {
        let numbers = [Argument::Number(nodes as u32), Argument::Number(NODES_PER_PART as u32)];
        let arguments = [states, saved, deltas, parts].into_iter().chain(numbers).collect();
        let grid = [tasks.div_ceil(SUM_THREADS as usize) as u32, count as u32];
        program.launches.push(sum("message_passing_weight_parts", grid, arguments));
    }
    let arguments =
        vec![parts, Argument::Number(count as u32), gradients, Argument::Number((nodes * h) as u32)];
    let grid = [weights.len().div_ceil(SUM_THREADS as usize) as u32, 1];
    program.launches.push(sum("message_passing_weight_sum", grid, arguments));
    Ok(program)
}
