//! `foretell predict`: the weights of one architecture, in a file that PyTorch loads by name.

use super::arch::place;
use super::device::{DeviceFlag, on};
use super::output::print;
use crate::checkpoint::write_tensors;
use crate::deepnets::resolve;
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::network::build;
use anyhow::Context;
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Flags of `foretell predict`.
#[derive(Debug, clap::Args)]
#[command(after_help = "All of the prediction runs on the device.")]
pub struct Args {
    /// Architecture: FILE, FILE#ID or the name of a predefined network, e.g. resnet50
    #[arg(long, value_name = "FILE_OR_NAME")]
    arch: String,
    /// Architecture to pick from the file
    #[arg(long)]
    id: Option<String>,
    /// Hypernetwork: bundled, or a .safetensors or .pt file
    #[arg(long, value_name = "bundled|FILE", default_value = "bundled")]
    ghn: String,
    /// File to write: float32 tensors named as in a PyTorch state dict, the architecture in the metadata
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let ghn = on(Ghn::open(&args.ghn)?, args.device)?;
    let classes = ghn.config().num_classes;
    let stated = resolve(&args.arch, args.id.as_deref(), None)?;
    // The hypernetwork predicts a classifier of its own classes, whatever the list was drawn for.
    let mut record = stated.clone();
    record.num_classes = classes;
    let start = Instant::now();
    let network = build(&record.arch, classes).with_context(|| place(&args.arch, &record))?;
    let graph = Graph::of(&network);
    let prediction =
        ghn.predict(&[(&network, &graph)]).with_context(|| place(&args.arch, &record))?.swap_remove(0);
    // One copy: every tensor of the file is a view of it.
    let params = prediction.params.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;

    let mut tensors = BTreeMap::new();
    for param in &network.params {
        let tensor = params.narrow(0, param.offset, param.numel())?.reshape(param.shape.as_slice())?;
        tensors.insert(param.name.clone(), tensor);
    }
    let metadata = [
        ("architecture", serde_json::to_string(&record)?),
        ("format", "pt".to_string()),
        ("hypernetwork", serde_json::to_string(ghn.config())?),
    ]
    .map(|(key, value)| (key.to_string(), value));
    write_tensors(&args.out, &tensors, &metadata.into())?;
    let mut text = format!(
        "{}: {} in {} tensors of {} ({} nodes), predicted in {elapsed_ms:.1} ms\n",
        args.out.display(),
        count(network.n_params()),
        network.params.len(),
        record.id,
        graph.nodes.len(),
    );
    if stated.num_classes != classes {
        text += &format!(
            "with {classes} classes, as the hypernetwork has them (the list says {})\n",
            stated.num_classes
        );
    }
    print(&text)
}

/// A number of parameters in words.
fn count(params: usize) -> String {
    match params {
        0..1_000_000 => format!("{params} parameters"),
        _ => format!("{:.3} M parameters", params as f64 / 1e6),
    }
}
