//! Drawings of cells as SVG: states as boxes, operations as labels on the edges, the concatenation last.
//!
//! In: a genotype. Out: SVG text without any outside resource, light and dark. States that reach the concatenation
//! are drawn full, others faint, and `none` edges dashed.

mod layout;

use crate::space::{Edge, Genotype, Op};
use layout::{ARROW, BOX, LABEL, Layout, Link, Place, Role};
use std::fmt::Write;

/// Colours of a drawing that stands alone; in a page they follow the page's.
const STYLE: &str = include_str!("cells/cells.css");

/// The normal and the reduction cell below each other, as a complete SVG file named `title`.
pub fn genotype_svg(genotype: &Genotype, title: &str) -> String {
    const HEAD: f64 = 34.0;
    let cells = [
        ("Normal cell", Layout::new(&genotype.normal, &genotype.normal_concat)),
        ("Reduction cell", Layout::new(&genotype.reduce, &genotype.reduce_concat)),
    ];
    let width = cells.iter().map(|(_, cell)| cell.size.0).fold(0.0, f64::max);
    let mut body = String::new();
    let mut top = 0.0;
    for (name, cell) in &cells {
        let _ = write!(body, "<text class=\"cell-head\" x=\"12\" y=\"{:.1}\">{name}</text>", top + 22.0);
        let _ = writeln!(body, "<g transform=\"translate(0 {:.1})\">{}</g>", top + HEAD, drawn(cell));
        top += HEAD + cell.size.1;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"cell\" role=\"img\" width=\"{width:.0}\" \
         height=\"{top:.0}\" viewBox=\"0 0 {width:.0} {top:.0}\">\n<title>{}</title>\n<desc>normal cell: {}; \
         reduction cell: {}</desc>\n<style>\n{STYLE}</style>\n<rect class=\"cell-page\" width=\"100%\" \
         height=\"100%\"/>\n{body}</svg>\n",
        escaped(title),
        in_words(&genotype.normal, &genotype.normal_concat),
        in_words(&genotype.reduce, &genotype.reduce_concat),
    )
}

/// One cell as an SVG element for a page that has the drawing's style.
pub(super) fn cell_svg(edges: &[Edge], concat: &[usize], title: &str) -> String {
    let cell = Layout::new(edges, concat);
    let (width, height) = cell.size;
    format!(
        "<svg class=\"cell\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
         {height:.0}\"><title>{}</title><desc>{}</desc>{}</svg>",
        escaped(title),
        in_words(edges, concat),
        drawn(&cell)
    )
}

/// The style of [`cell_svg`].
pub(super) const fn cell_style() -> &'static str {
    STYLE
}

