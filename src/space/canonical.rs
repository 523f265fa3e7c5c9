//! The canonical form of an architecture: one spelling for all that are the same network up to renaming.
//!
//! In: a cell architecture. Out: an architecture that expands to the same network, apart from the numbering of
//! steps (parameter names, order of channels) and from parameters that cannot reach the output. Every rewrite keeps
//! the network, so two architectures of equal canonical form are the same network; the converse is not promised
//! for cells that the output happens to skip.

use super::architecture::{CellArchitecture, Norm};
use super::genotype::{Edge, Genotype};
use super::op::Op;
use std::collections::BTreeSet;

/// An edge that contributes nothing.
const NOTHING: Edge = Edge(Op::None, 0);
/// Numberings followed at once; more than any cell of up to 12 steps was seen to need. Beyond it, equal cells may
/// get different forms, never different cells the same.
const MAX_NUMBERINGS: usize = 4096;

/// The canonical form of `arch`; an architecture whose genotype is not well formed is returned as it is.
///
/// ```
/// use foretell::space::{Genotype, canonical_genotype};
/// let parse = |json| serde_json::from_str::<Genotype>(json).unwrap();
/// let a = parse(r#"{"normal": [["conv_3x3", 0], ["skip_connect", 1], ["cse", 0], ["none", 2]],
///     "normal_concat": [2], "reduce": [["cse", 1], ["none", 0]], "reduce_concat": [2]}"#);
/// let b = parse(r#"{"normal": [["skip_connect", 1], ["conv_3x3", 0]],
///     "normal_concat": [2], "reduce": [["none", 1], ["cse", 1]], "reduce_concat": [2]}"#);
/// assert_eq!(canonical_genotype(&a), canonical_genotype(&b));
/// ```
pub fn canonical(arch: &CellArchitecture) -> CellArchitecture {
    if arch.genotype.check().is_err() {
        return arch.clone();
    }
    let mut form = CellArchitecture { genotype: canonical_genotype(&arch.genotype), ..arch.clone() };
    let attention = arch.genotype.contains(Op::Msa);
    if form.n_cells == 1 {
        // A single cell is never a reduction.
        form.channel_multiplier = 1;
        form.genotype.reduce = vec![NOTHING, NOTHING];
        form.genotype.reduce_concat = vec![2];
    }
    // Attention anywhere, even where it is not connected, chooses the ViT stem and forbids strides.
    if attention && !form.genotype.contains(Op::Msa) {
        form.genotype.normal.extend([NOTHING, Edge(Op::Msa, 0)]);
    }
    if attention {
        (form.stem_kernel, form.stem_type, form.stem_pool) = (3, 0, false);
    } else if form.stem_type == 1 {
        form.stem_pool = false;
    }
    let normalises = |cell: &[Edge]| cell.iter().any(|edge| edge.0.is_convolution());
    let norms =
        !attention || form.preproc || normalises(&form.genotype.normal) || normalises(&form.genotype.reduce);
    form.norm = form.norm.filter(|_| norms).map(|_| Norm::Batch);
    form.fc_layers = form.fc_layers.max(1);
    if form.fc_layers == 1 {
        form.fc_dim = 0;
    }
    form
}

/// The canonical form of a pair of cells, whatever network they stand in; it must be well formed
/// ([`Genotype::check`]).
pub fn canonical_genotype(genotype: &Genotype) -> Genotype {
    let (normal, normal_concat) = canonical_cell(&genotype.normal, &genotype.normal_concat);
    let (reduce, reduce_concat) = canonical_cell(&genotype.reduce, &genotype.reduce_concat);
    Genotype { normal, normal_concat, reduce, reduce_concat }
}

/// A step: its two edges, and how often its state is concatenated (negated, so that concatenated steps come first).
type Row = ([Edge; 2], std::cmp::Reverse<usize>);

