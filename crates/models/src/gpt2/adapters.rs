//! Low-rank adapters beside a model's linear layers: adding them, what is trained then, files, and merging them.

use std::collections::HashMap;
use std::path::Path;

use tensor::Tensor;
use tensor::random::Stream;
use tensor::weights::Weights as Encoded;

use super::{Block, Gpt2};
use crate::dtype::{HEAD, TABLE};
use crate::layers::{Adapter, Linear};
use crate::{Dtype, LoraConfig, ModelError, Result, checkpoint, init, lora};

/// First of the random streams used for adapters; each layer has its own.
const LORA_PURPOSE: u32 = 0x6c6f_0000;

/// What a file says of an adapter, with every shape checked.
pub(crate) struct LoadedAdapter {
    pub config: LoraConfig,
    /// By layer: `h.0.attn.c_attn`.
    pub adapters: HashMap<String, Adapter>,
    /// A table (V, C) in place of the model's.
    pub wte: Option<Tensor>,
    /// An output layer (V, C) of its own.
    pub lm_head: Option<Tensor>,
}

impl Gpt2 {
    /// [`Gpt2::open`], with an adapter of PEFT's. Weights of few bits are made after the adapter is there, from the model
    /// that it was trained with: bringing them into blocks moves scales between a norm and the layer after it.
    pub fn open_with_adapter(path: &Path, dtype: Option<Dtype>, adapter: &Path) -> Result<Gpt2> {
        let mut model = Gpt2::open_exact(path)?;
        model.load_adapter(adapter)?;
        match dtype {
            Some(dtype) if dtype != model.dtype => model.to_dtype(dtype),
            _ => Ok(model),
        }
    }

