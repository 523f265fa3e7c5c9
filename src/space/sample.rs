//! Drawing architectures from a space with the distribution of DeepNets-1M (arXiv 2110.13100, section 3).
//!
//! In: a [`Space`] and a generator of random numbers. Out: architectures that pass its rules and limits. The
//! reference draws normal scores for every edge and derives a cell from the best, as DARTS does; that is the same as
//! a uniformly random pair of distinct inputs per step with a uniformly random operation each, which is drawn here.

use super::architecture::{CellArchitecture, Norm};
use super::definition::Space;
use super::genotype::{Edge, Genotype};
use super::limits::Refusal;
use super::op::Op;
use super::rules::Rule;
use crate::error::{Error, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Draws after which a space whose rules or limits refuse everything is given up.
const MAX_DRAWS: u64 = 5_000;

/// How many draws were made and why some were refused; each is counted under the first rule that it broke.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejections {
    /// All draws, accepted ones included.
    pub draws: u64,
    /// Squeeze-and-excitation without any convolution.
    pub cse_without_conv: u64,
    /// Two or more squeeze-and-excitations in one cell.
    pub two_cse: u64,
    /// Two or more dense 5x5 or 7x7 convolutions in one cell.
    pub two_large_convs: u64,
    /// No operation with parameters.
    pub no_learnable_op: u64,
    /// More parameters than allowed.
    pub too_many_params: u64,
    /// More multiply-accumulates than allowed.
    pub too_many_macs: u64,
    /// The output is cut off from the input by `none`.
    pub lost_output: u64,
    /// Fewest parameters and multiply-accumulates among the refused, for messages.
    #[serde(skip)]
    pub(super) least_refused: [Option<u64>; 2],
}

impl Rejections {
    /// Draws that were accepted or refused only by size or for want of an output.
    pub fn candidates(&self) -> u64 {
        self.draws - self.cse_without_conv - self.two_cse - self.two_large_convs - self.no_learnable_op
    }

    fn count(&mut self, refusal: &Refusal) {
        let least =
            |seen: &mut Option<u64>, found| *seen = Some(seen.map_or(found, |least| least.min(found)));
        match refusal {
            Refusal::Rule(Rule::CseWithoutConv) => self.cse_without_conv += 1,
            Refusal::Rule(Rule::TwoCse) => self.two_cse += 1,
            Refusal::Rule(Rule::TwoLargeConvs) => self.two_large_convs += 1,
            Refusal::Rule(Rule::NoLearnableOp) => self.no_learnable_op += 1,
            Refusal::Params { found, .. } => {
                self.too_many_params += 1;
                least(&mut self.least_refused[0], *found);
            }
            Refusal::Macs { found, .. } => {
                self.too_many_macs += 1;
                least(&mut self.least_refused[1], *found);
            }
            Refusal::LostOutput(_) => self.lost_output += 1,
        }
    }
}

impl std::fmt::Display for Rejections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let smallest = |least: Option<u64>| least.map_or_else(String::new, |n| format!(" (smallest: {n})"));
        let reasons = [
            (self.cse_without_conv, "had cse without convolution".to_owned()),
            (self.two_cse, "had two cse in a cell".to_owned()),
            (self.two_large_convs, "had two 5x5 or 7x7 convolutions in a cell".to_owned()),
            (self.no_learnable_op, "had no operation with parameters".to_owned()),
            (self.too_many_params, format!("were above max_params{}", smallest(self.least_refused[0]))),
            (self.too_many_macs, format!("were above max_macs{}", smallest(self.least_refused[1]))),
            (self.lost_output, "had no path from input to output".to_owned()),
        ];
        let given: Vec<_> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
        write!(f, "of {} draws {}", self.draws, given.join(", "))
    }
}

