//! One batch on its way through the stages, and the view that a worker has of it.

use std::ops::Range;

use super::codes::Recorder;
use super::layer::Layer;
use super::lower::Marks;
use super::memory::Shared;
use super::plan::{CHUNK_IMAGES, Place, Plan, Stage, Task};
use super::profile::{Account, Profile, timed};
use crate::kernels::Element;
use crate::kernels::attention::Attention;
use crate::kernels::fused::Affine;
use crate::network::{Network, OpKind};

/// Elements of scratch space that kernels need.
pub(super) fn scratch_len<T: Element>(network: &Network, layers: &[Layer]) -> usize {
    let need = |(index, layer): (usize, &Layer)| match (layer, &network.ops[index].kind) {
        (Layer::Convolution(convolution), _) => convolution.scratch_len::<T>(CHUNK_IMAGES),
        (_, &OpKind::Attention { heads, head_dim }) => {
            let [_, height, width] = network.ops[index].shape;
            let attention = Attention { tokens: height * width, heads, width: head_dim };
            // The gradient by the input may have to be added after it was computed.
            attention.scratch_len::<T>() + 3 * heads * head_dim * height * width
        }
        // Factors of up to two batch norms.
        _ => 2 * network.ops[index].shape[0],
    };
    layers.iter().enumerate().map(need).max().unwrap_or(0)
}

/// One batch on its way through the stages.
pub(super) struct Batch<'a, T> {
    pub network: &'a Network,
    pub marks: &'a [Marks],
    pub layers: &'a [Layer],
    pub plan: &'a Plan,
    pub params: &'a [T],
    pub images: &'a [T],
    /// Images of the batch.
    pub count: usize,
    pub seed: Option<u64>,
    pub packed: &'a [T],
    pub profile: Option<&'a Profile>,
    pub recorder: Option<&'a Recorder>,
    /// First channel of each op in `statistics` and `coefficients`.
    pub channels: &'a [usize],
    pub buffers: Shared<'a, T>,
    pub statistics: Shared<'a, T>,
    pub coefficients: Shared<'a, T>,
    pub moments: Shared<'a, T>,
    pub partials: Shared<'a, T>,
}

/// The images that a worker takes through a stage together.
pub(super) struct Chunk<'a, 'b, T> {
    pub batch: &'b Batch<'a, T>,
    pub stage: &'b Stage,
    pub first: usize,
    pub count: usize,
    local: Shared<'b, T>,
    pub scratch: &'b mut [T],
    partial: Shared<'a, T>,
}

/// Parts of a batch norm's map `(x - mean) / sigma * weight + bias`.
pub(super) struct NormMap<'a, T> {
    statistics: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
}

impl<'a, T: Element> NormMap<'a, T> {
    /// The map; `scale [C]` is scratch.
    pub(super) fn affine<'s>(&self, scale: &'s mut [T]) -> Affine<'s, T>
    where
        'a: 's,
    {
        Affine::new(self.statistics, self.weight, self.bias, scale)
    }
}

impl<'a, T: Element> Batch<'a, T> {
    /// The map of a batch norm.
    pub(super) fn norm_map(&self, op: usize) -> Option<NormMap<'a, T>> {
        let &Layer::Norm { weight, bias } = &self.layers[op] else { return None };
        let channels = self.network.ops[op].shape[0];
        let params: &'a [T] = self.params;
        let part = |first: usize| &params[first..first + channels];
        Some(NormMap { statistics: self.statistics(op), weight: part(weight), bias: part(bias) })
    }

    pub(super) fn numel(&self, op: usize) -> usize {
        self.network.ops[op].shape.iter().product()
    }

    /// Images of a shard, and shards of a stage.
    pub(super) fn shards(&self, stage: &Stage) -> (usize, usize) {
        let size = self.count.div_ceil(stage.shards);
        (size, self.count.div_ceil(size))
    }

    /// Takes `images` through the stage, the last chunk first if told.
    pub(super) fn run_shard(
        &self,
        stage: &Stage,
        shard: usize,
        images: Range<usize>,
        backwards: bool,
        scratch: &mut [T],
    ) {
        let (local, scratch) = scratch.split_at_mut(self.plan.local_len);
        // SAFETY: each shard has its own range.
        let partial = unsafe { self.partials.slice_mut(shard * stage.partial, stage.partial) };
        partial.fill(T::zero());
        let (local, partial) = (Shared::new(local), Shared::new(partial));
        let chunks = images.len().div_ceil(stage.chunk);
        for number in 0..chunks {
            let number = if backwards { chunks - 1 - number } else { number };
            let first = images.start + number * stage.chunk;
            let count = stage.chunk.min(images.end - first);
            let mut chunk = Chunk { batch: self, stage, first, count, local, scratch, partial };
            for task in &stage.tasks {
                let account = match *task {
                    Task::Forward(op) | Task::Moments { op, .. } => Account::Forward(op),
                    Task::Sums { op, .. } | Task::Backward { op, .. } => Account::Backward(op),
                };
                timed(self.profile, account, || match task {
                    Task::Forward(op) => chunk.forward(*op),
                    Task::Moments { op, slot } => chunk.moments(*op, *slot),
                    Task::Sums { op, slot } => chunk.sums(*op, *slot),
                    Task::Backward { op, accumulate, partial } => chunk.backward(*op, accumulate, *partial),
                });
                if let (&Task::Forward(op), Some(recorder)) = (task, self.recorder) {
                    recorder.note(op, first, self.numel(op), chunk.value(op));
                }
            }
        }
    }

    /// Copies the statistics of all batch norms; called between stages.
    pub(super) fn copy_statistics(&self, target: &mut [T]) {
        // SAFETY: no workers run.
        target.copy_from_slice(unsafe { self.statistics.slice(0, target.len()) });
    }

    /// Mean and reciprocal deviation of a batch norm.
    pub(super) fn statistics(&self, op: usize) -> &'a [T] {
        let channels = self.network.ops[op].shape[0];
        // SAFETY: written only between stages.
        unsafe { self.statistics.slice(2 * self.channels[op], 2 * channels) }
    }

    /// Coefficients of a batch norm's gradient.
    pub(super) fn coefficients(&self, op: usize) -> &'a [T] {
        let channels = self.network.ops[op].shape[0];
        // SAFETY: written only between stages.
        unsafe { self.coefficients.slice(3 * self.channels[op], 3 * channels) }
    }

    fn last(&self, places: &[Place]) -> (usize, usize) {
        let op = self.network.ops.len() - 1;
        match places[op] {
            Place::Batch(offset) => (offset * self.count, self.numel(op) * self.count),
            Place::Local(_) | Place::Nowhere => unreachable!("the output has a batch buffer"),
        }
    }

    /// Logits of the batch; called between stages.
    pub(super) fn logits(&self) -> &'a [T] {
        let (first, len) = self.last(&self.plan.values);
        // SAFETY: no workers run.
        unsafe { self.buffers.slice(first, len) }
    }

    /// Gradient of the logits, for writing; called between stages.
    pub(super) fn logits_gradient(&self) -> &'a mut [T] {
        let (first, len) = self.last(&self.plan.gradients);
        // SAFETY: no workers run, and the one caller asks once.
        unsafe { self.buffers.slice_mut(first, len) }
    }
}

