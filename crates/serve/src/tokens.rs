//! `POST /tokenize` and `/detokenize`: from texts to tokens and back, with a model's own vocabulary.

use axum::Json;
use axum::extract;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body;
use crate::error::ApiError;
use crate::openai::aside;
use crate::openai::fields::{self, Others};
use crate::openai::messages::{self, ChatMessage};
use crate::state::State;

/// A text, or a conversation, that is to become tokens.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenizeRequest {
    /// Which model; may be left out where there is one.
    #[serde(default)]
    model: Option<String>,
    /// A text.
    #[serde(default)]
    prompt: Option<String>,
    /// A conversation, up to where the assistant speaks.
    #[serde(default)]
    messages: Option<Vec<ChatMessage>>,
    /// Whether names of special tokens in the text stand for those tokens.
    #[serde(default)]
    parse_special: bool,
    /// Whether each token's text is told, too.
    #[serde(default)]
    return_token_strs: Option<bool>,
    #[serde(flatten)]
    others: Others,
}

/// Tokens that are to become a text.
#[derive(Clone, Debug, Deserialize)]
pub struct DetokenizeRequest {
    /// Which model; may be left out where there is one.
    #[serde(default)]
    model: Option<String>,
    /// The tokens.
    tokens: Vec<u32>,
    #[serde(flatten)]
    others: Others,
}

/// The tokens of a text: those that a completion of it would start from.
pub async fn tokenize(
    extract::State(state): extract::State<State>,
    body::Json(asked): body::Json<TokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let _work = state.begin()?;
    fields::refuse(&asked.others)?;
    let served = state.model_or_only(asked.model.as_deref())?.clone();
    aside(move || {
        let tokenizer = served.tokenizer();
        let tokens = match (&asked.prompt, asked.messages) {
            (Some(text), None) => tokenizer
                .encode_prompt(text, asked.parse_special)
                .map_err(|error| ApiError::invalid("prompt", error.to_string()))?,
            (None, Some(messages)) => served
                .template()
                .prompt(tokenizer, &messages::read(messages)?)
                .map_err(|error| ApiError::invalid("messages", error.to_string()))?,
            _ => return Err(ApiError::invalid("prompt", "give either `prompt` or `messages`")),
        };
        let mut answer = json!({ "count": tokens.len(), "max_model_len": served.n_ctx(), "tokens": tokens });
        if asked.return_token_strs == Some(true) {
            let text = |&id: &u32| {
                String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()).into_owned()
            };
            answer["token_strs"] = tokens.iter().map(text).collect();
        }
        Ok(Json(answer))
    })
    .await
}

/// The text of tokens. What is not UTF-8 becomes U+FFFD.
pub async fn detokenize(
    extract::State(state): extract::State<State>,
    body::Json(asked): body::Json<DetokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let _work = state.begin()?;
    fields::refuse(&asked.others)?;
    let served = state.model_or_only(asked.model.as_deref())?.clone();
    aside(move || {
        fields::check_tokens("tokens", &asked.tokens, &served)?;
        let text = served.tokenizer().decode(&asked.tokens);
        let text = text.map_err(|error| ApiError::invalid("tokens", error.to_string()))?;
        Ok(Json(json!({ "prompt": text })))
    })
    .await
}
