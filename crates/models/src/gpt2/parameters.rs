//! A model's weights by their names, in one order.

use tensor::{Grads, Tensor};

use super::{Block, Gpt2};
use crate::layers::Linear;
use crate::{Result, checkpoint};

impl Gpt2 {
    /// Every weight but an adapter's with its name, in a fixed order: that of [`Gpt2Config::shapes`](crate::Gpt2Config::shapes).
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let mut tensors = vec![&self.wte, &self.wpe];
        for Block { ln_1, attn, ln_2, mlp } in &self.h {
            tensors.extend([&ln_1.weight, &ln_1.bias]);
            tensors.extend([&attn.c_attn, &attn.c_proj].into_iter().flat_map(|l| [&l.weight, &l.bias]));
            tensors.extend([&ln_2.weight, &ln_2.bias]);
            tensors.extend([&mlp.c_fc, &mlp.c_proj].into_iter().flat_map(|l| [&l.weight, &l.bias]));
        }
        tensors.extend([&self.ln_f.weight, &self.ln_f.bias]);
        tensors.extend(&self.lm_head);
        self.names().zip(tensors).collect()
    }

    /// Refuses weights that are NaN or infinite, by name. Reads every one: of a large model that takes seconds.
    pub fn check_finite(&self) -> Result<()> {
        let all = self.parameters().into_iter().chain(self.adapter_tensors());
        all.into_iter().try_for_each(|(name, tensor)| checkpoint::finite(&name, tensor.decoded()).map(drop))
    }

    /// Every weight but an adapter's with its name, to be changed.
    pub fn parameters_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let names = self.names();
        let mut tensors = vec![&mut self.wte, &mut self.wpe];
        for Block { ln_1, attn, ln_2, mlp } in &mut self.h {
            tensors.extend([&mut ln_1.weight, &mut ln_1.bias]);
            tensors.extend([&mut attn.c_attn, &mut attn.c_proj].into_iter().flat_map(Linear::tensors_mut));
            tensors.extend([&mut ln_2.weight, &mut ln_2.bias]);
            tensors.extend([&mut mlp.c_fc, &mut mlp.c_proj].into_iter().flat_map(Linear::tensors_mut));
        }
        tensors.extend([&mut self.ln_f.weight, &mut self.ln_f.bias]);
        tensors.extend(&mut self.lm_head);
        names.zip(tensors).collect()
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        self.config.shapes().into_iter().map(|(name, _)| name)
    }

    /// Gradients of zero for every weight that is trained.
    pub fn zero_grads(&self) -> Grads {
        let lens: Vec<usize> = self.trainable().iter().map(|(_, tensor)| tensor.len()).collect();
        Grads::new(&lens)
    }
}

impl Linear {
    fn tensors_mut(&mut self) -> [&mut Tensor; 2] {
        [&mut self.weight, &mut self.bias]
    }
}
