//! Depthwise convolutions on the way to orthogonal ones, before predicted weights are trained.
//!
//! The filters that a hypernetwork predicts for a depthwise convolution are nearly multiples of each other: of the layer's
//! singular values a few are large, and SGD takes long to part the filters. Drawing the singular values together mends
//! that and costs little of the accuracy that the network begins with, since the layers that mix channels stay. The idea of
//! making predicted layers orthogonal is that of arXiv 2207.10049.

use crate::network::{Network, OpKind};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::evd::EVDDecomposable;

/// Singular values are taken for at least this share of the largest; smaller ones are rounding.
const SMALLEST: f64 = 1e-5;

/// Raises the singular values of every depthwise convolution of `params` `[n_params]`, as a matrix `[O, kH * kW]`, to
/// the power `1 - share`: 0 changes nothing, 1 makes the rows or the columns orthogonal, whichever are fewer. The norm
/// of the layer stays. A convolution is depthwise if it has one input channel for each of several filters.
///
/// # Errors
/// If a matrix has no decomposition, as with values that are not finite; names the layer.
pub fn orthogonalize(network: &Network, params: &mut [f32], share: f64) -> Result<()> {
    if share == 0.0 {
        return Ok(());
    }
    let layers = network.ops.iter().filter_map(|op| match op.kind {
        OpKind::Conv { weight, .. } => Some(&network.params[weight.0]),
        _ => None,
    });
    let layers: Vec<_> = layers.filter(|layer| depthwise(&layer.shape)).collect();
    let changed = layers.into_par_iter().map(|layer| {
        let values = &params[layer.offset..][..layer.numel()];
        drawn_together(values, layer.shape[0], share)
            .map(|values| (layer.offset, values))
            .map_err(|error| Error::NonFinite(format!("{}: {error}", layer.name)))
    });
    for (offset, values) in changed.collect::<Result<Vec<_>>>()? {
        params[offset..][..values.len()].copy_from_slice(&values);
    }
    Ok(())
}

fn depthwise(shape: &[usize]) -> bool {
    shape[0] > 1 && shape[1] == 1
}

/// `U S^(1-share) V'` of the matrix `U S V'` of `rows` rows, scaled to its norm.
fn drawn_together(values: &[f32], rows: usize, share: f64) -> Result<Vec<f32>> {
    let columns = values.len() / rows;
    let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    let matrix = Tensor::from_vec(wide, (rows, columns), &Device::Cpu)?;
    let norm = matrix.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
    if !norm.is_finite() {
        return Err(Error::NonFinite(format!("weights of norm {norm} have no singular values")));
    }
    if norm == 0.0 {
        return Ok(values.to_vec());
    }
    // W W' = U S^2 U', so that U S^(1-share) V' = U S^-share U' W; likewise from the right if there are more rows than columns.
    let gram = if rows <= columns { matrix.matmul(&matrix.t()?)? } else { matrix.t()?.matmul(&matrix)? };
    let power = power(&gram, -share)?;
    let product = if rows <= columns { power.matmul(&matrix)? } else { matrix.matmul(&power)? };
    let scale = norm / product.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
    Ok(product.flatten_all()?.to_vec1::<f64>()?.into_iter().map(|v| (v * scale) as f32).collect())
}

