//! Depthwise convolutions of stride 1 over images without padding: every vector that is loaded serves all taps of a
//! kernel row, and taps outside of the image are skipped.

use crate::kernels::columns::PIXELS;
use crate::kernels::convolution::{load, store, vectors};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Outputs of a tile of the forward pass.
const TILE: usize = 8;

/// Repeats `work` for each `j` below `span`, at most 16, without a loop: sums stay in registers only if their
/// indices are constants.
macro_rules! unrolled {
    ($j:ident < $span:expr, $work:block) => {
        unrolled!(@ $j, $span, $work, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $j:ident, $span:expr, $work:block, $($value:literal)*) => {
        $({
            const $j: usize = $value;
            if $j < $span $work
        })*
    };
}

/// Geometry of a depthwise convolution of stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    /// Rows and columns of the kernel: 3 or 5.
    kernel: usize,
    /// Distance of taps: 1 or 2.
    dilation: usize,
    /// Size of the image.
    input: [usize; 2],
    /// Size of the result.
    output: [usize; 2],
    /// Rows and columns of zeros before the image.
    padding: [usize; 2],
    channels: usize,
}

impl Sliding {
    /// The geometry, if there is a kernel for it.
    pub fn new(
        kernel: [usize; 2],
        dilation: usize,
        input: [usize; 2],
        output: [usize; 2],
        padding: [usize; 2],
        channels: usize,
    ) -> Option<Self> {
        let extent = (kernel[0].max(1) - 1) * dilation;
        let known = kernel[0] == kernel[1] && [3, 5].contains(&kernel[0]) && [1, 2].contains(&dilation);
        let fits = (0..2)
            .all(|axis| padding[axis] <= extent && output[axis] + extent <= input[axis] + 2 * padding[axis]);
        (known && fits).then_some(Self { kernel: kernel[0], dilation, input, output, padding, channels })
    }

    /// The gradient by the image: a convolution of the result's gradient with the taps reversed.
    pub fn back(&self) -> Self {
        let extent = (self.kernel - 1) * self.dilation;
        Self {
            input: self.output,
            output: self.input,
            padding: self.padding.map(|padding| extent - padding),
            ..*self
        }
    }

    fn check<T>(&self, x: &[T], y: &[T], weight: &[T]) {
        assert!(x.len() >= self.input[0] * self.input[1] * self.channels, "image too short");
        assert!(y.len() >= self.output[0] * self.output[1] * self.channels, "result too short");
        assert!(weight.len() >= self.kernel * self.kernel * self.channels, "weights too short");
    }

    /// `y (+)=` the convolution of an image with `weight [taps, channels]`, taken in reverse if told.
    pub fn run<T: Element>(&self, x: &[T], weight: &[T], reversed: bool, y: &mut [T], accumulate: bool) {
        self.check(x, y, weight);
        T::dispatch(Forward { geometry: self, x, weight, reversed, y, accumulate });
    }

    /// Adds the gradient of the weights to `gradient [taps, channels]`.
    pub fn gradient<T: Element>(&self, x: &[T], dy: &[T], gradient: &mut [T]) {
        self.check(x, dy, gradient);
        T::dispatch(Gradient { geometry: self, x, dy, gradient });
    }

    /// Elements from the start of the image to the element under tap zero of an output; may lie before the image.
    #[inline(always)]
    fn start(&self, row: usize, column: usize) -> isize {
        let row = row as isize - self.padding[0] as isize;
        let column = column as isize - self.padding[1] as isize;
        (row * self.input[1] as isize + column) * self.channels as isize
    }

    /// Whether kernel row `tap` of an output row meets the image.
    #[inline(always)]
    fn meets(&self, row: usize, tap: usize) -> bool {
        (row + tap * self.dilation).wrapping_sub(self.padding[0]) < self.input[0]
    }

    /// Of `span` pixels under an output, the range that lies in the image.
    #[inline(always)]
    fn inside(&self, column: usize, span: usize) -> (usize, usize) {
        let first = self.padding[1].saturating_sub(column).min(span);
        let end = (self.input[1] + self.padding[1]).saturating_sub(column).min(span);
        (first, end.max(first))
    }
}

struct Forward<'a, T> {
    geometry: &'a Sliding,
    x: &'a [T],
    weight: &'a [T],
    reversed: bool,
    y: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Kernel<T> for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            match (self.geometry.kernel, self.geometry.dilation) {
                (3, 1) => self.rows::<V, 3, 1>(),
                (3, _) => self.rows::<V, 3, 2>(),
                (_, 1) => self.rows::<V, 5, 1>(),
                _ => self.rows::<V, 5, 2>(),
            }
        }
    }
}

