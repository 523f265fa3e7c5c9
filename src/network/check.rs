//! Checks the settings of a cell network before anything is built, with limits that keep sizes from overflowing.

use crate::space::{CellArchitecture, Edge};
use crate::{Error, Result};
use std::ops::RangeInclusive;

/// Refuses an architecture that is nonsense whatever the input size; the message names the setting by its JSON name.
pub(super) fn check(arch: &CellArchitecture, num_classes: usize) -> Result<()> {
    within("num_classes", num_classes, 1..=1 << 20)?;
    within("C", arch.channels, 1..=4096)?;
    within("n_cells", arch.n_cells, 1..=1000)?;
    within("ks", arch.stem_kernel, 1..=63)?;
    within("stem_type", arch.stem_type.into(), 0..=1)?;
    within("C_mult", arch.channel_multiplier, 1..=8)?;
    within("fc_layers", arch.fc_layers, 0..=8)?;
    within("fc_dim", arch.fc_dim, usize::from(arch.fc_layers > 1)..=1 << 16)?;
    if arch.stem_kernel.is_multiple_of(2) {
        return reject(format!("ks is {}, an odd kernel size is needed", arch.stem_kernel));
    }
    if arch.stem_type == 1 && arch.channels < 2 {
        return reject("C is 1, stem_type 1 needs 2 or more".into());
    }
    let genotype = &arch.genotype;
    for (cell, edges, concat) in [
        ("normal", &genotype.normal, &genotype.normal_concat),
        ("reduce", &genotype.reduce, &genotype.reduce_concat),
    ] {
        check_cell(cell, edges, concat)?;
        if !arch.preproc && concat.len() > 1 {
            return reject(format!(
                "preproc is false, so {cell}_concat must hold one state, found {concat:?}"
            ));
        }
    }
    if !arch.preproc && arch.channel_multiplier > 1 {
        return reject(format!("preproc is false, so C_mult must be 1, found {}", arch.channel_multiplier));
    }
    Ok(())
}

fn check_cell(cell: &str, edges: &[Edge], concat: &[usize]) -> Result<()> {
    if edges.is_empty() || !edges.len().is_multiple_of(2) || edges.len() > 128 {
        return reject(format!("{cell} has {} edges, two a step (2 to 128) are needed", edges.len()));
    }
    for (slot, Edge(op, input)) in edges.iter().enumerate() {
        let states = 2 + slot / 2;
        if *input >= states {
            return reject(format!(
                "{cell}[{slot}] is [{op}, {input}], but only states 0 to {} exist",
                states - 1
            ));
        }
    }
    let states = 2 + edges.len() / 2;
    if concat.is_empty() {
        return reject(format!("{cell}_concat is empty"));
    }
    for (index, state) in concat.iter().enumerate() {
        if *state >= states {
            return reject(format!("{cell}_concat holds {state}, but only states 0 to {} exist", states - 1));
        }
        if concat[..index].contains(state) {
            return reject(format!("{cell}_concat holds {state} twice"));
        }
    }
    Ok(())
}

fn within(setting: &str, value: usize, range: RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    reject(format!("{setting} is {value}, expected {} to {}", range.start(), range.end()))
}

fn reject(reason: String) -> Result<()> {
    Err(Error::Architecture(reason))
}
