//! Lists of architectures on disk.
//!
//! In: a JSON-lines file (one [`ArchRecord`] a line), a JSON array of records, or a single record. Out: records, each
//! with a unique id. Lists are written as JSON lines, to a temporary file that then takes the name.

use super::architecture::ArchRecord;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Reads all records of a file; ids are unique.
///
/// # Errors
/// Names the file and the line (array: the place in it) of the first record that is wrong.
pub fn read_records(path: impl AsRef<Path>) -> Result<Vec<ArchRecord>> {
    let path = path.as_ref();
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let text =
        String::from_utf8(text).map_err(|_| Error::format(path, "expected JSON, found no UTF-8 text"))?;
    parse_records(&text).map_err(|reason| Error::format(path, reason))
}

fn parse_records(text: &str) -> Result<Vec<ArchRecord>, String> {
    let mut places = Vec::new();
    let mut values = Vec::new();
    if text.trim_start().starts_with('[') {
        values = serde_json::from_str::<Vec<Value>>(text).map_err(|error| error.to_string())?;
        places.extend((1..=values.len()).map(|number| format!("record {number}")));
    } else {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut start = 0;
        while let Some(value) = stream.next() {
            values.push(value.map_err(|error| error.to_string())?);
            let blank = text[start..].len() - text[start..].trim_start().len();
            places.push(format!("line {}", 1 + text[..start + blank].matches('\n').count()));
            start = stream.byte_offset();
        }
    }
    let mut ids = BTreeSet::new();
    let mut records = Vec::with_capacity(values.len());
    for (value, place) in values.into_iter().zip(places) {
        let record = parse_record(value).map_err(|reason| format!("{place}: {reason}"))?;
        if !ids.insert(record.id.clone()) {
            return Err(format!("{place}: a second architecture with the id {:?}", record.id));
        }
        records.push(record);
    }
    Ok(records)
}

fn parse_record(value: Value) -> Result<ArchRecord, String> {
    let Some(keys) = value.as_object() else {
        return Err("an architecture must be a JSON object".into());
    };
    if keys.contains_key("args") == keys.contains_key("torchvision") {
        return Err(
            "an architecture needs either \"args\" (a cell network) or \"torchvision\" (a name)".into()
        );
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::super::Architecture;
    use super::*;

    #[test]
    fn arrays_lines_and_single_records_are_read() {
        let record = |id: &str| format!(r#"{{"id": "{id}", "num_classes": 10, "torchvision": "resnet18"}}"#);
        let (a, b) = (record("a"), record("b"));
        let lines = format!("{a}\n\n{b}\n");
        for text in [format!("[{a},\n{b}]"), lines] {
            let records = parse_records(&text).unwrap();
            assert_eq!(records.len(), 2);
            assert_eq!(records[1].id, "b");
            assert_eq!(records[1].arch, Architecture::Torchvision("resnet18".into()));
        }
        assert!(parse_records("[]").unwrap().is_empty() && parse_records("\n").unwrap().is_empty());
        assert_eq!(parse_records(&a.replace(", ", ",\n ")).unwrap().len(), 1);
    }

    #[test]
    fn errors_name_the_place() {
        let a = r#"{"id": "a", "num_classes": 10, "torchvision": "resnet18"}"#;
        let refused = |text: &str, reason: &str| {
            let error = parse_records(text).expect_err(reason);
            assert!(error.contains(reason), "{reason}: {error}");
        };
        refused("[1]", "record 1: an architecture must be a JSON object");
        refused(&format!("{a}\n{a}"), "line 2: a second architecture with the id \"a\"");
        refused(&format!("{a}\n\n{{\"id\": 3}}"), "line 3");
        refused(&format!("{a}\n{{\"id\""), "line 2");
        refused(
            &format!("[{a}, {{\"id\": \"b\", \"num_classes\": 1}}]"),
            "record 2: an architecture needs either",
        );
        refused(&a.replace("\"num_classes\": 10, ", ""), "num_classes");
    }
}
