//! Expansion of a cell architecture into a network, op by op as the reference of arXiv 2110.13100 builds it.
//!
//! In: a [`CellArchitecture`] (genotype and macro settings), the number of classes, the image size. Out: the
//! [`Network`] with the reference's parameter names, without what cannot reach the output.

use super::builder::Builder;
use super::check::check;
use super::ir::{Network, OpId, OpKind};
use super::module::{Module, Width};
use crate::space::{CellArchitecture, Edge, Op};
use crate::{Error, Result};

/// Share of the hidden units of the head that is dropped in training.
const HEAD_DROPOUT: f32 = 0.5;

/// A cell's output: none where it was lost through `none` ops; the channel count is known all the same.
#[derive(Clone, Copy)]
struct State {
    op: Option<OpId>,
    channels: usize,
}

/// Expands `arch` for 32x32 images, or 224x224 if it was made for ImageNet.
///
/// ```
/// use foretell::space::{CellArchitecture, Genotype};
/// let genotype: Genotype = serde_json::from_str(
///     r#"{"normal": [["conv_3x3", 0], ["skip_connect", 1]], "normal_concat": [2],
///         "reduce": [["max_pool_3x3", 0], ["cse", 1]], "reduce_concat": [2]}"#,
/// )?;
/// let arch = CellArchitecture {
///     channels: 16, fc_dim: 64, genotype, n_cells: 4, stem_kernel: 3, stem_type: 0, stem_pool: false,
///     norm: Some(foretell::space::Norm::Batch), preproc: true, channel_multiplier: 2, fc_layers: 1,
///     global_pool: true, imagenet_input: false,
/// };
/// let network = foretell::network::expand(&arch, 10)?;
/// assert_eq!(network.params[0].name, "stem.0.weight");
/// assert_eq!(network.params[0].shape, [48, 3, 3, 3]);
/// assert_eq!(network.num_classes(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Architecture`] if a setting is out of range, shapes do not fit, or `none` ops cut the output off.
pub fn expand(arch: &CellArchitecture, num_classes: usize) -> Result<Network> {
    expand_at(arch, num_classes, if arch.imagenet_input { [224, 224] } else { [32, 32] })
}

/// Expands `arch` for images of `size` (height, width).
///
/// Stem strides follow [`CellArchitecture::imagenet_input`]; positional weights and flattened heads follow `size`.
///
/// # Errors
/// As [`expand`].
pub fn expand_at(arch: &CellArchitecture, num_classes: usize, size: [usize; 2]) -> Result<Network> {
    expand_parts(arch, num_classes, size).map(|(network, _)| network)
}

/// As [`expand`], with the ops that end the branches of the cells' sums: outputs of a cell's ops, identities left
/// out, that are added to another term and read by nobody else. Drop path (arXiv 1605.07648) acts on them.
///
/// # Errors
/// As [`expand`].
pub fn expand_with_branches(arch: &CellArchitecture, num_classes: usize) -> Result<(Network, Vec<OpId>)> {
    expand_parts(arch, num_classes, if arch.imagenet_input { [224, 224] } else { [32, 32] })
}

fn expand_parts(
    arch: &CellArchitecture,
    num_classes: usize,
    size: [usize; 2],
) -> Result<(Network, Vec<OpId>)> {
    check(arch, num_classes)?;
    if size.iter().any(|side| !(1..=4096).contains(side)) {
        return Err(Error::Architecture(format!("images of {}x{} are out of range", size[0], size[1])));
    }
    let genotype = &arch.genotype;
    let attention = genotype.contains(Op::Msa);
    let (mut b, image) = Builder::new([3, size[0], size[1]]);
    let stem = if attention {
        stem_of_attention(&mut b, arch, image)?
    } else if arch.stem_type == 0 {
        stem_of_cifar(&mut b, arch, image)?
    } else {
        stem_of_imagenet(&mut b, arch, image)?
    };

    let reductions = [arch.n_cells / 3, 2 * arch.n_cells / 3];
    let [mut before, mut last] = stem.states;
    let mut channels = arch.channels;
    let mut reduced_before = arch.stem_type == 1;
    for index in 0..arch.n_cells {
        let reduction = index > 0 && reductions.contains(&index);
        let (edges, concat) = if reduction {
            channels *= arch.channel_multiplier;
            (&genotype.reduce, &genotype.reduce_concat)
        } else {
            (&genotype.normal, &genotype.normal_concat)
        };
        let cell = Cell {
            name: format!("cells.{index}"),
            edges,
            concat,
            channels,
            norm: arch.norm.is_some(),
            preproc: arch.preproc,
            halve_inputs: reduction && !attention,
            halve_first: reduced_before && !attention,
        };
        let output = cell.expand(&mut b, [before, last])?;
        (before, last) = (last, output);
        reduced_before = reduction;
    }
    let Some(features) = last.op else {
        return Err(Error::Architecture("the last cell's output is lost through none ops".into()));
    };

    let logits = head(&mut b, arch, num_classes, features)?;
    if let Some(rectified) = stem.rectified
        && b.ancestors(logits)[rectified.by.0]
    {
        b.rewire(rectified.from, rectified.to);
    }
    b.finish_with_branches(logits, arch.n_cells)
}

