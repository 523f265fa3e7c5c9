//! The metrics file of a training run: one CSV row a step, continued on resume.

use super::trainer::{HeldOutReport, StepReport};
use crate::files::write_atomically;
use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const HEADER: &str =
    "step,epoch,loss,grad_norm,lr,nodes,params,skipped,seconds,held_out_mean,held_out_se,held_out_best";

/// An append-only CSV file; absent numbers are empty fields.
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens `path`, dropping rows from `step` on (they come again after a resume) and any torn last line.
    ///
    /// # Errors
    /// If the file cannot be read or written, or is not a metrics file.
    pub fn open(path: &Path, step: u64) -> Result<Metrics> {
        let mut kept = format!("{HEADER}\n");
        match std::fs::read_to_string(path) {
            Ok(old) => {
                let mut lines = old.split_inclusive('\n');
                if let Some(header) = lines.next()
                    && header.trim_end() != HEADER
                {
                    return Err(Error::format(path, format!("first line is not `{HEADER}`")));
                }
                for line in lines.filter(|line| line.ends_with('\n')) {
                    let number = line.split(',').next().and_then(|field| field.parse::<u64>().ok());
                    if number.is_some_and(|number| number < step) {
                        kept.push_str(line);
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", path)(e)),
        }
        write_atomically(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("append to", path))?;
        Ok(Metrics { path: path.to_owned(), file })
    }

    /// Adds the row of a step that took `seconds`, with the evaluation that followed it, if one did.
    ///
    /// # Errors
    /// If the row cannot be written.
    pub fn append(
        &mut self,
        step: &StepReport,
        seconds: f64,
        held_out: Option<&HeldOutReport>,
    ) -> Result<()> {
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let row = format!(
            "{},{},{},{},{},{},{},{},{seconds:.4},{},{},{}\n",
            step.step,
            step.epoch,
            optional(step.loss),
            optional(step.grad_norm),
            step.lr,
            step.nodes,
            step.params,
            u8::from(step.skipped),
            optional(held_out.map(|h| h.mean)),
            optional(held_out.map(|h| h.se)),
            optional(held_out.map(|h| h.best)),
        );
        self.file.write_all(row.as_bytes()).map_err(Error::io("append to", &self.path))
    }
}
