//! Layer normalisation: `out = (x - mean) * rstd * w + b`, row by row (Ba et al., 2016).
//!
//! out, x: (rows, C); w, b: (C); mean, rstd: (rows), kept for the way back.

use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::storage::{Precision, Storage};
use crate::{Result, Tensor};

impl Tensor {
    /// Normalises each row to mean 0 and variance 1, then scales by `w` and shifts by `b`, both (C). The result, and
    /// its gradient, have the precision asked for; everything else is `f32`.
    pub fn layer_norm(&self, w: &Tensor, b: &Tensor, eps: f32, precision: Precision) -> Result<Tensor> {
        w.expect("layer_norm weight", &[self.cols()])?;
        b.expect("layer_norm bias", &[self.cols()])?;
        let mut out = Storage::scratch(precision, self.len());
        let [mut mean, mut rstd] = [0, 1].map(|_| Buffer::<f32>::scratch(self.rows()));
        kernels::rows::layer_norm(
            out.values_mut(),
            &mut mean,
            &mut rstd,
            self.data(),
            w.data(),
            b.data(),
            eps,
        );
        let out = Tensor::from_buffer(self.shape(), out);
        let Some(tape) = tape_of(&[self, w, b]) else { return Ok(out) };
        let (x, weight) = (self.shared(), w.shared());
        let targets = [self.target(), w.target(), b.target()];
        if !is_wanted(&targets) {
            return Ok(out.beside(tape));
        }
        Ok(tape.record(out, move |dout, back| {
            let lens = [x.len(), weight.len(), weight.len()];
            if !is_wanted(&targets[1..]) {
                let mut dx = back.take(targets[0], lens[0]);
                if let Some(dx) = &mut dx {
                    let (x, weight) = (x.f32(), weight.f32());
                    kernels::rows::layer_norm_backward_input(dx, dout.values(), x, weight, &mean, &rstd);
                }
                return back.put(dx);
            }
            let [mut dx, mut dw, mut db] = [0, 1, 2].map(|i| back.take(targets[i], lens[i]));
            let mut unused = [Vec::new(), Vec::new(), Vec::new()];
            let [ux, uw, ub] = &mut unused;
            kernels::rows::layer_norm_backward(
                or_unused(&mut dx, ux, lens[0]),
                or_unused(&mut dw, uw, lens[1]),
                or_unused(&mut db, ub, lens[2]),
                dout.values(),
                x.f32(),
                weight.f32(),
                &mean,
                &rstd,
            );
            [dx, dw, db].into_iter().for_each(|grad| back.put(grad));
        }))
    }
}

/// The gradient, or a place for it where nobody asked.
fn or_unused<'a>(
    grad: &'a mut Option<crate::tape::Grad>,
    unused: &'a mut Vec<f32>,
    len: usize,
) -> &'a mut [f32] {
    match grad {
        Some(grad) => grad,
        None => {
            unused.resize(len, 0.0);
            unused
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        check(&[random(&[5, 13], 1), random(&[13], 2), random(&[13], 3)], |x| {
            x[0].layer_norm(&x[1], &x[2], 1e-5, crate::Precision::F32)
        });
        // Frozen.
        let (w, b) = (random(&[13], 2), random(&[13], 3));
        check(&[random(&[5, 13], 1)], |x| x[0].layer_norm(&w, &b, 1e-5, crate::Precision::F32));
    }
}
