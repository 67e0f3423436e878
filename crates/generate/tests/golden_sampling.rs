//! Temperature, top-k and top-p held to transformers: the same tokens left, with the same probabilities.
//!
//! `tests/golden/sampling.py` made the cases.

use generate::Sampling;
use serde::Deserialize;

const CASES: &str = include_str!("../../../tests/golden/sampling.json");

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    ids: Vec<u32>,
    probs: Vec<f64>,
}

#[test]
fn candidates_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    for Case { logits, temperature, top_k, top_p, ids, probs } in cases {
        let name =
            format!("{} logits, temperature {temperature}, top-k {top_k}, top-p {top_p}", logits.len());
        let sampling = Sampling { temperature, top_k, top_p, seed: 0 };
        let mut got = sampling.candidates(&logits);
        got.sort_unstable_by_key(|candidate| candidate.0);
        assert!(got.iter().map(|candidate| candidate.0).eq(ids), "{name}: {got:?}");
        let total: f64 = got.iter().map(|candidate| candidate.1).sum();
        for ((id, weight), want) in got.iter().zip(probs) {
            let got = weight / total;
            assert!((got - want).abs() < 1e-6, "{name}, token {id}: probability {got}, want {want}");
        }
    }
}
