//! A measure `r = Σa / Σb` over tokens that come in windows, and its standard error.
//!
//! The error of a ratio from n units is `√(n / (n - 1) · Σ (a_i - r b_i)²) / Σb`. Predictions of one window are not
//! independent, so windows should be the units (the cluster-robust estimate): tokens as units give too little.
//! But few windows, or a last one that is short, say little about how windows differ, and that estimate may come
//! out near 0. So the larger of the two is taken; for a text of very few windows it is still too small.

/// Running sums of a measure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measure {
    tokens: Ratio,
    windows: Ratio,
    window: (f64, f64),
}

impl Measure {
    /// Counts a token.
    pub fn add(&mut self, a: f64, b: f64) {
        self.tokens.add(a, b);
        self.window.0 += a;
        self.window.1 += b;
    }

    /// Ends a window, to which all tokens since the last end belong.
    pub fn end_window(&mut self) {
        let (a, b) = std::mem::take(&mut self.window);
        self.windows.add(a, b);
    }

    /// The measure.
    pub fn value(&self) -> f64 {
        self.tokens.value()
    }

    /// Its standard error; NaN for a single token.
    pub fn stderr(&self) -> f64 {
        self.tokens.stderr().max(self.windows.stderr()) // `max` passes over the NaN of a single window
    }

    /// Σb.
    pub fn total(&self) -> f64 {
        self.tokens.b
    }
}

/// Sums of two quantities over units, and of their products.
#[derive(Clone, Copy, Debug, Default)]
struct Ratio {
    n: f64,
    a: f64,
    b: f64,
    aa: f64,
    ab: f64,
    bb: f64,
}

impl Ratio {
    fn add(&mut self, a: f64, b: f64) {
        self.n += 1.0;
        self.a += a;
        self.b += b;
        self.aa += a * a;
        self.ab += a * b;
        self.bb += b * b;
    }

    fn value(&self) -> f64 {
        self.a / self.b
    }

    /// NaN for a single unit.
    fn stderr(&self) -> f64 {
        if self.n < 2.0 {
            return f64::NAN;
        }
        let r = self.value();
        let spread = self.aa - 2.0 * r * self.ab + r * r * self.bb; // Σ (a - r b)²
        (self.n / (self.n - 1.0) * spread.max(0.0)).sqrt() / self.b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(windows: &[&[(f64, f64)]]) -> Measure {
        let mut measure = Measure::default();
        for window in windows {
            window.iter().for_each(|&(a, b)| measure.add(a, b));
            measure.end_window();
        }
        measure
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "got {got}, want {want}");
    }

    #[test]
    fn the_formula() {
        // Windows (3, 4), (5, 4), (2, 8): r = 10/16, differences 0.5, 2.5, -3. Tokens differ less.
        let halves = [[(1.5, 2.0); 2], [(2.5, 2.0); 2], [(1.0, 4.0); 2]];
        let got = measure(&[&halves[0], &halves[1], &halves[2]]);
        close(got.value(), 0.625);
        close(got.stderr(), (1.5f64 * 15.5).sqrt() / 16.0);
        assert_eq!(got.total(), 16.0);
    }

    #[test]
    fn a_single_window_is_judged_by_its_tokens() {
        // Mean 2, deviation √(14/3).
        let got = measure(&[&[(1.0, 1.0), (5.0, 1.0), (2.0, 1.0), (0.0, 1.0)]]);
        close(got.stderr(), (14.0f64 / 3.0 / 4.0).sqrt());
        // Sums of such numbers are rounded, which must not look like a difference.
        for i in 1..200 {
            let a = f64::from(i) / 7.0;
            let got = measure(&[&[(a, 3.0), (a * a, 5.0), (1.0 / a, 9.0)]]);
            assert!(got.stderr().is_finite() && got.stderr() > 0.0, "{a}: {got:?}");
            assert!(measure(&[&[(a, 3.0)]]).stderr().is_nan(), "{a}");
        }
    }

    #[test]
    fn equal_tokens_leave_no_error_but_rounding() {
        for i in 1..200 {
            let a = f64::from(i) / 7.0;
            let got = measure(&[&[(a, 1.0); 50], &[(a, 1.0); 33]]);
            assert!((0.0..1e-6 * a).contains(&got.stderr()), "{a}: {}", got.stderr());
        }
    }

    #[test]
    fn copies_within_a_window_do_not_feign_certainty() {
        let units = [1.0, 4.0, 2.5, 0.5];
        let copies = units.map(|a| [(a, 1.0); 9]);
        let copied = measure(&copies.each_ref().map(|window| &window[..]));
        let alone = measure(&[&units.map(|a| (a, 1.0))]);
        assert!(alone.stderr() > 0.5);
        close(copied.stderr(), alone.stderr());
    }

    #[test]
    fn a_short_last_window_does_not_feign_certainty() {
        let tokens: Vec<(f64, f64)> = (0..101).map(|i| (f64::from(i * 37 % 101), 1.0)).collect();
        let alone = measure(&[&tokens]).stderr();
        assert!(alone > 2.0);
        assert!(measure(&[&tokens[..100], &tokens[100..]]).stderr() >= alone);
    }
}
