//! `GET /metrics`: what the server does, in numbers, for Prometheus.
//!
//! What belongs to a model is read from its [`crate::conductor::Figures`] when somebody asks; what belongs to requests is counted here. Names
//! begin with `gpt2_`. Three more have the names that vLLM gives them, since gateways that spread load over replicas read these.

mod models;
mod process;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::account::Entry;
use crate::state::State;

/// Bounds of times, in seconds: from a cached prompt on a small model to a long text on a large one.
pub(crate) const TIMES: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What a request was.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    route: String,
    method: String,
    status: u16,
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

/// A key, and what is counted of it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKey {
    key: String,
    kind: &'static str,
}

/// What is counted of requests.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Asked, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    cancelled: Family<Route, Counter>,
    limited: Family<OfKey, Counter>,
    by_key: Family<OfKey, Counter>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let (requests, cancelled) = (Family::default(), Family::default());
        let (limited, by_key) = (Family::default(), Family::default());
        let seconds: Family<Route, Histogram, fn() -> Histogram> = Family::new_with_constructor(times);
        let text = "Requests that were answered, by route, method, status and model";
        registry.register("gpt2_requests", text, requests.clone());
        let text = "Time from a request to the end of its answer";
        registry.register_with_unit("gpt2_request_duration", text, Unit::Seconds, seconds.clone());
        let text = "Requests whose client left before the end of the answer";
        registry.register("gpt2_requests_cancelled", text, cancelled.clone());
        let text =
            "Requests refused with status 429, by key, and by which limit: requests, tokens or the queue";
        registry.register("gpt2_rate_limited", text, limited.clone());
        let text = "What each key has used: requests, tokens of prompts, tokens written";
        registry.register("gpt2_key_usage", text, by_key.clone());
        Metrics { registry, requests, seconds, cancelled, limited, by_key }
    }
}

/// A histogram of times.
pub(crate) fn times() -> Histogram {
    Histogram::new(TIMES)
}

impl Metrics {
    /// Counts a request that is over.
    pub(crate) fn count(&self, entry: &Entry) {
        let method = match &*entry.method {
            known @ ("GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH") => known,
            _ => "other", // a client may make up as many as it likes
        };
        let (route, model) = (entry.route.clone(), entry.model().unwrap_or_default().to_owned());
        let asked = Asked { route: route.clone(), method: method.to_owned(), status: entry.status(), model };
        self.requests.get_or_create(&asked).inc();
        let route = Route { route };
        self.seconds.get_or_create(&route).observe(entry.time().as_secs_f64());
        if entry.is_cancelled() {
            self.cancelled.get_or_create(&route).inc();
        }
        let key = entry.key().unwrap_or_default().to_owned();
        if let Some(kind) = entry.denied() {
            self.limited.get_or_create(&OfKey { key: key.clone(), kind }).inc();
        }
        if entry.key().is_some() {
            let (prompt, written) = entry.tokens();
            for (kind, amount) in [("requests", 1), ("prompt_tokens", prompt), ("written_tokens", written)] {
                self.by_key.get_or_create(&OfKey { key: key.clone(), kind }).inc_by(amount);
            }
        }
    }

    /// All numbers as they are now, and the type of this text. Whoever does not ask for OpenMetrics gets the same
    /// text under the name of Prometheus' older format, of which it is an example, too.
    pub(crate) fn text(&self, state: &State, accepts: &str) -> (&'static str, String) {
        let kind = match accepts.contains("application/openmetrics-text") {
            true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            false => "text/plain; version=0.0.4; charset=utf-8",
        };
        let mut figures = Registry::default();
        figures.register_collector(Box::new(models::Models(state.clone())));
        figures.register_collector(Box::new(process::Process));
        let mut text = String::new();
        // Writing to memory does not fail.
        _ = encode_registry(&mut text, &self.registry);
        _ = encode_registry(&mut text, &figures);
        _ = encode_eof(&mut text);
        (kind, text)
    }
}

/// What a model's texts take, in time and in company.
#[derive(Debug)]
pub struct Times {
    /// Until a text's turn came.
    pub queue: Histogram,
    /// Until its first token.
    pub first_token: Histogram,
    /// For each later token.
    pub token: Histogram,
    /// Texts in a step.
    pub batch: Histogram,
}

impl Default for Times {
    fn default() -> Times {
        let batch = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
        Times { queue: times(), first_token: times(), token: times(), batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Settings;

    #[test]
    fn text_is_a_list_of_families_with_help() {
        let state = State::new(Settings::default());
        let (kind, text) =
            Metrics::default().text(&state, "application/openmetrics-text; version=1.0.0,*/*;q=0.1");
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup_by_key(|line| line.split(' ').next());
        assert_eq!(names.len(), all, "a name for the second time");
        for name in [
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
            "gpt2_build",
        ] {
            assert!(names.iter().any(|line| line.starts_with(&format!("{name} "))), "{name} in {text}");
        }
        assert!(Metrics::default().text(&state, "*/*").0.starts_with("text/plain"));
    }
}
