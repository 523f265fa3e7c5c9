//! AVX2 and AVX-512 vectors.

use std::arch::x86_64::*;

use super::{Kernel, Lanes};

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

macro_rules! lanes {
    ($name:ident, $raw:ty, $element:ty, $n:literal, $registers:literal, $doc:literal,
     $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $div:ident, $larger:ident,
     |$kept:ident, $sign:ident| $positive:expr,
     |$source:ident, $count:ident| $load_part:expr,
     |$value:ident, $target:ident, $stored:ident| $store_part:expr,
     |$left:ident, $right:ident| $max:expr,
     |$scaled:ident, $power:ident| $times_power:expr,
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
    // The instruction gives the second operand if either is NaN.
    |a, b| _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)),
    |x, n| {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
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
    // The instruction gives the second operand if either is NaN.
    |a, b| _mm256_blendv_pd(_mm256_max_pd(a, b), a, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, a)),
    |x, n| {
        let exponent = _mm256_cvtepi32_epi64(_mm_add_epi32(_mm256_cvtpd_epi32(n), _mm_set1_epi32(1023)));
        _mm256_mul_pd(x, _mm256_castsi256_pd(_mm256_slli_epi64::<52>(exponent)))
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
    |a, b| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), _mm512_max_ps(a, b), a),
    |x, n| _mm512_scalef_ps(x, n),
    |a, b, x, y| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), y, x)
);
