//! Activation functions and their slopes, for whoever has the values at hand.
//!
//! Each is a plain loop over a row that the compiler vectorises; [`crate::linear`] runs it on what a product has just made.

use crate::isa::fma;
use crate::math::{exp, map, map_pairs};

/// A function of each element between two linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: GPT-2's approximation of GELU (Hendrycks and Gimpel, 2016).
    #[default]
    GeluNew,
    /// `x Φ(x)`, with Φ the normal distribution's: GELU itself.
    Gelu,
    /// `x σ(1.702 x)`, with `σ(x) = 1 / (1 + e⁻ˣ)`.
    QuickGelu,
    /// `x σ(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `tanh x`.
    Tanh,
    /// `σ(x)`.
    Sigmoid,
}

/// √(2/π), GPT-2's constant in GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
/// The factor in `QuickGelu`.
const QUICK: f32 = 1.702;

/// `σ(x)`.
#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// `1 / (1 + e^(-2u))` for `GeluNew`'s u: then `0.5 (1 + tanh u)`.
#[inline(always)]
fn gate<const FMA: bool>(x: f32) -> f32 {
    let minus_2u = x * fma::<FMA>(-2.0 * SQRT_2_OVER_PI * CUBIC * x, x, -2.0 * SQRT_2_OVER_PI);
    1.0 / (1.0 + exp::<FMA>(minus_2u))
}

#[inline(always)]
fn gelu_new_slope<const FMA: bool>(x: f32) -> f32 {
    let g = gate::<FMA>(x);
    let du = SQRT_2_OVER_PI * fma::<FMA>(3.0 * CUBIC * x, x, 1.0);
    g + x * g * (1.0 - g) * 2.0 * du
}

/// `Φ(x)` and `e^(-x²/2)`.
///
/// With `t = 1 / (1 + 0.33 |x| / √2)`, `Φ(-|x|) = ½ e^(-x²/2) t P(t)`: P of degree 7 fits `eᶻ² erfc(z)` for z up to 9.5 to
/// within 8e-8 of its size (the form is that of Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    let bell = exp::<FMA>(-0.5 * x * x);
    let t = 1.0 / fma::<FMA>(0.33 * std::f32::consts::FRAC_1_SQRT_2, x.abs(), 1.0);
    let p = fma::<FMA>(t, -0.135_929_1, 0.462_689_56);
    let p = fma::<FMA>(t, p, -0.355_441_36);
    let p = fma::<FMA>(t, p, 0.412_543_96);
    let p = fma::<FMA>(t, p, 0.045_009_32);
    let p = fma::<FMA>(t, p, 0.201_924_25);
    let p = fma::<FMA>(t, p, 0.182_837_17);
    let p = fma::<FMA>(t, p, 0.186_366_11);
    let below = 0.5 * bell * t * p;
    (if x < 0.0 { below } else { 1.0 - below }, bell)
}

#[inline(always)]
fn gelu_slope<const FMA: bool>(x: f32) -> f32 {
    const PEAK: f32 = 0.398_942_3; // 1 / √(2π)
    let (phi, bell) = normal::<FMA>(x);
    fma::<FMA>(PEAK * x, bell, phi)
}

/// The slope of `x σ(a x)`.
#[inline(always)]
fn gated_slope<const FMA: bool>(a: f32, x: f32) -> f32 {
    let g = sigmoid::<FMA>(a * x);
    fma::<FMA>(a * x * g, 1.0 - g, g)
}

