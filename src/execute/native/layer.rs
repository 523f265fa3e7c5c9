//! What an op needs besides its buffers: geometry, packed weights, shape checks. Made once per network.

use crate::Result;
use crate::kernels::Element;
use crate::kernels::convolution::{Fast, Filters, Packing, Plain, Spread, View};
use crate::kernels::depthwise::Sliding;
use crate::network::{Network, OpKind, OpNode, ParamId, Shape};

/// A convolution's geometry, forward and for the gradient of its input.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    /// One channel per group, in and out.
    pub depthwise: bool,
    /// A plain product of rows: pixels of several images can be joined.
    pub pointwise: bool,
    /// An algorithm that multiplies less, and the one for the gradient of the input.
    pub fast: Option<[Fast; 2]>,
    /// A depthwise convolution that needs no padded copies, and the one for the gradient of the input.
    pub sliding: Option<[Sliding; 2]>,
    pub spread: Spread,
    pub view: View,
    pub taps: Vec<usize>,
    /// Contiguous elements at a tap.
    pub depth: usize,
    pub packing: Packing,
    /// First packed weight.
    pub packed: usize,
    pub back_spread: Spread,
    pub back_view: View,
    pub back_taps: Vec<usize>,
    pub back_depth: usize,
    pub back_packing: Packing,
    pub back_packed: usize,
    /// First element and `[O, I/groups, kH, kW]` of the weight.
    pub weight: usize,
    pub shape: [usize; 4],
    pub groups: usize,
    /// First element of the bias of a linear layer.
    pub bias: Option<usize>,
}

impl Convolution {
    /// Rows of the weights: taps x input channels.
    pub fn rows(&self) -> usize {
        if self.depthwise {
            self.shape[2] * self.shape[3]
        } else {
            self.shape[2] * self.shape[3] * self.inputs()
        }
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.shape[1] * self.groups
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.shape[0]
    }

    /// Elements of the gradient of weights and bias as kernels accumulate it.
    pub fn gradient_len(&self) -> usize {
        self.rows() * self.outputs() + self.bias.map_or(0, |_| self.outputs())
    }

    /// Position in the weight tensor of `tap`, input channel, output channel; `None` across groups.
    #[inline]
    fn at(&self, tap: usize, input: usize, output: usize) -> Option<usize> {
        let [outputs, depth, height, width] = self.shape;
        let group = output / (outputs / self.groups);
        let within = input.checked_sub(group * depth)?;
        (within < depth).then(|| self.weight + (output * depth + within) * height * width + tap)
    }

    /// Packs the weights for the forward product and, if wanted, for the gradient of the input.
    pub fn pack<T: Element>(&self, params: &[T], packed: &mut [T], backward: bool) {
        let taps = self.shape[2] * self.shape[3];
        let (inputs, outputs) = (self.inputs(), self.outputs());
        if self.depthwise {
            let target = &mut packed[self.packed..self.packed + taps * outputs];
            for (c, weight) in
                params[self.weight..self.weight + taps * outputs].chunks_exact(taps).enumerate()
            {
                for (t, &weight) in weight.iter().enumerate() {
                    target[t * outputs + c] = weight;
                }
            }
            return;
        }
        if let Some([forward, back]) = &self.fast {
            let weight = &params[self.weight..self.weight + taps * inputs * outputs];
            let (near, far) = (taps, taps * inputs);
            let filters = Filters { weight, input: near, output: far, reversed: false };
            forward.pack(filters, &mut packed[self.packed..]);
            if backward {
                let filters = Filters { weight, input: far, output: near, reversed: true };
                back.pack(filters, &mut packed[self.back_packed..]);
            }
            return;
        }
        let weight = |at: Option<usize>| at.map_or(T::zero(), |at| params[at]);
        self.packing.pack(taps * inputs, outputs, &mut packed[self.packed..], |row, output| {
            weight(self.at(row / inputs, row % inputs, output))
        });
        if backward {
            self.back_packing.pack(taps * outputs, inputs, &mut packed[self.back_packed..], |row, input| {
                weight(self.at(taps - 1 - row / outputs, input, row % outputs))
            });
        }
    }

    /// Adds a gradient in the kernels' layout to the flat gradient.
    pub fn unpack_gradient<T: Element>(&self, partial: &[T], grad: &mut [T]) {
        let taps = self.shape[2] * self.shape[3];
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let (weights, bias) = partial.split_at(self.rows() * outputs);
        if self.depthwise {
            for (t, row) in weights.chunks_exact(outputs).enumerate() {
                for (c, &value) in row.iter().enumerate() {
                    grad[self.weight + c * taps + t] += value;
                }
            }
        } else {
            for (row, values) in weights.chunks_exact(outputs).enumerate() {
                for (output, &value) in values.iter().enumerate() {
                    if let Some(at) = self.at(row / inputs, row % inputs, output) {
                        grad[at] += value;
                    }
                }
            }
        }
        if let Some(first) = self.bias {
            for (grad, &value) in grad[first..first + outputs].iter_mut().zip(bias) {
                *grad += value;
            }
        }
    }
}

/// Prepared op.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    Convolution(Box<Convolution>),
    /// Batch or layer norm: first elements of weight and bias.
    Norm {
        weight: usize,
        bias: usize,
    },
    /// First element of the positional weight.
    Position {
        weight: usize,
    },
    Plain,
}

