//! Fields of requests: those that every route shares, those that are refused, and those that only mean something elsewhere.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::served::Served;

/// Fields that a route does not know.
pub type Others = Map<String, Value>;

/// Fields of OpenAI's that have no use here, with the values that ask for nothing, and what to do instead.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("audio", &[], "this server writes text only"),
    ("dimensions", &[], "vectors have the model's own width; leave it out"),
    ("function_call", &["\"none\""], "tools are not offered; ask for JSON with `response_format`"),
    ("functions", &["[]"], "tools are not offered; ask for JSON with `response_format`"),
    ("metadata", &["{}"], "nothing is stored here"),
    ("modalities", &["[\"text\"]"], "this server writes text only"),
    ("moderation", &[], "nothing is moderated here"),
    ("parallel_tool_calls", &["true", "false"], "tools are not offered"),
    ("prediction", &[], "leave it out: texts are not predicted"),
    ("prompt_cache_retention", &["\"in_memory\"", "\"in-memory\""], "prompts are kept in memory only"),
    ("reasoning_effort", &["\"none\""], "these models do not reason; leave it out"),
    ("service_tier", &["\"auto\"", "\"default\""], "there is one tier"),
    ("store", &["false"], "nothing is stored here"),
    ("suffix", &["\"\""], "text cannot be inserted before a suffix; leave it out"),
    ("tool_choice", &["\"none\"", "\"auto\""], "tools are not offered; ask for JSON with `response_format`"),
    ("tools", &["[]"], "tools are not offered; ask for JSON with `response_format`"),
    ("verbosity", &["\"medium\""], "say in the prompt how long the answer should be"),
    ("web_search_options", &[], "nothing is searched for"),
];

/// Fields that say who asks, or help a cache: they change no answer.
const HARMLESS: [&str; 3] = ["user", "safety_identifier", "prompt_cache_key"];

/// Refuses what a route does not know, with its name.
pub fn refuse(others: &Others) -> Result<(), ApiError> {
    for (name, value) in others {
        if let Some((_, idle, why)) = REFUSED.iter().find(|(refused, ..)| refused == name) {
            if !value.is_null() && !idle.contains(&&*value.to_string()) {
                return Err(ApiError::invalid(name, format!("`{name}` is not supported: {why}"))
                    .code("unsupported_parameter"));
            }
        } else if HARMLESS.contains(&&**name) {
            if !(value.is_null() || value.is_string()) {
                return Err(ApiError::invalid(name, format!("`{name}` must be a string")));
            }
        } else {
            let message =
                format!("there is no field `{name}` in this request; leave it out, or correct its name");
            return Err(ApiError::invalid(name, message).code("unknown_parameter"));
        }
    }
    Ok(())
}

/// One string, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a string or a list of strings")]
        enum Given {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Given::deserialize(deserializer)? {
            Given::One(one) => Strings(vec![one]),
            Given::Many(many) => Strings(many),
        })
    }
}

/// Texts to go on with, or to look at: as text or as tokens, one or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Texts.
    Texts(Vec<String>),
    /// Tokens of texts.
    Tokens(Vec<Vec<u32>>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Input, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a string, a list of strings, a list of token numbers, or a list of such lists"
        )]
        enum Given {
            Text(String),
            Texts(Vec<String>),
            Tokens(Vec<u32>),
            Many(Vec<Vec<u32>>),
        }
        Ok(match Given::deserialize(deserializer)? {
            Given::Text(text) => Input::Texts(vec![text]),
            Given::Texts(texts) => Input::Texts(texts),
            Given::Tokens(ids) => Input::Tokens(vec![ids]),
            Given::Many(lists) => Input::Tokens(lists),
        })
    }
}

impl Input {
    /// How many texts there are.
    pub fn len(&self) -> usize {
        match self {
            Input::Texts(texts) => texts.len(),
            Input::Tokens(lists) => lists.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Refuses tokens that the vocabulary lacks.
pub fn check_tokens(name: &str, ids: &[u32], served: &Served) -> Result<(), ApiError> {
    let size = served.tokenizer().vocab_size();
    match ids.iter().position(|&id| id as usize >= size) {
        None => Ok(()),
        Some(at) => {
            let message = format!(
                "`{name}` has the token {} at position {at}, but the vocabulary has {size} tokens; encode texts with /tokenize",
                ids[at]
            );
            Err(ApiError::invalid(name, message))
        }
    }
}

/// What a stream tells beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether the last event tells the number of tokens.
    #[serde(default)]
    pub include_usage: bool,
    /// Padding against listeners, which is never sent here; may be false.
    #[serde(default)]
    pub include_obfuscation: bool,
}

impl StreamOptions {
    /// Checks them: they mean something in a stream only.
    pub fn check(options: Option<StreamOptions>, stream: bool) -> Result<StreamOptions, ApiError> {
        const NAME: &str = "stream_options";
        match options {
            Some(_) if !stream => {
                Err(ApiError::invalid(NAME, "`stream_options` is only for streams: add `\"stream\": true`"))
            }
            Some(StreamOptions { include_obfuscation: true, .. }) => Err(ApiError::invalid(
                format!("{NAME}.include_obfuscation"),
                "`stream_options.include_obfuscation` is not supported: streams are not padded",
            )
            .code("unsupported_parameter")),
            options => Ok(options.unwrap_or_default()),
        }
    }
}
