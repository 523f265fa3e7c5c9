//! Small affine maps in the memory order that vectorises: panels of [`LANES`] outputs, so that a panel's sums
//! stay in registers. Vectors are padded with zeros to a multiple of [`LANES`].

use super::Weights;
use crate::kernels::scalar::Scalar;

/// Outputs of a panel.
pub(super) const LANES: usize = 32;

/// `len` rounded up to whole panels.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

/// `y = W x + b`.
#[derive(Clone, Debug)]
pub(super) struct Affine<T> {
    inputs: usize,
    outputs: usize,
    /// `[panels, inputs, LANES]`.
    weight: Vec<T>,
    /// `[panels, LANES]`.
    bias: Vec<T>,
}

impl<T: Scalar> Affine<T> {
    fn zeros(inputs: usize, outputs: usize) -> Affine<T> {
        let panels = padded(outputs);
        Affine {
            inputs,
            outputs,
            weight: vec![T::default(); panels * inputs],
            bias: vec![T::default(); panels],
        }
    }

    /// Where `W[output, input]` lies.
    fn at(&self, output: usize, input: usize) -> usize {
        (output / LANES * self.inputs + input) * LANES + output % LANES
    }

    /// From `weight [outputs, inputs]` and `bias [outputs]`.
    fn from_rows(inputs: usize, outputs: usize, weight: &[T], bias: &[T]) -> Affine<T> {
        let mut map = Affine::zeros(inputs, outputs);
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            for (input, &w) in row.iter().enumerate() {
                let at = map.at(output, input);
                map.weight[at] = w;
            }
        }
        map.bias[..outputs].copy_from_slice(bias);
        map
    }

    /// The map `W^T`, without bias.
    fn transposed(&self) -> Affine<T> {
        let mut map = Affine::zeros(self.outputs, self.inputs);
        for output in 0..self.outputs {
            for input in 0..self.inputs {
                let at = map.at(input, output);
                map.weight[at] = self.weight[self.at(output, input)];
            }
        }
        map
    }

    fn write_rows(&self, weight: &mut [T], bias: &mut [T]) {
        for (output, row) in weight.chunks_exact_mut(self.inputs).enumerate() {
            for (input, w) in row.iter_mut().enumerate() {
                *w = self.weight[self.at(output, input)];
            }
        }
        bias.copy_from_slice(&self.bias[..self.outputs]);
    }

    /// `y = W x + b`.
    #[inline(always)]
    pub fn apply(&self, x: &[T], y: &mut [T]) {
        y.copy_from_slice(&self.bias);
        self.add_to(x, y);
    }

    /// `y += W x`.
    #[inline(always)]
    pub fn add_to(&self, x: &[T], y: &mut [T]) {
        let panels = self.weight.chunks_exact(self.inputs * LANES);
        for (panel, y) in panels.zip(y.as_chunks_mut::<LANES>().0) {
            let mut sums = *y;
            for (&x, column) in x.iter().zip(panel.as_chunks::<LANES>().0) {
                for lane in 0..LANES {
                    sums[lane] += x * column[lane];
                }
            }
            *y = sums;
        }
    }

    /// Adds to this gradient what `x` and the gradient `dy` of `y` contribute.
    #[inline(always)]
    pub fn add_outer(&mut self, x: &[T], dy: &[T]) {
        let panels = self.weight.chunks_exact_mut(self.inputs * LANES);
        for (panel, dy) in panels.zip(dy.as_chunks::<LANES>().0) {
            for (&x, column) in x.iter().zip(panel.as_chunks_mut::<LANES>().0) {
                for lane in 0..LANES {
                    column[lane] += x * dy[lane];
                }
            }
        }
        self.bias.iter_mut().zip(dy).for_each(|(b, &d)| *b += d);
    }

    fn add(&mut self, other: &Affine<T>) {
        self.weight.iter_mut().zip(&other.weight).for_each(|(a, &b)| *a += b);
        self.bias.iter_mut().zip(&other.bias).for_each(|(a, &b)| *a += b);
    }
}

/// All maps of the gated GNN; also their gradients.
#[derive(Clone, Debug)]
pub(super) struct Maps<T> {
    /// Both layers of the message functions: of direct neighbours and, with virtual edges, of all neighbours.
    pub messages: Vec<[Affine<T>; 2]>,
    /// From the message to the gates reset, update, new.
    pub input: [Affine<T>; 3],
    /// From the state to the gates.
    pub state: [Affine<T>; 3],
}

impl<T: Scalar> Maps<T> {
    pub fn zeros(weights: &Weights) -> Maps<T> {
        let (h, k) = (weights.hid, weights.hidden);
        let gates = || std::array::from_fn(|_| Affine::zeros(h, h));
        let functions = 1 + usize::from(weights.virtual_edges);
        let messages = (0..functions).map(|_| [Affine::zeros(h, k), Affine::zeros(k, h)]).collect();
        Maps { messages, input: gates(), state: gates() }
    }

    /// From a packed vector in the order of [`Weights::tensors`].
    pub fn unpack(weights: &Weights, packed: &[T]) -> Maps<T> {
        let (h, k) = (weights.hid, weights.hidden);
        let mut rest = packed;
        let mut take = |len: usize| {
            let (taken, tail) = rest.split_at(len);
            rest = tail;
            taken
        };
        let functions = 1 + usize::from(weights.virtual_edges);
        let messages = (0..functions)
            .map(|_| {
                [Affine::from_rows(h, k, take(k * h), take(k)), Affine::from_rows(k, h, take(h * k), take(h))]
            })
            .collect();
        let (input, state) = (take(3 * h * h), take(3 * h * h));
        let (input_bias, state_bias) = (take(3 * h), take(3 * h));
        let gate = |weight: &[T], bias: &[T], g: usize| {
            Affine::from_rows(h, h, &weight[g * h * h..][..h * h], &bias[g * h..][..h])
        };
        Maps {
            messages,
            input: std::array::from_fn(|g| gate(input, input_bias, g)),
            state: std::array::from_fn(|g| gate(state, state_bias, g)),
        }
    }

    /// The inverse of [`Maps::unpack`].
    pub fn pack(&self, packed: &mut [T]) {
        let mut rest = packed;
        let mut take = |len: usize| {
            let (taken, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            taken
        };
        for map in self.messages.iter().flatten() {
            let (weight, bias) = (take(map.inputs * map.outputs), take(map.outputs));
            map.write_rows(weight, bias);
        }
        let h = self.input[0].inputs;
        let (input, state) = (take(3 * h * h), take(3 * h * h));
        let (input_bias, state_bias) = (take(3 * h), take(3 * h));
        for g in 0..3 {
            let (rows, gate) = (g * h * h..(g + 1) * h * h, g * h..(g + 1) * h);
            self.input[g].write_rows(&mut input[rows.clone()], &mut input_bias[gate.clone()]);
            self.state[g].write_rows(&mut state[rows], &mut state_bias[gate]);
        }
    }

    /// The transposed maps, without biases.
    pub fn transposed(&self) -> Maps<T> {
        Maps {
            messages: self.messages.iter().map(|layers| layers.each_ref().map(Affine::transposed)).collect(),
            input: self.input.each_ref().map(Affine::transposed),
            state: self.state.each_ref().map(Affine::transposed),
        }
    }

    pub fn add(&mut self, other: &Maps<T>) {
        let own = self.messages.iter_mut().flatten().chain(&mut self.input).chain(&mut self.state);
        let others = other.messages.iter().flatten().chain(&other.input).chain(&other.state);
        own.zip(others).for_each(|(a, b)| a.add(b));
    }
}