impl<'b, T: Element> Chunk<'_, 'b, T> {
    /// Memory, first element and number of elements of a buffer with `numel` of an image.
    fn range(&self, place: Place, numel: usize) -> (Shared<'b, T>, usize, usize)
    where
        Self: 'b,
    {
        let len = numel * self.count;
        match place {
            Place::Batch(offset) => (self.batch.buffers, offset * self.batch.count + self.first * numel, len),
            Place::Local(offset) => (self.local, offset * self.stage.chunk, len),
            Place::Nowhere => unreachable!("a buffer of {numel} elements is read but was not planned"),
        }
    }

    /// Where the output of an op is in this stage.
    fn value_place(&self, op: usize) -> Place {
        let again = self.stage.again.iter().find(|(again, _)| *again == op);
        again.map_or(self.batch.plan.values[op], |&(_, place)| place)
    }

    /// Output of an op.
    pub(super) fn value(&self, op: usize) -> &'b [T] {
        let (memory, first, len) = self.range(self.value_place(op), self.batch.numel(op));
        // SAFETY: the plan lets no task write a buffer that it also reads; other workers have other images.
        unsafe { memory.slice(first, len) }
    }

    /// Output of an op, for writing.
    pub(super) fn value_mut(&self, op: usize) -> &'b mut [T] {
        let (memory, first, len) = self.range(self.value_place(op), self.batch.numel(op));
        // SAFETY: as in `value`; a task asks for its own output once.
        unsafe { memory.slice_mut(first, len) }
    }

    /// Gradient of an op's output.
    pub(super) fn gradient(&self, op: usize) -> &'b [T] {
        let (memory, first, len) = self.range(self.batch.plan.gradients[op], self.batch.numel(op));
        // SAFETY: as in `value`.
        unsafe { memory.slice(first, len) }
    }

    /// Gradient of an op's output, for writing.
    pub(super) fn gradient_mut(&self, op: usize) -> &'b mut [T] {
        let (memory, first, len) = self.range(self.batch.plan.gradients[op], self.batch.numel(op));
        // SAFETY: as in `value`; a task writes the gradients of its inputs one after the other.
        unsafe { memory.slice_mut(first, len) }
    }

    /// The sums that an attention op keeps, `len` of an image; none if nobody reads them.
    pub(super) fn sums_of(&self, op: usize, len: usize) -> &'b mut [T] {
        let place = self.batch.plan.sums[op];
        if place == Place::Nowhere {
            return &mut [];
        }
        let (memory, first, len) = self.range(place, len);
        // SAFETY: as in `value`; a task asks for its own sums once.
        unsafe { memory.slice_mut(first, len) }
    }

    /// Moments or sums `[2 C]` of image `image` of the chunk.
    pub(super) fn moments_mut(&self, slot: usize, len: usize, image: usize) -> &'b mut [T] {
        let first = slot * self.batch.count + (self.first + image) * len;
        // SAFETY: each image of each batch norm has its own range.
        unsafe { self.batch.moments.slice_mut(first, len) }
    }

    /// This shard's gradient of an op's parameters.
    pub(super) fn partial_mut(&self, first: usize, len: usize) -> &'b mut [T] {
        // SAFETY: the range belongs to this shard, and a task asks for its own part once.
        unsafe { self.partial.slice_mut(first, len) }
    }
}
