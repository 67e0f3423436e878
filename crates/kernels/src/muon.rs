//! Muon's step for matrices: momentum, made orthogonal (Jordan et al., 2024, "Muon: an optimizer for hidden layers").
//!
//! Of the momentum's singular value decomposition `U S Vᵀ`, only `U Vᵀ` moves the weights, so that every direction
//! moves alike. Five Newton–Schulz iterations come near enough to it, with matrix products alone. The step is
//! scaled to the size of Adam's (Liu et al., 2025), so that both share one learning rate.

use std::cell::RefCell;

use crate::gemm::{Mat, Out, gemm};
use crate::optim::sum_of_squares;
use crate::pool::{self, Shared};
use crate::timing;

/// Iterations, and the polynomial `a x + b x³ + c x⁵` of each: it lifts small singular values fast, and leaves
/// those near 1 between about 0.7 and 1.2.
const ITERATIONS: usize = 5;
const POLYNOMIAL: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Added to the length that the momentum is divided by.
const EPS: f64 = 1e-7;
/// The usual size of an element of Adam's step, in learning rates.
const ADAM_SIZE: f32 = 0.2;

/// The numbers of a step.
#[derive(Clone, Copy, Debug)]
pub struct MuonStep {
    /// Learning rate.
    pub lr: f32,
    /// Share of the last direction that is kept.
    pub momentum: f32,
    /// Pull towards zero of the weights themselves.
    pub weight_decay: f32,
    /// Factor of the gradient.
    pub grad_scale: f32,
}

/// A matrix to move: (rows, cols), made of `parts` matrices side by side, each made orthogonal by itself.
#[derive(Debug)]
pub struct MuonMatrix<'a> {
    /// The weights.
    pub p: &'a mut [f32],
    /// The mean of past gradients.
    pub momentum: &'a mut [f32],
    /// The gradient.
    pub g: &'a [f32],
    /// Columns of the whole.
    pub cols: usize,
    /// Matrices side by side: 3 for queries, keys and values.
    pub parts: usize,
}

/// `m = momentum · m + (1 - momentum) g`, `p -= lr · orthogonal(lerp(g, m, momentum))`, for all matrices at once.
pub fn muon(matrices: &mut [MuonMatrix], s: &MuonStep) {
    struct Part<'a> {
        p: &'a Shared<f32>,
        momentum: &'a Shared<f32>,
        g: &'a [f32],
        stride: usize,
        first: usize,
        cols: usize,
    }
    let shared: Vec<_> = matrices
        .iter_mut()
        .map(|m| {
            assert!(m.p.len() == m.g.len() && m.momentum.len() == m.g.len());
            assert!(m.cols.is_multiple_of(m.parts) && m.g.len().is_multiple_of(m.cols));
            (Shared::new(m.p), Shared::new(m.momentum), m.g, m.cols, m.parts)
        })
        .collect();
    let mut parts: Vec<Part> = shared
        .iter()
        .flat_map(|&(ref p, ref momentum, g, stride, parts)| {
            let cols = stride / parts;
            (0..parts).map(move |part| Part { p, momentum, g, stride, first: part * cols, cols })
        })
        .collect();
    // The longest first, so that the threads end together.
    parts.sort_by_key(|part| std::cmp::Reverse(part.g.len() / part.stride * part.cols));
    let _span = timing::start(|| {
        let sides = parts.iter().map(|part| (part.g.len() / part.stride, part.cols));
        let products = sides.map(|(rows, cols)| {
            let (m, n) = (rows.min(cols) as f64, rows.max(cols) as f64);
            // Of the two symmetric products, ten of sixteen blocks.
            ITERATIONS as f64 * 2.0 * m * m * (0.625 * (n + m) + n)
        });
        ("muon".into(), products.sum(), 0.0)
    });
    pool::for_each(parts.len(), |i| {
        let part = &parts[i];
        let rows = part.g.len() / part.stride;
        let place = |row: usize| (row * part.stride + part.first, row * part.stride + part.first + part.cols);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.x.clear();
            for row in 0..rows {
                let (start, end) = place(row);
                // SAFETY: the momentum is borrowed by `muon`, and these columns belong to this task.
                let momentum = unsafe { part.momentum.part(start, end) };
                for (m, g) in momentum.iter_mut().zip(&part.g[start..end]) {
                    let g = g * s.grad_scale;
                    *m += (1.0 - s.momentum) * (g - *m);
                    scratch.x.push(g + s.momentum * (*m - g));
                }
            }
            scratch.orthogonalize(rows, part.cols);
            let size = s.lr * ADAM_SIZE * (rows.max(part.cols) as f32).sqrt();
            let keep = 1.0 - s.lr * s.weight_decay;
            for (row, x) in scratch.x.chunks_exact(part.cols).enumerate() {
                let (start, end) = place(row);
                // SAFETY: the weights are borrowed by `muon`, and these columns belong to this task.
                let p = unsafe { part.p.part(start, end) };
                p.iter_mut().zip(x).for_each(|(p, x)| *p = *p * keep - size * x);
            }
        });
    });
}

