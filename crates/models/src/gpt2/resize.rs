//! Rows for new tokens, such as those that a chat template needs.
//!
//! A new row is the mean of the old ones, so that the new token starts as probable as an ordinary one and takes little from
//! the others (Hewitt, 2021, "Initializing new word embeddings for pretrained language models"), plus a tenth of the
//! column's deviation as noise, so that new tokens can be told apart. Old rows stay as they are, to the bit.

use tensor::Tensor;
use tensor::random::Stream;

use super::Gpt2;
use crate::{Dtype, ModelError, Result};

/// The random stream of new rows; the embedding table and the output layer have one each.
const PURPOSE: u32 = 0x726f_7773;
/// Noise, as a part of the column's deviation.
const NOISE: f64 = 0.1;

impl Gpt2 {
    /// Grows the vocabulary to `n` tokens: rows for the new ones are added to the embedding table, and to the output layer
    /// where that is another. The same seed gives the same rows. What has `n` tokens already stays as it is.
    pub fn resize_vocab(&mut self, n: usize, seed: u64) -> Result<()> {
        let have = self.config.vocab_size;
        if n < have {
            return Err(ModelError::VocabShrinks { have, want: n });
        }
        if self.dtype != Dtype::F32 {
            return Err(ModelError::VocabType { dtype: self.dtype });
        }
        let mut config = self.config.clone();
        config.vocab_size = n;
        config.validate()?;
        if n == have {
            return Ok(());
        }
        let head = self.config.shapes().len() - 1;
        self.wte = with_rows(&self.wte, n, Stream::new(seed, PURPOSE, 0))?.parameter(0);
        if let Some(lm_head) = &mut self.lm_head {
            *lm_head = with_rows(lm_head, n, Stream::new(seed, PURPOSE, 1))?.parameter(head);
        }
        self.config = config;
        Ok(())
    }
}

/// A table (V, C) with more rows, (n, C).
fn with_rows(table: &Tensor, n: usize, stream: Stream) -> Result<Tensor> {
    let (rows, cols) = (table.rows(), table.cols());
    let old = table.decoded();
    let (mut mean, mut square) = (vec![0.0_f64; cols], vec![0.0_f64; cols]);
    for row in old.chunks_exact(cols) {
        for ((mean, square), &x) in mean.iter_mut().zip(&mut square).zip(row) {
            *mean += f64::from(x) / rows as f64;
            *square += f64::from(x) * f64::from(x) / rows as f64;
        }
    }
    let mut noise = vec![0.0; (n - rows) * cols];
    stream.normals(0, &mut noise);
    for row in noise.chunks_exact_mut(cols) {
        for ((x, mean), square) in row.iter_mut().zip(&mean).zip(&square) {
            let deviation = (square - mean * mean).max(0.0).sqrt();
            *x = (mean + NOISE * deviation * f64::from(*x)) as f32;
        }
    }
    Ok(Tensor::new(&[n, cols], [&old, &noise[..]].concat())?)
}

#[cfg(test)]
mod tests {
    use crate::{Gpt2Config, Init, Pass};

    use super::*;

    fn model(tied: bool) -> Gpt2 {
        let config = Gpt2Config { tie_word_embeddings: tied, ..Gpt2Config::new(2, 2, 8, 16, 20) };
        Gpt2::new(config, Init::Gpt2, 3).unwrap()
    }

    #[test]
    fn old_rows_stay_and_new_ones_are_near_the_mean() {
        for tied in [true, false] {
            let before = model(tied);
            let mut after = before.clone();
            after.resize_vocab(23, 1).unwrap();
            assert_eq!(after.config().vocab_size, 23);
            let tables = after.parameters();
            let shapes: Vec<_> = tables.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
            assert_eq!(shapes, after.config().shapes());
            for ((name, old), (_, new)) in before.parameters().iter().zip(&tables) {
                assert_eq!(new.data()[..old.len()], *old.data(), "{name}");
                for column in 0..if new.len() > old.len() { 8 } else { 0 } {
                    let of =
                        |rows: &[f32]| rows.iter().skip(column).step_by(8).copied().collect::<Vec<f32>>();
                    let (old, added) = (of(old.data()), of(&new.data()[old.len()..]));
                    let mean = old.iter().sum::<f32>() / 20.0;
                    assert!(added.iter().all(|x| (x - mean).abs() < 0.02), "{name} {added:?} {mean}");
                    assert!(added[0] != added[1] && added[1] != added[2], "{name}");
                }
            }
            // What was predicted before keeps its logits.
            let logits = |model: &Gpt2| model.last_logits(&[1, 2, 3], &mut Pass::eval()).unwrap();
            assert_eq!(logits(&after)[..20], logits(&before));
        }
    }

    #[test]
    fn the_seed_decides_and_gradients_reach_new_rows() {
        let grown = |seed| {
            let mut model = model(true);
            model.resize_vocab(30, seed).unwrap();
            model
        };
        let rows = |model: &Gpt2| model.parameters()[0].1.data().to_vec();
        assert_eq!(rows(&grown(5)), rows(&grown(5)));
        assert_ne!(rows(&grown(5)), rows(&grown(6)));
        let model = grown(5);
        assert_eq!(model.zero_grads().slot(0).len(), 30 * 8);
    }

    #[test]
    fn shrinking_and_other_types_are_refused() {
        let mut tied = model(true);
        let error = tied.resize_vocab(19, 1).unwrap_err().to_string();
        assert!(error.contains("20 tokens") && error.contains("19"), "{error}");
        tied.resize_vocab(20, 1).unwrap();
        assert!(tied.resize_vocab(usize::MAX, 1).is_err());
        assert_eq!(tied.config().vocab_size, 20);
        let mut bf16 = model(true).to_dtype(Dtype::Bf16).unwrap();
        assert!(bf16.resize_vocab(21, 1).unwrap_err().to_string().contains("bf16"));
    }
}
