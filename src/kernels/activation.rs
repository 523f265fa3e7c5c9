//! Activations and their gradients, elementwise.

use super::lanes::{Element, vectorized};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`, NaN stays.
    Relu,
    /// `x * Phi(x)`.
    Gelu,
    /// `x * clamp(x + 3, 0, 6) / 6`.
    HardSwish,
}

impl Activation {
    /// `y = f(x)`.
    pub fn run<T: Element>(self, x: &[T], y: &mut [T]) {
        let zero = T::zero();
        match self {
            Self::Relu => map(
                x,
                y,
                #[inline(always)]
                |x, _| if x < zero { zero } else { x },
            ),
            Self::Gelu => {
                let (half, root) = (T::constant(0.5), T::constant(std::f64::consts::FRAC_1_SQRT_2));
                map(
                    x,
                    y,
                    #[inline(always)]
                    |x, _| half * x * (T::one() + (x * root).erf()),
                );
            }
            Self::HardSwish => {
                let (three, six) = (T::constant(3.0), T::constant(6.0));
                map(
                    x,
                    y,
                    #[inline(always)]
                    |x, _| {
                        let gate = x + three;
                        let gate = if gate < zero { zero } else { gate };
                        let gate = if gate > six { six } else { gate };
                        x * gate / six
                    },
                );
            }
        }
    }

    /// `dx (+)= f'(x) * dy`.
    pub fn gradient<T: Element>(self, x: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        let zero = T::zero();
        match self {
            // Also right with the result in place of `x`.
            Self::Relu => scale(
                x,
                dy,
                dx,
                accumulate,
                #[inline(always)]
                |x, dy| if x > zero { dy } else { zero },
            ),
            Self::Gelu => {
                let (half, root) = (T::constant(0.5), T::constant(std::f64::consts::FRAC_1_SQRT_2));
                let density = T::constant(0.398_942_280_401_432_7);
                scale(
                    x,
                    dy,
                    dx,
                    accumulate,
                    #[inline(always)]
                    |x, dy| {
                        let phi = half * (T::one() + (x * root).erf());
                        dy * (phi + x * density * (-half * x * x).exp_lane())
                    },
                );
            }
            Self::HardSwish => {
                let (three, half, third) = (T::constant(3.0), T::constant(0.5), T::constant(1.0 / 3.0));
                scale(
                    x,
                    dy,
                    dx,
                    accumulate,
                    #[inline(always)]
                    |x, dy| {
                        let slope = x * third + half;
                        let slope = if x > three { T::one() } else { slope };
                        let slope = if x < -three { zero } else { slope };
                        dy * slope
                    },
                );
            }
        }
    }
}

#[inline(always)]
fn map<T: Element>(x: &[T], y: &mut [T], f: impl Fn(T, T) -> T) {
    vectorized(
        #[inline(always)]
        || {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x, *y);
            }
        },
    );
}

#[inline(always)]
fn scale<T: Element>(x: &[T], dy: &[T], dx: &mut [T], accumulate: bool, f: impl Fn(T, T) -> T) {
    vectorized(
        #[inline(always)]
        || {
            if accumulate {
                for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
                    *dx += f(x, dy);
                }
            } else {
                for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
                    *dx = f(x, dy);
                }
            }
        },
    );
}

/// `target (+)= source`.
pub fn copy<T: Element>(source: &[T], target: &mut [T], accumulate: bool) {
    if !accumulate {
        target.copy_from_slice(source);
        return;
    }
    map(
        source,
        target,
        #[inline(always)]
        |x, y| x + y,
    );
}
