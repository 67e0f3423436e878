//! Large products: panels of A and B are packed, and tasks of some tiles each are shared by the threads.
//!
//! The same for every type of panel. A goes unpacked where its rows can be read as they lie.

use std::any::Any;
use std::cell::RefCell;

use super::tiles::{B, C, Tile};
use super::{Operand, Output, Sink, Source};
use crate::isa::Isa;
use crate::pool::{self, Shared};

/// Columns of B packed at once.
const NC: usize = 2048;
/// Rows of A packed at once.
const MC: usize = 1024;

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
        let across = nc.div_ceil(task_cols);
        pool::for_each(mc.div_ceil(task_rows) * across, |task| {
            let (i0, j0) = (task / across * task_rows, task % across * task_cols);
            let (i1, j1) = (mc.min(i0 + task_rows), nc.min(j0 + task_cols));
            tile.held(|| match self.place {
                Place::Stored(c) => {
                    for j in (j0..j1).step_by(T::NR) {
                        self.column(tile, a, b, panels, (i0, i1), j, |i, len| {
                            let start = (self.m0 + i) * self.n + self.n0 + j;
                            (c.pointer(start, len), self.n)
                        });
                    }
                }
                Place::Sink(sink) => TILES.with_borrow_mut(|tiles| {
                    // Whole tiles, though the last may be cut short: rows of the task's full width.
                    let len = (i1 - i0) * task_cols;
                    tiles.resize(tiles.len().max(len), 0.0);
                    let all = Shared::new(tiles);
                    for j in (j0..j1).step_by(T::NR) {
                        self.column(tile, a, b, panels, (i0, i1), j, |i, len| {
                            (all.pointer((i - i0) * task_cols + j - j0, len), task_cols)
                        });
                    }
                    // SAFETY: `tiles` is borrowed here, and the tiles are done.
                    let values = unsafe { all.part(0, len) };
                    sink.put(isa, (self.m0 + i0, self.n0 + j0), values, task_cols, j1 - j0);
                }),
                Place::Both(c, sink) => {
                    for j in (j0..j1).step_by(T::NR) {
                        self.column(tile, a, b, panels, (i0, i1), j, |i, len| {
                            let start = (self.m0 + i) * self.n + self.n0 + j;
                            (c.pointer(start, len), self.n)
                        });
                    }
                    for i in self.m0 + i0..self.m0 + i1 {
                        let (start, end) = (i * self.n + self.n0 + j0, i * self.n + self.n0 + j1);
                        // SAFETY: the part of a row that belongs to this task, whose tiles are done.
                        let values = unsafe { c.part(start, end) };
                        sink.put(isa, (i, self.n0 + j0), values, j1 - j0, j1 - j0);
                    }
                }
            });
        });
    }

    /// The tiles of rows `i0..i1` under B's panel of column `j`. `place` says where a tile goes, given its first row
    /// and how far its last element is from its first, and the distance of its rows.
    #[allow(clippy::too_many_arguments)]
    fn column<T: Tile>(
        &self,
        tile: T,
        a: &Operand,
        b: &Source<T::Unit>,
        (a_panels, b_panels): &Panels<T::Unit>,
        (i0, i1): (usize, usize),
        j: usize,
        place: impl Fn(usize, usize) -> (*mut f32, usize),
    ) {
        let &Block { m0, mc, nc, k0, kc, from_c, .. } = self;
        let (depth, cols) = (self.depth::<T>(), T::NR.min(nc - j));
        let at = match b {
            Source::Matrix(_) | Source::Widened(_) => &b_panels[j * depth..(j + T::NR) * depth],
            Source::Panels { data, k, .. } => {
                let start = (self.n0 + j) * k.div_ceil(T::DEEP) + k0 / T::DEEP * T::NR;
                &data[start..start + depth * T::NR]
            }
        };
        let b = B { at: at.as_ptr(), step: T::NR };
        for i in (i0..i1).step_by(T::MR) {
            let rows = T::MR.min(mc - i);
            let a = T::as_it_lies(a, m0 + i, [k0, kc], nc).unwrap_or_else(|| {
                let room = T::room(depth);
                T::panel(a_panels[i * room..(i + T::MR) * room].as_ptr(), T::MR)
            });
            let (_, row) = place(i, 0);
            let (at, row) = (place(i, (rows - 1) * row + cols).0, row);
            let c = C { at, row, from_c };
            if i + T::MR < i1 && matches!(self.place, Place::Stored(_)) {
                C { at: at.wrapping_add(T::MR * row), ..c }.prefetch(T::MR);
            }
            // SAFETY: A's panel, or A itself, has these rows and `depth` steps, and B's panel `depth` steps of `NR`
            // units; the tile lies where it should, as `place` has checked, and no other task has this place.
            unsafe { tile.run(rows, cols, c, a, b, depth) };
        }
    }
}
