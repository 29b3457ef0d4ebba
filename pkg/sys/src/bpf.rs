//! bpf(2), as far as device filters on cgroup v2 need it: load a `BPF_PROG_TYPE_CGROUP_DEVICE` program, attach it to
//! a cgroup, see what is attached, detach it.

use crate::{AsFd, Errno, Fd, Result, call::syscall};

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_PROG_QUERY: u32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// How many programs `query` can report. The kernel allows 64 on one cgroup (`BPF_CGROUP_MAX_PROGS`).
pub const MOST_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

/// The head of a `union bpf_attr` for commands that take an id.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: u32, attr: &mut T) -> Result<usize> {
    // SAFETY: `attr` is a plain struct of integers that lives across the call, and its size goes with it; the kernel
    // zero-extends a short attr. The pointers inside it are set by the callers below from slices that they hold.
    unsafe { syscall!(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<T>()) }
}

/// Loads a device filter; `instructions` are `struct bpf_insn` in their eight bytes.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN, and before Linux 5.11 also when RLIMIT_MEMLOCK is used up; EINVAL or
/// EACCES when the verifier does not like the program.
pub fn load_device_filter(instructions: &[u64]) -> Result<Fd> {
    let license = c"Apache-2.0";
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    bpf(BPF_PROG_LOAD, &mut attr).map(|fd| Fd::from_raw(fd as i32))
}

/// Attaches a filter to the cgroup whose directory is `cgroup`, beside other filters; all of them must agree before a
/// device may be used. With `replace`, in the place of that one, atomically (Linux 5.6, else EINVAL).
///
/// # Errors
/// As bpf(2).
pub fn attach_device_filter(cgroup: &impl AsFd, filter: &impl AsFd, replace: Option<&Fd>) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.number() as u32,
        attach_bpf_fd: filter.number() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(old) = replace {
        attr.attach_flags |= BPF_F_REPLACE;
        attr.replace_bpf_fd = old.number() as u32;
    }
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a filter from a cgroup.
///
/// # Errors
/// As bpf(2); ENOENT if it is not attached there.
pub fn detach_device_filter(cgroup: &impl AsFd, filter: &impl AsFd) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.number() as u32,
        attach_bpf_fd: filter.number() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// Writes the ids of the filters attached to this very cgroup into `ids` and says how many there are.
///
/// # Errors
/// As bpf(2).
pub fn device_filters(cgroup: &impl AsFd, ids: &mut [u32; MOST_PROGRAMS]) -> Result<usize> {
    let mut attr = Query {
        target_fd: cgroup.number() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MOST_PROGRAMS as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok((attr.prog_cnt as usize).min(MOST_PROGRAMS))
}

/// A descriptor for the program with this id.
///
/// # Errors
/// ENOENT when it is gone; EPERM or EACCES when an LSM hides it.
pub fn program_by_id(id: u32) -> Result<Fd> {
    let mut attr = ById { id, ..ById::default() };
    bpf(BPF_PROG_GET_FD_BY_ID, &mut attr).map(|fd| Fd::from_raw(fd as i32))
}

/// Lifts the limit on locked memory, to which Linux before 5.11 charged BPF programs. This holds for the whole
/// process, so it is only done after [`load_device_filter`] gave EPERM.
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE.
pub fn lift_memlock() -> Result<()> {
    // <asm-generic/resource.h>; the libcs have different types for it.
    const MEMLOCK: u32 = 8;
    crate::process::prlimit(0, MEMLOCK, u64::MAX, u64::MAX)
}
