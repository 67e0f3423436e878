//! The innermost loops: an `MR` × `NR` tile of C in registers, one multiply-add per element and step of K.
//!
//! A panel of A holds `MR` values a step, broadcast one by one; a panel of B holds `NR`, a few vectors. At the
//! edges of C the tile is computed whole in a buffer, and only its corner is copied.

#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
use crate::pool::Shared;

/// Where a tile lies in C.
#[derive(Clone, Copy)]
pub struct Corner {
    /// Rows of the tile that C has.
    pub rows: usize,
    /// Columns of the tile that C has.
    pub cols: usize,
    /// Distance between C's rows.
    pub ldc: usize,
    /// Whether the chains continue from C's values, or start at zero.
    pub from_c: bool,
}

/// A micro-kernel.
pub trait Tile: Copy + Sync {
    /// Rows.
    const MR: usize;
    /// Columns.
    const NR: usize;

    /// The whole tile: `c[i * ldc + j]` for all rows and columns; panels of equal depth.
    ///
    /// # Safety
    /// `c` points to `(MR - 1) · ldc + NR` values of which the tile's are not used by anyone else.
    unsafe fn whole(self, c: *mut f32, ldc: usize, from_c: bool, a: &[f32], b: &[f32]);

    /// The part of a tile that lies in C, which is all of `c` from the tile's first element on.
    fn run(self, c: &mut [f32], corner: Corner, a: &[f32], b: &[f32]) {
        // SAFETY: `c` is borrowed for this call alone.
        unsafe { self.run_shared(&Shared::new(c), 0, corner, a, b) }
    }

    /// The part of a tile that lies in C, from element `start` on.
    ///
    /// # Safety
    /// No other living borrow covers the tile's elements of `c`.
    unsafe fn run_shared(self, c: &Shared<f32>, start: usize, corner: Corner, a: &[f32], b: &[f32]) {
        let Corner { rows, cols, ldc, from_c } = corner;
        assert!(a.len() / Self::MR == b.len() / Self::NR, "panels of equal depth");
        if rows == Self::MR && cols == Self::NR {
            // SAFETY: `pointer` checks that the whole tile lies in C, and the caller that it is ours.
            return unsafe { self.whole(c.pointer(start, (rows - 1) * ldc + cols), ldc, from_c, a, b) };
        }
        let mut buffer = [0.0; 14 * 32];
        assert!(Self::MR * Self::NR <= buffer.len(), "a tile fits the buffer");
        // SAFETY (both loops): the rows of the corner are ours. Loops instead of copies: rows are short.
        if from_c {
            for i in 0..rows {
                // SAFETY: as above.
                let row = unsafe { c.part(start + i * ldc, start + i * ldc + cols) };
                buffer[i * Self::NR..][..cols].iter_mut().zip(row).for_each(|(to, from)| *to = *from);
            }
        }
        // SAFETY: the buffer holds a whole tile.
        unsafe { self.whole(buffer.as_mut_ptr(), Self::NR, from_c, a, b) };
        for i in 0..rows {
            // SAFETY: as above.
            let row = unsafe { c.part(start + i * ldc, start + i * ldc + cols) };
            row.iter_mut().zip(&buffer[i * Self::NR..][..cols]).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Plain Rust: the compiler vectorises the inner loop as far as the target allows.
#[derive(Clone, Copy)]
pub struct Portable;

impl Tile for Portable {
    const MR: usize = 4;
    const NR: usize = 8;

    unsafe fn whole(self, c: *mut f32, ldc: usize, from_c: bool, a: &[f32], b: &[f32]) {
        let mut acc = [[0.0f32; 8]; 4];
        if from_c {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the caller promises a whole tile at `c`.
                *acc = unsafe { c.add(i * ldc).cast::<[f32; 8]>().read() };
            }
        }
        for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<8>().0) {
            for i in 0..4 {
                for j in 0..8 {
                    acc[i][j] += a[i] * b[j];
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { c.add(i * ldc).cast::<[f32; 8]>().write(acc) };
        }
    }
}

/// Writes a tile for one vector type.
#[cfg(target_arch = "x86_64")]
macro_rules! simd_tile {
    ($isa:ty, $features:literal, $vector:ident, $lanes:literal, $rows:literal, $load:ident, $store:ident, $splat:ident, $zero:ident, $fma:ident) => {
        impl Tile for $isa {
            const MR: usize = $rows;
            const NR: usize = 2 * $lanes;

            unsafe fn whole(self, c: *mut f32, ldc: usize, from_c: bool, a: &[f32], b: &[f32]) {
                use std::arch::x86_64::*;

                #[target_feature(enable = $features)]
                unsafe fn kernel(c: *mut f32, ldc: usize, from_c: bool, a: &[f32], b: &[f32]) {
                    let mut acc = [[$zero(); 2]; $rows];
                    if from_c {
                        for (i, acc) in acc.iter_mut().enumerate() {
                            // SAFETY: the caller promises a whole tile at `c`.
                            *acc = unsafe { [$load(c.add(i * ldc)), $load(c.add(i * ldc + $lanes))] };
                        }
                    }
                    for (a, b) in a.as_chunks::<$rows>().0.iter().zip(b.as_chunks::<{ 2 * $lanes }>().0) {
                        // SAFETY: `b` is an array of two vectors' values.
                        let b: [$vector; 2] = unsafe { [$load(b.as_ptr()), $load(b.as_ptr().add($lanes))] };
                        for i in 0..$rows {
                            let a = $splat(a[i]);
                            acc[i][0] = $fma(a, b[0], acc[i][0]);
                            acc[i][1] = $fma(a, b[1], acc[i][1]);
                        }
                    }
                    for (i, acc) in acc.into_iter().enumerate() {
                        // SAFETY: as above.
                        unsafe {
                            $store(c.add(i * ldc), acc[0]);
                            $store(c.add(i * ldc + $lanes), acc[1]);
                        }
                    }
                }
                // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                unsafe { kernel(c, ldc, from_c, a, b) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
simd_tile!(
    Avx2,
    "avx2,fma",
    __m256,
    8,
    6,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_setzero_ps,
    _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
simd_tile!(
    Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    __m512,
    16,
    14,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_setzero_ps,
    _mm512_fmadd_ps
);

/// Evaluates an expression with the tile of an instruction set.
macro_rules! with_tile {
    ($isa:expr, |$tile:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        match ($crate::isa::Avx512::detect(), $crate::isa::Avx2::detect()) {
            (Some($tile), _) if $isa >= $crate::isa::Isa::Avx512 => $body,
            (_, Some($tile)) if $isa >= $crate::isa::Isa::Avx2 => $body,
            _ => {
                let $tile = $crate::gemm::tiles::Portable;
                $body
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let $tile = $crate::gemm::tiles::Portable;
            $body
        }
    }};
}
pub(crate) use with_tile;
