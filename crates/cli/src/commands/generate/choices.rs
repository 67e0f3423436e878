//! The flags that say how tokens are chosen.

use anyhow::{Context, Result, ensure};
use generate::{Processors, Sampler, Sampling};
use tokenizer::Tokenizer;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Choosing tokens")]
pub struct Choices {
    /// Spread of the choices: 0 always takes the most likely token, 1 follows the model's probabilities
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f32,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability; 1 means all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Choose among the tokens at least this likely, as a share of the most likely one's probability; 0 means all
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Choose among the tokens that surprise about as much as is to be expected, with this probability together; 1 means all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    typical_p: f32,
    /// Make tokens of the text so far less likely: their logits are divided by this; 1 turns it off
    #[arg(long, value_name = "X", default_value_t = 1.0, visible_alias = "repetition-penalty")]
    repeat_penalty: f32,
    /// Taken from the logit of each token that was written before, -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken from a token's logit for each time that it was written before, -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Let the penalties see only the last N tokens; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0, visible_alias = "repeat-last-n")]
    penalty_window: usize,
    /// Never write the same N tokens in a row twice; 0 turns it off
    #[arg(long, value_name = "N", default_value_t = 0)]
    no_repeat_ngram: usize,
    /// Add X to the logit of token ID; -inf bans it. May be given several times
    #[arg(long, value_name = "ID=X", allow_hyphen_values = true)]
    logit_bias: Vec<String>,
    /// Never write this text, cut into tokens as it stands. May be given several times
    #[arg(long, value_name = "TEXT")]
    bad_word: Vec<String>,
    /// End the text at this token, which is not part of it. May be given several times
    #[arg(long, value_name = "ID")]
    pub stop_token: Vec<u32>,
    /// With --json: log-probabilities of the tokens written, of the prompt's, and of the K most likely ones
    #[arg(long, value_name = "K")]
    pub logprobs: Option<usize>,
}

impl Choices {
    /// The settings, checked.
    pub fn sampling(&self, tokenizer: &Tokenizer, seed: u64) -> Result<Sampling> {
        let mut bad_words = Vec::new();
        for word in &self.bad_word {
            ensure!(!word.is_empty(), "--bad-word: give characters, or leave it out");
            bad_words.push(tokenizer.encode(word)?);
        }
        let processors = Processors {
            logit_bias: self.logit_bias.iter().map(|given| bias(given)).collect::<Result<_>>()?,
            repetition: self.repeat_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            penalty_window: self.penalty_window,
            no_repeat_ngram: self.no_repeat_ngram,
            bad_words,
            min_new_tokens: 0,
            stop_tokens: self.stop_token.clone(),
        };
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            seed,
            processors,
            logprobs: self.logprobs,
        };
        // Which also looks for tokens that the vocabulary lacks.
        Sampler::new(&sampling, tokenizer.vocab_size(), &[])?;
        Ok(sampling)
    }
}

fn bias(given: &str) -> Result<(u32, f32)> {
    let both =
        given.split_once('=').and_then(|(id, x)| Some((id.trim().parse().ok()?, x.trim().parse().ok()?)));
    both.with_context(|| format!("--logit-bias {given}: give a token and a number, such as 50256=-5"))
}
