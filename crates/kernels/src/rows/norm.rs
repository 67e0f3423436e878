//! Layer norm (Ba, Kiros and Hinton, 2016), there and back.

use super::{ROW_BLOCK, add_into, task_rows, with_row, with_zeros, write_row};
use crate::bf16::{SharedValues, Values, ValuesMut};
use crate::isa::{self, Isa, fma, vectorised};
use crate::math::{LANES, combine, sum};
use crate::pool::{self, Shared};
use crate::timing;

vectorised! {
    fn layer_norm_rows(out: &mut [f32], mean: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) {
        let c = w.len();
        let rows = out.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(mean.iter_mut().zip(rstd));
        for ((out, x), (mean, rstd)) in rows {
            let m = sum(x, |x| x) / c as f32;
            let var = sum(x, |x| (x - m) * (x - m)) / c as f32;
            let r = 1.0 / (var + eps).sqrt();
            (*mean, *rstd) = (m, r);
            for (out, (x, (w, b))) in out.iter_mut().zip(x.iter().zip(w.iter().zip(b))) {
                *out = fma::<FMA>((x - m) * r, *w, *b);
            }
        }
    }
}

/// `out = (x - mean) · rstd · w + b` for rows of `w.len()` values; keeps each row's `mean` and `rstd`.
pub fn layer_norm(
    out: ValuesMut,
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
) {
    let _span = timing::values("layer_norm", 2 * x.len());
    layer_norm_on(isa::current(), out, mean, rstd, x, w, b, eps);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm_on(
    isa: Isa,
    mut out: ValuesMut,
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(out.len() == rows * c && x.len() == rows * c && rstd.len() == rows && b.len() == c);
    let step = task_rows(c);
    let (mean, rstd, out) = (Shared::new(mean), Shared::new(rstd), out.shared());
    pool::for_each(rows.div_ceil(step), |i| {
        let (start, end) = (i * step, rows.min((i + 1) * step));
        // SAFETY: `mean` and `rstd` are borrowed by this function, and chunks of rows do not overlap.
        let (mean, rstd) = unsafe { (mean.part(start, end), rstd.part(start, end)) };
        let x = &x[start * c..end * c];
        match &out {
            SharedValues::F32(out) => {
                // SAFETY: as above.
                let out = unsafe { out.part(start * c, end * c) };
                layer_norm_rows(isa, out, mean, rstd, x, w, b, eps);
            }
            SharedValues::Bf16(_) => with_row(c, |wide| {
                for (r, x) in x.chunks_exact(c).enumerate() {
                    layer_norm_rows(isa, wide, &mut mean[r..r + 1], &mut rstd[r..r + 1], x, w, b, eps);
                    // SAFETY: as above.
                    unsafe { write_row(isa, &out, (start + r) * c, wide) };
                }
            }),
        }
    });
}

/// The means of `g = dout · w` and of `g · (x - mean) · rstd` over a row.
#[inline(always)]
fn gradient_means<const FMA: bool>(dout: &[f32], x: &[f32], w: &[f32], mean: f32, rstd: f32) -> (f32, f32) {
    let [mut sum_g, mut sum_gn] = [[0.0f32; LANES]; 2];
    let mut add = |dout: &[f32], x: &[f32], w: &[f32]| {
        for (lane, (&dout, (&x, &w))) in dout.iter().zip(x.iter().zip(w)).enumerate() {
            let g = dout * w;
            sum_g[lane] += g;
            sum_gn[lane] = fma::<FMA>(g, (x - mean) * rstd, sum_gn[lane]);
        }
    };
    let ((d, d_tail), (y, y_tail), (v, v_tail)) = (dout.as_chunks::<LANES>(), x.as_chunks(), w.as_chunks());
    for (d, (y, v)) in d.iter().zip(y.iter().zip(v)) {
        add(d, y as &[f32; LANES], v as &[f32; LANES]);
    }
    add(d_tail, y_tail, v_tail);
    let n = dout.len() as f32;
    (combine(sum_g) / n, combine(sum_gn) / n)
}

vectorised! {
    fn layer_norm_backward_rows(
        dx: &mut [f32], dw: &mut [f32], db: &mut [f32], dout: &[f32], x: &[f32], w: &[f32], mean: &[f32], rstd: &[f32]
    ) {
        let c = w.len();
        for (row, (&m, &r)) in mean.iter().zip(rstd).enumerate() {
            let at = row * c..(row + 1) * c;
            let (dx, dout, x) = (&mut dx[at.clone()], &dout[at.clone()], &x[at]);
            let (w, dw, db) = (&w[..c], &mut dw[..c], &mut db[..c]);
            let (mean_g, mean_gn) = gradient_means::<FMA>(dout, x, w, m, r);
            for i in 0..c {
                let normed = (x[i] - m) * r;
                dx[i] += r * (dout[i] * w[i] - mean_g - normed * mean_gn);
                dw[i] += dout[i] * normed;
                db[i] += dout[i];
            }
        }
    }
}

/// Adds to `dx` (rows, C), `dw` (C) and `db` (C).
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let _span = timing::values("layer_norm backward", 4 * x.len());
    layer_norm_backward_on(isa::current(), dx, dw, db, dout, x, w, mean, rstd);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm_backward_on(
    isa: Isa,
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(dx.len() == rows * c && dout.len() == rows * c && x.len() == rows * c && rstd.len() == rows);
    let blocks = rows.div_ceil(ROW_BLOCK);
    let dx = Shared::new(dx);
    with_zeros(blocks * 2 * c, |partial| {
        pool::for_each_chunk_mut(partial, 2 * c, |i, partial| {
            let (start, end) = (i * ROW_BLOCK, rows.min((i + 1) * ROW_BLOCK));
            let (dw, db) = partial.split_at_mut(c);
            with_row(c, |wide| {
                for row in start..end {
                    let at = row * c..(row + 1) * c;
                    // SAFETY: `dx` is borrowed by this function, and blocks of rows do not overlap.
                    let dx = unsafe { dx.part(at.start, at.end) };
                    let dout = dout.wide(isa, at.clone(), wide);
                    let (mean, rstd) = (&mean[row..=row], &rstd[row..=row]);
                    layer_norm_backward_rows(isa, dx, dw, db, dout, &x[at], w, mean, rstd);
                }
            });
        });
        for partial in partial.chunks_exact(2 * c) {
            add_into(isa, dw, &partial[..c]);
            add_into(isa, db, &partial[c..]);
        }
    });
}

vectorised! {
    fn layer_norm_backward_row(dx: &mut [f32], dout: &[f32], x: &[f32], w: &[f32], mean: f32, rstd: f32) {
        let (mean_g, mean_gn) = gradient_means::<FMA>(dout, x, w, mean, rstd);
        for (dx, ((&dout, &w), &x)) in dx.iter_mut().zip(dout.iter().zip(w).zip(x)) {
            *dx += rstd * (dout * w - mean_g - (x - mean) * rstd * mean_gn);
        }
    }
}

/// [`layer_norm_backward`] for a `w` and a `b` that are not trained: adds to `dx` alone, the same.
pub fn layer_norm_backward_input(
    dx: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let _span = timing::values("layer_norm backward", 4 * x.len());
    layer_norm_backward_input_on(isa::current(), dx, dout, x, w, mean, rstd);
}

pub(crate) fn layer_norm_backward_input_on(
    isa: Isa,
    dx: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(dx.len() == rows * c && dout.len() == rows * c && x.len() == rows * c && rstd.len() == rows);
    let step = task_rows(c);
    pool::for_each_chunk_mut(dx, step * c, |i, dx| {
        with_row(c, |wide| {
            for (dx, row) in dx.chunks_exact_mut(c).zip(i * step..) {
                let at = row * c..(row + 1) * c;
                let dout = dout.wide(isa, at.clone(), wide);
                layer_norm_backward_row(isa, dx, dout, &x[at], w, mean[row], rstd[row]);
            }
        });
    });
}
