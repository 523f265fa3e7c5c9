//! How far the scores of a study can be trusted: each fidelity against the highest one.
//!
//! In: what the trials of a study scored at each fidelity. Out: for each fidelity Kendall's tau, Spearman's correlation
//! and the regret of the best few, against the highest fidelity that any trial reached, with bootstrap intervals, and
//! what random orders of the same trials would give. Only trials that were scored at both count. A search lets its
//! best candidates rise; these are more alike than all candidates are, and harder to order.

use super::frame::frame_error;
use super::methods::{AgreementOptions, random_agreement};
use super::table::{aligned, or_dash};
use crate::Result;
use crate::score::Agreement;
use polars::prelude::{Column, DataFrame, NamedFrom, Series};

/// One score of all trials of a study at one fidelity.
#[derive(Clone, Debug, PartialEq)]
pub struct FidelityScores {
    /// The fidelity, or the name of another way of scoring.
    pub name: String,
    /// A value for each trial, higher is better; none where it was not scored so.
    pub values: Vec<Option<f64>>,
}

/// A fidelity, or the control, against the highest fidelity.
#[derive(Clone, Debug, PartialEq)]
pub struct ReliabilityRow {
    /// Name of the score, such as accuracy.
    pub metric: String,
    /// The fidelity that is judged.
    pub fidelity: String,
    /// The fidelity that it is judged by.
    pub against: String,
    /// How far they agree.
    pub agreement: Agreement,
}

/// Every fidelity of `scores`, which go from the cheapest to the most trusted, against the last that has a value;
/// behind each of them the control: random orders of the same trials.
pub fn reliability(
    metric: &str,
    scores: &[FidelityScores],
    options: AgreementOptions,
) -> Vec<ReliabilityRow> {
    let has_values = |level: &&FidelityScores| level.values.iter().flatten().count() > 0;
    let levels: Vec<&FidelityScores> = scores.iter().filter(has_values).collect();
    let Some((highest, lower)) = levels.split_last() else { return Vec::new() };
    let AgreementOptions { top, samples, seed } = options;
    let row = |fidelity: &str, agreement: Agreement| ReliabilityRow {
        metric: metric.to_owned(),
        fidelity: fidelity.to_owned(),
        against: highest.name.clone(),
        agreement,
    };
    lower
        .iter()
        .flat_map(|level| {
            let shared = highest.values.iter().zip(&level.values);
            let shared: Vec<Option<f64>> =
                shared.map(|(high, low)| (*high).filter(|_| low.is_some())).collect();
            [
                row(&level.name, Agreement::of(&level.values, &shared, top, samples, seed)),
                row(&format!("random order of those at {}", level.name), random_agreement(&shared, options)),
            ]
        })
        .collect()
}

/// A row for each comparison.
///
/// # Errors
/// The frame cannot be built, which would be a bug.
pub fn reliability_frame(rows: &[ReliabilityRow]) -> Result<DataFrame> {
    let mut columns: Vec<Column> = Vec::new();
    for (name, of) in [
        ("score", (|row| &row.metric) as fn(&ReliabilityRow) -> &String),
        ("fidelity", |row| &row.fidelity),
        ("against", |row| &row.against),
    ] {
        columns.push(
            Series::new(name.into(), rows.iter().map(|row| of(row).as_str()).collect::<Vec<_>>()).into(),
        );
    }
    let trials = rows.iter().map(|row| row.agreement.architectures as u64).collect::<Vec<_>>();
    columns.push(Series::new("trials".into(), trials).into());
    let mut column = |name: &str, of: &dyn Fn(&Agreement) -> Option<f64>| {
        let values: Vec<Option<f64>> = rows.iter().map(|row| of(&row.agreement)).collect();
        columns.push(Series::new(name.into(), values).into());
    };
    column("tau", &|a| a.tau);
    column("tau_low", &|a| Some(a.tau_interval?[0]));
    column("tau_high", &|a| Some(a.tau_interval?[1]));
    column("spearman", &|a| a.spearman);
    column("spearman_low", &|a| Some(a.spearman_interval?[0]));
    column("spearman_high", &|a| Some(a.spearman_interval?[1]));
    column("regret", &|a| a.regret);
    column("regret_low", &|a| Some(a.regret_interval?[0]));
    column("regret_high", &|a| Some(a.regret_interval?[1]));
    DataFrame::new(rows.len(), columns).map_err(frame_error)
}

/// All comparisons as an aligned table of text; regrets in the unit of the score.
pub fn reliability_table(rows: &[ReliabilityRow], top: usize) -> String {
    let number = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.3}")));
    let interval =
        |value: Option<[f64; 2]>| or_dash(value.map(|[low, high]| format!("{low:.2} to {high:.2}")));
    let regret = format!("top-{top} regret");
    let header =
        ["trials", "tau", "95 %", "Spearman", "95 %", &regret, "95 %", "against", "score", "fidelity"];
    let mut lines = vec![header.map(String::from)];
    for ReliabilityRow { metric, fidelity, against, agreement } in rows {
        lines.push([
            agreement.architectures.to_string(),
            number(agreement.tau),
            interval(agreement.tau_interval),
            number(agreement.spearman),
            interval(agreement.spearman_interval),
            or_dash(agreement.regret.map(|regret| format!("{regret:.4}"))),
            or_dash(agreement.regret_interval.map(|[low, high]| format!("{low:.4} to {high:.4}"))),
            against.clone(),
            metric.clone(),
            fidelity.clone(),
        ]);
    }
    aligned(&lines, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: AgreementOptions = AgreementOptions { top: 1, samples: 200, seed: 1 };

    fn level(name: &str, values: &[Option<f64>]) -> FidelityScores {
        FidelityScores { name: name.into(), values: values.to_vec() }
    }

    #[test]
    fn fidelities_are_judged_by_the_highest_that_has_scores() {
        let low = level("predicted", &[Some(0.1), Some(0.2), Some(0.3), Some(0.4), None]);
        let middle = level("sgd:100", &[Some(0.5), Some(0.6), None, Some(0.7), None]);
        let high = level("sgd:400", &[Some(0.9), Some(0.8), None, Some(0.7), Some(0.1)]);
        let empty = level("trained", &[None; 5]);
        let rows = reliability("accuracy", &[low.clone(), middle, high, empty], OPTIONS);
        let named: Vec<(&str, usize)> =
            rows.iter().map(|row| (row.fidelity.as_str(), row.agreement.architectures)).collect();
        let control = "random order of those at ";
        assert_eq!(
            named,
            [
                ("predicted", 3),
                (&*format!("{control}predicted"), 3),
                ("sgd:100", 3),
                (&*format!("{control}sgd:100"), 3)
            ]
        );
        assert!(rows.iter().all(|row| row.against == "sgd:400"));
        assert_eq!(rows[0].agreement.tau, Some(-1.0));
        assert!((rows[0].agreement.regret.unwrap() - 0.2).abs() < 1e-12);
        // A random order of three has no tau on average and loses 0.1 of 0, 0.1, 0.2.
        let random = rows[1].agreement;
        assert!(random.tau.unwrap().abs() < 0.2 && (random.regret.unwrap() - 0.1).abs() < 0.03, "{random:?}");
        let table = reliability_table(&rows, 1);
        assert_eq!(table.lines().count(), 5);
        assert!(table.contains("-1.000") && table.contains("top-1 regret"), "{table}");
        assert_eq!(reliability_frame(&rows).unwrap().shape(), (4, 13));
        // With one fidelity there is nothing to compare.
        assert_eq!(reliability("accuracy", &[low], OPTIONS), []);
    }
}
