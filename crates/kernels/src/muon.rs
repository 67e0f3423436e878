//! Muon's step for matrices: momentum, made orthogonal (Jordan et al., 2024, "Muon: an optimizer for hidden layers").
//!
//! Of the momentum's singular value decomposition `U S Vᵀ`, only `U Vᵀ` moves the weights, so that every direction
//! moves alike. Four Newton–Schulz iterations come near enough to it, with matrix products alone. The step is
//! scaled to the size of Adam's (Liu et al., 2025), so that both share one learning rate.

use std::cell::RefCell;

use crate::gemm::{Mat, Out, gemm};
use crate::optim::sum_of_squares;
use crate::pool::{self, Shared};
use crate::timing;

/// The polynomial `a x + b x³ + c x⁵` of each iteration: the one that is nearest to 1 on what the last has made of
/// \[0.003, 1\] (Amsel et al., 2025, "The Polar Express"; `bench/muon_polynomials.py`). All four bring these singular values
/// to between 0.78 and 1.23; smaller ones grow by a factor of 290.
const POLYNOMIALS: [[f32; 3]; 4] = [
    [8.2510, -23.6626, 17.3868],
    [4.0193, -2.9543, 0.5564],
    [3.5190, -2.6365, 0.5268],
    [2.5061, -1.8478, 0.4383],
];
/// What the length that the momentum is divided by is multiplied with, since beyond 1 the polynomials grow fast.
const MARGIN: f64 = 1.01;
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
            // Of symmetric products, ten of sixteen blocks: four an iteration, but one in the first and two in the last.
            2.0 * m * m * (0.625 * (n + m * (4.0 * POLYNOMIALS.len() as f64 - 3.0)) + n)
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
    gram: Vec<f32>,
    p: Vec<f32>,
    q: Vec<f32>,
    product: Vec<f32>,
    rows: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Brings the singular values of `x` (rows, cols) near 1. A matrix of zeros stays.
    ///
    /// With `G = X Xᵀ` on the smaller side, an iteration is `X' = P X` where `P = a I + b G + c G²`. So `G' = P G P`, and the long
    /// side is needed again only at the end, for `Q X` with `Q` the product of all `P`.
    fn orthogonalize(&mut self, rows: usize, cols: usize) {
        let Scratch { x, next, gram, p, q, product, rows: some } = self;
        let scale = (1.0 / (MARGIN * sum_of_squares(x).sqrt()).max(EPS)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
        let n = rows.min(cols);
        for square in [&mut *gram, p, q, product] {
            square.resize(n * n, 0.0);
        }
        let view = Mat::new(x, rows, cols);
        let wide = if rows <= cols { view } else { view.t() };
        symmetric(gram, wide, wide, some);
        for (i, [a, b, c]) in POLYNOMIALS.into_iter().enumerate() {
            // All are polynomials of the first G, so their products are symmetric, too.
            symmetric(p, Mat::new(gram, n, n), Mat::new(gram, n, n), some);
            p.iter_mut().zip(gram.iter()).for_each(|(p, g)| *p = b * g + c * *p);
            p.iter_mut().step_by(n + 1).for_each(|p| *p += a);
            if i == 0 {
                q.copy_from_slice(p);
            } else {
                symmetric(product, Mat::new(p, n, n), Mat::new(q, n, n), some);
                std::mem::swap(q, product);
            }
            if i + 1 < POLYNOMIALS.len() {
                symmetric(product, Mat::new(p, n, n), Mat::new(gram, n, n), some);
                symmetric(gram, Mat::new(product, n, n), Mat::new(p, n, n), some);
            }
        }
        next.resize(x.len(), 0.0);
        let (left, right) = if rows <= cols { (Mat::new(q, n, n), view) } else { (view, Mat::new(q, n, n)) };
        gemm(next, left, right, Out::Set, None);
        std::mem::swap(x, next);
    }
}

/// `out = x yᵀ` (n, n), where that is symmetric. So of four blocks of rows each begins at the diagonal, and what is left of it is
/// copied.
fn symmetric(out: &mut [f32], x: Mat, y: Mat, rows: &mut Vec<f32>) {
    let n = x.rows;
    let height = n.div_ceil(4).next_multiple_of(24).max(1);
    for start in (0..n).step_by(height) {
        let (height, cols) = (height.min(n - start), n - start);
        rows.resize(height * cols, 0.0);
        gemm(rows, x.part(start, height), y.part(start, cols).t(), Out::Set, None);
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
        for (rows, cols) in [(16, 16), (16, 40), (40, 16), (3, 200), (1, 5), (1, 4000)] {
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

    /// Rows of unit length at right angles, by Gram and Schmidt.
    fn orthonormal(n: usize, len: usize, seed: u64) -> Vec<Vec<f64>> {
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for i in 0..n as u64 {
            let mut row: Vec<f64> = random(len, seed + i).into_iter().map(f64::from).collect();
            for _ in 0..2 {
                for other in &rows {
                    let along = dot(&row, other);
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            let length = dot(&row, &row).sqrt();
            row.iter_mut().for_each(|x| *x /= length);
            rows.push(row);
        }
        rows
    }

    #[test]
    fn singular_vectors_stay_and_values_grow_as_the_polynomials_say() {
        let (n, len) = (30, 75);
        let (u, v) = (orthonormal(n, n, 1), orthonormal(n, len, 100));
        // From 1 to 1e-5 of the longest.
        let s: Vec<f64> = (0..n).map(|i| 10f64.powf(-5.0 * i as f64 / (n - 1) as f64)).collect();
        let element = |i: usize, j: usize| (0..n).map(|k| u[i][k] * s[k] * v[k][j]).sum::<f64>();
        let length = MARGIN * s.iter().map(|s| s * s).sum::<f64>().sqrt();
        for lies in [false, true] {
            let (rows, cols) = if lies { (n, len) } else { (len, n) };
            let at = |k: usize| if lies { (k / cols, k % cols) } else { (k % cols, k / cols) };
            let x = (0..rows * cols).map(|k| element(at(k).0, at(k).1) as f32).collect();
            let mut scratch = Scratch { x, ..Scratch::default() };
            scratch.orthogonalize(rows, cols);
            for k in 0..n {
                // What has become of the k-th pair of vectors: u[k]ᵀ X' v[l].
                for l in [k, (k + 1) % n] {
                    let mut found = 0.0;
                    for (place, x) in scratch.x.iter().enumerate() {
                        let (i, j) = at(place);
                        found += u[i][k] * f64::from(*x) * v[l][j];
                    }
                    let grown = |y: f64, [a, b, c]: [f32; 3]| {
                        f64::from(a) * y + f64::from(b) * y.powi(3) + f64::from(c) * y.powi(5)
                    };
                    let wanted =
                        if l == k { POLYNOMIALS.into_iter().fold(s[k] / length, grown) } else { 0.0 };
                    assert!((found - wanted).abs() < 2e-3, "{k}, {l}: {found} for {wanted}");
                    assert!(l != k || s[k] / length < 3e-3 || (0.78..1.23).contains(&found));
                }
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
                symmetric(&mut half, x, x, &mut Vec::new());
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
