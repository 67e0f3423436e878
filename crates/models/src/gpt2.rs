//! GPT-2 (Radford et al., 2019): token and position embeddings, `n_layer` blocks, a norm, and the embedding table
//! again as the output layer, unless the config gives it one of its own.
//!
//! Shapes: B sequences of T tokens, width C, vocabulary V. Field names are the checkpoint's. The one forward
//! pass serves training, evaluation and cached decoding; see [`Pass`].

mod adapters;
mod encoding;
mod parameters;
mod resize;

use std::ops::Range;
use std::path::Path;

use tensor::ops::{self, AttentionArgs, LmLoss};
use tensor::{Precision, Tensor};

use crate::dtype::HEAD;
use crate::layers::{LayerNorm, Linear, Weights};
use crate::{
    Dtype, Gpt2Config, Init, KvCache, KvPool, LoraConfig, ModelError, Pass, Result, checkpoint, kv_cache,
};

pub(crate) use adapters::LoadedAdapter;

/// A GPT-2 language model.
#[derive(Clone, Debug)]
pub struct Gpt2 {
    config: Gpt2Config,
    wte: Tensor, // (V, C), one row for each token
    wpe: Tensor, // (n_ctx, C), one row for each position
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Option<Tensor>, // (V, C), where it is not `wte`
    dtype: Dtype,
    /// How the layers' adapters were made, where there are any.
    lora: Option<LoraConfig>,
}

#[derive(Clone, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Clone, Debug)]
struct Attention {
    c_attn: Linear, // C → 3C: queries, keys, values
    c_proj: Linear, // C → C
}

#[derive(Clone, Debug)]
struct Mlp {
    c_fc: Linear,   // C → 4C
    c_proj: Linear, // 4C → C
}

/// Sequences with the tokens they should predict. The slices hold `batch` × T values; sequences of different lengths
/// lie one after the other, without padding: attention keeps to each.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The tokens seen.
    pub ids: &'a [u32],
    /// The token that should follow each.
    pub targets: &'a [u32],
    /// How much each prediction counts; 0 leaves it out.
    pub weights: &'a [f32],
    /// Sequences (B).
    pub batch: usize,
    /// Length of each sequence, where they differ.
    pub lens: Option<&'a [usize]>,
}

/// How well each token was predicted.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `-ln p` of each target, in nats.
    pub loss: Vec<f32>,
    /// Whether the target was the most likely token.
    pub correct: Vec<bool>,
}

impl Block {
    /// `x += attn(ln_1(x))`, then `x += mlp(ln_2(x))`. `x` is (B, T, C).
    fn forward(&self, x: &Tensor, at: &Place, pass: &mut Pass) -> Result<Tensor> {
        let x = self.attn.forward(&self.ln_1.forward(x, pass.precision)?, x, at, pass)?;
        self.mlp.forward(&self.ln_2.forward(&x, pass.precision)?, &x, at, pass)
    }

    /// [`Block::forward`], of which only `x` is kept: the way back computes the rest again.
    fn forward_again(&self, x: Tensor, at: &Place, pass: &mut Pass) -> Result<Tensor> {
        let Some(tape) = x.tape().cloned() else { return self.forward(&x, at, pass) };
        let (block, layer, config, start) = (self.clone(), at.layer, at.config.clone(), pass.again(None));
        let out = self.forward(&x.clone().constant(), at, pass)?;
        Ok(tape.recomputed(&x, out, move |tape, x| {
            let at = Place { layer, config: &config };
            block.forward(&x, &at, &mut start.again(Some(tape))).expect("it ran before")
        }))
    }
}

