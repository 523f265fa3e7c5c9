//! Parses the command line, runs one command, prints the error chain and sets the exit code.

use std::process::ExitCode;

// Networks of a search differ in size, so large buffers come and go: mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    foretell::execute::keep_freed_memory();
    let cli = foretell::cli::Cli::of_process();
    match foretell::cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // What the user asked for is no error, but a script must not go on as if the work were done.
        Err(error) if matches!(error.downcast_ref(), Some(foretell::Error::Interrupted)) => {
            eprintln!("{error}");
            ExitCode::from(foretell::cli::INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line; a cause that the text before already tells is not repeated.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}
