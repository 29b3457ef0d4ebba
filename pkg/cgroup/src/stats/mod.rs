//! What a container has used: one set of types for runc's `events --stats` and for the Metrics messages of containerd's
//! cgroups v1 and v2.
//!
//! A controller that is not there is `None`, and a single file that is not there leaves its field at zero: which files
//! exist depends on the kernel's version and configuration, and a missing one must not take the others' figures away.
//!
//! libcgroups is used for what is the same on every host, the names of the huge page sizes. Its readers of cgroup files
//! are not: they fail as a whole when `memory.memsw` or `memory.kmem` is missing, and have no PSI totals, memory events,
//! burst, rdma or misc.

mod parse;
mod resctrl;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::layout::Version;
pub use resctrl::{BandwidthCount, IntelRdt, L3Cache, MemoryBandwidth};

/// Figures of all controllers of a container. Times are in nanoseconds, sizes in bytes; [`u64::MAX`] is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<Cpu>,
    /// Which CPUs and memory nodes may be used; v1 only, as in runc.
    pub cpuset: Option<Cpuset>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Number of processes and threads.
    pub pids: Option<Pids>,
    /// Block devices.
    pub io: Option<Io>,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// RDMA devices.
    pub rdma: Option<Rdma>,
    /// The misc controller's resources by name; v2 only.
    pub misc: BTreeMap<String, Misc>,
    /// Caches and memory bandwidth, where config.json has `linux.intelRdt`.
    pub intel_rdt: Option<IntelRdt>,
}

/// CPU time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// All time, ns.
    pub total: u64,
    /// In user mode, ns.
    pub user: u64,
    /// In the kernel, ns.
    pub kernel: u64,
    /// By CPU; v1 only.
    pub per_cpu: Vec<PerCpu>,
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, ns.
    pub throttled: u64,
    /// Periods that used their burst.
    pub burst_periods: u64,
    /// Time above the quota in those, ns.
    pub burst: u64,
    /// `cpu.pressure`
    pub psi: Option<Psi>,
}

/// Time on one CPU, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerCpu {
    /// All.
    pub total: u64,
    /// In user mode; 0 where the kernel does not tell (before 4.17).
    pub user: u64,
    /// In the kernel.
    pub kernel: u64,
}

/// v1's cpuset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the files cpuset.*")]
pub struct Cpuset {
    pub cpus: Vec<u32>,
    pub mems: Vec<u32>,
    pub cpu_exclusive: u64,
    pub mem_exclusive: u64,
    pub mem_hardwall: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// A kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// In use now.
    pub usage: u64,
    /// Most ever in use; 0 where the kernel does not tell.
    pub max_usage: u64,
    /// How often the limit was hit; v1 only.
    pub failcnt: u64,
    /// The limit.
    pub limit: u64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// All fields of `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// Memory.
    pub memory: MemoryUse,
    /// v1: memory and swap together. v2: swap alone. [`Memory::memory_and_swap`] makes them comparable.
    pub swap: Option<MemoryUse>,
    /// Kernel memory; v1 only.
    pub kernel: Option<MemoryUse>,
    /// TCP buffers; v1 only.
    pub kernel_tcp: Option<MemoryUse>,
    /// Whether sub-cgroups are counted in; always on v2.
    pub use_hierarchy: bool,
    /// `memory.events`; v2 only.
    pub events: Option<MemoryEvents>,
    /// `memory.oom_control`; v1 only.
    pub oom_control: Option<OomControl>,
    /// `memory.pressure`
    pub psi: Option<Psi>,
    /// Whether this is from v2, which names its figures otherwise.
    pub v2: bool,
}

impl Memory {
    /// Page cache: `cache` on v1, `file` on v2.
    pub fn cache(&self) -> u64 {
        self.stat.get(if self.v2 { "file" } else { "cache" }).copied().unwrap_or(0)
    }

