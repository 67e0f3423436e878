//! The output layer: `logits = x wteᵀ`, the embedding table read the other way round.
//!
//! logits: (rows, V); x: (rows, C); wte: (V, C). For training see [`super::lm_loss`], which never stores them.

use kernels::gemm::{Mat, Out, gemm};

use super::tape_of;
use crate::memory::Buffer;
use crate::{Result, Tensor};

impl Tensor {
    /// The logits of every row over the vocabulary of `wte`.
    pub fn lm_head(&self, wte: &Tensor) -> Result<Tensor> {
        let (rows, c, v) = (self.rows(), self.cols(), wte.rows());
        wte.expect("lm_head weight", &[v, c])?;
        let mut out: Buffer = Buffer::scratch(rows * v);
        gemm(&mut out, Mat::new(self.data(), rows, c), Mat::new(wte.data(), v, c).t(), Out::Set, None);
        let mut shape = self.shape().to_vec();
        *shape.last_mut().expect("a tensor with rows") = v;
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape_of(&[self, wte]) else { return Ok(out) };
        let (x, weight) = (self.shared(), wte.shared());
        let targets = (self.target(), wte.target());
        Ok(tape.record(out, move |dout, back| {
            let dout = Mat::new(dout.f32(), rows, v);
            let mut dx = back.take(targets.0, rows * c);
            if let Some(dx) = &mut dx {
                gemm(dx, dout, Mat::new(weight.f32(), v, c), Out::Add, None);
            }
            back.put(dx);
            let mut dw = back.take(targets.1, v * c);
            if let Some(dw) = &mut dw {
                gemm(dw, dout.t(), Mat::new(x.f32(), rows, c), Out::Add, None);
            }
            back.put(dw);
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        check(&[random(&[3, 7], 1), random(&[11, 7], 2)], |x| x[0].lm_head(&x[1]));
    }
}
