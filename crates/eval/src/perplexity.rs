//! Loss, perplexity, bits per byte and next-token accuracy on a text.
//!
//! The text is cut into windows (see [`data::batches::windows`]); every token but the first is predicted once.
//! Predictions of one window are not independent, so the standard errors take windows as the unit (a
//! cluster-robust estimate): with window sums `s_w` of `n_w` losses and the mean `m` of all N,
//! `stderr² = W / (W - 1) · Σ_w (s_w - n_w m)² / N²`. With a single window they are over tokens, and too small.

use data::batches::{Window, windows};
use data::{DataError, Tokens};
use models::{Batch, Gpt2, ModelError};
use serde::Serialize;
use thiserror::Error;
use tokenizer::Tokenizer;

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Windows computed at once; the result does not depend on it.
    pub batch: usize,
    /// Length of a window; the model's context where `None`.
    pub time: Option<usize>,
    /// Distance of windows; their length where `None`.
    pub stride: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { batch: 8, time: None, stride: None }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Mean of `-ln p`, in nats a token.
    pub loss: f64,
    /// Its standard error.
    pub loss_stderr: f64,
    /// e to the loss, a token.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_stderr: f64,
    /// The loss in bits for each byte of the predicted text.
    pub bits_per_byte: f64,
    /// Its standard error.
    pub bits_per_byte_stderr: f64,
    /// Share of tokens that were the most likely one.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Bytes of text they stand for.
    pub bytes: usize,
    /// Windows.
    pub windows: usize,
    /// Length of a window.
    pub context: usize,
}

/// One prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Index of the predicted token in the text.
    pub position: usize,
    /// The token.
    pub id: u32,
    /// `-ln p` of it.
    pub loss: f32,
    /// Whether it was the most likely.
    pub correct: bool,
}

/// Why a text cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Fewer than two tokens.
    #[error("the text has {0} tokens, but at least 2 are needed: one to see and one to predict")]
    TooShort(usize),
    /// A stride or window that cannot be.
    #[error("windows of {time} tokens every {stride} tokens cannot be; the stride must be 1 to {time}, and the window at most the model's context of {n_ctx}")]
    Windows {
        /// Length.
        time: usize,
        /// Distance.
        stride: usize,
        /// The model's context.
        n_ctx: usize,
    },
    /// The model computed something that is not a number.
    #[error("the loss of the token at position {position} is {loss}: the model's weights are damaged")]
    NotFinite {
        /// Position of the predicted token.
        position: usize,
        /// The loss.
        loss: f32,
    },
    /// Vocabularies of different sizes.
    #[error("the tokenizer has {tokenizer} tokens, but the model {model}; take both from the same directory")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// The tokens could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Sums over one window.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    loss: f64,
    loss_squares: f64,
    correct: f64,
}

/// Scores every token of a text but the first. `on_token` sees each prediction in order.
pub fn evaluate(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    tokens: &Tokens,
    options: Options,
    on_token: &mut dyn FnMut(TokenScore),
) -> Result<Report, EvalError> {
    let n_ctx = model.config().n_ctx;
    let time = options.time.unwrap_or(n_ctx);
    let stride = options.stride.unwrap_or(time);
    if time == 0 || time > n_ctx || stride == 0 || stride > time {
        return Err(EvalError::Windows { time, stride, n_ctx });
    }
    if tokenizer.vocab_size() > model.config().vocab_size {
        return Err(EvalError::Vocabulary { tokenizer: tokenizer.vocab_size(), model: model.config().vocab_size });
    }
    if tokens.len() < 2 {
        return Err(EvalError::TooShort(tokens.len()));
    }
    let all: Vec<Window> = windows(tokens.len(), time, stride).collect();
    let (mut sums, mut bytes) = (Vec::with_capacity(all.len()), 0);
    for group in all.chunk_by(|a, b| a.end - a.start == b.end - b.start) {
        for group in group.chunks(options.batch.max(1)) {
            for (window, scores) in group.iter().zip(score(model, tokens, group)?) {
                let mut sum = Sums::default();
                for token in scores.into_iter().skip(window.score_from - window.start) {
                    if !token.loss.is_finite() {
                        return Err(EvalError::NotFinite { position: token.position, loss: token.loss });
                    }
                    sum.add(&token);
                    bytes += text_bytes(tokenizer, token.id);
                    on_token(token);
                }
                sums.push(sum);
            }
        }
    }
    Ok(report(&sums, bytes, time))
}

