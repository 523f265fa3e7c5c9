//! Weights between PyTorch's layout and the kernels': packing before a run, gradients back after each stage.
//!
//! Both are cut into pieces of bounded size that run in parallel. A piece owns its part of the target, so results
//! do not depend on who runs it.

use rayon::prelude::*;
use std::ops::Range;

use super::layer::{Convolution, Layer};
use super::memory::Shared;
use crate::kernels::convolution::{Filters, Packing};
use crate::kernels::{Element, activation};

/// Elements of a piece.
const PIECE: usize = 16 * 1024;

/// What a piece packs.
#[derive(Clone, Debug)]
enum Part {
    /// All weights of a depthwise convolution or of a transformed one.
    Whole,
    /// Blocks of output channels.
    Blocks(Range<usize>),
}

/// A part of a layer's packed weights.
#[derive(Clone, Debug)]
struct Piece {
    op: usize,
    /// None: for the result; else for this phase of the gradient of the input.
    phase: Option<usize>,
    part: Part,
}

/// How to pack all weights.
#[derive(Debug)]
pub(super) struct Packer {
    forward: Vec<Piece>,
    backward: Vec<Piece>,
}

impl Packer {
    pub(super) fn new(layers: &[Layer]) -> Self {
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        for (op, layer) in layers.iter().enumerate() {
            let Layer::Convolution(convolution) = layer else { continue };
            if convolution.depthwise || convolution.fast.is_some() {
                forward.push(Piece { op, phase: None, part: Part::Whole });
                let phases = if convolution.depthwise { convolution.phases.len() } else { 1 };
                backward.extend((0..phases).map(|phase| Piece { op, phase: Some(phase), part: Part::Whole }));
                continue;
            }
            let cut = |pieces: &mut Vec<Piece>, phase, packing: Packing, rows: usize| {
                let step = (PIECE / (rows * packing.width).max(1)).max(1);
                for first in (0..packing.blocks).step_by(step) {
                    let blocks = first..packing.blocks.min(first + step);
                    pieces.push(Piece { op, phase, part: Part::Blocks(blocks) });
                }
            };
            cut(&mut forward, None, convolution.packing, convolution.rows());
            for (phase, geometry) in convolution.phases.iter().enumerate() {
                let rows = geometry.order.len() * convolution.outputs();
                if rows > 0 {
                    cut(&mut backward, Some(phase), convolution.back_packing, rows);
                }
            }
        }
        Self { forward, backward }
    }

    /// Packs for the results and, if wanted, for the gradients of inputs.
    pub(super) fn run<T: Element>(&self, layers: &[Layer], params: &[T], packed: &mut [T], backward: bool) {
        let packed = Shared::new(packed);
        let run = |pieces: &[Piece]| {
            pieces.par_iter().for_each(|piece| {
                if let Layer::Convolution(convolution) = &layers[piece.op] {
                    piece.pack(convolution, params, packed);
                }
            });
        };
        run(&self.forward);
        if backward {
            run(&self.backward);
        }
    }
}

