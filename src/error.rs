//! The library's error type: every message names the operation, what was expected and what was found.

use std::path::{Path, PathBuf};

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong outside of bugs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb phrase: "read", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file was read, but its content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found, with line or offset where known.
        reason: String,
    },
    /// A setting (flag, key of a configuration file, argument) is out of its range or contradicts another.
    #[error("{0}")]
    Config(String),
    /// An architecture cannot be built; candidates that fail so are recorded as rejected.
    #[error("architecture rejected: {0}")]
    Architecture(String),
    /// Shapes, dtypes or device of tensors do not fit, or a tensor library call failed.
    #[error("{0}")]
    Tensor(String),
    /// A computation left the range of floating-point numbers.
    #[error("{0}")]
    NonFinite(String),
    /// The user asked to stop (Ctrl-C); what was finished is saved.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`] for `action` on `path`; use as `.map_err(Error::io("read", &path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl AsRef<Path>, reason: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Tensor(error.to_string())
    }
}
