//! The freestanding image's floor: entry point, allocator, memory functions, panic handler. Init has no libc.

use crate::call::syscall;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

/// Defines the program: `entry!(function)` with `fn function(args: &[&[u8]]) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[global_allocator]
        static ALLOCATOR: $crate::start::Bump = $crate::start::Bump::new();

        #[panic_handler]
        fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::process::exit(70)
        }

        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn cofferdam_start(stack: *const usize) -> ! {
            // SAFETY: `_start` hands over the stack pointer that the kernel set up at execve.
            let (args, count) = unsafe { $crate::start::arguments(stack) };
            let main: fn(&[&[u8]]) -> ! = $main;
            main(&args[..count])
        }
    };
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call cofferdam_start",
    "ud2",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "mov x29, xzr",
    "mov x0, sp",
    "bl cofferdam_start",
    "brk 0",
);

/// argv of a fresh process, at most four words.
///
/// # Safety
/// `stack` must be the stack pointer at the entry point: argc, argv[0..argc], NULL.
pub unsafe fn arguments(stack: *const usize) -> ([&'static [u8]; 4], usize) {
    let mut args: [&'static [u8]; 4] = [&[]; 4];
    // SAFETY: the kernel puts argc there.
    let count = unsafe { *stack }.min(args.len());
    for (i, arg) in args.iter_mut().enumerate().take(count) {
        // SAFETY: argv follows argc, and each of its strings ends in NUL and lives as long as the process.
        *arg =
            unsafe { core::ffi::CStr::from_ptr((*stack.add(1 + i)) as *const core::ffi::c_char) }.to_bytes();
    }
    (args, count)
}

/// The first arena lies in .bss: pages that are not touched cost nothing, and most programs touch ten.
const FIRST: usize = 128 * 1024;
/// Further arenas come from mmap in multiples of this.
const NEXT: usize = 256 * 1024;

/// Memory is handed out and never taken back: init lives for a millisecond and then becomes another program.
pub struct Bump {
    arena: UnsafeCell<Arena>,
    first: UnsafeCell<[u8; FIRST]>,
}

struct Arena {
    at: usize,
    end: usize,
}

// SAFETY: init has one thread; the entry point's author keeps it so.
unsafe impl Sync for Bump {}

impl Bump {
    /// An empty allocator.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Bump {
        Bump { arena: UnsafeCell::new(Arena { at: 0, end: 0 }), first: UnsafeCell::new([0; FIRST]) }
    }
}

// SAFETY: every block lies in an arena that lives for ever, behind all blocks handed out before it.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no reference to the arena outlives this call.
        let arena = unsafe { &mut *self.arena.get() };
        if arena.end == 0 {
            arena.at = self.first.get() as usize;
            arena.end = arena.at + FIRST;
        }
        let start = arena.at.next_multiple_of(layout.align());
        if start + layout.size() <= arena.end {
            arena.at = start + layout.size();
            return start as *mut u8;
        }
        let length = (layout.size() + layout.align()).next_multiple_of(NEXT);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping touches no memory that is in use.
        let Ok(new) = (unsafe { syscall!(libc::SYS_mmap, 0, length, protection, flags, -1i32, 0) }) else {
            return core::ptr::null_mut();
        };
        let start = new.next_multiple_of(layout.align());
        arena.at = start + layout.size();
        arena.end = new + length;
        start as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: one thread, and no reference to the arena outlives this call.
        let arena = unsafe { &mut *self.arena.get() };
        // The last block goes back: temporary strings and vectors mostly are that.
        if block as usize + layout.size() == arena.at {
            arena.at = block as usize;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: one thread, and no reference to the arena outlives this block.
        let arena = unsafe { &mut *self.arena.get() };
        if block as usize + layout.size() == arena.at && block as usize + size <= arena.end {
            arena.at = block as usize + size;
            return block;
        }
        // SAFETY: size and alignment are the caller's, who vouches for them.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks are that long, and `new` overlaps no other block.
            unsafe { core::ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
        }
        new
    }
}

/// The compiler calls these by name. Not written in terms of slices: the compiler would turn those into calls of themselves.
mod memory {
    use core::arch::asm;

    /// Copies forwards.
    ///
    /// # Safety
    /// C's memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller vouches for both regions; the direction flag is clear by the ABI.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        for i in 0..count {
            // SAFETY: the caller vouches for both regions. Volatile keeps the loop a loop.
            unsafe { to.add(i).write_volatile(from.add(i).read()) };
        }
        to
    }

    /// Copies in the direction that overlapping regions allow.
    ///
    /// # Safety
    /// C's memmove.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= count {
            // SAFETY: going forwards overwrites nothing that is still to be read.
            return unsafe { memcpy(to, from, count) };
        }
        for i in (0..count).rev() {
            // SAFETY: the caller vouches for both regions; volatile keeps the loop a loop.
            unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        }
        to
    }

    /// Fills.
    ///
    /// # Safety
    /// C's memset.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the region; the direction flag is clear by the ABI.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        for i in 0..count {
            // SAFETY: the caller vouches for the region.
            unsafe { to.add(i).write_volatile(byte as u8) };
        }
        to
    }

    /// Compares.
    ///
    /// # Safety
    /// C's memcmp.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        for i in 0..count {
            // SAFETY: the caller vouches for both regions; volatile keeps the loop a loop.
            let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
            if x != y {
                return i32::from(x) - i32::from(y);
            }
        }
        0
    }

    /// Compares for equality.
    ///
    /// # Safety
    /// As memcmp.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        // SAFETY: as the caller's.
        unsafe { memcmp(a, b, count) }
    }

    /// Length of a C string.
    ///
    /// # Safety
    /// C's strlen.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller vouches for a NUL; volatile keeps the loop a loop.
        while unsafe { text.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }
}

/// The precompiled `alloc` crate was built with unwinding, and names these two. Nothing here unwinds: a panic ends the process
/// in the panic handler.
mod unwinding {
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() -> ! {
        crate::process::exit(70)
    }

    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() -> ! {
        crate::process::exit(70)
    }
}
