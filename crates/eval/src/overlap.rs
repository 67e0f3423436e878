//! How much of a summary is copied from its source.

use std::collections::HashSet;

use serde::Serialize;

use crate::rouge::Units;

/// What of a summary stands in its source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// Units of the summary.
    pub units: usize,
    /// Share of its units, pairs and triples that stand in the source, each counted where it stands in the summary; `None`
    /// where it is too short to have any.
    pub copied: [Option<f64>; 3],
    /// Units of the longest stretch that stands in the source as it is.
    pub longest: usize,
}

/// Compares a summary with its source. The time is the product of their lengths.
pub fn overlap(summary: &str, source: &str, units: Units) -> Overlap {
    let [summary, source] = [summary, source].map(|text| units.cut(text));
    let share = |n: usize| {
        let known: HashSet<&[String]> = source.windows(n).collect();
        let copied = summary.windows(n).filter(|ngram| known.contains(ngram)).count();
        let all = (summary.len() + 1).saturating_sub(n);
        (all > 0).then(|| copied as f64 / all as f64)
    };
    Overlap { units: summary.len(), copied: [1, 2, 3].map(share), longest: longest(&summary, &source) }
}

/// The length of the longest common stretch, with a row of the table at a time.
fn longest(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1]; // that of stretches that end at each unit of b
    let mut longest = 0;
    for unit in a {
        for j in (0..b.len()).rev() {
            row[j + 1] = if *unit == b[j] { row[j] + 1 } else { 0 };
            longest = longest.max(row[j + 1]);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_stretches() {
        let got = overlap(
            "The fox ran home. The crow sang.",
            "A crow sang; the fox ran off, ran home.",
            Units::Word,
        );
        // the fox ran home the crow sang: all units; `the fox`, `fox ran`, `ran home`, `crow sang` of six pairs; one triple of five.
        assert_eq!(got, Overlap { units: 7, copied: [Some(1.0), Some(4.0 / 6.0), Some(0.2)], longest: 3 });
        let got = overlap("狐狸回家", "狐狸不回家", Units::Char);
        assert_eq!(got, Overlap { units: 4, copied: [Some(1.0), Some(2.0 / 3.0), Some(0.0)], longest: 2 });
    }

    #[test]
    fn short_ones() {
        assert_eq!(overlap("", "a", Units::Word), Overlap { units: 0, copied: [None; 3], longest: 0 });
        assert_eq!(
            overlap("a", "", Units::Word),
            Overlap { units: 1, copied: [Some(0.0), None, None], longest: 0 }
        );
    }
}
