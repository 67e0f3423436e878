//! What differs between training, evaluation and cached decoding: the caller owns it, the model reads it.

use tensor::random::{Dropout, Stream};
use tensor::{Grads, Precision, Tape, Tensor};

use crate::{KvCache, Run};

/// First of the random streams used by dropout; each place where elements are dropped has its own.
const DROPOUT_PURPOSE: u32 = 0x6472_0000;

/// Sees what goes into each linear layer and into each block, as it is computed.
pub trait Tap: std::fmt::Debug + Send {
    /// `x` is about to be multiplied by the weight of this name.
    fn see(&mut self, weight: &str, x: &Tensor);

    /// `x` (B, T, C) is the residual stream that goes into block number `layer`.
    fn see_stream(&mut self, _layer: usize, _x: &Tensor) {}
}

/// One run of the model forward.
#[derive(Debug, Default)]
pub struct Pass<'a> {
    pub(crate) tape: Option<Tape>,
    pub(crate) runs: Option<Vec<Run<'a>>>,
    pub(crate) lens: Option<Vec<usize>>,
    /// The rows of the batch whose results are wanted, where not all are.
    pub(crate) rows: Option<Vec<usize>>,
    pub(crate) precision: Precision,
    pub(crate) recompute: bool,
    tap: Option<&'a mut dyn Tap>,
    dropout: Option<DropoutState>,
}

#[derive(Clone, Debug)]
struct DropoutState {
    seed: u64,
    step: u64,
    sites: u32,
}

impl<'a> Pass<'a> {
    /// Evaluation: nothing is recorded, nothing dropped.
    pub fn eval() -> Pass<'a> {
        Pass::default()
    }

    /// Training: records on a tape that will add to `grads`; [`tensor::ops::LmLoss::backward`] gives them back.
    /// Dropout depends on `seed` and `step` (of micro-batches) alone.
    pub fn train(grads: Grads, seed: u64, step: u64) -> Pass<'a> {
        let dropout = Some(DropoutState { seed, step, sites: 0 });
        Pass { tape: Some(Tape::new(grads)), dropout, ..Pass::default() }
    }

    /// The same pass, with its products in this precision.
    pub fn precision(self, precision: Precision) -> Pass<'a> {
        Pass { precision, ..self }
    }

    /// The same pass; if `recompute`, only what goes into each block is kept for the way back.
    pub fn recompute(self, recompute: bool) -> Pass<'a> {
        Pass { recompute, ..self }
    }

    /// The same pass, watched.
    pub fn tapped(self, tap: &'a mut dyn Tap) -> Pass<'a> {
        Pass { tap: Some(tap), ..self }
    }

    /// Shows the tap, if there is one, what goes into a linear layer.
    pub(crate) fn see(&mut self, layer: usize, part: &str, x: &Tensor) {
        if let Some(tap) = &mut self.tap {
            tap.see(&format!("h.{layer}.{part}.weight"), x);
        }
    }

    /// Shows the tap, if there is one, what goes into a block.
    pub(crate) fn see_stream(&mut self, layer: usize, x: &Tensor) {
        if let Some(tap) = &mut self.tap {
            tap.see_stream(layer, x);
        }
    }

    /// The pass as it stands now, for doing a part of it again on another tape.
    pub(crate) fn again(&self, tape: Option<Tape>) -> Pass<'static> {
        let Pass { lens, precision, dropout, .. } = self;
        let (lens, dropout) = (lens.clone(), dropout.clone());
        Pass {
            tape,
            runs: None,
            lens,
            rows: None,
            precision: *precision,
            recompute: false,
            tap: None,
            dropout,
        }
    }

    /// Decoding: the new tokens follow those in the cache, and are added to it.
    pub fn cached(cache: &'a mut KvCache) -> Pass<'a> {
        Pass::batch(vec![Run { cache, tokens: 0 }])
    }

    /// Decoding of several sequences at once: each run's tokens follow those in its cache, and are added to it. A single
    /// run takes all tokens, whatever it says.
    pub fn batch(runs: Vec<Run<'a>>) -> Pass<'a> {
        Pass { runs: Some(runs), ..Pass::default() }
    }

    /// The next place of dropout, or `None` where nothing is dropped.
    pub(crate) fn dropout(&mut self, p: f32) -> Option<Dropout> {
        let state = self.dropout.as_mut()?;
        let purpose = DROPOUT_PURPOSE + state.sites;
        state.sites += 1;
        (p > 0.0).then(|| Dropout { p, stream: Stream::new(state.seed, purpose, state.step) })
    }
}
