//! What a search has reached after each evaluated candidate, alone or against other searches.
//!
//! With one objective that is its best value so far. With several it is the hypervolume: the volume dominated by the
//! candidates so far, above a reference point which is the worst value of each objective among all finished
//! candidates of all searches compared, in units of the range from there to the best value. So 0 is no more than the
//! reference, and 1 would be one candidate that is best in everything.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, GREEN, Mark, ORANGE, PURPLE, SKY, YELLOW, save};
use super::frame::frame_error;
use super::write_csv;
use crate::search::{Front, Objective, hypervolume};
use crate::study::{Trial, TrialState};
use crate::{Error, Result};
use plotters::prelude::{Color, DrawingBackend, RGBColor};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::{Path, PathBuf};

/// A search among others.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it shares with the runs that it is averaged with, e.g. its strategy.
    pub group: String,
    /// Its own name.
    pub name: String,
    /// Its trials.
    pub trials: Vec<Trial>,
}

const COLORS: [RGBColor; 6] = [BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY];

/// After each evaluated candidate of each run, failed and rejected ones included, what was reached. A run that has
/// no finished candidate yet has reached NaN with one objective and 0 with several.
///
/// # Errors
/// A finished trial lacks a score that the objective needs.
pub fn anytime(runs: &[Run], objective: &Objective) -> Result<Vec<Vec<f64>>> {
    let merits = |run: &Run| -> Result<Vec<Option<Vec<f64>>>> {
        let evaluated = run.trials.iter().filter(|trial| trial.is_evaluated());
        let outcomes = evaluated.filter(|trial| trial.state != TrialState::Running);
        let of = |trial: &Trial| match trial.state {
            TrialState::Finished => objective.merits(&trial.scores).map(Some),
            _ => Ok(None),
        };
        outcomes.map(of).collect()
    };
    let merits = runs.iter().map(merits).collect::<Result<Vec<_>>>()?;
    if !objective.is_pareto() {
        let best = |run: &Vec<Option<Vec<f64>>>| -> Vec<f64> {
            let values = run.iter().map(|merits| merits.as_ref().map_or(f64::NAN, |merits| merits[0]));
            let mut best = f64::NAN;
            values
                .map(|value| {
                    best = best.max(value);
                    best
                })
                .collect()
        };
        return Ok(merits.iter().map(best).collect());
    }
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); objective.count()];
    for merits in merits.iter().flatten().flatten() {
        for ((low, high), merit) in ranges.iter_mut().zip(merits) {
            (*low, *high) = (low.min(*merit), high.max(*merit));
        }
    }
    let scaled = |merits: &Vec<f64>| -> Vec<f64> {
        let part = |(merit, (low, high)): (&f64, &(f64, f64))| {
            // Where all are equal nobody is above the reference.
            if high > low { (merit - low) / (high - low) } else { 0.0 }
        };
        merits.iter().zip(&ranges).map(part).collect()
    };
    let reference = vec![0.0; objective.count()];
    let volumes = |run: &Vec<Option<Vec<f64>>>| {
        let (mut front, mut volume, mut volumes) = (Front::default(), 0.0, Vec::new());
        for merits in run {
            if merits.as_ref().is_some_and(|merits| front.improve(&scaled(merits))) {
                let members: Vec<&[f64]> = front.members().iter().map(Vec::as_slice).collect();
                volume = hypervolume(&members, &reference);
            }
            volumes.push(volume);
        }
        volumes
    };
    Ok(merits.iter().map(volumes).collect())
}

/// Writes `stem.csv` (a row for each run and evaluated candidate), `stem.png` and `stem.svg`.
///
/// # Errors
/// As [`anytime`]; a file cannot be written.
pub fn write_anytime(runs: &[Run], objective: &Objective, stem: &Path) -> Result<Vec<PathBuf>> {
    let curves = anytime(runs, objective)?;
    let csv = stem.with_extension("csv");
    write_csv(&long(runs, &curves, objective)?, &csv)?;
    let mut written = vec![csv];
    written.extend(save(&AnytimeFigure::new(runs, &curves, objective), stem)?);
    Ok(written)
}

