//! The one way in which a process is made: like vfork, the child borrows this thread's memory until it executes the sealed
//! image, so it costs no copy of page tables and is safe in a process with busy threads.

use crate::{Errno, Fd, Raw, Result, call::syscall, process::CloneArgs, text::Strings};
use core::arch::naked_asm;
use std::vec::Vec;

/// What the child becomes.
pub struct Spawn<'a> {
    /// The sealed image.
    pub image: &'a Fd,
    /// `CLONE_NEW*` bits that the clone carries.
    pub namespaces: u32,
    /// A cgroup v2 directory that the child is born in (CLONE_INTO_CGROUP, Linux 5.7).
    pub cgroup: Option<Raw>,
    /// argv of the image.
    pub args: &'a Strings,
    /// Environment of the image.
    pub env: &'a Strings,
    /// Descriptors that the image inherits at their numbers.
    pub inherit: &'a [Raw],
    /// What becomes stdin, stdout and stderr; none keeps the caller's.
    pub stdio: Option<[Raw; 3]>,
}

/// The child, as the kernel gave it.
pub struct Spawned {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd, close-on-exec.
    pub pidfd: Fd,
    /// Whether it was born in [`Spawn::cgroup`].
    pub in_cgroup: bool,
}

/// What parent and child share while the child borrows the parent's memory.
struct Shared<'a> {
    spawn: &'a Spawn<'a>,
    /// Errno of the child, 0 while all is well. Written by the child, read by the parent after the child has executed or ended.
    errno: core::sync::atomic::AtomicI32,
}

const STACK: usize = 32 * 1024;

/// Makes the process. It begins with every signal blocked and no handler set, and is a registered child ([`crate::children`]).
///
/// # Errors
/// Those of clone3 and, from the child, of dup3, fcntl and execveat.
pub fn spawn(spawn: &Spawn) -> Result<Spawned> {
    crate::children::registered(|| spawn_unregistered(spawn))
}

fn spawn_unregistered(spawn: &Spawn) -> Result<Spawned> {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let shared = Shared { spawn, errno: core::sync::atomic::AtomicI32::new(0) };
    let mut pidfd: Raw = -1;
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64
            | u64::from(spawn.namespaces)
            | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    if let Some(dir) = spawn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir as u64;
    }
    // A handler of this process must never run in the child, where it would run on borrowed memory.
    let mask = crate::process::block_signals()?;
    // SAFETY: `args`, `shared` and `stack` outlive the child's use of them: CLONE_VFORK suspends this thread until the
    // child has executed or ended, and `child` touches nothing else.
    let mut result =
        crate::call::check(unsafe { clone_child(&args, size_of::<CloneArgs>(), &raw const shared) });
    let mut in_cgroup = spawn.cgroup.is_some();
    // A cgroup that holds no processes (it has controllers enabled for its children, or is threaded) takes no child, nor does one
    // of another part of the tree take an ordinary user's: the caller knows another one, or what to say.
    if in_cgroup && matches!(result, Err(Errno::EBUSY | Errno::EOPNOTSUPP | Errno::EACCES)) {
        in_cgroup = false;
        args.flags &= !CLONE_INTO_CGROUP;
        // SAFETY: as above.
        result = crate::call::check(unsafe { clone_child(&args, size_of::<CloneArgs>(), &raw const shared) });
    }
    let result = match result {
        // A seccomp filter of an engine around us may not know clone3. The old call leaves handlers to the execve, and the
        // cgroup to whoever reads `in_cgroup`.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            in_cgroup = false;
            let flags = (args.flags & 0xffff_ff00) | args.exit_signal;
            // SAFETY: as above; the stack grows down from its end, which is aligned as the ABI wants.
            let top = unsafe { stack.as_mut_ptr().cast::<u8>().add(STACK) };
            // SAFETY: as above.
            crate::call::check(unsafe { old_clone_child(flags, top, &raw mut pidfd, &raw const shared) })
        }
        other => other,
    };
    let _ = crate::process::set_signal_mask(mask);
    let pid = result? as i32;
    let pidfd = Fd::from_raw(pidfd);
    match shared.errno.load(core::sync::atomic::Ordering::Acquire) {
        0 => Ok(Spawned { pid, pidfd, in_cgroup }),
        errno => {
            let _ = crate::process::wait(pid, false);
            Err(Errno(errno))
        }
    }
}

