//! ggml's k-quants of 4, 5 and 6 bits: blocks of 256 whose parts have scales of their own, in whole numbers.
//!
//! - Q4_K: halves `d` and `dmin`; 8 scales s and 8 minima m, of 6 bits each; 256 numbers of 4 bits. Weight i is
//!   `d s q - dmin m`, with the s and m of part `i / 32`.
//! - Q5_K: the same, with a fifth bit for each number before the four.
//! - Q6_K: 256 numbers of 6 bits, four of them in one place and two in another; 16 scales of 8 bits with a sign; a half
//!   `d`. Weight i is `d s (q - 32)`, with the s of part `i / 16`.

use super::types::half;

/// Weights in a block.
pub const BLOCK: usize = 256;
/// Weights that have a scale and a minimum in common, in Q4_K and Q5_K.
const PART: usize = 32;

/// `d s` and `dmin m` of each part, from the first 16 bytes of a block.
///
/// Of the 12 bytes behind the halves, the first four hold four scales, the next four minima, of which the high two bits
/// belong to the other four; of those, the low four bits lie in the last bytes, a scale's below a minimum's.
fn scales_and_minima(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    std::array::from_fn(|i| {
        let j = i % 4;
        let (scale, minimum) = if i < 4 {
            (packed[j] & 63, packed[4 + j] & 63)
        } else {
            (packed[8 + j] & 15 | packed[j] >> 6 << 4, packed[8 + j] >> 4 | packed[4 + j] >> 6 << 4)
        };
        (d * f32::from(scale), dmin * f32::from(minimum))
    })
}

/// The numbers' low four bits: bytes of 32 hold one part low and the next one high.
fn nibble(bytes: &[u8], part: usize, i: usize) -> u8 {
    bytes[part / 2 * PART + i] >> (4 * (part % 2)) & 15
}

/// Decodes a block of Q4_K.
pub fn decode_q4(block: &[u8], out: &mut [f32]) {
    let numbers = &block[16..144];
    for (part, (out, (scale, minimum))) in
        out.chunks_exact_mut(PART).zip(scales_and_minima(block)).enumerate()
    {
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(nibble(numbers, part, i)) - minimum;
        }
    }
}

/// Decodes a block of Q5_K. Bit `part` of byte i is the fifth of number i of that part.
pub fn decode_q5(block: &[u8], out: &mut [f32]) {
    let (high, numbers) = (&block[16..48], &block[48..176]);
    for (part, (out, (scale, minimum))) in
        out.chunks_exact_mut(PART).zip(scales_and_minima(block)).enumerate()
    {
        for (i, out) in out.iter_mut().enumerate() {
            let number = nibble(numbers, part, i) | (high[i] >> part & 1) << 4;
            *out = scale * f32::from(number) - minimum;
        }
    }
}

/// Decodes a block of Q6_K. Its halves of 128 weights lie one after the other: 64 bytes have the low four bits of four
/// runs of 32, the first two runs low and the others high; 32 bytes have the high bits, those of the first run lowest.
pub fn decode_q6(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (i, out) in out.iter_mut().enumerate() {
        let (part, run, at) = (i / 128, i % 128 / 32, i % 32);
        let four = low[64 * part + 32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
        let two = high[32 * part + at] >> (2 * run) & 3;
        let number = (four | two << 4).cast_signed() - 32;
        *out = d * f32::from(scales[i / 16].cast_signed()) * f32::from(number);
    }
}
