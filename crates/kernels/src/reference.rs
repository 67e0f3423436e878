//! The plain version of every kernel: it says what is right, and is written to be read.

use crate::activation::Activation;
use crate::blocks::{BLOCK, BlockMatrix};
use crate::optim::AdamStep;

/// `c = a b`; a is (m, k), b is (k, n), c is (m, n).
pub fn gemm(c: &mut [f32], a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) {
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        }
    }
}

/// `c += x w` for a w in blocks, as [`crate::blocks`] says; `fused` is whether multiply-adds round once. x is (m, k).
pub fn multiply_blocks(c: &mut [f32], x: &[f32], w: &BlockMatrix, fused: bool) {
    let (k, n) = (w.rows(), w.cols());
    let numbers: Vec<(f32, Vec<i32>)> =
        x.chunks(k).flat_map(|row| row.chunks(BLOCK).map(round_block)).collect();
    let blocks = k.div_ceil(BLOCK);
    for (i, c) in c.iter_mut().enumerate() {
        let (row, column) = (i / n, i % n);
        for block in 0..blocks {
            let (x_scale, x) = &numbers[row * blocks + block];
            let dot: i32 = x.iter().enumerate().map(|(j, x)| x * w.number(block * BLOCK + j, column)).sum();
            let scale = w.scale(block, column).to_f32() * x_scale;
            *c = if fused { (dot as f32).mul_add(scale, *c) } else { dot as f32 * scale + *c };
        }
    }
}

/// The scale and the 8-bit numbers of a block of x.
fn round_block(x: &[f32]) -> (f32, Vec<i32>) {
    if x.iter().any(|x| !x.is_finite()) {
        return (f32::NAN, vec![0; x.len()]);
    }
    let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    if most < 1e-36 {
        return (0.0, vec![0; x.len()]);
    }
    (most / 127.0, x.iter().map(|x| (x * (127.0 / most)).round_ties_even() as i32).collect())
}

/// `out = (x - mean) · rstd · w + b` for each row.
pub fn layer_norm(
    out: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
) {
    let c = w.len();
    for (row, x) in x.chunks(c).enumerate() {
        let m = x.iter().sum::<f32>() / c as f32;
        let var = x.iter().map(|x| (x - m).powi(2)).sum::<f32>() / c as f32;
        (mean[row], rstd[row]) = (m, 1.0 / (var + eps).sqrt());
        for i in 0..c {
            out[row * c + i] = (x[i] - m) * rstd[row] * w[i] + b[i];
        }
    }
}

/// With `n = (x - mean) · rstd` and `g = dout · w`: `dx += rstd · (g - mean(g) - n · mean(g n))`.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: &[f32],
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let c = w.len();
    for row in 0..mean.len() {
        let at = |i: usize| row * c + i;
        let n = |i: usize| (x[at(i)] - mean[row]) * rstd[row];
        let mean_g = (0..c).map(|i| dout[at(i)] * w[i]).sum::<f32>() / c as f32;
        let mean_gn = (0..c).map(|i| dout[at(i)] * w[i] * n(i)).sum::<f32>() / c as f32;
        for i in 0..c {
            dx[at(i)] += rstd[row] * (dout[at(i)] * w[i] - mean_g - n(i) * mean_gn);
            dw[i] += dout[at(i)] * n(i);
            db[i] += dout[at(i)];
        }
    }
}

/// An activation's value and slope.
pub fn activation(activation: Activation, x: f64) -> (f64, f64) {
    let sigmoid = |a: f64| {
        let g = 1.0 / (1.0 + (-a * x).exp());
        (g, a * g * (1.0 - g))
    };
    let times_x = |(g, dg): (f64, f64)| (x * g, g + x * dg);
    let positive = x.max(0.0);
    match activation {
        Activation::GeluNew => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
            let du = root * (1.0 + 3.0 * 0.044715 * x * x);
            times_x((0.5 * (1.0 + tanh), 0.5 * (1.0 - tanh * tanh) * du))
        }
        Activation::Gelu => times_x(normal(x)),
        Activation::QuickGelu => times_x(sigmoid(1.702)),
        Activation::Silu => times_x(sigmoid(1.0)),
        Activation::Relu => (positive, if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Relu2 => (positive * positive, 2.0 * positive),
        Activation::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
        Activation::Sigmoid => sigmoid(1.0),
    }
}

