//! ggml's types of numbers: plain ones, and blocks of few bits, decoded and made bit for bit as ggml's reference does.
//!
//! A row is cut into blocks of 32 (the legacy types, here) or of 256 (the [`k_quants`](super::k_quants)). In a legacy
//! block lie a scale `d` and, in types 1, a smallest value `m`, each a half; then the numbers' fifth bits, where they have
//! five; then the numbers, a byte each or two in a byte: the first sixteen in the low bits, the others in the high ones.
//!
//! | type | a weight is | bytes of a block |
//! |---|---|---|
//! | Q8_0 | `q d`, q from -128 to 127 | 34 |
//! | Q4_0 | `(q - 8) d`, q from 0 to 15 | 18 |
//! | Q4_1 | `q d + m`, q from 0 to 15 | 20 |
//! | Q5_0 | `(q - 16) d`, q from 0 to 31 | 22 |
//! | Q5_1 | `q d + m`, q from 0 to 31 | 24 |

use tensor::blocks::{BLOCK, BlockFormat};
use tensor::weights::Form;
use tensor::{bf16, f16, pool};

use super::k_quants;

/// A type of numbers that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

/// Name, number in files, weights in a block, bytes of a block.
const TABLE: [(GgmlType, &str, u32, usize, usize); 11] = [
    (GgmlType::F32, "F32", 0, 1, 4),
    (GgmlType::F16, "F16", 1, 1, 2),
    (GgmlType::Bf16, "BF16", 30, 1, 2),
    (GgmlType::Q8_0, "Q8_0", 8, BLOCK, 34),
    (GgmlType::Q4_0, "Q4_0", 2, BLOCK, 18),
    (GgmlType::Q4_1, "Q4_1", 3, BLOCK, 20),
    (GgmlType::Q5_0, "Q5_0", 6, BLOCK, 22),
    (GgmlType::Q5_1, "Q5_1", 7, BLOCK, 24),
    (GgmlType::Q4K, "Q4_K", 12, k_quants::BLOCK, 144),
    (GgmlType::Q5K, "Q5_K", 13, k_quants::BLOCK, 176),
    (GgmlType::Q6K, "Q6_K", 14, k_quants::BLOCK, 210),
];

/// The names of types that are not read, by their numbers.
const OTHERS: [(u32, &str); 6] =
    [(10, "Q2_K"), (11, "Q3_K"), (20, "IQ4_NL"), (23, "IQ4_XS"), (28, "F64"), (39, "MXFP4")];

/// What to call a type that is not read.
pub fn other_name(number: u32) -> String {
    let known = OTHERS.iter().find(|other| other.0 == number);
    known.map_or_else(|| format!("number {number} of ggml"), |other| other.1.to_owned())
}

