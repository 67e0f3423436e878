//! `POST /v1/completions`: texts that go on with prompts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract;
use axum::response::{IntoResponse, Response};
use generate::{Generation, Request, TokenLogprobs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::choices::{self, Choices, MOST_LOGPROBS};
use super::fields::{self, Input, Others, StreamOptions, Strings};
use super::form::ResponseFormat;
use super::logprobs::{Lists, Teller};
use super::stream::{self, Events, Writer};
use super::{Head, MOST_CHOICES, Usage, aside, finish_reason, submit};
use crate::body;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::{Settings, State};

/// Tokens that are written where a request says nothing, as OpenAI has it.
const MAX_TOKENS: usize = 16;

/// The fields of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct CompletionRequest {
    /// Which model.
    model: String,
    /// What to go on with; without it, or where it is empty, a new text.
    #[serde(default)]
    prompt: Option<Input>,
    /// Tokens to write at most.
    #[serde(default)]
    max_tokens: Option<usize>,
    /// Tokens before a text may end.
    #[serde(default)]
    min_tokens: Option<usize>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    repetition_penalty: Option<f32>,
    #[serde(default)]
    presence_penalty: Option<f32>,
    #[serde(default)]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    logit_bias: Option<BTreeMap<String, f32>>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    stop: Option<Strings>,
    /// Texts for each prompt.
    #[serde(default)]
    n: Option<usize>,
    /// Texts of which the `n` likeliest are given.
    #[serde(default)]
    best_of: Option<usize>,
    /// Whether the prompt stands before the text.
    #[serde(default)]
    echo: Option<bool>,
    /// Likely tokens to tell at each place.
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    #[serde(flatten)]
    others: Others,
}

/// A request that can be met.
struct Plan {
    /// Prompts that are echoed, as text.
    echoes: Vec<String>,
    requests: Vec<Request>,
    /// Texts that are written for each prompt, and those of them that are given.
    best_of: usize,
    n: usize,
    echo: bool,
    logprobs: Option<usize>,
    stream: bool,
    with_usage: bool,
}

/// Answers a request.
pub async fn create(
    extract::State(state): extract::State<State>,
    body::Json(request): body::Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let work = state.begin()?;
    let served = state.model(&request.model)?.clone();
    let (own, settings) = (served.clone(), state.settings().clone());
    let plan = aside(move || Plan::of(&own, &settings, request)).await?;
    let texts = plan.requests.len();
    // The prompt's log-probabilities are known when the text is: such a stream has one event a text.
    let pieces = plan.stream && !(plan.echo && plan.logprobs.is_some());
    let receipt = submit(&state, &served, plan.requests.clone(), pieces)?;
    let head = Head::new("cmpl", "text_completion", &served);
    if plan.stream {
        let events = Events::new(&head, plan.with_usage);
        let best_of = plan.best_of;
        let writer = Pieces::new(&served, plan, pieces);
        return stream::respond(receipt, writer, events, (texts, best_of), work).await;
    }
    let whole = receipt.whole(texts).await?;
    let usage = Usage::of(&whole, plan.best_of);
    let mut choices = Vec::new();
    for (prompt, texts) in whole.chunks(plan.best_of).enumerate() {
        let requests = &plan.requests[prompt * plan.best_of..];
        for generation in likeliest(texts, plan.n) {
            let choice = Choice::of(&served, &plan, &requests[0], prompt, generation);
            choices.push(Choice { index: choices.len(), ..choice });
        }
    }
    let mut answer = json!(head);
    answer["choices"] = json!(choices);
    answer["usage"] = json!(usage);
    Ok(Json(answer).into_response())
}

