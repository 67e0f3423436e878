//! What belongs to the models, read from their figures whenever somebody asks.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::Times;
use crate::conductor::Figures;
use crate::state::State;

/// The models of a server.
#[derive(Debug)]
pub(super) struct Models(pub State);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Model {
    model: String,
}

/// The label that vLLM's readers look for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelName {
    model_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Finished {
    model: String,
    finish: &'static str,
}

/// Something of a model, as a function of its figures.
type Of<T> = fn(&Figures) -> T;

const COUNTS: [(&str, &str, Of<u64>); 5] = [
    (
        "gpt2_prompt_tokens",
        "Tokens of prompts whose texts ended, and those that the desks have read.",
        |figures| figures.prompt_tokens().0,
    ),
    (
        "gpt2_prompt_tokens_cached",
        "Those of them that had been computed before, for another text.",
        |figures| figures.prompt_tokens().1,
    ),
    ("gpt2_written_tokens", "Tokens written.", Figures::written_tokens),
    ("gpt2_texts_failed", "Texts that ended with an error.", Figures::failed),
    ("gpt2_engine_steps", "Steps of the engine.", |figures| figures.steps().0),
];

const LEVELS: [(&str, &str, Of<usize>); 6] = [
    ("gpt2_texts_running", "Texts that are being written.", Figures::running),
    ("gpt2_texts_waiting", "Texts that wait for their turn.", Figures::waiting),
    ("gpt2_embeddings_pending", "Requests for vectors that are not answered yet.", Figures::embedding),
    ("gpt2_kv_blocks", "Blocks of keys and values that there may be.", |figures| figures.blocks().1),
    (
        "gpt2_kv_blocks_used",
        "Blocks of keys and values in use, those kept for later prompts included.",
        |figures| figures.blocks().0,
    ),
    (
        "gpt2_kv_blocks_reserved",
        "Blocks of keys and values set aside for the texts that are being written.",
        Figures::reserved,
    ),
];

/// As vLLM names and explains them, for gateways.
const VLLM: [(&str, &str, Of<f64>); 3] = [
    ("vllm:num_requests_running", "Texts that are being written.", |figures| figures.running() as f64),
    ("vllm:num_requests_waiting", "Texts that wait for their turn.", |figures| figures.waiting() as f64),
    (
        "vllm:kv_cache_usage_perc",
        "The part of the blocks of keys and values that is set aside, from 0 to 1.",
        |figures| figures.reserved() as f64 / figures.blocks().1.max(1) as f64,
    ),
];

type Part = fn(&Times) -> &prometheus_client::metrics::histogram::Histogram;

const TIMES: [(&str, &str, Option<Unit>, Part); 4] = [
    ("gpt2_queue", "Time that a text waited for its turn.", Some(Unit::Seconds), |times| &times.queue),
    (
        "gpt2_time_to_first_token",
        "Time from when a text was taken until its first token, waiting included.",
        Some(Unit::Seconds),
        |times| &times.first_token,
    ),
    (
        "gpt2_time_per_token",
        "Time of a text's later tokens, on average over the text.",
        Some(Unit::Seconds),
        |times| &times.token,
    ),
    ("gpt2_batch_size", "Texts in a step of the engine.", None, |times| &times.batch),
];

impl Models {
    fn all(&self) -> impl Iterator<Item = (Model, &Figures)> {
        let models = self.0.models().iter();
        models.map(|served| (Model { model: served.name().to_owned() }, served.figures()))
    }
}

impl Collector for Models {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, of) in COUNTS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (label, figures) in self.all() {
                ConstCounter::new(of(figures)).encode(metric.encode_family(&label)?)?;
            }
        }
        let (name, help, unit) =
            ("gpt2_engine_busy", "Time that the engine's steps took.", Some(&Unit::Seconds));
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (label, figures) in self.all() {
            ConstCounter::new(figures.steps().1.as_secs_f64()).encode(metric.encode_family(&label)?)?;
        }
        let (name, help) = ("gpt2_texts", "Texts that ended, by why.");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (Model { model }, figures) in self.all() {
            for (finish, count) in figures.finished() {
                let label = Finished { model: model.clone(), finish: finish.as_str() };
                ConstCounter::new(count).encode(metric.encode_family(&label)?)?;
            }
        }
        for (name, help, of) in LEVELS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (label, figures) in self.all() {
                ConstGauge::new(of(figures) as i64).encode(metric.encode_family(&label)?)?;
            }
        }
        for (name, help, unit, part) in TIMES {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
            for (label, figures) in self.all() {
                part(figures.times()).encode(metric.encode_family(&label)?)?;
            }
        }
        for (name, help, of) in VLLM {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (Model { model: model_name }, figures) in self.all() {
                ConstGauge::new(of(figures)).encode(metric.encode_family(&ModelName { model_name })?)?;
            }
        }
        Ok(())
    }
}
