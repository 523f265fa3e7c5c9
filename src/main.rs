//! Parses the command line, runs one command, prints the error chain and sets the exit code.

use clap::Parser;
use std::process::ExitCode;

// Networks of a search differ in size, so large buffers come and go: mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = foretell::cli::Cli::parse();
    match foretell::cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
