//! A system call's error, as the kernel gave it.

use core::fmt::{Debug, Display, Formatter};

/// An errno (`include/uapi/asm-generic/errno.h`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What every call of this crate returns.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! names {
    ($($name:ident $text:literal,)*) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*

            /// The symbol (`ENOENT`), if it is one that this crate knows.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $(libc::$name => Some(stringify!($name)),)* _ => None }
            }

            /// The sentence in lower case, as Go's runtimes print it: engines match on it.
            pub const fn text(self) -> &'static str {
                match self.0 { $(libc::$name => $text,)* _ => "unknown error" }
            }
        }
    };
}

names! {
    EPERM "operation not permitted", ENOENT "no such file or directory", ESRCH "no such process",
    EINTR "interrupted system call", EIO "input/output error", ENXIO "no such device or address",
    E2BIG "argument list too long", ENOEXEC "exec format error", EBADF "bad file descriptor",
    ECHILD "no child processes", EAGAIN "resource temporarily unavailable", ENOMEM "cannot allocate memory",
    EACCES "permission denied", EFAULT "bad address", ENOTBLK "block device required", EBUSY "device or resource busy",
    EEXIST "file exists", EXDEV "invalid cross-device link", ENODEV "no such device", ENOTDIR "not a directory",
    EISDIR "is a directory", EINVAL "invalid argument", ENFILE "too many open files in system",
    EMFILE "too many open files", ENOTTY "inappropriate ioctl for device", ETXTBSY "text file busy",
    EFBIG "file too large", ENOSPC "no space left on device", ESPIPE "illegal seek", EROFS "read-only file system",
    EMLINK "too many links", EPIPE "broken pipe", EDOM "numerical argument out of domain",
    ERANGE "numerical result out of range", EDEADLK "resource deadlock avoided", ENAMETOOLONG "file name too long",
    ENOSYS "function not implemented", ENOTEMPTY "directory not empty", ELOOP "too many levels of symbolic links",
    EOVERFLOW "value too large for defined data type", ELIBBAD "accessing a corrupted shared library",
    EUSERS "too many users", ENOTSOCK "socket operation on non-socket", EMSGSIZE "message too long",
    EOPNOTSUPP "operation not supported", EADDRINUSE "address already in use", ECONNRESET "connection reset by peer",
    ENOTCONN "transport endpoint is not connected", ETIMEDOUT "connection timed out",
    ECONNREFUSED "connection refused", ESTALE "stale file handle", EDQUOT "disk quota exceeded",
    ENOKEY "required key not available", ENODATA "no data available", EKEYREVOKED "key has been revoked",
    ENOLCK "no locks available", EUCLEAN "structure needs cleaning", EALREADY "operation already in progress",
    ENOPROTOOPT "protocol not available", EPROTONOSUPPORT "protocol not supported",
    EAFNOSUPPORT "address family not supported by protocol", EADDRNOTAVAIL "cannot assign requested address",
    ENETDOWN "network is down", ENETUNREACH "network is unreachable", EHOSTUNREACH "no route to host",
    ENOBUFS "no buffer space available", EISCONN "transport endpoint is already connected",
    EINPROGRESS "operation now in progress", ECANCELED "operation canceled", EBADMSG "bad message",
    EILSEQ "invalid or incomplete multibyte or wide character",
    ENOTUNIQ "name not unique on network", EPROTO "protocol error", EDESTADDRREQ "destination address required",
}

impl Debug for Errno {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl Display for Errno {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(_) => f.write_str(self.text()),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(feature = "std")]
impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

#[cfg(feature = "std")]
impl std::error::Error for Errno {}

#[cfg(feature = "std")]
impl From<std::io::Error> for Errno {
    /// The errno of an I/O error; EIO for one that std made up itself.
    fn from(error: std::io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
