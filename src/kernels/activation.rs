//! Activations and their gradients, elementwise.

use super::convolution::{load, store, vectors};
use super::lanes::{Element, Kernel, Lanes, vectorized};
use super::special::erf;

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
            // The vectors' error function has single precision.
            Self::Gelu if size_of::<T>() == 4 => T::dispatch(Gelu { x, y }),
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
            Self::Gelu if size_of::<T>() == 4 => T::dispatch(GeluGradient { x, dy, dx, accumulate }),
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

struct Gelu<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
}

/// `Phi(x)` and `exp(-x^2 / 2)`.
#[inline(always)]
unsafe fn normal<T: Element, V: Lanes<T>>(x: V) -> (V, V) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let half = V::splat(T::constant(0.5));
        let root = V::splat(T::constant(std::f64::consts::FRAC_1_SQRT_2));
        let (error, gauss) = erf(x.mul_add(root, V::splat(T::zero())));
        (error.mul_add(half, half), gauss)
    }
}

impl<T: Element> Kernel<T> for Gelu<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let count = self.x.len();
        assert_eq!(count, self.y.len());
        let (x, y) = (self.x.as_ptr(), self.y.as_mut_ptr());
        vectors::<T, V>(
            count,
            #[inline(always)]
            |first, part| {
                // SAFETY: both slices hold the elements; the instruction set is the caller's promise.
                unsafe {
                    let x: V = load(x.add(first), part);
                    let (phi, _) = normal(x);
                    store(x.mul_add(phi, V::splat(T::zero())), y.add(first), part);
                }
            },
        );
    }
}

struct GeluGradient<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
    accumulate: bool,
}

impl<T: Element> Kernel<T> for GeluGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        let Self { x, dy, dx, accumulate } = self;
        let count = dx.len();
        assert!(x.len() == count && dy.len() == count);
        let (x, dy, dx) = (x.as_ptr(), dy.as_ptr(), dx.as_mut_ptr());
        vectors::<T, V>(
            count,
            #[inline(always)]
            |first, part| {
                // SAFETY: all slices hold the elements; the instruction set is the caller's promise.
                unsafe {
                    let (x, dy): (V, V) = (load(x.add(first), part), load(dy.add(first), part));
                    let zero = V::splat(T::zero());
                    let old = if accumulate { load(dx.add(first), part) } else { zero };
                    let (phi, gauss) = normal(x);
                    let density = gauss.mul_add(V::splat(T::constant(0.398_942_280_401_432_7)), zero);
                    store(dy.mul_add(x.mul_add(density, phi), old), dx.add(first), part);
                }
            },
        );
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
