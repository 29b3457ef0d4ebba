//! Mounts by descriptor (Linux 5.2 and newer) and the calls that came before them.

use crate::{AsFd, Fd, Raw, Result, call::syscall, text::with_nul};

pub use libc::{
    MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_MOVE, MS_NOATIME, MS_NODEV,
    MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED,
    MS_SILENT, MS_SLAVE, MS_STRICTATIME, MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// `MOUNT_ATTR_*` (`include/uapi/linux/mount.h`).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x01;
    /// Ignores set-user-id bits.
    pub const NOSUID: u64 = 0x02;
    /// Ignores device nodes.
    pub const NODEV: u64 = 0x04;
    /// Refuses to execute.
    pub const NOEXEC: u64 = 0x08;
    /// The field of three values below.
    pub const ATIME: u64 = 0x70;
    /// `relatime`
    pub const RELATIME: u64 = 0x00;
    /// `noatime`
    pub const NOATIME: u64 = 0x10;
    /// `strictatime`
    pub const STRICTATIME: u64 = 0x20;
    /// `nodiratime`
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `fsopen(2)`.
pub fn fsopen(fstype: &[u8]) -> Result<Fd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: the name ends in NUL.
    with_nul(fstype, |name| unsafe { syscall!(libc::SYS_fsopen, name, FSOPEN_CLOEXEC) })
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `fspick(2)` of the mount that `path` is the root of.
pub fn fspick(mount: &impl AsFd) -> Result<Fd> {
    const FSPICK_CLOEXEC: u32 = 1;
    const FSPICK_EMPTY_PATH: u32 = 8;
    // SAFETY: the path is a static empty string.
    unsafe { syscall!(libc::SYS_fspick, mount.number(), c"".as_ptr(), FSPICK_CLOEXEC | FSPICK_EMPTY_PATH) }
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `fsconfig(2)` with a flag (`ro`) or, with a value, a string.
pub fn fsconfig(context: &Fd, key: &[u8], value: Option<&[u8]>) -> Result<()> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    with_nul(key, |key| match value {
        // SAFETY: the key ends in NUL; a flag takes no value.
        None => unsafe { syscall!(libc::SYS_fsconfig, context.raw(), SET_FLAG, key, 0, 0) },
        Some(value) => {
            // SAFETY: key and value end in NUL.
            with_nul(value, |value| unsafe {
                syscall!(libc::SYS_fsconfig, context.raw(), SET_STRING, key, value, 0)
            })
        }
    })
    .map(drop)
}

/// `fsconfig(2)` with a descriptor.
pub fn fsconfig_fd(context: &Fd, key: &[u8], value: &impl AsFd) -> Result<()> {
    const SET_FD: u32 = 5;
    // SAFETY: the key ends in NUL; the command takes no value but the descriptor.
    with_nul(key, |key| unsafe {
        syscall!(libc::SYS_fsconfig, context.raw(), SET_FD, key, 0, value.number())
    })
    .map(drop)
}

/// `fsconfig(2)`: creates the superblock.
pub fn fsconfig_create(context: &Fd) -> Result<()> {
    const CMD_CREATE: u32 = 6;
    // SAFETY: the command takes no further arguments.
    unsafe { syscall!(libc::SYS_fsconfig, context.raw(), CMD_CREATE, 0, 0, 0) }.map(drop)
}

/// `fsconfig(2)`: changes the superblock that was picked.
pub fn fsconfig_reconfigure(context: &Fd) -> Result<()> {
    const CMD_RECONFIGURE: u32 = 7;
    // SAFETY: the command takes no further arguments.
    unsafe { syscall!(libc::SYS_fsconfig, context.raw(), CMD_RECONFIGURE, 0, 0, 0) }.map(drop)
}

/// `fsmount(2)`: a detached mount of what the context created, with attributes.
pub fn fsmount(context: &Fd, attributes: u64) -> Result<Fd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fsmount, context.raw(), FSMOUNT_CLOEXEC, attributes) }
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `open_tree(2)` with OPEN_TREE_CLONE: a detached bind mount of `path` (which may be empty for `dir` itself).
pub fn open_tree_clone(dir: &impl AsFd, path: &[u8], recursive: bool) -> Result<Fd> {
    open_tree(dir, path, recursive, 0)
}

/// The same of a symbolic link itself, if `path` ends in one.
pub fn open_tree_clone_of_link(dir: &impl AsFd, path: &[u8], recursive: bool) -> Result<Fd> {
    open_tree(dir, path, recursive, libc::AT_SYMLINK_NOFOLLOW as u32)
}

