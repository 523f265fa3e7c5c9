//! Places in memory for buffers whose lifetimes are known: in come lengths and last uses, in the order of the first
//! uses, out go offsets.

use std::collections::BTreeMap;

/// Assigns offsets; freed ranges are merged and reused, smallest fitting first.
#[derive(Default)]
pub(super) struct Arena {
    /// Elements in all.
    pub len: usize,
    /// Free ranges by start.
    free: BTreeMap<usize, usize>,
    /// Taken ranges: last use, start, length.
    taken: Vec<(usize, usize, usize)>,
}

impl Arena {
    /// Frees ranges whose last use lies before `now`.
    pub(super) fn release_before(&mut self, now: usize) {
        let (keep, done): (Vec<_>, Vec<_>) = self.taken.drain(..).partition(|&(last, _, _)| last >= now);
        self.taken = keep;
        for (_, start, length) in done {
            self.free.insert(start, length);
        }
        let mut merged: BTreeMap<usize, usize> = BTreeMap::new();
        for (&start, &length) in &self.free {
            match merged.last_entry() {
                Some(mut last) if last.key() + last.get() == start => *last.get_mut() += length,
                _ => {
                    merged.insert(start, length);
                }
            }
        }
        self.free = merged;
    }

    /// A range of `length` elements that is in use until `last`.
    pub(super) fn take(&mut self, length: usize, last: usize) -> usize {
        let fitting = self.free.iter().filter(|&(_, &free)| free >= length).min_by_key(|&(_, &free)| free);
        let start = match fitting.map(|(&start, &free)| (start, free)) {
            Some((start, free)) => {
                self.free.remove(&start);
                if free > length {
                    self.free.insert(start + length, free - length);
                }
                start
            }
            None => {
                let start = self.len;
                self.len += length;
                start
            }
        };
        self.taken.push((last, start, length));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_reused_only_after_their_last_use() {
        let mut arena = Arena::default();
        let a = arena.take(10, 1);
        let b = arena.take(5, 2);
        arena.release_before(1);
        let c = arena.take(10, 3);
        assert_eq!((a, b, c), (0, 10, 15));
        arena.release_before(3);
        assert_eq!(arena.take(15, 4), 0, "neighbouring ranges merge");
        assert_eq!(arena.len, 25);
    }
}