/// The normal distribution up to x, and its density: `Φ(x) = ½ + φ(x) (x + x³ / 3 + x⁵ / (3 · 5) + …)`.
fn normal(x: f64) -> (f64, f64) {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() > 15.0 {
        return (if x > 0.0 { 1.0 } else { 0.0 }, density);
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..400 {
        sum += term;
        term *= x * x / f64::from(2 * n + 1);
    }
    (0.5 + density * sum, density)
}

/// `ln Σ e^x`.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    most + row.iter().map(|x| (x - most).exp()).sum::<f32>().ln()
}

/// `e^x / Σ e^x` for each row.
pub fn softmax(x: &mut [f32], cols: usize) {
    for row in x.chunks_mut(cols) {
        let lse = log_sum_exp(row);
        row.iter_mut().for_each(|x| *x = (*x - lse).exp());
    }
}

/// Causal attention of one head: q, k, v, out are (t, d); `drop(i, j)` is the dropout factor.
pub fn attention(
    out: &mut [f32],
    [q, k, v]: [&[f32]; 3],
    d: usize,
    scale: f32,
    drop: impl Fn(usize, usize) -> f32,
) {
    for i in 0..q.len() / d {
        let dot = |j: usize| scale * (0..d).map(|l| q[i * d + l] * k[j * d + l]).sum::<f32>();
        let mut probs: Vec<f32> = (0..=i).map(dot).collect();
        softmax(&mut probs, i + 1);
        for l in 0..d {
            out[i * d + l] = (0..=i).map(|j| probs[j] * drop(i, j) * v[j * d + l]).sum();
        }
    }
}

/// Adds the gradients of [`attention`] by q, k and v.
pub fn attention_backward(
    [dq, dk, dv]: [&mut [f32]; 3],
    dout: &[f32],
    [q, k, v]: [&[f32]; 3],
    d: usize,
    scale: f32,
    drop: impl Fn(usize, usize) -> f32,
) {
    for i in 0..q.len() / d {
        let dot = |j: usize| scale * (0..d).map(|l| q[i * d + l] * k[j * d + l]).sum::<f32>();
        let mut probs: Vec<f32> = (0..=i).map(dot).collect();
        softmax(&mut probs, i + 1);
        let dprob = |j: usize| drop(i, j) * (0..d).map(|l| dout[i * d + l] * v[j * d + l]).sum::<f32>();
        let mean: f32 = (0..=i).map(|j| probs[j] * dprob(j)).sum();
        for j in 0..=i {
            let dscore = scale * probs[j] * (dprob(j) - mean);
            for l in 0..d {
                dq[i * d + l] += dscore * k[j * d + l];
                dk[j * d + l] += dscore * q[i * d + l];
                dv[j * d + l] += probs[j] * drop(i, j) * dout[i * d + l];
            }
        }
    }
}

/// One step of Adam or AdamW.
pub fn adam(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: &AdamStep) {
    for i in 0..p.len() {
        let mut g = g[i] * s.grad_scale;
        if s.decoupled {
            p[i] -= s.lr * s.weight_decay * p[i];
        } else {
            g += s.weight_decay * p[i];
        }
        m[i] = s.beta1 * m[i] + (1.0 - s.beta1) * g;
        v[i] = s.beta2 * v[i] + (1.0 - s.beta2) * g * g;
        let m_hat = m[i] / (1.0 - s.beta1.powi(s.step as i32));
        let v_hat = v[i] / (1.0 - s.beta2.powi(s.step as i32));
        p[i] -= s.lr * m_hat / (v_hat.sqrt() + s.eps);
    }
}
