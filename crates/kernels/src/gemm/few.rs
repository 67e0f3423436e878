//! Products of few rows, such as decoding makes: reading B costs about as much as multiplying it, or more, so B is read once,
//! in order, and the rows of A wait in the cache.
//!
//! B is taken in pieces that are packed into the cache: some steps of K of a task's columns where columns lie side by
//! side, else all of K of a panel's columns, so that memory is read in long runs. While a piece is multiplied, the next
//! is asked for. Columns that lie along K are read as they lie where a tile can do that. With more rows than a tile has use for,
//! `f32` is packed a panel of a strip at a time, and panels of pairs are widened a piece at a time. Chains go on in C from piece
//! to piece, so that the bits are those of the large products.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Range;

use super::pair_strips::WIDTH;
use super::tiles::{A, Ahead, B, C, Lines, Tile};
use super::{Operand, Output, PairPanels, Source};
use crate::isa::Isa;
use crate::pool::{self, Shared};

/// The most rows for which this is used, unless B is packed in strips ([`Tile::MOST_ROWS_OF_STRIPS`]): beyond, it pays to pack all of
/// A and B.
const MOST_ROWS: usize = 64;
/// The longest step of K at which rows of A that lie side by side are read as they lie.
const MOST_STEP_BESIDE: usize = 512;
/// The most rows of a tile of a B that is multiplied as it lies; so few rows of A are read as they lie, too.
const LOW: usize = 8;
/// Bytes of a row of a packed piece where B's columns lie side by side.
const RUN: usize = 2048;
/// Steps of K in a piece where they do not.
const STEPS_ALONG_K: usize = 128; // eight lines of the cache
/// Units of A that the calling thread packs: it takes no longer than waking another.
const PACKED_ALONE: usize = 1 << 13;
/// Steps of K that are widened at once.
const WIDENED: usize = 128;
/// The most columns of a task: long runs in memory, and pieces of C's rows that stay in the cache.
const COLS: usize = 2048;

thread_local! {
    /// A packed piece of B, for each type of unit.
    static PIECES: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    /// Rows of A that cannot be read as they lie.
    static ROWS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    /// The tiles of a task on their way to a sink.
    static TILES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a vector that the thread keeps for this type of unit.
fn with_kept<U: 'static, R>(
    kept: &'static std::thread::LocalKey<RefCell<Vec<Box<dyn Any>>>>,
    f: impl FnOnce(&mut Vec<U>) -> R,
) -> R {
    // Taken out, not borrowed: a sink may itself multiply.
    let found = kept.with_borrow_mut(|all| {
        let at = all.iter().position(|one| one.is::<Vec<U>>());
        at.and_then(|at| all.swap_remove(at).downcast().ok())
    });
    let mut values: Box<Vec<U>> = found.unwrap_or_default();
    let result = f(&mut values);
    kept.with_borrow_mut(|all| all.push(values));
    result
}

/// The whole product; tasks share the columns.
pub fn product<T: Tile>(isa: Isa, tile: T, a: Operand, b: Source<T::Unit>, output: Output) {
    let (m, units) = (a.rows(), T::room(a.cols().div_ceil(T::DEEP)));
    let most = match T::rows(&a) {
        Some(_) if lies::<T>(&b, m) => LOW.min(T::LOW),
        _ => T::MR,
    };
    let tiles = m.div_ceil(most);
    // More rows of pairs, too, unless their distance is whole pages, so that all fall into the same places of the cache.
    let spread = |rows: &A<T::Unit>| T::DEEP > 1 && !(rows.row * size_of::<T::Unit>()).is_multiple_of(4096);
    if let Some(rows) = T::rows(&a).filter(|rows| m <= LOW || spread(rows) || beside::<T>(&a)) {
        return Work { isa, tile, m, tiles, rows: Rows::Lie(rows), b, several: false }
            .share(a.cols(), output);
    }
    with_kept(&ROWS, |panels: &mut Vec<T::Unit>| {
        panels.resize(panels.len().max(m * units), T::Unit::default());
        let all = Shared::new(panels);
        let pack = |tile: usize| {
            let rows = part(m, tiles, tile);
            // SAFETY: the panels are borrowed here, and each tile's rows are written once.
            let panel = unsafe { all.part(rows.start * units, rows.end * units) };
            T::pack_rows(isa, panel, rows.len(), &a, rows.start, [0, a.cols()]);
        };
        if m * units <= PACKED_ALONE {
            (0..tiles).for_each(pack)
        } else {
            pool::for_each(tiles, pack)
        }
        let rows = Rows::Packed(panels.as_ptr(), units);
        Work { isa, tile, m, tiles, rows, b, several: false }.share(a.cols(), output);
    });
}

