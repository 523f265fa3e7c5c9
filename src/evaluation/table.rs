//! The table: a line for every source of weights and group.
//!
//! In: rows and curves. Out: mean, standard error, 95 % interval and best, and how many steps of training from random
//! weights reach the accuracy of predicted ones.

use super::rows::{CurvePoint, Row};
use std::fmt::Write as _;

/// What a group came to with weights from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The source of the weights.
    pub weights: String,
    /// The group.
    pub group: String,
    /// Architectures with an accuracy.
    pub architectures: usize,
    /// Architectures whose logits were not finite; they are in no mean.
    pub failed: usize,
    /// Mean accuracy; none if all failed.
    pub mean: Option<f64>,
    /// Standard error of the mean over architectures; of a single architecture, over its images.
    pub se: Option<f64>,
    /// 95 % confidence interval of the mean: Student's t over architectures, normal over the images of a single one.
    pub interval: Option<(f64, f64)>,
    /// Highest accuracy and the architecture that has it.
    pub best: Option<(f64, String)>,
    /// Images that each accuracy was measured on.
    pub images: u64,
    /// Curves of training from random weights that reach the accuracy of these weights, of how many, and the median
    /// of the steps that they took.
    pub reached: Option<(usize, usize, Option<f64>)>,
}

/// The lines, sources and groups in the order in which they first come.
pub fn table(rows: &[Row], curves: &[CurvePoint]) -> Vec<Line> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !keys.contains(&(&row.weights, &row.group)) {
            keys.push((&row.weights, &row.group));
        }
    }
    let lines = keys.into_iter().map(|(weights, group)| {
        let rows: Vec<&Row> =
            rows.iter().filter(|row| row.weights == weights && row.group == group).collect();
        line(weights, group, &rows, curves)
    });
    lines.collect()
}

fn line(weights: &str, group: &str, rows: &[&Row], curves: &[CurvePoint]) -> Line {
    let scored: Vec<(f64, &Row)> = rows.iter().filter_map(|row| Some((row.accuracy?, *row))).collect();
    let n = scored.len() as f64;
    let mean = (!scored.is_empty()).then(|| scored.iter().map(|(accuracy, _)| accuracy).sum::<f64>() / n);
    let se = mean.and_then(|mean| match scored[..] {
        [(_, row)] => row.accuracy_se,
        _ => {
            let squares: f64 = scored.iter().map(|(accuracy, _)| (accuracy - mean).powi(2)).sum();
            Some((squares / (n - 1.0) / n).sqrt())
        }
    });
    let interval = mean.zip(se).map(|(mean, se)| {
        let half = se * if scored.len() == 1 { 1.959_964 } else { student_t(scored.len() - 1) };
        ((mean - half).max(0.0), (mean + half).min(1.0))
    });
    // Of equal accuracies the first architecture counts.
    let best = scored.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0));
    let mut steps = Vec::new();
    let mut trained = 0;
    for (accuracy, row) in &scored {
        let curve = || curves.iter().filter(|p| p.group == group && p.architecture == row.architecture);
        trained += usize::from(curve().next().is_some());
        steps.extend(curve().filter(|point| point.accuracy >= *accuracy).map(|point| point.step).min());
    }
    steps.sort_unstable();
    // Curves that never reach it count as longer than any other.
    let middle = |at: usize| steps.get(at).map(|&steps| steps as f64);
    let median = match trained {
        0 => None,
        odd if odd % 2 == 1 => middle(odd / 2),
        even => middle(even / 2 - 1).zip(middle(even / 2)).map(|(a, b)| (a + b) / 2.0),
    };
    Line {
        weights: weights.into(),
        group: group.into(),
        architectures: scored.len(),
        failed: rows.len() - scored.len(),
        mean,
        se,
        interval,
        best: best.map(|(accuracy, row)| (*accuracy, row.architecture.clone())),
        images: rows.iter().map(|row| row.images).max().unwrap_or(0),
        reached: (trained > 0).then_some((steps.len(), trained, median)),
    }
}

/// The table as CSV; an absent number is an empty field.
pub fn table_csv(lines: &[Line]) -> String {
    let mut text =
        "weights,group,architectures,failed,mean,se,ci95_low,ci95_high,best,best_architecture,images,\
                    sgd_curves,sgd_reached,sgd_median_steps\n"
            .to_owned();
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for line in lines {
        let Line { weights, group, architectures, failed, images, .. } = line;
        let (best, name) = match &line.best {
            Some((best, name)) => (Some(*best), name.as_str()),
            None => (None, ""),
        };
        let _ = writeln!(
            text,
            "{weights},{group},{architectures},{failed},{},{},{},{},{},{name},{images},{},{},{}",
            optional(line.mean),
            optional(line.se),
            optional(line.interval.map(|interval| interval.0)),
            optional(line.interval.map(|interval| interval.1)),
            optional(best),
            line.reached.map_or_else(String::new, |(_, curves, _)| curves.to_string()),
            line.reached.map_or_else(String::new, |(reached, _, _)| reached.to_string()),
            optional(line.reached.and_then(|(_, _, median)| median)),
        );
    }
    text
}

