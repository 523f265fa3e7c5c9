//! `foretell search`: settings from flags, a run folder, the search, and its results.

use super::interrupt::stop_flag;
use super::output::print;
use super::progress::Progress;
use super::report::REPORT;
use super::threads;
use crate::pipeline::{EvaluationSettings, GhnEvaluator};
use crate::report::{Leaderboard, ReportedStudy, SortKey, write_report, write_results};
use crate::search::{Budget, Limits, Metric, Objective, RegularisedEvolution, StopReason, StrategySettings};
use crate::space::Space;
use crate::study::{self, Folder, Plan, SearchSettings, Storage, Study, StudyRecord};
use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Parent of run folders that are not named.
const RUNS: &str = "runs";
/// Stem of numbered run folders.
const STEM: &str = "search";
/// Seconds of a search whose budget is not given.
const DEFAULT_SECONDS: f64 = 90.0;
/// Candidates that may be chosen before the outcome of the first of them is known.
const LOOKAHEAD: u64 = 4;

/// Flags of `foretell search`. With --resume, flags that are not given are those of the study.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Search space: a bundled one (see `foretell space show`) or a TOML file [default: small]
    #[arg(long, value_name = "NAME_OR_FILE")]
    space: Option<String>,
    /// Images to score on: fashion-mnist, cifar10 or a folder [default: fashion-mnist]
    #[arg(long, value_name = "NAME_OR_DIR")]
    images: Option<String>,
    /// Hypernetwork that predicts the weights: bundled, or a .safetensors or .pt file [default: bundled]
    #[arg(long, value_name = "bundled|FILE")]
    ghn: Option<String>,
    /// How candidates are chosen [default: evolution]
    #[arg(long)]
    strategy: Option<StrategyName>,
    /// Evolution: candidates alive at once [default: 24]
    #[arg(long, value_name = "N")]
    population: Option<usize>,
    /// Evolution: candidates that compete to be the parent of the next [default: 6, or a smaller --population]
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// What to search for: accuracy, robustness, latency (minimised), or a weighted sum such as
    /// accuracy=1,robustness=0.5,latency=-0.01 (latency in ms; costs take negative weights) [default: accuracy]
    #[arg(long)]
    objective: Option<Objective>,
    /// Stop after this many evaluated candidates; those over a limit before evaluation do not count
    #[arg(long, value_name = "N")]
    trials: Option<u64>,
    /// Stop after this much search time, over all sessions of the study [default: 90, unless --trials is given]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Seed of all that is random [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Reject candidates with more parameters, before evaluation
    #[arg(long, value_name = "N")]
    max_params: Option<u64>,
    /// Reject candidates with more multiply-accumulates an image, before evaluation
    #[arg(long, value_name = "N")]
    max_macs: Option<u64>,
    /// Reject candidates with a longer median forward pass
    #[arg(long, value_name = "MS")]
    max_latency_ms: Option<f64>,
    /// Validation images that accuracies are measured on [default: 1024]
    #[arg(long, value_name = "N")]
    eval_images: Option<usize>,
    /// Images of a forward pass, whose statistics the norm layers use [default: 64]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Standard deviations of the Gaussian noise on pixels in [0, 1], or none [default: 0.08]
    #[arg(long, value_name = "SD,SD,...")]
    noise: Option<NoiseLevels>,
    /// Seed of the noise, the same for all candidates [default: 0]
    #[arg(long, value_name = "N")]
    noise_seed: Option<u64>,
    /// Images of a timed forward pass [default: 1]
    #[arg(long, value_name = "N")]
    latency_batch: Option<usize>,
    /// Threads of a timed forward pass [default: 1]
    #[arg(long, value_name = "N")]
    latency_threads: Option<usize>,
    /// Do not time candidates
    #[arg(long)]
    no_latency: bool,
    /// Candidates evaluated at once, at most 4; the trials do not depend on it, and one that is timed runs alone
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Threads that a candidate's arithmetic uses [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Run folder [default: the next free runs/search-NNN; with --resume the latest]
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    out: Option<PathBuf>,
    /// Run folder runs/NAME
    #[arg(long, value_parser = run_name)]
    name: Option<String>,
    /// Continue a search that was interrupted, or spend a larger --trials or --seconds
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum StrategyName {
    /// Regularised (aging) evolution
    Evolution,
    /// Independent random draws
    Random,
}

#[derive(Clone, Debug)]
struct NoiseLevels(Vec<f64>);

impl std::str::FromStr for NoiseLevels {
    type Err = String;

