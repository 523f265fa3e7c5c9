//! `foretell rank --by`: given architectures in the order of a score that needs one batch of images at most.
//!
//! It takes milliseconds an architecture, so nothing is kept of a run that ends early.

use super::candidates::Candidate;
use super::output::print;
use crate::Result;
use crate::ghn::Ghn;
use crate::images;
use crate::network::build;
use crate::predictor::{CHEAP_SCORES, CheapScores, FeatureProbe};
use crate::report::table::{aligned, count_of, or_dash};
use crate::report::write_csv;
use anyhow::Context;
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::Path;
use std::time::Instant;

/// Scores of which less is better.
const COSTS: [&str; 4] = ["params", "macs", "peak_activations", "nodes"];

/// What to rank by, and with what.
pub(super) struct CheapRanking<'a> {
    /// One of [`CHEAP_SCORES`].
    pub by: &'a str,
    pub ghn: Option<&'a Path>,
    pub images: &'a str,
    pub seed: u64,
    pub top: usize,
    pub csv: &'a Path,
}

impl CheapRanking<'_> {
    /// Scores, ranks, prints and writes; costs rank from the smallest, the others from the largest.
    pub(super) fn run(&self, candidates: &[Candidate]) -> anyhow::Result<()> {
        let ghn = self.ghn.map_or_else(Ghn::bundled, Ghn::load).context("--ghn")?;
        let probe = FeatureProbe::new(&images::open(self.images)?, self.seed)?;
        let started = Instant::now();
        let score = |candidate: &Candidate| -> Result<CheapScores> {
            let network = build(&candidate.arch, ghn.config().num_classes)?;
            Ok(probe.features(&network, &ghn)?.cheap)
        };
        let mut rows: Vec<(&str, Values)> = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let scores = score(candidate).with_context(|| candidate.name.clone())?;
            rows.push((&candidate.name, scores.values()));
        }
        let ms = started.elapsed().as_secs_f64() * 1e3 / candidates.len().max(1) as f64;
        let column = CHEAP_SCORES.iter().position(|name| *name == self.by).unwrap_or(0);
        let sign = if COSTS.contains(&self.by) { -1.0 } else { 1.0 };
        // What has no score stands last; equal ones stand in the order given.
        let merit = |row: &Values| row[column].map_or(f64::NEG_INFINITY, |value| sign * value);
        rows.sort_by(|a, b| merit(&b.1).total_cmp(&merit(&a.1)));
        write_csv(&frame(&rows)?, self.csv)?;
        let mut lines = vec![["rank", self.by, "name"].map(String::from)];
        for (rank, (name, scores)) in rows.iter().take(self.top).enumerate() {
            let digits = if COSTS.contains(&self.by) { 0 } else { 4 };
            let value = or_dash(scores[column].map(|value| format!("{value:.digits$}")));
            lines.push([(rank + 1).to_string(), value, (*name).to_owned()]);
        }
        let count = count_of(rows.len(), "architecture");
        print(&format!(
            "{}{count} ranked, {ms:.0} ms each for all scores\nwrote {}\n",
            aligned(&lines, 1),
            self.csv.display()
        ))
    }
}

type Values = [Option<f64>; CHEAP_SCORES.len()];

/// A row for each architecture, best first, with all scores.
fn frame(rows: &[(&str, Values)]) -> anyhow::Result<DataFrame> {
    let names: Vec<&str> = rows.iter().map(|row| row.0).collect();
    let mut columns: Vec<Column> = vec![Series::new("name".into(), names).into()];
    for (column, name) in CHEAP_SCORES.iter().enumerate() {
        let values: Vec<Option<f64>> = rows.iter().map(|row| row.1[column]).collect();
        columns.push(Series::new((*name).into(), values).into());
    }
    Ok(DataFrame::new(rows.len(), columns)?)
}
