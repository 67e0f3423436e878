//! The summary desk: `gpt2 summarize` through HTTP. The same text and seed give the same summary, told with what was read and
//! with the numbers and names that the text does not have.

use axum::extract::State as Shared;
use axum::response::Response;
use generate::apps::facts::{Unfound, unfound};
use generate::apps::summarize::{Ask, Summaries, SummarizeError, Summary, SummaryEvent, SummarySettings};
use generate::{EngineSettings, GenerateError, Sampling, Speculation};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::sentences;

use super::Teller;
use crate::body::Json;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::State;

/// Sentences where no length is asked for, as `gpt2 summarize` has it.
const SENTENCES: usize = 3;
/// Among how many tokens is drawn.
const TOP_K: usize = 2;
/// Parts of the text that are read at once.
const BATCH: usize = 8;
/// Tokens that are guessed at once from what stood in the text; the summary stays the same.
const LOOKUP: Speculation = Speculation::Lookup { most: 8 };

/// What is to be summarised.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The model's name.
    model: String,
    /// The text.
    text: String,
    /// Sentences at most.
    max_sentences: Option<usize>,
    /// Length as a share of the text's, at most.
    ratio: Option<f64>,
    /// Tokens of the summary of what is read at once, at most.
    max_tokens: Option<usize>,
    /// Other words to ask with; `{text}` stands for the text.
    instruction: Option<String>,
    /// Start of the random numbers; without it, a random one, which is told.
    seed: Option<u64>,
}

/// Summarises a text, and tells each part that is read, and the whole.
pub async fn summarize(Shared(state): Shared<State>, Json(asked): Json<Asked>) -> Result<Response, ApiError> {
    let work = state.begin()?;
    let served = state.model(&asked.model)?.clone();
    if asked.text.trim().is_empty() {
        return Err(SummarizeError::Empty.into());
    }
    let settings = asked.settings(&served)?;
    settings.check()?;
    let limit = state.settings().request_timeout;
    let receipt = state
        .app()
        .desk
        .submit(served, limit, move |served, teller| run(served, teller, &asked.text, settings))?;
    Ok(receipt.respond(work))
}

impl Asked {
    fn settings(&self, served: &Served) -> Result<SummarySettings, SummarizeError> {
        let seed = self.seed.unwrap_or_else(super::random_seed);
        let ask = Ask::of(served.tokenizer())?;
        let temperature = if matches!(ask, Ask::TlDr) { 1.0 } else { 0.0 };
        Ok(SummarySettings {
            ask,
            instruction: self.instruction.clone(),
            max_sentences: self.max_sentences.or(self.ratio.is_none().then_some(SENTENCES)),
            ratio: self.ratio,
            max_tokens: self.max_tokens,
            sampling: Sampling { temperature, top_k: TOP_K, seed, ..Sampling::default() },
        })
    }
}

fn run(served: &Served, teller: &Teller, text: &str, settings: SummarySettings) -> Result<(), ApiError> {
    let seed = settings.sampling.seed;
    let engine =
        EngineSettings { speculation: LOOKUP, kept: 8, ..EngineSettings::for_batch(served.model(), BATCH) };
    let mut summaries = Summaries::new(&**served.model(), served.tokenizer(), settings, engine)?;
    summaries.add(0, text)?;
    loop {
        teller.goes_on()?;
        let events = summaries.step();
        teller.used(served, summaries.used());
        for event in events? {
            match event {
                SummaryEvent::Part(_, done, of) => {
                    teller.tell(&json!({ "type": "part", "done": done, "of": of }))
                }
                SummaryEvent::Done(_, summary) => {
                    teller.tell(&told(&summary?, text, seed));
                    return Ok(());
                }
            }
        }
    }
}

/// A summary, with its marks and with what was read.
fn told(summary: &Summary, source: &str, seed: u64) -> Value {
    let unfound = unfound(&summary.text, source);
    let first = summary.rounds.first();
    let split: usize = summary.rounds.iter().map(|round| round.split_sentences).sum();
    json!({
        "type": "done", "summary": summary.text, "pieces": pieces(&summary.text, &unfound), "unfound": unfound, "seed": seed,
        "chars": source.chars().count(), "sentences": sentences::sentences(source).count(),
        "parts": first.map_or(0, |round| round.parts), "rounds": summary.rounds.len(), "split_sentences": split,
        "is_cut_off": summary.is_cut_off, "is_stalled": summary.is_stalled,
    })
}

/// The summary cut at its marks, so that clients need not count bytes.
fn pieces(text: &str, unfound: &[Unfound]) -> Vec<Value> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    let plain = |text: &str, pieces: &mut Vec<Value>| {
        if !text.is_empty() {
            pieces.push(json!({ "text": text }));
        }
    };
    for found in unfound {
        plain(&text[at..found.bytes.start], &mut pieces);
        pieces.push(json!({ "text": found.text, "kind": found.kind }));
        at = found.bytes.end;
    }
    plain(&text[at..], &mut pieces);
    pieces
}

impl From<SummarizeError> for ApiError {
    fn from(error: SummarizeError) -> ApiError {
        let message = error.to_string();
        match error {
            SummarizeError::Empty => ApiError::invalid("text", message),
            SummarizeError::Ratio { .. } => ApiError::invalid("ratio", message),
            SummarizeError::Nothing { what } => ApiError::invalid(format!("max_{what}"), message),
            SummarizeError::Context { .. } | SummarizeError::NoRoom { .. } => {
                ApiError::bad(message).code("context_length_exceeded")
            }
            SummarizeError::Template(_) => ApiError::bad(message),
            SummarizeError::Generate(error) => error.into(),
            SummarizeError::Tokenizer(error) => GenerateError::Tokenizer(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_summary() {
        let text = "Bob paid 7 to 王 and Ann.";
        let unfound = unfound(text, "paid to 王 and");
        let pieces = pieces(text, &unfound);
        let joined: String = pieces.iter().map(|piece| piece["text"].as_str().unwrap()).collect();
        let marked: Vec<_> = pieces.iter().filter(|piece| piece.get("kind").is_some()).collect();
        assert_eq!(joined, text);
        assert_eq!(marked.len(), unfound.len());
        assert_eq!(marked[0], &json!({ "text": "7", "kind": "number" }));
    }
}
