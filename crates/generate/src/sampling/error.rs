//! What is wrong with settings or logits, and what to do about it.

use thiserror::Error;

/// Settings or logits from which no token can be chosen.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplingError {
    /// A temperature that is none.
    #[error("the temperature is {0}, but it must be 0 (most likely token) or a positive number such as 0.8")]
    Temperature(f32),
    /// A share that is none.
    #[error("top-p is {0}, but it must be above 0 and at most 1 (1 turns it off), such as 0.95")]
    TopP(f32),
    /// A share that is none.
    #[error("min-p is {0}, but it must be at least 0 (which turns it off) and at most 1, such as 0.05")]
    MinP(f32),
    /// A share that is none.
    #[error("typical-p is {0}, but it must be above 0 and at most 1 (1 turns it off), such as 0.9")]
    TypicalP(f32),
    /// A factor that is none.
    #[error("the repetition penalty is {0}, but it must be a number above 0 (1 turns it off), such as 1.1")]
    Repetition(f32),
    /// A penalty outside OpenAI's range.
    #[error("the presence penalty is {0}, but it must be from -2 to 2 (0 turns it off), such as 0.5")]
    Presence(f32),
    /// A penalty outside OpenAI's range.
    #[error("the frequency penalty is {0}, but it must be from -2 to 2 (0 turns it off), such as 0.5")]
    Frequency(f32),
    /// A bias that makes every other token impossible, or none at all.
    #[error(
        "the logit bias of token {id} is {bias}, but it must be a number, or minus infinity to ban the token; \
         100 is enough to choose it, -100 to avoid it"
    )]
    LogitBias {
        /// The token.
        id: u32,
        /// What was to be added.
        bias: f32,
    },
    /// Two biases of one token.
    #[error("token {0} has more than one logit bias; give it one, their sum")]
    TwoBiases(u32),
    /// A bad word without tokens, which every text would complete.
    #[error("bad word {0} has no tokens; give it some, such as [50, 60], or leave it out")]
    EmptyBadWord(usize),
    /// A token that the vocabulary lacks.
    #[error(
        "token {id} of the {setting} is out of range: the vocabulary has {vocab_size} tokens, so the largest is {}",
        .vocab_size.saturating_sub(1)
    )]
    TokenOutOfRange {
        /// The setting that names it.
        setting: &'static str,
        /// The token.
        id: u32,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// A search without beams.
    #[error("the number of beams is 0, but it must be at least 1, such as 4")]
    NoBeams,
    /// More texts asked for than kept, or none.
    #[error(
        "{returns} texts are asked of {beams} beams, but it must be from 1 to the number of beams, {beams}"
    )]
    Returns {
        /// Texts asked for.
        returns: usize,
        /// Beams.
        beams: usize,
    },
    /// A length penalty that is none.
    #[error(
        "the length penalty is {0}, but it must be a number: 0 compares sums, 1 means, more favours long texts"
    )]
    LengthPenalty(f64),
    /// A search with no room to write.
    #[error("beam search is asked for 0 tokens, but it must be at least 1, such as 20")]
    NoNewTokens,
    /// More tokens asked for than allowed.
    #[error(
        "at least {min} tokens are asked for, but at most {max} may be written; lower the one or raise the other"
    )]
    MinBeyondMax {
        /// Tokens at least.
        min: usize,
        /// Tokens at most.
        max: usize,
    },
    /// The model computed something that is not a number.
    #[error(
        "the logits at position {position} hold no usable numbers (NaN or infinite): the model's weights are damaged"
    )]
    Logits {
        /// Position of the token to be drawn.
        position: u64,
    },
    /// Settings that ban every token that the constraint allows.
    #[error(
        "no token is left for position {position}: the constraint allows some, but bad words, logit bias, \
         no-repeat-n-gram and min-new-tokens ban them all; loosen one of them"
    )]
    NothingAllowed {
        /// Position of the token to be drawn.
        position: u64,
    },
    /// A constraint that could not be followed further.
    #[error("at position {position}: {reason}")]
    Constraint {
        /// Position of the token to be drawn.
        position: u64,
        /// What was met.
        reason: String,
    },
    /// Settings that ban every token.
    #[error(
        "no token is left for position {position}: bad words, logit bias, no-repeat-n-gram and min-new-tokens \
         ban them all; loosen one of them"
    )]
    NothingLeft {
        /// Position of the token to be drawn.
        position: u64,
    },
}
