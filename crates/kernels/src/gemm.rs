//! Matrix products `C = A B`, for any layout of A and B.
//!
//! Each element of C is one chain of multiply-adds over ascending K: the tiles hold outputs in their lanes and
//! never split a sum. So a result does not depend on the number of threads, on the other rows, or on how the
//! work was cut. Panels of A and B are packed so that a tile reads both in order (Goto and van de Geijn, 2008):
//! blocks of `KC` of K, `NC` columns of B and `MR` rows of A at a time, and tasks of some tiles for the pool.

mod pack;
mod small;
mod tiles;

use std::cell::RefCell;

use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use tiles::{Corner, Tile, with_tile};

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

    /// The transposed view.
    pub fn t(self) -> Mat<'a> {
        let Mat { data, rows, cols, row_stride, col_stride } = self;
        Mat { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Depth of a block: a panel of B (`KC` × `NR`) and one of A stay in the first-level cache.
const KC: usize = 256;
/// Columns of B packed at once.
const NC: usize = 2048;
/// Rows of A packed at once.
const MC: usize = 1024;
/// Rows and columns of one task, rounded to whole tiles.
const TASK: (usize, usize) = (96, 256);

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
    assert!(bias.is_none_or(|bias| bias.len() == n && out == Out::Set), "a bias has one value a column");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if out == Out::Set {
            c.fill(0.0);
        }
    } else if m <= small::MOST_ROWS && b.col_stride == 1 {
        small::product(isa, c, a, b, out);
    } else {
        with_tile!(isa, |tile| blocked(tile, c, a, b, out));
    }
    if let Some(bias) = bias {
        let rows = (1 << 15) / n + 1;
        pool::for_each_chunk_mut(c, rows * n, |_, rows| add_bias(isa, rows, bias));
    }
}

isa::vectorised! {
    fn add_bias(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
        }
    }
}

/// `C += A B` or `C = A B` on the calling thread alone; C's rows start `ldc` apart.
pub(crate) fn gemm_serial(isa: Isa, c: &mut [f32], ldc: usize, a: Mat, b: Mat, out: Out) {
    SERIAL.with_borrow_mut(|(a_panels, b_panels)| {
        with_tile!(isa, |tile| serial(tile, c, ldc, a, b, out, a_panels, b_panels));
    });
}

thread_local! {
    /// Packed panels of A and B of the calling thread.
    static PANELS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    /// The same for products inside a task.
    static SERIAL: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

#[allow(clippy::too_many_arguments)]
fn serial<T: Tile>(
    tile: T,
    c: &mut [f32],
    ldc: usize,
    a: Mat,
    b: Mat,
    out: Out,
    a_panels: &mut Vec<f32>,
    b_panels: &mut Vec<f32>,
) {
    let (m, n) = (a.rows, b.cols);
    for k0 in (0..a.cols).step_by(KC) {
        let kc = KC.min(a.cols - k0);
        pack::resize(a_panels, m.next_multiple_of(T::MR) * kc);
        pack::resize(b_panels, n.next_multiple_of(T::NR) * kc);
        for (i, panel) in a_panels.chunks_exact_mut(T::MR * kc).enumerate() {
            pack::rows(panel, T::MR, a, i * T::MR, k0, kc);
        }
        for (j, panel) in b_panels.chunks_exact_mut(T::NR * kc).enumerate() {
            pack::rows(panel, T::NR, b.t(), j * T::NR, k0, kc);
        }
        let from_c = out == Out::Add || k0 > 0;
        for (j, b_panel) in b_panels.chunks_exact(T::NR * kc).enumerate() {
            for (i, a_panel) in a_panels.chunks_exact(T::MR * kc).enumerate() {
                let (row, col) = (i * T::MR, j * T::NR);
                let corner = Corner { rows: T::MR.min(m - row), cols: T::NR.min(n - col), ldc, from_c };
                tile.run(&mut c[row * ldc + col..], corner, a_panel, b_panel);
            }
        }
    }
}

/// The whole product, block by block.
fn blocked<T: Tile>(tile: T, c: &mut [f32], a: Mat, b: Mat, out: Out) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let c = Shared::new(c);
    // Taken out, not borrowed: a task that runs here may itself multiply.
    let (mut a_panels, mut b_panels) = PANELS.take();
    for n0 in (0..n).step_by(NC) {
        let nc = NC.min(n - n0);
        for k0 in (0..k).step_by(KC) {
            let kc = KC.min(k - k0);
            for m0 in (0..m).step_by(MC) {
                let block =
                    Block { m0, mc: MC.min(m - m0), n0, nc, k0, kc, from_c: out == Out::Add || k0 > 0 };
                block.pack::<T>(a, b, &mut a_panels, &mut b_panels);
                block.multiply(tile, &c, n, &a_panels, &b_panels);
            }
        }
    }
    PANELS.set((a_panels, b_panels));
}

