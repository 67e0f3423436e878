//! Dropout: `out = x * keep / (1 - p)`, where each element is kept with probability `1 - p`.
//!
//! The mask is never stored: element `i` is kept or not by the counter-based random number `i` of a stream, so
//! the backward pass draws the same numbers again (Srivastava et al., 2014).

use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::{Result, Tensor};
pub use kernels::random::Dropout;

impl Tensor {
    /// Drops elements, or does nothing for `None`.
    pub fn dropout(&self, dropout: Option<Dropout>) -> Result<Tensor> {
        let Some(dropout) = dropout else { return Ok(self.clone()) };
        let mut out: Buffer = Buffer::scratch(self.len());
        kernels::rows::dropout(&mut out, self.data(), dropout);
        let out = Tensor::from_buffer(self.shape(), out);
        let Some(tape) = tape_of(&[self]) else { return Ok(out) };
        let target = self.target();
        if !is_wanted(&[target]) {
            return Ok(out.beside(tape));
        }
        Ok(tape.record(out, move |dout, back| {
            let mut dx = back.take(target, dout.len());
            if let Some(dx) = &mut dx {
                kernels::rows::dropout_backward(dx, dout.f32(), dropout);
            }
            back.put(dx);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Dropout;
    use crate::gradcheck::{check, random};
    use kernels::random::Stream;

    #[test]
    fn gradient() {
        let dropout = Dropout { p: 0.4, stream: Stream::new(1, 2, 3) };
        check(&[random(&[7, 9], 1)], |x| x[0].dropout(Some(dropout)));
    }
}
