//! Steps of the optimisers, one pass over parameters, moments and gradients.

use crate::isa::{self, Isa, fma, vectorised};
use crate::pool::{self, Shared};
use crate::timing;

/// Elements of one task, and of one partial sum: part of the result of a sum, so it never changes.
const CHUNK: usize = 1 << 14;

/// The numbers of an Adam step (Kingma and Ba, 2015), or AdamW (Loshchilov and Hutter, 2019).
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f32,
    /// Memory of the first moment.
    pub beta1: f32,
    /// Memory of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Pull towards zero.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u64,
    /// Decay the weights themselves (AdamW), or through the gradient (Adam with L2).
    pub decoupled: bool,
    /// Factor of the gradient.
    pub grad_scale: f32,
}

vectorised! {
    fn square_sum(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (chunks, tail) = x.as_chunks::<8>();
        for chunk in chunks {
            for (sum, &x) in lanes.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in lanes.iter_mut().zip(tail) {
            *sum += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

/// `Σ x²`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let _span = timing::values("sum_of_squares", x.len());
    let isa = isa::current();
    let mut partial = vec![0.0f64; x.len().div_ceil(CHUNK)];
    pool::for_each_chunk_mut(&mut partial, 1, |i, sum| {
        sum[0] = square_sum(isa, &x[i * CHUNK..x.len().min((i + 1) * CHUNK)]);
    });
    partial.iter().sum()
}

/// Cuts every element to `-limit..=limit`. NaN stays.
pub fn clip_value(x: &mut [f32], limit: f32) {
    pool::for_each_chunk_mut(x, CHUNK, |_, x| x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit)));
}

vectorised! {
    fn adam_chunk(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: &AdamStep) {
        let correct = |beta: f32| (1.0 - f64::from(beta).powf(s.step as f64)) as f32;
        let (correct1, correct2) = (correct(s.beta1), correct(s.beta2).sqrt());
        let step_size = s.lr / correct1;
        let decay = if s.decoupled { 1.0 - s.lr * s.weight_decay } else { 1.0 };
        let l2 = if s.decoupled { 0.0 } else { s.weight_decay };
        let n = p.len();
        let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
        for i in 0..n {
            let g = fma::<FMA>(l2, p[i], g[i] * s.grad_scale);
            m[i] = fma::<FMA>(s.beta1, m[i], (1.0 - s.beta1) * g);
            v[i] = fma::<FMA>(s.beta2, v[i], (1.0 - s.beta2) * g * g);
            let denominator = v[i].sqrt() / correct2 + s.eps;
            p[i] = p[i] * decay - step_size * m[i] / denominator;
        }
    }
}

/// One step: moments `m` and `v` follow the gradient and its square, and `p` moves by `-lr · m̂ / (√v̂ + eps)`.
pub fn adam(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: &AdamStep) {
    let _span = timing::values("adam", 7 * p.len());
    adam_on(isa::current(), p, m, v, g, s);
}

pub(crate) fn adam_on(isa: Isa, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: &AdamStep) {
    assert!(m.len() == p.len() && v.len() == p.len() && g.len() == p.len());
    let (m, v) = (Shared::new(m), Shared::new(v));
    pool::for_each_chunk_mut(p, CHUNK, |i, p| {
        let (start, end) = (i * CHUNK, i * CHUNK + p.len());
        // SAFETY: `m` and `v` are borrowed by this function, and chunks do not overlap.
        let (m, v) = unsafe { (m.part(start, end), v.part(start, end)) };
        adam_chunk(isa, p, m, v, &g[start..end], s);
    });
}

/// The numbers of a step of stochastic gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f32,
    /// Share of the last direction that is kept.
    pub momentum: f32,
    /// L2, added to the gradient.
    pub weight_decay: f32,
    /// Factor of the gradient.
    pub grad_scale: f32,
    /// The first step: the buffer becomes the gradient.
    pub first: bool,
}

