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
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes; a cause that the text before it ends with already is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let read = std::fs::read("/no/such/file").map_err(foretell::Error::io("read", "/no/such/file"));
        let reason = std::fs::read("/no/such/file").unwrap_err().to_string();
        let error = read.context("cannot open the set").unwrap_err();
        assert_eq!(chain(&error), format!("cannot open the set: cannot read /no/such/file: {reason}"));
    }
}
