//! Element types of the kernels that are candle ops, and access to candle's storage.

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
