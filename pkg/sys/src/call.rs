//! The `syscall` instruction, and nothing else.

use crate::{Errno, Result};
use core::arch::asm;

/// Makes a system call.
///
/// # Safety
/// The arguments must be what the call `number` expects: every pointer among them valid for what the kernel reads or
/// writes through it, for the whole call.
#[inline]
#[cfg(target_arch = "x86_64")]
pub unsafe fn raw(number: i64, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel clobbers rcx and r11 alone.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Makes a system call.
///
/// # Safety
/// As on x86_64.
#[inline]
#[cfg(target_arch = "aarch64")]
pub unsafe fn raw(number: i64, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but x0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    result
}

/// The result of a raw call: -4095..=-1 is an errno.
#[inline]
pub const fn check(result: isize) -> Result<usize> {
    if result < 0 && result >= -4095 { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// Makes a call and checks its result; arguments become machine words by `as usize`.
macro_rules! syscall {
    ($number:expr $(, $arg:expr)* $(,)?) => {{
        let mut args = [0usize; 6];
        let list: &[usize] = &[$($arg as usize),*];
        args[..list.len()].copy_from_slice(list);
        $crate::call::check($crate::call::raw($number as i64, args))
    }};
}
pub(crate) use syscall;
