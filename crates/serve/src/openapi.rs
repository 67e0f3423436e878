//! `GET /openapi.json`: all routes and their fields, for programs that make clients and tests of them.
//!
//! The document is a file of ours (`data/openapi.json`), with the ranges of each field; a test sends every field that it lists.

use std::sync::LazyLock;

use axum::Json;
use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value =
        serde_json::from_str(include_str!("../data/openapi.json")).expect("a file of ours");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
});

/// The document.
pub(crate) async fn openapi() -> Json<&'static Value> {
    Json(&DOCUMENT)
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