/// Rows `m0..m0+mc`, columns `n0..n0+nc` of C, and the part `k0..k0+kc` of K.
struct Block {
    m0: usize,
    mc: usize,
    n0: usize,
    nc: usize,
    k0: usize,
    kc: usize,
    from_c: bool,
}

impl Block {
    /// Packs A's block, and B's when it is new.
    fn pack<T: Tile>(&self, a: Mat, b: Mat, a_panels: &mut Vec<f32>, b_panels: &mut Vec<f32>) {
        let &Block { m0, mc, n0, nc, k0, kc, .. } = self;
        let n_a = mc.div_ceil(T::MR);
        let n_b = if m0 == 0 { nc.div_ceil(T::NR) } else { 0 };
        pack::resize(a_panels, n_a * T::MR * kc);
        if n_b > 0 {
            pack::resize(b_panels, n_b * T::NR * kc);
        }
        let (a_all, b_all) = (Shared::new(a_panels), Shared::new(b_panels));
        const GROUP: usize = 8; // panels a task
        let a_tasks = n_a.div_ceil(GROUP);
        pool::for_each(a_tasks + n_b.div_ceil(GROUP), |task| {
            let (all, matrix, width, group, n, first) = match task.checked_sub(a_tasks) {
                None => (&a_all, a, T::MR, task, n_a, m0),
                Some(group) => (&b_all, b.t(), T::NR, group, n_b, n0),
            };
            for i in group * GROUP..n.min((group + 1) * GROUP) {
                // SAFETY: the panels are borrowed by `pack`, and each is written by one task.
                let panel = unsafe { all.part(i * width * kc, (i + 1) * width * kc) };
                pack::rows(panel, width, matrix, first + i * width, k0, kc);
            }
        });
    }

    /// Multiplies the packed panels into C, whose rows are `ldc` apart.
    fn multiply<T: Tile>(&self, tile: T, c: &Shared<f32>, ldc: usize, a_panels: &[f32], b_panels: &[f32]) {
        let &Block { m0, mc, n0, nc, kc, from_c, .. } = self;
        let (task_rows, task_cols) = (TASK.0 / T::MR * T::MR, TASK.1 / T::NR * T::NR);
        let across = nc.div_ceil(task_cols);
        pool::for_each(mc.div_ceil(task_rows) * across, |task| {
            let (i0, j0) = (task / across * task_rows, task % across * task_cols);
            for j in (j0..nc.min(j0 + task_cols)).step_by(T::NR) {
                for i in (i0..mc.min(i0 + task_rows)).step_by(T::MR) {
                    let corner = Corner { rows: T::MR.min(mc - i), cols: T::NR.min(nc - j), ldc, from_c };
                    let start = (m0 + i) * ldc + n0 + j;
                    let a_panel = &a_panels[i * kc..(i + T::MR) * kc];
                    let b_panel = &b_panels[j * kc..(j + T::NR) * kc];
                    // SAFETY: the tile lies in C, and no other task has a tile at this place.
                    unsafe { tile.run_shared(c, start, corner, a_panel, b_panel) };
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