    /// Memory and swap together, as v1 counts them and runc reports them for both.
    pub fn memory_and_swap(&self) -> MemoryUse {
        let swap = self.swap.unwrap_or_default();
        if !self.v2 {
            return swap;
        }
        let limit =
            if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(self.memory.limit) };
        // The sum of two peaks is the peak of nothing.
        MemoryUse { usage: swap.usage + self.memory.usage, limit, max_usage: 0, failcnt: swap.failcnt }
    }
}

/// v2's `memory.events`: how often each has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Reclaimed although below `memory.low`.
    pub low: u64,
    /// Throttled above `memory.high`.
    pub high: u64,
    /// About to go above `memory.max`.
    pub max: u64,
    /// The limit was reached and an allocation was about to fail.
    pub oom: u64,
    /// Processes killed by the OOM killer.
    pub oom_kill: u64,
    /// Times the whole cgroup was killed for it (Linux 5.17).
    pub oom_group_kill: u64,
}

/// v1's `memory.oom_control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomControl {
    /// The killer is switched off.
    pub oom_kill_disable: u64,
    /// Processes are waiting for memory now.
    pub under_oom: u64,
    /// Processes killed (Linux 4.13).
    pub oom_kill: u64,
}

/// Pressure stall information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Psi {
    /// At least one process was waiting.
    pub some: Pressure,
    /// All processes were waiting.
    pub full: Pressure,
}

/// A line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Since the beginning, **microseconds** (as the kernel, runc and containerd have it).
    pub total: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be.
    pub limit: u64,
}

/// A figure of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where the figure has no such distinction.
    pub op: String,
    /// The figure.
    pub value: u64,
}

/// Block devices, in v1's tables; v2's figures are put into the first two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Io {
    /// Bytes moved.
    pub service_bytes: Vec<IoEntry>,
    /// Operations done.
    pub serviced: Vec<IoEntry>,
    /// Operations waiting now.
    pub queued: Vec<IoEntry>,
    /// Time from dispatch to completion, ns.
    pub service_time: Vec<IoEntry>,
    /// Time in the scheduler's queues, ns.
    pub wait_time: Vec<IoEntry>,
    /// Operations merged into others.
    pub merged: Vec<IoEntry>,
    /// Time with access to the device, ms.
    pub time: Vec<IoEntry>,
    /// Sectors moved.
    pub sectors: Vec<IoEntry>,
    /// By device, from v2's `io.stat`.
    pub devices: Vec<IoDevice>,
    /// `io.pressure`
    pub psi: Option<Psi>,
}

/// A line of v2's `io.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoDevice {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hugetlb {
    /// In use now.
    pub usage: u64,
    /// Most ever in use; v1 only.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// The limit.
    pub limit: u64,
}

/// RDMA devices: what is used and what may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdma {
    /// In use.
    pub current: Vec<RdmaEntry>,
    /// Limits; [`u32::MAX`] is none.
    pub limit: Vec<RdmaEntry>,
}

/// One RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaEntry {
    /// Name, e.g. `mlx5_0`.
    pub device: String,
    /// Handles.
    pub hca_handles: u32,
    /// Objects.
    pub hca_objects: u32,
}

/// A resource of the misc controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misc {
    /// In use.
    pub usage: u64,
    /// How often the limit was hit.
    pub events: u64,
}

impl Cgroup {
    /// Reads the figures of all controllers.
    ///
    /// # Errors
    ///
    /// When the cgroup is gone, or a file is not as the kernel documents it.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        if self.dirs.is_empty() {
            return Err(CgroupError::NotConfigured { what: "read statistics" });
        }
        if !self.exists() {
            let source = std::io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32);
            return Err(CgroupError::io("read statistics of", self.main_path(), source));
        }
        let mut stats = match self.version {
            Version::V2 => v2::read(self.main_path()),
            _ => v1::read(self),
        }?;
        if let Some(group) = &self.resctrl {
            stats.intel_rdt = Some(resctrl::read(group, &crate::resctrl::root()?)?);
        }
        Ok(stats)
    }
}

/// Names of the huge page sizes of this host, as they stand in file names. They do not change while it runs.
fn page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let mut sizes = libcgroups::stats::supported_page_sizes().unwrap_or_default();
        sizes.sort_unstable();
        sizes
    })
}
