//! GELU in GPT-2's form: `out = 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel, 2016).

use super::tape_of;
use crate::memory::Buffer;
use crate::{Result, Tensor};

impl Tensor {
    /// The activation of GPT-2's feed-forward layers, element by element.
    pub fn gelu(&self) -> Result<Tensor> {
        let mut out = Buffer::scratch(self.len());
        kernels::rows::gelu(&mut out, self.data());
        let out = Tensor::from_buffer(self.shape(), out);
        let Some(tape) = tape_of(&[self]) else { return Ok(out) };
        let (x, target) = (self.shared(), self.target());
        Ok(tape.record(out, move |dout, back| {
            let mut dx = back.take(target, dout.len());
            if let Some(dx) = &mut dx {
                kernels::rows::gelu_backward(dx, &dout, &x);
            }
            back.put(dx);
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        check(&[random(&[4, 33], 1)], |x| x[0].gelu());
    }
}
