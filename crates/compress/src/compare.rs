//! What a change of type costs: both models over the same text, window by window, compared by their logits.
//!
//! Windows, measures and standard errors are those of [`eval`]. Beside what each model scores, every position is
//! compared: the divergence `KL(p‖q) = Σ p ln(p / q)` of the new distribution q from the old one p, in nats, and whether
//! both have the same most likely token. The change of the loss is measured token by token, too, so that its error is
//! that of the change, which is far less than that of either loss.

use std::ops::Range;
use std::time::{Duration, Instant};

use data::Tokens;
use data::batches::windows;
use eval::{EvalError, Measure};
use models::{Gpt2, Pass};
use serde::Serialize;
use tensor::{Tensor, pool};

/// Logits of one model that are held at once, at most.
const LOGITS: usize = 1 << 22;

/// Two models on the same text.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The model as it was.
    pub before: Side,
    /// As it is now.
    pub after: Side,
    /// How much the perplexity changes, as a share of what it was.
    pub perplexity_change: f64,
    /// Its standard error.
    pub perplexity_change_stderr: f64,
    /// Mean divergence of the new distribution from the old one, in nats a token.
    pub kl: f64,
    /// Its standard error.
    pub kl_stderr: f64,
    /// Share of positions where both have the same most likely token.
    pub agreement: f64,
    /// Its standard error.
    pub agreement_stderr: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Windows.
    pub windows: usize,
    /// Length of a window.
    pub context: usize,
}

/// One model by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The type of its weights.
    pub dtype: String,
    /// Mean of `-ln p`, in nats a token.
    pub loss: f64,
    /// Its standard error.
    pub loss_stderr: f64,
    /// e to the loss.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_stderr: f64,
    /// Share of tokens that were the most likely one.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// Bytes of its weights.
    pub bytes: usize,
    /// Tokens evaluated in a second.
    pub tokens_per_second: f64,
}

/// What is measured of one model, as far as the text has been read.
#[derive(Default)]
struct Measured {
    loss: Measure,
    accuracy: Measure,
    time: Duration,
    seen: usize,
}

/// Compares a model with what was made of it. `time` is the length of a window (the context where `None`), `stride` the
/// distance of windows (their length). `on_window` is told how many windows are done, and of how many.
pub fn compare(
    before: &Gpt2,
    after: &Gpt2,
    tokens: &Tokens,
    (time, stride): (Option<usize>, Option<usize>),
    on_window: &mut dyn FnMut(usize, usize),
) -> Result<Comparison, EvalError> {
    let n_ctx = before.config().n_ctx;
    let time = time.unwrap_or(n_ctx);
    let stride = stride.unwrap_or(time);
    if time == 0 || time > n_ctx || stride == 0 || stride > time {
        return Err(EvalError::Windows { time, stride, n_ctx });
    }
    if tokens.len() < 2 {
        return Err(EvalError::TooShort(tokens.len()));
    }
    let all: Vec<_> = windows(tokens.len(), time, stride).collect();
    let mut sides = [Measured::default(), Measured::default()];
    let [mut kl, mut agreement, mut change] = [Measure::default(); 3];
    for (done, window) in all.iter().enumerate() {
        let seen = tokens.read(window.start..window.end + 1)?;
        let (ids, targets) = (&seen[..seen.len() - 1], &seen[1..]);
        let hidden = [hidden(before, ids, &mut sides[0])?, hidden(after, ids, &mut sides[1])?];
        let from = window.score_from - window.start;
        for rows in blocks(from..ids.len(), before.config().vocab_size) {
            let old = logits(before, &hidden[0], rows.clone(), &mut sides[0])?;
            let new = logits(after, &hidden[1], rows.clone(), &mut sides[1])?;
            for (row, at) in rows_of(&old, &new, &targets[rows.clone()]).into_iter().zip(rows) {
                let position = window.start + at + 1;
                for (side, loss) in sides.iter_mut().zip(row.loss) {
                    if !loss.is_finite() {
                        return Err(EvalError::NotFinite { position, loss: loss as f32 });
                    }
                    side.loss.add(loss, 1.0);
                }
                for (side, top) in sides.iter_mut().zip(row.top) {
                    side.accuracy.add(f64::from(u8::from(top == targets[at] as usize)), 1.0);
                }
                kl.add(row.kl, 1.0);
                change.add(row.loss[1] - row.loss[0], 1.0);
                agreement.add(f64::from(u8::from(row.top[0] == row.top[1])), 1.0);
            }
        }
        let [old, new] = &mut sides;
        let single = [&mut kl, &mut agreement, &mut change];
        let pairs = [&mut old.loss, &mut old.accuracy, &mut new.loss, &mut new.accuracy];
        single.into_iter().chain(pairs).for_each(Measure::end_window);
        on_window(done + 1, all.len());
    }
    let [old, new] = sides;
    let ratio = change.value().exp();
    Ok(Comparison {
        tokens: old.loss.total() as usize,
        before: old.side(before),
        after: new.side(after),
        perplexity_change: ratio - 1.0,
        perplexity_change_stderr: ratio * change.stderr(),
        kl: kl.value(),
        kl_stderr: kl.stderr(),
        agreement: agreement.value(),
        agreement_stderr: agreement.stderr(),
        windows: all.len(),
        context: time,
    })
}

