//! Vectors of texts: the mean of what the model's last layer, after its norm, makes of each token, brought to length 1.
//!
//! A text is read in portions between the steps of the engine, so that nobody's text waits long for it. Portions change no
//! bit: each row of a pass is its own.

use std::time::{Duration, Instant};

use models::{Gpt2, KvCache, ModelError, Pass, Run};
use tokio::sync::oneshot;

use super::order::Failure;

/// Tokens of a portion.
const PORTION: usize = 512;

/// Texts whose vectors are wanted.
#[derive(Debug)]
pub(super) struct Embedding {
    /// The tokens of each text, at least one, at most the context.
    inputs: Vec<Vec<u32>>,
    deadline: Option<(Instant, Duration)>,
    result: oneshot::Sender<Result<Vec<Vec<f32>>, Failure>>,
    /// Vectors that are whole.
    done: Vec<Vec<f32>>,
    /// How far the next text is read: its keys and values, and the sum of its rows.
    cache: Option<KvCache>,
    sum: Vec<f64>,
}

/// Where vectors come out. Dropping it cancels them.
pub(super) type Vectors = oneshot::Receiver<Result<Vec<Vec<f32>>, Failure>>;

impl Embedding {
    pub fn new(inputs: Vec<Vec<u32>>, deadline: Option<(Instant, Duration)>) -> (Embedding, Vectors) {
        let (result, vectors) = oneshot::channel();
        let (done, sum) = (Vec::with_capacity(inputs.len()), Vec::new());
        (Embedding { inputs, deadline, result, done, cache: None, sum }, vectors)
    }

    /// Whether nobody waits for it any more, or not for longer.
    pub fn is_over(&self) -> Option<Option<Failure>> {
        match self.deadline {
            _ if self.result.is_closed() => Some(None),
            Some((deadline, limit)) if Instant::now() >= deadline => Some(Some(Failure::TimedOut(limit))),
            _ => None,
        }
    }

    /// Whether all texts are read.
    pub fn is_whole(&self) -> bool {
        self.done.len() == self.inputs.len()
    }

    /// Tells the vectors.
    pub fn finish(self) {
        _ = self.result.send(Ok(self.done));
    }

    /// Tells why there are none.
    pub fn fail(self, failure: Failure) {
        _ = self.result.send(Err(failure));
    }

    /// Reads a portion: the rest of a text, and as many others as there is room for.
    pub fn read(&mut self, model: &Gpt2) -> Result<(), ModelError> {
        let (mut ids, mut caches, mut room) = (Vec::new(), Vec::new(), PORTION);
        for input in &self.inputs[self.done.len()..] {
            if room == 0 {
                break;
            }
            let cache = self.cache.take().unwrap_or_else(|| model.cache());
            let from = cache.len();
            let tokens = room.min(input.len() - from);
            ids.extend_from_slice(&input[from..from + tokens]);
            caches.push((cache, tokens));
            room -= tokens;
        }
        let runs = caches.iter_mut().map(|(cache, tokens)| Run { cache, tokens: *tokens }).collect();
        let hidden = model.hidden(&ids, 1, &mut Pass::batch(runs))?;
        let (width, hidden) = (hidden.cols(), hidden.decoded());
        let mut rows = hidden.chunks_exact(width);
        for (cache, tokens) in caches {
            self.sum.resize(width, 0.0);
            for row in rows.by_ref().take(tokens) {
                self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            if cache.len() == self.inputs[self.done.len()].len() {
                self.done.push(unit(&std::mem::take(&mut self.sum)));
            } else {
                self.cache = Some(cache);
            }
        }
        Ok(())
    }
}

/// A vector of length 1 in the same direction: that of a sum is that of the mean.
fn unit(sum: &[f64]) -> Vec<f32> {
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    sum.iter().map(|x| if length > 0.0 { (x / length) as f32 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use models::{Gpt2Config, Init};

    use super::*;

    #[test]
    fn portions_and_company_change_no_bit() {
        let model = Gpt2::new(Gpt2Config::new(2, 2, 16, 1100, 50), Init::Gpt2, 1).unwrap();
        let text = |len: usize| (0..len).map(|at| (at * at % 50) as u32).collect::<Vec<u32>>();
        let texts = [text(1), text(700), text(3), text(1100), text(20)];
        let vectors = |inputs: &[Vec<u32>]| {
            let (mut embedding, mut result) = Embedding::new(inputs.to_vec(), None);
            while !embedding.is_whole() {
                embedding.read(&model).unwrap();
            }
            embedding.finish();
            result.try_recv().unwrap().unwrap()
        };
        let together = vectors(&texts);
        for (ids, together) in texts.iter().zip(&together) {
            assert_eq!(vectors(std::slice::from_ref(ids))[0], *together, "{} tokens", ids.len());
            // Against the plain formula.
            let hidden = model.hidden(ids, 1, &mut Pass::eval()).unwrap();
            let mut mean = vec![0.0f64; 16];
            for row in hidden.data().chunks(16) {
                mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) / ids.len() as f64);
            }
            let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (x, want) in together.iter().zip(&mean) {
                assert!((f64::from(*x) - want / length).abs() < 1e-6, "{} tokens", ids.len());
            }
        }
    }
}
