//! Memory of a run and the view that a worker has of it.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Mutex;

use super::layer::Layer;
use super::plan::{Place, Plan, Stage, Task};
use crate::kernels::attention::Attention;
use crate::kernels::norm;
use crate::kernels::{Buffer, Element};
use crate::network::{Network, OpKind};

/// Everything that all workers share; grows at the first run of a plan and then stays.
#[derive(Debug)]
pub(super) struct Memory<T> {
    /// Batch buffers.
    buffers: Buffer<T>,
    /// Packed weights.
    packed: Buffer<T>,
    /// `[2, C]` of each batch norm: mean and reciprocal deviation.
    statistics: Buffer<T>,
    /// `[3, C]` of each batch norm: coefficients of the gradient.
    coefficients: Buffer<T>,
    /// First channel of each op in `statistics` and `coefficients`.
    channels: Vec<usize>,
    /// `[image, channels of the stage]`.
    moments: Buffer<T>,
    /// `[shard, gradients of parameters of the stage]`.
    partials: Buffer<T>,
}

impl<T: Element> Memory<T> {
    pub(super) fn new(network: &Network, packed: usize) -> Self {
        let mut total = 0;
        let channels = network
            .ops
            .iter()
            .map(|op| {
                let first = total;
                if matches!(op.kind, OpKind::BatchNorm { .. }) {
                    total += op.shape[0];
                }
                first
            })
            .collect();
        Self {
            buffers: Buffer::zeros(0),
            packed: Buffer::zeros(packed),
            statistics: Buffer::zeros(2 * total),
            coefficients: Buffer::zeros(3 * total),
            channels,
            moments: Buffer::zeros(0),
            partials: Buffer::zeros(0),
        }
    }

    pub(super) fn reserve(&mut self, plan: &Plan, max_batch: usize) {
        grow(&mut self.buffers, plan.batch_len * max_batch);
        grow(&mut self.moments, plan.moments() * max_batch);
        grow(&mut self.partials, plan.partial() * super::SHARDS);
    }

    /// Mean and reciprocal deviation of the batch norm `op`, as the latest forward pass left them.
    pub(super) fn statistics(&self, op: usize, channels: usize) -> (&[T], &[T]) {
        let first = 2 * self.channels[op];
        self.statistics[first..first + 2 * channels].split_at(channels)
    }

    pub(super) fn pack(&mut self, layers: &[Layer], params: &[T], backward: bool) {
        for layer in layers {
            if let Layer::Convolution(convolution) = layer {
                convolution.pack(params, &mut self.packed, backward);
            }
        }
    }
}

fn grow<T: Element>(buffer: &mut Buffer<T>, len: usize) {
    if buffer.len() < len {
        // Contents do not matter: a fresh vector of zeros costs no copy.
        *buffer = Buffer::zeros(len);
    }
}

/// Local buffers and kernels' scratch space, one block per thread at work.
#[derive(Debug)]
pub(super) struct Scratch<T> {
    /// Elements that kernels need for one image.
    kernel: usize,
    len: usize,
    blocks: Mutex<Vec<Buffer<T>>>,
}

impl<T: Element> Scratch<T> {
    pub(super) fn new(network: &Network, layers: &[Layer]) -> Self {
        let need = |(index, layer): (usize, &Layer)| match (layer, &network.ops[index].kind) {
            (Layer::Convolution(convolution), _) => {
                let spread = convolution.spread.len().max(convolution.back_spread.len());
                let images = super::plan::CHUNK_IMAGES;
                let fast = convolution.fast.iter().flatten().map(|fast| fast.scratch_len::<T>(images)).max();
                fast.unwrap_or(0).max(spread)
            }
            (_, &OpKind::Attention { heads, head_dim }) => {
                let [_, height, width] = network.ops[index].shape;
                let attention = Attention { tokens: height * width, heads, width: head_dim };
                // The gradient by the input may have to be added after it was computed.
                attention.scratch_len::<T>() + 3 * heads * head_dim * height * width
            }
            _ => network.ops[index].shape[0],
        };
        let kernel = layers.iter().enumerate().map(need).max().unwrap_or(0);
        Self { kernel, len: 0, blocks: Mutex::new(Vec::new()) }
    }

    pub(super) fn reserve(&mut self, plan: &Plan) {
        let len = plan.local_len + self.kernel;
        if len > self.len {
            self.len = len;
            self.blocks.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        }
    }

    /// Lends a block to `work`; the last returned goes out first, it is the warmest.
    pub(super) fn lend(&self, work: impl FnOnce(&mut [T])) {
        let lock = || self.blocks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let block = lock().pop();
        let mut block = block.unwrap_or_else(|| Buffer::zeros(self.len));
        work(&mut block);
        lock().push(block);
    }
}