impl Attention {
    /// Each position gathers from itself and those before it; what it finds is added to `residual`. Both are (B, T, C).
    fn forward(&self, x: &Tensor, residual: &Tensor, at: &Place, pass: &mut Pass) -> Result<Tensor> {
        let (n_head, scale) = (at.config.n_head, at.config.attn_scale(at.layer));
        pass.see(at.layer, "attn.c_attn", x);
        let qkv = self.c_attn.forward(x, pass)?; // (B, T, 3C)
        let out = match &mut pass.runs {
            Some(runs) => qkv.attention_cached(n_head, scale, kv_cache::sequences(runs, at.layer))?,
            None => {
                let dropout = pass.dropout(at.config.dropout.attn);
                qkv.attention(AttentionArgs { n_head, scale, lens: pass.lens.as_deref(), dropout })?
            }
        };
        pass.see(at.layer, "attn.c_proj", &out);
        // Nothing reads the last block's other rows.
        if let Some(rows) = pass.rows.as_ref().filter(|_| at.layer + 1 == at.config.n_layer) {
            let (out, residual) = (out.select_rows(rows)?, residual.select_rows(rows)?);
            return self.c_proj.forward_add(&out, None, &residual, pass);
        }
        let dropout = pass.dropout(at.config.dropout.resid);
        self.c_proj.forward_add(&out, dropout, residual, pass)
    }
}

impl Mlp {
    /// Each position by itself, through a wider layer; the result is added to `residual`. Both are (B, T, C).
    fn forward(&self, x: &Tensor, residual: &Tensor, at: &Place, pass: &mut Pass) -> Result<Tensor> {
        pass.see(at.layer, "mlp.c_fc", x);
        let x = self.c_fc.forward_activated(x, at.config.activation_function, pass)?; // (B, T, 4C)
        pass.see(at.layer, "mlp.c_proj", &x);
        let dropout = pass.dropout(at.config.dropout.resid);
        self.c_proj.forward_add(&x, dropout, residual, pass)
    }
}

/// Where in the model a block stands.
struct Place<'a> {
    layer: usize,
    config: &'a Gpt2Config,
}

impl Gpt2 {
    /// A model with fresh weights, the same for the same seed.
    pub fn new(config: Gpt2Config, init: Init, seed: u64) -> Result<Gpt2> {
        config.validate()?;
        let shapes = config.shapes();
        let mut slot = 0..;
        let drawn = config.clone();
        Gpt2::build(config, &mut |name| {
            let slot = slot.next().expect("an endless range");
            Ok(init.tensor(&drawn, seed, slot, name, &shapes[slot].1))
        })
    }

    /// Reads a model: a directory with `config.json` and `model.safetensors`, or one file in another format of
    /// [`checkpoint::Format`].
    ///
    /// The weights are `f32` in memory, to be trained: see [`Gpt2::open`] for running only.
    pub fn load(dir: &Path) -> Result<Gpt2> {
        checkpoint::load(dir)
    }

    /// Opens a model for running: weights are computed from where the file lies in memory, or brought into
    /// the type asked for.
    pub fn open(dir: &Path, dtype: Option<Dtype>) -> Result<Gpt2> {
        checkpoint::open(dir, dtype)
    }

    /// [`Gpt2::open`] without rounding, for writing the model in another format.
    pub fn open_exact(path: &Path) -> Result<Gpt2> {
        checkpoint::open_exact(path)
    }

