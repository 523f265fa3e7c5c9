//! The choice among the algorithms that multiply less than the direct product.

use super::{Filters, Karatsuba, Winograd};
use crate::kernels::lanes::Element;

/// With fewer channels the transforms of 3x3 kernels cost more than they save.
const WINOGRAD_CHANNELS: usize = 16;
/// The same for 1x7 and 7x1; larger kernels share the transforms of a line among their rows.
fn karatsuba_channels(kernel: [usize; 2]) -> usize {
    if kernel.contains(&1) { 32 } else { 16 }
}

/// Most products of input and output channels of kernels with several rows: the transformed weights of more would
/// come from memory for every few images.
const KARATSUBA_WEIGHTS: usize = 160 * 160;

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
    Karatsuba(Karatsuba),
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
            [1, 7] | [7, 1] | [5, 5] | [7, 7] if channels >= karatsuba_channels(kernel) => {
                let axis = usize::from(kernel[1] > 1);
                let turned = |sizes: [usize; 2]| [sizes[axis], sizes[1 - axis]];
                let ([taps, rows], padding) = (turned(kernel), turned(padding));
                let fits = rows == 1 || inputs * outputs <= KARATSUBA_WEIGHTS;
                (fits && padding[0] < taps && padding[1] < rows).then(|| {
                    let (input, output) = (turned(input), turned(output));
                    Self::Karatsuba(Karatsuba { axis, taps, rows, input, output, padding, inputs, outputs })
                })
            }
            _ => None,
        }
    }

    /// The gradient by the image, which is a convolution of the result's gradient with the taps reversed.
    pub fn back(&self) -> Self {
        match self {
            Self::Winograd(geometry) => Self::Winograd(geometry.back()),
            Self::Karatsuba(geometry) => Self::Karatsuba(geometry.back()),
        }
    }

    /// Elements of the transformed weights.
    pub fn packed_len<T: Element>(&self) -> usize {
        match self {
            Self::Winograd(geometry) => geometry.packed_len::<T>(),
            Self::Karatsuba(geometry) => geometry.packed_len::<T>(),
        }
    }

    /// Transforms weights.
    pub fn pack<T: Element>(&self, filters: Filters<'_, T>, packed: &mut [T]) {
        match self {
            Self::Winograd(geometry) => geometry.pack(filters, packed),
            Self::Karatsuba(geometry) => geometry.pack(filters, packed),
        }
    }

    /// Elements of scratch space for calls with up to `images` images.
    pub fn scratch_len<T: Element>(&self, images: usize) -> usize {
        match self {
            Self::Winograd(geometry) => geometry.scratch_len::<T>(images),
            Self::Karatsuba(geometry) => geometry.scratch_len::<T>(images),
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
            Self::Karatsuba(geometry) => geometry.run(images, x, packed, y, accumulate, scratch),
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
            Self::Karatsuba(geometry) => geometry.gradient(images, x, dy, gradient, scratch),
        }
    }
}
