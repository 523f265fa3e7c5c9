//! Ops that slide a window over an image, `[C, N, H, W]` in and out: convolutions and pooling.
//!
//! Each is a sum or a maximum over the taps of the window: tap `(y, x)` of an input is the input seen through
//! that position of the window, `[C, N, OH, OW]`.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Result, Tensor};

use super::known::{Rule1, Rule2};
#[cfg(feature = "cuda")]
use crate::kernels::depthwise::{cuda::Planes, on_device};

/// Size and steps of a window; pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: usize,
    /// Size of the output.
    pub out: [usize; 2],
}

impl Window {
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let [h, w] = self.kernel;
        (0..h).flat_map(move |y| (0..w).map(move |x| [y, x]))
    }

    /// `x` with a border of `value`, if the window has padding.
    fn pad(&self, x: &Tensor, value: f64) -> Result<Tensor> {
        let mut x = x.clone();
        for (axis, &width) in self.padding.iter().enumerate().filter(|&(_, &width)| width > 0) {
            let mut shape = x.dims().to_vec();
            shape[axis + 2] = width;
            let border = Tensor::full(value, shape, x.device())?.to_dtype(x.dtype())?;
            x = Tensor::cat(&[&border, &x, &border], axis + 2)?;
        }
        Ok(x)
    }

    /// A tap of the padded input.
    fn tap(&self, padded: &Tensor, tap: [usize; 2]) -> Result<Tensor> {
        let mut seen = padded.clone();
        for (axis, position) in tap.into_iter().enumerate() {
            let (first, steps) = (position * self.dilation, self.out[axis]);
            seen = seen.narrow(axis + 2, first, (steps - 1) * self.stride[axis] + 1)?;
            seen = every(&seen, axis + 2, self.stride[axis])?;
        }
        seen.contiguous()
    }

    /// The transpose of [`Window::tap`]: the gradient of a padded input of size `[H, W]` from that of a tap.
    fn untap(&self, grad: &Tensor, tap: [usize; 2], padded: [usize; 2]) -> Result<Tensor> {
        let mut grad = grad.clone();
        for (axis, position) in tap.into_iter().enumerate() {
            let (first, stride, steps) = (position * self.dilation, self.stride[axis], self.out[axis]);
            grad = if stride == 1 {
                grad.pad_with_zeros(axis + 2, first, padded[axis] - first - steps)?
            } else {
                let mut shape = grad.dims().to_vec();
                shape[axis + 2] = padded[axis];
                let at: Vec<u32> = (0..steps).map(|step| (first + step * stride) as u32).collect();
                let at = Tensor::new(at, grad.device())?;
                Tensor::zeros(shape, grad.dtype(), grad.device())?.index_add(
                    &at,
                    &grad.contiguous()?,
                    axis + 2,
                )?
            };
        }
        Ok(grad)
    }

    /// The gradient of the input from those of all taps.
    fn untap_all(&self, x: &Tensor, grad_of: impl Fn([usize; 2]) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let padded = [h + 2 * self.padding[0], w + 2 * self.padding[1]];
        let grads = self.taps().map(|tap| self.untap(&grad_of(tap)?, tap, padded));
        sum(grads)?.narrow(2, self.padding[0], h)?.narrow(3, self.padding[1], w)?.contiguous()
    }
}

/// Every `stride`-th slice along an axis, from the first.
pub(super) fn every(x: &Tensor, axis: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let at: Vec<u32> = (0..x.dim(axis)? as u32).step_by(stride).collect();
    x.contiguous()?.index_select(&Tensor::new(at, x.device())?, axis)
}

fn sum(mut terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = terms.next().ok_or_else(|| candle_core::Error::Msg("window without taps".into()))?;
    terms.try_fold(first?, |sum, term| sum + term?)
}

/// Convolution with weight `[O, I / groups, kH, kW]`.
pub(super) struct Convolution {
    pub window: Window,
    pub groups: usize,
}

impl Convolution {
    /// One weight and one input channel per output channel.
    fn is_depthwise(&self, weight: &Tensor) -> bool {
        self.groups > 1 && weight.dims()[..2] == [self.groups, 1]
    }

    /// Weight of a tap: `[groups, O / groups, I / groups]`, or `[C, 1, 1, 1]` if depthwise.
    fn tap_weight(&self, weight: &Tensor, [y, x]: [usize; 2]) -> Result<Tensor> {
        let (o, i, _, _) = weight.dims4()?;
        let tap = weight.narrow(2, y, 1)?.narrow(3, x, 1)?.contiguous()?;
        match self.is_depthwise(weight) {
            true => tap.reshape((o, 1, 1, 1)),
            false => tap.reshape((self.groups, o / self.groups, i)),
        }
    }

    /// `[C, N, H, W]` as a matrix for each group, `[groups, C / groups, N * H * W]`.
    fn matrices(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape((self.groups, x.dim(0)? / self.groups, ()))
    }
}

