//! Checks of a network that was read from a file or made by other code.

use super::ir::Network;
use super::shape::infer;
use super::{OpKind, Shape};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Largest number of elements of a tensor: sums and products of sizes stay far from overflow.
const MAX_ELEMENTS: usize = 1 << 40;

impl Network {
    /// Checks everything that the rest of the library relies on: order of the ops, shapes, parameters and their
    /// offsets, and that every op and every parameter reaches the output.
    ///
    /// # Errors
    /// [`Error::Architecture`] that names the op or parameter.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Architecture(what));
        let (mut offset, mut names) = (0, BTreeSet::new());
        for param in &self.params {
            let Some(numel) = elements(&param.shape) else {
                return fail(format!("{}: shape {:?} is out of range", param.name, param.shape));
            };
            if param.offset != offset {
                return fail(format!("{}: offset {} where {offset} is due", param.name, param.offset));
            }
            if !names.insert(param.name.as_str()) {
                return fail(format!("{}: two parameters of that name", param.name));
            }
            offset += numel;
        }
        if let Some((name, shape)) = self.pruned.iter().find(|(_, shape)| elements(shape).is_none()) {
            return fail(format!("{name}: shape {shape:?} is out of range"));
        }
        let mut op_used = vec![false; self.ops.len()];
        let mut param_used = vec![false; self.params.len()];
        for (index, op) in self.ops.iter().enumerate() {
            let name = op.kind.name();
            if (op.kind == OpKind::Input) != (index == 0) {
                return fail(format!("op {index} ({name}): the input op must be the first and the only one"));
            }
            if let Some(input) = op.inputs.iter().find(|input| input.0 >= index) {
                return fail(format!("op {index} ({name}): input {} does not come before it", input.0));
            }
            if let Some(id) = op.kind.params().find(|id| id.0 >= self.params.len()) {
                return fail(format!("op {index} ({name}): there is no parameter {}", id.0));
            }
            if elements(&op.shape).is_none() {
                return fail(format!("op {index} ({name}): shape {:?} is out of range", op.shape));
            }
            if index > 0 {
                let inputs: Vec<Shape> = op.inputs.iter().map(|input| self.ops[input.0].shape).collect();
                let params: Vec<&[usize]> =
                    op.kind.params().map(|id| self.params[id.0].shape.as_slice()).collect();
                let shape = infer(&op.kind, &inputs, &params)
                    .map_err(|error| Error::Architecture(format!("op {index}: {error}")))?;
                if shape != op.shape {
                    return fail(format!("op {index} ({name}): shape {:?} where {shape:?} is due", op.shape));
                }
            }
            op.inputs.iter().for_each(|input| op_used[input.0] = true);
            op.kind.params().for_each(|id| param_used[id.0] = true);
        }
        match self.ops.last() {
            None => return fail("a network without ops".into()),
            Some(op) if op.shape[1..] != [1, 1] => {
                return fail(format!("the output has shape {:?}, expected [classes, 1, 1]", op.shape));
            }
            Some(_) => {}
        }
        // The last op alone may go unused; as inputs come before their users, the others then reach it.
        if let Some(index) = op_used.iter().rev().skip(1).rev().position(|used| !used) {
            return fail(format!("op {index} ({}) does not reach the output", self.ops[index].kind.name()));
        }
        if let Some(index) = param_used.iter().position(|used| !used) {
            return fail(format!("{} is used by no op", self.params[index].name));
        }
        Ok(())
    }
}

/// Elements of a tensor; none if a side is 0 or there are too many.
fn elements(shape: &[usize]) -> Option<usize> {
    let numel = shape.iter().try_fold(1usize, |numel, &side| numel.checked_mul(side))?;
    (1..=MAX_ELEMENTS).contains(&numel).then_some(numel)
}

#[cfg(test)]
mod tests {
    use super::super::{OpId, ParamId, torchvision};
    use super::*;

    #[test]
    fn damaged_networks_are_refused() {
        let good = torchvision("resnet18", 10).unwrap();
        good.validate().unwrap();
        let refused = |reason: &str, damage: &dyn Fn(&mut Network)| {
            let mut network = good.clone();
            damage(&mut network);
            let error = network.validate().expect_err(reason).to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        };
        refused("without ops", &|network| network.ops.clear());
        refused("does not come before it", &|network| network.ops[3].inputs[0] = OpId(3));
        refused("is due", &|network| network.ops[2].shape[0] += 1);
        refused("is due", &|network| network.params[4].offset += 1);
        refused("out of range", &|network| network.params[4].shape = vec![usize::MAX, usize::MAX]);
        refused("two parameters", &|network| network.params[1].name = network.params[0].name.clone());
        refused("there is no parameter", &|network| {
            network.ops[1].kind.params_mut().for_each(|id| *id = ParamId(1 << 40));
        });
        refused("expected [classes, 1, 1]", &|network| network.ops.truncate(9));
        refused("the first and the only", &|network| network.ops[5].kind = OpKind::Input);
        refused("expected 1 inputs", &|network| network.ops[5].inputs.clear());
        refused("does not reach", &|network| {
            let fourth = network.ops[4].inputs[0];
            network.ops[5].inputs[0] = fourth;
        });
    }
}
