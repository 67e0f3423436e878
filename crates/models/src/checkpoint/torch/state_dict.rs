//! The weights among what people save: state dicts of transformers, minGPT and nanoGPT, bare or in a checkpoint.
//!
//! Names may begin with what wrappers put before them (`module.`, `_orig_mod.`) and with `transformer.`. Linear layers
//! lie as (in, out) where transformers wrote them, and as (out, in) where `nn.Linear` did; the shape of `c_attn`, whose
//! sides differ, tells which.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use tensor::{Activation, Bytes};

use super::container::refused;
use super::{Assumed, Kind, Saved, Stored, Value};
use crate::{Dropouts, Gpt2Config, ModelError, Result};

/// Where checkpoints keep the state dict.
const WRAPPERS: [&str; 3] = ["model", "state_dict", "model_state_dict"];
/// Columns of a head in all GPT-2s that were published.
const HEAD_DIM: usize = 64;
/// GPT-2's end of text, in its vocabulary of 50257, which nanoGPT pads to 50304.
const EOT: (u32, [usize; 2]) = (50256, [50257, 50304]);

/// The weights of one file or of several.
#[derive(Debug, Default)]
pub(super) struct Weights {
    tensors: HashMap<String, Stored>,
    /// What nanoGPT says of its model.
    args: HashMap<&'static str, f64>,
}

/// A weight's name without what may stand before it.
pub(super) fn bare(mut name: &str) -> &str {
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod.")) {
        name = rest;
    }
    name.strip_prefix("transformer.").unwrap_or(name)
}

impl Weights {
    /// Adds a file's tensors, for which no more memory is taken than twice what the file has.
    pub fn add(&mut self, path: &Path, saved: &Saved, file_len: usize) -> Result<()> {
        let pickle = &saved.pickle;
        if pickle.dict(pickle.root).is_none() {
            return Err(refused(path, "it holds no dictionary of weights; save `model.state_dict()`"));
        }
        // Tied tables are two tensors in one place, and each may have to be copied.
        let budget = Cell::new(file_len.saturating_mul(2));
        let inner = WRAPPERS.iter().filter_map(|key| pickle.find(pickle.root, key));
        let dicts = inner.filter(|&dict| pickle.dict(dict).is_some()).chain([pickle.root]);
        let before = self.tensors.len();
        for dict in dicts {
            for &(key, value) in pickle.dict(dict).unwrap_or_default() {
                let (Some(name), Some(tensor)) = (pickle.text(key), saved.tensor(value, &budget)) else {
                    continue;
                };
                let tensor = tensor.map_err(|reason| refused(path, format!("tensor `{name}` {reason}")))?;
                if self.tensors.insert(bare(name).to_owned(), tensor).is_some() {
                    return Err(refused(path, format!("the tensor `{}` is there twice", bare(name))));
                }
            }
            if self.tensors.len() > before {
                break;
            }
        }
        if self.tensors.len() == before {
            return Err(refused(path, "it holds no tensors by name; save `model.state_dict()`"));
        }
        if let Some(args) = pickle.find(pickle.root, "model_args") {
            for key in ["n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout", "bias"] {
                let number = match pickle.find(args, key) {
                    Some(Value::Bool(flag)) => Some(f64::from(u8::from(flag))),
                    Some(Value::Float(float)) => Some(float),
                    Some(value) => pickle.int(value).map(|int| int as f64),
                    None => None,
                };
                // What is None in Python is read from the shapes.
                self.args.extend(number.map(|number| (key, number)));
            }
        }
        Ok(())
    }

    /// Whether the files say nothing of the model's shape.
    pub fn has_no_args(&self) -> bool {
        self.args.is_empty()
    }

