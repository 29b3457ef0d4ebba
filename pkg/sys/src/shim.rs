//! What a containerd shim needs beside containers: other programs with descriptors at chosen numbers, an allocator that gives
//! memory back, and the mounts that containerd hands it as a root file system.

use crate::{Errno, Fd, Raw, Result, Strings, call::syscall, children, mount, spawn::Spawned};
use core::ffi::c_void;
use core::sync::atomic::{AtomicI32, Ordering};
use std::{string::String, vec::Vec};

/// A program to run.
pub struct Program<'a> {
    /// The file to execute; no search path is consulted.
    pub path: &'a [u8],
    /// argv.
    pub args: &'a Strings,
    /// The whole environment.
    pub env: &'a Strings,
    /// `(number in the program, descriptor here)`: at most [`MAX_FDS`], with distinct numbers. All others must be close-on-exec.
    pub fds: &'a [(Raw, Raw)],
    /// Whether it leads a process group of its own.
    pub new_group: bool,
    /// Whether it is killed when the thread that runs it ends, as go-runc asks of the runtimes that it runs.
    pub dies_with_thread: bool,
}

/// How many descriptors a [`Program`] can be given.
pub const MAX_FDS: usize = 8;

const STACK: usize = 32 * 1024;

struct Shared<'a> {
    program: &'a Program<'a>,
    path: *const u8,
    /// Errno of the child, 0 while all is well. Written by the child, read after it has executed or ended.
    errno: AtomicI32,
}

/// Starts a program without copying page tables: the child borrows this thread's memory, which stands still until the child has
/// executed (CLONE_VFORK). The program begins with default signal dispositions and no signal blocked. It is a registered child
/// ([`children`]).
///
/// # Errors
/// Those of clone and, from the child, of fcntl, dup3, prctl and execve; E2BIG for more than [`MAX_FDS`] descriptors.
pub fn start(program: &Program) -> Result<Spawned> {
    children::registered(|| start_unregistered(program))
}

