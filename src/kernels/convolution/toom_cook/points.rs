//! The points of Toom and Cook, and the sums that lead from images, taps and results to values there and back.

use crate::kernels::lanes::{Element, Lanes};

/// Outputs of a tile.
pub(super) const TILE: usize = 4;
/// Most pairs of points.
const MOST_PAIRS: usize = 4;

/// `P` points for four outputs of `P - 3` taps: 0, pairs `p`, `-p`, infinity, in this order.
///
/// With `M(x) = x prod(x^2 - p^2)` the value of the image at a finite point `a` is its product with the coefficients of
/// `M(x) / (x - a)`, at infinity with those of `M`; taps and outputs are polynomials, whose values at `a` are scaled
/// by `1 / M'(a)` with the taps. What `p` and `-p` share is summed once: even and odd powers.
pub(super) struct Points<const P: usize>;

impl<const P: usize> Points<P> {
    const PAIRS: usize = P / 2 - 1;
    /// Taps of a line.
    pub(super) const TAPS: usize = P - TILE + 1;
    const AT: [f64; MOST_PAIRS] = if P == 8 { FIVE } else { SEVEN };
    /// Coefficients of the product of all `x^2 - p^2` by powers of `x^2`, without the highest, which is 1.
    const ALL: [f64; MOST_PAIRS + 1] = product(Self::AT, Self::PAIRS, MOST_PAIRS);
    /// The same without one of the factors each.
    const OTHERS: [[f64; MOST_PAIRS + 1]; MOST_PAIRS] = [
        product(Self::AT, Self::PAIRS, 0),
        product(Self::AT, Self::PAIRS, 1),
        product(Self::AT, Self::PAIRS, 2),
        product(Self::AT, Self::PAIRS, 3),
    ];
    /// `1 / M'(0)` and `1 / M'(p)`, which is `1 / M'(-p)`.
    const ZERO_SCALE: f64 = 1.0 / Self::ALL[0];
    const SCALE: [f64; MOST_PAIRS] = scales(Self::AT, Self::PAIRS);
}

/// `prod(x^2 - p^2)` by powers of `x^2`, without pair `skip`.
const fn product(at: [f64; MOST_PAIRS], pairs: usize, skip: usize) -> [f64; MOST_PAIRS + 1] {
    let mut coefficients = [0.0; MOST_PAIRS + 1];
    coefficients[0] = 1.0;
    let mut pair = 0;
    while pair < pairs {
        if pair != skip {
            let mut k = MOST_PAIRS;
            while k > 0 {
                coefficients[k] = coefficients[k - 1] - at[pair] * at[pair] * coefficients[k];
                k -= 1;
            }
            coefficients[0] *= -at[pair] * at[pair];
        }
        pair += 1;
    }
    coefficients
}

/// `1 / M'(p) = 1 / (2 p^2 prod(p^2 - q^2))` over the other pairs `q`.
const fn scales(at: [f64; MOST_PAIRS], pairs: usize) -> [f64; MOST_PAIRS] {
    let mut scales = [0.0; MOST_PAIRS];
    let mut pair = 0;
    while pair < pairs {
        let square = at[pair] * at[pair];
        let mut derivative = 2.0 * square;
        let mut other = 0;
        while other < pairs {
            if other != pair {
                derivative *= square - at[other] * at[other];
            }
            other += 1;
        }
        scales[pair] = 1.0 / derivative;
        pair += 1;
    }
    scales
}

#[inline(always)]
unsafe fn constant<T: Element, V: Lanes<T>>(value: f64) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { V::splat(T::constant(value)) }
}

