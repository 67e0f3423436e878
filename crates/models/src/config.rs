//! The shape of a GPT-2 model, and `config.json`, which writes it down.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tensor::Activation;
use tensor::ops::default_scale;

use crate::dtype::HEAD;
use crate::{ModelError, Result, activation};

/// The shape of a GPT-2 model, in the words of the released checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// Transformer blocks, 12 in the 124M model.
    pub n_layer: usize,
    /// Attention heads per block, 12.
    pub n_head: usize,
    /// Width of the residual stream (C), 768.
    pub n_embd: usize,
    /// Longest sequence (T), 1024.
    pub n_ctx: usize,
    /// Tokens known to the tokenizer (V), 50257.
    pub vocab_size: usize,
    /// Width of the feed-forward layer, 4 C.
    pub n_inner: usize,
    /// Added to the variance in layer norms, 1e-5.
    pub layer_norm_epsilon: f32,
    /// Dropout while training.
    pub dropout: Dropouts,
    /// The token that starts and ends a text, 50256.
    pub eot: Option<u32>,
    /// Tokens that end what the model writes, where they are others than `eot` alone: see [`Gpt2Config::end_tokens`].
    #[serde(default)]
    pub ends: Vec<u32>,
    /// The function inside the feed-forward layer.
    #[serde(default, with = "activation")]
    pub activation_function: Activation,
    /// Whether attention scores are divided by √D.
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    /// Whether attention scores are also divided by the number of their layer, from 1.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether transformers computes scores in `f32` whatever the model's type. We always do: kept for those who read
    /// what we write.
    #[serde(default)]
    pub reorder_and_upcast_attn: bool,
    /// Whether the output layer is the embedding table; if not, it is a table of its own, `lm_head.weight`.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}

/// Tokens that end texts, at most. Chat models name two or three.
pub const MOST_ENDS: usize = 64;

/// The probability of dropping an element while training, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dropouts {
    /// After the embeddings.
    pub embd: f32,
    /// On the attention probabilities.
    pub attn: f32,
    /// On what attention and feed-forward add to the residual stream.
    pub resid: f32,
}

impl Dropouts {
    /// The same probability everywhere.
    pub fn all(p: f32) -> Dropouts {
        Dropouts { embd: p, attn: p, resid: p }
    }
}

/// Name, n_layer, n_head, n_embd, n_ctx. The first four are OpenAI's (Radford et al., 2019).
pub const PRESETS: [(&str, usize, usize, usize, usize); 8] = [
    ("gpt2", 12, 12, 768, 1024),
    ("gpt2-medium", 24, 16, 1024, 1024),
    ("gpt2-large", 36, 20, 1280, 1024),
    ("gpt2-xl", 48, 25, 1600, 1024),
    ("distilgpt2", 6, 12, 768, 1024),
    ("gpt2-small", 8, 8, 512, 512),
    ("gpt2-mini", 6, 6, 384, 256),
    ("gpt2-nano", 4, 4, 128, 64),
];

impl Gpt2Config {
    /// A model of this shape with GPT-2's other settings and no dropout.
    pub fn new(n_layer: usize, n_head: usize, n_embd: usize, n_ctx: usize, vocab_size: usize) -> Gpt2Config {
        Gpt2Config {
            n_layer,
            n_head,
            n_embd,
            n_ctx,
            vocab_size,
            n_inner: n_embd.saturating_mul(4),
            layer_norm_epsilon: 1e-5,
            dropout: Dropouts::default(),
            eot: None,
            ends: Vec::new(),
            activation_function: Activation::default(),
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            reorder_and_upcast_attn: false,
            tie_word_embeddings: true,
        }
    }

    /// One of [`PRESETS`], with GPT-2's vocabulary of 50,257 tokens.
    pub fn preset(name: &str) -> Result<Gpt2Config> {
        match PRESETS.iter().find(|preset| preset.0 == name) {
            Some(&(_, n_layer, n_head, n_embd, n_ctx)) => {
                let config = Gpt2Config::new(n_layer, n_head, n_embd, n_ctx, 50257);
                Ok(Gpt2Config { eot: Some(50256), ..config })
            }
            None => {
                let known: Vec<&str> = PRESETS.iter().map(|preset| preset.0).collect();
                Err(ModelError::Preset { name: name.into(), known: known.join(", ") })
            }
        }
    }

