//! The native CPU executor: a static plan, channels-last buffers, own kernels, rayon over images.
//!
//! In: a [`Network`], flat parameters in PyTorch layouts, images `[N, C, H, W]`. Out: logits, or the loss and
//! the gradient of the parameters. Batches are cut into parts whatever the number of threads, and sums over parts are
//! taken in their order, so results do not depend on the threads.
//!
//! [`lower`] joins ops of the network, [`layer`] and [`plan`] prepare geometry, stages and buffers once; a run borrows
//! its memory ([`memory`]), packs the weights ([`weights`]) and takes the images through the stages ([`worker`]).

mod arena;
mod backward;
mod codes;
mod forward;
mod join;
mod layer;
mod lower;
mod memory;
mod plan;
mod profile;
mod weights;
mod worker;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

pub use self::codes::Codes;
use self::codes::Recorder;
use self::layer::Layer;
use self::lower::Lowered;
pub use self::memory::Workspace;
use self::memory::{Layout, Shared};
use self::plan::{Plan, Stage};
pub use self::profile::Share;
use self::profile::{Account, Profile, timed};
use self::weights::Packer;
use self::worker::Batch;
use super::{Executor, Mode, Real};
use crate::kernels::Element;
use crate::kernels::norm::EPSILON;
use crate::network::{Network, OpKind};
use crate::{Error, Result};

/// Runs one network on the CPU; see the module.
///
/// ```
/// use foretell::execute::{Executor, Mode, NativeExecutor};
/// use foretell::network::{Network, OpId, OpKind, OpNode, Param, ParamId};
///
/// let mean = OpNode { kind: OpKind::GlobalAvgPool, inputs: vec![OpId(0)], shape: [1, 1, 1] };
/// let linear = OpKind::Linear { weight: ParamId(0), bias: None };
/// let network = Network {
///     ops: vec![
///         OpNode { kind: OpKind::Input, inputs: vec![], shape: [1, 2, 2] },
///         mean,
///         OpNode { kind: linear, inputs: vec![OpId(1)], shape: [2, 1, 1] },
///     ],
///     params: vec![Param { name: "classifier.weight".into(), shape: vec![2, 1], offset: 0 }],
///     pruned: vec![],
///     n_cells: 0,
/// };
/// let mut executor = NativeExecutor::<f32>::new(&network, 8)?;
/// let logits = executor.logits(&[1.0, -2.0], &[1.0, 2.0, 3.0, 6.0], Mode::Evaluate)?;
/// assert_eq!(logits, [3.0, -6.0]);
/// # Ok::<(), foretell::Error>(())
/// ```
#[derive(Debug)]
pub struct NativeExecutor<T> {
    /// What the arguments must fit.
    n_params: usize,
    lowered: Lowered,
    layers: Vec<Layer>,
    packer: Packer,
    /// Packed weights in all.
    packed: usize,
    /// First channel of each batch norm, and at the end their number.
    channels: Vec<usize>,
    scratch: usize,
    max_batch: usize,
    evaluate: Plan,
    train: Option<Plan>,
    workspace: Workspace<T>,
    /// `[2, C]` of each batch norm, as the latest forward pass left them.
    statistics: Vec<T>,
    profile: Option<Profile>,
    recorder: Option<Recorder>,
}

impl<T: Real + Element> NativeExecutor<T> {
    /// Prepares `network` for batches of up to `max_batch` images; memory is taken at the first run and kept.
    ///
    /// # Errors
    /// If the network is not valid, or `max_batch` is 0.
    pub fn new(network: &Network, max_batch: usize) -> Result<Self> {
        Self::with_workspace(network, max_batch, &Workspace::default())
    }

    /// The same with memory that each run borrows from `workspace`.
    ///
    /// # Errors
    /// As [`NativeExecutor::new`].
    pub fn with_workspace(network: &Network, max_batch: usize, workspace: &Workspace<T>) -> Result<Self> {
        if max_batch == 0 {
            return Err(Error::Tensor("the largest batch must hold at least one image, found 0".into()));
        }
        network.validate()?;
        let lowered = lower::lower(network);
        let (layers, packed) = layer::prepare::<T>(&lowered.network, &lowered.marks);
        let mut total = 0;
        let mut channels = vec![0];
        for op in &lowered.network.ops {
            total += if matches!(op.kind, OpKind::BatchNorm { .. }) { op.shape[0] } else { 0 };
            channels.push(total);
        }
        Ok(Self {
            n_params: network.n_params(),
            packer: Packer::new(&layers),
            packed,
            channels,
            scratch: worker::scratch_len::<T>(&lowered.network, &layers),
            max_batch,
            evaluate: Plan::new(&lowered, &layers, false),
            train: None,
            workspace: workspace.clone(),
            statistics: vec![T::zero(); 2 * total],
            profile: None,
            recorder: None,
            lowered,
            layers,
        })
    }

    /// Measures the runs from now on; see [`NativeExecutor::shares`].
    pub fn measure(&mut self) {
        self.profile = Some(Profile::new(self.lowered.network.ops.len()));
    }

