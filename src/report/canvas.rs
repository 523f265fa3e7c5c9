//! What all figures share: fonts, colours, axes, legend, and their two files, PNG and SVG.
//!
//! A figure is laid out in units of 1/1000 of its width. The PNG is drawn at twice its size and averaged down,
//! which smooths what the bitmap backend draws with hard edges.

use crate::files::write_atomically;
use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, TextStyle, register_font};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Width and height of a figure in units.
pub(super) const SIZE: (f64, f64) = (1000.0, 640.0);
/// From one row of a legend to the next.
const LEGEND_ROW: f64 = 22.0;
const PNG_SCALE: f64 = 1.6;
const SUPERSAMPLING: u32 = 2;

// Okabe and Ito's palette, which stays distinct for colour-blind readers.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub(super) const YELLOW: RGBColor = RGBColor(230, 159, 0);
pub(super) const SKY: RGBColor = RGBColor(86, 180, 233);
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
pub(super) const GREY: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Marks the winner.
pub(super) const RED_STAR: Mark = Mark::Star(RGBColor(200, 16, 46), 9.0);

/// The bundled DejaVu Sans; SVG viewers without it take the next name.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";
static REGULAR: &[u8] = include_bytes!("../../data/fonts/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("../../data/fonts/DejaVuSans-Bold.ttf");

/// Drawing fails with the backend's text.
pub(super) type Drawn = std::result::Result<(), String>;
/// A chart over two linear axes.
pub(super) type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) fn text_of(error: impl Display) -> String {
    error.to_string()
}

/// Something that can be drawn on any backend.
pub(super) trait Figure {
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn;
}

/// A drawing area and its scale, in pixels a unit.
pub(super) struct Canvas<DB: DrawingBackend> {
    pub(super) area: DrawingArea<DB, Shift>,
    pub(super) scale: f64,
}

/// The mark of a legend entry or of a point.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Dot(RGBAColor, f64),
    Cross(RGBAColor, f64),
    Star(RGBColor, f64),
    Line(RGBAColor),
    Dashes(RGBAColor),
}

/// One axis.
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) range: Range<f64>,
}

impl Axis {
    /// An axis around `values`, with a margin, inside `bounds`.
    pub(super) fn around(
        label: impl Into<String>,
        values: impl Iterator<Item = f64>,
        bounds: Range<f64>,
    ) -> Axis {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let margin = if high > low { 0.06 * (high - low) } else { (0.1 * high.abs()).max(1e-3) };
        let range = (low - margin).max(bounds.start)..(high + margin).min(bounds.end);
        Axis { label: label.into(), range }
    }

    /// Digits behind the point that tell its ticks apart.
    fn decimals(&self) -> usize {
        let step = (self.range.end - self.range.start) / 8.0;
        (-step.log10().floor()).clamp(0.0, 6.0) as usize
    }
}

/// Where values may lie without being so far from the others that an axis around all would squeeze these: from the tenth
/// and the ninetieth percentile twice their distance. Anywhere, if there are fewer than twenty.
pub(super) fn crowd(values: impl Iterator<Item = f64>) -> RangeInclusive<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = match values.len() {
        0..20 => return f64::NEG_INFINITY..=f64::INFINITY,
        n => (values[n / 10], values[n - 1 - n / 10]),
    };
    let reach = if high > low { 2.0 * (high - low) } else { f64::INFINITY };
    low - reach..=high + reach
}

/// Writes `stem.png` and `stem.svg`.
pub(super) fn save(figure: &impl Figure, stem: &Path) -> Result<Vec<PathBuf>> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        let bundled = "the bundled fonts are whole";
        register_font(FONT, FontStyle::Normal, REGULAR).map_err(|_| bundled).expect(bundled);
        register_font(FONT, FontStyle::Bold, BOLD).map_err(|_| bundled).expect(bundled);
    });
    let (png, svg) = (stem.with_extension("png"), stem.with_extension("svg"));
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |reason: String| Error::format(&path, format!("cannot draw: {reason}"))
    };
    write_atomically(&png, &to_png(figure).map_err(failed(&png))?)?;
    write_atomically(&svg, to_svg(figure).map_err(failed(&svg))?.as_bytes())?;
    Ok(vec![png, svg])
}

