//! The candle executor: a [`Network`] in candle ops, on any candle device, differentiable by candle's tape.
//!
//! It is written for correctness and is what the native executor is checked against; ops follow PyTorch's
//! conventions, gradients at kinks included (ReLU 0 at 0, max pooling to the first maximum).

mod known;
mod ops;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use candle_core::{Device, Tensor, Var, WithDType};

use super::{Executor, Mode, Real};
use crate::kernels::arrangement::dropout_factor;
use crate::network::{Network, OpKind, OpNode, Param};
use crate::{Error, Result};
use window::{AvgPool, Convolution, MaxPool, Window};

/// Runs a network in candle ops.
#[derive(Clone, Debug)]
pub struct CandleExecutor {
    network: Arc<Network>,
    device: Device,
}

impl CandleExecutor {
    /// An executor of `network` on `device`.
    pub fn new(network: Arc<Network>, device: Device) -> CandleExecutor {
        CandleExecutor { network, device }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Logits `[N, classes]` of `images [N, C, H, W]` with the flat parameter vector `params [n_params]`;
    /// differentiable by both. All of the same type: f32, f64, bf16 or f16.
    ///
    /// # Errors
    /// If shapes do not fit the network.
    pub fn forward(&self, params: &Tensor, images: &Tensor, mode: Mode) -> Result<Tensor> {
        if params.dims() != [self.network.n_params()] {
            return Err(refuse("parameters", &[self.network.n_params()], params.dims()));
        }
        let slice = |p: &Param| Ok(params.narrow(0, p.offset, p.numel())?.reshape(p.shape.as_slice())?);
        let params = self.network.params.iter().map(slice).collect::<Result<Vec<Tensor>>>()?;
        self.forward_tensors(&params, images, mode)
    }

    /// The same with one tensor for each parameter, shaped and ordered as [`Network::params`].
    ///
    /// # Errors
    /// If shapes do not fit the network.
    pub fn forward_tensors(&self, params: &[Tensor], images: &Tensor, mode: Mode) -> Result<Tensor> {
        let wanted = &self.network.params;
        if params.len() != wanted.len() {
            return Err(refuse("parameters", &[wanted.len()], &[params.len()]));
        }
        if let Some((tensor, param)) = params.iter().zip(wanted).find(|(t, p)| t.dims() != p.shape) {
            return Err(refuse(&param.name, &param.shape, tensor.dims()));
        }
        let [c, h, w] = self.network.input_shape();
        let n = images.dims().first().copied().unwrap_or(0);
        if images.dims() != [n, c, h, w] || n == 0 {
            return Err(refuse("images", &[n.max(1), c, h, w], images.dims()));
        }
        let images = images.transpose(0, 1)?.contiguous()?;
        let mut last_use = vec![0; self.network.ops.len()];
        for (at, op) in self.network.ops.iter().enumerate() {
            op.inputs.iter().for_each(|input| last_use[input.0] = at);
        }
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.network.ops.len());
        for (at, op) in self.network.ops.iter().enumerate() {
            let inputs =
                op.inputs.iter().map(|id| values[id.0].as_ref().expect("inputs come first and live on"));
            let inputs: Vec<&Tensor> = inputs.collect();
            let value = if matches!(op.kind, OpKind::Input) {
                images.clone()
            } else {
                run(at, op, &inputs, params, mode)?
            };
            for input in op.inputs.iter().filter(|input| last_use[input.0] == at) {
                values[input.0] = None;
            }
            values.push(Some(value));
        }
        let logits = values.pop().flatten();
        let logits =
            logits.ok_or_else(|| Error::Architecture("a network without ops has no output".into()))?;
        Ok(logits.reshape((self.network.num_classes(), n))?.t()?.contiguous()?)
    }

    /// Mean cross entropy `[]` of `images [N, C, H, W]` with `labels [N]` (u32), and its gradient `[n_params]` by the flat
    /// vector `params`. Everything stays on the device, and nothing waits for it.
    ///
    /// # Errors
    /// If shapes do not fit the network.
    pub fn loss_with_gradient(
        &self,
        params: &Tensor,
        images: &Tensor,
        labels: &Tensor,
        mode: Mode,
    ) -> Result<[Tensor; 2]> {
        if params.dims() != [self.network.n_params()] {
            return Err(refuse("parameters", &[self.network.n_params()], params.dims()));
        }
        // A variable for each parameter: the gradient by a flat one would be summed from as many whole vectors.
        let variable = |p: &Param| {
            let values = params.detach().narrow(0, p.offset, p.numel())?.reshape(p.shape.as_slice())?;
            Ok(Var::from_tensor(&values)?)
        };
        let variables = self.network.params.iter().map(variable).collect::<Result<Vec<Var>>>()?;
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let loss = ops::cross_entropy(&self.forward_tensors(&tensors, images, mode)?, labels)?;
        let gradients = loss.backward()?;
        let by = |variable: &Var| match gradients.get(variable) {
            Some(gradient) => gradient.flatten_all(),
            None => variable.as_tensor().flatten_all()?.zeros_like(),
        };
        let parts = variables.iter().map(by).collect::<candle_core::Result<Vec<Tensor>>>()?;
        Ok([loss.detach(), Tensor::cat(&parts, 0)?.detach()])
    }

    /// Class numbers on the device.
    fn labels(&self, labels: &[u8]) -> Result<Tensor> {
        let labels: Vec<u32> = labels.iter().map(|&label| u32::from(label)).collect();
        Ok(Tensor::new(labels, &self.device)?)
    }

