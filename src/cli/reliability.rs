//! `foretell reliability`: how far the scores of a search can be trusted.

use super::agreement::AgreementArgs;
use super::output::print;
use crate::report::table::count_of;
use crate::report::{
    fidelity_scores, reliability, reliability_frame, reliability_table, study_reliability, write_csv,
};
use crate::search::Objective;
use crate::study::{Folder, Study};
use anyhow::ensure;
use std::path::PathBuf;

/// How far the scores of a search can be trusted: each fidelity against the highest that was reached.
///
/// Kendall's tau and Spearman's correlation over the candidates that were scored at both, the regret of picking the
/// best few by the lower one, 95 % bootstrap intervals, and random orders of the same candidates as control.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder of a search with several fidelities
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// What to judge: scores as for `foretell search`, one sum [default: the study's objective, accuracy, robustness]
    #[arg(long)]
    objective: Option<Objective>,
    #[command(flatten)]
    agreement: AgreementArgs,
    /// Seed of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the table as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let options = args.agreement.options(args.seed)?;
    if let Some(objective) = &args.objective {
        ensure!(
            !objective.is_pareto(),
            "--objective {objective}: one at a time; weights make a sum, as in accuracy=1,params=-0.1"
        );
    }
    let (folder, record) = Folder::open(&args.run)?;
    let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
    let rows = match &args.objective {
        Some(objective) => reliability(&objective.to_string(), &fidelity_scores(&trials, objective), options),
        None => study_reliability(&trials, &record.settings.objective, options),
    };
    ensure!(
        !rows.is_empty(),
        "{}: its {} are scored at one fidelity only, so there is nothing to compare",
        args.run.display(),
        count_of(trials.len(), "candidate")
    );
    let mut text = reliability_table(&rows, options.top);
    if let Some(path) = &args.csv {
        write_csv(&reliability_frame(&rows)?, path)?;
        text += &format!("wrote {}\n", path.display());
    }
    print(&text)
}
