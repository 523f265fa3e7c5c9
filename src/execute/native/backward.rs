//! Gradients of ops for one chunk of images.

use super::forward::spread;
use super::layer::{Convolution, Layer, Phase};
use super::worker::Chunk;
use crate::kernels::Element;
use crate::kernels::activation::{self, Activation};
use crate::kernels::arrangement::{self, Pick};
use crate::kernels::convolution::{Product, View, WeightGradient};
use crate::kernels::depthwise::{Depthwise, DepthwiseGradient};
use crate::kernels::{fused, norm};
use crate::network::OpKind;

impl<T: Element> Chunk<'_, '_, T> {
    /// Sums that the gradient of a batch norm needs.
    pub(super) fn sums(&mut self, op: usize, slot: usize) {
        let batch = self.batch;
        let input = batch.network.ops[op].inputs[0].0;
        let numel = batch.numel(op);
        let len = 2 * batch.network.ops[op].shape[0];
        let images = self.value(input).chunks_exact(numel).zip(self.gradient(op).chunks_exact(numel));
        for (image, (x, dy)) in images.enumerate() {
            let sums = self.moments_mut(slot, len, image);
            match batch.norm_map(op) {
                Some(map) if batch.marks[op].relu => {
                    let map = map.affine(&mut self.scratch[..len / 2]);
                    fused::relu_gradient_sums(map, x, dy, batch.statistics(op), sums);
                }
                _ => norm::gradient_sums(x, dy, batch.statistics(op), sums),
            }
        }
    }

    /// Computes the gradients of the inputs and parameters of `op`.
    pub(super) fn backward(&mut self, op: usize, accumulate: &[Option<bool>], partial: usize) {
        let batch = self.batch;
        let node = &batch.network.ops[op];
        let numel = batch.numel(op);
        let dy = self.gradient(op);
        let input = |k: usize| node.inputs[k].0;
        // Ops with parameters but no input to go on to.
        let first = accumulate.first().copied().flatten();
        match node.kind {
            OpKind::Conv { .. } | OpKind::Linear { .. } => {
                if let Layer::Convolution(convolution) = &batch.layers[op] {
                    let dx = first.map(|accumulate| (self.gradient_mut(input(0)), accumulate));
                    let gradient = self.partial_mut(partial, convolution.gradient_len());
                    self.convolve_back(convolution, self.value(input(0)), dy, dx, gradient);
                }
                return;
            }
            OpKind::LayerNorm { .. } => {
                let &Layer::Norm { weight, .. } = &batch.layers[op] else { return };
                let weight = &batch.params[weight..weight + node.shape[0]];
                let dx = first.map(|accumulate| (self.gradient_mut(input(0)), accumulate));
                let parameters = self.partial_mut(partial, 2 * node.shape[0]);
                norm::layer_norm_gradient(self.value(input(0)), weight, dy, parameters, dx);
                return;
            }
            OpKind::PosEnc { .. } => {
                let weight = self.partial_mut(partial, numel);
                for dy in dy.chunks_exact(numel) {
                    activation::copy(dy, weight, true);
                }
            }
            _ => {}
        }
        for (k, accumulate) in accumulate.iter().enumerate() {
            if let &Some(accumulate) = accumulate {
                self.input_gradient(op, k, accumulate, dy);
            }
        }
    }

