//! Evaluation of hypernetworks on architectures that they were never trained on: the table of arXiv 2110.13100
//! (mean and best accuracy on the test split, wide, deep, dense and without norm, ResNet-50, a vision transformer).
//!
//! In: groups of architectures, images, sources of weights. Out: a row for every architecture and source, appended
//! to a file as it is measured, and the table with confidence intervals that follows from the rows.

mod groups;
mod measure;
mod rows;
mod table;

pub use groups::Group;
pub use measure::{Evaluation, EvaluationPlan, Progress, Source, Weights};
pub use rows::{CurvePoint, Row, read_curves, read_rows};
pub use table::{Line, table, table_csv};
