//! What an op needs besides its buffers: geometry and the places of its weights. Made once per network.

use super::lower::Marks;
use crate::kernels::Element;
use crate::kernels::convolution::{Fast, Packing, Plain, Spread, View};
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
    /// First element of the image that is read.
    pub start: usize,
    pub view: View,
    pub taps: Vec<usize>,
    /// Contiguous elements at a tap.
    pub depth: usize,
    pub packing: Packing,
    /// First packed weight.
    pub packed: usize,
    /// How the phases read the gradient of the result.
    pub back_spread: Spread,
    pub phases: Vec<Phase>,
    pub back_packing: Packing,
    /// First packed weight of the gradient of the input.
    pub back_packed: usize,
    /// First element and `[O, I/groups, kH, kW]` of the weight.
    pub weight: usize,
    pub shape: [usize; 4],
    pub groups: usize,
    /// First element of the bias of a linear layer.
    pub bias: Option<usize>,
}

/// The pixels of the input whose gradient the same taps reach: one in `stride` of each row and column.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// First row and column.
    pub origin: [usize; 2],
    /// Distance of rows and columns.
    pub step: [usize; 2],
    /// Pixels, as taps of offset zero meet the spread gradient of the result.
    pub view: View,
    pub taps: Vec<usize>,
    /// Contiguous elements at a tap.
    pub depth: usize,
    /// Tap of the weight for each tap of the kernel, in the order of packing.
    pub order: Vec<usize>,
    /// First packed weight.
    pub packed: usize,
}

impl Convolution {
    /// Rows of the weights: taps x input channels.
    pub fn rows(&self) -> usize {
        if self.depthwise { self.kernel() } else { self.kernel() * self.inputs() }
    }

    /// Taps of the weight.
    pub fn kernel(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.shape[1] * self.groups
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.shape[0]
    }

    /// Elements of the input of an image.
    pub fn input_len(&self) -> usize {
        self.spread.image.iter().product::<usize>() * self.inputs()
    }

    /// Elements of the result of an image.
    pub fn output_len(&self) -> usize {
        self.view.pixels() * self.outputs()
    }

    /// Elements of the gradient of weights and bias as kernels accumulate it.
    pub fn gradient_len(&self) -> usize {
        self.rows() * self.outputs() + self.bias.map_or(0, |_| self.outputs())
    }

    /// Elements of scratch space.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        let fast = self.fast.iter().flatten().map(|fast| fast.scratch_len::<T>(images)).max().unwrap_or(0);
        let phase = if self.phases.len() > 1 { self.phases[0].view.pixels() * self.inputs() } else { 0 };
        self.spread.len().max(self.back_spread.len() + phase).max(fast)
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

/// Prepares the layers of a valid network; also the number of packed elements.
pub(super) fn prepare<T: Element>(network: &Network, marks: &[Marks]) -> (Vec<Layer>, usize) {
    let mut packed = 0;
    let layers = network
        .ops
        .iter()
        .zip(marks)
        .map(|(op, marks)| layer::<T>(network, op, marks, &mut packed))
        .collect();
    (layers, packed)
}

fn layer<T: Element>(network: &Network, op: &OpNode, marks: &Marks, packed: &mut usize) -> Layer {
    let offset = |id: ParamId| network.params[id.0].offset;
    let input = |k: usize| network.ops[op.inputs[k].0].shape;
    match op.kind {
        OpKind::Conv { weight, stride, padding, dilation, groups } => {
            let shape = &network.params[weight.0].shape;
            let geometry = Geometry {
                x: input(0),
                out: op.shape,
                shape: [shape[0], shape[1], shape[2], shape[3]],
                groups,
                stride,
                padding: padding.map(|padding| padding as isize - isize::from(marks.crop)),
                dilation,
            };
            Layer::Convolution(Box::new(geometry.convolution::<T>(offset(weight), None, packed)))
        }
        OpKind::Linear { weight, bias } => {
            let geometry = Geometry {
                x: input(0),
                out: op.shape,
                shape: [op.shape[0], input(0)[0], 1, 1],
                groups: 1,
                stride: [1, 1],
                padding: [0, 0],
                dilation: 1,
            };
            let bias = bias.map(offset);
            Layer::Convolution(Box::new(geometry.convolution::<T>(offset(weight), bias, packed)))
        }
        OpKind::BatchNorm { weight, bias } | OpKind::LayerNorm { weight, bias } => {
            Layer::Norm { weight: offset(weight), bias: offset(bias) }
        }
        OpKind::PosEnc { weight } => Layer::Position { weight: offset(weight) },
        _ => Layer::Plain,
    }
}

/// Sizes of a convolution. Negative padding leaves out rows and columns.
struct Geometry {
    x: Shape,
    out: Shape,
    shape: [usize; 4],
    groups: usize,
    stride: [usize; 2],
    padding: [isize; 2],
    dilation: usize,
}

impl Geometry {
    fn kernel(&self) -> [usize; 2] {
        [self.shape[2], self.shape[3]]
    }

