//! What the program's allocator does with freed memory.
//!
//! Predictions and gradients of a training step are large tensors that come and go. Given back to the operating system
//! they cost a page fault and a cleared page for every few thousand bytes of the next step.

use std::ffi::{c_int, c_long};

// Links the allocator's library, also where it is not the global allocator.
use mimalloc as _;

unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// mimalloc's `mi_option_purge_delay`: the same number in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;

/// Lets mimalloc keep freed memory for good, unless the environment variable `MIMALLOC_PURGE_DELAY` says otherwise. Call
/// it before other threads start.
pub fn keep_freed_memory() {
    // SAFETY: the function takes two numbers and no other thread runs yet; -1 means never.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}