impl Measured {
    fn side(self, model: &Gpt2) -> Side {
        let (loss, loss_stderr) = (self.loss.value(), self.loss.stderr());
        Side {
            dtype: model.dtype().to_string(),
            loss,
            loss_stderr,
            perplexity: loss.exp(),
            perplexity_stderr: loss.exp() * loss_stderr,
            accuracy: self.accuracy.value(),
            accuracy_stderr: self.accuracy.stderr(),
            bytes: model.weight_bytes(),
            tokens_per_second: self.seen as f64 / self.time.as_secs_f64().max(1e-9),
        }
    }
}

fn hidden(model: &Gpt2, ids: &[u32], side: &mut Measured) -> Result<Tensor, EvalError> {
    let start = Instant::now();
    let hidden = model.hidden(ids, 1, &mut Pass::eval())?;
    side.time += start.elapsed();
    side.seen += ids.len();
    Ok(hidden)
}

fn logits(
    model: &Gpt2,
    hidden: &Tensor,
    rows: Range<usize>,
    side: &mut Measured,
) -> Result<Tensor, EvalError> {
    let start = Instant::now();
    let logits = model.logits_from(hidden, rows)?;
    side.time += start.elapsed();
    Ok(logits)
}

/// Cuts rows into blocks whose logits are few enough to be held.
fn blocks(rows: Range<usize>, vocab_size: usize) -> impl Iterator<Item = Range<usize>> {
    let most = (LOGITS / vocab_size).max(1);
    rows.clone().step_by(most).map(move |start| start..rows.end.min(start + most))
}

/// A position, by both models.
#[derive(Clone, Debug, Default)]
struct Row {
    loss: [f64; 2],
    top: [usize; 2],
    kl: f64,
}

/// Compares logits row by row, on all threads.
fn rows_of(old: &Tensor, new: &Tensor, targets: &[u32]) -> Vec<Row> {
    let v = old.cols();
    let mut rows = vec![Row::default(); targets.len()];
    pool::for_each_chunk_mut(&mut rows, 1, |i, row| {
        let place = i * v..(i + 1) * v;
        row[0] = Row::new(&old.data()[place.clone()], &new.data()[place], targets[i] as usize);
    });
    rows
}

impl Row {
    /// `KL = Σ p (z - y) - ln Σ eᶻ + ln Σ eʸ`, for old logits z and new ones y.
    fn new(z: &[f32], y: &[f32], target: usize) -> Row {
        let top = [z, y].map(tensor::rows::argmax);
        let [max_z, max_y] = [f64::from(z[top[0]]), f64::from(y[top[1]])];
        let (mut sum_z, mut sum_y, mut change) = (0.0, 0.0, 0.0);
        for (&z, &y) in z.iter().zip(y) {
            let (z, y) = (f64::from(z), f64::from(y));
            let p = (z - max_z).exp();
            sum_z += p;
            sum_y += (y - max_y).exp();
            change += p * (z - y);
        }
        let [lse_z, lse_y] = [max_z + f64::ln(sum_z), max_y + f64::ln(sum_y)];
        let loss = [lse_z - f64::from(z[target]), lse_y - f64::from(y[target])];
        Row { loss, top, kl: (change / sum_z - lse_z + lse_y).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // p = (1, 3) / 4 and q = (1, 1) / 2.
        let row = Row::new(&[0.0, 3f32.ln()], &[5.0, 5.0], 1);
        let want = 0.25 * f64::ln(0.5) + 0.75 * f64::ln(1.5);
        assert!((row.kl - want).abs() < 1e-7, "{} is not {want}", row.kl);
        assert!((row.loss[0] - f64::ln(4.0 / 3.0)).abs() < 1e-7 && (row.loss[1] - f64::ln(2.0)).abs() < 1e-7);
        assert_eq!(row.top[0], 1);
    }

    #[test]
    fn rows_are_cut_into_few_logits() {
        let blocks: Vec<_> = blocks(3..300, LOGITS / 100).collect();
        assert_eq!(blocks, [3..103, 103..203, 203..300]);
        assert_eq!(super::blocks(0..2, 2 * LOGITS).count(), 2);
    }
}
