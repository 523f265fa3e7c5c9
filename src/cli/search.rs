//! `foretell search`: settings from flags, a run folder, the search, and its results.

use super::interrupt::stop_flag;
use super::output::print;
use super::progress::Progress;
use super::refining::{LadderArgs, TrainingArgs};
use super::report::REPORT;
use super::scoring::{ScoringArgs, default_evaluation, evaluation_of, evaluation_value, measured, set};
use super::strategy::{StrategyArgs, default_strategy};
use super::{candidates, threads};
use crate::predictor::Forecaster;
use crate::report::{Leaderboard, ReportedStudy, SortKey, write_report, write_results};
use crate::search::{Budget, Ladder, Limits, Metric, Objective, Screened, StopReason};
use crate::space::Space;
use crate::study::{
    self, Folder, Foretold, KeptWeights, Plan, PredictorSettings, SearchSettings, Storage, Study,
    StudyRecord, Trial,
};
use anyhow::{Context, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
#[command(
    after_help = "On a GPU run prediction, accuracies and robustness; latency is that of the CPU in any case."
)]
pub struct Args {
    /// Search space: a bundled one (see `foretell space show`) or a TOML file [default: small]
    #[arg(long, value_name = "NAME_OR_FILE")]
    space: Option<String>,
    #[command(flatten)]
    scoring: ScoringArgs,
    #[command(flatten)]
    strategy: StrategyArgs,
    #[command(flatten)]
    ladder: LadderArgs,
    #[command(flatten)]
    training: TrainingArgs,
    /// What to search for: accuracy, robustness, latency, params, macs or loss; a weighted sum, as in
    /// accuracy=1,robustness=0.5,latency=-0.01 (latency in ms; costs take negative weights); or several at once, whose
    /// Pareto front is wanted, as in accuracy,latency [default: accuracy]
    #[arg(long)]
    objective: Option<Objective>,
    /// Stop after this many evaluated candidates; those over a limit before evaluation do not count
    #[arg(long, value_name = "N")]
    trials: Option<u64>,
    /// Stop after this much search time, over all sessions of the study [default: 90, unless --trials or
    /// --patience is given]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// The same in minutes
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    minutes: Option<f64>,
    /// Stop after this many candidates in a row that are no better: no higher objective, or with several objectives
    /// no new one on the Pareto front
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// Architectures to try first: a run folder, a file of architectures such as a leaderboard.jsonl, FILE#ID or a
    /// name such as DARTS; may be given more than once
    #[arg(long, value_name = "RUN|FILE|NAME")]
    warm_start: Vec<String>,
    /// Take only the first of them; those of a run folder are sorted, best first
    #[arg(long, value_name = "N", requires = "warm_start")]
    warm_top: Option<usize>,
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
    /// Candidates evaluated at once, at most 4, on a GPU as far as its memory allows; the trials do not depend on it, and
    /// one that is timed runs alone
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
    let (folder, mut record) = if args.resume { resumed(&mut args)? } else { prepared(&mut args)? };
    let budget = args.budget(record.budget);
    check(&record.settings, budget)?;
    let space = space_of(&record.settings)?;
    // All that can be wrong with the inputs shows here, before a folder is made.
    let (mut evaluation, _) = evaluation_of(&record.settings.evaluation)?;
    let evaluator = Arc::new(args.scoring.evaluator(&evaluation, args.workers)?);
    if folder.is_none() {
        evaluation.eval_images = args.scoring.eval_images(&evaluator)?;
        record.settings.evaluation = evaluation_value(&evaluation)?;
    } else if evaluation.eval_images > evaluator.validation_images() {
        // Studies of version 0.1.0 may ask for more than there are.
        let (asked, there) = (evaluation.eval_images, evaluator.validation_images());
        eprintln!("note: the study asks for {asked} images, {} has {there}", evaluation.images);
    }
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
    if let Some(ladder) = &settings.ladder {
        eprintln!("stages: {ladder}");
    }
    let weights = KeptWeights::of(folder.path());
    let plan = Plan {
        ladder: settings.ladder.as_ref(),
        vote: settings.vote,
        weights: settings.ladder.as_ref().map(|_| &weights),
        space: &space,
        evaluator: evaluator.as_ref(),
        objective: &settings.objective,
        limits: settings.limits,
        warm_start: &settings.warm_start,
        budget,
        seed: settings.seed,
        lookahead: settings.lookahead,
        workers: args.workers,
        settings: settings.digest(),
        interrupted: stop_flag(),
    };
    let mut strategy = settings.strategy.build()?;
    if let Some(predictor) = settings.predictor {
        let evaluator = Arc::clone(&evaluator);
        let forecaster = Forecaster::new(move |arch| evaluator.describe(arch), settings.seed);
        strategy = Box::new(Screened::new(strategy, Box::new(forecaster), predictor.proposals)?);
    }
    let mut progress = Progress::new(budget, &study);
    let stopped = study::run(&plan, strategy.as_mut(), &mut study, &mut |study| progress.update(study));
    progress.finish();
    let hint = format!("to continue: foretell search --resume --out {}", folder.path().display());
    let stopped =
        stopped.with_context(|| format!("the search stopped; what was finished is kept ({hint})"))?;
    conclude(&study, settings, budget, evaluator.num_classes(), folder.path(), stopped, &hint)
}

