//! What is asked of memory before it is wanted, so that it is in a cache by then.

use super::B;

/// Asks for a line of memory that will be wanted later, in the second-level cache. Any address may be given.
#[inline(always)]
pub fn prefetch_far(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    let _ = at;
}

/// Asks for a line of memory that will be wanted soon. Any address may be given.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    let _ = at;
}

/// Asks for so many values side by side, as [`prefetch_far`] does.
#[inline(always)]
pub fn prefetch_run<T>(start: *const T, len: usize) {
    for byte in (0..len * size_of::<T>()).step_by(64) {
        prefetch_far(start.cast::<u8>().wrapping_add(byte));
    }
}

/// Asks for so many values side by side, as [`prefetch`] does.
#[inline(always)]
pub fn prefetch_near<T>(start: *const T, len: usize) {
    for byte in (0..len * size_of::<T>()).step_by(64) {
        prefetch(start.cast::<u8>().wrapping_add(byte));
    }
}

/// Memory to ask for while a tile is computed, one or two lines of the cache at each step: in eight places in turn, since memory gives
/// more to those who read several pages at once.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// The first line. Any address will do.
    at: *const u8,
    /// Distance between places.
    jump: usize,
    /// Bytes of each place.
    run: usize,
    /// Bytes from `at` on, after which the next eight places follow.
    until: usize,
}

impl Ahead {
    /// Places that are asked for in turn.
    pub const PLACES: usize = 8;

    /// Nothing that matters: for tiles that ask for no line.
    pub fn none() -> Ahead {
        Ahead::rows(std::ptr::null(), 64, 1)
    }

    /// So many lines of each of some rows, which are `jump` bytes apart.
    pub fn rows(at: *const u8, jump: usize, lines: usize) -> Ahead {
        let run = 64 * lines.max(1);
        Ahead { at, jump, run, until: run }
    }

    /// So many lines one after the other, an eighth of them in each place.
    pub fn in_order(at: *const u8, lines: usize) -> Ahead {
        let part = lines.div_ceil(Ahead::PLACES);
        Ahead::rows(at, 64 * part, part)
    }

    /// Without the first `n` lines, a multiple of eight.
    pub fn skip(self, n: usize) -> Ahead {
        let before = n / Ahead::PLACES * 64;
        let (places, before) = (before / self.run * Ahead::PLACES, before % self.run);
        Ahead { at: self.at.wrapping_add(places * self.jump + before), until: self.run - before, ..self }
    }

    /// Asks for the lines of a step, in the second-level cache: the first is full of what is being multiplied.
    #[inline(always)]
    pub fn ask<const LINES: usize>(self, step: usize) {
        let (place, before) = (step % Ahead::PLACES, step / Ahead::PLACES * LINES * 64);
        let next = if before < self.until {
            0
        } else {
            let turns = 1 + (before - self.until) / self.run;
            turns.wrapping_mul((Ahead::PLACES * self.jump).wrapping_sub(self.run))
        };
        let at = self.at.wrapping_add(place * self.jump + before).wrapping_add(next);
        (0..LINES).for_each(|line| prefetch_far(at.wrapping_add(line * 64)));
    }
}

/// Memory to ask for while a tile of [`Tile::wide`] is computed: at each step, some lines of the cache.
#[derive(Clone, Copy)]
pub struct Lines {
    /// The first line. Any address will do; null says that there is nothing to ask for.
    pub at: *const u8,
    /// Distance between the lines of a step.
    apart: usize,
    /// Distance from one step to the next.
    step: usize,
}

impl Lines {
    /// As B's rows are read, from `at` on.
    pub fn below<U>(at: *const U, b: B<U>) -> Lines {
        Lines { at: at.cast(), apart: 64, step: b.step * size_of::<U>() }
    }

    /// What lies side by side from `at` on: as much as a tile of `depth` steps reads. Each line of a step begins a part of its own,
    /// since memory gives more to those who read several pages at once.
    pub fn parts<U>(at: *const U, depth: usize) -> Lines {
        Lines { at: at.cast(), apart: 64 * depth, step: 64 }
    }

    /// Asks for the lines of a step, in the first-level cache.
    #[inline(always)]
    pub fn ask(self, step: usize, lines: usize) {
        let at = self.at.wrapping_add(step * self.step);
        (0..lines).for_each(|line| prefetch(at.wrapping_add(line * self.apart)));
    }
}
