//! The operations, one a file: formula, shapes, forward, backward, gradient check.
//!
//! Each takes tensors and gives a tensor. Where an input was recorded on a tape, the result is too, and the
//! tape keeps what the way back needs; otherwise nothing is kept. Where no input's gradient leads to a parameter, there is
//! no way back: the result only says which tape it lies beside.

mod add;
mod attention;
mod dropout;
mod embedding;
mod layer_norm;
mod linear;
mod linear_activated;
mod linear_dropout_add;
mod lm_head;
pub mod lm_loss;
mod low_rank;

pub use attention::{AttentionArgs, CachedSequences, default_scale};
pub use embedding::embedding;
pub use lm_loss::{LmLoss, lm_loss, lm_scores};
pub use low_rank::LowRank;

use crate::tape::Target;
use crate::{Tape, Tensor};

/// The tape that any of these tensors was recorded on.
fn tape_of<'a>(inputs: &[&'a Tensor]) -> Option<&'a Tape> {
    inputs.iter().find_map(|x| x.tape())
}

/// Whether a gradient goes anywhere.
fn is_wanted(targets: &[Target]) -> bool {
    targets.iter().any(|&target| target != Target::Nowhere)
}