/// Prints and writes the results.
fn conclude(
    study: &Study,
    settings: &SearchSettings,
    budget: Budget,
    num_classes: usize,
    folder: &Path,
    stopped: StopReason,
    hint: &str,
) -> anyhow::Result<()> {
    let objective = &settings.objective;
    let leaderboard = Leaderboard::of(study.trials(), SortKey::Objective, objective);
    let mut text = leaderboard.table(10);
    text += &format!("stopped after {:.1} s of search: {stopped}\n", study.elapsed_s());
    if let Some(ladder) = study.stages().last().and_then(|record| record.ladder.as_ref()) {
        text += &format!("stages that fitted the time: {}\n", ladder.in_seconds());
    }
    let reported = ReportedStudy::open(folder)?;
    if let Some(foretold) = Foretold::of(&reported.events) {
        text += &format!("predictor: {foretold}\n");
    }
    let mut results = write_results(study.trials(), objective, num_classes, folder)?;
    let page = folder.join(REPORT);
    write_report(&reported, None, &page)?;
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
        StopReason::Refined if budget.trials.is_some() => " --trials MORE",
        StopReason::Refined if budget.seconds.is_some() => " --seconds MORE",
        StopReason::Patience => " --patience MORE",
        _ => "",
    };
    let best = leaderboard.ranked().first();
    if let Some(best) = best {
        if !objective.is_pareto() {
            text += &winner(best, folder);
        }
        let (whom, trial) = if objective.is_pareto() {
            ("the first", format!(" --trial {}", best.number))
        } else {
            ("the winner", String::new())
        };
        text +=
            &format!("to take {whom} away: foretell export {}{trial} --out winner.onnx\n", folder.display());
    }
    print(&format!("{text}{hint}{more}\n"))?;
    if stopped == StopReason::Interrupted {
        return Err(crate::Error::Interrupted.into());
    }
    if best.is_none() {
        let last = study.trials().iter().rev().find_map(|trial| trial.reason.as_deref());
        bail!(
            "no candidate finished; {}{} lists the reasons",
            last.map_or_else(String::new, |reason| format!("the last was turned down: {reason}; ")),
            folder.join("leaderboard.csv").display()
        );
    }
    Ok(())
}

/// One line of the best trial: what it scores with which weights, and where these are.
fn winner(best: &Trial, folder: &Path) -> String {
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "unknown".into(), |share| format!("{:.2} %", 100.0 * share))
    };
    let (fidelity, scores) = (best.fidelity(), best.best_scores());
    let mut text = format!("winner: trial {}, accuracy {} with ", best.number, percent(scores.accuracy));
    if fidelity.is_refined() {
        text += &format!("weights {fidelity}, {} with predicted ones", percent(best.scores.accuracy));
        if let Some((path, _)) = KeptWeights::of(folder).find(best) {
            text += &format!("; kept in {}", path.display());
        }
    } else {
        text += "predicted weights";
    }
    text + "\n"
}

/// A new study's record; its folder is made later.
fn prepared(args: &mut Args) -> anyhow::Result<(Option<Folder>, StudyRecord)> {
    if let Some(path) = args.folder()
        && Folder::open(&path).is_ok()
    {
        bail!("{} already holds a study; give --resume to continue it, or another folder", path.display());
    }
    let settings = args.over(default_settings(args.objective.as_ref())?)?;
    Ok((None, StudyRecord::new(settings, args.budget(Budget::default()))))
}

