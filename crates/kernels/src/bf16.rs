//! bfloat16: an `f32` without its last 16 bits. Conversions, and slices that are one or the other.
//!
//! Rounding is to the nearest, ties to even, and NaN stays NaN.

use half::slice::HalfFloatSliceExt;
pub use half::{bf16, f16};

use crate::gemm::tiles::prefetch_near;
use crate::isa::{self, Isa, vectorised};
use crate::pool::{self, Shared};

/// Elements of one task.
const CHUNK: usize = 1 << 14;

/// The nearest bfloat16, in whole-number steps that the compiler vectorises.
#[inline(always)]
pub(crate) fn narrow(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    bf16::from_bits(if x.is_nan() { 0x7fc0 } else { rounded })
}

/// The same value.
#[inline(always)]
pub(crate) fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

vectorised! {
    pub(crate) fn narrow_into(out: &mut [bf16], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = narrow(x));
    }
}

vectorised! {
    pub(crate) fn widen_into(out: &mut [f32], x: &[bf16]) {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = widen(x));
    }
}

/// A number of a matrix, of any of the three types.
pub(crate) trait Element: Copy {
    /// The nearest bfloat16.
    fn narrow(self) -> bf16;
    /// The same value.
    fn f32(self) -> f32;
    /// Rounds a slice.
    fn narrow_into(isa: Isa, out: &mut [bf16], x: &[Self]);
    /// Widens a slice.
    fn widen_into(isa: Isa, out: &mut [f32], x: &[Self]);
}

impl Element for f32 {
    fn narrow(self) -> bf16 {
        narrow(self)
    }
    fn f32(self) -> f32 {
        self
    }
    fn narrow_into(isa: Isa, out: &mut [bf16], x: &[f32]) {
        narrow_into(isa, out, x);
    }
    fn widen_into(_isa: Isa, out: &mut [f32], x: &[f32]) {
        out.copy_from_slice(x);
    }
}

impl Element for bf16 {
    fn narrow(self) -> bf16 {
        self
    }
    fn f32(self) -> f32 {
        widen(self)
    }
    fn narrow_into(_isa: Isa, out: &mut [bf16], x: &[bf16]) {
        out.copy_from_slice(x);
    }
    fn widen_into(isa: Isa, out: &mut [f32], x: &[bf16]) {
        widen_into(isa, out, x);
    }
}

impl Element for f16 {
    fn narrow(self) -> bf16 {
        narrow(self.to_f32())
    }
    fn f32(self) -> f32 {
        self.to_f32()
    }
    fn narrow_into(_isa: Isa, out: &mut [bf16], x: &[f16]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.narrow());
    }
    fn widen_into(_isa: Isa, out: &mut [f32], x: &[f16]) {
        x.convert_to_f32_slice(out);
    }
}

/// Values of one of the two types.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 32 bits each.
    F32(&'a [f32]),
    /// 16 bits each.
    Bf16(&'a [bf16]),
}

/// Values of one of the two types, to be written.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// 32 bits each.
    F32(&'a mut [f32]),
    /// 16 bits each.
    Bf16(&'a mut [bf16]),
}

impl<'a> Values<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a range.
    pub fn part(&self, range: std::ops::Range<usize>) -> Values<'a> {
        match self {
            Values::F32(values) => Values::F32(&values[range]),
            Values::Bf16(values) => Values::Bf16(&values[range]),
        }
    }

    /// A range as `f32`: as it is, or widened into `scratch`, which must be as long.
    pub(crate) fn wide<'s>(
        &self,
        isa: Isa,
        range: std::ops::Range<usize>,
        scratch: &'s mut [f32],
    ) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Values::F32(values) => &values[range],
            Values::Bf16(values) => {
                let scratch = &mut scratch[..range.len()];
                widen_into(isa, scratch, &values[range]);
                scratch
            }
        }
    }
}

impl ValuesMut<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            ValuesMut::F32(values) => values.len(),
            ValuesMut::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parts that different tasks write.
    pub(crate) fn shared(&mut self) -> SharedValues {
        match self {
            ValuesMut::F32(values) => SharedValues::F32(Shared::new(values)),
            ValuesMut::Bf16(values) => SharedValues::Bf16(Shared::new(values)),
        }
    }
}

/// [`Shared`] for one of the two types.
pub(crate) enum SharedValues {
    F32(Shared<f32>),
    Bf16(Shared<bf16>),
}

impl SharedValues {
    /// Asks for the values from `start` on, which will be written soon. Any part may be named, there or not.
    #[inline(always)]
    pub fn ask(&self, start: usize, len: usize) {
        match self {
            SharedValues::F32(out) => prefetch_near(out.first().wrapping_add(start), len),
            SharedValues::Bf16(out) => prefetch_near(out.first().wrapping_add(start), len),
        }
    }

    /// Writes values from `start` on.
    ///
    /// # Safety
    /// The slice is still borrowed, and no one else uses this part of it.
    #[inline(always)]
    pub unsafe fn write(&self, start: usize, x: &[f32]) {
        match self {
            // SAFETY: the caller's promise.
            SharedValues::F32(out) => unsafe { out.part(start, start + x.len()) }.copy_from_slice(x),
            SharedValues::Bf16(out) => {
                // SAFETY: the caller's promise.
                let out = unsafe { out.part(start, start + x.len()) };
                out.iter_mut().zip(x).for_each(|(out, &x)| *out = narrow(x));
            }
        }
    }
}

/// Converts a slice, on all threads.
pub fn to_bf16(out: &mut [bf16], x: &[f32]) {
    assert_eq!(out.len(), x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| narrow_into(isa, out, &x[i * CHUNK..][..out.len()]));
}

/// Converts a slice, on all threads.
pub fn to_f32(out: &mut [f32], x: &[bf16]) {
    assert_eq!(out.len(), x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| widen_into(isa, out, &x[i * CHUNK..][..out.len()]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_library_for_every_pattern_of_the_upper_bits() {
        let low = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        let x: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| low.map(|low| f32::from_bits(u32::from(high) << 16 | low)))
            .collect();
        for isa in isa::tested() {
            let mut got = vec![bf16::ZERO; x.len()];
            narrow_into(isa, &mut got, &x);
            let mut back = vec![0.0; x.len()];
            widen_into(isa, &mut back, &got);
            for ((&x, got), back) in x.iter().zip(got).zip(back) {
                if x.is_nan() {
                    assert!(got.is_nan() && back.is_nan());
                } else {
                    assert_eq!((got, back), (bf16::from_f32(x), bf16::from_f32(x).to_f32()), "{isa:?} {x}");
                }
            }
        }
    }
}
