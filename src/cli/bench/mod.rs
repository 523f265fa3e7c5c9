//! `foretell bench`: measurements of the program itself, one file each.

mod batch;
#[cfg(feature = "cuda")]
mod cuda;
mod model;
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
    Ranking(Box<ranking::Args>),
    /// What a GPU should take, by a model of its work and its waits; needs no GPU
    Model(model::Args),
    /// What this GPU takes: the kernels are checked against the CPU, then timed
    #[cfg(feature = "cuda")]
    Cuda(cuda::Args),
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Ranking(args) => ranking::run(*args),
        What::Model(args) => model::run(args),
        #[cfg(feature = "cuda")]
        What::Cuda(args) => cuda::run(args),
    }
}
