//! Matrix products `C = A B`, for any layout of A and B.
//!
//! Each element of C is one chain of multiply-adds over ascending K: the tiles hold outputs in their lanes and
//! never split a sum. So a result does not depend on the number of threads, on the other rows, or on how the
//! work was cut. Three ways lead to the same bits:
//!
//! - large products (`blocked`): panels of A and B are packed so that a tile reads both in order (Goto and van
//!   de Geijn, 2008), blocks of `KC` of K and `NC` columns of B at a time, in tasks of some tiles for the pool;
//! - few rows and a row-major B (`small.rs`): B is read once, as it lies;
//! - few rows and any other B, and products inside a task (`strips.rs`): B is packed a strip of columns at a time.

mod pack;
mod small;
mod strips;
mod tiles;

use std::cell::RefCell;

use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::timing;
pub(crate) use strips::{Causal, product as product_inside};
use tiles::{A, B, C, Tile, with_tile};

/// A matrix seen through strides: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance from a row to the next.
    pub row_stride: usize,
    /// Distance from a column to the next.
    pub col_stride: usize,
}

/// What happens to C's old values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// `C = A B`
    Set,
    /// `C += A B`: the chain starts from the old value.
    Add,
}

impl<'a> Mat<'a> {
    /// Row-major, without gaps.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        assert_eq!(data.len(), rows * cols, "a {rows} × {cols} matrix");
        Mat { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows of `cols` values that start `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Mat<'a> {
        assert!(
            rows == 0 || (rows - 1) * row_stride + cols <= data.len(),
            "{rows} rows of {cols}, {row_stride} apart"
        );
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// `rows` rows from row `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Mat<'a> {
        assert!(first + rows <= self.rows, "rows {first}..{} of {}", first + rows, self.rows);
        let data = if rows == 0 { &[] } else { &self.data[first * self.row_stride..] };
        Mat { data, rows, ..self }
    }

    /// `cols` columns from column `first` on.
    pub(crate) fn columns(self, first: usize, cols: usize) -> Mat<'a> {
        self.t().part(first, cols).t()
    }

    /// Whether each element lies in `data`.
    fn is_whole(&self) -> bool {
        let last =
            self.rows.saturating_sub(1) * self.row_stride + self.cols.saturating_sub(1) * self.col_stride;
        self.rows == 0 || self.cols == 0 || last < self.data.len()
    }

    /// Where element (i, j) lies.
    fn at(&self, i: usize, j: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(i * self.row_stride + j * self.col_stride)
    }

    /// The transposed view.
    pub fn t(self) -> Mat<'a> {
        let Mat { data, rows, cols, row_stride, col_stride } = self;
        Mat { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Depth of a block. Large, so that C is read and written few times; a panel of A (`KC` × `MR`) fits the first-level
/// cache, and B's panels come in order from the second, which keeps up.
const KC: usize = 768;
/// Columns of B packed at once.
const NC: usize = 2048;
/// Rows of A packed at once.
const MC: usize = 1024;
/// The largest task's rows and columns: both operands' panels stay in the second-level cache.
const TASK: (usize, usize) = (48, 96);
/// Multiply-adds below which a product is not worth waking a thread.
const TINY: usize = 1 << 16;
/// The most rows for which a B that is not row-major is packed strip by strip.
const FEW_ROWS: usize = 48;
/// The most columns for which a row-major A is read as it lies: each panel would be used a few times only.
const FEW_COLS: usize = 256;

/// `C = A B + bias` or `C += A B`, on all threads. `c` is (a.rows, b.cols), row-major; `bias` (b.cols) is added to
/// every row after the chain, and only with [`Out::Set`].
pub fn gemm(c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    gemm_on(isa::current(), c, a, b, out, bias);
}

/// [`gemm`] with a given instruction set.
pub fn gemm_on(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "A is {m} × {k}, B has {} rows", b.rows);
    assert_eq!(c.len(), m * n, "C is {m} × {n}");
    assert!(a.is_whole() && b.is_whole(), "A and B are as large as they say");
    assert!(bias.is_none_or(|bias| bias.len() == n && out == Out::Set), "a bias has one value a column");
    if m == 0 || n == 0 {
        return;
    }
    let _span = timing::start(|| {
        let layout = |mat: &Mat| if mat.col_stride == 1 { 'N' } else { 'T' };
        let (m, k, n) = (m as f64, k as f64, n as f64);
        let bytes = 4.0 * (m * k + k * n + m * n);
        (format!("gemm {}{} {m} × {k} × {n}", layout(&a), layout(&b)), 2.0 * m * k * n, bytes)
    });
    if k == 0 {
        if out == Out::Set {
            c.fill(0.0);
        }
        return bias.into_iter().for_each(|bias| add_bias(isa, c, bias));
    }
    if m <= small::MOST_ROWS && b.col_stride == 1 {
        small::product(isa, c, a, b, out, bias);
    } else if (m <= FEW_ROWS && b.col_stride != 1) || m * n * k <= TINY {
        few_rows(isa, c, a, b, out, bias);
    } else {
        with_tile!(isa, |tile| blocked(isa, tile, c, a, b, out, bias));
    }
}