/// The study to continue, after comparing its settings with the flags given.
fn resumed(args: &mut Args) -> anyhow::Result<(Option<Folder>, StudyRecord)> {
    let path = args.folder().map_or_else(|| Folder::latest(Path::new(RUNS), STEM), Ok)?;
    let (folder, record) = Folder::open(&path)?;
    readable(&record.settings).with_context(|| path.display().to_string())?;
    let asked = args.over(record.settings.clone())?;
    let (ours, theirs) = (evaluation_of(&record.settings.evaluation)?, evaluation_of(&asked.evaluation)?);
    if ours.0.ghn == theirs.0.ghn && ours.1 != theirs.1 {
        let study = path.display();
        match (&theirs.0.ghn, &ours.1) {
            (Some(ghn), _) => bail!(
                "{}: the file changed since the study in {study} was begun with it; put the old file back, or begin \
                 another study",
                ghn.display()
            ),
            (None, Some(_)) => bail!(
                "the study in {study} was begun with the bundled hypernetwork of another build of foretell; go on with \
                 that build, or begin another study"
            ),
            (None, None) => {
                eprintln!(
                    "note: the study does not say which bundled hypernetwork began it; scores may differ"
                );
            }
        }
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
    evaluation_of(&settings.evaluation)?;
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
        let seconds = self.seconds.or(self.minutes.map(|minutes| 60.0 * minutes));
        let given = Budget { trials: self.trials, seconds, patience: self.patience };
        if given != Budget::default() {
            given
        } else if base != Budget::default() {
            base
        } else {
            Budget { seconds: Some(DEFAULT_SECONDS), ..Budget::default() }
        }
    }

    /// `base` with the settings given by flags in their places.
    fn over(&self, base: SearchSettings) -> anyhow::Result<SearchSettings> {
        let (evaluation, _) = evaluation_of(&base.evaluation)?;
        let mut settings = base;
        if let Some(space) = &self.space {
            settings.space = space_value(&Space::find(space)?);
        }
        set(&mut settings.seed, &self.seed);
        set(&mut settings.objective, &self.objective);
        let Limits { max_params, max_macs, max_latency_ms } = &mut settings.limits;
        *max_params = self.max_params.or(*max_params);
        *max_macs = self.max_macs.or(*max_macs);
        *max_latency_ms = self.max_latency_ms.or(*max_latency_ms);
        if !self.warm_start.is_empty() {
            settings.warm_start =
                candidates::cells(&self.warm_start, self.warm_top).context("--warm-start")?;
        }
        let refines = |ladder: &Option<Ladder>| ladder.as_ref().is_some_and(Ladder::is_refined);
        let trained_before = refines(&settings.ladder);
        settings.ladder = self.ladder.over(settings.ladder)?;
        let is_refined = refines(&settings.ladder);
        let begins_to_train = is_refined && !trained_before;
        settings.strategy = self.strategy.over(settings.strategy, is_refined, begins_to_train)?;
        let mut evaluation = self.scoring.over(evaluation)?;
        settings.predictor = self.ladder.predictor(settings.predictor, is_refined, &settings.objective)?;
        settings.vote = self.ladder.vote(settings.vote, is_refined, &settings.objective)?;
        self.training.over_stages(&mut evaluation, settings.ladder.as_ref(), settings.seed)?;
        settings.evaluation = evaluation_value(&evaluation).context("--ghn")?;
        Ok(settings)
    }
}

fn default_settings(objective: Option<&Objective>) -> anyhow::Result<SearchSettings> {
    let objective = objective.map_or_else(|| Metric::Accuracy.name().parse(), |given| Ok(given.clone()))?;
    Ok(SearchSettings {
        space: space_value(&Space::find("small")?),
        seed: 0,
        strategy: default_strategy(&objective),
        objective,
        limits: Limits::default(),
        lookahead: LOOKAHEAD,
        evaluation: evaluation_value(&default_evaluation())?,
        warm_start: Vec::new(),
        ladder: None,
        predictor: Some(PredictorSettings { proposals: Forecaster::PROPOSALS }),
        vote: true,
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

/// What can be wrong with settings before any file is read.
fn check(settings: &SearchSettings, budget: Budget) -> anyhow::Result<()> {
    budget.check()?;
    settings.limits.check()?;
    settings.strategy.build()?.check(settings.objective.count())?;
    let (evaluation, _) = evaluation_of(&settings.evaluation)?;
    measured(&evaluation, &settings.objective, &settings.limits)
}
