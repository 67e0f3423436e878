//! A tile of up to 32 rows with products of whole tiles of bytes (AMX).
//!
//! A chunk of a panel, spread to a byte for each number and without the format's offset, is what the registers take: for 16 columns 8
//! rows of 64 bytes, four numbers along K for each column. The dot products of a chunk go through the cache to be scaled,
//! while those of the next are computed. Few rows go to the dot products of AVX-512, whose bits are the same.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::tiles::{Ahead, Kernel, Task};
use super::vnni::{fetch, nibbles, pairs_of, with_pairs};
use super::x_rows::{Row, XBlock};
use super::{BLOCK, BlockFormat, CHUNK, PANEL, PLANE, SCALES};
use crate::amx::{self, SIDE, Shapes, tiles};
use crate::isa::{Amx, Avx512Vnni};

/// Rows up to which AVX-512 takes less time: one tile of its own.
const FEW: usize = <Avx512Vnni as Kernel>::ROWS;

impl Kernel for Amx {
    const ROWS: usize = 2 * SIDE;
    const PAGES: bool = true;

    fn round(self, row: Row, x: &[f32]) {
        below().round(row, x);
    }

    fn held<R>(self, f: impl FnOnce() -> R) -> R {
        amx::held(self, f)
    }

    fn run(self, sums: &mut [f32], task: Task) {
        if task.rows <= FEW {
            return below().run(sums, task);
        }
        task.check::<Self>(sums);
        // SAFETY: `self` exists, so the CPU has tiles and AVX-512; and the task is checked.
        ROOMS.with_borrow_mut(|rooms| unsafe {
            match (task.format, task.rows > SIDE) {
                (BlockFormat::Q8, false) => tile::<8, 1>(sums, task, rooms),
                (BlockFormat::Q8, true) => tile::<8, 2>(sums, task, rooms),
                (BlockFormat::Q6, false) => tile::<6, 1>(sums, task, rooms),
                (BlockFormat::Q6, true) => tile::<6, 2>(sums, task, rooms),
                (BlockFormat::Q4, false) => tile::<4, 1>(sums, task, rooms),
                (BlockFormat::Q4, true) => tile::<4, 2>(sums, task, rooms),
            }
        });
    }
}

/// The keys of these shapes: those of tiles of bfloat16 are the rows alone.
const KEY: usize = 64;

/// The kernel that every CPU with tiles has, too.
fn below() -> Avx512Vnni {
    Avx512Vnni::detect().expect("a CPU with tiles has AVX-512")
}

/// A chunk's numbers, at the places of Q8; and its dot products, a row of x after the other.
#[repr(align(64))]
struct Room {
    levels: [i8; CHUNK],
    dots: [[i32; PANEL]; 2 * SIDE],
}

thread_local! {
    /// Of a chunk, and of the one before it.
    static ROOMS: RefCell<[Room; 2]> =
        const { RefCell::new([const { Room { levels: [0; CHUNK], dots: [[0; PANEL]; 2 * SIDE] } }; 2]) };
}

/// # Safety
/// The CPU has tiles, the task is checked, has at most 16 `R` rows and more than 16 (`R` - 1), and its format has `BITS`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const BITS: usize, const R: usize>(sums: &mut [f32], task: Task, rooms: &mut [Room; 2]) {
    let Task { panel, x, rows, stride, ahead, .. } = task;
    let bytes = const { SCALES + PLANE * BITS };
    // Dot products in registers 0 to 3, x in 4 and 5, numbers in 6 and 7. The second half of rows lies in 1, 3 and 5.
    let shapes = || {
        let upper = rows.min(SIDE);
        let second = if R > 1 { rows - SIDE } else { upper };
        let (dots, more, numbers) = ((upper, 64), (second, 64), (BLOCK / 4, 64));
        Shapes::new([dots, more, dots, more, (upper, BLOCK), (second, BLOCK), numbers, numbers])
    };
    let chunks = panel.len() / bytes;
    let chunk = |i: usize| &panel[i * bytes..][..bytes];
    let blocks = |i: usize| &x[i * rows..][..rows];
    // SAFETY: the caller's promise; each chunk has its scales and numbers, and `rows` blocks of x.
    unsafe {
        amx::shape(KEY + rows, shapes);
        // What a step stores, the next one loads: registers of tiles wait until it has come to the cache.
        for i in 0..chunks + 2 {
            if i < chunks {
                spread::<BITS>(&mut rooms[i % 2].levels, chunk(i), ahead);
            }
            if (1..=chunks).contains(&i) {
                multiply::<R>(&mut rooms[(i - 1) % 2], blocks(i - 1));
            }
            if i >= 2 {
                add(sums, stride, chunk(i - 2), blocks(i - 2), &rooms[i % 2].dots);
            }
        }
    }
}

