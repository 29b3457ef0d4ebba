//! Which process is the container's first one, and whether it still lives.
//!
//! A pid alone is never believed. [`Init`] also has what tells this process from a later one of the same number: the inode of its pidfd
//! (Linux 6.9, pidfs: unique for as long as the machine is up), on older kernels its start time; and the boot id tells this boot from the
//! last one. [`Init::liveness`] opens the pidfd *first* and compares afterwards, so that whoever gets the pidfd has the right process.

use crate::error::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// The container's first process, told apart from every other that had or will have its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// In the pid namespace of whoever created the container.
    pub pid: i32,
    /// Inode number of its pidfd, where that is unique (Linux 6.9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22), where there is no inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
}

/// What became of a process.
#[derive(Debug)]
pub enum Liveness {
    /// It runs; this is its pidfd.
    Alive(OwnedFd),
    /// It has ended, its parent has not waited for it yet. Counts as stopped.
    Zombie,
    /// It is gone.
    Dead,
}

/// `PID_FS_MAGIC` of `include/uapi/linux/magic.h`.
const PID_FS_MAGIC: i64 = 0x5049_4446;

impl Init {
    /// The identity of a process that the caller holds by `pidfd`, its pid being `pid`.
    pub fn of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Init, Error> {
        let inode = unique_inode(pidfd)?;
        let start = match inode {
            Some(_) => None,
            None => Some(start_time(pid)?.ok_or(Error::NoProcess { pid })?),
        };
        Ok(Init { pid, inode, start })
    }

    /// What became of the process.
    pub fn liveness(&self) -> Result<Liveness, Error> {
        let pidfd: OwnedFd = match cofferdam_sys::process::pidfd_open(self.pid) {
            Ok(fd) => fd.into(),
            Err(cofferdam_sys::Errno::ESRCH) => return Ok(Liveness::Dead),
            // A thread of another process has the number now: EINVAL up to Linux 6.14, ENOENT since.
            Err(cofferdam_sys::Errno::EINVAL | cofferdam_sys::Errno::ENOENT) => return Ok(Liveness::Dead),
            Err(errno) => return Err(Error::call(format!("pidfd_open {}", self.pid), errno)),
        };
        let same = match (self.inode, self.start) {
            (Some(inode), _) => unique_inode(pidfd.as_fd())? == Some(inode),
            (None, Some(start)) => start_time(self.pid)? == Some(start),
            (None, None) => false,
        };
        if !same {
            return Ok(Liveness::Dead);
        }
        if has_ended(pidfd.as_fd())? { Ok(Liveness::Zombie) } else { Ok(Liveness::Alive(pidfd)) }
    }
}

/// Whether the process behind a pidfd has ended, all its threads included.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(|errno| Error::call("poll pidfd", errno))?;
    Ok(fds[0].any().unwrap_or(false))
}

/// A pidfd's inode number if it is the process's own: before Linux 6.9 all pidfds share one anonymous inode.
fn unique_inode(pidfd: BorrowedFd<'_>) -> Result<Option<u64>, Error> {
    let (magic, _) =
        cofferdam_sys::fs::statfs(&pidfd).map_err(|errno| Error::call("fstatfs pidfd", errno))?;
    if magic != PID_FS_MAGIC {
        return Ok(None);
    }
    let stat = nix::sys::stat::fstat(pidfd).map_err(|errno| Error::call("fstat pidfd", errno))?;
    Ok(Some(stat.st_ino))
}

/// Field 22 of `/proc/PID/stat`; none when there is no such process.
fn start_time(pid: i32) -> Result<Option<u64>, Error> {
    let path = format!("/proc/{pid}/stat");
    match fs::read_to_string(&path) {
        Ok(text) => match parse_start_time(&text) {
            Some(start) => Ok(Some(start)),
            None => Err(Error::call(format!("read {path}"), io::Error::from(io::ErrorKind::InvalidData))),
        },
        // ESRCH: it went between open and read.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// The command's name (field 2) may hold blanks and brackets: counting begins behind the last bracket.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The kernel's id of this boot, read once.
pub fn boot_id() -> Result<&'static str, Error> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let mut buffer = [0; 64];
    let count = File::open(path)
        .and_then(|mut file| file.read(&mut buffer))
        .map_err(|error| Error::io("read", path, error))?;
    let id = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
    Ok(ID.get_or_init(|| id))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that lives.
    pub(in crate::state) fn sleeper() -> Child {
        Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap()
    }

    /// Its identity.
    pub(in crate::state) fn identity_of(child: &Child) -> Init {
        let pid = child.id() as i32;
        let pidfd: OwnedFd = cofferdam_sys::process::pidfd_open(pid).unwrap().into();
        Init::of(pid, pidfd.as_fd()).unwrap()
    }

    #[test]
    fn a_process_with_init_s_old_pid_is_not_init() {
        let mut child = sleeper();
        let pid = child.id() as i32;
        let start = start_time(pid).unwrap();
        assert!(start.is_some());
        let alive = |init: Init| matches!(init.liveness().unwrap(), Liveness::Alive(_));
        assert!(alive(identity_of(&child)));
        assert!(alive(Init { pid, inode: None, start }));
        assert!(!alive(Init { pid, inode: None, start: start.map(|ticks| ticks - 1) }));
        assert!(!alive(Init { pid, inode: Some(3), start }));
        assert!(!alive(Init { pid, inode: None, start: None }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(pid).unwrap(), None);
    }

    #[test]
    fn start_time_is_found_behind_an_odd_name() {
        let stat = "12 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert_eq!(parse_start_time("12 (a S 1"), None);
    }
}
