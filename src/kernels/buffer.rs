//! Memory that starts at a cache line: vectors that straddle two lines cost two accesses.

use std::ops::{Deref, DerefMut};

use super::lanes::Element;

/// Bytes of a cache line and of the widest vector.
const LINE: usize = 64;

/// A fixed number of elements, the first at the start of a cache line.
#[derive(Debug, Default)]
pub struct Buffer<T> {
    storage: Vec<T>,
    first: usize,
    len: usize,
}

impl<T: Element> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let storage = vec![T::zero(); len + LINE / size_of::<T>()];
        // The vector is never resized, so its memory stays where it is.
        let first = storage.as_ptr().align_offset(LINE).min(storage.len() - len);
        Self { storage, first, len }
    }
}

impl<T> Buffer<T> {
    /// No elements and no memory.
    pub fn none() -> Self {
        Self { storage: Vec::new(), first: 0, len: 0 }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.storage[self.first..self.first + self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.first..self.first + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_at_cache_lines() {
        for len in [0, 1, 7, 1000] {
            let buffer = Buffer::<f32>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % LINE, 0);
            let buffer = Buffer::<f64>::zeros(len);
            assert_eq!(buffer.as_ptr().addr() % LINE, 0);
        }
    }
}
