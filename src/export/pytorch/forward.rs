//! A `forward` method: steps as Python lines.
//!
//! In: steps of one scope (a cell, or the whole network) in running order. Out: the lines of the method's body. A
//! value that is used once and is short stands where it is used.

use super::layers::WIDTH;
use super::steps::{Action, Step};
use crate::network::OpKind;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Longest text that stands where it is used.
const SHORT: usize = 44;

/// A value as Python text.
#[derive(Clone, Debug)]
struct Text {
    text: String,
    /// Needs no parentheses in an expression.
    atom: bool,
}

/// A scope whose steps are written.
pub(super) struct Scope<'a> {
    /// Path that `self` stands for, with a dot at its end.
    pub prefix: &'a str,
    /// Modules whose children are in a `ModuleDict`; those of other modules are in lists.
    pub dictionaries: &'a [&'a str],
    /// Names of the values from outside.
    pub names: BTreeMap<usize, String>,
    /// First letter of the scope's own values.
    pub letter: char,
}

impl Scope<'_> {
    /// The lines of a `forward` whose value is that of the last step.
    pub fn body(mut self, steps: &[Step]) -> Result<Vec<String>> {
        let mut uses: BTreeMap<usize, usize> = BTreeMap::new();
        for step in steps {
            step.inputs.iter().for_each(|&input| *uses.entry(input).or_default() += 1);
        }
        let mut lines = Vec::new();
        let mut pending: BTreeMap<usize, Text> = BTreeMap::new();
        for (position, step) in steps.iter().enumerate() {
            let text = self.text(step, &mut pending)?;
            if position + 1 == steps.len() {
                lines.push(format!("return {}", text.text));
                break;
            }
            let consumer = steps[position + 1..].iter().find(|later| later.inputs.contains(&step.output));
            let inlines = consumer.is_some_and(|consumer| match (&step.action, &consumer.action) {
                // The concatenation of one value is that value.
                (_, Action::Expression(OpKind::Concat)) if consumer.inputs.len() == 1 => true,
                (_, Action::Expression(OpKind::Add)) => true,
                (Action::Expression(_), Action::Module { .. }) => true,
                (Action::Expression(kind), Action::Expression(OpKind::Concat)) => *kind == OpKind::Zeros,
                _ => false,
            });
            let limit = match consumer.map(|consumer| (&consumer.action, consumer.inputs.len())) {
                Some((Action::Expression(OpKind::Concat), 1)) => WIDTH - 20,
                _ => SHORT,
            };
            if uses.get(&step.output) == Some(&1) && inlines && text.text.len() <= limit {
                pending.insert(step.output, text);
            } else {
                let name = self.name(step);
                lines.push(format!("{name} = {}", text.text));
                self.names.insert(step.output, name);
            }
        }
        Ok(lines)
    }

    /// A new name for a step's value.
    fn name(&self, step: &Step) -> String {
        if let Action::Module { path, .. } = &step.action {
            match path.strip_prefix(self.prefix).unwrap_or(path) {
                "preprocess0" => return "p0".into(),
                "preprocess1" => return "p1".into(),
                _ => {}
            }
        }
        let letter = self.letter;
        let taken = self.names.values().filter(|name| name.starts_with(letter)).count();
        format!("{letter}{taken}")
    }

    /// The module at `path` as an attribute of `self`.
    fn access(&self, path: &str) -> String {
        let mut text = "self".to_string();
        let mut dictionary = false;
        for part in path.strip_prefix(self.prefix).unwrap_or(path).split('.') {
            match (part.parse::<usize>(), dictionary) {
                (Ok(_), true) => text += &format!("[\"{part}\"]"),
                (Ok(number), false) => text += &format!("[{number}]"),
                (Err(_), _) => text += &format!(".{part}"),
            }
            dictionary = self.dictionaries.contains(&part);
        }
        text
    }

    fn text(&self, step: &Step, pending: &mut BTreeMap<usize, Text>) -> Result<Text> {
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for input in &step.inputs {
            let known = pending
                .remove(input)
                .or_else(|| self.names.get(input).map(|name| Text { text: name.clone(), atom: true }));
            inputs.push(known.ok_or_else(|| {
                Error::Architecture(format!("op {}: the value of op {input} is out of reach", step.output))
            })?);
        }
        let Some(first) = inputs.first().cloned() else {
            return Err(Error::Architecture(format!("op {}: a step without inputs", step.output)));
        };
        let x = first.text.as_str();
        let operand = |text: &Text| if text.atom { text.text.clone() } else { format!("({})", text.text) };
        let object = operand(&first);
        let atom = |text: String| Text { text, atom: true };
        let kind = match &step.action {
            Action::Module { path, .. } => {
                let arguments: Vec<&str> = inputs.iter().map(|input| input.text.as_str()).collect();
                return Ok(atom(format!("{}({})", self.access(path), arguments.join(", "))));
            }
            Action::Expression(kind) => kind,
        };
        let pool = |name: &str, [kernel, stride, padding]: [usize; 3], more: &str| {
            atom(format!("F.{name}({x}, {kernel}, stride={stride}, padding={padding}{more})"))
        };
        Ok(match *kind {
            OpKind::Relu => atom(format!("F.relu({x})")),
            OpKind::MaxPool { kernel, stride, padding } => pool("max_pool2d", [kernel, stride, padding], ""),
            OpKind::AvgPool { kernel, stride, padding } => {
                pool("avg_pool2d", [kernel, stride, padding], ", count_include_pad=False")
            }
            OpKind::GlobalAvgPool => atom(format!("{object}.mean((2, 3))")),
            OpKind::Flatten => atom(format!("{object}.flatten(1)")),
            OpKind::Zeros => atom(format!("torch.zeros_like({x})")),
            OpKind::Subsample { stride } => atom(format!("{object}[:, :, ::{stride}, ::{stride}]")),
            // The sum is taken from the left, as Python does without parentheses.
            OpKind::Add => Text { text: format!("{x} + {}", operand(&inputs[1])), atom: false },
            OpKind::Concat if inputs.len() == 1 => first,
            OpKind::Concat => {
                let inputs: Vec<&str> = inputs.iter().map(|input| input.text.as_str()).collect();
                let line = format!("torch.cat([{}], 1)", inputs.join(", "));
                if line.len() + 20 < WIDTH {
                    atom(line)
                } else {
                    let inputs: String =
                        inputs.iter().map(|input| format!("                {input},\n")).collect();
                    atom(format!(
                        "torch.cat(\n            [\n{inputs}            ],\n            1,\n        )"
                    ))
                }
            }
            _ => {
                let kind = kind.name();
                return Err(Error::Architecture(format!("{kind}: there is no Python expression for it")));
            }
        })
    }
}
