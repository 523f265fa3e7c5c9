//! Drop path (arXiv 1605.07648): in training, whole branches of a cell's sums vanish, for each image anew.
//!
//! In: a network, the ops that end its branches, a probability. Out: a network with the same parameters, in the same
//! places, followed by constants. Each branch is multiplied by a gate that is 0 with the probability p and else
//! `1 / (1 - p)`; the gate is a 1 that went through [`OpKind::Dropout`], so executors need no op of their own for it.
//! Without dropout (in evaluation) all gates are 1.

use crate::network::{Network, OpId, OpKind, OpNode, Param, ParamId};
use std::collections::BTreeMap;

/// `network` with gates behind `branches`, and the constants that follow its parameters.
pub(super) fn with_drop_path(network: &Network, branches: &[OpId], p: f64) -> (Network, Vec<f32>) {
    let mut gated = Gated {
        network: Network { ops: Vec::with_capacity(network.ops.len()), ..network.clone() },
        constants: Vec::new(),
        spread: BTreeMap::new(),
    };
    let mut place = vec![OpId(0); network.ops.len()];
    let mut one = OpId(0);
    for (index, op) in network.ops.iter().enumerate() {
        let inputs: Vec<OpId> = op.inputs.iter().map(|input| place[input.0]).collect();
        place[index] = gated.push(op.kind.clone(), inputs, op.shape);
        if index == 0 {
            one = gated.one();
        }
        if branches.contains(&OpId(index)) {
            let gate = gated.push(OpKind::Dropout { p: p as f32 }, vec![one], [1, 1, 1]);
            let channels = op.shape[0];
            let weight = gated.column_of_ones(channels);
            let gate = gated.push(OpKind::Linear { weight, bias: None }, vec![gate], [channels, 1, 1]);
            place[index] = gated.push(OpKind::Excite, vec![place[index], gate], op.shape);
        }
    }
    (gated.network, gated.constants)
}

struct Gated {
    network: Network,
    constants: Vec<f32>,
    /// Weights `[C, 1]` of ones by C.
    spread: BTreeMap<usize, ParamId>,
}

impl Gated {
    fn push(&mut self, kind: OpKind, inputs: Vec<OpId>, shape: [usize; 3]) -> OpId {
        self.network.ops.push(OpNode { kind, inputs, shape });
        OpId(self.network.ops.len() - 1)
    }

    fn constant(&mut self, shape: Vec<usize>, value: f32) -> ParamId {
        let id = ParamId(self.network.params.len());
        let param = Param { name: format!("drop_path.{}", id.0), shape, offset: self.network.n_params() };
        self.constants.resize(self.constants.len() + param.numel(), value);
        self.network.params.push(param);
        id
    }

    /// The number 1 for every image, `[1, 1, 1]`: 0 times the mean pixel, plus 1.
    fn one(&mut self) -> OpId {
        let channels = self.network.input_shape()[0];
        let mean = self.push(OpKind::SqueezeMean, vec![OpId(0)], [channels, 1, 1]);
        let weight = self.constant(vec![1, channels], 0.0);
        let bias = Some(self.constant(vec![1], 1.0));
        self.push(OpKind::Linear { weight, bias }, vec![mean], [1, 1, 1])
    }