    /// Puts adapters beside the layers that the config names: A as `torch.nn.Linear` starts (uniform in ±1/√in), B zero. All
    /// other weights are frozen, but for the tables if the config trains them.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        config.validate_for(&self.config)?;
        self.ensure_trainable()?;
        if self.lora.is_some() {
            return Err(ModelError::HasAdapter { what: "another adapter" });
        }
        let layers = lora::layers(&self.config).collect::<Vec<_>>();
        for (slot, ((name, [inputs, outputs]), linear)) in layers.iter().zip(self.linears_mut()).enumerate() {
            if !config.is_target(name) {
                continue;
            }
            let (mut a, v) = (Tensor::zeros(&[config.r, *inputs]), Tensor::zeros(&[config.r, *outputs]));
            let (stream, limit) =
                (Stream::new(seed, LORA_PURPOSE + slot as u32, 0), 1.0 / (*inputs as f32).sqrt());
            let draw = |first: u64, out: &mut [f32]| stream.uniforms(first, out);
            init::fill(a.data_mut(), draw, |x| limit * (2.0 * x - 1.0));
            let scale = config.scale(config.r, config.alpha);
            linear.adapter = Some(Adapter { a, v, alpha: config.alpha, scale, dropout: config.dropout });
        }
        self.set_lora(config.clone())
    }

    /// Reads an adapter in PEFT's files, in place of one that is there. A table that it brings along replaces the model's, and
    /// with it the size of the vocabulary.
    pub fn load_adapter(&mut self, dir: &Path) -> Result<()> {
        if self.dtype.is_blocks() {
            let advice = "when they were rounded, scales were moved between norms and layers; give the model that the \
                          adapter was made for, and this type with --dtype";
            return Err(ModelError::AdapterBase { what: "put beside", dtype: self.dtype, advice });
        }
        let LoadedAdapter { config, mut adapters, wte, lm_head } = checkpoint::load_adapter(self, dir)?;
        let mut shape = self.config.clone();
        if let Some(wte) = &wte {
            shape.vocab_size = wte.rows();
            shape.eot = shape.eot.filter(|&eot| (eot as usize) < wte.rows());
            shape.ends.retain(|&id| (id as usize) < wte.rows());
        }
        self.config = checkpoint::with_end_tokens(shape, dir)?;
        if let Some(wte) = wte {
            self.wte = self.table(TABLE, wte)?;
        }
        if let Some(head) = lm_head {
            self.config.tie_word_embeddings = false;
            self.lm_head = Some(self.table(HEAD, head)?);
        }
        let names = lora::layers(&self.config).map(|(name, _)| name).collect::<Vec<_>>();
        for (name, linear) in names.iter().zip(self.linears_mut()) {
            linear.adapter = adapters.remove(name);
        }
        self.set_lora(config)
    }

    /// Writes the adapter as PEFT's `adapter_config.json` and `adapter_model.safetensors`, each whole or not at all; tables
    /// that are trained go with it. `base` is where the model lies that it belongs to: a path, or a name on the hub.
    pub fn save_adapter(&self, dir: &Path, base: &str) -> Result<()> {
        checkpoint::save_adapter(self, dir, base)
    }

    /// Writes what training has changed: the adapter if there is one, and the whole model else.
    pub fn save_trained(&self, dir: &Path) -> Result<()> {
        match &self.lora {
            Some(lora) => self.save_adapter(dir, &lora.base),
            None => self.save(dir),
        }
    }

    /// The model as [`Gpt2::save_trained`] wrote it: this one with the adapter that lies there, or that which lies there.
    pub fn load_trained(&self, dir: &Path) -> Result<Gpt2> {
        match &self.lora {
            None => Gpt2::load(dir),
            Some(_) => {
                let mut model = self.clone();
                model.load_adapter(dir)?;
                Ok(model)
            }
        }
    }

    /// How the adapter was made, if there is one.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// Adds the adapters' products to the weights beside which they stand, which are then trained as before.
    pub fn merge_adapter(&mut self) -> Result<()> {
        if self.dtype != Dtype::F32 {
            let advice = "they would be rounded again; open the model in f32, and round what comes out";
            return Err(ModelError::AdapterBase { what: "merged into", dtype: self.dtype, advice });
        }
        for linear in self.linears_mut() {
            let Some(Adapter { a, v, scale, .. }) = linear.adapter.take() else { continue };
            let (rank, inputs) = (a.rows(), a.cols());
            let turned = (0..inputs * rank).map(|i| scale * a.data()[i % rank * inputs + i / rank]).collect();
            let product = Tensor::new(&[inputs, rank], turned)?.linear(&v.constant(), None, None)?;
            let mut weight = linear.weight.decoded().into_owned();
            weight.iter_mut().zip(product.data()).for_each(|(w, x)| *w += x);
            linear.weight = Tensor::new(linear.weight.shape(), weight)?;
        }
        self.lora = None;
        // Every weight gets its place among the gradients again.
        let mut tensors = self.parameters().into_iter().map(|(_, tensor)| tensor.clone());
        let numbered =
            Gpt2::build(self.config.clone(), &mut |_| Ok(tensors.next().expect("as many as there are")))?;
        drop(tensors);
        *self = numbered;
        Ok(())
    }

    /// What training changes, with names, in the order of the gradients: every parameter; or the adapters alone where there
    /// are any, A (r, in) and B (r, out) of each layer, after the tables if these are trained, too.
    pub fn trainable(&self) -> Vec<(String, &Tensor)> {
        let Some(lora) = &self.lora else { return self.parameters() };
        let mut tensors = Vec::new();
        if lora.embeddings {
            tensors.push((TABLE.to_owned(), &self.wte));
            tensors.extend(self.lm_head.iter().map(|head| (HEAD.to_owned(), head)));
        }
        tensors.extend(self.adapter_tensors());
        tensors
    }

    /// [`Gpt2::trainable`], to be changed.
    pub fn trainable_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let Some(lora) = &self.lora else { return self.parameters_mut() };
        let mut tensors = Vec::new();
        if lora.embeddings {
            tensors.push((TABLE.to_owned(), &mut self.wte));
            tensors.extend(self.lm_head.iter_mut().map(|head| (HEAD.to_owned(), head)));
        }
        let names = lora::layers(&self.config).map(|(name, _)| name);
        for (name, linear) in names.zip(linears_mut(&mut self.h)) {
            if let Some(Adapter { a, v, .. }) = &mut linear.adapter {
                tensors.extend([(format!("{name}.lora_A.weight"), a), (format!("{name}.lora_B.weight"), v)]);
            }
        }
        tensors
    }

    /// The linear layers with their names, `h.0.attn.c_attn`.
    pub(crate) fn linears(&self) -> impl Iterator<Item = (String, &Linear)> {
        let all = self
            .h
            .iter()
            .flat_map(|Block { attn, mlp, .. }| [&attn.c_attn, &attn.c_proj, &mlp.c_fc, &mlp.c_proj]);
        lora::layers(&self.config).map(|(name, _)| name).zip(all)
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        linears_mut(&mut self.h)
    }

    /// The adapters' tensors with their names.
    pub fn adapter_tensors(&self) -> Vec<(String, &Tensor)> {
        let mut all = Vec::new();
        for (name, linear) in self.linears() {
            if let Some(Adapter { a, v, .. }) = &linear.adapter {
                all.extend([(format!("{name}.lora_A.weight"), a), (format!("{name}.lora_B.weight"), v)]);
            }
        }
        all
    }

    /// Takes over the adapters of the same model with its weights in another form.
    pub(super) fn take_adapters_of(&mut self, other: &Gpt2) {
        for (linear, (_, other)) in self.linears_mut().zip(other.linears()) {
            linear.adapter.clone_from(&other.adapter);
        }
        self.lora.clone_from(&other.lora);
        if self.lora.is_some() {
            self.freeze();
        }
    }

    /// Refuses to train beside weights that gradients cannot be taken through.
    pub(super) fn ensure_trainable(&self) -> Result<()> {
        let advice = "gradients are taken through f32 weights only; open the model in f32";
        match self.dtype {
            Dtype::F32 => Ok(()),
            dtype => Err(ModelError::AdapterBase { what: "trained beside", dtype, advice }),
        }
    }

    /// Freezes what is not trained, and numbers what is.
    pub(super) fn set_lora(&mut self, config: LoraConfig) -> Result<()> {
        if config.embeddings && self.dtype == Dtype::F32 {
            for table in [Some(&mut self.wte), self.lm_head.as_mut()].into_iter().flatten() {
                if table.weights().is_some() {
                    *table = Tensor::new(table.shape(), table.decoded().into_owned())?;
                }
            }
        }
        self.lora = Some(config);
        self.freeze();
        Ok(())
    }

    fn freeze(&mut self) {
        for (_, tensor) in self.parameters_mut() {
            *tensor = tensor.clone().constant();
        }
        for (slot, (_, tensor)) in self.trainable_mut().into_iter().enumerate() {
            *tensor = tensor.clone().parameter(slot);
        }
    }

    /// A table in the form that the model's weights have.
    fn table(&self, name: &str, table: Tensor) -> Result<Tensor> {
        if self.dtype == Dtype::F32 {
            return Ok(table);
        }
        let shape = (table.rows(), table.cols());
        let weights = Encoded::encode(self.dtype.form(name), table.data(), shape, true, None);
        Ok(Tensor::from_weights(shape.0, shape.1, weights.map_err(ModelError::weights(name))?)?)
    }
}

fn linears_mut(blocks: &mut [Block]) -> impl Iterator<Item = &mut Linear> {
    blocks.iter_mut().flat_map(|Block { attn, mlp, .. }| {
        [&mut attn.c_attn, &mut attn.c_proj, &mut mlp.c_fc, &mut mlp.c_proj]
    })
}
