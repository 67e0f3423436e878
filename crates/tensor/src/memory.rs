//! A pool of buffers, so that a training loop faults in its memory once.
//!
//! A large [`Buffer`] goes back to a free list when dropped and is handed out again to the next request of its
//! exact length. Idle and used buffers together never exceed the most that was ever in use at one moment.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex};

/// Shorter buffers are left to the allocator.
const POOLED: usize = 1 << 12;

/// A block of `f32` values that returns to the pool when dropped.
#[derive(Debug)]
pub struct Buffer(Vec<f32>);

#[derive(Default)]
struct Pool {
    idle: HashMap<usize, Vec<Vec<f32>>>,
    idle_len: usize,
    used_len: usize,
    peak_len: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Pool {
    /// An idle buffer of this length, if there is one. Makes room for a new one otherwise.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.used_len += len;
        let found = self.idle.get_mut(&len).and_then(Vec::pop);
        if found.is_some() {
            self.idle_len -= len;
        }
        self.peak_len = self.peak_len.max(self.used_len);
        while self.idle_len + self.used_len > self.peak_len && self.idle_len > 0 {
            self.evict();
        }
        found
    }

    fn evict(&mut self) {
        let Some(&len) = self.idle.iter().find(|(_, list)| !list.is_empty()).map(|(len, _)| len) else {
            return;
        };
        if let Some(list) = self.idle.get_mut(&len) {
            list.pop();
            self.idle_len -= len;
        }
    }

    fn give(&mut self, values: Vec<f32>) {
        let len = values.len();
        self.used_len = self.used_len.saturating_sub(len);
        if self.idle_len + self.used_len + len <= self.peak_len {
            self.idle_len += len;
            self.idle.entry(len).or_default().push(values);
        }
    }
}

impl Buffer {
    /// A buffer of zeros.
    pub fn zeroed(len: usize) -> Buffer {
        let mut reused = None;
        if len >= POOLED {
            reused = pool().take(len);
        }
        match reused {
            Some(mut values) => {
                values.fill(0.0);
                Buffer(values)
            }
            None => Buffer(vec![0.0; len]),
        }
    }

    /// A buffer whose values the caller will overwrite, every one: until then they are arbitrary.
    pub fn scratch(len: usize) -> Buffer {
        let mut reused = None;
        if len >= POOLED {
            reused = pool().take(len);
        }
        Buffer(reused.unwrap_or_else(|| vec![0.0; len]))
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Buffer {
        if values.len() >= POOLED {
            let mut pool = pool();
            pool.used_len += values.len();
            pool.peak_len = pool.peak_len.max(pool.used_len);
        }
        Buffer(values)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        let mut copy = Buffer::scratch(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() >= POOLED {
            pool().give(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zeroed_buffer_is_zero_even_when_reused() {
        let mut first = Buffer::scratch(POOLED + 7);
        first.fill(3.0);
        drop(first);
        assert!(Buffer::zeroed(POOLED + 7).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn idle_memory_stays_below_the_peak_in_use() {
        for len in [POOLED + 1, POOLED + 100, POOLED + 5000] {
            drop(Buffer::scratch(len));
        }
        let pool = pool();
        assert!(pool.idle_len + pool.used_len <= pool.peak_len);
    }
}
