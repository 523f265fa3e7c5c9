//! Rows whose channels fill no whole vectors, two at a time: 24 channels are one and a half vectors of sixteen, two rows
//! of them three. What belongs to a channel is there twice.

use super::lanes::Element;

/// Most channels of rows that are taken two at a time.
const NARROW: usize = 64;

/// Whether two rows of `channels` are one of whole vectors, and a single one is not.
pub(super) fn pairs<T: Element>(channels: usize, elements: usize) -> bool {
    let whole = |channels: usize| channels.is_multiple_of(T::lanes());
    channels <= NARROW && !whole(channels) && whole(2 * channels) && elements.is_multiple_of(2 * channels)
}

/// Values of each channel for two rows.
#[derive(Clone, Copy)]
pub(super) struct Twice<T> {
    values: [T; 2 * NARROW],
    len: usize,
}

impl<T: Element> Twice<T> {
    /// Both rows get `values`.
    pub(super) fn of(values: &[T]) -> Self {
        let mut twice = Self::zeros(values.len());
        twice.values[..values.len()].copy_from_slice(values);
        twice.values[values.len()..twice.len].copy_from_slice(values);
        twice
    }

    /// Zeros of `channels`.
    pub(super) fn zeros(channels: usize) -> Self {
        Self { values: [T::zero(); 2 * NARROW], len: 2 * channels }
    }

    /// Adds up both rows.
    pub(super) fn sum(&self, sums: &mut [T]) {
        let (first, second) = self.values[..self.len].split_at(self.len / 2);
        for ((sum, &a), &b) in sums.iter_mut().zip(first).zip(second) {
            *sum = a + b;
        }
    }
}

impl<T> std::ops::Deref for Twice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T> std::ops::DerefMut for Twice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
    }
}

/// Coefficients `[3, C]` for two rows, `[3, 2 C]`.
pub(super) fn twice_each<T: Element>(coefficients: &[T], channels: usize) -> [T; 6 * NARROW] {
    let mut wide = [T::zero(); 6 * NARROW];
    for (target, values) in wide.chunks_exact_mut(2 * channels).zip(coefficients.chunks_exact(channels)) {
        target[..channels].copy_from_slice(values);
        target[channels..].copy_from_slice(values);
    }
    wide
}