impl<T: Element> Forward<'_, T> {
    #[inline(always)]
    unsafe fn rows<V: Lanes<T>, const K: usize, const D: usize>(&mut self) {
        let Sliding { output: [height, width], channels, .. } = *self.geometry;
        for row in 0..height {
            vectors::<T, V>(
                channels,
                #[inline(always)]
                |channel, part| {
                    let mut column = 0;
                    while column < width {
                        let left = width - column;
                        // SAFETY: tiles end at the last column.
                        unsafe {
                            if left >= TILE {
                                self.tile::<V, K, D, TILE>(row, column, channel, part);
                                column += TILE;
                            } else if left >= 4 {
                                self.tile::<V, K, D, 4>(row, column, channel, part);
                                column += 4;
                            } else {
                                self.tile::<V, K, D, 1>(row, column, channel, part);
                                column += 1;
                            }
                        }
                    }
                },
            );
        }
    }

    /// `M` outputs of a row and a vector of channels.
    #[inline(always)]
    unsafe fn tile<V: Lanes<T>, const K: usize, const D: usize, const M: usize>(
        &mut self,
        row: usize,
        column: usize,
        channel: usize,
        part: usize,
    ) {
        let geometry = self.geometry;
        let channels = geometry.channels;
        let span = M + (K - 1) * D;
        let (first, end) = geometry.inside(column, span);
        // SAFETY: pixels `first..end` of kernel rows that meet the image lie in it, see `Sliding::check`; partial
        // accesses stop at the last channel.
        unsafe {
            let mut sums = [V::splat(T::zero()); M];
            let x = self.x.as_ptr().wrapping_offset(geometry.start(row, column)).wrapping_add(channel);
            for tap in 0..K {
                if !geometry.meets(row, tap) {
                    continue;
                }
                let mut weights = [V::splat(T::zero()); K];
                for (k, weight) in weights.iter_mut().enumerate() {
                    let t = tap * K + k;
                    let t = if self.reversed { K * K - 1 - t } else { t };
                    *weight = load(self.weight.as_ptr().add(t * channels + channel), part);
                }
                let x = x.wrapping_add(tap * D * geometry.input[1] * channels);
                if end - first == span {
                    unrolled!(J < span, {
                        let x = load(x.wrapping_add(J * channels), part);
                        slide::<T, V, K, D, M>(J, x, &weights, &mut sums);
                    });
                } else {
                    unrolled!(J < span, {
                        if (first..end).contains(&J) {
                            let x = load(x.wrapping_add(J * channels), part);
                            slide::<T, V, K, D, M>(J, x, &weights, &mut sums);
                        }
                    });
                }
            }
            let y = self.y.as_mut_ptr().add((row * geometry.output[1] + column) * channels + channel);
            for (m, sum) in sums.into_iter().enumerate() {
                let y = y.add(m * channels);
                let sum = if self.accumulate { sum.add(load(y, part)) } else { sum };
                store(sum, y, part);
            }
        }
    }
}

/// Pixel `j` meets the outputs `j - k D`.
#[inline(always)]
unsafe fn slide<T, V: Lanes<T>, const K: usize, const D: usize, const M: usize>(
    j: usize,
    x: V,
    weights: &[V; K],
    sums: &mut [V; M],
) {
    for k in 0..K {
        let m = j.wrapping_sub(k * D);
        if m < M {
            // SAFETY: the caller vouches for the instruction set.
            sums[m] = unsafe { x.mul_add(weights[k], sums[m]) };
        }
    }
}

struct Gradient<'a, T> {
    geometry: &'a Sliding,
    x: &'a [T],
    dy: &'a [T],
    gradient: &'a mut [T],
}

