//! All `unsafe` of the project: the system calls that nix lacks, the rootfs and procfs handles, the launch of the sealed
//! image, and the entry point of that image.
//!
//! Works without `std`, for init has neither std nor libc: calls are made by the `syscall` instruction itself
//! ([`call`]), strings get their NUL on the stack, and errors are bare [`Errno`]s.
//!
//! Memory-safety invariants that hold throughout: a pointer handed to the kernel is derived from a Rust reference that lives
//! across the call, with the length that the kernel may touch taken from that same reference; a descriptor number that
//! comes back is owned by exactly one [`Fd`].
#![no_std]
#![allow(unsafe_code)]

extern crate alloc as alloc_crate;
#[cfg(feature = "std")]
extern crate std;

pub mod bytes;
pub mod call;
pub mod cred;
mod errno;
mod fd;
pub mod fs;
pub mod mount;
pub mod names;
pub mod net;
pub mod proc;
pub mod process;
pub mod root;
#[cfg(feature = "start")]
pub mod start;
mod text;

pub use text::Strings;

#[cfg(feature = "std")]
pub mod allocate;
#[cfg(feature = "std")]
pub mod bpf;
#[cfg(feature = "std")]
pub mod children;
#[cfg(feature = "std")]
pub mod hosted;
#[cfg(feature = "std")]
pub mod image;
#[cfg(feature = "std")]
pub mod pattern;
#[cfg(feature = "std")]
pub mod shim;
#[cfg(feature = "std")]
pub mod spawn;

pub use errno::{Errno, Result};
pub use fd::{AsFd, Borrowed, Cwd, Fd, Raw, is_open};