fn start_unregistered(program: &Program) -> Result<Spawned> {
    if program.fds.len() > MAX_FDS {
        return Err(Errno::E2BIG);
    }
    let mut path = program.path.to_vec();
    if path.contains(&0) {
        return Err(Errno::EINVAL);
    }
    path.push(0);
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let mut shared = Shared { program, path: path.as_ptr(), errno: AtomicI32::new(0) };
    let mut pidfd: Raw = -1;
    // A handler of this process must never run in the child, where it would run on borrowed memory.
    let mask = crate::process::block_signals()?;
    // SAFETY: the end of the allocation; the ABI's alignment is u128's.
    let top = unsafe { stack.as_mut_ptr().cast::<u8>().add(STACK) };
    // SAFETY: `child` runs on `stack`, which nobody else uses, and reads `shared`; both outlive its use of them, since CLONE_VFORK
    // suspends this thread until the child has executed or ended. The kernel writes one int to `pidfd`.
    let pid = unsafe {
        libc::clone(
            child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut shared).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let failure = if pid < 0 { Some(last_errno()) } else { None };
    let _ = crate::process::set_signal_mask(mask);
    if let Some(errno) = failure {
        return Err(errno);
    }
    let pidfd = Fd::from_raw(pidfd);
    match shared.errno.load(Ordering::Acquire) {
        0 => Ok(Spawned { pid, pidfd, in_cgroup: false }),
        errno => {
            let _ = crate::process::wait(pid, false);
            Err(Errno(errno))
        }
    }
}

fn last_errno() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// The child: system calls only, nothing that allocates, locks or unwinds.
extern "C" fn child(shared: *mut c_void) -> libc::c_int {
    // SAFETY: the pointer that `start` passed, to a value that outlives this function.
    let shared = unsafe { &*shared.cast::<Shared>() };
    let errno = become_program(shared).err().unwrap_or(Errno::EIO);
    shared.errno.store(errno.0, Ordering::Release);
    crate::process::exit(127)
}

fn become_program(shared: &Shared) -> Result<()> {
    let program = shared.program;
    crate::process::reset_signal_handlers();
    if program.new_group {
        // SAFETY: integers only.
        unsafe { syscall!(libc::SYS_setpgid, 0, 0) }?;
    }
    if program.dies_with_thread {
        crate::process::prctl(libc::PR_SET_PDEATHSIG, [libc::SIGKILL as usize, 0, 0, 0])?;
    }
    // All sources move out of the targets' way first.
    let above = program.fds.iter().map(|(number, _)| *number).max().unwrap_or(2).max(2) + 1;
    let mut moved = [0 as Raw; MAX_FDS];
    for (slot, (_, from)) in moved.iter_mut().zip(program.fds) {
        // SAFETY: F_DUPFD_CLOEXEC takes integers; the table is the child's own (no CLONE_FILES).
        *slot = unsafe { syscall!(libc::SYS_fcntl, *from, libc::F_DUPFD_CLOEXEC, above) }? as Raw;
    }
    for (from, (number, _)) in moved.iter().zip(program.fds) {
        // SAFETY: integers only.
        unsafe { syscall!(libc::SYS_dup3, *from, *number, 0) }?;
    }
    crate::process::set_signal_mask(0)?;
    let (args, env) = (program.args.as_ptr(), program.env.as_ptr());
    // SAFETY: `path` ends in NUL, the arrays in NULL, and all live in `start`'s frame or beyond.
    unsafe { syscall!(libc::SYS_execve, shared.path, args, env) }.map(drop)
}

/// Makes glibc's allocator frugal: one arena for all threads, and freed memory above 64 KiB goes back to the kernel.
#[cfg(target_env = "gnu")]
pub fn frugal_allocator() {
    // SAFETY: integers only; called before there are threads, as mallopt wants.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Bytes that the program has from the allocator and has not given back.
#[cfg(target_env = "gnu")]
pub fn allocated() -> usize {
    // SAFETY: no arguments; a snapshot comes back by value.
    unsafe { libc::mallinfo2() }.uordblks
}

/// Gives every free page of the allocator back to the kernel.
#[cfg(target_env = "gnu")]
pub fn trim_allocator() {
    // SAFETY: integers only.
    unsafe { libc::malloc_trim(0) };
}

/// Stretches of this program's own file in memory that nothing has written to: its code and constants.
#[derive(Debug, Default)]
pub struct Text(Vec<(usize, usize)>);

impl Text {
    /// Finds them in the kernel's table. A stretch that was written to before it was made read-only (relocated pointers) has
    /// anonymous pages, and is left out.
    pub fn find() -> Text {
        let table = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let program = std::env::current_exe().unwrap_or_default();
        Text(unwritten(&table, &program.to_string_lossy()))
    }

    /// Takes the pages out of this process. They stay in the page cache, and come back, sixteen at a time, when they are used.
    pub fn forget(&self) {
        for (start, length) in &self.0 {
            // SAFETY: the stretch is a private mapping of a file, not writable and without pages of its own (`find`), so what
            // is read there afterwards is what was there before.
            let _ = unsafe { syscall!(libc::SYS_madvise, *start, *length, libc::MADV_DONTNEED) };
        }
    }
}

/// Address and length of the mappings of `program` in `/proc/PID/smaps` that cannot be written and have no anonymous page.
fn unwritten(table: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in table.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            let writable = words.next().is_none_or(|permissions| permissions.contains('w'));
            let ours = line.ends_with(program) && !program.is_empty();
            current = if ours && !writable { range(first) } else { None };
        } else if first == "Anonymous:" && words.next() == Some("0") {
            found.extend(current.take());
        }
    }
    found
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

const PR_SCHED_CORE: i32 = 62;

/// `prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE)` for this process group (Linux 5.14, CONFIG_SCHED_CORE): a core-scheduling
/// cookie that children inherit.
///
/// # Errors
/// EINVAL of a kernel without it, ENODEV of a machine whose cores have one thread each.
pub fn create_core_scheduling_group() -> Result<()> {
    const CREATE: usize = 1;
    const PROCESS_GROUP: usize = 2;
    crate::process::prctl(PR_SCHED_CORE, [CREATE, 0, PROCESS_GROUP, 0]).map(drop)
}

/// `PR_SCHED_CORE_GET`: a process's core-scheduling cookie, 0 when it has none.
///
/// # Errors
/// As those of [`create_core_scheduling_group`], and ESRCH.
pub fn core_scheduling_cookie(pid: i32) -> Result<u64> {
    const GET: usize = 0;
    const PROCESS: usize = 0;
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one u64 to `cookie`.
    unsafe { syscall!(libc::SYS_prctl, PR_SCHED_CORE, GET, pid, PROCESS, &raw mut cookie) }.map(|_| cookie)
}

/// A mount as containerd describes it (`containerd.types.Mount`).
#[derive(Clone, Debug, Default)]
pub struct Rootfs {
    /// File system type.
    pub fstype: String,
    /// Device, directory to bind, or a name.
    pub source: String,
    /// Options as in fstab(5), and `loop`.
    pub options: Vec<String>,
}

/// [`Rootfs::options`], told apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    flags: u64,
    data: Vec<String>,
    on_loop: bool,
    direct_io: bool,
    uid_map: Option<String>,
    gid_map: Option<String>,
}

