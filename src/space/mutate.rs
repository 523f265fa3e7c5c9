//! Changing architectures within a space: mutation of one decision, and crossover of two parents.
//!
//! In: architectures of the space. Out: an architecture of the space that is another network than its parents where
//! that can be had. What a change makes impossible elsewhere (say, `none` in a cell that lost all but one step) is
//! repaired; a child that breaks a rule or limit is drawn anew, a bounded number of times.

use super::architecture::{CellArchitecture, Norm};
use super::definition::Space;
use super::genotype::{Edge, Genotype};
use super::hash::arch_hash;
use super::sample::{pick, random_inputs, within};
use crate::error::Result;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Children drawn before a fresh sample takes their place.
const MAX_TRIES: usize = 200;

/// What a mutation changes, with its weight: the cells hold most of the decisions.
const KINDS: [(Kind, u32); 15] = [
    (Kind::NormalOp, 8),
    (Kind::ReduceOp, 4),
    (Kind::NormalInput, 4),
    (Kind::ReduceInput, 2),
    (Kind::Concat, 2),
    (Kind::Steps, 2),
    (Kind::Cells, 2),
    (Kind::Channels, 2),
    (Kind::Multiplier, 1),
    (Kind::Stem, 2),
    (Kind::Norm, 1),
    (Kind::Preproc, 1),
    (Kind::Pooling, 1),
    (Kind::HeadLayers, 1),
    (Kind::HeadWidth, 1),
];

#[derive(Clone, Copy)]
enum Kind {
    NormalOp,
    ReduceOp,
    NormalInput,
    ReduceInput,
    Concat,
    Steps,
    Cells,
    Channels,
    Multiplier,
    Stem,
    Norm,
    Preproc,
    Pooling,
    HeadLayers,
    HeadWidth,
}

impl Space {
    /// An architecture of the space that differs from `arch` in one decision (and in what that one forces).
    ///
    /// A fresh sample takes its place if 200 changes in a row leave the space or the network unchanged. `arch` must
    /// be well formed, but need not belong to the space.
    ///
    /// # Errors
    /// As [`Space::sample`]; [`crate::Error::Architecture`] if `arch` is not well formed.
    pub fn mutate(&self, arch: &CellArchitecture, rng: &mut ChaCha8Rng) -> Result<CellArchitecture> {
        arch.genotype.check()?;
        let parent = arch_hash(arch);
        self.first_valid(rng, |space, rng| {
            let mut child = arch.clone();
            space.change(&mut child, rng);
            space.repair(&mut child, rng);
            (arch_hash(&child) != parent).then_some(child)
        })
    }

    /// An architecture of the space that takes every decision from one of two parents.
    ///
    /// Number of cells and steps come from one parent together; steps that both have, the concatenation and the other
    /// settings come from either. A child equal to a parent is mutated.
    ///
    /// # Errors
    /// As [`Space::mutate`].
    pub fn crossover(
        &self,
        a: &CellArchitecture,
        b: &CellArchitecture,
        rng: &mut ChaCha8Rng,
    ) -> Result<CellArchitecture> {
        a.genotype.check()?;
        b.genotype.check()?;
        let parents = [arch_hash(a), arch_hash(b)];
        self.first_valid(rng, |space, rng| {
            let mut child = cross(a, b, rng);
            space.repair(&mut child, rng);
            if parents.contains(&arch_hash(&child)) {
                space.change(&mut child, rng);
                space.repair(&mut child, rng);
            }
            (!parents.contains(&arch_hash(&child))).then_some(child)
        })
    }

    fn first_valid(
        &self,
        rng: &mut ChaCha8Rng,
        child: impl Fn(&Space, &mut ChaCha8Rng) -> Option<CellArchitecture>,
    ) -> Result<CellArchitecture> {
        for _ in 0..MAX_TRIES {
            let Some(child) = child(self, rng) else { continue };
            if self.check_settings(&child).is_ok() && self.refusal(&child)?.is_none() {
                return Ok(child);
            }
        }
        self.sample(rng)
    }

