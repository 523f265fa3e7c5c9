//! The transform of weights.

use super::{Filters, Winograd};
use crate::kernels::lanes::{Element, Kernel, Lanes};

/// Points of three taps: `G g`.
#[inline(always)]
unsafe fn tap_points<T: Element, V: Lanes<T>>(g: [V; 3]) -> [V; 4] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (half, zero) = (V::splat(T::constant(0.5)), V::splat(T::zero()));
        let (sum, middle) = (half.mul_add(g[0].add(g[2]), zero), half.mul_add(g[1], zero));
        [g[0], sum.add(middle), sum.sub(middle), g[2]]
    }
}

/// Transforms weights.
pub(super) struct Pack<'a, T> {
    pub geometry: &'a Winograd,
    pub filters: Filters<'a, T>,
    pub packed: &'a mut [T],
}

impl<T: Element> Kernel<T> for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Winograd { inputs, outputs, .. } = *self.geometry;
        let Filters { weight, input: across, output: along, reversed } = self.filters;
        let packing = self.geometry.packing::<T>();
        let point = packing.len(inputs);
        // Nine taps of up to 16 channels.
        let mut gathered = [T::zero(); 9 * 16];
        for first in (0..packing.blocks * packing.width).step_by(V::N) {
            let (block, within) = (first / packing.width, first % packing.width);
            for input in 0..inputs {
                for j in 0..V::N {
                    let output = first + j;
                    if output < outputs {
                        let taps = &weight[input * across + output * along..][..9];
                        for (t, &tap) in taps.iter().enumerate() {
                            let t = if reversed { 8 - t } else { t };
                            gathered[t * V::N + j] = tap;
                        }
                    } else {
                        for t in 0..9 {
                            gathered[t * V::N + j] = T::zero();
                        }
                    }
                }
                let start = (block * inputs + input) * packing.width + within;
                // SAFETY: vectors have at most 16 lanes; the room was checked by `Winograd::pack`.
                unsafe {
                    let mut rows = [[V::splat(T::zero()); 4]; 3];
                    for (y, row) in rows.iter_mut().enumerate() {
                        let source = gathered.as_ptr().add(3 * y * V::N);
                        let taps =
                            [V::load(source), V::load(source.add(V::N)), V::load(source.add(2 * V::N))];
                        *row = tap_points(taps);
                    }
                    for x in 0..4 {
                        let column = tap_points([rows[0][x], rows[1][x], rows[2][x]]);
                        for (y, value) in column.into_iter().enumerate() {
                            value.store(self.packed.as_mut_ptr().add((4 * y + x) * point + start));
                        }
                    }
                }
            }
        }
    }
}
