//! `GET /openapi.json`: all routes and their fields, for programs that make clients and tests of them.
//!
//! The document is a file of ours (`data/openapi.json`), with the ranges of each field; a test sends every field that it lists.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use crate::state::State;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value =
        serde_json::from_str(include_str!("../data/openapi.json")).expect("a file of ours");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    guard(&mut document);
    document
});

/// The document of a server without a page, which has none of its routes.
static WITHOUT_PAGE: LazyLock<Value> = LazyLock::new(|| {
    let mut document = DOCUMENT.clone();
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|path, _| !path.starts_with("/app/"));
    }
    document
});

/// Adds what the guards may answer on every route.
fn guard(document: &mut Value) {
    let error = |text: &str| {
        let schema = json!({ "schema": { "$ref": "#/components/schemas/Error" } });
        json!({ "description": text, "content": { "application/json": schema } })
    };
    document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in methods.as_object_mut().into_iter().flatten() {
            if let Some(answers) = operation["responses"].as_object_mut() {
                answers.entry("400").or_insert_with(|| error("There must be one header Host"));
                answers.insert(
                    "403".into(),
                    error("The server may not be asked under this name, or by this page"),
                );
                if !OPEN.contains(&path.as_str()) {
                    answers
                        .insert("401".into(), error("The server has keys, and the request has none of them"));
                }
            }
            if !OPEN.contains(&path.as_str()) {
                // A server without keys asks for none.
                operation["security"] = json!([{ "key": [] }, {}]);
            }
        }
    }
}

/// Routes that need no key.
const OPEN: [&str; 3] = ["/health", "/openapi.json", "/app/config"];

/// The document.
pub(crate) async fn openapi(Shared(state): Shared<State>) -> Json<&'static Value> {
    Json(if state.app().page { &DOCUMENT } else { &WITHOUT_PAGE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_somewhere() {
        fn walk(value: &Value) {
            if let Some(to) = value["$ref"].as_str() {
                assert!(DOCUMENT.pointer(to.trim_start_matches('#')).is_some(), "{to}");
            }
            match value {
                Value::Object(fields) => fields.values().for_each(walk),
                Value::Array(values) => values.iter().for_each(walk),
                _ => {}
            }
        }
        walk(&DOCUMENT);
    }
}
