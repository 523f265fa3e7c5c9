//! Methods of ranking, compared with the truth: a table with intervals, CSV, a plot.
//!
//! In: a truth and methods with their scores. Out: for each method Kendall's tau and Spearman's correlation with the
//! clean and with the noisy accuracy after training, the regret of its best five, and its cost, in seconds and as a
//! share of training every architecture once. Intervals are central 95 % of bootstrap samples of the architectures.

use super::canvas::{Axis, BLUE, Canvas, Drawn, Figure, GREY, INK, Mark, ORANGE, save, text_of};
use super::frame::frame_error;
use super::table::{aligned, or_dash};
use crate::Result;
use crate::score::{Agreement, kendall_tau, spearman, top_regret};
use crate::truth::{Method, Truth};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};

/// How agreements are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgreementOptions {
    /// Architectures that a ranking would hand on: the regret of the best of them is measured.
    pub top: usize,
    /// Bootstrap samples.
    pub samples: usize,
    /// Seed of the samples.
    pub seed: u64,
}

/// A method with its agreement.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodRow {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: &'static str,
    /// Time for all architectures, s.
    pub seconds: f64,
    /// The same as a share of training all.
    pub seconds_share: f64,
    /// Multiply-accumulates for all architectures.
    pub macs: f64,
    /// The same as a share of training all.
    pub macs_share: f64,
    /// With the clean accuracy after training.
    pub clean: Agreement,
    /// With the noisy accuracy after training.
    pub noisy: Agreement,
}

/// Measures methods.
pub fn method_rows(truth: &Truth, methods: &[Method], options: AgreementOptions) -> Vec<MethodRow> {
    let AgreementOptions { top, samples, seed } = options;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { f64::NAN };
    methods
        .iter()
        .map(|method| MethodRow {
            name: method.name.clone(),
            kind: method.kind,
            seconds: method.seconds,
            seconds_share: share(method.seconds, truth.seconds),
            macs: method.macs,
            macs_share: share(method.macs, truth.macs),
            clean: Agreement::of(&method.scores, &truth.clean, top, samples, seed),
            noisy: Agreement::of(&method.scores, &truth.noisy, top, samples, seed),
        })
        .collect()
}

/// The control: random orders. Values are means over them, intervals their central 95 %.
pub fn random_control(truth: &Truth, options: AgreementOptions) -> MethodRow {
    MethodRow {
        name: "random order".into(),
        kind: "control",
        seconds: 0.0,
        seconds_share: 0.0,
        macs: 0.0,
        macs_share: 0.0,
        clean: random_agreement(&truth.clean, options),
        noisy: random_agreement(&truth.noisy, options),
    }
}

/// What random orders of the same architectures give.
pub fn random_agreement(truth: &[Option<f64>], options: AgreementOptions) -> Agreement {
    let truth: Vec<f64> = truth.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    let mut order: Vec<f64> = (0..truth.len()).map(|i| i as f64).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut found: [Vec<f64>; 3] = Default::default();
    for _ in 0..options.samples {
        order.shuffle(&mut rng);
        found[0].extend(kendall_tau(&order, &truth));
        found[1].extend(spearman(&order, &truth));
        found[2].extend(top_regret(&order, &truth, options.top));
    }
    let mean =
        |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let [tau, rho, regret] = [0, 1, 2].map(|i| mean(&found[i]));
    let [tau_interval, spearman_interval, regret_interval] = found.map(|mut values| {
        values.sort_by(f64::total_cmp);
        let at = |q: f64| values[(q * (values.len() - 1) as f64).round() as usize];
        (!values.is_empty()).then(|| [at(0.025), at(0.975)])
    });
    Agreement {
        architectures: truth.len(),
        tau,
        tau_interval,
        spearman: rho,
        spearman_interval,
        regret,
        regret_interval,
    }
}

/// A row for each method.
///
/// # Errors
/// The frame cannot be built, which would be a bug.
pub fn methods_frame(rows: &[MethodRow]) -> Result<DataFrame> {
    let mut columns: Vec<Column> = vec![
        Series::new("method".into(), rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>()).into(),
        Series::new("kind".into(), rows.iter().map(|row| row.kind).collect::<Vec<_>>()).into(),
        Series::new(
            "architectures".into(),
            rows.iter().map(|row| row.clean.architectures as u64).collect::<Vec<_>>(),
        )
        .into(),
    ];
    let mut column = |name: String, of: &dyn Fn(&MethodRow) -> Option<f64>| {
        let values: Vec<Option<f64>> = rows.iter().map(|row| of(row).filter(|x| x.is_finite())).collect();
        columns.push(Series::new(name.as_str().into(), values).into());
    };
    column("seconds".into(), &|row| Some(row.seconds));
    column("seconds_share".into(), &|row| Some(row.seconds_share));
    column("macs".into(), &|row| Some(row.macs));
    column("macs_share".into(), &|row| Some(row.macs_share));
    for (target, of) in [
        ("clean", (|row| &row.clean) as fn(&MethodRow) -> &Agreement),
        ("noisy", |row: &MethodRow| &row.noisy),
    ] {
        column(format!("tau_{target}"), &|row| of(row).tau);
        column(format!("tau_{target}_low"), &|row| Some(of(row).tau_interval?[0]));
        column(format!("tau_{target}_high"), &|row| Some(of(row).tau_interval?[1]));
        column(format!("spearman_{target}"), &|row| of(row).spearman);
        column(format!("spearman_{target}_low"), &|row| Some(of(row).spearman_interval?[0]));
        column(format!("spearman_{target}_high"), &|row| Some(of(row).spearman_interval?[1]));
        column(format!("regret_{target}"), &|row| of(row).regret);
        column(format!("regret_{target}_low"), &|row| Some(of(row).regret_interval?[0]));
        column(format!("regret_{target}_high"), &|row| Some(of(row).regret_interval?[1]));
    }
    DataFrame::new(rows.len(), columns).map_err(frame_error)
}

