//! The final test of a trained network: clean and noisy accuracy, per class, and the confusion matrix.

use super::trainer::NetworkTrainer;
use crate::Result;
use crate::execute::NativeExecutor;
use crate::images::{ImageSet, NoiseBank};
use crate::score::{self, Accuracy, Confusion, NoiseScore};

/// How a trained network did on images that no choice was made on.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// On clean images.
    pub clean: Accuracy,
    /// At each noise level.
    pub noise: Vec<NoiseScore>,
    /// Which class was taken for which, on clean images.
    pub confusion: Confusion,
}

impl NetworkTrainer {
    /// Tests the network as it is now on the first `count` images of `set`, clean and with noise of each deviation in
    /// `noise`; norm layers use the statistics of the batch, and a last batch that is not full is left out.
    ///
    /// # Errors
    /// If a deviation is out of range or a logit is not finite.
    pub fn test(&self, set: &ImageSet, count: usize, noise: &[f64], noise_seed: u64) -> Result<Outcome> {
        let images = set.prepare(count)?;
        let batch = self.config.eval_batch.min(images.len());
        let mut executor = NativeExecutor::<f32>::new(&self.network, batch)?;
        let (clean, confusion) =
            score::confusion(&mut executor, &self.params, &images, batch, set.classes())?;
        let mut scores = Vec::with_capacity(noise.len());
        for level in noise {
            // One level at a time: a bank of a whole test set takes 120 MB a level.
            let bank = NoiseBank::new(set, count, &[*level], noise_seed)?;
            scores.extend(score::noise_accuracy(&mut executor, &self.params, &bank, batch)?);
        }
        Ok(Outcome { clean, noise: scores, confusion })
    }
}
