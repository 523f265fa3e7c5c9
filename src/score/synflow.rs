//! Synaptic flow: how much of a sum of paths through a network runs through its weights, without any image.
//!
//! In: a network and its weights. Out: the natural logarithm of `sum |w dR/dw|` over the weights of convolutions and
//! linear layers, where `R` is the sum of the logits for an image of ones and all parameters stand for their
//! absolute values. Source: arXiv 2006.05467, equation 1; summed over a whole network and with norms left out, as in
//! arXiv 2101.08134, section 3.2. It is computed in double precision; the logarithm keeps deep networks comparable.
//!
//! `R` has to be a sum over paths of products of weights. What is not linear in non-negative numbers is therefore left
//! out: norms, all activations (a ReLU changes nothing there), the gates of squeeze-and-excitation (open gates), and
//! the comparison of queries and keys (each position attends to itself). The sources know convolutional networks only.

use crate::execute::NativeExecutor;
use crate::network::{Network, OpId, OpKind, OpNode, Param, ParamId};
use crate::{Error, Result};

/// The synaptic flow of `network`, natural logarithm.
///
/// # Errors
/// Parameters that do not fit; [`Error::NonFinite`] if no path carries anything or the sum overflows.
pub fn synflow(network: &Network, params: &[f32]) -> Result<f64> {
    if params.len() != network.n_params() {
        let expected = network.n_params();
        return Err(Error::Tensor(format!("parameters: {} elements, expected {expected}", params.len())));
    }
    let Paths { network, values, constants } = Paths::of(network, params);
    let ones = vec![1f64; network.input_shape().iter().product()];
    let mut gradient = vec![0f64; values.len()];
    NativeExecutor::<f64>::new(&network, 1)?.sum_and_gradient(&values, &ones, &mut gradient)?;
    let mut flow = 0.0;
    for op in &network.ops {
        let (OpKind::Conv { weight, .. } | OpKind::Linear { weight, .. }) = op.kind else { continue };
        if constants.contains(&weight) {
            continue;
        }
        let param = &network.params[weight.0];
        let range = param.offset..param.offset + param.numel();
        flow += values[range.clone()].iter().zip(&gradient[range]).map(|(w, g)| (w * g).abs()).sum::<f64>();
    }
    let log = flow.ln();
    if !log.is_finite() {
        return Err(Error::NonFinite(format!("the synaptic flow is {flow}")));
    }
    Ok(log)
}

/// A network that sums over paths, with the absolute values of another's parameters.
struct Paths {
    network: Network,
    values: Vec<f64>,
    /// Weights that are no weights of the other network.
    constants: Vec<ParamId>,
}

impl Paths {
    fn of(network: &Network, params: &[f32]) -> Paths {
        let mut place: Vec<OpId> = Vec::with_capacity(network.ops.len());
        let mut ops: Vec<OpNode> = Vec::with_capacity(network.ops.len());
        let mut all = network.params.clone();
        let mut values: Vec<f64> = params.iter().map(|&value| f64::from(value).abs()).collect();
        let mut constants = Vec::new();
        for op in &network.ops {
            let inputs: Vec<OpId> = op.inputs.iter().map(|input| place[input.0]).collect();
            let kind = match op.kind {
                OpKind::BatchNorm { .. }
                | OpKind::LayerNorm { .. }
                | OpKind::Relu
                | OpKind::Gelu
                | OpKind::HardSwish
                | OpKind::Excite
                | OpKind::Dropout { .. } => {
                    place.push(inputs[0]);
                    continue;
                }
                OpKind::Attention { heads, head_dim } => {
                    // Queries, keys and values lie one after the other: this picks the values.
                    let inner = heads * head_dim;
                    let weight = ParamId(all.len());
                    let name = format!("values of op {}", place.len());
                    all.push(Param { name, shape: vec![inner, 3 * inner], offset: values.len() });
                    let picks = |at: usize| at % (3 * inner) == 2 * inner + at / (3 * inner);
                    values.extend((0..3 * inner * inner).map(|at| f64::from(u8::from(picks(at)))));
                    constants.push(weight);
                    OpKind::Linear { weight, bias: None }
                }
                ref kind => kind.clone(),
            };
            place.push(OpId(ops.len()));
            ops.push(OpNode { kind, inputs, shape: op.shape });
        }
        prune(ops, all, &values, &constants)
    }
}