fn long(runs: &[Run], curves: &[Vec<f64>], objective: &Objective) -> Result<DataFrame> {
    let rows: Vec<(&Run, usize, f64)> = runs
        .iter()
        .zip(curves)
        .flat_map(|(run, curve)| curve.iter().enumerate().map(move |(i, &value)| (run, i + 1, value)))
        .collect();
    let value = if objective.is_pareto() { "hypervolume" } else { "best" };
    let values: Vec<Option<f64>> = rows.iter().map(|row| Some(row.2).filter(|x| x.is_finite())).collect();
    let columns: Vec<Column> = vec![
        Series::new("group".into(), rows.iter().map(|row| row.0.group.as_str()).collect::<Vec<_>>()).into(),
        Series::new("run".into(), rows.iter().map(|row| row.0.name.as_str()).collect::<Vec<_>>()).into(),
        Series::new("candidates".into(), rows.iter().map(|row| row.1 as u64).collect::<Vec<_>>()).into(),
        Series::new(value.into(), values).into(),
    ];
    DataFrame::new(rows.len(), columns).map_err(frame_error)
}

/// The middle of some values.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (n > 0).then(|| (values[(n - 1) / 2] + values[n / 2]) / 2.0)
}

/// Curves over evaluated candidates: each run faint, the median of each group bold.
pub(super) struct AnytimeFigure {
    groups: Vec<(String, Vec<Curve>)>,
    title: &'static str,
    label: &'static str,
    explanation: String,
}

type Curve = Vec<(f64, f64)>;

impl AnytimeFigure {
    /// Of at least one run.
    pub(super) fn new(runs: &[Run], curves: &[Vec<f64>], objective: &Objective) -> AnytimeFigure {
        let mut groups: Vec<(String, Vec<Curve>)> = Vec::new();
        for (run, curve) in runs.iter().zip(curves) {
            let points = curve.iter().enumerate().map(|(i, &value)| ((i + 1) as f64, value));
            let points = points.filter(|point| point.1.is_finite()).collect();
            match groups.iter_mut().find(|group| group.0 == run.group) {
                Some(group) => group.1.push(points),
                None => groups.push((run.group.clone(), vec![points])),
            }
        }
        let (title, label, explanation) = match objective.is_pareto() {
            true => (
                "Hypervolume so far",
                "Hypervolume",
                format!("objectives {objective}; above the worst, in units of the range of each"),
            ),
            false => ("Best objective so far", "Objective", format!("objective {objective}")),
        };
        AnytimeFigure { groups, title, label, explanation }
    }

    /// The median at each number of candidates that all runs of a group reached.
    fn median(runs: &[Curve]) -> Curve {
        let shortest = runs.iter().map(Vec::len).min().unwrap_or(0);
        let at = |i: usize| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[run.len() - shortest + i].1).collect();
            Some((runs[0][runs[0].len() - shortest + i].0, median(&mut values)?))
        };
        (0..shortest).filter_map(at).collect()
    }
}

impl Figure for AnytimeFigure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let all = || self.groups.iter().flat_map(|group| group.1.iter().flatten());
        let x = Axis::around("Evaluated candidates", all().map(|p| p.0), 0.0..f64::INFINITY);
        let y = Axis::around(self.label, all().map(|p| p.1), f64::NEG_INFINITY..f64::INFINITY);
        let colors = || COLORS.iter().cycle();
        let legend: Vec<(Mark, String)> = self
            .groups
            .iter()
            .zip(colors())
            .map(|((name, runs), color)| {
                let text =
                    if runs.len() == 1 { name.clone() } else { format!("{name}: median of {}", runs.len()) };
                (Mark::Line(color.mix(1.0)), text)
            })
            .collect();
        let body = canvas.head(self.title, &self.explanation, &legend)?;
        let mut chart = canvas.chart(&body, &x, &y)?;
        for ((_, runs), color) in self.groups.iter().zip(colors()) {
            if runs.len() > 1 {
                for run in runs {
                    canvas.points(&mut chart, Mark::Line(color.mix(0.25)), run)?;
                }
            }
        }
        for ((_, runs), color) in self.groups.iter().zip(colors()) {
            canvas.points(&mut chart, Mark::Line(color.mix(1.0)), &AnytimeFigure::median(runs))?;
        }
        Ok(())
    }
}

/// The runs' objective, if it is the same.
///
/// # Errors
/// They differ, or there is no run.
pub fn common_objective(objectives: &[(String, Objective)]) -> Result<Objective> {
    let Some((first, objective)) = objectives.first() else {
        return Err(Error::Config("no run is given".into()));
    };
    match objectives.iter().find(|other| other.1 != *objective) {
        None => Ok(objective.clone()),
        Some((name, other)) => Err(Error::Config(format!(
            "{first} searches for {objective}, {name} for {other}; give --objective to compare them by"
        ))),
    }
}