/// Options that are flags: name, whether it clears, bit.
const FLAGS: &[(&str, bool, u64)] = &[
    ("async", true, libc::MS_SYNCHRONOUS),
    ("atime", true, libc::MS_NOATIME),
    ("bind", false, libc::MS_BIND),
    ("dev", true, libc::MS_NODEV),
    ("diratime", true, libc::MS_NODIRATIME),
    ("dirsync", false, libc::MS_DIRSYNC),
    ("exec", true, libc::MS_NOEXEC),
    ("mand", false, libc::MS_MANDLOCK),
    ("noatime", false, libc::MS_NOATIME),
    ("nodev", false, libc::MS_NODEV),
    ("nodiratime", false, libc::MS_NODIRATIME),
    ("noexec", false, libc::MS_NOEXEC),
    ("nomand", true, libc::MS_MANDLOCK),
    ("norelatime", true, libc::MS_RELATIME),
    ("nostrictatime", true, libc::MS_STRICTATIME),
    ("nosuid", false, libc::MS_NOSUID),
    ("rbind", false, libc::MS_BIND | libc::MS_REC),
    ("relatime", false, libc::MS_RELATIME),
    ("remount", false, libc::MS_REMOUNT),
    ("ro", false, libc::MS_RDONLY),
    ("rw", true, libc::MS_RDONLY),
    ("strictatime", false, libc::MS_STRICTATIME),
    ("suid", true, libc::MS_NOSUID),
    ("sync", false, libc::MS_SYNCHRONOUS),
    ("shared", false, libc::MS_SHARED),
    ("rshared", false, libc::MS_SHARED | libc::MS_REC),
    ("private", false, libc::MS_PRIVATE),
    ("rprivate", false, libc::MS_PRIVATE | libc::MS_REC),
    ("slave", false, libc::MS_SLAVE),
    ("rslave", false, libc::MS_SLAVE | libc::MS_REC),
    ("unbindable", false, libc::MS_UNBINDABLE),
    ("runbindable", false, libc::MS_UNBINDABLE | libc::MS_REC),
];

fn parse_options(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, true, bit)) => parsed.flags &= !bit,
            Some((_, false, bit)) => parsed.flags |= bit,
            None => match option.as_str() {
                "defaults" => {}
                "loop" => parsed.on_loop = true,
                "direct-io" => parsed.direct_io = true,
                text => match text.split_once('=') {
                    Some(("uidmap", map)) => parsed.uid_map = Some(map.into()),
                    Some(("gidmap", map)) => parsed.gid_map = Some(map.into()),
                    _ => parsed.data.push(option.clone()),
                },
            },
        }
    }
    if !parsed.on_loop && parsed.direct_io {
        parsed.data.push("direct-io".into());
    }
    parsed
}

/// mount(2) copies one page of options. containerd leaves 512 bytes of it for what it cannot foresee, and so do we.
const OPTIONS_MAX: usize = 4096 - 512;

