//! Rows on disk: one for every architecture and source of weights, appended and synced as it is measured, so that a
//! run which ends at any moment goes on where it was.

use crate::files::write_atomically;
use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const ROWS: &str =
    "weights,group,architecture,hash,params,macs,nodes,images,accuracy,accuracy_se,loss,seconds,reason";
const CURVES: &str = "group,architecture,step,accuracy";

/// One architecture with weights from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The source of the weights.
    pub weights: String,
    /// The group of the architecture.
    pub group: String,
    /// Its id.
    pub architecture: String,
    /// Its hash.
    pub hash: String,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulates of an image.
    pub macs: u64,
    /// Nodes of its graph.
    pub nodes: usize,
    /// Images classified.
    pub images: u64,
    /// Share of them classified correctly; none if a logit was not finite.
    pub accuracy: Option<f64>,
    /// Its binomial standard error.
    pub accuracy_se: Option<f64>,
    /// Mean cross entropy, nats.
    pub loss: Option<f64>,
    /// Time to make the weights and classify the images, s.
    pub seconds: f64,
    /// Why there is no accuracy.
    pub reason: String,
}

/// A point of the curve of a network that was trained from random weights.
#[derive(Clone, Debug, PartialEq)]
pub struct CurvePoint {
    /// The group of the architecture.
    pub group: String,
    /// Its id.
    pub architecture: String,
    /// Steps of stochastic gradient descent.
    pub step: u64,
    /// Accuracy on the images of the table, 0..1.
    pub accuracy: f64,
}

impl Row {
    fn to_line(&self) -> String {
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let Row { weights, group, architecture, hash, params, macs, nodes, images, seconds, .. } = self;
        format!(
            "{weights},{group},{architecture},{hash},{params},{macs},{nodes},{images},{},{},{},{seconds:.3},{}\n",
            optional(self.accuracy),
            optional(self.accuracy_se),
            optional(self.loss),
            self.reason.replace([',', '\n', '\r'], ";")
        )
    }

    fn parse(line: &str) -> Result<Row, String> {
        let fields: Vec<&str> = line.split(',').collect();
        let [
            weights,
            group,
            architecture,
            hash,
            params,
            macs,
            nodes,
            images,
            accuracy,
            se,
            loss,
            seconds,
            reason,
        ] = fields[..]
        else {
            return Err(format!("{} fields, expected {}", fields.len(), ROWS.split(',').count()));
        };
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        Ok(Row {
            weights: weights.into(),
            group: group.into(),
            architecture: architecture.into(),
            hash: hash.into(),
            params: number(params)?,
            macs: number(macs)?,
            nodes: number(nodes)?,
            images: number(images)?,
            accuracy: optional(accuracy)?,
            accuracy_se: optional(se)?,
            loss: optional(loss)?,
            seconds: number(seconds)?,
            reason: reason.into(),
        })
    }
}

impl CurvePoint {
    fn to_line(&self) -> String {
        format!("{},{},{},{}\n", self.group, self.architecture, self.step, self.accuracy)
    }

    fn parse(line: &str) -> Result<CurvePoint, String> {
        let fields: Vec<&str> = line.split(',').collect();
        let [group, architecture, step, accuracy] = fields[..] else {
            return Err(format!("{} fields, expected {}", fields.len(), CURVES.split(',').count()));
        };
        Ok(CurvePoint {
            group: group.into(),
            architecture: architecture.into(),
            step: number(step)?,
            accuracy: number(accuracy)?,
        })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// Reads a file of rows; a torn last line is passed over, a missing file has none.
///
/// # Errors
/// Names the file and the line that is wrong.
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    read(path, ROWS, Row::parse)
}

/// Reads a file of curves, as [`read_rows`].
///
/// # Errors
/// Names the file and the line that is wrong.
pub fn read_curves(path: &Path) -> Result<Vec<CurvePoint>> {
    read(path, CURVES, CurvePoint::parse)
}

fn read<T>(path: &Path, header: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut lines = text.split_inclusive('\n').enumerate();
    if lines.next().is_some_and(|(_, first)| first.trim_end() != header) {
        return Err(Error::format(path, format!("first line is not `{header}`")));
    }
    lines
        .filter(|(_, line)| line.ends_with('\n'))
        .map(|(index, line)| {
            let wrong = |reason| Error::format(path, format!("line {}: {reason}", index + 1));
            parse(line.trim_end_matches('\n')).map_err(wrong)
        })
        .collect()
}

/// A file that lines are appended to.
pub(super) struct Appended {
    path: PathBuf,
    file: File,
}

impl Appended {
    /// Rows, after those that `path` has.
    pub fn rows(path: &Path) -> Result<(Appended, Vec<Row>)> {
        let rows = read_rows(path)?;
        let lines = rows.iter().map(Row::to_line).collect();
        Ok((Appended::open(path, ROWS, lines)?, rows))
    }

    /// Curves, after those that `path` has.
    pub fn curves(path: &Path) -> Result<(Appended, Vec<CurvePoint>)> {
        let points = read_curves(path)?;
        let lines = points.iter().map(CurvePoint::to_line).collect();
        Ok((Appended::open(path, CURVES, lines)?, points))
    }

    /// Writes the whole lines back, which removes a torn last one.
    fn open(path: &Path, header: &str, lines: Vec<String>) -> Result<Appended> {
        write_atomically(path, format!("{header}\n{}", lines.concat()).as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("append to", path))?;
        Ok(Appended { path: path.to_owned(), file })
    }

    pub fn add_row(&mut self, row: &Row) -> Result<()> {
        self.add(row.to_line())
    }

    /// A whole curve at once: half of one would be taken for a whole one.
    pub fn add_curve(&mut self, points: &[CurvePoint]) -> Result<()> {
        self.add(points.iter().map(CurvePoint::to_line).collect())
    }

    fn add(&mut self, text: String) -> Result<()> {
        let write = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        write.map_err(Error::io("append to", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn row(accuracy: Option<f64>) -> Row {
        Row {
            weights: "bundled".into(),
            group: "test".into(),
            architecture: "test/0".into(),
            hash: "0f".into(),
            params: 10,
            macs: 20,
            nodes: 3,
            images: 100,
            accuracy,
            accuracy_se: accuracy.map(|_| 0.01),
            loss: accuracy.map(|_| 1.5),
            seconds: 0.25,
            reason: if accuracy.is_some() { String::new() } else { "image 0 has the logit NaN".into() },
        }
    }

    #[test]
    fn rows_are_read_as_written_and_a_torn_line_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let rows = [row(Some(0.75)), row(None)];
        let (mut file, before) = Appended::rows(&path).unwrap();
        assert!(before.is_empty());
        rows.iter().for_each(|row| file.add_row(row).unwrap());
        assert_eq!(read_rows(&path).unwrap(), rows);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}bundled,test,te")).unwrap();
        let (_, kept) = Appended::rows(&path).unwrap();
        assert_eq!(kept, rows);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        std::fs::write(&path, whole.replace(",20,", ",many,")).unwrap();
        let message = read_rows(&path).unwrap_err().to_string();
        assert!(message.contains("rows.csv: line 2: `many` is not a number"), "{message}");
        std::fs::write(&path, "a,b\n").unwrap();
        assert!(read_rows(&path).unwrap_err().to_string().contains("first line is not"));
    }
}