vectorised! {
    fn sgd_chunk(p: &mut [f32], buffer: &mut [f32], g: &[f32], s: &SgdStep) {
        let momentum = if s.first { 0.0 } else { s.momentum };
        for (p, (buffer, g)) in p.iter_mut().zip(buffer.iter_mut().zip(g)) {
            let g = fma::<FMA>(s.weight_decay, *p, *g * s.grad_scale);
            *buffer = fma::<FMA>(momentum, *buffer, g);
            *p -= s.lr * *buffer;
        }
    }
}

/// `buffer = momentum · buffer + g`, `p -= lr · buffer`.
pub fn sgd(p: &mut [f32], buffer: &mut [f32], g: &[f32], s: &SgdStep) {
    let _span = timing::values("sgd", 5 * p.len());
    assert!(buffer.len() == p.len() && g.len() == p.len());
    let isa = isa::current();
    let buffer = Shared::new(buffer);
    pool::for_each_chunk_mut(p, CHUNK, |i, p| {
        let (start, end) = (i * CHUNK, i * CHUNK + p.len());
        // SAFETY: `buffer` is borrowed by this function, and chunks do not overlap.
        let buffer = unsafe { buffer.part(start, end) };
        sgd_chunk(isa, p, buffer, &g[start..end], s);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use crate::reference;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed, 0, 0);
        (0..len as u64).map(|i| stream.normal(i)).collect()
    }

    #[test]
    fn adam_agrees_with_the_plain_version() {
        for n in [1, 7, 64, 65, CHUNK + 3] {
            for decoupled in [true, false] {
                let start = [random(n, 1), random(n, 2), random(n, 3).iter().map(|x| x * x).collect()];
                let g = random(n, 4);
                let (lr, beta1, beta2, eps) = (0.1, 0.9, 0.95, 1e-8);
                let s = AdamStep {
                    lr,
                    beta1,
                    beta2,
                    eps,
                    weight_decay: 0.1,
                    step: 3,
                    decoupled,
                    grad_scale: 0.5,
                };
                let [mut p, mut m, mut v] = start.clone();
                reference::adam(&mut p, &mut m, &mut v, &g, &s);
                for isa in isa::tested() {
                    let [mut got, mut gm, mut gv] = start.clone();
                    adam_on(isa, &mut got, &mut gm, &mut gv, &g, &s);
                    for i in 0..n {
                        let case = format!("{isa:?} n {n} decoupled {decoupled} [{i}]");
                        assert!(
                            (got[i] - p[i]).abs() <= 1e-5 * (1.0 + p[i].abs()),
                            "{case}: {} {}",
                            got[i],
                            p[i]
                        );
                        assert!((gm[i] - m[i]).abs() <= 1e-5 && (gv[i] - v[i]).abs() <= 1e-4, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn sgd_with_momentum() {
        let (mut p, mut buffer) = ([1.0, 2.0], [9.0, 9.0]);
        let s = SgdStep { lr: 0.1, momentum: 0.5, weight_decay: 0.0, grad_scale: 2.0, first: true };
        sgd(&mut p, &mut buffer, &[1.0, -1.0], &s);
        assert_eq!((p, buffer), ([0.8, 2.2], [2.0, -2.0]));
        sgd(&mut p, &mut buffer, &[0.0, 0.0], &SgdStep { first: false, ..s });
        assert_eq!(buffer, [1.0, -1.0]);
    }

    #[test]
    fn norms_and_clipping() {
        let x = vec![2.0; 3 * CHUNK + 5];
        assert_eq!(sum_of_squares(&x), 4.0 * x.len() as f64);
        assert!(sum_of_squares(&[f32::NAN]).is_nan());
        let mut x = [-3.0, 0.5, f32::NAN, 3.0];
        clip_value(&mut x, 1.0);
        assert!(x[..2] == [-1.0, 0.5] && x[2].is_nan() && x[3] == 1.0);
    }
}
