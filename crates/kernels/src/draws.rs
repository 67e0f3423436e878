//! Draws from a whole vocabulary: token i with a probability in proportion to `exp((xᵢ - max) / temperature)`.
//!
//! Weights are rounded to whole numbers, 2⁴⁰ for the most likely token, so that sums are exact: no order of adding, and no
//! token of no weight between others, changes a draw. What is less likely than the most likely by 2⁻⁴¹ is never drawn.

use crate::isa::{self, Isa, vectorised};
use crate::math::exp;

/// The weight of the most likely token.
const ONE: f64 = (1u64 << 40) as f64;
/// 1.5 · 2⁵²: adding it rounds, and leaves a whole number in the last bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// Logits whose weights are summed before they are looked at one by one.
const BLOCK: usize = 256;

/// The weight of a logit. `exp` is within 2 units in the last place.
#[inline(always)]
fn weight<const FMA: bool>(logit: f32, most: f32, temperature: f32) -> u64 {
    let p = f64::from(exp::<FMA>((logit - most) / temperature));
    (p * ONE + ROUND).to_bits().wrapping_sub(ROUND.to_bits())
}

vectorised! {
    fn sum(logits: &[f32], most: f32, temperature: f32) -> u64 {
        logits.iter().fold(0, |sum: u64, &logit| sum.wrapping_add(weight::<FMA>(logit, most, temperature)))
    }
}

vectorised! {
    /// The first logit with which the sum of weights exceeds `target`.
    fn position(logits: &[f32], most: f32, temperature: f32, target: u64) -> Option<usize> {
        let mut sum = 0;
        logits.iter().position(|&logit| {
            sum += weight::<FMA>(logit, most, temperature);
            target < sum
        })
    }
}

/// The sum of `exp((x - most) / temperature)`, where `most` is the largest logit.
pub fn total(logits: &[f32], most: f32, temperature: f32) -> f64 {
    sum(isa::current(), logits, most, temperature) as f64 / ONE
}

/// The token with which the sum of weights, by id, exceeds this share (0 ≤ share < 1) of their total. `most` is the largest
/// logit, and finite; the temperature is above 0.
pub fn draw(logits: &[f32], most: f32, temperature: f32, share: f64) -> u32 {
    draw_on(isa::current(), logits, most, temperature, share)
}

fn draw_on(isa: Isa, logits: &[f32], most: f32, temperature: f32, share: f64) -> u32 {
    let sums: Vec<u64> = logits.chunks(BLOCK).map(|block| sum(isa, block, most, temperature)).collect();
    let total: u64 = sums.iter().sum();
    // The share of a total above 2⁵³ may round up to the total itself.
    let mut target = ((share * total as f64) as u64).min(total.saturating_sub(1));
    for (number, (block, sum)) in logits.chunks(BLOCK).zip(sums).enumerate() {
        if target < sum {
            let at = position(isa, block, most, temperature, target);
            return (number * BLOCK + at.expect("the block's sum exceeds it")) as u32;
        }
        target -= sum;
    }
    0 // no logits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn draws_are_as_often_as_they_should_be_and_the_same_everywhere() {
        for n in [1_usize, 3, 255, 256, 257, 1000] {
            let stream = Stream::new(n as u64, 1, 0);
            let mut logits: Vec<f32> = (0..n as u64).map(|i| 2.0 * stream.normal(i)).collect();
            if n > 3 {
                logits[n / 2] = f32::NEG_INFINITY;
            }
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact: Vec<f64> = logits.iter().map(|&x| f64::from((x - most) / 0.8).exp()).collect();
            let sum: f64 = exact.iter().sum();
            assert!((total(&logits, most, 0.8) / sum - 1.0).abs() < 1e-6);
            for isa in isa::tested() {
                for position in 0..300 {
                    let share = stream.f64(1 << 32 | position);
                    let id = draw_on(isa, &logits, most, 0.8, share) as usize;
                    // The exact sums before it and with it enclose the share, to within what rounding may move.
                    let before: f64 = exact[..id].iter().sum();
                    let (low, high) = (before / sum - 1e-6, (before + exact[id]) / sum + 1e-6);
                    assert!(
                        low <= share && share <= high,
                        "{isa:?}, {n}: {share} drew {id}, of {low} to {high}"
                    );
                    assert!(logits[id] > f32::NEG_INFINITY);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        for isa in isa::tested() {
            let logits = [f32::NEG_INFINITY, 1.0, 1.0, f32::NEG_INFINITY];
            assert_eq!(draw_on(isa, &logits, 1.0, 0.7, 0.0), 1);
            assert_eq!(draw_on(isa, &logits, 1.0, 0.7, 1.0 - f64::EPSILON / 2.0), 2);
            assert_eq!(draw_on(isa, &[-f32::MAX, f32::MAX], f32::MAX, 1e-45, 0.5), 1);
            // Equal tokens, so many that their total is above 2⁵³.
            let many = vec![0.0; 20_000];
            assert_eq!(draw_on(isa, &many, 0.0, 1.0, 1.0 - f64::EPSILON / 2.0), 19_999);
            assert_eq!(draw_on(isa, &many, 0.0, 1.0, 0.5), 10_000);
        }
    }

    #[test]
    fn tokens_of_no_weight_change_no_draw() {
        let stream = Stream::new(5, 1, 0);
        let logits: Vec<f32> = (0..700).map(|i| stream.normal(i)).collect();
        let spread: Vec<f32> = logits.iter().flat_map(|&x| [f32::NEG_INFINITY, x, -1e30]).collect();
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for position in 0..1000 {
            let share = stream.f64(1 << 32 | position);
            assert_eq!(3 * draw(&logits, most, 0.9, share) + 1, draw(&spread, most, 0.9, share));
        }
    }
}
