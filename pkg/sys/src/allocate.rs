//! The allocator of the command line, which is linked with musl: that one's own takes half a millisecond of a `run`.
//!
//! Blocks are cut from arenas, in sizes of a few classes, and go back to a list of their class: what a program needs again
//! and again (`events` may run for months) is found there. Big blocks are mappings of their own. One lock, for the command line
//! has one busy thread.

use crate::call::syscall;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};

/// Up to here there is a class for every 16 bytes.
const FINE: usize = 512;
/// From here on a block is a mapping; between the two, classes are powers of two.
const BIG: usize = 64 * 1024;
const CLASSES: usize = FINE / GRAIN + (BIG / FINE).ilog2() as usize;
/// Smallest block, and what the classes' blocks are aligned to.
const GRAIN: usize = 16;
/// Arenas come from mmap in this size; pages that are not touched cost nothing.
const ARENA: usize = 1 << 20;

/// A block on its class's list holds the next one's address.
struct Heap {
    at: usize,
    end: usize,
    free: [usize; CLASSES],
}

/// `#[global_allocator] static ALLOCATOR: Classes = Classes::new();`
pub struct Classes {
    locked: AtomicBool,
    heap: UnsafeCell<Heap>,
}

// SAFETY: whoever touches the heap holds the lock.
unsafe impl Sync for Classes {}

/// Which class a size belongs to, and the class's size; none for a mapping.
#[inline(always)]
const fn class(size: usize) -> Option<(usize, usize)> {
    if size <= FINE {
        let index = if size == 0 { 0 } else { (size - 1) / GRAIN };
        return Some((index, (index + 1) * GRAIN));
    }
    if size > BIG {
        return None;
    }
    let whole = size.next_power_of_two();
    Some((FINE / GRAIN - 1 + (whole / FINE).ilog2() as usize, whole))
}

/// What the kernel gives in whole pages.
fn map(length: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches no memory that is in use.
    match unsafe { syscall!(libc::SYS_mmap, 0, length, protection, flags, -1i32, 0) } {
        Ok(address) => address as *mut u8,
        Err(_) => null_mut(),
    }
}

impl Classes {
    /// An empty allocator.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Classes {
        Classes {
            locked: AtomicBool::new(false),
            heap: UnsafeCell::new(Heap { at: 0, end: 0, free: [0; CLASSES] }),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Heap) -> T) -> T {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Whoever holds it may be waiting for a processor.
            // SAFETY: no arguments.
            let _ = unsafe { syscall!(libc::SYS_sched_yield) };
        }
        // SAFETY: the lock is held, and `act` cannot call back into this allocator: it allocates nothing.
        let value = act(unsafe { &mut *self.heap.get() });
        self.locked.store(false, Ordering::Release);
        value
    }
}

impl Heap {
    fn take(&mut self, index: usize, size: usize) -> *mut u8 {
        let block = self.free[index];
        if block != 0 {
            // SAFETY: a block on the list is free, ours, and holds the next one's address.
            self.free[index] = unsafe { *(block as *const usize) };
            return block as *mut u8;
        }
        if self.end - self.at < size {
            // The rest of the old arena stays unused: at most one block of 64 KiB in 1 MiB.
            let arena = map(ARENA) as usize;
            if arena == 0 {
                return null_mut();
            }
            (self.at, self.end) = (arena, arena + ARENA);
        }
        let block = self.at;
        self.at += size;
        block as *mut u8
    }

    fn give(&mut self, index: usize, block: *mut u8) {
        // SAFETY: the block is at least 16 bytes long, aligned, and its owner has given it back.
        unsafe { *block.cast::<usize>() = self.free[index] };
        self.free[index] = block as usize;
    }
}

/// Inlined, for it is a third of an allocation. Blocks of the classes are aligned to 16; whoever wants more gets a mapping, which is aligned to a page.
#[inline(always)]
fn place(layout: &Layout) -> Option<(usize, usize)> {
    if layout.align() <= GRAIN { class(layout.size()) } else { None }
}

