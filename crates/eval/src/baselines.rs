//! Summaries that need no model, to hold a model's to: the first sentences of a text, and random ones.

use tensor::random::Stream;
use tokenizer::sentences;

/// What the random numbers are for.
const SENTENCES: u32 = 0x5e47;

/// The first n sentences, one a line.
pub fn lead(text: &str, n: usize) -> String {
    sentences::sentences(text).take(n).collect::<Vec<_>>().join("\n")
}

/// n sentences drawn without replacement, in the order of the text, one a line. The same seed draws the same.
pub fn random(text: &str, n: usize, seed: u64) -> String {
    let all: Vec<&str> = sentences::sentences(text).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    let numbers = Stream::new(seed, SENTENCES, 0);
    order.sort_by_cached_key(|&i| (numbers.u32(i as u64), i));
    order.truncate(n);
    order.sort();
    order.into_iter().map(|i| all[i]).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "One. Two. Three. Four. Five.";

    #[test]
    fn first_ones() {
        assert_eq!(lead(TEXT, 3), "One.\nTwo.\nThree.");
        assert_eq!(lead("一。二。", 3), "一。\n二。");
        assert_eq!(lead("", 3), "");
    }

    #[test]
    fn random_ones() {
        let drawn: Vec<String> = (0..200).map(|seed| random(TEXT, 2, seed)).collect();
        assert_eq!(drawn[7], random(TEXT, 2, 7));
        for i in ["One.", "Two.", "Three.", "Four.", "Five."] {
            let times = drawn.iter().filter(|text| text.contains(i)).count();
            assert!((50..110).contains(&times), "{i} is drawn {times} times, not about 80");
        }
        assert!(drawn.iter().all(|text| text.lines().count() == 2));
        assert_eq!(random(TEXT, 9, 1), TEXT.replace(' ', "\n"));
    }
}
