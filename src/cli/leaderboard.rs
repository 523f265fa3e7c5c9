//! `foretell leaderboard`: the best candidates of a run, also while its search goes on.

use super::output::print;
use crate::report::{
    Leaderboard, ReportedStudy, SortKey, frame, write_csv, write_parquet, write_plots, write_report,
};
use crate::study::{Folder, Study, Trial};
use std::path::PathBuf;

/// Flags of `foretell leaderboard`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder, e.g. runs/search-001
    run: PathBuf,
    /// What to sort by: objective, accuracy, robustness, latency, loss, params, macs, predict or trial; best first
    #[arg(long, value_name = "SCORE", default_value = "objective")]
    sort: SortKey,
    /// Rows to print; files hold all
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Write the sorted leaderboard of all trials as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write all trials, in their order, as Parquet
    #[arg(long, value_name = "FILE")]
    parquet: Option<PathBuf>,
    /// Write the plots, PNG and SVG, into this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write the study as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (folder, record) = Folder::open(&args.run)?;
    let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
    let leaderboard = Leaderboard::new(&trials, args.sort);
    print(&leaderboard.table(args.top))?;
    let mut written: Vec<PathBuf> = Vec::new();
    if let Some(path) = args.csv {
        write_csv(&leaderboard.frame()?, &path)?;
        written.push(path);
    }
    if let Some(path) = args.parquet {
        write_parquet(&frame(&trials.iter().collect::<Vec<&Trial>>())?, &path)?;
        written.push(path);
    }
    if let Some(folder) = args.plots {
        std::fs::create_dir_all(&folder).map_err(crate::Error::io("create folder", &folder))?;
        let plots = write_plots(&trials, &record.settings.objective, &folder)?;
        written.extend(plots.written);
        for reason in plots.left_out {
            eprintln!("no plot {reason}");
        }
    }
    if let Some(path) = args.html {
        write_report(&ReportedStudy::open(&args.run)?, None, &path)?;
        written.push(path);
    }
    for path in written {
        print(&format!("wrote {}\n", path.display()))?;
    }
    Ok(())
}
