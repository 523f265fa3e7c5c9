//! Accuracy, its standard error and the mean cross entropy on clean and on noisy images.
//!
//! In: weights `[n_params]` and images `[N, 3, H, W]`, taken in batches because norm layers use the statistics of
//! their batch (64 images in the reference). A last, smaller batch is left out, so that every image meets the
//! same kind of batch; only when there are fewer images than one batch holds do all of them form one batch.

use super::scores::{NoiseScore, Scores};
use crate::execute::{Executor, Mode};
use crate::images::{NoiseBank, PreparedImages};
use crate::{Error, Result};

/// How a network did on some images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Images classified correctly; of equal logits the class of the smallest number counts.
    pub correct: u64,
    /// Images classified.
    pub images: u64,
    /// Mean cross entropy, nats.
    pub loss: f64,
}

impl Accuracy {
    /// Share of images classified correctly, 0..1.
    pub fn share(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }

    /// Binomial standard error of the share, `sqrt(p (1 - p) / n)`.
    pub fn standard_error(&self) -> f64 {
        let share = self.share();
        (share * (1.0 - share) / self.images as f64).sqrt()
    }
}

impl Scores {
    /// Fills in accuracy, standard error, loss and the number of images.
    pub fn set_accuracy(&mut self, measured: &Accuracy) {
        self.accuracy = Some(measured.share());
        self.accuracy_se = Some(measured.standard_error());
        self.loss = Some(measured.loss);
        self.images = Some(measured.images);
    }

    /// Fills in the accuracies under noise and their mean, the robustness; without levels there is none.
    pub fn set_noise(&mut self, noise: Vec<NoiseScore>) {
        let sum: f64 = noise.iter().map(|level| level.accuracy).sum();
        self.robustness = (!noise.is_empty()).then(|| sum / noise.len() as f64);
        self.noise = noise;
    }
}

/// Classifies the images in batches of `batch`.
///
/// # Errors
/// [`Error::NonFinite`] if a logit is not a finite number, [`Error::Tensor`] if there are not `[batch, classes]`.
pub fn accuracy(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    batch: usize,
) -> Result<Accuracy> {
    classify(executor, params, images, batch, |_, _| {})
}

/// As [`accuracy`]; calls `visit(label, predicted class)` for every image.
pub(super) fn classify(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    batch: usize,
    mut visit: impl FnMut(usize, usize),
) -> Result<Accuracy> {
    classify_until(executor, params, images, batch, |rows| {
        rows.iter().for_each(|&(label, predicted)| visit(label, predicted));
        false
    })
}

/// As [`accuracy`]; calls `stop` with the labels and predicted classes of every batch, and ends where it says so.
pub(super) fn classify_until(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    batch: usize,
    mut stop: impl FnMut(&[(usize, usize)]) -> bool,
) -> Result<Accuracy> {
    let classes = images.classes();
    let mut tally = Tally::default();
    let mut rows = Vec::with_capacity(batch.min(images.len()));
    for (pixels, labels) in images.batches(batch) {
        let logits = executor.logits(params, pixels, Mode::Evaluate)?;
        rows.clear();
        tally.add(&logits, labels, classes, |label, predicted| rows.push((label, predicted)))?;
        if stop(&rows) {
            break;
        }
    }
    Ok(tally.accuracy())
}

/// Images counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    correct: u64,
    images: u64,
    loss: f64,
}

impl Tally {
    /// Counts images with logits `[N, classes]`; calls `visit(label, predicted class)` for each.
    pub(super) fn add(
        &mut self,
        logits: &[f32],
        labels: &[u8],
        classes: usize,
        mut visit: impl FnMut(usize, usize),
    ) -> Result<()> {
        if logits.len() != labels.len() * classes {
            return Err(Error::Tensor(format!(
                "{} logits for {} images of {classes} classes",
                logits.len(),
                labels.len()
            )));
        }
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            if let Some(logit) = row.iter().find(|logit| !logit.is_finite()) {
                return Err(Error::NonFinite(format!("image {} has the logit {logit}", self.images)));
            }
            let mut best = 0;
            for class in 1..classes {
                if row[class] > row[best] {
                    best = class;
                }
            }
            let largest = row[best] as f64;
            let sum: f64 = row.iter().map(|&logit| (logit as f64 - largest).exp()).sum();
            self.loss += largest + sum.ln() - row[label as usize] as f64;
            self.correct += (best == label as usize) as u64;
            self.images += 1;
            visit(usize::from(label), best);
        }
        Ok(())
    }

    /// What they come to.
    pub(super) fn accuracy(self) -> Accuracy {
        Accuracy { correct: self.correct, images: self.images, loss: self.loss / self.images as f64 }
    }
}

