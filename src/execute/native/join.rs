//! Between stages: statistics of batch norms, and gradients of parameters, from what the workers left.

use rayon::prelude::*;

use super::layer::Layer;
use super::memory::Shared;
use super::plan::{Stage, Task};
use super::weights::{Join, sum_of_shards};
use super::worker::Batch;
use crate::kernels::{Element, norm};

impl<T: Element> Batch<'_, T> {
    /// Joins the moments that the stage left.
    pub(super) fn finish_forward(&self, stage: &Stage) {
        each(&stage.ends, true, |end| {
            let &Task::Moments { op, slot } = end else { return };
            let input = self.network.ops[op].inputs[0].0;
            let [channels, height, width] = self.network.ops[input].shape;
            // SAFETY: workers of the stage are done; each norm has its own ranges.
            let (moments, statistics) = unsafe {
                let moments = self.moments.slice(slot * self.count, 2 * channels * self.count);
                (moments, self.statistics.slice_mut(2 * self.channels[op], 2 * channels))
            };
            norm::join_moments(moments, height * width, statistics);
        });
    }

    /// Adds the gradients of the stage's parameters to `grad`.
    pub(super) fn finish_backward(&self, stage: &Stage, grad: Shared<'_, T>) {
        // Parameters that several ops read get several gradients.
        let apart = !self.plan.shares_params;
        each(&stage.ends, apart, |end| {
            if let &Task::Sums { op, slot } = end {
                self.finish_sums(op, slot, grad);
            }
        });
        let (_, shards) = self.shards(stage);
        each(&stage.joins, apart, |join| self.join(join, (shards, stage.partial), grad));
    }

    fn join(&self, join: &Join, (shards, distance): (usize, usize), grad: Shared<'_, T>) {
        let op = join.op;
        let [channels, height, width] = self.network.ops[op].shape;
        // SAFETY: workers of the stage are done; joins have ranges of their own, here and in the gradient.
        unsafe {
            let total = || sum_of_shards(self.partials, join.partial, join.len, shards, distance);
            match &self.layers[op] {
                Layer::Convolution(convolution) => {
                    convolution.join(join, self.partials, (shards, distance), grad);
                }
                &Layer::Norm { weight, bias } => {
                    let (dweight, dbias) = total().split_at(channels);
                    for (first, sums) in [(weight, dweight), (bias, dbias)] {
                        for (slot, &sum) in grad.slice_mut(first, channels).iter_mut().zip(sums) {
                            *slot += sum;
                        }
                    }
                }
                &Layer::Position { weight } => {
                    let (total, pixels) = (total(), height * width);
                    for (at, slot) in grad.slice_mut(weight, channels * pixels).iter_mut().enumerate() {
                        *slot += total[at % pixels * channels + at / pixels];
                    }
                }
                Layer::Plain => {}
            }
        }
    }

    /// Gradient of a batch norm's parameters, and the coefficients for its input.
    fn finish_sums(&self, op: usize, slot: usize, grad: Shared<'_, T>) {
        let &Layer::Norm { weight, bias } = &self.layers[op] else { return };
        let [channels, height, width] = self.network.ops[op].shape;
        let mut sums = vec![0.0; 2 * channels];
        // SAFETY: workers of the stage are done; each norm has its own ranges, here and in the gradient.
        let (coefficients, dweight, dbias) = unsafe {
            let images = self.moments.slice(slot * self.count, 2 * channels * self.count);
            for image in images.chunks_exact(2 * channels) {
                for (sum, value) in sums.iter_mut().zip(image) {
                    *sum += value.double();
                }
            }
            let coefficients = self.coefficients.slice_mut(3 * self.channels[op], 3 * channels);
            (coefficients, grad.slice_mut(weight, channels), grad.slice_mut(bias, channels))
        };
        for c in 0..channels {
            dbias[c] += T::constant(sums[c]);
            dweight[c] += T::constant(sums[channels + c]);
        }
        let count = self.count * height * width;
        let weight = &self.params[weight..weight + channels];
        norm::gradient_coefficients(&sums, self.statistics(op), weight, count, coefficients);
    }
}

/// Runs `work` on all items, in parallel when there are several and they are `apart`.
fn each<I: Sync>(items: &[I], apart: bool, work: impl Fn(&I) + Sync + Send) {
    if apart && items.len() > 1 {
        items.par_iter().for_each(work);
    } else {
        items.iter().for_each(work);
    }
}
