//! Large products: panels of A and B are packed, and tasks of some tiles each are shared by the threads.
//!
//! The same for every type of panel. A goes unpacked where its rows can be read as they lie.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Range;

use super::tiles::{B, C, Tile};
use super::{Operand, Output, Sink, Source};
use crate::isa::Isa;
use crate::pool::{self, Shared};

/// Columns of B packed at once.
const NC: usize = 2048;
/// Rows of A packed at once.
const MC: usize = 1024;
/// Bytes of B's panel that leave the first-level cache room for A's.
const FIRST_CACHE: usize = 32 << 10;

thread_local! {
    /// Packed panels, of the calls that this thread makes: those of `f32` and those of pairs.
    static PANELS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    /// Chains that go on in the next block of K, where C itself is not stored.
    static CHAINS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// The tiles of a task on their way to a sink.
    static TILES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Panels of A and of B.
type Panels<U> = (Vec<U>, Vec<U>);

fn take_panels<U: 'static>() -> Box<Panels<U>> {
    PANELS.with_borrow_mut(|all| {
        let at = all.iter().position(|panels| panels.is::<Panels<U>>());
        at.and_then(|at| all.swap_remove(at).downcast().ok()).unwrap_or_default()
    })
}

/// Where a block of C goes.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Rows of `n` values: a C, or chains that are not finished.
    Stored(&'a Shared<f32>),
    /// Finished values, computed from zero.
    Sink(&'a dyn Sink),
    /// Finished values, whose chains began in a stored block.
    Both(&'a Shared<f32>, &'a dyn Sink),
}

/// The whole product, block by block.
pub fn product<T: Tile>(isa: Isa, tile: T, a: Operand, b: Source<T::Unit>, output: Output) {
    const { assert!(T::KC % (T::GRAIN * T::DEEP) == 0, "K is cut between what goes together") };
    let (m, k, n) = (a.rows(), a.cols(), b.n());
    let mut chains = Vec::new();
    let (c, add, sink) = match output {
        Output::Set(c) => (c, false, None),
        Output::Add(c) => (c, true, None),
        Output::To(sink) => {
            chains = CHAINS.take();
            let len = if k > T::KC { m * n } else { 0 };
            if chains.len() < len {
                chains.resize(len, 0.0);
            }
            (&mut chains[..], false, Some(sink))
        }
    };
    let c = Shared::new(c);
    // Taken out, not borrowed: a task that runs here may itself multiply.
    let mut panels = take_panels::<T::Unit>();
    for n0 in (0..n).step_by(NC) {
        let nc = NC.min(n - n0);
        for k0 in (0..k).step_by(T::KC) {
            let kc = T::KC.min(k - k0);
            let place = match sink.filter(|_| k0 + kc == k) {
                None => Place::Stored(&c),
                Some(sink) if k0 == 0 => Place::Sink(sink),
                Some(sink) => Place::Both(&c, sink),
            };
            for m0 in (0..m).step_by(MC) {
                let block = Block { m0, mc: MC.min(m - m0), n0, nc, k0, kc, n, from_c: add || k0 > 0, place };
                block.pack::<T>(isa, &a, &b, &mut panels);
                block.multiply(isa, tile, &a, &b, &panels);
            }
        }
    }
    PANELS.with_borrow_mut(|all| all.push(panels));
    if !chains.is_empty() {
        CHAINS.set(chains);
    }
}

/// Rows `m0..m0+mc`, columns `n0..n0+nc` of C (of `n` columns), and the part `k0..k0+kc` of K.
struct Block<'a> {
    m0: usize,
    mc: usize,
    n0: usize,
    nc: usize,
    k0: usize,
    kc: usize,
    n: usize,
    from_c: bool,
    place: Place<'a>,
}

