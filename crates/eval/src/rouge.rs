//! ROUGE (Lin, 2004): how much of a reference summary stands in a summary, in the numbers of Python's `rouge-score`
//! (0.1.2, without its stemmer).
//!
//! - ROUGE-N: n-grams in common, each as often as it stands in both.
//! - ROUGE-L: the longest common subsequence of the two texts.
//! - ROUGE-Lsum: for each sentence of the reference, the union of its longest common subsequences with the summary's sentences;
//!   no unit counts more often than it stands in either text. A sentence is a line.
//!
//! `precision = common / summary`, `recall = common / reference`, `f1 = 2 · precision · recall / (precision + recall)`; 0
//! where there is nothing to divide by. What is counted are [`Units`].

mod lcs;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use jieba_rs::Jieba;
use serde::Serialize;
use tokenizer::is_chinese;
use tokenizer::split::is_han;

use crate::Measure;

/// What a text is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Units {
    /// As `rouge-score` does: runs of a–z and 0–9 in lower case; all else divides, so that Chinese has no words.
    Word,
    /// For Chinese: each Han character is a unit, and so is each run of other letters and digits, in lower case.
    Char,
    /// For Chinese: the words that Python's `jieba` finds in a run of the characters that it knows, each other Han character, and
    /// runs of other letters and digits.
    ChineseWord,
}

/// The characters that words of the dictionary are made of.
const JIEBA: RangeInclusive<char> = '\u{4E00}'..='\u{9FD5}';
/// The dictionary of Chinese words; it takes a moment to read.
static CHINESE: LazyLock<Jieba> = LazyLock::new(Jieba::new);

impl Units {
    /// Characters where the text is Chinese, or else words.
    pub fn of(text: &str) -> Units {
        if is_chinese(text) { Units::Char } else { Units::Word }
    }

    /// Words, those of Chinese where the text is.
    pub fn words_of(text: &str) -> Units {
        if is_chinese(text) { Units::ChineseWord } else { Units::Word }
    }

    /// The units of a text, in order.
    pub fn cut(self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        let mut units = Vec::new();
        let mut open = false; // whether the last unit may grow
        let mut han = String::new(); // characters whose words are not found yet
        for c in text.chars() {
            if self == Units::ChineseWord && JIEBA.contains(&c) {
                han.push(c);
                open = false;
                continue;
            }
            take_words(&mut han, &mut units);
            let is_unit = self != Units::Word && is_han(c);
            let grows = match self {
                Units::Word => c.is_ascii_lowercase() || c.is_ascii_digit(),
                _ => !is_unit && c.is_alphanumeric(),
            };
            match units.last_mut() {
                Some(unit) if grows && open => String::push(unit, c),
                _ if grows || is_unit => units.push(c.into()),
                _ => {}
            }
            open = grows;
        }
        take_words(&mut han, &mut units);
        units
    }
}

/// Moves the words of a run of characters to the units.
fn take_words(han: &mut String, units: &mut Vec<String>) {
    if !han.is_empty() {
        units.extend(CHINESE.cut(han, true).into_iter().map(|token| token.word.to_owned()));
        han.clear();
    }
}

/// Precision, recall and their harmonic mean, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Share of the summary that stands in the reference.
    pub precision: f64,
    /// Share of the reference that stands in the summary.
    pub recall: f64,
    /// The harmonic mean.
    pub f1: f64,
}

impl Score {
    fn new(common: usize, summary: usize, reference: usize) -> Score {
        let share = |of: usize| common as f64 / of.max(1) as f64;
        let (precision, recall) = (share(summary), share(reference));
        let sum = precision + recall;
        Score { precision, recall, f1: if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 } }
    }
}

/// The four scores of a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Units in common.
    pub rouge1: Score,
    /// Pairs in common.
    pub rouge2: Score,
    /// The longest common subsequence.
    #[serde(rename = "rougeL")]
    pub rouge_l: Score,
    /// The longest common subsequences of the sentences.
    #[serde(rename = "rougeLsum")]
    pub rouge_lsum: Score,
}

/// The names of the four, in their order.
pub const NAMES: [&str; 4] = ["rouge1", "rouge2", "rougeL", "rougeLsum"];

impl Scores {
    /// The four, in the order of [`NAMES`].
    pub fn all(&self) -> [Score; 4] {
        [self.rouge1, self.rouge2, self.rouge_l, self.rouge_lsum]
    }

    fn from_all([rouge1, rouge2, rouge_l, rouge_lsum]: [Score; 4]) -> Scores {
        Scores { rouge1, rouge2, rouge_l, rouge_lsum }
    }
}

