//! From ops to the steps of a Python `forward`: calls of modules, and expressions between them.
//!
//! In: a network. Out: steps in running order. Ops whose parameters belong to one module of the reference (a
//! separable convolution, a transformer block) become one call of that module; it takes in the ops without
//! parameters between them, and the ReLU before them.

use super::layers::{Call, layer};
use crate::network::{Network, OpKind};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Calls the module at a dotted path.
    Module { path: String, made: Call },
    /// Computes an op without parameters.
    Expression(OpKind),
}

/// A step; its value and its inputs are known by the ops that compute them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub output: usize,
    pub inputs: Vec<usize>,
    pub action: Action,
}

/// Ops that one module computes.
struct Group {
    made: Call,
    input: usize,
    /// A ReLU of the module on its input, which other modules may share.
    leading: Option<usize>,
    output: usize,
    members: BTreeSet<usize>,
}

/// The steps of `network`.
///
/// # Errors
/// The network has a form that no architecture expands to.
pub(super) fn steps(network: &Network) -> Result<Vec<Step>> {
    let plan = Plan::new(network);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (path, children) in plan.slots() {
        let group = plan.group(&path, &children)?;
        for &member in group.members.iter().filter(|&&member| member != group.output) {
            if plan.users[member].iter().any(|user| !group.members.contains(user)) {
                return Err(unusual(&path, "an inner value is used elsewhere"));
            }
        }
        groups.insert(path, group);
    }
    let members: BTreeSet<usize> = groups.values().flat_map(|group| group.members.iter().copied()).collect();
    let absorbed = |relu: usize, user: usize| {
        groups.values().any(|group| group.leading == Some(relu) && group.members.contains(&user))
    };
    // A ReLU that all its users repeat inside needs no step of its own.
    let leading: BTreeSet<usize> = groups.values().filter_map(|group| group.leading).collect();
    let gone = |op: usize| leading.contains(&op) && plan.users[op].iter().all(|&user| absorbed(op, user));
    let mut steps: Vec<Step> = Vec::new();
    for (index, node) in network.ops.iter().enumerate().skip(1) {
        if !members.contains(&index) && !gone(index) {
            let inputs = node.inputs.iter().map(|input| input.0).collect();
            steps.push(Step { output: index, inputs, action: Action::Expression(node.kind.clone()) });
        }
    }
    for (path, group) in &groups {
        let input = group.leading.filter(|&relu| !gone(relu)).unwrap_or(group.input);
        let action = Action::Module { path: path.clone(), made: group.made.clone() };
        steps.push(Step { output: group.output, inputs: vec![input], action });
    }
    steps.sort_by_key(|step| step.output);
    Ok(steps)
}

fn unusual(path: &str, what: &str) -> Error {
    Error::Architecture(format!("{path}: no PyTorch module is known for it ({what})"))
}

struct Plan<'a> {
    network: &'a Network,
    users: Vec<Vec<usize>>,
}

