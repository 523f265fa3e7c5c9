//! Standard output, for every command.

use anyhow::Context;
use std::io::{ErrorKind, Write};

/// Writes `text` to standard output.
///
/// Unlike `print!`, which panics, a full disk is an error, and a reader that closes the pipe early (`| head`) is none.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