/// All methods as an aligned table of text. Regrets are in percentage points.
pub fn methods_table(rows: &[MethodRow], top: usize) -> String {
    let regret = format!("top-{top} regret");
    let header = [
        "cost s",
        "cost",
        "MACs",
        "tau clean",
        "95 %",
        "Spearman",
        &regret,
        "tau noisy",
        "95 %",
        "Spearman",
        &regret,
        "method",
    ];
    let mut lines = vec![header.map(String::from)];
    let number = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.3}")));
    let interval =
        |value: Option<[f64; 2]>| or_dash(value.map(|[low, high]| format!("{low:.2} to {high:.2}")));
    let points = |value: Option<f64>| or_dash(value.map(|value| format!("{:.2}", 100.0 * value)));
    let share = |value: f64| or_dash(value.is_finite().then(|| format!("{:.2} %", 100.0 * value)));
    for row in rows {
        let [clean, noisy] = [&row.clean, &row.noisy];
        lines.push([
            format!("{:.1}", row.seconds),
            share(row.seconds_share),
            share(row.macs_share),
            number(clean.tau),
            interval(clean.tau_interval),
            number(clean.spearman),
            points(clean.regret),
            number(noisy.tau),
            interval(noisy.tau_interval),
            number(noisy.spearman),
            points(noisy.regret),
            row.name.clone(),
        ]);
    }
    aligned(&lines, 1)
}

/// Draws `rows` as `stem.png` and `stem.svg`: tau with its interval, left with the clean, right with the noisy accuracy
/// after training.
///
/// # Errors
/// If a file cannot be written.
pub fn methods_plot(rows: &[MethodRow], subject: &str, stem: &Path) -> Result<Vec<PathBuf>> {
    save(&MethodsFigure { rows, subject }, stem)
}

struct MethodsFigure<'a> {
    rows: &'a [MethodRow],
    subject: &'a str,
}

/// Width of the column of names, units.
const NAMES: f64 = 300.0;
/// Longest name, letters.
const LETTERS: usize = 44;

impl Figure for MethodsFigure<'_> {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let marks = [Mark::Dot(BLUE.mix(1.0), 4.0), Mark::Dot(ORANGE.mix(1.0), 4.0)];
        let legend = [
            (marks[0], "with the accuracy after training".to_owned()),
            (marks[1], "with the noisy accuracy after training".to_owned()),
        ];
        let explanation = format!(
            "{}; bars: 95 % of bootstrap samples; per cent: cost, in MACs of training all",
            self.subject
        );
        let body = canvas.head("Kendall's tau of rankings with the truth", &explanation, &legend)?;
        let (names, charts) = body.split_horizontally(canvas.px(NAMES));
        let (left, right) = charts.split_horizontally(charts.dim_in_pixel().0 / 2);
        let count = self.rows.len().max(1);
        let rows = -(count as f64) + 0.5..0.5;
        // What both charts leave below their rows for ticks and description.
        let bottom = 54.0;
        for (panel, is_clean, mark, color) in
            [(&left, true, marks[0], BLUE), (&right, false, marks[1], ORANGE)]
        {
            let of = |row: &MethodRow| if is_clean { row.clean } else { row.noisy };
            let values = self.rows.iter().flat_map(|row| {
                let found = of(row);
                found.tau.into_iter().chain(found.tau_interval.into_iter().flatten())
            });
            let x = Axis::around("Kendall's tau", values.chain([0.0, 0.6]), -1.0..1.0);
            let mut chart = ChartBuilder::on(panel)
                .x_label_area_size(canvas.px(bottom))
                .y_label_area_size(canvas.px(8.0))
                .margin_right(canvas.px(24.0))
                .build_cartesian_2d(x.range.clone(), rows.clone())
                .map_err(text_of)?;
            canvas.mesh_without_rows(&mut chart, &x)?;
            canvas.points(&mut chart, Mark::Dashes(GREY.mix(1.0)), &[(0.0, rows.start), (0.0, rows.end)])?;
            let place = |i: usize| -(i as f64);
            let bars = self.rows.iter().enumerate();
            let bars =
                bars.filter_map(|(i, row)| of(row).tau_interval.map(|[low, high]| (place(i), low, high)));
            canvas.level_bars(&mut chart, color.mix(0.6), &x, bars)?;
            let points = self.rows.iter().enumerate().filter_map(|(i, row)| Some((of(row).tau?, place(i))));
            canvas.points(&mut chart, mark, &points.collect::<Vec<_>>())?;
        }
        let height = (f64::from(names.dim_in_pixel().1) - f64::from(canvas.px(bottom))) / count as f64;
        let size = (height / canvas.scale * 0.8).clamp(6.0, 13.0);
        let style = canvas.font(size, &INK).pos(Pos::new(HPos::Right, VPos::Center));
        for (i, row) in self.rows.iter().enumerate() {
            let cost = match row.macs_share {
                share if !share.is_finite() || share < 5e-4 => String::new(),
                share => format!("  {:.1} %", 100.0 * share),
            };
            let mut name: String = row.name.chars().take(LETTERS).collect();
            if name.len() < row.name.len() {
                name += "...";
            }
            // Text is centred by its box, whose letters stand above the middle.
            let y = (height * (i as f64 + 0.5)) as i32 + canvas.px(2.5);
            let place = (names.dim_in_pixel().0 as i32 - canvas.px(4.0), y);
            names.draw_text(&format!("{name}{cost}"), &style, place).map_err(text_of)?;
        }
        Ok(())
    }
}
