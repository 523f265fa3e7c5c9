//! Attention with heads of a few channels: scores live in registers only, and the softmax takes as long as the products.
//!
//! In vectors lie neighbouring positions, queries in the forward pass and keys in the backward pass; they meet all
//! positions of the other kind one after the other. Exponentials are powers of two, whose factor the vectors contain.
//! Where no score can be large (*calm* heads) none is subtracted before the exponential. The backward pass is that of
//! FlashAttention (arXiv 2205.14135, algorithm 4): it knows the sums of the exponentials from the forward pass, and that
//! the sum of `p dp` over keys is the product of a query's result and its gradient.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use self::backward::Backward;
use self::forward::Forward;
use super::{Attention, Part};
use crate::kernels::lanes::{Element, vectorized};

/// Most channels of a head.
const WIDEST: usize = 16;

/// Lanes of the widest vector.
const LANES: usize = 16;

/// Largest score, as a power of two, that is not subtracted: sums and their reciprocals, times values or gradients, keep
/// away from the ends of single precision, and no probability is as low as [`lowest`](super::lowest).
const CALM: f64 = 28.0;
/// Largest value that may meet such an exponential.
const MODEST: f64 = (1u64 << 40) as f64;

/// Queries whose gradients lie in the innermost cache, times channels.
const TILE: usize = 256;

/// Attention of one image; see the module.
#[derive(Clone, Copy)]
struct Narrow {
    geometry: Attention,
    /// Positions in whole vectors of any machine.
    padded: usize,
    /// Channels that kernels compute, the last may be zero.
    width: usize,
}

/// Runs `$kernel` with its number of channels and `$block` positions at a time that meet the vectors.
macro_rules! by_width {
    ($kernel:ident, $width:expr, $heads:ident, $vectors:ident) => {
        match $width {
            2 => $kernel.$heads::<$vectors, 2, 4>(),
            3 => $kernel.$heads::<$vectors, 3, 2>(),
            4 => $kernel.$heads::<$vectors, 4, 1>(),
            8 => $kernel.$heads::<$vectors, 8, 8>(),
            _ => $kernel.$heads::<$vectors, WIDEST, 8>(),
        }
    };
}
use by_width;

/// `width` channels of each head and position, in memory that need not be dense.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: &'a [T],
    /// From position to position, and from head to head.
    steps: [usize; 2],
}

impl<T> Rows<'_, T> {
    /// The channels of a position.
    ///
    /// # Safety
    /// Head and position must exist.
    #[inline(always)]
    unsafe fn row(&self, head: usize, position: usize) -> *const T {
        // SAFETY: the caller's.
        unsafe { self.data.as_ptr().add(position * self.steps[0] + head * self.steps[1]) }
    }
}

/// Whether kernels of this module serve heads of `width` channels.
pub(super) fn serves<T: Element>(width: usize) -> bool {
    // With short vectors the products outweigh the exponentials earlier.
    width <= if T::lanes() < 8 { WIDEST / 2 } else { WIDEST }
}

/// Numbers that the forward pass keeps for the backward pass.
pub(super) fn sums_len(geometry: &Attention) -> usize {
    if geometry.width <= WIDEST { geometry.heads * geometry.tokens } else { 0 }
}

/// Elements of scratch space that both passes need.
pub(super) fn scratch_len(geometry: &Attention) -> usize {
    let narrow = Narrow::new(geometry);
    let rows = 2 * geometry.tokens * geometry.heads * narrow.width;
    narrow.maxima_len() + rows.max(narrow.backward_len()) + LANES
}

/// As [`Attention::run`].
pub(super) fn run<T: Element>(geometry: &Attention, x: &[T], y: &mut [T], sums: &mut [T], scratch: &mut [T]) {
    let narrow = Narrow::new(geometry);
    let (maxima, rest) = scratch.split_at_mut(narrow.maxima_len());
    narrow.maxima(x, maxima);
    let (keys, values) = rest.split_at_mut(geometry.tokens * geometry.heads * narrow.width);
    let [keys, values] =
        [(keys, Part::Keys), (values, Part::Values)].map(|(room, part)| narrow.rows(x, part, room));
    T::dispatch(Forward { narrow, maxima, x, keys, values, y, sums });
}

/// As [`Attention::gradient`].
pub(super) fn gradient<T: Element>(
    geometry: &Attention,
    x: &[T],
    [y, dy]: [&[T]; 2],
    sums: &[T],
    dx: &mut [T],
    scratch: &mut [T],
) {
    let narrow = Narrow::new(geometry);
    let (maxima, rest) = scratch.split_at_mut(narrow.maxima_len());
    narrow.maxima(x, maxima);
    // Vectors start at cache lines.
    let first = rest.as_ptr().align_offset(LANES * size_of::<T>()).min(LANES);
    let scratch = &mut rest[first..];
    T::dispatch(Backward { narrow, maxima, x, y, dy, sums, dx, scratch });
}

impl Narrow {
    fn new(geometry: &Attention) -> Self {
        let width = match geometry.width {
            0..=2 => 2,
            3 => 3,
            4 => 4,
            5..=8 => 8,
            _ => WIDEST,
        };
        Self { geometry: *geometry, padded: geometry.tokens.next_multiple_of(LANES), width }
    }

    fn inner(&self) -> usize {
        self.geometry.heads * self.geometry.width
    }

    /// Factor of the scores: theirs, and that of the logarithm to base two.
    fn scale(&self) -> f64 {
        std::f64::consts::LOG2_E / (self.geometry.width as f64).sqrt()
    }

    fn maxima_len(&self) -> usize {
        3 * self.inner()
    }

    /// Largest magnitude of each channel; NaN if one is.
    fn maxima<T: Element>(&self, x: &[T], maxima: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                maxima.fill(T::zero());
                for row in x.chunks_exact(maxima.len()) {
                    for (largest, x) in maxima.iter_mut().zip(row) {
                        let x = x.abs();
                        *largest = if (x > *largest) | x.is_nan() { x } else { *largest };
                    }
                }
            },
        );
    }

    /// Whether all scores of a head are small enough to be exponents, whatever the instruction set.
    fn is_calm<T: Element>(&self, maxima: &[T], head: usize) -> bool {
        let width = self.geometry.width;
        let part = |part: Part| &maxima[part as usize * self.inner() + head * width..][..width];
        let bound: f64 =
            part(Part::Queries).iter().zip(part(Part::Keys)).map(|(q, k)| q.double() * k.double()).sum();
        bound * self.scale() <= CALM && part(Part::Values).iter().all(|v| v.double() <= MODEST)
    }

    /// A part of the input as kernels read it: itself, or copied to `room` and filled up with zeros.
    fn rows<'a, T: Element>(&self, x: &'a [T], part: Part, room: &'a mut [T]) -> Rows<'a, T> {
        let Attention { heads, width, .. } = self.geometry;
        let inner = self.inner();
        if width == self.width {
            return Rows { data: &x[part as usize * inner..], steps: [3 * inner, width] };
        }
        for (row, x) in room.chunks_exact_mut(heads * self.width).zip(x.chunks_exact(3 * inner)) {
            let x = x[part as usize * inner..].chunks_exact(width);
            for (row, x) in row.chunks_exact_mut(self.width).zip(x) {
                row[..width].copy_from_slice(x);
                row[width..].fill(T::zero());
            }
        }
        Rows { data: room, steps: [heads * self.width, self.width] }
    }
}
