//! The entry point of programs with libc: C's `main`, in place of the one that std wraps around Rust's.
//!
//! std's start-up reads /proc/self/maps, installs a signal stack and handlers for stack overflow, and polls stdio: 47 µs of a
//! program that wants to be done after 1,000. What of it matters here is done by [`begin`].

use crate::{Cwd, fs, is_open};
use core::ffi::{CStr, c_char};
use std::borrow::ToOwned;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::vec::Vec;

/// Defines the program: `hosted_entry!(function)` with `fn function(args: Vec<OsString>) -> i32`: its command line, and its exit
/// status. With musl `std::env::args` is empty, since only std's own start-up fills it.
#[macro_export]
macro_rules! hosted_entry {
    ($main:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, argv: *const *const core::ffi::c_char) -> i32 {
            $crate::hosted::begin();
            let main: fn(Vec<std::ffi::OsString>) -> i32 = $main;
            // SAFETY: the C library's start-up hands over what the kernel has put there.
            std::process::exit(main(unsafe { $crate::hosted::args(argv) }))
        }
    };
}

/// What std would do and what must be done: descriptors 0 to 2 are open, so that no file of ours takes their place, and writing
/// to a pipe that nobody reads is an error and no signal.
pub fn begin() {
    for number in 0..3 {
        if !is_open(number) {
            // The lowest free number is this one: those below are open.
            if let Ok(null) = fs::openat(&Cwd, b"/dev/null", fs::O_RDWR, 0) {
                let _ = fs::set_close_on_exec(&null, false);
                let _ = null.into_raw();
            }
        }
    }
    crate::process::ignore_signal(libc::SIGPIPE);
}

/// The command line.
///
/// # Safety
/// `argv` must be a program's: pointers to strings that end in NUL, and a null behind them.
pub unsafe fn args(argv: *const *const c_char) -> Vec<OsString> {
    let mut args = Vec::new();
    // SAFETY: the caller's word; nothing behind the null is read.
    while let Some(arg) = unsafe { argv.add(args.len()).as_ref() }.filter(|arg| !arg.is_null()) {
        // SAFETY: as above.
        args.push(OsStr::from_bytes(unsafe { CStr::from_ptr(*arg) }.to_bytes()).to_owned());
    }
    args
}
