//! What an op needs besides its buffers: geometry, packed weights, shape checks. Made once per network.

use crate::kernels::Element;
use crate::kernels::convolution::{Packing, Spread, View};
use crate::network::{Network, OpKind, OpNode, ParamId, Shape};
use crate::{Error, Result};

/// A convolution's geometry, forward and for the gradient of its input.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    /// One channel per group, in and out.
    pub depthwise: bool,
    /// A plain product of rows: pixels of several images can be joined.
    pub pointwise: bool,
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
    if network.ops.is_empty() {
        return Err(Error::Tensor("a network without ops cannot run".into()));
    }
    let mut packed = 0;
    let mut layers = Vec::with_capacity(network.ops.len());
    for (index, op) in network.ops.iter().enumerate() {
        let fail = |reason: String| Error::Tensor(format!("op {index} ({:?}): {reason}", op.kind));
        let mut inputs = Vec::with_capacity(op.inputs.len());
        for input in &op.inputs {
            if input.0 >= index {
                return Err(fail(format!("input {} does not precede it", input.0)));
            }
            inputs.push(network.ops[input.0].shape);
        }
        check_shape(op, &inputs).map_err(fail)?;
        layers.push(layer::<T>(network, op, &inputs, &mut packed).map_err(fail)?);
    }
    if let Some(index) = network.ops.iter().skip(1).position(|op| op.kind == OpKind::Input) {
        return Err(Error::Tensor(format!("op {} is a second input", index + 1)));
    }
    if network.ops[0].kind != OpKind::Input {
        return Err(Error::Tensor("the first op is not the input".into()));
    }
    if let Some(last) = network.ops.last().filter(|op| op.shape[1..] != [1, 1] || op.shape[0] == 0) {
        return Err(Error::Tensor(format!(
            "the output has shape {:?}, expected [classes, 1, 1]",
            last.shape
        )));
    }
    Ok((layers, packed))
}

type Checked<V> = std::result::Result<V, String>;

fn param(network: &Network, id: ParamId, shape: &[usize]) -> Checked<usize> {
    let param = network.params.get(id.0).ok_or_else(|| format!("parameter {} does not exist", id.0))?;
    let equal = if shape.len() == 2 {
        // Linear weights may also be stored as 1x1 kernels.
        param.numel() == shape[0] * shape[1] && param.shape.first() == shape.first()
    } else {
        param.shape == shape
    };
    if !equal {
        return Err(format!("parameter {} has shape {:?}, expected {shape:?}", param.name, param.shape));
    }
    if param.offset + param.numel() > network.n_params() {
        return Err(format!("parameter {} ends after the parameter vector", param.name));
    }
    Ok(param.offset)
}

