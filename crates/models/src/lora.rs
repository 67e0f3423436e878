//! Low-rank adapters (Hu et al., 2021): the settings, as PEFT has them, and what they mean for a model's shape.
//!
//! A frozen linear layer `x W + b` gets two small matrices beside it: `x W + b + s · dropout(x) A B`, with A (in, r) drawn
//! and B (r, out) zero, so that training starts at the model as it is. Only A and B are trained; `s = alpha / r`.
//! [`crate::Gpt2::add_lora`] puts them beside a model's layers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Gpt2Config, ModelError, Result};

/// A block's linear layers, in the order of the parameters.
pub const LAYERS: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
/// For every linear layer, in PEFT's words.
const ALL: &str = "all-linear";

/// How adapters are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the product.
    pub r: usize,
    /// Its weight: see [`LoraConfig::scale`].
    pub alpha: f32,
    /// Probability with which an element of what goes in is dropped in training.
    pub dropout: f32,
    /// The layers that get an adapter, by the end of their name: `c_attn`, `c_proj` (of attention and of the feed-forward
    /// layers), `mlp.c_proj`, `h.0.attn.c_attn`.
    pub targets: Vec<String>,
    /// Whether the product is divided by √r instead of r (Kalajdzievski, 2023).
    pub use_rslora: bool,
    /// Where the model lies that the adapter belongs to: a path, or a name on the hub. For whoever finds its files.
    #[serde(default)]
    pub base: String,
    /// Whether the embedding table, and an output layer of its own, are trained and saved, too, as a vocabulary that has
    /// grown needs.
    pub embeddings: bool,
}

impl Default for LoraConfig {
    /// Rank 8 beside queries, keys and values, which is what PEFT chooses for GPT-2.
    fn default() -> LoraConfig {
        LoraConfig {
            r: 8,
            alpha: 16.0,
            dropout: 0.0,
            targets: vec!["c_attn".to_owned()],
            use_rslora: false,
            base: String::new(),
            embeddings: false,
        }
    }
}

/// Reads `r=8,alpha=16,dropout=0.05,targets=c_attn+c_proj,rslora=true,embeddings=true`; what is not said is the default's,
/// alpha 2 r.
impl FromStr for LoraConfig {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<LoraConfig> {
        const KNOWN: &str = "r, alpha, dropout, targets, rslora, embeddings";
        let refuse = |name, got: &str, want: &str| {
            Err(ModelError::Lora { name, got: format!("{got:?}"), want: want.to_owned() })
        };
        let (mut config, mut said) = (LoraConfig::default(), Vec::new());
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
            else {
                return refuse("setting", part, &format!("it must be NAME=VALUE, with NAME one of {KNOWN}"));
            };
            if said.contains(&key) {
                return refuse("setting", part, &format!("{key} is there twice; give it once"));
            }
            match key {
                "r" => config.r = number("r", value)?,
                "alpha" => config.alpha = number("alpha", value)?,
                "dropout" => config.dropout = number("dropout", value)?,
                "rslora" => config.use_rslora = switch("rslora", value)?,
                "embeddings" => config.embeddings = switch("embeddings", value)?,
                "targets" if value == ALL => config.targets = LAYERS.map(str::to_owned).to_vec(),
                "targets" => config.targets = value.split('+').map(|name| name.trim().to_owned()).collect(),
                _ => return refuse("setting", key, &format!("it must be one of {KNOWN}")),
            }
            said.push(key);
        }
        if !said.contains(&"alpha") {
            config.alpha = 2.0 * config.r as f32;
        }
        config.validate()?;
        Ok(config)
    }
}

fn number<T: FromStr>(name: &'static str, value: &str) -> Result<T> {
    let want = "it must be a number".to_owned();
    value.parse().map_err(|_| ModelError::Lora { name, got: format!("{value:?}"), want })
}

fn switch(name: &'static str, value: &str) -> Result<bool> {
    let want = "it must be true or false".to_owned();
    value.parse().map_err(|_| ModelError::Lora { name, got: format!("{value:?}"), want })
}

impl LoraConfig {
    /// What a product of this rank is multiplied by: `alpha / r`, or `alpha / √r`.
    pub fn scale(&self, r: usize, alpha: f32) -> f32 {
        alpha / if self.use_rslora { (r as f32).sqrt() } else { r as f32 }
    }

    /// Whether the layer of this name, such as `h.0.attn.c_attn`, gets an adapter: a target is its name or, from a point on,
    /// the end of it, as PEFT has it.
    pub fn is_target(&self, layer: &str) -> bool {
        let full = format!(".transformer.{layer}");
        self.targets.iter().any(|target| {
            full.strip_suffix(target.as_str()).is_some_and(|rest| rest.ends_with('.') && !target.is_empty())
        })
    }