isa::vectorised! {
    fn add_bias(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
        }
    }
}

/// Products of few rows, or tiny ones: tasks share the columns.
fn few_rows(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    let (m, n) = (a.rows, b.cols);
    let cols = if m * n * a.cols <= TINY {
        n
    } else {
        n.div_ceil(4 * pool::threads()).next_multiple_of(32).min(512)
    };
    let c = Shared::new(c);
    pool::for_each(n.div_ceil(cols), |task| {
        let (start, end) = (task * cols, n.min((task + 1) * cols));
        // SAFETY: C is borrowed by this function, and only this task has these columns.
        unsafe { product_inside(isa, (&c, start, n), a, b.columns(start, end - start), out, Causal::No) };
        let Some(bias) = bias else { return };
        for i in 0..m {
            // SAFETY: as above.
            add_bias(isa, unsafe { c.part(i * n + start, i * n + end) }, &bias[start..end]);
        }
    });
}

thread_local! {
    /// Packed panels of A and B.
    static PANELS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The whole product, block by block.
fn blocked<T: Tile>(isa: Isa, tile: T, c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let c = Shared::new(c);
    // Taken out, not borrowed: a task that runs here may itself multiply.
    let (mut a_panels, mut b_panels) = PANELS.take();
    for n0 in (0..n).step_by(NC) {
        let nc = NC.min(n - n0);
        for k0 in (0..k).step_by(KC) {
            let kc = KC.min(k - k0);
            // The last block of K finishes the chains.
            let bias = bias.filter(|_| k0 + kc == k).map(|bias| &bias[n0..n0 + nc]);
            for m0 in (0..m).step_by(MC) {
                let block =
                    Block { m0, mc: MC.min(m - m0), n0, nc, k0, kc, from_c: out == Out::Add || k0 > 0, bias };
                block.pack::<T>(isa, a, b, &mut a_panels, &mut b_panels);
                block.multiply(isa, tile, &c, n, a, &a_panels, &b_panels);
            }
        }
    }
    PANELS.set((a_panels, b_panels));
}

/// Rows `m0..m0+mc`, columns `n0..n0+nc` of C, and the part `k0..k0+kc` of K.
struct Block<'a> {
    m0: usize,
    mc: usize,
    n0: usize,
    nc: usize,
    k0: usize,
    kc: usize,
    from_c: bool,
    bias: Option<&'a [f32]>,
}

/// Whether A is read as it lies.
fn reads_a(a: &Mat, nc: usize) -> bool {
    a.col_stride == 1 && nc <= FEW_COLS
}

