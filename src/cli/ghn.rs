//! `foretell ghn`: imports and shows hypernetworks.

use super::output::print;
use crate::checkpoint::Checkpoint;
use crate::ghn::{Decoder, Ghn, GhnConfig, Hypernet};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Flags of `foretell ghn`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Convert a checkpoint, of the reference implementation too, to safetensors with its settings
    Import {
        /// Checkpoint, e.g. ghn2_cifar10.pt; .pt or .safetensors
        file: PathBuf,
        /// File to write [default: FILE with the ending .safetensors]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Round the weights to 16 bits (f16): half the size, relative differences of at most 0.05 %
        #[arg(long)]
        half: bool,
    },
    /// Show a hypernetwork's settings and tensors
    Show {
        /// Checkpoint, .safetensors or .pt
        file: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Import { file, out, half } => import(&file, out, half),
        Action::Show { file } => show(&file),
    }
}

fn import(file: &Path, out: Option<PathBuf>, half: bool) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::read(file)?;
    let out = out.unwrap_or_else(|| file.with_extension("safetensors"));
    if out.exists() && file.canonicalize().ok() == out.canonicalize().ok() {
        bail!("{} would be overwritten: name another file with --out", file.display());
    }
    if half {
        checkpoint.ghn.save_half(&out).with_context(|| format!("--half: {}", file.display()))?
    } else {
        checkpoint.ghn.save(&out)?
    }
    let mut text = format!("{}: {}\n", out.display(), summary(&checkpoint.ghn));
    if let Some(epoch) = checkpoint.epoch {
        let _ = writeln!(text, "saved at epoch {epoch}");
    }
    if let Some(adam) = &checkpoint.optimizer {
        let _ = writeln!(text, "state of Adam after {} updates was left behind", adam.step);
    }
    if !checkpoint.has_config {
        let _ = writeln!(text, "{}", GUESSED);
    }
    print(&text)
}

const GUESSED: &str = "the file holds no settings: they were read off the tensors' shapes (weight_norm is taken to \
                       be true where there is a layer norm)";

fn show(file: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::read(file)?;
    let ghn = &checkpoint.ghn;
    let mut text = format!("{}\n", summary(ghn));
    if let Some(epoch) = checkpoint.epoch {
        let _ = writeln!(text, "saved at epoch {epoch}");
    }
    if let Some(adam) = &checkpoint.optimizer {
        let _ = writeln!(text, "with the state of Adam after {} updates", adam.step);
    }
    if !checkpoint.has_config {
        let _ = writeln!(text, "{}", GUESSED);
    }
    let _ = writeln!(text, "\n{}\n", serde_json::to_string_pretty(ghn.config())?);
    for (name, var) in ghn.vars() {
        let shape: Vec<String> = var.dims().iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{name:<42} {}", shape.join(" x "));
    }
    print(&text)
}

/// One line on a hypernetwork.
fn summary(ghn: &Ghn) -> String {
    let GhnConfig { max_shape, num_classes, hypernet, decoder, weight_norm, ve, layernorm, hid } =
        ghn.config();
    let family = match (hypernet, weight_norm & ve & layernorm, weight_norm | ve | layernorm) {
        (Hypernet::Mlp, ..) => "MLP baseline",
        (Hypernet::GatedGnn, true, _) => "GHN-2",
        (Hypernet::GatedGnn, false, false) => "GHN-1",
        (Hypernet::GatedGnn, false, true) => "GHN between 1 and 2",
    };
    let decoder = match decoder {
        Decoder::Conv => "convolutional",
        Decoder::Mlp => "MLP",
    };
    let [o, i, h, w] = max_shape;
    format!(
        "{family} for {num_classes} classes, {:.3} M parameters, {hid} features per node, {decoder} decoder of \
         {o} x {i} x {h} x {w}",
        ghn.n_params() as f64 / 1e6
    )
}
