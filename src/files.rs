//! Files that are whole or absent: written beside the target, fsynced, then renamed.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The folder that holds `path`; the current one for a bare name.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Writes `content` to a temporary file beside `path`, syncs it and renames it, so that a reader sees the old
/// file or the new one, whatever moment the process dies at.
///
/// # Errors
/// The folder is missing or read-only, or the disk is full; `path` is then as before.
pub fn write_atomically(path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(Error::io("write", path)(ErrorKind::IsADirectory.into()));
    }
    let file = written(path, content)?;
    file.persist(path).map_err(|error| error.error).map_err(Error::io("rename a temporary file to", path))?;
    sync_folder(&parent(path))
}

/// As [`write_atomically`], but fails with `AlreadyExists` where `path` exists.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let file = written(path, content)?;
    file.persist_noclobber(path).map_err(|error| error.error).map_err(Error::io("create", path))?;
    sync_folder(&parent(path))
}

fn written(path: &Path, content: &[u8]) -> Result<tempfile::NamedTempFile> {
    let folder = parent(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".foretell-");
    #[cfg(unix)]
    {
        // Temporary files are private by default, but this one becomes an ordinary result.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(&folder).map_err(system_error).map_err(Error::io("write", path))?;
    file.write_all(content).map_err(system_error).map_err(Error::io("write", path))?;
    file.as_file().sync_all().map_err(Error::io("sync", path))?;
    Ok(file)
}

/// The system's error without the name of the temporary file, which the user never sees.
fn system_error(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((cause, _)) => io::Error::new(error.kind(), cause.to_owned()),
        None => error,
    }
}

/// Makes names created in `folder` durable, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|handle| handle.sync_all()).map_err(Error::io("sync", folder))?;
    }
    Ok(())
}

/// Creates `folder` and its parents.
pub(crate) fn create_folders(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_named_and_nothing_appears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("file.csv");
        let message = write_atomically(&path, b"x").unwrap_err().to_string();
        assert!(message.contains("absent/file.csv"), "{message}");
        assert!(!message.contains(".foretell-"), "the temporary file is named: {message}");
        let message = write_atomically(folder.path(), b"x").unwrap_err().to_string();
        assert!(message.starts_with("cannot write") && message.contains("directory"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.csv");
        write_atomically(&path, b"a longer first version").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