/// The rows of each tile, about as many in all.
fn parts(m: usize, tiles: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tiles).map(move |tile| part(m, tiles, tile))
}

fn part(m: usize, tiles: usize, tile: usize) -> Range<usize> {
    tile * m / tiles..(tile + 1) * m / tiles
}

/// Whether this is the way for a product.
pub fn suits<T: Tile>(a: &Operand, b: &Source<T::Unit>) -> bool {
    let (m, k, n) = (a.rows(), a.cols(), b.n());
    let most = match in_strips::<T>(b, MOST_ROWS) {
        // Threads share the columns.
        true if beside::<T>(a) && n >= T::NR * pool::threads() => T::MOST_ROWS_OF_STRIPS.1,
        true => T::MOST_ROWS_OF_STRIPS.0,
        false => MOST_ROWS,
    };
    m <= most || m * n * k <= super::TINY
}

/// Whether rows of A lie side by side, and steps of K near each other.
fn beside<T: Tile>(a: &Operand) -> bool {
    T::rows(a).is_some_and(|rows| T::DEEP == 1 && rows.row == 1 && rows.step <= MOST_STEP_BESIDE)
}

/// Whether B is packed from strips.
fn in_strips<T: Tile>(b: &Source<T::Unit>, m: usize) -> bool {
    matches!(b, Source::Matrix(b) if T::DEEP == 1 && b.side_by_side() && T::lying_steps(m).is_none())
}

/// Whether B is multiplied as it lies.
fn lies<T: Tile>(b: &Source<T::Unit>, m: usize) -> bool {
    matches!(b, Source::Matrix(b) if T::lying_steps(m).is_some() && T::columns(b, 0, 0).is_some())
}

/// Where the units of A are.
#[derive(Clone, Copy)]
enum Rows<U> {
    /// As they lie.
    Lie(A<U>),
    /// In a panel for each tile, one after the other; with the units of a row.
    Packed(*const U, usize),
}

/// The next piece of B, which is asked for while one is multiplied: some lines of the cache with each tile, as evenly as whole lines
/// at a step of K allow, so that memory is never without work.
struct Next {
    from: Ahead,
    /// Lines in all, and those that were asked for.
    lines: usize,
    asked: usize,
    /// Tiles in all, and those that have asked.
    tiles: usize,
    done: usize,
}

impl Next {
    /// So many lines, in so many tiles.
    fn new(from: Ahead, lines: usize, tiles: usize) -> Next {
        Next { from, lines, asked: 0, tiles, done: 0 }
    }

    /// What the next tile asks for, and how many lines, at most two, at each of `depth` steps.
    fn of_tile(&mut self, depth: usize) -> (usize, Ahead) {
        self.done += 1;
        let wanted = (self.lines * self.done).div_ceil(self.tiles).saturating_sub(self.asked);
        let each = ((wanted + depth / 2) / depth.max(1)).min(2);
        let from = if each > 0 { self.from.skip(self.asked) } else { Ahead::none() };
        self.asked += each * depth.next_multiple_of(Ahead::PLACES);
        (each, from)
    }
}

