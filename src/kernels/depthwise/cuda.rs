//! The CUDA kernel of depthwise convolutions, as a program for a device; see `planes.cu`.
//!
//! In: the shape of the images and the window. Out: the [`Program`] of the forward pass, f32: one launch, where candle's
//! ops would take three for every tap.

use crate::kernels::program::{Argument, Buffer, Launch, Program, Source};
use crate::{Error, Result};

/// A depthwise convolution of `x [C, N, H, W]`; pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Channels.
    pub channels: usize,
    /// Images.
    pub images: usize,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// Height and width of the result.
    pub out: [usize; 2],
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Its steps.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: [usize; 2],
    /// Distance of its taps.
    pub dilation: usize,
}

impl Planes {
    /// Length of the result.
    pub fn len(&self) -> usize {
        self.channels * self.images * self.out[0] * self.out[1]
    }

    /// Whether the result holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The result `[C, N, OH, OW]` of images and weights `[C, kH, kW]`, with `threads` (at most 256) in a block.
///
/// # Errors
/// If there are too many values for the kernel's indices.
pub fn forward(planes: &Planes, threads: u32) -> Result<Program> {
    let Planes { channels, images, size, out, kernel, stride, padding, dilation } = *planes;
    let pixels = channels * images * size[0] * size[1];
    if pixels.max(planes.len()) > i32::MAX as usize {
        let found = pixels.max(planes.len());
        return Err(Error::Tensor(format!("depthwise convolution on a GPU: {found} values are too many")));
    }
    let pairs = [size, out, kernel, stride, padding];
    let mut window = vec![images as u32];
    window.extend(pairs.as_flattened().iter().map(|&number| number as u32));
    window.push(dilation as u32);
    let mut program = Program::default();
    let arguments = vec![
        program.buffer(Buffer::Input(pixels)),
        program.buffer(Buffer::Input(channels * kernel[0] * kernel[1])),
        program.buffer(Buffer::Table(window.into())),
        program.buffer(Buffer::Output(planes.len())),
        Argument::Number(planes.len() as u32),
    ];
    if !planes.is_empty() {
        program.launches.push(Launch {
            source: Source { name: "depthwise", texts: &[include_str!("planes.cu")], defines: Vec::new() },
            kernel: "depthwise_planes",
            grid: [planes.len().div_ceil(threads as usize) as u32, 1],
            threads,
            shared_bytes: 0,
            arguments,
        });
    }
    Ok(program)
}
