//! What goes into each linear layer over a text: `Σ xᵀx`.

use std::collections::HashMap;
use std::ops::Range;

use data::{DataError, Tokens};
use kernels::gemm::{Mat, Operand, Output, multiply};
use models::{Gpt2, Pass, Result, Tap};
use tensor::Tensor;

/// Tokens that are looked at.
pub const TOKENS: usize = 32_768;
/// Bytes that the sums of some layers may take at once; each part of the layers costs a pass over the text.
const MEMORY: usize = 1 << 30;

/// A text, of which parts from beginning to end are looked at.
#[derive(Debug)]
pub struct Calibration {
    windows: Vec<Vec<u32>>,
    sums: Sums,
}

/// The sums of some layers, by the name of the weight.
#[derive(Debug, Default)]
struct Sums {
    layers: Range<usize>,
    of: HashMap<String, Vec<f32>>,
}

impl Calibration {
    /// At most 32,768 tokens of a text, in windows of the model's context.
    pub fn new(model: &Gpt2, tokens: &Tokens) -> std::result::Result<Calibration, DataError> {
        let time = model.config().n_ctx.min(tokens.len());
        let all = tokens.len() / time.max(1);
        let some = all.min(TOKENS.div_ceil(time.max(1)));
        let window = |i: usize| tokens.read(i * all / some * time..(i * all / some + 1) * time);
        Ok(Calibration {
            windows: (0..some).map(window).collect::<std::result::Result<_, _>>()?,
            sums: Sums::default(),
        })
    }

    /// `Σ xᵀx` (K, K) of what goes into a linear layer; each can be had once, and layers in their order.
    pub(crate) fn take(&mut self, model: &Gpt2, layer: usize, weight: &str) -> Result<Vec<f32>> {
        if !self.sums.layers.contains(&layer) {
            let c = model.config().n_embd;
            let layers = (MEMORY / (4 * (3 * c * c + 16 * c * c))).max(1);
            self.sums = Sums { layers: layer..layer + layers, of: HashMap::new() };
            for window in &self.windows {
                model.hidden(window, 1, &mut Pass::eval().tapped(&mut self.sums))?;
            }
        }
        Ok(self.sums.of.remove(weight).expect("every linear layer is seen"))
    }
}

impl Tap for Sums {
    fn see(&mut self, weight: &str, x: &Tensor) {
        if !layer_of(weight).is_some_and(|layer| self.layers.contains(&layer)) {
            return;
        }
        let (rows, k) = (x.rows(), x.cols());
        let sum = self.of.entry(weight.to_owned()).or_insert_with(|| vec![0.0; k * k]);
        let x = Mat::new(x.data(), rows, k);
        multiply(x.t().into(), Operand::from(x), Output::Add(sum));
    }
}

/// The number of the block that a weight belongs to.
pub(crate) fn layer_of(weight: &str) -> Option<usize> {
    weight.strip_prefix("h.")?.split('.').next()?.parse().ok()
}
