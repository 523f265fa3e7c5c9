//! Exponential and error function in forms that vectorise.
//!
//! `f32` versions are branch-free polynomials; `f64` versions favour accuracy.

use super::lanes::{Element, Lanes};

/// `e^x`: range reduction by `ln 2` in two parts, then a Taylor polynomial on `|r| <= ln 2 / 2`.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    // Below -87 the result is flushed to the smallest normal number's neighbourhood instead of denormals;
    // written so that NaN passes both clamps.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // Adding 1.5 * 2^23 rounds to the nearest integer without a call.
    const ROUND: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // The integer sits in the low bits of the rounded sum; NaN takes any scale and stays NaN.
    let bits = (n + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    p * f32::from_bits(bits.wrapping_add(127) << 23)
}

/// `e^x` for `x` up to 80, in either precision; below -87 it stays at `e^-87`, NaN stays.
#[inline(always)]
pub(crate) unsafe fn exp<T: Element, V: Lanes<T>>(x: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let splat = |value: f64| V::splat(T::constant(value));
        // The second operand counts where either is NaN.
        let x = splat(-87.0).larger(x);
        // Adding this rounds to the nearest integer.
        let round = V::splat(T::constant(1.5) / T::epsilon());
        let n = x.mul_add(splat(std::f64::consts::LOG2_E), round).sub(round);
        let r = n.mul_add(splat(-0.693_359_375), x);
        let r = n.mul_add(splat(2.121_944_400_546_905_8e-4), r);
        // Taylor's terms to the precision of the type.
        let terms = if size_of::<T>() == 4 { 7 } else { 13 };
        let mut p = splat(INVERSE_FACTORIALS[terms]);
        for k in (0..terms).rev() {
            p = p.mul_add(r, splat(INVERSE_FACTORIALS[k]));
        }
        p.times_power(n)
    }
}

/// `2^x` for `x` from -126 to below 128, in either precision; NaN stays. In single precision the relative error is
/// below 1.6e-7 (without fused operations below 2.4e-7).
#[inline(always)]
pub(crate) unsafe fn exp2<T: Element, V: Lanes<T>>(x: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (fraction, n) = x.fraction();
        let coefficients = if size_of::<T>() == 4 { &EXP2_F32[..] } else { &EXP2_F64[..] };
        let last = coefficients.len() - 1;
        let mut p = V::splat(T::constant(coefficients[last]));
        for &coefficient in coefficients[..last].iter().rev() {
            p = p.mul_add(fraction, V::splat(T::constant(coefficient)));
        }
        p.times_power(n)
    }
}

/// Polynomials of `2^x` on [0, 1] by the exchange algorithm of Remez: relative errors 7.5e-8 and 3.1e-18.
const EXP2_F32: [f64; 6] = [
    0.999_999_925_063_587_8,
    0.693_153_073_202_626_1,
    0.240_153_617_021_126_3,
    0.055_826_318_116_233_5,
    0.008_989_340_023_581_907,
    0.001_877_576_700_019_989,
];
const EXP2_F64: [f64; 12] = [
    1.0,
    0.693_147_180_559_946_3,
    0.240_226_506_959_054_7,
    0.055_504_108_665_711_14,
    0.009_618_129_098_792_622,
    0.001_333_355_866_157_575_7,
    1.540_351_144_649_055_2e-4,
    1.525_319_024_883_124_3e-5,
    1.320_819_349_574_712_1e-6,
    1.025_445_737_901_455e-7,
    6.554_457_162_654_839e-9,
    6.272_434_464_802_89e-10,
];

/// The error function and `exp(-x^2)`, both in single precision; as [`erf_f32`].
#[inline(always)]
pub(crate) unsafe fn erf<T: Element, V: Lanes<T>>(x: V) -> (V, V) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let splat = |value: f64| V::splat(T::constant(value));
        let (zero, one) = (splat(0.0), splat(1.0));
        let negative = zero.sub(x);
        let a = negative.larger(x);
        let t = one.div(a.mul_add(splat(0.327_591_1), one));
        let mut p = splat(1.061_405_429);
        for coefficient in [-1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592] {
            p = p.mul_add(t, splat(coefficient));
        }
        let gauss = exp(a.mul_add(zero.sub(a), zero));
        let value = one.sub(p.mul_add(t, zero).mul_add(gauss, zero));
        (value.where_positive(x).sub(value.where_positive(negative)), gauss)
    }
}

