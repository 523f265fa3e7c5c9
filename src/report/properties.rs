//! Tables of how well properties can be predicted: text, frame and picture.

use super::canvas::{
    Axis, BLUE, Canvas, Drawn, Figure, GREEN, GREY, Mark, ORANGE, PURPLE, SKY, YELLOW, save,
};
use super::frame::frame_error;
use super::table::{aligned, or_dash};
use crate::Result;
use crate::predictor::{CHOSEN, NO_REGRESSOR, PropertyRow};
use plotters::prelude::{Color, DrawingBackend, RGBColor};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::{Path, PathBuf};

const COLOURS: [RGBColor; 6] = [BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW];
/// Share of the distance between two properties that their sets of features fill.
const SPREAD: f64 = 0.7;

/// A frame with a row for each of `rows`.
///
/// # Errors
/// The frame cannot be built, which would be a bug.
pub fn properties_frame(rows: &[PropertyRow]) -> Result<DataFrame> {
    let mut columns: Vec<Column> = Vec::new();
    macro_rules! column {
        ($name:expr, $type:ty, |$row:ident| $value:expr) => {{
            let values: Vec<$type> = rows.iter().map(|$row| $value).collect();
            columns.push(Series::new($name.into(), values).into());
        }};
    }
    column!("property", &str, |row| row.property.as_str());
    column!("features", &str, |row| row.features.as_str());
    column!("predictor", &str, |row| row.predictor);
    column!("architectures", u64, |row| row.samples as u64);
    column!("tau", Option<f64>, |row| row.tau);
    column!("tau_se", Option<f64>, |row| row.tau_se);
    column!("pooled_tau", Option<f64>, |row| row.pooled.map(|tau| tau.tau));
    column!("pooled_low", Option<f64>, |row| row.pooled.map(|tau| tau.low));
    column!("pooled_high", Option<f64>, |row| row.pooled.map(|tau| tau.high));
    DataFrame::new(rows.len(), columns).map_err(frame_error)
}

/// The same for a terminal: sets of features in rows, regressors in columns.
pub fn properties_text(rows: &[PropertyRow]) -> String {
    let mut text = String::new();
    for property in firsts(rows.iter().map(|row| row.property.as_str())) {
        let of: Vec<&PropertyRow> = rows.iter().filter(|row| row.property == property).collect();
        let samples = of.first().map_or(0, |row| row.samples);
        text += &format!("{property}, {samples} architectures\n");
        let mut lines = vec![["tau", "s.e.", "95 % of all folds", "predictor", "features"].map(String::from)];
        for row in of {
            let number = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.3}")));
            lines.push([
                number(row.tau),
                number(row.tau_se),
                or_dash(row.pooled.map(|tau| format!("{:.2} to {:.2}", tau.low, tau.high))),
                row.predictor.to_owned(),
                row.features.clone(),
            ]);
        }
        text += &aligned(&lines, 2);
        text.push('\n');
    }
    text
}

/// Names in the order of their first occurrence.
fn firsts<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for name in names {
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    }
    list
}

struct PropertiesFigure<'a> {
    rows: &'a [PropertyRow],
    properties: Vec<String>,
    sets: Vec<String>,
    explanation: String,
}

/// Draws `stem.png` and `stem.svg`: what the chosen regressor reaches, and every single one.
///
/// # Errors
/// A file cannot be written.
pub fn properties_plot(rows: &[PropertyRow], stem: &Path) -> Result<Vec<PathBuf>> {
    let learned = || rows.iter().filter(|row| row.predictor != NO_REGRESSOR);
    let properties = firsts(rows.iter().map(|row| row.property.as_str()));
    let sets = firsts(learned().map(|row| row.features.as_str()));
    let most = rows.iter().map(|row| row.samples).max().unwrap_or(0);
    let explanation = format!("cross-validation on up to {most} architectures; bars: ±1 s.e. over the folds");
    save(&PropertiesFigure { rows, properties, sets, explanation }, stem)
}

