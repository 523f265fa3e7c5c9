//! The journal: an append-only file of events.
//!
//! A line is `{"sum":"<16 hex digits>","event":{...}}`. The sum is the first 8 bytes of SHA-256 over the previous
//! line's sum and this line's event text, so a changed, lost or moved line is found. The first line's event is
//! the header with the format's version. Each append is one write and one sync.
//!
//! A process that dies while it appends can leave a torn last line, which has no line end. Opening for writing,
//! under an exclusive lock, cuts it off and reports it ([`Repair`]); anything else that does not check is an error
//! that names the line.

use super::{Event, Storage};
use crate::files;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FORMAT: &str = "foretell-journal";
const VERSION: u32 = 1;

type Sum = [u8; 8];

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// What opening a journal had to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Line of the torn entry, from 1.
    pub line: usize,
    /// Bytes cut off; 0 if only the line's end was missing and nothing was lost.
    pub bytes: u64,
}

/// A journal opened for writing; holds the file's exclusive lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    events: Vec<Event>,
    /// Length of the whole lines.
    len: u64,
    last_sum: Sum,
    repair: Option<Repair>,
    /// Set when a failed append could not be undone.
    broken: bool,
}

impl Journal {
    /// Opens or creates the journal at `path`, alone, and repairs a torn last line.
    ///
    /// # Errors
    /// Another process has it open; it cannot be read or written; a line does not check; the version is unknown.
    pub fn open(path: &Path) -> Result<Journal> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Config(format!(
                    "{} is in use: another process is searching in this run folder",
                    path.display()
                )));
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let scan = scan(path, &bytes)?;
        let mut journal = Journal {
            path: path.to_path_buf(),
            file,
            events: scan.events,
            len: scan.whole,
            last_sum: scan.last_sum,
            repair: scan.repair,
            broken: false,
        };
        if let Some(repair) = &journal.repair {
            if repair.bytes == 0 {
                journal.write(b"\n")?;
            } else {
                journal.truncate().map_err(Error::io("repair", path))?;
            }
        }
        if journal.len == 0 {
            let header = Header { format: FORMAT.into(), version: VERSION };
            let (line, sum) = line(&Sum::default(), &header)?;
            journal.write(&line)?;
            journal.last_sum = sum;
            files::sync_folder(&files::parent(path))?;
        }
        Ok(journal)
    }

    /// Reads the events of a journal that may be in use; a torn last line is left alone and out.
    ///
    /// # Errors
    /// The file cannot be read, a line does not check, or the version is unknown.
    pub fn read(path: &Path) -> Result<Vec<Event>> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(scan(path, &bytes)?.events)
    }

    /// What had to be mended when the journal was opened.
    pub fn repair(&self) -> Option<&Repair> {
        self.repair.as_ref()
    }

    fn truncate(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.sync_all()
    }

    /// Appends bytes or leaves the file as it was.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.broken {
            return Err(Error::format(&self.path, "an earlier write failed and could not be undone"));
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(bytes))
            .and_then(|()| self.file.sync_all());
        if let Err(source) = written {
            self.broken = self.truncate().is_err();
            return Err(Error::io("append to", &self.path)(source));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Storage for Journal {
    fn append(&mut self, events: &[Event]) -> Result<()> {
        let mut bytes = Vec::new();
        let mut last_sum = self.last_sum;
        for event in events {
            let (line, sum) = line(&last_sum, event)?;
            bytes.extend_from_slice(&line);
            last_sum = sum;
        }
        self.write(&bytes)?;
        self.last_sum = last_sum;
        self.events.extend_from_slice(events);
        Ok(())
    }

    fn events(&self) -> Result<Vec<Event>> {
        Ok(self.events.clone())
    }

    fn origin(&self) -> &Path {
        &self.path
    }
}

fn checksum(previous: &Sum, event: &[u8]) -> Sum {
    let digest = Sha256::new().chain_update(previous).chain_update(event).finalize();
    let mut sum = Sum::default();
    sum.copy_from_slice(&digest[..8]);
    sum
}

fn hex(sum: &Sum) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn line(previous: &Sum, event: &impl Serialize) -> Result<(Vec<u8>, Sum)> {
    let text = serde_json::to_string(event)
        .map_err(|error| Error::Config(format!("cannot encode an event: {error}")))?;
    let sum = checksum(previous, text.as_bytes());
    Ok((format!("{{\"sum\":\"{}\",\"event\":{text}}}\n", hex(&sum)).into_bytes(), sum))
}

/// The event's text and the sum of a line without its end, if both fit.
fn checked<'a>(previous: &Sum, line: &'a [u8]) -> Option<(&'a [u8], Sum)> {
    let rest = line.strip_prefix(b"{\"sum\":\"")?;
    let (written, rest) = rest.split_at_checked(16)?;
    let event = rest.strip_prefix(b"\",\"event\":")?.strip_suffix(b"}")?;
    let sum = checksum(previous, event);
    (hex(&sum).as_bytes() == written).then_some((event, sum))
}

struct Scan {
    events: Vec<Event>,
    /// Bytes that check.
    whole: u64,
    last_sum: Sum,
    repair: Option<Repair>,
}

fn scan(path: &Path, bytes: &[u8]) -> Result<Scan> {
    let mut scan = Scan { events: Vec::new(), whole: 0, last_sum: Sum::default(), repair: None };
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let ended = rest.iter().position(|&byte| byte == b'\n');
        let content = &rest[..ended.unwrap_or(rest.len())];
        rest = &rest[ended.map_or(rest.len(), |end| end + 1)..];
        if number == 1 && ended.is_some() {
            refuse_other_version(path, content)?;
        }
        match checked(&scan.last_sum, content) {
            Some((event, sum)) => {
                if number > 1 {
                    scan.events.push(serde_json::from_slice(event).map_err(|error| {
                        Error::format(
                            path,
                            format!("line {number}: not an event that this version knows: {error}"),
                        )
                    })?);
                }
                scan.last_sum = sum;
                scan.whole += content.len() as u64 + u64::from(ended.is_some());
                if ended.is_none() {
                    scan.repair = Some(Repair { line: number, bytes: 0 });
                }
            }
            // An append ends with the line's end, so only a line without one can be torn.
            None if ended.is_none() && (number > 1 || is_torn_header(content)) => {
                scan.repair = Some(Repair { line: number, bytes: content.len() as u64 });
            }
            None if number == 1 => {
                return Err(Error::format(path, "line 1: not a journal of foretell, or damaged"));
            }
            None => {
                let reason = "the checksum does not fit; the journal was changed or damaged";
                return Err(Error::format(path, format!("line {number}: {reason}")));
            }
        }
    }
    Ok(scan)
}

fn refuse_other_version(path: &Path, first_line: &[u8]) -> Result<()> {
    let value: serde_json::Value = serde_json::from_slice(first_line).unwrap_or_default();
    match value.pointer("/event/version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(VERSION) => Err(Error::format(
            path,
            format!("journal version {version}; this foretell reads version {VERSION}"),
        )),
        _ => Ok(()),
    }
}

/// Whether `content` is what a death during the first write leaves: the beginning of the header.
fn is_torn_header(content: &[u8]) -> bool {
    let header = Header { format: FORMAT.into(), version: VERSION };
    line(&Sum::default(), &header).is_ok_and(|(line, _)| line.starts_with(content))
}