/// Some columns of B for all rows of A.
enum Panel<'p, U> {
    /// Packed.
    Packed(&'p [U]),
    /// To be packed by the first tile, from where they lie; with room for them.
    OnTheWay(B<U>, &'p mut [U]),
}

impl<U: Copy> Rows<U> {
    /// Those of a tile from unit `k` on.
    fn of<T: Tile<Unit = U>>(&self, tile: &Range<usize>, k: usize) -> A<U> {
        match *self {
            Rows::Lie(a) => A { at: a.at.wrapping_add(tile.start * a.row + k * a.step), ..a },
            Rows::Packed(at, units) => {
                assert!(k.is_multiple_of(T::GRAIN), "K is cut between what goes together");
                T::panel(at.wrapping_add(tile.start * units + k * tile.len()), tile.len())
            }
        }
    }
}

/// What the tasks know.
struct Work<'a, T: Tile> {
    isa: Isa,
    tile: T,
    m: usize,
    /// Number of tiles that a column of B is multiplied by.
    tiles: usize,
    rows: Rows<T::Unit>,
    b: Source<'a, T::Unit>,
    /// Whether threads have several tasks, each most likely followed by its neighbour.
    several: bool,
}

// SAFETY: `rows` points to values that `product` borrows and no one writes to.
unsafe impl<T: Tile> Sync for Work<'_, T> {}