/// Leaves out ops and parameters that no longer reach the output.
fn prune(ops: Vec<OpNode>, params: Vec<Param>, values: &[f64], constants: &[ParamId]) -> Paths {
    let mut reaches = vec![false; ops.len()];
    let mut used = vec![false; params.len()];
    // The input stays even where a network does not depend on it.
    (reaches[0], *reaches.last_mut().expect("a network has ops")) = (true, true);
    for (index, op) in ops.iter().enumerate().rev() {
        if reaches[index] {
            op.inputs.iter().for_each(|input| reaches[input.0] = true);
            op.kind.params().for_each(|id| used[id.0] = true);
        }
    }
    let mut paths = Paths {
        network: Network { ops: Vec::new(), params: Vec::new(), pruned: Vec::new(), n_cells: 0 },
        values: Vec::new(),
        constants: Vec::new(),
    };
    let mut param_place = vec![ParamId(0); params.len()];
    for (index, param) in params.into_iter().enumerate().filter(|(index, _)| used[*index]) {
        param_place[index] = ParamId(paths.network.params.len());
        if constants.contains(&ParamId(index)) {
            paths.constants.push(param_place[index]);
        }
        let from = param.offset..param.offset + param.numel();
        let offset = paths.values.len();
        paths.values.extend_from_slice(&values[from]);
        paths.network.params.push(Param { offset, ..param });
    }
    let mut op_place = vec![OpId(0); reaches.len()];
    for (index, op) in ops.into_iter().enumerate().filter(|(index, _)| reaches[*index]) {
        op_place[index] = OpId(paths.network.ops.len());
        let inputs = op.inputs.iter().map(|input| op_place[input.0]).collect();
        let kind = op.kind.map_params(|id| param_place[id.0]);
        paths.network.ops.push(OpNode { kind, inputs, shape: op.shape });
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(name: &str, shape: &[usize], offset: usize) -> Param {
        Param { name: name.into(), shape: shape.to_vec(), offset }
    }

    fn op(kind: OpKind, inputs: &[usize], shape: [usize; 3]) -> OpNode {
        OpNode { kind, inputs: inputs.iter().map(|&input| OpId(input)).collect(), shape }
    }

    fn conv(weight: usize) -> OpKind {
        let weight = ParamId(weight);
        OpKind::Conv { weight, stride: [1; 2], padding: [0; 2], dilation: 1, groups: 1 }
    }

    #[test]
    fn a_network_by_hand() {
        // x (1 channel, 2x2) -> conv a (2 outputs) -> norm -> relu -> gate b -> mean -> linear c.
        let norm = OpKind::BatchNorm { weight: ParamId(1), bias: ParamId(2) };
        let linear = OpKind::Linear { weight: ParamId(4), bias: Some(ParamId(5)) };
        let network = Network {
            ops: vec![
                op(OpKind::Input, &[], [1, 2, 2]),
                op(conv(0), &[0], [2, 2, 2]),
                op(norm, &[1], [2, 2, 2]),
                op(OpKind::Relu, &[2], [2, 2, 2]),
                op(OpKind::SqueezeMean, &[3], [2, 1, 1]),
                op(conv(3), &[4], [2, 1, 1]),
                op(OpKind::HardSwish, &[5], [2, 1, 1]),
                op(OpKind::Excite, &[3, 6], [2, 2, 2]),
                op(OpKind::GlobalAvgPool, &[7], [2, 1, 1]),
                op(linear, &[8], [2, 1, 1]),
            ],
            params: vec![
                param("a", &[2, 1, 1, 1], 0),
                param("norm.weight", &[2], 2),
                param("norm.bias", &[2], 4),
                param("b", &[2, 2, 1, 1], 6),
                param("c", &[2, 2], 10),
                param("c.bias", &[2], 14),
            ],
            pruned: vec![],
            n_cells: 0,
        };
        network.validate().unwrap();
        let mut params = vec![-3.0, 0.5];
        params.extend([7.0; 8]);
        params.extend([1.0, -2.0, 4.0, 0.25, 100.0, -100.0]);
        // Sum of logits: |a0| (|c00| + |c10|) + |a1| (|c01| + |c11|) + biases; each product counts once for a and once
        // for c, the biases, the norm and the gate not at all.
        let products = 3.0 * (1.0 + 4.0) + 0.5 * (2.0 + 0.25);
        assert!((synflow(&network, &params).unwrap() - f64::ln(2.0 * products)).abs() < 1e-12);
        params[..2].fill(0.0);
        assert!(synflow(&network, &params).unwrap_err().to_string().contains("flow is 0"));
        assert!(synflow(&network, &params[1..]).unwrap_err().to_string().contains("expected 16"));
    }
}
