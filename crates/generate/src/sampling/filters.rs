//! Which tokens may be drawn, and how likely: temperature, then top-k, top-p, min-p and typical-p.
//!
//! Weights are in proportion to probabilities, and the largest is 1: `w = exp((x - max) / temperature)`. They are
//! computed for those tokens only that may be kept.

use tensor::draws;

use super::Sampling;
use super::scan::Scan;

/// A token and its weight.
pub type Candidate = (u32, f64);

/// The weight of a logit.
pub(super) fn weight(logit: f32, most: f32, temperature: f32) -> f64 {
    f64::from((logit - most) / temperature).exp()
}

/// The tokens that may be drawn: by id, or with top-p in falling order of weights (equals by id). They are `n`; the logits of
/// others are minus infinity.
pub(super) fn candidates(sampling: &Sampling, logits: &[f32], n: usize, scan: &Scan<'_>) -> Vec<Candidate> {
    let Sampling { temperature, top_k, top_p, min_p, typical_p, .. } = *sampling;
    let keeping = |least: f64, bound: f32| {
        let mut kept = Vec::new();
        scan.at_least(bound, |id, logit| {
            let weight = weight(logit, scan.most, temperature);
            if weight >= least && logit > f32::NEG_INFINITY {
                kept.push((id, weight));
            }
        });
        kept
    };
    let limited = top_k > 0 && top_k < n;
    let mut kept = if limited {
        keeping(0.0, scan.kth_largest(top_k))
    } else if top_p < 1.0 {
        let total = draws::total(logits, scan.most, temperature);
        let least = least_of_top_p(total, top_p, n);
        let mut kept = keeping(least, lowest_logit(least, scan.most, temperature));
        keep_top_p(&mut kept, total, top_p);
        kept
    } else {
        keeping(f64::from(min_p), lowest_logit(f64::from(min_p), scan.most, temperature))
    };
    if limited && top_p < 1.0 {
        let total = kept.iter().map(|(_, weight)| weight).sum();
        let least = least_of_top_p(total, top_p, kept.len());
        kept.retain(|&(_, weight)| weight >= least);
        keep_top_p(&mut kept, total, top_p);
    }
    if min_p > 0.0 {
        kept.retain(|&(_, weight)| weight >= f64::from(min_p));
    }
    if typical_p < 1.0 {
        keep_typical(&mut kept, f64::from(typical_p));
    }
    kept
}

/// A bound that no logit with this weight lies below; not the highest one, since weights are rounded.
fn lowest_logit(weight: f64, most: f32, temperature: f32) -> f32 {
    const SLACK: f64 = 1e-6;
    let below = f64::from(temperature) * (weight.ln() * (1.0 + SLACK) - SLACK);
    ((f64::from(most) + below) as f32).next_down()
}

/// Tokens below this weight sum to less than the share that top-p leaves out: they need not be sorted.
fn least_of_top_p(total: f64, top_p: f32, n: usize) -> f64 {
    ((total - f64::from(top_p) * total) / n as f64).min(1.0)
}

/// The fewest tokens that reach a share of the total, in falling order (equals by id). Sorts pieces from the top, each
/// twice the last, until they reach it.
fn keep_top_p(kept: &mut Vec<Candidate>, total: f64, top_p: f32) {
    let limit = f64::from(top_p) * total;
    let falling = |a: &Candidate, b: &Candidate| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let (mut from, mut piece, mut sum) = (0, 64, 0.0);
    while from < kept.len() && sum < limit {
        let rest = &mut kept[from..];
        let n = piece.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n, falling);
        }
        rest[..n].sort_unstable_by(falling);
        for (_, weight) in &rest[..n] {
            if sum >= limit {
                break;
            }
            sum += weight;
            from += 1;
        }
        piece *= 2;
    }
    kept.truncate(from);
}

/// The tokens whose surprise `-ln p` is nearest to the mean surprise, the entropy `H = -Σ p ln p`: as many as reach
/// `mass` together, and those as far from it as the last.
fn keep_typical(kept: &mut Vec<Candidate>, mass: f64) {
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let drawn = kept.iter().map(|&(_, weight)| weight).filter(|&weight| weight > 0.0);
    // With p = w / total, H = ln total - Σ w ln w / total, and -ln p - H = mean - ln w.
    let mean = drawn.map(|weight| weight * weight.ln()).sum::<f64>() / total;
    let distance = |weight: f64| (mean - weight.ln()).abs();
    let mut keys: Vec<_> = kept.iter().map(|&(_, weight)| (distance(weight), weight)).collect();
    let border = reach(&mut keys, mass * total);
    kept.retain(|&(_, weight)| distance(weight) <= border);
}

/// The key with which weights, summed by rising key, reach `mass`; the largest key if they do not.
fn reach(mut keys: &mut [(f64, f64)], mut mass: f64) -> f64 {
    while keys.len() > 1 {
        let half = keys.len() / 2;
        keys.select_nth_unstable_by(half, |a, b| a.0.total_cmp(&b.0));
        let sum: f64 = keys[..half].iter().map(|(_, weight)| weight).sum();
        if sum >= mass {
            keys = &mut keys[..half];
        } else {
            mass -= sum;
            keys = &mut keys[half..];
        }
    }
    keys.first().map_or(f64::INFINITY, |key| key.0)
}