/// Mounts `rootfs` on the directory `target`.
///
/// # Errors
/// Those of the mount calls; EINVAL for one half of an id mapping, E2BIG for options that no kernel would take.
pub fn mount_rootfs(rootfs: &Rootfs, target: &[u8]) -> Result<()> {
    let options = parse_options(&rootfs.options);
    let namespace = match (&options.uid_map, &options.gid_map) {
        (None, None) => None,
        (Some(uid), Some(gid)) => Some(user_namespace(uid, gid)?),
        _ => return Err(Errno::EINVAL),
    };
    match &namespace {
        // An overlay cannot be mapped itself; its lower layers can, and its upper one has the container's ids already.
        Some(namespace) if rootfs.fstype == "overlay" => {
            let mut options = options;
            let mapped = MappedLayers::mount(&mut options.data, namespace)?;
            let result = mount_plain(rootfs, &options, target);
            drop(mapped);
            result
        }
        Some(namespace) => {
            mount_plain(rootfs, &options, target)?;
            move_mapped(target, target, namespace)
        }
        None => mount_plain(rootfs, &options, target),
    }
}

fn mount_plain(rootfs: &Rootfs, options: &Options, target: &[u8]) -> Result<()> {
    const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;
    let flags = options.flags & !PROPAGATION;
    let length = options.data.iter().map(|option| option.len() + 1).sum::<usize>();
    let device;
    let mut source = rootfs.source.as_bytes();
    // The loop device is freed on its last close, so this descriptor must live until it is mounted.
    let _held;
    if options.on_loop {
        let read_only = flags & libc::MS_RDONLY != 0;
        (_held, device) = attach_loop(source, read_only, options.direct_io)?;
        source = device.as_bytes();
    }
    if flags & libc::MS_REMOUNT == 0 || !options.data.is_empty() {
        if rootfs.fstype == "overlay" && length >= OPTIONS_MAX {
            mount_long_overlay(source, target, flags, &options.data)?;
        } else {
            mount::mount(source, target, rootfs.fstype.as_bytes(), flags, options.data.join(",").as_bytes())?;
        }
    }
    if options.flags & PROPAGATION != 0 {
        mount::mount(b"", target, b"", options.flags & (PROPAGATION | libc::MS_REC | libc::MS_SILENT), b"")?;
    }
    // A bind mount takes no flags when it is made.
    const READ_ONLY_BIND: u64 = libc::MS_BIND | libc::MS_RDONLY;
    if flags & READ_ONLY_BIND == READ_ONLY_BIND {
        mount::mount(b"", target, b"", flags | libc::MS_REMOUNT, b"")?;
    }
    Ok(())
}

/// A user namespace with these mappings, held by nothing but the descriptor. A map is `inside:outside:length`, and more of them
/// behind commas.
fn user_namespace(uid_map: &str, gid_map: &str) -> Result<Fd> {
    let lines = |map: &str| -> Result<String> {
        let line = |entry: &str| {
            let numbers: Vec<u32> = entry.split(':').map_while(|number| number.parse().ok()).collect();
            let [inside, outside, length] = numbers[..] else { return Err(Errno::EINVAL) };
            Ok(std::format!("{inside} {outside} {length}\n"))
        };
        map.split(',').map(line).collect()
    };
    let (uid_map, gid_map) = (lines(uid_map)?, lines(gid_map)?);
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let Spawned { pid, pidfd, .. } = children::registered(|| spawn_pausing(&mut stack))?;
    let file = |name: &str| std::format!("/proc/{pid}/{name}");
    let opened = std::fs::write(file("uid_map"), uid_map)
        .and_then(|()| std::fs::write(file("gid_map"), gid_map))
        .map_err(Errno::from)
        .and_then(|()| {
            crate::fs::openat(&crate::Cwd, file("ns/user").as_bytes(), libc::O_RDONLY | libc::O_CLOEXEC, 0)
        });
    let killed = crate::process::pidfd_send_signal(&pidfd, libc::SIGKILL);
    let gone = killed
        .and_then(|()| crate::process::poll_readable(&pidfd, -1))
        .and_then(|_| children::collect(pid, &pidfd));
    if gone.is_err() {
        // Something still runs on it.
        core::mem::forget(stack);
    }
    opened
}

