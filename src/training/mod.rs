//! Training: losses, optimisers, schedules; fitting a graph hypernetwork on meta-batches of architectures, and one
//! network on images.

mod adam;
mod average;
mod config;
mod draw;
mod fit;
mod loss;
mod metrics;
mod network;
mod resident;
mod schedule;
mod state;
mod trainer;

pub use adam::{Adam, AdamConfig, Gradients, collect_gradients, global_norm};
pub use config::{ArchitecturesConfig, EvaluationConfig, ImagesConfig, SpaceShare, TrainConfig};
pub use draw::{ArchitectureSource, Candidate};
pub use fit::{Ending, Observer, fit_ghn, fit_ghn_on};
pub use loss::{attach_gradient, network_loss};
pub use metrics::Metrics;
pub use network::{
    EpochReport, NetworkObserver, NetworkTrainer, NetworkTraining, Outcome, RandomInit, Sgd, SgdConfig,
    TrainOn, fit_network, orthogonalize, random_weights, weights_from_file,
};
pub use schedule::Schedule;
pub(crate) use state::first_difference;
pub use trainer::{HeldOutReport, StepReport, Trainer};
