//! Training: losses, optimisers, schedules, and fitting a graph hypernetwork on meta-batches of architectures.

mod adam;
mod average;
mod config;
mod draw;
mod fit;
mod loss;
mod metrics;
mod schedule;
mod state;
mod trainer;

pub use adam::{Adam, AdamConfig, Gradients, collect_gradients, global_norm};
pub use config::{ArchitecturesConfig, EvaluationConfig, ImagesConfig, SpaceShare, TrainConfig};
pub use draw::{ArchitectureSource, Candidate};
pub use fit::{Ending, Observer, fit_ghn};
pub use loss::{attach_gradient, network_loss};
pub use metrics::Metrics;
pub use schedule::Schedule;
pub use trainer::{HeldOutReport, StepReport, Trainer};
