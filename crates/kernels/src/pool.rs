//! Persistent threads that share the tasks of one call.
//!
//! [`for_each`] gives each thread a run of neighbouring tasks, the same thread the same part of each job, so that it finds in its
//! own cache what it left there in the job before; who is done first takes the last tasks of the others. The calling thread works too. Which thread runs a task
//! never changes a result, since each task writes its own part. Workers spin for some microseconds after a job,
//! so that the next starts at once, and then sleep; where other programs want the core, they sleep at once. A call from inside a task, or while another thread is using
//! the pool, runs on the calling thread alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// How long a worker spins before it sleeps: a wake-up costs about as much.
const PATIENCE: Duration = Duration::from_micros(60);
/// Rounds of spinning between two looks at the clock: a few microseconds.
const ROUNDS: u32 = 64;
/// A pause between two looks at the clock that tells of another thread on this core.
const PREEMPTED: Duration = Duration::from_micros(500);
/// Jobs for which a worker does not spin after it was preempted.
const SHY_JOBS: u32 = 64;

/// One call of [`for_each`], on the stack of its caller.
struct Job<'a> {
    f: &'a (dyn Fn(usize) + Sync),
    /// A run for each thread.
    runs: &'a [Run],
    /// Workers inside the job.
    inside: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// What thread `own` does: its own run from the front, then those of the others from the back.
    fn work(&self, own: usize) {
        let n = self.runs.len();
        for i in 0..n {
            let run = &self.runs[(own + i) % n];
            while let Some(task) = if i == 0 { run.first() } else { run.last() } {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.f)(task))) {
                    self.runs.iter().for_each(Run::empty);
                    lock(&self.panic).get_or_insert(panic);
                }
            }
        }
    }
}

/// Tasks of which one thread takes the first, and others the last.
struct Run {
    /// The first task that is left, and the end, in the upper half.
    left: AtomicU64,
}

impl Run {
    fn new(first: usize, end: usize) -> Run {
        assert!(end <= u32::MAX as usize, "{end} tasks");
        Run { left: AtomicU64::new(first as u64 | (end as u64) << 32) }
    }

    fn first(&self) -> Option<usize> {
        let left = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left as u32 as u64 != left >> 32).then_some(left + 1)
        });
        left.ok().map(|left| left as u32 as usize)
    }

    fn last(&self) -> Option<usize> {
        let left = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left as u32 as u64 != left >> 32).then(|| left - (1 << 32))
        });
        left.ok().map(|left| (left >> 32) as usize - 1)
    }

    fn empty(&self) {
        self.left.store(0, Ordering::Relaxed);
    }
}

