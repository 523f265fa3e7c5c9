//! The static plan: stages, buffers and their lifetimes.
//!
//! Ops are grouped into stages. Within a stage every image is independent, so each worker takes a few images
//! through all ops of the stage while they are in its cache; stages end where batch statistics are needed.
//! A buffer that lives within one stage is *local*: it has room for the images of one chunk only and belongs to
//! the worker. Other buffers hold the whole batch and share memory when their lifetimes do not overlap.
//!
//! What memory takes longer to keep than a worker to compute is not kept for the backward pass: outputs of batch norms,
//! of depthwise convolutions and of most ReLUs are computed again, chunk by chunk, in the stages that read them.

use std::collections::BTreeSet;

use super::arena::Arena;
use super::layer::Layer;
use super::lower::{Lowered, readers};
use super::weights::Join;
use crate::kernels::attention::Attention;
use crate::network::{Network, OpKind};

/// Elements of activations of one image that a chunk may hold; chunks are at least one image.
const CHUNK_ELEMENTS: usize = 32 * 1024;
/// Most images of a chunk.
pub(super) const CHUNK_IMAGES: usize = 8;

/// Parts of a batch that can run at the same time.
const SHARDS: usize = 16;
/// The same where parts have gradients of parameters: each part's are cleared, written and read once more.
const HEAVY_SHARDS: usize = 8;
const HEAVY: usize = 1024;

/// Where a buffer lies; offsets are per image and grow by the capacity of batch or chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not kept.
    Nowhere,
    /// Whole batch.
    Batch(usize),
    /// One chunk.
    Local(usize),
}

/// A unit of work of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Output of an op.
    Forward(usize),
    /// Moments of the input of a batch norm; `slot` is the offset of its channels in the stage.
    Moments { op: usize, slot: usize },
    /// Sums that the gradient of a batch norm needs.
    Sums { op: usize, slot: usize },
    /// Gradients of inputs and parameters; `accumulate` says of each input whether its gradient exists already.
    Backward { op: usize, accumulate: Vec<Option<bool>>, partial: usize },
}

/// Tasks that need no other image.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    pub tasks: Vec<Task>,
    /// Images of a chunk.
    pub chunk: usize,
    /// Channels of all batch norms that end the stage, doubled.
    pub moments: usize,
    /// Elements of the gradients of parameters.
    pub partial: usize,
    /// Most parts of the batch.
    pub shards: usize,
    /// Those tasks whose results are joined over all images after the stage.
    pub ends: Vec<Task>,
    /// How the gradients of parameters are joined after the stage.
    pub joins: Vec<Join>,
    /// Values that the stage computes again, and where.
    pub again: Vec<(usize, Place)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub forward: Vec<Stage>,
    pub backward: Vec<Stage>,
    pub values: Vec<Place>,
    pub gradients: Vec<Place>,
    /// Sums of attention ops that the backward pass reads.
    pub sums: Vec<Place>,
    /// Elements of batch buffers per image.
    pub batch_len: usize,
    /// Largest sum of local buffers of a chunk.
    pub local_len: usize,
    /// Whether several ops read the same parameter.
    pub shares_params: bool,
    /// Whether an op's output is computed again where the backward pass reads it.
    pub again: Vec<bool>,
}

impl Plan {
    /// Plans evaluation, or training with `backward`.
    pub fn new(lowered: &Lowered, layers: &[Layer], backward: bool) -> Self {
        let mut builder = Builder::new(lowered, layers);
        builder.forward(backward);
        if backward {
            builder.backward();
        }
        builder.finish()
    }

    /// Largest number of moments of a stage.
    pub fn moments(&self) -> usize {
        self.forward.iter().chain(&self.backward).map(|stage| stage.moments).max().unwrap_or(0)
    }

    /// Largest number of parameter gradients of all parts in a stage.
    pub fn partials(&self) -> usize {
        self.backward.iter().map(|stage| stage.partial * stage.shards).max().unwrap_or(0)
    }
}

/// When a buffer is touched: stage and position over the whole run.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: (usize, usize),
    last: (usize, usize),
}