/// `2 = conv_3x3(0) + cse(1); ... output = 2, 3`.
pub(super) fn in_words(edges: &[Edge], concat: &[usize]) -> String {
    let mut text = String::new();
    for (step, pair) in edges.chunks(2).enumerate() {
        let terms: Vec<String> = pair.iter().map(|Edge(op, input)| format!("{op}({input})")).collect();
        let _ = write!(text, "{} = {}; ", step + 2, terms.join(" + "));
    }
    let states: Vec<String> = concat.iter().map(usize::to_string).collect();
    text + "output = " + &states.join(", ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Families of operations have one colour each; the label tells them apart without it.
const fn family(op: Op) -> &'static str {
    match op {
        Op::None => "none",
        Op::SkipConnect => "skip",
        Op::MaxPool3x3 | Op::AvgPool3x3 => "pool",
        Op::SepConv3x3 | Op::SepConv5x5 | Op::DilConv3x3 | Op::DilConv5x5 => "separable",
        Op::Conv1x1 | Op::Conv7x1_1x7 | Op::Conv3x3 | Op::Conv5x5 | Op::Conv7x7 => "dense",
        Op::Msa | Op::Cse => "attention",
    }
}

fn drawn(cell: &Layout) -> String {
    let alive = cell.alive();
    let mut curves = String::new();
    let mut labels = String::new();
    for link in &cell.links {
        let (from, to) = (&cell.places[link.from], &cell.places[link.to]);
        let live = alive[link.to] && link.op != Some(Op::None);
        let class = if live { "cell-link" } else { "cell-link cell-faint" };
        let (x0, y0, x1, y1) = (right(from), from.y, to.x, to.y + link.dy);
        let bend = (x1 - x0) / 2.0;
        let _ = write!(
            curves,
            "<path class=\"{class}\" d=\"M{x0:.1} {y0:.1}C{:.1} {y0:.1} {:.1} {y1:.1} {x1:.1} {y1:.1}\"/>",
            x0 + bend,
            x1 - bend
        );
        match (to.role, link.op) {
            (Role::State(_), Some(op)) => labels += &label(to, link, op, live),
            (Role::Output, _) => curves += &arrowhead(x1, y1, class),
            _ => {}
        }
    }
    let mut boxes = String::new();
    for (place, &live) in cell.places.iter().zip(&alive) {
        boxes += &match place.role {
            Role::State(state) => state_box(place, state, live),
            Role::Output => output_box(place),
            Role::Lane => format!(
                "<path class=\"{}\" d=\"M{:.1} {y:.1}H{:.1}\"/>",
                if live { "cell-link" } else { "cell-link cell-faint" },
                place.x,
                right(place),
                y = place.y
            ),
        };
    }
    curves + &boxes + &labels
}

/// Where links leave a box.
fn right(place: &Place) -> f64 {
    place.x + place.width()
}

/// The label of an operation, and the arrow from it to its state.
fn label(to: &Place, link: &Link, op: Op, live: bool) -> String {
    let y = to.y + link.dy;
    let state_x = right(to) - BOX.0;
    // Arrows end on the box, which is lower than its two labels.
    let end_y = to.y + link.dy.clamp(-BOX.1 / 4.0, BOX.1 / 4.0);
    let class = if live { "cell-link" } else { "cell-link cell-faint" };
    let faint = if live { "" } else { " cell-faint" };
    let start = to.x + LABEL.0;
    format!(
        "<g class=\"cell-op cell-{}{faint}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\" rx=\"11\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{op}</text></g><path class=\"{class}\" d=\"M{start:.1} {y:.1}L{:.1} \
         {end_y:.1}\"/>{}",
        family(op),
        to.x,
        y - LABEL.1 / 2.0,
        LABEL.0,
        LABEL.1,
        to.x + LABEL.0 / 2.0,
        y + 4.0,
        start + ARROW - 5.0,
        arrowhead(state_x, end_y, class)
    )
}

fn arrowhead(x: f64, y: f64, class: &str) -> String {
    format!("<path class=\"{class} cell-head-of-arrow\" d=\"M{x:.1} {y:.1}l-7 -3.5v7z\"/>")
}

fn state_box(place: &Place, state: usize, live: bool) -> String {
    let text = match state {
        0 => "0: k−2".to_string(),
        1 => "1: k−1".to_string(),
        _ => state.to_string(),
    };
    let class = match (state < 2, live) {
        (true, true) => "cell-state cell-input",
        (true, false) => "cell-state cell-input cell-faint",
        (false, true) => "cell-state",
        (false, false) => "cell-state cell-faint",
    };
    boxed(class, right(place) - BOX.0, place.y, BOX.1, &text)
}

fn output_box(place: &Place) -> String {
    let height = place.height().max(BOX.1);
    boxed("cell-state cell-output", place.x, place.y, height, "concat")
}

fn boxed(class: &str, x: f64, y: f64, height: f64, text: &str) -> String {
    format!(
        "<g class=\"{class}\"><rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{height:.1}\" rx=\"4\"/><text \
         x=\"{:.1}\" y=\"{:.1}\">{text}</text></g>",
        y - height / 2.0,
        BOX.0,
        x + BOX.0 / 2.0,
        y + 4.0
    )
}

#[cfg(test)]
mod tests;
