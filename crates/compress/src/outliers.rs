//! The hard case for few bits: a few channels that are much larger than the others, as large GPT-2 models have them.

use models::{Gpt2, Result};
use tensor::Tensor;

/// The norms, and the matrices that read them.
const PAIRS: [(&str, &str); 2] = [("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")];
/// Channels that become large, in each norm.
const CHANNELS: usize = 3;

/// The same function, to rounding: three channels of what each norm in a block gives out are `factor` times as large,
/// and the rows of the next matrix that read them as much smaller.
pub fn with_outliers(model: &Gpt2, factor: f32) -> Result<Gpt2> {
    let mut model = model.to_dtype(models::Dtype::F32)?;
    let c = model.config().n_embd;
    for (name, tensor) in model.parameters_mut() {
        for (norm, linear) in PAIRS {
            let layer = name.split('.').nth(1).and_then(|layer| layer.parse::<usize>().ok()).unwrap_or(0);
            let scale = if name.contains(&format!(".{norm}.")) {
                factor
            } else if name.ends_with(&format!(".{linear}.weight")) {
                1.0 / factor
            } else {
                continue;
            };
            let (shape, width) = (tensor.shape().to_vec(), tensor.len() / c);
            let mut values = tensor.decoded().into_owned();
            for channel in channels(layer, c) {
                values[channel * width..][..width].iter_mut().for_each(|x| *x *= scale);
            }
            *tensor = Tensor::new(&shape, values)?;
        }
    }
    Ok(model)
}

/// The channels of a layer that become large: others in each.
fn channels(layer: usize, c: usize) -> impl Iterator<Item = usize> {
    let mut all: Vec<usize> =
        (0..CHANNELS).map(|i| (c * (2 * i + 1) / (2 * CHANNELS) + 7 * layer) % c).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}
