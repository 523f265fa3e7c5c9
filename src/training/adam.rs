//! Adam (Kingma and Ba, arXiv 1412.6980), as PyTorch computes it, over named candle variables.
//!
//! In: gradients by name. Out: updated variables. Weight decay is coupled (added to the gradient, after
//! clipping) as the reference uses it, or decoupled (AdamW, arXiv 1711.05101). A variable without a gradient is
//! left alone; a zero gradient is a gradient, so such a variable still decays.

use crate::kernels::vectorized;
use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var, WithDType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Elements that one worker updates or sums up; a fixed number, so that sums do not depend on the threads.
const PART: usize = 16 * 1024;

/// Settings of [`Adam`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Base learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW: the decay acts on the weights and not on the gradient.
    pub decoupled: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        AdamConfig { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-5, decoupled: false }
    }
}

/// Moments of one variable, in its own precision.
struct Moments {
    first: Vec<f64>,
    second: Vec<f64>,
    steps: u64,
}

/// Optimiser state over named variables.
pub struct Adam {
    config: AdamConfig,
    vars: Vec<(String, Var)>,
    moments: BTreeMap<String, Moments>,
}

/// Gradients by variable name, ascending.
pub type Gradients = BTreeMap<String, Tensor>;

/// Picks the gradients of `vars` from a backward pass; variables outside the graph have none.
pub fn collect_gradients(vars: &[(String, Var)], store: &GradStore) -> Gradients {
    vars.iter().filter_map(|(name, var)| Some((name.clone(), store.get(var.as_tensor())?.clone()))).collect()
}

/// L2 norm over all gradients, summed in f64.
///
/// # Errors
/// If a tensor operation fails.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    fn squares<T: WithDType>(values: &[T]) -> f64 {
        let part = |values: &[T]| values.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>();
        values.par_chunks(PART).map(part).collect::<Vec<f64>>().into_iter().sum()
    }
    let mut sum = 0f64;
    for gradient in gradients.values() {
        let (storage, layout) = gradient.storage_and_layout();
        let known = layout.contiguous_offsets().and_then(|(start, end)| match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => Some(squares(&values[start..end])),
            Storage::Cpu(CpuStorage::F64(values)) => Some(squares(&values[start..end])),
            _ => None,
        });
        drop(storage);
        sum += match known {
            Some(known) => known,
            None => squares(&values(gradient)?),
        };
    }
    Ok(sum.sqrt())
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    let flat = tensor.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.into_iter().map(f64::from).collect(),
        _ => flat.to_dtype(DType::F64)?.to_vec1::<f64>()?,
    })
}

/// What one update does to each element.
#[derive(Clone, Copy)]
struct Rule {
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    /// Factor of the gradient.
    scale: f64,
    /// Divisors of the moments.
    corrections: [f64; 2],
}

impl Rule {
    #[inline(always)]
    fn element(&self, weight: f64, gradient: f64, first: &mut f64, second: &mut f64) -> f64 {
        let Rule { lr, betas: [b1, b2], eps, weight_decay, decoupled, scale, corrections } = *self;
        let (mut g, mut weight) = (gradient * scale, weight);
        if decoupled {
            weight *= 1.0 - lr * weight_decay;
        } else {
            g += weight_decay * weight;
        }
        *first = b1 * *first + (1.0 - b1) * g;
        *second = b2 * *second + (1.0 - b2) * g * g;
        weight - lr / corrections[0] * *first / (second.sqrt() / corrections[1] + eps)
    }

    /// Updates all elements, parts of them in parallel.
    fn apply<T: WithDType>(&self, weights: &mut [T], gradient: &[T], moments: &mut Moments) {
        let moments = moments.first.par_chunks_mut(PART).zip(moments.second.par_chunks_mut(PART));
        let parts = weights.par_chunks_mut(PART).zip(gradient.par_chunks(PART)).zip(moments);
        parts.for_each(|((weights, gradient), (first, second))| {
            vectorized(
                #[inline(always)]
                || {
                    let moments = first.iter_mut().zip(second);
                    for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments)
                    {
                        let updated = self.element(weight.to_f64(), gradient.to_f64(), first, second);
                        *weight = T::from_f64(updated);
                    }
                },
            );
        });
    }
}