impl Block<'_> {
    /// Packs A's block, where that pays, and B's when it is new.
    fn pack<T: Tile>(&self, isa: Isa, a: Mat, b: Mat, a_panels: &mut Vec<f32>, b_panels: &mut Vec<f32>) {
        let &Block { m0, mc, n0, nc, k0, kc, .. } = self;
        let n_a = if reads_a(&a, nc) { 0 } else { mc.div_ceil(T::MR) };
        let n_b = if m0 == 0 { nc.div_ceil(T::NR) } else { 0 };
        pack::reserve(a_panels, n_a * T::MR * kc);
        pack::reserve(b_panels, n_b * T::NR * kc);
        let (a_all, b_all) = (Shared::new(a_panels), Shared::new(b_panels));
        const GROUP: usize = 8; // panels a task
        let a_tasks = n_a.div_ceil(GROUP);
        pool::for_each(a_tasks + n_b.div_ceil(GROUP), |task| {
            let (all, matrix, width, group, n, first) = match task.checked_sub(a_tasks) {
                None => (&a_all, a, T::MR, task, n_a, m0),
                Some(group) => (&b_all, b.t(), T::NR, group, n_b, n0),
            };
            let (start, end) = (group * GROUP, n.min((group + 1) * GROUP));
            // SAFETY: the panels are borrowed by `pack`, and each is written by one task.
            let panels = unsafe { all.part(start * width * kc, end * width * kc) };
            pack::panels(isa, panels, width, matrix, first + start * width, [k0, kc]);
        });
    }

    /// Rows and columns of a task: whole tiles, and so few that each thread has some tasks.
    fn task<T: Tile>(&self) -> (usize, usize) {
        let (mut rows, mut cols) = (TASK.0 / T::MR * T::MR, TASK.1 / T::NR * T::NR);
        while self.mc.div_ceil(rows) * self.nc.div_ceil(cols) < 12 * pool::threads() && rows.max(cols) > 32 {
            if cols > rows {
                cols = (cols / 2).next_multiple_of(T::NR)
            } else {
                rows = (rows / 2).next_multiple_of(T::MR)
            }
        }
        (rows, cols)
    }

    /// Multiplies the packed panels into C, whose rows are `ldc` apart.
    #[allow(clippy::too_many_arguments)]
    fn multiply<T: Tile>(
        &self,
        isa: Isa,
        tile: T,
        c: &Shared<f32>,
        ldc: usize,
        a: Mat,
        a_panels: &[f32],
        b_panels: &[f32],
    ) {
        let &Block { m0, mc, n0, nc, k0, kc, from_c, bias } = self;
        let (task_rows, task_cols) = self.task::<T>();
        let across = nc.div_ceil(task_cols);
        pool::for_each(mc.div_ceil(task_rows) * across, |task| {
            let (i0, j0) = (task / across * task_rows, task % across * task_cols);
            let (i1, j1) = (mc.min(i0 + task_rows), nc.min(j0 + task_cols));
            for j in (j0..j1).step_by(T::NR) {
                let cols = T::NR.min(nc - j);
                let b = B { at: b_panels[j * kc..(j + T::NR) * kc].as_ptr(), step: T::NR };
                for i in (i0..i1).step_by(T::MR) {
                    let rows = T::MR.min(mc - i);
                    let a = if reads_a(&a, nc) {
                        A { at: a.at(m0 + i, k0), row: a.row_stride, step: 1 }
                    } else {
                        A { at: a_panels[i * kc..(i + T::MR) * kc].as_ptr(), row: 1, step: T::MR }
                    };
                    let at = c.pointer((m0 + i) * ldc + n0 + j, (rows - 1) * ldc + cols);
                    let tile_of_c = C { at, row: ldc, from_c };
                    if i + T::MR < i1 {
                        C { at: at.wrapping_add(T::MR * ldc), ..tile_of_c }.prefetch(T::MR);
                    }
                    // SAFETY: A's panel, or A itself, has these rows and `kc` steps, and B's panel `kc` steps of
                    // `NR` values; the tile lies in C, as `pointer` has checked, and no other task has this place.
                    unsafe { tile.run(rows, cols, tile_of_c, a, b, kc) };
                }
            }
            let Some(bias) = bias else { return };
            for i in i0..i1 {
                let start = (m0 + i) * ldc + n0;
                // SAFETY: the part of a row that belongs to this task, whose tiles are done.
                add_bias(isa, unsafe { c.part(start + j0, start + j1) }, &bias[j0..j1]);
            }
        });
    }
}

#[cfg(test)]
mod tests;
