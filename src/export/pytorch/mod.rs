//! PyTorch: one Python file for one architecture, which needs nothing but torch.
//!
//! In: a [`Model`]. Out: Python text with a class for each different cell, the network, and a command that
//! classifies image files. Modules are registered under the names of the `state_dict`, so that the safetensors
//! file beside it loads with `strict=True`.

mod forward;
mod layers;
mod steps;

use self::forward::Scope;
use self::layers::Call;
use self::steps::{Action, Step, steps};
use super::model::Model;
use crate::network::OpKind;
use crate::space::Architecture;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Classes that networks are made of, in the order in which a file holds them.
const BLOCKS: [(&str, &str); 7] = [
    ("Operation", include_str!("blocks/operation.py")),
    ("FactorizedReduction", include_str!("blocks/factorized_reduction.py")),
    ("TransformerBlock", include_str!("blocks/transformer_block.py")),
    ("SqueezeExcitation", include_str!("blocks/squeeze_excitation.py")),
    ("PositionalEncoding", include_str!("blocks/positional_encoding.py")),
    ("BasicBlock", include_str!("blocks/basic_block.py")),
    ("Bottleneck", include_str!("blocks/bottleneck.py")),
];
/// Loading, preparing images, the command.
const USE: &str = include_str!("blocks/use.py");

/// The Python file of `model`, whose weights are in the file `weights` beside it.
///
/// # Errors
/// The network has a form that no architecture expands to.
pub fn to_pytorch(model: &Model, weights: &str) -> Result<String> {
    let written = network(model, steps(&model.network)?)?;
    let uses = |block: &str| written.contains(&format!("{block}("));
    let blocks = BLOCKS.iter().filter(|(name, _)| uses(name)).map(|(_, text)| format!("{text}\n\n"));
    let head = head(model, weights)?;
    Ok(format!("{head}\n\n{}{written}\n\n{USE}", blocks.collect::<String>()))
}

/// Docstring, imports and constants.
fn head(model: &Model, weights: &str) -> Result<String> {
    let mut about = vec![
        format!("{}, written by foretell {}.", model.record.id, env!("CARGO_PKG_VERSION")),
        String::new(),
        format!("{} parameters, {} classes.", model.network.n_params(), model.network.num_classes()),
    ];
    about.extend(model.origin.iter().cloned());
    for measured in &model.accuracies {
        let stored = &measured.with_stored;
        about.push(format!(
            "{} accuracy: {:.2} +- {:.2} % on {} images.",
            measured.split,
            100.0 * stored.share(),
            100.0 * stored.standard_error(),
            stored.images
        ));
    }
    let about = about.join("\n").replace('\\', "\\\\").replace('"', "\\\"");
    let preparation = &model.preparation;
    let [channels, height, width] = preparation.stored;
    let [depth, rows, columns] = model.network.input_shape();
    let tuple = |values: [f32; 3]| values.map(|value| value.to_string()).join(", ");
    let list = |values: &[String]| {
        let quoted: Result<Vec<Call>> = values.iter().map(|value| Ok(Call::text(quoted(value)?))).collect();
        let items: String = quoted?.iter().map(|item| format!("    {},\n", item.head)).collect();
        Ok::<_, Error>(format!("[\n{items}]"))
    };
    Ok(format!(
        "\"\"\"{about}\"\"\"\n\n\
         import argparse\nfrom pathlib import Path\n\n\
         import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\
         WEIGHTS = Path(__file__).with_name({})\n\
         CLASSES = {}\n\
         # An image before it is padded with black to the size of the network's input.\n\
         CHANNELS, HEIGHT, WIDTH = {channels}, {height}, {width}\n\
         INPUT = ({depth}, {rows}, {columns})\n\
         # Of pixels in [0, 1].\n\
         MEAN = ({})\n\
         SD = ({})\n",
        quoted(weights)?,
        list(&preparation.classes)?,
        tuple(preparation.normalisation.mean),
        tuple(preparation.normalisation.sd),
    ))
}

/// A Python string: JSON's escapes are Python's.
fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|error| Error::Config(format!("{text:?}: {error}")))
}

