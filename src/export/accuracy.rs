//! What accuracy a network has with the statistics of its batch, as in the search, and with stored ones.

use super::frozen::freeze;
use super::statistics::{Statistics, batch_norms};
use crate::Result;
use crate::execute::NativeExecutor;
use crate::images::PreparedImages;
use crate::network::Network;
use crate::score::{self, Accuracy};
use serde_json::{Value, json};

/// Images that accuracies are measured on.
pub struct Split<'a> {
    /// What they are called, e.g. `validation`.
    pub name: &'a str,
    /// The images.
    pub images: PreparedImages,
}

/// Accuracies on the same images.
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracies {
    /// What the images are called.
    pub split: String,
    /// Images of a batch whose statistics were used.
    pub batch: usize,
    /// Norm layers use the statistics of the batch.
    pub with_batch: Accuracy,
    /// Batch norms use the stored statistics: every image by itself.
    pub with_stored: Accuracy,
}

impl Accuracies {
    /// The figures as they stand in the metadata of exported files.
    pub fn to_json(&self) -> Value {
        let figure = |accuracy: &Accuracy| {
            json!({
                "accuracy": accuracy.share(),
                "standard_error": accuracy.standard_error(),
                "cross_entropy": accuracy.loss,
            })
        };
        json!({
            "images": self.with_stored.images,
            "split": self.split,
            "batch_statistics": figure(&self.with_batch),
            "stored_statistics": figure(&self.with_stored),
        })
    }
}

/// Measures both accuracies on each of the splits, in batches of `batch`; a last, smaller batch is left out.
///
/// # Errors
/// A logit is not finite, or something does not fit the network.
pub fn measure(
    network: &Network,
    params: &[f32],
    statistics: &Statistics,
    splits: &[Split<'_>],
    batch: usize,
) -> Result<Vec<Accuracies>> {
    let frozen = match batch_norms(network).is_empty() {
        true => None,
        false => Some(freeze(network, params, statistics)?),
    };
    let mut measured = Vec::with_capacity(splits.len());
    for split in splits {
        let batch = batch.clamp(1, split.images.len());
        let mut executor = NativeExecutor::<f32>::new(network, batch)?;
        let with_batch = score::accuracy(&mut executor, params, &split.images, batch)?;
        let with_stored = match &frozen {
            None => with_batch,
            Some((network, params)) => {
                let mut executor = NativeExecutor::<f32>::new(network, batch)?;
                score::accuracy(&mut executor, params, &split.images, batch)?
            }
        };
        measured.push(Accuracies { split: split.name.to_string(), batch, with_batch, with_stored });
    }
    Ok(measured)
}