/// A pointer that workers on disjoint ranges share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: ranges handed out by `slice_mut` to different workers are disjoint (its contract).
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// A range for reading.
    ///
    /// # Safety
    /// Nobody writes to the range while the result is in use.
    pub(super) unsafe fn slice(&self, first: usize, len: usize) -> &'a [T] {
        assert!(first + len <= self.len, "range {first}+{len} outside of {}", self.len);
        // SAFETY: in bounds; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(first), len) }
    }

    /// A range for writing.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the result is in use.
    pub(super) unsafe fn slice_mut(&self, first: usize, len: usize) -> &'a mut [T] {
        assert!(first + len <= self.len, "range {first}+{len} outside of {}", self.len);
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

/// One batch on its way through the stages.
pub(super) struct Batch<'a, T> {
    pub network: &'a Network,
    pub layers: &'a [Layer],
    pub plan: &'a Plan,
    pub params: &'a [T],
    pub images: &'a [T],
    /// Images of the batch.
    pub count: usize,
    pub seed: Option<u64>,
    pub packed: &'a [T],
    max_batch: usize,
    buffers: Shared<'a, T>,
    statistics: Shared<'a, T>,
    coefficients: Shared<'a, T>,
    channels: &'a [usize],
    moments: Shared<'a, T>,
    partials: Shared<'a, T>,
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

impl<'a, T: Element> Batch<'a, T> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        network: &'a Network,
        layers: &'a [Layer],
        plan: &'a Plan,
        memory: &'a mut Memory<T>,
        params: &'a [T],
        images: &'a [T],
        count: usize,
        max_batch: usize,
        seed: Option<u64>,
    ) -> Self {
        Self {
            network,
            layers,
            plan,
            params,
            images,
            count,
            seed,
            packed: &memory.packed,
            max_batch,
            buffers: Shared::new(&mut memory.buffers),
            statistics: Shared::new(&mut memory.statistics),
            coefficients: Shared::new(&mut memory.coefficients),
            channels: &memory.channels,
            moments: Shared::new(&mut memory.moments),
            partials: Shared::new(&mut memory.partials),
        }
    }

    pub(super) fn numel(&self, op: usize) -> usize {
        self.network.ops[op].shape.iter().product()
    }

    /// Takes `images` through the stage.
    pub(super) fn run_shard(&self, stage: &Stage, shard: usize, images: Range<usize>, scratch: &mut [T]) {
        let (local, scratch) = scratch.split_at_mut(self.plan.local_len);
        // SAFETY: each shard has its own range.
        let partial = unsafe { self.partials.slice_mut(shard * stage.partial, stage.partial) };
        partial.fill(T::zero());
        let (local, partial) = (Shared::new(local), Shared::new(partial));
        for first in images.clone().step_by(stage.chunk) {
            let count = stage.chunk.min(images.end - first);
            let mut chunk = Chunk { batch: self, stage, first, count, local, scratch, partial };
            for task in &stage.tasks {
                match task {
                    Task::Forward(op) => chunk.forward(*op),
                    Task::Moments { op, slot } => chunk.moments(*op, *slot),
                    Task::Sums { op, slot } => chunk.sums(*op, *slot),
                    Task::Backward { op, accumulate, partial } => chunk.backward(*op, accumulate, *partial),
                }
            }
        }
    }

    /// Joins the moments that the stage left.
    pub(super) fn finish_forward(&self, stage: &Stage) {
        for task in &stage.tasks {
            let &Task::Moments { op, slot } = task else { continue };
            let input = self.network.ops[op].inputs[0].0;
            let [channels, height, width] = self.network.ops[input].shape;
            // SAFETY: workers of the stage are done.
            let (moments, statistics) = unsafe {
                let first = slot * self.count;
                let moments = self.moments.slice(first, 2 * channels * self.count);
                (moments, self.statistics.slice_mut(2 * self.channels[op], 2 * channels))
            };
            norm::join_moments(moments, height * width, statistics);
        }
    }

    /// Adds the gradients of the stage's parameters to `grad`.
    pub(super) fn finish_backward(&self, stage: &Stage, grad: &mut [T]) {
        let size = self.count.div_ceil(super::SHARDS);
        let shards = self.count.div_ceil(size);
        // SAFETY: workers of the stage are done.
        let partials = unsafe { self.partials.slice_mut(0, stage.partial * shards) };
        let (total, others) = partials.split_at_mut(stage.partial);
        for other in others.chunks_exact(stage.partial.max(1)) {
            crate::kernels::activation::copy(other, total, true);
        }
        for task in &stage.tasks {
            match task {
                &Task::Sums { op, slot } => self.finish_sums(op, slot, grad),
                &Task::Backward { op, partial, .. } => {
                    let [channels, height, width] = self.network.ops[op].shape;
                    match &self.layers[op] {
                        Layer::Convolution(convolution) => {
                            let partial = &total[partial..partial + convolution.gradient_len()];
                            convolution.unpack_gradient(partial, grad);
                        }
                        &Layer::Norm { weight, bias } => {
                            if matches!(self.network.ops[op].kind, OpKind::LayerNorm { .. }) {
                                for c in 0..channels {
                                    grad[weight + c] += total[partial + c];
                                    grad[bias + c] += total[partial + channels + c];
                                }
                            }
                        }
                        &Layer::Position { weight } => {
                            let pixels = height * width;
                            for pixel in 0..pixels {
                                for c in 0..channels {
                                    grad[weight + c * pixels + pixel] +=
                                        total[partial + pixel * channels + c];
                                }
                            }
                        }
                        Layer::Plain => {}
                    }
                }
                Task::Forward(_) | Task::Moments { .. } => {}
            }
        }
    }

    /// Gradient of a batch norm's parameters, and the coefficients for its input.
    fn finish_sums(&self, op: usize, slot: usize, grad: &mut [T]) {
        let &Layer::Norm { weight, bias } = &self.layers[op] else { return };
        let [channels, height, width] = self.network.ops[op].shape;
        let mut sums = vec![0.0; 2 * channels];
        // SAFETY: workers of the stage are done.
        let coefficients = unsafe {
            for image in
                self.moments.slice(slot * self.count, 2 * channels * self.count).chunks_exact(2 * channels)
            {
                for (sum, value) in sums.iter_mut().zip(image) {
                    *sum += value.double();
                }
            }
            self.coefficients.slice_mut(3 * self.channels[op], 3 * channels)
        };
        for c in 0..channels {
            grad[bias + c] += T::constant(sums[c]);
            grad[weight + c] += T::constant(sums[channels + c]);
        }
        let count = self.count * height * width;
        let weight = &self.params[weight..weight + channels];
        norm::gradient_coefficients(&sums, self.statistics(op), weight, count, coefficients);
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
            Place::Batch(offset) => (offset * self.max_batch, self.numel(op) * self.count),
            Place::Local(_) | Place::Nowhere => unreachable!("the output has a batch buffer"),
        }
    }

    /// Logits of the batch.
    pub(super) fn logits(&self) -> Vec<T> {
        let (first, len) = self.last(&self.plan.values);
        // SAFETY: no workers run.
        unsafe { self.buffers.slice(first, len).to_vec() }
    }

    /// Sets the gradient of the logits.
    pub(super) fn set_logits_gradient(&self, gradient: &[T]) {
        let (first, len) = self.last(&self.plan.gradients);
        // SAFETY: no workers run.
        unsafe { self.buffers.slice_mut(first, len).copy_from_slice(gradient) }
    }
}

