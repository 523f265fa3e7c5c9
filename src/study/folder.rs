//! Run folders: `study.json` and `journal.jsonl`, later joined by results.

use super::{Event, Journal, StudyRecord};
use crate::files;
use crate::{Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const STUDY: &str = "study.json";
const JOURNAL: &str = "journal.jsonl";

/// A run folder that holds a study.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Begins a study in the folder `path`, which is created if need be.
    ///
    /// # Errors
    /// The folder holds a study already, or cannot be written; nothing half-written stays.
    pub fn create(path: &Path, record: &StudyRecord) -> Result<Folder> {
        let text = record.to_text()?;
        let existed = path.exists();
        files::create_folders(path)?;
        let study = path.join(STUDY);
        match files::write_new(&study, text.as_bytes()) {
            Ok(()) => Ok(Folder { path: path.to_path_buf() }),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                Err(Error::Config(format!(
                    "{} already holds a study; give --resume to continue it, or another folder",
                    path.display()
                )))
            }
            Err(error) => {
                if !existed {
                    // Succeeds only while the folder is empty, so nothing of anybody's is lost.
                    let _ = fs::remove_dir(path);
                }
                Err(error)
            }
        }
    }

    /// Begins a study in the first free folder of `parent/stem-001`, `parent/stem-002`, ...
    ///
    /// # Errors
    /// As [`Folder::create`].
    pub fn create_numbered(parent: &Path, stem: &str, record: &StudyRecord) -> Result<Folder> {
        files::create_folders(parent)?;
        for number in numbers(parent, stem)?.last().map_or(1, |last| last + 1).. {
            let path = parent.join(format!("{stem}-{number:03}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Folder::create(&path, record).inspect_err(|_| {
                        let _ = fs::remove_dir(&path);
                    });
                }
                // Another process was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create folder", &path)(error)),
            }
        }
        Err(Error::Config(format!("{}: no number is left for a new folder", parent.display())))
    }

    /// The folder at `path` and its record.
    ///
    /// # Errors
    /// There is no study, or its record cannot be read.
    pub fn open(path: &Path) -> Result<(Folder, StudyRecord)> {
        let study = path.join(STUDY);
        let text = match fs::read_to_string(&study) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::Config(format!("{}: no study here ({STUDY} is missing)", path.display())));
            }
            Err(error) => return Err(Error::io("read", &study)(error)),
        };
        let record = StudyRecord::parse(&study, &text)?;
        Ok((Folder { path: path.to_path_buf() }, record))
    }

    /// The folder of `parent/stem-NNN` with the highest number that holds a study.
    ///
    /// # Errors
    /// `parent` cannot be read, or there is none.
    pub fn latest(parent: &Path, stem: &str) -> Result<PathBuf> {
        let numbers = if parent.exists() { numbers(parent, stem)? } else { Vec::new() };
        numbers
            .iter()
            .rev()
            .map(|number| parent.join(format!("{stem}-{number:03}")))
            .find(|path| path.join(STUDY).exists())
            .ok_or_else(|| Error::Config(format!("{}: no run {stem}-NNN to resume here", parent.display())))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal, opened for writing.
    ///
    /// # Errors
    /// See [`Journal::open`].
    pub fn journal(&self) -> Result<Journal> {
        Journal::open(&self.path.join(JOURNAL))
    }

    /// The events so far, also while a search writes them; none if the search died before its first.
    ///
    /// # Errors
    /// See [`Journal::read`].
    pub fn events(&self) -> Result<Vec<Event>> {
        let journal = self.journal_path();
        if journal.exists() { Journal::read(&journal) } else { Ok(Vec::new()) }
    }

    /// Path of the journal.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }
}

/// The numbers of `stem-NNN` in `parent`, ascending.
fn numbers(parent: &Path, stem: &str) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(parent).map_err(Error::io("list", parent))? {
        let name = entry.map_err(Error::io("list", parent))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_prefix('-'));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
