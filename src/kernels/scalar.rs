//! Element types of the kernels that are candle ops, and access to candle's storage.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, Layout, WithDType};

/// A tensor's element: f32 or f64.
pub(super) trait Scalar: WithDType + num_traits::Float + Default + std::iter::Sum {}

impl Scalar for f32 {}
impl Scalar for f64 {}

/// The elements of a contiguous CPU tensor.
pub(super) fn contiguous<'a, T: WithDType>(
    op: &'static str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg(format!("{op}: contiguous tensors expected")))?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// A vector whose elements `write` sets; large results need not be zeroed first.
///
/// # Safety
/// `write` must set every element.
pub(super) unsafe fn written<T: Copy>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller vouches for the elements.
    unsafe { values.set_len(len) };
    values
}

/// Sets every element to `value`.
pub(super) fn fill<T: Copy>(slots: &mut [MaybeUninit<T>], value: T) -> &mut [T] {
    slots.fill(MaybeUninit::new(value));
    // SAFETY: all elements were just set, and `MaybeUninit<T>` is laid out as `T`.
    unsafe { &mut *(std::ptr::from_mut(slots) as *mut [T]) }
}