fn to_svg(figure: &impl Figure) -> std::result::Result<String, String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (SIZE.0 as u32, SIZE.1 as u32)).into_drawing_area();
    let canvas = Canvas { area, scale: 1.0 };
    canvas.area.fill(&WHITE).map_err(text_of)?;
    figure.draw(&canvas)?;
    canvas.area.present().map_err(text_of)?;
    drop(canvas);
    Ok(text)
}

fn to_png(figure: &impl Figure) -> std::result::Result<Vec<u8>, String> {
    let (width, height) = ((SIZE.0 * PNG_SCALE) as u32, (SIZE.1 * PNG_SCALE) as u32);
    let large = (width * SUPERSAMPLING, height * SUPERSAMPLING);
    let mut pixels = vec![255u8; large.0 as usize * large.1 as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, large).into_drawing_area();
        let scale = PNG_SCALE * f64::from(SUPERSAMPLING);
        let canvas = Canvas { area, scale };
        figure.draw(&canvas)?;
        canvas.area.present().map_err(text_of)?;
    }
    let drawn =
        image::RgbImage::from_raw(large.0, large.1, pixels).ok_or("the buffer does not fit the figure")?;
    let small = image::imageops::thumbnail(&drawn, width, height);
    let mut bytes = std::io::Cursor::new(Vec::new());
    small.write_to(&mut bytes, image::ImageFormat::Png).map_err(text_of)?;
    Ok(bytes.into_inner())
}

impl<DB: DrawingBackend> Canvas<DB> {
    /// Pixels of a length in units.
    pub(super) fn px(&self, units: f64) -> i32 {
        (units * self.scale).round() as i32
    }