/// The 97.5 % quantile of Student's t with `freedom` degrees: exact for 1 and 2, else Cornish and Fisher's expansion
/// (Abramowitz and Stegun, 26.7.5), within 0.02 for 3 and 0.001 from 6 on.
fn student_t(freedom: usize) -> f64 {
    match freedom {
        0 => f64::INFINITY,
        1 => 12.706_205,
        2 => 4.302_653,
        _ => {
            let (z, v) = (1.959_963_985f64, freedom as f64);
            let terms = [
                (z.powi(3) + z) / 4.0,
                (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
                (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
                (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z)
                    / 92_160.0,
            ];
            terms.iter().enumerate().fold(z, |sum, (k, term)| sum + term / v.powi(k as i32 + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, place: usize, accuracy: Option<f64>) -> Row {
        Row {
            weights: "ghn".into(),
            group: group.into(),
            architecture: format!("{group}/{place}"),
            hash: String::new(),
            params: 1,
            macs: 1,
            nodes: 1,
            images: 100,
            accuracy,
            accuracy_se: accuracy.map(|p| (p * (1.0 - p) / 100.0).sqrt()),
            loss: None,
            seconds: 0.0,
            reason: String::new(),
        }
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        let published =
            [(3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (9, 2.262), (19, 2.093), (99, 1.984)];
        for (freedom, wanted) in published {
            let tolerance = if freedom < 6 { 0.02 } else { 0.001 };
            assert!((student_t(freedom) - wanted).abs() <= tolerance, "{freedom}: {}", student_t(freedom));
        }
    }

    #[test]
    fn means_errors_and_intervals() {
        let rows = [
            row("test", 0, Some(0.5)),
            row("test", 1, Some(0.7)),
            row("test", 2, None),
            row("test", 3, Some(0.6)),
            row("ViT", 0, Some(0.8)),
            row("wide", 0, None),
        ];
        let lines = table(&rows, &[]);
        let test = &lines[0];
        assert_eq!((test.architectures, test.failed, test.images), (3, 1, 100));
        assert!((test.mean.unwrap() - 0.6).abs() < 1e-12);
        assert!((test.se.unwrap() - 0.1 / 3f64.sqrt()).abs() < 1e-12);
        let (low, high) = test.interval.unwrap();
        assert!((high - low - 2.0 * 4.302653 * 0.1 / 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(test.best, Some((0.7, "test/1".into())));
        let single = &lines[1];
        assert!((single.se.unwrap() - 0.04).abs() < 1e-12, "over the images");
        assert!((single.interval.unwrap().1 - (0.8 + 1.959_964 * 0.04)).abs() < 1e-9);
        assert_eq!((lines[2].mean, lines[2].best.clone(), lines[2].failed), (None, None, 1));
        let csv = table_csv(&lines);
        assert!(csv.lines().nth(3).unwrap().starts_with("ghn,wide,0,1,,,,,,,100,,,"), "{csv}");
        let columns = |line: &str| line.split(',').count();
        assert!(csv.lines().all(|line| columns(line) == columns(csv.lines().next().unwrap())));
    }

    #[test]
    fn steps_to_the_same_accuracy_count_curves_that_never_reach_it() {
        let rows: Vec<Row> = (0..3).map(|place| row("test", place, Some(0.6))).collect();
        let point = |place: usize, step, accuracy| CurvePoint {
            group: "test".into(),
            architecture: format!("test/{place}"),
            step,
            accuracy,
        };
        let curves =
            [point(0, 0, 0.1), point(0, 10, 0.6), point(0, 20, 0.5), point(1, 10, 0.3), point(1, 20, 0.7)];
        assert_eq!(table(&rows, &curves)[0].reached, Some((2, 2, Some(15.0))));
        let never = [&curves[..], &[point(2, 20, 0.59)]].concat();
        assert_eq!(table(&rows, &never)[0].reached, Some((2, 3, Some(20.0))));
        assert_eq!(table(&rows, &never[3..])[0].reached, Some((1, 2, None)), "the median is unknown");
    }
}