    /// Gradient by input `k` of an op that is no convolution.
    fn input_gradient(&mut self, op: usize, k: usize, accumulate: bool, dy: &[T]) {
        let batch = self.batch;
        let node = &batch.network.ops[op];
        let input = node.inputs[k].0;
        let numel = batch.numel(op);
        let dx = self.gradient_mut(input);
        let input_len = batch.numel(input);
        let pairs = |dx, work: &mut dyn FnMut(&[T], &mut [T])| {
            let dx: &mut [T] = dx;
            for (dy, dx) in dy.chunks_exact(numel).zip(dx.chunks_exact_mut(input_len)) {
                work(dy, dx);
            }
        };
        // These scatter into pixels, some of which nothing may reach.
        let scatters = matches!(
            node.kind,
            OpKind::MaxPool { .. } | OpKind::AvgPool { .. } | OpKind::Subsample { .. } | OpKind::Crop
        );
        if scatters && !accumulate {
            dx.fill(T::zero());
        }
        match node.kind {
            OpKind::BatchNorm { .. } => {
                let (statistics, coefficients) = (batch.statistics(op), batch.coefficients(op));
                let x = self.value(input);
                match batch.norm_map(op) {
                    Some(map) if batch.marks[op].relu => {
                        let map = map.affine(&mut self.scratch[..node.shape[0]]);
                        fused::relu_gradient(map, x, dy, coefficients, dx, accumulate);
                    }
                    _ => norm::normalise_gradient(x, dy, statistics, coefficients, dx, accumulate),
                }
            }
            OpKind::Relu => {
                // Both have the sign.
                let known = if batch.plan.again[op] { input } else { op };
                Activation::Relu.gradient(self.value(known), dy, dx, accumulate);
            }
            OpKind::Gelu => Activation::Gelu.gradient(self.value(input), dy, dx, accumulate),
            OpKind::HardSwish => Activation::HardSwish.gradient(self.value(input), dy, dx, accumulate),
            OpKind::MaxPool { kernel, stride, padding } => {
                let pool = self.pool(op, kernel, stride, padding);
                let values =
                    self.value(input).chunks_exact(input_len).zip(self.value(op).chunks_exact(numel));
                let gradients = dy.chunks_exact(numel).zip(dx.chunks_exact_mut(input_len));
                for ((x, y), (dy, dx)) in values.zip(gradients) {
                    pool.max_gradient(x, y, dy, dx);
                }
            }
            OpKind::AvgPool { kernel, stride, padding } => {
                let pool = self.pool(op, kernel, stride, padding);
                pairs(dx, &mut |dy, dx| pool.average_gradient(dy, dx));
            }
            OpKind::GlobalAvgPool | OpKind::SqueezeMean => {
                pairs(dx, &mut |dy, dx| arrangement::mean_rows_gradient(dy, dx, accumulate));
            }
            OpKind::Excite => {
                let other = self.value(node.inputs[1 - k].0).chunks_exact(batch.numel(node.inputs[1 - k].0));
                let gradients = dy.chunks_exact(numel).zip(dx.chunks_exact_mut(input_len));
                for (other, (dy, dx)) in other.zip(gradients) {
                    if k == 0 {
                        arrangement::excite(dy, other, dx, accumulate);
                    } else {
                        arrangement::excite_gate_gradient(other, dy, dx, accumulate);
                    }
                }
            }
            OpKind::Attention { heads, head_dim } => {
                let attention = self.attention(op, heads, head_dim);
                let (x, y) = (self.value(input), self.value(op));
                let sums = self.sums_of(op, attention.sums_len());
                let (result, scratch) = self.scratch.split_at_mut(input_len);
                for (image, dx) in dx.chunks_exact_mut(input_len).enumerate() {
                    let x = &x[image * input_len..][..input_len];
                    let [y, dy] = [y, dy].map(|values| &values[image * numel..][..numel]);
                    let sums = &sums[image * attention.sums_len()..][..attention.sums_len()];
                    attention.gradient(x, [y, dy], sums, result, scratch);
                    activation::copy(result, dx, accumulate);
                }
            }
            OpKind::Add | OpKind::PosEnc { .. } => activation::copy(dy, dx, accumulate),
            OpKind::Concat => self.blocks(op)[k].1.gather(dy, dx, accumulate),
            OpKind::Subsample { stride } => {
                let pick = self.pick(op, 0, stride);
                pairs(dx, &mut |dy, dx| pick.gradient(dy, dx));
            }
            OpKind::Crop => {
                let pick = self.pick(op, 1, 1);
                pairs(dx, &mut |dy, dx| pick.gradient(dy, dx));
            }
            OpKind::Flatten => {
                let channels = batch.network.ops[input].shape[0];
                let pixels = input_len / channels;
                pairs(dx, &mut |dy, dx| arrangement::transpose(dy, pixels, dx, accumulate));
            }
            OpKind::Dropout { p } => match batch.seed {
                None => activation::copy(dy, dx, accumulate),
                Some(seed) => {
                    let (first, stream) = ((self.first * numel) as u64, batch.marks[op].origin as u64);
                    for (i, (dx, &dy)) in dx.iter_mut().zip(dy).enumerate() {
                        let factor = arrangement::dropout_factor::<T>(seed, stream, first + i as u64, p);
                        *dx = if accumulate { *dx + dy * factor } else { dy * factor };
                    }
                }
            },
            // Without inputs that have gradients, or done by the caller.
            OpKind::Input
            | OpKind::Zeros
            | OpKind::Conv { .. }
            | OpKind::Linear { .. }
            | OpKind::LayerNorm { .. } => {}
        }
    }

