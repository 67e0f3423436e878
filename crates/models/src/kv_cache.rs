//! The keys and values of the tokens so far, so that each new token is computed once.

use crate::Gpt2Config;

/// One sequence's keys and values, layer by layer. Owned by whoever decodes.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    width: usize,
    len: usize,
}

/// One layer's keys and values, (len, C) each.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for a model of this shape. Memory is taken as the sequence grows.
    pub fn new(config: &Gpt2Config) -> KvCache {
        KvCache { layers: vec![LayerCache::default(); config.n_layer], width: config.n_embd, len: 0 }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Adds the keys and values found in `qkv` (n, 3C) to a layer, and shows all that layer holds.
    pub(crate) fn append(&mut self, layer: usize, qkv: &[f32]) -> &LayerCache {
        let c = self.width;
        let held = self.len * c;
        let cache = &mut self.layers[layer];
        cache.keys.truncate(held);
        cache.values.truncate(held);
        for row in qkv.chunks_exact(3 * c) {
            cache.keys.extend_from_slice(&row[c..2 * c]);
            cache.values.extend_from_slice(&row[2 * c..]);
        }
        cache
    }

    /// Counts `n` tokens as held, once every layer has them.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
