//! A linear layer: `out = x w + b`.
//!
//! out: (rows, N); x: (rows, K); w: (K, N), the way GPT-2's checkpoints store it (`Conv1D`); b: (N).
//! Backward: `dx += dout wᵀ`, `dw += xᵀ dout`, `db += Σ_rows dout`.

use kernels::gemm::{Mat, Out, gemm};

use super::tape_of;
use crate::memory::Buffer;
use crate::{Result, Tensor, TensorError};

impl Tensor {
    /// `self · w + b`.
    pub fn linear(&self, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
        let (rows, k) = (self.rows(), self.cols());
        let &[w_rows, n] = w.shape() else {
            return Err(TensorError::Shape {
                op: "linear weight",
                got: w.shape().to_vec(),
                want: "(in, out)".into(),
            });
        };
        w.expect("linear weight", &[k, n])?;
        if let Some(b) = b {
            b.expect("linear bias", &[n])?;
        }
        debug_assert_eq!(w_rows, k);
        let mut out = Buffer::scratch(rows * n);
        gemm(
            &mut out,
            Mat::new(self.data(), rows, k),
            Mat::new(w.data(), k, n),
            Out::Set,
            b.map(Tensor::data),
        );
        let mut shape = self.shape().to_vec();
        *shape.last_mut().expect("a tensor with rows") = n;
        let out = Tensor::from_buffer(&shape, out);

        let Some(tape) = tape_of(&[self, w]) else { return Ok(out) };
        let (x, weight) = (self.shared(), w.shared());
        let targets = (self.target(), w.target(), b.map(Tensor::target));
        Ok(tape.record(out, move |dout, back| {
            let dout = Mat::new(&dout, rows, n);
            let mut dx = back.take_for_overwrite(targets.0, rows * k);
            if let Some(dx) = &mut dx {
                let mode = if dx.fresh { Out::Set } else { Out::Add };
                gemm(dx, dout, Mat::new(&weight, k, n).t(), mode, None);
            }
            back.put(dx);
            let mut dw = back.take(targets.1, k * n);
            if let Some(dw) = &mut dw {
                gemm(dw, Mat::new(&x, rows, k).t(), dout, Out::Add, None);
            }
            back.put(dw);
            let mut db = targets.2.and_then(|target| back.take(target, n));
            if let Some(db) = &mut db {
                kernels::rows::sum_rows(db, dout.data);
            }
            back.put(db);
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        let inputs = [random(&[2, 3, 7], 1), random(&[7, 5], 2), random(&[5], 3)];
        check(&inputs, |x| x[0].linear(&x[1], Some(&x[2])));
        check(&inputs[..2], |x| x[0].linear(&x[1], None));
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        let error = random(&[2, 3], 1).linear(&random(&[4, 5], 2), None).unwrap_err();
        assert_eq!(error.to_string(), "linear weight: got shape [4, 5], but [3, 5] is needed");
    }
}
