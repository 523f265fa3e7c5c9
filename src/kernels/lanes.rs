//! Vectors of the widest instruction set of the running machine.
//!
//! In: a kernel written once over [`Lanes`]. Out: that kernel compiled for AVX-512, AVX2 with FMA and the
//! baseline of the target; the best one that the machine has is chosen at run time. Loops that the compiler
//! vectorises by itself go through [`vectorized`].

use std::fmt::Debug;
use std::ops::{AddAssign, MulAssign, SubAssign};
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Floating-point type of the kernels.
pub trait Element:
    num_traits::Float
    + Default
    + Debug
    + Send
    + Sync
    + std::iter::Sum
    + AddAssign
    + MulAssign
    + SubAssign
    + 'static
{
    /// From a constant.
    fn constant(value: f64) -> Self;
    /// To double precision.
    fn double(self) -> f64;
    /// The error function; absolute error 1.5e-7 in `f32`, 1e-15 in `f64`.
    fn erf(self) -> Self;
    /// `e^x` in a form that vectorises; a few units in the last place, NaN stays NaN.
    fn exp_lane(self) -> Self;
    /// `2^n` for whole `n` from -126 to 127.
    fn power_of_two(n: Self) -> Self;
    /// Lanes of the vectors that [`Element::dispatch`] hands to kernels.
    fn lanes() -> usize;
    /// Runs `kernel` with the widest vectors of this machine.
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output;
}

/// A vector of `N` elements.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; pointers must be valid for the access.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Lanes<T>: Copy {
    /// Elements of a vector.
    const N: usize;
    /// Vector registers of the machine.
    const REGISTERS: usize;
    /// All lanes equal.
    unsafe fn splat(value: T) -> Self;
    /// `N` elements from `source`, of any alignment.
    unsafe fn load(source: *const T) -> Self;
    /// The first `count < N` elements from `source`, the other lanes zero.
    unsafe fn load_part(source: *const T, count: usize) -> Self;
    /// `N` elements to `target`, of any alignment.
    unsafe fn store(self, target: *mut T);
    /// The first `count < N` lanes to `target`.
    unsafe fn store_part(self, target: *mut T, count: usize);
    /// The first `count <= N` of the elements that lie `stride` apart from `source` on, the other lanes zero.
    unsafe fn load_strided(source: *const T, stride: usize, count: usize) -> Self;
    /// The first `count <= N` lanes to elements that lie `stride` apart from `target` on.
    unsafe fn store_strided(self, target: *mut T, stride: usize, count: usize);
    /// `self * b + c`, fused where the machine can.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`.
    unsafe fn sub(self, b: Self) -> Self;
    /// `self / b`.
    unsafe fn div(self, b: Self) -> Self;
    /// The larger one, or NaN if either is.
    unsafe fn max(self, b: Self) -> Self;
    /// The larger one, or `b` if either is NaN.
    unsafe fn larger(self, b: Self) -> Self;
    /// `self * 2^n` for whole `n` from -126 to 127.
    unsafe fn times_power(self, n: Self) -> Self;
    /// `self - n` from 0 to 1 for a whole `n`, and what [`Lanes::times_power`] takes as `n`.
    unsafe fn fraction(self) -> (Self, Self);
    /// Sums of `N` elements each: those from `source`, the `N` after them and so on.
    unsafe fn sums(source: *const T) -> Self;
    /// `x` in lanes where `self` equals `b`, `y` in the others.
    unsafe fn select_equal(self, b: Self, x: Self, y: Self) -> Self;
    /// Zero where negative; NaN stays.
    unsafe fn rectified(self) -> Self;
    /// `self` where `sign` is above zero, else zero.
    unsafe fn where_positive(self, sign: Self) -> Self;
}

/// Work over vectors of a type that is known only at run time.
pub trait Kernel<T> {
    /// What the work returns.
    type Output;
    /// Does the work.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`.
    unsafe fn run<V: Lanes<T>>(self) -> Self::Output;
}

/// An instruction set, poorer ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What the target guarantees.
    Baseline,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

#[cfg(test)]
thread_local! {
    static FORCED: std::cell::Cell<Option<Level>> = const { std::cell::Cell::new(None) };
}

/// The instruction sets of this machine.
#[cfg(test)]
pub(crate) fn levels() -> Vec<Level> {
    #[cfg(target_arch = "x86_64")]
    let known = [Level::Baseline, Level::Avx2, Level::Avx512];
    #[cfg(not(target_arch = "x86_64"))]
    let known = [Level::Baseline];
    known.into_iter().filter(|&known| known <= detected()).collect()
}

/// Kernels that the current thread runs use `level` from now on.
#[cfg(test)]
pub(crate) fn force(level: Level) {
    assert!(levels().contains(&level), "this machine lacks {level:?}");
    FORCED.set(Some(level));
}

fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = FORCED.get() {
        return level;
    }
    detected()
}

/// The best instruction set of the machine, or a poorer one that the environment variable `FORETELL_VECTORS` names
/// (`baseline`, `avx2`), for timing on a better machine.
fn detected() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let wish = std::env::var("FORETELL_VECTORS").unwrap_or_default();
            let avx2 =
                wish != "baseline" && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && wish != "avx2"
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Baseline
    })
}

/// Runs `work` compiled for the instruction set of this machine: its loops vectorise with wide vectors if
/// everything in it is inlined.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    match level() {
        Level::Baseline => work(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the machine has the instruction set.
        Level::Avx2 => unsafe { x86::with_avx2(work) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the machine has the instruction set.
        Level::Avx512 => unsafe { x86::with_avx512(work) },
    }
}

