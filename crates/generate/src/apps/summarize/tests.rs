//! Summaries by models that recite sentences, whatever they read.

use super::*;
use crate::request::tests::reciting_to;

const N_CTX: usize = 96;

fn bytes() -> Tokenizer {
    Tokenizer::train_bpe(["a"], 257).unwrap()
}

/// A model that recites a text again and again, a token for each byte.
fn model(text: &str) -> Gpt2 {
    let tokenizer = bytes();
    let script = tokenizer.encode(&text.repeat(N_CTX)).unwrap();
    reciting_to(&tokenizer, &script[..N_CTX], N_CTX)
}

fn settings() -> SummarySettings {
    SummarySettings {
        ask: Ask::TlDr,
        instruction: None,
        max_sentences: Some(3),
        ratio: None,
        max_tokens: None,
        sampling: Sampling { seed: 5, ..Sampling::GREEDY },
    }
}

fn all(
    model: &Gpt2,
    settings: SummarySettings,
    batch: usize,
    texts: &[&str],
) -> Vec<Result<Summary, SummarizeError>> {
    let tokenizer = bytes();
    let mut summaries =
        Summaries::new(model, &tokenizer, settings, EngineSettings::for_batch(model, batch)).unwrap();
    let mut done = BTreeMap::new();
    for (id, text) in texts.iter().enumerate() {
        if let Err(error) = summaries.add(id as u64, text) {
            done.insert(id as u64, Err(error));
        }
    }
    while !summaries.is_idle() {
        for event in summaries.step().unwrap() {
            if let SummaryEvent::Done(id, result) = event {
                done.insert(id, result);
            }
        }
    }
    done.into_values().collect()
}

fn one(model: &Gpt2, settings: SummarySettings, text: &str) -> Summary {
    all(model, settings, 4, &[text]).remove(0).unwrap()
}

#[test]
fn the_first_sentences_of_what_is_written_count() {
    let model = model("Ab. ");
    let summary = one(&model, settings(), "The fox came home late.");
    assert_eq!(summary.text.matches("b.").count(), 3, "{summary:?}");
    assert!(!summary.is_cut_off && !summary.is_stalled);
    assert_eq!(summary.rounds.len(), 1);
    assert_eq!((summary.rounds[0].parts, summary.rounds[0].tokens), (1, 23));
    assert!(summary.rounds[0].written < 24, "writing ends with the third sentence: {summary:?}");

    let whole = one(&model, SummarySettings { max_sentences: None, ..settings() }, "The fox came home late.");
    assert!((N_CTX / 4 - 2..=N_CTX / 4).contains(&whole.rounds[0].written), "{whole:?}");
    assert!(whole.is_cut_off);
}

#[test]
fn long_texts_are_reduced_in_rounds() {
    let model = model("Ab. ");
    let text = "The fox came home late. The crow sang. ".repeat(30);
    let settings = SummarySettings { max_sentences: Some(1), ..settings() };
    let summary = one(&model, settings, &text);
    assert!(summary.rounds.len() > 1, "{summary:?}");
    assert_eq!(summary.rounds.last().unwrap().parts, 1);
    assert!(
        summary
            .rounds
            .windows(2)
            .all(|pair| pair[1].parts < pair[0].parts && pair[1].tokens < pair[0].tokens)
    );
    assert_eq!(summary.rounds[0].tokens, text.len());
    assert_eq!(sentences::sentences(&summary.text).count(), 1);
    assert_eq!(summary.rounds.iter().map(|round| round.split_sentences).sum::<usize>(), 0);
}

#[test]
fn a_round_that_does_not_shrink_ends_the_work() {
    // Sentences of 3 bytes whose summaries have 24.
    let model = model("abcdefgh");
    let summary = one(&model, SummarySettings { max_tokens: Some(60), ..settings() }, &"Ab. ".repeat(20));
    assert!(summary.is_stalled, "{summary:?}");
    assert_eq!(summary.text.lines().count(), summary.rounds[0].parts);
}

#[test]
fn a_sentence_longer_than_the_context_is_split_and_told() {
    let summary = one(&model("Ab. "), settings(), &"word ".repeat(60));
    assert_eq!(summary.rounds[0].split_sentences, 1);
    assert!(summary.rounds[0].parts > 4);
}

