//! Causal multi-head attention: `out = softmax(scale · q kᵀ + mask) v`, each head for itself (Vaswani et al., 2017).
//!
//! qkv: (B, T, 3C), queries, keys and values side by side as `c_attn` makes them; out: (B, T, C); C = H · D.
//! Sequences of different lengths lie one after the other, as (1, N, 3C).
//! No (T × T) matrix is stored: the forward keeps one log-sum-exp per row and head, and the backward computes
//! the probabilities again from it, block by block (Dao et al., 2022).

use kernels::attention as fused;
use kernels::attention::cached::{Heads, Sequence, attention_cached};
pub use kernels::attention::default_scale;
use kernels::random::Dropout;

use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::storage::Storage;
use crate::{Result, Tensor, TensorError};

/// What attention needs beside the projections.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// Heads (H), which divide the width.
    pub n_head: usize,
    /// What scores are multiplied by, a positive number: `1 / √D` for most models.
    pub scale: f32,
    /// Lengths of the sequences where they differ; then they lie one after the other.
    pub lens: Option<&'a [usize]>,
    /// Dropout on the probabilities.
    pub dropout: Option<Dropout>,
}

/// Sequences that go on: their new rows, and their blocks of keys and values.
#[derive(Debug)]
pub enum CachedSequences<'a> {
    /// In `f32`.
    F32(Vec<Sequence<'a, f32>>),
    /// Pairs of bfloat16.
    Bf16(Vec<Sequence<'a, u32>>),
}

impl Tensor {
    /// Attention of each sequence of a batch over itself; `self` is `qkv` (B, T, 3C).
    pub fn attention(&self, args: AttentionArgs) -> Result<Tensor> {
        let (mut shape, c) = self.attention_shape(args.n_head, args.scale)?;
        let (dims, rows) = ([shape.batch, shape.time, c], shape.batch * shape.time);
        if let Some(lens) = args.lens {
            if shape.batch != 1 || lens.iter().sum::<usize>() != rows {
                let want = format!("lengths that are {rows} together");
                return Err(TensorError::Shape { op: "attention lengths", got: lens.to_vec(), want });
            }
            (shape.batch, shape.time) = (lens.len(), lens.iter().copied().max().unwrap_or(0));
        }
        let mut out = Storage::scratch(self.precision(), rows * c);
        let mut lse: Buffer = Buffer::scratch(rows * shape.n_head);
        let qkv = self.shared();
        match (&mut out, &*qkv) {
            (Storage::F32(out), Storage::F32(qkv)) => {
                fused::attention(out, &mut lse, qkv, &shape, args.lens, args.dropout);
            }
            (Storage::Bf16(out), Storage::Bf16(qkv)) => {
                fused::attention_bf16(out, &mut lse, qkv, &shape, args.lens, args.dropout);
            }
            _ => unreachable!("the result has the precision of the input"),
        }
        let out = Tensor::from_buffer(&dims, out);
        let Some(tape) = tape_of(&[self]) else { return Ok(out) };
        let (saved_out, target) = (out.shared(), self.target());
        if !is_wanted(&[target]) {
            return Ok(out.beside(tape));
        }
        let (lens, dropout) = (args.lens.map(<[usize]>::to_vec), args.dropout);
        Ok(tape.record(out, move |dout, back| {
            let lens = lens.as_deref();
            match (&dout, &*saved_out, &*qkv) {
                (Storage::Bf16(dout), Storage::Bf16(out), Storage::Bf16(qkv)) => {
                    let mut dqkv = Buffer::scratch(qkv.len());
                    fused::attention_backward_bf16(&mut dqkv, dout, out, &lse, qkv, &shape, lens, dropout);
                    back.add(target, Storage::Bf16(dqkv));
                }
                (dout, out, qkv) => {
                    let [dout, out, qkv] = [dout, out, qkv].map(Storage::f32);
                    let mut dqkv = back.take(target, qkv.len());
                    if let Some(dqkv) = &mut dqkv {
                        fused::attention_backward(dqkv, dout, out, &lse, qkv, &shape, lens, dropout);
                    }
                    back.put(dqkv);
                }
            }
        }))
    }

    /// Attention of new positions over all before them; `self` is their `qkv` (1, rows, 3C), whose keys and values are stored.
    /// Blocks and `qkv` have the same precision.
    pub fn attention_cached(&self, n_head: usize, scale: f32, sequences: CachedSequences) -> Result<Tensor> {
        let (shape, c) = self.attention_shape(n_head, scale)?;
        let rows = shape.batch * shape.time;
        let heads = Heads { n_head, head_dim: shape.head_dim };
        let mut out = Storage::scratch(self.precision(), rows * c);
        match (&mut out, &*self.shared(), sequences) {
            (Storage::F32(out), Storage::F32(qkv), CachedSequences::F32(sequences)) => {
                attention_cached::<f32>(out, qkv, sequences, heads, scale);
            }
            (Storage::Bf16(out), Storage::Bf16(qkv), CachedSequences::Bf16(sequences)) => {
                attention_cached(out, qkv, sequences, heads, scale);
            }
            _ => {
                let want = "keys and values of the precision that the model computes in".to_owned();
                return Err(TensorError::Shape { op: "attention_cached", got: self.shape().to_vec(), want });
            }
        }
        Ok(Tensor::from_buffer(&[1, rows, c], out))
    }

    fn attention_shape(&self, n_head: usize, scale: f32) -> Result<(fused::AttentionShape, usize)> {
        match *self.shape() {
            [batch, time, width] if n_head > 0 && width.is_multiple_of(3 * n_head) => {
                let c = width / 3;
                Ok((fused::AttentionShape { batch, time, n_head, head_dim: c / n_head, scale }, c))
            }
            _ => {
                let want = format!("(batch, time, 3 · C) with C a multiple of {n_head} heads");
                Err(TensorError::Shape { op: "attention", got: self.shape().to_vec(), want })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, random};
    use kernels::attention::default_scale;
    use kernels::random::Stream;

    #[test]
    fn gradient() {
        for scale in [default_scale(3), 1.0, 0.2] {
            check(&[random(&[2, 7, 18], 1)], |x| {
                x[0].attention(AttentionArgs { n_head: 2, scale, lens: None, dropout: None })
            });
        }
    }

    #[test]
    fn gradient_of_different_lengths_with_dropout() {
        let dropout = Some(Dropout { p: 0.3, stream: Stream::new(4, 5, 6) });
        check(&[random(&[1, 9, 12], 1)], |x| {
            x[0].attention(AttentionArgs { n_head: 2, scale: default_scale(2), lens: Some(&[6, 3]), dropout })
        });
    }

    #[test]
    fn heads_must_divide_the_width() {
        let args = AttentionArgs { n_head: 4, scale: 0.5, lens: None, dropout: None };
        assert!(random(&[1, 2, 18], 1).attention(args).is_err());
    }
}