    /// Checks what can be checked without a model.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name, got: String, want: &str| Err(ModelError::Lora { name, got, want: want.into() });
        match self {
            _ if self.r == 0 => refuse("r", "0".into(), "a rank is at least 1"),
            _ if !(self.alpha.is_finite() && self.alpha > 0.0) => {
                refuse("alpha", self.alpha.to_string(), "it must be a positive number")
            }
            _ if !(0.0..1.0).contains(&self.dropout) => {
                let want = "a probability of dropping must be at least 0 and below 1";
                refuse("dropout", self.dropout.to_string(), want)
            }
            _ => Ok(()),
        }
    }

    /// Checks every rule for a model of this shape.
    pub fn validate_for(&self, model: &Gpt2Config) -> Result<()> {
        self.validate()?;
        if self.r > model.n_embd {
            let want = format!("a rank above the model's width of {} gives nothing more", model.n_embd);
            return Err(ModelError::Lora { name: "r", got: self.r.to_string(), want });
        }
        let layers: Vec<String> = layers(model).map(|(name, _)| name).collect();
        let is_somewhere = |target: &&String| {
            let alone = LoraConfig { targets: vec![(*target).clone()], ..self.clone() };
            layers.iter().any(|layer| alone.is_target(layer))
        };
        let unknown = self.targets.iter().find(|target| !is_somewhere(target));
        if self.targets.is_empty() || unknown.is_some() {
            let got = format!("{:?}", unknown.map_or("", String::as_str));
            let want = format!(
                "the model has no such layer; choose from c_attn, c_proj, c_fc, {}, or {ALL}",
                LAYERS.join(", ")
            );
            return Err(ModelError::Lora { name: "targets", got, want });
        }
        Ok(())
    }

    /// The trained tensors' names and shapes for a model of this shape, in their order: A is (r, in), B is (r, out).
    pub fn shapes(&self, model: &Gpt2Config) -> Vec<(String, Vec<usize>)> {
        let tables = model.shapes().into_iter().filter(|(name, _)| crate::dtype::is_table(name));
        let mut shapes: Vec<_> = tables.filter(|_| self.embeddings).collect();
        for (name, [inputs, outputs]) in layers(model).filter(|(name, _)| self.is_target(name)) {
            shapes.push((format!("{name}.lora_A.weight"), vec![self.r, inputs]));
            shapes.push((format!("{name}.lora_B.weight"), vec![self.r, outputs]));
        }
        shapes
    }

    /// Values that are trained.
    pub fn n_params(&self, model: &Gpt2Config) -> usize {
        self.shapes(model).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// A model's linear layers: names, such as `h.0.attn.c_attn`, with inputs and outputs.
pub(crate) fn layers(model: &Gpt2Config) -> impl Iterator<Item = (String, [usize; 2])> {
    let (c, inner) = (model.n_embd, model.n_inner);
    let sizes = [[c, 3 * c], [c, c], [c, inner], [inner, c]];
    (0..model.n_layer).flat_map(move |layer| {
        LAYERS.into_iter().zip(sizes).map(move |(part, size)| (format!("h.{layer}.{part}"), size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let config: LoraConfig =
            "r=4, alpha=3,dropout=0.05,targets=attn.c_proj+c_fc,rslora=true".parse().unwrap();
        let want = LoraConfig {
            r: 4,
            alpha: 3.0,
            dropout: 0.05,
            targets: vec!["attn.c_proj".into(), "c_fc".into()],
            use_rslora: true,
            ..LoraConfig::default()
        };
        assert_eq!(config, want);
        assert_eq!("".parse::<LoraConfig>().unwrap(), LoraConfig::default());
        assert_eq!("r=32".parse::<LoraConfig>().unwrap().alpha, 64.0);
        assert_eq!("targets=all-linear".parse::<LoraConfig>().unwrap().targets, LAYERS);
        assert_eq!((want.scale(4, 3.0), LoraConfig::default().scale(8, 16.0)), (1.5, 2.0));
    }

    #[test]
    fn bad_settings_say_what_is_wrong() {
        let cases = [
            ("r=0", "`r` is 0"),
            ("r=many", "`r` is \"many\""),
            ("r", "NAME=VALUE"),
            ("rank=8", "one of r, alpha"),
            ("r=1,r=2", "twice"),
            ("alpha=nan", "positive number"),
            ("alpha=-1", "positive number"),
            ("dropout=1", "below 1"),
            ("rslora=perhaps", "true or false"),
        ];
        for (text, part) in cases {
            let error = text.parse::<LoraConfig>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let model = Gpt2Config::new(2, 2, 16, 8, 50);
        for (text, part) in
            [("targets=q_proj", "\"q_proj\""), ("targets=", "no such layer"), ("r=17", "width of 16")]
        {
            let error = text.parse::<LoraConfig>().unwrap().validate_for(&model).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn targets_are_the_ends_of_names() {
        let model = Gpt2Config::new(2, 2, 16, 8, 50);
        let chosen = |targets: &str| {
            let config: LoraConfig = format!("targets={targets}").parse().unwrap();
            config.validate_for(&model).unwrap();
            layers(&model).map(|(name, _)| name).filter(|name| config.is_target(name)).collect::<Vec<_>>()
        };
        assert_eq!(chosen("c_attn"), ["h.0.attn.c_attn", "h.1.attn.c_attn"]);
        assert_eq!(
            chosen("c_proj"),
            ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_proj"]
        );
        assert_eq!(chosen("mlp.c_proj"), ["h.0.mlp.c_proj", "h.1.mlp.c_proj"]);
        assert_eq!(chosen("h.1.mlp.c_fc+transformer.h.0.attn.c_proj"), ["h.0.attn.c_proj", "h.1.mlp.c_fc"]);
        assert_eq!(chosen("all-linear").len(), 8);
        let config = LoraConfig::default();
        assert!(
            !LoraConfig { targets: vec!["attn".into(), "_attn".into(), "".into()], ..config }
                .is_target("h.0.attn.c_attn")
        );
    }

    #[test]
    fn shapes_of_the_released_model() {
        let model = Gpt2Config::preset("gpt2").unwrap();
        assert_eq!(LoraConfig::default().n_params(&model), 12 * 8 * (768 + 2304));
        let all: LoraConfig = "targets=all-linear,embeddings=true".parse().unwrap();
        assert_eq!(all.shapes(&model)[0], ("wte.weight".to_owned(), vec![50257, 768]));
        assert_eq!(all.shapes(&model).len(), 1 + 12 * 8);
    }
}