    /// Time of each kind of op since [`NativeExecutor::measure`], by falling time.
    pub fn shares(&self) -> Vec<Share> {
        let shares = |profile: &Profile| profile.shares(&self.lowered.network, &self.layers);
        self.profile.as_ref().map(shares).unwrap_or_default()
    }

    /// Checks the arguments and returns the number of images.
    fn check(&self, params: &[T], images: &[T]) -> Result<usize> {
        let expected = self.n_params;
        if params.len() != expected {
            return Err(Error::Tensor(format!("parameters: {} elements, expected {expected}", params.len())));
        }
        let shape = self.lowered.network.input_shape();
        let size: usize = shape.iter().product();
        let count = images.len() / size;
        if !images.len().is_multiple_of(size) || count == 0 || count > self.max_batch {
            return Err(Error::Tensor(format!(
                "images: {} elements, expected 1 to {} images {shape:?} of {size} elements",
                images.len(),
                self.max_batch
            )));
        }
        Ok(count)
    }

    /// Mean and biased variance `[C]` that the batch norm at `op` had in the latest forward pass; none if there is
    /// no batch norm.
    pub fn batch_moments(&self, op: usize) -> Option<[Vec<f64>; 2]> {
        let lowered = self.lowered.marks.binary_search_by_key(&op, |marks| marks.origin).ok()?;
        let node = &self.lowered.network.ops[lowered];
        if !matches!(node.kind, OpKind::BatchNorm { .. }) {
            return None;
        }
        let first = 2 * self.channels[lowered];
        let (mean, inverse) = self.statistics[first..first + 2 * node.shape[0]].split_at(node.shape[0]);
        let variance = |inverse: &T| (inverse.double().powi(-2) - EPSILON).max(0.0);
        Some([mean.iter().map(|mean| mean.double()).collect(), inverse.iter().map(variance).collect()])
    }

    /// Runs a forward pass without dropout; out: which rectified units each image makes active.
    ///
    /// # Errors
    /// As [`Executor::logits`].
    pub fn codes(&mut self, params: &[T], images: &[T]) -> Result<Codes> {
        let count = self.check(params, images)?;
        let recorder = Recorder::new(&self.lowered, count);
        self.recorder = Some(recorder);
        self.forward(params, images, count, Mode::Evaluate, false, |_, _| ());
        Ok(self.recorder.take().expect("put there above").codes())
    }

    /// Sum of all logits of a batch, without dropout; its gradient by `params` is *added* to `grad [n_params]`.
    ///
    /// # Errors
    /// As [`Executor::loss_and_gradient`].
    pub fn sum_and_gradient(&mut self, params: &[T], images: &[T], grad: &mut [T]) -> Result<T> {
        self.gradient(params, images, Mode::TrainWithoutDropout, grad, |logits, slopes| {
            slopes.fill(T::one());
            logits.iter().copied().sum()
        })
    }

    /// Runs the forward stages, then `then` with the batch as they left it.
    fn forward<R>(
        &mut self,
        params: &[T],
        images: &[T],
        count: usize,
        mode: Mode,
        training: bool,
        then: impl FnOnce(&Batch<'_, T>, &Stages<'_, T>) -> R,
    ) -> R {
        let plan = if training {
            self.train.get_or_insert_with(|| Plan::new(&self.lowered, &self.layers, true))
        } else {
            &self.evaluate
        };
        let profile = self.profile.as_ref();
        let norms = self.channels.last().copied().unwrap_or(0);
        let layout = Layout::new(plan, count, self.packed, norms);
        let mut block = self.workspace.for_run(layout.len());
        let [buffers, packed, statistics, coefficients, moments, partials] = layout.split(&mut block);
        timed(profile, Account::Packing, || self.packer.run(&self.layers, params, packed, training));
        let batch = Batch {
            network: &self.lowered.network,
            marks: &self.lowered.marks,
            layers: &self.layers,
            plan,
            params,
            images,
            count,
            seed: seed(mode),
            packed,
            profile,
            recorder: self.recorder.as_ref(),
            channels: &self.channels,
            buffers: Shared::new(buffers),
            statistics: Shared::new(statistics),
            coefficients: Shared::new(coefficients),
            moments: Shared::new(moments),
            partials: Shared::new(partials),
        };
        let kept = &mut self.statistics;
        let stages = Stages { workspace: &self.workspace, scratch: plan.local_len + self.scratch };
        for (number, stage) in plan.forward.iter().enumerate() {
            stages.run(stage, &batch, number);
            timed(profile, Account::Joining, || batch.finish_forward(stage));
        }
        batch.copy_statistics(kept);
        then(&batch, &stages)
    }
}

/// Runs stages with borrowed scratch space.
struct Stages<'a, T> {
    workspace: &'a Workspace<T>,
    scratch: usize,
}

