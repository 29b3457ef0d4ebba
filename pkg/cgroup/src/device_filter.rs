//! Puts a [`DevicePolicy`] into force: files on v1, a BPF program on v2.

use std::io;

use cofferdam_sys::{Errno, Fd, bpf};
use nix::fcntl::OFlag;

use crate::cgroup::Cgroup;
use crate::device_program::device_program;
use crate::devices::DevicePolicy;
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;
use crate::prepare::open_dir;

/// Makes `policy` hold. `fresh`: the cgroup has just been made and nothing is in it.
pub(crate) fn set(cgroup: &Cgroup, policy: &DevicePolicy, fresh: bool) -> Result<(), CgroupError> {
    let path = cgroup.need("devices")?;
    match cgroup.version {
        Version::V2 => set_v2(path, policy, fresh),
        _ => set_v1(path, policy, fresh),
    }
}

fn set_v1(path: &str, policy: &DevicePolicy, fresh: bool) -> Result<(), CgroupError> {
    let list = || -> Result<DevicePolicy, CgroupError> {
        DevicePolicy::parse_list(&file::read(path, "devices.list")?)
            .map_err(|reason| CgroupError::Malformed { path: file::join(path, "devices.list"), reason })
    };
    // In a cgroup without children or processes, starting over is always possible and disturbs nobody. What the
    // parent does not allow makes the write fail, so nothing needs to be read back either.
    let rules = if fresh { policy.whole() } else { policy.transition_from(&list()?) };
    let mut rules = rules.as_slice();
    while let Some(&(allow, _)) = rules.first() {
        let same = rules.iter().take_while(|rule| rule.0 == allow).count();
        let mut target = file::Target::open(path, if allow { "devices.allow" } else { "devices.deny" })?;
        for (_, rule) in &rules[..same] {
            target.write(rule)?;
        }
        rules = &rules[same..];
    }
    if fresh {
        return Ok(());
    }
    let now = list()?;
    let matches = if policy.allow_by_default { now.allow_by_default } else { now == *policy };
    if matches { Ok(()) } else { Err(CgroupError::DeviceRules { path: path.to_owned() }) }
}

fn set_v2(path: &str, policy: &DevicePolicy, fresh: bool) -> Result<(), CgroupError> {
    if fresh && policy.allows_everything() {
        // Filters of the cgroups above go on to hold in any case.
        return Ok(());
    }
    let failed = |action| {
        move |errno: Errno| CgroupError::DeviceFilter {
            path: path.to_owned(),
            action,
            source: io::Error::from_raw_os_error(errno.0),
        }
    };
    let cgroup = open_dir(path, OFlag::empty())?;
    let old = if fresh { Vec::new() } else { attached(&cgroup).map_err(failed("BPF_PROG_QUERY"))? };
    let filter = load(&device_program(policy)).map_err(failed("BPF_PROG_LOAD"))?;
    if let [only] = old.as_slice() {
        // Linux < 5.6 has no BPF_F_REPLACE and answers EINVAL; then the two are in force together for a moment,
        // which only ever denies more.
        match bpf::attach_device_filter(&cgroup, &filter, Some(only)) {
            Err(Errno::EINVAL) => {}
            result => return result.map_err(failed("BPF_PROG_ATTACH")),
        }
    }
    bpf::attach_device_filter(&cgroup, &filter, None).map_err(failed("BPF_PROG_ATTACH"))?;
    // More than one is systemd's doing, which leaves its own behind when properties change.
    for filter in &old {
        bpf::detach_device_filter(&cgroup, filter).map_err(failed("BPF_PROG_DETACH"))?;
    }
    Ok(())
}

fn load(program: &[u64]) -> Result<Fd, Errno> {
    match bpf::load_device_filter(program) {
        Err(Errno::EPERM) => {
            bpf::lift_memlock()?;
            bpf::load_device_filter(program)
        }
        result => result,
    }
}

fn attached(cgroup: &std::fs::File) -> Result<Vec<Fd>, Errno> {
    let mut ids = [0; bpf::MOST_PROGRAMS];
    let count = bpf::device_filters(cgroup, &mut ids)?;
    let mut filters = Vec::with_capacity(count);
    for &id in &ids[..count] {
        match bpf::program_by_id(id) {
            Ok(filter) => filters.push(filter),
            // An LSM may hide systemd's program from us. It stays, and can only deny more.
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filters)
}