/// A process in a user namespace of its own that runs on `stack`, which must not be freed before it is gone.
fn spawn_pausing(stack: &mut Vec<u128>) -> Result<Spawned> {
    let mut pidfd: Raw = -1;
    let mask = crate::process::block_signals()?;
    // SAFETY: the end of the allocation; the ABI's alignment is u128's.
    let top = unsafe { stack.as_mut_ptr().cast::<u8>().add(STACK) };
    // SAFETY: `pause` runs on `stack`, which nobody else uses and whose owner frees it after the child is gone; it touches no other
    // memory. The kernel writes one int to `pidfd`.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
        libc::clone(pause, top.cast(), flags, core::ptr::null_mut(), &raw mut pidfd)
    };
    let failure = if pid < 0 { Some(last_errno()) } else { None };
    let _ = crate::process::set_signal_mask(mask);
    match failure {
        Some(errno) => Err(errno),
        None => Ok(Spawned { pid, pidfd: Fd::from_raw(pidfd), in_cgroup: false }),
    }
}

/// What holds a user namespace until its descriptor is there: it waits to be killed.
extern "C" fn pause(_: *mut c_void) -> libc::c_int {
    loop {
        // SAFETY: no descriptors, no time limit: no pointers.
        let _ = unsafe { syscall!(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
    }
}

/// Mounts a copy of `source`, its ids mapped, on `target`.
fn move_mapped(source: &[u8], target: &[u8], namespace: &Fd) -> Result<()> {
    let tree = mount::open_tree_clone(&crate::Cwd, source, false)?;
    let change =
        mount::MountAttr { set: mount::attr::IDMAP, userns_fd: namespace.raw() as u64, ..Default::default() };
    mount::mount_setattr(&tree, false, &change)?;
    mount::move_mount_to(&tree, &crate::Cwd, target)
}

/// Lower layers of an overlay, mounted with mapped ids for as long as it takes to make the overlay of them.
struct MappedLayers {
    dir: std::path::PathBuf,
    mounted: Vec<std::path::PathBuf>,
}

impl MappedLayers {
    /// Mounts them, and names them in the options in place of the layers.
    fn mount(options: &mut [String], namespace: &Fd) -> Result<MappedLayers> {
        use std::os::unix::{ffi::OsStrExt, fs::DirBuilderExt};
        static COUNT: AtomicI32 = AtomicI32::new(0);
        let lower = options.iter_mut().find(|option| option.starts_with("lowerdir=")).ok_or(Errno::EINVAL)?;
        let name =
            std::format!("ovl-idmapped-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        let make =
            |path: &std::path::Path| std::fs::DirBuilder::new().mode(0o700).create(path).map_err(Errno::from);
        make(&dir)?;
        let mut layers = MappedLayers { dir, mounted: Vec::new() };
        for (number, layer) in lower["lowerdir=".len()..].split(':').enumerate() {
            let target = layers.dir.join(std::format!("{number}"));
            make(&target)?;
            layers.mounted.push(target.clone());
            move_mapped(layer.as_bytes(), target.as_os_str().as_bytes(), namespace)?;
        }
        let paths: Vec<_> = layers.mounted.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        *lower = std::format!("lowerdir={}", paths.join(":"));
        Ok(layers)
    }
}

impl Drop for MappedLayers {
    fn drop(&mut self) {
        use std::os::unix::ffi::OsStrExt;
        // The overlay has mounts of its own of them by now. What is not empty stays: never is a layer's content removed.
        for path in &self.mounted {
            let _ = mount::umount(path.as_os_str().as_bytes(), libc::MNT_DETACH);
            let _ = std::fs::remove_dir(path);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// An overlay with more layers than a page of options can name: one fsconfig call a layer where the kernel has `lowerdir+`
/// (Linux 6.7), else relative to the directory that the layers share.
fn mount_long_overlay(source: &[u8], target: &[u8], flags: u64, data: &[String]) -> Result<()> {
    match overlay_by_layers(source, target, flags, data) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
            overlay_by_directory(source, target, flags, data)
        }
        other => other,
    }
}

fn overlay_by_layers(source: &[u8], target: &[u8], flags: u64, data: &[String]) -> Result<()> {
    let context = mount::fsopen(b"overlay")?;
    mount::fsconfig(&context, b"source", Some(source))?;
    if flags & libc::MS_RDONLY != 0 {
        mount::fsconfig(&context, b"ro", None)?;
    }
    for option in data {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    mount::fsconfig(&context, b"lowerdir+", Some(layer.as_bytes()))?;
                }
            }
            Some((key, value)) => mount::fsconfig(&context, key.as_bytes(), Some(value.as_bytes()))?,
            None => mount::fsconfig(&context, option.as_bytes(), None)?,
        }
    }
    mount::fsconfig_create(&context)?;
    // MOUNT_ATTR_* of the first bits are those of MS_*.
    const SAME: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let mounted = mount::fsmount(&context, flags & SAME)?;
    mount::move_mount_to(&mounted, &crate::Cwd, target)
}

/// From a thread of its own, whose working directory is not the process's: the layers' names become short.
fn overlay_by_directory(source: &[u8], target: &[u8], flags: u64, data: &[String]) -> Result<()> {
    let (directory, options) = shorten_layers(data).ok_or(Errno::E2BIG)?;
    if options.len() > 4095 {
        return Err(Errno::E2BIG);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, || {
            crate::process::unshare(libc::CLONE_FS as u32)?;
            crate::fs::chdir(directory.as_bytes())?;
            mount::mount(source, target, b"overlay", flags, options.as_bytes())
        });
        thread.map_err(Errno::from)?.join().unwrap_or(Err(Errno::EIO))
    })
}

