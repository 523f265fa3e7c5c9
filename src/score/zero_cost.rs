//! Scores that need one batch of images at most, and no training.
//!
//! In: a network, weights, one batch. Out: single numbers, higher for networks that are expected to train better.
//! [`synflow`](super::synflow()) needs no image at all.

use crate::execute::{Executor, Mode, NativeExecutor};
use crate::images::PreparedImages;
use crate::kernels::cholesky;
use crate::network::{Network, OpKind};
use crate::{Error, Result};

/// How differently the images of a batch switch the ReLUs of a network: the logarithm of the determinant of `K`,
/// where `K[i, j]` counts the rectified units that are active for both images or for neither.
///
/// Source: arXiv 2006.04647, equation 2 (NASWOT). A rectified tensor counts once, however many ops read it. Weights
/// are random in the source. All images form one batch.
///
/// # Errors
/// The executor fails; [`Error::NonFinite`] if two images have equal codes, as they have in a network without ReLUs.
pub fn naswot(executor: &mut NativeExecutor<f32>, params: &[f32], images: &PreparedImages) -> Result<f64> {
    let codes = executor.codes(params, images.images())?;
    let n = codes.images();
    let mut kernel = vec![0f64; n * n];
    for i in 0..n {
        for j in 0..=i {
            kernel[i * n + j] = codes.agreement(i, j) as f64;
        }
    }
    if !cholesky::factor(&mut kernel, n) {
        let units = codes.units();
        return Err(Error::NonFinite(format!(
            "the codes of {units} rectified units do not tell {n} images apart"
        )));
    }
    Ok(cholesky::log_determinant(&kernel, n))
}

/// Sum over the weights of convolutions and linear layers of the Euclidean norm of the gradient of the mean cross
/// entropy, for one batch of all images, without dropout.
///
/// Source: arXiv 2101.08134, section 3.2 (grad_norm), where weights are random.
///
/// # Errors
/// The executor fails, or [`Error::NonFinite`].
pub fn gradient_norm(
    network: &Network,
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
) -> Result<f64> {
    let mut gradient = vec![0f32; params.len()];
    let mode = Mode::TrainWithoutDropout;
    executor.loss_and_gradient(params, images.images(), images.labels(), mode, &mut gradient)?;
    let mut sum = 0.0;
    for op in &network.ops {
        if let OpKind::Conv { weight, .. } | OpKind::Linear { weight, .. } = op.kind {
            let param = &network.params[weight.0];
            let of_weight = &gradient[param.offset..param.offset + param.numel()];
            sum += of_weight.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        }
    }
    if !sum.is_finite() {
        return Err(Error::NonFinite(format!("the gradient norm is {sum}")));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{OpId, OpNode, Param, ParamId};

    /// Image (2 channels, one pixel) -> ReLU -> linear `w [2, 2]`.
    fn network() -> Network {
        let linear = OpKind::Linear { weight: ParamId(0), bias: None };
        Network {
            ops: vec![
                OpNode { kind: OpKind::Input, inputs: vec![], shape: [2, 1, 1] },
                OpNode { kind: OpKind::Relu, inputs: vec![OpId(0)], shape: [2, 1, 1] },
                OpNode { kind: linear, inputs: vec![OpId(1)], shape: [2, 1, 1] },
            ],
            params: vec![Param { name: "w".into(), shape: vec![2, 2], offset: 0 }],
            pruned: vec![],
            n_cells: 0,
        }
    }

    #[test]
    fn codes_of_images_by_hand() {
        let network = network();
        let mut executor = NativeExecutor::<f32>::new(&network, 4).unwrap();
        let images =
            |pixels: &[f32]| PreparedImages::new(pixels.to_vec(), vec![0; pixels.len() / 2], 2).unwrap();
        // Codes 10, 11: they agree in one of two units.
        let score = naswot(&mut executor, &[0.0; 4], &images(&[1.0, -1.0, 1.0, 3.0])).unwrap();
        assert!((score - 3f64.ln()).abs() < 1e-14);
        let same = naswot(&mut executor, &[0.0; 4], &images(&[1.0, -1.0, 2.0, -3.0])).unwrap_err();
        assert!(same.to_string().contains("2 rectified units do not tell 2 images apart"), "{same}");
    }

    #[test]
    fn the_gradient_of_equal_logits_by_hand() {
        let network = network();
        let mut executor = NativeExecutor::<f32>::new(&network, 1).unwrap();
        let images = PreparedImages::new(vec![3.0, 4.0], vec![1], 2).unwrap();
        // Slopes of the logits are 1/2 and -1/2, so the norm is sqrt(1/2) times that of the image.
        let norm = gradient_norm(&network, &mut executor, &[0.0; 4], &images).unwrap();
        assert!((norm - 12.5f64.sqrt()).abs() < 1e-6);
    }
}
