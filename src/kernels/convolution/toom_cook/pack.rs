//! The transform of weights.

use super::super::Filters;
use super::points::Points;
use super::{MOST_TAPS, ToomCook};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Most lanes of a vector.
const MOST_LANES: usize = 16;

/// Transforms weights to packed matrices, one for each point and group of lines.
pub(super) struct Pack<'a, T, const P: usize> {
    pub(super) geometry: &'a ToomCook,
    pub(super) filters: Filters<'a, T>,
    pub(super) packed: &'a mut [T],
}

impl<T: Element, const P: usize> Kernel<T> for Pack<'_, T, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let ToomCook { inputs, outputs, rows, taps, .. } = *self.geometry;
        let Filters { weight, input: across, output: along, reversed } = self.filters;
        let packing = self.geometry.packing::<T>();
        let point = self.geometry.weight_stride::<T>(&packing);
        let all = rows * taps;
        // The taps of a vector's channels, a tap's side by side.
        let mut gathered = [T::zero(); MOST_TAPS * MOST_LANES];
        for (block, line) in (0..packing.blocks).flat_map(|block| (0..rows).map(move |line| (block, line))) {
            let first_tap = if reversed { all - taps - line * taps } else { line * taps };
            let start = self.geometry.weight_line(&packing, line, block);
            for (input, within) in (0..inputs)
                .flat_map(|input| (0..packing.width).step_by(V::N).map(move |within| (input, within)))
            {
                let first = block * packing.width + within;
                let there = outputs.saturating_sub(first).min(V::N);
                for j in 0..there {
                    let source =
                        &weight[input * across + (first + j) * along + first_tap..][..Points::<P>::TAPS];
                    for (t, &tap) in source.iter().enumerate() {
                        let t = if reversed { Points::<P>::TAPS - 1 - t } else { t };
                        gathered[t * V::N + j] = tap;
                    }
                }
                for slots in gathered.chunks_exact_mut(V::N) {
                    slots[there..].fill(T::zero());
                }
                let start = start + input * packing.width + within;
                // SAFETY: vectors have at most 16 lanes; the room was checked by `ToomCook::pack`.
                unsafe {
                    let mut g = [V::splat(T::zero()); P];
                    for (t, g) in g.iter_mut().enumerate().take(Points::<P>::TAPS) {
                        *g = V::load(gathered.as_ptr().add(t * V::N));
                    }
                    for (p, value) in Points::<P>::taps::<T, V>(g).into_iter().enumerate() {
                        value.store(self.packed.as_mut_ptr().add(p * point + start));
                    }
                }
            }
        }
    }
}