/// The scores of a summary against one reference; sentences of both stand on lines of their own.
pub fn score(reference: &str, summary: &str, units: Units) -> Scores {
    let mut ids = Ids::default();
    let [whole_r, whole_s] = [reference, summary].map(|text| ids.of(units.cut(text)));
    let [lines_r, lines_s] = [reference, summary]
        .map(|text| text.split('\n').map(|line| ids.of(units.cut(line))).collect::<Vec<_>>());
    let subsequence = |common: usize| Score::new(common, whole_s.len(), whole_r.len());
    Scores {
        rouge1: ngrams(&whole_r, &whole_s, 1),
        rouge2: ngrams(&whole_r, &whole_s, 2),
        rouge_l: subsequence(lcs::length(&whole_r, &whole_s)),
        rouge_lsum: subsequence(union_hits(&lines_r, &lines_s)),
    }
}

/// The scores of a summary against several references: of each measure the one with the highest F1, the first of equals.
/// `None` without references.
pub fn best<R: AsRef<str>>(references: &[R], summary: &str, units: Units) -> Option<Scores> {
    let all = references.iter().map(|reference| score(reference.as_ref(), summary, units).all());
    let better = |best: Score, other: Score| if other.f1 > best.f1 { other } else { best };
    all.reduce(|best, other| std::array::from_fn(|i| better(best[i], other[i]))).map(Scores::from_all)
}

/// Each different unit as a number.
#[derive(Default)]
struct Ids(HashMap<String, u32>);

impl Ids {
    fn of(&mut self, units: Vec<String>) -> Vec<u32> {
        let mut id = |unit| {
            let next = self.0.len() as u32;
            *self.0.entry(unit).or_insert(next)
        };
        units.into_iter().map(&mut id).collect()
    }
}

fn ngrams(reference: &[u32], summary: &[u32], n: usize) -> Score {
    let mut left: HashMap<&[u32], usize> = HashMap::new();
    reference.windows(n).for_each(|ngram| *left.entry(ngram).or_default() += 1);
    let stands = |ngram: &&[u32]| match left.get_mut(*ngram) {
        Some(times) if *times > 0 => {
            *times -= 1;
            true
        }
        _ => false,
    };
    let common = summary.windows(n).filter(stands).count();
    Score::new(common, (summary.len() + 1).saturating_sub(n), (reference.len() + 1).saturating_sub(n))
}

/// Units of the reference's sentences that a longest common subsequence with some sentence of the summary covers, none more
/// often than it stands in either text.
fn union_hits(reference: &[Vec<u32>], summary: &[Vec<u32>]) -> usize {
    let count = |lines: &[Vec<u32>]| {
        let mut times: HashMap<u32, usize> = HashMap::new();
        lines.iter().flatten().for_each(|&id| *times.entry(id).or_default() += 1);
        times
    };
    let [mut left_r, mut left_s] = [count(reference), count(summary)];
    let mut hits = 0;
    for line in reference {
        let mut is_covered = vec![false; line.len()];
        for other in summary {
            lcs::positions(line, other).into_iter().for_each(|i| is_covered[i] = true);
        }
        for (id, _) in line.iter().zip(is_covered).filter(|(_, covered)| *covered) {
            if let (Some(r @ 1..), Some(s @ 1..)) = (left_r.get_mut(id), left_s.get_mut(id)) {
                *r -= 1;
                *s -= 1;
                hits += 1;
            }
        }
    }
    hits
}

/// Means over many summaries.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Precision, recall, F1 of each of [`NAMES`].
    measures: [[Measure; 3]; 4],
}

impl Corpus {
    /// Counts a summary.
    pub fn add(&mut self, scores: &Scores) {
        for (measures, score) in self.measures.iter_mut().zip(scores.all()) {
            let values = [score.precision, score.recall, score.f1];
            measures.iter_mut().zip(values).for_each(|(measure, value)| measure.add(value, 1.0));
        }
    }

    /// Summaries counted.
    pub fn len(&self) -> usize {
        self.measures[0][0].total() as usize
    }

    /// Whether none is counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The means.
    pub fn mean(&self) -> Scores {
        self.each(Measure::value)
    }

    /// Their standard errors; NaN for a single summary.
    pub fn stderr(&self) -> Scores {
        self.each(Measure::stderr)
    }

    fn each(&self, value: impl Fn(&Measure) -> f64) -> Scores {
        let score = |[precision, recall, f1]: &[Measure; 3]| Score {
            precision: value(precision),
            recall: value(recall),
            f1: value(f1),
        };
        Scores::from_all(self.measures.each_ref().map(score))
    }
}

#[cfg(test)]
mod tests;
