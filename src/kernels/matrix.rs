//! Products of a row-major matrix with one that is packed in panels, a few registers wide.
//!
//! In: rows of `a [rows, depth]` at any distance, and `b [depth, columns]` packed by [`Panels`]. Out: added to
//! rows of `y [rows, columns]`. Every sum runs over the depth in its order, whatever else is computed.

use super::lanes::{Element, Kernel, Lanes};

/// Vectors of a panel.
const VECTORS: usize = 2;

/// A matrix `[depth, columns]` as panels `[panels][depth][width]`, filled up with zeros.
#[derive(Clone, Debug)]
pub(super) struct Panels<T> {
    data: Vec<T>,
    depth: usize,
    columns: usize,
    width: usize,
}

impl<T: Element> Panels<T> {
    /// Packs the matrix whose row `d` is `row(d)`.
    pub fn of_rows<'a>(depth: usize, columns: usize, row: impl Fn(usize) -> &'a [T]) -> Panels<T>
    where
        T: 'a,
    {
        let mut panels = Panels::empty(depth, columns);
        let width = panels.width;
        for panel in 0..columns.div_ceil(width) {
            let range = panel * width..columns.min((panel + 1) * width);
            for d in 0..depth {
                panels.data.extend_from_slice(&row(d)[range.clone()]);
                panels.data.resize((panel * depth + d + 1) * width, T::zero());
            }
        }
        panels
    }

    /// Packs the matrix whose column `c` is `column(c)`.
    pub fn of_columns<'a>(depth: usize, columns: usize, column: impl Fn(usize) -> &'a [T]) -> Panels<T>
    where
        T: 'a,
    {
        let mut panels = Panels::empty(depth, columns);
        let width = panels.width;
        panels.data.resize(columns.div_ceil(width) * depth * width, T::zero());
        for (c, column) in (0..columns).map(|c| (c, column(c))) {
            let lane = &mut panels.data[c / width * depth * width + c % width..];
            for (cell, &value) in lane.iter_mut().step_by(width).zip(&column[..depth]) {
                *cell = value;
            }
        }
        panels
    }

    fn empty(depth: usize, columns: usize) -> Panels<T> {
        let width = VECTORS * T::lanes();
        let data = Vec::with_capacity(columns.div_ceil(width) * depth * width);
        Panels { data, depth, columns, width }
    }
}

/// `y += a b`.
pub(super) struct Product<'a, T> {
    /// First row of `a` at the front.
    pub a: &'a [T],
    /// Elements from a row of `a` to the next.
    pub a_stride: usize,
    /// Rows of `a` and `y`.
    pub rows: usize,
    /// The other factor; `a` has as many columns as it has rows.
    pub b: &'a Panels<T>,
    /// First row of `y` at the front.
    pub y: &'a mut [T],
    /// Elements from a row of `y` to the next.
    pub y_stride: usize,
}

impl<T: Element> Product<'_, T> {
    /// Computes the product.
    pub fn run(self) {
        let Some(last) = self.rows.checked_sub(1) else { return };
        assert!(self.a.len() >= last * self.a_stride + self.b.depth, "left factor too short");
        assert!(self.y.len() >= last * self.y_stride + self.b.columns, "result too short");
        T::dispatch(self);
    }
}

impl<T: Element> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes<T>>(self) {
        assert_eq!(self.b.width, VECTORS * V::N, "packed for other vectors");
        // SAFETY: `Product::run` checked the lengths; the instruction set is the caller's promise.
        unsafe { if V::REGISTERS >= 32 { self.panels::<V, 12>() } else { self.panels::<V, 6>() } }
    }
}

impl<T: Element> Product<'_, T> {
    #[inline(always)]
    unsafe fn panels<V: Lanes<T>, const M: usize>(self) {
        let Product { a, a_stride, rows, b, y, y_stride } = self;
        let y = y.as_mut_ptr();
        for panel in 0..b.columns.div_ceil(b.width) {
            let first = panel * b.width;
            let tile = Tile {
                a_stride,
                y_stride,
                depth: b.depth,
                b: b.data[panel * b.depth * b.width..].as_ptr(),
                columns: (b.columns - first).min(b.width),
            };
            let mut row = 0;
            // SAFETY: rows below `rows` and columns below `b.columns` are in bounds of both.
            unsafe {
                let at = |row: usize| (a.as_ptr().add(row * a_stride), y.add(row * y_stride + first));
                while row + M <= rows {
                    tile.run::<V, M>(at(row));
                    row += M;
                }
                while row + 4 <= rows {
                    tile.run::<V, 4>(at(row));
                    row += 4;
                }
                while row < rows {
                    tile.run::<V, 1>(at(row));
                    row += 1;
                }
            }
        }
    }
}

struct Tile<T> {
    a_stride: usize,
    y_stride: usize,
    depth: usize,
    b: *const T,
    columns: usize,
}

impl<T: Element> Tile<T> {
    /// `M` rows by one panel, summed in registers.
    #[inline(always)]
    unsafe fn run<V: Lanes<T>, const M: usize>(&self, (a, y): (*const T, *mut T)) {
        // SAFETY: the caller checked the reach of both factors; `columns` bounds partial accesses.
        unsafe {
            let rows: [*const T; M] = std::array::from_fn(|m| a.add(m * self.a_stride));
            let mut sums = [[V::splat(T::zero()); VECTORS]; M];
            let mut b = self.b;
            for d in 0..self.depth {
                let b_row: [V; VECTORS] = std::array::from_fn(|j| V::load(b.add(j * V::N)));
                for m in 0..M {
                    let value = V::splat(*rows[m].add(d));
                    for j in 0..VECTORS {
                        sums[m][j] = value.mul_add(b_row[j], sums[m][j]);
                    }
                }
                b = b.add(VECTORS * V::N);
            }
            for (m, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let y = y.add(m * self.y_stride + j * V::N);
                    match self.columns.saturating_sub(j * V::N) {
                        0 => {}
                        count if count >= V::N => sum.add(V::load(y)).store(y),
                        count => sum.add(V::load_part(y, count)).store_part(y, count),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{force, levels};
    use super::*;

    /// Small whole numbers, whose sums are exact in f32.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn products_equal_their_definition() {
        for level in levels().into_iter().rev() {
            force(level);
            for (rows, depth, columns) in [(1, 1, 1), (3, 5, 7), (17, 9, 33), (24, 32, 64), (13, 2, 40)] {
                let (a_stride, y_stride) = (depth + 3, columns + 2);
                let (a, b) = (numbers(rows * a_stride, 1), numbers(depth * columns, 2));
                let before = numbers(rows * y_stride, 3);
                let mut expected = before.clone();
                for r in 0..rows {
                    for c in 0..columns {
                        expected[r * y_stride + c] +=
                            (0..depth).map(|d| a[r * a_stride + d] * b[d * columns + c]).sum::<f32>();
                    }
                }
                let transposed: Vec<f32> =
                    (0..columns * depth).map(|i| b[i % depth * columns + i / depth]).collect();
                for panels in [
                    Panels::of_rows(depth, columns, |d| &b[d * columns..][..columns]),
                    Panels::of_columns(depth, columns, |c| &transposed[c * depth..][..depth]),
                ] {
                    let mut y = before.clone();
                    Product { a: &a, a_stride, rows, b: &panels, y: &mut y, y_stride }.run();
                    assert_eq!(y, expected, "{level:?} {rows} x {depth} x {columns}");
                }
            }
        }
    }
}
