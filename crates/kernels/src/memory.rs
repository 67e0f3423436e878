//! An allocator that gives large blocks large pages: weights, moments and activations are walked through again and
//! again, and with pages of 4 KiB a good part of the time goes into looking addresses up, and into the first touch.
//!
//! A program chooses it with `#[global_allocator]`. Smaller blocks are the system allocator's; on systems other than
//! Linux, all are. Those of a page or more start with a line of the cache, so that no vector lies in two.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator for small blocks, large pages for large ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages;

/// A large page: blocks of this size or more start at one.
const LARGE: usize = 2 << 20;

/// Whether a block comes from [`large`].
fn is_large(layout: Layout) -> bool {
    cfg!(target_os = "linux") && layout.size() >= LARGE && layout.align() <= LARGE
}

/// A block of this size or more starts with a line of the cache.
const PAGE: usize = 4096;
/// Bytes of a line of the cache.
const LINE: usize = 64;

/// How a block that is not large is asked of the system.
fn placed(layout: Layout) -> Layout {
    if layout.size() < PAGE { layout } else { layout.align_to(LINE).unwrap_or(layout) }
}

#[cfg(target_os = "linux")]
mod large {
    //! Blocks mapped by themselves. Only what is touched takes memory, and it is zero until then.

    use super::{LARGE, PAGE};

    fn whole_pages(size: usize) -> usize {
        size.next_multiple_of(PAGE)
    }

    /// Maps a block that starts at a large page, or gives null. The pages that do not fill a large one stay small, so
    /// that nothing is wasted behind the block's end.
    pub fn map(size: usize) -> *mut u8 {
        if size > isize::MAX as usize - 2 * LARGE {
            return std::ptr::null_mut();
        }
        let (size, room) = (whole_pages(size), whole_pages(size) + LARGE);
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room, of no file.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), room, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let before = (start as usize).next_multiple_of(LARGE) - start as usize;
        let block = start.wrapping_byte_add(before);
        // SAFETY: what is given back lies in the mapping, outside the block. The advice changes no value, and if the
        // system does not take it, the pages stay small.
        unsafe {
            if before > 0 {
                libc::munmap(start, before);
            }
            libc::munmap(block.wrapping_byte_add(size), LARGE - before);
            libc::madvise(block, size, libc::MADV_HUGEPAGE);
        }
        block.cast()
    }

    /// # Safety
    /// The block is one that [`map`] gave for this size, and nobody uses it any more.
    pub unsafe fn unmap(start: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(start.cast(), whole_pages(size)) };
    }
}

#[cfg(not(target_os = "linux"))]
mod large {
    //! Never called.

    pub fn map(_size: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    /// # Safety
    /// It does nothing.
    pub unsafe fn unmap(_start: *mut u8, _size: usize) {}
}

// SAFETY: small blocks are the system allocator's, large ones are mappings of their own; a block's layout, which the
// caller gives back with it, says which. Moving between the two copies.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return large::map(layout.size());
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(placed(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return large::map(layout.size());
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(placed(layout)) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size, rounded up to the alignment, is no overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if layout.size().max(new_size) < PAGE {
            // SAFETY: both are the system's, as they are; the caller's promise is the same.
            return unsafe { System.realloc(start, layout, new_size) };
        }
        // SAFETY: a new block of its own; the old one is as large as its layout says, and is freed as it was made.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                new.copy_from_nonoverlapping(start, layout.size().min(new_size));
                self.dealloc(start, layout);
            }
            new
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: blocks of this layout come from `map`.
            return unsafe { large::unmap(start, layout.size()) };
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(start, placed(layout)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_size_hold_what_is_written() {
        for size in [1, 4096, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE - 1, 9 << 20] {
            for new_size in [1, 100, LARGE - 1, LARGE, 5 << 20, 11 << 20] {
                let layout = Layout::from_size_align(size, 8).unwrap();
                // SAFETY: the layouts are not empty, only a block's bytes are touched, and it is freed with its layout.
                unsafe {
                    let block = LargePages.alloc_zeroed(layout);
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|&byte| byte == 0));
                    let kept = size.min(new_size);
                    assert!(size < PAGE || block.addr().is_multiple_of(LINE), "{size} begins with a line");
                    block.write(5);
                    block.add(kept - 1).write(7);
                    let moved = LargePages.realloc(block, layout, new_size);
                    assert_eq!(moved.add(kept - 1).read(), 7, "{size} to {new_size}");
                    assert!(
                        new_size < PAGE || moved.addr().is_multiple_of(LINE),
                        "{new_size} begins with a line"
                    );
                    moved.add(new_size - 1).write(9);
                    LargePages.dealloc(moved, Layout::from_size_align(new_size, 8).unwrap());
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_had_is_null() {
        let layout = Layout::from_size_align(1 << 60, 8).unwrap();
        // SAFETY: nothing is done with the block.
        assert!(unsafe { LargePages.alloc(layout) }.is_null());
    }
}