/// `open_tree(2)` with OPEN_TREE_NAMESPACE (Linux 7.0): a mount namespace for setns(2), of which the folder `path` with all mounts in it is
/// the root. Below that lies the machine's first root, an empty nullfs.
pub fn open_tree_namespace(path: &[u8]) -> Result<Fd> {
    let flags = OPEN_TREE_NAMESPACE | libc::O_CLOEXEC as u32 | libc::AT_NO_AUTOMOUNT as u32 | AT_RECURSIVE;
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_open_tree, libc::AT_FDCWD, path, flags) })
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `open_tree_attr(2)` (Linux 6.15) with OPEN_TREE_CLONE: a detached bind mount of `file`, changed as by [`mount_setattr`]; both with all
/// mounts in it if `recursive`.
pub fn open_tree_attr(file: &impl AsFd, recursive: bool, change: &MountAttr) -> Result<Fd> {
    /// One number on all architectures (`scripts/syscall.tbl`).
    const SYS_OPEN_TREE_ATTR: usize = 467;
    // SAFETY: the path is a static empty string; `change` lives across the call and its size is given.
    unsafe {
        syscall!(
            SYS_OPEN_TREE_ATTR,
            file.number(),
            c"".as_ptr(),
            clone_flags(recursive),
            core::ptr::from_ref(change),
            size_of::<MountAttr>()
        )
    }
    .map(|fd| Fd::from_raw(fd as Raw))
}

/// Whether [`open_tree_namespace`] is there and permitted: flags and privilege are looked at in front of the descriptor, which is none.
pub fn makes_tree_namespaces() -> bool {
    const NONE: Raw = -1;
    let flags = OPEN_TREE_NAMESPACE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the path is a static empty string.
    let asked = unsafe { syscall!(libc::SYS_open_tree, NONE, c"".as_ptr(), flags) };
    matches!(asked, Err(crate::Errno::EBADF))
}

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_NAMESPACE: u32 = 2;
const AT_RECURSIVE: u32 = 0x8000;

fn clone_flags(recursive: bool) -> u32 {
    OPEN_TREE_CLONE
        | libc::O_CLOEXEC as u32
        | libc::AT_EMPTY_PATH as u32
        | libc::AT_NO_AUTOMOUNT as u32
        | if recursive { AT_RECURSIVE } else { 0 }
}

fn open_tree(dir: &impl AsFd, path: &[u8], recursive: bool, flags: u32) -> Result<Fd> {
    let flags = flags | clone_flags(recursive);
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_open_tree, dir.number(), path, flags) })
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// `move_mount(2)` from a mount's descriptor onto a directory's or file's descriptor.
pub fn move_mount(mount: &impl AsFd, onto: &impl AsFd) -> Result<()> {
    move_mount_to(mount, onto, b"")
}

/// `move_mount(2)` from a mount's descriptor onto `path` below `dir`; links at the end of the path are not followed.
pub fn move_mount_to(mount: &impl AsFd, dir: &impl AsFd, path: &[u8]) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x04;
    const T_EMPTY_PATH: u32 = 0x40;
    let flags = F_EMPTY_PATH | if path.is_empty() { T_EMPTY_PATH } else { 0 };
    with_nul(path, |path| {
        // SAFETY: both paths end in NUL.
        unsafe { syscall!(libc::SYS_move_mount, mount.number(), c"".as_ptr(), dir.number(), path, flags) }
    })
    .map(drop)
}

/// `struct mount_attr` (`include/uapi/linux/mount.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// A user namespace's descriptor for [`attr::IDMAP`].
    pub userns_fd: u64,
}

/// `mount_setattr(2)` (Linux 5.12) on the mount that `mount` lies on.
pub fn mount_setattr(mount: &impl AsFd, recursive: bool, change: &MountAttr) -> Result<()> {
    const AT_RECURSIVE: i32 = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `change` lives across the call and its size is given.
    unsafe {
        syscall!(
            libc::SYS_mount_setattr,
            mount.number(),
            c"".as_ptr(),
            flags,
            core::ptr::from_ref(change),
            size_of::<MountAttr>()
        )
    }
    .map(drop)
}

/// The same of nothing but the propagation: one of `MS_SHARED` and its kin.
pub fn set_propagation(mount: &impl AsFd, recursive: bool, flag: u64) -> Result<()> {
    mount_setattr(mount, recursive, &MountAttr { propagation: flag, ..MountAttr::default() })
}

/// `mount(2)`.
pub fn mount(source: &[u8], target: &[u8], fstype: &[u8], flags: u64, data: &[u8]) -> Result<()> {
    with_nul(source, |source| {
        with_nul(target, |target| {
            with_nul(fstype, |fstype| {
                // SAFETY: the four strings end in NUL; the kernel copies at most a page of `data` and stops at its NUL.
                with_nul(data, |data| unsafe {
                    syscall!(libc::SYS_mount, source, target, fstype, flags, data)
                })
            })
        })
    })
    .map(drop)
}

/// `umount2(2)`.
pub fn umount(target: &[u8], flags: i32) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(target, |target| unsafe { syscall!(libc::SYS_umount2, target, flags) }).map(drop)
}

/// `pivot_root(".", ".")`: the working directory becomes the root, the old root lies over it.
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: static strings.
    unsafe { syscall!(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }.map(drop)
}

/// `chroot(2)`.
pub fn chroot(path: &[u8]) -> Result<()> {
    // SAFETY: the path ends in NUL.
    with_nul(path, |path| unsafe { syscall!(libc::SYS_chroot, path) }).map(drop)
}