    /// The tokens that end what the model writes, each once, as `generation_config.json` names them, or else `config.json`.
    /// Where neither does, the tokenizer's end of a text is the only one.
    pub fn end_tokens(&self) -> &[u32] {
        if self.ends.is_empty() { self.eot.as_slice() } else { &self.ends }
    }

    /// The same shape with these end tokens. Those that the model does not have can never come, and are left out; where none
    /// is left, they are what they were.
    pub fn with_ends(mut self, ids: impl IntoIterator<Item = u32>) -> Result<Gpt2Config> {
        let mut seen = HashSet::new();
        let vocab_size = self.vocab_size;
        let ends: Vec<u32> =
            ids.into_iter().filter(|&id| (id as usize) < vocab_size && seen.insert(id)).collect();
        if !ends.is_empty() {
            let is_usual = ends == self.eot.as_slice();
            self.ends = if is_usual { Vec::new() } else { ends };
        }
        self.validate()?;
        Ok(self)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// What the attention scores of a layer are multiplied by.
    pub fn attn_scale(&self, layer: usize) -> f32 {
        let scale = if self.scale_attn_weights { default_scale(self.head_dim()) } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f32 } else { scale }
    }

    /// The number of trainable values; an output layer that is the embedding table counts once.
    pub fn n_params(&self) -> usize {
        self.shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Values that each token is computed with: N in "6 N floating-point operations a token" (Kaplan et al., 2020). The
    /// position table is looked up only, as is the embedding table if it is not the output layer, too.
    pub fn n_compute_params(&self) -> usize {
        let tables = if self.tie_word_embeddings { self.n_ctx } else { self.n_ctx + self.vocab_size };
        self.n_params() - tables * self.n_embd
    }

    /// Every weight's name and shape, in the order of the model's parameters.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (c, inner) = (self.n_embd, self.n_inner);
        let mut shapes = vec![
            ("wte.weight".to_owned(), vec![self.vocab_size, c]),
            ("wpe.weight".to_owned(), vec![self.n_ctx, c]),
        ];
        for layer in 0..self.n_layer {
            let block = [
                ("ln_1.weight", vec![c]),
                ("ln_1.bias", vec![c]),
                ("attn.c_attn.weight", vec![c, 3 * c]),
                ("attn.c_attn.bias", vec![3 * c]),
                ("attn.c_proj.weight", vec![c, c]),
                ("attn.c_proj.bias", vec![c]),
                ("ln_2.weight", vec![c]),
                ("ln_2.bias", vec![c]),
                ("mlp.c_fc.weight", vec![c, inner]),
                ("mlp.c_fc.bias", vec![inner]),
                ("mlp.c_proj.weight", vec![inner, c]),
                ("mlp.c_proj.bias", vec![c]),
            ];
            shapes.extend(block.map(|(name, shape)| (format!("h.{layer}.{name}"), shape)));
        }
        shapes.push(("ln_f.weight".to_owned(), vec![c]));
        shapes.push(("ln_f.bias".to_owned(), vec![c]));
        if !self.tie_word_embeddings {
            shapes.push((HEAD.to_owned(), vec![self.vocab_size, c]));
        }
        shapes
    }