/// Accuracy at each level of a noise bank, in the bank's order; batches as in [`accuracy`].
pub fn noise_accuracy(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    bank: &NoiseBank,
    batch: usize,
) -> Result<Vec<NoiseScore>> {
    bank.levels()
        .iter()
        .map(|(sd, images)| {
            let measured = accuracy(executor, params, images, batch)?;
            Ok(NoiseScore { sd: *sd, accuracy: measured.share(), accuracy_se: measured.standard_error() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::FirstPixels;
    use super::*;
    use crate::images::{ImageSet, Normalisation};

    /// One-pixel "images" of 3 classes: three numbers, which the fake network returns as logits.
    fn prepared(logits: &[[f32; 3]], labels: &[u8]) -> PreparedImages {
        PreparedImages::new(logits.concat(), labels.to_vec(), 3).unwrap()
    }

    #[test]
    fn accuracy_error_and_loss_are_exact() {
        let images = prepared(
            &[[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 1.0, 0.0], [9.0, 9.0, 9.0]],
            &[0, 1, 1, 0, 2],
        );
        let measured = accuracy(&mut FirstPixels::new(3, 3), &[], &images, 2).unwrap();
        assert_eq!((measured.correct, measured.images), (3, 4), "the fifth image fills no batch");
        assert_eq!(measured.share(), 0.75);
        assert!((measured.standard_error() - (0.75f64 * 0.25 / 4.0).sqrt()).abs() < 1e-15);
        let e = std::f64::consts::E;
        let expected = ((2.0 + e * e).ln() - 2.0)
            + (2.0 + e).ln()
            + ((2.0 + e.powi(3)).ln() - 3.0)
            + ((1.0 + 2.0 * e).ln() - 1.0);
        assert!((measured.loss - expected / 4.0).abs() < 1e-12);
        let mut scores = Scores::default();
        scores.set_accuracy(&measured);
        assert_eq!((scores.accuracy, scores.images), (Some(0.75), Some(4)));
        assert_eq!((scores.accuracy_se, scores.loss), (Some(measured.standard_error()), Some(measured.loss)));
    }

    #[test]
    fn fewer_images_than_a_batch_form_one_batch() {
        let images = prepared(&[[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]], &[0, 1]);
        let mut executor = FirstPixels::new(3, 3);
        assert_eq!(accuracy(&mut executor, &[], &images, 64).unwrap().images, 2);
        assert_eq!(executor.batches, [2]);
    }

    #[test]
    fn large_logits_have_a_finite_loss() {
        let images = prepared(&[[3e38, -3e38, 0.0]], &[0]);
        assert_eq!(accuracy(&mut FirstPixels::new(3, 3), &[], &images, 1).unwrap().loss, 0.0);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let images = prepared(&[[0.0; 3], [0.0, bad, 0.0]], &[0, 0]);
            let error = accuracy(&mut FirstPixels::new(3, 3), &[], &images, 1).unwrap_err();
            assert!(matches!(&error, Error::NonFinite(reason) if reason.contains("image 1")), "{error}");
        }
    }

    #[test]
    fn a_wrong_number_of_logits_is_an_error() {
        let images = prepared(&[[0.0; 3]], &[0]);
        let error = accuracy(&mut FirstPixels::new(3, 2), &[], &images, 1).unwrap_err().to_string();
        assert!(error.contains("2 logits for 1 images of 3 classes"), "{error}");
    }

    #[test]
    fn noise_lowers_the_accuracy_of_a_network_that_looks_at_pixels() {
        // Class 0 is black and class 1 white in the corner; the fake network compares its pixel with a grey one.
        let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        let pixels: Vec<u8> = (0..200).flat_map(|i| [100, if i % 2 == 0 { 90 } else { 110 }]).collect();
        let pixels = pixels.chunks(2).flat_map(|pair| [pair, &[0; 1022]].concat()).collect();
        let labels = (0..200).map(|i| i % 2).collect();
        let classes = vec!["a".to_string(), "b".to_string()];
        let set = ImageSet::new("set", classes, [1, 32, 32], pixels, labels, plain).unwrap();
        let bank = NoiseBank::new(&set, 200, &[0.0, 0.1, 10.0], 1).unwrap();
        let noise = noise_accuracy(&mut FirstPixels::new(3072, 2), &[], &bank, 50).unwrap();
        assert_eq!(noise.iter().map(|level| level.sd).collect::<Vec<_>>(), [0.0, 0.1, 10.0]);
        assert_eq!((noise[0].accuracy, noise[0].accuracy_se), (1.0, 0.0));
        assert!(noise[1].accuracy < 0.8 && noise[1].accuracy_se > 0.02, "{noise:?}");
        let mut scores = Scores::default();
        scores.set_noise(noise.clone());
        let mean = (1.0 + noise[1].accuracy + noise[2].accuracy) / 3.0;
        assert!((scores.robustness.unwrap() - mean).abs() < 1e-12);
        scores.set_noise(Vec::new());
        assert_eq!(scores.robustness, None);
    }
}