#[cfg(feature = "cuda")]
impl Convolution {
    /// A depthwise convolution on a GPU, in f32 whatever the tensors hold.
    fn on_device(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let Window { kernel, stride, padding, dilation, out } = self.window;
        let (channels, images, height, width) = x.dims4()?;
        let size = [height, width];
        let planes = Planes { channels, images, size, out, kernel, stride, padding, dilation };
        let (x, weight) = (x.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?);
        on_device(&x, &weight, planes)
    }
}

impl Rule2 for Convolution {
    fn value(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self.is_depthwise(weight) && x.device().is_cuda() && x.dtype() != DType::F64 {
            return self.on_device(x, weight)?.to_dtype(x.dtype());
        }
        let padded = self.window.pad(x, 0.0)?;
        let products = self.window.taps().map(|tap| {
            let (seen, weight_of_tap) = (self.window.tap(&padded, tap)?, self.tap_weight(weight, tap)?);
            match self.is_depthwise(weight) {
                true => seen.broadcast_mul(&weight_of_tap),
                false => weight_of_tap.matmul(&self.matrices(&seen)?),
            }
        });
        let [h, w] = self.window.out;
        sum(products)?.reshape((weight.dim(0)?, x.dim(1)?, h, w))
    }

    fn by_x(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?;
        let [h, w] = self.window.out;
        self.window.untap_all(x, |tap| {
            let weight_of_tap = self.tap_weight(weight, tap)?;
            match self.is_depthwise(weight) {
                true => grad.broadcast_mul(&weight_of_tap),
                false => {
                    let transposed = weight_of_tap.t()?.contiguous()?;
                    transposed.matmul(&self.matrices(&grad)?)?.reshape((x.dim(0)?, x.dim(1)?, h, w))
                }
            }
        })
    }

    fn by_weight(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (o, i, kh, kw) = weight.dims4()?;
        let grad = grad.contiguous()?;
        let padded = self.window.pad(x, 0.0)?;
        let taps = self.window.taps().map(|tap| {
            let seen = self.window.tap(&padded, tap)?;
            let grad_of_tap = match self.is_depthwise(weight) {
                true => (seen * &grad)?.flatten_from(1)?.sum(1)?,
                false => self.matrices(&grad)?.matmul(&self.matrices(&seen)?.t()?)?,
            };
            grad_of_tap.reshape((o, i))
        });
        let taps = taps.collect::<Result<Vec<Tensor>>>()?;
        Tensor::stack(&taps, 2)?.reshape((o, i, kh, kw))
    }
}

/// Max pooling; padding counts as minus infinity, the gradient goes to the first maximum of a window.
pub(super) struct MaxPool(pub Window);

impl Rule1 for MaxPool {
    fn value(&self, x: &Tensor) -> Result<Tensor> {
        let padded = self.0.pad(x, f64::NEG_INFINITY)?;
        let mut taps = self.0.taps();
        let first = taps.next().ok_or_else(|| candle_core::Error::Msg("window without taps".into()))?;
        taps.try_fold(self.0.tap(&padded, first)?, |max, tap| max.maximum(&self.0.tap(&padded, tap)?))
    }

    fn by_x(&self, x: &Tensor, value: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let padded = self.0.pad(x, f64::NEG_INFINITY)?;
        let mut open = value.ones_like()?;
        let mut hits = Vec::new();
        for tap in self.0.taps() {
            let hit = (self.0.tap(&padded, tap)?.eq(value)?.to_dtype(x.dtype())? * &open)?;
            open = (open - &hit)?;
            hits.push((grad * hit)?);
        }
        let columns = self.0.kernel[1];
        self.0.untap_all(x, |[row, column]| Ok(hits[row * columns + column].clone()))
    }
}

/// Average pooling; padding is not counted.
pub(super) struct AvgPool(pub Window);

impl AvgPool {
    /// `1 / positions inside the image` of every window, `[OH, OW]`, for an input of size `[H, W]`.
    fn shares(&self, like: &Tensor) -> Result<Tensor> {
        let Window { kernel, stride, padding, out, .. } = self.0;
        let size = [like.dim(2)?, like.dim(3)?];
        let count = |axis: usize, step: usize| {
            let start = step * stride[axis];
            let end = (start + kernel[axis]).min(size[axis] + padding[axis]);
            end - start.max(padding[axis])
        };
        let shares: Vec<f64> = (0..out[0])
            .flat_map(|y| (0..out[1]).map(move |x| (y, x)))
            .map(|(y, x)| 1.0 / (count(0, y) * count(1, x)) as f64)
            .collect();
        Tensor::from_vec(shares, (out[0], out[1]), like.device())?.to_dtype(like.dtype())
    }
}

impl Rule1 for AvgPool {
    fn value(&self, x: &Tensor) -> Result<Tensor> {
        let padded = self.0.pad(x, 0.0)?;
        sum(self.0.taps().map(|tap| self.0.tap(&padded, tap)))?.broadcast_mul(&self.shares(x)?)
    }

    fn by_x(&self, x: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let shared = grad.broadcast_mul(&self.shares(x)?)?;
        self.0.untap_all(x, |_| Ok(shared.clone()))
    }
}
