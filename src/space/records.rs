//! Lists of architectures on disk.
//!
//! In: a JSON-lines file (one [`ArchRecord`] a line) or a JSON array of records. Out: records, each with a unique id.
//! Lists are written as JSON lines, to a temporary file that then takes the name.

use super::architecture::ArchRecord;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use std::collections::BTreeSet;
use std::path::Path;

/// Reads a list of architectures; blank lines are skipped.
///
/// # Errors
/// A file that cannot be read, a line that is no record, an id that stands twice: the message names the line.
pub fn read_records(path: impl AsRef<Path>) -> Result<Vec<ArchRecord>> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let records: Vec<ArchRecord> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text)
            .map_err(|error| Error::format(path, format!("not a list of records: {error}")))?
    } else {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|error| {
                    Error::format(path, format!("line {}: not a record: {error}", index + 1))
                })
            })
            .collect::<Result<_>>()?
    };
    let mut seen = BTreeSet::new();
    match records.iter().find(|record| !seen.insert(record.id.as_str())) {
        Some(record) => Err(Error::format(path, format!("id `{}` stands twice", record.id))),
        None => Ok(records),
    }
}

/// Records as JSON lines.
///
/// # Errors
/// None are expected: every record can be written.
pub fn records_to_text<'a>(records: impl IntoIterator<Item = &'a ArchRecord>) -> Result<String> {
    let mut text = String::new();
    for record in records {
        let line = serde_json::to_string(record)
            .map_err(|error| Error::Architecture(format!("{} cannot be written: {error}", record.id)))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Writes records as JSON lines to a file, which appears whole or not at all.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn save_records<'a>(
    path: impl AsRef<Path>,
    records: impl IntoIterator<Item = &'a ArchRecord>,
) -> Result<()> {
    write_atomically(path, records_to_text(records)?.as_bytes())
}
