//! `foretell compare`: searches side by side at equal numbers of candidates.

use super::output::print;
use crate::report::table::{aligned, count_of};
use crate::report::{Run, anytime, common_objective, write_anytime};
use crate::search::Objective;
use crate::study::{Folder, Study};
use std::path::PathBuf;

/// Flags of `foretell compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders; those of one strategy are taken together
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// What to compare by [default: the objective of the runs]
    #[arg(long)]
    objective: Option<Objective>,
    /// Folder to write anytime.csv, anytime.png and anytime.svg into
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (mut runs, mut objectives) = (Vec::new(), Vec::new());
    for path in &args.runs {
        let (folder, record) = Folder::open(path)?;
        let name = path.display().to_string();
        let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
        objectives.push((name.clone(), record.settings.objective.clone()));
        runs.push(Run { group: record.settings.strategy.name().into(), name, trials });
    }
    let objective = args.objective.map_or_else(|| common_objective(&objectives), Ok)?;
    let curves = anytime(&runs, &objective)?;
    let mut text = table(&runs, &curves, &objective);
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(crate::Error::io("create folder", folder))?;
        for path in write_anytime(&runs, &objective, &folder.join("anytime"))? {
            text += &format!("wrote {}\n", path.display());
        }
    }
    print(&text)
}

/// What each strategy had reached when the shortest run ended.
fn table(runs: &[Run], curves: &[Vec<f64>], objective: &Objective) -> String {
    let count = curves.iter().map(Vec::len).min().unwrap_or(0);
    let Some(last) = count.checked_sub(1) else { return "a run has no evaluated candidate\n".into() };
    let mut groups: Vec<(&str, Vec<f64>)> = Vec::new();
    for (run, curve) in runs.iter().zip(curves) {
        match groups.iter_mut().find(|group| group.0 == run.group) {
            Some(group) => group.1.push(curve[last]),
            None => groups.push((&run.group, vec![curve[last]])),
        }
    }
    let mut rows = vec![["runs", "median", "least", "most", "strategy"].map(String::from)];
    for (group, mut values) in groups {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let median = (values[(n - 1) / 2] + values[n / 2]) / 2.0;
        let number = |value: f64| format!("{value:.4}");
        rows.push([
            n.to_string(),
            number(median),
            number(values[0]),
            number(values[n - 1]),
            group.to_owned(),
        ]);
    }
    let what = match objective.is_pareto() {
        true => "hypervolume (0: the worst of all runs in each objective, 1: the best in every one)",
        false => "best objective",
    };
    format!("{what} of {objective} after {}\n{}", count_of(count, "candidate"), aligned(&rows, 1))
}
