//! Training of one network by stochastic gradient descent on real images, with the DARTS recipe.
//!
//! In: an architecture, images, initial weights (random, predicted, or from a file). Out: a folder with the trained
//! weights, the curve of the training, and how the network does on test images. Norm layers use the statistics of
//! the batch in training and in evaluation, as everywhere in this program; running statistics are kept beside them
//! for other programs. The auxiliary head of DARTS is left out.

mod config;
mod drop_path;
mod fit;
mod initial;
mod orthogonal;
mod outcome;
mod running;
mod sgd;
mod state;
mod trainer;

pub use config::{NetworkTraining, TrainOn};
pub use fit::{NetworkObserver, fit_network};
pub use initial::{RandomInit, random_weights, weights_from_file};
pub use orthogonal::orthogonalize;
pub use outcome::Outcome;
pub use sgd::{Sgd, SgdConfig};
pub use trainer::{EpochReport, NetworkTrainer};
