//! `foretell deepnets`: writes lists of DeepNets-1M architectures.

use super::space::write_list;
use crate::deepnets::{Split, generate};
use std::path::PathBuf;

/// Flags of `foretell deepnets`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Draw a list of distinct architectures, as JSON lines; a longer list begins with the shorter one
    Generate {
        /// train, val, test, wide, deep, dense, bnfree or search
        #[arg(long)]
        split: Split,
        /// Number of architectures
        #[arg(long, default_value_t = 500)]
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
        Action::Generate { split, count, seed, out } => {
            let records: Vec<_> = generate(split, count, seed)?.collect::<Result<_, _>>()?;
            write_list(&records, out.as_deref())
        }
    }
}