    fn change(&self, arch: &mut CellArchitecture, rng: &mut ChaCha8Rng) {
        match weighted_kind(rng) {
            Kind::NormalOp => self.change_op(arch, false, rng),
            Kind::ReduceOp => self.change_op(arch, true, rng),
            Kind::NormalInput => change_input(&mut arch.genotype.normal, rng),
            Kind::ReduceInput => change_input(&mut arch.genotype.reduce, rng),
            Kind::Concat => {
                let concat = self.draw_concat(rng, arch.genotype.steps());
                arch.genotype.reduce_concat.clone_from(&concat);
                arch.genotype.normal_concat = concat;
            }
            Kind::Steps => {
                let steps = arch.genotype.steps();
                let steps = if rng.random_bool(0.5) { steps + 1 } else { steps.saturating_sub(1).max(1) };
                self.resize(&mut arch.genotype, steps, rng);
            }
            Kind::Cells => arch.n_cells = within(rng, &self.n_cells),
            Kind::Channels => arch.channels = pick(rng, &self.channels),
            Kind::Multiplier => arch.channel_multiplier = pick(rng, &self.multipliers),
            Kind::Stem => match rng.random_range(0..3) {
                0 => arch.stem_kernel = pick(rng, &self.stem_kernels),
                1 => arch.stem_type = pick(rng, &self.stem_types) as u8,
                _ => arch.stem_pool = !arch.stem_pool,
            },
            Kind::Norm => arch.norm = if arch.norm.is_some() { None } else { Some(Norm::Batch) },
            Kind::Preproc => arch.preproc = !arch.preproc,
            Kind::Pooling => arch.global_pool = !arch.global_pool,
            Kind::HeadLayers => arch.fc_layers = pick(rng, &self.fc_layers),
            Kind::HeadWidth => arch.fc_dim = pick(rng, &self.fc_dims),
        }
    }

    fn change_op(&self, arch: &mut CellArchitecture, reduce: bool, rng: &mut ChaCha8Rng) {
        let ops = self.edge_ops(reduce, arch.genotype.steps(), reduce && self.plain_reduce == 1.0);
        let cell = if reduce { &mut arch.genotype.reduce } else { &mut arch.genotype.normal };
        let edge = rng.random_range(0..cell.len());
        cell[edge].0 = pick(rng, &ops);
    }

    // Drops the last steps of both cells, or appends random ones.
    fn resize(&self, genotype: &mut Genotype, steps: usize, rng: &mut ChaCha8Rng) {
        for (cell, reduce) in [(&mut genotype.normal, false), (&mut genotype.reduce, true)] {
            let ops = self.edge_ops(reduce, steps, reduce && self.plain_reduce == 1.0);
            cell.truncate(2 * steps);
            while cell.len() < 2 * steps {
                let step = cell.len() / 2;
                cell.extend(random_inputs(rng, step).map(|input| Edge(pick(rng, &ops), input)));
            }
        }
    }

    // Settles everything that the other decisions leave no choice about.
    fn repair(&self, arch: &mut CellArchitecture, rng: &mut ChaCha8Rng) {
        arch.imagenet_input = self.imagenet_input;
        arch.n_cells = arch.n_cells.clamp(*self.n_cells.start(), *self.n_cells.end());
        let allowed: Vec<_> = self
            .depths(arch.n_cells)
            .into_iter()
            .map(|deep| if deep { &self.steps_deep } else { &self.steps })
            .collect();
        let steps = arch.genotype.steps();
        if !allowed.iter().any(|range| range.contains(&steps)) {
            let nearest =
                |range: &&std::ops::RangeInclusive<usize>| steps.clamp(*range.start(), *range.end());
            let steps = allowed.iter().map(nearest).min_by_key(|near| near.abs_diff(steps)).unwrap_or(steps);
            self.resize(&mut arch.genotype, steps, rng);
        } else if arch.genotype.reduce.len() != arch.genotype.normal.len() {
            self.resize(&mut arch.genotype, steps, rng);
        }
        self.repair_cells(&mut arch.genotype, rng);

        let settle = |rng: &mut ChaCha8Rng, value: &mut usize, list: &[usize]| {
            if !list.contains(value) {
                *value = pick(rng, list);
            }
        };
        settle(rng, &mut arch.channels, &self.channels);
        settle(rng, &mut arch.channel_multiplier, &self.multipliers);
        settle(rng, &mut arch.stem_kernel, &self.stem_kernels);
        settle(rng, &mut arch.fc_layers, &self.fc_layers);
        settle(rng, &mut arch.fc_dim, &self.fc_dims);
        let mut stem_type = usize::from(arch.stem_type);
        settle(rng, &mut stem_type, &self.stem_types);
        arch.stem_type = stem_type as u8;

        arch.stem_pool = forced(arch.stem_pool, self.stem_pool_chance(arch));
        let norm_none = forced(arch.norm.is_none(), self.norm_none_chance(arch));
        arch.norm = (!norm_none).then_some(Norm::Batch);
        arch.preproc = !forced(!arch.preproc, self.preproc_skip_chance(arch));
        // A network that may count as deep may always pool globally; only if it cannot can flattening be forced.
        let flatten: Vec<f64> =
            self.depths(arch.n_cells).into_iter().map(|deep| self.flatten_chance(arch, deep)).collect();
        let least = flatten.iter().copied().fold(1.0, f64::min);
        let most = flatten.iter().copied().fold(0.0, f64::max);
        arch.global_pool = !if arch.global_pool { least >= 1.0 } else { most > 0.0 };
    }

