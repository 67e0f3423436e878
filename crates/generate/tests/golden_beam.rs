//! Beam search and greedy texts held to transformers: the same tokens, with the same scores.
//!
//! `tests/golden/beam.py` made the cases, with the models beside it.

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use generate::{
    BeamSearch, BeamSettings, EarlyStopping, GenerateError, History, Hypothesis, Processors, Sampler,
    Sampling, beam_search, beam_search_on,
};
use models::{Gpt2, Pass};
use serde::Deserialize;
use serde_json::Value;

const CASES: &str = include_str!("../../../tests/golden/beam.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    model: String,
    prompt: Vec<u32>,
    /// Tokens that end the text.
    ends: Vec<u32>,
    max_new_tokens: usize,
    num_beams: usize,
    num_return: usize,
    length_penalty: f64,
    early_stopping: Value,
    repetition: f32,
    no_repeat_ngram: usize,
    bad_words: Vec<Vec<u32>>,
    min_new_tokens: usize,
    texts: Vec<Vec<u32>>,
    /// None with one beam: transformers then decodes greedily.
    scores: Option<Vec<f64>>,
}

impl Case {
    fn processors(&self) -> Processors {
        Processors {
            repetition: self.repetition,
            no_repeat_ngram: self.no_repeat_ngram,
            bad_words: self.bad_words.clone(),
            min_new_tokens: self.min_new_tokens,
            stop_tokens: self.ends[1..].to_vec(),
            ..Processors::NONE
        }
    }

    fn search(&self, model: &Gpt2) -> Vec<Hypothesis> {
        let settings = BeamSettings {
            num_beams: self.num_beams,
            num_return: self.num_return,
            length_penalty: self.length_penalty,
            early_stopping: match &self.early_stopping {
                Value::Bool(false) => EarlyStopping::Heuristic,
                Value::Bool(true) => EarlyStopping::Always,
                Value::String(never) if never == "never" => EarlyStopping::Never,
                other => panic!("{other}"),
            },
            max_new_tokens: self.max_new_tokens,
            processors: self.processors(),
        };
        let search =
            BeamSearch::new(&settings, &self.prompt, model.config().vocab_size, &self.ends[..1]).unwrap();
        let logits = |text: &Vec<u32>| Ok(model.last_logits(text, &mut Pass::eval())?);
        let plainly = beam_search(search.clone(), |texts| {
            texts.iter().map(logits).collect::<Result<_, GenerateError>>()
        })
        .unwrap();
        assert_eq!(beam_search_on(model, search, usize::MAX).unwrap(), plainly, "with cached keys: {self:?}");
        plainly
    }

    fn greedy(&self, model: &Gpt2) -> Vec<u32> {
        let sampling = Sampling { processors: self.processors(), ..Sampling::GREEDY };
        let sampler = Sampler::new(&sampling, model.config().vocab_size, &self.ends[..1]).unwrap();
        let mut generated = Vec::new();
        while generated.len() < self.max_new_tokens {
            let text = [&self.prompt[..], &generated].concat();
            let mut logits = model.last_logits(&text, &mut Pass::eval()).unwrap();
            let history = History { prompt: &self.prompt, generated: &generated };
            let id = sampler.sample(&mut logits, history, text.len() as u64).unwrap().id;
            generated.push(id);
            if sampler.ends(id) {
                break;
            }
        }
        generated
    }
}

#[test]
fn texts_and_scores_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    let ended =
        |case: &Case| case.texts.iter().filter(|text| case.ends.contains(text.last().unwrap())).count();
    let ends: usize = cases.iter().map(ended).sum();
    let all: usize = cases.iter().map(|case| case.texts.len()).sum();
    assert!(
        cases.len() >= 100 && ends >= 100 && all >= 2 * ends,
        "{} cases, {ends} of {all} ended",
        cases.len()
    );
    for name in golden::CASES {
        let model = Gpt2::load(&golden::folder(name)).unwrap();
        for case in cases.iter().filter(|case| case.model == name) {
            match &case.scores {
                Some(scores) => check(case, scores, &case.search(&model)),
                None => assert_eq!([case.greedy(&model)], case.texts[..], "{case:?}"),
            }
        }
    }
}

fn check(case: &Case, scores: &[f64], got: &[Hypothesis]) {
    let texts: Vec<&[u32]> = got.iter().map(|hypothesis| &hypothesis.ids[..]).collect();
    assert_eq!(texts, case.texts, "{case:?}");
    for (hypothesis, want) in got.iter().zip(scores) {
        let got = hypothesis.score;
        assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "score {got}, want {want}: {case:?}");
    }
}
