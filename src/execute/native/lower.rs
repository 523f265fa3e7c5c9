//! From the IR to what the executor runs: equal ops become one, and neighbours that one kernel computes are marked.
//!
//! In: a validated network. Out: a network of fewer ops over the same parameters, in an order that is still
//! topological and ends with the output, and marks of each op.

use crate::network::{Network, OpId, OpKind, OpNode};

/// What an op computes besides its kind says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// A batch norm: a ReLU follows and is part of it.
    pub relu: bool,
    /// A batch norm: the sum that reads it computes it.
    pub within_sum: bool,
    /// A convolution: its input loses its first row and column.
    pub crop: bool,
    /// Number of the op in the network that was lowered: the stream of dropout masks.
    pub origin: usize,
}

/// Ops to run.
#[derive(Clone, Debug)]
pub(super) struct Lowered {
    pub network: Network,
    pub marks: Vec<Marks>,
}

/// See the module.
pub(super) fn lower(network: &Network) -> Lowered {
    let mut lowered = merge(network);
    fold(&mut lowered);
    mark_sums(&mut lowered);
    lowered
}

/// Number of times that each op is read.
pub(super) fn readers(ops: &[OpNode]) -> Vec<usize> {
    let mut count = vec![0; ops.len()];
    for input in ops.iter().flat_map(|op| &op.inputs) {
        count[input.0] += 1;
    }
    count
}

/// Ops without parameters and chance: equal inputs give equal results.
fn repeatable(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Relu
            | OpKind::MaxPool { .. }
            | OpKind::AvgPool { .. }
            | OpKind::Crop
            | OpKind::Subsample { .. }
            | OpKind::SqueezeMean
    )
}

/// Leaves out ops that repeat an earlier one: every branch of a cell has a ReLU of its own on the same state.
fn merge(network: &Network) -> Lowered {
    let mut ops: Vec<OpNode> = Vec::with_capacity(network.ops.len());
    let mut marks = Vec::with_capacity(network.ops.len());
    let mut place = Vec::with_capacity(network.ops.len());
    for (origin, op) in network.ops.iter().enumerate() {
        let mut op = op.clone();
        op.inputs.iter_mut().for_each(|input| *input = place[input.0]);
        let last = origin + 1 == network.ops.len();
        let earlier =
            (repeatable(&op.kind) && !last).then(|| ops.iter().position(|known| *known == op)).flatten();
        place.push(OpId(earlier.unwrap_or(ops.len())));
        if earlier.is_none() {
            ops.push(op);
            marks.push(Marks { origin, ..Marks::default() });
        }
    }
    Lowered { network: Network { ops, ..network.clone() }, marks }
}

/// Joins ReLUs to batch norms before them, and crops to the convolutions after them.
fn fold(lowered: &mut Lowered) {
    let Lowered { network, marks } = lowered;
    let readers = readers(&network.ops);
    let count = network.ops.len();
    let mut instead: Vec<OpId> = (0..count).map(OpId).collect();
    for index in 0..count.saturating_sub(1) {
        let Some(&input) = network.ops[index].inputs.first() else { continue };
        match network.ops[index].kind {
            OpKind::Relu
                if readers[input.0] == 1 && matches!(network.ops[input.0].kind, OpKind::BatchNorm { .. }) =>
            {
                marks[input.0].relu = true;
                instead[index] = input;
            }
            OpKind::Crop => {
                let reads = |op: &&OpNode| op.inputs.contains(&OpId(index));
                if network.ops.iter().filter(reads).all(takes_crop) {
                    for (op, marks) in network.ops.iter().zip(marks.iter_mut()) {
                        marks.crop |= reads(&op);
                    }
                    instead[index] = input;
                }
            }
            _ => {}
        }
    }
    remove(lowered, &instead);
}

/// Whether a convolution can read from the second row and column on: nothing before them would be padding.
fn takes_crop(op: &OpNode) -> bool {
    matches!(op.kind, OpKind::Conv { padding: [0, 0], groups: 1, .. })
}

