//! The command line: one file per command, each with its flags (`Args`) and a `run` function.

use clap::{Parser, Subcommand};

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
pub enum Command {}

/// Runs one command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {}
}
