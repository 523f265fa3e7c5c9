//! `foretell bench model`: what the kernels should take on GPUs that are not at hand.

use std::collections::BTreeSet;

use super::batch::{BatchArgs, described};
use crate::cli::output::print;
use crate::graph::{Graph, Schedule};
use crate::kernels::message_passing::forecast::{GPUS, Gpu, LAUNCH_US, Work, forecast, works};
use crate::kernels::message_passing::{Edges, Weights, cuda};
use crate::network::Network;

/// Flags of `foretell bench model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    batch: BatchArgs,
    /// Size of a node's state
    #[arg(long, value_name = "N", default_value_t = 32)]
    hid: usize,
}

/// Channels of the table that GHN-2 predicts for images of 32 x 32.
const MAX_CHANNELS: usize = 64;
/// Rows and columns of that table.
const MAX_POSITIONS: usize = 11;
/// Launches for a slice of the decoder's last layer in candle's ops: the used weights and biases are copied, a product, the
/// bias, and a copy into the joined result.
const LAUNCHES_A_SLICE: usize = 5;

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let batch = args.batch.draw()?;
    let weights = Weights { hid: args.hid, hidden: args.hid / 2, virtual_edges: true };
    let graphs: Vec<&Graph> = batch.iter().map(|(_, graph)| graph).collect();
    let tables = cuda::Tables::new(&Edges::new(&graphs, true)?)?;
    let mut text = format!("{}, GHN-2, hid {}\n", described(&batch), args.hid);
    text += &work(&works(&weights, &tables), &graphs);
    text += "\nmessage passing: all waits hidden - none hidden\n";
    for gpu in &GPUS {
        let found = forecast(&weights, &tables, gpu)?;
        let range = |[low, high]: [f64; 2]| format!("{low:.2} - {high:.2} ms");
        text += &format!("  {}, {:.2} GHz\n", gpu.name, gpu.ghz);
        text += &format!("    forward,  {} launch     {}\n", found.launches[0], range(found.forward_ms));
        text += &format!("    backward, {} launches   {}\n", found.launches[1], range(found.backward_ms));
        let [low, high] = found.one_by_one_ms;
        let (launches, [from, to]) = (found.one_by_one_launches, LAUNCH_US);
        text += &format!(
            "    a launch for every op of every node, forward: {launches} launches at {from} to {to} us, {low:.0} - \
             {high:.0} ms\n"
        );
        let (busy, kilobytes) =
            (batch.len().min(gpu.multiprocessors), f64::from(found.shared_bytes) / 1024.0);
        text += &format!(
            "    one block of 16 warps (25 % of 64) on each of {busy} of {} multiprocessors, {kilobytes:.1} of {} KiB \
             shared memory\n",
            gpu.multiprocessors,
            gpu.limits.shared_bytes / 1024
        );
    }
    print(&(text + &decoding(&batch, args.hid)))
}

/// What an average graph asks for.
fn work(works: &[Work], graphs: &[&Graph]) -> String {
    let mean = |of: &dyn Fn(&Work) -> usize| works.iter().map(of).sum::<usize>() as f64 / works.len() as f64;
    let levels: usize = graphs
        .iter()
        .map(|graph| {
            let schedule = Schedule::of(graph);
            schedule.forward.len() + schedule.backward.len()
        })
        .sum();
    let mut text = "forward, mean of a graph, both sweeps together\n".to_owned();
    let mut row = |name: &str, value: f64| text += &format!("  {name:<44} {value:>12.0}\n");
    row("nodes", mean(&|w| w.nodes));
    row("edges of a sweep", mean(&|w| w.edges));
    row("  of these direct", mean(&|w| w.direct));
    row("levels", levels as f64 / graphs.len() as f64);
    row("visits: up to 8 nodes of a level", mean(&|w| w.visits));
    row("barriers", mean(&Work::barriers));
    row("multiply-adds: gates", mean(&|w| w.gates));
    row("multiply-adds: messages", mean(&|w| w.messages));
    row("multiply-adds: gather", mean(&|w| w.gather));
    row("bytes read: edges, visits", mean(&|w| w.read));
    row("bytes written: for the backward pass, states", mean(&|w| w.written));
    text
}

/// Tiling, and the decoder's last layer, which runs in candle's ops.
fn decoding(batch: &[(Network, Graph)], hid: usize) -> String {
    let (mut slices, mut rows, mut values, mut params) = (BTreeSet::new(), 0, 0, 0);
    for param in batch.iter().flat_map(|(network, _)| &network.params) {
        params += param.numel();
        if let [o, i, ref window @ ..] = param.shape[..] {
            let positions: usize = window.iter().map(|&side| side.min(MAX_POSITIONS)).product();
            let channels = [o, i].map(|count| count.min(MAX_CHANNELS));
            slices.insert(channels);
            rows += positions;
            values += channels[0] * channels[1] * positions;
        }
    }
    let (flops, launches) = (2.0 * values as f64 * 8.0 * hid as f64, LAUNCHES_A_SLICE * slices.len());
    let mut text = format!(
        "\ndecoder, last layer, in candle's ops: {rows} positions of kernels, {} slices of equal channels, {:.1} GFLOP, \
         {launches} launches\n",
        slices.len(),
        flops / 1e9
    );
    text += &format!("tiling: {:.2} M parameters, one launch\n", params as f64 / 1e6);
    for Gpu { name, ghz, multiprocessors, flops_a_cycle, terabytes, .. } in &GPUS {
        let peak = flops_a_cycle * *multiprocessors as f64 * ghz * 1e9;
        let [from, to] = LAUNCH_US.map(|us| launches as f64 * us / 1e3);
        text += &format!(
            "  {name}: decoder {:.2} ms of arithmetic at the peak of {:.1} TFLOP/s f32, {from:.2} - {to:.2} ms of \
             launches beside it; tiling {:.0} us to write at {terabytes} TB/s\n",
            1e3 * flops / peak,
            peak / 1e12,
            4.0 * params as f64 / terabytes / 1e6
        );
    }
    text
}
