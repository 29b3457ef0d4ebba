//! Processes: namespaces, signals, waiting, scheduling, and the last call of init.

use crate::{AsFd, Errno, Fd, Raw, Result, call::syscall, text::Strings, text::with_nul};

/// Own process id, in the pid namespace that this process is in.
pub fn getpid() -> i32 {
    // SAFETY: no arguments, no failure.
    unsafe { syscall!(libc::SYS_getpid) }.map_or(0, |pid| pid as i32)
}

/// Ends this process at once.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: integers only; does not return.
        let _ = unsafe { syscall!(libc::SYS_exit_group, status) };
    }
}

/// `setsid(2)`.
pub fn setsid() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { syscall!(libc::SYS_setsid) }.map(drop)
}

/// `setns(2)`: `kinds` are `CLONE_NEW*` bits; for a pidfd several (Linux 5.8).
pub fn setns(file: &impl AsFd, kinds: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setns, file.number(), kinds) }.map(drop)
}

/// `unshare(2)`.
pub fn unshare(kinds: u32) -> Result<()> {
    // SAFETY: integers only; no flag given here changes what memory means.
    unsafe { syscall!(libc::SYS_unshare, kinds) }.map(drop)
}

/// `struct clone_args`, all of it (Linux 5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// What a fork returned.
pub enum Forked {
    /// In the child.
    Child,
    /// In the parent: the child's pid.
    Parent(i32),
}

/// A fork with namespaces, from a process with one thread: init. `as_sibling` makes the caller's parent the child's parent
/// too (CLONE_PARENT, which wants no exit signal of its own).
pub fn fork(namespaces: u32, as_sibling: bool) -> Result<Forked> {
    let mut args = CloneArgs { flags: u64::from(namespaces), ..CloneArgs::default() };
    if as_sibling {
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    // SAFETY: memory is copied (no CLONE_VM), so the child goes on with its own copy of everything; `args` lives across the
    // call. Init has one thread: no lock can be held by another.
    let pid = match unsafe { syscall!(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
        // A seccomp filter of an engine around us may know no clone3; clone has the same flags but not the time namespace.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            // SAFETY: as above, with no stack: the child uses its copy of this one.
            unsafe { syscall!(libc::SYS_clone, args.flags | args.exit_signal, 0, 0, 0, 0) }?
        }
        other => other?,
    };
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(pid as i32) })
}

/// `pidfd_open(2)` (Linux 5.3).
pub fn pidfd_open(pid: i32) -> Result<Fd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_pidfd_open, pid, 0) }.map(|fd| Fd::from_raw(fd as Raw))
}

/// `pidfd_send_signal(2)` (Linux 5.1).
pub fn pidfd_send_signal(pidfd: &impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo asks for kill(2)'s.
    unsafe { syscall!(libc::SYS_pidfd_send_signal, pidfd.number(), signal, 0, 0) }.map(drop)
}

/// `pidfd_getfd(2)` (Linux 5.6): a duplicate of descriptor `number` of another process.
pub fn pidfd_getfd(pidfd: &impl AsFd, number: Raw) -> Result<Fd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_pidfd_getfd, pidfd.number(), number, 0) }.map(|fd| Fd::from_raw(fd as Raw))
}

/// `wait4(2)` for one child: its wait status, or none with `no_hang` while it runs.
pub fn wait(pid: i32, no_hang: bool) -> Result<Option<i32>> {
    let mut status = 0i32;
    let flags = if no_hang { libc::WNOHANG } else { 0 } | libc::__WALL;
    loop {
        // SAFETY: the kernel writes the one int that `status` is.
        match unsafe { syscall!(libc::SYS_wait4, pid, &raw mut status, flags, 0) } {
            Err(Errno::EINTR) => {}
            Ok(0) => return Ok(None),
            other => return other.map(|_| Some(status)),
        }
    }
}

/// `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_kill, pid, signal) }.map(drop)
}

/// `poll(2)` for reading on one descriptor, `timeout` in milliseconds (negative: no limit); whether it became readable.
pub fn poll_readable(file: &impl AsFd, timeout: i64) -> Result<bool> {
    let mut polls = [libc::pollfd { fd: file.number(), events: libc::POLLIN, revents: 0 }];
    poll(&mut polls, timeout)?;
    Ok(polls[0].revents != 0)
}

