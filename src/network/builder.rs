//! Builds a [`Network`] op by op: parameters are declared in module order, ops are pushed in running order, and
//! what cannot reach the output is dropped at the end.

use super::ir::{Network, OpId, OpKind, OpNode, Param, ParamId, Shape};
use super::shape::infer;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A network under construction.
///
/// The two orders differ: the reference's `state_dict` lists a module's parameters as they were constructed
/// (attention before its layer norms), and lists them even where the module is never run.
pub(super) struct Builder {
    ops: Vec<OpNode>,
    params: Vec<(String, Vec<usize>)>,
    /// The ReLU on each op's output, once there is one.
    rectified: BTreeMap<OpId, OpId>,
    branches: Vec<OpId>,
}

impl Builder {
    /// A network that so far has its input only.
    pub fn new(input: Shape) -> (Self, OpId) {
        let node = OpNode { kind: OpKind::Input, inputs: Vec::new(), shape: input };
        (
            Builder { ops: vec![node], params: Vec::new(), rectified: BTreeMap::new(), branches: Vec::new() },
            OpId(0),
        )
    }

    /// Declares a parameter.
    pub fn param(&mut self, name: String, shape: Vec<usize>) -> ParamId {
        self.params.push((name, shape));
        ParamId(self.params.len() - 1)
    }

    /// Declares a dense convolution with weight `[out, in, kh, kw]` that keeps the size but for its stride.
    pub fn conv(&mut self, name: &str, weight: [usize; 4], stride: [usize; 2]) -> OpKind {
        let padding = [weight[2] / 2, weight[3] / 2];
        let weight = self.param(format!("{name}.weight"), weight.to_vec());
        OpKind::Conv { weight, stride, padding, dilation: 1, groups: 1 }
    }

    /// Declares a depthwise convolution; its padding keeps the size but for its stride.
    pub fn depthwise(
        &mut self,
        name: &str,
        channels: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
    ) -> OpKind {
        let weight = self.param(format!("{name}.weight"), vec![channels, 1, kernel, kernel]);
        let padding = dilation * (kernel - 1) / 2;
        OpKind::Conv { weight, stride: [stride; 2], padding: [padding; 2], dilation, groups: channels }
    }

    /// Declares a batch norm.
    pub fn batch_norm(&mut self, name: &str, channels: usize) -> OpKind {
        let weight = self.param(format!("{name}.weight"), vec![channels]);
        let bias = self.param(format!("{name}.bias"), vec![channels]);
        OpKind::BatchNorm { weight, bias }
    }

    /// Declares a layer norm.
    pub fn layer_norm(&mut self, name: &str, channels: usize) -> OpKind {
        let weight = self.param(format!("{name}.weight"), vec![channels]);
        let bias = self.param(format!("{name}.bias"), vec![channels]);
        OpKind::LayerNorm { weight, bias }
    }

    /// Declares a linear layer with weight `[out, in]`.
    pub fn linear(&mut self, name: &str, weight: [usize; 2], bias: bool) -> OpKind {
        let out = weight[0];
        let weight = self.param(format!("{name}.weight"), weight.to_vec());
        let bias = bias.then(|| self.param(format!("{name}.bias"), vec![out]));
        OpKind::Linear { weight, bias }
    }

    /// Runs an op on `inputs`. A tensor is rectified once, however many ops begin with a ReLU of it.
    pub fn push(&mut self, kind: OpKind, inputs: &[OpId]) -> Result<OpId> {
        if let (OpKind::Relu, &[x]) = (&kind, inputs) {
            if self.ops[x.0].kind == OpKind::Relu {
                return Ok(x);
            }
            if let Some(&rectified) = self.rectified.get(&x) {
                return Ok(rectified);
            }
            self.rectified.insert(x, OpId(self.ops.len()));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&input| self.shape(input)).collect();
        let params: Vec<&[usize]> = kind.params().map(|id| self.params[id.0].1.as_slice()).collect();
        let shape = infer(&kind, &shapes, &params).map_err(|error| match kind.params().next() {
            Some(id) => Error::Architecture(format!("{}: {}", self.params[id.0].0, reason(error))),
            None => error,
        })?;
        self.ops.push(OpNode { kind, inputs: inputs.to_vec(), shape });
        Ok(OpId(self.ops.len() - 1))
    }

    /// Runs ops of one input one after the other.
    pub fn chain(&mut self, kinds: impl IntoIterator<Item = OpKind>, x: OpId) -> Result<OpId> {
        kinds.into_iter().try_fold(x, |x, kind| self.push(kind, &[x]))
    }

    /// Shape of an op's output.
    pub fn shape(&self, id: OpId) -> Shape {
        self.ops[id.0].shape
    }

    /// Makes all users of `from` but `to` itself read `to`.
    pub fn rewire(&mut self, from: OpId, to: OpId) {
        for (index, op) in self.ops.iter_mut().enumerate() {
            if index != to.0 {
                op.inputs.iter_mut().filter(|input| **input == from).for_each(|input| *input = to);
            }
        }
    }

    /// Which ops `output` depends on.
    pub fn ancestors(&self, output: OpId) -> Vec<bool> {
        let mut live = vec![false; self.ops.len()];
        live[output.0] = true;
        for index in (0..=output.0).rev() {
            if live[index] {
                self.ops[index].inputs.iter().for_each(|input| live[input.0] = true);
            }
        }
        live
    }

    /// Notes that `op` ends a branch: only a sum reads it, and the sum has another term.
    pub fn end_branch(&mut self, op: OpId) {
        self.branches.push(op);
    }

    /// Drops all that `output` does not depend on.
    pub fn finish(self, output: OpId, n_cells: usize) -> Result<Network> {
        self.finish_with_branches(output, n_cells).map(|(network, _)| network)
    }

    /// As [`Builder::finish`], with the ends of the branches that are left.
    pub fn finish_with_branches(self, output: OpId, n_cells: usize) -> Result<(Network, Vec<OpId>)> {
        let live = self.ancestors(output);
        if !live[0] {
            return Err(Error::Architecture("the output does not depend on the input".into()));
        }
        let mut used = vec![false; self.params.len()];
        for (op, _) in self.ops.iter().zip(&live).filter(|(_, live)| **live) {
            op.kind.params().for_each(|id| used[id.0] = true);
        }
        let (mut params, mut pruned, mut offset) = (Vec::new(), Vec::new(), 0);
        let mut param_index = vec![ParamId(0); self.params.len()];
        for (index, (name, shape)) in self.params.into_iter().enumerate() {
            if used[index] {
                param_index[index] = ParamId(params.len());
                let param = Param { name, shape, offset };
                offset += param.numel();
                params.push(param);
            } else {
                pruned.push((name, shape));
            }
        }
        let mut op_index = vec![OpId(0); self.ops.len()];
        let mut ops: Vec<OpNode> = Vec::new();
        for (index, mut op) in self.ops.into_iter().enumerate().filter(|(index, _)| live[*index]) {
            op.inputs.iter_mut().for_each(|input| *input = op_index[input.0]);
            op.kind.params_mut().for_each(|id| *id = param_index[id.0]);
            op_index[index] = OpId(ops.len());
            ops.push(op);
        }
        let branches = self.branches.into_iter().filter(|op| live[op.0]).map(|op| op_index[op.0]).collect();
        Ok((Network { ops, params, pruned, n_cells }, branches))
    }
}

/// The text of an error without its prefix, to be put behind a parameter's name.
fn reason(error: Error) -> String {
    match error {
        Error::Architecture(reason) => reason,
        other => other.to_string(),
    }
}