/// Leaves out ops that another stands for.
fn remove(lowered: &mut Lowered, instead: &[OpId]) {
    let mut place: Vec<OpId> = Vec::with_capacity(instead.len());
    let mut kept = 0;
    for (index, other) in instead.iter().enumerate() {
        if other.0 == index {
            place.push(OpId(kept));
            kept += 1;
        } else {
            place.push(place[other.0]);
        }
    }
    let stays = |index: &usize| instead[*index].0 == *index;
    let mut ops = Vec::with_capacity(kept);
    for (_, mut op) in
        std::mem::take(&mut lowered.network.ops).into_iter().enumerate().filter(|(i, _)| stays(i))
    {
        op.inputs.iter_mut().for_each(|input| *input = place[input.0]);
        ops.push(op);
    }
    lowered.network.ops = ops;
    let marks = std::mem::take(&mut lowered.marks);
    lowered.marks = marks.into_iter().enumerate().filter(|(i, _)| stays(i)).map(|(_, marks)| marks).collect();
}

/// Batch norms that only one sum reads are computed there.
fn mark_sums(lowered: &mut Lowered) {
    let ops = &lowered.network.ops;
    let readers = readers(ops);
    for op in ops.iter().filter(|op| matches!(op.kind, OpKind::Add)) {
        for &OpId(input) in &op.inputs {
            let norm = matches!(ops[input].kind, OpKind::BatchNorm { .. });
            lowered.marks[input].within_sum |= norm && readers[input] == 1 && !lowered.marks[input].relu;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ParamId;

    fn node(kind: OpKind, inputs: &[usize]) -> OpNode {
        OpNode { kind, inputs: inputs.iter().map(|&i| OpId(i)).collect(), shape: [4, 4, 4] }
    }

    fn norm(input: usize) -> OpNode {
        node(OpKind::BatchNorm { weight: ParamId(0), bias: ParamId(1) }, &[input])
    }

    fn lowered(ops: Vec<OpNode>) -> Lowered {
        lower(&Network { ops, params: vec![], pruned: vec![], n_cells: 0 })
    }

    #[test]
    fn equal_relus_become_one_and_join_their_norm() {
        let ops = vec![
            node(OpKind::Input, &[]),
            norm(0),
            node(OpKind::Relu, &[1]),
            norm(2),
            norm(2),
            node(OpKind::Relu, &[3]),
            node(OpKind::Relu, &[3]),
            node(OpKind::Concat, &[5, 6, 4, 3]),
            node(OpKind::GlobalAvgPool, &[7]),
        ];
        let Lowered { network, marks } = lowered(ops);
        let inputs: Vec<Vec<usize>> =
            network.ops.iter().map(|op| op.inputs.iter().map(|input| input.0).collect()).collect();
        assert_eq!(inputs, [vec![], vec![0], vec![1], vec![1], vec![2], vec![4, 4, 3, 2], vec![5]]);
        let origins: Vec<usize> = marks.iter().map(|marks| marks.origin).collect();
        assert_eq!(origins, [0, 1, 3, 4, 5, 7, 8]);
        let relus: Vec<bool> = marks.iter().map(|marks| marks.relu).collect();
        assert_eq!(
            relus,
            [false, true, false, false, false, false, false],
            "the second norm has other readers"
        );
    }

    #[test]
    fn norms_go_into_the_only_sum_that_reads_them() {
        let ops = vec![
            node(OpKind::Input, &[]),
            norm(0),
            norm(0),
            norm(0),
            node(OpKind::Add, &[1, 2]),
            node(OpKind::Add, &[4, 3]),
            node(OpKind::Add, &[5, 3]),
            node(OpKind::GlobalAvgPool, &[6]),
        ];
        let within: Vec<bool> = lowered(ops).marks.iter().map(|marks| marks.within_sum).collect();
        assert_eq!(within, [false, true, true, false, false, false, false, false]);
    }

    #[test]
    fn only_convolutions_without_padding_take_a_crop() {
        let conv =
            |padding| OpKind::Conv { weight: ParamId(0), stride: [2, 2], padding, dilation: 1, groups: 1 };
        for (padding, taken) in [([0, 0], true), ([1, 1], false)] {
            let ops = vec![
                node(OpKind::Input, &[]),
                node(OpKind::Crop, &[0]),
                node(conv(padding), &[1]),
                node(OpKind::GlobalAvgPool, &[2]),
            ];
            let Lowered { network, marks } = lowered(ops);
            assert_eq!(network.ops.len(), if taken { 3 } else { 4 });
            assert_eq!(marks.iter().any(|marks| marks.crop), taken);
        }
    }
}