/// `U S^power U'` of a symmetric matrix `U S^2 U'`.
fn power(gram: &Tensor, power: f64) -> Result<Tensor> {
    let n = gram.dim(0)?;
    let failed = |error| Error::NonFinite(format!("no singular values: {error}"));
    let matrix = DenseMatrix::from_2d_vec(&gram.to_vec2::<f64>()?).map_err(failed)?;
    let decomposed = matrix.evd(true).map_err(failed)?;
    let vectors = &decomposed.V;
    let singular: Vec<f64> = decomposed.d.iter().map(|d| d.max(0.0).sqrt()).collect();
    let floor = SMALLEST * singular.iter().copied().fold(0.0, f64::max);
    let factors: Vec<f64> = singular.iter().map(|s| s.max(floor).powf(power)).collect();
    let vectors: Vec<f64> = (0..n * n).map(|at| *vectors.get((at / n, at % n))).collect();
    let vectors = Tensor::from_vec(vectors, (n, n), &Device::Cpu)?;
    let factors = Tensor::from_vec(factors, (1, n), &Device::Cpu)?;
    Ok(vectors.broadcast_mul(&factors)?.matmul(&vectors.t()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepnets::predefined;
    use crate::network::build;
    use crate::training::{RandomInit, random_weights};

    /// `W W'` of the smaller side.
    fn gram(values: &[f32], rows: usize) -> Vec<Vec<f64>> {
        let columns = values.len() / rows;
        let at = |row: usize, column: usize| f64::from(values[row * columns + column]);
        let (n, m) = (rows.min(columns), rows.max(columns));
        let entry = |i, j, k| if rows <= columns { at(i, k) * at(j, k) } else { at(k, i) * at(k, j) };
        (0..n).map(|i| (0..n).map(|j| (0..m).map(|k| entry(i, j, k)).sum()).collect()).collect()
    }

    #[test]
    fn singular_values_are_drawn_together() {
        // Singular values 3, 2 and 1, turned by a rotation of the rows.
        let (c, s) = (0.8, 0.6);
        let turned = |[x, y, z]: [f64; 3]| {
            [x * c, -y * s, 0.0, 0.0, x * s, y * c, 0.0, 0.0, 0.0, 0.0, z, 0.0].map(|v| v as f32)
        };
        for share in [0.5, 1.0] {
            let changed = drawn_together(&turned([3.0, 2.0, 1.0]), 3, share).unwrap();
            let powers = [3f64, 2.0, 1.0].map(|value| value.powf(1.0 - share));
            let scale = (14.0 / powers.iter().map(|p| p * p).sum::<f64>()).sqrt();
            for (value, expected) in changed.iter().zip(turned(powers.map(|p| p * scale))) {
                assert!((value - expected).abs() < 1e-6, "{share}: {changed:?}");
            }
        }
        let error = drawn_together(&[1.0, f32::NAN, 0.0, 2.0], 2, 1.0).unwrap_err();
        assert!(error.to_string().contains("norm NaN"), "{error}");
    }

    #[test]
    fn depthwise_convolutions_become_orthogonal_and_nothing_else_changes() {
        let network = build(&predefined("DARTS").unwrap().arch, 10).unwrap();
        let before = random_weights(&network, RandomInit::Torch, 3);
        let mut after = before.clone();
        orthogonalize(&network, &mut after, 0.0).unwrap();
        assert_eq!(before, after);
        orthogonalize(&network, &mut after, 1.0).unwrap();
        let mut changed = 0;
        for param in &network.params {
            let range = param.offset..param.offset + param.numel();
            let (before, after) = (&before[range.clone()], &after[range]);
            if param.shape.len() != 4 || param.shape[1] != 1 {
                assert_eq!(before, after, "{}", param.name);
                continue;
            }
            changed += 1;
            let squares = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            assert!((squares(after) / squares(before) - 1.0).abs() < 1e-5, "{}", param.name);
            let gram = gram(after, param.shape[0]);
            let mean = gram.iter().enumerate().map(|(i, row)| row[i]).sum::<f64>() / gram.len() as f64;
            for (i, row) in gram.iter().enumerate() {
                for (j, value) in row.iter().enumerate() {
                    let expected = if i == j { mean } else { 0.0 };
                    assert!((value - expected).abs() < 1e-4 * mean, "{} {i} {j}: {value}", param.name);
                }
            }
        }
        assert!(changed > 20, "{changed}");
    }

    #[test]
    fn repeated_and_zero_rows_stay_what_they_are() {
        let repeated = [1.0, 2.0, 0.5, 1.0, 2.0, 0.5, -1.0, 0.25, 1.0];
        let changed = drawn_together(&repeated, 3, 1.0).unwrap();
        for (one, other) in changed[..3].iter().zip(&changed[3..6]) {
            assert!((one - other).abs() < 1e-6, "{changed:?}");
        }
        assert!(changed.iter().all(|v| v.is_finite() && v.abs() < 3.0), "{changed:?}");
        assert_eq!(drawn_together(&[0.0; 6], 2, 1.0).unwrap(), [0.0; 6]);
    }
}