/// Bytes of text behind a token: end-of-text stands for none.
fn text_bytes(tokenizer: &Tokenizer, id: u32) -> usize {
    if id == tokenizer.eot() { 0 } else { tokenizer.token_bytes(id).map_or(0, <[u8]>::len) }
}

/// Every prediction of some windows of equal length.
fn score(model: &Gpt2, tokens: &Tokens, group: &[Window]) -> Result<Vec<Vec<TokenScore>>, EvalError> {
    let len = group[0].end - group[0].start;
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for window in group {
        let seen = tokens.read(window.start..window.end + 1)?;
        ids.extend_from_slice(&seen[..len]);
        targets.extend_from_slice(&seen[1..]);
    }
    let weights = vec![1.0; ids.len()];
    let batch = Batch { ids: &ids, targets: &targets, weights: &weights, batch: group.len(), lens: None };
    let scores = model.scores(&batch)?;
    let token = |row: usize, t: usize| {
        let i = row * len + t;
        let position = group[row].start + t + 1;
        TokenScore { position, id: targets[i], loss: scores.loss[i], correct: scores.correct[i] }
    };
    Ok((0..group.len()).map(|row| (0..len).map(|t| token(row, t)).collect()).collect())
}

impl Sums {
    fn add(&mut self, token: &TokenScore) {
        let loss = f64::from(token.loss);
        self.n += 1.0;
        self.loss += loss;
        self.loss_squares += loss * loss;
        self.correct += f64::from(u8::from(token.correct));
    }
}

/// Mean and standard error of a quantity with the given sum and, for a single window, sum of squares.
fn mean_and_error(windows: &[Sums], of: impl Fn(&Sums) -> (f64, f64)) -> (f64, f64) {
    let n: f64 = windows.iter().map(|w| w.n).sum();
    let mean = windows.iter().map(|w| of(w).0).sum::<f64>() / n;
    let count = windows.len() as f64;
    let variance = match windows {
        [one] if one.n > 1.0 => (of(one).1 / n - mean * mean).max(0.0) / (n - 1.0),
        [_] => 0.0,
        _ => {
            let spread: f64 = windows.iter().map(|w| (of(w).0 - w.n * mean).powi(2)).sum();
            count / (count - 1.0) * spread / (n * n)
        }
    };
    (mean, variance.sqrt())
}

