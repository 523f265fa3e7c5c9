//! Flags of runs that a configuration file describes: the file, the folder, and whether to go on.

use anyhow::Context;
use std::path::PathBuf;

/// Flags of a run by configuration.
#[derive(Debug, clap::Args)]
pub(super) struct ConfiguredArgs {
    /// Configuration, as in experiments/
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Folder of the run [default: runs/ and the configuration's file name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run that the folder holds
    #[arg(long)]
    pub(super) resume: bool,
}

impl ConfiguredArgs {
    /// Where the run lies.
    pub(super) fn folder(&self) -> anyhow::Result<PathBuf> {
        match &self.out {
            Some(folder) => Ok(folder.clone()),
            None => {
                Ok(PathBuf::from("runs").join(self.config.file_stem().context("--config names no file")?))
            }
        }
    }
}