/// Checks the network and prepares its layers; also the number of packed elements.
pub(super) fn prepare<T: Element>(network: &Network) -> Result<(Vec<Layer>, usize)> {
    network.validate()?;
    let mut packed = 0;
    let layers = network.ops.iter().map(|op| layer::<T>(network, op, &mut packed)).collect();
    Ok((layers, packed))
}

fn layer<T: Element>(network: &Network, op: &OpNode, packed: &mut usize) -> Layer {
    let offset = |id: ParamId| network.params[id.0].offset;
    let input = |k: usize| network.ops[op.inputs[k].0].shape;
    match op.kind {
        OpKind::Conv { weight, stride, padding, dilation, groups } => {
            let shape = &network.params[weight.0].shape;
            let sizes = ([shape[0], shape[1], shape[2], shape[3]], groups);
            Layer::Convolution(Box::new(convolution::<T>(
                input(0),
                op.shape,
                sizes,
                stride,
                padding,
                dilation,
                offset(weight),
                None,
                packed,
            )))
        }
        OpKind::Linear { weight, bias } => {
            let sizes = ([op.shape[0], input(0)[0], 1, 1], 1);
            let (weight, bias) = (offset(weight), bias.map(offset));
            Layer::Convolution(Box::new(convolution::<T>(
                input(0),
                op.shape,
                sizes,
                [1, 1],
                [0, 0],
                1,
                weight,
                bias,
                packed,
            )))
        }
        OpKind::BatchNorm { weight, bias } | OpKind::LayerNorm { weight, bias } => {
            Layer::Norm { weight: offset(weight), bias: offset(bias) }
        }
        OpKind::PosEnc { weight } => Layer::Position { weight: offset(weight) },
        _ => Layer::Plain,
    }
}

#[allow(clippy::too_many_arguments)]
fn convolution<T: Element>(
    x: Shape,
    out: Shape,
    (shape, groups): ([usize; 4], usize),
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: usize,
    weight: usize,
    bias: Option<usize>,
    packed: &mut usize,
) -> Convolution {
    let [outputs, _, kh, kw] = shape;
    let inputs = x[0];
    let depthwise = groups == inputs && groups == outputs;
    let extent = [(kh - 1) * dilation, (kw - 1) * dilation];
    let size = [x[1], x[2]];
    let output = [out[1], out[2]];
    let pointwise = kh * kw == 1 && stride == [1, 1] && padding == [0, 0] && !depthwise;

    let spread = Spread {
        image: size,
        target: [size[0] + 2 * padding[0], size[1] + 2 * padding[1]],
        origin: [padding[0] as isize, padding[1] as isize],
        step: [1, 1],
        channels: inputs,
    };
    let row = spread.target[1] * inputs;
    let view = View { size: output, row: stride[0] * row, column: stride[1] * inputs };
    let back_spread = Spread {
        image: output,
        target: [size[0] + extent[0], size[1] + extent[1]],
        origin: [extent[0] as isize - padding[0] as isize, extent[1] as isize - padding[1] as isize],
        step: stride,
        channels: outputs,
    };
    let back_row = back_spread.target[1] * outputs;
    let back_view = View { size, row: back_row, column: outputs };

    // Taps of a kernel row are adjacent in memory unless dilated: they join into one deep tap.
    let joined = dilation == 1 && !depthwise;
    let taps = |row: usize, channels: usize| -> Vec<usize> {
        let columns = if joined { 1 } else { kw };
        (0..kh)
            .flat_map(|y| (0..columns).map(move |x| y * dilation * row + x * dilation * channels))
            .collect()
    };
    let depth = if joined { kw } else { 1 };
    let mut back_taps = taps(back_row, outputs);
    if depthwise {
        back_taps.reverse();
    }
    let packing = Packing::new::<T>(outputs);
    let back_packing = Packing::new::<T>(inputs);
    let first = *packed;
    let plain = Plain { kernel: [kh, kw], input: size, output, padding, inputs, outputs };
    let fast = if stride == [1, 1] && dilation == 1 && groups == 1 { Fast::new(plain) } else { None };
    let fast = fast.map(|forward| [forward, forward.back()]);
    let sliding = if depthwise && stride == [1, 1] {
        Sliding::new([kh, kw], dilation, size, output, padding, inputs)
            .map(|forward| [forward, forward.back()])
    } else {
        None
    };
    let (len, back_len) = match &fast {
        Some([forward, back]) => (forward.packed_len::<T>(), back.packed_len::<T>()),
        None if depthwise => (kh * kw * outputs, 0),
        None => (packing.len(kh * kw * inputs), back_packing.len(kh * kw * outputs)),
    };
    // Each starts at a cache line.
    let middle = first + len.next_multiple_of(16);
    *packed = middle + back_len.next_multiple_of(16);
    Convolution {
        depthwise,
        pointwise,
        fast,
        sliding,
        spread,
        view,
        taps: taps(row, inputs),
        depth: depth * inputs,
        packing,
        packed: first,
        back_spread,
        back_view,
        back_taps,
        back_depth: depth * outputs,
        back_packing,
        back_packed: middle,
        weight,
        shape,
        groups,
        bias,
    }
}
