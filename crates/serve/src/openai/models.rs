//! `GET /v1/models`: what is served.

use axum::Json;
use axum::extract;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::part::Part;
use crate::served::Served;
use crate::state::State;

/// All models.
pub async fn list(extract::State(state): extract::State<State>) -> Json<Value> {
    let models: Vec<Value> = state.models().iter().map(|served| describe(served)).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One model.
pub async fn one(
    extract::State(state): extract::State<State>,
    Part(id): Part,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(describe(state.model(&id)?)))
}

/// OpenAI's fields, then those that only a server of one's own can fill: the context, the type of the weights, the model that an
/// adapter belongs to, and how conversations are written.
fn describe(served: &Served) -> Value {
    let template = if served.is_plain() {
        json!("none: turns are lines of `User: …` and `Assistant: …`")
    } else {
        json!(served.template().kind())
    };
    json!({
        "id": served.name(), "object": "model", "created": served.created(), "owned_by": "gpt2",
        "max_model_len": served.n_ctx(), "dtype": served.model().dtype(), "parent": served.parent(), "chat_template": template,
    })
}
