//! What architectures measured: columns of a CSV or the scores of a run, by the architecture's name.

use crate::Error;
use crate::report::frame;
use crate::study::{Folder, Study, Trial};
use anyhow::{Context, bail};
use polars::prelude::{CsvReadOptions, CsvReader, DataFrame, DataType, SerReader};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// Columns that may name the architectures, in the order of preference. A `trial` 17 is the architecture `trial/17`.
const NAMES: [&str; 4] = ["architecture", "name", "id", "trial"];

/// Numbers by the names of architecture and column.
pub(super) struct Measured {
    frame: DataFrame,
    rows: BTreeMap<String, usize>,
}

impl Measured {
    /// The finished trials of a run folder, or the rows of a CSV.
    pub(super) fn read(path: &Path) -> anyhow::Result<Measured> {
        if path.is_dir() {
            let (folder, _) = Folder::open(path)?;
            let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
            let trials: Vec<&Trial> = trials.iter().collect();
            return Measured::of(frame(&trials)?).with_context(|| path.display().to_string());
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let options = CsvReadOptions::default().with_infer_schema_length(None);
        let frame = CsvReader::new(Cursor::new(bytes))
            .with_options(options)
            .finish()
            .with_context(|| format!("{}: not a CSV", path.display()))?;
        Measured::of(frame).with_context(|| path.display().to_string())
    }

    fn of(frame: DataFrame) -> anyhow::Result<Measured> {
        let Some(key) = NAMES.into_iter().find(|name| frame.column(name).is_ok()) else {
            bail!("none of the columns {} names the architectures", NAMES.join(", "));
        };
        let names = frame.column(key)?.cast(&DataType::String)?;
        let mut rows = BTreeMap::new();
        for (row, name) in names.str()?.iter().enumerate() {
            let Some(name) = name else { bail!("row {}: the column {key} is empty", row + 1) };
            let name = if key == "trial" { format!("trial/{name}") } else { name.to_owned() };
            if rows.insert(name.clone(), row).is_some() {
                bail!("row {}: a second {name}", row + 1);
            }
        }
        Ok(Measured { frame, rows })
    }

    /// Whether there is such a column of numbers.
    pub(super) fn has(&self, column: &str) -> bool {
        self.numeric().any(|name| name == column)
    }

    fn numeric(&self) -> impl Iterator<Item = String> {
        let columns = self.frame.columns().iter();
        columns.filter(|column| column.dtype().is_primitive_numeric()).map(|column| column.name().to_string())
    }

    /// The numbers of `column` for `names`; none where there is no row or no number.
    pub(super) fn column(&self, column: &str, names: &[&str]) -> anyhow::Result<Vec<Option<f64>>> {
        if !self.has(column) {
            let known: Vec<String> = self.numeric().collect();
            bail!("there is no column of numbers {column:?}; there are {}", known.join(", "));
        }
        let numbers = self.frame.column(column)?.cast(&DataType::Float64)?;
        let numbers = numbers.f64()?;
        let number = |name: &&str| numbers.get(*self.rows.get(*name)?).filter(|number| number.is_finite());
        Ok(names.iter().map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_the_names_of_architectures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("measured.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Measured::read(&path)
        };
        let measured = read("trial,accuracy,steps,note\n3,0.5,7,a\n5,,8,b\n8,NaN,9,c\n").unwrap();
        let names = ["trial/5", "trial/3", "trial/4", "trial/8"];
        assert_eq!(measured.column("accuracy", &names).unwrap(), [None, Some(0.5), None, None]);
        assert_eq!(measured.column("steps", &names).unwrap(), [Some(8.0), Some(7.0), None, Some(9.0)]);
        let error = measured.column("note", &names).unwrap_err().to_string();
        assert!(error.contains("\"note\"; there are trial, accuracy, steps"), "{error}");
        assert_eq!(read("name,x\ntest/1,2\n").unwrap().column("x", &["test/1"]).unwrap(), [Some(2.0)]);
        let refused = |text: &str| format!("{:#}", read(text).err().unwrap());
        assert!(refused("x,y\n1,2\n").contains("none of the columns architecture, name"));
        assert!(refused("name,y\na,2\na,3\n").contains("row 2: a second a"));
    }
}