fn canonical_cell(cell: &[Edge], concat: &[usize]) -> (Vec<Edge>, Vec<usize>) {
    let steps = connected_steps(cell, concat);
    let numbers = canonical_numbers(&steps);
    let number = |state: usize| match state {
        0 | 1 => state,
        step => numbers[step - 2],
    };
    let mut rows: Vec<(usize, [Edge; 2])> = steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| Some((number(index + 2), renumbered(step.as_ref()?.0, number))))
        .collect();
    rows.sort_unstable();
    let mut concat: Vec<usize> = concat.iter().map(|&state| number(state)).collect();
    concat.sort_unstable();
    if rows.is_empty() {
        // Only inputs are concatenated; a cell has a step all the same.
        return (vec![NOTHING, NOTHING], concat);
    }
    (rows.into_iter().flat_map(|(_, edges)| edges).collect(), concat)
}

// The steps that the concatenation depends on, with edges that contribute nothing replaced by `NOTHING`.
fn connected_steps(cell: &[Edge], concat: &[usize]) -> Vec<Option<Row>> {
    let mut present = vec![true; 2];
    let mut steps: Vec<[Edge; 2]> = Vec::with_capacity(cell.len() / 2);
    for pair in cell.chunks_exact(2) {
        let edges =
            [pair[0], pair[1]].map(|edge| if edge.0 != Op::None && present[edge.1] { edge } else { NOTHING });
        present.push(edges != [NOTHING; 2]);
        steps.push(edges);
    }
    let mut live = vec![false; present.len()];
    concat.iter().for_each(|&state| live[state] = true);
    for (index, edges) in steps.iter().enumerate().rev() {
        if live[index + 2] {
            edges.iter().filter(|edge| **edge != NOTHING).for_each(|edge| live[edge.1] = true);
        }
    }
    let listed = |state: usize| std::cmp::Reverse(concat.iter().filter(|&&listed| listed == state).count());
    steps
        .into_iter()
        .enumerate()
        .map(|(index, edges)| live[index + 2].then(|| (edges, listed(index + 2))))
        .collect()
}

fn renumbered(edges: [Edge; 2], number: impl Fn(usize) -> usize) -> [Edge; 2] {
    let mut edges = edges.map(|Edge(op, input)| Edge(op, number(input)));
    edges.sort_unstable();
    edges
}

/// Numbers of the states of connected steps such that the rows, read in the order of the numbers, are the smallest
/// of all topological orders. Steps that tie are all followed, since what reads them later can tell them apart.
fn canonical_numbers(steps: &[Option<Row>]) -> Vec<usize> {
    const UNSET: usize = usize::MAX;
    let reads = |step: usize, state: usize| {
        steps[step].is_some_and(|(edges, _)| edges.iter().any(|edge| *edge != NOTHING && edge.1 == state))
    };
    let mut numberings = vec![vec![UNSET; steps.len()]];
    for next in 0..steps.iter().flatten().count() {
        let mut best: Option<Row> = None;
        let mut extended: Vec<(usize, usize)> = Vec::new();
        for (which, numbers) in numberings.iter().enumerate() {
            for (step, row) in steps.iter().enumerate() {
                let Some((edges, listed)) = row else { continue };
                let known = |edge: &Edge| edge.1 < 2 || numbers[edge.1 - 2] != UNSET;
                if numbers[step] != UNSET || !edges.iter().all(known) {
                    continue;
                }
                let number = |state: usize| if state < 2 { state } else { numbers[state - 2] };
                let row = (renumbered(*edges, number), *listed);
                if best.is_none_or(|best| row < best) {
                    best = Some(row);
                    extended.clear();
                }
                if best == Some(row) {
                    extended.push((which, step));
                }
            }
        }
        // Two numberings of the same steps differ only by what is still to be read.
        let mut seen = BTreeSet::new();
        let mut following = Vec::new();
        for (which, step) in extended {
            let mut numbers = numberings[which].clone();
            numbers[step] = next + 2;
            let open: Vec<Option<usize>> = (0..steps.len())
                .map(|state| {
                    let awaited = (0..steps.len()).any(|s| numbers[s] == UNSET && reads(s, state + 2));
                    (numbers[state] != UNSET).then_some(if awaited { numbers[state] } else { 0 })
                })
                .collect();
            if seen.insert(open) && following.len() < MAX_NUMBERINGS {
                following.push(numbers);
            }
        }
        numberings = following;
    }
    numberings.swap_remove(0)
}
