//! Memory of a run: borrowed from a workspace that outlives executors, and laid out once per run.
//!
//! Fresh memory costs a page fault every few thousand bytes, which for networks that run once is as much as a
//! tenth of their time. A workspace keeps what was returned: at most as many blocks as were ever out together.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plan::Plan;
use crate::kernels::{Buffer, Element};

/// Memory that native executors borrow while they run; clones share it. Executors of different networks, also on
/// several threads, may use the same workspace.
#[derive(Clone, Debug)]
pub struct Workspace<T> {
    shelves: Arc<Shelves<T>>,
}

#[derive(Debug)]
struct Shelves<T> {
    /// One block per run.
    runs: Mutex<Vec<Buffer<T>>>,
    /// One block per worker.
    workers: Mutex<Vec<Buffer<T>>>,
}

impl<T: Element> Default for Workspace<T> {
    fn default() -> Self {
        Self { shelves: Arc::new(Shelves { runs: Mutex::default(), workers: Mutex::default() }) }
    }
}

impl<T: Element> Workspace<T> {
    /// Bytes that lie ready.
    pub fn idle_bytes(&self) -> usize {
        let bytes =
            |shelf: &Mutex<Vec<Buffer<T>>>| lock(shelf).iter().map(|b| size_of_val::<[T]>(b)).sum::<usize>();
        bytes(&self.shelves.runs) + bytes(&self.shelves.workers)
    }

    /// A block of at least `len` elements for a run; contents do not matter.
    pub(super) fn for_run(&self, len: usize) -> Loan<'_, T> {
        Loan::of(&self.shelves.runs, len)
    }

    /// A block of at least `len` elements for a worker.
    pub(super) fn for_worker(&self, len: usize) -> Loan<'_, T> {
        Loan::of(&self.shelves.workers, len)
    }
}

fn lock<T>(shelf: &Mutex<Vec<Buffer<T>>>) -> MutexGuard<'_, Vec<Buffer<T>>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A borrowed block; goes back when dropped.
pub(super) struct Loan<'a, T> {
    shelf: &'a Mutex<Vec<Buffer<T>>>,
    block: Buffer<T>,
}

impl<'a, T: Element> Loan<'a, T> {
    /// The smallest idle block that fits, of equal ones the last returned, which is the warmest. If none fits, the
    /// largest is replaced.
    fn of(shelf: &'a Mutex<Vec<Buffer<T>>>, len: usize) -> Self {
        let block = {
            let mut idle = lock(shelf);
            let fitting =
                (0..idle.len()).rev().filter(|&i| idle[i].len() >= len).min_by_key(|&i| idle[i].len());
            if fitting.is_none()
                && let Some(largest) = (0..idle.len()).max_by_key(|&i| idle[i].len())
            {
                idle.swap_remove(largest);
            }
            fitting.map(|i| idle.remove(i))
        };
        // Some room to spare, so that slightly larger networks need no other block; untouched pages cost nothing.
        let block =
            block.unwrap_or_else(|| Buffer::zeros(len.next_multiple_of((len / 8).next_power_of_two())));
        Self { shelf, block }
    }
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        lock(self.shelf).push(std::mem::replace(&mut self.block, Buffer::none()));
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.block
    }
}

impl<T> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.block
    }
}

/// Lengths of the parts of a run's block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Batch buffers.
    pub buffers: usize,
    /// Packed weights.
    pub packed: usize,
    /// `[2, C]` of each batch norm: mean and reciprocal deviation.
    pub statistics: usize,
    /// `[3, C]` of each batch norm: coefficients of the gradient.
    pub coefficients: usize,
    /// `[image, channels of the stage]`.
    pub moments: usize,
    /// `[shard, gradients of parameters of the stage]`.
    pub partials: usize,
}

impl Layout {
    /// For `count` images, `packed` weights and `channels` of batch norms.
    pub(super) fn new(plan: &Plan, count: usize, packed: usize, channels: usize) -> Self {
        Self {
            buffers: plan.batch_len * count,
            packed,
            statistics: 2 * channels,
            coefficients: 3 * channels,
            moments: plan.moments() * count,
            partials: plan.partials(),
        }
    }

    fn parts(&self) -> [usize; 6] {
        // Each starts at a cache line.
        [self.buffers, self.packed, self.statistics, self.coefficients, self.moments, self.partials]
            .map(|len| len.next_multiple_of(16))
    }

    /// Elements in all.
    pub(super) fn len(&self) -> usize {
        self.parts().iter().sum()
    }

    /// Buffers, packed weights, statistics, coefficients, moments, partials.
    pub(super) fn split<'a, T>(&self, mut block: &'a mut [T]) -> [&'a mut [T]; 6] {
        self.parts().map(|len| {
            let (part, rest) = std::mem::take(&mut block).split_at_mut(len);
            block = rest;
            part
        })
    }
}

/// A pointer that workers on disjoint ranges share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: ranges handed out by `slice_mut` to different workers are disjoint (its contract).
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// A range for reading.
    ///
    /// # Safety
    /// Nobody writes to the range while the result is in use.
    pub(super) unsafe fn slice(&self, first: usize, len: usize) -> &'a [T] {
        assert!(first + len <= self.len, "range {first}+{len} outside of {}", self.len);
        // SAFETY: in bounds; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(first), len) }
    }

    /// A range for writing.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the result is in use.
    pub(super) unsafe fn slice_mut(&self, first: usize, len: usize) -> &'a mut [T] {
        assert!(first + len <= self.len, "range {first}+{len} outside of {}", self.len);
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

impl<T: Copy> Shared<'_, T> {
    /// An element.
    ///
    /// # Safety
    /// Nobody writes to it meanwhile.
    #[inline]
    pub(super) unsafe fn get(&self, at: usize) -> T {
        assert!(at < self.len, "element {at} outside of {}", self.len);
        // SAFETY: in bounds; not written by the caller's promise.
        unsafe { *self.start.add(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_blocks_serve_again_and_none_piles_up() {
        let workspace = Workspace::<f32>::default();
        let first = workspace.for_run(1000).as_ptr();
        assert_eq!(workspace.for_run(900).as_ptr(), first, "a returned block goes out again");
        {
            let a = workspace.for_run(1000);
            let b = workspace.for_run(10);
            assert_ne!(a.as_ptr(), b.as_ptr());
            assert_eq!(workspace.idle_bytes(), 0);
        }
        let two = workspace.idle_bytes();
        for len in 1..100 {
            drop(workspace.for_run(10 * len));
        }
        assert_eq!(workspace.idle_bytes(), two, "what fits is reused");
        drop(workspace.for_run(5000));
        let grown = workspace.idle_bytes();
        assert!((20_000..24_000).contains(&grown), "the larger block replaced one of two: {grown}");
        assert!(workspace.for_worker(7).len() >= 7);
    }

    #[test]
    fn parts_are_disjoint_and_start_at_cache_lines() {
        let layout =
            Layout { buffers: 33, packed: 16, statistics: 2, coefficients: 3, moments: 0, partials: 17 };
        let mut block = vec![0u8; layout.len()];
        for (number, part) in layout.split(&mut block).into_iter().enumerate() {
            part.fill(number as u8 + 1);
        }
        let starts: Vec<usize> = (1..=6).filter_map(|n| block.iter().position(|&byte| byte == n)).collect();
        assert_eq!(starts, [0, 48, 64, 80, 96]);
        assert_eq!(block.len(), 128);
    }
}