/// A job's address, for the workers.
#[derive(Clone, Copy)]
struct JobPtr(*const Job<'static>);
// SAFETY: a `Job` is `Sync` (atomics, a mutex, and a reference to a `Sync` function), and `for_each` does not
// return before every worker that has read the address is done with it.
unsafe impl Send for JobPtr {}

struct Board {
    job: Option<JobPtr>,
    workers: usize,
    sleeping: usize,
}

struct Pool {
    board: Mutex<Board>,
    wake: Condvar,
    /// Counts jobs; workers spin on it.
    generation: AtomicU64,
    /// Threads to use, the caller included.
    threads: AtomicUsize,
    /// Held by the one caller that is using the workers.
    caller: Mutex<()>,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool {
    board: Mutex::new(Board { job: None, workers: 0, sleeping: 0 }),
    wake: Condvar::new(),
    generation: AtomicU64::new(0),
    threads: AtomicUsize::new(std::thread::available_parallelism().map_or(1, |n| n.get())),
    caller: Mutex::new(()),
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The number of threads that calls use, the caller included.
pub fn threads() -> usize {
    POOL.threads.load(Ordering::Relaxed)
}

/// Sets the number of threads for the calls that follow, at least 1. Results never depend on it.
pub fn set_threads(n: usize) {
    POOL.threads.store(n.max(1), Ordering::Relaxed);
}

/// Calls `f(0)`, …, `f(n_tasks - 1)`, each once, on all threads; returns when all are done. Each thread takes a run of them, in
/// order, so that what it asks for ahead is what it reads next, and then what the others have left.
///
/// # Panics
/// If a task panics, with its panic, after the other threads have stopped.
pub fn for_each(n_tasks: usize, f: impl Fn(usize) + Sync) {
    let threads = threads().min(n_tasks);
    if threads <= 1 {
        return (0..n_tasks).for_each(f);
    }
    let _caller = match POOL.caller.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return (0..n_tasks).for_each(f),
    };
    let run = |i: usize| Run::new(i * n_tasks / threads, (i + 1) * n_tasks / threads);
    let runs: Vec<Run> = (0..threads).map(run).collect();
    let job = Job { f: &f, runs: &runs, inside: AtomicUsize::new(0), panic: Mutex::new(None) };
    publish(&job, threads - 1);
    job.work(0);
    withdraw(&job);
    let panic = lock(&job.panic).take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// Shows the job to the workers, and makes sure there are enough of them.
fn publish(job: &Job, helpers: usize) {
    let mut board = lock(&POOL.board);
    while board.workers < helpers {
        let index = board.workers;
        let builder = std::thread::Builder::new().name(format!("gpt2-{index}"));
        if builder.spawn(move || worker(index)).is_err() {
            break; // No thread to be had: the others do the work.
        }
        board.workers += 1;
    }
    board.job = Some(JobPtr(std::ptr::from_ref(job).cast()));
    POOL.generation.fetch_add(1, Ordering::Release);
    if board.sleeping > 0 {
        POOL.wake.notify_all();
    }
}

/// Hides the job and waits for the workers inside it.
fn withdraw(job: &Job) {
    lock(&POOL.board).job = None;
    let mut spins = 0;
    while job.inside.load(Ordering::Acquire) > 0 {
        spins += 1;
        if spins < 16 * ROUNDS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

fn worker(index: usize) {
    crate::timing::never_here();
    let (mut seen, mut shy) = (0, 0);
    loop {
        seen = wait_for_news(seen, &mut shy);
        let entered = {
            let board = lock(&POOL.board);
            board.job.filter(|_| index + 1 < threads()).inspect(|job| {
                // SAFETY: the job is on the board, so its caller is still in `for_each`; and once `inside` is
                // counted, under the board's lock, the caller's `withdraw` waits for us.
                unsafe { &*job.0 }.inside.fetch_add(1, Ordering::Relaxed);
            })
        };
        if let Some(job) = entered {
            // SAFETY: counted as inside, so the caller waits until we leave.
            let job = unsafe { &*job.0 };
            job.work(index + 1);
            job.inside.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Spins, then sleeps, until a job after number `seen` was published. `shy` counts the jobs still to come for
/// which it sleeps at once, because spinning has met another program on this core.
fn wait_for_news(seen: u64, shy: &mut u32) -> u64 {
    let news = || Some(POOL.generation.load(Ordering::Acquire)).filter(|&generation| generation != seen);
    let start = Instant::now();
    let mut last = start;
    while *shy == 0 && last - start < PATIENCE {
        for _ in 0..ROUNDS {
            if let Some(generation) = news() {
                return generation;
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now - last > PREEMPTED {
            *shy = SHY_JOBS;
        }
        last = now;
    }
    *shy = shy.saturating_sub(1);
    let mut board = lock(&POOL.board);
    board.sleeping += 1;
    loop {
        if let Some(generation) = news() {
            board.sleeping -= 1;
            return generation;
        }
        board = POOL.wake.wait(board).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}

/// A slice whose parts are written by different tasks.
pub(crate) struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: `Shared` hands out disjoint parts (the caller of `part` promises so), and a part of a slice of `Send`
// values may be used on another thread.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Shared<T> {
        Shared { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// Where the slice starts, for asking ahead.
    pub fn first(&self) -> *const T {
        self.start
    }

    /// Where the `len` values from `start` on lie. Whoever uses the pointer answers for not overlapping.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.len && len <= self.len - start, "{len} values from {start} of {}", self.len);
        self.start.wrapping_add(start)
    }

    /// The values `start..end`.
    ///
    /// # Safety
    /// The slice given to `new` is still borrowed, and no other living part overlaps this one.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, end: usize) -> &mut [T] {
        assert!(start <= end && end <= self.len, "part {start}..{end} of {}", self.len);
        // SAFETY: within the slice by the assertion, alive and not shared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }
}

/// Calls `f(i, chunk)` for each chunk of `chunk` values (the last may be shorter), on all threads.
pub fn for_each_chunk_mut<T: Send>(data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (len, shared) = (data.len(), Shared::new(data));
    assert!(chunk > 0 || len == 0, "{len} values in chunks of none");
    for_each(len.div_ceil(chunk.max(1)), |i| {
        let start = i * chunk;
        // SAFETY: `data` is borrowed by this function, and chunks do not overlap.
        f(i, unsafe { shared.part(start, (start + chunk).min(len)) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            set_threads(threads);
            for n in [0, 1, 2, 7, 1000] {
                let mut counts = vec![0u32; n];
                for_each_chunk_mut(&mut counts, 1, |i, count| count[0] += 1 + i as u32);
                assert!(counts.iter().enumerate().all(|(i, &c)| c == 1 + i as u32), "{threads} threads, {n}");
            }
        }
    }

    #[test]
    fn every_task_runs_once_whoever_takes_it() {
        for threads in [1, 2, 3, 8] {
            set_threads(threads);
            for n in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                for_each(n, |i| {
                    // The first run takes long, so that the others help.
                    if i < n / 8 {
                        std::thread::yield_now();
                    }
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.into_iter().all(|count| count.into_inner() == 1), "{threads} threads, {n}");
            }
        }
    }

    #[test]
    fn a_run_gives_its_first_to_its_owner_and_its_last_to_others() {
        let run = Run::new(3, 6);
        assert_eq!([run.first(), run.last(), run.first()], [Some(3), Some(5), Some(4)]);
        assert_eq!([run.first(), run.last()], [None, None]);
        let run = Run::new(3, 6);
        run.empty();
        assert_eq!([run.first(), run.last()], [None, None]);
    }

    #[test]
    fn nested_and_concurrent_calls_complete() {
        set_threads(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        for_each(5, |i| for_each(3, |j| _ = sum.fetch_add(i * 3 + j, Ordering::Relaxed)));
                        assert_eq!(sum.into_inner(), 105);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let caught = catch_unwind(|| for_each(100, |i| assert!(i != 37, "task 37")));
        let message = caught.unwrap_err().downcast::<&str>().map(|message| *message).unwrap_or_default();
        assert_eq!(message, "task 37");
        let sum = AtomicUsize::new(0);
        for_each(10, |i| _ = sum.fetch_add(i, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 45);
    }
}
