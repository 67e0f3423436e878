//! `POST /v1/chat/completions`: answers to conversations.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract;
use axum::response::{IntoResponse, Response};
use generate::apps::chat::Answer;
use generate::{Generation, Request, TokenLogprobs};
use serde::Deserialize;
use serde_json::{Value, json};

use super::choices::{self, Choices, MOST_LOGPROBS};
use super::completions::count;
use super::fields::{self, Others, StreamOptions, Strings};
use super::form::ResponseFormat;
use super::logprobs::{Teller, objects};
use super::messages::{self, ChatMessage};
use super::stream::{self, Events, Writer};
use super::{Head, Usage, aside, finish_reason, submit};
use crate::body;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::{Settings, State};

/// The fields of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatRequest {
    /// Which model.
    model: String,
    /// What was said.
    messages: Vec<ChatMessage>,
    /// Tokens of an answer, at most; without a number, what the context holds.
    #[serde(default)]
    max_completion_tokens: Option<usize>,
    /// The older name of the same.
    #[serde(default)]
    max_tokens: Option<usize>,
    /// Tokens before an answer may end.
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
    /// Answers.
    #[serde(default)]
    n: Option<usize>,
    /// Whether to tell how likely each token was.
    #[serde(default)]
    logprobs: Option<bool>,
    /// Likely tokens to tell at each place.
    #[serde(default)]
    top_logprobs: Option<usize>,
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
    requests: Vec<Request>,
    logprobs: bool,
    stream: bool,
    with_usage: bool,
}

/// Answers a request.
pub async fn create(
    extract::State(state): extract::State<State>,
    body::Json(request): body::Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let work = state.begin()?;
    let served = state.model(&request.model)?.clone();
    let (own, settings) = (served.clone(), state.settings().clone());
    let plan = aside(move || Plan::of(&own, &settings, request)).await?;
    let n = plan.requests.len();
    let receipt = submit(&state, &served, plan.requests.clone(), plan.stream)?;
    if plan.stream {
        let head = Head::new("chatcmpl", "chat.completion.chunk", &served);
        let events = Events::new(&head, plan.with_usage);
        return stream::respond(receipt, Pieces::new(&served, &plan), events, (n, n), work).await;
    }
    let whole = receipt.whole(n).await?;
    let choices = whole.iter().zip(&plan.requests).enumerate().map(|(index, (generation, request))| {
        let told = plan.logprobs.then(|| {
            let mut teller = Teller::new(served.tokenizer(), request, 0);
            objects(served.tokenizer(), &teller.end(generation, &generation.text, false))
        });
        json!({
            "index": index,
            "message": { "role": "assistant", "content": generation.text.trim(), "refusal": null },
            "logprobs": told, "finish_reason": finish_reason(generation.finish),
        })
    });
    let choices: Value = choices.collect();
    let mut answer = json!(Head::new("chatcmpl", "chat.completion", &served));
    answer["choices"] = choices;
    answer["usage"] = json!(Usage::of(&whole, n));
    Ok(Json(answer).into_response())
}

impl Plan {
    fn of(served: &Arc<Served>, settings: &Settings, asked: ChatRequest) -> Result<Plan, ApiError> {
        fields::refuse(&asked.others)?;
        let stream = asked.stream.unwrap_or(false);
        let options = StreamOptions::check(asked.stream_options, stream)?;
        let n = count("n", asked.n)?;
        let logprobs = asked.logprobs.unwrap_or(false);
        match asked.top_logprobs {
            Some(_) if !logprobs => {
                let message = "`top_logprobs` is only for `\"logprobs\": true`; add that";
                return Err(ApiError::invalid("top_logprobs", message));
            }
            Some(k) if k > MOST_LOGPROBS => {
                let message = format!("`top_logprobs` is {k}; ask for at most {MOST_LOGPROBS}");
                return Err(ApiError::invalid("top_logprobs", message));
            }
            _ => {}
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
            logprobs: logprobs.then(|| asked.top_logprobs.unwrap_or(0)),
            min_tokens: asked.min_tokens.unwrap_or(0),
        };
        let mut base = choices.request(served)?;
        base.stop.extend_from_slice(served.stop_strings());
        base.sampling.processors.stop_tokens.extend_from_slice(served.end_tokens());
        let wanted = match (asked.max_completion_tokens, asked.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message = "`max_tokens` and `max_completion_tokens` differ; give one of them";
                return Err(ApiError::invalid("max_tokens", message));
            }
            (Some(new), _) => Some((new, "max_completion_tokens")),
            (None, old) => old.map(|old| (old, "max_tokens")),
        };
        if let Some((0, name)) = wanted {
            return Err(ApiError::invalid(name, format!("`{name}` is 0; ask for at least 1")));
        }
        let messages = messages::read(asked.messages)?;
        let ids = served.template().prompt(served.tokenizer(), &messages);
        let ids = ids.map_err(|error| ApiError::invalid("messages", error.to_string()))?;
        base.max_tokens = choices::limit(served, settings, (ids.len(), "messages"), wanted)?;
        if let Some(format) = &asked.response_format {
            base.constraint = format.constraint(served)?;
        }
        let requests = choices::texts(&base, &ids, n).collect();
        Ok(Plan { requests, logprobs, stream, with_usage: options.include_usage })
    }
}

/// The events of a stream.
struct Pieces {
    served: Arc<Served>,
    texts: Vec<Text>,
}

/// A text of a stream.
struct Text {
    begun: bool,
    answer: Answer,
    teller: Option<Teller>,
}

impl Pieces {
    fn new(served: &Arc<Served>, plan: &Plan) -> Pieces {
        let text = |request: &Request| Text {
            begun: false,
            answer: Answer::default(),
            teller: plan.logprobs.then(|| Teller::new(served.tokenizer(), request, 0)),
        };
        Pieces { served: served.clone(), texts: plan.requests.iter().map(text).collect() }
    }

    /// The first event of a text tells who speaks.
    fn begin(&mut self, index: usize, out: &mut Events) {
        if !std::mem::replace(&mut self.texts[index].begun, true) {
            let delta = json!({ "role": "assistant", "content": "", "refusal": null });
            out.choice(&json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }));
        }
    }
}

impl Writer for Pieces {
    fn piece(&mut self, index: usize, piece: String, tokens: Vec<TokenLogprobs>, out: &mut Events) {
        self.begin(index, out);
        let text = &mut self.texts[index];
        let told = text.teller.as_mut().map(|teller| teller.piece(&piece, tokens));
        let content = text.answer.push(&piece);
        if content.is_empty() && told.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        let logprobs = told.map(|told| objects(self.served.tokenizer(), &told));
        let delta = json!({ "content": content });
        out.choice(&json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }));
    }

    fn done(&mut self, index: usize, generation: &Generation, out: &mut Events) {
        self.begin(index, out);
        let told = self.texts[index].teller.as_mut().map(|teller| teller.end(generation, "", false));
        let told = told.filter(|told| !told.is_empty());
        let logprobs = told.map(|told| objects(self.served.tokenizer(), &told));
        let reason = finish_reason(generation.finish);
        out.choice(&json!({ "index": index, "delta": {}, "logprobs": logprobs, "finish_reason": reason }));
    }
}
