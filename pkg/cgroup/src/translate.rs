//! Translates `linux.resources` into writes, without I/O.
//!
//! One function a controller, each with its v1 and v2 words side by side. Zero means "leave as it is" wherever runc
//! has it so (memory, quota, period, shares), since `update` sends zeros for what it does not change.
//!
//! What the hierarchy cannot do is refused with the pointer of the property, also where runc ignores it silently
//! (`swappiness`, `disableOOMKiller`, real-time scheduling and net_cls on v2): engines do not send these on v2, and
//! a limit that does not hold should not look as if it did.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};
use serde::{Deserialize, Serialize};

use crate::devices::DevicePolicy;
use crate::layout::{Layout, Version};
use crate::place::Driver;
use crate::prepare::ROOM;
use crate::refused::Refused;
use crate::systemd::property::{self, Property};
use crate::write::{How, Write};

/// Everything that is to be set on a container's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Which devices may be used; `None` leaves that as it is (`update`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DevicePolicy>,
    /// In the order in which they have to be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Write>,
    /// `memory.checkBeforeUpdate`: these limits must be above what is in use now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_usage: Option<AboveUsage>,
    /// The same in systemd's words; empty with the fs driver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Property>,
    /// `linux.intelRdt`, which is limited by a filesystem of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_of_service: Option<crate::resctrl::ClassOfService>,
    /// A limit on processes that is too tight for a runtime's own (those below [`ROOM`]) is not set until
    /// [`crate::Cgroup::settle`]. A process that is cloned into a cgroup counts at once, where one that is moved there is
    /// let in regardless; so with `pids.limit` 0 no container could start, and with 1 none whose init has to clone again
    /// or runs hooks. runc sets all limits that late. [`translate`] leaves this off, for a caller that never settles.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settle_later: bool,
    /// What has no effect and is worth a line in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// New memory limits that must not be below the present usage. Zero or negative: not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AboveUsage {
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap together.
    pub memory_swap: i64,
}

impl Settings {
    /// The part that does not leave a container enough processes to come into being.
    pub(crate) fn left_for_later(&self) -> Settings {
        let tight = |text: &str| text.parse::<u64>().is_ok_and(|limit| limit < ROOM);
        let mut later = Settings::default();
        later.writes.extend(self.writes.iter().filter(|w| w.file == "pids.max" && tight(&w.value)).cloned());
        if !later.writes.is_empty() {
            later.properties.extend(self.properties.iter().filter(|p| p.name == "TasksMax").cloned());
        }
        later
    }
}

const BASE: &str = "/linux/resources";

/// Translates the resources of a container for the hierarchies of `layout`.
///
/// `devices` says whether the device rules take part: yes for a new container (where no rules means deny-all), no for
/// `update`, which never changes them.
///
/// # Errors
///
/// Refuses values that the kernel would not take and properties that have no meaning on this layout.
pub fn translate(
    resources: &LinuxResources,
    layout: &Layout,
    driver: Driver,
    devices: bool,
) -> Result<Settings, Refused> {
    if driver == Driver::Disabled {
        return without_cgroup(resources);
    }
    let mut t = Translation { layout, v2: layout.version() == Version::V2, out: Settings::default() };
    if devices {
        let rules = resources.devices().as_deref().unwrap_or_default();
        t.out.devices = Some(DevicePolicy::compile(rules)?);
    }
    // runc's order: on v2 pids, memory, io, cpu, cpuset, hugetlb, rdma, unified; on v1 cpuset, memory, cpu, pids,
    // blkio, hugetlb, net_cls, net_prio, rdma. No controller looks at another one's files.
    if let Some(cpu) = resources.cpu() {
        t.cpuset(cpu)?;
    }
    if let Some(memory) = resources.memory() {
        t.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        t.cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        t.pids(pids.limit())?;
    }
    if let Some(block_io) = resources.block_io() {
        t.block_io(block_io)?;
    }
    t.hugepages(resources)?;
    t.network(resources)?;
    t.rdma(resources)?;
    t.unified(resources)?;
    if driver == Driver::Systemd {
        t.out.properties = property::from_resources(resources, t.out.devices.as_ref(), t.v2)?;
        t.idle_or_weight();
    }
    Ok(t.out)
}