    /// Checks every rule a GPT-2 must keep.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field, got: &dyn std::fmt::Display, want: String| {
            Err(ModelError::Config { field, got: got.to_string(), want })
        };
        let sizes = [
            ("n_layer", self.n_layer, 1 << 12),
            ("n_head", self.n_head, 1 << 12),
            ("n_embd", self.n_embd, 1 << 16),
            ("n_ctx", self.n_ctx, 1 << 24),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_inner", self.n_inner, 1 << 18),
        ];
        for (field, got, most) in sizes {
            if got == 0 || got > most {
                return refuse(field, &got, format!("it must be between 1 and {most}"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let (down, up) =
                (self.n_embd / self.n_head * self.n_head, self.n_embd.next_multiple_of(self.n_head));
            let near = if down == 0 { format!("{up}") } else { format!("{down} or {up}") };
            let want = format!("it must be a multiple of n_head = {}; take {near}", self.n_head);
            return refuse("n_embd", &self.n_embd, want);
        }
        let eps = self.layer_norm_epsilon;
        if !(eps > 0.0 && eps < 1.0) {
            return refuse("layer_norm_epsilon", &eps, "it must lie between 0 and 1, such as 1e-5".into());
        }
        let Dropouts { embd, attn, resid } = self.dropout;
        for (field, p) in [("embd_pdrop", embd), ("attn_pdrop", attn), ("resid_pdrop", resid)] {
            if !(0.0..1.0).contains(&p) {
                return refuse(field, &p, "a probability of dropping must be at least 0 and below 1".into());
            }
        }
        if self.ends.len() > MOST_ENDS {
            let got = format!("a list of {}", self.ends.len());
            return refuse(
                "eos_token_id",
                &got,
                format!("at most {MOST_ENDS} different tokens can end texts here"),
            );
        }
        match self.ends.iter().chain(&self.eot).find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => {
                refuse("eos_token_id", id, format!("it must be below vocab_size = {}", self.vocab_size))
            }
            None => Ok(()),
        }
    }

    /// `config.json` as transformers reads and writes it.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_embd": self.n_embd,
            "n_positions": self.n_ctx,
            "n_ctx": self.n_ctx,
            "n_inner": if self.n_inner == 4 * self.n_embd { Value::Null } else { self.n_inner.into() },
            "vocab_size": self.vocab_size,
            "activation_function": activation::name(self.activation_function),
            "layer_norm_epsilon": decimal(self.layer_norm_epsilon),
            "embd_pdrop": decimal(self.dropout.embd),
            "attn_pdrop": decimal(self.dropout.attn),
            "resid_pdrop": decimal(self.dropout.resid),
            "initializer_range": 0.02,
            "scale_attn_weights": self.scale_attn_weights,
            "scale_attn_by_inverse_layer_idx": self.scale_attn_by_inverse_layer_idx,
            "reorder_and_upcast_attn": self.reorder_and_upcast_attn,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "bos_token_id": self.eot,
            "eos_token_id": self.eot,
            "torch_dtype": "float32",
        })
    }

    /// Reads `config.json`. What would change the arithmetic and is not supported is refused; what serves other
    /// purposes, such as `summary_type` or `use_cache`, is passed over.
    pub fn from_json(json: &Value) -> Result<Gpt2Config> {
        refuse_other_models(json)?;
        let size = |field: &'static str| read_size(json, field);
        let n_embd = size("n_embd")?;
        let config = Gpt2Config {
            n_layer: size("n_layer")?,
            n_head: size("n_head")?,
            n_embd,
            n_ctx: if json.get("n_positions").is_some() { size("n_positions")? } else { size("n_ctx")? },
            vocab_size: size("vocab_size")?,
            n_inner: match json.get("n_inner") {
                None | Some(Value::Null) => n_embd.saturating_mul(4),
                Some(_) => size("n_inner")?,
            },
            layer_norm_epsilon: read_float(json, "layer_norm_epsilon", 1e-5)?,
            dropout: Dropouts {
                embd: read_float(json, "embd_pdrop", 0.1)?,
                attn: read_float(json, "attn_pdrop", 0.1)?,
                resid: read_float(json, "resid_pdrop", 0.1)?,
            },
            eot: None,
            ends: Vec::new(),
            activation_function: read_activation(json)?,
            scale_attn_weights: read_switch(json, "scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: read_switch(json, "scale_attn_by_inverse_layer_idx", false)?,
            reorder_and_upcast_attn: read_switch(json, "reorder_and_upcast_attn", false)?,
            tie_word_embeddings: read_switch(json, "tie_word_embeddings", true)?,
        };
        // transformers writes its own 50256 where a model with a smaller vocabulary does not say.
        let mut ends = read_ends(json);
        ends.retain(|&id| (id as usize) < config.vocab_size);
        Gpt2Config { eot: ends.first().copied(), ..config }.with_ends(ends)
    }
}

/// What makes a model something else than a GPT-2.
fn refuse_other_models(json: &Value) -> Result<()> {
    let cases = [
        ("model_type", json!("gpt2"), "only GPT-2 runs here, whose `model_type` is \"gpt2\""),
        ("add_cross_attention", json!(false), "a decoder that looks at an encoder does not run here"),
        (
            "quantization_config",
            Value::Null,
            "weights in another tool's blocks are not read; take the original",
        ),
    ];
    for (field, only, want) in cases {
        match json.get(field) {
            None | Some(Value::Null) => {}
            Some(got) if *got == only => {}
            Some(got) => {
                return Err(ModelError::Config { field, got: got.to_string(), want: want.to_owned() });
            }
        }
    }
    Ok(())
}

