//! AVX2 and AVX-512 vectors.

use std::arch::x86_64::*;

use super::{Kernel, Lanes, put_strided, strided};

/// Compiles `work` with AVX2 and FMA.
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Compiles `work` with AVX-512.
///
/// # Safety
/// The machine must have it.
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
pub(super) unsafe fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Runs `kernel` with AVX2 vectors.
///
/// # Safety
/// The machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<T, V: Lanes<T>, K: Kernel<T>>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { kernel.run::<V>() }
}

/// Runs `kernel` with AVX-512 vectors.
///
/// # Safety
/// The machine must have AVX-512 F, VL, DQ and BW.
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
pub(super) unsafe fn run_avx512<T, V: Lanes<T>, K: Kernel<T>>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { kernel.run::<V>() }
}

/// Lane masks of AVX2: the sliding window `[N - count ..]` has `count` leading ones.
static MASK32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static MASK64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

/// `stride` times 0 to 15; 15 times it must fit 32 bits, as it does for rows of images.
///
/// # Safety
/// The machine must have AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiples(stride: usize) -> __m512i {
    debug_assert!(stride < 1 << 27);
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32))
}

macro_rules! lanes {
    ($name:ident, $raw:ty, $element:ty, $n:literal, $registers:literal, $doc:literal,
     $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $div:ident, $larger:ident,
     |$kept:ident, $sign:ident| $positive:expr,
     |$source:ident, $count:ident| $load_part:expr,
     |$value:ident, $target:ident, $stored:ident| $store_part:expr,
     |$strided:ident, $stride:ident, $number:ident| $load_strided:expr,
     |$spread:ident, $to:ident, $step:ident, $stores:ident| $store_strided:expr,
     |$left:ident, $right:ident| $max:expr,
     |$scaled:ident, $power:ident| $times_power:expr,
     |$whole:ident| $fraction:expr,
     |$rows:ident| $sums:expr,
     |$a:ident, $b:ident, $x:ident, $y:ident| $select_equal:expr) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(super) struct $name($raw);

        // SAFETY: the intrinsics touch exactly the elements that the contract names.
        unsafe impl Lanes<$element> for $name {
            const N: usize = $n;
            const REGISTERS: usize = $registers;

            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(source: *const $element) -> Self {
                // SAFETY: the caller vouches for the instruction set and the pointer.
                Self(unsafe { $load(source) })
            }

            #[inline(always)]
            unsafe fn load_part($source: *const $element, $count: usize) -> Self {
                // SAFETY: the caller vouches for the instruction set; masked lanes are not accessed.
                Self(unsafe { $load_part })
            }

            #[inline(always)]
            unsafe fn store(self, target: *mut $element) {
                // SAFETY: the caller vouches for the instruction set and the pointer.
                unsafe { $store(target, self.0) }
            }

            #[inline(always)]
            unsafe fn store_part(self, $target: *mut $element, $stored: usize) {
                let $value = self.0;
                // SAFETY: the caller vouches for the instruction set; masked lanes are not accessed.
                unsafe { $store_part }
            }

            #[inline(always)]
            unsafe fn load_strided($strided: *const $element, $stride: usize, $number: usize) -> Self {
                // SAFETY: the caller vouches for the instruction set; no other lanes are accessed.
                Self(unsafe { $load_strided })
            }

            #[inline(always)]
            unsafe fn store_strided(self, $to: *mut $element, $step: usize, $stores: usize) {
                let $spread = self.0;
                // SAFETY: the caller vouches for the instruction set; no other lanes are accessed.
                unsafe { $store_strided }
            }

            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $fma(self.0, b.0, c.0) })
            }

            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $add(self.0, b.0) })
            }

            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $sub(self.0, b.0) })
            }

            #[inline(always)]
            unsafe fn div(self, b: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $div(self.0, b.0) })
            }

            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                let ($left, $right) = (self.0, b.0);
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $max })
            }

            #[inline(always)]
            unsafe fn larger(self, b: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $larger(self.0, b.0) })
            }

            #[inline(always)]
            unsafe fn times_power(self, n: Self) -> Self {
                let ($scaled, $power) = (self.0, n.0);
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $times_power })
            }

            #[inline(always)]
            unsafe fn fraction(self) -> (Self, Self) {
                let $whole = self.0;
                // SAFETY: the caller vouches for the instruction set.
                let (fraction, n) = unsafe { $fraction };
                (Self(fraction), Self(n))
            }

            #[inline(always)]
            unsafe fn sums(source: *const $element) -> Self {
                // SAFETY: the caller vouches for the instruction set and the pointer.
                unsafe {
                    let mut $rows = [$splat(0.0); $n];
                    for (i, row) in $rows.iter_mut().enumerate() {
                        *row = $load(source.add($n * i));
                    }
                    Self($sums)
                }
            }

            #[inline(always)]
            unsafe fn select_equal(self, b: Self, x: Self, y: Self) -> Self {
                let ($a, $b, $x, $y) = (self.0, b.0, x.0, y.0);
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $select_equal })
            }

            #[inline(always)]
            unsafe fn rectified(self) -> Self {
                // SAFETY: the caller vouches for the instruction set. Of a NaN and a number, the second is taken.
                Self(unsafe { $larger($splat(0.0), self.0) })
            }

            #[inline(always)]
            unsafe fn where_positive(self, sign: Self) -> Self {
                let ($kept, $sign) = (self.0, sign.0);
                // SAFETY: the caller vouches for the instruction set.
                Self(unsafe { $positive })
            }
        }

        impl $name {
            /// Elements of a vector.
            pub(super) const N: usize = $n;
        }
    };
}