impl Plan {
    fn of(served: &Arc<Served>, settings: &Settings, asked: CompletionRequest) -> Result<Plan, ApiError> {
        fields::refuse(&asked.others)?;
        let n = count("n", asked.n)?;
        let best_of = match asked.best_of {
            None => n,
            best_of => count("best_of", best_of)?,
        };
        let stream = asked.stream.unwrap_or(false);
        if best_of < n {
            let message = format!(
                "`best_of` is {best_of}, but `n` is {n}; ask for no more than there are to choose from"
            );
            return Err(ApiError::invalid("best_of", message));
        }
        if stream && best_of > n {
            let message = "`best_of` cannot be streamed: the best are known when all are whole; leave it out";
            return Err(ApiError::invalid("best_of", message));
        }
        let options = StreamOptions::check(asked.stream_options, stream)?;
        let echo = asked.echo.unwrap_or(false);
        if let Some(k) = asked.logprobs.filter(|&k| k > MOST_LOGPROBS) {
            let message = format!("`logprobs` is {k}; ask for at most {MOST_LOGPROBS}");
            return Err(ApiError::invalid("logprobs", message));
        }
        let choices = Choices {
            temperature: asked.temperature,
            top_p: asked.top_p,
            top_k: asked.top_k,
            min_p: asked.min_p,
            repetition_penalty: asked.repetition_penalty,
            presence_penalty: asked.presence_penalty,
            frequency_penalty: asked.frequency_penalty,
            logit_bias: asked.logit_bias,
            seed: asked.seed,
            stop: asked.stop,
            // How likely each is as a whole must be known where the best are chosen.
            logprobs: asked.logprobs.or((best_of > n).then_some(0)),
            min_tokens: asked.min_tokens.unwrap_or(0),
        };
        let mut base = choices.request(served)?;
        if let Some(format) = &asked.response_format {
            base.constraint = format.constraint(served)?;
        }
        let asked_for = asked.prompt.unwrap_or(Input::Texts(vec![String::new()]));
        if asked_for.is_empty() {
            return Err(ApiError::invalid("prompt", "`prompt` is an empty list; give at least one text"));
        }
        if asked_for.len().saturating_mul(best_of) > settings.batch.saturating_add(settings.queue) {
            let message = format!(
                "`prompt` has {} texts, for each of which {best_of} are asked for, but the server takes at most {} at once",
                asked_for.len(),
                settings.batch.saturating_add(settings.queue)
            );
            return Err(ApiError::invalid("prompt", message));
        }
        let (mut requests, mut echoes) = (Vec::new(), Vec::new());
        let max_tokens = asked.max_tokens.unwrap_or(MAX_TOKENS);
        let mut add = |ids: Vec<u32>, text: Option<String>| -> Result<(), ApiError> {
            let wanted = Some((max_tokens, "max_tokens"));
            base.max_tokens = choices::limit(served, settings, (ids.len(), "prompt"), wanted)?;
            base.prompt_logprobs = asked.logprobs.filter(|_| echo);
            requests.extend(choices::texts(&base, &ids, best_of));
            if echo {
                echoes.push(match text {
                    Some(text) => text,
                    None => served
                        .tokenizer()
                        .decode(&ids)
                        .map_err(|error| ApiError::invalid("prompt", error.to_string()))?,
                });
            }
            Ok(())
        };
        match asked_for {
            Input::Tokens(lists) => {
                for ids in lists {
                    fields::check_tokens("prompt", &ids, served)?;
                    add(ids, None)?;
                }
            }
            Input::Texts(texts) => {
                for text in texts {
                    let ids = served.tokenizer().encode_prompt(&text, false);
                    add(ids.map_err(|error| ApiError::invalid("prompt", error.to_string()))?, Some(text))?;
                }
            }
        }
        let (logprobs, with_usage) = (asked.logprobs, options.include_usage);
        Ok(Plan { echoes, requests, best_of, n, echo, logprobs, stream, with_usage })
    }

    /// What stands before the text of a prompt.
    fn echo(&self, prompt: usize) -> &str {
        self.echoes.get(prompt).map_or("", String::as_str)
    }
}

/// A number of texts.
pub(super) fn count(name: &str, given: Option<usize>) -> Result<usize, ApiError> {
    let n = given.unwrap_or(1);
    if (1..=MOST_CHOICES).contains(&n) {
        return Ok(n);
    }
    Err(ApiError::invalid(name, format!("`{name}` is {n}; ask for 1 to {MOST_CHOICES}")))
}