    fn images<T: Real + WithDType>(&self, images: &[T]) -> Result<Tensor> {
        let [c, h, w] = self.network.input_shape();
        let size = c * h * w;
        if images.is_empty() || !images.len().is_multiple_of(size) {
            let message =
                format!("images: a multiple of {c} * {h} * {w} values expected, found {}", images.len());
            return Err(Error::Tensor(message));
        }
        Ok(Tensor::from_slice(images, (images.len() / size, c, h, w), &self.device)?)
    }

    fn check_params(&self, found: usize) -> Result<()> {
        let wanted = self.network.n_params();
        if found == wanted { Ok(()) } else { Err(refuse("parameters", &[wanted], &[found])) }
    }
}

fn refuse(what: &str, wanted: &[usize], found: &[usize]) -> Error {
    Error::Tensor(format!("candle executor: {what}: shape {wanted:?} expected, found {found:?}"))
}

/// Value `[C, N, H, W]` of the op at index `at`.
fn run(at: usize, op: &OpNode, inputs: &[&Tensor], params: &[Tensor], mode: Mode) -> Result<Tensor> {
    let x = inputs[0];
    let out = [op.shape[1], op.shape[2]];
    let pool = |kernel, stride, padding| Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: 1,
        out,
    };
    let value = match op.kind {
        OpKind::Input => x.clone(),
        OpKind::Conv { weight, stride, padding, dilation, groups } => {
            let weight = &params[weight.0];
            let kernel = [weight.dim(2)?, weight.dim(3)?];
            let window = Window { kernel, stride, padding, dilation, out };
            known::apply2(Convolution { window, groups }, x, weight)?
        }
        OpKind::Linear { weight, bias } => {
            ops::linear(x, &params[weight.0], bias.map(|bias| &params[bias.0]))?
        }
        OpKind::BatchNorm { weight, bias } => ops::batch_norm(x, &params[weight.0], &params[bias.0])?,
        OpKind::LayerNorm { weight, bias } => ops::layer_norm(x, &params[weight.0], &params[bias.0])?,
        OpKind::Relu => ops::relu(x)?,
        OpKind::Gelu => ops::gelu(x)?,
        OpKind::HardSwish => ops::hard_swish(x)?,
        OpKind::MaxPool { kernel, stride, padding } => {
            known::apply1(MaxPool(pool(kernel, stride, padding)), x)?
        }
        OpKind::AvgPool { kernel, stride, padding } => {
            known::apply1(AvgPool(pool(kernel, stride, padding)), x)?
        }
        OpKind::GlobalAvgPool | OpKind::SqueezeMean => ops::mean(x)?,
        OpKind::Excite => x.broadcast_mul(inputs[1])?,
        OpKind::Attention { heads, head_dim } => ops::attention(x, heads, head_dim)?,
        OpKind::PosEnc { weight } => x.broadcast_add(&params[weight.0].transpose(0, 1)?)?,
        OpKind::Add => (x + inputs[1])?,
        OpKind::Concat => Tensor::cat(inputs, 0)?,
        OpKind::Zeros => x.detach().zeros_like()?,
        OpKind::Subsample { stride } => window::every(&window::every(x, 2, stride)?, 3, stride)?,
        OpKind::Crop => x.narrow(2, 1, out[0])?.narrow(3, 1, out[1])?.contiguous()?,
        OpKind::Flatten => ops::flatten(x)?,
        OpKind::Dropout { p } => match mode {
            Mode::Train { dropout_seed } => drop_out(x, dropout_seed, at, p)?,
            Mode::Evaluate | Mode::TrainWithoutDropout => x.clone(),
        },
    };
    Ok(value)
}

/// The masks of the native executor: elements are counted with channels innermost.
fn drop_out(x: &Tensor, seed: u64, op: usize, p: f32) -> Result<Tensor> {
    let (c, n, h, w) = x.dims4()?;
    let factors: Vec<f64> =
        (0..x.elem_count() as u64).map(|i| dropout_factor(seed, op as u64, i, p)).collect();
    let factors = Tensor::from_vec(factors, (n, h, w, c), x.device())?.to_dtype(x.dtype())?;
    Ok((x * factors.permute((3, 0, 1, 2))?)?)
}

impl<T: Real + WithDType> Executor<T> for CandleExecutor {
    fn logits(&mut self, params: &[T], images: &[T], mode: Mode) -> Result<Vec<T>> {
        self.check_params(params.len())?;
        let params = Tensor::from_slice(params, params.len(), &self.device)?;
        let logits = self.forward(&params, &self.images(images)?, mode)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn loss_and_gradient(
        &mut self,
        params: &[T],
        images: &[T],
        labels: &[u8],
        mode: Mode,
        grad: &mut [T],
    ) -> Result<T> {
        self.check_params(params.len())?;
        self.check_params(grad.len())?;
        let images = self.images(images)?;
        let classes = self.network.num_classes();
        if labels.len() != images.dim(0)? || labels.iter().any(|&label| usize::from(label) >= classes) {
            let message = format!("labels: {} below {classes} expected, found {labels:?}", images.dim(0)?);
            return Err(Error::Tensor(message));
        }
        let labels = self.labels(labels)?;
        let params = Tensor::from_slice(params, params.len(), &self.device)?;
        let [loss, gradient] = self.loss_with_gradient(&params, &images, &labels, mode)?;
        grad.iter_mut().zip(gradient.to_vec1::<T>()?).for_each(|(sum, value)| *sum += value);
        Ok(loss.to_scalar::<T>()?)
    }
}