impl<T: Tile> Work<'_, T> {
    /// Cuts the columns into tasks.
    fn share(&self, k: usize, output: Output) {
        let (m, n) = (self.m, self.b.n());
        let most = if lies::<T>(&self.b, m) { COLS } else { RUN / 4 };
        // As many tasks for each thread, all of about the same size.
        let share = n.div_ceil(pool::threads());
        let cols = if m * n * k <= super::TINY { n } else { share.div_ceil(share.div_ceil(most)).max(64) };
        let cols = cols.next_multiple_of(T::NR.max(WIDTH)); // whole panels of pairs, too
        let tasks = n.div_ceil(cols);
        let work = Work { several: tasks > pool::threads(), ..*self };
        match output {
            Output::Set(c) => work.stored(tasks, cols, c, false),
            Output::Add(c) => work.stored(tasks, cols, c, true),
            Output::To(sink) => pool::for_each(tasks, |task| {
                let (start, end) = (task * cols, n.min((task + 1) * cols));
                let mut tiles = TILES.take();
                // An odd number of lines of the cache, so that rows do not fall into the same sets.
                let row = cols.next_multiple_of(32) + 16;
                tiles.resize(tiles.len().max(m * row), 0.0);
                let values = &mut tiles[..m * row];
                let all = Shared::new(values);
                self.tile.held(|| {
                    work.columns(start, end, false, |i, j, len| (all.pointer(i * row + j - start, len), row));
                });
                sink.put(self.isa, (0, start), values, row, end - start);
                TILES.set(tiles);
            }),
        }
    }

    /// How far the columns go that this thread will want, given where a task ends.
    fn follows(&self, end: usize) -> usize {
        if self.several { self.b.n() } else { end }
    }

    fn stored(&self, tasks: usize, cols: usize, c: &mut [f32], add: bool) {
        let (n, c) = (self.b.n(), Shared::new(c));
        pool::for_each(tasks, |task| {
            let (start, end) = (task * cols, n.min((task + 1) * cols));
            self.tile.held(|| self.columns(start, end, add, |i, j, len| (c.pointer(i * n + j, len), n)));
        });
    }

    /// Columns `start..end` of C. `place` says where an element lies and how far apart rows are, given its row, its
    /// column, and how many values from it on must be there.
    fn columns(
        &self,
        start: usize,
        end: usize,
        add: bool,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        match self.b {
            Source::Panels { data, k, .. } => {
                let (depth, columns) = (k.div_ceil(T::DEEP), start..end);
                for j in columns.step_by(T::NR) {
                    let panel = &data[j * depth..(j + T::NR) * depth];
                    // While a panel is multiplied, the next is asked for, an eighth of it in each place.
                    let lines = if j + T::NR < self.follows(end) { size_of_val(panel) / 64 } else { 0 };
                    let next = Ahead::in_order(panel.as_ptr_range().end.cast(), lines);
                    let mut next = Next::new(next, lines, self.tiles);
                    self.tiles(Panel::Packed(panel), (j, T::NR.min(end - j), add), 0, k, &place, || {
                        next.of_tile(depth)
                    });
                }
            }
            Source::Matrix(b) if in_strips::<T>(&self.b, self.m) => self.strips(&b, start..end, add, place),
            Source::Matrix(b) if b.side_by_side() => self.rows_of_b(&b, start..end, add, place),
            Source::Matrix(b) => self.columns_of_b(&b, start..end, add, place),
            Source::Widened(pairs) => self.widened(&pairs, start..end, add, place),
        }
    }

    /// The same for a B whose columns lie side by side.
    fn rows_of_b(
        &self,
        b: &Operand,
        columns: Range<usize>,
        add: bool,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        let k = b.rows();
        let wide = T::wide_cols(self.m.div_ceil(self.tiles));
        let mut start = columns.start;
        if let (Some(steps), Some(_)) = (T::lying_steps(self.m), T::columns(b, 0, start)) {
            start += columns.len() / wide * wide;
            for k0 in (0..k).step_by(steps) {
                let kc = steps.min(k - k0);
                for j in (columns.start..start).step_by(wide) {
                    let Some(lies) = T::columns(b, k0, j) else { unreachable!("it lies so everywhere") };
                    for tile in parts(self.m, self.tiles) {
                        let (i, rows) = (tile.start, tile.len());
                        let (_, row) = place(i, j, 0);
                        let from_c = add || k0 > 0;
                        let c = C { at: place(i, j, (rows - 1) * row + wide).0, row, from_c };
                        let a = self.rows.of::<T>(&tile, k0);
                        let next = lies.at.wrapping_add(steps * lies.step);
                        let ahead = Lines::below(if i == 0 { next } else { std::ptr::null() }, lies);
                        // SAFETY: A has these rows, B is whole and has these columns; the tile lies in C, as `place`
                        // has checked, and only this task has these columns.
                        unsafe { self.tile.wide(rows, wide, ahead, c, a, lies, kc) };
                    }
                }
            }
        }
        let columns = start..columns.end;
        if columns.is_empty() {
            return;
        }
        // Rows that lie can be cut anywhere, so that none of these tiles is too high.
        let rest = Work { tiles: self.tiles.max(self.m.div_ceil(T::MR)), ..*self };
        with_kept(&PIECES, |scratch: &mut Vec<T::Unit>| {
            // A run of a tile asks for as many lines as make a row of the next piece, one or two at each step of K.
            let lines = if rest.tiles == 1 { 2 } else { 1 };
            let step = (RUN / 64 / lines * T::DEEP).min(k);
            for k0 in (0..k).step_by(step) {
                let kc = step.min(k - k0);
                let size = T::NR * kc.div_ceil(T::DEEP);
                scratch.resize(scratch.len().max(size), T::Unit::default());
                let mut next = k0 + kc..(k0 + 2 * kc).min(k);
                for j in columns.clone().step_by(T::NR) {
                    T::pack(self.isa, &mut scratch[..size], T::NR, &b.t(), j, [k0, kc]);
                    let c = (j, T::NR.min(columns.end - j), add || k0 > 0);
                    let ahead = || match next.next() {
                        Some(row) => (lines, Ahead::in_order(b.address(row, columns.start), RUN / 64)),
                        None => (0, Ahead::none()),
                    };
                    rest.tiles(Panel::Packed(scratch), c, k0, kc, &place, ahead);
                }
            }
        });
    }

    /// The same for many rows, a strip at a time.
    fn strips(
        &self,
        b: &Operand,
        columns: Range<usize>,
        add: bool,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        let (k, (cols, step)) = (b.rows(), T::strip(self.m));
        let cols = cols.min(columns.len().next_multiple_of(T::NR));
        with_kept(&PIECES, |scratch: &mut Vec<T::Unit>| {
            scratch.resize(scratch.len().max(T::NR * step), T::Unit::default());
            for strip in columns.clone().step_by(cols) {
                let width = cols.min(columns.end - strip);
                let panels = width.div_ceil(T::NR);
                for k0 in (0..k).step_by(step) {
                    let kc = step.min(k - k0);
                    let (row, col, len) = match k0 + kc < k {
                        true => (k0 + kc, strip, width),
                        false => (0, strip + width, cols.min(self.follows(columns.end) - strip - width)),
                    };
                    let lines = step.min(k - row) * b.lines(len);
                    let mut next = Next::new(b.ahead(row, col, len), lines, panels * self.tiles);
                    for j in (strip..).step_by(T::NR).take(panels) {
                        let c = (j, T::NR.min(columns.end - j), add || k0 > 0);
                        let packs = T::PACKS
                            && c.1 == T::NR
                            && match self.rows {
                                Rows::Packed(..) => true,
                                Rows::Lie(a) => a.row == 1,
                            };
                        let panel = &mut scratch[..T::NR * kc];
                        let panel = match T::columns(b, k0, j).filter(|_| packs) {
                            Some(raw) => Panel::OnTheWay(raw, panel),
                            None => {
                                T::pack(self.isa, panel, T::NR, &b.t(), j, [k0, kc]);
                                Panel::Packed(panel)
                            }
                        };
                        self.tiles(panel, c, k0, kc, &place, || next.of_tile(kc));
                    }
                }
            }
        });
    }

    /// The same for panels of pairs, which are widened a piece at a time.
    fn widened(
        &self,
        pairs: &PairPanels,
        columns: Range<usize>,
        add: bool,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        let k = pairs.k;
        with_kept(&PIECES, |scratch: &mut Vec<T::Unit>| {
            scratch.resize(scratch.len().max(T::NR * WIDENED), T::Unit::default());
            // All of a panel for some steps of K, then the next steps: so memory is read in order.
            let wide = WIDTH.max(T::NR);
            for panel in columns.clone().step_by(wide) {
                let end = columns.end.min(panel + wide);
                for k0 in (0..k).step_by(WIDENED) {
                    let kc = WIDENED.min(k - k0);
                    // The first tiles ask for the next piece, a line at each step.
                    let mut ahead = (panel..end).step_by(WIDTH).map(|panel| {
                        let next = &pairs.data[panel * k.div_ceil(2) + (k0 + kc).div_ceil(2) * WIDTH..];
                        (1, Ahead::in_order(next.as_ptr().cast(), kc))
                    });
                    for j in (panel..end).step_by(T::NR) {
                        T::widen(self.isa, &mut scratch[..T::NR * kc], pairs, j, [k0, kc]);
                        let c = (j, T::NR.min(columns.end - j), add || k0 > 0);
                        self.tiles(Panel::Packed(scratch), c, k0, kc, &place, || {
                            ahead.next().unwrap_or((0, Ahead::none()))
                        });
                    }
                }
            }
        });
    }

    /// The same for a B whose rows lie side by side.
    fn columns_of_b(
        &self,
        b: &Operand,
        mut columns: Range<usize>,
        add: bool,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        if let (Some((most, wide)), Some(rows)) = (T::ALONG, T::rows(&b.t()))
            && self.m <= most
            && rows.step == 1
        {
            let rest = columns.end - columns.len() % wide;
            // Rows that lie can be cut anywhere.
            let tiles = if matches!(self.rows, Rows::Lie(_)) { 1 } else { self.tiles };
            for j in (columns.start..rest).step_by(wide) {
                let from = rows.at.wrapping_add(j * rows.row);
                for tile in parts(self.m, tiles) {
                    let (i, height) = (tile.start, tile.len());
                    let (_, row) = place(i, j, 0);
                    let c = C { at: place(i, j, (height - 1) * row + wide).0, row, from_c: add };
                    // SAFETY: A has these rows, B is whole and has these columns; the tile lies in C, as `place` has
                    // checked, and only this task has these columns.
                    unsafe {
                        self.tile.along(height, c, self.rows.of::<T>(&tile, 0), from, rows.row, b.rows())
                    };
                }
            }
            columns.start = rest;
        }
        let (k, chunks) = (b.rows(), b.rows().div_ceil(STEPS_ALONG_K));
        with_kept(&PIECES, |scratch: &mut Vec<T::Unit>| {
            scratch.resize(scratch.len().max(STEPS_ALONG_K * T::NR), T::Unit::default());
            for j in columns.clone().step_by(T::NR) {
                let cols = self.follows(columns.end).saturating_sub(j + T::NR).min(T::NR);
                let ahead = b.ahead_of_columns(j + T::NR, cols);
                let mut next = Next::new(ahead, cols * b.lines(k), chunks * self.tiles);
                for c in 0..chunks {
                    let k0 = c * STEPS_ALONG_K;
                    let kc = STEPS_ALONG_K.min(k - k0);
                    let size = T::NR * kc.div_ceil(T::DEEP);
                    if T::DEEP > 1 {
                        let of_chunk = |c: usize| j + T::NR + c * T::NR / chunks;
                        b.prefetch(k, of_chunk(c)..of_chunk(c + 1));
                    }
                    T::pack(self.isa, &mut scratch[..size], T::NR, &b.t().above(j + T::NR), j, [k0, kc]);
                    let c = (j, T::NR.min(columns.end - j), add || k0 > 0);
                    self.tiles(Panel::Packed(scratch), c, k0, kc, &place, || match T::DEEP {
                        1 => next.of_tile(kc),
                        _ => (0, Ahead::none()),
                    });
                }
            }
        });
    }

    /// All rows of a panel's columns: `kc` steps of K from `k0` on. For each tile, `ahead` names memory to ask for
    /// meanwhile, and how many lines at each step: none, one or two.
    #[inline(always)]
    fn tiles(
        &self,
        panel: Panel<T::Unit>,
        (j, cols, from_c): (usize, usize, bool),
        k0: usize,
        kc: usize,
        place: &impl Fn(usize, usize, usize) -> (*mut f32, usize),
        mut ahead: impl FnMut() -> (usize, Ahead),
    ) {
        let depth = kc.div_ceil(T::DEEP);
        let (at, mut raw) = match panel {
            Panel::Packed(panel) => (panel[..depth * T::NR].as_ptr(), None),
            Panel::OnTheWay(raw, panel) => {
                let at = panel[..depth * T::NR].as_mut_ptr();
                (at.cast_const(), Some((raw, at)))
            }
        };
        let b = B { at, step: T::NR };
        for tile in parts(self.m, self.tiles) {
            let (i, rows) = (tile.start, tile.len());
            let (_, row) = place(i, j, 0);
            let c = C { at: place(i, j, (rows - 1) * row + cols).0, row, from_c };
            let a = self.rows.of::<T>(&tile, k0 / T::DEEP);
            // SAFETY: A has these rows and `depth` units from step `k0` on, the panel `depth` steps of `NR` units, and so has a
            // B that is packed on the way, where A's rows lie side by side; the tile lies in C, as `place` has checked, and only this task
            // has these columns.
            unsafe {
                match (ahead(), raw.take()) {
                    ((2, ahead), Some((raw, to))) => {
                        self.tile.packing::<2>(rows, c, a, raw, to, depth, ahead)
                    }
                    ((1, ahead), Some((raw, to))) => {
                        self.tile.packing::<1>(rows, c, a, raw, to, depth, ahead)
                    }
                    ((_, ahead), Some((raw, to))) => {
                        self.tile.packing::<0>(rows, c, a, raw, to, depth, ahead)
                    }
                    ((2, ahead), None) => self.tile.run_ahead::<2>(rows, cols, c, a, b, depth, ahead),
                    ((1, ahead), None) => self.tile.run_ahead::<1>(rows, cols, c, a, b, depth, ahead),
                    (_, None) => self.tile.run(rows, cols, c, a, b, depth),
                }
            }
        }
    }
}
