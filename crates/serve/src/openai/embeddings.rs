//! `POST /v1/embeddings`: vectors of texts, for search and comparison.
//!
//! A vector is the mean over a text's tokens of what the model's last layer, after the final norm, makes of them, brought to
//! length 1. A GPT-2 was not trained for this: vectors tell texts of one kind apart, but are no match for a model that was.

use std::sync::Arc;

use axum::Json;
use axum::extract;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields::{self, Input, Others};
use super::{aside, deadline};
use crate::body;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::State;

/// Texts of a request, at most, as OpenAI has it.
const MOST_INPUTS: usize = 2048;

/// The fields of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct EmbeddingRequest {
    /// Which model.
    model: String,
    /// The texts.
    input: Input,
    /// How vectors are written.
    #[serde(default)]
    encoding_format: Option<Encoding>,
    #[serde(flatten)]
    others: Others,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As a list of numbers.
    #[default]
    Float,
    /// As the bytes of `f32` numbers, the lowest first, in base64.
    Base64,
}

/// Answers a request.
pub async fn create(
    extract::State(state): extract::State<State>,
    body::Json(asked): body::Json<EmbeddingRequest>,
) -> Result<Json<Value>, ApiError> {
    let _work = state.begin()?;
    fields::refuse(&asked.others)?;
    let served = state.model(&asked.model)?.clone();
    let (own, input) = (served.clone(), asked.input);
    let inputs = aside(move || read(&own, input)).await?;
    let tokens: usize = inputs.iter().map(Vec::len).sum();
    let conductor = state.conductor().ok_or_else(|| ApiError::internal("the models are not running"))?;
    let vectors = conductor.embed(&served, inputs, deadline(&state))?.await?;
    let format = asked.encoding_format.unwrap_or_default();
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = match format {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                json!(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
            }
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    Ok(Json(json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": served.name(),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// The tokens of the texts.
fn read(served: &Arc<Served>, input: Input) -> Result<Vec<Vec<u32>>, ApiError> {
    const NAME: &str = "input";
    if input.is_empty() || input.len() > MOST_INPUTS {
        let message = format!("`{NAME}` has {} texts; give 1 to {MOST_INPUTS}", input.len());
        return Err(ApiError::invalid(NAME, message));
    }
    let lists = match input {
        Input::Tokens(lists) => lists,
        Input::Texts(texts) => texts
            .iter()
            .map(|text| served.tokenizer().encode_prompt(text, false))
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::invalid(NAME, error.to_string()))?,
    };
    for ids in &lists {
        fields::check_tokens(NAME, ids, served)?;
        if ids.is_empty() {
            return Err(ApiError::invalid(NAME, format!("`{NAME}` holds an empty text; leave it out")));
        }
        if ids.len() > served.n_ctx() {
            return Err(ApiError::context(NAME, ids.len(), 0, served.n_ctx()));
        }
    }
    Ok(lists)
}