struct Builder<'a> {
    network: &'a Network,
    lowered: &'a Lowered,
    layers: &'a [Layer],
    /// Whether an op's output has a gradient.
    differentiable: Vec<bool>,
    forward: Vec<Stage>,
    backward: Vec<Stage>,
    /// Op whose gradient is that of each op: of the sums that alone read it.
    same_gradient: Vec<usize>,
    /// Lives of values, then of gradients, then of sums of attention, then of values that are computed again.
    lives: Vec<Option<Life>>,
    /// Whether an op's output is computed again where the backward pass reads it.
    again: Vec<bool>,
    /// Backward stage and op of those values.
    copies: Vec<(usize, usize)>,
    position: usize,
}

impl<'a> Builder<'a> {
    fn new(lowered: &'a Lowered, layers: &'a [Layer]) -> Self {
        let network = &lowered.network;
        let count = network.ops.len();
        let mut differentiable = vec![false; count];
        for (index, op) in network.ops.iter().enumerate() {
            let own = !matches!(layers[index], Layer::Plain);
            let passes = op.kind != OpKind::Zeros && op.inputs.iter().any(|input| differentiable[input.0]);
            differentiable[index] = own || passes;
        }
        let lives = vec![None; 3 * count];
        let readers = readers(&network.ops);
        let mut same_gradient: Vec<usize> = (0..count).collect();
        for (index, op) in network.ops.iter().enumerate().rev() {
            if matches!(op.kind, OpKind::Add) {
                for input in op.inputs.iter().filter(|input| readers[input.0] == 1) {
                    same_gradient[input.0] = same_gradient[index];
                }
            }
        }
        Self {
            network,
            lowered,
            same_gradient,
            layers,
            differentiable,
            forward: Vec::new(),
            backward: Vec::new(),
            lives,
            again: vec![false; count],
            copies: Vec::new(),
            position: 0,
        }
    }

    /// Outputs that the backward pass need not find in memory.
    fn repeated(&self) -> Vec<bool> {
        let ops = &self.network.ops;
        let mut read = vec![false; ops.len()];
        for index in (0..ops.len()).filter(|&index| self.differentiable[index]) {
            self.values_for_gradient(index).into_iter().for_each(|value| read[value] = true);
        }
        let again = |index: usize| match (&ops[index].kind, &self.layers[index]) {
            // Their inputs stay, because their own gradients read them.
            (OpKind::BatchNorm { .. }, _) => !self.lowered.marks[index].within_sum,
            (OpKind::Conv { .. }, Layer::Convolution(convolution)) => convolution.depthwise,
            (OpKind::Relu, _) => read[ops[index].inputs[0].0],
            _ => false,
        };
        (0..ops.len()).map(|index| read[index] && self.differentiable[index] && again(index)).collect()
    }

    fn touch(&mut self, buffer: usize, stage: usize) {
        let now = (stage, self.position);
        let life = self.lives[buffer].get_or_insert(Life { first: now, last: now });
        life.last = now;
    }

    fn shares_params(&self) -> bool {
        let mut seen = BTreeSet::new();
        self.network.ops.iter().flat_map(|op| op.kind.params()).any(|param| !seen.insert(param))
    }

    fn is_batch_norm(&self, op: usize) -> bool {
        matches!(self.network.ops[op].kind, OpKind::BatchNorm { .. })
    }