/// The classes of cells and of the network.
fn network(model: &Model, steps: Vec<Step>) -> Result<String> {
    let mut classes = Classes::default();
    let steps = match &model.record.arch {
        Architecture::Cells(arch) => {
            let reductions = [arch.n_cells / 3, 2 * arch.n_cells / 3];
            cells(steps, &mut |cell| cell > 0 && reductions.contains(&cell), &mut classes)?
        }
        Architecture::Torchvision(_) => layers_of_blocks(steps)?,
    };
    let made: Vec<(&str, &Call)> = steps.iter().filter_map(module).collect();
    let mut init = Vec::new();
    let mut cell_numbers = Vec::new();
    for (path, call) in &made {
        match path.strip_prefix("cells.") {
            Some(number) => cell_numbers.push((number, *call)),
            None => init.push(assignment(path, call)),
        }
    }
    let listed = cell_numbers.iter().enumerate().all(|(index, (number, _))| *number == index.to_string());
    if !cell_numbers.is_empty() {
        let place = init.iter().position(|line| line.starts_with("self.classifier")).unwrap_or(init.len());
        let cells: String = cell_numbers
            .iter()
            .map(|(number, call)| match listed {
                true => format!("            {}(),\n", call.head),
                false => format!("            \"{number}\": {}(),\n", call.head),
            })
            .collect();
        let text = match listed {
            true => format!("self.cells = nn.ModuleList([\n{cells}        ])"),
            false => format!("self.cells = nn.ModuleDict({{\n{cells}        }})"),
        };
        init.insert(place, text);
    }
    let dictionaries: &[&str] = if listed { &[] } else { &["cells"] };
    let names = BTreeMap::from([(0, "images".to_string())]);
    let body = Scope { prefix: "", dictionaries, names, letter: 'x' }.body(&steps)?;
    let network = class(
        "Network",
        "Images `[N, 3, H, W]`, prepared as by `prepare`, to logits `[N, classes]`.",
        &init,
        "images",
        &body,
    );
    Ok(classes.text + &network)
}

fn module(step: &Step) -> Option<(&str, &Call)> {
    match &step.action {
        Action::Module { path, made } => Some((path, made)),
        Action::Expression(_) => None,
    }
}

/// `self.NAME = CALL`.
fn assignment(name: &str, call: &Call) -> String {
    format!("self.{name} = {}", call.layout(8, 16 + name.len()))
}

fn class(name: &str, about: &str, init: &[String], inputs: &str, body: &[String]) -> String {
    let line = |line: &String| format!("        {line}\n");
    let init: String = init.iter().map(line).collect();
    let body: String = body.iter().map(line).collect();
    let init = match init.is_empty() {
        true => String::new(),
        false => format!("    def __init__(self):\n        super().__init__()\n{init}\n"),
    };
    format!(
        "class {name}(nn.Module):\n    \"\"\"{about}\"\"\"\n\n{init}    def forward(self, {inputs}):\n{body}"
    )
}

