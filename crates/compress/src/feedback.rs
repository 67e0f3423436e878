//! Rounding with feedback (GPTQ; Frantar et al., 2022): what rounding a weight changes is made up for by those after it.
//!
//! A linear layer is `x w`, w (K, N). With `H = Σ xᵀx` over a text, an error e (K, N) of the weights costs `Σ eᵀ H e`
//! over the columns. Let `H = U D Uᵀ`, U with ones on its diagonal and zeros below it. If row k is rounded not as it is
//! but as `w_k + Σ_{j<k} U_jk e_j`, then the cost is `Σ D_k r_k²` with r what rounding itself changes (Chee et al., 2023,
//! show that this is the same method). The scales of a block are searched when its first row is reached, with D as the
//! importance of its rows. The columns do not know of each other.

use kernels::gemm::{Mat, Output, multiply};
use tensor::blocks::{BLOCK, BlockFormat, PANEL, quantise_block};
use tensor::pool;

/// What is added to the diagonal of H, as a share of its mean: directions that the text does not show count, too.
const DAMPING: f32 = 0.01;

/// A row of the columns of a panel.
type Row = [f32; PANEL];

/// `H = U D Uᵀ`.
pub struct Factors {
    k: usize,
    /// Uᵀ: row k has the `U_jk` of j < k.
    turned: Vec<f32>,
    d: Vec<f32>,
}

impl Factors {
    /// Factors a symmetric matrix (k, k).
    pub fn new(mut h: Vec<f32>, k: usize) -> Factors {
        assert_eq!(h.len(), k * k);
        let mean = (0..k).map(|i| f64::from(h[i * k + i])).sum::<f64>() / k as f64;
        let damping = (mean as f32 * DAMPING).max(f32::MIN_POSITIVE);
        (0..k).for_each(|i| h[i * k + i] += damping);
        let mut d = vec![0.0; k];
        // From the last columns to the first, a block at a time: what later columns explain is taken off by a product.
        for start in (0..k).step_by(BLOCK).rev() {
            let end = k.min(start + BLOCK);
            take_off(&mut h, &d, k, start..end);
            for j in (start..end).rev() {
                let row: Vec<f32> = (j + 1..end).map(|l| h[j * k + l] * d[l]).collect();
                for i in (0..=j).rev() {
                    let later = &h[i * k + j + 1..i * k + end];
                    let explained: f32 = later.iter().zip(&row).map(|(a, b)| a * b).sum();
                    let rest = h[i * k + j] - explained;
                    if i == j {
                        d[j] = rest.max(damping);
                    }
                    h[i * k + j] = if i == j { 1.0 } else { rest / d[j] };
                }
            }
        }
        let mut turned = vec![0.0; k * k];
        for i in 0..k {
            (i + 1..k).for_each(|j| turned[j * k + i] = h[i * k + j]);
        }
        Factors { k, turned, d }
    }
}

/// Takes from the columns `part` of h, in rows up to theirs, what the columns after them explain.
fn take_off(h: &mut [f32], d: &[f32], k: usize, part: std::ops::Range<usize>) {
    let (start, end) = (part.start, part.end);
    if end == k {
        return;
    }
    let scaled: Vec<f32> =
        part.clone().flat_map(|j| (end..k).map(move |l| (j, l))).map(|(j, l)| h[j * k + l] * d[l]).collect();
    let mut explained = vec![0.0; end * part.len()];
    let later = Mat::strided(&h[end..], end, k - end, k);
    multiply(
        later.into(),
        kernels::gemm::Operand::from(Mat::new(&scaled, part.len(), k - end).t()),
        Output::Set(&mut explained),
    );
    for (i, explained) in explained.chunks_exact(part.len()).enumerate() {
        h[i * k + start..i * k + end].iter_mut().zip(explained).for_each(|(h, x)| *h -= x);
    }
}

/// A matrix (K, N) in blocks.
pub fn quantise(format: BlockFormat, w: &[f32], n: usize, factors: &Factors) -> Vec<u8> {
    let k = factors.k;
    let mut all = vec![0; format.bytes_for(k, n)];
    pool::for_each_chunk_mut(&mut all, format.panel_bytes(k), |p, panel| {
        let there = PANEL.min(n - p * PANEL);
        let rows: Vec<Row> = (0..k)
            .map(|i| {
                let mut row = [0.0; PANEL];
                row[..there].copy_from_slice(&w[i * n + p * PANEL..][..there]);
                row
            })
            .collect();
        fill_panel(format, panel, &rows, factors);
    });
    all
}

