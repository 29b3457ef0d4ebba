//! `/process`: what runs, as whom, with which rights.

use crate::json::nullable;
use crate::spec::is_false;
use serde::{Deserialize, Serialize};

/// `/process`, or the document of an exec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// `terminal`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// `consoleSize`; meaningless without `terminal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// `user`
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    /// `args`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `env`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `cwd`
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    /// `capabilities`; none leaves the runtime's own capabilities alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// `rlimits`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// `noNewPrivileges`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
    /// `apparmorProfile`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// `oomScoreAdj`; none leaves it as inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// `scheduler`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// `selinuxLabel`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// `ioPriority`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// `execCPUAffinity`; only an exec heeds it.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// `/process/consoleSize`, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// `/process/user`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// `uid` in the container.
    #[serde(deserialize_with = "nullable")]
    pub uid: u32,
    /// `gid` in the container.
    #[serde(deserialize_with = "nullable")]
    pub gid: u32,
    /// `umask`; none means 0022 for a new container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// `additionalGids`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// `/process/capabilities`: five sets by name, `CAP_…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// `bounding`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    /// `effective`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    /// `inheritable`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    /// `permitted`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// `ambient`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// The five sets with their names.
    pub fn sets(&self) -> [(&'static str, &[String]); 5] {
        [
            ("bounding", &self.bounding),
            ("effective", &self.effective),
            ("inheritable", &self.inheritable),
            ("permitted", &self.permitted),
            ("ambient", &self.ambient),
        ]
    }
}

/// `/process/rlimits/N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// `type`, `RLIMIT_…`
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// `hard`
    #[serde(deserialize_with = "nullable")]
    pub hard: u64,
    /// `soft`
    #[serde(deserialize_with = "nullable")]
    pub soft: u64,
}

/// `/process/scheduler`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `policy`, `SCHED_…`
    #[serde(deserialize_with = "nullable")]
    pub policy: String,
    /// `nice`, -20 to 19.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub nice: i32,
    /// `priority`, 1 to 99 for the real-time policies.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// `flags`, `SCHED_FLAG_…`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// `runtime`, nanoseconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub runtime: u64,
    /// `deadline`, nanoseconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub deadline: u64,
    /// `period`, nanoseconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub period: u64,
}

/// `/process/ioPriority`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// `class`, `IOPRIO_CLASS_…`
    #[serde(deserialize_with = "nullable")]
    pub class: String,
    /// `priority`, 0 to 7.
    #[serde(deserialize_with = "nullable")]
    pub priority: i32,
}

/// `/process/execCPUAffinity`: CPU lists, `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// `initial`: while the runtime prepares the process; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub initial: String,
    /// `final`: once it is in its cgroup; empty for none.
    #[serde(rename = "final", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub last: String,
}

/// For `skip_serializing_if`: Go's `omitempty` leaves out a zero.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
