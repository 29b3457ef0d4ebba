//! Credentials of the calling thread: ids, groups, capabilities. Init has one thread, so that is the process.

use crate::{Result, call::syscall};

/// `setgroups(2)`.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `groups.len()` gids, which are u32.
    unsafe { syscall!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }.map(drop)
}

/// `setresgid(2)` with one value.
pub fn setgid(gid: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setresgid, gid, gid, gid) }.map(drop)
}

/// `setresuid(2)` with one value.
pub fn setuid(uid: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) }.map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION_3: u32 = 0x2008_0522;

/// `capset(2)`.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let data = [
        effective as u32,
        permitted as u32,
        inheritable as u32,
        (effective >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    // SAFETY: version 3 reads a header and two sets of three words, which `data` is.
    unsafe { syscall!(libc::SYS_capset, &raw const header, data.as_ptr()) }.map(drop)
}

/// `capget(2)`: effective, permitted, inheritable.
pub fn capget() -> Result<(u64, u64, u64)> {
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: version 3 writes two sets of three words, which `data` is.
    unsafe { syscall!(libc::SYS_capget, &raw const header, data.as_mut_ptr()) }?;
    let wide = |low: usize| u64::from(data[low]) | (u64::from(data[low + 3]) << 32);
    Ok((wide(0), wide(1), wide(2)))
}

/// `prctl(PR_CAPBSET_DROP)`; EINVAL beyond the kernel's last capability.
pub fn drop_bounding(capability: u32) -> Result<()> {
    crate::process::prctl(libc::PR_CAPBSET_DROP, [capability as usize, 0, 0, 0]).map(drop)
}

/// `prctl(PR_CAPBSET_READ)`; EINVAL beyond the kernel's last capability.
pub fn in_bounding(capability: u32) -> Result<bool> {
    crate::process::prctl(libc::PR_CAPBSET_READ, [capability as usize, 0, 0, 0]).map(|set| set == 1)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)`.
pub fn clear_ambient() -> Result<()> {
    crate::process::prctl(libc::PR_CAP_AMBIENT, [libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0]).map(drop)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE)`.
pub fn raise_ambient(capability: u32) -> Result<()> {
    crate::process::prctl(
        libc::PR_CAP_AMBIENT,
        [libc::PR_CAP_AMBIENT_RAISE as usize, capability as usize, 0, 0],
    )
    .map(drop)
}

/// `prctl(PR_SET_KEEPCAPS)`.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    crate::process::prctl(libc::PR_SET_KEEPCAPS, [usize::from(keep), 0, 0, 0]).map(drop)
}
