//! Whether a model that was written computes what the one that it came from does.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::{Gpt2, Gpt2Config, Pass};
use sha2::{Digest, Sha256};
use tokenizer::Tokenizer;

use super::Kind;
use crate::input;
use crate::output::note;

/// Tokens that both models are run on: a text's, and some from all over the vocabulary.
pub(in crate::commands) fn probe(
    tokenizer: Option<&Tokenizer>,
    text: Option<&str>,
    config: &Gpt2Config,
) -> Result<Vec<u32>> {
    const MOST: usize = 1024;
    const TEXT: &str = "The model was trained on 8 million documents. 从前有一只小猫，它喜欢在花园里玩。\n\n\"Yes,\" she said.";
    let spread = (0..32u64).map(|i| (i * 7919 % config.vocab_size as u64) as u32);
    let mut ids = match (tokenizer, text) {
        (None, None) => Vec::new(),
        (None, Some(_)) => bail!("--probe: no tokenizer goes with the model; leave it out"),
        // A vocabulary of characters need not have those of the built-in text.
        (Some(tokenizer), None) => tokenizer.encode(TEXT).unwrap_or_default(),
        (Some(tokenizer), Some(text)) => {
            input::note_unknown(tokenizer, text, "--probe");
            tokenizer.encode(text).context("--probe")?
        }
    };
    let most = config.n_ctx.min(MOST);
    if ids.len() > most && text.is_some() {
        note!("note: --probe: the first {most} of its {} tokens are used", ids.len());
    }
    ids.extend(spread);
    ids.truncate(most);
    Ok(ids)
}

/// A model's answers to the probe, and its weights in short.
pub(in crate::commands) struct Side {
    pub logits: Vec<f32>,
    pub sha256: String,
    vocab_size: usize,
}

impl Side {
    pub fn of(path: &Path, ids: &[u32]) -> Result<Side> {
        let model =
            Gpt2::load(path).with_context(|| format!("cannot load a model from {}", path.display()))?;
        Side::of_model(&model, ids)
    }

    pub fn of_model(model: &Gpt2, ids: &[u32]) -> Result<Side> {
        let mut hash = Sha256::new();
        for (name, tensor) in model.parameters() {
            hash.update(format!("{name} {:?}\n", tensor.shape()));
            tensor
                .decoded()
                .chunks(1 << 16)
                .for_each(|part| hash.update(bytemuck::cast_slice::<f32, u8>(part)));
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let logits = model.logits(ids, 1, &mut Pass::eval())?.data().to_vec();
        Ok(Side { logits, sha256, vocab_size: model.config().vocab_size })
    }
}

/// How far two models are apart on the probe.
pub(in crate::commands) struct Check {
    /// The largest difference of a logit.
    pub most: f64,
    /// The root mean square of the differences over the spread (standard deviation) of the logits.
    pub mean: f64,
    /// Part of the positions where the most likely token is the same.
    pub agreement: f64,
}

impl Check {
    pub fn new(before: &Side, after: &Side) -> Check {
        if before.vocab_size != after.vocab_size {
            return Check { most: f64::INFINITY, mean: f64::INFINITY, agreement: 0.0 };
        }
        let pairs = || before.logits.iter().zip(&after.logits).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let n = before.logits.len() as f64;
        let mean = pairs().map(|(a, _)| a).sum::<f64>() / n;
        let spread = (pairs().map(|(a, _)| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
        let error = (pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n).sqrt();
        let first = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        let rows = |side: &Side| side.logits.chunks(side.vocab_size).map(first).collect::<Vec<_>>();
        let positions = rows(before).len();
        let same = rows(before).iter().zip(rows(after)).filter(|(a, b)| **a == *b).count();
        Check {
            most: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
            mean: if error == 0.0 { 0.0 } else { error / spread },
            agreement: same as f64 / positions as f64,
        }
    }

    /// Refuses what the type of numbers does not explain. A difference that is not a number is more than any.
    pub(super) fn ensure_within(&self, most: f64, kind: Kind) -> Result<()> {
        let name = kind.name();
        let is_within = self.mean <= most;
        ensure!(
            is_within,
            "what was written is not the same model: logits differ by {:.2e} of their spread on average, and {name} \
             explains {most:.2e} at most; nothing is kept. This is a mistake of `gpt2`, or the model computes with numbers \
             that {name} is too coarse for: try --type f32",
            self.mean
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(logits: &[f32]) -> Side {
        Side { logits: logits.to_vec(), sha256: String::new(), vocab_size: 2 }
    }

    #[test]
    fn differences_are_measured() {
        let before = side(&[1.0, -1.0, 1.0, -1.0]);
        let same = Check::new(&before, &before);
        assert_eq!((same.most, same.mean, same.agreement), (0.0, 0.0, 1.0));
        // The spread is 1; one of four is off by 3, and no more the first of its row.
        let off = Check::new(&before, &side(&[1.0, -1.0, -2.0, -1.0]));
        assert_eq!((off.most, off.mean, off.agreement), (3.0, 1.5, 0.5));
        let broken = Check::new(&before, &side(&[1.0, f32::NAN, 1.0, -1.0]));
        for kind in [Kind::F32, Kind::Q4] {
            same.ensure_within(kind.tolerance(), kind).unwrap();
            for check in [&off, &broken] {
                let error = check.ensure_within(kind.tolerance(), kind).unwrap_err().to_string();
                assert!(error.contains("not the same model") && error.contains(kind.name()), "{error}");
            }
        }
        let near = Check::new(&before, &side(&[1.0, -1.0, 1.0, -1.1]));
        near.ensure_within(Kind::Q8.tolerance(), Kind::Q8).unwrap();
        near.ensure_within(Kind::F16.tolerance(), Kind::F16).unwrap_err();
        let other = Check::new(&before, &Side { vocab_size: 4, ..side(&[1.0, -1.0, 1.0, -1.0]) });
        assert_eq!(other.mean, f64::INFINITY);
    }
}
