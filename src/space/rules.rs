//! What every architecture of the DeepNets-1M family must fulfil, and whether an architecture belongs to a space.
//!
//! In: an architecture. Out: nothing, or the reason why it is not well formed, breaks a rule of the reference's
//! generator, or lies outside of a space's settings.

use super::architecture::CellArchitecture;
use super::definition::Space;
use super::genotype::{Edge, Genotype};
use super::op::Op;
use crate::error::{Error, Result};

/// A rule of the reference's generator, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    CseWithoutConv,
    TwoCse,
    TwoLargeConvs,
    NoLearnableOp,
}

impl Rule {
    /// The first rule that the genotype breaks.
    pub(super) fn broken_by(genotype: &Genotype) -> Option<Rule> {
        let cells = [&genotype.normal, &genotype.reduce];
        let any = |holds: fn(Op) -> bool| cells.iter().any(|cell| cell.iter().any(|edge| holds(edge.0)));
        let two = |holds: fn(Op) -> bool| {
            cells.iter().any(|cell| cell.iter().filter(|edge| holds(edge.0)).count() > 1)
        };
        let is_cse = |op| op == Op::Cse;
        if any(is_cse) && !any(Op::is_convolution) {
            Some(Rule::CseWithoutConv)
        } else if two(is_cse) {
            Some(Rule::TwoCse)
        } else if two(Op::is_large_convolution) {
            Some(Rule::TwoLargeConvs)
        } else if !any(Op::is_learnable) {
            Some(Rule::NoLearnableOp)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rule::CseWithoutConv => "cse without any convolution",
            Rule::TwoCse => "two cse in one cell",
            Rule::TwoLargeConvs => "two 5x5 or 7x7 convolutions in one cell",
            Rule::NoLearnableOp => "no operation with parameters",
        })
    }
}

impl Genotype {
    /// Whether edges come in pairs that read earlier states, and the concatenations list existing states.
    ///
    /// # Errors
    /// [`Error::Architecture`] names the cell and the edge.
    pub fn check(&self) -> Result<()> {
        let cells =
            [("normal", &self.normal, &self.normal_concat), ("reduce", &self.reduce, &self.reduce_concat)];
        for (name, cell, concat) in cells {
            check_cell(cell, concat)
                .map_err(|reason| Error::Architecture(format!("{name} cell: {reason}")))?;
        }
        Ok(())
    }
}

fn check_cell(cell: &[Edge], concat: &[usize]) -> Result<(), String> {
    if !cell.len().is_multiple_of(2) || cell.is_empty() {
        return Err(format!("{} edges, expected two for each step", cell.len()));
    }
    for (index, Edge(op, input)) in cell.iter().enumerate() {
        let states = 2 + index / 2;
        if *input >= states {
            return Err(format!(
                "edge {index} ({op}) reads state {input}, but only 0..={} exist",
                states - 1
            ));
        }
    }
    let states = 2 + cell.len() / 2;
    match concat.iter().find(|&&state| state >= states) {
        Some(state) => Err(format!("concatenates state {state}, but only 0..={} exist", states - 1)),
        None if concat.is_empty() => Err("concatenates no state".to_owned()),
        None => Ok(()),
    }
}

impl Space {
    /// Whether the space holds `arch`: its settings are among those that can be drawn, no rule of the generator is
    /// broken, its size is within the limits, its output depends on its input.
    ///
    /// # Errors
    /// [`Error::Architecture`] says what is outside and what is allowed.
    pub fn check(&self, arch: &CellArchitecture) -> Result<()> {
        arch.genotype.check()?;
        self.check_settings(arch).map_err(|reason| {
            Error::Architecture(format!("not in search space `{}`: {reason}", self.name))
        })?;
        match self.refusal(arch)? {
            Some(refusal) => {
                Err(Error::Architecture(format!("not in search space `{}`: {refusal}", self.name)))
            }
            None => Ok(()),
        }
    }

