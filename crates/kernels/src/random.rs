//! Random numbers without state: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A number is a function of (seed, purpose, step, index), so it does not matter who asks, when, or in which
//! order. The seed is the key; the counter's four words are (index / 4 low, index / 4 high, step, purpose), and
//! element `index` is word `index % 4` of that block. Steps are counted modulo 2³².

use crate::isa::{self, vectorised};

/// Four words at a time, for a whole stream.
const WORDS: u64 = 4;

/// One sequence of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    step: u32,
    purpose: u32,
}

/// Dropout with probability `p`: element `i` is kept if `stream.uniform(i) >= p`, and scaled by `1 / (1 - p)`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of dropping an element.
    pub p: f32,
    /// Who is dropped.
    pub stream: Stream,
}

impl Stream {
    /// The numbers for one purpose at one step of a run.
    pub const fn new(seed: u64, purpose: u32, step: u64) -> Stream {
        Stream { key: [seed as u32, (seed >> 32) as u32], step: step as u32, purpose }
    }

    #[inline(always)]
    fn block(&self, block: u64) -> [u32; 4] {
        philox([block as u32, (block >> 32) as u32, self.step, self.purpose], self.key)
    }

    /// 32 random bits.
    pub fn u32(&self, index: u64) -> u32 {
        self.block(index / WORDS)[(index % WORDS) as usize]
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.u32(index))
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³; takes words `2 · index` and the next.
    pub fn f64(&self, index: u64) -> f64 {
        let words = self.block(index / 2);
        let [low, high] = if index.is_multiple_of(2) { [words[0], words[1]] } else { [words[2], words[3]] };
        ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole number below `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        let words = self.block(index / 2);
        let [low, high] = if index.is_multiple_of(2) { [words[0], words[1]] } else { [words[2], words[3]] };
        let bits = u64::from(high) << 32 | u64::from(low);
        ((u128::from(bits) * u128::from(n)) >> 64) as u64
    }

    /// Normal with mean 0 and deviation 1, by Box and Muller's method: element `index` is one of the pair made
    /// from words `index & !1` and the next.
    pub fn normal(&self, index: u64) -> f32 {
        let words = self.block(index / WORDS);
        let pair = (index % WORDS / 2 * 2) as usize;
        box_muller(words[pair], words[pair + 1])[(index % 2) as usize]
    }

    /// Writes [`Stream::uniform`] of the elements from `first` on, which must be a multiple of 4.
    pub fn uniforms(&self, first: u64, out: &mut [f32]) {
        uniforms(isa::current(), self, first, out);
    }

    /// Writes [`Stream::normal`] of the elements from `first` on, which must be a multiple of 4.
    pub fn normals(&self, first: u64, out: &mut [f32]) {
        normals(isa::current(), self, first, out);
    }
}

impl Dropout {
    /// Writes the factor of each of the elements `first..first + out.len()`: 0 or `1 / (1 - p)`.
    #[inline(always)]
    pub(crate) fn factors(&self, first: u64, out: &mut [f32]) {
        let (limit, keep) = (self.limit(), 1.0 / (1.0 - self.p));
        let factor = |word: u32| if (word >> 8) >= limit { keep } else { 0.0 };
        let head = ((WORDS - first % WORDS) % WORDS).min(out.len() as u64) as usize;
        let (head, rest) = out.split_at_mut(head);
        head.iter_mut().zip(first..).for_each(|(out, i)| *out = factor(self.stream.u32(i)));
        let mut block = (first + head.len() as u64) / WORDS;
        let (wide, tail) = rest.as_chunks_mut::<GROUP>();
        for out in wide {
            let words = self.stream.blocks(block);
            for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(words.as_flattened()) {
                *out = [factor(*pair as u32), factor((pair >> 32) as u32)];
            }
            block += BLOCKS as u64;
        }
        tail.iter_mut().zip(block * WORDS..).for_each(|(out, i)| *out = factor(self.stream.u32(i)));
    }

    /// `uniform(i) >= p` as a comparison of whole numbers.
    fn limit(&self) -> u32 {
        (f64::from(self.p) * f64::from(1u32 << 24)).ceil() as u32
    }
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

/// Two independent normal numbers from two random words: a point in the plane whose distance from 0 and angle are drawn.
/// Sums of products are not fused, so that all processors draw the same.
#[inline(always)]
fn box_muller(radius: u32, angle: u32) -> [f32; 2] {
    let radius = (-2.0 * ln(1.0 - unit(radius))).sqrt();
    // A turn has four quarters; the angle is one of them, and at most an eighth of a turn more or less.
    let turns = unit(angle);
    let quarter = (4.0 * turns + 0.5) as u32;
    let x = std::f32::consts::TAU * (turns - 0.25 * quarter as f32);
    let x2 = x * x;
    let sin = x * (1.0 + x2 * (-1.0 / 6.0 + x2 * (1.0 / 120.0 + x2 * (-1.0 / 5040.0 + x2 / 362_880.0))));
    let cos = -1.0 / 720.0 + x2 * (1.0 / 40_320.0 - x2 / 3_628_800.0);
    let cos = 1.0 + x2 * (-0.5 + x2 * (1.0 / 24.0 + x2 * cos));
    let (swap, minus_cos, minus_sin) = (quarter % 2 == 1, (quarter + 1) & 2 != 0, quarter & 2 != 0);
    let (a, b) = if swap { (sin, cos) } else { (cos, sin) };
    [radius * if minus_cos { -a } else { a }, radius * if minus_sin { -b } else { b }]
}

/// The natural logarithm of a number that is at least 2⁻¹²⁶: its exponent's, and 2 artanh((m - 1) / (m + 1)) of what is
/// left.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // The mantissa is brought into √½ … √2.
    let shifted = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (shifted as i32) >> 23;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 / 9.0)));
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * (s + s * series)
}

vectorised! {
    fn uniforms(stream: &Stream, first: u64, out: &mut [f32]) {
        draw(stream, first, out, |left, right| [unit(left), unit(right)]);
    }
}

vectorised! {
    fn normals(stream: &Stream, first: u64, out: &mut [f32]) {
        draw(stream, first, out, box_muller);
    }
}

/// Makes each two elements from their two words.
#[inline(always)]
fn draw(stream: &Stream, first: u64, out: &mut [f32], make: impl Fn(u32, u32) -> [f32; 2]) {
    assert!(first.is_multiple_of(WORDS), "a stream is drawn from by whole blocks, not from element {first}");
    for (out, group) in out.chunks_mut(GROUP).zip(0..) {
        let words = stream.blocks(first / WORDS + group * BLOCKS as u64);
        let mut values = [[0.0; 2]; GROUP / 2];
        for (values, pair) in values.iter_mut().zip(words.as_flattened()) {
            *values = make(*pair as u32, (pair >> 32) as u32);
        }
        out.copy_from_slice(&values.as_flattened()[..out.len()]);
    }
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on one counter.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        counter = round(counter, key);
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[inline(always)]
fn round([c0, c1, c2, c3]: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [p0, p1] = [u64::from(c0) * u64::from(MULTIPLIERS[0]), u64::from(c2) * u64::from(MULTIPLIERS[1])];
    [(p1 >> 32) as u32 ^ c1 ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c3 ^ key[1], p0 as u32]
}

/// Blocks computed side by side: one vector of the widest.
const BLOCKS: usize = 8;
/// Elements whose dropout is decided together.
pub(crate) const GROUP: usize = BLOCKS * WORDS as usize;

impl Stream {
    /// The words of `BLOCKS` consecutive blocks, in the order of their elements, two words in each value (the first
    /// in its lower half). One turn of the loop is one block, in a form that the compiler turns into one lane of a
    /// vector: a word in a 64-bit lane can be multiplied as it is, and what stands above its 32 bits is ignored.
    #[inline(always)]
    fn blocks(&self, first: u64) -> [[u64; 2]; BLOCKS] {
        const LOW: u64 = 0xffff_ffff;
        let mut keys = [[0; 2]; 10];
        let mut key = self.key;
        for keys in &mut keys {
            *keys = key.map(u64::from);
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (step, purpose) = (u64::from(self.step), u64::from(self.purpose));
        let mut words = [[0; 2]; BLOCKS];
        for (lane, words) in words.iter_mut().enumerate() {
            let block = first + lane as u64;
            let [mut c0, mut c1, mut c2, mut c3] = [block, block >> 32, step, purpose];
            for key in keys {
                let p0 = (c0 & LOW) * u64::from(MULTIPLIERS[0]);
                let p1 = (c2 & LOW) * u64::from(MULTIPLIERS[1]);
                [c0, c1, c2, c3] = [(p1 >> 32) ^ c1 ^ key[0], p1, (p0 >> 32) ^ c3 ^ key[1], p0];
            }
            *words = [c0 & LOW | c1 << 32, c2 & LOW | c3 << 32];
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with the generator.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(philox([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(philox(pi, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn moments() {
        let stream = Stream::new(3, 1, 4);
        let n = 100_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| f64::from(stream.uniform(i))) - 0.5).abs() < 0.005);
        assert!((mean(&|i| stream.f64(i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| f64::from(stream.normal(i))).abs() < 0.015);
        assert!((mean(&|i| f64::from(stream.normal(i)).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|i| stream.below(i, 10) as f64) - 4.5).abs() < 0.05);
        assert!((0..n).all(|i| stream.below(i, 7) < 7));
    }

    #[test]
    fn normals_are_those_of_the_formula() {
        for radius in
            [0, 1 << 8, 77 << 8, 1 << 31, (1 << 31) + (9 << 20), 0xb504_f300, u32::MAX - 255, u32::MAX]
        {
            for angle in (0..64).map(|eighth| eighth << 26).chain([255 << 8, 0x5555_5555, u32::MAX]) {
                let [r, turns] = [radius, angle].map(|word| f64::from(unit(word)));
                let (r, angle) = ((-2.0 * (1.0 - r).ln()).sqrt(), std::f64::consts::TAU * turns);
                let got = box_muller(radius, (turns * f64::from(1u32 << 24)) as u32 * 256);
                for (got, want) in got.into_iter().zip([r * angle.cos(), r * angle.sin()]) {
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= 4e-7 * r.max(1e-3), "{r} at {turns} turns: {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn many_numbers_are_those_drawn_one_by_one_on_every_processor() {
        let stream = Stream::new(5, 6, 7);
        for isa in isa::tested() {
            for (first, n) in [(0, 1), (4, 31), (1 << 33, 100), (8, 64)] {
                let (mut uniform, mut normal) = (vec![0.0; n], vec![0.0; n]);
                uniforms(isa, &stream, first, &mut uniform);
                normals(isa, &stream, first, &mut normal);
                for i in 0..n {
                    let index = first + i as u64;
                    assert_eq!(
                        (uniform[i], normal[i]),
                        (stream.uniform(index), stream.normal(index)),
                        "{isa:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn dropout_factors_are_those_of_the_stream_wherever_one_starts() {
        let dropout = Dropout { p: 0.3, stream: Stream::new(9, 8, 7) };
        for (first, n) in [(0, 100), (1, 64), (3, 2), (6, 331), (1 << 33, 140), ((1 << 34) - 20, 150)] {
            let mut got = vec![0.0; n];
            dropout.factors(first, &mut got);
            for (i, &got) in got.iter().enumerate() {
                let kept = dropout.stream.uniform(first + i as u64) >= 0.3;
                assert_eq!(got, if kept { 1.0 / 0.7 } else { 0.0 }, "first {first}, {i}");
            }
        }
    }
}