    fn from_str(text: &str) -> Result<NoiseLevels, String> {
        if text == "none" {
            return Ok(NoiseLevels(Vec::new()));
        }
        let level = |part: &str| match part.trim().parse::<f64>() {
            Ok(sd) if sd > 0.0 && sd.is_finite() => Ok(sd),
            _ => Err(format!("\"{part}\" is not a standard deviation: expected positive numbers, or none")),
        };
        let levels = text.split(',').map(level).collect::<Result<Vec<f64>, String>>()?;
        for (i, sd) in levels.iter().enumerate() {
            if levels[..i].contains(sd) {
                return Err(format!("the level {sd} is given twice"));
            }
        }
        Ok(NoiseLevels(levels))
    }
}

/// A name that stays inside the folder of runs.
fn run_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('.') || text.contains(['/', '\\']) {
        return Err("expected the name of a folder in runs; --out takes a path".into());
    }
    Ok(text.to_owned())
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut args = args;
    if args.workers == 0 || args.workers as u64 > LOOKAHEAD {
        bail!("--workers {}: must be from 1 to {LOOKAHEAD}", args.workers);
    }
    threads::limit(args.threads)?;
    let (folder, record) = if args.resume { resumed(&mut args)? } else { prepared(&mut args)? };
    let budget = args.budget(record.budget);
    check(&record.settings, budget)?;
    let space = space_of(&record.settings)?;
    // All that can be wrong with the inputs shows here, before a folder is made.
    let (evaluation, _) = evaluation_of(&record.settings)?;
    let evaluator = GhnEvaluator::new(evaluation)?;
    let folder = match folder {
        Some(folder) => folder,
        None => create(&args, &StudyRecord { budget, ..record.clone() })?,
    };
    let journal = folder.journal()?;
    if let Some(repair) = journal.repair()
        && repair.bytes > 0
    {
        let origin = journal.origin().display();
        eprintln!(
            "{origin}: cut off the torn line {} ({} bytes) of a write that never ended",
            repair.line, repair.bytes
        );
    }
    let mut study = Study::open(journal)?;
    let settings = &record.settings;
    let resumed = if args.resume { "resuming" } else { "searching" };
    eprintln!(
        "{resumed} in {}: space {}, objective {}",
        folder.path().display(),
        space.name(),
        settings.objective
    );
    let plan = Plan {
        space: &space,
        evaluator: &evaluator,
        objective: &settings.objective,
        limits: settings.limits,
        budget,
        seed: settings.seed,
        lookahead: settings.lookahead,
        workers: args.workers,
        interrupted: stop_flag(),
    };
    let mut strategy = settings.strategy.build()?;
    let mut progress = Progress::new(budget, &study);
    let stopped = study::run(&plan, strategy.as_mut(), &mut study, &mut |study| progress.update(study));
    progress.finish();
    let hint = format!("to continue: foretell search --resume --out {}", folder.path().display());
    let stopped =
        stopped.with_context(|| format!("the search stopped; what was finished is kept ({hint})"))?;
    conclude(&study, &settings.objective, evaluator.num_classes(), folder.path(), stopped, &hint)
}

/// Prints and writes the results.
fn conclude(
    study: &Study,
    objective: &Objective,
    num_classes: usize,
    folder: &Path,
    stopped: StopReason,
    hint: &str,
) -> anyhow::Result<()> {
    let mut text = Leaderboard::new(study.trials(), SortKey::Objective).table(10);
    text += &format!("stopped after {:.1} s of search: {stopped}\n", study.elapsed_s());
    let mut results = write_results(study.trials(), objective, num_classes, folder)?;
    let page = folder.join(REPORT);
    write_report(&ReportedStudy::open(folder)?, None, &page)?;
    results.written.push(page);
    for reason in &results.left_out {
        eprintln!("no plot {reason}");
    }
    text += &format!("results in {}:\n", folder.display());
    for path in &results.written {
        text += &format!("  {}\n", path.display());
    }
    let more = match stopped {
        StopReason::Trials => " --trials MORE",
        StopReason::Seconds => " --seconds MORE",
        _ => "",
    };
    if let Some(best) = study.best() {
        text += &format!(
            "the winner's weights: foretell predict --arch {}#trial/{} --out winner.safetensors\n",
            folder.join("leaderboard.jsonl").display(),
            best.number
        );
    }
    print(&format!("{text}{hint}{more}\n"))?;
    if stopped == StopReason::Interrupted {
        return Err(crate::Error::Interrupted.into());
    }
    if study.best().is_none() {
        let last = study.trials().iter().rev().find_map(|trial| trial.reason.as_deref());
        bail!(
            "no candidate finished; {}{} lists the reasons",
            last.map_or_else(String::new, |reason| format!("the last was turned down: {reason}; ")),
            folder.join("leaderboard.csv").display()
        );
    }
    Ok(())
}