/// An update of a variable where it lies.
struct InPlace<'a> {
    rule: Rule,
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp2 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (Some((w0, w1)), Some((g0, g1))) =
            (weights_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            candle_core::bail!("adam: contiguous tensors expected")
        };
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        match (weights, gradient) {
            (CpuStorage::F32(weights), CpuStorage::F32(gradient)) => {
                self.rule.apply(&mut weights[w0..w1], &gradient[g0..g1], &mut moments);
            }
            (CpuStorage::F64(weights), CpuStorage::F64(gradient)) => {
                self.rule.apply(&mut weights[w0..w1], &gradient[g0..g1], &mut moments);
            }
            _ => candle_core::bail!("adam: f32 or f64 expected, the same for weights and gradient"),
        }
        Ok(())
    }
}

impl Adam {
    /// An optimiser without history.
    pub fn new(config: AdamConfig, vars: Vec<(String, Var)>) -> Self {
        Adam { config, vars, moments: BTreeMap::new() }
    }

    /// Goes on with other variables of the same names and shapes.
    pub fn take_vars(&mut self, vars: Vec<(String, Var)>) {
        self.vars = vars;
    }

    /// One update at `lr_factor` times the base rate; gradients are first multiplied by `scale` (clipping).
    ///
    /// # Errors
    /// If a gradient does not fit its variable.
    pub fn step(&mut self, gradients: &Gradients, scale: f64, lr_factor: f64) -> Result<()> {
        let AdamConfig { lr, betas, eps, weight_decay, decoupled } = self.config;
        for (name, var) in &self.vars {
            let Some(gradient) = gradients.get(name) else { continue };
            let count = var.elem_count();
            if gradient.elem_count() != count {
                return Err(Error::Tensor(format!(
                    "gradient of {name} has {} elements, the variable {count}",
                    gradient.elem_count()
                )));
            }
            let moments = self.moments.entry(name.clone()).or_insert_with(|| Moments {
                first: vec![0.0; count],
                second: vec![0.0; count],
                steps: 0,
            });
            moments.steps += 1;
            let steps = moments.steps as i32;
            let corrections = [1.0 - betas[0].powi(steps), (1.0 - betas[1].powi(steps)).sqrt()];
            let lr = lr * lr_factor;
            let rule = Rule { lr, betas, eps, weight_decay, decoupled, scale, corrections };
            if var.device().is_cpu() && var.is_contiguous() && gradient.dtype() == var.dtype() {
                let moments = Mutex::new(moments);
                var.inplace_op2(&gradient.contiguous()?, &InPlace { rule, moments })?;
                continue;
            }
            let mut weights = values(var.as_tensor())?;
            rule.apply(&mut weights, &values(gradient)?, moments);
            let updated = Tensor::from_vec(weights, var.shape(), var.device())?.to_dtype(var.dtype())?;
            var.set(&updated)?;
        }
        Ok(())
    }

    /// The moments as tensors (`NAME|exp_avg`, `NAME|exp_avg_sq`, f64) and the step counts.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn state(&self) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, u64>)> {
        let mut tensors = BTreeMap::new();
        let mut steps = BTreeMap::new();
        for (name, var) in &self.vars {
            let Some(moments) = self.moments.get(name) else { continue };
            let tensor = |v: &[f64]| Tensor::from_slice(v, var.shape(), var.device());
            tensors.insert(format!("{name}|exp_avg"), tensor(&moments.first)?);
            tensors.insert(format!("{name}|exp_avg_sq"), tensor(&moments.second)?);
            steps.insert(name.clone(), moments.steps);
        }
        Ok((tensors, steps))
    }

    /// Takes up the state that [`Adam::state`] gave.
    ///
    /// # Errors
    /// If a moment is missing or has another length than its variable.
    pub fn restore(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        steps: &BTreeMap<String, u64>,
    ) -> Result<()> {
        self.moments.clear();
        for (name, var) in &self.vars {
            let Some(&steps) = steps.get(name) else { continue };
            let moment = |kind: &str| -> Result<Vec<f64>> {
                let key = format!("{name}|{kind}");
                let tensor =
                    tensors.get(&key).ok_or_else(|| Error::Tensor(format!("optimiser state lacks {key}")))?;
                let found = values(tensor)?;
                if found.len() != var.elem_count() {
                    return Err(Error::Tensor(format!(
                        "optimiser state {key} has {} elements, expected {}",
                        found.len(),
                        var.elem_count()
                    )));
                }
                Ok(found)
            };
            let (first, second) = (moment("exp_avg")?, moment("exp_avg_sq")?);
            self.moments.insert(name.clone(), Moments { first, second, steps });
        }
        Ok(())
    }
}
