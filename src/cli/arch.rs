//! `foretell arch`: looks at one architecture.

use super::output::print;
use crate::deepnets::resolve;
use crate::files::write_atomically;
use crate::graph::Graph;
use crate::network::{Network, OpKind, OpNode, Param, build, expand_at};
use crate::report::genotype_svg;
use crate::space::{ArchRecord, Architecture, Edge};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Look at an architecture.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show an architecture's ops, shapes, parameters and costs.
    Show(Show),
    /// Draw the normal and the reduction cell as SVG.
    Draw(Draw),
}

#[derive(Debug, clap::Args)]
struct Draw {
    /// FILE, FILE#ID or the name of a predefined cell network, e.g. DARTS.
    arch: String,
    /// Architecture to pick from the file.
    #[arg(long)]
    id: Option<String>,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// FILE, FILE#ID or the name of a predefined network, e.g. resnet50.
    arch: String,
    /// Architecture to pick from the file.
    #[arg(long)]
    id: Option<String>,
    /// Classes [default: the file's; 10 for predefined networks].
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Height and width of the images [default: 32x32, or 224x224 for ImageNet architectures].
    #[arg(long, value_name = "HxW", value_parser = size)]
    size: Option<[usize; 2]>,
    /// Print the network as JSON: ops in running order with shapes, parameters with offsets.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Show(show) => run_show(&show),
        Command::Draw(draw) => run_draw(&draw),
    }
}

fn run_draw(draw: &Draw) -> anyhow::Result<()> {
    let record = resolve(&draw.arch, draw.id.as_deref(), None)?;
    let Architecture::Cells(cells) = &record.arch else {
        bail!("{} is not made of cells, so there is nothing to draw", record.id);
    };
    cells.genotype.check().with_context(|| place(&draw.arch, &record))?;
    write_atomically(&draw.out, genotype_svg(&cells.genotype, &record.id).as_bytes())?;
    print(&format!("wrote {}\n", draw.out.display()))
}

fn run_show(show: &Show) -> anyhow::Result<()> {
    let record = resolve(&show.arch, show.id.as_deref(), show.classes)?;
    let network = match (&record.arch, show.size) {
        (Architecture::Cells(cells), Some(size)) => expand_at(cells, record.num_classes, size),
        (Architecture::Torchvision(name), Some(size)) if size != [32, 32] => {
            bail!("--size {}x{}: {name} is made for 32x32 images", size[0], size[1])
        }
        _ => build(&record.arch, record.num_classes),
    };
    let network = network.with_context(|| place(&show.arch, &record))?;
    let text =
        if show.json { serde_json::to_string_pretty(&network)? + "\n" } else { summary(&record, &network) };
    print(&text)
}

/// The architecture `record` that `text` named, with the file if there is one, for messages.
pub(super) fn place(text: &str, record: &ArchRecord) -> String {
    if text.ends_with(&record.id) || record.id.ends_with(text) {
        text.to_owned()
    } else {
        format!("{text}: {}", record.id)
    }
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of pixels"));
    match text.split_once('x') {
        Some((height, width)) => Ok([side(height)?, side(width)?]),
        None => side(text).map(|side| [side, side]),
    }
}