// SAFETY of all methods: the caller vouches for the instruction set.
impl<const P: usize> Points<P> {
    /// `even + p odd` and `even - p odd`.
    #[inline(always)]
    unsafe fn both<T: Element, V: Lanes<T>>(pair: usize, even: V, odd: V) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe {
            let (p, minus) = (constant(Self::AT[pair]), constant(-Self::AT[pair]));
            [odd.mul_add(p, even), odd.mul_add(minus, even)]
        }
    }

    /// Values of a window of an image.
    #[inline(always)]
    pub(super) unsafe fn image<T: Element, V: Lanes<T>>(d: [V; P]) -> [V; P] {
        // SAFETY: the caller's.
        unsafe {
            let mut points = d;
            let (mut zero, mut infinity) = (d[P - 2], d[P - 1]);
            for k in (0..Self::PAIRS).rev() {
                zero = d[2 * k].mul_add(constant(Self::ALL[k]), zero);
                infinity = d[2 * k + 1].mul_add(constant(Self::ALL[k]), infinity);
            }
            (points[0], points[P - 1]) = (zero, infinity);
            for pair in 0..Self::PAIRS {
                let (mut even, mut odd) = (d[P - 2], d[P - 3]);
                for k in (0..Self::PAIRS - 1).rev() {
                    even = d[2 * k + 2].mul_add(constant(Self::OTHERS[pair][k]), even);
                    odd = d[2 * k + 1].mul_add(constant(Self::OTHERS[pair][k]), odd);
                }
                [points[2 * pair + 1], points[2 * pair + 2]] = Self::both(pair, even, odd);
            }
            points
        }
    }

    /// Outputs from values.
    #[inline(always)]
    pub(super) unsafe fn outputs<T: Element, V: Lanes<T>>(m: [V; P]) -> [V; TILE] {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(T::zero());
            let mut y = [m[0], zero, zero, m[P - 1]];
            for pair in 0..Self::PAIRS {
                let p = Self::AT[pair];
                let (sum, difference) =
                    (m[2 * pair + 1].add(m[2 * pair + 2]), m[2 * pair + 1].sub(m[2 * pair + 2]));
                y[0] = y[0].add(sum);
                y[1] = difference.mul_add(constant(p), y[1]);
                y[2] = sum.mul_add(constant(p * p), y[2]);
                y[3] = difference.mul_add(constant(p * p * p), y[3]);
            }
            y
        }
    }

    /// Gradients by values from those by outputs.
    #[inline(always)]
    pub(super) unsafe fn slopes<T: Element, V: Lanes<T>>(y: [V; TILE]) -> [V; P] {
        // SAFETY: the caller's.
        unsafe {
            let mut points = [y[0]; P];
            points[P - 1] = y[3];
            for pair in 0..Self::PAIRS {
                let square = constant(Self::AT[pair] * Self::AT[pair]);
                let (even, odd) = (y[2].mul_add(square, y[0]), y[3].mul_add(square, y[1]));
                [points[2 * pair + 1], points[2 * pair + 2]] = Self::both(pair, even, odd);
            }
            points
        }
    }

    /// Scaled values of the first [`Self::TAPS`] taps.
    #[inline(always)]
    pub(super) unsafe fn taps<T: Element, V: Lanes<T>>(g: [V; P]) -> [V; P] {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(T::zero());
            let mut points = [g[0].mul_add(constant(Self::ZERO_SCALE), zero); P];
            points[P - 1] = g[Self::TAPS - 1];
            for pair in 0..Self::PAIRS {
                let square = constant(Self::AT[pair] * Self::AT[pair]);
                let (mut even, mut odd) = (g[Self::TAPS - 1], g[Self::TAPS - 2]);
                for k in (0..Self::TAPS / 2).rev() {
                    even = even.mul_add(square, g[2 * k]);
                    if k > 0 {
                        odd = odd.mul_add(square, g[2 * k - 1]);
                    }
                }
                let [plus, minus] = Self::both(pair, even, odd);
                let scale = constant(Self::SCALE[pair]);
                points[2 * pair + 1] = plus.mul_add(scale, zero);
                points[2 * pair + 2] = minus.mul_add(scale, zero);
            }
            points
        }
    }

    /// Gradients by taps from those by values, in the first [`Self::TAPS`] places.
    #[inline(always)]
    pub(super) unsafe fn tap_slopes<T: Element, V: Lanes<T>>(u: [V; P]) -> [V; P] {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(T::zero());
            let mut g = [zero; P];
            g[0] = u[0].mul_add(constant(Self::ZERO_SCALE), zero);
            g[Self::TAPS - 1] = u[P - 1];
            for pair in 0..Self::PAIRS {
                let (sum, difference) =
                    (u[2 * pair + 1].add(u[2 * pair + 2]), u[2 * pair + 1].sub(u[2 * pair + 2]));
                let mut power = Self::SCALE[pair];
                for t in 0..Self::TAPS {
                    let part = if t % 2 == 0 { sum } else { difference };
                    g[t] = part.mul_add(constant(power), g[t]);
                    power *= Self::AT[pair];
                }
            }
            g
        }
    }
}

/// Pairs for five taps.
const FIVE: [f64; MOST_PAIRS] = [0.5, 1.0, 2.0, 0.0];
/// Pairs for seven taps.
const SEVEN: [f64; MOST_PAIRS] = [0.4375, 0.8125, 1.25, 2.375];
