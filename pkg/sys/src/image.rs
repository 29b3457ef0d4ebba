//! The sealed image: what enters the container is never the host's binary (CVE-2019-5736).
//!
//! A memfd is sealed against every change before it is executed. Sealing is per file and has no privilege that lifts it, so
//! it holds against CAP_SYS_ADMIN and CAP_SYS_PTRACE in the container too, which a read-only mount does not: the flag of a
//! detached mount can be cleared by whoever may call mount_setattr on it through `/proc/PID/exe`.

use crate::{Errno, Fd, Raw, Result, call::syscall, fs};

const F_ADD_SEALS: i32 = 1033;
const F_SEAL_SEAL: u32 = 1;
const F_SEAL_SHRINK: u32 = 2;
const F_SEAL_GROW: u32 = 4;
const F_SEAL_WRITE: u32 = 8;

/// Copies `bytes` into a sealed, executable memfd.
///
/// # Errors
/// Those of memfd_create, write and fcntl; EACCES where `vm.memfd_noexec` is 2.
pub fn seal(bytes: &[u8]) -> Result<Fd> {
    let fd = memfd()?;
    fs::write_all(&fd, bytes)?;
    let seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fcntl, fd.raw(), F_ADD_SEALS, seals) }?;
    Ok(fd)
}

fn memfd() -> Result<Fd> {
    const MFD_EXEC: u32 = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags: u32| {
        // SAFETY: the name is a static string.
        unsafe { syscall!(libc::SYS_memfd_create, c"cofferdam-init".as_ptr(), flags) }
    };
    // Linux < 6.3 has no MFD_EXEC and says EINVAL; newer ones log a warning without it.
    match create(flags | MFD_EXEC) {
        Err(Errno::EINVAL) => create(flags),
        other => other,
    }
    .map(|fd| Fd::from_raw(fd as Raw))
}
