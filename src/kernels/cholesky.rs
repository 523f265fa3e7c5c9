//! Cholesky factors of symmetric positive definite matrices: `A = L L^T`, in double precision.
//!
//! Matrices are row-major `[n, n]`; only the lower triangle is read or written.

use super::lanes::vectorized;

/// Partial sums of a dot product, fixed so that every machine adds in the same order.
const SUMS: usize = 16;

/// Replaces `matrix` by its factor; false if it is not positive definite in double precision.
#[must_use]
pub fn factor(matrix: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, row) = matrix.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..][..=j];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let rest = row[i] - dot(&row[..i], &row[..i]);
        if !(rest > n as f64 * f64::EPSILON * row[i]) {
            return false;
        }
        row[i] = rest.sqrt();
    }
    true
}

/// Logarithm of the determinant of the matrix that `factor` belongs to.
pub fn log_determinant(factor: &[f64], n: usize) -> f64 {
    (0..n).map(|i| 2.0 * factor[i * n + i].ln()).sum()
}

/// `x [n]` becomes the solution of `L y = x`.
pub fn solve_lower(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let row = &factor[i * n..][..=i];
        x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
    }
}

/// `x [n]` becomes the solution of `L L^T y = x`.
pub fn solve(factor: &[f64], x: &mut [f64]) {
    solve_lower(factor, x);
    let n = x.len();
    for i in (0..n).rev() {
        let row = &factor[i * n..][..=i];
        x[i] /= row[i];
        let value = x[i];
        for (x, l) in x[..i].iter_mut().zip(row) {
            *x -= l * value;
        }
    }
}

/// Sum of products.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut sums = [0.0; SUMS];
            let (a, b) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
            let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
            for (a, b) in a.zip(b) {
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += a * b;
                }
            }
            sums.iter().sum::<f64>() + rest
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_to_the_matrix_and_solve_its_equations() {
        let n = 37;
        let root: Vec<f64> = (0..n * n).map(|i| ((i * 31 + i / n) % 17) as f64 - 8.0).collect();
        let matrix: Vec<f64> = (0..n * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                dot(&root[i * n..][..n], &root[j * n..][..n]) + if i == j { 3.0 } else { 0.0 }
            })
            .collect();
        let mut lower = matrix.clone();
        assert!(factor(&mut lower, n));
        for i in 0..n {
            for j in 0..=i {
                let product = dot(&lower[i * n..][..=j], &lower[j * n..][..=j]);
                assert!((product - matrix[i * n + j]).abs() < 1e-9, "{i} {j}");
            }
        }
        let wanted: Vec<f64> = (0..n).map(|i| i as f64 - 10.0).collect();
        let mut x: Vec<f64> = (0..n).map(|i| dot(&matrix[i * n..][..n], &wanted)).collect();
        solve(&lower, &mut x);
        for (x, wanted) in x.iter().zip(&wanted) {
            assert!((x - wanted).abs() < 1e-8, "{x} instead of {wanted}");
        }
    }

    #[test]
    fn determinants_and_singular_matrices() {
        let mut matrix = [4.0, 0.0, 0.0, 2.0, 5.0, 0.0, -2.0, 3.0, 6.0];
        assert!(factor(&mut matrix, 3));
        assert!((log_determinant(&matrix, 3) - 16f64.ln()).abs() < 1e-14);
        for singular in [[4.0, 0.0, 2.0, 1.0], [1.0, 0.0, f64::NAN, 1.0], [-1.0, 0.0, 0.0, 1.0]] {
            assert!(!factor(&mut singular.clone(), 2), "{singular:?}");
        }
    }
}