/// `tanh x`: near 0, where the quotient would cancel, an odd polynomial.
#[inline(always)]
fn tanh<const FMA: bool>(x: f32) -> f32 {
    let s = x * x;
    let p = fma::<FMA>(s, -0.005_906_136, 0.020_805_59);
    let p = fma::<FMA>(s, p, -0.053_786_736);
    let p = fma::<FMA>(s, p, 0.133_319_59);
    let p = fma::<FMA>(s, p, -0.333_333);
    let near = fma::<FMA>(x * s, p, x);
    let far = 1.0 - 2.0 / (exp::<FMA>(2.0 * x) + 1.0);
    if x.abs() < 0.6 { near } else { far }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x } // NaN stays
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 8] = {
        use Activation::*;
        [GeluNew, Gelu, QuickGelu, Silu, Relu, Relu2, Tanh, Sigmoid]
    };

    /// `x = f(x)`.
    #[inline(always)]
    pub(crate) fn apply<const FMA: bool>(self, x: &mut [f32]) {
        match self {
            Activation::GeluNew => map(x, |x| x * gate::<FMA>(x)),
            Activation::Gelu => map(x, |x| x * normal::<FMA>(x).0),
            Activation::QuickGelu => map(x, |x| x * sigmoid::<FMA>(QUICK * x)),
            Activation::Silu => map(x, |x| x * sigmoid::<FMA>(x)),
            Activation::Relu => map(x, relu),
            Activation::Relu2 => map(x, |x| relu(x) * relu(x)),
            Activation::Tanh => map(x, tanh::<FMA>),
            Activation::Sigmoid => map(x, sigmoid::<FMA>),
        }
    }

    /// `dx = dx · f'(pre)`, where `wide` gives the value of an element of `pre`.
    #[inline(always)]
    pub(crate) fn multiply_slope<const FMA: bool, T: Copy>(
        self,
        dx: &mut [f32],
        pre: &[T],
        wide: impl Fn(T) -> f32,
    ) {
        match self {
            Activation::GeluNew => map_pairs(dx, pre, |dx, x| dx * gelu_new_slope::<FMA>(wide(x))),
            Activation::Gelu => map_pairs(dx, pre, |dx, x| dx * gelu_slope::<FMA>(wide(x))),
            Activation::QuickGelu => map_pairs(dx, pre, |dx, x| dx * gated_slope::<FMA>(QUICK, wide(x))),
            Activation::Silu => map_pairs(dx, pre, |dx, x| dx * gated_slope::<FMA>(1.0, wide(x))),
            Activation::Relu => map_pairs(dx, pre, |dx, x| if wide(x) > 0.0 { dx } else { dx * 0.0 }),
            Activation::Relu2 => map_pairs(dx, pre, |dx, x| dx * 2.0 * relu(wide(x))),
            Activation::Tanh => map_pairs(dx, pre, |dx, x| {
                let y = tanh::<FMA>(wide(x));
                dx * fma::<FMA>(-y, y, 1.0)
            }),
            Activation::Sigmoid => map_pairs(dx, pre, |dx, x| {
                let g = sigmoid::<FMA>(wide(x));
                dx * g * (1.0 - g)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::{bf16, widen};
    use crate::isa::{self, vectorised};
    use crate::reference;

    vectorised! {
        fn apply_on(activation: Activation, x: &mut [f32]) {
            activation.apply::<FMA>(x);
        }
    }

    vectorised! {
        fn slope_on(activation: Activation, dx: &mut [f32], pre: &[f32]) {
            activation.multiply_slope::<FMA, f32>(dx, pre, |x| x);
        }
    }

    vectorised! {
        fn half_slope_on(activation: Activation, dx: &mut [f32], pre: &[bf16]) {
            activation.multiply_slope::<FMA, bf16>(dx, pre, widen);
        }
    }

    /// From where all are flat to where all are, in steps that bfloat16 holds, so that 0 is among them.
    fn points() -> Vec<f32> {
        (-1600..=1600).map(|i| i as f32 / 128.0).map(|x| bf16::from_f32(x).to_f32()).collect()
    }

    #[test]
    fn values_and_slopes_agree_with_the_plain_version_on_every_instruction_set() {
        for activation in Activation::ALL {
            for isa in isa::tested() {
                for n in [1, 7, 8, 9, 63, 64, 65, points().len()] {
                    let x: Vec<f32> = points().into_iter().rev().take(n).collect();
                    let (mut y, mut dx, mut half_dx) = (x.clone(), vec![2.0; n], vec![2.0; n]);
                    apply_on(isa, activation, &mut y);
                    slope_on(isa, activation, &mut dx, &x);
                    let half: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
                    half_slope_on(isa, activation, &mut half_dx, &half);
                    assert_eq!(dx, half_dx);
                    for i in 0..n {
                        let (want, slope) = reference::activation(activation, f64::from(x[i]));
                        for (what, got, want) in [("", y[i], want), ("slope of ", dx[i] / 2.0, slope)] {
                            let error = (f64::from(got) - want).abs();
                            assert!(
                                error <= 2e-6 * (1.0 + want.abs()),
                                "{isa:?} {what}{activation:?}({}) = {got}, not {want}",
                                x[i]
                            );
                        }
                    }
                }
            }
        }
    }

    /// Small values keep their digits.
    #[test]
    fn near_zero_errors_are_relative() {
        for activation in [Activation::GeluNew, Activation::Gelu, Activation::Tanh, Activation::Silu] {
            let x: Vec<f32> = (1..2000).flat_map(|i| [i as f32 * 1e-3, i as f32 * -1e-3]).collect();
            for isa in isa::tested() {
                let mut y = x.clone();
                apply_on(isa, activation, &mut y);
                for (x, y) in x.iter().zip(y) {
                    let (want, _) = reference::activation(activation, f64::from(*x));
                    let error = (f64::from(y) - want).abs() / want.abs();
                    assert!(error < 2e-6, "{isa:?} {activation:?}({x}) = {y}, not {want}");
                }
            }
        }
    }

    #[test]
    fn plain_slopes_are_those_of_finite_differences() {
        for activation in Activation::ALL {
            for x in (-80..80).map(|i| f64::from(i) / 16.0 + 0.01) {
                let value = |x| reference::activation(activation, x).0;
                let want = (value(x + 1e-5) - value(x - 1e-5)) / 2e-5;
                let (_, got) = reference::activation(activation, x);
                assert!((got - want).abs() < 1e-6, "{activation:?}'({x}) = {got}, not {want}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_lost_and_large_values_are_no_trouble() {
        for activation in Activation::ALL {
            for isa in isa::tested() {
                let mut y = [f32::NAN, 1e30, -1e30];
                apply_on(isa, activation, &mut y);
                assert!(y[0].is_nan() && !y[1].is_nan() && y[2].abs() <= 1.0, "{isa:?} {activation:?} {y:?}");
                let mut dx = [f32::NAN, 1.0, 1.0];
                slope_on(isa, activation, &mut dx, &[1.0, f32::NAN, -1e30]);
                assert!(dx[0].is_nan(), "{isa:?} {activation:?}");
                assert!(activation == Activation::Relu || dx[1].is_nan(), "{isa:?} {activation:?}");
            }
        }
    }
}