    fn input(&self) -> [usize; 2] {
        [self.x[1], self.x[2]]
    }

    fn depthwise(&self) -> bool {
        self.groups == self.x[0] && self.groups == self.out[0]
    }

    fn convolution<T: Element>(&self, weight: usize, bias: Option<usize>, packed: &mut usize) -> Convolution {
        let (inputs, outputs) = (self.x[0], self.out[0]);
        let depthwise = self.depthwise();
        let [kh, kw] = self.kernel();
        let size = self.input();
        let plain = kh * kw == 1 && self.stride == [1, 1] && self.padding == [0, 0];
        // Rows and columns that are left out need no copy: the view starts after them.
        let margin = self.padding.map(|padding| padding.max(0) as usize);
        let spread = Spread {
            image: size,
            target: [size[0] + 2 * margin[0], size[1] + 2 * margin[1]],
            origin: margin.map(|margin| margin as isize),
            step: [1, 1],
            channels: inputs,
        };
        let row = spread.target[1] * inputs;
        let skip = self.padding.map(|padding| (-padding).max(0) as usize);
        let view = View {
            size: [self.out[1], self.out[2]],
            row: self.stride[0] * row,
            column: self.stride[1] * inputs,
        };
        // Taps of a kernel row are adjacent in memory unless dilated: they join into one deep tap.
        let joined = self.dilation == 1 && !depthwise;
        let columns = if joined { 1 } else { kw };
        let tap = |y: usize, x: usize| self.dilation * (y * row + x * inputs);
        let taps = (0..kh).flat_map(|y| (0..columns).map(move |x| tap(y, x))).collect();

        let fast = self.fast();
        let sliding = self.sliding();
        let packing = Packing::new::<T>(outputs);
        let back_packing = Packing::new::<T>(inputs);
        let mut take = |len: usize| {
            // Each starts at a cache line.
            let first = *packed;
            *packed += len.next_multiple_of(16);
            first
        };
        let first = take(match &fast {
            Some([forward, _]) => forward.packed_len::<T>(),
            None if depthwise => kh * kw * outputs,
            None => packing.len(kh * kw * inputs),
        });
        let (back_spread, mut phases) = self.phases();
        let mut back_packed = 0;
        match &fast {
            Some([_, back]) => back_packed = take(back.packed_len::<T>()),
            None => {
                for phase in &mut phases {
                    let taps = phase.order.len();
                    phase.packed =
                        take(if depthwise { taps * inputs } else { back_packing.len(taps * outputs) });
                }
            }
        }
        Convolution {
            depthwise,
            pointwise: plain && !depthwise,
            fast,
            sliding,
            spread,
            start: skip[0] * row + skip[1] * inputs,
            view,
            taps,
            depth: if joined { kw } else { 1 } * inputs,
            packing,
            packed: first,
            back_spread,
            phases,
            back_packing,
            back_packed,
            weight,
            shape: self.shape,
            groups: self.groups,
            bias,
        }
    }

    /// Rows and columns of zeros before the image, if there are none to leave out.
    fn zeros(&self) -> Option<[usize; 2]> {
        let [y, x] = self.padding.map(|padding| usize::try_from(padding).ok());
        Some([y?, x?])
    }

