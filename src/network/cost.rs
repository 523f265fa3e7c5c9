//! What a network costs, exactly and before anything runs: parameters, multiply-accumulates, live activations.

use super::ir::{Network, OpKind};
use serde::{Deserialize, Serialize};

/// Costs of a forward pass of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Parameters that reach the output.
    pub params: u64,
    /// Multiply-accumulates of convolutions, linear layers and the two products of attention; norms, pooling,
    /// activations and sums are not counted.
    pub macs: u64,
    /// Largest number of activation elements alive at once when ops run in order and a tensor dies with its last
    /// use. Flattening, dropout and the concatenation of one tensor make no new tensor.
    pub peak_activations: u64,
}

impl Cost {
    /// The costs of `network`.
    pub fn of(network: &Network) -> Cost {
        let macs = (0..network.ops.len()).fold(0u64, |sum, index| sum.saturating_add(macs(network, index)));
        Cost { params: network.n_params() as u64, macs, peak_activations: peak_activations(network) }
    }
}

impl Network {
    /// Parameters, multiply-accumulates and peak activations.
    pub fn cost(&self) -> Cost {
        Cost::of(self)
    }

    /// Multiply-accumulates of op `index`, counted as in [`Cost::macs`].
    pub fn macs_of(&self, index: usize) -> u64 {
        macs(self, index)
    }
}

/// Elements of an op's output.
fn numel(network: &Network, index: usize) -> u64 {
    network.ops[index].shape.iter().map(|&side| side as u64).product()
}

/// Multiply-accumulates of op `index`.
fn macs(network: &Network, index: usize) -> u64 {
    let op = &network.ops[index];
    match op.kind {
        OpKind::Conv { weight, .. } | OpKind::Linear { weight, .. } => {
            let per_output: u64 =
                network.params[weight.0].shape[1..].iter().map(|&side| side as u64).product();
            numel(network, index).saturating_mul(per_output)
        }
        OpKind::Attention { .. } => {
            let tokens = (op.shape[1] * op.shape[2]) as u64;
            numel(network, index).saturating_mul(2 * tokens)
        }
        _ => 0,
    }
}

fn peak_activations(network: &Network) -> u64 {
    let n = network.ops.len();
    // The op whose tensor each op's output lies in.
    let mut owner: Vec<usize> = (0..n).collect();
    for (index, op) in network.ops.iter().enumerate() {
        let view = match op.kind {
            OpKind::Flatten | OpKind::Dropout { .. } => true,
            OpKind::Concat => op.inputs.len() == 1,
            _ => false,
        };
        if view {
            owner[index] = owner[op.inputs[0].0];
        }
    }
    let mut last_use: Vec<usize> = (0..n).collect();
    for (index, op) in network.ops.iter().enumerate() {
        op.inputs.iter().for_each(|input| last_use[owner[input.0]] = index);
    }
    let mut dying: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (index, &last) in last_use.iter().enumerate().filter(|(index, _)| owner[*index] == *index) {
        dying[last].push(index);
    }
    let (mut live, mut peak) = (0, 0);
    for (index, dying) in dying.iter().enumerate() {
        if owner[index] == index {
            live += numel(network, index);
        }
        peak = peak.max(live);
        live -= dying.iter().map(|&dead| numel(network, dead)).sum::<u64>();
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::super::torchvision;
    use super::*;

    #[test]
    fn a_small_network_by_hand() {
        let (mut b, image) = Builder::new([3, 8, 8]);
        let conv = b.conv("a", [4, 3, 3, 3], [2, 2]);
        let a = b.push(conv, &[image]).unwrap();
        let depthwise = b.depthwise("b", 4, 3, 1, 1);
        let x = b.chain([OpKind::Relu, depthwise], a).unwrap();
        let x = b.push(OpKind::Add, &[x, a]).unwrap();
        let x = b.push(OpKind::Flatten, &[x]).unwrap();
        let linear = b.linear("c", [10, 64], true);
        let x = b.push(linear, &[x]).unwrap();
        let network = b.finish(x, 0).unwrap();
        let cost = network.cost();
        assert_eq!(cost.params, 4 * 27 + 36 + 650);
        assert_eq!(cost.macs, 64 * 27 + 64 * 9 + 640);
        // Image and first convolution: 192 + 64; later at most three tensors of 64.
        assert_eq!(cost.peak_activations, 256);
    }

    #[test]
    fn attention_counts_both_products() {
        let (mut b, image) = Builder::new([3, 5, 2]);
        let qkv = b.linear("qkv", [24, 3], false);
        let x = b.chain([qkv, OpKind::Attention { heads: 4, head_dim: 2 }], image).unwrap();
        let network = b.finish(x, 0).unwrap();
        assert_eq!(network.cost().macs, 10 * 24 * 3 + 2 * 10 * 10 * 8);
    }

    #[test]
    fn resnet18_for_cifar_costs_what_is_known() {
        // 0.56 billion multiply-accumulates, 11.17 million parameters (10 classes).
        let cost = torchvision("resnet18", 10).unwrap().cost();
        assert_eq!(cost.params, 11_173_962);
        assert_eq!(cost.macs, 555_422_720);
    }
}