/// Blocks every signal in this thread and returns the old mask.
pub fn block_signals() -> Result<u64> {
    set_signal_mask(u64::MAX)
}

/// Sets this thread's signal mask (bit n-1 is signal n) and returns the old one.
pub fn set_signal_mask(mask: u64) -> Result<u64> {
    let mut old = 0u64;
    // SAFETY: the kernel's sigset is eight bytes on both architectures; it reads one and writes the other.
    unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, 8) }
        .map(|_| old)
}

/// Gives every signal its default disposition: what execve would keep is SIG_IGN (Rust's runtime ignores SIGPIPE, callers may
/// ignore more).
pub fn reset_signal_handlers() {
    // struct kernel_sigaction: handler, flags, restorer (x86_64), mask; all zeroes is SIG_DFL.
    let action = [0u64; 4];
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: the kernel reads one kernel_sigaction, for which `action` is large enough on both architectures.
            let _ = unsafe { syscall!(libc::SYS_rt_sigaction, signal, &raw const action, 0, 8) };
        }
    }
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // struct kernel_sigaction with SIG_IGN as its handler.
    let action = [libc::SIG_IGN as u64, 0, 0, 0];
    // SAFETY: the kernel reads one kernel_sigaction, for which `action` is large enough on both architectures.
    let _ = unsafe { syscall!(libc::SYS_rt_sigaction, signal, &raw const action, 0, 8) };
}

/// `signalfd4(2)` for the signals in `mask`.
pub fn signalfd(mask: u64) -> Result<Fd> {
    // SAFETY: the kernel reads eight bytes of mask.
    unsafe { syscall!(libc::SYS_signalfd4, -1i32, &raw const mask, 8, libc::SFD_CLOEXEC) }
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `execve(2)`; returns only when it failed.
pub fn execve(program: &[u8], argv: &Strings, envp: &Strings) -> Errno {
    // SAFETY: path and strings end in NUL, the arrays in NULL, and both live across the call.
    let result = with_nul(program, |program| unsafe {
        syscall!(libc::SYS_execve, program, argv.as_ptr(), envp.as_ptr())
    });
    result.err().unwrap_or(Errno::EIO)
}

/// `prctl(2)` with integers.
pub fn prctl(option: i32, args: [usize; 4]) -> Result<usize> {
    // SAFETY: the options that this crate's callers use take integers only.
    unsafe { syscall!(libc::SYS_prctl, option, args[0], args[1], args[2], args[3]) }
}

/// `umask(2)`: the old mask.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: integers only, no failure.
    unsafe { syscall!(libc::SYS_umask, mask) }.map_or(0, |old| old as u32)
}

/// The realtime clock, in nanoseconds since 1970 (clock_gettime(2)): the one clock that a time namespace does not shift.
pub fn realtime() -> u64 {
    let mut time = [0i64; 2];
    // SAFETY: the kernel writes one timespec, which is two 64-bit numbers.
    let _ = unsafe { syscall!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, time.as_mut_ptr()) };
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

/// `prlimit64(2)`: sets one limit of a process (0 is the caller).
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: the kernel reads one rlimit64, which is two u64.
    unsafe { syscall!(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), 0) }.map(drop)
}

/// `prlimit64(2)`: the soft and the hard limit of this process.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = [0u64; 2];
    // SAFETY: the kernel writes one rlimit64, which is two u64.
    unsafe { syscall!(libc::SYS_prlimit64, 0, resource, 0, limit.as_mut_ptr()) }?;
    Ok((limit[0], limit[1]))
}

/// `struct sched_attr` (`include/uapi/linux/sched/types.h`), first version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SchedAttr {
    /// Filled in by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 0 to 99.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// `sched_setattr(2)` of a process (0 is the caller).
pub fn sched_setattr(pid: i32, attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: the kernel reads `attr.size` bytes from `attr`.
    unsafe { syscall!(libc::SYS_sched_setattr, pid, &raw const attr, 0) }.map(drop)
}

/// `sched_setaffinity(2)` of a process (0 is the caller); the mask's length becomes a multiple of eight.
pub fn sched_setaffinity(pid: i32, mask: &[u8]) -> Result<()> {
    let mut words = [0u64; 128];
    let bytes = mask.len().min(size_of_val(&words));
    for (i, byte) in mask[..bytes].iter().enumerate() {
        words[i / 8] |= u64::from(*byte) << (8 * (i % 8));
    }
    let length = bytes.div_ceil(8) * 8;
    // SAFETY: the kernel reads `length` bytes from `words`, which is at least as long.
    unsafe { syscall!(libc::SYS_sched_setaffinity, pid, length, words.as_ptr()) }.map(drop)
}

