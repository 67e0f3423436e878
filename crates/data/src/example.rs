//! Examples to learn from: a prompt and its answer, or two answers to choose between, as tokens.

/// A text of which some tokens are to be learnt: in a conversation, what the assistant says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether each token is one to predict. The first has nothing before it, and is never predicted.
    pub is_answer: Vec<bool>,
}

/// Two texts that begin alike, of which one is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Example,
    /// The other one.
    pub rejected: Example,
}