/// The tokens that end a text: one, or a list. What is no token, such as -1, stands for none.
fn read_ends(json: &Value) -> Vec<u32> {
    let ids = match json.get("eos_token_id") {
        Some(Value::Array(several)) => &several[..],
        one => one.map_or(&[][..], std::slice::from_ref),
    };
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn read_activation(json: &Value) -> Result<Activation> {
    let field = "activation_function";
    let value = match json.get(field) {
        None | Some(Value::Null) => return Ok(Activation::default()),
        Some(value) => value,
    };
    value.as_str().and_then(activation::from_name).ok_or_else(|| ModelError::Config {
        field,
        got: value.to_string(),
        want: format!("the functions that are known are {}", activation::known()),
    })
}

fn read_switch(json: &Value, field: &'static str, default: bool) -> Result<bool> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(switch)) => Ok(*switch),
        Some(value) => {
            Err(ModelError::Config { field, got: value.to_string(), want: "it must be true or false".into() })
        }
    }
}

/// The shortest decimal that means this `f32`: 0.1, not 0.10000000149011612.
fn decimal(x: f32) -> Value {
    x.to_string().parse::<f64>().expect("a printed number parses").into()
}

fn read_size(json: &Value, field: &'static str) -> Result<usize> {
    let value = json.get(field);
    let number = value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| ModelError::Config {
        field,
        got: value.map_or("missing".into(), Value::to_string),
        want: "it must be a whole number".into(),
    })
}

