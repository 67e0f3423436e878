//! Elementary functions and sums in a form that the compiler vectorises.

use crate::isa::fma;

/// Lanes of a sum: partial sums are kept for each, so that the order of additions is fixed.
pub(crate) const LANES: usize = 16;

/// eˣ, to within 2 units in the last place; 0 below -87.3, the largest finite values above 88.7, NaN for NaN.
///
/// `x = n ln 2 + r` with a whole number n and |r| ≤ ln 2 / 2; then `eˣ = 2ⁿ eʳ`, and eʳ is a polynomial: the
/// Taylor series with its last terms adjusted to the interval.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -87.336_55;
    const HIGH: f32 = 88.722_83;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to a whole number
    let clamped = if x > HIGH { HIGH } else { x };
    let clamped = if clamped < LOW { LOW } else { clamped };
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, clamped);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    let e = fma::<FMA>(p * r, r, r) + 1.0;
    // 2ⁿ in two factors, since n may be 128.
    let bits = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = bits >> 1;
    let scale = |n: i32| f32::from_bits(((n.wrapping_add(127)) as u32) << 23);
    let value = e * scale(half) * scale(bits.wrapping_sub(half));
    if x < LOW { 0.0 } else { value }
}

/// Adds up `LANES` partial sums in a fixed tree.
#[inline(always)]
pub(crate) fn combine(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ f(i)` over `0..n` in lanes.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    combine(lanes)
}

/// The largest of the values that are numbers; -∞ where there are none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, &x) in lanes.iter_mut().zip(chunk) {
            *most = if x > *most { x } else { *most };
        }
    }
    let best = |most: f32, &x: &f32| if x > most { x } else { most };
    let most = lanes.iter().fold(f32::NEG_INFINITY, best);
    tail.iter().fold(most, best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{self, vectorised};

    vectorised! {
        fn exp_all(out: &mut [f32], x: &[f32]) {
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = exp::<FMA>(x));
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..2_000_000).map(|i| -87.3 + 176.0 * i as f32 / 2e6).collect();
        for isa in isa::available() {
            let mut got = vec![0.0; x.len()];
            exp_all(isa, &mut got, &x);
            for (&x, &got) in x.iter().zip(&got) {
                let want = f64::from(x).exp();
                let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
                assert!((f64::from(got) - want).abs() <= 2.0 * ulp, "{isa:?} exp({x}) = {got}, not {want}");
            }
        }
    }

    #[test]
    fn exp_at_the_ends() {
        let x = [f32::NEG_INFINITY, -1e30, -100.0, 0.0, f32::NAN, 1000.0];
        for isa in isa::available() {
            let mut got = [0.0; 6];
            exp_all(isa, &mut got, &x);
            assert_eq!(got[..4], [0.0, 0.0, 0.0, 1.0]);
            assert!(got[4].is_nan() && got[5] > 3e38 && got[5].is_finite());
        }
    }

    #[test]
    fn sums_and_maxima_of_every_length() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32 - 20.0).collect();
            assert_eq!(sum(n, |i| x[i]), x.iter().sum::<f32>());
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
