//! Files: opening by descriptor and never by a path that somebody else may change.

use crate::{AsFd, Errno, Fd, Raw, Result, call::syscall, text::with_nul};

pub use libc::{
    O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR,
    O_WRONLY,
};

/// `RESOLVE_*` of openat2 (`include/uapi/linux/openat2.h`).
pub mod resolve {
    /// No crossing of mounts.
    pub const NO_XDEV: u64 = 0x01;
    /// No magic links (`/proc/self/exe` and its kind).
    pub const NO_MAGICLINKS: u64 = 0x02;
    /// No symbolic links at all.
    pub const NO_SYMLINKS: u64 = 0x04;
    /// Never above the directory; absolute paths and links are errors.
    pub const BENEATH: u64 = 0x08;
    /// The directory is the root of all paths and links.
    pub const IN_ROOT: u64 = 0x10;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `openat2(2)`, Linux 5.6. Always close-on-exec.
pub fn openat2(dir: &impl AsFd, path: &[u8], flags: i32, mode: u32, resolve: u64) -> Result<Fd> {
    let how = OpenHow { flags: (flags | O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    with_nul(path, |path| {
        // SAFETY: `path` ends in NUL, `how` lives across the call and its size is given.
        unsafe { syscall!(libc::SYS_openat2, dir.number(), path, &raw const how, size_of::<OpenHow>()) }
    })
    .map(|fd| Fd::from_raw(fd as Raw))
}

/// `openat(2)`. Always close-on-exec.
pub fn openat(dir: &impl AsFd, path: &[u8], flags: i32, mode: u32) -> Result<Fd> {
    with_nul(path, |path| {
        // SAFETY: `path` ends in NUL.
        unsafe { syscall!(libc::SYS_openat, dir.number(), path, flags | O_CLOEXEC, mode) }
    })
    .map(|fd| Fd::from_raw(fd as Raw))
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: &impl AsFd, path: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_mkdirat, dir.number(), path, mode) }).map(drop)
}

/// `mknodat(2)`; `mode` holds the type, major and minor are packed as the kernel wants them.
pub fn mknodat(dir: &impl AsFd, path: &[u8], mode: u32, major: u32, minor: u32) -> Result<()> {
    // new_encode_dev (include/linux/kdev_t.h): 12 bits of major, 20 of minor.
    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_mknodat, dir.number(), path, mode, device) }).map(drop)
}

/// `symlinkat(2)`.
pub fn symlinkat(target: &[u8], dir: &impl AsFd, path: &[u8]) -> Result<()> {
    with_nul(target, |target| {
        // SAFETY: both strings end in NUL.
        with_nul(path, |path| unsafe { syscall!(libc::SYS_symlinkat, target, dir.number(), path) })
    })
    .map(drop)
}

/// `renameat2(2)` with RENAME_EXCHANGE: two names in `dir` change places (Linux 3.15, and what the file system can do).
pub fn exchange(dir: &impl AsFd, one: &[u8], other: &[u8]) -> Result<()> {
    with_nul(one, |one| {
        with_nul(other, |other| {
            let dir = dir.number();
            // SAFETY: both strings end in NUL.
            unsafe { syscall!(libc::SYS_renameat2, dir, one, dir, other, libc::RENAME_EXCHANGE) }
        })
    })
    .map(drop)
}

/// `unlinkat(2)`; `flags` may be `AT_REMOVEDIR`.
pub fn unlinkat(dir: &impl AsFd, path: &[u8], flags: i32) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_unlinkat, dir.number(), path, flags) }).map(drop)
}

/// `readlinkat(2)` into `buffer`; the part that was written. An empty path reads the link that `dir` is (O_PATH|O_NOFOLLOW).
pub fn readlinkat<'a>(dir: &impl AsFd, path: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let length = with_nul(path, |path| {
        // SAFETY: the path ends in NUL; the kernel writes at most `buffer.len()` bytes.
        unsafe { syscall!(libc::SYS_readlinkat, dir.number(), path, buffer.as_mut_ptr(), buffer.len()) }
    })?;
    Ok(&buffer[..length])
}

