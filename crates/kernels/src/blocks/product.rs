//! The whole product: x is rounded once, then tasks of some panels and some tiles of rows are shared by the threads.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use super::tiles::{Ahead, Kernel, MOST_ROWS, Task, with_kernel};
use super::x_rows::{Tiles, XBlock};
use super::{BlockFormat, BlockMatrix, PANEL};
use crate::gemm::{Operand, Output, Sink};
use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::timing;

/// Panels that a tile goes through before the next, and whose values are handed over together.
const WIDE: usize = 4;
/// Bytes of a task's panels, and of its rows of x: they are read again and again, from the second-level cache.
const W_BYTES: usize = 128 << 10;
const X_BYTES: usize = 256 << 10;

thread_local! {
    /// Rounded rows of x, of the calls that this thread makes.
    static X_BLOCKS: RefCell<Vec<XBlock>> = const { RefCell::new(Vec::new()) };
}

/// The product of x (M, K) and a matrix in blocks (K, N), on all threads.
pub fn multiply(x: Operand, w: &BlockMatrix, output: Output) {
    multiply_on(isa::current(), x, w, output);
}

/// [`multiply`] with a given instruction set.
pub fn multiply_on(isa: Isa, x: Operand, w: &BlockMatrix, output: Output) {
    let (m, k, n) = (x.rows(), x.cols(), w.cols());
    assert!(w.rows() == k && x.is_whole(), "x is {m} × {k}, w has {} rows", w.rows());
    if let Output::Set(c) | Output::Add(c) = &output {
        assert_eq!(c.len(), m * n, "C is {m} × {n}");
    }
    if m == 0 || n == 0 {
        return;
    }
    let _span = timing::start(|| {
        let (flops, bytes) = (2.0 * m as f64 * k as f64 * n as f64, 4.0 * m as f64 * n as f64);
        let name = format!("blocks {} {m} × {k} × {n}", w.format().name());
        (name, flops, w.data().len() as f64 + x.bytes() + bytes)
    });
    // Taken out, not borrowed: a task that runs here may itself multiply.
    let mut blocks = X_BLOCKS.take();
    with_kernel!(isa, |kernel| {
        let tiles = tiles_for(kernel, m, k);
        tiles.fill(kernel, &x, w.format(), &mut blocks);
        share(isa, kernel, tiles, &blocks, w, output)
    });
    X_BLOCKS.set(blocks);
}

/// Tiles as high as the kernel's.
fn tiles_for<K: Kernel>(_: K, m: usize, k: usize) -> Tiles {
    Tiles::new(m, k, K::ROWS)
}

/// Shares tiles and panels.
fn share<K: Kernel>(isa: Isa, kernel: K, tiles: Tiles, x: &[XBlock], w: &BlockMatrix, mut output: Output) {
    let n = w.cols();
    let panels = n.div_ceil(PANEL);
    let place = match &mut output {
        Output::Set(c) => Place::Set(Shared::new(c)),
        Output::Add(c) => Place::Add(Shared::new(c)),
        Output::To(sink) => Place::Sink(*sink),
    };
    let bytes = w.format().panel_bytes(w.rows());
    let most = (W_BYTES / bytes.max(1)).clamp(1, WIDE);
    let wide = panels.div_ceil(4 * pool::threads()).clamp(1, most);
    let across = panels.div_ceil(wide);
    let tile_bytes = tiles.height * tiles.blocks * size_of::<XBlock>();
    let tall = (X_BYTES / tile_bytes.max(1)).clamp(1, tiles.len());
    // This thread's next panels, while the first tile goes through those before.
    let next = wide * bytes;
    pool::for_each(across * tiles.len().div_ceil(tall), |task| {
        let (p0, t0) = (task % across * wide, task / across * tall);
        let (p1, t1) = (panels.min(p0 + wide), tiles.len().min(t0 + tall));
        kernel.held(|| {
            for t in t0..t1 {
                let ahead = match () {
                    _ if tiles.len() == 1 => ahead_of_few::<K>(w.format(), tiles.rows),
                    _ if t == t0 => Ahead { behind: next, pages: false },
                    _ => Ahead { behind: 0, pages: false },
                };
                let (first, rows) = (t * tiles.height, tiles.rows_of(t));
                let (col, cols) = (p0 * PANEL, (p1 * PANEL).min(n) - p0 * PANEL);
                let stride = (p1 - p0) * PANEL;
                let part = Part { at: (first, col), cols, stride, n };
                let mut buffer = Buffer(MaybeUninit::uninit());
                let sums = buffer.zeros(rows * stride);
                place.begin(sums, part);
                for p in p0..p1 {
                    let task = Task {
                        format: w.format(),
                        panel: w.panel(p),
                        rows,
                        x: &x[tiles.range(t)],
                        stride,
                        ahead,
                    };
                    kernel.run(&mut sums[(p - p0) * PANEL..], task);
                }
                place.end(isa, sums, part);
            }
        });
    });
}

