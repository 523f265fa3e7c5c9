//! `foretell space`: shows a search space, or draws architectures from it.

use super::output::print;
use crate::space::{ArchRecord, Space, records_to_text, save_records};
use std::path::{Path, PathBuf};

/// Flags of `foretell space`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with the space.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a space and print all its settings as TOML
    Show {
        /// Bundled space (deepnets1m, wide, deep, dense, bnfree, deepnets1m-light, search, small) or TOML file
        space: String,
    },
    /// Draw distinct architectures from a space, as JSON lines
    Sample {
        /// Bundled space (deepnets1m, wide, deep, dense, bnfree, deepnets1m-light, search, small) or TOML file
        space: String,
        /// Number of architectures
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// Seed of all random choices
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// File to write; standard output if absent or `-`
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Show { space } => print(&Space::find(&space)?.to_toml()),
        Action::Sample { space, count, seed, out } => {
            let records = Space::find(&space)?.sample_distinct(count, seed)?;
            write_list(&records, out.as_deref())
        }
    }
}

/// Writes records as JSON lines to a file that appears whole or not at all, or to standard output.
pub(super) fn write_list(records: &[ArchRecord], out: Option<&Path>) -> anyhow::Result<()> {
    match out.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            save_records(path, records)?;
            eprintln!("{} architectures written to {}", records.len(), path.display());
            Ok(())
        }
        None => print(&records_to_text(records)?),
    }
}