/// `fchmod(2)`, not for O_PATH descriptors.
pub fn fchmod(file: &impl AsFd, mode: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fchmod, file.number(), mode) }.map(drop)
}

/// `fchmodat(2)`: follows a symbolic link, so the name must be one that was just made here.
pub fn fchmodat(dir: &impl AsFd, path: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_fchmodat, dir.number(), path, mode) }).map(drop)
}

/// `fchownat(2)` with AT_EMPTY_PATH: works for O_PATH descriptors too. `u32::MAX` leaves an id alone.
pub fn fchown(file: &impl AsFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the path is a static empty string.
    unsafe { syscall!(libc::SYS_fchownat, file.number(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }
        .map(drop)
}

/// `fchownat(2)` without following a link.
pub fn lchownat(dir: &impl AsFd, path: &[u8], uid: u32, gid: u32) -> Result<()> {
    with_nul(path, |path| {
        // SAFETY: the path ends in NUL.
        unsafe { syscall!(libc::SYS_fchownat, dir.number(), path, uid, gid, libc::AT_SYMLINK_NOFOLLOW) }
    })
    .map(drop)
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor of the device that the file is.
    pub rdev: (u32, u32),
    /// Major and minor of the device that the file lies on.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// The mount that it was reached by; 0 where the kernel does not tell (Linux < 5.8).
    pub mount: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Stat {
    /// Whether this is a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
    /// Whether this is a symbolic link.
    pub const fn is_symlink(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }
    /// Whether this is a regular file.
    pub const fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
    /// Whether this is the character device `major`:`minor`.
    pub const fn is_char_device(&self, major: u32, minor: u32) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev.0 == major && self.rdev.1 == minor
    }
}

/// `statx(2)` of `path` below `dir`, not following a link at its end; an empty path is `dir` itself.
pub fn stat(dir: &impl AsFd, path: &[u8]) -> Result<Stat> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    // SAFETY: `statx` is plain data, for which all zeroes is a value.
    let mut buffer: libc::statx = unsafe { core::mem::zeroed() };
    with_nul(path, |path| {
        // SAFETY: the path ends in NUL; the kernel fills the one `statx` that `buffer` is.
        unsafe {
            let wanted = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
            syscall!(libc::SYS_statx, dir.number(), path, flags, wanted, &raw mut buffer)
        }
    })?;
    Ok(Stat {
        mode: u32::from(buffer.stx_mode),
        uid: buffer.stx_uid,
        gid: buffer.stx_gid,
        rdev: (buffer.stx_rdev_major, buffer.stx_rdev_minor),
        dev: (buffer.stx_dev_major, buffer.stx_dev_minor),
        ino: buffer.stx_ino,
        mount: buffer.stx_mnt_id,
        size: buffer.stx_size,
    })
}

/// `fstatfs(2)`: the filesystem's magic number and its `ST_*` mount flags.
pub fn statfs(file: &impl AsFd) -> Result<(i64, u64)> {
    // struct statfs of the 64-bit architectures: type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize,
    // flags and four spare words.
    let mut buffer = [0i64; 15];
    // SAFETY: the kernel fills one statfs, which `buffer` has the size of.
    unsafe { syscall!(libc::SYS_fstatfs, file.number(), buffer.as_mut_ptr()) }?;
    Ok((buffer[0], buffer[10] as u64))
}

/// `read(2)`, again after EINTR.
pub fn read(file: &impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
        match unsafe { syscall!(libc::SYS_read, file.number(), buffer.as_mut_ptr(), buffer.len()) } {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Reads until `buffer` is full or the file ends; how much was read.
pub fn read_full(file: &impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(file, &mut buffer[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// `write(2)`, again after EINTR.
pub fn write(file: &impl AsFd, bytes: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: the kernel reads `bytes.len()` bytes from `bytes`.
        match unsafe { syscall!(libc::SYS_write, file.number(), bytes.as_ptr(), bytes.len()) } {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Writes all of `bytes`.
pub fn write_all(file: &impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = write(file, bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// `copy_file_range(2)` is not everywhere; this copies by `sendfile(2)`, at most `count` bytes, and says how many.
pub fn sendfile(to: &impl AsFd, from: &impl AsFd, count: usize) -> Result<usize> {
    // SAFETY: a null offset makes the kernel use and move the file's own.
    unsafe { syscall!(libc::SYS_sendfile, to.number(), from.number(), 0, count) }
}

/// `dup3(2)` without close-on-exec: puts a file where a program expects it.
pub fn dup_onto(file: &impl AsFd, number: Raw) -> Result<()> {
    if file.number() == number {
        // SAFETY: F_SETFD takes integers.
        return unsafe { syscall!(libc::SYS_fcntl, number, libc::F_SETFD, 0) }.map(drop);
    }
    // SAFETY: integers only; whoever owns `number` asked for it to be replaced.
    unsafe { syscall!(libc::SYS_dup3, file.number(), number, 0) }.map(drop)
}

/// `pipe2(2)`: the end to read from, and the end to write to. Close-on-exec.
pub fn pipe() -> Result<(Fd, Fd)> {
    let mut ends: [Raw; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors.
    unsafe { syscall!(libc::SYS_pipe2, ends.as_mut_ptr(), O_CLOEXEC) }?;
    Ok((Fd::from_raw(ends[0]), Fd::from_raw(ends[1])))
}

/// Marks `first` and all above close-on-exec (Linux 5.11).
pub fn close_range_on_exec(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }.map(drop)
}

/// Sets or clears close-on-exec.
pub fn set_close_on_exec(file: &impl AsFd, on: bool) -> Result<()> {
    // SAFETY: F_SETFD takes integers.
    unsafe { syscall!(libc::SYS_fcntl, file.number(), libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) }
        .map(drop)
}

/// `fchdir(2)`.
pub fn fchdir(dir: &impl AsFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fchdir, dir.number()) }.map(drop)
}

/// `chdir(2)`.
pub fn chdir(path: &[u8]) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_chdir, path) }).map(drop)
}

/// `fsetxattr(2)`.
pub fn fsetxattr(file: &impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    with_nul(name, |name| {
        // SAFETY: the name ends in NUL; the kernel reads `value.len()` bytes.
        unsafe { syscall!(libc::SYS_fsetxattr, file.number(), name, value.as_ptr(), value.len(), 0) }
    })
    .map(drop)
}

/// `getcwd(2)` into `buffer`: the kernel's own text, which starts with `(unreachable)` for a directory outside the root.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes.
    let length = unsafe { syscall!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    Ok(&buffer[..length.saturating_sub(1)])
}

/// `faccessat2(2)` with AT_EACCESS (Linux 5.8), falling back to faccessat's real ids where it is missing or a filter around us
/// does not know it (EPERM, which no question but that for writing has as its answer).
pub fn access(dir: &impl AsFd, path: &[u8], mode: i32) -> Result<()> {
    with_nul(path, |path| {
        // SAFETY: the path ends in NUL.
        match unsafe { syscall!(libc::SYS_faccessat2, dir.number(), path, mode, libc::AT_EACCESS) } {
            // SAFETY: as above.
            Err(Errno::ENOSYS | Errno::EPERM) => unsafe {
                syscall!(libc::SYS_faccessat, dir.number(), path, mode)
            },
            other => other,
        }
    })
    .map(drop)
}

/// Calls `each` with the name of every entry of an open directory but `.` and `..`.
pub fn entries(dir: &impl AsFd, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = [0u64; 512];
    loop {
        let size = size_of_val(&buffer);
        // SAFETY: the kernel writes at most `size` bytes into `buffer`, which is aligned for linux_dirent64.
        let length = unsafe { syscall!(libc::SYS_getdents64, dir.number(), buffer.as_mut_ptr(), size) }?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the kernel has just written `length` bytes there, and any byte is a u8.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
        let mut at = 0;
        while at < length {
            // linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name with NUL.
            let record = usize::from(u16::from_ne_bytes([bytes[at + 16], bytes[at + 17]]));
            let name = &bytes[at + 19..at + record];
            let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." {
                each(name)?;
            }
            at += record;
        }
    }
}
