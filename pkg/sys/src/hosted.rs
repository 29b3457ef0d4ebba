//! The entry point of programs with libc: C's `main`, in place of the one that std wraps around Rust's.
//!
//! std's start-up reads /proc/self/maps, installs a signal stack and handlers for stack overflow, and polls stdio: 47 µs of a
//! program that wants to be done after 1,000. What of it matters here is done by [`begin`].

use crate::{Cwd, fs, is_open};

/// Defines the program: `hosted_entry!(function)` with `fn function() -> i32`, its exit status.
#[macro_export]
macro_rules! hosted_entry {
    ($main:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
            $crate::hosted::begin();
            let main: fn() -> i32 = $main;
            std::process::exit(main())
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
