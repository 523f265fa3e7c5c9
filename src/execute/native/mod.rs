//! The native CPU executor: a static plan, channels-last buffers, own kernels, rayon over images.
//!
//! In: a [`Network`], flat parameters in PyTorch layouts, images `[N, C, H, W]`. Out: logits, or the loss and
//! the gradient of the parameters. Batches are cut into at most [`SHARDS`] parts whatever the number of
//! threads, and sums over parts are taken in their order, so results do not depend on the threads.

mod backward;
mod forward;
mod layer;
mod plan;
mod worker;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::layer::Layer;
use self::plan::{Plan, Stage};
use self::worker::{Batch, Memory, Scratch};
use super::{Executor, Mode, Real};
use crate::kernels::Element;
use crate::kernels::norm::EPSILON;
use crate::network::{Network, OpKind};
use crate::{Error, Result};

/// Parts of a batch that can run at the same time.
const SHARDS: usize = 16;

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
    network: Network,
    layers: Vec<Layer>,
    max_batch: usize,
    evaluate: Plan,
    train: Plan,
    memory: Memory<T>,
    scratch: Scratch<T>,
}

impl<T: Real + Element> NativeExecutor<T> {
    /// Prepares `network` for batches of up to `max_batch` images; memory is taken at the first run.
    pub fn new(network: &Network, max_batch: usize) -> Result<Self> {
        if max_batch == 0 {
            return Err(Error::Tensor("the largest batch must hold at least one image, found 0".into()));
        }
        let (layers, packed) = layer::prepare::<T>(network)?;
        let evaluate = Plan::new(network, &layers, false);
        let train = Plan::new(network, &layers, true);
        let scratch = Scratch::new(network, &layers);
        let memory = Memory::new(network, packed);
        Ok(Self { network: network.clone(), layers, max_batch, evaluate, train, memory, scratch })
    }

    /// Checks the arguments and returns the number of images.
    fn check(&self, params: &[T], images: &[T]) -> Result<usize> {
        let expected = self.network.n_params();
        if params.len() != expected {
            return Err(Error::Tensor(format!("parameters: {} elements, expected {expected}", params.len())));
        }
        let shape = self.network.input_shape();
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
        let node = self.network.ops.get(op)?;
        if !matches!(node.kind, OpKind::BatchNorm { .. }) {
            return None;
        }
        let (mean, inverse) = self.memory.statistics(op, node.shape[0]);
        let variance = |inverse: &T| (inverse.double().powi(-2) - EPSILON).max(0.0);
        Some([mean.iter().map(|mean| mean.double()).collect(), inverse.iter().map(variance).collect()])
    }

    /// Runs the forward stages; logits lie in the output's buffer afterwards.
    fn forward(
        &mut self,
        params: &[T],
        images: &[T],
        count: usize,
        seed: Option<u64>,
        training: bool,
    ) -> Vec<T> {
        let plan = if training { &self.train } else { &self.evaluate };
        self.memory.reserve(plan, self.max_batch);
        self.scratch.reserve(plan);
        self.memory.pack(&self.layers, params, training);
        let batch = Batch::new(
            &self.network,
            &self.layers,
            plan,
            &mut self.memory,
            params,
            images,
            count,
            self.max_batch,
            seed,
        );
        for stage in &plan.forward {
            run(stage, &batch, &self.scratch);
            batch.finish_forward(stage);
        }
        batch.logits()
    }
}

/// Runs a stage on all shards.
fn run<T: Element>(stage: &Stage, batch: &Batch<'_, T>, scratch: &Scratch<T>) {
    let size = batch.count.div_ceil(SHARDS);
    let shards = batch.count.div_ceil(size);
    (0..shards).into_par_iter().with_max_len(1).for_each(|shard| {
        let images = shard * size..((shard + 1) * size).min(batch.count);
        scratch.lend(|scratch| batch.run_shard(stage, shard, images, scratch));
    });
}

impl<T: Real + Element> Executor<T> for NativeExecutor<T> {
    fn logits(&mut self, params: &[T], images: &[T], mode: Mode) -> Result<Vec<T>> {
        let count = self.check(params, images)?;
        Ok(self.forward(params, images, count, seed(mode), false))
    }

    fn loss_and_gradient(
        &mut self,
        params: &[T],
        images: &[T],
        labels: &[u8],
        mode: Mode,
        grad: &mut [T],
    ) -> Result<T> {
        let count = self.check(params, images)?;
        let classes = self.network.num_classes();
        if labels.len() != count {
            return Err(Error::Tensor(format!("labels: {} elements, expected {count}", labels.len())));
        }
        if let Some((at, &label)) =
            labels.iter().enumerate().find(|&(_, &label)| usize::from(label) >= classes)
        {
            return Err(Error::Tensor(format!("label {label} of image {at} is not below {classes} classes")));
        }
        if grad.len() != params.len() {
            return Err(Error::Tensor(format!(
                "gradient: {} elements, expected {}",
                grad.len(),
                params.len()
            )));
        }
        let logits = self.forward(params, images, count, seed(mode), true);
        let (loss, dlogits) = cross_entropy(&logits, labels, classes);
        let batch = Batch::new(
            &self.network,
            &self.layers,
            &self.train,
            &mut self.memory,
            params,
            images,
            count,
            self.max_batch,
            seed(mode),
        );
        batch.set_logits_gradient(&dlogits);
        for stage in &self.train.backward {
            run(stage, &batch, &self.scratch);
            batch.finish_backward(stage, grad);
        }
        Ok(loss)
    }
}

/// Seed of the dropout masks, if any.
fn seed(mode: Mode) -> Option<u64> {
    match mode {
        Mode::Train { dropout_seed } => Some(dropout_seed),
        Mode::Evaluate | Mode::TrainWithoutDropout => None,
    }
}

/// Mean cross entropy and its gradient by the logits.
fn cross_entropy<T: Element>(logits: &[T], labels: &[u8], classes: usize) -> (T, Vec<T>) {
    let scale = 1.0 / labels.len() as f64;
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let label = usize::from(label);
        let largest = row.iter().map(|x| x.double()).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x.double() - largest).exp()).sum();
        loss += sum.ln() + largest - row[label].double();
        gradient.extend(row.iter().enumerate().map(|(class, x)| {
            let target = if class == label { 1.0 } else { 0.0 };
            let slope = ((x.double() - largest).exp() / sum - target) * scale;
            // Slopes of saturated outputs would turn the whole backward pass into slow denormal arithmetic.
            if slope.abs() < T::min_positive_value().double() / T::epsilon().double() {
                T::zero()
            } else {
                T::constant(slope)
            }
        }));
    }
    (T::constant(loss * scale), gradient)
}
