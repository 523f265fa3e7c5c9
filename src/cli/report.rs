//! `foretell report`: a study as one HTML page.

use super::output::print;
use crate::report::{ReportedStudy, obstacles_to_control, write_report};
use anyhow::bail;
use std::path::PathBuf;

/// Name of the page in a run folder.
pub(super) const REPORT: &str = "report.html";

/// Flags of `foretell report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder, e.g. runs/search-001; its search may still go on
    run: PathBuf,
    /// Run folder of a study to compare with, such as one with --strategy random, of the same space, objective,
    /// limits and evaluation
    #[arg(long, value_name = "RUN")]
    control: Option<PathBuf>,
    /// File to write [default: report.html in the run folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let study = ReportedStudy::open(&args.run)?;
    let control = args.control.as_deref().map(ReportedStudy::open).transpose()?;
    if let (Some(control), Some(path)) = (&control, &args.control) {
        let obstacles = obstacles_to_control(&study.record.settings, &control.record.settings);
        if !obstacles.is_empty() {
            bail!(
                "--control {}: its results cannot be compared with those of {} ({}); only strategy and seed may differ",
                path.display(),
                args.run.display(),
                obstacles.join("; ")
            );
        }
    }
    let out = args.out.unwrap_or_else(|| args.run.join(REPORT));
    write_report(&study, control.as_ref(), &out)?;
    print(&format!("wrote {}\n", out.display()))
}
