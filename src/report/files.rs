//! Frames as CSV and Parquet files.

use crate::files::write_atomically;
use crate::{Error, Result};
use polars::prelude::{CsvWriter, DataFrame, ParquetCompression, ParquetWriter, SerWriter};
use std::path::Path;

/// Writes a frame as CSV with a header; an absent value is an empty field.
///
/// # Errors
/// The file cannot be written; an earlier one is then unchanged.
pub fn write_csv(frame: &DataFrame, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame.clone()).map_err(|error| encoding(path, error))?;
    write_atomically(path, &bytes)
}

/// Writes a frame as Parquet.
///
/// # Errors
/// As [`write_csv`].
pub fn write_parquet(frame: &DataFrame, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Uncompressed)
        .finish(&mut frame.clone())
        .map_err(|error| encoding(path, error))?;
    write_atomically(path, &bytes)
}

fn encoding(path: &Path, error: polars::prelude::PolarsError) -> Error {
    Error::format(path, format!("cannot encode the frame: {error}"))
}
