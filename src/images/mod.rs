//! Image data sets: loading, splits, batches, augmentation and fixed noise banks.
//!
//! In: CIFAR-10 in its binary form, Fashion-MNIST (or another set) as idx files, or folders of PNG and JPEG
//! files; a slice of Fashion-MNIST is part of the program. Out: normalised batches `[N, 3, H, W] f32`.
//!
//! Geometry of every batch: grey images are replicated to three channels, and images smaller than 32x32 are
//! padded with black (pixel 0) to 32x32, in the middle, so that one network serves every small-image set.
//! Pixels are scaled to `[0, 1]`; augmentation and noise act there; then each channel is normalised,
//! `(x - mean) / sd`, with constants of the set (CIFAR-10's are those of Knyazev et al. 2021, arXiv 2110.13100).
//! The padding is black before normalisation, as in the usual random crop.

mod batches;
mod cifar;
mod contact_sheet;
mod dataset;
mod download;
mod fashion;
mod fetch;
mod few_shot;
mod folder;
mod idx;
mod noise;
mod set;
mod stream;

pub use batches::{Augmentation, BatchState, TrainingBatches};
pub use contact_sheet::contact_sheet;
pub use dataset::{DataSet, OpenOptions, open, open_with};
pub use download::Download;
pub use fashion::{bundled, write_slice};
pub use fetch::{RemoteFile, RemoteSet, Verify, copy_set, default_root, fetch_set, remote_set};
pub use noise::NoiseBank;
pub use set::{ImageSet, Normalisation, PreparedImages, SMALLEST_SIDE};