    // Everything but rules and limits; the genotype is well formed.
    pub(super) fn check_settings(&self, arch: &CellArchitecture) -> Result<(), String> {
        let among = |name: &str, value: usize, list: &[usize]| match list.contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}, expected one of {list:?}")),
        };
        among("C", arch.channels, &self.channels)?;
        among("C_mult", arch.channel_multiplier, &self.multipliers)?;
        among("ks", arch.stem_kernel, &self.stem_kernels)?;
        among("stem_type", usize::from(arch.stem_type), &self.stem_types)?;
        among("fc_layers", arch.fc_layers, &self.fc_layers)?;
        among("fc_dim", arch.fc_dim, &self.fc_dims)?;
        if arch.imagenet_input != self.imagenet_input {
            return Err(format!("is_imagenet_input is {}", arch.imagenet_input));
        }
        if !self.n_cells.contains(&arch.n_cells) {
            return Err(format!("n_cells is {}, expected {:?}", arch.n_cells, self.n_cells));
        }
        possible("stem_pool", arch.stem_pool, self.stem_pool_chance(arch))?;
        possible("no norm", arch.norm.is_none(), self.norm_none_chance(arch))?;
        possible("no preproc", !arch.preproc, self.preproc_skip_chance(arch))?;
        self.check_depth(arch)?;
        self.check_cells(&arch.genotype)
    }

    // The threshold that makes a network deep is drawn, so a network may be both: one of the two must explain it.
    fn check_depth(&self, arch: &CellArchitecture) -> Result<(), String> {
        let steps = arch.genotype.steps();
        let mut reason = String::new();
        for deep in self.depths(arch.n_cells) {
            let allowed = if deep { &self.steps_deep } else { &self.steps };
            let explained = match allowed.contains(&steps) {
                true => possible("flattening", !arch.global_pool, self.flatten_chance(arch, deep)),
                false => Err(format!("{steps} steps with {} cells, expected {allowed:?}", arch.n_cells)),
            };
            match explained {
                Ok(()) => return Ok(()),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    /// Whether a network of so many cells can count as not deep (false), as deep (true), or both.
    pub(super) fn depths(&self, n_cells: usize) -> Vec<bool> {
        let shallow = (n_cells <= *self.deep_above.end()).then_some(false);
        let deep = (n_cells > *self.deep_above.start()).then_some(true);
        shallow.into_iter().chain(deep).collect()
    }

    fn check_cells(&self, genotype: &Genotype) -> Result<(), String> {
        let steps = genotype.steps();
        if genotype.reduce.len() != genotype.normal.len() {
            return Err(format!("the cells have {steps} and {} steps", genotype.reduce.len() / 2));
        }
        let concat = &genotype.normal_concat;
        if *concat != genotype.reduce_concat {
            return Err("the cells concatenate different states".to_owned());
        }
        let ascending = concat.windows(2).all(|pair| pair[0] < pair[1]) && concat[0] >= 2;
        if !ascending || concat.last() != Some(&(steps + 1)) {
            return Err(format!("concatenation of {concat:?}, expected steps in order, with the last"));
        }
        if self.drop_concat == 0.0 && concat.len() != steps {
            return Err(format!("concatenation of {concat:?}, expected all steps"));
        }
        for (name, cell, reduce) in [("normal", &genotype.normal, false), ("reduce", &genotype.reduce, true)]
        {
            let allowed = self.edge_ops(reduce, steps, reduce && self.plain_reduce == 1.0);
            for pair in cell.chunks_exact(2) {
                if pair[0].1 == pair[1].1 {
                    return Err(format!("{name} cell: a step reads state {} twice", pair[0].1));
                }
            }
            if let Some(edge) = cell.iter().find(|edge| !allowed.contains(&edge.0)) {
                let names: Vec<_> = allowed.iter().map(|op| op.name()).collect();
                return Err(format!("{name} cell: {}, expected one of {}", edge.0, names.join(", ")));
            }
        }
        Ok(())
    }
}

// Whether `event` can happen, or fail to happen, at a probability of `chance`.
fn possible(name: &str, event: bool, chance: f64) -> Result<(), String> {
    match event {
        true if chance <= 0.0 => Err(format!("{name} does not occur there")),
        false if chance >= 1.0 => Err(format!("{name} always occurs there")),
        _ => Ok(()),
    }
}