/// The directory that all lower layers share, and the options with the layers relative to it.
fn shorten_layers(data: &[String]) -> Option<(String, String)> {
    let layers: Vec<&str> =
        data.iter().find_map(|option| option.strip_prefix("lowerdir="))?.split(':').collect();
    let first = layers.first()?;
    let shared = layers.iter().fold(first.len(), |shared, layer| {
        shared.min(layer.bytes().zip(first.bytes()).take_while(|(a, b)| a == b).count())
    });
    let directory = &first[..first[..shared].rfind('/')? + 1];
    if directory == "/" || layers.iter().any(|layer| layer.len() <= directory.len()) {
        return None;
    }
    let options: Vec<String> = data
        .iter()
        .map(|option| match option.strip_prefix("lowerdir=") {
            None => option.clone(),
            Some(_) => {
                let layers: Vec<&str> = layers.iter().map(|layer| &layer[directory.len()..]).collect();
                std::format!("lowerdir={}", layers.join(":"))
            }
        })
        .collect();
    Some((directory.into(), options.join(",")))
}

/// `struct loop_info64` (`include/uapi/linux/loop.h`).
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    small: [u32; 4],
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Puts a free loop device over the file; the device and its path. It frees itself when nobody uses it any more.
fn attach_loop(file: &[u8], read_only: bool, direct_io: bool) -> Result<(Fd, String)> {
    const GET_FREE: u64 = 0x4c82;
    const CONFIGURE: u64 = 0x4c0a;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    const DIRECT_IO: u32 = 16;
    let access = libc::O_CLOEXEC | if read_only { libc::O_RDONLY } else { libc::O_RDWR };
    let backing = crate::fs::openat(&crate::Cwd, file, access, 0)?;
    let control = crate::fs::openat(&crate::Cwd, b"/dev/loop-control", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
    // Between asking for a free device and taking it somebody else may have taken it (EBUSY): ask again, at most 100 times.
    for _ in 0..100 {
        // SAFETY: the request takes no argument.
        let number = unsafe { syscall!(libc::SYS_ioctl, control.raw(), GET_FREE, 0) }?;
        let path = std::format!("/dev/loop{number}");
        let device = crate::fs::openat(&crate::Cwd, path.as_bytes(), access, 0)?;
        // SAFETY: plain data, for which all zeroes is a value.
        let mut config: LoopConfig = unsafe { core::mem::zeroed() };
        config.fd = backing.raw() as u32;
        config.info.small[3] =
            AUTOCLEAR | if read_only { READ_ONLY } else { 0 } | if direct_io { DIRECT_IO } else { 0 };
        let name = &file[..file.len().min(63)];
        config.info.file_name[..name.len()].copy_from_slice(name);
        // SAFETY: the kernel reads one loop_config (Linux 5.8), which lives across the call.
        match unsafe { syscall!(libc::SYS_ioctl, device.raw(), CONFIGURE, &raw const config) } {
            Ok(_) => return Ok((device, path)),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::ToString, vec};

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_program_gets_its_descriptors_at_their_numbers() {
        let (read, write) = pipe();
        let args = Strings::new(&["sh", "-c", "echo to five >&5; kill -TERM $$"]).unwrap();
        let env = Strings::new::<&str>(&[]).unwrap();
        let program = Program {
            path: b"/bin/sh",
            args: &args,
            env: &env,
            fds: &[(5, write.raw()), (3, write.raw())],
            new_group: true,
            dies_with_thread: true,
        };
        let spawned = start(&program).unwrap();
        drop(write);
        let mut buffer = [0; 64];
        let n = crate::fs::read(&read, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"to five\n");
        assert!(crate::process::poll_readable(&spawned.pidfd, 10_000).unwrap());
        let ended = children::Ended { pid: spawned.pid, status: 128 + 15, killed: true };
        assert_eq!(children::collect(spawned.pid, &spawned.pidfd), Ok(Some(ended)));
        assert_eq!(children::collect(spawned.pid, &spawned.pidfd), Err(Errno::ECHILD));
    }

    fn pipe() -> (Fd, Fd) {
        let mut pair = [0; 2];
        // SAFETY: the kernel writes two ints.
        unsafe { syscall!(libc::SYS_pipe2, pair.as_mut_ptr(), libc::O_CLOEXEC) }.unwrap();
        (Fd::from_raw(pair[0]), Fd::from_raw(pair[1]))
    }

    #[test]
    fn a_missing_program_is_an_error_of_its_start() {
        let none = Strings::new::<&str>(&[]).unwrap();
        let program = Program {
            path: b"/nonexistent/program",
            args: &none,
            env: &none,
            fds: &[],
            new_group: false,
            dies_with_thread: false,
        };
        assert_eq!(start(&program).err(), Some(Errno::ENOENT));
    }

    #[test]
    fn code_is_forgotten_and_comes_back() {
        let table = "1000-3000 r-xp 0 fe:00 1 /bin/p\nRss: 8 kB\nAnonymous: 0 kB\n3000-4000 r--p 0 fe:00 1 /bin/p\n\
            Anonymous: 4 kB\n4000-5000 rw-p 0 fe:00 1 /bin/p\nAnonymous: 0 kB\n5000-6000 r-xp 0 fe:00 2 /lib/c\nAnonymous: 0 kB\n";
        assert_eq!(unwritten(table, "/bin/p"), [(0x1000, 0x2000)]);
        let text = Text::find();
        assert!(!text.0.is_empty());
        text.forget();
        assert_eq!(unwritten(table, "/lib/c"), [(0x5000, 0x1000)], "the code still runs");
    }

    #[test]
    fn later_options_win_and_unknown_ones_are_data() {
        let parsed = parse_options(&strings(&[
            "ro",
            "nosuid",
            "rw",
            "lowerdir=/a:/b",
            "loop",
            "direct-io",
            "uidmap=0:1:2",
        ]));
        assert_eq!(
            parsed,
            Options {
                flags: libc::MS_NOSUID,
                data: vec!["lowerdir=/a:/b".to_string()],
                on_loop: true,
                direct_io: true,
                uid_map: Some("0:1:2".to_string()),
                gid_map: None,
            }
        );
    }

    #[test]
    fn a_user_namespace_outlives_its_process() {
        assert_eq!(user_namespace("0:1000", "0:1000:5").err(), Some(Errno::EINVAL));
        match user_namespace("0:1000:5,9:2000:1", "0:1000:5") {
            Err(Errno::EPERM) => std::eprintln!("SKIPPED: this user may not map ids"),
            namespace => {
                let kind = crate::net::namespace_type(&namespace.unwrap());
                assert_eq!(kind, Ok(libc::CLONE_NEWUSER as u32));
            }
        }
    }

    #[test]
    fn layers_are_named_from_their_common_directory() {
        let data = strings(&["workdir=/s/9/work", "lowerdir=/s/12/fs:/s/1/fs"]);
        let (directory, options) = shorten_layers(&data).unwrap();
        assert_eq!((directory.as_str(), options.as_str()), ("/s/", "workdir=/s/9/work,lowerdir=12/fs:1/fs"));
        assert_eq!(shorten_layers(&strings(&["lowerdir=/a/fs:/b/fs"])), None);
    }
}
