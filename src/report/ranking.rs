//! Rankings of given architectures, with what is uncertain about them.
//!
//! In: architectures with their scores. Out: an order, intervals and a frame.
//!
//! An accuracy has Wilson's 95 % interval (Wilson 1927, doi:10.1080/01621459.1927.10502953); the robustness, a mean
//! over noise levels of the same images, the mean of the levels' intervals. The interval of an objective sums those
//! of its scores by their weights, as if they erred together, which is the widest it can be; latency, loss and costs
//! count as exact. A rank's interval follows: as many are surely better as have intervals above its own, and as many
//! are surely worse as have intervals below. All networks meet the same images, so differences between two of them
//! are known better than these intervals tell.

use super::frame::frame_error;
use super::table::{aligned, count_of, or_dash, percent, with_prefix};
use crate::Result;
use crate::score::Scores;
use crate::search::{Metric, Objective, fronts};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};

/// 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// From a lower to an upper bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// Wilson's 95 % interval of a share of `n` images.
    ///
    /// ```
    /// let interval = foretell::report::Interval::wilson(0.5, 100);
    /// assert!((interval.low - 0.4038).abs() < 1e-4 && (interval.high - 0.5962).abs() < 1e-4);
    /// ```
    pub fn wilson(share: f64, n: u64) -> Interval {
        let n = n as f64;
        let z2 = Z * Z / n;
        let centre = (share + z2 / 2.0) / (1.0 + z2);
        let half = Z / (1.0 + z2) * (share * (1.0 - share) / n + z2 / (4.0 * n)).sqrt();
        Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// Of a metric, in the units of objectives; nothing if it was not measured.
    pub fn of(metric: Metric, scores: &Scores) -> Option<Interval> {
        let exact = |value| Interval { low: value, high: value };
        let images = scores.images?;
        match metric {
            Metric::Accuracy => Some(Interval::wilson(scores.accuracy?, images)),
            Metric::Robustness if scores.noise.is_empty() => None,
            Metric::Robustness => {
                let levels: Vec<Interval> =
                    scores.noise.iter().map(|level| Interval::wilson(level.accuracy, images)).collect();
                let mean =
                    |bound: fn(&Interval) -> f64| levels.iter().map(bound).sum::<f64>() / levels.len() as f64;
                Some(Interval { low: mean(|i| i.low), high: mean(|i| i.high) })
            }
            _ => metric.of(scores).map(exact),
        }
    }
}

/// An architecture with its scores, or the reason why it has none.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Its name.
    pub name: String,
    /// Scores or reason.
    pub outcome: std::result::Result<Scores, String>,
}

struct Row<'a> {
    name: &'a str,
    scores: &'a Scores,
    /// The objective's value with its interval; none where there are several objectives.
    value: Option<(f64, Interval)>,
    /// The first and the last rank it could have.
    ranks: Option<(u64, u64)>,
    /// With several objectives the front, from 1.
    front: Option<u64>,
}

/// Architectures in the order of an objective; with several in that of the fronts, then of the first objective.
pub struct Ranking<'a> {
    rows: Vec<Row<'a>>,
    failed: Vec<(&'a str, &'a str)>,
    is_pareto: bool,
}

impl<'a> Ranking<'a> {
    /// Ranks; equal architectures stand in the order given.
    ///
    /// # Errors
    /// A score that the objective needs was not measured.
    pub fn new(scored: &'a [Scored], objective: &Objective) -> Result<Ranking<'a>> {
        let (mut rows, mut merits, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for Scored { name, outcome } in scored {
            match outcome {
                Ok(scores) => {
                    let of = objective.merits(scores)?;
                    let value = (!objective.is_pareto())
                        .then(|| (of[0], objective_interval(objective, scores, of[0])));
                    merits.push(of);
                    rows.push(Row { name, scores, value, ranks: None, front: None });
                }
                Err(reason) => failed.push((name.as_str(), reason.as_str())),
            }
        }
        let slices: Vec<&[f64]> = merits.iter().map(Vec::as_slice).collect();
        let front = fronts(&slices);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| front[a].cmp(&front[b]).then(merits[b][0].total_cmp(&merits[a][0])));
        let intervals: Vec<Interval> = rows.iter().filter_map(|row| Some(row.value?.1)).collect();
        for (row, front) in rows.iter_mut().zip(&front) {
            row.front = objective.is_pareto().then_some(*front as u64 + 1);
            row.ranks = row.value.map(|(_, own)| {
                let better = intervals.iter().filter(|other| other.low > own.high).count() as u64;
                let worse = intervals.iter().filter(|other| other.high < own.low).count() as u64;
                (better + 1, intervals.len() as u64 - worse)
            });
        }
        let mut places: Vec<Option<Row<'a>>> = rows.into_iter().map(Some).collect();
        let rows = order.into_iter().filter_map(|i| places[i].take()).collect();
        Ok(Ranking { rows, failed, is_pareto: objective.is_pareto() })
    }

    /// Names, best first.
    pub fn names(&self) -> Vec<&'a str> {
        self.rows.iter().map(|row| row.name).collect()
    }