impl<T: Element> Stages<'_, T> {
    /// Runs stage `number` on all shards. Every other stage goes backwards through the images: it begins with those that
    /// the stage before left in the caches.
    fn run(&self, stage: &Stage, batch: &Batch<'_, T>, number: usize) {
        let (size, shards) = batch.shards(stage);
        let backwards = number % 2 == 1;
        // Halves of the shards often belong to one thread each.
        let half = shards / 2;
        let place = |index: usize| match index {
            _ if !backwards => index,
            _ if index < half => half - 1 - index,
            _ => shards - 1 - (index - half),
        };
        (0..shards).into_par_iter().with_max_len(1).map(place).for_each(|shard| {
            let images = shard * size..((shard + 1) * size).min(batch.count);
            let mut scratch = self.workspace.for_worker(self.scratch);
            batch.run_shard(stage, shard, images, backwards, &mut scratch);
        });
    }
}

impl<T: Real + Element> NativeExecutor<T> {
    fn run_forward(&mut self, params: &[T], images: &[T], mode: Mode) -> Result<Vec<T>> {
        let count = self.check(params, images)?;
        Ok(self.forward(params, images, count, mode, false, |batch, _| batch.logits().to_vec()))
    }

    fn run_both(
        &mut self,
        params: &[T],
        images: &[T],
        labels: &[u8],
        mode: Mode,
        grad: &mut [T],
    ) -> Result<T> {
        let count = self.check(params, images)?;
        let classes = self.lowered.network.num_classes();
        if labels.len() != count {
            return Err(Error::Tensor(format!("labels: {} elements, expected {count}", labels.len())));
        }
        if let Some((at, &label)) =
            labels.iter().enumerate().find(|&(_, &label)| usize::from(label) >= classes)
        {
            return Err(Error::Tensor(format!("label {label} of image {at} is not below {classes} classes")));
        }
        let loss = |logits: &[T], slopes: &mut [T]| cross_entropy(logits, labels, classes, slopes);
        self.gradient(params, images, mode, grad, loss)
    }

    /// Runs both directions; `slopes` reads the logits, writes its gradient by them, and gives the result.
    fn gradient(
        &mut self,
        params: &[T],
        images: &[T],
        mode: Mode,
        grad: &mut [T],
        slopes: impl FnOnce(&[T], &mut [T]) -> T,
    ) -> Result<T> {
        let count = self.check(params, images)?;
        if grad.len() != params.len() {
            return Err(Error::Tensor(format!(
                "gradient: {} elements, expected {}",
                grad.len(),
                params.len()
            )));
        }
        Ok(self.forward(params, images, count, mode, true, |batch, stages| {
            let result = slopes(batch.logits(), batch.logits_gradient());
            let grad = Shared::new(grad);
            for (number, stage) in batch.plan.backward.iter().enumerate() {
                stages.run(stage, batch, batch.plan.forward.len() + number);
                timed(batch.profile, Account::Joining, || batch.finish_backward(stage, grad));
            }
            result
        }))
    }
}

// One implementation for each type, not a generic one: the kernels behind it are then compiled once, in this crate, and
// not again in every crate that runs a network.
macro_rules! executor {
    ($real:ty) => {
        impl Executor<$real> for NativeExecutor<$real> {
            fn logits(&mut self, params: &[$real], images: &[$real], mode: Mode) -> Result<Vec<$real>> {
                self.run_forward(params, images, mode)
            }

            fn loss_and_gradient(
                &mut self,
                params: &[$real],
                images: &[$real],
                labels: &[u8],
                mode: Mode,
                grad: &mut [$real],
            ) -> Result<$real> {
                self.run_both(params, images, labels, mode, grad)
            }
        }
    };
}
executor!(f32);
executor!(f64);

/// Seed of the dropout masks, if any.
fn seed(mode: Mode) -> Option<u64> {
    match mode {
        Mode::Train { dropout_seed } => Some(dropout_seed),
        Mode::Evaluate | Mode::TrainWithoutDropout => None,
    }
}

/// Mean cross entropy; writes its gradient by the logits.
fn cross_entropy<T: Element>(logits: &[T], labels: &[u8], classes: usize, gradient: &mut [T]) -> T {
    let scale = 1.0 / labels.len() as f64;
    let mut loss = 0.0;
    let rows = logits.chunks_exact(classes).zip(gradient.chunks_exact_mut(classes));
    for ((row, gradient), &label) in rows.zip(labels) {
        let label = usize::from(label);
        let largest = row.iter().map(|x| x.double()).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x.double() - largest).exp()).sum();
        loss += sum.ln() + largest - row[label].double();
        for (class, (x, gradient)) in row.iter().zip(gradient).enumerate() {
            let target = if class == label { 1.0 } else { 0.0 };
            let slope = ((x.double() - largest).exp() / sum - target) * scale;
            // Slopes of saturated outputs would turn the whole backward pass into slow denormal arithmetic.
            let tiny = slope.abs() < T::min_positive_value().double() / T::epsilon().double();
            *gradient = if tiny { T::zero() } else { T::constant(slope) };
        }
    }
    T::constant(loss * scale)
}
