//! Numbers of JSON that every reader can read: its grammar allows `1e999`, which is more than a `f64` holds, so that some
//! readers refuse it and others take it for infinity.

/// Digits before the point and the exponent, together, at most: 10^300 is near the largest `f64`.
const MOST: u32 = 300;

/// How far a line of JSON has come, as far as numbers are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Between values, or in `true`, `false` and `null`.
    #[default]
    Outside,
    /// In a string, or behind a backslash in one.
    String,
    Escape,
    /// Before the point, after it, behind the `e`, and in the exponent.
    Whole(u32),
    Fraction(u32),
    Exponent(u32),
    Negative(u32),
    Positive(u32, u32),
}

impl Numbers {
    /// After more bytes; none where a number has become too large.
    pub fn after(self, bytes: &[u8]) -> Option<Numbers> {
        bytes.iter().try_fold(self, |at, &byte| at.next(byte))
    }

    fn next(self, byte: u8) -> Option<Numbers> {
        use Numbers::*;
        let next = match (self, byte) {
            (String, b'\\') => Escape,
            (String, b'"') => Outside,
            (String | Escape, _) => String,
            (Outside, b'0'..=b'9') => Whole(1),
            (Whole(n), b'0'..=b'9') => Whole(n + 1),
            (Whole(n), b'.') => Fraction(n),
            (Whole(n) | Fraction(n), b'e' | b'E') => Exponent(n),
            (Fraction(_) | Negative(_), b'0'..=b'9') => self,
            (Exponent(n), b'-') => Negative(n),
            (Exponent(n), b'+') => Positive(n, 0),
            (Exponent(n), b'0'..=b'9') => Positive(n, u32::from(byte - b'0')),
            (Positive(n, exponent), b'0'..=b'9') => Positive(n, 10 * exponent + u32::from(byte - b'0')),
            (_, b'"') => String,
            _ => Outside,
        };
        match next {
            Whole(n) | Positive(n, 0) if n > MOST => None,
            Positive(n, exponent) if n + exponent > MOST => None,
            next => Some(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_read() {
        let fits = |text: &str| Numbers::default().after(text.as_bytes()).is_some();
        for good in
            ["1", "-0.5e-99999", "1e299", "[1e9, 2e9]", r#""1e999""#, r#""a\"1e999", 1"#, &"9".repeat(300)]
        {
            assert!(fits(good), "{good}");
            assert!(
                serde_json::Deserializer::from_str(good).into_iter::<serde_json::Value>().next().is_some()
            );
        }
        for bad in
            ["1e999", "[1, 2.5E+400", "\"a\":1e0301", &"9".repeat(301), &format!("{}e9", "1".repeat(295))]
        {
            assert!(!fits(bad), "{bad}");
        }
        let (a, b) = ("{\"a\":12.5e", "77,\"b");
        assert_eq!(
            Numbers::default().after(a.as_bytes()).unwrap().after(b.as_bytes()),
            Numbers::default().after(format!("{a}{b}").as_bytes())
        );
    }
}