/// `1 / k!`.
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut inverse = [1.0; 14];
    let mut k = 1;
    while k < 14 {
        inverse[k] = inverse[k - 1] / k as f64;
        k += 1;
    }
    inverse
};

/// `e^x` of the standard library.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    x.exp()
}

/// Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
#[inline(always)]
pub(crate) fn erf_f32(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    (1.0 - p * t * exp_f32(-a * a)).copysign(x)
}

/// Series of positive terms for `|x| < 3`, continued fraction of the complement above.
pub(crate) fn erf_f64(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let two_over_sqrt_pi = std::f64::consts::FRAC_2_SQRT_PI;
    let value = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        two_over_sqrt_pi * (-a * a).exp() * sum
    } else if a < 6.0 {
        let mut fraction = a;
        for k in (1..=60).rev() {
            fraction = a + 0.5 * f64::from(k) / fraction;
        }
        1.0 - 0.5 * two_over_sqrt_pi * (-a * a).exp() / fraction
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Level;
    use crate::kernels::{Kernel, force, levels};

    #[test]
    fn error_function_matches_tables() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (4.0, 0.999_999_984_582_742_1),
            (7.0, 1.0),
        ] {
            assert!((erf_f64(x) - expected).abs() <= 2e-15, "erf({x}) = {}", erf_f64(x));
            assert!((erf_f64(-x) + expected).abs() <= 2e-15, "erf(-{x})");
            assert!((f64::from(erf_f32(x as f32)) - expected).abs() <= 3e-7, "f32 erf({x})");
        }
        assert!(erf_f64(f64::NAN).is_nan() && erf_f32(f32::NAN).is_nan());
        // Both branches meet.
        assert!((erf_f64(3.0 - 1e-12) - erf_f64(3.0 + 1e-12)).abs() <= 1e-14);
    }

    /// `2^x` of numbers, a whole number of vectors of any machine.
    struct Powers<'a, T>(&'a mut [T]);

    impl<T: Element> Kernel<T> for Powers<'_, T> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<V: Lanes<T>>(self) {
            for part in self.0.chunks_exact_mut(V::N) {
                // SAFETY: parts are whole vectors; the instruction set is the caller's promise.
                unsafe { exp2(V::load(part.as_ptr())).store(part.as_mut_ptr()) };
            }
        }
    }

    #[test]
    fn powers_of_two_match_the_standard_library_on_every_instruction_set() {
        fn relative_error<T: Element>(from: f64, to: f64) -> f64 {
            let count = 400_000;
            let x = |i: usize| T::constant(from + (to - from) * i as f64 / count as f64);
            let mut powers: Vec<T> = (0..count).map(x).collect();
            T::dispatch(Powers(&mut powers));
            let error = |(i, power): (usize, &T)| (power.double() / x(i).double().exp2() - 1.0).abs();
            powers.iter().enumerate().map(error).fold(0.0, f64::max)
        }
        for level in levels() {
            force(level);
            for (from, to) in [(-126.0, 127.9), (-1.5, 1.5), (-1e-3, 1e-3)] {
                let (single, double) = (relative_error::<f32>(from, to), relative_error::<f64>(from, to));
                // Without fused operations each step rounds twice.
                let tolerance = if level == Level::Baseline { 2.4e-7 } else { 1.6e-7 };
                assert!(single < tolerance, "{level:?}, {from} to {to}: {single:e}");
                assert!(double < 6e-16, "{level:?}, {from} to {to}: {double:e}");
            }
            let mut whole: Vec<f64> = (0..16).map(|i| f64::from(i - 8)).collect();
            f64::dispatch(Powers(&mut whole));
            let exact = |(i, &power): (i32, &f64)| (power / 2f64.powi(i - 8) - 1.0).abs() < 3e-16;
            assert!((0..).zip(&whole).all(exact), "{level:?}: {whole:?}");
            let mut lost = [f32::NAN; 16];
            f32::dispatch(Powers(&mut lost));
            assert!(lost.iter().all(|power| power.is_nan()), "{level:?}: {lost:?}");
        }
    }

    #[test]
    fn exponential_matches_the_standard_library() {
        let mut x = -86.9f32;
        while x < 88.0 {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp_f32(x)) - exact).abs() <= 4e-7 * exact, "exp({x}) = {}", exp_f32(x));
            x += 0.0137;
        }
        assert!(exp_f32(f32::NAN).is_nan());
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(f32::NEG_INFINITY) < 1e-37);
    }
}
