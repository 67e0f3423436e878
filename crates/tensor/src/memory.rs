//! A pool of buffers, so that a training loop faults in its memory once.
//!
//! A large [`Buffer`] goes back to a free list when dropped and is handed out again to the next request of about its
//! length, since the batches of a server have another number of rows at each step. Idle and used buffers together hardly
//! exceed the most that was ever in use at one moment: by a sixteenth, or some megabytes, so that the backward pass finds its first gradients' memory without giving up the logits'.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, MutexGuard};

use kernels::bf16::bf16;

/// Shorter buffers are left to the allocator.
const POOLED: usize = 1 << 12;
/// Values that may always lie idle: those of a pass over a prompt, whose layers ask for buffers of a few lengths in turn.
const SLACK: usize = 6 << 20;

/// A block of values that returns to the pool of its type when dropped.
#[derive(Debug)]
pub struct Buffer<T: Pooled = f32>(Vec<T>);

/// The idle buffers of one type, by size.
#[derive(Debug, Default)]
pub struct Pool<T> {
    idle: HashMap<usize, Vec<Vec<T>>>,
    idle_len: usize,
    used_len: usize,
    peak_len: usize,
}

/// A type with a pool.
pub trait Pooled: Copy + Default + Send + Sync + 'static {
    /// The pool, the same for each call.
    fn shared() -> &'static Mutex<Pool<Self>>;
}

impl Pooled for f32 {
    fn shared() -> &'static Mutex<Pool<f32>> {
        static POOL: LazyLock<Mutex<Pool<f32>>> = LazyLock::new(Mutex::default);
        &POOL
    }
}

impl Pooled for bf16 {
    fn shared() -> &'static Mutex<Pool<bf16>> {
        static POOL: LazyLock<Mutex<Pool<bf16>>> = LazyLock::new(Mutex::default);
        &POOL
    }
}

fn pool<T: Pooled>() -> MutexGuard<'static, Pool<T>> {
    T::shared().lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The size of a buffer of this length: the next of the sizes, of which there are 8 from one power of two to the next.
fn size_for(len: usize) -> usize {
    len.next_multiple_of(step(len))
}

/// The largest size that fits a capacity.
fn size_of_capacity(capacity: usize) -> usize {
    capacity - capacity % step(capacity)
}

/// The distance of sizes up to the power of two that reaches this length.
fn step(len: usize) -> usize {
    (len.next_power_of_two() / 16).max(1)
}

impl<T> Pool<T> {
    /// An idle buffer of this size, if there is one. Makes room for a new one otherwise.
    fn take(&mut self, size: usize) -> Option<Vec<T>> {
        self.used_len += size;
        let found = self.idle.get_mut(&size).and_then(Vec::pop);
        if found.is_some() {
            self.idle_len -= size;
        }
        self.peak_len = self.peak_len.max(self.used_len);
        while self.idle_len + self.used_len > self.limit() && self.idle_len > 0 {
            self.evict();
        }
        found
    }

    fn limit(&self) -> usize {
        self.peak_len + (self.peak_len / 16).max(SLACK)
    }

    /// Frees one of the shortest idle buffers: the longest ones cost most to have again.
    fn evict(&mut self) {
        let idle = self.idle.iter().filter(|(_, list)| !list.is_empty());
        let Some(size) = idle.map(|(&size, _)| size).min() else { return };
        if let Some(list) = self.idle.get_mut(&size) {
            list.pop();
            self.idle_len -= size;
        }
    }

    fn give(&mut self, values: Vec<T>) {
        let size = size_of_capacity(values.capacity());
        self.used_len = self.used_len.saturating_sub(size);
        if self.idle_len + self.used_len + size <= self.limit() {
            self.idle_len += size;
            self.idle.entry(size).or_default().push(values);
        }
    }
}

impl<T: Pooled> Buffer<T> {
    /// Values of any kind, and whether they were used before; new ones are zero.
    fn any(len: usize) -> (Vec<T>, bool) {
        if len < POOLED {
            return (vec![T::default(); len], false);
        }
        let size = size_for(len);
        let found = pool::<T>().take(size);
        let was_used = found.is_some();
        // Memory of a new one is the system's, of zeros that cost nothing until they are touched.
        let mut values = found.unwrap_or_else(|| vec![T::default(); size]);
        values.resize(len, T::default());
        (values, was_used)
    }

    /// A buffer of zeros.
    pub fn zeroed(len: usize) -> Buffer<T> {
        let (mut values, was_used) = Buffer::any(len);
        if was_used {
            values.fill(T::default());
        }
        Buffer(values)
    }

    /// A buffer whose values the caller will overwrite, every one: until then they are arbitrary.
    pub fn scratch(len: usize) -> Buffer<T> {
        Buffer(Buffer::any(len).0)
    }
}

impl<T: Pooled> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Buffer<T> {
        if values.len() >= POOLED {
            let mut pool = pool::<T>();
            pool.used_len += size_of_capacity(values.capacity());
            pool.peak_len = pool.peak_len.max(pool.used_len);
        }
        Buffer(values)
    }
}

impl<T: Pooled> Clone for Buffer<T> {
    fn clone(&self) -> Buffer<T> {
        let mut copy = Buffer::scratch(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Pooled> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.0.len() >= POOLED {
            pool().give(std::mem::take(&mut self.0));
        }
    }
}

impl<T: Pooled> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Pooled> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zeroed_buffer_is_zero_even_when_reused() {
        let mut first = Buffer::<f32>::scratch(POOLED + 7);
        first.fill(3.0);
        drop(first);
        assert!(Buffer::<f32>::zeroed(POOLED + 7).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn sizes_fit_and_a_buffer_serves_every_length_of_its_size() {
        for len in (POOLED..3 * POOLED).step_by(37) {
            let size = size_for(len);
            assert!(
                len <= size && size - len <= len / 8 && size_of_capacity(size) == size,
                "{len} in {size}"
            );
            assert!(size_of_capacity(len) <= len && size_for(size_of_capacity(len)) == size_of_capacity(len));
        }
        // A size that no other test asks for.
        let sizes: [usize; 3] = [100_001, 98_500, 106_000];
        assert!(sizes.iter().all(|&len| size_for(len) == size_for(sizes[0])));
        let address = |len| {
            let buffer = Buffer::<bf16>::scratch(len);
            assert_eq!(buffer.len(), len);
            buffer.as_ptr().addr()
        };
        let first = address(sizes[0]);
        assert!(sizes.iter().all(|&len| address(len) == first));
    }

    #[test]
    fn idle_memory_stays_near_the_peak_in_use() {
        for len in [POOLED + 1, POOLED + 100, POOLED + 5000] {
            drop(Buffer::<f32>::scratch(len));
        }
        let pool = pool::<f32>();
        assert!(pool.idle_len + pool.used_len <= pool.limit());
    }
}
