//! Binary codes: which of many numbers are above zero, and in how many places two codes differ.
//!
//! A code holds 64 numbers a word, the first in the lowest bit; unused bits of the last word are 0.

use super::lanes::{Element, vectorized};

/// Numbers of a word.
pub const WORD: usize = u64::BITS as usize;

/// Sets a bit of `code [ceil(N / 64)]` for every element of `x [N]` that is above zero, and clears the others.
pub fn above_zero<T: Element>(x: &[T], code: &mut [u64]) {
    vectorized(
        #[inline(always)]
        || {
            let mut blocks = x.chunks_exact(WORD);
            let mut words = code.iter_mut();
            for (block, word) in (&mut blocks).zip(&mut words) {
                // Whole blocks have a constant length, for which the loop becomes vector comparisons.
                *word = (0..WORD).fold(0, |bits, i| bits | (u64::from(block[i] > T::zero()) << i));
            }
            if let Some(word) = words.next() {
                let rest = blocks.remainder().iter().enumerate();
                *word = rest.fold(0, |bits, (i, &x)| bits | (u64::from(x > T::zero()) << i));
            }
        },
    );
}

/// Number of bits that differ.
pub fn differences(a: &[u64], b: &[u64]) -> u64 {
    vectorized(
        #[inline(always)]
        || a.iter().zip(b).map(|(a, b)| u64::from((a ^ b).count_ones())).sum(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{force, levels};
    use super::*;

    #[test]
    fn codes_and_differences_equal_their_definition() {
        for level in levels().into_iter().rev() {
            force(level);
            for n in [0usize, 1, 63, 64, 65, 200, 1000] {
                let numbers =
                    |step: usize| -> Vec<f32> { (0..n).map(|i| ((i * step) % 7) as f32 - 3.0).collect() };
                let code = |x: &[f32]| {
                    let mut code = vec![u64::MAX; n.div_ceil(WORD)];
                    above_zero(x, &mut code);
                    code
                };
                let (a, b) = (numbers(5), numbers(11));
                let (code_a, code_b) = (code(&a), code(&b));
                for (i, &x) in a.iter().enumerate() {
                    assert_eq!(code_a[i / WORD] >> (i % WORD) & 1 == 1, x > 0.0, "{level:?} {n} {i}");
                }
                let expected = a.iter().zip(&b).filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count();
                assert_eq!(differences(&code_a, &code_b), expected as u64, "{level:?} {n}");
            }
        }
    }
}
