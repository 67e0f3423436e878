//! How likely the model itself holds a token: `ln p = x - ln Σ exp(x)`, of its logits as they are.
//!
//! No temperature, filter or penalty enters: these are the model's own probabilities, comparable between settings.

use super::scan::Scan;

/// A token's log-probability, and those of the most likely tokens in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens, in falling order (equals by id).
    pub top: Vec<(u32, f32)>,
}

/// The log-probabilities of `chosen` and of the `k` most likely tokens; of all tokens where there are no more than k.
/// Where the logits hold no usable numbers the log-probability is NaN, and no token is most likely.
///
/// ```
/// let logprobs = generate::top_logprobs(&[0.0, 3.0f32.ln(), 0.0], 2, 1);
/// assert!((logprobs.logprob - 0.2f32.ln()).abs() < 1e-6);
/// assert_eq!(logprobs.top[0].0, 1);
/// ```
///
/// # Panics
/// If `chosen` has no logit.
pub fn top_logprobs(logits: &[f32], chosen: u32, k: usize) -> TokenLogprobs {
    let logit = logits[chosen as usize];
    let Some(scan) = Scan::new(logits).filter(|scan| scan.most.is_finite()) else {
        return TokenLogprobs { id: chosen, logprob: f32::NAN, top: Vec::new() };
    };
    let shift = log_sum_exp(logits, scan.most);
    TokenLogprobs { id: chosen, logprob: log_prob(logit, shift), top: largest(&scan, k, shift) }
}

/// The k tokens with the largest logits, less `shift`, in falling order (equals by id).
pub(crate) fn largest(scan: &Scan<'_>, k: usize, shift: f64) -> Vec<(u32, f32)> {
    let mut top = Vec::new();
    if k > 0 {
        scan.at_least(scan.kth_largest(k), |id, logit| top.push((id, logit)));
    }
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    top.truncate(k);
    top.into_iter().map(|(id, logit)| (id, log_prob(logit, shift))).collect()
}

/// `ln Σ exp(x)`, summed in double precision by id.
pub(crate) fn log_sum_exp(logits: &[f32], most: f32) -> f64 {
    let most = f64::from(most);
    most + logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum::<f64>().ln()
}

/// A logit's log-probability, where [`log_sum_exp`] is `shift`.
pub(crate) fn log_prob(logit: f32, shift: f64) -> f32 {
    (f64::from(logit) - shift) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_fall() {
        let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 50) as f32 / 7.0).collect();
        let all = top_logprobs(&logits, 3, 1000);
        assert_eq!(all.top.len(), 100);
        let sum: f64 = all.top.iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert!(all.top.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
        assert!(all.top.contains(&(3, all.logprob)));
        for k in [0, 1, 2, 3, 7] {
            assert_eq!(top_logprobs(&logits, 3, k).top, all.top[..k], "the {k} most likely");
        }
    }

    #[test]
    fn large_logits_do_not_overflow_and_impossible_tokens_are_minus_infinity() {
        let logits = [1e30, 1e30, f32::NEG_INFINITY];
        let got = top_logprobs(&logits, 2, 2);
        assert_eq!(got.logprob, f32::NEG_INFINITY);
        assert_eq!(top_logprobs(&[500.0, 500.0], 0, 0).logprob, 0.5f32.ln());
        assert!(top_logprobs(&[f32::NAN, 0.0], 1, 2).logprob.is_nan());
    }
}
