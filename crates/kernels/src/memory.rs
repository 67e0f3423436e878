//! An allocator that asks for large pages: weights, moments and activations are walked through again and again, and
//! with pages of 4 KiB a good part of the time goes into looking addresses up.
//!
//! A program chooses it with `#[global_allocator]`. It is the system's allocator, which is told of large blocks.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with large pages for large blocks where the system has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages;

/// Blocks from this size on are worth the system call.
const LARGE: usize = 256 << 10;

/// Advises the system about a new block. The advice changes no value, and no error is one for the caller.
fn advise(start: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= LARGE && !start.is_null() {
        const PAGE: usize = 4096;
        let (first, end) = ((start as usize).next_multiple_of(PAGE), (start as usize + size) / PAGE * PAGE);
        if first < end {
            // SAFETY: the range lies within a block that was just allocated, and MADV_HUGEPAGE leaves its contents.
            unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    let _ = (start, size);
}

// SAFETY: every call is the system allocator's, which keeps the promises.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let start = unsafe { System.alloc(layout) };
        advise(start, layout.size());
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let start = unsafe { System.alloc_zeroed(layout) };
        advise(start, layout.size());
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let start = unsafe { System.realloc(start, layout, new_size) };
        advise(start, new_size);
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(start, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_size_hold_what_is_written() {
        for size in [1, 4096, LARGE - 1, LARGE, LARGE + 1, 9 << 20] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the layout is not empty, only its bytes are touched, and the block is freed with the last layout.
            unsafe {
                let zeros = LargePages.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(zeros, size).iter().all(|&byte| byte == 0));
                zeros.add(size - 1).write(7);
                let grown = LargePages.realloc(zeros, layout, 2 * size);
                assert_eq!(grown.add(size - 1).read(), 7);
                LargePages.dealloc(grown, Layout::from_size_align(2 * size, 8).unwrap());
            }
        }
    }
}