/// Spreads a chunk's numbers, and takes the format's offset away.
///
/// # Safety
/// The chunk has 1024 numbers of `BITS` after its scales.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn spread<const BITS: usize>(levels: &mut [i8; CHUNK], chunk: &[u8], ahead: Ahead) {
    fetch(chunk.as_ptr(), ahead);
    let plane = |i: usize| {
        [0, 1].map(|v| {
            let at = chunk.as_ptr().wrapping_add(SCALES + PLANE * i + 64 * v);
            fetch(at, ahead);
            // SAFETY: a chunk has `BITS` planes of two vectors.
            unsafe { _mm512_loadu_si512(at.cast()) }
        })
    };
    let offset = _mm512_set1_epi8(const { (1u8 << (BITS - 1)) as i8 });
    let mut store = |group: usize, numbers: [__m512i; 2]| {
        for (v, x) in numbers.into_iter().enumerate() {
            let at = levels[PLANE * group + 64 * v..][..64].as_mut_ptr();
            // SAFETY: 64 numbers lie there.
            unsafe { _mm512_store_si512(at.cast(), _mm512_sub_epi8(x, offset)) };
        }
    };
    match BITS {
        8 => (0..8).for_each(|g| store(g, plane(g))),
        4 => {
            for i in 0..4 {
                let [low, high] = nibbles(plane(i));
                store(2 * i, low);
                store(2 * i + 1, high);
            }
        }
        _ => {
            for half in 0..2 {
                let pairs = plane(3 * half);
                for i in 0..2 {
                    let [low, high] = nibbles(plane(3 * half + 1 + i));
                    let [a, b] = pairs_of(pairs, i == 1);
                    store(4 * half + 2 * i, with_pairs(low, a));
                    store(4 * half + 2 * i + 1, with_pairs(high, b));
                }
            }
        }
    }
}

/// The dot products of a chunk.
///
/// # Safety
/// The registers have the shapes of [`tile`], and `x` the rows that these say.
#[inline(always)]
unsafe fn multiply<const R: usize>(room: &mut Room, x: &[XBlock]) {
    let (levels, dots) = (room.levels.as_ptr(), room.dots.as_mut_ptr().cast::<i32>());
    let (x_row, plane, row) = (size_of::<XBlock>(), PLANE, size_of::<[i32; PANEL]>());
    let quads = |i: usize| (&raw const x[i].quads).cast::<i32>();
    // SAFETY: the caller's promise; the room is as large as the registers' shapes say.
    unsafe {
        tiles!("tilezero tmm0", "tilezero tmm2", "tileloadd tmm4, [{x} + {row}]"; x = quads(0); row = x_row);
        tiles!("tileloadd tmm6, [{at} + {row}]", "tdpbssd tmm0, tmm4, tmm6"; at = levels; row = plane);
        tiles!("tileloadd tmm7, [{at} + {row} + 64]", "tdpbssd tmm2, tmm4, tmm7"; at = levels; row = plane);
        if R > 1 {
            tiles!("tilezero tmm1", "tilezero tmm3");
            tiles!("tileloadd tmm5, [{x} + {row}]"; x = quads(SIDE); row = x_row);
            tiles!("tdpbssd tmm1, tmm5, tmm6", "tdpbssd tmm3, tmm5, tmm7");
        }
        tiles!(
            "tilestored [{at} + {row}], tmm0",
            "tilestored [{at} + {row} + 64], tmm2";
            at = dots; row = row
        );
        if R > 1 {
            let dots = dots.wrapping_add(SIDE * PANEL);
            tiles!(
                "tilestored [{at} + {row}], tmm1",
                "tilestored [{at} + {row} + 64], tmm3";
                at = dots; row = row
            );
        }
    }
}

/// The next link of the chains of all rows.
///
/// # Safety
/// The task is checked, and these are a chunk and its rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline]
unsafe fn add(sums: &mut [f32], stride: usize, chunk: &[u8], x: &[XBlock], dots: &[[i32; PANEL]; 2 * SIDE]) {
    // SAFETY: a chunk begins with 32 scales.
    let scales =
        [0, 1].map(|v| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(chunk.as_ptr().add(32 * v).cast())) });
    for (r, (x, dots)) in x.iter().zip(dots).enumerate() {
        let x_scale = _mm512_set1_ps(x.scale);
        for (v, scale) in scales.into_iter().enumerate() {
            // SAFETY: row r of the sums has 32 values, which are ours, and so has a row of dot products.
            unsafe {
                let at = sums.as_mut_ptr().add(r * stride + 16 * v);
                let dot = _mm512_cvtepi32_ps(_mm512_loadu_si512(dots.as_ptr().add(16 * v).cast()));
                let sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, x_scale), _mm512_loadu_ps(at));
                _mm512_storeu_ps(at, sum);
            }
        }
    }
}
