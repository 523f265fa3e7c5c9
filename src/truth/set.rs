//! The folder of a truth set.
//!
//! It holds `config.json` (the resolved configuration with the machine), `architectures.jsonl`, `rows.jsonl` (a line
//! for each finished training, the file that everything is read from), `truth.csv` and `curves.csv` (the same as
//! tables), and while trainings are under way `unfinished/`. Every file is whole or absent.

use super::config::TruthConfig;
use super::rows::{TruthRow, curves_csv, read_rows, rows_to_text, table_csv};
use crate::files::{create_folders, write_atomically};
use crate::space::{ArchRecord, read_records, save_records};
use crate::study::Machine;
use crate::training::first_difference;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FORMAT: &str = "foretell-truth";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    format: String,
    version: u32,
    /// Where the first sitting took place.
    machine: Machine,
    config: TruthConfig,
}

/// A truth set as far as it is known.
#[derive(Clone, Debug)]
pub struct TruthSet {
    folder: PathBuf,
    machine: Machine,
    config: TruthConfig,
    architectures: Vec<ArchRecord>,
    rows: Vec<TruthRow>,
}

impl TruthSet {
    /// Begins a set in `folder`.
    ///
    /// # Errors
    /// If the folder holds one, or cannot be written.
    pub fn create(folder: &Path, config: TruthConfig, architectures: Vec<ArchRecord>) -> Result<TruthSet> {
        if folder.join("config.json").exists() {
            return Err(Error::Config(format!(
                "{} holds a truth set; continue it with --resume, or choose another folder with --out",
                folder.display()
            )));
        }
        create_folders(folder)?;
        let machine = Machine::here();
        let set = TruthSet { folder: folder.to_owned(), machine, config, architectures, rows: Vec::new() };
        set.write_head()?;
        set.write_rows()?;
        Ok(set)
    }

    /// Reads a set, finished or not.
    ///
    /// # Errors
    /// If there is none in `folder`, or a file is damaged or does not fit the others.
    pub fn open(folder: &Path) -> Result<TruthSet> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let record: Record = serde_json::from_str(&text)
            .map_err(|error| Error::format(&path, format!("not a truth set: {error}")))?;
        if (record.format.as_str(), record.version) != (FORMAT, VERSION) {
            let found = format!("{} version {}", record.format, record.version);
            return Err(Error::format(
                &path,
                format!("{found}; this foretell reads {FORMAT} version {VERSION}"),
            ));
        }
        let architectures = read_records(folder.join("architectures.jsonl"))?;
        let path = folder.join("rows.jsonl");
        let mut rows = read_rows(&path)?;
        let place = |row: &TruthRow| {
            architectures.iter().position(|record| record.id == row.id && record.arch.arch_hash() == row.hash)
        };
        if let Some(row) = rows.iter().find(|row| place(row).is_none()) {
            return Err(Error::format(
                &path,
                format!("{} ({}) is not in architectures.jsonl", row.id, row.hash),
            ));
        }
        rows.sort_by_key(|row| (place(row), row.seed));
        let Record { machine, config, .. } = record;
        Ok(TruthSet { folder: folder.to_owned(), machine, config, architectures, rows })
    }

    /// Reads a set to go on with `config`, which may ask for more architectures or trainings than before.
    ///
    /// # Errors
    /// As [`TruthSet::open`], or if another setting differs; the message names it.
    pub fn reopen(folder: &Path, config: TruthConfig, architectures: Vec<ArchRecord>) -> Result<TruthSet> {
        let mut set = TruthSet::open(folder)?;
        let began_with = TruthConfig {
            architectures: config.architectures,
            trainings: config.trainings,
            ..set.config.clone()
        };
        if let Some(key) = first_difference(&began_with, &config) {
            return Err(Error::Config(format!(
                "{}: the truth set was begun with another value of `{key}`; continue it with its own configuration",
                folder.display()
            )));
        }
        let shared = set.architectures.len().min(architectures.len());
        if let Some(i) = (0..shared).find(|&i| set.architectures[i] != architectures[i]) {
            return Err(Error::Config(format!(
                "{}: the configuration draws another architecture {} than when the set was begun; was the space changed?",
                folder.display(),
                architectures[i].id
            )));
        }
        if architectures.len() > set.architectures.len() {
            set.architectures = architectures;
        }
        set.config = config;
        set.write_head()?;
        // The tables of an earlier version may have had fewer columns.
        set.write_rows()?;
        Ok(set)
    }

    fn write_head(&self) -> Result<()> {
        save_records(self.folder.join("architectures.jsonl"), &self.architectures)?;
        let (machine, config) = (self.machine.clone(), self.config.clone());
        let record = Record { format: FORMAT.into(), version: VERSION, machine, config };
        let text = serde_json::to_string_pretty(&record).expect("plain data serialises") + "\n";
        write_atomically(self.folder.join("config.json"), text.as_bytes())
    }

    fn write_rows(&self) -> Result<()> {
        let noise = &self.config.evaluation.noise;
        for (name, text) in [
            ("rows.jsonl", rows_to_text(&self.rows)),
            ("truth.csv", table_csv(&self.rows, noise)),
            ("curves.csv", curves_csv(&self.rows)),
        ] {
            write_atomically(self.folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// Takes a finished training in; on return it is on the disk.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn add(&mut self, row: TruthRow) -> Result<()> {
        self.rows.push(row);
        let place = |row: &TruthRow| self.architectures.iter().position(|record| record.id == row.id);
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| (place(row), row.seed));
        self.rows = rows;
        self.write_rows()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the set is.
    pub fn config(&self) -> &TruthConfig {
        &self.config
    }

    /// All architectures, trained or not yet.
    pub fn architectures(&self) -> &[ArchRecord] {
        &self.architectures
    }

    /// Finished trainings, in the order of the architectures.
    pub fn rows(&self) -> &[TruthRow] {
        &self.rows
    }

    /// Architecture and number of each training that is not finished: first the first training of all, then the
    /// second, so that a set that ends early has whole rounds.
    pub fn missing(&self) -> Vec<(&ArchRecord, u64)> {
        let first = self.config.training.seed;
        let is_missing = |record: &ArchRecord, repeat: u64| {
            !self.rows.iter().any(|row| row.id == record.id && row.seed == first + repeat)
        };
        (0..self.config.trainings)
            .flat_map(|repeat| self.architectures.iter().map(move |record| (record, repeat)))
            .filter(|&(record, repeat)| is_missing(record, repeat))
            .collect()
    }
}