lanes!(
    F32x8,
    __m256,
    f32,
    8,
    16,
    "Eight `f32` with AVX2.",
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_div_ps,
    _mm256_max_ps,
    |kept, sign| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(sign, _mm256_setzero_ps()), kept),
    |source, count| _mm256_maskload_ps(source, _mm256_loadu_si256(MASK32.as_ptr().add(8 - count).cast())),
    |value, target, count| _mm256_maskstore_ps(
        target,
        _mm256_loadu_si256(MASK32.as_ptr().add(8 - count).cast()),
        value
    ),
    |source, stride, count| _mm256_loadu_ps(strided::<f32, 8>(source, stride, count).as_ptr()),
    |value, target, stride, count| {
        let mut lanes = [0.0; 8];
        _mm256_storeu_ps(lanes.as_mut_ptr(), value);
        put_strided(lanes, target, stride, count);
    },
    // The instruction gives the second operand if either is NaN.
    |a, b| _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)),
    |x, n| {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    },
    |x| {
        let floor = _mm256_floor_ps(x);
        (_mm256_sub_ps(x, floor), floor)
    },
    |rows| {
        let mut four = [rows[0]; 2];
        for (i, four) in four.iter_mut().enumerate() {
            let rows = &rows[4 * i..];
            *four = _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
        }
        let even = _mm256_permute2f128_ps::<0x20>(four[0], four[1]);
        _mm256_add_ps(even, _mm256_permute2f128_ps::<0x31>(four[0], four[1]))
    },
    |a, b, x, y| _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b))
);
lanes!(
    F64x4,
    __m256d,
    f64,
    4,
    16,
    "Four `f64` with AVX2.",
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_div_pd,
    _mm256_max_pd,
    |kept, sign| _mm256_and_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(sign, _mm256_setzero_pd()), kept),
    |source, count| _mm256_maskload_pd(source, _mm256_loadu_si256(MASK64.as_ptr().add(4 - count).cast())),
    |value, target, count| _mm256_maskstore_pd(
        target,
        _mm256_loadu_si256(MASK64.as_ptr().add(4 - count).cast()),
        value
    ),
    |source, stride, count| _mm256_loadu_pd(strided::<f64, 4>(source, stride, count).as_ptr()),
    |value, target, stride, count| {
        let mut lanes = [0.0; 4];
        _mm256_storeu_pd(lanes.as_mut_ptr(), value);
        put_strided(lanes, target, stride, count);
    },
    // The instruction gives the second operand if either is NaN.
    |a, b| _mm256_blendv_pd(_mm256_max_pd(a, b), a, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, a)),
    |x, n| {
        let exponent = _mm256_cvtepi32_epi64(_mm_add_epi32(_mm256_cvtpd_epi32(n), _mm_set1_epi32(1023)));
        _mm256_mul_pd(x, _mm256_castsi256_pd(_mm256_slli_epi64::<52>(exponent)))
    },
    |x| {
        let floor = _mm256_floor_pd(x);
        (_mm256_sub_pd(x, floor), floor)
    },
    |rows| {
        let (low, high) = (_mm256_hadd_pd(rows[0], rows[1]), _mm256_hadd_pd(rows[2], rows[3]));
        let even = _mm256_permute2f128_pd::<0x20>(low, high);
        _mm256_add_pd(even, _mm256_permute2f128_pd::<0x31>(low, high))
    },
    |a, b, x, y| _mm256_blendv_pd(y, x, _mm256_cmp_pd::<_CMP_EQ_OQ>(a, b))
);
lanes!(
    F32x16,
    __m512,
    f32,
    16,
    32,
    "Sixteen `f32` with AVX-512.",
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_div_ps,
    _mm512_max_ps,
    |kept, sign| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(sign, _mm512_setzero_ps()), kept),
    |source, count| _mm512_maskz_loadu_ps((1u16 << count).wrapping_sub(1), source),
    |value, target, count| _mm512_mask_storeu_ps(target, (1u16 << count).wrapping_sub(1), value),
    |source, stride, count| {
        let mask = ((1u32 << count) - 1) as u16;
        _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, multiples(stride), source)
    },
    |value, target, stride, count| {
        let mask = ((1u32 << count) - 1) as u16;
        _mm512_mask_i32scatter_ps::<4>(target, mask, multiples(stride), value);
    },
    |a, b| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), _mm512_max_ps(a, b), a),
    // Takes the floor of `n` itself.
    |x, n| _mm512_scalef_ps(x, n),
    // 9 rounds down and reports no inexact result.
    |x| (_mm512_reduce_ps::<9>(x), x),
    |rows| {
        // Halves of the sums of two rows side by side, then quarters of four, of eight, and all.
        for i in 0..8 {
            let (a, b) = (rows[2 * i], rows[2 * i + 1]);
            rows[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        }
        for i in 0..4 {
            let (a, b) = (rows[2 * i], rows[2 * i + 1]);
            rows[i] = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b));
        }
        for count in [2, 1] {
            for i in 0..count {
                let (a, b) = (rows[2 * i], rows[2 * i + 1]);
                rows[i] =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
        }
        rows[0]
    },
    |a, b, x, y| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), y, x)
);
