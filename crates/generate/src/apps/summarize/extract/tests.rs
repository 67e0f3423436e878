//! Extracts by small models: scores are those of the model, whatever else the engine does.

use models::{Gpt2Config, Init, Pass};

use super::*;
use crate::apps::summarize::Ask;
use crate::sampling::top_logprobs;

const N_CTX: usize = 192;
const TEXT: &str = "The fox came home late. A crow sang on the roof! Nobody slept. 狐狸回家了。It was cold.";

/// A token for each byte.
fn bytes() -> Tokenizer {
    Tokenizer::train_bpe(["a"], 257).unwrap()
}

fn model() -> Gpt2 {
    let config = Gpt2Config::new(2, 2, 32, N_CTX, bytes().vocab_size());
    Gpt2::new(config, Init::Xavier, 3).unwrap()
}

fn settings() -> SummarySettings {
    SummarySettings {
        ask: Ask::TlDr,
        instruction: None,
        max_sentences: Some(2),
        ratio: None,
        max_tokens: None,
        sampling: Sampling::GREEDY,
    }
}

fn all(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    settings: SummarySettings,
    engine: EngineSettings,
    texts: &[&str],
) -> Vec<Result<Summary, SummarizeError>> {
    let mut extracts = Extracts::new(model, tokenizer, settings, engine).unwrap();
    let mut done = BTreeMap::new();
    for (id, text) in texts.iter().enumerate() {
        if let Err(error) = extracts.add(id as u64, text) {
            done.insert(id as u64, Err(error));
        }
    }
    while !extracts.is_idle() {
        for event in extracts.step().unwrap() {
            if let SummaryEvent::Done(id, result) = event {
                done.insert(id, result);
            }
        }
    }
    assert!(extracts.engine.is_idle() && extracts.tasks.is_empty(), "nothing is left behind");
    done.into_values().collect()
}

fn one(settings: SummarySettings, text: &str) -> Summary {
    let model = model();
    let engine = EngineSettings::for_batch(&model, 4);
    all(&model, &bytes(), settings, engine, &[text]).remove(0).unwrap()
}

/// The mean log-probabilities of an answer, faded and plain, from one pass over the whole.
fn means(model: &Gpt2, prompt: &str, answer: &str) -> [f64; 2] {
    let tokenizer = bytes();
    let ids = tokenizer.encode(&format!("{prompt}{answer}")).unwrap();
    let logits = model.logits(&ids, 1, &mut Pass::eval()).unwrap();
    let rows = logits.data().chunks_exact(tokenizer.vocab_size()).zip(&ids[1..]);
    let logprobs = rows.skip(prompt.len() - 1).map(|(row, &id)| f64::from(top_logprobs(row, id, 0).logprob));
    let all: Vec<f64> = logprobs.collect();
    [FADING, 1.0].map(|fading| {
        let weights: Vec<f64> = (0..all.len()).map(|t| fading.powi(t as i32)).collect();
        let sum: f64 = weights.iter().zip(&all).map(|(weight, logprob)| weight * logprob).sum();
        sum / weights.iter().sum::<f64>()
    })
}

#[test]
fn scores_are_those_of_the_model() {
    let extract = one(SummarySettings { max_sentences: None, ..settings() }, TEXT);
    let sentences: Vec<&str> = sentences::sentences(TEXT).collect();
    assert_eq!(extract.text, sentences.join("\n"));
    assert_eq!(extract.chosen.len(), 5);
    for (i, chosen) in extract.chosen.iter().enumerate() {
        assert_eq!((chosen.sentence, &TEXT[chosen.bytes.clone()]), (i, sentences[i]));
        let space = if i == 3 { "" } else { " " };
        let answer = format!("{space}{}", sentences[i]);
        let want = means(&model(), &format!("{TEXT}\nTL;DR:"), &answer);
        let got = [chosen.score, chosen.logprob];
        assert!(
            got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12),
            "{answer}: {got:?}, {want:?}"
        );
    }
    assert_eq!(
        extract.rounds,
        [Round { parts: 1, tokens: TEXT.len(), written: TEXT.len() - 3, split_sentences: 0 }]
    );
}

#[test]
fn the_best_sentences_are_chosen() {
    let whole = one(SummarySettings { max_sentences: None, ..settings() }, TEXT).chosen;
    let mut best = whole.clone();
    best.sort_by(|a, b| b.score.total_cmp(&a.score));
    let extract = one(settings(), TEXT);
    let mut want = best[..2].to_vec();
    want.sort_by_key(|chosen| chosen.sentence);
    assert_eq!(extract.chosen, want);
    assert!(!extract.is_cut_off && !extract.is_stalled);
    // A share of the text's tokens, and a number of them.
    for (settings, most) in [
        (SummarySettings { ratio: Some(0.5), max_sentences: None, ..settings() }, TEXT.len().div_ceil(2)),
        (SummarySettings { max_tokens: Some(40), max_sentences: None, ..settings() }, 40),
    ] {
        let tokens: usize = one(settings, TEXT).chosen.iter().map(|chosen| chosen.tokens).sum();
        assert!((1..=most).contains(&tokens), "{tokens} of {most}");
    }
    let shortest = one(SummarySettings { max_tokens: Some(1), ..settings() }, TEXT);
    assert_eq!(shortest.text, "It was cold.");
}