/// What a stem hands to the cells.
struct Stem {
    states: [State; 2],
    rectified: Option<Rectified>,
}

/// A ReLU that overwrites its input: where the stem's part behind it runs, everybody sees its output.
struct Rectified {
    from: OpId,
    to: OpId,
    /// The part's output.
    by: OpId,
}

fn stem_of_attention(b: &mut Builder, arch: &CellArchitecture, image: OpId) -> Result<Stem> {
    let c = arch.channels;
    let (kernel, padding) = if arch.imagenet_input { (16, 0) } else { (3, 1) };
    let weight = b.param("stem0.weight".into(), vec![c, 3, kernel, kernel]);
    let (stride, padding) = ([if arch.imagenet_input { 16 } else { 3 }; 2], [padding; 2]);
    let tokens = b.push(OpKind::Conv { weight, stride, padding, dilation: 1, groups: 1 }, &[image])?;
    let [_, h, w] = b.shape(tokens);
    let weight = b.param("pos_enc.weight".into(), vec![1, c, h, w]);
    let op = Some(b.push(OpKind::PosEnc { weight }, &[tokens])?);
    Ok(Stem { states: [State { op, channels: c }; 2], rectified: None })
}

fn stem_of_cifar(b: &mut Builder, arch: &CellArchitecture, image: OpId) -> Result<Stem> {
    let widened = arch.preproc && !arch.imagenet_input;
    let channels = arch.channels * if widened { 3 } else { 1 };
    let stride = if arch.imagenet_input { 4 } else { 1 };
    let mut kinds = vec![b.conv("stem.0", [channels, 3, arch.stem_kernel, arch.stem_kernel], [stride; 2])];
    kinds.extend(arch.norm.map(|_| b.batch_norm("stem.1", channels)));
    kinds.extend(arch.stem_pool.then_some(OpKind::MaxPool { kernel: 3, stride: 2, padding: 1 }));
    let op = Some(b.chain(kinds, image)?);
    Ok(Stem { states: [State { op, channels }; 2], rectified: None })
}

fn stem_of_imagenet(b: &mut Builder, arch: &CellArchitecture, image: OpId) -> Result<Stem> {
    let c = arch.channels;
    let stride = [if arch.imagenet_input { 2 } else { 1 }; 2];
    let mut kinds = vec![b.conv("stem0.0", [c / 2, 3, arch.stem_kernel, arch.stem_kernel], stride)];
    kinds.extend(arch.norm.map(|_| b.batch_norm("stem0.1", c / 2)));
    kinds.extend([OpKind::Relu, b.conv("stem0.3", [c, c / 2, 3, 3], stride)]);
    kinds.extend(arch.norm.map(|_| b.batch_norm("stem0.4", c)));
    let first = b.chain(kinds, image)?;
    let rectified = b.push(OpKind::Relu, &[first])?;
    let mut kinds = vec![b.conv("stem1.1", [c, c, 3, 3], [2, 2])];
    kinds.extend(arch.norm.map(|_| b.batch_norm("stem1.2", c)));
    let second = b.chain(kinds, rectified)?;
    let states = [first, second].map(|op| State { op: Some(op), channels: c });
    Ok(Stem { states, rectified: Some(Rectified { from: first, to: rectified, by: second }) })
}

