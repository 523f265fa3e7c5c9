//! The choice among the algorithms that multiply less than the direct product.

use super::{Filters, ToomCook, Winograd};
use crate::kernels::lanes::Element;

/// With fewer channels the transforms of 3x3 kernels cost more than they save.
const WINOGRAD_CHANNELS: usize = 16;
/// The same for lines of five and seven taps; kernels with several lines share the transforms among them.
fn toom_cook_channels(kernel: [usize; 2]) -> usize {
    if kernel.contains(&1) { 12 } else { 8 }
}

/// Geometry of a convolution of stride 1 without dilation and groups.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Size of the image.
    pub input: [usize; 2],
    /// Size of the result.
    pub output: [usize; 2],
    /// Rows and columns of zeros before the image.
    pub padding: [usize; 2],
    /// Channels of the image.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
}

/// An algorithm for one geometry.
#[derive(Clone, Copy, Debug)]
pub enum Fast {
    /// 3x3.
    Winograd(Winograd),
    /// 1x7, 7x1, 5x5 and 7x7.
    ToomCook(ToomCook),
}

impl Fast {
    /// The algorithm for a convolution, if one pays.
    pub fn new(plain: Plain) -> Option<Self> {
        let Plain { kernel, input, output, padding, inputs, outputs } = plain;
        let channels = inputs.min(outputs);
        match kernel {
            [3, 3] if channels >= WINOGRAD_CHANNELS && padding.iter().all(|&padding| padding <= 2) => {
                Some(Self::Winograd(Winograd { input, output, padding, inputs, outputs }))
            }
            // A single output of a line needs as few products as there are taps.
            _ if channels >= toom_cook_channels(kernel) => {
                ToomCook::new(plain).filter(|geometry| geometry.output[0] > 1).map(Self::ToomCook)
            }
            _ => None,
        }
    }

    /// The gradient by the image, which is a convolution of the result's gradient with the taps reversed.
    pub fn back(&self) -> Self {
        match self {
            Self::Winograd(geometry) => Self::Winograd(geometry.back()),
            Self::ToomCook(geometry) => Self::ToomCook(geometry.back()),
        }
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        match self {
            Self::Winograd(geometry) => geometry.packed_len::<T>(),
            Self::ToomCook(geometry) => geometry.packed_len::<T>(),
        }
    }

    /// Transforms weights.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        match self {
            Self::Winograd(geometry) => geometry.pack(filters, packed),
            Self::ToomCook(geometry) => geometry.pack(filters, packed),
        }
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        match self {
            Self::Winograd(geometry) => geometry.scratch_len::<T>(images),
            Self::ToomCook(geometry) => geometry.scratch_len::<T>(images),
        }
    }

    /// `y (+)=` the convolution of `images` images without padding.
    pub fn run<T: Element>(
        &self,
        images: usize,
        x: &[T],
        packed: &[T],
        y: &mut [T],
        accumulate: bool,
        scratch: &mut [T],
    ) {
        match self {
            Self::Winograd(geometry) => geometry.run(images, x, packed, y, accumulate, scratch),
            Self::ToomCook(geometry) => geometry.run(images, x, packed, y, accumulate, scratch),
        }
    }

    /// Adds the gradient of the weights by `images` images to `gradient [taps, inputs, outputs]`.
    pub fn gradient<T: Element>(
        &self,
        images: usize,
        x: &[T],
        dy: &[T],
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        match self {
            Self::Winograd(geometry) => geometry.gradient(images, x, dy, gradient, scratch),
            Self::ToomCook(geometry) => geometry.gradient(images, x, dy, gradient, scratch),
        }
    }
}
