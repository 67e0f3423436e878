//! A model as it is served: under a name, with its tokenizer, its chat template, and figures of what it does.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use generate::{Constraint, ConstraintError, Vocabulary};
use models::Gpt2;
use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, TemplateError};

use crate::conductor::Figures;

/// Compiled schemas that are kept, since the next request often has the same.
const SCHEMAS: usize = 16;

/// A model that is served.
#[derive(Debug)]
pub struct Served {
    name: String,
    parent: Option<String>,
    model: Arc<Gpt2>,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    stop: Vec<String>,
    end_tokens: Vec<u32>,
    vocabulary: OnceLock<Result<Vocabulary, ConstraintError>>,
    schemas: Mutex<VecDeque<(String, Arc<Constraint>)>>,
    created: u64,
    fingerprint: String,
    figures: Figures,
}

impl Served {
    /// A model under this name.
    pub fn new(name: impl Into<String>, model: Gpt2, tokenizer: Tokenizer) -> Result<Served, TemplateError> {
        let template = ChatTemplate::of(&tokenizer)?;
        let (stop, end_tokens) = (template.stop_strings(), template.end_tokens(&tokenizer));
        let mut hasher = DefaultHasher::new();
        let config = serde_json::to_string(model.config()).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        (version, config, model.dtype().name(), tensor::isa::current().name()).hash(&mut hasher);
        Ok(Served {
            name: name.into(),
            parent: None,
            model: Arc::new(model),
            tokenizer: Arc::new(tokenizer),
            template,
            stop,
            end_tokens,
            vocabulary: OnceLock::new(),
            schemas: Mutex::default(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            fingerprint: format!("fp_{:010x}", hasher.finish() >> 24),
            figures: Figures::default(),
        })
    }

    /// The same, as an adapter of the model of this name.
    pub fn beside(self, parent: &str) -> Served {
        Served { parent: Some(parent.to_owned()), ..self }
    }

    /// Its name, which requests give as `model`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model that it is an adapter of.
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// The model.
    pub fn model(&self) -> &Arc<Gpt2> {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// How conversations are written for it.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Whether it has no chat template, so that turns are lines of `User: …` and `Assistant: …`.
    pub fn is_plain(&self) -> bool {
        self.template.is_assumed()
    }

    /// Strings that end a reply.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop
    }

    /// Tokens that end a reply.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Positions of the model.
    pub fn n_ctx(&self) -> usize {
        self.model.config().n_ctx
    }

    /// When it was loaded, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// What a text depends on beside request and seed: the version, the model's shape, the type of its weights, and the
    /// instructions that it is computed with.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What it does.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The constraint of a JSON schema. Takes a fraction of a second where it is new.
    pub fn json_schema(&self, schema: &str) -> Result<Arc<Constraint>, ConstraintError> {
        let known = || self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, constraint)) = known().iter().find(|(text, _)| text == schema) {
            return Ok(constraint.clone());
        }
        let vocabulary = self.vocabulary.get_or_init(|| Vocabulary::new(&self.tokenizer));
        let made = Constraint::json_schema(vocabulary.as_ref().map_err(Clone::clone)?, schema)?;
        let (constraint, mut known) = (Arc::new(made), known());
        known.push_back((schema.to_owned(), constraint.clone()));
        if known.len() > SCHEMAS {
            known.pop_front();
        }
        Ok(constraint)
    }
}