impl Block<'_> {
    fn depth<T: Tile>(&self) -> usize {
        self.kc.div_ceil(T::DEEP)
    }

    /// Packs A's block, where that is needed, and B's when it is new.
    fn pack<T: Tile>(&self, isa: Isa, a: &Operand, b: &Source<T::Unit>, panels: &mut Panels<T::Unit>) {
        let &Block { m0, mc, n0, nc, k0, kc, .. } = self;
        let depth = self.depth::<T>();
        let n_a = if T::as_it_lies(a, m0, [k0, kc], nc).is_some() { 0 } else { mc.div_ceil(T::MR) };
        let is_packed = m0 > 0 || matches!(b, Source::Panels { .. });
        let n_b = if is_packed { 0 } else { nc.div_ceil(T::NR) };
        let (a_panels, b_panels) = panels;
        for (panels, len) in
            [(&mut *a_panels, n_a * T::MR * T::room(depth)), (&mut *b_panels, n_b * T::NR * depth)]
        {
            if panels.len() < len {
                panels.resize(len, T::Unit::default());
            }
        }
        let (a_all, b_all) = (Shared::new(a_panels), Shared::new(b_panels));
        const GROUP: usize = 8; // panels a task
        let a_tasks = n_a.div_ceil(GROUP);
        pool::for_each(a_tasks + n_b.div_ceil(GROUP), |task| {
            let (all, width, depth, group, n, first) = match task.checked_sub(a_tasks) {
                None => (&a_all, T::MR, T::room(depth), task, n_a, m0),
                Some(group) => (&b_all, T::NR, depth, group, n_b, n0),
            };
            let (start, end) = (group * GROUP, n.min((group + 1) * GROUP));
            // SAFETY: the panels are borrowed by `pack`, and each is written by one task.
            let panels = unsafe { all.part(start * width * depth, end * width * depth) };
            let first = first + start * width;
            match b {
                _ if task < a_tasks => T::pack_rows(isa, panels, width, a, first, [k0, kc]),
                Source::Matrix(b) => T::pack(isa, panels, width, &b.t(), first, [k0, kc]),
                Source::Widened(pairs) => T::widen(isa, panels, pairs, first, [k0, kc]),
                Source::Panels { .. } => unreachable!("panels are packed already"),
            }
        });
    }

    /// Rows and columns of a task: whole tiles, and so few that each thread has some tasks.
    fn task<T: Tile>(&self) -> (usize, usize) {
        let (mut rows, mut cols) = ((T::TASK.0 / T::MR).max(1) * T::MR, (T::TASK.1 / T::NR).max(1) * T::NR);
        const LEAST: usize = 32;
        while self.mc.div_ceil(rows) * self.nc.div_ceil(cols) < 12 * pool::threads() {
            if cols > LEAST.max(T::NR) && (cols > rows || rows <= LEAST) {
                cols = (cols / 2).next_multiple_of(T::NR);
            } else if rows > LEAST {
                rows = (rows / 2).next_multiple_of(T::MR);
            } else {
                break;
            }
        }
        (rows, cols)
    }

    /// Multiplies the panels into C, or hands the values over.
    fn multiply<T: Tile>(
        &self,
        isa: Isa,
        tile: T,
        a: &Operand,
        b: &Source<T::Unit>,
        panels: &Panels<T::Unit>,
    ) {
        let &Block { mc, nc, .. } = self;
        let (task_rows, task_cols) = self.task::<T>();
        let (across, at_once) = (nc.div_ceil(task_cols), self.rows_at_once::<T>(task_rows));
        pool::for_each(mc.div_ceil(task_rows) * across, |task| {
            let (i0, j0) = (task / across * task_rows, task % across * task_cols);
            let (i1, cols) = (mc.min(i0 + task_rows), j0..nc.min(j0 + task_cols));
            tile.held(|| {
                for i in (i0..i1).step_by(at_once) {
                    self.rows(isa, tile, a, b, panels, i..i1.min(i + at_once), cols.clone());
                }
            });
        });
    }

    /// The rows that a task multiplies by all of its columns before the next: all of them, down the columns; or those of a tile
    /// ([`Tile::ALONG_ROWS`]), so that its panel of A stays in the first-level cache, where B's panel does not fit that.
    fn rows_at_once<T: Tile>(&self, task_rows: usize) -> usize {
        let panel = self.depth::<T>() * T::NR * size_of::<T::Unit>();
        if T::ALONG_ROWS && panel > FIRST_CACHE { T::MR } else { task_rows }
    }

    /// All tiles of some rows and columns, and what becomes of their values.
    #[allow(clippy::too_many_arguments)]
    fn rows<T: Tile>(
        &self,
        isa: Isa,
        tile: T,
        a: &Operand,
        b: &Source<T::Unit>,
        panels: &Panels<T::Unit>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let in_c = |c: &Shared<f32>, i: usize, j: usize, len: usize| {
            (c.pointer((self.m0 + i) * self.n + self.n0 + j, len), self.n)
        };
        let at = (self.m0 + rows.start, self.n0 + cols.start);
        match self.place {
            Place::Stored(c) => {
                self.tiles(tile, a, b, panels, rows, cols, |i, j, len| in_c(c, i, j, len));
            }
            Place::Sink(sink) => TILES.with_borrow_mut(|tiles| {
                // Whole tiles, though the last may be cut short.
                let width = cols.len().next_multiple_of(T::NR);
                let len = rows.len() * width;
                tiles.resize(tiles.len().max(len), 0.0);
                let all = Shared::new(tiles);
                self.tiles(tile, a, b, panels, rows.clone(), cols.clone(), |i, j, len| {
                    (all.pointer((i - rows.start) * width + j - cols.start, len), width)
                });
                // SAFETY: `tiles` is borrowed here, and the tiles are done.
                let values = unsafe { all.part(0, len) };
                sink.put(isa, at, values, width, cols.len());
            }),
            Place::Both(c, sink) => {
                self.tiles(tile, a, b, panels, rows.clone(), cols.clone(), |i, j, len| in_c(c, i, j, len));
                for i in 0..rows.len() {
                    let start = (at.0 + i) * self.n + at.1;
                    // SAFETY: the part of a row that belongs to this task, whose tiles are done.
                    let values = unsafe { c.part(start, start + cols.len()) };
                    sink.put(isa, (at.0 + i, at.1), values, cols.len(), cols.len());
                }
            }
        }
    }

    /// The tiles of some rows and columns, down the rows under each panel of B. `place` says where a tile goes, given its first row
    /// and column and how far its last element is from its first, and the distance of its rows.
    #[allow(clippy::too_many_arguments)]
    fn tiles<T: Tile>(
        &self,
        tile: T,
        a: &Operand,
        b: &Source<T::Unit>,
        (a_panels, b_panels): &Panels<T::Unit>,
        rows: Range<usize>,
        cols: Range<usize>,
        place: impl Fn(usize, usize, usize) -> (*mut f32, usize),
    ) {
        let &Block { m0, mc, nc, k0, kc, from_c, .. } = self;
        let depth = self.depth::<T>();
        for j in cols.clone().step_by(T::NR) {
            let width = T::NR.min(nc - j);
            let at = match b {
                Source::Matrix(_) | Source::Widened(_) => &b_panels[j * depth..(j + T::NR) * depth],
                Source::Panels { data, k, .. } => {
                    let start = (self.n0 + j) * k.div_ceil(T::DEEP) + k0 / T::DEEP * T::NR;
                    &data[start..start + depth * T::NR]
                }
            };
            let b = B { at: at.as_ptr(), step: T::NR };
            for i in rows.clone().step_by(T::MR) {
                let height = T::MR.min(mc - i);
                let a = T::as_it_lies(a, m0 + i, [k0, kc], nc).unwrap_or_else(|| {
                    let room = T::room(depth);
                    T::panel(a_panels[i * room..(i + T::MR) * room].as_ptr(), T::MR)
                });
                let (_, row) = place(i, j, 0);
                let (at, row) = (place(i, j, (height - 1) * row + width).0, row);
                let c = C { at, row, from_c };
                if i + T::MR < rows.end && matches!(self.place, Place::Stored(_)) {
                    C { at: at.wrapping_add(T::MR * row), ..c }.prefetch(T::MR);
                }
                // SAFETY: A's panel, or A itself, has these rows and `depth` steps, and B's panel `depth` steps of `NR`
                // units; the tile lies where it should, as `place` has checked, and no other task has this place.
                unsafe { tile.run(height, width, c, a, b, depth) };
            }
        }
    }
}
