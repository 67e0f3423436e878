//! Which sentences a summary takes, once each has a score: the best first, as long as there is room for it, and none that
//! says again what one of them says.

use std::collections::HashSet;

use tokenizer::split::is_han;

/// A sentence that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub text: &'a str,
    pub tokens: usize,
    pub score: f64,
}

/// What is chosen at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Most {
    pub sentences: usize,
    pub tokens: usize,
}

/// A sentence repeats another where more than this share of the shorter one's pairs of words stand in both.
const ALIKE: f64 = 0.5;

/// The numbers of the chosen ones, in order. Of equals the earlier one is taken; where none has room, it is the shortest.
pub(super) fn choose(candidates: &[Candidate], most: Most) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| candidates[b].score.total_cmp(&candidates[a].score).then(a.cmp(&b)));
    let mut chosen: Vec<(usize, HashSet<String>)> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let candidate = candidates[i];
        if chosen.len() >= most.sentences || tokens + candidate.tokens > most.tokens {
            continue;
        }
        let pairs = pairs(candidate.text);
        if chosen.iter().any(|(_, other)| are_alike(&pairs, other)) {
            continue;
        }
        tokens += candidate.tokens;
        chosen.push((i, pairs));
    }
    let mut chosen: Vec<usize> = chosen.into_iter().map(|(i, _)| i).collect();
    if chosen.is_empty() {
        chosen.extend((0..candidates.len()).min_by_key(|&i| candidates[i].tokens));
    }
    chosen.sort_unstable();
    chosen
}

fn are_alike(a: &HashSet<String>, b: &HashSet<String>) -> bool {
    let same = a.intersection(b).count();
    same as f64 > ALIKE * a.len().min(b.len()) as f64
}

/// The pairs of words of a sentence, in lower case; of a single word, the word. A Chinese character is a word.
fn pairs(text: &str) -> HashSet<String> {
    let lower = text.to_lowercase();
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for c in lower.chars() {
        let grows = c.is_alphanumeric() && !is_han(c);
        match words.last_mut() {
            Some(word) if grows && is_open => word.push(c),
            _ if grows || is_han(c) => words.push(c.into()),
            _ => {}
        }
        is_open = grows;
    }
    if words.len() == 1 {
        return words.into_iter().collect();
    }
    words.windows(2).map(|pair| pair.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Most = Most { sentences: usize::MAX, tokens: usize::MAX };

    #[track_caller]
    fn check(scored: &[(&str, f64)], most: Most, want: &[usize]) {
        let candidates: Vec<Candidate> = scored
            .iter()
            .map(|&(text, score)| Candidate { text, tokens: text.chars().count(), score })
            .collect();
        assert_eq!(choose(&candidates, most), want, "{scored:?}");
    }

    #[test]
    fn the_best_come_in_the_order_of_the_text() {
        let scored = [("One fox ran.", 1.0), ("Two owls sang.", 3.0), ("It was late.", 2.0)];
        check(&scored, Most { sentences: 1, ..ALL }, &[1]);
        check(&scored, Most { sentences: 2, ..ALL }, &[1, 2]);
        check(&scored, ALL, &[0, 1, 2]);
        check(&[("Yes.", 1.0), ("No.", 1.0)], Most { sentences: 1, ..ALL }, &[0]);
        check(&[("Yes.", f64::NEG_INFINITY), ("No.", -5.0)], Most { sentences: 1, ..ALL }, &[1]);
        check(&[], ALL, &[]);
    }

    #[test]
    fn what_is_too_long_makes_way() {
        let scored = [("A long sentence of the text.", 9.0), ("Short.", 1.0), ("Tiny.", 0.0)];
        check(&scored, Most { tokens: 11, ..ALL }, &[1, 2]);
        check(&scored, Most { tokens: 7, ..ALL }, &[1]);
        check(&scored, Most { tokens: 1, ..ALL }, &[2]);
    }

    #[test]
    fn nothing_is_said_twice() {
        let scored = [
            ("We show that foxes sing.", 1.0),
            ("We show that foxes sing, and that they sing at night.", 2.0),
            ("Crows do not sing.", 0.5),
        ];
        check(&scored, ALL, &[1, 2]);
        check(&[("狐狸晚上唱歌。", 2.0), ("狐狸在晚上唱歌。", 1.0), ("乌鸦不唱。", 0.0)], ALL, &[0, 2]);
        check(&[("Yes!", 2.0), ("yes.", 1.0), ("No.", 0.0)], ALL, &[0, 2]);
        // What has no words repeats nothing.
        check(&[("…", 2.0), ("!?", 1.0)], ALL, &[0, 1]);
    }
}
