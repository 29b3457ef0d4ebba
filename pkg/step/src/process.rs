//! The parameters of steps that shape the process.

use crate::Slot;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// `/linux/timeOffsets`: one clock's offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// Hooks of one kind that run in the container's namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// `createContainer` or `startContainer`.
    pub kind: String,
    /// In order.
    pub hooks: Vec<Hook>,
    /// The state that a hook reads from stdin: JSON up to the pid's digits …
    pub state_head: String,
    /// … and from behind them.
    pub state_tail: String,
    /// A file that what the hooks write to stdout is appended to.
    #[serde(default)]
    pub stdout: Option<Slot>,
    /// The same for stderr; with the same slot, both keep their order.
    #[serde(default)]
    pub stderr: Option<Slot>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path.
    pub path: String,
    /// argv, `argv[0]` included; empty means the path alone.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds; none means no limit.
    pub timeout: Option<u32>,
}

/// `/process/rlimits`: one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number of this architecture.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// `/process/scheduler` as `sched_setattr(2)` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedAttr {
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

/// `/process/ioPriority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`: 1 real time, 2 best effort, 3 idle.
    pub class: u32,
    /// 0 to 7.
    pub priority: u32,
}

/// Four capability sets as bits (`include/uapi/linux/capability.h`); the bounding set is a step of its own, as it goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}