    fn column_of_ones(&mut self, channels: usize) -> ParamId {
        if let Some(&id) = self.spread.get(&channels) {
            return id;
        }
        let id = self.constant(vec![channels, 1], 1.0);
        self.spread.insert(channels, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepnets::predefined;
    use crate::execute::{Executor, Mode, NativeExecutor};
    use crate::network::expand_with_branches;
    use crate::space::Architecture;
    use crate::training::network::{RandomInit, random_weights};

    /// Two 1x1 convolutions of the image, added, and the mean of the sum: two logits.
    fn two_branches() -> (Network, Vec<OpId>) {
        let conv = |id| {
            let kind =
                OpKind::Conv { weight: ParamId(id), stride: [1; 2], padding: [0; 2], dilation: 1, groups: 1 };
            OpNode { kind, inputs: vec![OpId(0)], shape: [2, 2, 2] }
        };
        let param = |name: &str, offset| Param { name: name.into(), shape: vec![2, 1, 1, 1], offset };
        let network = Network {
            ops: vec![
                OpNode { kind: OpKind::Input, inputs: vec![], shape: [1, 2, 2] },
                conv(0),
                conv(1),
                OpNode { kind: OpKind::Add, inputs: vec![OpId(1), OpId(2)], shape: [2, 2, 2] },
                OpNode { kind: OpKind::GlobalAvgPool, inputs: vec![OpId(3)], shape: [2, 1, 1] },
            ],
            params: vec![param("a", 0), param("b", 2)],
            pruned: vec![],
            n_cells: 0,
        };
        (network, vec![OpId(1), OpId(2)])
    }

    #[test]
    fn a_branch_is_dropped_whole_and_the_rest_is_scaled() {
        let (network, branches) = two_branches();
        let (gated, constants) = with_drop_path(&network, &branches, 0.25);
        let params: Vec<f32> = [1.0, 10.0, 100.0, 1000.0].into_iter().chain(constants).collect();
        let images = vec![3.0; 4000];
        let mut executor = NativeExecutor::<f32>::new(&gated, 1000).unwrap();
        let logits = executor.logits(&params, &images, Mode::Train { dropout_seed: 4 }).unwrap();
        let (mut kept, mut both) = ([0; 2], 0);
        for row in logits.chunks_exact(2) {
            let found =
                [false, true].map(|a| [false, true].map(|b| (a, b))).concat().into_iter().find(|(a, b)| {
                    let scale = |on: &bool| if *on { 4.0 } else { 0.0 };
                    let expected = [scale(a) + 100.0 * scale(b), 10.0 * scale(a) + 1000.0 * scale(b)];
                    (0..2).all(|c| (row[c] - expected[c]).abs() <= 1e-3)
                });
            let (a, b) = found.unwrap_or_else(|| panic!("{row:?} is no sum of whole branches"));
            kept[0] += u32::from(a);
            kept[1] += u32::from(b);
            both += u32::from(a && b);
        }
        // Each is kept with probability 3/4; the two are independent. Deviations: 14 of 1,000.
        assert!(kept.iter().all(|&kept| (700..=800).contains(&kept)), "{kept:?}");
        assert!((510..=615).contains(&both), "{both}");
    }

    #[test]
    fn without_dropout_nothing_changes() {
        let record = predefined("DARTS").unwrap();
        let Architecture::Cells(cells) = record.arch else { panic!("DARTS is made of cells") };
        let cells = crate::space::CellArchitecture { channels: 4, n_cells: 4, ..cells };
        let (network, branches) = expand_with_branches(&cells, 10).unwrap();
        // Of the eight ops of a normal cell two are identities, of a reduction cell three, where state 2 is reread;
        // strided identities and pooling compute something.
        assert_eq!(branches.len(), 2 * 6 + 2 * 5);
        let (gated, constants) = with_drop_path(&network, &branches, 0.5);
        let params = random_weights(&network, RandomInit::He, 1);
        let longer = [params.as_slice(), &constants].concat();
        assert_eq!(gated.n_params(), longer.len());
        let images: Vec<f32> = (0..4 * 3072).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let labels = [1, 2, 3, 4];
        let run = |network: &Network, params: &[f32], mode| {
            let mut gradient = vec![0.0; params.len()];
            let mut executor = NativeExecutor::<f32>::new(network, 4).unwrap();
            let loss = executor.loss_and_gradient(params, &images, &labels, mode, &mut gradient).unwrap();
            (loss, gradient)
        };
        let (loss, gradient) = run(&network, &params, Mode::TrainWithoutDropout);
        let (gated_loss, gated_gradient) = run(&gated, &longer, Mode::TrainWithoutDropout);
        assert_eq!(loss, gated_loss);
        let largest = gradient.iter().fold(0f32, |largest, g| largest.max(g.abs()));
        for (plain, gated) in gradient.iter().zip(&gated_gradient) {
            assert!((plain - gated).abs() <= 1e-6 * largest, "{plain} {gated}");
        }
        let (dropped_loss, _) = run(&gated, &longer, Mode::Train { dropout_seed: 1 });
        assert!(dropped_loss.is_finite() && dropped_loss != loss);
    }
}