impl<'b, T: Element> Chunk<'_, 'b, T> {
    fn range(&self, place: Place, op: usize) -> (Shared<'b, T>, usize, usize)
    where
        Self: 'b,
    {
        let numel = self.batch.numel(op);
        let len = numel * self.count;
        match place {
            Place::Batch(offset) => {
                (self.batch.buffers, offset * self.batch.max_batch + self.first * numel, len)
            }
            Place::Local(offset) => (self.local, offset * self.stage.chunk, len),
            Place::Nowhere => unreachable!("op {op} is read but has no buffer"),
        }
    }

    /// Output of an op.
    pub(super) fn value(&self, op: usize) -> &'b [T] {
        let (memory, first, len) = self.range(self.batch.plan.values[op], op);
        // SAFETY: the plan lets no task write a buffer that it also reads; other workers have other images.
        unsafe { memory.slice(first, len) }
    }

    /// Output of an op, for writing.
    pub(super) fn value_mut(&self, op: usize) -> &'b mut [T] {
        let (memory, first, len) = self.range(self.batch.plan.values[op], op);
        // SAFETY: as in `value`; a task asks for its own output once.
        unsafe { memory.slice_mut(first, len) }
    }

    /// Gradient of an op's output.
    pub(super) fn gradient(&self, op: usize) -> &'b [T] {
        let (memory, first, len) = self.range(self.batch.plan.gradients[op], op);
        // SAFETY: as in `value`.
        unsafe { memory.slice(first, len) }
    }

    /// Gradient of an op's output, for writing.
    pub(super) fn gradient_mut(&self, op: usize) -> &'b mut [T] {
        let (memory, first, len) = self.range(self.batch.plan.gradients[op], op);
        // SAFETY: as in `value`; a task writes the gradients of its inputs one after the other.
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
