//! The trained weights that a study keeps: `weights/trial-17.sgd-400.safetensors` in its run folder.
//!
//! A file is written before the journal says that its trial was refined, and removed when the trial is no finalist
//! any more, so at most as many files as there are finalists and candidates at work take space.

use super::{Trial, finalists};
use crate::files::create_folders;
use crate::score::Fidelity;
use crate::search::Objective;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Name of the folder in a run folder.
const FOLDER: &str = "weights";

/// The weights of a run folder.
#[derive(Clone, Debug)]
pub struct KeptWeights {
    folder: PathBuf,
}

impl KeptWeights {
    /// Those of the run folder `run`.
    pub fn of(run: &Path) -> KeptWeights {
        KeptWeights { folder: run.join(FOLDER) }
    }

    /// Where the weights of a trial lie, if they are kept.
    pub fn path(&self, trial: u64, fidelity: Fidelity) -> PathBuf {
        self.folder.join(format!("trial-{trial}.{}.safetensors", fidelity.slug()))
    }

    /// The kept weights of the highest fidelity that a trial reached.
    pub fn find(&self, trial: &Trial) -> Option<(PathBuf, Fidelity)> {
        let fidelity = trial.fidelity();
        let path = self.path(trial.number, fidelity);
        (fidelity.is_refined() && path.is_file()).then_some((path, fidelity))
    }

    /// The path for weights that are about to be written; makes the folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(super) fn prepared(&self, trial: u64, fidelity: Fidelity) -> Result<PathBuf> {
        create_folders(&self.folder)?;
        Ok(self.path(trial, fidelity))
    }

    /// Removes the weights of refined trials that are no finalists.
    pub(super) fn prune(&self, trials: &[Trial], objective: &Objective) -> Result<()> {
        let kept: BTreeSet<(u64, Fidelity)> = finalists(trials, objective)?.into_iter().collect();
        for trial in trials {
            for refined in &trial.refined {
                let path = self.path(trial.number, refined.fidelity);
                if !kept.contains(&(trial.number, refined.fidelity)) && path.exists() {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }
}