    fn repair_cells(&self, genotype: &mut Genotype, rng: &mut ChaCha8Rng) {
        let steps = genotype.steps();
        for (cell, reduce) in [(&mut genotype.normal, false), (&mut genotype.reduce, true)] {
            let ops = self.edge_ops(reduce, steps, reduce && self.plain_reduce == 1.0);
            for (step, pair) in cell.chunks_exact_mut(2).enumerate() {
                for edge in pair.iter_mut().filter(|edge| !ops.contains(&edge.0)) {
                    edge.0 = pick(rng, &ops);
                }
                if pair[0].1 == pair[1].1 {
                    pair[1].1 = other_input(rng, step, pair[0].1);
                }
            }
        }
        let last = steps + 1;
        let full = self.drop_concat == 0.0;
        let listed = |state: &usize| full || *state == last || genotype.normal_concat.contains(state);
        genotype.normal_concat = (2..=last).filter(listed).collect();
        genotype.reduce_concat.clone_from(&genotype.normal_concat);
    }
}

// The setting, unless `chance` decides it.
fn forced(value: bool, chance: f64) -> bool {
    (value && chance > 0.0) || chance >= 1.0
}

fn weighted_kind(rng: &mut ChaCha8Rng) -> Kind {
    let total = KINDS.iter().map(|(_, weight)| weight).sum();
    let mut draw = rng.random_range(0..total);
    for (kind, weight) in KINDS {
        if draw < weight {
            return kind;
        }
        draw -= weight;
    }
    Kind::NormalOp
}

fn change_input(cell: &mut [Edge], rng: &mut ChaCha8Rng) {
    let edge = rng.random_range(0..cell.len());
    let sibling = cell[edge ^ 1].1;
    cell[edge].1 = other_input(rng, edge / 2, sibling);
}

// A state that step `step` can read, other than `taken`.
fn other_input(rng: &mut ChaCha8Rng, step: usize, taken: usize) -> usize {
    let input = rng.random_range(0..step + 1);
    if input >= taken { input + 1 } else { input }
}

fn cross(a: &CellArchitecture, b: &CellArchitecture, rng: &mut ChaCha8Rng) -> CellArchitecture {
    let (base, other) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
    let mut child = base.clone();
    for (cell, donor) in [
        (&mut child.genotype.normal, &other.genotype.normal),
        (&mut child.genotype.reduce, &other.genotype.reduce),
    ] {
        for (pair, donated) in cell.chunks_exact_mut(2).zip(donor.chunks_exact(2)) {
            if rng.random_bool(0.5) {
                pair.copy_from_slice(donated);
            }
        }
    }
    if other.genotype.steps() == base.genotype.steps() && rng.random_bool(0.5) {
        child.genotype.normal_concat.clone_from(&other.genotype.normal_concat);
        child.genotype.reduce_concat.clone_from(&other.genotype.reduce_concat);
    }
    let mut take = || rng.random_bool(0.5);
    if take() {
        child.channels = other.channels;
    }
    if take() {
        child.channel_multiplier = other.channel_multiplier;
    }
    if take() {
        (child.stem_kernel, child.stem_type, child.stem_pool) =
            (other.stem_kernel, other.stem_type, other.stem_pool);
    }
    if take() {
        child.norm = other.norm;
    }
    if take() {
        child.preproc = other.preproc;
    }
    if take() {
        child.global_pool = other.global_pool;
    }
    if take() {
        (child.fc_layers, child.fc_dim) = (other.fc_layers, other.fc_dim);
    }
    child
}