    fn fast(&self) -> Option<[Fast; 2]> {
        let direct = self.dilation == 1 && self.groups == 1 && self.stride == [1, 1];
        let plain = Plain {
            kernel: self.kernel(),
            input: self.input(),
            output: [self.out[1], self.out[2]],
            padding: self.zeros().filter(|_| direct)?,
            inputs: self.x[0],
            outputs: self.out[0],
        };
        Fast::new(plain).map(|forward| [forward, forward.back()])
    }

    fn sliding(&self) -> Option<[Sliding; 2]> {
        let padding = self.zeros().filter(|_| self.depthwise() && self.stride == [1, 1])?;
        let (input, output) = (self.input(), [self.out[1], self.out[2]]);
        Sliding::new(self.kernel(), self.dilation, input, output, padding, self.x[0])
            .map(|forward| [forward, forward.back()])
    }

    /// The gradient of the input as convolutions of the gradient of the result, without the zeros that a stride
    /// would put between its pixels: a tap `k` takes row `(y + padding - k * dilation) / stride` to row `y`, so
    /// rows with the same remainder by the stride share their taps.
    fn phases(&self) -> (Spread, Vec<Phase>) {
        let outputs = self.out[0];
        // Of each axis: the phases as (origin, pixels, taps as (kernel position, offset)).
        let axes: [Vec<AxisPhase>; 2] = std::array::from_fn(|axis| self.axis_phases(axis));
        let offsets =
            |axis: usize| axes[axis].iter().flat_map(|phase| phase.taps.iter().map(|&(_, offset)| offset));
        let low: [isize; 2] = std::array::from_fn(|axis| offsets(axis).min().unwrap_or(0));
        let target = std::array::from_fn(|axis| {
            let ends = axes[axis].iter().flat_map(|phase| {
                phase.taps.iter().map(|&(_, offset)| phase.pixels + (offset - low[axis]) as usize)
            });
            ends.max().unwrap_or(0)
        });
        let spread = Spread {
            image: [self.out[1], self.out[2]],
            target,
            origin: low.map(|low| -low),
            step: [1, 1],
            channels: outputs,
        };
        let row = target[1] * outputs;
        let width = self.kernel()[1];
        let mut phases = Vec::with_capacity(axes[0].len() * axes[1].len());
        for y in &axes[0] {
            for x in &axes[1] {
                let at =
                    |dy: isize, dx: isize| (dy - low[0]) as usize * row + (dx - low[1]) as usize * outputs;
                let adjacent = x.taps.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1);
                let joined = adjacent && !self.depthwise() && !x.taps.is_empty();
                let columns = if joined { 1 } else { x.taps.len() };
                let taps = y
                    .taps
                    .iter()
                    .flat_map(|&(_, dy)| x.taps[..columns].iter().map(move |&(_, dx)| at(dy, dx)));
                let order =
                    y.taps.iter().flat_map(|&(ky, _)| x.taps.iter().map(move |&(kx, _)| ky * width + kx));
                phases.push(Phase {
                    origin: [y.origin, x.origin],
                    step: self.stride,
                    view: View { size: [y.pixels, x.pixels], row, column: outputs },
                    taps: taps.collect(),
                    depth: if joined { x.taps.len() } else { 1 } * outputs,
                    order: order.collect(),
                    packed: 0,
                });
            }
        }
        (spread, phases)
    }

    fn axis_phases(&self, axis: usize) -> Vec<AxisPhase> {
        let (stride, size) = (self.stride[axis], self.input()[axis]);
        (0..stride.min(size))
            .map(|origin| {
                // Falling positions: rising offsets.
                let taps = (0..self.kernel()[axis]).rev().filter_map(|k| {
                    let row = origin as isize + self.padding[axis] - (k * self.dilation) as isize;
                    (row.rem_euclid(stride as isize) == 0).then(|| (k, row.div_euclid(stride as isize)))
                });
                AxisPhase { origin, pixels: (size - origin).div_ceil(stride), taps: taps.collect() }
            })
            .collect()
    }
}

/// A phase along one axis.
struct AxisPhase {
    origin: usize,
    pixels: usize,
    /// Position in the kernel, and offset in the gradient of the result, rising.
    taps: Vec<(usize, isize)>,
}