impl Figure for PropertiesFigure<'_> {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let columns = self.sets.len() + 1;
        let colours: Vec<RGBColor> = COLOURS.into_iter().cycle().take(self.sets.len()).collect();
        let mut legend: Vec<(Mark, String)> = (self.sets.iter().zip(&colours))
            .map(|(name, colour)| (Mark::Dot(colour.mix(1.0), 5.0), name.clone()))
            .collect();
        legend.push((Mark::Dot(GREY.mix(0.6), 2.5), "one regressor".into()));
        legend.push((Mark::Cross(GREY.mix(1.0), 4.5), "one score, no regressor".into()));
        let body =
            canvas.head("Properties predicted for unseen architectures", &self.explanation, &legend)?;
        let ends = self.rows.iter().filter_map(|row| {
            let (tau, se) = (row.tau?, row.tau_se.unwrap_or(0.0));
            Some([tau - se, tau + se])
        });
        let y = Axis::around("Kendall's tau", ends.flatten().chain([0.0]), -1.0..1.0);
        let mut chart = canvas.chart_of(&body, &self.properties, &y)?;
        let x = |property: &str, column: usize| {
            let at = self.properties.iter().position(|name| name == property).unwrap_or(0) as f64;
            at + SPREAD * ((column as f64 + 0.5) / columns as f64 - 0.5)
        };
        for (column, (set, colour)) in self.sets.iter().zip(&colours).enumerate() {
            let of = |chosen: bool| {
                let is =
                    move |row: &&PropertyRow| row.features == *set && (row.predictor == CHOSEN) == chosen;
                self.rows.iter().filter(is)
            };
            let point = |row: &PropertyRow| Some((x(&row.property, column), row.tau?));
            let singles: Vec<(f64, f64)> = of(false).filter_map(point).collect();
            canvas.points(&mut chart, Mark::Dot(colour.mix(0.5), 2.5), &singles)?;
            let bar = |row: &PropertyRow| {
                let (x, tau) = point(row)?;
                Some((x, tau - row.tau_se?, tau + row.tau_se?))
            };
            canvas.bars(&mut chart, colour.mix(1.0), &y, of(true).filter_map(bar))?;
            let chosen: Vec<(f64, f64)> = of(true).filter_map(point).collect();
            canvas.points(&mut chart, Mark::Dot(colour.mix(1.0), 5.0), &chosen)?;
        }
        let single = self.rows.iter().filter(|row| row.predictor == NO_REGRESSOR);
        let crosses: Vec<(f64, f64)> =
            single.filter_map(|row| Some((x(&row.property, columns - 1), row.tau?))).collect();
        canvas.points(&mut chart, Mark::Cross(GREY.mix(1.0), 4.5), &crosses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_frame_and_picture_hold_every_row() {
        let row = |property: &str, features: &str, predictor, tau| PropertyRow {
            property: property.into(),
            features: features.into(),
            predictor,
            samples: 40,
            tau,
            tau_se: tau.map(|_| 0.05),
            pooled: None,
        };
        let rows = [
            row("latency_ms", "embedding", "ridge", Some(0.7)),
            row("latency_ms", "embedding", CHOSEN, Some(0.6)),
            row("latency_ms", "params", NO_REGRESSOR, Some(-0.4)),
            row("accuracy", "embedding", CHOSEN, None),
        ];
        let text = properties_text(&rows);
        assert!(text.contains("latency_ms, 40 architectures") && text.contains("-0.400"), "{text}");
        assert_eq!(text.lines().filter(|line| line.ends_with("embedding")).count(), 3, "{text}");
        let frame = properties_frame(&rows).unwrap();
        assert_eq!(frame.height(), 4);
        assert_eq!(frame.column("tau").unwrap().null_count(), 1);
        let folder = tempfile::tempdir().unwrap();
        let files = properties_plot(&rows, &folder.path().join("properties")).unwrap();
        let svg = std::fs::read_to_string(&files[1]).unwrap();
        for text in ["embedding", "latency_ms", "up to 40 architectures", "one score, no regressor"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
