//! Owned descriptors without std.

use crate::{Errno, Result, call::syscall};

/// A descriptor number that somebody else owns.
pub type Raw = i32;

/// An owned descriptor, closed when dropped.
#[derive(Debug)]
pub struct Fd(Raw);

impl Fd {
    /// Takes ownership of a number that the kernel has just returned or that was inherited.
    pub const fn from_raw(number: Raw) -> Fd {
        Fd(number)
    }

    /// The number, still owned here.
    pub const fn raw(&self) -> Raw {
        self.0
    }

    /// Gives the number up without closing it.
    pub const fn into_raw(self) -> Raw {
        let number = self.0;
        core::mem::forget(self);
        number
    }

    /// A second descriptor for the same file, close-on-exec.
    pub fn duplicate(&self) -> Result<Fd> {
        // SAFETY: F_DUPFD_CLOEXEC takes integers.
        unsafe { syscall!(libc::SYS_fcntl, self.0, libc::F_DUPFD_CLOEXEC, 3) }.map(|fd| Fd(fd as Raw))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the number is owned here and is not used again. An error leaves nothing to do: Linux closes in any case.
        let _ = unsafe { syscall!(libc::SYS_close, self.0) };
    }
}

/// Whatever has a descriptor number.
pub trait AsFd {
    /// The number, valid while `self` lives.
    fn number(&self) -> Raw;
}

impl AsFd for Fd {
    fn number(&self) -> Raw {
        self.0
    }
}

impl AsFd for &Fd {
    fn number(&self) -> Raw {
        self.0
    }
}

/// The current working directory, for calls that take a directory.
pub struct Cwd;

impl AsFd for Cwd {
    fn number(&self) -> Raw {
        libc::AT_FDCWD
    }
}

/// A number that is known to be open for the duration of the call: inherited descriptors, stdio.
#[derive(Clone, Copy, Debug)]
pub struct Borrowed(pub Raw);

impl AsFd for Borrowed {
    fn number(&self) -> Raw {
        self.0
    }
}

/// Checks that a number names an open descriptor.
pub fn is_open(number: Raw) -> bool {
    // SAFETY: F_GETFD takes integers.
    let flags = unsafe { syscall!(libc::SYS_fcntl, number, libc::F_GETFD) };
    flags != Err(Errno::EBADF)
}

#[cfg(feature = "std")]
mod with_std {
    use super::{AsFd, Fd};
    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

    impl From<Fd> for OwnedFd {
        fn from(fd: Fd) -> OwnedFd {
            // SAFETY: `into_raw` hands over the only owner of the number.
            unsafe { OwnedFd::from_raw_fd(fd.into_raw()) }
        }
    }

    impl From<OwnedFd> for Fd {
        fn from(fd: OwnedFd) -> Fd {
            Fd(fd.into_raw_fd())
        }
    }

    impl AsFd for OwnedFd {
        fn number(&self) -> i32 {
            self.as_raw_fd()
        }
    }

    impl AsFd for BorrowedFd<'_> {
        fn number(&self) -> i32 {
            self.as_raw_fd()
        }
    }

    impl AsFd for std::fs::File {
        fn number(&self) -> i32 {
            self.as_raw_fd()
        }
    }

    impl std::os::fd::AsFd for Fd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the borrow lives no longer than `self`, the owner.
            unsafe { BorrowedFd::borrow_raw(self.0) }
        }
    }

    impl AsRawFd for Fd {
        fn as_raw_fd(&self) -> i32 {
            self.0
        }
    }
}