    fn convolve_back(
        &mut self,
        convolution: &Convolution,
        x: &[T],
        dy: &[T],
        mut dx: Option<(&mut [T], bool)>,
        gradient: &mut [T],
    ) {
        let outputs = convolution.outputs();
        let inputs = convolution.inputs();
        let (weights, bias) = gradient.split_at_mut(convolution.rows() * outputs);
        if convolution.bias.is_some() {
            arrangement::add_row_sums(dy, bias);
        }
        let (input_len, output_len) = (convolution.input_len(), convolution.output_len());
        let (taps, depth) = (&convolution.taps, convolution.depth);
        let weight_gradient = |x: &[T], view: View, dy: &[T], gradient: &mut [T]| {
            let accumulate = true;
            WeightGradient { x, view, taps, depth, dy, stride: outputs, outputs, gradient, accumulate }.run();
        };
        if let Some([fast, back]) = &convolution.fast {
            fast.gradient(self.count, x, dy, weights, self.scratch);
            if let Some((dx, accumulate)) = &mut dx {
                let packed = &self.batch.packed[convolution.back_packed..];
                back.run(self.count, dy, packed, dx, *accumulate, self.scratch);
            }
            return;
        }
        if convolution.pointwise {
            let view = View::matrix(x.len() / inputs, inputs);
            weight_gradient(x, view, dy, weights);
        } else {
            for (x, dy) in x.chunks_exact(input_len).zip(dy.chunks_exact(output_len)) {
                if let Some([sliding, _]) = &convolution.sliding {
                    sliding.gradient(x, dy, weights);
                    continue;
                }
                let x = &spread(&convolution.spread, x, self.scratch)[convolution.start..];
                let view = convolution.view;
                if convolution.depthwise {
                    DepthwiseGradient { x, view, taps, channels: outputs, dy, gradient: weights }.run();
                } else {
                    weight_gradient(x, view, dy, weights);
                }
            }
        }
        let Some((dx, accumulate)) = dx else { return };
        if convolution.pointwise {
            let view = View::matrix(dy.len() / outputs, outputs);
            back_product(self.batch.packed, convolution, &convolution.phases[0], dy, view, dx, accumulate);
            return;
        }
        for (dy, dx) in dy.chunks_exact(output_len).zip(dx.chunks_exact_mut(input_len)) {
            if let Some([_, back]) = &convolution.sliding {
                let weight = &self.batch.packed[convolution.packed..];
                back.run(dy, weight, true, dx, accumulate);
                continue;
            }
            self.input_image_gradient(convolution, dy, dx, accumulate);
        }
    }

    /// Gradient of one input image, phase by phase.
    fn input_image_gradient(&mut self, convolution: &Convolution, dy: &[T], dx: &mut [T], accumulate: bool) {
        let inputs = convolution.inputs();
        let room = convolution.back_spread.len();
        let (copy, result) = self.scratch.split_at_mut(room);
        let x = spread(&convolution.back_spread, dy, copy);
        if let [phase] = convolution.phases.as_slice() {
            back_product(self.batch.packed, convolution, phase, x, phase.view, dx, accumulate);
            return;
        }
        let width = convolution.spread.image[1];
        let clear = !accumulate && convolution.phases.iter().any(|phase| phase.order.is_empty());
        if clear {
            dx.fill(T::zero());
        }
        for phase in &convolution.phases {
            let part = Pick {
                input_width: width,
                output: phase.view.size,
                origin: phase.origin,
                step: phase.step,
                channels: inputs,
            };
            if phase.order.is_empty() {
                continue;
            }
            let result = &mut result[..phase.view.pixels() * inputs];
            back_product(self.batch.packed, convolution, phase, x, phase.view, result, false);
            part.scatter(result, dx, accumulate);
        }
    }
}

/// One phase of the gradient of the input.
fn back_product<T: Element>(
    packed: &[T],
    convolution: &Convolution,
    phase: &Phase,
    x: &[T],
    view: View,
    y: &mut [T],
    accumulate: bool,
) {
    let (taps, depth) = (&phase.taps, phase.depth);
    let weight = &packed[phase.packed..];
    let (packing, outputs) = (convolution.back_packing, convolution.inputs());
    if convolution.depthwise {
        Depthwise { x, view, taps, channels: outputs, weight, y, accumulate }.run();
    } else {
        Product { x, view, taps, depth, weight, packing, outputs, y, accumulate }.run();
    }
}
