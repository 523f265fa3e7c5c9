//! Accuracy on a device: images lie there in batches, weights come as a tensor, logits leave it once for all images.
//!
//! In: a candle executor, weights `[n_params]` and [`ResidentImages`] on its device. Out: what
//! [`accuracy`](super::accuracy) gives, with the rounding of the device and of its precision.

use super::accuracy::{Accuracy, Tally};
use super::race::{Bar, Looks, Raced};
use crate::execute::{CandleExecutor, Mode, Precision};
use crate::images::PreparedImages;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Images on a device, in batches.
#[derive(Clone, Debug)]
pub struct ResidentImages {
    batches: Vec<Tensor>,
    labels: Vec<u8>,
    classes: usize,
    precision: Precision,
}

impl ResidentImages {
    /// `images` of `shape` in batches of `batch`, as [`PreparedImages::batches`] makes them.
    ///
    /// # Errors
    /// If the images have another shape, or the device fails.
    pub fn new(
        images: &PreparedImages,
        shape: [usize; 3],
        batch: usize,
        device: &Device,
        precision: Precision,
    ) -> Result<ResidentImages> {
        let [c, h, w] = shape;
        if images.image_len() != c * h * w {
            let found = images.image_len();
            return Err(Error::Tensor(format!("images of {shape:?} expected, found {found} numbers each")));
        }
        let (mut batches, mut labels) = (Vec::new(), Vec::new());
        for (pixels, of_batch) in images.batches(batch) {
            let tensor = Tensor::from_slice(pixels, (of_batch.len(), c, h, w), device)?;
            batches.push(tensor.to_dtype(precision.dtype())?);
            labels.extend_from_slice(of_batch);
        }
        Ok(ResidentImages { batches, labels, classes: images.classes(), precision })
    }

    /// Memory that the images take on the device.
    pub fn bytes(&self) -> usize {
        let size = self.precision.dtype().size_in_bytes();
        self.batches.iter().map(|batch| batch.elem_count() * size).sum()
    }

    /// Labels of the images in the batches.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Logits `[N, classes]` of all images with `params [n_params]`, row by row. The host waits once, at the end.
    ///
    /// # Errors
    /// If the network does not fit, or the device fails.
    pub fn logits(&self, executor: &CandleExecutor, params: &Tensor) -> Result<Vec<f32>> {
        let params = params.detach().to_dtype(self.precision.dtype())?;
        let mut logits = Vec::with_capacity(self.batches.len());
        for images in &self.batches {
            logits.push(executor.forward(&params, images, Mode::Evaluate)?.to_dtype(DType::F32)?);
        }
        let logits = Tensor::cat(&logits, 0)?;
        if logits.dims() != [self.labels.len(), self.classes] {
            let (found, n) = (logits.dims(), self.labels.len());
            return Err(Error::Tensor(format!(
                "logits {found:?} for {n} images of {} classes",
                self.classes
            )));
        }
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Classifies all images.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a logit is not a finite number, and those of [`ResidentImages::logits`].
    pub fn accuracy(&self, executor: &CandleExecutor, params: &Tensor) -> Result<Accuracy> {
        self.accuracy_of(&self.logits(executor, params)?)
    }

    /// As [`ResidentImages::accuracy`], of logits that are there.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a logit is not a finite number.
    pub fn accuracy_of(&self, logits: &[f32]) -> Result<Accuracy> {
        let mut tally = Tally::default();
        tally.add(logits, &self.labels, self.classes, |_, _| {})?;
        Ok(tally.accuracy())
    }

    /// As [`race`](super::race) in batches of `batch`, of logits that are there: the same images count.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a logit is not a finite number.
    pub fn race(&self, logits: &[f32], batch: usize, bar: Option<&Bar>) -> Result<Raced> {
        let batch = batch.clamp(1, self.labels.len());
        let mut looks = Looks::new(self.labels.len(), batch, bar);
        let mut tally = Tally::default();
        let mut rows = Vec::with_capacity(batch);
        for (logits, labels) in logits.chunks(batch * self.classes).zip(self.labels.chunks(batch)) {
            rows.clear();
            tally.add(logits, labels, self.classes, |label, predicted| rows.push((label, predicted)))?;
            if looks.see(&rows) {
                break;
            }
        }
        Ok(looks.raced(tally.accuracy()))
    }
}
