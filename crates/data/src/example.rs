//! Examples to learn from: a prompt and its answer, or two answers to choose between, as tokens.

/// A text of which some tokens are to be learnt: in a conversation, what the assistant says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether each token is one to predict. The first has nothing before it, and is never predicted.
    pub is_answer: Vec<bool>,
}

impl Example {
    /// The example without what follows its last answer; `None` where nothing is to be predicted.
    ///
    /// # Panics
    /// If it has not as many marks as tokens.
    pub fn until_last_answer(&self) -> Option<Example> {
        assert_eq!(self.ids.len(), self.is_answer.len(), "a mark for each token");
        let last = self.is_answer.iter().rposition(|&is_answer| is_answer).filter(|&last| last > 0)?;
        Some(Example { ids: self.ids[..=last].to_vec(), is_answer: self.is_answer[..=last].to_vec() })
    }
}

/// Two texts that begin alike, of which one is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Example,
    /// The other one.
    pub rejected: Example,
}
