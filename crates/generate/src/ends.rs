//! Which tokens end a text.

use models::Gpt2Config;
use tokenizer::Tokenizer;

/// The tokens that end what a model writes: those that its files name and the tokenizer has, or else the tokenizer's end of a
/// text. At least one.
pub fn end_tokens(model: &Gpt2Config, tokenizer: &Tokenizer) -> Vec<u32> {
    let is_known = |id: &u32| (*id as usize) < tokenizer.vocab_size();
    let mut ends: Vec<u32> = model.end_tokens().iter().copied().filter(is_known).collect();
    if ends.is_empty() {
        ends.push(tokenizer.eot());
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_decides_and_else_the_tokenizer() {
        let tokenizer = Tokenizer::train_chars(["abc"].into_iter().map(str::to_owned)).unwrap();
        let (n, eot) = (tokenizer.vocab_size(), tokenizer.eot());
        let config = Gpt2Config::new(1, 1, 4, 4, n + 4);
        let ends = |ids: &[u32]| {
            let config = config.clone().with_ends(ids.iter().copied()).unwrap();
            end_tokens(&config, &tokenizer)
        };
        assert_eq!(ends(&[]), [eot]);
        assert_eq!(ends(&[1]), [1]);
        assert_eq!(ends(&[1, eot]), [1, eot]);
        // Rows that only fill up the table.
        assert_eq!(ends(&[n as u32, 2]), [2]);
        assert_eq!(ends(&[n as u32]), [eot]);
    }
}