// SAFETY: every block is cut once from an arena that is never unmapped, or is a mapping of its own; a block that is given back is
// on one list until it is taken from there. Nothing in the program wants an alignment above a page.
unsafe impl GlobalAlloc for Classes {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match place(&layout) {
            Some((index, size)) => self.with(|heap| heap.take(index, size)),
            None => map(layout.size()),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match place(&layout) {
            Some((index, _)) => self.with(|heap| heap.give(index, block)),
            // SAFETY: the caller gives back a mapping that `alloc` made with this length.
            None => drop(unsafe { syscall!(libc::SYS_munmap, block, layout.size()) }),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is the old layout's, and GlobalAlloc's caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (place(&layout), place(&wanted)) {
            (Some((old, _)), Some((new, _))) if old == new => return block,
            (None, None) => {
                let (from, flags) = (layout.size(), libc::MREMAP_MAYMOVE);
                // SAFETY: the caller gives up a mapping that `alloc` made with this length.
                return match unsafe { syscall!(libc::SYS_mremap, block, from, size, flags) } {
                    Ok(address) => address as *mut u8,
                    Err(_) => null_mut(),
                };
            }
            _ => {}
        }
        // SAFETY: the layout is sound, see above.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both blocks are that long and do not overlap; the old one is the caller's to give back.
            unsafe {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc_crate::{vec, vec::Vec};

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn classes_hold_their_sizes_without_gaps() {
        let mut last = 0;
        for size in 0..=BIG {
            let (index, whole) = class(size).unwrap();
            assert!(whole >= size && whole >= GRAIN && index < CLASSES, "{size}");
            assert!(index == last || index == last + 1, "{size}");
            last = index;
        }
        assert_eq!(last, CLASSES - 1);
        assert_eq!(class(BIG + 1), None);
    }

    #[test]
    fn a_block_that_is_given_back_is_taken_again() {
        let heap = Classes::new();
        for size in [1, 16, 17, 512, 513, 4000, BIG] {
            // SAFETY: blocks of this heap, with their layouts.
            unsafe {
                let first = heap.alloc(layout(size));
                heap.dealloc(first, layout(size));
                assert_eq!(heap.alloc(layout(size)), first, "{size}");
            }
        }
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_what_is_in_them() {
        let heap = Classes::new();
        let mut blocks: Vec<(*mut u8, usize)> = Vec::new();
        for round in 0..3000usize {
            let size = (round * 7919) % 3000 + 1;
            // SAFETY: blocks of this heap, with their layouts, written to within their lengths.
            unsafe {
                let block = heap.alloc(layout(size));
                assert!(!block.is_null() && (block as usize).is_multiple_of(GRAIN));
                block.write_bytes(blocks.len() as u8, size);
                blocks.push((block, size));
                if round % 3 == 0 {
                    let (block, size) = blocks[round / 3];
                    let (old, larger) = (vec![(round / 3) as u8; size], size * 2);
                    let grown = heap.realloc(block, layout(size), larger);
                    assert_eq!(core::slice::from_raw_parts(grown, size), old);
                    grown.write_bytes((round / 3) as u8, larger);
                    blocks[round / 3] = (grown, larger);
                }
            }
        }
        for (index, (block, size)) in blocks.iter().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(*block, *size) };
            assert!(bytes.iter().all(|byte| *byte == index as u8), "{index}");
        }
    }

    #[test]
    fn big_blocks_are_mappings_that_grow_and_shrink() {
        let heap = Classes::new();
        // SAFETY: blocks of this heap, with their layouts, written to within their lengths.
        unsafe {
            let block = heap.alloc(layout(BIG + 1));
            block.write_bytes(7, BIG + 1);
            let block = heap.realloc(block, layout(BIG + 1), 40 * BIG);
            assert_eq!((*block, *block.add(BIG)), (7, 7));
            let block = heap.realloc(block, layout(40 * BIG), 100);
            assert_eq!((*block, *block.add(99)), (7, 7));
            heap.dealloc(block, layout(100));
        }
    }
}
