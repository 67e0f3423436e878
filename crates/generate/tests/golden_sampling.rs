//! Processors and filters held to transformers: the same tokens left, with the same probabilities.
//!
//! `tests/golden/sampling.py` made the cases.

use generate::{History, Processors, Sampler, Sampling};
use serde::Deserialize;

const CASES: &str = include_str!("../../../tests/golden/sampling.json");

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    settings: Settings,
    ids: Vec<u32>,
    probs: Vec<f64>,
}

/// Those that are not off.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    repetition: Option<f32>,
    penalty_window: Option<usize>,
    no_repeat_ngram: Option<usize>,
    /// No number is minus infinity.
    #[serde(default)]
    logit_bias: Vec<(u32, Option<f32>)>,
    #[serde(default)]
    bad_words: Vec<Vec<u32>>,
    min_new_tokens: Option<usize>,
    #[serde(default)]
    stop_tokens: Vec<u32>,
}

fn sampling(settings: &Settings) -> Sampling {
    let off = Sampling::default();
    let bias = |&(id, bias): &(u32, Option<f32>)| (id, bias.unwrap_or(f32::NEG_INFINITY));
    Sampling {
        temperature: settings.temperature.unwrap_or(off.temperature),
        top_k: settings.top_k.unwrap_or(off.top_k),
        top_p: settings.top_p.unwrap_or(off.top_p),
        min_p: settings.min_p.unwrap_or(off.min_p),
        typical_p: settings.typical_p.unwrap_or(off.typical_p),
        processors: Processors {
            logit_bias: settings.logit_bias.iter().map(bias).collect(),
            repetition: settings.repetition.unwrap_or(1.0),
            penalty_window: settings.penalty_window.unwrap_or(0),
            no_repeat_ngram: settings.no_repeat_ngram.unwrap_or(0),
            bad_words: settings.bad_words.clone(),
            min_new_tokens: settings.min_new_tokens.unwrap_or(0),
            stop_tokens: settings.stop_tokens.clone(),
            ..Processors::NONE
        },
        ..off
    }
}

#[test]
fn candidates_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    for Case { mut logits, prompt, generated, settings, ids, probs } in cases {
        let name = format!("{} logits after {prompt:?} and {generated:?}, {settings:?}", logits.len());
        let eot = logits.len() as u32 - 1;
        let sampler = Sampler::new(&sampling(&settings), logits.len(), &[eot]).unwrap();
        let history = History { prompt: &prompt, generated: &generated };
        let mut got = sampler.candidates(&mut logits, history, 0).unwrap();
        got.sort_unstable_by_key(|candidate| candidate.0);
        assert!(got.iter().map(|candidate| candidate.0).eq(ids), "{name}: {got:?}");
        let total: f64 = got.iter().map(|candidate| candidate.1).sum();
        for ((id, weight), want) in got.iter().zip(probs) {
            let got = weight / total;
            assert!((got - want).abs() < 1e-6, "{name}, token {id}: probability {got}, want {want}");
        }
    }
}