    pub(super) fn font(&self, size: f64, color: &RGBColor) -> TextStyle<'static> {
        FontDesc::new(FontFamily::Name(FONT), size * self.scale, FontStyle::Normal).color(color)
    }

    /// Title, a line of explanation below it, and the legend in as many rows as it takes; returns what is left for
    /// charts.
    pub(super) fn head(
        &self,
        title: &str,
        explanation: &str,
        legend: &[(Mark, String)],
    ) -> std::result::Result<DrawingArea<DB, Shift>, String> {
        let bold = FontDesc::new(FontFamily::Name(FONT), 21.0 * self.scale, FontStyle::Bold).color(&INK);
        self.area.draw_text(title, &bold, (self.px(24.0), self.px(16.0))).map_err(text_of)?;
        let small = self.font(13.5, &GREY);
        self.area.draw_text(explanation, &small, (self.px(24.0), self.px(46.0))).map_err(text_of)?;
        let style = self.font(14.0, &INK).pos(Pos::new(HPos::Left, VPos::Center));
        let left = self.px(26.0);
        let (mut x, mut row) = (left, 0);
        for (mark, text) in legend {
            let mark_width =
                self.px(if matches!(mark, Mark::Line(_) | Mark::Dashes(_)) { 30.0 } else { 14.0 });
            let mark_and_gap = mark_width + self.px(8.0);
            let text_width = self.area.estimate_text_size(text, &style).map_err(text_of)?.0 as i32;
            if x > left && x + mark_and_gap + text_width > self.px(SIZE.0 - 14.0) {
                (x, row) = (left, row + 1);
            }
            let middle = self.px(82.0 + LEGEND_ROW * f64::from(row));
            // Text is centred by its box, whose letters stand above the middle.
            self.mark(*mark, (x, middle - self.px(2.5)), mark_width)?;
            self.area.draw_text(text, &style, (x + mark_and_gap, middle)).map_err(text_of)?;
            x += mark_and_gap + text_width + self.px(26.0);
        }
        let top = self.px(104.0 + LEGEND_ROW * f64::from(row));
        Ok(self.area.clone().margin(top, self.px(14.0), self.px(18.0), self.px(26.0)))
    }

    /// A legend entry's mark, from `x` over `width` pixels.
    fn mark(&self, mark: Mark, (x, y): (i32, i32), width: i32) -> Drawn {
        let centre = (x + width / 2, y);
        match mark {
            Mark::Line(color) => {
                let style = color.stroke_width(self.px(2.4) as u32);
                self.area.draw(&PathElement::new(vec![(x, y), (x + width, y)], style)).map_err(text_of)
            }
            Mark::Dashes(color) => {
                let style = color.stroke_width(self.px(1.6) as u32);
                for part in 0..3 {
                    let from = x + width * part * 2 / 5;
                    let dash = PathElement::new(vec![(from, y), (from + width / 5, y)], style);
                    self.area.draw(&dash).map_err(text_of)?;
                }
                Ok(())
            }
            Mark::Dot(color, radius) => {
                self.area.draw(&Circle::new(centre, self.px(radius), color.filled())).map_err(text_of)
            }
            Mark::Cross(color, radius) => {
                let style = color.stroke_width(self.px(1.4) as u32);
                self.area.draw(&Cross::new(centre, self.px(radius), style)).map_err(text_of)
            }
            Mark::Star(color, radius) => {
                let points = |radius: f64| -> Vec<(i32, i32)> {
                    self.star(radius).into_iter().map(|(dx, dy)| (centre.0 + dx, centre.1 + dy)).collect()
                };
                self.area.draw(&Polygon::new(points(radius + 2.0), WHITE.filled())).map_err(text_of)?;
                self.area.draw(&Polygon::new(points(radius), color.filled())).map_err(text_of)
            }
        }
    }

    /// Corners of a five-pointed star around the origin, px.
    fn star(&self, radius: f64) -> Vec<(i32, i32)> {
        (0..10)
            .map(|corner| {
                let angle = std::f64::consts::PI * (f64::from(corner) / 5.0 - 0.5);
                let reach = if corner % 2 == 0 { radius } else { 0.45 * radius };
                (self.px(reach * angle.cos()), self.px(reach * angle.sin()))
            })
            .collect()
    }

    /// Axes and grid of a chart in `area`.
    pub(super) fn chart<'b>(
        &self,
        area: &'b DrawingArea<DB, Shift>,
        x: &Axis,
        y: &Axis,
    ) -> std::result::Result<Chart<'b, DB>, String> {
        let mut chart = ChartBuilder::on(area)
            .x_label_area_size(self.px(54.0))
            .y_label_area_size(self.px(72.0))
            .build_cartesian_2d(x.range.clone(), y.range.clone())
            .map_err(text_of)?;
        let (x_decimals, y_decimals) = (x.decimals(), y.decimals());
        let labels = self.font(13.5, &INK);
        let descriptions = self.font(15.5, &INK);
        let width = area.dim_in_pixel().0 as f64 / self.scale;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(self.px(1.0) as u32))
            .axis_style(GREY.stroke_width(self.px(1.0) as u32))
            .set_all_tick_mark_size(self.px(4.0))
            .x_labels((width / 90.0).max(3.0) as usize)
            .y_labels(9)
            .x_label_formatter(&|value| format!("{value:.x_decimals$}"))
            .y_label_formatter(&|value| format!("{value:.y_decimals$}"))
            .label_style(labels)
            .axis_desc_style(descriptions)
            .x_desc(&x.label)
            .y_desc(&y.label)
            .draw()
            .map_err(text_of)?;
        Ok(chart)
    }

    /// Axis and grid of a chart whose rows are named elsewhere.
    pub(super) fn mesh_without_rows(&self, chart: &mut Chart<'_, DB>, x: &Axis) -> Drawn {
        let decimals = x.decimals().max(1);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(self.px(1.0) as u32))
            .axis_style(GREY.stroke_width(self.px(1.0) as u32))
            .set_all_tick_mark_size(self.px(4.0))
            .x_labels(6)
            .x_label_formatter(&|value| format!("{value:.decimals$}"))
            .label_style(self.font(13.5, &INK))
            .axis_desc_style(self.font(15.5, &INK))
            .x_desc(&x.label)
            .draw()
            .map_err(text_of)
    }

    /// As [`Canvas::chart`], with the names of things at 0, 1, ... on the horizontal axis.
    pub(super) fn chart_of<'b>(
        &self,
        area: &'b DrawingArea<DB, Shift>,
        names: &[String],
        y: &Axis,
    ) -> std::result::Result<Chart<'b, DB>, String> {
        let mut chart = ChartBuilder::on(area)
            .x_label_area_size(self.px(40.0))
            .y_label_area_size(self.px(72.0))
            .build_cartesian_2d(-0.5..names.len() as f64 - 0.5, y.range.clone())
            .map_err(text_of)?;
        let decimals = y.decimals();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(self.px(1.0) as u32))
            .axis_style(GREY.stroke_width(self.px(1.0) as u32))
            .set_all_tick_mark_size(self.px(4.0))
            .x_labels(2 * names.len() + 1)
            .y_labels(9)
            .x_label_formatter(&|value| {
                // Ticks may lie between the names.
                let near = (value - value.round()).abs() < 1e-6 && value.round() >= 0.0;
                names.get(value.round().max(0.0) as usize).filter(|_| near).cloned().unwrap_or_default()
            })
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .label_style(self.font(13.5, &INK))
            .axis_desc_style(self.font(15.5, &INK))
            .y_desc(&y.label)
            .draw()
            .map_err(text_of)?;
        Ok(chart)
    }

    /// Marks at points of a chart.
    pub(super) fn points(&self, chart: &mut Chart<'_, DB>, mark: Mark, points: &[(f64, f64)]) -> Drawn {
        let points = points.iter().copied();
        match mark {
            Mark::Dot(color, radius) => {
                let dots = points.map(|point| Circle::new(point, self.px(radius), color.filled()));
                chart.draw_series(dots).map_err(text_of)?;
            }
            Mark::Cross(color, radius) => {
                let style = color.stroke_width(self.px(1.4) as u32);
                chart
                    .draw_series(points.map(|point| Cross::new(point, self.px(radius), style)))
                    .map_err(text_of)?;
            }
            Mark::Star(color, radius) => {
                // A white rim sets the star off from the points around it.
                for (radius, color) in [(radius + 2.5, WHITE), (radius, color)] {
                    let corners = self.star(radius);
                    let star =
                        |point| EmptyElement::at(point) + Polygon::new(corners.clone(), color.filled());
                    chart.draw_series(points.clone().map(star)).map_err(text_of)?;
                }
            }
            Mark::Line(color) => {
                let style = color.stroke_width(self.px(2.4) as u32);
                chart.draw_series(LineSeries::new(points, style)).map_err(text_of)?;
            }
            Mark::Dashes(color) => {
                let style = color.stroke_width(self.px(1.6) as u32);
                let dashes = DashedLineSeries::new(points, self.px(7.0) as u32, self.px(5.0) as u32, style);
                chart.draw_series(dashes).map_err(text_of)?;
            }
        }
        Ok(())
    }

    /// Vertical bars from `low` to `high` at `x`, clipped to the axis `y`.
    pub(super) fn bars(
        &self,
        chart: &mut Chart<'_, DB>,
        color: RGBAColor,
        y: &Axis,
        bars: impl Iterator<Item = (f64, f64, f64)>,
    ) -> Drawn {
        let style = color.stroke_width(self.px(1.0) as u32);
        let clip = |value: f64| value.clamp(y.range.start, y.range.end);
        let bars = bars.map(|(x, low, high)| PathElement::new(vec![(x, clip(low)), (x, clip(high))], style));
        chart.draw_series(bars).map_err(text_of)?;
        Ok(())
    }

    /// Horizontal bars from `low` to `high` at `y`, clipped to the axis `x`.
    pub(super) fn level_bars(
        &self,
        chart: &mut Chart<'_, DB>,
        color: RGBAColor,
        x: &Axis,
        bars: impl Iterator<Item = (f64, f64, f64)>,
    ) -> Drawn {
        let style = color.stroke_width(self.px(1.0) as u32);
        let clip = |value: f64| value.clamp(x.range.start, x.range.end);
        let bars = bars.map(|(y, low, high)| PathElement::new(vec![(clip(low), y), (clip(high), y)], style));
        chart.draw_series(bars).map_err(text_of)?;
        Ok(())
    }
}