    /// Writes `config.json`, `model.safetensors` and `generation_config.json` into `dir`, each whole or not at all. A model
    /// with an adapter is refused: see [`Gpt2::save_adapter`] and [`Gpt2::merge_adapter`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        checkpoint::save(self, dir)
    }

    /// Builds the model from a source of weights, asked in the order of [`Gpt2::parameters`].
    pub(crate) fn build(config: Gpt2Config, source: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<Gpt2> {
        let mut slot = 0..;
        let mut numbered = |name: &str| Ok(source(name)?.parameter(slot.next().expect("an endless range")));
        let mut weights = Weights { source: &mut numbered, eps: config.layer_norm_epsilon };
        Ok(Gpt2 {
            wte: weights.tensor("wte.weight")?,
            wpe: weights.tensor("wpe.weight")?,
            h: (0..config.n_layer).map(|layer| Block::build(layer, &mut weights)).collect::<Result<_>>()?,
            ln_f: weights.layer_norm("ln_f")?,
            lm_head: if config.tie_word_embeddings { None } else { Some(weights.tensor(HEAD)?) },
            dtype: Dtype::F32,
            lora: None,
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// The output layer, (V, C).
    fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// Changes the function inside the feed-forward layers.
    pub fn set_activation(&mut self, activation: tensor::Activation) {
        self.config.activation_function = activation;
    }

    /// Changes the tokens that end what the model writes: see [`Gpt2Config::with_ends`].
    pub fn set_end_tokens(&mut self, ids: &[u32]) -> Result<()> {
        self.config = self.config.clone().with_ends(ids.iter().copied())?;
        Ok(())
    }

    /// Changes the dropout used in training.
    pub fn set_dropout(&mut self, dropout: crate::Dropouts) {
        self.config.dropout = dropout;
    }

    /// The residual stream after the last norm, (B, T, C), for B sequences of T = `ids.len() / batch` tokens: what
    /// [`Gpt2::logits_from`] makes logits from.
    pub fn hidden(&self, ids: &[u32], batch: usize, pass: &mut Pass) -> Result<Tensor> {
        if self.dtype != Dtype::F32 {
            pass.precision = Precision::Bf16;
        }
        let time = self.time(ids, batch, pass)?;
        let range = |past: usize, n: usize| past as u32..(past + n) as u32;
        let (shape, positions): ([usize; 2], Vec<u32>) = match (&pass.runs, &pass.lens) {
            (Some(runs), _) => {
                let positions = runs.iter().flat_map(|run| range(run.cache.len(), run.tokens));
                ([1, ids.len()], positions.collect())
            }
            (None, Some(lens)) => ([1, ids.len()], lens.iter().flat_map(|&len| range(0, len)).collect()),
            (None, None) => ([batch, time], (0..batch).flat_map(|_| range(0, time)).collect()),
        };
        let tokens = ops::embedding(pass.tape.as_ref(), &self.wte, ids, &shape)?;
        let positions = ops::embedding(pass.tape.as_ref(), &self.wpe, &positions, &shape)?;
        let mut x = tokens.add(&positions)?.dropout(pass.dropout(self.config.dropout.embd))?;
        for (layer, block) in self.h.iter().enumerate() {
            let at = Place { layer, config: &self.config };
            pass.see_stream(layer, &x);
            x = if pass.recompute {
                block.forward_again(x, &at, pass)?
            } else {
                block.forward(&x, &at, pass)?
            };
        }
        for run in pass.runs.iter_mut().flatten() {
            run.cache.advance(run.tokens);
        }
        self.ln_f.forward(&x, pass.precision)
    }

    /// T, or the longest sequence's, once the batch is known to fit the model, and its keys and values their caches.
    fn time(&self, ids: &[u32], batch: usize, pass: &mut Pass) -> Result<usize> {
        let n_ctx = self.config.n_ctx;
        if let Some(runs) = &mut pass.runs {
            if let [run] = &mut runs[..] {
                run.tokens = ids.len();
            }
            if ids.is_empty() || runs.iter().map(|run| run.tokens).sum::<usize>() != ids.len() {
                return Err(ModelError::BatchShape { batch: runs.len(), ids: ids.len() });
            }
            if let Some(run) = runs.iter().find(|run| run.cache.len() + run.tokens > n_ctx) {
                return Err(ModelError::ContextExceeded { past: run.cache.len(), new: run.tokens, n_ctx });
            }
            runs.iter_mut().try_for_each(|run| run.cache.reserve(run.tokens))?;
            return Ok(runs.iter().map(|run| run.tokens).max().unwrap_or(0));
        }
        let whole = match &pass.lens {
            None => batch > 0 && ids.len().is_multiple_of(batch),
            Some(lens) => lens.len() == batch && lens.iter().sum::<usize>() == ids.len(),
        };
        if ids.is_empty() || !whole {
            return Err(ModelError::BatchShape { batch, ids: ids.len() });
        }
        let new =
            pass.lens.as_ref().map_or(ids.len() / batch, |lens| lens.iter().copied().max().unwrap_or(0));
        if new > n_ctx {
            return Err(ModelError::ContextExceeded { past: 0, new, n_ctx });
        }
        Ok(new)
    }

    /// The logits of every position, (B, T, V).
    pub fn logits(&self, ids: &[u32], batch: usize, pass: &mut Pass) -> Result<Tensor> {
        Ok(self.hidden(ids, batch, pass)?.lm_head(self.head())?)
    }

    /// The logits (V) that follow the last of `ids`, which continue the pass's cache if it has one.
    pub fn last_logits(&self, ids: &[u32], pass: &mut Pass) -> Result<Vec<f32>> {
        let logits = self.logits_of(ids, pass, &[ids.len().saturating_sub(1)])?;
        Ok(logits.data().to_vec())
    }

    /// The logits (rows, V) that follow some of `ids`, named by their place in the batch.
    pub fn logits_of(&self, ids: &[u32], pass: &mut Pass, rows: &[usize]) -> Result<Tensor> {
        if let Some(&row) = rows.iter().find(|&&row| row >= ids.len()) {
            return Err(ModelError::RowOutOfRange { row, rows: ids.len() });
        }
        pass.rows = Some(rows.to_vec());
        let hidden = self.hidden(ids, 1, pass);
        pass.rows = None;
        Ok(hidden?.lm_head(self.head())?)
    }

    /// The logits (rows, V) of some rows of [`Gpt2::hidden`].
    pub fn logits_from(&self, hidden: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        Ok(hidden.select_rows(&rows.collect::<Vec<_>>())?.lm_head(self.head())?)
    }

    /// An empty cache for what this model computes.
    pub fn cache(&self) -> KvCache {
        KvCache::of(&KvPool::new(&self.config, self.precision(), usize::MAX))
    }

    /// The summed loss of a batch. In a training pass, [`LmLoss::backward`] then gives the gradients.
    pub fn loss(&self, batch: &Batch, mut pass: Pass) -> Result<LmLoss> {
        pass.lens = batch.lens.map(<[usize]>::to_vec);
        if pass.tape.is_some() {
            self.ensure_trainable()?;
        }
        let hidden = self.hidden(batch.ids, batch.batch, &mut pass)?;
        Ok(ops::lm_loss(&hidden, self.head(), batch.targets, batch.weights)?)
    }

    /// [`Gpt2::loss`] with weights that follow from the loss of each prediction: for objectives that are not a sum over
    /// tokens, whose gradient is one. The blocks run once, only the output layer twice. The losses of predictions that have
    /// no weight in the batch are given as 0, and these must not get one.
    pub fn loss_weighted_by(
        &self,
        batch: &Batch,
        mut pass: Pass,
        weights: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<LmLoss> {
        pass.lens = batch.lens.map(<[usize]>::to_vec);
        if pass.tape.is_some() {
            self.ensure_trainable()?;
        }
        let hidden = self.hidden(batch.ids, batch.batch, &mut pass)?;
        let losses = self.scores_that_count(&hidden, batch)?.loss;
        Ok(ops::lm_loss(&hidden, self.head(), batch.targets, &weights(&losses))?)
    }

    /// Scores every prediction of a batch, whatever its weight.
    pub fn scores(&self, batch: &Batch) -> Result<Scores> {
        let mut pass = Pass::eval();
        pass.lens = batch.lens.map(<[usize]>::to_vec);
        let hidden = self.hidden(batch.ids, batch.batch, &mut pass)?;
        let (loss, correct) = ops::lm_scores(&hidden, self.head(), batch.targets)?;
        Ok(Scores { loss, correct })
    }

    /// [`Gpt2::scores`] of the predictions that have a weight, in a pass of any precision; others are 0 and false.
    pub fn weighted_scores(&self, batch: &Batch, mut pass: Pass) -> Result<Scores> {
        pass.lens = batch.lens.map(<[usize]>::to_vec);
        let hidden = self.hidden(batch.ids, batch.batch, &mut pass)?;
        self.scores_that_count(&hidden, batch)
    }

    fn scores_that_count(&self, hidden: &Tensor, batch: &Batch) -> Result<Scores> {
        let n = batch.ids.len();
        if batch.targets.len() != n || batch.weights.len() != n {
            return Err(ModelError::BatchShape { batch: batch.batch, ids: n });
        }
        let rows: Vec<usize> = (0..n).filter(|&i| batch.weights[i] != 0.0).collect();
        let targets: Vec<u32> = rows.iter().map(|&i| batch.targets[i]).collect();
        let (loss, correct) = ops::lm_scores(&hidden.select_rows(&rows)?, self.head(), &targets)?;
        let mut scores = Scores { loss: vec![0.0; n], correct: vec![false; n] };
        for ((row, loss), correct) in rows.into_iter().zip(loss).zip(correct) {
            (scores.loss[row], scores.correct[row]) = (loss, correct);
        }
        Ok(scores)
    }
}

impl Block {
    fn build(layer: usize, weights: &mut Weights) -> Result<Block> {
        let name = |part: &str| format!("h.{layer}.{part}");
        Ok(Block {
            ln_1: weights.layer_norm(&name("ln_1"))?,
            attn: Attention {
                c_attn: weights.linear(&name("attn.c_attn"))?,
                c_proj: weights.linear(&name("attn.c_proj"))?,
            },
            ln_2: weights.layer_norm(&name("ln_2"))?,
            mlp: Mlp {
                c_fc: weights.linear(&name("mlp.c_fc"))?,
                c_proj: weights.linear(&name("mlp.c_proj"))?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Gpt2 {
        Gpt2::new(Gpt2Config::new(2, 3, 12, 10, 31), Init::Gpt2, 7).unwrap()
    }

    #[test]
    fn parameters_are_named_and_shaped_as_the_config_says() {
        let mut model = tiny();
        let shapes = model.config().shapes();
        let got: Vec<_> = model.parameters().iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
        assert_eq!(got, shapes);
        let got: Vec<_> =
            model.parameters_mut().iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
        assert_eq!(got, shapes);
    }

    #[test]
    fn cached_decoding_equals_the_full_forward_bit_for_bit() {
        let model = tiny();
        let ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 30];
        let full = model.logits(&ids, 1, &mut Pass::eval()).unwrap();
        for chunks in [vec![10], vec![1; 10], vec![4, 1, 5], vec![7, 3]] {
            let mut cache = KvCache::new(model.config());
            let mut start = 0;
            for n in chunks {
                let got = model.last_logits(&ids[start..start + n], &mut Pass::cached(&mut cache)).unwrap();
                start += n;
                assert_eq!(got, full.data()[(start - 1) * 31..start * 31], "after {start} tokens");
            }
        }
    }

    #[test]
    fn a_sequence_does_not_depend_on_its_neighbours_or_padding() {
        let model = tiny();
        let alone = model.logits(&[5, 6, 7], 1, &mut Pass::eval()).unwrap();
        let both = model.logits(&[5, 6, 7, 0, 1, 2, 3, 4], 2, &mut Pass::eval()).unwrap();
        assert_eq!(alone.data(), &both.data()[..3 * 31]);
    }

    #[test]
    fn gradients_reach_every_parameter() {
        let model = tiny();
        let batch =
            Batch { ids: &[1, 2, 3, 4], targets: &[2, 3, 4, 5], weights: &[1.0; 4], batch: 2, lens: None };
        let loss = model.loss(&batch, Pass::train(model.zero_grads(), 1, 0)).unwrap();
        assert!((loss.value / loss.weight - 31f64.ln()).abs() < 0.05);
        let grads = loss.backward().unwrap();
        for (slot, (name, _)) in model.parameters().iter().enumerate() {
            assert!(grads.slot(slot).iter().any(|&g| g != 0.0), "{name} has no gradient");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let model = tiny();
        let error = model.logits(&[1; 11], 1, &mut Pass::eval()).unwrap_err().to_string();
        assert_eq!(error, "0 + 11 tokens are more than the context of 10; shorten the input");
        assert!(model.logits(&[31], 1, &mut Pass::eval()).unwrap_err().to_string().contains("31"));
        assert!(model.logits(&[], 1, &mut Pass::eval()).is_err());
        assert!(model.logits(&[1, 2, 3], 2, &mut Pass::eval()).is_err());
        let mut cache = KvCache::new(model.config());
        model.last_logits(&[1; 10], &mut Pass::cached(&mut cache)).unwrap();
        assert!(model.last_logits(&[1], &mut Pass::cached(&mut cache)).is_err());
    }
}
