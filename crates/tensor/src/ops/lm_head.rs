//! The output layer: `logits = x wteᵀ`, the embedding table read the other way round.
//!
//! logits: (rows, V); x: (rows, C); wte: (V, C). Logits are `f32`, whatever x is.
//! For training see [`super::lm_loss`], which never stores them.

use kernels::gemm::{Output, multiply};

use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::storage::Storage;
use crate::{Result, Tensor};

impl Tensor {
    /// The logits of every row over the vocabulary of `wte`.
    pub fn lm_head(&self, wte: &Tensor) -> Result<Tensor> {
        let (rows, c, v) = (self.rows(), self.cols(), wte.rows());
        wte.expect("lm_head weight", &[v, c])?;
        let mut out: Buffer = Buffer::scratch(rows * v);
        multiply(self.matrix(), wte.factor(true), Output::Set(&mut out));
        let mut shape = self.shape().to_vec();
        *shape.last_mut().expect("a tensor with rows") = v;
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape_of(&[self, wte]) else { return Ok(out) };
        let (x, weight) = (self.shared(), wte.shared());
        let targets = (self.target(), wte.target());
        if !is_wanted(&[targets.0, targets.1]) {
            return Ok(out.beside(tape));
        }
        Ok(tape.record(out, move |dout, back| {
            let dout = dout.matrix(rows, v);
            let mut dw = back.take_for_overwrite(targets.1, v * c);
            if let Some(dw) = &mut dw {
                multiply(dout.t(), x.matrix(rows, c), dw.output());
            }
            back.put(dw);
            let mut dx = Buffer::scratch(rows * c);
            multiply(dout, weight.matrix(v, c), Output::Set(&mut dx));
            back.add(targets.0, Storage::F32(dx).into_precision(x.precision()));
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
