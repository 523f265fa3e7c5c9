//! What message passing should cost on a GPU: work and waits, counted from the tables that the kernels read.
//!
//! In: a batch's tables, sizes, a GPU's published figures. Out: [`Work`] of each graph, and a range of time: without any
//! wait, and with every wait in full. A graph stays on one multiprocessor, so the largest one sets the time. These are
//! estimates, not measurements.

use super::Weights;
use super::cuda::{SLOTS, Tables, Visits, backward, forward};
use crate::Result;
use crate::kernels::program::Limits;

/// Published figures of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// Clock in GHz.
    pub ghz: f64,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Floating-point operations of one in a cycle, f32.
    pub flops_a_cycle: f64,
    /// Memory bandwidth in TB/s.
    pub terabytes: f64,
    /// What a block may ask for.
    pub limits: Limits,
}

/// The GPUs that forecasts are made for (SXM boards).
pub const GPUS: [Gpu; 2] = [
    Gpu {
        name: "A100",
        ghz: 1.41,
        multiprocessors: 108,
        flops_a_cycle: 128.0,
        terabytes: 1.55,
        limits: Limits { threads: 512, shared_bytes: 163 * 1024 },
    },
    Gpu {
        name: "H100",
        ghz: 1.76,
        multiprocessors: 132,
        flops_a_cycle: 256.0,
        terabytes: 3.35,
        limits: Limits { threads: 512, shared_bytes: 227 * 1024 },
    },
];

/// Barriers of a visit.
const BARRIERS: usize = 6;
/// Cycles in which a warp makes 128 multiply-adds: their operands come from shared memory, 20 bytes a lane, at 128 bytes a
/// cycle.
const CYCLES_FOR_128: f64 = 5.0;
/// Cycles that a visit waits at most: once for its edges from the second-level cache (500), and at each barrier for short
/// chains of loads, sums, `exp` and `tanh` (about 120).
const VISIT_CYCLES: f64 = 500.0 + BARRIERS as f64 * 120.0;
/// Time of a launch on the host, in us, from and to.
pub const LAUNCH_US: [f64; 2] = [4.0, 8.0];
/// Launches for a node of one sweep where every op is one, as PyTorch runs the reference: each of two message functions
/// selects its neighbours, has two linear layers with their ReLUs, scales and sums (7); the two sums are added, the gates
/// are two products and a fused cell, the new state is written (5), and the states are read (1).
const LAUNCHES_A_NODE: usize = 20;

/// One graph's work in both sweeps of the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Nodes.
    pub nodes: usize,
    /// Edges of one sweep: with virtual edges, direct ones are among them.
    pub edges: usize,
    /// Edges of one sweep at distance 1.
    pub direct: usize,
    /// Visits of both sweeps.
    pub visits: usize,
    /// Multiply-adds of the gates.
    pub gates: usize,
    /// Multiply-adds of the message functions.
    pub messages: usize,
    /// Multiply-adds of the gather.
    pub gather: usize,
    /// Bytes read: edges and visits.
    pub read: usize,
    /// Bytes written: what the backward pass needs, and the states.
    pub written: usize,
}

impl Work {
    fn of(graph: usize, weights: &Weights, tables: &Tables) -> Work {
        let Weights { hid, hidden, virtual_edges } = *weights;
        let functions = 1 + usize::from(virtual_edges);
        let nodes = (tables.graphs[graph + 1] - tables.graphs[graph]) as usize;
        let mut work = Work {
            nodes,
            gates: 2 * nodes * 6 * hid * hid,
            messages: 2 * nodes * functions * 2 * hid * hidden,
            written: 4 * (2 * nodes * (6 * hid + functions * (hid + hidden)) + nodes * hid),
            ..Work::default()
        };
        for sweep in &tables.sweeps {
            let visits = sweep.first[graph] as usize..sweep.first[graph + 1] as usize;
            let (edges, direct) = edges(sweep, visits.clone());
            work.gather += (edges + if virtual_edges { direct } else { 0 }) * hid;
            work.read += 4 * edges + visits.len() * SLOTS * 16;
            work.visits += visits.len();
            (work.edges, work.direct) = (edges, direct);
        }
        work
    }

    /// Multiply-adds.
    pub fn multiply_adds(&self) -> usize {
        self.gates + self.messages + self.gather
    }

    /// Barriers that a thread passes.
    pub fn barriers(&self) -> usize {
        BARRIERS * self.visits
    }

    /// Cycles with all waits hidden, and with none hidden, where waits are `waits` times those of the forward pass.
    fn cycles(&self, waits: f64) -> [f64; 2] {
        let arithmetic = self.multiply_adds() as f64 / 128.0 * CYCLES_FOR_128;
        [arithmetic, arithmetic + waits * VISIT_CYCLES * self.visits as f64]
    }
}

/// Edges of some visits, and how many of them have distance 1.
fn edges(sweep: &Visits, visits: std::ops::Range<usize>) -> (usize, usize) {
    let slots = &sweep.slots[4 * SLOTS * visits.start..4 * SLOTS * visits.end];
    let (mut all, mut direct) = (0, 0);
    for slot in slots.chunks_exact(4) {
        let own = &sweep.edges[slot[1] as usize..slot[2] as usize];
        all += own.len();
        direct += own.iter().filter(|&&edge| edge >> 24 == 1).count();
    }
    (all, direct)
}

/// A batch on a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Forward, ms: with all waits hidden, with none hidden.
    pub forward_ms: [f64; 2],
    /// Backward, ms.
    pub backward_ms: [f64; 2],
    /// Launches of the forward and of the backward pass.
    pub launches: [usize; 2],
    /// Forward with a launch for every op of every node, ms.
    pub one_by_one_ms: [f64; 2],
    /// Those launches.
    pub one_by_one_launches: usize,
    /// Dynamic shared memory of a block that sweeps forward, bytes.
    pub shared_bytes: u32,
}

/// The work of every graph of a batch.
pub fn works(weights: &Weights, tables: &Tables) -> Vec<Work> {
    (0..tables.graphs.len() - 1).map(|graph| Work::of(graph, weights, tables)).collect()
}

/// What a batch should cost on `gpu`.
///
/// # Errors
/// If the kernels cannot run it.
pub fn forecast(weights: &Weights, tables: &Tables, gpu: &Gpu) -> Result<Forecast> {
    let works = works(weights, tables);
    let programs = [forward(weights, tables, gpu.limits)?, backward(weights, tables, gpu.limits)?];
    // Blocks wait for a free multiprocessor where there are more of them.
    let rounds = works.len().div_ceil(gpu.multiprocessors) as f64;
    let bytes: usize = works.iter().map(|work| work.read + work.written).sum();
    let by_memory = bytes as f64 / (gpu.terabytes * 1e9);
    let ms = |waits: f64| {
        let longest = |bound: usize| works.iter().map(|w| w.cycles(waits)[bound]).fold(0.0, f64::max);
        [0, 1].map(|bound| (rounds * longest(bound) / (gpu.ghz * 1e6)).max(by_memory))
    };
    let nodes: usize = works.iter().map(|work| work.nodes).sum();
    let one_by_one_launches = 2 * nodes * LAUNCHES_A_NODE;
    Ok(Forecast {
        forward_ms: ms(1.0),
        // Saved values come from global memory.
        backward_ms: ms(2.0),
        launches: [programs[0].launches.len(), programs[1].launches.len()],
        one_by_one_ms: LAUNCH_US.map(|us| one_by_one_launches as f64 * us / 1e3),
        one_by_one_launches,
        shared_bytes: programs[0].launches.first().map_or(0, |launch| launch.shared_bytes),
    })
}
