//! `foretell rank`: given architectures in the order of an objective, with predicted or with trained weights.
//!
//! Scores are kept in `FILE.part` as they come, a JSON line each, so that a run that ends early loses at most the
//! architecture it was at; the same command goes on from there. When all are scored the CSV takes its place.

use super::candidates::{self, Candidate};
use super::interrupt::stop_flag;
use super::output::print;
use super::rank_cheap::CheapRanking;
use super::refining::TrainingArgs;
use super::scoring::{ScoringArgs, default_evaluation, evaluation_value, measured};
use super::threads;
use crate::predictor::CHEAP_SCORES;
use crate::report::{Ranking, Scored, write_csv};
use crate::score::{Fidelity, Scores};
use crate::search::{Limits, Objective};
use crate::space::Architecture;
use crate::{Error, Result};
use anyhow::Context;
use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Flags of `foretell rank`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a GPU run prediction, accuracies and robustness; latency is that of the CPU in any case."
)]
pub struct Args {
    /// Run folders, files of architectures (JSON lines, as leaderboards are), FILE#ID, or names such as DARTS, resnet50
    #[arg(required = true, value_name = "RUN|FILE|NAME")]
    architectures: Vec<String>,
    /// What to rank by: as for `foretell search`; several objectives are ranked by their fronts
    #[arg(long, default_value = "accuracy")]
    objective: Objective,
    /// With which weights: predicted, sgd:N (N steps of SGD from predicted weights), he:N (from He's random weights) or
    /// trained (to the end, from predicted weights)
    #[arg(long, default_value = "predicted")]
    fidelity: Fidelity,
    /// Rank by a score that needs one batch of images at most instead: costs from the smallest, the others (with random
    /// weights, but for grad_norm_predicted) from the largest
    #[arg(long, value_name = "SCORE", value_parser = PossibleValuesParser::new(CHEAP_SCORES),
        conflicts_with_all = ["objective", "fidelity"])]
    by: Option<String>,
    /// Seed of the random weights and images of --by
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scoring: ScoringArgs,
    #[command(flatten)]
    training: TrainingArgs,
    /// Seed of training, the same for all candidates
    #[arg(long, value_name = "N", default_value_t = 0)]
    train_seed: u64,
    /// Rows to print; the file holds all
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// File to write
    #[arg(long, value_name = "FILE", default_value = "ranking.csv")]
    csv: PathBuf,
    /// Threads that an architecture's arithmetic uses [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    threads::limit(args.threads)?;
    let candidates = candidates::read(&args.architectures)?;
    let mut evaluation = args.scoring.over(default_evaluation())?;
    args.training.check(args.fidelity)?;
    args.training.over(&mut evaluation, args.fidelity.is_refined(), args.train_seed)?;
    if let Some(by) = &args.by {
        let (ghn, images) = (evaluation.ghn.as_deref(), &evaluation.images[..]);
        let (seed, top, csv) = (args.seed, args.top, args.csv.as_path());
        return CheapRanking { by, ghn, images, seed, top, csv }.run(&candidates);
    }
    measured(&evaluation, &args.objective, &Limits::default())?;
    let evaluator = args.scoring.evaluator(&evaluation, 1)?;
    evaluation.eval_images = args.scoring.eval_images(&evaluator)?;
    let mut settings = evaluation_value(&evaluation).context("--ghn")?;
    if args.fidelity.is_refined() {
        settings["fidelity"] = args.fidelity.to_string().into();
    }
    let mut part = Part::open(&args.csv, settings)?;
    let known = candidates.iter().filter(|candidate| part.find(candidate).is_some()).count();
    if known > 0 {
        eprintln!("{}: {known} of {} are scored already", part.path.display(), candidates.len());
    }
    let mut scored = Vec::new();
    let mut interrupted = false;
    for (i, candidate) in candidates.iter().enumerate() {
        interrupted |= stop_flag().load(Ordering::Relaxed);
        if let Some(row) = part.find(candidate) {
            scored.push(row.scored());
        } else if !interrupted {
            eprintln!("{} of {}: {}", i + 1, candidates.len(), candidate.name);
            let scores = match evaluator.score_any_at(&candidate.arch, args.fidelity, stop_flag()) {
                Err(Error::Interrupted) => {
                    interrupted = true;
                    continue;
                }
                scores => scores,
            };
            let row = Row::of(candidate, scores);
            part.append(&row)?;
            scored.push(row.scored());
        }
    }
    let ranking = Ranking::new(&scored, &args.objective)?;
    let table = ranking.table(args.top);
    if interrupted {
        let left = candidates.len() - scored.len();
        print(&format!("{table}{left} left; the same command goes on from {}\n", part.path.display()))?;
        return Err(Error::Interrupted.into());
    }
    write_csv(&ranking.frame()?, &args.csv)?;
    part.remove()?;
    print(&format!("{table}wrote {}\n", args.csv.display()))
}

/// The first line of a part.
#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    evaluation: Value,
}

/// One scored architecture.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    name: String,
    arch: Architecture,
    scores: Option<Scores>,
    reason: Option<String>,
}

