//! The command line: one file per command, each with its flags (`Args`) and a `run` function.

mod adapt_ghn;
mod agreement;
mod arch;
mod bench;
mod candidates;
mod compare;
mod configured;
mod data;
mod deepnets;
mod device;
mod eval_ghn;
mod export;
mod fixture;
mod fixture_predictions;
mod ghn;
mod interrupt;
mod leaderboard;
mod measured;
mod output;
mod predict;
mod progress;
mod properties;
mod rank;
mod rank_cheap;
mod refining;
mod reliability;
mod report;
mod scoring;
mod search;
mod space;
mod strategy;
mod threads;
mod train;
mod train_ghn;
mod train_outcome;
mod train_progress;
mod truth;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
pub use interrupt::INTERRUPTED;

/// Neural architecture search that predicts the weights of every candidate network.
#[derive(Debug, Parser)]
#[command(name = "foretell", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a search space, or draw architectures from it
    Space(space::Args),
    /// Look at an architecture
    Arch(arch::Args),
    /// Write lists of DeepNets-1M architectures
    Deepnets(deepnets::Args),
    /// Write graphs in the format of the fixtures
    #[command(hide = true)]
    Fixture(fixture::Args),
    /// Import or show hypernetworks
    Ghn(ghn::Args),
    /// Search a space for the best architecture
    Search(Box<search::Args>),
    /// Show the best architectures of a search, and write tables and plots
    Leaderboard(leaderboard::Args),
    /// Write a search as one HTML page: leaderboard, charts, cells, settings
    Report(report::Args),
    /// Show how far the scores of a search can be trusted: each fidelity against the highest
    Reliability(reliability::Args),
    /// Rank given architectures by what they score with predicted or with trained weights
    Rank(rank::Args),
    /// Tell how well properties of architectures can be predicted before they are measured
    Properties(properties::Args),
    /// Compare searches: what each had reached after so many candidates
    Compare(compare::Args),
    /// Predict the weights of an architecture
    Predict(predict::Args),
    /// Measure hypernetworks on architectures that they were not trained on
    EvalGhn(eval_ghn::Args),
    /// Train one network on images by SGD, from random or predicted weights
    Train(Box<train::Args>),
    /// Write a network as safetensors, ONNX or PyTorch, ready for single images
    Export(Box<export::Args>),
    /// Train a graph hypernetwork on architectures drawn on the fly
    TrainGhn(train_ghn::Args),
    /// Train a graph hypernetwork that is there already for other images, in minutes
    AdaptGhn(adapt_ghn::Args),
    /// Train a plain sample of architectures: the truth that rankings are measured against
    Truth(truth::Args),
    /// Measure how far rankings can be trusted, or kernels on this machine
    Bench(bench::Args),
    /// Fetch image sets and look at them
    Data(data::Args),
}

impl Cli {
    /// Parses the arguments of the process; help and errors end it.
    ///
    /// A number below 0 is taken for a value rather than for an unknown flag, so that its refusal names the flag
    /// which it was given to.
    pub fn of_process() -> Cli {
        let matches = with_negative_numbers(Cli::command()).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command.allow_negative_numbers(true), |command, name| {
        command.mut_subcommand(name, with_negative_numbers)
    })
}

/// Runs one command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Space(args) => space::run(args),
        Command::Arch(args) => arch::run(args),
        Command::Deepnets(args) => deepnets::run(args),
        Command::Fixture(args) => fixture::run(args),
        Command::Ghn(args) => ghn::run(args),
        Command::Search(args) => search::run(*args),
        Command::Leaderboard(args) => leaderboard::run(args),
        Command::Report(args) => report::run(args),
        Command::Reliability(args) => reliability::run(args),
        Command::Rank(args) => rank::run(args),
        Command::Properties(args) => properties::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Predict(args) => predict::run(args),
        Command::EvalGhn(args) => eval_ghn::run(args),
        Command::Train(args) => train::run(*args),
        Command::Export(args) => export::run(*args),
        Command::TrainGhn(args) => train_ghn::run(args),
        Command::AdaptGhn(args) => adapt_ghn::run(args),
        Command::Truth(args) => truth::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Data(args) => data::run(args),
    }
}
