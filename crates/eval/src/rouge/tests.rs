//! Held to what rouge-score says of the same texts.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    units: String,
    references: Vec<String>,
    summary: String,
    scores: [[f64; 3]; 4],
}

#[test]
fn rouge_score_says_the_same() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../../tests/golden/rouge.json")).unwrap();
    assert!(cases.len() > 50);
    for Case { units, references, summary, scores } in cases {
        let unit = match &*units {
            "char" => Units::Char,
            "chinese-word" => Units::ChineseWord,
            _ => Units::Word,
        };
        let got = best(&references, &summary, unit).unwrap();
        let got = got.all().map(|score| [score.precision, score.recall, score.f1]);
        assert_eq!(got, scores, "{units}: {references:?} {summary:?}");
    }
}

#[test]
fn units_of_a_text() {
    assert_eq!(Units::Word.cut("It's 3,5 Ünits_x"), ["it", "s", "3", "5", "nits", "x"]);
    assert_eq!(Units::Char.cut("用GPT-2写 Ünits。"), ["用", "gpt", "2", "写", "ünits"]);
    assert_eq!(
        Units::ChineseWord.cut("狐狸在森林里，用 iPhone 写GPT。"),
        ["狐狸", "在", "森林", "里", "用", "iphone", "写", "gpt"]
    );
    assert_eq!(Units::of("狐狸 GPT"), Units::Char);
    assert_eq!(Units::words_of("狐狸 GPT"), Units::ChineseWord);
    assert_eq!(Units::words_of("The word 狐 is a fox"), Units::Word);
    assert_eq!(Units::of("The word 狐 is a fox"), Units::Word);
    assert_eq!(Units::of(""), Units::Word);
}

#[test]
fn nothing_to_compare_with_is_no_score() {
    assert_eq!(best::<&str>(&[], "a", Units::Word), None);
}

#[test]
fn means_and_their_errors() {
    let mut corpus = Corpus::default();
    assert!(corpus.is_empty());
    for (reference, summary) in [("a b", "a b"), ("a b", "c d"), ("a b", "a c")] {
        corpus.add(&score(reference, summary, Units::Word));
    }
    assert_eq!(corpus.len(), 3);
    assert_eq!(corpus.mean().rouge1.f1, 0.5);
    // 1, 0 and ½ deviate by ½ in the mean, over √3.
    assert!((corpus.stderr().rouge1.f1 - 0.5 / 3f64.sqrt()).abs() < 1e-12);
}
