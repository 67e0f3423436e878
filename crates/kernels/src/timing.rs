//! Where the time goes: `GPT2_TIMING=1` makes every kernel count its seconds, operations and bytes.
//!
//! Each kernel asks [`start`] on the thread that calls it; the span that it gets counts until it is dropped. A kernel
//! inside another, and one inside a pool's task, belongs to the outer one and is not counted again.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

/// What one kernel has cost so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The kernel, with its shape where that matters.
    pub name: String,
    /// Calls.
    pub calls: u64,
    /// Seconds in them.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that must be read or written at least.
    pub bytes: f64,
}

static ENABLED: LazyLock<bool> =
    LazyLock::new(|| std::env::var("GPT2_TIMING").is_ok_and(|value| !value.is_empty() && value != "0"));
static TABLE: LazyLock<Mutex<HashMap<String, Entry>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Whether a span is open on this thread, or it belongs to the pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether `GPT2_TIMING` asks for it.
pub fn enabled() -> bool {
    *ENABLED
}

/// Nothing on this thread is counted from now on: the pool's threads work for a span of their caller.
pub(crate) fn never_here() {
    INSIDE.set(true);
}

/// An open span; it ends when dropped.
#[derive(Debug)]
pub struct Span {
    started: Instant,
    entry: Entry,
}

/// Opens a span, where timing is on: `describe` gives the kernel's name, its operations and its bytes.
pub fn start(describe: impl FnOnce() -> (String, f64, f64)) -> Option<Span> {
    if !enabled() || INSIDE.replace(true) {
        return None;
    }
    let (name, flops, bytes) = describe();
    Some(Span { entry: Entry { name, calls: 1, seconds: 0.0, flops, bytes }, started: Instant::now() })
}

/// [`start`] for a kernel bound by memory, which reads or writes this many `f32` values.
pub(crate) fn values(name: &str, n: usize) -> Option<Span> {
    start(|| (name.to_owned(), 0.0, 4.0 * n as f64))
}

impl Drop for Span {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        INSIDE.set(false);
        let mut table = TABLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Entry { name, calls, flops, bytes, .. } = std::mem::take(&mut self.entry);
        let total = table.entry(name).or_default();
        total.calls += calls;
        total.seconds += seconds;
        total.flops += flops;
        total.bytes += bytes;
    }
}

/// All kernels so far, the slowest first, and forgets them.
pub fn take() -> Vec<Entry> {
    let table = std::mem::take(&mut *TABLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    let mut entries: Vec<Entry> = table.into_iter().map(|(name, entry)| Entry { name, ..entry }).collect();
    entries.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    entries
}

/// The table as text: for each kernel its calls, its share of `wall` seconds, and its share of the machine's peaks.
pub fn report(entries: &[Entry], wall: f64, peaks: &crate::peak::Peaks) -> String {
    let counted: f64 = entries.iter().map(|entry| entry.seconds).sum();
    let mut text = format!(
        "{:<44} {:>8} {:>9} {:>6} {:>9} {:>6} {:>7} {:>6}\n",
        "kernel", "calls", "ms", "time", "GFLOP/s", "peak", "GB/s", "peak"
    );
    // A factor of bfloat16 is marked by an h in the layout, a matrix in blocks by its format.
    let peak_of = |name: &str| match name.split(' ').nth(1) {
        Some(format) if format.starts_with('q') => peaks.int8_gops.unwrap_or(peaks.f32_gflops),
        Some(layout) if layout.contains('h') => peaks.bf16_gflops.unwrap_or(peaks.f32_gflops),
        _ => peaks.f32_gflops,
    };
    let mut row = |name: &str, calls: u64, seconds: f64, flops: f64, bytes: f64| {
        let (gflops, gb) = (flops / seconds / 1e9, bytes / seconds / 1e9);
        text += &format!(
            "{name:<44} {calls:>8} {:>9.2} {:>5.1}% {gflops:>9.1} {:>5.0}% {gb:>7.1} {:>5.0}%\n",
            1e3 * seconds,
            100.0 * seconds / wall,
            100.0 * gflops / peak_of(name),
            100.0 * gb / peaks.mem_read_gb_s,
        );
    };
    for Entry { name, calls, seconds, flops, bytes } in entries {
        row(name, *calls, *seconds, *flops, *bytes);
    }
    row("outside the kernels", 0, (wall - counted).max(0.0), 0.0, 0.0);
    text
}
