//! Results: frames, leaderboards and plots.
//!
//! In: the trials of a study. Out: a polars [`frame`] with a row for every trial, failed ones included;
//! [`Leaderboard`]s as text, CSV and Parquet; plots as PNG and SVG; drawings of cells; one HTML page that holds all
//! of it ([`write_report`]). Files are written whole or not at all.

mod anytime;
mod canvas;
mod cells;
mod evaluation;
mod fidelities;
mod files;
mod frame;
mod html;
mod leaderboard;
mod measure;
mod methods;
mod network_training;
mod noise;
mod pareto;
mod plots;
mod progress;
mod properties;
mod ranking;
mod reliability;
pub(crate) mod table;
mod training;

pub use anytime::{Run, anytime, common_objective, write_anytime};
pub use cells::genotype_svg;
pub use evaluation::evaluation_plot;
pub use fidelities::{fidelity_scores, study_reliability};
pub use files::{write_csv, write_parquet};
pub use frame::{frame, trials_frame};
pub use html::{ReportedStudy, obstacles_to_control, report_page, write_report};
pub use leaderboard::{Leaderboard, SortKey};
pub use methods::{
    AgreementOptions, MethodRow, method_rows, methods_frame, methods_plot, methods_table, random_agreement,
    random_control,
};
pub use network_training::network_training_plot;
pub use pareto::{fronts, pareto_front};
pub use plots::{Plots, write_plots, write_results};
pub use properties::{properties_frame, properties_plot, properties_text};
pub use ranking::{Interval, Ranking, Scored};
pub use reliability::{FidelityScores, ReliabilityRow, reliability, reliability_frame, reliability_table};
pub use training::training_plot;

#[cfg(test)]
mod tests;
