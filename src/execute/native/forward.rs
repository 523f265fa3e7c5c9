//! Outputs of ops for one chunk of images.

use super::layer::{Convolution, Layer};
use super::worker::{Chunk, NormMap};
use crate::kernels::Element;
use crate::kernels::activation::Activation;
use crate::kernels::arrangement::{self, Columns, Pick};
use crate::kernels::attention::Attention;
use crate::kernels::convolution::{Product, View};
use crate::kernels::depthwise::Depthwise;
use crate::kernels::fused::{self, Affine};
use crate::kernels::norm;
use crate::kernels::pool::Pool;
use crate::network::OpKind;

impl<'b, T: Element> Chunk<'_, 'b, T> {
    /// Moments of the input of a batch norm.
    pub(super) fn moments(&mut self, op: usize, slot: usize) {
        let input = self.batch.network.ops[op].inputs[0].0;
        let len = 2 * self.batch.network.ops[op].shape[0];
        for (image, x) in self.value(input).chunks_exact(self.batch.numel(input)).enumerate() {
            norm::moments(x, self.moments_mut(slot, len, image));
        }
    }

    /// Geometry of a pooling op.
    pub(super) fn pool(&self, op: usize, kernel: usize, stride: usize, padding: usize) -> Pool {
        let [channels, height, width] = self.batch.network.ops[op].shape;
        let [_, rows, columns] = self.batch.network.ops[self.batch.network.ops[op].inputs[0].0].shape;
        Pool { kernel, stride, padding, input: [rows, columns], output: [height, width], channels }
    }

    /// Geometry of a subsampling or cropping op.
    pub(super) fn pick(&self, op: usize, origin: usize, step: usize) -> Pick {
        let [channels, height, width] = self.batch.network.ops[op].shape;
        let input_width = self.batch.network.ops[self.batch.network.ops[op].inputs[0].0].shape[2];
        Pick { input_width, output: [height, width], origin: [origin; 2], step: [step; 2], channels }
    }

    /// Geometry of an attention op.
    pub(super) fn attention(&self, op: usize, heads: usize, width: usize) -> Attention {
        let [_, rows, columns] = self.batch.network.ops[op].shape;
        Attention { tokens: rows * columns, heads, width }
    }

    /// The block of each input in a concatenation's rows.
    pub(super) fn blocks(&self, op: usize) -> Vec<(usize, Columns)> {
        let ops = &self.batch.network.ops;
        let [width, rows, columns] = ops[op].shape;
        let mut first = 0;
        let mut blocks = Vec::with_capacity(ops[op].inputs.len());
        for input in &ops[op].inputs {
            let count = ops[input.0].shape[0];
            blocks.push((input.0, Columns { rows: rows * columns * self.count, count, width, first }));
            first += count;
        }
        blocks
    }

    /// Computes the output of `op`.
    pub(super) fn forward(&mut self, op: usize) {
        let batch = self.batch;
        let node = &batch.network.ops[op];
        let numel = batch.numel(op);
        let y = self.value_mut(op);
        let input = |k: usize| node.inputs[k].0;
        match node.kind {
            OpKind::Input => {
                let pixels = node.shape[1] * node.shape[2];
                let images = &batch.images[self.first * numel..(self.first + self.count) * numel];
                for (image, y) in images.chunks_exact(numel).zip(y.chunks_exact_mut(numel)) {
                    arrangement::transpose(image, pixels, y, false);
                }
            }
            OpKind::Conv { .. } | OpKind::Linear { .. } => {
                if let Layer::Convolution(convolution) = &batch.layers[op] {
                    self.convolve(convolution, self.value(input(0)), y);
                }
            }
            OpKind::BatchNorm { .. } | OpKind::LayerNorm { .. } => {
                let &Layer::Norm { weight, bias } = &batch.layers[op] else { return };
                let channels = node.shape[0];
                let weight = &batch.params[weight..weight + channels];
                let bias = &batch.params[bias..bias + channels];
                let x = self.value(input(0));
                if matches!(node.kind, OpKind::LayerNorm { .. }) {
                    norm::layer_norm(x, weight, bias, y);
                } else if batch.marks[op].relu {
                    let map = Affine::new(batch.statistics(op), weight, bias, &mut self.scratch[..channels]);
                    fused::relu_of(map, x, y);
                } else {
                    norm::normalise(x, batch.statistics(op), weight, bias, self.scratch, y);
                }
            }
            OpKind::Relu => Activation::Relu.run(self.value(input(0)), y),
            OpKind::Gelu => Activation::Gelu.run(self.value(input(0)), y),
            OpKind::HardSwish => Activation::HardSwish.run(self.value(input(0)), y),
            OpKind::MaxPool { kernel, stride, padding } => {
                let pool = self.pool(op, kernel, stride, padding);
                self.each(input(0), op, |x, y| pool.max(x, y));
            }
            OpKind::AvgPool { kernel, stride, padding } => {
                let pool = self.pool(op, kernel, stride, padding);
                self.each(input(0), op, |x, y| pool.average(x, y));
            }
            OpKind::GlobalAvgPool | OpKind::SqueezeMean => self.each(input(0), op, arrangement::mean_rows),
            OpKind::Excite => {
                let gates = self.value(input(1)).chunks_exact(node.shape[0]);
                let images = self.value(input(0)).chunks_exact(numel).zip(y.chunks_exact_mut(numel));
                for ((x, y), gate) in images.zip(gates) {
                    arrangement::excite(x, gate, y, false);
                }
            }
            OpKind::Attention { heads, head_dim } => {
                let attention = self.attention(op, heads, head_dim);
                let images = self.value(input(0)).chunks_exact(3 * numel);
                let mut sums = self.sums_of(op, attention.sums_len());
                for (x, y) in images.zip(y.chunks_exact_mut(numel)) {
                    let kept = attention.sums_len().min(sums.len());
                    let (own, rest) = std::mem::take(&mut sums).split_at_mut(kept);
                    sums = rest;
                    attention.run(x, y, own, self.scratch);
                }
            }
            OpKind::PosEnc { .. } => {
                let &Layer::Position { weight } = &batch.layers[op] else { return };
                let weight = &batch.params[weight..weight + numel];
                let pixels = node.shape[1] * node.shape[2];
                y.copy_from_slice(self.value(input(0)));
                for y in y.chunks_exact_mut(numel) {
                    arrangement::transpose(weight, pixels, y, true);
                }
            }
            OpKind::Add => {
                let (a, b) = (self.summand(input(0)), self.summand(input(1)));
                let (first, second) = self.scratch.split_at_mut(node.shape[0]);
                let a = (a.1.map(|map| map.affine(first)), a.0);
                let b = (b.1.map(|map| map.affine(&mut second[..node.shape[0]])), b.0);
                fused::sum_of(a, b, y);
            }
            OpKind::Concat => {
                for (input, columns) in self.blocks(op) {
                    columns.scatter(self.value(input), y);
                }
            }
            OpKind::Zeros => y.fill(T::zero()),
            OpKind::Subsample { stride } => {
                let pick = self.pick(op, 0, stride);
                self.each(input(0), op, |x, y| pick.run(x, y));
            }
            OpKind::Crop => {
                let pick = self.pick(op, 1, 1);
                self.each(input(0), op, |x, y| pick.run(x, y));
            }
            OpKind::Flatten => {
                let channels = batch.network.ops[input(0)].shape[0];
                self.each(input(0), op, |x, y| arrangement::transpose(x, channels, y, false));
            }
            OpKind::Dropout { p } => {
                let x = self.value(input(0));
                match batch.seed {
                    None => y.copy_from_slice(x),
                    Some(seed) => {
                        let first = (self.first * numel) as u64;
                        for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                            let factor = arrangement::dropout_factor::<T>(
                                seed,
                                batch.marks[op].origin as u64,
                                first + i as u64,
                                p,
                            );
                            *y = x * factor;
                        }
                    }
                }
            }
        }
    }

    /// What a sum reads for its input: the input, or what its batch norm reads.
    fn summand(&self, input: usize) -> (&'b [T], Option<NormMap<'b, T>>) {
        if !self.batch.marks[input].within_sum {
            return (self.value(input), None);
        }
        (self.value(self.batch.network.ops[input].inputs[0].0), self.batch.norm_map(input))
    }

    /// Runs `work` on the input and output of each image.
    fn each(&self, input: usize, op: usize, work: impl Fn(&[T], &mut [T])) {
        let images = self.value(input).chunks_exact(self.batch.numel(input));
        for (x, y) in images.zip(self.value_mut(op).chunks_exact_mut(self.batch.numel(op))) {
            work(x, y);
        }
    }

    fn convolve(&mut self, convolution: &Convolution, x: &[T], y: &mut [T]) {
        let packed = &self.batch.packed[convolution.packed..];
        let outputs = convolution.outputs();
        let product = |x: &[T], view: View, y: &mut [T]| {
            Product {
                x,
                view,
                taps: &convolution.taps,
                depth: convolution.depth,
                weight: packed,
                packing: convolution.packing,
                outputs,
                y,
                accumulate: false,
            }
            .run();
        };
        if let Some([fast, _]) = &convolution.fast {
            fast.run(self.count, x, packed, y, false, self.scratch);
        } else if convolution.pointwise {
            product(x, View::matrix(x.len() / convolution.depth, convolution.depth), y);
        } else {
            let images = x.chunks_exact(convolution.input_len());
            for (x, y) in images.zip(y.chunks_exact_mut(convolution.output_len())) {
                if let Some([sliding, _]) = &convolution.sliding {
                    sliding.run(x, packed, false, y, false);
                    continue;
                }
                let x = &spread(&convolution.spread, x, self.scratch)[convolution.start..];
                if convolution.depthwise {
                    let (view, taps) = (convolution.view, &convolution.taps);
                    Depthwise { x, view, taps, channels: outputs, weight: packed, y, accumulate: false }
                        .run();
                } else {
                    product(x, convolution.view, y);
                }
            }
        }
        if let Some(first) = convolution.bias {
            let bias = &self.batch.params[first..first + outputs];
            arrangement::add_to_rows(bias, y);
        }
    }
}

/// The image as convolution kernels read it: itself, or spread into `scratch`.
pub(super) fn spread<'s, T: Element>(
    spread: &crate::kernels::convolution::Spread,
    image: &'s [T],
    scratch: &'s mut [T],
) -> &'s [T] {
    if spread.is_identity() {
        return image;
    }
    spread.run(image, scratch);
    &scratch[..spread.len()]
}
