//! `foretell fixture`: writes what other implementations are compared with, in the fixtures' formats.
//!
//! In: a list of architectures, and a hypernetwork. Out: `graphs.json` (graphs and parameter lists by id),
//! `rejected.json` (architectures that cannot be built or predicted, with the reason), and
//! `predictions.safetensors`.

use super::fixture_predictions::{Images, Predictions};
use crate::error::Error;
use crate::files::write_atomically;
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::network::{Network, build};
use crate::space::{ArchRecord, read_records};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Write graphs and predictions in the formats of the fixtures.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architectures: a JSON array or JSON lines.
    #[arg(long, value_name = "FILE")]
    archs: PathBuf,
    /// Hypernetwork, .safetensors or .pt; without one, graphs only.
    #[arg(long, value_name = "FILE")]
    ghn: Option<PathBuf>,
    /// Safetensors with the tensor `images` [N, 3, H, W], for logits.
    #[arg(long, value_name = "FILE", requires = "ghn")]
    inputs: Option<PathBuf>,
    /// Folder to write to; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let predictions = match &args.ghn {
        Some(ghn) => {
            let images = args.inputs.as_deref().map(Images::read).transpose()?;
            Some(Predictions::new(Ghn::load(ghn)?, images))
        }
        None => None,
    };
    let records = read_records(&args.archs)?;
    let (networks, mut rejected) = build_all(records)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    write_graphs(&args.out, &networks)?;
    if let Some(predictions) = predictions {
        write_predictions(&args.out, predictions, &networks, &mut rejected)?;
    }
    write_json(&args.out.join("rejected.json"), &rejected)?;
    Ok(())
}

/// An architecture with its network and graph.
struct Built {
    record: ArchRecord,
    network: Network,
    graph: Graph,
}

/// An architecture that cannot be built.
#[derive(Serialize)]
struct Rejected {
    id: String,
    reason: String,
}

/// Builds all networks; architectures that are rejected are set apart, other errors end the command.
fn build_all(records: Vec<ArchRecord>) -> anyhow::Result<(Vec<Built>, Vec<Rejected>)> {
    let (mut built, mut rejected) = (Vec::new(), Vec::new());
    for record in records {
        match build(&record.arch, record.num_classes) {
            Ok(network) => built.push(Built { graph: Graph::of(&network), record, network }),
            Err(Error::Architecture(reason)) => rejected.push(Rejected { id: record.id, reason }),
            Err(error) => return Err(error).context(record.id),
        }
    }
    Ok((built, rejected))
}

/// One entry of `graphs.json`.
#[derive(Serialize)]
struct GraphEntry<'a> {
    n_nodes: usize,
    n_params: usize,
    n_params_unpruned: usize,
    n_tensors: usize,
    params: Vec<(&'a str, &'a [usize])>,
    wl8: String,
    dist_hist: BTreeMap<u8, u64>,
    n_edges_total: u64,
    dist_sum: u64,
}

impl GraphEntry<'_> {
    fn of(built: &Built) -> GraphEntry<'_> {
        let Built { network, graph, .. } = built;
        let dist_hist = graph.distance_histogram();
        GraphEntry {
            n_nodes: graph.nodes.len(),
            n_params: network.n_params(),
            n_params_unpruned: network.n_params_unpruned(),
            n_tensors: network.params.len(),
            params: network.params.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect(),
            wl8: graph.fingerprint(network),
            n_edges_total: dist_hist.values().sum(),
            dist_sum: dist_hist.iter().map(|(&distance, count)| u64::from(distance) * count).sum(),
            dist_hist,
        }
    }
}

/// Writes `graphs.json`.
fn write_graphs(out: &Path, networks: &[Built]) -> anyhow::Result<()> {
    let entries: BTreeMap<&str, GraphEntry<'_>> =
        networks.iter().map(|built| (built.record.id.as_str(), GraphEntry::of(built))).collect();
    write_json(&out.join("graphs.json"), &entries)
}

/// Writes `predictions.safetensors`; architectures that a hypernetwork cannot serve join the rejected ones.
fn write_predictions(
    out: &Path,
    mut predictions: Predictions,
    networks: &[Built],
    rejected: &mut Vec<Rejected>,
) -> anyhow::Result<()> {
    for Built { record, .. } in networks {
        match predictions.add(record) {
            Ok(()) => {}
            Err(Error::Architecture(reason)) => rejected.push(Rejected { id: record.id.clone(), reason }),
            Err(error) => return Err(error).context(record.id.clone()),
        }
    }
    Ok(predictions.write(&out.join("predictions.safetensors"))?)
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(write_atomically(path, text.as_bytes())?)
}