fn summary(record: &ArchRecord, network: &Network) -> String {
    let cost = network.cost();
    let graph = Graph::of(network);
    let real = graph.outgoing.distance.iter().filter(|&&distance| distance == 1).count();
    let [channels, h, w] = network.input_shape();
    let mut rows = vec![
        ("architecture", record.id.clone()),
        ("input", format!("{channels}x{h}x{w}, {} classes", network.num_classes())),
        ("parameters", format!("{} in {} tensors", grouped(cost.params), network.params.len())),
    ];
    if !network.pruned.is_empty() {
        let pruned = (network.n_params_unpruned() - network.n_params()) as u64;
        rows.push(("pruned", format!("{} in {} tensors", grouped(pruned), network.pruned.len())));
    }
    rows.push(("MACs", grouped(cost.macs)));
    rows.push(("peak activations", grouped(cost.peak_activations)));
    let virtual_edges = graph.outgoing.node.len() - real;
    rows.push(("graph", format!("{} nodes, {real} edges, {virtual_edges} virtual edges", graph.nodes.len())));
    if let Architecture::Cells(cells) = &record.arch {
        rows.push(("cells", format!("{}, first width {}", cells.n_cells, cells.channels)));
        let genotype = &cells.genotype;
        rows.push(("normal cell", cell(&genotype.normal, &genotype.normal_concat)));
        rows.push(("reduction cell", cell(&genotype.reduce, &genotype.reduce_concat)));
    }

    let mut text = String::new();
    for (key, value) in rows {
        line(&mut text, format_args!("{key:<18}{value}"));
    }
    line(&mut text, format_args!(""));
    let kinds: Vec<String> = network.ops.iter().map(|op| kind(network, op)).collect();
    let width = kinds.iter().map(|kind| kind.chars().count()).max().unwrap_or(0);
    line(
        &mut text,
        format_args!(
            "{:>4}  {:<width$}  {:<14} {:<14} {:>11} {:>13}  name",
            "op", "kind", "inputs", "output", "params", "MACs"
        ),
    );
    for (index, (op, kind)) in network.ops.iter().zip(&kinds).enumerate() {
        let params: u64 = op.kind.params().map(|id| network.params[id.0].numel() as u64).sum();
        let name = op.kind.params().next().map_or("", |id| module(&network.params[id.0]));
        let inputs: Vec<String> = op.inputs.iter().map(|input| input.0.to_string()).collect();
        let [c, h, w] = op.shape;
        let row = format!(
            "{index:>4}  {kind:<width$}  {:<14} {:<14} {:>11} {:>13}  {name}",
            inputs.join(" "),
            format!("{c}x{h}x{w}"),
            count(params),
            count(network.macs_of(index)),
        );
        line(&mut text, format_args!("{}", row.trim_end()));
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string cannot fail");
}

/// `conv_3x3(0) + cse(1), ... -> 2 3`.
fn cell(edges: &[Edge], concat: &[usize]) -> String {
    let edge = |Edge(op, input): &Edge| format!("{op}({input})");
    let steps: Vec<String> =
        edges.chunks(2).map(|step| step.iter().map(edge).collect::<Vec<_>>().join(" + ")).collect();
    let concat: Vec<String> = concat.iter().map(usize::to_string).collect();
    format!("{} -> {}", steps.join(", "), concat.join(" "))
}

/// Module path of a parameter.
fn module(param: &Param) -> &str {
    param.name.rsplit_once('.').map_or(&param.name, |(module, _)| module)
}

/// An op's kind with what sets it apart.
fn kind(network: &Network, op: &OpNode) -> String {
    let name = op.kind.name();
    match op.kind {
        OpKind::Conv { weight, stride, dilation, groups, .. } => {
            let shape = &network.params[weight.0].shape;
            let mut text = format!("{name} {}x{}", shape[2], shape[3]);
            for (key, value) in [("groups", groups), ("dilation", dilation)] {
                if value > 1 {
                    text += &format!(" {key} {value}");
                }
            }
            match stride {
                [1, 1] => text,
                [v, h] if v == h => format!("{text} /{v}"),
                [v, h] => format!("{text} /{v}x{h}"),
            }
        }
        OpKind::MaxPool { kernel, stride, .. } | OpKind::AvgPool { kernel, stride, .. } if stride > 1 => {
            format!("{name} {kernel}x{kernel} /{stride}")
        }
        OpKind::MaxPool { kernel, .. } | OpKind::AvgPool { kernel, .. } => {
            format!("{name} {kernel}x{kernel}")
        }
        OpKind::Attention { heads, head_dim } => format!("{name} {heads} heads of {head_dim}"),
        OpKind::Subsample { stride } => format!("{name} /{stride}"),
        OpKind::Dropout { p } => format!("{name} {p}"),
        _ => name.to_string(),
    }
}

/// A number, or nothing for 0.
fn count(value: u64) -> String {
    if value == 0 { String::new() } else { grouped(value) }
}

/// A number with its digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(
            [0, 12, 123, 1234, 1234567].map(grouped),
            ["0", "12", "123", "1,234", "1,234,567"].map(String::from)
        );
        assert_eq!(size("224"), Ok([224, 224]));
        assert_eq!(size("64x32"), Ok([64, 32]));
        assert!(size("64x").is_err());
    }

    #[test]
    fn columns_stand_below_each_other() {
        let archs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");
        let record = resolve(archs, Some("micro/dil_conv_3x3"), None).unwrap();
        let text = summary(&record, &build(&record.arch, 10).unwrap());
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("  op  kind")).collect();
        let inputs = rows[0].find("inputs").unwrap();
        assert!(rows.iter().any(|row| row.contains("groups") && row.contains("dilation")), "{text}");
        for row in &rows[2..] {
            let (before, at) = row.split_at(inputs);
            assert!(before.ends_with("  ") && at.starts_with(|c: char| c.is_ascii_digit()), "{row}");
        }
    }

    #[test]
    fn a_summary_holds_shapes_and_costs() {
        let record = resolve("resnet18", None, None).unwrap();
        let text = summary(&record, &build(&record.arch, 10).unwrap());
        assert!(text.contains("11,173,962 in 62 tensors"), "{text}");
        assert!(text.contains("layer4.0.downsample.0"), "{text}");
        assert!(text.contains("512x4x4"), "{text}");
    }
}
