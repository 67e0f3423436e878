//! Errors as OpenAI's clients read them: a status, and `{"error": {message, type, param, code}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use generate::{ConstraintError, GenerateError, SamplingError};
use serde_json::json;

use crate::conductor::Failure;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status of the response.
    pub status: StatusCode,
    /// What is wrong, and what to do.
    pub message: String,
    /// The kind of error, by OpenAI's name for it.
    pub kind: &'static str,
    /// The field that is wrong.
    pub param: Option<String>,
    /// The error's name for programs.
    pub code: Option<&'static str>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    /// An error of this status and kind.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), kind, param: None, code: None, retry_after: None }
    }

    /// A request that cannot be met as it is.
    pub fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// The same, because of this field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::bad(message).param(param)
    }

    /// The same error, of this field.
    pub fn param(mut self, param: impl Into<String>) -> ApiError {
        self.param = Some(param.into());
        self
    }

    /// The same error with a name for programs.
    pub fn code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// A model that is not served.
    pub fn no_model(name: &str, known: &str) -> ApiError {
        let message = format!("the model `{name}` is not served here; choose one of {known}");
        ApiError::new(StatusCode::NOT_FOUND, INVALID, message).param("model").code("model_not_found")
    }

    /// A prompt that, with what may follow, is longer than the context.
    pub fn context(param: &str, prompt: usize, max_tokens: usize, n_ctx: usize) -> ApiError {
        let all = prompt.saturating_add(max_tokens);
        let message = format!(
            "`{param}` has {prompt} tokens and {max_tokens} more are asked for, {all} in all, but the model's maximum context \
             length is {n_ctx} tokens; shorten the one, or lower the other"
        );
        ApiError::invalid(param, message).code("context_length_exceeded")
    }

    /// More than can wait.
    pub fn busy(message: impl Into<String>, seconds: u64) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        ApiError { retry_after: Some(seconds), ..error.code("queue_full") }
    }

    /// No service for now: it is being started, or ends.
    pub fn unavailable(message: impl Into<String>, code: &'static str, seconds: u64) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message);
        ApiError { retry_after: Some(seconds), ..error.code(code) }
    }

    /// Our own fault.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message).code("internal_error")
    }

    /// The JSON of the response.
    pub fn json(&self) -> serde_json::Value {
        let ApiError { message, kind, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.json())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A setting of the sampling that cannot be met.
impl From<SamplingError> for ApiError {
    fn from(error: SamplingError) -> ApiError {
        let param = match &error {
            SamplingError::Temperature(_) => "temperature",
            SamplingError::TopP(_) => "top_p",
            SamplingError::MinP(_) => "min_p",
            SamplingError::Repetition(_) => "repetition_penalty",
            SamplingError::Presence(_) => "presence_penalty",
            SamplingError::Frequency(_) => "frequency_penalty",
            SamplingError::LogitBias { .. } | SamplingError::TwoBiases(_) => "logit_bias",
            SamplingError::TokenOutOfRange { .. } => "logit_bias",
            SamplingError::Logits { .. } => return ApiError::internal(error.to_string()),
            _ => return ApiError::bad(error.to_string()),
        };
        ApiError::invalid(param, error.to_string())
    }
}

/// A form that a text cannot be held to.
impl From<ConstraintError> for ApiError {
    fn from(error: ConstraintError) -> ApiError {
        match error {
            ConstraintError::Matching { .. } => ApiError::internal(error.to_string()),
            error => ApiError::invalid("response_format", error.to_string()),
        }
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> ApiError {
        match error {
            GenerateError::Sampling(error) => error.into(),
            GenerateError::Constraint(error) => error.into(),
            GenerateError::MinBeyondMax { .. } => ApiError::invalid("min_tokens", error.to_string()),
            GenerateError::EmptyStop => ApiError::invalid("stop", error.to_string()),
            GenerateError::Context { .. }
            | GenerateError::PromptFull { .. }
            | GenerateError::PromptTooLong { .. } => {
                ApiError::invalid("prompt", error.to_string()).code("context_length_exceeded")
            }
            GenerateError::TokenOutOfRange { .. } => ApiError::invalid("prompt", error.to_string()),
            GenerateError::Engine(generate::EngineError::Budget { .. }) => ApiError::bad(error.to_string()),
            GenerateError::Engine(generate::EngineError::Sampling(error)) => error.into(),
            GenerateError::Engine(generate::EngineError::Constraint(error)) => error.into(),
            error => ApiError::internal(error.to_string()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        match failure {
            Failure::Refused(error) => error.into(),
            Failure::Panicked => ApiError::internal(
                "the server met a fault of its own while it wrote; the request was dropped, and the server goes on",
            ),
            Failure::TimedOut(limit) => {
                let message = format!(
                    "the request took longer than the server's limit of {} s; ask for less",
                    limit.as_secs()
                );
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, SERVER, message).code("request_timeout")
            }
            Failure::Stopped => ApiError::unavailable("the server is going down", "shutting_down", 10),
        }
    }
}
