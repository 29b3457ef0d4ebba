//! Children of this process, and whose they are.
//!
//! A subreaper has children of its own (init, hooks, loggers, CRIU, another runtime's binary) and strangers: orphans that the kernel
//! hands to it. Strangers must be collected at once, also while a thread waits for a child of its own; a child's status must go to
//! whoever spawned it and to nobody else. So all that are spawned here are registered, and [`reap_strangers`] is the one reaper:
//! it looks at what has ended (`waitid` with WNOWAIT), puts the status of a registered child down for its owner, who takes it by
//! [`wait`] or [`collect`], and buries the rest.
//!
//! Two races shape this. A child may end before its spawner knows its pid: while a spawn is under way the reaper leaves everything as
//! it is, and says so. And between a look at a pid and its collection the pid may have become another process's: the reaper holds
//! a pidfd from then on, and collects by it.
//!
//! Some children are told of by others: a staged init names its clone, a runtime's binary leaves a pid file, CRIU says what it has
//! restored. Until then they look like strangers, so whoever waits for such news says so by [`expect`], and what is buried meanwhile is
//! remembered; [`adopt`] makes such a child one's own, even when it has ended already.

use crate::{AsFd, Errno, Fd, Result, call::syscall, process, spawn::Spawned};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many ended strangers are remembered for whoever expects one: each keeps a descriptor open. Of more the oldest is forgotten.
const REMEMBERED: usize = 64;

static CHILDREN: Mutex<Children> =
    Mutex::new(Children { spawning: 0, expecting: 0, owned: BTreeMap::new(), strangers: VecDeque::new() });

struct Children {
    /// Spawns under way: a child that has ended may be one of theirs.
    spawning: usize,
    /// Those who will be told of a child that they have not spawned.
    expecting: usize,
    /// Registered children; with a status when the reaper was there before their owner.
    owned: BTreeMap<i32, Option<Ended>>,
    /// The last strangers that have ended while somebody expected one.
    strangers: VecDeque<(Ended, Fd)>,
}

fn children() -> MutexGuard<'static, Children> {
    // Nothing below panics with the lock held.
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: i32,
    /// Its exit code, or 128 and the signal that ended it.
    pub status: u32,
    /// Whether a signal did.
    pub killed: bool,
}

impl Ended {
    /// The status as `wait(2)` has it.
    pub fn wait_status(&self) -> i32 {
        if self.killed { self.status as i32 - 128 } else { (self.status as i32 & 0xff) << 8 }
    }
}

/// Spawns, and registers the child.
pub(crate) fn registered(spawn: impl FnOnce() -> Result<Spawned>) -> Result<Spawned> {
    children().spawning += 1;
    let result = spawn();
    let mut children = children();
    children.spawning -= 1;
    if let Ok(spawned) = &result {
        children.owned.insert(spawned.pid, None);
    }
    result
}

fn wait_id(kind: libc::idtype_t, id: i32, flags: i32) -> Result<Option<Ended>> {
    // SAFETY: plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    loop {
        // SAFETY: the kernel writes one siginfo to `info`; no rusage is asked for.
        let result = unsafe { syscall!(libc::SYS_waitid, kind, id, &raw mut info, libc::WEXITED | flags, 0) };
        match result {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid fills these fields, and with WNOHANG leaves the pid 0 when no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let killed = info.si_code != libc::CLD_EXITED;
    Ok(Some(Ended { pid, status: if killed { 128 + status } else { status } as u32, killed }))
}

/// What [`process::wait`] takes that waits for every kind of child.
const ANY_KIND: i32 = libc::__WALL;

/// The status of a child that is one's own, if it has ended.
///
/// # Errors
/// ECHILD when it is no child of this process, or somebody has its status already.
pub fn collect(pid: i32, pidfd: &impl AsFd) -> Result<Option<Ended>> {
    let mut children = children();
    if let Some(Some(ended)) = children.owned.get(&pid).copied() {
        children.owned.remove(&pid);
        return Ok(Some(ended));
    }
    let result = wait_id(libc::P_PIDFD, pidfd.number(), libc::WNOHANG | ANY_KIND);
    if !matches!(result, Ok(None)) {
        children.owned.remove(&pid);
    }
    result
}

/// Waits for a child that is one's own; its status as `wait(2)` has it.
///
/// # Errors
/// ECHILD when it is no child of this process, or somebody has its status already.
pub fn wait(pid: i32) -> Result<i32> {
    // Without the lock until it has ended; the reaper may be quicker then.
    let ended = wait_id(libc::P_PID, pid, libc::WNOWAIT | ANY_KIND);
    let mut children = children();
    if let Some(Some(ended)) = children.owned.remove(&pid) {
        return Ok(ended.wait_status());
    }
    ended?;
    wait_id(libc::P_PID, pid, libc::WNOHANG | ANY_KIND)?.map(|ended| ended.wait_status()).ok_or(Errno::ECHILD)
}

/// While there is one, ended strangers are remembered.
#[derive(Debug)]
pub struct Expecting(());

/// Says that a child is being made whose pid comes later, by [`adopt`]. To be said before it can be there.
pub fn expect() -> Expecting {
    children().expecting += 1;
    Expecting(())
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut children = children();
        children.expecting -= 1;
        if children.expecting == 0 {
            children.strangers = VecDeque::new();
        }
    }
}

/// Makes a child one's own that somebody else has named, and that may have ended; its pidfd. A process that is no child is opened all
/// the same: its end can be seen, but not its status.
///
/// # Errors
/// Those of pidfd_open: ESRCH when there is no such process and no such stranger is remembered.
pub fn adopt(pid: i32) -> Result<Fd> {
    let mut children = children();
    let opened = process::pidfd_open(pid);
    if let Ok(pidfd) = &opened
        && wait_id(libc::P_PIDFD, pidfd.raw(), libc::WNOHANG | libc::WNOWAIT | ANY_KIND).is_ok()
    {
        children.owned.insert(pid, None);
        return opened;
    }
    let Some(at) = children.strangers.iter().rposition(|(ended, _)| ended.pid == pid) else { return opened };
    let Some((ended, pidfd)) = children.strangers.remove(at) else { return opened };
    children.owned.insert(pid, Some(ended));
    Ok(pidfd)
}

/// What [`reap_strangers`] has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nobody who has ended.
    All,
    /// Some: a child is just being spawned, or there was no descriptor to be had. To be asked again soon.
    Later,
}

/// Collects every child that has ended: the status of a registered one is kept for its owner, the others are told to `stranger`.
pub fn reap_strangers(mut stranger: impl FnMut(Ended)) -> Swept {
    loop {
        let Ok(Some(seen)) = wait_id(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT) else {
            return Swept::All;
        };
        let pidfd = match process::pidfd_open(seen.pid) {
            // Its owner was quicker.
            Err(Errno::ESRCH) => continue,
            Err(_) => return Swept::Later,
            Ok(pidfd) => pidfd,
        };
        let mut children = children();
        if children.spawning > 0 {
            return Swept::Later;
        }
        // By the pidfd: if its owner has it by now, this is ECHILD, whoever has the pid today.
        let Ok(Some(ended)) = wait_id(libc::P_PIDFD, pidfd.raw(), libc::WNOHANG) else { continue };
        if let Some(status) = children.owned.get_mut(&ended.pid) {
            *status = Some(ended);
            continue;
        }
        if children.expecting > 0 {
            if children.strangers.len() == REMEMBERED {
                children.strangers.pop_front();
            }
            children.strangers.push_back((ended, pidfd));
        }
        drop(children);
        stranger(ended);
    }
}