/// The blocks of 32 columns, from their weights row by row.
fn fill_panel(format: BlockFormat, panel: &mut [u8], w: &[Row], factors: &Factors) {
    let k = factors.k;
    let mut errors: Vec<Row> = Vec::with_capacity(k);
    for start in (0..k).step_by(BLOCK) {
        let end = k.min(start + BLOCK);
        let mut block = [[0.0; PANEL]; BLOCK];
        for (i, row) in (start..end).zip(&mut block) {
            *row = w[i];
            feed_back(row, &factors.turned[i * k..], &errors);
        }
        let mut importance = [0.0; BLOCK];
        importance[..end - start].copy_from_slice(&factors.d[start..end]);
        let scales: [_; PANEL] =
            std::array::from_fn(|c| quantise_block(format, &block.map(|row| row[c]), Some(&importance)).0);
        let mut levels = [[format.offset() as u8; BLOCK]; PANEL];
        for i in start..end {
            let row = &mut block[i - start];
            feed_back(row, &factors.turned[i * k + start..], &errors[start..]);
            let error = std::array::from_fn(|c| {
                levels[c][i - start] = format.level(row[c], scales[c]);
                w[i][c] - format.weight(levels[c][i - start], scales[c])
            });
            errors.push(error);
        }
        for (c, levels) in levels.iter().enumerate() {
            format.store(panel, start / BLOCK, c, scales[c], levels);
        }
    }
}

/// Adds to a row what the errors of rows before it ask for.
fn feed_back(row: &mut Row, turned: &[f32], errors: &[Row]) {
    for (u, error) in turned.iter().zip(errors) {
        row.iter_mut().zip(error).for_each(|(w, e)| *w += u * e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::blocks::{BlockMatrix, quantise as plain};
    use tensor::gradcheck::random;

    /// Rows of x that hang together: each value is a mixture of few others.
    fn hessian(k: usize) -> Vec<f32> {
        let (rows, hidden) = (200, 7);
        let (z, mix, noise) = (random(&[rows, hidden], 1), random(&[hidden, k], 2), random(&[rows, k], 3));
        let mut h = vec![0.0; k * k];
        for r in 0..rows {
            let x: Vec<f32> = (0..k)
                .map(|i| {
                    (0..hidden).map(|j| z.data()[r * hidden + j] * mix.data()[j * k + i]).sum::<f32>()
                        + 0.1 * noise.data()[r * k + i]
                })
                .collect();
            (0..k * k).for_each(|at| h[at] += x[at / k] * x[at % k]);
        }
        h
    }

    #[test]
    fn the_factors_give_the_matrix_back() {
        for k in [1, 31, 32, 33, 100] {
            let h = hessian(k);
            let Factors { turned, d, .. } = Factors::new(h.clone(), k);
            let mean = (0..k).map(|i| h[i * k + i]).sum::<f32>() / k as f32;
            let u = |i: usize, l: usize| if i == l { 1.0 } else { turned[l * k + i] };
            for i in 0..k {
                for j in 0..k {
                    let got: f32 = (i.max(j)..k).map(|l| u(i, l) * d[l] * u(j, l)).sum();
                    let want = h[i * k + j] + if i == j { DAMPING * mean } else { 0.0 };
                    assert!((got - want).abs() <= 1e-3 * mean, "k = {k}, ({i}, {j}): {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn feedback_makes_the_output_better() {
        for (k, n) in [(32, 32), (100, 40), (64, 5)] {
            let (w, h) = (random(&[k, n], 4), hessian(k));
            let cost = |bytes: &[u8]| {
                let got = BlockMatrix::new(BlockFormat::Q4, k, n, bytes).unwrap().dequantise();
                let e: Vec<f32> = got.iter().zip(w.data()).map(|(a, b)| a - b).collect();
                let term = |at: usize| {
                    let (i, j) = (at / k, at % k);
                    h[at] * (0..n).map(|c| e[i * n + c] * e[j * n + c]).sum::<f32>()
                };
                (0..k * k).map(term).sum::<f32>()
            };
            let fed = cost(&quantise(BlockFormat::Q4, w.data(), n, &Factors::new(h.clone(), k)));
            let rounded = cost(&plain(BlockFormat::Q4, Mat::new(w.data(), k, n), None));
            assert!(fed < 0.6 * rounded, "k = {k}, n = {n}: {fed}, and {rounded} without feedback");
        }
    }

    #[test]
    fn where_inputs_are_independent_there_is_nothing_to_feed_back() {
        let (k, n) = (64, 32);
        let mut h = vec![0.0; k * k];
        (0..k).for_each(|i| h[i * k + i] = 1.0);
        let w = random(&[k, n], 5);
        let fed = quantise(BlockFormat::Q8, w.data(), n, &Factors::new(h, k));
        assert_eq!(fed, plain(BlockFormat::Q8, Mat::new(w.data(), k, n), None));
    }
}