/// A new study's record; its folder is made later.
fn prepared(args: &mut Args) -> anyhow::Result<(Option<Folder>, StudyRecord)> {
    if let Some(path) = args.folder()
        && Folder::open(&path).is_ok()
    {
        bail!("{} already holds a study; give --resume to continue it, or another folder", path.display());
    }
    let settings = args.over(default_settings()?)?;
    Ok((None, StudyRecord::new(settings, args.budget(Budget { trials: None, seconds: None }))))
}

/// The study to continue, after comparing its settings with the flags given.
fn resumed(args: &mut Args) -> anyhow::Result<(Option<Folder>, StudyRecord)> {
    let path = args.folder().map_or_else(|| Folder::latest(Path::new(RUNS), STEM), Ok)?;
    let (folder, record) = Folder::open(&path)?;
    readable(&record.settings).with_context(|| path.display().to_string())?;
    let asked = args.over(record.settings.clone())?;
    let (ours, theirs) = (evaluation_of(&record.settings)?, evaluation_of(&asked)?);
    if let Some(ghn) = &theirs.0.ghn
        && ours.0.ghn == theirs.0.ghn
        && ours.1 != theirs.1
    {
        bail!(
            "{}: the file changed since the study in {} was begun with it; put the old file back, or begin \
             another study",
            ghn.display(),
            path.display()
        );
    }
    let mut differences = record.settings.differences(&asked);
    // Told by the path and the name beside them.
    differences.retain(|text| !text.starts_with("evaluation.ghn_sha256"));
    if differences.iter().any(|text| text.starts_with("space.name")) {
        differences.retain(|text| !text.starts_with("space.toml"));
    }
    for text in &mut differences {
        *text = text.replacen("evaluation.settings.", "", 1);
    }
    if !differences.is_empty() {
        bail!(
            "{} was begun with other settings ({}); leave the flags out, or begin another study",
            path.display(),
            differences.join("; ")
        );
    }
    if record.foretell != env!("CARGO_PKG_VERSION") {
        eprintln!(
            "note: the study was begun by foretell {}, this is {}; scores may differ",
            record.foretell,
            env!("CARGO_PKG_VERSION")
        );
    }
    Ok((Some(folder), record))
}

/// Whether a study's settings, which a hand may have changed, can be read.
fn readable(settings: &SearchSettings) -> anyhow::Result<()> {
    space_of(settings)?;
    evaluation_of(settings)?;
    if settings.lookahead == 0 {
        bail!("study.json: lookahead is 0, expected at least 1");
    }
    Ok(())
}

fn create(args: &Args, record: &StudyRecord) -> anyhow::Result<Folder> {
    Ok(match args.folder() {
        Some(path) => Folder::create(&path, record)?,
        None => Folder::create_numbered(Path::new(RUNS), STEM, record)?,
    })
}

impl Args {
    /// The folder named by the flags.
    fn folder(&self) -> Option<PathBuf> {
        self.out.clone().or_else(|| self.name.as_ref().map(|name| Path::new(RUNS).join(name)))
    }

    /// The budget given, else `base`, else the default.
    fn budget(&self, base: Budget) -> Budget {
        let given = Budget { trials: self.trials, seconds: self.seconds };
        if given != Budget::default() {
            given
        } else if base != Budget::default() {
            base
        } else {
            Budget { trials: None, seconds: Some(DEFAULT_SECONDS) }
        }
    }

    /// `base` with the settings given by flags in their places.
    fn over(&self, base: SearchSettings) -> anyhow::Result<SearchSettings> {
        let (mut evaluation, _) = evaluation_of(&base)?;
        let mut settings = base;
        if let Some(space) = &self.space {
            settings.space = space_value(&Space::find(space)?);
        }
        set(&mut settings.seed, &self.seed);
        set(&mut settings.objective, &self.objective);
        settings.strategy = self.strategy_over(settings.strategy)?;
        let Limits { max_params, max_macs, max_latency_ms } = &mut settings.limits;
        *max_params = self.max_params.or(*max_params);
        *max_macs = self.max_macs.or(*max_macs);
        *max_latency_ms = self.max_latency_ms.or(*max_latency_ms);
        set(&mut evaluation.images, &self.images);
        set(&mut evaluation.eval_images, &self.eval_images);
        set(&mut evaluation.batch, &self.batch);
        set(&mut evaluation.noise_levels, &self.noise.clone().map(|levels| levels.0));
        set(&mut evaluation.noise_seed, &self.noise_seed);
        set(&mut evaluation.latency_batch, &self.latency_batch);
        set(&mut evaluation.latency_threads, &self.latency_threads);
        evaluation.measure_latency &= !self.no_latency;
        if let Some(ghn) = &self.ghn {
            evaluation.ghn = match ghn.as_str() {
                "bundled" => None,
                file => Some(std::path::absolute(file).with_context(|| format!("--ghn {file}"))?),
            };
        }
        settings.evaluation = evaluation_value(&evaluation).context("--ghn")?;
        Ok(settings)
    }