/// What to fetch where there is one tile. The fewest rows take less time than the memory takes anyway: unless it is read in
/// several pages at once, the processor itself sees that they are read in order, and asking for more only gets in its way.
fn ahead_of_few<K: Kernel>(format: BlockFormat, rows: usize) -> Ahead {
    if K::PAGES {
        return Ahead { behind: Ahead::PAGES, pages: true };
    }
    let enough = match format {
        BlockFormat::Q8 => 5,
        BlockFormat::Q6 => 3,
        BlockFormat::Q4 => 2,
    };
    Ahead { behind: if rows < enough { 0 } else { 16 << 10 }, pages: false }
}

/// The sums of a tile, at the start of a line of the cache.
#[repr(align(64))]
struct Buffer(MaybeUninit<[f32; MOST_ROWS * WIDE * PANEL]>);

impl Buffer {
    /// Some zeros: few where a tile has few rows, since writing them all would take a good part of its time.
    fn zeros(&mut self, n: usize) -> &mut [f32] {
        assert!(n <= MOST_ROWS * WIDE * PANEL, "a tile's sums");
        let start = self.0.as_mut_ptr().cast::<f32>();
        // SAFETY: the buffer is large enough, and these values are written before they can be read.
        unsafe {
            start.write_bytes(0, n);
            std::slice::from_raw_parts_mut(start, n)
        }
    }
}

/// Which elements of C the sums are: from row and column `at` on, `cols` columns of C's `n`. Rows of sums are `stride`
/// values apart, and those past `cols` are padding.
#[derive(Clone, Copy)]
struct Part {
    at: (usize, usize),
    cols: usize,
    stride: usize,
    n: usize,
}

/// Where sums come from and go to.
enum Place<'a> {
    Set(Shared<f32>),
    Add(Shared<f32>),
    Sink(&'a dyn Sink),
}

impl Place<'_> {
    /// The old values, where chains start from them.
    fn begin(&self, sums: &mut [f32], part: Part) {
        let Place::Add(c) = self else { return };
        for (i, sums) in sums.chunks_mut(part.stride).enumerate() {
            let start = (part.at.0 + i) * part.n + part.at.1;
            // SAFETY: C is borrowed by the caller of the product, and only this task has these elements.
            sums[..part.cols].copy_from_slice(unsafe { c.part(start, start + part.cols) });
        }
    }

    /// The finished values.
    fn end(&self, isa: Isa, sums: &mut [f32], part: Part) {
        match self {
            Place::Sink(sink) => sink.put(isa, part.at, sums, part.stride, part.cols),
            Place::Set(c) | Place::Add(c) => {
                for (i, sums) in sums.chunks(part.stride).enumerate() {
                    let start = (part.at.0 + i) * part.n + part.at.1;
                    // SAFETY: as in `begin`.
                    unsafe { c.part(start, start + part.cols) }.copy_from_slice(&sums[..part.cols]);
                }
            }
        }
    }
}