/// How opaque one of `count` points is, so that crowds stay readable.
pub(super) fn opacity(count: usize) -> f64 {
    (8.0 / (count as f64).sqrt()).clamp(0.25, 0.8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A legend alone, and a line around the charts.
    struct Legend(Vec<String>);

    impl Figure for Legend {
        fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
            let legend: Vec<(Mark, String)> =
                self.0.iter().map(|text| (Mark::Dot(INK.mix(1.0), 5.0), text.clone())).collect();
            let body = canvas.head("Title", "explanation", &legend)?;
            let (width, height) = body.dim_in_pixel();
            let corners = [(0, 0), (width as i32 - 1, height as i32 - 1)];
            body.draw(&Rectangle::new(corners, INK.stroke_width(1))).map_err(text_of)
        }
    }

    /// Value of an attribute of an SVG element.
    fn attribute(element: &str, name: &str) -> f64 {
        let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    }

    #[test]
    fn a_long_legend_takes_more_rows_and_the_charts_make_room() {
        let layout = |count: usize| {
            let names: Vec<String> = (0..count).map(|i| format!("hypernetwork-{i:02}, mean")).collect();
            let folder = tempfile::tempdir().unwrap();
            let written = save(&Legend(names.clone()), &folder.path().join("legend")).unwrap();
            let svg = std::fs::read_to_string(&written[1]).unwrap();
            let place = |name: &String| {
                let (before, _) = svg.split_once(&format!("\n{name}\n")).unwrap();
                let element = &before[before.rfind("<text").unwrap()..];
                (attribute(element, "x"), attribute(element, "y"))
            };
            let places: Vec<(f64, f64)> = names.iter().map(place).collect();
            let rectangle = &svg[svg.rfind("<rect").unwrap()..];
            (places, attribute(rectangle, "y"), attribute(rectangle, "height"))
        };
        let (short, top, height) = layout(3);
        assert!(short.iter().all(|place| place.1 == short[0].1), "one row: {short:?}");
        let (long, lower_top, lower_height) = layout(12);
        // Their 21 letters take some 130 units.
        assert!(long.iter().all(|place| place.0 + 130.0 < SIZE.0), "{long:?}");
        let last = long.last().unwrap().1;
        assert!(
            last >= long[0].1 + 2.0 * LEGEND_ROW && last < lower_top,
            "{long:?}, charts from {lower_top}"
        );
        let down = lower_top - top;
        assert!(
            down == last - long[0].1 && lower_height == height - down,
            "{down}, {height}, {lower_height}"
        );
    }

    #[test]
    fn only_what_lies_far_from_many_is_outside_the_crowd() {
        let values = || (0..30).map(|i| 80.0 + f64::from(i) / 10.0);
        let near = crowd(values().chain([17.0, 74.0, 90.0]));
        assert!(!near.contains(&17.0) && !near.contains(&90.0));
        assert!(near.contains(&75.6) && values().all(|value| near.contains(&value)));
        assert!(crowd(values().take(18).chain([17.0])).contains(&17.0), "too few to tell");
        assert!(
            crowd(std::iter::repeat_n(80.0, 40).chain([17.0])).contains(&17.0),
            "no spread to measure by"
        );
    }
}