    fn forward(&mut self, training: bool) {
        let ops = &self.network.ops;
        let mut level = vec![0; ops.len()];
        // (stage, op, whether the moments of a batch norm)
        let mut order = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            level[index] = op.inputs.iter().map(|input| level[input.0]).max().unwrap_or(0);
            if self.is_batch_norm(index) {
                order.push((level[index], index, true));
                level[index] += 1;
            }
            order.push((level[index], index, false));
        }
        order.sort_by_key(|&(stage, op, _)| (stage, op));
        for (stage, index, moments) in order {
            self.forward.resize_with(self.forward.len().max(stage + 1), Stage::default);
            if !moments && self.lowered.marks[index].within_sum {
                continue;
            }
            for input in &ops[index].inputs {
                let within = self.lowered.marks[input.0].within_sum;
                self.touch(if within { ops[input.0].inputs[0].0 } else { input.0 }, stage);
            }
            let target = &mut self.forward[stage];
            if moments {
                let task = Task::Moments { op: index, slot: target.moments };
                target.ends.push(task.clone());
                target.tasks.push(task);
                target.moments += 2 * ops[index].shape[0];
            } else {
                target.tasks.push(Task::Forward(index));
                self.touch(index, stage);
                if training && self.sums_len(index) > 0 {
                    self.touch(2 * ops.len() + index, stage);
                }
            }
            self.position += 1;
        }
    }

    /// Sees to it that the next task of a backward stage finds `values`.
    fn read_all(&mut self, values: impl Iterator<Item = usize> + Clone, stage: usize) {
        values.clone().for_each(|value| self.read(value, stage));
        // Tasks that compute some of them come after others were touched.
        values.for_each(|value| self.read(value, stage));
    }

    /// Sees to it that a task of a backward stage finds `value`.
    fn read(&mut self, value: usize, stage: usize) {
        let base = self.forward.len();
        if !self.again[value] {
            return self.touch(value, base + stage);
        }
        let known = self.copies.iter().position(|&copy| copy == (stage, value));
        let copy = known.unwrap_or_else(|| {
            self.read_all(self.network.ops[value].inputs.iter().map(|input| input.0), stage);
            self.backward[stage].tasks.push(Task::Forward(value));
            self.copies.push((stage, value));
            self.lives.push(None);
            self.copies.len() - 1
        });
        self.touch(3 * self.network.ops.len() + copy, base + stage);
        if known.is_none() {
            self.position += 1;
        }
    }

    fn backward(&mut self) {
        self.again = self.repeated();
        let ops = &self.network.ops;
        let count = ops.len();
        let base = self.forward.len();
        let mut level = vec![0; count];
        let mut order = Vec::new();
        for index in (0..count).rev() {
            if !self.differentiable[index] {
                continue;
            }
            if self.is_batch_norm(index) {
                order.push((level[index], index, true));
                level[index] += 1;
            }
            order.push((level[index], index, false));
            for input in &ops[index].inputs {
                level[input.0] = level[input.0].max(level[index]);
            }
        }
        order.sort_by_key(|&(stage, op, sums)| (stage, std::cmp::Reverse(op), !sums));
        // The loss writes the gradient of the output before the first stage.
        self.touch(2 * count - 1, base);
        let mut written = vec![false; count];
        for (stage, index, sums) in order {
            self.backward.resize_with(self.backward.len().max(stage + 1), Stage::default);
            self.position += 1;
            self.read_all(self.values_for_gradient(index).into_iter(), stage);
            self.touch(count + self.same_gradient[index], base + stage);
            if self.sums_len(index) > 0 {
                self.touch(2 * count + index, base + stage);
            }
            if sums {
                let target = &mut self.backward[stage];
                let task = Task::Sums { op: index, slot: target.moments };
                target.ends.push(task.clone());
                target.tasks.push(task);
                target.moments += 2 * ops[index].shape[0];
                continue;
            }
            let mut accumulate = Vec::with_capacity(ops[index].inputs.len());
            for input in &ops[index].inputs {
                let wanted = self.differentiable[input.0] && self.same_gradient[input.0] == input.0;
                accumulate.push(wanted.then(|| written[input.0]));
                if wanted {
                    written[input.0] = true;
                    self.touch(count + input.0, base + stage);
                }
            }
            let target = &mut self.backward[stage];
            let partial = target.partial;
            let len = match &self.layers[index] {
                Layer::Convolution(convolution) => convolution.gradient_len(),
                Layer::Norm { .. } if !matches!(ops[index].kind, OpKind::BatchNorm { .. }) => {
                    2 * ops[index].shape[0]
                }
                Layer::Position { .. } => ops[index].shape.iter().product(),
                _ => 0,
            };
            if len > 0 {
                target.partial += len;
                target.joins.extend(Join::cut(index, partial, len, &self.layers[index]));
            }
            target.tasks.push(Task::Backward { op: index, accumulate, partial });
        }
    }

    /// Numbers of an image that the forward pass of an attention op keeps for the backward pass.
    fn sums_len(&self, index: usize) -> usize {
        let op = &self.network.ops[index];
        match op.kind {
            OpKind::Attention { heads, head_dim } => {
                Attention { tokens: op.shape[1] * op.shape[2], heads, width: head_dim }.sums_len()
            }
            _ => 0,
        }
    }

    /// Values that the backward pass of an op reads.
    fn values_for_gradient(&self, index: usize) -> Vec<usize> {
        let op = &self.network.ops[index];
        match op.kind {
            OpKind::Conv { .. }
            | OpKind::Linear { .. }
            | OpKind::BatchNorm { .. }
            | OpKind::LayerNorm { .. }
            | OpKind::Gelu
            | OpKind::HardSwish => vec![op.inputs[0].0],
            OpKind::Attention { .. } => vec![op.inputs[0].0, index],
            OpKind::Excite => vec![op.inputs[0].0, op.inputs[1].0],
            // Its output tells the sign of its input, and the next convolution keeps it anyway, or the input is kept.
            OpKind::Relu if self.again[index] => vec![op.inputs[0].0],
            OpKind::Relu => vec![index],
            OpKind::MaxPool { .. } => vec![op.inputs[0].0, index],
            _ => Vec::new(),
        }
    }

    fn finish(mut self) -> Plan {
        let count = self.network.ops.len();
        let copies = std::mem::take(&mut self.copies);
        let op_of = |buffer: usize| {
            if buffer < 3 * count { buffer % count } else { copies[buffer - 3 * count].1 }
        };
        let sums: Vec<usize> = (0..count).map(|op| self.sums_len(op)).collect();
        let numel = |buffer: usize| match (2 * count..3 * count).contains(&buffer) {
            true => sums[op_of(buffer)],
            false => self.network.ops[op_of(buffer)].shape.iter().product::<usize>(),
        };
        let stages = self.forward.len() + self.backward.len();
        let mut locals: Vec<Vec<usize>> = vec![Vec::new(); stages];
        let mut shared = Vec::new();
        let mut widest = vec![1; stages];
        for (buffer, life) in self.lives.iter().enumerate() {
            let Some(life) = life else { continue };
            widest[life.first.0] = widest[life.first.0].max(numel(buffer));
            widest[life.last.0] = widest[life.last.0].max(numel(buffer));
            // Logits and their gradient meet the caller.
            if life.first.0 == life.last.0 && op_of(buffer) != count - 1 {
                locals[life.first.0].push(buffer);
            } else {
                shared.push(buffer);
            }
        }
        let mut places = vec![Place::Nowhere; self.lives.len()];
        let life = |buffer: usize| self.lives[buffer].expect("only touched buffers are placed");

        let mut local_len = 0;
        for (index, buffers) in locals.iter_mut().enumerate() {
            let chunk = (CHUNK_ELEMENTS / widest[index]).clamp(1, CHUNK_IMAGES);
            buffers.sort_by_key(|&buffer| life(buffer).first);
            let mut arena = Arena::default();
            for &buffer in buffers.iter() {
                arena.release_before(life(buffer).first.1);
                places[buffer] = Place::Local(arena.take(numel(buffer), life(buffer).last.1));
            }
            // Scratch space behind the local buffers starts at a cache line.
            local_len = local_len.max((arena.len * chunk).next_multiple_of(16));
            let stage = if index < self.forward.len() {
                &mut self.forward[index]
            } else {
                &mut self.backward[index - self.forward.len()]
            };
            stage.chunk = chunk;
            stage.shards = if stage.partial > HEAVY { HEAVY_SHARDS } else { SHARDS };
        }
        // Workers are at different positions of a stage: batch buffers are reused from the next stage on.
        shared.sort_by_key(|&buffer| life(buffer).first);
        let mut arena = Arena::default();
        for &buffer in &shared {
            arena.release_before(life(buffer).first.0);
            places[buffer] = Place::Batch(arena.take(numel(buffer), life(buffer).last.0));
        }
        for (&(stage, op), &place) in copies.iter().zip(&places[3 * count..]) {
            self.backward[stage].again.push((op, place));
        }
        places.truncate(3 * count);
        let sums = places.split_off(2 * count);
        let mut gradients = places.split_off(count);
        for index in 0..count {
            gradients[index] = gradients[self.same_gradient[index]];
        }
        let shares_params = self.shares_params();
        Plan {
            forward: self.forward,
            backward: self.backward,
            values: places,
            gradients,
            sums,
            batch_len: arena.len,
            local_len,
            shares_params,
            again: self.again,
        }
    }
}
