//! What the page has beside OpenAI's routes: the desks, the history, and what of these is on.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, State as Shared};
use axum::http::request::Parts;
use axum::routing::get;
use serde_json::{Value, json};

use crate::chats::{self, Chats};
use crate::desk::write::Recipes;
use crate::desk::{self, Desk};
use crate::page;
use crate::state::State;

/// Who asks: the name that stands for an API key, as the layer that checks keys puts it into the request; nothing without keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(pub String);

impl FromRequestParts<State> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Caller, Infallible> {
        Ok(parts.extensions.get::<Caller>().cloned().unwrap_or_default())
    }
}

/// The page's part of a server.
#[derive(Debug)]
pub struct App {
    /// Whether there is a page.
    pub page: bool,
    /// Whether the page must ask for an API key.
    pub api_key: bool,
    /// Where conversations are kept, if they are.
    pub chats: Option<Arc<Chats>>,
    /// Recipes of the writing desk.
    pub recipes: Recipes,
    /// The thread of the desks.
    pub(crate) desk: Desk,
}

impl Default for App {
    fn default() -> App {
        App { page: true, api_key: false, chats: None, recipes: Recipes::default(), desk: Desk::default() }
    }
}

impl App {
    /// Keeps conversations in this file.
    pub fn with_history(self, chats: Chats) -> App {
        App { chats: Some(Arc::new(chats)), ..self }
    }

    /// Has these recipes.
    pub fn with_recipes(self, recipes: Recipes) -> App {
        App { recipes, ..self }
    }

    /// Has no page, and none of its routes.
    pub fn without_page(self) -> App {
        App { page: false, ..self }
    }
}

/// Routes that need no key.
pub fn open_routes() -> Router<State> {
    page::routes().route("/app/config", get(config))
}

/// Routes that need a key where the server has keys.
pub fn routes() -> Router<State> {
    desk::routes().merge(chats::routes()).route("/app/models", get(models))
}

/// What the page must know before it has a key.
async fn config(Shared(state): Shared<State>) -> axum::Json<Value> {
    axum::Json(json!({
        "version": env!("CARGO_PKG_VERSION"), "api_key": state.app().api_key, "history": state.app().chats.is_some(),
    }))
}

/// The models, with what the page must know of them.
async fn models(Shared(state): Shared<State>) -> axum::Json<Value> {
    let models = state.models().iter().map(|served| {
        json!({ "id": served.name(), "parent": served.parent(), "n_ctx": served.n_ctx(), "template": !served.is_plain() })
    });
    axum::Json(json!({ "models": models.collect::<Vec<_>>() }))
}