/// One cell to be expanded.
struct Cell<'a> {
    name: String,
    edges: &'a [Edge],
    concat: &'a [usize],
    channels: usize,
    norm: bool,
    preproc: bool,
    /// Ops on the cell's inputs have stride 2.
    halve_inputs: bool,
    /// The first input has twice the resolution of the second.
    halve_first: bool,
}

impl Cell<'_> {
    fn expand(&self, b: &mut Builder, inputs: [State; 2]) -> Result<State> {
        let preprocess = [0, 1].map(|index| self.preprocess(b, index, inputs[index].channels));
        let mut modules = Vec::with_capacity(self.edges.len());
        for (slot, Edge(op, input)) in self.edges.iter().enumerate() {
            let stride = if self.halve_inputs && *input < 2 { 2 } else { 1 };
            let width = Width { channels: self.channels, stride, norm: self.norm };
            modules.push((Module::declare(b, &format!("{}._ops.{slot}", self.name), *op, width)?, *input));
        }

        let mut states: Vec<Option<OpId>> = Vec::with_capacity(2 + self.edges.len() / 2);
        for (module, input) in preprocess.into_iter().zip(inputs) {
            let module = module?;
            states.push(input.op.map(|x| module.apply(b, x)).transpose()?);
        }
        let mut modules = modules.into_iter();
        while let (Some(left), Some(right)) = (modules.next(), modules.next()) {
            let mut terms = [None; 2];
            for (term, (module, input)) in terms.iter_mut().zip([left, right]) {
                if let (Some(module), Some(x)) = (module, states[input]) {
                    let output = module.apply(b, x)?;
                    *term = Some((output, output != x));
                }
            }
            states.push(match terms {
                [Some((left, left_computes)), Some((right, right_computes))] => {
                    for (term, computes) in [(left, left_computes), (right, right_computes)] {
                        if computes {
                            b.end_branch(term);
                        }
                    }
                    Some(b.push(OpKind::Add, &[left, right])?)
                }
                [left, right] => left.or(right).map(|(term, _)| term),
            });
        }
        let channels = self.channels * self.concat.len();
        Ok(State { op: self.concatenate(b, &states)?, channels })
    }

    /// The module on input `index`, which has `inner` channels.
    fn preprocess(&self, b: &mut Builder, index: usize, inner: usize) -> Result<Module> {
        let name = format!("{}.preprocess{index}", self.name);
        let halve = self.halve_first && index == 0;
        Ok(match (self.preproc, halve) {
            (true, true) => Module::factorised_reduction(b, &name, [self.channels, inner], self.norm)?,
            (true, false) => {
                let weight = [self.channels, inner, 1, 1];
                Module::relu_conv_norm(b, &format!("{name}.op"), weight, 1, self.norm)
            }
            (false, true) => Module::Chain(vec![OpKind::Subsample { stride: 2 }]),
            (false, false) => Module::Chain(Vec::new()),
        })
    }

    /// Concatenates the states; missing ones become zeros, unless all are missing.
    fn concatenate(&self, b: &mut Builder, states: &[Option<OpId>]) -> Result<Option<OpId>> {
        let Some(present) = self.concat.iter().find_map(|&state| states[state]) else {
            return Ok(None);
        };
        let mut inputs = Vec::with_capacity(self.concat.len());
        for &state in self.concat {
            inputs.push(match states[state] {
                Some(op) => op,
                None => b.push(OpKind::Zeros, &[present])?,
            });
        }
        // A single state is concatenated too: the graph's bypass rules can tell the difference.
        b.push(OpKind::Concat, &inputs).map(Some)
    }
}

fn head(b: &mut Builder, arch: &CellArchitecture, num_classes: usize, features: OpId) -> Result<OpId> {
    let pool = if arch.global_pool { OpKind::GlobalAvgPool } else { OpKind::Flatten };
    let mut x = b.push(pool, &[features])?;
    let layers = arch.fc_layers.max(1);
    for layer in 0..layers {
        let out = if layer + 1 == layers { num_classes } else { arch.fc_dim };
        if layer > 0 {
            x = b.chain([OpKind::Relu, OpKind::Dropout { p: HEAD_DROPOUT }], x)?;
        }
        let inner = b.shape(x)[0];
        let linear = b.linear(&format!("classifier.{}", 3 * layer), [out, inner], true);
        x = b.push(linear, &[x])?;
    }
    Ok(x)
}