impl Space {
    /// Draws an architecture.
    ///
    /// # Errors
    /// [`Error::Config`] if no acceptable one turns up in 5,000 draws (an impossible limit); the message counts
    /// the reasons.
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        self.sample_counted(rng, &mut Rejections::default())
    }

    /// Draws an architecture and adds the refused draws to `rejections`.
    ///
    /// # Errors
    /// As [`Space::sample`].
    pub fn sample_counted(
        &self,
        rng: &mut ChaCha8Rng,
        rejections: &mut Rejections,
    ) -> Result<CellArchitecture> {
        let mut here = Rejections::default();
        for _ in 0..MAX_DRAWS {
            let arch = self.draw(rng);
            rejections.draws += 1;
            here.draws += 1;
            match self.refusal(&arch)? {
                None => return Ok(arch),
                Some(refusal) => {
                    rejections.count(&refusal);
                    here.count(&refusal);
                }
            }
        }
        Err(Error::Config(format!(
            "search space `{}` holds no acceptable network as far as can be seen: {here}; widen its limits",
            self.name
        )))
    }

    // One draw, before the rules that refuse.
    fn draw(&self, rng: &mut ChaCha8Rng) -> CellArchitecture {
        let n_cells = within(rng, &self.n_cells);
        let deep = n_cells > within(rng, &self.deep_above);
        let steps = within(rng, if deep { &self.steps_deep } else { &self.steps });
        let plain = rng.random_bool(self.plain_reduce);
        let normal = self.draw_cell(rng, steps, false, plain);
        let reduce = self.draw_cell(rng, steps, true, plain);
        let concat = self.draw_concat(rng, steps);
        let mut arch = CellArchitecture {
            channels: pick(rng, &self.channels),
            fc_dim: pick(rng, &self.fc_dims),
            genotype: Genotype { normal, normal_concat: concat.clone(), reduce, reduce_concat: concat },
            n_cells,
            stem_kernel: pick(rng, &self.stem_kernels),
            stem_type: pick(rng, &self.stem_types) as u8,
            stem_pool: false,
            norm: None,
            preproc: true,
            channel_multiplier: pick(rng, &self.multipliers),
            fc_layers: pick(rng, &self.fc_layers),
            global_pool: true,
            imagenet_input: self.imagenet_input,
        };
        arch.stem_pool = rng.random_bool(self.stem_pool_chance(&arch));
        arch.norm = (!rng.random_bool(self.norm_none_chance(&arch))).then_some(Norm::Batch);
        arch.preproc = !rng.random_bool(self.preproc_skip_chance(&arch));
        arch.global_pool = !rng.random_bool(self.flatten_chance(&arch, deep));
        arch
    }

    fn draw_cell(&self, rng: &mut ChaCha8Rng, steps: usize, reduce: bool, plain: bool) -> Vec<Edge> {
        let ops = self.edge_ops(reduce, steps, reduce && plain);
        let mut cell = Vec::with_capacity(2 * steps);
        for step in 0..steps {
            cell.extend(random_inputs(rng, step).map(|input| Edge(pick(rng, &ops), input)));
        }
        cell
    }

    pub(super) fn draw_concat(&self, rng: &mut ChaCha8Rng, steps: usize) -> Vec<usize> {
        let last = steps + 1;
        let drop = steps > 1 && rng.random_bool(self.drop_concat);
        let mut concat: Vec<usize> = (2..last).filter(|_| !drop || rng.random_bool(0.5)).collect();
        concat.push(last);
        concat
    }

    /// Operations that an edge may hold in cells of `steps` steps; `plain`: without parameters.
    pub(super) fn edge_ops(&self, reduce: bool, steps: usize, plain: bool) -> Vec<Op> {
        let list = if reduce { &self.reduce_ops } else { &self.normal_ops };
        list.iter()
            .copied()
            .filter(|op| (steps > 1 || *op != Op::None) && !(plain && op.is_learnable()))
            .collect()
    }

    pub(super) fn stem_pool_chance(&self, arch: &CellArchitecture) -> f64 {
        if arch.stem_type == 0 { self.stem_pool } else { 0.0 }
    }

    pub(super) fn norm_none_chance(&self, arch: &CellArchitecture) -> f64 {
        let cells = self.norm_none_max_cells.is_none_or(|most| arch.n_cells <= most);
        let steps = self.norm_none_max_steps.is_none_or(|most| arch.genotype.steps() <= most);
        if cells && steps { self.norm_none } else { 0.0 }
    }

    pub(super) fn preproc_skip_chance(&self, arch: &CellArchitecture) -> f64 {
        match arch.genotype.steps() > 1 || arch.channel_multiplier > 1 {
            true => 0.0,
            false if arch.genotype.contains(Op::Msa) => self.preproc_skip_attention,
            false => self.preproc_skip,
        }
    }

    pub(super) fn flatten_chance(&self, arch: &CellArchitecture, deep: bool) -> f64 {
        if deep || arch.genotype.contains(Op::Msa) { 0.0 } else { self.flatten }
    }
}

/// A uniformly random entry of a list that is not empty.
pub(super) fn pick<T: Copy>(rng: &mut ChaCha8Rng, list: &[T]) -> T {
    list[rng.random_range(0..list.len())]
}

/// A uniformly random number of a range.
pub(super) fn within(rng: &mut ChaCha8Rng, range: &std::ops::RangeInclusive<usize>) -> usize {
    rng.random_range(range.clone())
}

/// Two distinct states, in random order, that step `step` of a cell can read.
pub(super) fn random_inputs(rng: &mut ChaCha8Rng, step: usize) -> [usize; 2] {
    let first = rng.random_range(0..step + 2);
    let second = rng.random_range(0..step + 1);
    [first, if second >= first { second + 1 } else { second }]
}

/// Width and hidden width for one use of a training architecture: small networks train wide, large ones narrow.
///
/// `n_params` counts everything that is built at 32 channels, hidden width 256 and ten classes. Returns `C`, drawn
/// from the first values of 32, 48, ..., 128, and `fc_dim`, drawn from 64, 128, ..., 512 (METHOD: reference recipe).
pub fn training_width(arch: &CellArchitecture, n_params: usize, rng: &mut ChaCha8Rng) -> (usize, usize) {
    let large =
        arch.genotype.normal.iter().chain(&arch.genotype.reduce).any(|edge| edge.0.is_large_convolution());
    let widths = if n_params > 800_000 || !arch.global_pool || large || arch.n_cells > 12 {
        1
    } else if n_params > 400_000 || arch.n_cells > 10 {
        2
    } else if n_params > 200_000 || arch.n_cells > 8 {
        3
    } else {
        7
    };
    let channels = 32 + 16 * rng.random_range(0..widths);
    let hidden = if widths == 7 && channels <= 64 { 8 } else { 4 };
    (channels, 64 * rng.random_range(1..=hidden))
}
