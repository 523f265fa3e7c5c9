//! foretell is a neural architecture search engine that trains no candidate: a graph hypernetwork (GHN-2,
//! arXiv 2110.13100) predicts all weights of a candidate network in one forward pass, the candidate runs on
//! real images, and its accuracy, robustness to noise and speed are scored.
//!
//! The flow: search space -> genotype -> network IR -> graph -> GHN-2 -> weights -> executor on images ->
//! scores -> search -> trials -> frames -> leaderboard and plots. The modules below stand in this order; each
//! imports only from those above it. [`pipeline`] and [`cli`] alone join everything; start reading at
//! [`pipeline`].

pub mod error;

pub mod files;

pub mod space;

pub mod network;

pub mod deepnets;

pub mod graph;

pub mod images;

pub mod kernels;

pub mod device;

pub mod ghn;

pub mod checkpoint;

pub mod execute;

pub mod score;

pub mod training;

pub mod evaluation;

pub mod predictor;

pub mod search;

pub mod study;

pub mod truth;

pub mod report;

pub mod export;

pub mod pipeline;

pub mod cli;

pub use error::{Error, Result};
