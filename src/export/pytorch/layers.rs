//! Constructors of modules as Python text.

use crate::network::{Network, OpKind, OpNode};
use crate::{Error, Result};

/// Widest line of the file.
pub(super) const WIDTH: usize = 100;

/// A call such as `nn.Sequential(nn.ReLU(), ...)`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub head: String,
    pub arguments: Vec<Call>,
}

impl Call {
    /// A call of plain arguments.
    pub fn new<A: ToString>(head: &str, arguments: impl IntoIterator<Item = A>) -> Call {
        let plain = |argument: A| Call::text(argument.to_string());
        Call { head: head.to_string(), arguments: arguments.into_iter().map(plain).collect() }
    }

    /// A call of calls.
    pub fn of(head: &str, arguments: Vec<Call>) -> Call {
        Call { head: head.to_string(), arguments }
    }

    /// Text that is no call of arguments.
    pub fn text(text: String) -> Call {
        Call { head: text, arguments: Vec::new() }
    }

    fn line(&self) -> String {
        if self.arguments.is_empty() {
            return self.head.clone();
        }
        let arguments: Vec<String> = self.arguments.iter().map(Call::line).collect();
        format!("{}({})", self.head, arguments.join(", "))
    }

    /// The text, on one line if it ends before column [`WIDTH`]; `before` columns stand before it, its own lines
    /// are indented by `indent`.
    pub fn layout(&self, indent: usize, before: usize) -> String {
        let line = self.line();
        let nested = self.arguments.iter().filter(|argument| !argument.arguments.is_empty()).count();
        if self.arguments.is_empty() || (before + line.len() < WIDTH && nested < 2) {
            return line;
        }
        let inner = indent + 4;
        let arguments: String = self
            .arguments
            .iter()
            .map(|argument| format!("{:inner$}{},\n", "", argument.layout(inner, inner + 1)))
            .collect();
        format!("{}(\n{arguments}{:indent$})", self.head, "")
    }
}

/// The module of one op that has parameters.
pub(super) fn layer(network: &Network, node: &OpNode) -> Result<Call> {
    let shape = |position: usize| {
        let id = node.kind.params().nth(position);
        id.map_or(&[][..], |id| network.params[id.0].shape.as_slice())
    };
    Ok(match node.kind {
        OpKind::Conv { stride, padding, dilation, groups, .. } => {
            let (weight, inputs) = (shape(0), network.ops[node.inputs[0].0].shape[0]);
            let mut arguments = vec![inputs.to_string(), weight[0].to_string(), both([weight[2], weight[3]])];
            for (key, value, default) in
                [("stride", stride, 1), ("padding", padding, 0), ("dilation", [dilation; 2], 1)]
            {
                if value != [default; 2] {
                    arguments.push(format!("{key}={}", both(value)));
                }
            }
            if groups > 1 {
                arguments.push(format!("groups={groups}"));
            }
            arguments.push("bias=False".into());
            Call::new("nn.Conv2d", arguments)
        }
        OpKind::BatchNorm { .. } => Call::new("nn.BatchNorm2d", [node.shape[0]]),
        OpKind::Linear { bias, .. } if node.shape[1..] == [1, 1] => {
            let mut arguments = vec![shape(0)[1].to_string(), shape(0)[0].to_string()];
            arguments.extend(bias.is_none().then(|| "bias=False".to_string()));
            Call::new("nn.Linear", arguments)
        }
        OpKind::PosEnc { .. } => Call::new("PositionalEncoding", node.shape),
        OpKind::Relu => Call::text("nn.ReLU()".into()),
        OpKind::Dropout { p } => Call::new("nn.Dropout", [p]),
        OpKind::MaxPool { kernel, stride, padding } => Call::new(
            "nn.MaxPool2d",
            [kernel.to_string(), format!("stride={stride}"), format!("padding={padding}")],
        ),
        _ => {
            let kind = node.kind.name();
            return Err(Error::Architecture(format!("{kind}: there is no PyTorch module for it by itself")));
        }
    })
}

/// One number if both are equal, else a tuple.
fn both([vertical, horizontal]: [usize; 2]) -> String {
    if vertical == horizontal { vertical.to_string() } else { format!("({vertical}, {horizontal})") }
}