impl Piece {
    fn pack<T: Element>(&self, convolution: &Convolution, params: &[T], packed: Shared<'_, T>) {
        // SAFETY: pieces have ranges of their own, and nobody reads while they are packed.
        let target = |first: usize, len: usize| unsafe { packed.slice_mut(first, len) };
        let (taps, inputs, outputs) = (convolution.kernel(), convolution.inputs(), convolution.outputs());
        let Part::Blocks(blocks) = &self.part else {
            if convolution.depthwise {
                let transpose = |first: usize, order: &mut dyn Iterator<Item = usize>| {
                    for (row, tap) in order.enumerate() {
                        let weights = params[convolution.weight + tap..].iter().step_by(taps);
                        for (slot, &weight) in target(first + row * outputs, outputs).iter_mut().zip(weights)
                        {
                            *slot = weight;
                        }
                    }
                };
                match self.phase {
                    None => transpose(convolution.packed, &mut (0..taps)),
                    Some(phase) => {
                        let phase = &convolution.phases[phase];
                        transpose(phase.packed, &mut phase.order.iter().copied());
                    }
                }
            } else if let Some([forward, back]) = &convolution.fast {
                let weight = &params[convolution.weight..convolution.weight + taps * inputs * outputs];
                let (near, far) = (taps, taps * inputs);
                if self.phase.is_none() {
                    let filters = Filters { weight, input: near, output: far, reversed: false };
                    forward.pack(filters, target(convolution.packed, forward.packed_len::<T>()));
                } else {
                    let filters = Filters { weight, input: far, output: near, reversed: true };
                    back.pack(filters, target(convolution.back_packed, back.packed_len::<T>()));
                }
            }
            return;
        };
        let (packing, first) = match self.phase {
            None => (convolution.packing, convolution.packed),
            Some(phase) => (convolution.back_packing, convolution.phases[phase].packed),
        };
        let order: Option<&[usize]> = self.phase.map(|phase| convolution.phases[phase].order.as_slice());
        let rows = order.map_or(taps, <[usize]>::len) * if self.phase.is_none() { inputs } else { outputs };
        let len = rows * packing.width;
        for block in blocks.clone() {
            let target = target(first + block * len, len);
            let first = block * packing.width;
            match order {
                _ if convolution.groups > 1 => convolution.pack_groups(params, target, first, order),
                None => {
                    let source = &params[convolution.weight..][..outputs * inputs * taps];
                    let columns = Strided { first, count: outputs, stride: inputs * taps };
                    pack_block(source, columns, (inputs, taps), 0..taps, packing.width, target);
                }
                Some(order) => {
                    let source = &params[convolution.weight..][..outputs * inputs * taps];
                    let columns = Strided { first, count: inputs, stride: taps };
                    let rows = (outputs, inputs * taps);
                    pack_block(source, columns, rows, order.iter().copied(), packing.width, target);
                }
            }
        }
    }
}

/// The columns of a block: channels from `first` on, of `count` in all, `stride` elements apart.
struct Strided {
    first: usize,
    count: usize,
    stride: usize,
}

/// Packs one block `[taps, rows, width]`; `rows` are their number and distance.
fn pack_block<T: Element>(
    source: &[T],
    columns: Strided,
    (rows, distance): (usize, usize),
    taps: impl Iterator<Item = usize> + Clone,
    width: usize,
    target: &mut [T],
) {
    let count = (columns.count - columns.first).min(width);
    for row in 0..rows {
        for (t, tap) in taps.clone().enumerate() {
            let target = &mut target[(t * rows + row) * width..][..width];
            let weights = source[row * distance + columns.first * columns.stride + tap..].iter();
            for (slot, &weight) in target[..count].iter_mut().zip(weights.step_by(columns.stride)) {
                *slot = weight;
            }
            target[count..].fill(T::zero());
        }
    }
}

/// Gradients of a stage's parameters that one worker adds up and writes.
#[derive(Clone, Debug)]
pub(super) struct Join {
    /// Op with the parameters.
    pub op: usize,
    /// First element of the op in a shard's gradients, and their number.
    pub partial: usize,
    pub len: usize,
    /// Input channels; all of them for what is not a dense convolution.
    pub channels: Range<usize>,
}

impl Join {
    /// Cuts the gradients of an op.
    pub(super) fn cut(op: usize, partial: usize, len: usize, layer: &Layer) -> Vec<Join> {
        let whole = |channels| Join { op, partial, len, channels };
        match layer {
            Layer::Convolution(convolution) if convolution.is_dense() => {
                let inputs = convolution.inputs();
                let row = convolution.kernel() * convolution.outputs();
                let step = (PIECE / row.max(1)).clamp(1, inputs);
                (0..inputs).step_by(step).map(|first| whole(first..inputs.min(first + step))).collect()
            }
            _ => vec![whole(0..1)],
        }
    }
}

impl Convolution {
    /// Every input meets every output.
    fn is_dense(&self) -> bool {
        self.groups == 1 && !self.depthwise
    }

