//! Architectures that a user gives: files of them, run folders, names.

use crate::deepnets::resolve;
use crate::report::{Leaderboard, SortKey};
use crate::space::{Architecture, CellArchitecture, read_records};
use crate::study::{Folder, Study};
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::path::Path;

/// A given architecture.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Unique among those given together.
    pub(super) name: String,
    pub(super) arch: Architecture,
}

/// The architectures that `sources` name, in order: the finished trials of a run folder, best first; all of a
/// file (JSON lines, as leaderboards are; a JSON array or object); `FILE#ID`; or a predefined network.
pub(super) fn read(sources: &[String]) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    let mut names = BTreeSet::new();
    for source in sources {
        for Candidate { name, arch } in read_source(source)? {
            let name = if names.contains(&name) { format!("{source}#{name}") } else { name };
            if !names.insert(name.clone()) {
                bail!("{name} is given twice");
            }
            candidates.push(Candidate { name, arch });
        }
    }
    Ok(candidates)
}

fn read_source(source: &str) -> anyhow::Result<Vec<Candidate>> {
    let path = Path::new(source);
    let candidates: Vec<Candidate> = if path.is_dir() {
        let (folder, record) = Folder::open(path)?;
        let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
        let best_first = Leaderboard::of(&trials, SortKey::Objective, &record.settings.objective);
        let named = |number: u64, arch: &CellArchitecture| Candidate {
            name: format!("trial/{number}"),
            arch: Architecture::Cells(arch.clone()),
        };
        best_first.ranked().iter().map(|trial| named(trial.number, &trial.arch)).collect()
    } else {
        let records = if path.exists() { read_records(path)? } else { vec![resolve(source, None, None)?] };
        records.into_iter().map(|record| Candidate { name: record.id, arch: record.arch }).collect()
    };
    if candidates.is_empty() {
        bail!("{source}: holds no architecture");
    }
    Ok(candidates)
}

/// The first `top` of the architectures that `sources` name, for a search to start from.
pub(super) fn cells(sources: &[String], top: Option<usize>) -> anyhow::Result<Vec<CellArchitecture>> {
    let candidates = read(sources)?;
    let count = top.unwrap_or(candidates.len());
    let cells = candidates.into_iter().take(count).map(|Candidate { name, arch }| match arch {
        Architecture::Cells(arch) => {
            arch.genotype.check().with_context(|| name)?;
            Ok(arch)
        }
        Architecture::Torchvision(_) => bail!("{name} has no cells, so a search cannot start from it"),
    });
    cells.collect()
}
