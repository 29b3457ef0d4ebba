//! Errors by their names.

use crate::Result;
use nix::errno::Errno;
use nix::libc;

/// The number behind `ENOSYS` and its kind.
///
/// # Errors
/// When there is no such name.
pub fn number(name: &str) -> Result<i32> {
    (1..=133)
        .find(|number| self::name(*number) == name)
        .ok_or_else(|| format!("{name:?} is the name of no error").into())
}

/// The name of an error.
pub fn name(number: i32) -> String {
    format!("{:?}", Errno::from_raw(number))
}

/// The failure that a call is most likely to meet on a machine that is short of something.
pub fn likely(name: &str) -> i32 {
    match name {
        "open" | "openat" | "openat2" | "socket" | "socketpair" | "pipe2" | "memfd_create" | "dup"
        | "dup3" | "fcntl" | "signalfd4" | "epoll_create1" | "pidfd_open" | "pidfd_getfd" | "accept4"
        | "eventfd2" => libc::EMFILE,
        "mkdir" | "mkdirat" | "mknodat" | "symlinkat" | "linkat" | "write" | "pwrite64" | "sendto"
        | "renameat" | "renameat2" | "rename" => libc::ENOSPC,
        "mmap" | "brk" | "mremap" | "mprotect" | "fsopen" | "fsmount" | "fsconfig" | "mount"
        | "open_tree" | "open_tree_attr" | "move_mount" | "mount_setattr" | "pivot_root" | "execve"
        | "execveat" | "poll" | "ppoll" => libc::ENOMEM,
        "clone" | "clone3" | "fork" | "vfork" => libc::EAGAIN,
        "setns" | "unshare" | "setuid" | "setgid" | "setgroups" | "setresuid" | "setresgid" | "capset"
        | "prctl" | "kill" | "pidfd_send_signal" | "prlimit64" | "sethostname" | "setdomainname" => {
            libc::EPERM
        }
        "wait4" | "waitid" => libc::ECHILD,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_numbers_belong_together() {
        for name in ["EPERM", "ENOSYS", "EINTR", "EMFILE", "ENOSPC"] {
            assert_eq!(super::name(super::number(name).unwrap()), name);
        }
        assert_eq!(super::number("EWHAT").unwrap_err().to_string(), "\"EWHAT\" is the name of no error");
    }
}