impl GgmlType {
    fn row(self) -> &'static (GgmlType, &'static str, u32, usize, usize) {
        TABLE.iter().find(|row| row.0 == self).expect("the table has all")
    }

    /// The type of this number, or the number itself.
    pub fn from_number(number: u32) -> Result<GgmlType, u32> {
        TABLE.iter().find(|row| row.2 == number).map(|row| row.0).ok_or(number)
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub fn number(self) -> u32 {
        self.row().2
    }

    /// Weights in a block.
    pub fn block(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Bytes of a tensor; `None` if it has none of this type, or more than memory can be.
    pub fn bytes_for(self, shape: &[usize]) -> Option<usize> {
        let (inner, outer) = shape.split_last().unwrap_or((&1, &[]));
        if !inner.is_multiple_of(self.block()) {
            return None;
        }
        let row = (inner / self.block()).checked_mul(self.block_bytes())?;
        outer.iter().try_fold(row, |bytes, &n| bytes.checked_mul(n))
    }

    /// The form nearest to it for running: with the same values, but for those of the types that we do not have, which
    /// are rounded to bfloat16.
    pub fn form(self) -> Form {
        match self {
            GgmlType::F32 => Form::F32,
            GgmlType::F16 => Form::F16,
            GgmlType::Q8_0 => Form::Blocks(BlockFormat::Q8),
            GgmlType::Q4_0 => Form::Blocks(BlockFormat::Q4),
            _ => Form::Bf16,
        }
    }

    /// Whether [`GgmlType::form`] has the same values.
    pub fn is_ours(self) -> bool {
        self == GgmlType::Bf16 || self.form() != Form::Bf16
    }

    /// The values of whole blocks.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let (block, block_bytes) = (self.block(), self.block_bytes());
        let mut out = vec![0.0; bytes.len() / block_bytes * block];
        /// Values that a thread takes at once: whole blocks of every type.
        const PORTION: usize = 1 << 14;
        pool::for_each_chunk_mut(&mut out, PORTION, |i, out| {
            let bytes = &bytes[i * PORTION / block * block_bytes..];
            let halves = bytes.as_chunks::<2>().0.iter();
            match self {
                GgmlType::F32 => {
                    out.iter_mut()
                        .zip(bytes.as_chunks().0)
                        .for_each(|(x, &bytes)| *x = f32::from_le_bytes(bytes));
                }
                GgmlType::F16 => {
                    out.iter_mut()
                        .zip(halves)
                        .for_each(|(x, &bytes)| *x = f16::from_le_bytes(bytes).to_f32());
                }
                GgmlType::Bf16 => {
                    out.iter_mut()
                        .zip(halves)
                        .for_each(|(x, &bytes)| *x = bf16::from_le_bytes(bytes).to_f32());
                }
                _ => {
                    let blocks = out.chunks_exact_mut(block).zip(bytes.chunks_exact(block_bytes));
                    blocks.for_each(|(out, bytes)| self.decode_block(bytes, out));
                }
            }
        });
        out
    }

    /// The values of a block of a type that has more than one in it.
    fn decode_block(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => unreachable!("no blocks"),
            GgmlType::Q8_0 | GgmlType::Q4_0 => {
                let (scale, numbers) = self.numbers(bytes);
                let scale = scale.to_f32();
                out.iter_mut().zip(numbers).for_each(|(out, q)| *out = f32::from(q) * scale);
            }
            GgmlType::Q4_1 => {
                let (d, m) = (half(bytes, 0), half(bytes, 2));
                out.iter_mut().zip(nibbles(&bytes[4..])).for_each(|(out, q)| *out = d * f32::from(q) + m);
            }
            GgmlType::Q5_0 => {
                let d = half(bytes, 0);
                let numbers = nibbles(&bytes[6..]).zip(fifth_bits(&bytes[2..]));
                let weight = |(low, high)| d * (f32::from(low + high) - 16.0);
                out.iter_mut().zip(numbers).for_each(|(out, q)| *out = weight(q));
            }
            GgmlType::Q5_1 => {
                let (d, m) = (half(bytes, 0), half(bytes, 2));
                let numbers = nibbles(&bytes[8..]).zip(fifth_bits(&bytes[4..]));
                let weight = |(low, high)| d * f32::from(low + high) + m;
                out.iter_mut().zip(numbers).for_each(|(out, q)| *out = weight(q));
            }
            GgmlType::Q4K => k_quants::decode_q4(bytes, out),
            GgmlType::Q5K => k_quants::decode_q5(bytes, out),
            GgmlType::Q6K => k_quants::decode_q6(bytes, out),
        }
    }

    /// The scale and the numbers of a block whose weights are their products: Q8_0 and Q4_0, which are ours, too.
    pub fn numbers(self, bytes: &[u8]) -> (f16, [i8; BLOCK]) {
        let scale = f16::from_le_bytes([bytes[0], bytes[1]]);
        let mut numbers = [0; BLOCK];
        match self {
            GgmlType::Q8_0 => {
                numbers.iter_mut().zip(&bytes[2..]).for_each(|(q, &byte)| *q = byte.cast_signed())
            }
            GgmlType::Q4_0 => {
                numbers.iter_mut().zip(nibbles(&bytes[2..])).for_each(|(q, n)| *q = n.cast_signed() - 8)
            }
            other => unreachable!("{} is not one of ours", other.name()),
        }
        // Our blocks have no negative zero, which ggml gives to blocks of zeros.
        (if scale.to_f32() == 0.0 { f16::from_f32(0.0) } else { scale }, numbers)
    }

    /// The reverse of [`GgmlType::numbers`], of numbers that the type has.
    pub fn store(self, scale: f16, numbers: &[i8; BLOCK], out: &mut [u8]) {
        out[..2].copy_from_slice(&scale.to_le_bytes());
        let (low, high) = numbers.split_at(BLOCK / 2);
        match self {
            GgmlType::Q8_0 => {
                out[2..].iter_mut().zip(numbers).for_each(|(byte, q)| *byte = q.cast_unsigned())
            }
            GgmlType::Q4_0 => {
                let nibble = |q: i8| (q + 8).cast_unsigned();
                let pairs = low.iter().zip(high).map(|(&low, &high)| nibble(low) | nibble(high) << 4);
                out[2..].iter_mut().zip(pairs).for_each(|(byte, pair)| *byte = pair);
            }
            other => unreachable!("{} is not one of ours", other.name()),
        }
    }

    /// Whole blocks of finite values, in a type that is written here.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let (block, block_bytes) = (self.block(), self.block_bytes());
        let mut out = vec![0; values.len() / block * block_bytes];
        /// Blocks that a thread takes at once.
        const PORTION: usize = 64;
        pool::for_each_chunk_mut(&mut out, PORTION * block_bytes, |i, out| {
            let values = &values[i * PORTION * block..];
            for (values, out) in values.chunks_exact(block).zip(out.chunks_exact_mut(block_bytes)) {
                self.encode_block(values, out);
            }
        });
        out
    }

    fn encode_block(self, values: &[f32], out: &mut [u8]) {
        match self {
            GgmlType::F32 => out.copy_from_slice(&values[0].to_le_bytes()),
            GgmlType::F16 => out.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
            GgmlType::Bf16 => out.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
            GgmlType::Q8_0 => {
                let d = values.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
                let inverse = inverse(d);
                let numbers = std::array::from_fn(|i| (values[i] * inverse).round() as i8);
                self.store(f16::from_f32(d), &numbers, out);
            }
            GgmlType::Q4_0 => {
                // The first of the largest becomes -8, the number that has no opposite.
                let largest =
                    values.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                let d = largest / -8.0;
                let inverse = inverse(d);
                let number = |x: f32| (x * inverse + 8.5).min(15.0) as i8 - 8;
                self.store(f16::from_f32(d), &std::array::from_fn(|i| number(values[i])), out);
            }
            other => unreachable!("{} is not written", other.name()),
        }
    }
}

/// What weights are multiplied by; of a scale of zero, zero.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The half at a byte.
pub fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The 32 numbers of four bits in 16 bytes.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let bytes = &bytes[..BLOCK / 2];
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// 16 for each of 32 bits that is set, else 0.
fn fifth_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    (0..BLOCK).map(|i| (bytes[i / 8] >> (i % 8) & 1) << 4)
}