/// Values of one matrix on its way, reused by the next.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    next: Vec<f32>,
    square: Vec<f32>,
    fourth: Vec<f32>,
    rows: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Brings the singular values of `x` (rows, cols) near 1. A matrix of zeros stays.
    fn orthogonalize(&mut self, rows: usize, cols: usize) {
        let Scratch { x, next, square, fourth, rows: some } = self;
        let scale = (1.0 / sum_of_squares(x).sqrt().max(EPS)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
        let n = rows.min(cols);
        square.resize(n * n, 0.0);
        fourth.resize(n * n, 0.0);
        next.resize(x.len(), 0.0);
        let [a, b, c] = POLYNOMIAL;
        for _ in 0..ITERATIONS {
            // S = X Xᵀ on the smaller side; X' = a X + (b S + c S²) X.
            let view = Mat::new(x, rows, cols);
            let wide = if rows <= cols { view } else { view.t() };
            gram(square, wide, some);
            gram(fourth, Mat::new(square, n, n), some); // S S = S Sᵀ, since S is symmetric to the bit
            fourth.iter_mut().zip(square.iter()).for_each(|(s2, s)| *s2 = b * s + c * *s2);
            let s = Mat::new(fourth, n, n);
            let (left, right) = if rows <= cols { (s, view) } else { (view, s) };
            gemm(next, left, right, Out::Set, None);
            next.iter_mut().zip(x.iter()).for_each(|(next, x)| *next += a * x);
            std::mem::swap(x, next);
        }
    }
}

/// `out = x xᵀ` (n, n), which is symmetric to the bit: an element and its mirror image are one chain of the same products.
/// So of four blocks of rows each begins at the diagonal, and what is left of it is copied.
fn gram(out: &mut [f32], x: Mat, rows: &mut Vec<f32>) {
    let n = x.rows;
    let height = n.div_ceil(4).next_multiple_of(24);
    for start in (0..n).step_by(height) {
        let (height, cols) = (height.min(n - start), n - start);
        rows.resize(height * cols, 0.0);
        gemm(rows, x.part(start, height), x.part(start, cols).t(), Out::Set, None);
        for (i, row) in rows.chunks_exact(cols).enumerate() {
            out[(start + i) * n + start..][..cols].copy_from_slice(row);
            let below = out.chunks_exact_mut(n).skip(start).zip(row).skip(height);
            below.for_each(|(out, value)| out[start + i] = *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed, 0, 0);
        (0..len as u64).map(|i| stream.normal(i)).collect()
    }

    #[test]
    fn singular_values_come_near_one() {
        for (rows, cols) in [(16, 16), (16, 40), (40, 16), (3, 200), (1, 5)] {
            let mut scratch = Scratch { x: random(rows * cols, 1), ..Scratch::default() };
            scratch.orthogonalize(rows, cols);
            // The rows of the smaller side are nearly orthonormal: for every v, |v X| is near |v|.
            let n = rows.min(cols);
            for seed in 2..6 {
                let v = random(n, seed);
                let at =
                    |i: usize, j: usize| scratch.x[if rows <= cols { i * cols + j } else { j * cols + i }];
                let out = (0..rows.max(cols)).map(|j| (0..n).map(|i| v[i] * at(i, j)).sum::<f32>());
                let ratio = (out.map(|x| x * x).sum::<f32>() / v.iter().map(|x| x * x).sum::<f32>()).sqrt();
                assert!((0.6..1.3).contains(&ratio), "{rows} × {cols}: {ratio}");
            }
        }
    }

    #[test]
    fn half_of_a_symmetric_product_is_all_of_it() {
        for (n, k) in [(1, 3), (24, 24), (25, 40), (96, 7), (100, 300), (192, 768)] {
            let data = random(n * k, 5);
            // Rows that lie in order, and rows that are columns.
            for x in [Mat::new(&data, n, k), Mat::new(&data, k, n).t()] {
                let (mut half, mut whole) = (vec![0.0; n * n], vec![0.0; n * n]);
                gram(&mut half, x, &mut Vec::new());
                gemm(&mut whole, x, x.t(), Out::Set, None);
                assert!(half == whole, "{n} × {k}");
            }
        }
    }

    #[test]
    fn parts_move_as_matrices_of_their_own() {
        let s = MuonStep { lr: 0.1, momentum: 0.9, weight_decay: 0.1, grad_scale: 0.5 };
        let (rows, cols) = (6, 4);
        let (p, g) = (random(rows * cols * 3, 1), random(rows * cols * 3, 2));
        let (mut whole, mut momentum) = (p.clone(), vec![0.0; p.len()]);
        let all = MuonMatrix { p: &mut whole, momentum: &mut momentum, g: &g, cols: 3 * cols, parts: 3 };
        muon(&mut [all], &s);
        for part in 0..3 {
            let cut = |x: &[f32]| -> Vec<f32> {
                x.chunks(3 * cols).flat_map(|row| row[part * cols..][..cols].to_vec()).collect()
            };
            let (mut p, mut m, g) = (cut(&p), vec![0.0; rows * cols], cut(&g));
            muon(&mut [MuonMatrix { p: &mut p, momentum: &mut m, g: &g, cols, parts: 1 }], &s);
            assert_eq!((p, m), (cut(&whole), cut(&momentum)));
        }
    }

    #[test]
    fn a_gradient_of_zero_only_decays() {
        let s = MuonStep { lr: 0.1, momentum: 0.9, weight_decay: 0.5, grad_scale: 1.0 };
        let (mut p, mut momentum) = ([1.0; 4], [0.0; 4]);
        muon(&mut [MuonMatrix { p: &mut p, momentum: &mut momentum, g: &[0.0; 4], cols: 2, parts: 1 }], &s);
        assert_eq!(p, [0.95; 4]);
    }
}
