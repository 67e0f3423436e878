//! ROUGE of three sentences of each abstract of SciTLDR's development set, against what Python's rouge-score says of them.
//!
//! The data lies in `$GPT2_SHARED`, or in `shared` beside the repository; without it this test is skipped aloud. The numbers are
//! those of `gpt2 summarize --json --seed 1 … | python tests/golden/ask_rouge.py …`, with any model.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use eval::baselines;
use eval::rouge::{Corpus, Units, best};
use serde_json::Value;
use tokenizer::sentences::sentences;

const LEAD: [f64; 4] = [0.2633956249925103, 0.10807990882436752, 0.18957372820574106, 0.2202338013728145];
const RANDOM: [f64; 4] = [0.26108307964182287, 0.10158045568741786, 0.1887491838344505, 0.21822351277225122];

#[test]
fn lead_and_random_sentences() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("GPT2_SHARED").map_or_else(beside, PathBuf::from);
    let path = shared.join("data/en/summ-scitldr-dev.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: the shared data is not at {}", path.display());
        return;
    };
    let (mut lead, mut random) = (Corpus::default(), Corpus::default());
    for (i, line) in text.split('\n').filter(|line| !line.is_empty()).enumerate() {
        let document: Value = serde_json::from_str(line).unwrap();
        let text = document["text"].as_str().unwrap();
        let summaries = document["summaries"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        let references: Vec<String> =
            summaries.map(|text| sentences(text).collect::<Vec<_>>().join("\n")).collect();
        let units = Units::of(text);
        lead.add(&best(&references, &baselines::lead(text, 3), units).unwrap());
        random.add(&best(&references, &baselines::random(text, 3, 1 + i as u64), units).unwrap());
    }
    assert_eq!(lead.len(), 619);
    for (corpus, want) in [(lead, LEAD), (random, RANDOM)] {
        let got = corpus.mean().all().map(|score| score.f1);
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{got:?}, want {want:?}");
    }
}
