//! Row by row and element by element: norms, cross-entropy, dropout, embeddings.
//!
//! Plain loops, compiled for each instruction set. `rows × cols` matrices are row-major; gradients are added to.

mod cross_entropy;
mod norm;

use std::cell::RefCell;

pub use cross_entropy::{argmax, cross_entropy, cross_entropy_bf16, cross_entropy_loss};
pub use norm::{layer_norm, layer_norm_backward, layer_norm_backward_input};

use crate::bf16::{SharedValues, Values, ValuesMut, bf16, widen};
use crate::isa::{self, Isa, vectorised};
use crate::pool::{self, Shared};
use crate::random::Dropout;
use crate::timing;

/// Elements of one task of an element-wise loop.
const CHUNK: usize = 1 << 14;
/// Rows of one task of a loop that sums over rows: part of the result, so it never changes.
const ROW_BLOCK: usize = 32;

thread_local! {
    /// The partial sums of the call that this thread makes.
    static PARTIAL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` zeros.
fn with_zeros(len: usize, f: impl FnOnce(&mut [f32])) {
    // Taken out, not borrowed: a task that runs here may itself sum rows.
    let mut partial = PARTIAL.take();
    partial.clear();
    partial.resize(len, 0.0);
    f(&mut partial);
    PARTIAL.set(partial);
}

thread_local! {
    /// A row on its way between the types.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends a row of arbitrary values.
fn with_row<R>(cols: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    ROW.with_borrow_mut(|row| {
        row.resize(row.len().max(cols), 0.0);
        f(&mut row[..cols])
    })
}

/// Rows of `cols` values for one task.
fn task_rows(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

vectorised! {
    fn add_into(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

vectorised! {
    fn add_chunk(out: &mut [f32], a: &[f32], b: &[f32]) {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
    }
}

/// `out = a + b`.
pub fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
    let _span = timing::values("add", 3 * out.len());
    assert!(out.len() == a.len() && out.len() == b.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| {
        let at = i * CHUNK..i * CHUNK + out.len();
        add_chunk(isa, out, &a[at.clone()], &b[at]);
    });
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    let _span = timing::values("add_assign", 3 * x.len());
    assert_eq!(x.len(), y.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(x, CHUNK, |i, x| add_into(isa, x, &y[i * CHUNK..][..x.len()]));
}

vectorised! {
    /// `out += x · factor` or `out = x · factor`, with the dropout factors of the elements from `first` on.
    fn drop_chunk(out: &mut [f32], x: &[f32], dropout: &Dropout, first: u64, add: bool) {
        let mut factors = [0.0; 256];
        let mut first = first;
        for (out, x) in out.chunks_mut(256).zip(x.chunks(256)) {
            let factors = &mut factors[..out.len()];
            dropout.factors(first, factors);
            first += out.len() as u64;
            if add {
                out.iter_mut().zip(x.iter().zip(factors)).for_each(|(out, (x, f))| *out += *x * *f);
            } else {
                out.iter_mut().zip(x.iter().zip(factors)).for_each(|(out, (x, f))| *out = *x * *f);
            }
        }
    }
}

/// `out = x · keep / (1 - p)`.
pub fn dropout(out: &mut [f32], x: &[f32], dropout: Dropout) {
    let _span = timing::values("dropout", 2 * x.len());
    assert_eq!(out.len(), x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| {
        drop_chunk(isa, out, &x[i * CHUNK..][..out.len()], &dropout, (i * CHUNK) as u64, false);
    });
}

/// `dx += dout · keep / (1 - p)`.
pub fn dropout_backward(dx: &mut [f32], dout: &[f32], dropout: Dropout) {
    let _span = timing::values("dropout backward", 3 * dx.len());
    assert_eq!(dx.len(), dout.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(dx, CHUNK, |i, dx| {
        drop_chunk(isa, dx, &dout[i * CHUNK..][..dx.len()], &dropout, (i * CHUNK) as u64, true);
    });
}

/// [`dropout`] for values of either type, rounded if need be; without dropout, a copy in the type of `out`.
pub fn dropout_values(mut out: ValuesMut, x: Values, dropout: Option<Dropout>) {
    let _span = timing::values("dropout", 2 * x.len());
    assert_eq!(out.len(), x.len());
    let (isa, len, out) = (isa::current(), x.len(), out.shared());
    pool::for_each(len.div_ceil(CHUNK), |i| {
        let at = i * CHUNK..len.min((i + 1) * CHUNK);
        with_row(2 * at.len(), |scratch| {
            let (wide, dropped) = scratch.split_at_mut(at.len());
            let mut values = x.wide(isa, at.clone(), wide);
            if let Some(dropout) = &dropout {
                drop_chunk(isa, dropped, values, dropout, at.start as u64, false);
                values = dropped;
            }
            // SAFETY: `out` is borrowed by this function, and each chunk is written once.
            unsafe { write_row(isa, &out, at.start, values) };
        });
    });
}

/// Adds each column's sum over the rows of `dout` to `db`.
pub fn sum_rows(db: &mut [f32], dout: Values) {
    let _span = timing::values("sum_rows", dout.len());
    let (isa, c) = (isa::current(), db.len());
    assert!(c > 0 && dout.len().is_multiple_of(c));
    by_row_blocks(isa, db, dout.len() / c, |partial, row| match dout {
        Values::F32(dout) => add_into(isa, partial, &dout[row * c..][..c]),
        Values::Bf16(dout) => add_half_into(isa, partial, &dout[row * c..][..c]),
    });
}

/// Sums over rows in blocks of fixed size: `add(partial, row)` adds a row, and the blocks are added to `sum` in order.
fn by_row_blocks(isa: Isa, sum: &mut [f32], rows: usize, add: impl Fn(&mut [f32], usize) + Sync) {
    let c = sum.len();
    with_zeros(rows.div_ceil(ROW_BLOCK) * c, |partial| {
        pool::for_each_chunk_mut(partial, c, |i, partial| {
            (i * ROW_BLOCK..rows.min((i + 1) * ROW_BLOCK)).for_each(|row| add(partial, row));
        });
        partial.chunks_exact(c).for_each(|partial| add_into(isa, sum, partial));
    });
}

vectorised! {
    fn add_half_into(x: &mut [f32], y: &[bf16]) {
        x.iter_mut().zip(y).for_each(|(x, &y)| *x += widen(y));
    }
}

/// The way back through dropout and a bias: `out = dout · keep / (1 - p)`, rounded if need be, and `db += Σ_rows out`.
pub fn dropout_bias_backward(mut out: ValuesMut, db: &mut [f32], dout: &[f32], dropout: Option<Dropout>) {
    let _span = timing::values("dropout and bias backward", 2 * dout.len());
    let (isa, c) = (isa::current(), db.len());
    assert!(out.len() == dout.len() && c > 0 && dout.len().is_multiple_of(c));
    let out = out.shared();
    by_row_blocks(isa, db, dout.len() / c, |partial, row| {
        let dout = &dout[row * c..][..c];
        let Some(dropout) = &dropout else {
            add_into(isa, partial, dout);
            // SAFETY: `out` is borrowed by this function, and each row is written once.
            return unsafe { write_row(isa, &out, row * c, dout) };
        };
        with_row(c, |dropped| {
            drop_chunk(isa, dropped, dout, dropout, (row * c) as u64, false);
            add_into(isa, partial, dropped);
            // SAFETY: as above.
            unsafe { write_row(isa, &out, row * c, dropped) };
        });
    });
}

/// [`SharedValues::write`] with the instruction set at hand.
///
/// # Safety
/// As there.
unsafe fn write_row(isa: Isa, out: &SharedValues, start: usize, x: &[f32]) {
    match out {
        // SAFETY: the caller's promise.
        SharedValues::F32(out) => unsafe { out.part(start, start + x.len()) }.copy_from_slice(x),
        SharedValues::Bf16(out) => {
            // SAFETY: the caller's promise.
            let out = unsafe { out.part(start, start + x.len()) };
            crate::bf16::narrow_into(isa, out, x);
        }
    }
}

/// `out[i] = table[ids[i]]`, rows of `out.len() / ids.len()` values.
pub fn embedding(out: &mut [f32], table: &[f32], ids: &[u32]) {
    let _span = timing::values("embedding", 2 * out.len());
    if ids.is_empty() {
        return;
    }
    let c = out.len() / ids.len();
    assert_eq!(out.len(), ids.len() * c);
    let step = task_rows(c);
    pool::for_each_chunk_mut(out, step * c, |i, rows| {
        for (row, &id) in rows.chunks_exact_mut(c).zip(&ids[i * step..]) {
            row.copy_from_slice(&table[id as usize * c..][..c]);
        }
    });
}

/// `dtable[ids[i]] += dout[i]`, in the order of `ids`; tasks share the columns.
pub fn embedding_backward(dtable: &mut [f32], dout: &[f32], ids: &[u32]) {
    let _span = timing::values("embedding backward", 3 * dout.len());
    if ids.is_empty() {
        return;
    }
    let (isa, c) = (isa::current(), dout.len() / ids.len());
    assert!(dout.len() == ids.len() * c && dtable.len().is_multiple_of(c));
    const COLS: usize = 64;
    let table = Shared::new(dtable);
    pool::for_each(c.div_ceil(COLS), |task| {
        let (start, end) = (task * COLS, c.min((task + 1) * COLS));
        for (&id, dout) in ids.iter().zip(dout.chunks_exact(c)) {
            let row = id as usize * c;
            // SAFETY: `dtable` is borrowed by this function, and only this task has these columns.
            let dtable = unsafe { table.part(row + start, row + end) };
            add_into(isa, dtable, &dout[start..end]);
        }
    });
}

#[cfg(test)]
mod tests;