    /// A row for each architecture, best first, those without scores last.
    ///
    /// # Errors
    /// The frame cannot be built, which would be a bug.
    pub fn frame(&self) -> Result<DataFrame> {
        let (n, failed) = (self.rows.len(), self.failed.len());
        let mut columns: Vec<Column> = Vec::new();
        macro_rules! column {
            ($name:expr, $type:ty, |$row:ident| $value:expr) => {{
                let values = self.rows.iter().map(|$row| -> Option<$type> { $value });
                let values: Vec<Option<$type>> = values.chain((0..failed).map(|_| None)).collect();
                columns.push(Series::new($name.into(), values).into());
            }};
        }
        let ranks: Vec<Option<u64>> = (0..n + failed).map(|i| (i < n).then_some(i as u64 + 1)).collect();
        columns.push(Series::new("rank".into(), ranks).into());
        let names = self.rows.iter().map(|row| row.name).chain(self.failed.iter().map(|failed| failed.0));
        columns.push(Series::new("name".into(), names.collect::<Vec<&str>>()).into());
        let of_metric = |metric: Metric, row: &Row| Interval::of(metric, row.scores);
        if self.is_pareto {
            column!("front", u64, |row| row.front);
        } else {
            column!("objective", f64, |row| row.value.map(|value| value.0));
            column!("objective_low", f64, |row| row.value.map(|value| value.1.low));
            column!("objective_high", f64, |row| row.value.map(|value| value.1.high));
            column!("rank_low", u64, |row| row.ranks.map(|ranks| ranks.0));
            column!("rank_high", u64, |row| row.ranks.map(|ranks| ranks.1));
        }
        column!("accuracy", f64, |row| row.scores.accuracy);
        column!("accuracy_low", f64, |row| of_metric(Metric::Accuracy, row).map(|i| i.low));
        column!("accuracy_high", f64, |row| of_metric(Metric::Accuracy, row).map(|i| i.high));
        column!("robustness", f64, |row| row.scores.robustness);
        column!("robustness_low", f64, |row| of_metric(Metric::Robustness, row).map(|i| i.low));
        column!("robustness_high", f64, |row| of_metric(Metric::Robustness, row).map(|i| i.high));
        column!("loss", f64, |row| row.scores.loss);
        column!("images", u64, |row| row.scores.images);
        column!("latency_ms", f64, |row| row.scores.latency_ms);
        column!("latency_p95_ms", f64, |row| row.scores.latency_p95_ms);
        column!("latency_batch", u64, |row| row.scores.latency_batch);
        column!("latency_threads", u64, |row| row.scores.latency_threads);
        column!("params", u64, |row| row.scores.params);
        column!("macs", u64, |row| row.scores.macs);
        column!("predict_ms", f64, |row| row.scores.predict_ms);
        let reasons: Vec<Option<&str>> =
            (0..n).map(|_| None).chain(self.failed.iter().map(|failed| Some(failed.1))).collect();
        columns.push(Series::new("reason".into(), reasons).into());
        DataFrame::new(n + failed, columns).map_err(frame_error)
    }

    /// The first `top` as an aligned table of text, a count, and the reasons of those without scores.
    pub fn table(&self, top: usize) -> String {
        let value = if self.is_pareto { "front" } else { "objective" };
        let header = [
            "rank",
            "could be",
            value,
            "accuracy",
            "95 %",
            "robustness",
            "95 %",
            "latency",
            "params",
            "MACs",
            "name",
        ];
        let mut rows = vec![header.map(String::from)];
        for (i, row) in self.rows.iter().take(top).enumerate() {
            let interval = |metric: Metric| {
                let interval = Interval::of(metric, row.scores);
                or_dash(interval.map(|i| format!("{:.1}-{:.1} %", 100.0 * i.low, 100.0 * i.high)))
            };
            rows.push([
                (i + 1).to_string(),
                or_dash(row.ranks.map(|(low, high)| format!("{low}-{high}"))),
                or_dash(match self.is_pareto {
                    true => row.front.map(|front| front.to_string()),
                    false => row.value.map(|value| format!("{:.4}", value.0)),
                }),
                or_dash(row.scores.accuracy.map(percent)),
                interval(Metric::Accuracy),
                or_dash(row.scores.robustness.map(percent)),
                interval(Metric::Robustness),
                or_dash(row.scores.latency_ms.map(|ms| format!("{ms:.2} ms"))),
                or_dash(row.scores.params.map(with_prefix)),
                or_dash(row.scores.macs.map(with_prefix)),
                row.name.to_owned(),
            ]);
        }
        let mut text = if self.rows.is_empty() { String::new() } else { aligned(&rows, 1) };
        text += &format!("{} ranked", count_of(self.rows.len(), "architecture"));
        if !self.failed.is_empty() {
            text += &format!(", {} without scores", self.failed.len());
        }
        text.push('\n');
        for (name, reason) in &self.failed {
            text += &format!("{name}: {reason}\n");
        }
        text
    }
}