/// The child: dup3, fcntl and execveat, nothing that allocates, locks or unwinds.
extern "C" fn child(shared: &Shared) -> ! {
    let errno = become_image(shared.spawn).err().unwrap_or(Errno::EIO);
    shared.errno.store(errno.0, core::sync::atomic::Ordering::Release);
    crate::process::exit(127)
}

fn become_image(spawn: &Spawn) -> Result<()> {
    if let Some(stdio) = spawn.stdio {
        // Sources that lie among the targets move out of the way first.
        let mut from = stdio;
        for fd in &mut from {
            if *fd < 3 {
                // SAFETY: F_DUPFD takes integers. The copy vanishes with the execve.
                *fd = unsafe { syscall!(libc::SYS_fcntl, *fd, libc::F_DUPFD_CLOEXEC, 3) }? as Raw;
            }
        }
        for (number, fd) in from.into_iter().enumerate() {
            // SAFETY: integers only; the table is the child's own (no CLONE_FILES).
            unsafe { syscall!(libc::SYS_dup3, fd, number, 0) }?;
        }
    }
    // What the caller happens to have open is none of the image's business: a created container would hold it until its start.
    // Where the kernel or a filter around us has no such call (Linux < 5.11), it goes with the image's own execve.
    let _ = crate::fs::close_range_on_exec(3);
    for fd in spawn.inherit {
        // SAFETY: F_SETFD takes integers.
        unsafe { syscall!(libc::SYS_fcntl, *fd, libc::F_SETFD, 0) }?;
    }
    let (args, env) = (spawn.args.as_ptr(), spawn.env.as_ptr());
    // SAFETY: the path is static, the arrays end in NULL and live until this returns, which it does only when it failed.
    unsafe { syscall!(libc::SYS_execveat, spawn.image.raw(), c"".as_ptr(), args, env, libc::AT_EMPTY_PATH) }
        .map(drop)
}

/// clone3, and `child(shared)` on the new stack in the child.
///
/// # Safety
/// `args` must give CLONE_VM a stack of its own, and `shared` must live until the child has executed or ended.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn clone_child(args: *const CloneArgs, size: usize, shared: *const Shared) -> isize {
    naked_asm!(
        "mov r8, rdx",
        "mov eax, {clone3}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r8",
        "and rsp, -16",
        "call {child}",
        "ud2",
        clone3 = const libc::SYS_clone3,
        child = sym child,
    )
}

/// clone, and `child(shared)` on the new stack in the child.
///
/// # Safety
/// As for [`clone_child`]; `top` is the end of the stack.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn old_clone_child(
    flags: u64,
    top: *mut u8,
    pidfd: *mut Raw,
    shared: *const Shared,
) -> isize {
    naked_asm!(
        "mov r9, rcx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r9",
        "and rsp, -16",
        "call {child}",
        "ud2",
        clone = const libc::SYS_clone,
        child = sym child,
    )
}

/// clone3, and `child(shared)` on the new stack in the child.
///
/// # Safety
/// As on x86_64.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn clone_child(args: *const CloneArgs, size: usize, shared: *const Shared) -> isize {
    naked_asm!(
        "mov x3, x2",
        "mov x8, {clone3}",
        "svc 0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr",
        "mov x0, x3",
        "bl {child}",
        "brk 0",
        clone3 = const libc::SYS_clone3,
        child = sym child,
    )
}

/// clone, and `child(shared)` on the new stack in the child.
///
/// # Safety
/// As on x86_64.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn old_clone_child(
    flags: u64,
    top: *mut u8,
    pidfd: *mut Raw,
    shared: *const Shared,
) -> isize {
    naked_asm!(
        "mov x5, x3",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, {clone}",
        "svc 0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr",
        "mov x0, x5",
        "bl {child}",
        "brk 0",
        clone = const libc::SYS_clone,
        child = sym child,
    )
}