    fn strategy_over(&self, base: StrategySettings) -> anyhow::Result<StrategySettings> {
        let evolves = match (self.strategy, &base) {
            (Some(StrategyName::Evolution), _) | (None, StrategySettings::Evolution { .. }) => true,
            (Some(StrategyName::Random), _) | (None, StrategySettings::Random) => false,
        };
        if !evolves {
            if self.population.is_some() || self.sample.is_some() {
                bail!("--population and --sample need --strategy evolution");
            }
            return Ok(StrategySettings::Random);
        }
        let (population, sample) = match base {
            StrategySettings::Evolution { population, sample } => (population, sample),
            StrategySettings::Random => (RegularisedEvolution::POPULATION, RegularisedEvolution::SAMPLE),
        };
        let population = self.population.unwrap_or(population);
        let sample = self.sample.unwrap_or_else(|| sample.min(population.max(1)));
        Ok(StrategySettings::Evolution { population, sample })
    }
}

fn set<T: Clone>(place: &mut T, given: &Option<T>) {
    if let Some(value) = given {
        *place = value.clone();
    }
}

fn default_settings() -> anyhow::Result<SearchSettings> {
    let evaluation = EvaluationSettings {
        ghn: None,
        images: "fashion-mnist".into(),
        eval_images: 1024,
        batch: 64,
        noise_levels: vec![0.08],
        noise_seed: 0,
        latency_batch: 1,
        latency_threads: 1,
        measure_latency: true,
    };
    let (population, sample) = (RegularisedEvolution::POPULATION, RegularisedEvolution::SAMPLE);
    Ok(SearchSettings {
        space: space_value(&Space::find("small")?),
        seed: 0,
        strategy: StrategySettings::Evolution { population, sample },
        objective: Metric::Accuracy.name().parse()?,
        limits: Limits::default(),
        lookahead: LOOKAHEAD,
        evaluation: evaluation_value(&evaluation)?,
    })
}

/// A space as a study keeps it: whole, so that a resume needs no other file.
fn space_value(space: &Space) -> serde_json::Value {
    json!({ "name": space.name(), "toml": space.to_toml() })
}

fn space_of(settings: &SearchSettings) -> anyhow::Result<Space> {
    let text = settings.space.get("toml").and_then(serde_json::Value::as_str);
    let text = text.context("study.json: the settings of the space are missing")?;
    Ok(Space::parse(Path::new("study.json: space"), text)?)
}

/// Evaluation settings with the checkpoint's SHA-256, so that another file of the same name is noticed.
fn evaluation_value(evaluation: &EvaluationSettings) -> anyhow::Result<serde_json::Value> {
    let sha256 = match &evaluation.ghn {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path).map_err(crate::Error::io("read", path))?;
            Some(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    };
    Ok(json!({ "settings": serde_json::to_value(evaluation)?, "ghn_sha256": sha256 }))
}

fn evaluation_of(settings: &SearchSettings) -> anyhow::Result<(EvaluationSettings, Option<String>)> {
    let part = |key: &str| settings.evaluation.get(key).cloned().unwrap_or_default();
    let evaluation = serde_json::from_value(part("settings")).context("study.json: evaluation settings")?;
    Ok((evaluation, part("ghn_sha256").as_str().map(String::from)))
}

/// What can be wrong with settings before any file is read.
fn check(settings: &SearchSettings, budget: Budget) -> anyhow::Result<()> {
    budget.check()?;
    settings.limits.check()?;
    settings.strategy.build()?;
    let (evaluation, _) = evaluation_of(settings)?;
    let needs = |metric: Metric| settings.objective.uses(metric);
    if !evaluation.measure_latency && (needs(Metric::Latency) || settings.limits.max_latency_ms.is_some()) {
        bail!("--no-latency: the objective or --max-latency-ms needs the latency");
    }
    if evaluation.noise_levels.is_empty() && needs(Metric::Robustness) {
        bail!("--noise none: the objective needs the accuracy under noise");
    }
    Ok(())
}
