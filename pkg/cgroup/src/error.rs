use std::io;

use crate::refused::Refused;

/// Why something could not be done with a control group.
///
/// `Display` leaves out the source; print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A file or directory of a hierarchy.
    #[error("cgroup: {action} {path}")]
    Io {
        /// `open`, `mkdir`, `write "50000" to` …
        action: String,
        /// Absolute path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The cgroup was there before and holds processes.
    #[error("container's cgroup is not empty: {count} process(es) found in {path}")]
    NotEmpty {
        /// Absolute path of the directory.
        path: String,
        /// How many processes, those in sub-cgroups included.
        count: usize,
    },
    /// The cgroup was there before and is frozen: whatever enters it would hang.
    #[error("container's cgroup unexpectedly frozen: {path}")]
    Frozen {
        /// Absolute path of the directory.
        path: String,
    },
    /// The processes of the cgroup did not stop within the time given to them.
    #[error("unable to freeze {path}: still {state} after {tries} tries")]
    CannotFreeze {
        /// Absolute path of the directory.
        path: String,
        /// What the kernel reports, e.g. `FREEZING`.
        state: String,
        /// How often it was asked.
        tries: u32,
    },
    /// A controller that is needed has no directory: its hierarchy is not mounted, or could not be entered.
    #[error("cannot set {controller} limit: container could not join or create cgroup")]
    NoController {
        /// Name of the controller.
        controller: String,
    },
    /// A controller that an exec names, of which the container has none.
    #[error("unknown controller {controller:?}: the container has no such cgroup")]
    UnknownController {
        /// What was named.
        controller: String,
    },
    /// Something that needs a cgroup, of a rootless container that has none.
    #[error("cannot {what}: cgroups not configured for container")]
    NotConfigured {
        /// What was to be done.
        what: &'static str,
    },
    /// A rootless caller may not make a v2 cgroup, and needs it.
    #[error("rootless needs no limits + no cgrouppath when no permission is granted for cgroups")]
    NotGranted {
        /// What was not permitted.
        source: Box<CgroupError>,
    },
    /// On v2 a cgroup can be unable to hold what the container needs because of its place in the tree.
    #[error("cannot enter cgroup {path} with domain controllers: it is {state}")]
    Threaded {
        /// Absolute path of the directory.
        path: String,
        /// Content of `cgroup.type`.
        state: String,
    },
    /// A file holds what it should not.
    #[error("cgroup: {path}: {reason}")]
    Malformed {
        /// Absolute path of the file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A new limit is below what is in use, and config.json asks for that to be checked.
    #[error("rejecting {what} limit {limit} <= usage {usage}")]
    BelowUsage {
        /// `memory` or `memory+swap`.
        what: &'static str,
        /// Bytes asked for.
        limit: i64,
        /// Bytes in use.
        usage: u64,
    },
    /// The kernel could not get below the new limit.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse {
        /// Bytes asked for.
        limit: String,
        /// Bytes in use.
        usage: String,
        /// Most bytes ever in use.
        peak: String,
    },
    /// A v2 limit whose controller does not reach the cgroup.
    #[error("{what} can't be set: controller {controller:?} not available")]
    Unavailable {
        /// The file, or the key of `linux.resources.unified`.
        what: String,
        /// The first part of its name.
        controller: String,
    },
    /// A limit could not be set.
    #[error("config.json /linux/resources/{property}")]
    Property {
        /// Which one, below `/linux/resources`.
        property: &'static str,
        /// Why.
        source: Box<CgroupError>,
    },
    /// The kernel has no file for a limit, or not on this machine.
    #[error("this kernel has no {file}")]
    NoFile {
        /// The name of the file.
        file: String,
        /// What the kernel said.
        source: Box<CgroupError>,
    },
    /// The kernel rejected the device filter.
    #[error("device filter of {path}: {action}")]
    DeviceFilter {
        /// Absolute path of the directory.
        path: String,
        /// The bpf(2) command.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// After writing the rules the cgroup does not hold them.
    #[error("{path}: the resulting device rules are not those that were asked for")]
    DeviceRules {
        /// Absolute path of the directory.
        path: String,
    },
    /// A path to a sub-cgroup that leads out of the container's cgroup.
    #[error("bad sub cgroup path: {path}")]
    BadSubCgroup {
        /// As given.
        path: String,
    },
    /// systemd, or the way to it, failed.
    #[error("systemd: {action}: {reason}")]
    Systemd {
        /// What was asked for.
        action: String,
        /// The answer.
        reason: String,
    },
    /// config.json has intelRdt, and resctrl is not mounted.
    #[error(
        "config.json /linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted"
    )]
    NoResctrl,
    /// A class of service that is somebody else's is not there.
    #[error(
        "clos dir not accessible (must be pre-created when l3CacheSchema and memBwSchema are empty): {path}: no such \
         directory"
    )]
    NoClass {
        /// Absolute path of the directory.
        path: String,
    },
    /// A class of service that is there has other limits.
    #[error("intelRdt: the schemata of {path} is not what config.json has: no line {line:?}")]
    OtherLimits {
        /// Absolute path of the directory.
        path: String,
        /// The line that is missing.
        line: String,
    },
    /// There is no cgroup hierarchy on this host.
    #[error("no cgroup mount found")]
    NoCgroups,
    /// A value of config.json that shows only now to be wrong.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl CgroupError {
    pub(crate) fn io(action: impl Into<String>, path: impl Into<String>, source: io::Error) -> Self {
        CgroupError::Io { action: action.into(), path: path.into(), source }
    }

    /// The errno, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            CgroupError::Io { source, .. } | CgroupError::DeviceFilter { source, .. } => {
                source.raw_os_error()
            }
            CgroupError::Property { source, .. } | CgroupError::NoFile { source, .. } => source.errno(),
            _ => None,
        }
    }

    pub(crate) fn is(&self, errno: nix::errno::Errno) -> bool {
        self.errno() == Some(errno as i32)
    }

    /// The caller lacks the permission, in the wide sense that includes a read-only mount.
    pub(crate) fn is_permission(&self) -> bool {
        use nix::errno::Errno::{EACCES, EPERM, EROFS};
        self.is(EPERM) || self.is(EACCES) || self.is(EROFS)
    }

    /// The cgroup (or the file) is gone or never was.
    pub fn is_gone(&self) -> bool {
        use nix::errno::Errno::{ENODEV, ENOENT};
        self.is(ENOENT) || self.is(ENODEV)
    }
}