/// Device rules are the ones of the caller's cgroup then, whatever config.json says: engines write a rule for all devices into
/// every config. A limit, which somebody asked for, is refused.
fn without_cgroup(resources: &LinuxResources) -> Result<Settings, Refused> {
    let asked = [
        ("memory", resources.memory().as_ref().is_some_and(|memory| *memory != LinuxMemory::default())),
        ("cpu", resources.cpu().as_ref().is_some_and(|cpu| *cpu != LinuxCpu::default())),
        ("pids", resources.pids().is_some()),
        ("blockIO", resources.block_io().as_ref().is_some_and(|io| *io != LinuxBlockIo::default())),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())),
        ("network", resources.network().as_ref().is_some_and(|net| *net != LinuxNetwork::default())),
        ("rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
        ("unified", resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        None => Ok(Settings::default()),
        Some((property, _)) => Err(Refused::new(
            format!("{BASE}/{property}"),
            "cannot set limits without cgroups (--cgroup-manager disabled)",
        )),
    }
}

/// cgroup v1's `cpu.shares` (2 to 262144, default 1024) as v2's `cpu.weight` (1 to 10000, default 100).
///
/// The curve runs through the three pairs of minimum, default and maximum; runc, crun and youki have used it since
/// 2025 in place of a straight line, which gave the default share a weight of 39. Zero stays zero ("not set").
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// v1's `blkio.weight` (10 to 1000) as v2's `io.weight` (1 to 10000), on a straight line.
pub fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9999 / 990
}

/// v2's `memory.swap.max` for a limit of memory and swap together; `Ok(0)`: leave it. -1 stands for no limit.
pub(crate) fn swap_only(limit: i64, swap: i64) -> Result<i64, Refused> {
    let pointer = format!("{BASE}/memory/swap");
    match (limit, swap) {
        // As on v1, where no limit on memory means none on memory and swap either.
        (-1, 0) => Ok(-1),
        (_, -1 | 0) | (-1, _) => Ok(swap),
        (0, _) => Err(Refused::new(pointer, "unable to set swap limit without memory limit")),
        (limit, swap) if swap < limit => {
            Err(Refused::new(pointer, format!("memory+swap limit {swap} should be >= memory limit {limit}")))
        }
        (limit, swap) => Ok(swap - limit),
    }
}

struct Translation<'a> {
    layout: &'a Layout,
    v2: bool,
    out: Settings,
}