/// `ioprio_set(2)` of the calling process.
pub fn ioprio_set(class: u32, priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (class << 13) | priority) }.map(drop)
}

/// `personality(2)`.
pub fn personality(persona: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_personality, persona) }.map(drop)
}

/// `set_mempolicy(2)`; `nodes` is a little-endian bit mask.
pub fn set_mempolicy(mode: u32, nodes: &[u8]) -> Result<()> {
    let mut words = [0u64; 16];
    for (i, byte) in nodes.iter().enumerate().take(size_of_val(&words)) {
        words[i / 8] |= u64::from(*byte) << (8 * (i % 8));
    }
    let (mask, bits) = if nodes.is_empty() { (core::ptr::null(), 0) } else { (words.as_ptr(), 1024 + 1) };
    // SAFETY: the kernel reads `bits - 1` bits, which `words` has, or nothing.
    unsafe { syscall!(libc::SYS_set_mempolicy, mode, mask, bits) }.map(drop)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING)`: joins or makes the keyring `name`; its serial number.
pub fn join_session_keyring(name: &[u8]) -> Result<u32> {
    const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
    // SAFETY: the name ends in NUL.
    with_nul(name, |name| unsafe { syscall!(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) })
        .map(|id| id as u32)
}

/// `keyctl(KEYCTL_SETPERM)`.
pub fn set_keyring_permissions(key: u32, permissions: u32) -> Result<()> {
    const KEYCTL_SETPERM: u32 = 5;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) }.map(drop)
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`: `filter` is an array of `struct sock_filter`, eight bytes each. With
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` the listener's number comes back.
pub fn seccomp_set_filter(filter: &[u8], flags: u32) -> Result<usize> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const u8,
    }
    let length = u16::try_from(filter.len() / 8).map_err(|_| Errno::EINVAL)?;
    let program = Program { length, filter: filter.as_ptr() };
    const SET_MODE_FILTER: u32 = 1;
    // SAFETY: `program` and the `length` instructions that it points to live across the call; the kernel copies bytes and
    // asks for no alignment.
    unsafe { syscall!(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) }
}

/// Which of two descriptors became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The first, whatever the second is.
    First,
    /// The second alone.
    Second,
}

/// `poll(2)` for reading on two descriptors, `timeout` in milliseconds (negative: no limit); none when it has passed.
pub fn poll_two(first: &impl AsFd, second: &impl AsFd, timeout: i64) -> Result<Option<Ready>> {
    let entry = |fd: Raw| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls = [entry(first.number()), entry(second.number())];
    poll(&mut polls, timeout)?;
    Ok(match polls {
        [first, _] if first.revents != 0 => Some(Ready::First),
        [_, second] if second.revents != 0 => Some(Ready::Second),
        _ => None,
    })
}

/// The same with as many descriptors as there are to read from, and behind them one to write to: the first that is ready, by its index.
pub fn poll_any(reading: &[Raw], writing: Option<Raw>, timeout: i64) -> Result<Option<usize>> {
    let reading = reading.iter().map(|fd| (*fd, libc::POLLIN));
    let all = reading.chain(writing.map(|fd| (fd, libc::POLLOUT)));
    let mut polls: alloc_crate::vec::Vec<_> =
        all.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
    poll(&mut polls, timeout)?;
    Ok(polls.iter().position(|poll| poll.revents != 0))
}

fn poll(polls: &mut [libc::pollfd], timeout: i64) -> Result<()> {
    let mut limit =
        libc::timespec { tv_sec: timeout.max(0) / 1000, tv_nsec: (timeout.max(0) % 1000) * 1_000_000 };
    let limit = if timeout < 0 { core::ptr::null_mut() } else { &raw mut limit };
    loop {
        // SAFETY: the kernel reads and writes as many pollfds as the slice has and, if there is one, the timespec, in which it
        // leaves what remains; no mask.
        match unsafe { syscall!(libc::SYS_ppoll, polls.as_mut_ptr(), polls.len(), limit, 0, 0) } {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> Result<i64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { syscall!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) }?;
    Ok(now.tv_sec * 1000 + now.tv_nsec / 1_000_000)
}