    /// The model's shape: as `model_args` says it, or else as the tensors have it.
    pub fn config(&self, path: &Path) -> Result<(Gpt2Config, Assumed)> {
        let side = |name: &str, dim: usize| {
            let shape = self.tensors.get(name).map(|tensor| &tensor.shape[..]);
            let missing = || ModelError::missing(name, path);
            match shape.ok_or_else(missing)? {
                &[rows, cols] => Ok([rows, cols][dim]),
                other => {
                    let (name, got, want) = (name.to_owned(), other.to_vec(), vec![0, 0]);
                    Err(ModelError::TensorShape { name, got, want })
                }
            }
        };
        let arg = |key: &str| self.args.get(key).map(|&number| number as usize); // saturates
        let n_embd = side("wte.weight", 1)?;
        let layers =
            (0..).take_while(|n| self.tensors.contains_key(&format!("h.{n}.attn.c_attn.weight"))).count();
        let (n_layer, n_ctx) = (arg("n_layer").unwrap_or(layers), side("wpe.weight", 0)?);
        let heads = arg("n_head");
        if heads.is_none() && !n_embd.is_multiple_of(HEAD_DIM) {
            return Err(ModelError::Config {
                field: "n_head",
                got: "missing".into(),
                want: format!(
                    "weights do not say it, and {n_embd} columns are no heads of {HEAD_DIM}; lay config.json beside them"
                ),
            });
        }
        let n_head = heads.unwrap_or(n_embd / HEAD_DIM);
        let n_ctx = arg("block_size").unwrap_or(n_ctx);
        let vocab_size = arg("vocab_size").map_or_else(|| side("wte.weight", 0), Ok)?;
        let n_inner = side("h.0.mlp.c_fc.weight", usize::from(!self.is_turned()))?;
        let is_nano_gpt = !self.args.is_empty();
        let config = Gpt2Config {
            n_inner,
            dropout: Dropouts::all(self.args.get("dropout").map_or(0.0, |&p| p as f32)),
            eot: EOT.1.contains(&vocab_size).then_some(EOT.0),
            activation_function: if is_nano_gpt { Activation::Gelu } else { Activation::GeluNew },
            tie_word_embeddings: self.is_tied(),
            ..Gpt2Config::new(n_layer, n_head, arg("n_embd").unwrap_or(n_embd), n_ctx, vocab_size)
        };
        config.validate()?;
        Ok((config, Assumed { heads: heads.is_none(), is_nano_gpt }))
    }

    /// Whether the output layer is the embedding table: it is not there, or the same values.
    fn is_tied(&self) -> bool {
        let [table, head] = ["wte.weight", "lm_head.weight"].map(|name| self.tensors.get(name));
        match (table, head) {
            (Some(table), Some(head)) => table.kind == head.kind && table.bytes[..] == head.bytes[..],
            _ => true,
        }
    }

    /// Whether linear layers lie as (out, in).
    fn is_turned(&self) -> bool {
        let shape = self.tensors.get("h.0.attn.c_attn.weight").map(|tensor| &tensor.shape[..]);
        matches!(shape, Some([rows, cols]) if rows > cols)
    }

    /// The tensors, with biases of zero for a model that was made without.
    pub fn finish(mut self, config: &Gpt2Config) -> HashMap<String, Stored> {
        if self.is_turned() {
            for (name, tensor) in &mut self.tensors {
                let is_linear =
                    name.starts_with("h.") && name.ends_with(".weight") && tensor.shape.len() == 2;
                tensor.is_turned = is_linear;
            }
        }
        let has_bias = self.args.get("bias").map(|&bias| bias != 0.0);
        if has_bias.unwrap_or_else(|| self.tensors.contains_key("ln_f.bias")) {
            return self.tensors;
        }
        // All are parts of one, so that names which a file only claims take no memory.
        let longest = (3 * config.n_embd).max(config.n_inner);
        let zeros = Bytes::of_memory(4 * longest, |_| ());
        for (name, shape) in config.shapes() {
            let is_bias = name.ends_with(".bias") && shape[0] <= longest;
            if is_bias && self.tensors.contains_key(&name.replace(".bias", ".weight")) {
                let bytes = zeros.part(0..4 * shape[0]);
                let zero = Stored { kind: Kind::F32, shape, bytes, is_turned: false };
                self.tensors.entry(name).or_insert(zero);
            }
        }
        self.tensors
    }
}
