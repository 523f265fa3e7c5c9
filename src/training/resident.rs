//! A hypernetwork's training on a device: losses and accuracies of the networks whose weights it predicts.
//!
//! In: predicted parameters on the device, images, labels. Out: the mean loss, differentiable by the parameters. The
//! networks run one after the other, so that the activations of one alone are kept; nothing waits for the device.

use super::draw::Candidate;
use super::trainer::count_right;
use crate::Result;
use crate::execute::{CandleExecutor, Mode, Precision};
use crate::ghn::{BatchPrediction, Ghn};
use crate::images::PreparedImages;
use crate::network::Network;
use crate::score::ResidentImages;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// What stays on the device from step to step.
pub(super) struct Resident {
    device: Device,
    validation: ResidentImages,
}

impl Resident {
    pub fn new(
        device: &Device,
        validation: &PreparedImages,
        shape: [usize; 3],
        batch: usize,
    ) -> Result<Resident> {
        let validation = ResidentImages::new(validation, shape, batch, device, Precision::F32)?;
        Ok(Resident { device: device.clone(), validation })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Share of validation images that a held-out architecture classifies correctly.
    pub fn accuracy(&self, ghn: &Ghn, candidate: &Candidate) -> Result<f64> {
        let params = ghn.predict_batch(&[(&candidate.network, &candidate.graph)])?.params;
        let executor = CandleExecutor::new(Arc::new(candidate.network.clone()), self.device.clone());
        let logits = self.validation.logits(&executor, &params)?;
        let labels = self.validation.labels();
        Ok(count_right(&logits, labels) as f64 / labels.len() as f64)
    }
}

/// A batch on the device: images `[N, C, H, W]`, labels `[N]`.
pub(super) fn images_and_labels(
    images: &[f32],
    labels: &[u8],
    [c, h, w]: [usize; 3],
    device: &Device,
) -> Result<[Tensor; 2]> {
    let images = Tensor::from_slice(images, (labels.len(), c, h, w), device)?;
    let labels: Vec<u32> = labels.iter().map(|&label| u32::from(label)).collect();
    Ok([images, Tensor::new(labels, device)?])
}

/// Mean cross entropy of `networks` (each with the seed of its dropout) with their predicted parameters,
/// differentiable by these; each network's gradient is first shortened to `limit`.
pub(super) fn mean_loss(
    device: &Device,
    networks: &[(&Network, u64)],
    prediction: &BatchPrediction,
    [images, labels]: &[Tensor; 2],
    limit: Option<f64>,
) -> Result<Tensor> {
    let params = prediction.params.detach();
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for (&(network, dropout_seed), range) in networks.iter().zip(&prediction.ranges) {
        let executor = CandleExecutor::new(Arc::new(network.clone()), device.clone());
        let own = params.narrow(0, range.start, range.len())?;
        let mode = Mode::Train { dropout_seed };
        let [loss, gradient] = executor.loss_with_gradient(&own, images, labels, mode)?;
        losses.push(loss);
        gradients.push(match limit {
            Some(limit) => shortened(&gradient, limit)?,
            None => gradient,
        });
    }
    let count = networks.len() as f64;
    let gradient = (Tensor::cat(&gradients, 0)? / count)?;
    let loss = (Tensor::stack(&losses, 0)?.sum_all()? / count)?;
    // The loss, with this gradient: the sum that is added to it has the value 0.
    let slope = (&prediction.params * gradient)?.sum_all()?;
    Ok((loss + (&slope - slope.detach())?)?)
}

/// `gradient`, scaled down to an L2 norm of at most `limit`.
fn shortened(gradient: &Tensor, limit: f64) -> Result<Tensor> {
    let norm = gradient.sqr()?.sum_all()?.sqrt()?;
    let factor = (norm.recip()? * limit)?.minimum(1.0)?;
    Ok(gradient.broadcast_mul(&factor)?)
}
