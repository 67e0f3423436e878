//! Addition: `out = a + b`, element by element. The residual connections of the model.

use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::{Result, Tensor};

impl Tensor {
    /// `self + other`, of equal shapes.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        other.expect("add", self.shape())?;
        let mut out: Buffer = Buffer::scratch(self.len());
        kernels::rows::add(&mut out, self.data(), other.data());
        let out = Tensor::from_buffer(self.shape(), out);
        let Some(tape) = tape_of(&[self, other]) else { return Ok(out) };
        let targets = [self.target(), other.target()];
        if !is_wanted(&targets) {
            return Ok(out.beside(tape));
        }
        Ok(tape.record(out, move |dout, back| {
            back.add(targets[0], dout.clone());
            back.add(targets[1], dout);
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        check(&[random(&[3, 5], 1), random(&[3, 5], 2)], |x| x[0].add(&x[1])?.add(&x[0]));
    }

    #[test]
    fn shapes_must_agree() {
        let error = random(&[3, 5], 1).add(&random(&[5, 3], 2)).unwrap_err();
        assert_eq!(error.to_string(), "add: got shape [5, 3], but [3, 5] is needed");
    }
}