#[test]
fn company_batches_and_portions_change_no_bit() {
    let (model, tokenizer) = (model(), bytes());
    let long = format!("{TEXT} And then it snowed for days. ").repeat(7);
    let texts = [TEXT, &long, "One.", "狐狸回家了。乌鸦唱歌。天黑了。"];
    let engine =
        |batch, step_tokens| EngineSettings { step_tokens, ..EngineSettings::for_batch(&model, batch) };
    let run = |engine, texts: &[&str]| -> Vec<Summary> {
        all(&model, &tokenizer, settings(), engine, texts).into_iter().map(Result::unwrap).collect()
    };
    let alone: Vec<Summary> = texts.iter().flat_map(|text| run(engine(1, 512), &[text])).collect();
    for (batch, step_tokens) in [(1, 40), (3, 512), (16, 100)] {
        assert_eq!(run(engine(batch, step_tokens), &texts), alone, "{batch}, {step_tokens}");
    }
}

#[test]
fn long_documents_go_in_rounds() {
    let text = (0..40).map(|i| format!("Fox number {i} saw {} crows. ", i * i % 17)).collect::<String>();
    let extract = one(SummarySettings { max_sentences: Some(1), ..settings() }, &text);
    assert!(extract.rounds.len() > 1, "{extract:?}");
    assert!(extract.rounds[0].tokens == text.len() && extract.rounds[0].parts > 5, "{extract:?}");
    assert!(extract.rounds.windows(2).all(|pair| pair[1].tokens < pair[0].tokens), "{extract:?}");
    assert_eq!(extract.chosen.len(), 1);
    assert_eq!(text[extract.chosen[0].bytes.clone()], extract.text);

    // A share of a long text is taken from all of its parts, at once.
    let extract = one(SummarySettings { ratio: Some(0.3), max_sentences: None, ..settings() }, &text);
    let tokens: usize = extract.chosen.iter().map(|chosen| chosen.tokens).sum();
    assert!(extract.rounds.len() == 1 && tokens * 10 <= text.len() * 3, "{extract:?}");
    assert!(extract.chosen.last().unwrap().sentence > 20 && extract.chosen[0].sentence < 20);
}

#[test]
fn a_round_that_leaves_nothing_out_is_the_last() {
    // Each part holds two sentences or fewer, and each may keep as many as the whole.
    let text = ["a", "b", "c", "d", "e"].map(|word| format!("{} ", word.repeat(60)) + "end. ").concat();
    let text = text.replace(". b", ". B").replace(". c", ". C").replace(". d", ". D").replace(". e", ". E");
    let extract = one(SummarySettings { max_sentences: Some(2), ..settings() }, &text);
    assert!(extract.is_stalled && extract.chosen.len() == 2, "{extract:?}");
}

#[test]
fn a_sentence_longer_than_the_context_is_scored_by_its_beginning() {
    let long = format!("Word {}end.", "word ".repeat(90));
    let text = format!("Short one. {long} Last one.");
    let extract = one(SummarySettings { max_sentences: None, ..settings() }, &text);
    assert_eq!(extract.chosen.len(), 3);
    assert!(extract.rounds[0].split_sentences == 1, "{extract:?}");
    assert_eq!(extract.text.lines().nth(1), Some(&*long));
}

#[test]
fn a_tuned_model_is_asked_with_its_template_and_the_end_of_its_turn() {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let tuned = bytes().with_chat_template(Some(template.into()));
    let ask = Ask::of(&tuned).unwrap();
    let wording = ask.wording(None, "A fox. B.");
    let (ids, from) = ask.answered(&tuned, &wording, "A fox. B.", "A fox.").unwrap();
    assert_eq!(tuned.decode(&ids[..from]).unwrap(), "<user>Summarize:\nA fox. B.</><assistant>");
    assert_eq!(ids[..from], ask.prompt(&tuned, &wording, "A fox. B.").unwrap());
    assert!(tuned.decode(&ids[from..]).unwrap().starts_with("A fox.</"));
}

#[test]
fn what_cannot_be_is_refused() {
    let model = model();
    let engine = || EngineSettings::for_batch(&model, 1);
    let tokenizer = bytes();
    let refused = |settings| Extracts::new(&model, &tokenizer, settings, engine()).err().unwrap().to_string();
    assert!(refused(SummarySettings { ratio: Some(0.0), ..settings() }).contains("below 1"));
    assert!(refused(SummarySettings { max_sentences: Some(0), ..settings() }).contains("0 sentences"));
    let run = |settings, text| all(&model, &tokenizer, settings, engine(), &[text]).remove(0);
    assert!(matches!(run(settings(), " \n"), Err(SummarizeError::Empty)));
    let long = SummarySettings { instruction: Some("x".repeat(300)), ..settings() };
    assert!(matches!(run(long, "One."), Err(SummarizeError::Context { .. })));

    let mut damaged = model.clone();
    damaged.parameters_mut().into_iter().for_each(|(name, tensor)| {
        if name == "ln_f.weight" {
            tensor.data_mut()[0] = f32::NAN;
        }
    });
    let results = all(&damaged, &tokenizer, settings(), engine(), &[TEXT, "One."]);
    let is_damage = |result: &Result<Summary, SummarizeError>| {
        matches!(result, Err(SummarizeError::Generate(GenerateError::Sampling(SamplingError::Logits { .. }))))
    };
    assert!(results.len() == 2 && results.iter().all(is_damage), "{results:?}");
}