/// Around `value`, which the weighted sum of the scores is.
fn objective_interval(objective: &Objective, scores: &Scores, value: f64) -> Interval {
    let mut interval = Interval { low: value, high: value };
    for &(metric, weight) in objective.terms() {
        if let (Some(measured), Some(of)) = (metric.of(scores), Interval::of(metric, scores)) {
            interval.low -= (weight * (measured - of.low)).abs();
            interval.high += (weight * (of.high - measured)).abs();
        }
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::NoiseScore;

    fn scored(name: &str, accuracy: f64, params: u64) -> Scored {
        let noise = [0.1, 0.2].map(|sd| NoiseScore { sd, accuracy: accuracy - sd, accuracy_se: 0.0 });
        let scores = Scores {
            accuracy: Some(accuracy),
            robustness: Some(accuracy - 0.15),
            noise: noise.to_vec(),
            images: Some(1000),
            params: Some(params),
            ..Scores::default()
        };
        Scored { name: name.into(), outcome: Ok(scores) }
    }

    #[test]
    fn ranks_that_intervals_leave_open_are_told() {
        let failed = Scored { name: "broken".into(), outcome: Err("the loss is NaN".into()) };
        let list =
            [scored("a", 0.5, 10), failed, scored("b", 0.52, 30), scored("c", 0.8, 20), scored("d", 0.2, 5)];
        let ranking = Ranking::new(&list, &"accuracy".parse().unwrap()).unwrap();
        assert_eq!(ranking.names(), ["c", "b", "a", "d"]);
        let ranks: Vec<_> = ranking.rows.iter().map(|row| row.ranks.unwrap()).collect();
        assert_eq!(ranks, [(1, 1), (2, 3), (2, 3), (4, 4)]);
        let frame = ranking.frame().unwrap();
        assert_eq!(frame.height(), 5);
        let reasons = frame.column("reason").unwrap().str().unwrap().clone();
        assert_eq!((reasons.get(3), reasons.get(4)), (None, Some("the loss is NaN")));
        let low = frame.column("accuracy_low").unwrap().f64().unwrap().get(0).unwrap();
        assert!((low - Interval::wilson(0.8, 1000).low).abs() < 1e-12 && low < 0.8);
        let table = ranking.table(2);
        assert!(table.contains("2-3") && !table.contains(" a\n"), "{table}");
        assert!(table.ends_with("4 architectures ranked, 1 without scores\nbroken: the loss is NaN\n"));
    }

    #[test]
    fn several_objectives_rank_by_fronts() {
        let list = [scored("a", 0.5, 10), scored("b", 0.4, 20), scored("c", 0.8, 30), scored("d", 0.3, 40)];
        let ranking = Ranking::new(&list, &"accuracy,params".parse().unwrap()).unwrap();
        assert_eq!(ranking.names(), ["c", "a", "b", "d"]);
        let fronts: Vec<_> = ranking.rows.iter().map(|row| row.front.unwrap()).collect();
        assert_eq!(fronts, [1, 1, 2, 3]);
        assert!(ranking.frame().unwrap().column("rank_low").is_err());
        let error = Ranking::new(&list, &"latency".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("needs latency"), "{error}");
    }

    #[test]
    fn intervals_of_sums_add_those_of_their_scores() {
        let list = [scored("a", 0.5, 1_000_000)];
        let Ok(scores) = &list[0].outcome else { panic!() };
        let ranking = Ranking::new(&list, &"accuracy=2,robustness=1,params=-0.1".parse().unwrap()).unwrap();
        let (value, interval) = ranking.rows[0].value.unwrap();
        let [a, r] = [Metric::Accuracy, Metric::Robustness].map(|m| Interval::of(m, scores).unwrap());
        assert!((value - (1.0 + 0.35 - 0.1)).abs() < 1e-12);
        assert!((interval.low - (2.0 * a.low + r.low - 0.1)).abs() < 1e-12);
        assert!((interval.high - (2.0 * a.high + r.high - 0.1)).abs() < 1e-12);
        // Certain of all or nothing, the interval still has a width and stays inside 0..1.
        assert!(Interval::wilson(1.0, 10).low < 0.8 && Interval::wilson(1.0, 10).high > 0.999_999);
        assert!(Interval::wilson(0.0, 10).low < 1e-6 && Interval::wilson(0.0, 10).high > 0.2);
    }
}
