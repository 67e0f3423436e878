//! Initial weights: GPT-2's own, and Xavier's.

use serde::{Deserialize, Serialize};
use tensor::random::Stream;
use tensor::{Tensor, pool};

use crate::Gpt2Config;

/// First of the random streams used for weights; each weight has its own.
const INIT_PURPOSE: u32 = 0x696e_0000;
/// Elements drawn by one task.
const CHUNK: usize = 1 << 14;

/// How weights start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Normal with deviation 0.02; what writes to the residual stream is scaled by 1/√(2 · n_layer), so that the
    /// stream's variance does not grow with depth (Radford et al., 2019).
    #[default]
    Gpt2,
    /// Matrices uniform in ±√(6 / (in + out)) (Glorot and Bengio, 2010).
    Xavier,
}

impl Init {
    /// The first values of the weight called `name`, which is number `slot` of the model.
    pub(crate) fn tensor(
        self,
        config: &Gpt2Config,
        seed: u64,
        slot: usize,
        name: &str,
        shape: &[usize],
    ) -> Tensor {
        let mut tensor = Tensor::zeros(shape);
        let stream = Stream::new(seed, INIT_PURPOSE + slot as u32, 0);
        match (shape, self) {
            ([_], _) => tensor.data_mut().fill(if name.ends_with("bias") { 0.0 } else { 1.0 }),
            (_, Init::Gpt2) => {
                let depth = if name.ends_with("c_proj.weight") { (2 * config.n_layer) as f32 } else { 1.0 };
                let std = 0.02 / depth.sqrt();
                fill(tensor.data_mut(), |first, out| stream.normals(first, out), |x| std * x);
            }
            (shape, Init::Xavier) => {
                let limit = (6.0 / shape.iter().sum::<usize>() as f32).sqrt();
                fill(
                    tensor.data_mut(),
                    |first, out| stream.uniforms(first, out),
                    |x| limit * (2.0 * x - 1.0),
                );
            }
        }
        tensor
    }
}

/// Draws all values on all threads, and brings each into place.
pub(crate) fn fill(
    values: &mut [f32],
    draw: impl Fn(u64, &mut [f32]) + Sync,
    place: impl Fn(f32) -> f32 + Sync,
) {
    pool::for_each_chunk_mut(values, CHUNK, |chunk, values| {
        draw((chunk * CHUNK) as u64, values);
        values.iter_mut().for_each(|value| *value = place(*value));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(init: Init, name: &str, shape: &[usize]) -> (f32, f32) {
        let config = Gpt2Config::new(8, 4, 64, 32, 1000);
        let tensor = init.tensor(&config, 1, 5, name, shape);
        let n = tensor.len() as f32;
        let mean = tensor.data().iter().sum::<f32>() / n;
        let var = tensor.data().iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        (var.sqrt(), tensor.data().iter().fold(0.0, |most, x| most.max(x.abs())))
    }

    #[test]
    fn deviations() {
        let (std, _) = spread(Init::Gpt2, "wte.weight", &[1000, 64]);
        assert!((std - 0.02).abs() < 3e-4, "{std}");
        let (std, _) = spread(Init::Gpt2, "h.3.mlp.c_proj.weight", &[256, 64]);
        assert!((std - 0.02 / 4.0).abs() < 2e-4, "{std}");
        let (std, most) = spread(Init::Xavier, "h.3.mlp.c_fc.weight", &[64, 256]);
        let limit = (6.0f32 / 320.0).sqrt();
        assert!(most <= limit && (std - limit / 3.0f32.sqrt()).abs() < 2e-3, "{std} {most}");
    }

    #[test]
    fn norms_start_at_one_and_biases_at_zero() {
        assert_eq!(spread(Init::Xavier, "ln_f.weight", &[64]), (0.0, 1.0));
        assert_eq!(spread(Init::Gpt2, "ln_f.bias", &[64]), (0.0, 0.0));
    }
}