/// Classes of cells, each text once.
#[derive(Default)]
struct Classes {
    text: String,
    /// Names by what follows the name.
    known: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Classes {
    fn name(&mut self, stem: &'static str, write: impl Fn(&str) -> String) -> String {
        let body = write(stem);
        if let Some(name) = self.known.get(&body) {
            return name.clone();
        }
        let count = self.counts.entry(stem).or_default();
        *count += 1;
        let name = format!("{stem}{count}");
        self.text += &format!("{}\n\n", write(&name));
        self.known.insert(body, name.clone());
        name
    }
}

/// Puts the steps of every cell into a class of its own; a cell ends with the concatenation of its states.
fn cells(
    steps: Vec<Step>,
    is_reduction: &mut dyn FnMut(usize) -> bool,
    classes: &mut Classes,
) -> Result<Vec<Step>> {
    let of_stem = |step: &Step| {
        module(step).is_some_and(|(path, _)| path.starts_with("stem") || path.starts_with("pos_enc"))
    };
    let stem = steps.iter().rposition(of_stem).map_or(0, |last| last + 1);
    let (mut outer, mut segment) = (steps[..stem].to_vec(), Vec::new());
    for (position, step) in steps.iter().enumerate().skip(stem) {
        let ends = step.action == Action::Expression(OpKind::Concat);
        segment.push(step.clone());
        if ends {
            let cell = cell(std::mem::take(&mut segment), &steps[position + 1..], is_reduction, classes)?;
            outer.extend(cell);
        }
    }
    outer.extend(segment);
    Ok(outer)
}

/// One cell as one step; without parameters it stays as it is.
fn cell(
    segment: Vec<Step>,
    later: &[Step],
    is_reduction: &mut dyn FnMut(usize) -> bool,
    classes: &mut Classes,
) -> Result<Vec<Step>> {
    let mut paths = segment.iter().filter_map(module).map(|(path, _)| path);
    let Some(path) = paths.next() else { return Ok(segment) };
    let path: Vec<&str> = path.split('.').take(2).collect();
    let prefix = format!("{}.", path.join("."));
    let number = path.get(1).and_then(|number| number.parse::<usize>().ok());
    let own: BTreeSet<usize> = segment.iter().map(|step| step.output).collect();
    let output = segment.last().map_or(0, |step| step.output);
    let inputs: BTreeSet<usize> =
        segment.iter().flat_map(|step| &step.inputs).copied().filter(|input| !own.contains(input)).collect();
    let leaks =
        later.iter().flat_map(|step| &step.inputs).any(|input| own.contains(input) && *input != output);
    let Some(number) = number.filter(|_| {
        prefix.starts_with("cells.")
            && paths.all(|path| path.starts_with(&prefix))
            && !leaks
            && inputs.len() <= 2
    }) else {
        return Err(Error::Architecture(format!("{prefix}*: its ops are no cell of their own")));
    };
    let arguments = if inputs.len() == 2 { vec!["before", "last"] } else { vec!["x"] };
    let names: BTreeMap<usize, String> =
        inputs.iter().copied().zip(arguments.iter().map(|name| name.to_string())).collect();
    let scope = Scope { prefix: &prefix, dictionaries: &["_ops"], names, letter: 'h' };
    let body = scope.body(&segment)?;
    let mut init = Vec::new();
    let mut operations: Vec<(usize, &Call)> = Vec::new();
    for (path, made) in segment.iter().filter_map(module) {
        let inner = &path[prefix.len()..];
        match inner.strip_prefix("_ops.").and_then(|slot| slot.parse::<usize>().ok()) {
            Some(slot) => operations.push((slot, made)),
            None => init.push(assignment(inner, made)),
        }
    }
    operations.sort_by_key(|(slot, _)| *slot);
    if !operations.is_empty() {
        let items: String = operations
            .iter()
            .map(|(slot, made)| {
                let key = format!("            \"{slot}\": ");
                format!("{key}{},\n", made.layout(12, key.len() + 1))
            })
            .collect();
        init.push(format!("self._ops = nn.ModuleDict({{\n{items}        }})"));
    }
    let (stem, about) = match is_reduction(number) {
        true => ("ReductionCell", "Halves the resolution."),
        false => ("NormalCell", "Keeps the resolution of its last input."),
    };
    let name = classes.name(stem, |name| class(name, about, &init, &arguments.join(", "), &body));
    let made = Call::text(name);
    let path = prefix.trim_end_matches('.').to_string();
    Ok(vec![Step { output, inputs: inputs.into_iter().collect(), action: Action::Module { path, made } }])
}

/// Joins the blocks `layer1.0`, `layer1.1`, ... of residual networks to one step a layer.
fn layers_of_blocks(steps: Vec<Step>) -> Result<Vec<Step>> {
    let mut joined: Vec<Step> = Vec::new();
    for step in steps {
        let Some((path, made)) = module(&step) else {
            joined.push(step);
            continue;
        };
        let Some((layer, number)) = path.split_once('.') else {
            joined.push(step);
            continue;
        };
        if let Some(Step { output, action: Action::Module { path, made: blocks }, .. }) = joined.last_mut()
            && path == layer
            && step.inputs == [*output]
            && number == blocks.arguments.len().to_string()
        {
            blocks.arguments.push(made.clone());
            *output = step.output;
        } else if number == "0" {
            let made = Call::of("nn.Sequential", vec![made.clone()]);
            let action = Action::Module { path: layer.to_string(), made };
            joined.push(Step { action, ..step });
        } else {
            return Err(Error::Architecture(format!("{path}: its blocks do not follow each other")));
        }
    }
    Ok(joined)
}