impl Row {
    fn of(candidate: &Candidate, outcome: Result<Scores>) -> Row {
        let outcome = outcome.and_then(|scores| match scores.first_non_finite() {
            Some(name) => Err(Error::NonFinite(format!("the score {name} is not a finite number"))),
            None => Ok(scores),
        });
        let Candidate { name, arch } = candidate.clone();
        let (scores, reason) = match outcome {
            Ok(scores) => (Some(scores), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Row { name, arch, scores, reason }
    }

    fn scored(&self) -> Scored {
        let outcome = self.scores.clone().ok_or_else(|| self.reason.clone().unwrap_or_default());
        Scored { name: self.name.clone(), outcome }
    }
}

/// What is scored so far, in a file.
struct Part {
    path: PathBuf,
    file: File,
    rows: Vec<Row>,
}

impl Part {
    const FORMAT: &str = "foretell-ranking";
    const VERSION: u32 = 1;

    /// The part beside `csv`: begun, or gone on with if it was scored with the same settings. A torn last line is
    /// cut off.
    fn open(csv: &Path, evaluation: Value) -> Result<Part> {
        let mut name = csv.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let mut open = OpenOptions::new();
        let mut file =
            open.read(true).append(true).create(true).open(&path).map_err(Error::io("open", &path))?;
        file.try_lock().map_err(|error| Error::Config(format!("{} is in use: {error}", path.display())))?;
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(Error::io("repair", &path))?;
        let mut lines = text[..whole].split_inclusive(|&byte| byte == b'\n').enumerate();
        let wrong = |number: usize, error: serde_json::Error| {
            Error::format(&path, format!("line {}: {error}; remove the file to begin anew", number + 1))
        };
        match lines.next() {
            None => {
                let header = Header { format: Part::FORMAT.into(), version: Part::VERSION, evaluation };
                write_line(&mut file, &header, &path)?;
            }
            Some((number, line)) => {
                let header: Header = serde_json::from_slice(line).map_err(|error| wrong(number, error))?;
                if (header.format.as_str(), header.version) != (Part::FORMAT, Part::VERSION) {
                    let found = format!("{} version {}", header.format, header.version);
                    return Err(Error::format(&path, format!("not a part of a ranking, but {found}")));
                }
                if header.evaluation != evaluation {
                    return Err(Error::format(
                        &path,
                        "a ranking that was begun with other settings; go on with those, remove the file, or \
                         name another --csv",
                    ));
                }
            }
        }
        let rows = lines.map(|(number, line)| serde_json::from_slice(line).map_err(|e| wrong(number, e)));
        let rows = rows.collect::<Result<Vec<Row>>>()?;
        Ok(Part { path, file, rows })
    }

    fn find(&self, candidate: &Candidate) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == candidate.name && row.arch == candidate.arch)
    }

    fn append(&mut self, row: &Row) -> Result<()> {
        write_line(&mut self.file, row, &self.path)?;
        self.rows.push(row.clone());
        Ok(())
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }
}

fn write_line(file: &mut File, value: &impl Serialize, path: &Path) -> Result<()> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| Error::Config(format!("cannot encode a row of a ranking: {error}")))?;
    line.push(b'\n');
    file.write_all(&line).and_then(|()| file.sync_data()).map_err(Error::io("append to", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn candidate(name: &str) -> Candidate {
        Candidate { name: name.into(), arch: Architecture::Torchvision("resnet18".into()) }
    }

    #[test]
    fn a_part_keeps_whole_rows_and_refuses_other_settings() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("ranking.csv");
        let settings = json!({"images": "fashion-mnist"});
        let mut part = Part::open(&csv, settings.clone()).unwrap();
        let scores = Scores { accuracy: Some(0.1 + 0.2), ..Scores::default() };
        part.append(&Row::of(&candidate("a"), Ok(scores.clone()))).unwrap();
        let nan = Scores { loss: Some(f64::NAN), ..Scores::default() };
        part.append(&Row::of(&candidate("b"), Ok(nan))).unwrap();
        let path = part.path.clone();
        drop(part);
        // What a death while the third row is written leaves.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"name\":\"c\""].concat()).unwrap();

        let mut part = Part::open(&csv, settings.clone()).unwrap();
        assert_eq!(part.rows.len(), 2);
        assert_eq!(part.find(&candidate("a")).unwrap().scored().outcome, Ok(scores));
        let reason = part.find(&candidate("b")).unwrap().scored().outcome.unwrap_err();
        assert!(reason.contains("loss is not a finite number"), "{reason}");
        assert!(part.find(&candidate("c")).is_none());
        part.append(&Row::of(&candidate("c"), Err(Error::NonFinite("NaN".into())))).unwrap();
        drop(part);
        assert_eq!(Part::open(&csv, settings).unwrap().rows.len(), 3);

        let refused = |settings: Value| Part::open(&csv, settings).err().expect("refused").to_string();
        assert!(refused(json!({})).contains("begun with other settings"));
        std::fs::write(&path, "{}\n").unwrap();
        assert!(refused(json!({})).contains("line 1: missing field"));
        let future = r#"{"format":"foretell-ranking","version":2,"evaluation":{}}"#;
        std::fs::write(&path, format!("{future}\n")).unwrap();
        assert!(refused(json!({})).contains("foretell-ranking version 2"));
    }
}
