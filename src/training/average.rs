//! Running average of a GHN's weights (Polyak and Juditsky 1992, doi 10.1137/0330046), exponential as in
//! TensorFlow's moving averages: it follows the weights closely at first, then over about `1 / (1 - decay)` steps.
//!
//! In: the weights after every step. Out: a GHN with the averaged weights, which predicts better than the last
//! weights while the learning rate is high.

use crate::ghn::Ghn;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Storage, Tensor, Var};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Elements that a worker takes at least.
const PART: usize = 16 * 1024;

/// Averages by variable name.
pub(super) struct Average {
    decay: f64,
    weights: BTreeMap<String, Vec<f32>>,
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}

impl Average {
    /// An average that begins at the present weights.
    pub(super) fn new(decay: f64, vars: &[(String, Var)]) -> Result<Average> {
        let weights = vars.iter().map(|(name, var)| Ok((name.clone(), values(var.as_tensor())?)));
        Ok(Average { decay, weights: weights.collect::<Result<_>>()? })
    }

    /// Takes in the weights after `steps` steps.
    pub(super) fn update(&mut self, steps: u64, vars: &[(String, Var)]) -> Result<()> {
        let keep = self.decay.min((1.0 + steps as f64) / (10.0 + steps as f64)) as f32;
        let follow = |average: &mut Vec<f32>, weights: &[f32]| {
            average.par_iter_mut().zip(weights).with_min_len(PART).for_each(|(average, weight)| {
                *average += (1.0 - keep) * (weight - *average);
            });
        };
        for (name, var) in vars {
            let Some(average) = self.weights.get_mut(name) else { continue };
            let (storage, layout) = var.storage_and_layout();
            match (&*storage, layout.contiguous_offsets()) {
                (Storage::Cpu(CpuStorage::F32(weights)), Some((start, end))) => {
                    follow(average, &weights[start..end]);
                }
                _ => follow(average, &values(var.as_tensor())?),
            }
        }
        Ok(())
    }

    /// A GHN like `ghn` with the averaged weights.
    pub(super) fn ghn(&self, ghn: &Ghn) -> Result<Ghn> {
        Ghn::from_tensors(ghn.config().clone(), self.tensors(&ghn.vars())?)
    }

    /// The averages, shaped as `vars`.
    pub(super) fn tensors(&self, vars: &[(String, Var)]) -> Result<BTreeMap<String, Tensor>> {
        let tensor = |(name, var): &(String, Var)| {
            let weights =
                self.weights.get(name).ok_or_else(|| Error::Tensor(format!("no average of {name}")))?;
            Ok((name.clone(), Tensor::from_slice(weights, var.shape(), var.device())?))
        };
        vars.iter().map(tensor).collect()
    }

    /// Takes up averages that [`Average::tensors`] gave.
    pub(super) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, weights) in &mut self.weights {
            let found = tensors
                .get(name)
                .ok_or_else(|| Error::Tensor(format!("the average of {name} is missing")))?;
            let found = values(found)?;
            if found.len() != weights.len() {
                return Err(Error::Tensor(format!(
                    "the average of {name} has {} elements, expected {}",
                    found.len(),
                    weights.len()
                )));
            }
            *weights = found;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn it_follows_closely_at_first_and_slowly_later() {
        let var = Var::from_tensor(&Tensor::new(&[0f32, 1.0], &Device::Cpu).unwrap()).unwrap();
        let vars = [("w".to_owned(), var.clone())];
        let mut average = Average::new(0.99, &vars).unwrap();
        var.set(&Tensor::new(&[1f32, 1.0], &Device::Cpu).unwrap()).unwrap();
        average.update(1, &vars).unwrap();
        // keep = 2 / 11
        assert!((average.weights["w"][0] - 9.0 / 11.0).abs() < 1e-6, "{:?}", average.weights);
        average.weights.insert("w".into(), vec![0.0, 1.0]);
        average.update(1_000_000, &vars).unwrap();
        assert!((average.weights["w"][0] - 0.01).abs() < 1e-6, "{:?}", average.weights);
        assert_eq!(average.weights["w"][1], 1.0);
    }
}