fn read_float(json: &Value, field: &'static str, default: f32) -> Result<f32> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_f64().map(|x| x as f32).ok_or_else(|| ModelError::Config {
            field,
            got: value.to_string(),
            want: "it must be a number".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_sizes() {
        let millions = |name| Gpt2Config::preset(name).unwrap().n_params() as f64 / 1e6;
        let want = [("gpt2", 124.44), ("gpt2-medium", 354.82), ("gpt2-large", 774.03), ("gpt2-xl", 1557.61)];
        for (name, want) in want {
            assert!((millions(name) - want).abs() < 0.01, "{name} has {} M parameters", millions(name));
        }
        assert_eq!(Gpt2Config::preset("gpt2").unwrap().n_compute_params(), 123_653_376);
    }

    #[test]
    fn json_round_trip() {
        let mut config = Gpt2Config::preset("gpt2-mini").unwrap();
        config.dropout = Dropouts { embd: 0.1, attn: 0.2, resid: 0.3 };
        assert_eq!(Gpt2Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn rules_are_checked() {
        let mut config = Gpt2Config::new(2, 3, 16, 8, 50);
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "config: `n_embd` is 16, but it must be a multiple of n_head = 3; take 15 or 18");
        config.n_head = 0;
        assert!(config.validate().unwrap_err().to_string().contains("`n_head` is 0"));
        let mut json = Gpt2Config::new(2, 2, 16, 8, 50).to_json();
        json["n_embd"] = json!(u64::MAX);
        assert!(Gpt2Config::from_json(&json).is_err());
    }

    #[test]
    fn every_switch_is_read_and_written() {
        let mut json = Gpt2Config::new(2, 2, 16, 8, 50).to_json();
        json["activation_function"] = json!("swish");
        json["scale_attn_weights"] = json!(false);
        json["scale_attn_by_inverse_layer_idx"] = json!(true);
        json["reorder_and_upcast_attn"] = json!(true);
        json["tie_word_embeddings"] = json!(false);
        json["n_inner"] = json!(20);
        let config = Gpt2Config::from_json(&json).unwrap();
        assert_eq!((config.activation_function, config.n_inner), (Activation::Silu, 20));
        assert_eq!([config.attn_scale(0), config.attn_scale(3)], [1.0, 0.25]);
        json["activation_function"] = json!("silu");
        assert_eq!(config.to_json(), json);
        assert_eq!(config.shapes().last().unwrap(), &("lm_head.weight".to_owned(), vec![50, 16]));
        let tied = Gpt2Config { tie_word_embeddings: true, ..config.clone() };
        assert_eq!(config.n_params(), tied.n_params() + 50 * 16);
        assert_eq!(config.n_compute_params(), tied.n_compute_params());
        // In the state of a run, too, also in those of before.
        let kept = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Gpt2Config>(&kept).unwrap(), config);
        let old = r#"{"n_layer":1,"n_head":1,"n_embd":4,"n_ctx":4,"vocab_size":5,"n_inner":16,
            "layer_norm_epsilon":1e-5,"dropout":{"embd":0.0,"attn":0.0,"resid":0.0},"eot":null}"#;
        assert_eq!(serde_json::from_str::<Gpt2Config>(old).unwrap(), Gpt2Config::new(1, 1, 4, 4, 5));
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let refused = |field: &str, value: Value| {
            let mut json = Gpt2Config::new(2, 2, 16, 8, 50).to_json();
            json[field] = value;
            Gpt2Config::from_json(&json).unwrap_err().to_string()
        };
        let error = refused("activation_function", json!("xielu"));
        for part in ["`activation_function` is \"xielu\"", "gelu_new, ", "relu2", "quick_gelu"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(refused("activation_function", json!(3)).contains("is 3"));
        assert!(refused("scale_attn_weights", json!("no")).contains("`scale_attn_weights` is \"no\""));
        assert!(refused("tie_word_embeddings", json!(1)).contains("true or false"));
        assert!(refused("add_cross_attention", json!(true)).contains("encoder"));
        assert!(refused("model_type", json!("llama")).contains("llama"));
        assert!(refused("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    }

    #[test]
    fn what_changes_nothing_is_passed_over() {
        let config = Gpt2Config::new(2, 2, 16, 8, 50);
        let mut json = config.to_json();
        json["summary_type"] = json!("cls_index");
        json["gradient_checkpointing"] = json!(true);
        json["task_specific_params"] = json!({"text-generation": {"do_sample": true}});
        json["scale_attn_weights"] = Value::Null;
        json["eos_token_id"] = json!(50256); // what transformers writes for a model that has no such token
        assert_eq!(Gpt2Config::from_json(&json).unwrap(), config);
    }

    #[test]
    fn tokens_that_end_texts() {
        let config = Gpt2Config::new(2, 2, 16, 8, 50);
        let read = |ends: Value| {
            let mut json = config.to_json();
            json["eos_token_id"] = ends;
            let config = Gpt2Config::from_json(&json).unwrap();
            (config.eot, config.end_tokens().to_vec())
        };
        assert_eq!(read(Value::Null), (None, vec![]));
        assert_eq!(read(json!(7)), (Some(7), vec![7]));
        assert_eq!(read(json!([7, 9, 7])), (Some(7), vec![7, 9]));
        // What is no token of the model stands for none.
        assert_eq!(read(json!([50, -1, "x", 1.5, null, 1e30, 9])), (Some(9), vec![9]));
        assert_eq!(read(json!([50, -1])), (None, vec![]));
        let config = Gpt2Config { eot: Some(9), ..config };
        let ends = |ids: &[u32]| config.clone().with_ends(ids.iter().copied()).unwrap();
        assert_eq!(ends(&[9]), config, "the usual end is not said twice");
        assert_eq!(ends(&[50, 60]), config);
        assert_eq!(ends(&[3]).end_tokens(), [3]);
        let several = ends(&[3, 9, 3]);
        assert_eq!(several.end_tokens(), [3, 9]);
        assert_eq!(several.clone().with_ends([]).unwrap(), several);
        assert_eq!(several.to_json(), config.to_json(), "config.json names the one that starts texts");
        let wide = Gpt2Config { vocab_size: 1 << 20, ..config.clone() };
        assert_eq!(wide.clone().with_ends(0..MOST_ENDS as u32).unwrap().ends.len(), MOST_ENDS);
        let error = wide.with_ends(0..1_000_000).unwrap_err().to_string();
        assert_eq!(
            error,
            "config: `eos_token_id` is a list of 1000000, but at most 64 different tokens can end texts here"
        );
        assert!(Gpt2Config { ends: vec![50], ..config }.validate().is_err());
    }

    #[test]
    fn an_unknown_preset_names_the_known_ones() {
        assert!(Gpt2Config::preset("gpt5").unwrap_err().to_string().contains("gpt2-medium"));
    }
}
