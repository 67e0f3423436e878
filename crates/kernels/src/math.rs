//! Elementary functions and sums in a form that the compiler vectorises.

use crate::isa::fma;

/// Lanes of a sum: partial sums are kept for each, so that the order of additions is fixed.
pub(crate) const LANES: usize = 16;

/// eˣ, to within 2 units in the last place; 0 below -87.7, 2.3e38 above 88.3, NaN for NaN.
///
/// `x = n ln 2 + r` with a whole number n and |r| ≤ ln 2 / 2; then `eˣ = 2ⁿ eʳ`, and eʳ is a polynomial: the
/// Taylor series with its last terms adjusted to the interval, in an order of few dependent steps.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -88.0; // n = -127, whose power of two comes out as 0
    const HIGH: f32 = 88.3; // n = 127
    const ROUND: f32 = 12_583_039.0; // 1.5 · 2²³ + 127: adding it rounds, and leaves n + 127 in the last bits
    let x = if x > HIGH { HIGH } else { x };
    let x = if x < LOW { LOW } else { x };
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let r2 = r * r;
    let first = fma::<FMA>(1.666_666_6e-1, r, 0.5);
    let second = fma::<FMA>(8.333_452e-3, r, 4.166_579_6e-2);
    let third = fma::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = fma::<FMA>(fma::<FMA>(third, r2, second), r2, first);
    fma::<FMA>(p, r2, r + 1.0) * f32::from_bits(shifted.to_bits() << 23)
}

/// `x = f(x)`. A plain loop: cut into pieces of a constant length, the compiler would vectorise across the pieces.
#[inline(always)]
pub(crate) fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    x.iter_mut().for_each(|x| *x = f(*x));
}

/// `x = f(x, y)`, for slices of one length.
#[inline(always)]
pub(crate) fn map_pairs<T: Copy>(x: &mut [f32], y: &[T], f: impl Fn(f32, T) -> f32) {
    x.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y));
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

/// `Σ f(x)` in lanes.
#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for x in chunks {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    combine(lanes)
}

/// `Σ f(x, y)` in lanes, for slices of one length.
#[inline(always)]
pub(crate) fn sum_pairs(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += f(x, y);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *lane += f(x, y);
    }
    combine(lanes)
}

/// The largest of the values that are numbers; -∞ where there are none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |most: f32, x: f32| if x > most { x } else { most };
    let (chunks, tail) = x.as_chunks::<LANES>();
    for x in chunks {
        for (most, &x) in lanes.iter_mut().zip(x) {
            *most = larger(*most, x);
        }
    }
    for (most, &x) in lanes.iter_mut().zip(tail) {
        *most = larger(*most, x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
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
        let x: Vec<f32> = (0..2_000_000).map(|i| -87.3 + 175.6 * i as f32 / 2e6).collect();
        for isa in isa::tested() {
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
        for isa in isa::tested() {
            let mut got = [0.0; 6];
            exp_all(isa, &mut got, &x);
            assert_eq!(got[..4], [0.0, 0.0, 0.0, 1.0]);
            assert!(got[4].is_nan() && got[5] > 2e38 && got[5].is_finite());
        }
    }

    #[test]
    fn sums_and_maxima_of_every_length() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32 - 20.0).collect();
            assert_eq!(sum(&x, |x| x), x.iter().sum::<f32>());
            assert_eq!(sum_pairs(&x, &x, |x, y| x - 2.0 * y), -x.iter().sum::<f32>());
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