/// The `n` texts that are likeliest for each of their tokens, the likeliest first; all of them in their order where no more are
/// asked for.
fn likeliest(texts: &[Generation], n: usize) -> Vec<&Generation> {
    let mut best: Vec<&Generation> = texts.iter().collect();
    if n < texts.len() {
        let mean = |generation: &&Generation| {
            let all = generation.logprobs.iter().flatten().chain(&generation.end_logprobs);
            let (sum, tokens) = all.fold((0.0, 0), |(sum, n), one| (sum + f64::from(one.logprob), n + 1));
            if tokens == 0 { f64::NEG_INFINITY } else { sum / f64::from(tokens) }
        };
        best.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        best.truncate(n);
    }
    best
}

/// A text of an answer.
#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Lists>,
    finish_reason: Option<&'static str>,
}

impl Choice {
    fn of(served: &Served, plan: &Plan, request: &Request, prompt: usize, generation: &Generation) -> Choice {
        let echo = plan.echo(prompt);
        let logprobs = plan.logprobs.map(|k| {
            let tokenizer = served.tokenizer();
            let mut told = Vec::new();
            if plan.echo {
                let known = generation.prompt_logprobs.as_deref().unwrap_or_default();
                told = Teller::prompt(tokenizer, &request.prompt, known);
            }
            let mut teller = Teller::new(tokenizer, request, echo.chars().count());
            told.extend(teller.end(generation, &generation.text, true));
            Lists::of(tokenizer, &told, k)
        });
        let finish_reason = Some(finish_reason(generation.finish));
        Choice { index: 0, text: echo.to_owned() + &generation.text, logprobs, finish_reason }
    }
}

/// The events of a stream.
struct Pieces {
    served: Arc<Served>,
    plan: Plan,
    /// Whether pieces come before texts are whole.
    pieces: bool,
    tellers: Vec<Option<Teller>>,
    begun: Vec<bool>,
}

impl Pieces {
    fn new(served: &Arc<Served>, plan: Plan, pieces: bool) -> Pieces {
        let teller = |request: &Request| Teller::new(served.tokenizer(), request, 0);
        let tellers = plan.requests.iter().map(|request| plan.logprobs.map(|_| teller(request))).collect();
        let begun = vec![false; plan.requests.len()];
        Pieces { served: served.clone(), plan, pieces, tellers, begun }
    }

    /// What stands before the first piece of a text.
    fn before(&mut self, text: usize) -> String {
        let is_first = !std::mem::replace(&mut self.begun[text], true);
        if is_first { self.plan.echo(text / self.plan.best_of).to_owned() } else { String::new() }
    }

    fn lists(&self, told: &[super::logprobs::Told]) -> Option<Lists> {
        self.plan.logprobs.map(|k| Lists::of(self.served.tokenizer(), told, k))
    }
}

impl Writer for Pieces {
    fn piece(&mut self, text: usize, piece: String, tokens: Vec<TokenLogprobs>, out: &mut Events) {
        let told = self.tellers[text].as_mut().map(|teller| teller.piece(&piece, tokens));
        let logprobs = told.and_then(|told| self.lists(&told));
        let text_now = self.before(text) + &piece;
        out.choice(&Choice { index: text, text: text_now, logprobs, finish_reason: None });
    }

    fn done(&mut self, text: usize, generation: &Generation, out: &mut Events) {
        let (request, prompt) = (&self.plan.requests[text], text / self.plan.best_of);
        if !self.pieces {
            let choice = Choice::of(&self.served, &self.plan, request, prompt, generation);
            return out.choice(&Choice { index: text, ..choice });
        }
        let told = self.tellers[text].as_mut().map(|teller| teller.end(generation, "", true));
        let logprobs = told.and_then(|told| self.lists(&told));
        let finish_reason = Some(finish_reason(generation.finish));
        out.choice(&Choice { index: text, text: self.before(text), logprobs, finish_reason });
    }
}