impl Translation<'_> {
    fn push(&mut self, write: Write) {
        self.out.writes.push(write);
    }

    fn refuse<T>(&self, property: &str, reason: impl Into<String>) -> Result<T, Refused> {
        Err(Refused::new(format!("{BASE}/{property}"), reason))
    }

    /// On v1 a limit needs the controller's hierarchy. (On v2 the kernel answers, since which controllers reach a
    /// cgroup depends on every cgroup above it.)
    fn need(&self, controller: &str, property: &str) -> Result<(), Refused> {
        if self.v2 || self.layout.hierarchy(controller).is_some() {
            return Ok(());
        }
        self.refuse(property, format!("no cgroup v1 hierarchy of this host has the {controller} controller"))
    }

    fn cpuset(&mut self, cpu: &LinuxCpu) -> Result<(), Refused> {
        for (list, property, file) in
            [(cpu.cpus(), "cpu/cpus", "cpuset.cpus"), (cpu.mems(), "cpu/mems", "cpuset.mems")]
        {
            let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
            self.need("cpuset", property)?;
            if let Err(reason) = property::parse_list(list) {
                return self.refuse(property, reason);
            }
            self.push(Write::new("cpuset", file, list));
        }
        Ok(())
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<(), Refused> {
        let limit = self.limit(memory.limit(), "memory/limit")?;
        let reservation = self.limit(memory.reservation(), "memory/reservation")?;
        let swap = self.limit(memory.swap(), "memory/swap")?;
        if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
            self.out.warnings.push("kernel memory limits are ignored: Linux has dropped them".to_owned());
        }
        if self.v2 { self.memory_v2(memory, limit, swap) } else { self.memory_v1(memory, limit, swap) }?;
        if reservation != 0 {
            self.need("memory", "memory/reservation")?;
            let (file, value) = if self.v2 {
                ("memory.low", max(reservation))
            } else {
                ("memory.soft_limit_in_bytes", reservation.to_string())
            };
            self.push(Write::new("memory", file, value));
        }
        Ok(())
    }

    fn limit(&self, value: Option<i64>, property: &str) -> Result<i64, Refused> {
        match value {
            Some(value) if value < -1 => self.refuse(
                property,
                format!("{value} is no limit: -1 means unlimited, and nothing is below that"),
            ),
            value => Ok(value.unwrap_or(0)),
        }
    }

    fn memory_v2(&mut self, memory: &LinuxMemory, limit: i64, swap: i64) -> Result<(), Refused> {
        if memory.swappiness().is_some() {
            return self.refuse("memory/swappiness", "cgroup v2 has no swappiness");
        }
        if memory.disable_oom_killer() == Some(true) {
            return self.refuse("memory/disableOOMKiller", "cgroup v2 cannot disable the OOM killer");
        }
        if memory.check_before_update() == Some(true) && (limit > 0 || swap > 0) {
            self.out.above_usage = Some(AboveUsage { memory: limit, memory_swap: swap });
        }
        if limit == 0 && swap > 0 {
            let how = How::Minus { file: "memory.max".into() };
            self.push(Write::new("memory", "memory.swap.max", swap).how(how));
        } else {
            let only = swap_only(limit, swap)?;
            // Without swap accounting (`swapaccount=0`, or no CONFIG_SWAP) there is no such file, and nothing to
            // limit either.
            if only != 0 || swap > 0 {
                let how = if only > 0 { How::Must } else { How::IfPresent };
                self.push(Write::new("memory", "memory.swap.max", max(only)).how(how));
            }
        }
        if limit != 0 {
            self.push(Write::new("memory", "memory.max", max(limit)));
        }
        Ok(())
    }

    fn memory_v1(&mut self, memory: &LinuxMemory, limit: i64, swap: i64) -> Result<(), Refused> {
        const MEMSW: &str = "memory.memsw.limit_in_bytes";
        const LIMIT: &str = "memory.limit_in_bytes";
        if limit != 0 || swap != 0 {
            self.need("memory", "memory/limit")?;
        }
        if limit > 0 && swap > 0 && swap < limit {
            return self.refuse(
                "memory/swap",
                format!("memory+swap limit {swap} should be >= memory limit {limit}"),
            );
        }
        if limit == -1 && swap == 0 {
            // No limit on memory lifts that on memory and swap too, which has to happen first.
            self.push(Write::new("memory", MEMSW, -1).how(How::IfPresent));
        }
        if limit != 0 {
            self.push(Write::new("memory", LIMIT, limit));
        }
        if swap != 0 {
            let how = if limit == 0 { How::Must } else { How::BeforeIfAbove { file: LIMIT.into() } };
            self.push(Write::new("memory", MEMSW, swap).how(how));
        }
        if memory.disable_oom_killer() == Some(true) {
            self.need("memory", "memory/disableOOMKiller")?;
            self.push(Write::new("memory", "memory.oom_control", 1));
        }
        match memory.swappiness() {
            // -1 in the unsigned property of the spec: the kernel's default.
            None | Some(u64::MAX) => {}
            Some(value @ 0..=100) => {
                self.need("memory", "memory/swappiness")?;
                self.push(Write::new("memory", "memory.swappiness", value));
            }
            Some(value) => {
                return self
                    .refuse("memory/swappiness", format!("{value} is outside of the valid range 0 to 100"));
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<(), Refused> {
        if let Some(idle) = cpu.idle().filter(|idle| !(0..=1).contains(idle)) {
            return self.refuse("cpu/idle", format!("{idle} is neither 0 nor 1"));
        }
        if self.v2 { self.cpu_v2(cpu) } else { self.cpu_v1(cpu) }
    }

    /// systemd has one property for both, in which the weight is lost; the kernel refuses it beside `cpu.idle`.
    fn idle_or_weight(&mut self) {
        let said = self.out.properties.iter().rfind(|property| property.name == "CPUWeight");
        if said.is_none_or(|property| !property.is_idle()) {
            return;
        }
        let before = self.out.writes.len();
        self.out.writes.retain(|write| write.file != "cpu.weight");
        if self.out.writes.len() < before {
            let text = "unable to apply both cpu.idle and a CPU weight by systemd: the weight is ignored";
            self.out.warnings.push(text.to_owned());
        }
    }

    fn cpu_v2(&mut self, cpu: &LinuxCpu) -> Result<(), Refused> {
        const MAX: &str = "cpu.max";
        for (set, property) in [
            (cpu.realtime_runtime().unwrap_or(0) != 0, "cpu/realtimeRuntime"),
            (cpu.realtime_period().unwrap_or(0) != 0, "cpu/realtimePeriod"),
        ] {
            if set {
                return self.refuse(property, "cgroup v2 has no real-time CPU limits");
            }
        }
        if let Some(idle) = cpu.idle() {
            self.push(Write::new("cpu", "cpu.idle", idle));
        }
        if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
            self.push(Write::new("cpu", "cpu.weight", cpu_weight(shares)));
        }
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if let Some(burst) = cpu.burst() {
            let how = if quota == 0 { How::Must } else { How::OrAfter { file: MAX.into() } };
            self.push(Write::new("cpu", "cpu.max.burst", burst).how(how));
        }
        let quota_text = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        match (quota, period) {
            (0, 0) => {}
            // A single number leaves the period as it is.
            (_, 0) => self.push(Write::new("cpu", MAX, quota_text)),
            (0, period) => self.push(Write::new("cpu", MAX, period).how(How::KeepFirstWord)),
            (_, period) => self.push(Write::new("cpu", MAX, format!("{quota_text} {period}"))),
        }
        Ok(())
    }

    fn cpu_v1(&mut self, cpu: &LinuxCpu) -> Result<(), Refused> {
        const QUOTA: &str = "cpu.cfs_quota_us";
        const RT_RUNTIME: &str = "cpu.rt_runtime_us";
        let before = self.out.writes.len();
        // The kernel clamps shares silently (MIN_SHARES and MAX_SHARES, unchanged since 2.6.38); runc reads them back
        // to notice.
        match cpu.shares().unwrap_or(0) {
            0 => {}
            1 => return self.refuse("cpu/shares", "the minimum allowed cpu-shares is 2"),
            262_145.. => return self.refuse("cpu/shares", "the maximum allowed cpu-shares is 262144"),
            shares => self.push(Write::new("cpu", "cpu.shares", shares)),
        }
        let quota = cpu.quota().unwrap_or(0);
        let around = || if quota == 0 { How::Must } else { How::OrAfter { file: QUOTA.into() } };
        if let Some(period) = cpu.period().filter(|&period| period != 0) {
            self.push(Write::new("cpu", "cpu.cfs_period_us", period).how(around()));
        }
        if let Some(burst) = cpu.burst() {
            self.push(Write::new("cpu", "cpu.cfs_burst_us", burst).how(around()));
        }
        if quota != 0 {
            self.push(Write::new("cpu", QUOTA, quota));
        }
        if let Some(idle) = cpu.idle() {
            self.push(Write::new("cpu", "cpu.idle", idle));
        }
        // Period first, for a runtime must not exceed it; but a period may not fall below the old runtime either.
        let runtime = cpu.realtime_runtime().filter(|&runtime| runtime != 0);
        if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
            let how = if runtime.is_none() { How::Must } else { How::OrAfter { file: RT_RUNTIME.into() } };
            self.push(Write::new("cpu", "cpu.rt_period_us", period).how(how));
        }
        if let Some(runtime) = runtime {
            self.push(Write::new("cpu", RT_RUNTIME, runtime));
        }
        if self.out.writes.len() > before { self.need("cpu", "cpu") } else { Ok(()) }
    }

    fn pids(&mut self, limit: i64) -> Result<(), Refused> {
        self.need("pids", "pids/limit")?;
        // With 0 as with 1 the container's process is alone; systemd knows no TasksMax=0, and puts its 1 back whenever it looks.
        let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
        self.push(Write::new("pids", "pids.max", value));
        Ok(())
    }

    fn block_io(&mut self, io: &LinuxBlockIo) -> Result<(), Refused> {
        let before = self.out.writes.len();
        self.block_io_weights(io)?;
        for (devices, property, v1, v2) in [
            (
                io.throttle_read_bps_device(),
                "throttleReadBpsDevice",
                "blkio.throttle.read_bps_device",
                "rbps",
            ),
            (
                io.throttle_write_bps_device(),
                "throttleWriteBpsDevice",
                "blkio.throttle.write_bps_device",
                "wbps",
            ),
            (
                io.throttle_read_iops_device(),
                "throttleReadIOPSDevice",
                "blkio.throttle.read_iops_device",
                "riops",
            ),
            (
                io.throttle_write_iops_device(),
                "throttleWriteIOPSDevice",
                "blkio.throttle.write_iops_device",
                "wiops",
            ),
        ] {
            for (index, device) in devices.as_deref().unwrap_or_default().iter().enumerate() {
                let number = self.device(device.major(), device.minor(), property, index)?;
                self.throttle(device, &number, v1, v2);
            }
        }
        if self.out.writes.len() > before { self.need("blkio", "blockIO") } else { Ok(()) }
    }

    fn throttle(&mut self, device: &LinuxThrottleDevice, number: &str, v1: &'static str, v2: &str) {
        let rate = device.rate();
        self.push(if self.v2 {
            // 0 lifts the limit on v1; v2 wants the word.
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            Write::new("io", "io.max", format!("{number} {v2}={rate}"))
        } else {
            Write::new("blkio", v1, format!("{number} {rate}"))
        });
    }

    fn device(&self, major: i64, minor: i64, property: &str, index: usize) -> Result<String, Refused> {
        match (u32::try_from(major), u32::try_from(minor)) {
            (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
            _ => self.refuse(
                &format!("blockIO/{property}/{index}"),
                format!("{major}:{minor} is no device number"),
            ),
        }
    }

    // Linux 5.0 removed CFQ and with it v1's blkio.weight; BFQ's files (4.12; per device since 5.4) exist only
    // while its module is loaded. v2's io.weight belongs to blk-iocost (5.4).
    fn block_io_weights(&mut self, io: &LinuxBlockIo) -> Result<(), Refused> {
        let weight = io.weight().unwrap_or(0);
        if weight != 0 {
            if !(10..=1000).contains(&weight) {
                return self
                    .refuse("blockIO/weight", format!("{weight} is outside of the valid range 10 to 1000"));
            }
            self.push(if self.v2 {
                let how = How::Else { file: "io.weight".into(), value: io_weight(weight).to_string() };
                Write::new("io", "io.bfq.weight", weight).how(how)
            } else {
                let how = How::Else { file: "blkio.weight".into(), value: weight.to_string() };
                Write::new("blkio", "blkio.bfq.weight", weight).how(how)
            });
        }
        let leaf = io.leaf_weight().unwrap_or(0);
        if leaf != 0 {
            if self.v2 {
                return self.refuse("blockIO/leafWeight", "cgroup v2 has no leaf weights");
            }
            self.push(Write::new("blkio", "blkio.leaf_weight", leaf));
        }
        for (index, device) in io.weight_device().as_deref().unwrap_or_default().iter().enumerate() {
            let number = self.device(device.major(), device.minor(), "weightDevice", index)?;
            if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
                self.push(if self.v2 {
                    Write::new("io", "io.bfq.weight", format!("{number} {weight}")).how(How::IfPresent)
                } else {
                    let value = format!("{number} {weight}");
                    let how = How::Else { file: "blkio.weight_device".into(), value: value.clone() };
                    Write::new("blkio", "blkio.bfq.weight_device", value).how(how)
                });
            }
            if let Some(leaf) = device.leaf_weight().filter(|&leaf| leaf != 0) {
                if self.v2 {
                    return self.refuse(
                        &format!("blockIO/weightDevice/{index}/leafWeight"),
                        "cgroup v2 has no leaf weights",
                    );
                }
                self.push(Write::new("blkio", "blkio.leaf_weight_device", format!("{number} {leaf}")));
            }
        }
        Ok(())
    }

    fn hugepages(&mut self, resources: &LinuxResources) -> Result<(), Refused> {
        for (index, limit) in resources.hugepage_limits().as_deref().unwrap_or_default().iter().enumerate() {
            let property = format!("hugepageLimits/{index}");
            let size = limit.page_size();
            let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
            if digits.len() + 2 != size.len()
                || digits.is_empty()
                || !digits.bytes().all(|b| b.is_ascii_digit())
            {
                let reason = format!("{size:?} is no page size: expected a number and KB, MB or GB");
                return self.refuse(&format!("{property}/pageSize"), reason);
            }
            self.need("hugetlb", &property)?;
            // The property is unsigned in the spec and signed in the parser: a value beyond i64 arrives negative, and
            // as the kernel rounds down to its own maximum anyway, such a value is that maximum.
            let value = u64::try_from(limit.limit()).unwrap_or(u64::MAX).min(i64::MAX as u64);
            let word = if self.v2 { "max" } else { "limit_in_bytes" };
            self.push(Write::new("hugetlb", format!("hugetlb.{size}.{word}"), value));
            // Linux < 5.7 has no limit on reservations, only on use.
            let rsvd = format!("hugetlb.{size}.rsvd.{word}");
            self.push(Write::new("hugetlb", rsvd, value).how(How::IfPresent));
        }
        Ok(())
    }

    fn network(&mut self, resources: &LinuxResources) -> Result<(), Refused> {
        let Some(network) = resources.network() else { return Ok(()) };
        if let Some(class) = network.class_id().filter(|&class| class != 0) {
            if self.v2 {
                return self.refuse("network/classID", "cgroup v2 has no net_cls controller");
            }
            self.need("net_cls", "network/classID")?;
            self.push(Write::new("net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().as_deref().unwrap_or_default() {
            if self.v2 {
                return self.refuse("network/priorities", "cgroup v2 has no net_prio controller");
            }
            self.need("net_prio", "network/priorities")?;
            let value = format!("{} {}", priority.name(), priority.priority());
            self.push(Write::new("net_prio", "net_prio.ifpriomap", value));
        }
        Ok(())
    }

    fn rdma(&mut self, resources: &LinuxResources) -> Result<(), Refused> {
        let Some(devices) = resources.rdma() else { return Ok(()) };
        let mut devices: Vec<_> = devices.iter().collect();
        devices.sort_by_key(|(name, _)| *name);
        for (name, limits) in devices {
            self.need("rdma", "rdma")?;
            let mut value = name.clone();
            for (word, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())]
            {
                if let Some(limit) = limit {
                    value += &format!(" {word}={limit}");
                }
            }
            self.push(Write::new("rdma", "rdma.max", value));
        }
        Ok(())
    }

    fn unified(&mut self, resources: &LinuxResources) -> Result<(), Refused> {
        let Some(unified) = resources.unified().as_ref().filter(|unified| !unified.is_empty()) else {
            return Ok(());
        };
        if !self.v2 {
            return self.refuse("unified", "invalid configuration: cannot use unified on cgroup v1");
        }
        let mut entries: Vec<_> = unified.iter().collect();
        entries.sort();
        for (key, value) in entries {
            let pointer = format!("unified/{}", key.replace('~', "~0").replace('/', "~1"));
            if key.contains(['/', '\0']) {
                return self
                    .refuse(&pointer, format!("unified resource {key:?} must be a file name (no slashes)"));
            }
            let Some((controller, _)) = key.split_once('.').filter(|(controller, _)| !controller.is_empty())
            else {
                let reason = format!("unified resource {key:?} must be in the form CONTROLLER.PARAMETER");
                return self.refuse(&pointer, reason);
            };
            self.push(Write {
                controller: controller.to_owned().into(),
                file: key.clone().into(),
                value: value.clone(),
                how: How::Unified,
            });
        }
        Ok(())
    }
}

fn max(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