/// `count` elements that lie `stride` apart, and zeros.
///
/// # Safety
/// The elements must exist.
#[inline(always)]
unsafe fn strided<T: Element, const N: usize>(source: *const T, stride: usize, count: usize) -> [T; N] {
    let mut lanes = [T::zero(); N];
    for (i, lane) in lanes.iter_mut().enumerate() {
        if i < count {
            // SAFETY: the caller's.
            *lane = unsafe { *source.add(i * stride) };
        }
    }
    lanes
}

/// Writes `count` elements `stride` apart.
///
/// # Safety
/// The elements must exist.
#[inline(always)]
unsafe fn put_strided<T: Element, const N: usize>(
    lanes: [T; N],
    target: *mut T,
    stride: usize,
    count: usize,
) {
    for (i, lane) in lanes.into_iter().enumerate() {
        if i < count {
            // SAFETY: the caller's.
            unsafe { *target.add(i * stride) = lane };
        }
    }
}

/// Vectors of four elements without any particular instruction set.
#[derive(Clone, Copy)]
struct Portable<T>([T; 4]);

// SAFETY: no instruction set is needed; accesses are what the contract says.
unsafe impl<T: Element> Lanes<T> for Portable<T> {
    const N: usize = 4;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(source: *const T) -> Self {
        // SAFETY: the caller's pointer is valid for four elements.
        Self(unsafe { source.cast::<[T; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_part(source: *const T, count: usize) -> Self {
        // SAFETY: the caller's pointer is valid for `count` elements.
        Self(std::array::from_fn(|i| if i < count { unsafe { *source.add(i) } } else { T::zero() }))
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut T) {
        // SAFETY: the caller's pointer is valid for four elements.
        unsafe { target.cast::<[T; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, target: *mut T, count: usize) {
        for i in 0..count {
            // SAFETY: the caller's pointer is valid for `count` elements.
            unsafe { *target.add(i) = self.0[i] }
        }
    }

    #[inline(always)]
    unsafe fn load_strided(source: *const T, stride: usize, count: usize) -> Self {
        // SAFETY: the caller's pointer is valid for `count` elements.
        Self(unsafe { strided(source, stride, count) })
    }

    #[inline(always)]
    unsafe fn store_strided(self, target: *mut T, stride: usize, count: usize) {
        // SAFETY: the caller's pointer is valid for `count` elements.
        unsafe { put_strided(self.0, target, stride, count) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] / b.0[i]))
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        let keep = |i: usize| (self.0[i] >= b.0[i]) | self.0[i].is_nan();
        Self(std::array::from_fn(|i| if keep(i) { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    unsafe fn larger(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    unsafe fn times_power(self, n: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * T::power_of_two(n.0[i])))
    }

    #[inline(always)]
    unsafe fn fraction(self) -> (Self, Self) {
        // Adding `round` rounds to the nearest integer.
        let (half, round) = (T::constant(0.5), T::constant(1.5) / T::epsilon());
        let n = self.0.map(|x| ((x - half) + round) - round);
        (Self(std::array::from_fn(|i| self.0[i] - n[i])), Self(n))
    }

    #[inline(always)]
    unsafe fn sums(source: *const T) -> Self {
        // SAFETY: the caller's pointer is valid for 16 elements.
        let rows = unsafe { source.cast::<[[T; 4]; 4]>().read_unaligned() };
        Self(rows.map(|row| (row[0] + row[1]) + (row[2] + row[3])))
    }

    #[inline(always)]
    unsafe fn select_equal(self, b: Self, x: Self, y: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] == b.0[i] { x.0[i] } else { y.0[i] }))
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        Self(self.0.map(|x| if x < T::zero() { T::zero() } else { x }))
    }

    #[inline(always)]
    unsafe fn where_positive(self, sign: Self) -> Self {
        Self(std::array::from_fn(|i| if sign.0[i] > T::zero() { self.0[i] } else { T::zero() }))
    }
}

macro_rules! element {
    ($type:ident, $avx2:ident, $avx512:ident, $run512:ident, $erf:path, $exp:path, $bits:ident, $bias:literal) => {
        impl Element for $type {
            #[inline(always)]
            fn constant(value: f64) -> Self {
                value as $type
            }

            #[inline(always)]
            fn double(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }

            #[inline(always)]
            fn exp_lane(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn power_of_two(n: Self) -> Self {
                // NaN gives some number, which leaves a NaN that it multiplies.
                $type::from_bits(((n as i32 + $bias) as $bits) << ($type::MANTISSA_DIGITS - 1))
            }

            fn lanes() -> usize {
                match level() {
                    Level::Baseline => <Portable<$type> as Lanes<$type>>::N,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => x86::$avx2::N,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => x86::$avx512::N,
                }
            }

            #[inline]
            fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output {
                match level() {
                    // SAFETY: portable vectors need no instruction set.
                    Level::Baseline => unsafe { kernel.run::<Portable<$type>>() },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the level says that the machine has the instruction set.
                    Level::Avx2 => unsafe { x86::run_avx2::<$type, x86::$avx2, K>(kernel) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the level says that the machine has the instruction set.
                    Level::Avx512 => unsafe { x86::$run512::<$type, x86::$avx512, K>(kernel) },
                }
            }
        }
    };
}

element!(f32, F32x8, F32x16, run_avx512, super::special::erf_f32, super::special::exp_f32, u32, 127);
// Double precision is for checking, not for speed: AVX2 is enough, and a third of its kernels less to compile.
element!(f64, F64x4, F64x4, run_avx2, super::special::erf_f64, super::special::exp_f64, u64, 1023);