impl<'a> Plan<'a> {
    fn new(network: &'a Network) -> Plan<'a> {
        let mut users = vec![Vec::new(); network.ops.len()];
        for (index, node) in network.ops.iter().enumerate() {
            node.inputs.iter().for_each(|input| users[input.0].push(index));
        }
        Plan { network, users }
    }

    /// Modules with their ops: path, then `(path inside, op)` in running order.
    fn slots(&self) -> Vec<(String, Vec<(String, usize)>)> {
        let mut slots: Vec<(String, Vec<(String, usize)>)> = Vec::new();
        for (index, node) in self.network.ops.iter().enumerate() {
            let Some(id) = node.kind.params().next() else { continue };
            let name = &self.network.params[id.0].name;
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let parts: Vec<&str> = module.split('.').collect();
            let depth = match parts[0] {
                "cells" if parts.get(2) == Some(&"_ops") => 4,
                "cells" => 3,
                "stem" | "stem0" | "stem1" | "classifier" => 1,
                name if name.starts_with("layer") => 2,
                _ => parts.len(),
            };
            let depth = depth.min(parts.len());
            let (path, inner) = (parts[..depth].join("."), parts[depth..].join("."));
            match slots.iter_mut().find(|(known, _)| *known == path) {
                Some((_, children)) => children.push((inner, index)),
                None => slots.push((path, vec![(inner, index)])),
            }
        }
        slots
    }

    fn input(&self, op: usize) -> usize {
        self.network.ops[op].inputs[0].0
    }

    fn kind(&self, op: usize) -> &OpKind {
        &self.network.ops[op].kind
    }

    fn channels(&self, op: usize) -> usize {
        self.network.ops[op].shape[0]
    }

    fn group(&self, path: &str, children: &[(String, usize)]) -> Result<Group> {
        let names: BTreeMap<&str, usize> = children.iter().map(|(name, op)| (name.as_str(), *op)).collect();
        if let [(name, op)] = children
            && name.is_empty()
        {
            let made = layer(self.network, &self.network.ops[*op])?;
            let members = BTreeSet::from([*op]);
            return Ok(Group { made, input: self.input(*op), leading: None, output: *op, members });
        }
        let group = if names.contains_key("conv_1") {
            self.reduction(&names)
        } else if names.contains_key("to_qkv") {
            self.attention(&names)
        } else if names.contains_key("fc1") {
            self.squeeze(&names)
        } else if names.contains_key("conv1") {
            self.residual(&names)
        } else {
            return self.sequential(path, children);
        };
        group.ok_or_else(|| unusual(path, "another order of its ops"))
    }

    /// The only user of `op`, if its kind is `wanted`.
    fn user(&self, op: usize, wanted: impl Fn(&OpKind) -> bool) -> Option<usize> {
        self.users[op].iter().copied().find(|&user| wanted(self.kind(user)))
    }

    /// Layers named by numbers, perhaps inside `op`, with ReLU and the like in the gaps.
    fn sequential(&self, path: &str, children: &[(String, usize)]) -> Result<Group> {
        let wrapped = children.iter().all(|(name, _)| name.starts_with("op."));
        let mut layers: Vec<Call> = Vec::new();
        let mut members = BTreeSet::new();
        let (mut leading, mut input, mut last) = (None, 0, None);
        for (name, op) in children {
            let position: usize = name
                .strip_prefix("op.")
                .unwrap_or(name)
                .parse()
                .map_err(|_| unusual(path, "its layers have no numbers"))?;
            // From the layer back to the one before.
            let mut fillers = Vec::new();
            let mut from = self.input(*op);
            while last.is_some_and(|last| last != from) {
                if !matches!(self.kind(from), OpKind::Relu | OpKind::Dropout { .. }) {
                    return Err(unusual(path, "its layers do not follow each other"));
                }
                fillers.push(from);
                from = self.input(from);
            }
            if last.is_none() {
                input = from;
                if position > 0 && *self.kind(from) == OpKind::Relu {
                    (leading, input) = (Some(from), self.input(from));
                    fillers.push(from);
                }
            } else {
                members.extend(fillers.iter().copied());
            }
            for filler in fillers.iter().rev() {
                layers.push(layer(self.network, &self.network.ops[*filler])?);
            }
            if layers.len() > position {
                return Err(unusual(path, "more layers than numbers"));
            }
            layers.resize(position, Call::text("nn.Identity()".into()));
            layers.push(layer(self.network, &self.network.ops[*op])?);
            members.insert(*op);
            last = Some(*op);
        }
        let Some(mut output) = last else { return Err(unusual(path, "no layers")) };
        if path == "stem"
            && let [user] = self.users[output][..]
            && matches!(self.kind(user), OpKind::MaxPool { stride: 2, .. })
        {
            layers.push(layer(self.network, &self.network.ops[user])?);
            members.insert(user);
            output = user;
        }
        let made = Call::of(if wrapped { "Operation" } else { "nn.Sequential" }, layers);
        Ok(Group { made, input, leading, output, members })
    }

    fn reduction(&self, names: &BTreeMap<&str, usize>) -> Option<Group> {
        let (&first, &second) = (names.get("conv_1")?, names.get("conv_2")?);
        let (relu, crop) = (self.input(first), self.input(second));
        let joined = self.user(first, |kind| *kind == OpKind::Concat)?;
        let norm = names.get("bn").copied();
        let fits = *self.kind(relu) == OpKind::Relu
            && *self.kind(crop) == OpKind::Crop
            && self.input(crop) == relu
            && self.network.ops[joined].inputs.iter().map(|input| input.0).eq([first, second])
            && norm.is_none_or(|norm| self.input(norm) == joined);
        let output = norm.unwrap_or(joined);
        let python_bool = if norm.is_some() { "True" } else { "False" };
        let sizes = [self.channels(relu).to_string(), self.channels(output).to_string(), python_bool.into()];
        fits.then(|| Group {
            made: Call::new("FactorizedReduction", sizes),
            input: self.input(relu),
            leading: Some(relu),
            output,
            members: [first, second, crop, joined, output].into(),
        })
    }

    fn attention(&self, names: &BTreeMap<&str, usize>) -> Option<Group> {
        let path = ["ln1", "to_qkv", "to_out.0", "ln2", "ff.net.0", "ff.net.3"];
        let mut ops = [0; 6];
        for (op, name) in ops.iter_mut().zip(path) {
            *op = *names.get(name)?;
        }
        let [ln1, qkv, out, ln2, ff1, ff2] = ops;
        let (attention, gelu, sum) = (self.input(out), self.input(ff2), self.input(ln2));
        let OpKind::Attention { heads, head_dim } = *self.kind(attention) else { return None };
        let output = self.user(ff2, |kind| *kind == OpKind::Add)?;
        let x = self.input(ln1);
        let adds = |op: usize, terms: [usize; 2]| {
            *self.kind(op) == OpKind::Add && self.network.ops[op].inputs.iter().map(|input| input.0).eq(terms)
        };
        let fits = self.input(qkv) == ln1
            && self.input(attention) == qkv
            && adds(sum, [out, x])
            && self.input(ff1) == ln2
            && *self.kind(gelu) == OpKind::Gelu
            && self.input(gelu) == ff1
            && adds(output, [ff2, sum]);
        let mut members = BTreeSet::from(ops);
        members.extend([attention, gelu, sum, output]);
        fits.then(|| Group {
            made: Call::new("TransformerBlock", [self.channels(x), heads, head_dim]),
            input: x,
            leading: None,
            output,
            members,
        })
    }

    fn squeeze(&self, names: &BTreeMap<&str, usize>) -> Option<Group> {
        let (&fc1, &fc2) = (names.get("fc1")?, names.get("fc2")?);
        let (mean, relu) = (self.input(fc1), self.input(fc2));
        let gate = self.user(fc2, |kind| *kind == OpKind::HardSwish)?;
        let excite = self.user(gate, |kind| *kind == OpKind::Excite)?;
        let x = self.input(mean);
        let fits = *self.kind(mean) == OpKind::SqueezeMean
            && *self.kind(relu) == OpKind::Relu
            && self.input(relu) == fc1
            && self.network.ops[excite].inputs.iter().map(|input| input.0).eq([x, gate]);
        let (mut output, mut step) = (excite, 1);
        if let [user] = self.users[excite][..]
            && let OpKind::Subsample { stride } = *self.kind(user)
        {
            (output, step) = (user, stride);
        }
        fits.then(|| Group {
            made: Call::new("SqueezeExcitation", [self.channels(x), self.channels(fc1), step]),
            input: x,
            leading: None,
            output,
            members: [fc1, fc2, mean, relu, gate, excite, output].into(),
        })
    }

    fn residual(&self, names: &BTreeMap<&str, usize>) -> Option<Group> {
        let depth = if names.contains_key("conv3") { 3 } else { 2 };
        let &first = names.get("conv1")?;
        let x = self.input(first);
        let mut members = BTreeSet::new();
        let (mut last, mut strides) = (x, Vec::new());
        for number in 1..=depth {
            let &conv = names.get(format!("conv{number}").as_str())?;
            let &norm = names.get(format!("bn{number}").as_str())?;
            let between = self.input(conv);
            let follows =
                between == last || (self.input(between) == last && *self.kind(between) == OpKind::Relu);
            if !follows || self.input(norm) != conv {
                return None;
            }
            members.extend([conv, norm]);
            members.extend((number > 1).then_some(between));
            let OpKind::Conv { stride, .. } = *self.kind(conv) else { return None };
            strides.push(stride[0]);
            last = norm;
        }
        let shortcut = match (names.get("downsample.0"), names.get("downsample.1")) {
            (Some(&conv), Some(&norm)) if self.input(conv) == x && self.input(norm) == conv => {
                members.extend([conv, norm]);
                norm
            }
            (None, None) => x,
            _ => return None,
        };
        let sum = self.user(last, |kind| *kind == OpKind::Add)?;
        let output = self.user(sum, |kind| *kind == OpKind::Relu)?;
        members.extend([sum, output]);
        let (inputs, outputs) = (self.channels(x), self.channels(last));
        let made = match strides[..] {
            [stride, 1] => Call::new("BasicBlock", [inputs, outputs, stride]),
            [1, stride, 1] => Call::new("Bottleneck", [inputs, self.channels(first), outputs, stride]),
            _ => return None,
        };
        let fits = self.network.ops[sum].inputs.iter().map(|input| input.0).eq([last, shortcut]);
        fits.then_some(Group { made, input: x, leading: None, output, members })
    }
}
