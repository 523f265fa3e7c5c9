//! `foretell bench`: measurements of the program itself, one file each.

#[cfg(feature = "cuda")]
mod cuda;
mod ranking;

/// Flags of `foretell bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Rankings by cheap scores against the ranking after training, on a truth set
    Ranking(ranking::Args),
    /// The kernels for GPUs: first checked against the CPU, then timed
    #[cfg(feature = "cuda")]
    Cuda(cuda::Args),
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Ranking(args) => ranking::run(args),
        #[cfg(feature = "cuda")]
        What::Cuda(args) => cuda::run(args),
    }
}