    /// Position in the weight tensor of `tap`, input channel, output channel; `None` across groups.
    fn at(&self, tap: usize, input: usize, output: usize) -> Option<usize> {
        let [outputs, depth, height, width] = self.shape;
        let group = output / (outputs / self.groups);
        let within = input.checked_sub(group * depth)?;
        (within < depth).then(|| self.weight + (output * depth + within) * height * width + tap)
    }

    /// Packs one block of a convolution in groups as a dense one with zeros across groups.
    fn pack_groups<T: Element>(&self, params: &[T], target: &mut [T], first: usize, order: Option<&[usize]>) {
        let (packing, from, to) = match order {
            None => (self.packing, self.inputs(), self.outputs()),
            Some(_) => (self.back_packing, self.outputs(), self.inputs()),
        };
        for (row, slots) in target.chunks_exact_mut(packing.width).enumerate() {
            let (tap, channel) = (row / from, row % from);
            for (j, slot) in slots.iter_mut().enumerate() {
                let at = match order {
                    _ if first + j >= to => None,
                    None => self.at(tap, channel, first + j),
                    Some(order) => self.at(order[tap], first + j, channel),
                };
                *slot = at.map_or(T::zero(), |at| params[at]);
            }
        }
    }

    /// Adds up the shards' gradients of some input channels and writes them to the flat gradient.
    ///
    /// # Safety
    /// Nobody else touches these channels of `partials` and of `grad`.
    pub(super) unsafe fn join<T: Element>(
        &self,
        join: &Join,
        partials: Shared<'_, T>,
        (shards, distance): (usize, usize),
        grad: Shared<'_, T>,
    ) {
        // SAFETY: the caller's.
        let total = |first: usize, len: usize| unsafe {
            sum_of_shards(partials, join.partial + first, len, shards, distance)
        };
        let (taps, inputs, outputs) = (self.kernel(), self.inputs(), self.outputs());
        // SAFETY: the caller's; each target is touched once.
        let target = |first: usize, len: usize| unsafe { grad.slice_mut(first, len) };
        if self.is_dense() {
            let channels = join.channels.clone();
            let count = channels.len();
            for tap in 0..taps {
                total((tap * inputs + channels.start) * outputs, count * outputs);
            }
            for output in 0..outputs {
                let first = self.weight + (output * inputs + channels.start) * taps;
                for (c, slots) in target(first, count * taps).chunks_exact_mut(taps).enumerate() {
                    let row = join.partial + (channels.start + c) * outputs + output;
                    for (tap, slot) in slots.iter_mut().enumerate() {
                        // SAFETY: the caller's.
                        *slot += unsafe { partials.get(row + tap * inputs * outputs) };
                    }
                }
            }
        } else if self.depthwise {
            let sums = total(0, taps * outputs);
            for (c, slots) in target(self.weight, taps * outputs).chunks_exact_mut(taps).enumerate() {
                for (tap, slot) in slots.iter_mut().enumerate() {
                    *slot += sums[tap * outputs + c];
                }
            }
        } else {
            let sums = total(0, self.rows() * outputs);
            for (row, sums) in sums.chunks_exact(outputs).enumerate() {
                for (output, &sum) in sums.iter().enumerate() {
                    if let Some(at) = self.at(row / inputs, row % inputs, output) {
                        target(at, 1)[0] += sum;
                    }
                }
            }
        }
        if let Some(first) = self.bias
            && join.channels.start == 0
        {
            let sums = total(self.rows() * outputs, outputs);
            activation::copy(sums, target(first, outputs), true);
        }
    }
}

/// Adds the same range of all shards, in their order, to that of the first.
///
/// # Safety
/// Nobody else touches the range.
pub(super) unsafe fn sum_of_shards<'a, T: Element>(
    partials: Shared<'a, T>,
    first: usize,
    len: usize,
    shards: usize,
    distance: usize,
) -> &'a [T] {
    // SAFETY: the caller's; ranges of different shards are disjoint.
    unsafe {
        let sums = partials.slice_mut(first, len);
        for shard in 1..shards {
            activation::copy(partials.slice(shard * distance + first, len), sums, true);
        }
        sums
    }
}