fn layer<T: Element>(network: &Network, op: &OpNode, inputs: &[Shape], packed: &mut usize) -> Checked<Layer> {
    let out = op.shape;
    Ok(match &op.kind {
        OpKind::Conv { weight, stride, padding, dilation, groups } => {
            let x = inputs[0];
            let shape = &network.params.get(weight.0).ok_or("its weight does not exist")?.shape;
            let &[o, i, kh, kw] = shape.as_slice() else {
                return Err(format!("its weight has shape {shape:?}, expected four sizes"));
            };
            if *groups == 0 || o % groups != 0 || i * groups != x[0] || o != out[0] || *dilation == 0 {
                return Err(format!("weight {shape:?} in {groups} groups does not map {x:?} to {out:?}"));
            }
            for axis in 0..2 {
                let extent = dilation * ([kh, kw][axis].max(1) - 1) + 1;
                let padded = x[axis + 1] + 2 * padding[axis];
                let expected =
                    (stride[axis] > 0 && padded >= extent).then(|| (padded - extent) / stride[axis] + 1);
                if expected != Some(out[axis + 1]) {
                    return Err(format!(
                        "its output is {out:?} but the geometry gives {expected:?} on axis {axis}"
                    ));
                }
            }
            let weight = param(network, *weight, &[o, i, kh, kw])?;
            let sizes = ([o, i, kh, kw], *groups);
            Layer::Convolution(Box::new(convolution::<T>(
                x, out, sizes, *stride, *padding, *dilation, weight, None, packed,
            )))
        }
        OpKind::Linear { weight, bias } => {
            let x = inputs[0];
            let weight = param(network, *weight, &[out[0], x[0]])?;
            let bias = bias.map(|bias| param(network, bias, &[out[0]])).transpose()?;
            let sizes = ([out[0], x[0], 1, 1], 1);
            Layer::Convolution(Box::new(convolution::<T>(
                x,
                out,
                sizes,
                [1, 1],
                [0, 0],
                1,
                weight,
                bias,
                packed,
            )))
        }
        OpKind::BatchNorm { weight, bias } | OpKind::LayerNorm { weight, bias } => Layer::Norm {
            weight: param(network, *weight, &[out[0]])?,
            bias: param(network, *bias, &[out[0]])?,
        },
        OpKind::PosEnc { weight } => {
            Layer::Position { weight: param(network, *weight, &[1, out[0], out[1], out[2]])? }
        }
        _ => Layer::Plain,
    })
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
    let middle = first + if depthwise { kh * kw * outputs } else { packing.len(kh * kw * inputs) };
    *packed = middle + if depthwise { 0 } else { back_packing.len(kh * kw * outputs) };
    Convolution {
        depthwise,
        pointwise,
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

/// Number of inputs and shapes of ops whose output shape follows from the inputs.
fn check_shape(op: &OpNode, inputs: &[Shape]) -> Checked<()> {
    let out = op.shape;
    let count = match op.kind {
        OpKind::Input => 0..=0,
        OpKind::Add | OpKind::Excite => 2..=2,
        OpKind::Concat => 1..=usize::MAX,
        _ => 1..=1,
    };
    if !count.contains(&inputs.len()) {
        return Err(format!("it has {} inputs, expected {count:?}", inputs.len()));
    }
    if out.contains(&0) {
        return Err(format!("its output {out:?} is empty"));
    }
    let pooled = |kernel: usize, stride: usize, padding: usize| -> Checked<Shape> {
        let x = inputs[0];
        if kernel == 0 || stride == 0 || 2 * padding > kernel || x[1].min(x[2]) + 2 * padding < kernel {
            return Err(format!("pooling {kernel}/{stride}/{padding} does not fit {x:?}"));
        }
        Ok([x[0], (x[1] + 2 * padding - kernel) / stride + 1, (x[2] + 2 * padding - kernel) / stride + 1])
    };
    let expected = match op.kind {
        OpKind::Input | OpKind::Conv { .. } => return Ok(()),
        OpKind::Linear { .. } => [out[0], inputs[0][1], inputs[0][2]],
        OpKind::MaxPool { kernel, stride, padding } | OpKind::AvgPool { kernel, stride, padding } => {
            pooled(kernel, stride, padding)?
        }
        OpKind::GlobalAvgPool | OpKind::SqueezeMean => [inputs[0][0], 1, 1],
        OpKind::Excite => {
            if inputs[1] != [inputs[0][0], 1, 1] {
                return Err(format!("its gate has shape {:?}", inputs[1]));
            }
            inputs[0]
        }
        OpKind::Attention { heads, head_dim } => {
            if inputs[0][0] != 3 * heads * head_dim || heads * head_dim == 0 {
                return Err(format!("its input has shape {:?}", inputs[0]));
            }
            [heads * head_dim, inputs[0][1], inputs[0][2]]
        }
        OpKind::Add => {
            if inputs[0] != inputs[1] {
                return Err(format!("its inputs have shapes {:?} and {:?}", inputs[0], inputs[1]));
            }
            inputs[0]
        }
        OpKind::Concat => {
            if inputs.iter().any(|x| x[1..] != inputs[0][1..]) {
                return Err(format!("its inputs have shapes {inputs:?}"));
            }
            [inputs.iter().map(|x| x[0]).sum(), inputs[0][1], inputs[0][2]]
        }
        OpKind::Subsample { stride } => {
            if stride == 0 {
                return Err("its stride is 0".into());
            }
            [inputs[0][0], inputs[0][1].div_ceil(stride), inputs[0][2].div_ceil(stride)]
        }
        OpKind::Crop => [inputs[0][0], inputs[0][1].saturating_sub(1), inputs[0][2].saturating_sub(1)],
        OpKind::Flatten => [inputs[0].iter().product(), 1, 1],
        OpKind::Dropout { p } => {
            if !(0.0..1.0).contains(&p) {
                return Err(format!("its probability {p} is not in [0, 1)"));
            }
            inputs[0]
        }
        OpKind::BatchNorm { .. }
        | OpKind::LayerNorm { .. }
        | OpKind::Relu
        | OpKind::Gelu
        | OpKind::HardSwish
        | OpKind::PosEnc { .. }
        | OpKind::Zeros => inputs[0],
    };
    if expected != out {
        return Err(format!("its output is {out:?}, expected {expected:?}"));
    }
    Ok(())
}