#[test]
fn a_ratio_bounds_the_length() {
    let model = model("Ab. ");
    let text = "The fox came home late. The crow sang. ".repeat(30);
    let settings = SummarySettings { ratio: Some(0.3), max_sentences: None, ..settings() };
    let summary = one(&model, settings, &text);
    assert_eq!(summary.rounds.len(), 1, "{summary:?}");
    let share = summary.text.len() as f64 / text.len() as f64;
    assert!((0.1..=0.3).contains(&share), "{share}");
}

#[test]
fn a_summary_does_not_depend_on_company() {
    let tokenizer = bytes();
    let config = models::Gpt2Config::new(2, 2, 16, N_CTX, tokenizer.vocab_size());
    let model = Gpt2::new(config, models::Init::Xavier, 3).unwrap();
    let texts = ["The fox. It ran. ".repeat(20), "狐狸回家了。".repeat(12), "One.".into()];
    let texts = texts.each_ref().map(|text| &**text);
    let settings = SummarySettings {
        sampling: Sampling { temperature: 1.0, top_k: 2, seed: 9, ..Sampling::default() },
        ..settings()
    };
    let together: Vec<Summary> =
        all(&model, settings.clone(), 8, &texts).into_iter().map(Result::unwrap).collect();
    let in_turn: Vec<Summary> =
        all(&model, settings.clone(), 1, &texts).into_iter().map(Result::unwrap).collect();
    assert_eq!(together, in_turn);
    let other = SummarySettings { sampling: Sampling { seed: 10, ..settings.sampling.clone() }, ..settings };
    assert_ne!(together[0].text, one(&model, other, texts[0]).text);
}

#[test]
fn what_cannot_be_is_refused() {
    let model = model("Ab. ");
    let tokenizer = bytes();
    let refused = |settings| {
        Summaries::new(&model, &tokenizer, settings, EngineSettings::for_batch(&model, 1))
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused(SummarySettings { ratio: Some(1.5), ..settings() }).contains("below 1"));
    assert!(refused(SummarySettings { ratio: Some(f64::NAN), ..settings() }).contains("below 1"));
    assert!(refused(SummarySettings { max_sentences: Some(0), ..settings() }).contains("0 sentences"));
    let long = SummarySettings { max_tokens: Some(usize::MAX), ..settings() };
    let results = all(&model, long, 1, &["One."]);
    assert!(matches!(results[0], Err(SummarizeError::Context { .. })), "{results:?}");
    assert!(matches!(all(&model, settings(), 1, &[" \n"])[0], Err(SummarizeError::Empty)));
    let asked = SummarySettings { instruction: Some("x".repeat(200)), ..settings() };
    assert!(matches!(all(&model, asked, 1, &["One."])[0], Err(SummarizeError::Context { .. })));
}

#[test]
fn a_base_model_reads_the_text_and_tl_dr() {
    let tokenizer = bytes();
    let prompt = |instruction, text: &str| {
        let wording = Ask::TlDr.wording(instruction, text);
        tokenizer.decode(&Ask::TlDr.prompt(&tokenizer, &wording, text).unwrap()).unwrap()
    };
    assert_eq!(prompt(None, "A fox."), "A fox.\nTL;DR:");
    assert_eq!(prompt(Some("In short:"), "A fox."), "A fox.\nIn short:");
    assert_eq!(prompt(Some("<{text}>"), "A {text}"), "<A {text}>");
}

#[test]
fn a_tuned_model_is_asked_as_it_was_tuned() {
    let tokenizer = bytes();
    assert!(matches!(Ask::of(&tokenizer).unwrap(), Ask::TlDr));
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let tuned = tokenizer.with_chat_template(Some(template.into()));
    let ask = Ask::of(&tuned).unwrap();
    let prompt = |instruction, text: &str| {
        let wording = ask.wording(instruction, text);
        tuned.decode(&ask.prompt(&tuned, &wording, text).unwrap()).unwrap()
    };
    assert_eq!(prompt(None, "A fox."), "<user>Summarize:\nA fox.</><assistant>");
    assert_eq!(prompt(None, "狐狸。"), "<user>概括：\n狐狸。</><assistant>");
    assert_eq!(prompt(Some("Shortly."), "A fox."), "<user>Shortly.\nA fox.</><assistant>");
}