fn report(sums: &[Sums], bytes: usize, context: usize) -> Report {
    let (loss, loss_stderr) = mean_and_error(sums, |w| (w.loss, w.loss_squares));
    let (accuracy, accuracy_stderr) = mean_and_error(sums, |w| (w.correct, w.correct));
    let tokens = sums.iter().map(|w| w.n).sum::<f64>();
    let bits = tokens / std::f64::consts::LN_2 / bytes.max(1) as f64;
    Report {
        loss,
        loss_stderr,
        perplexity: loss.exp(),
        perplexity_stderr: loss.exp() * loss_stderr,
        bits_per_byte: loss * bits,
        bits_per_byte_stderr: loss_stderr * bits,
        accuracy,
        accuracy_stderr,
        tokens: tokens as usize,
        bytes,
        windows: sums.len(),
        context,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::{Gpt2Config, Init, Pass};

    const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom";

    fn parts() -> (Gpt2, Tokenizer, Tokens) {
        let tokenizer = Tokenizer::train_bpe([TEXT], 270).unwrap();
        let config = Gpt2Config::new(1, 2, 8, 10, tokenizer.vocab_size());
        let tokens = Tokens::new(tokenizer.encode(TEXT).unwrap());
        (Gpt2::new(config, Init::Xavier, 1).unwrap(), tokenizer, tokens)
    }

    /// The definition, one window and one token after the other.
    fn plainly(model: &Gpt2, ids: &[u32], time: usize) -> Vec<f64> {
        let mut losses = Vec::new();
        for start in (0..ids.len() - 1).step_by(time) {
            let end = (start + time).min(ids.len() - 1);
            let logits = model.logits(&ids[start..end], 1, &mut Pass::eval()).unwrap();
            for (row, &target) in logits.data().chunks(logits.cols()).zip(&ids[start + 1..]) {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                losses.push(sum.ln() - f64::from(row[target as usize]));
            }
        }
        losses
    }

    #[test]
    fn agrees_with_the_definition() {
        let (model, tokenizer, tokens) = parts();
        let mut seen = Vec::new();
        let report = evaluate(&model, &tokenizer, &tokens, Options::default(), &mut |t| seen.push(t)).unwrap();
        let want = plainly(&model, &tokens.to_vec().unwrap(), 10);
        assert_eq!(report.tokens, tokens.len() - 1);
        assert!(seen.iter().map(|t| t.position).eq(1..tokens.len()));
        for (got, want) in seen.iter().zip(&want) {
            assert!((f64::from(got.loss) - want).abs() < 1e-5, "{got:?} {want}");
        }
        let mean = want.iter().sum::<f64>() / want.len() as f64;
        assert!((report.loss - mean).abs() < 1e-6 && (report.perplexity - mean.exp()).abs() < 1e-3);
        let first = tokenizer.token_bytes(tokens.read(0..1).unwrap()[0]).unwrap().len();
        assert_eq!(report.bytes, TEXT.len() - first);
        let bits = mean * want.len() as f64 / 2f64.ln() / report.bytes as f64;
        assert!((report.bits_per_byte - bits).abs() < 1e-6);
        assert!(report.loss_stderr > 0.0 && report.accuracy_stderr >= 0.0);
    }

    #[test]
    fn the_batch_changes_nothing_and_the_stride_scores_each_token_once() {
        let (model, tokenizer, tokens) = parts();
        let run = |options| evaluate(&model, &tokenizer, &tokens, options, &mut |_| {}).unwrap();
        assert_eq!(run(Options { batch: 1, ..Options::default() }), run(Options { batch: 3, ..Options::default() }));
        let overlapping = run(Options { stride: Some(3), ..Options::default() });
        assert_eq!(overlapping.tokens, tokens.len() - 1);
        assert!(overlapping.windows > run(Options::default()).windows);
    }

    #[test]
    fn standard_errors_follow_the_formula() {
        let sums = [(2.0, 3.0), (2.0, 5.0)].map(|(n, loss)| Sums { n, loss, ..Sums::default() });
        let (mean, error) = mean_and_error(&sums, |w| (w.loss, 0.0));
        assert_eq!((mean, error), (2.0, (2.0f64 * (1.0 + 1.0) / 16.0).sqrt()));
    }

    #[test]
    fn bad_requests() {
        let (model, tokenizer, tokens) = parts();
        let fail = |tokens: &Tokens, time, stride| {
            let options = Options { batch: 1, time: Some(time), stride: Some(stride) };
            evaluate(&model, &tokenizer, tokens, options, &mut |_| {}).unwrap_err().to_string()
        };
        assert!(fail(&tokens, 11, 11).contains("context of 10"));
        assert!(fail(&tokens, 5, 6).contains("stride"));
        assert!(fail(&tokens.slice(0..1), 5, 5).contains("at least 2"));
        assert!(fail(&Tokens::new(vec![1, 9999]), 5, 5).contains("9999"));
    }

    #[test]
    fn damaged_weights_are_noticed() {
        let (mut model, tokenizer, tokens) = parts();
        model.parameters_mut()[4].1.data_mut()[0] = f32::NAN;
        let error = evaluate(&model, &tokenizer, &tokens, Options::default(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