impl<T: Element> Kernel<T> for Gradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(mut self) {
        let (kernel, dilation) = (self.geometry.kernel, self.geometry.dilation);
        vectors::<T, V>(
            self.geometry.channels,
            #[inline(always)]
            |channel, part| {
                // As many kernel rows at once as registers hold sums; the outputs at a time are measured.
                // SAFETY: the instruction set is the caller's promise; kernel rows stay below the kernel's size.
                unsafe {
                    match (kernel, dilation, V::REGISTERS >= 32) {
                        (3, 1, _) => self.taps::<V, 3, 1, 3, 4>(channel, part, 0),
                        (3, _, _) => self.taps::<V, 3, 2, 3, 4>(channel, part, 0),
                        (_, 1, true) => self.taps::<V, 5, 1, 5, 2>(channel, part, 0),
                        (_, _, true) => self.taps::<V, 5, 2, 5, 1>(channel, part, 0),
                        (_, 1, false) => {
                            self.taps::<V, 5, 1, 2, 4>(channel, part, 0);
                            self.taps::<V, 5, 1, 2, 4>(channel, part, 2);
                            self.taps::<V, 5, 1, 1, 4>(channel, part, 4);
                        }
                        (_, _, false) => {
                            self.taps::<V, 5, 2, 2, 8>(channel, part, 0);
                            self.taps::<V, 5, 2, 2, 8>(channel, part, 2);
                            self.taps::<V, 5, 2, 1, 8>(channel, part, 4);
                        }
                    }
                }
            },
        );
    }
}

impl<T: Element> Gradient<'_, T> {
    /// Kernel rows `tap..tap + R` of a vector of channels, `M` outputs at a time.
    #[inline(always)]
    unsafe fn taps<V: Lanes<T>, const K: usize, const D: usize, const R: usize, const M: usize>(
        &mut self,
        channel: usize,
        part: usize,
        tap: usize,
    ) {
        let [height, width] = self.geometry.output;
        // A block of rows in registers: in single precision longer sums lose digits.
        let rows = (PIXELS / width.max(1)).max(1);
        for first in (0..height).step_by(rows) {
            // SAFETY: see the methods.
            unsafe {
                let mut sums = [[V::splat(T::zero()); K]; R];
                for row in first..height.min(first + rows) {
                    let mut column = 0;
                    while column + M <= width {
                        self.outputs::<V, K, D, R, M>(row, column, [channel, part], tap, &mut sums);
                        column += M;
                    }
                    while column < width {
                        self.outputs::<V, K, D, R, 1>(row, column, [channel, part], tap, &mut sums);
                        column += 1;
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    for (k, sum) in sums.into_iter().enumerate() {
                        let t = (tap + r) * K + k;
                        let target = self.gradient.as_mut_ptr().add(t * self.geometry.channels + channel);
                        store(sum.add(load(target, part)), target, part);
                    }
                }
            }
        }
    }

    /// What `M` outputs of a row add.
    #[inline(always)]
    unsafe fn outputs<V: Lanes<T>, const K: usize, const D: usize, const R: usize, const M: usize>(
        &self,
        row: usize,
        column: usize,
        [channel, part]: [usize; 2],
        tap: usize,
        sums: &mut [[V; K]; R],
    ) {
        let geometry = self.geometry;
        let channels = geometry.channels;
        let span = M + (K - 1) * D;
        let (first, end) = geometry.inside(column, span);
        // SAFETY: as in `Forward::tile`.
        unsafe {
            let mut dy = [V::splat(T::zero()); M];
            let source = self.dy.as_ptr().add((row * geometry.output[1] + column) * channels + channel);
            for (m, dy) in dy.iter_mut().enumerate() {
                *dy = load(source.add(m * channels), part);
            }
            let x = self.x.as_ptr().wrapping_offset(geometry.start(row, column)).wrapping_add(channel);
            for r in 0..R {
                if !geometry.meets(row, tap + r) {
                    continue;
                }
                let x = x.wrapping_add((tap + r) * D * geometry.input[1] * channels);
                if end - first == span {
                    unrolled!(J < span, {
                        let x = load(x.wrapping_add(J * channels), part);
                        gather::<T, V, K, D, M>(J, x, &dy, &mut sums[r]);
                    });
                } else {
                    unrolled!(J < span, {
                        if (first..end).contains(&J) {
                            let x = load(x.wrapping_add(J * channels), part);
                            gather::<T, V, K, D, M>(J, x, &dy, &mut sums[r]);
                        }
                    });
                }
            }
        }
    }
}

/// Pixel `j` met the outputs `j - k D`.
#[inline(always)]
unsafe fn gather<T, V: Lanes<T>, const K: usize, const D: usize, const M: usize>(
    j: usize,
    x: V,
    dy: &[V; M],
    sums: &mut [V; K],
) {
    for k in 0..K {
        let m = j.wrapping_sub(k * D);
        if m < M {
            // SAFETY: the caller vouches for the instruction set.
            sums[k] = unsafe { x.mul_add(dy[m], sums[k]) };
        }
    }
}
