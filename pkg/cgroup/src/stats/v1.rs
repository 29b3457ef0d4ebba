//! Figures of v1's controllers.

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::stats::parse::{Files, io_entries};
use crate::stats::{
    Cpu, Cpuset, Hugetlb, Io, IoEntry, Memory, MemoryUse, OomControl, PerCpu, Pids, Stats, page_sizes,
};
use crate::systemd::property::parse_list;

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture we run on.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    let files = |controller| cgroup.path(controller).map(Files::new);
    let mut stats = Stats::default();
    let (mut scheduler, mut account) = (files("cpu"), files("cpuacct"));
    if scheduler.is_some() || account.is_some() {
        let mut cpu = Cpu::default();
        if let Some(files) = &mut scheduler {
            throttling(files, &mut cpu)?;
        }
        if let Some(files) = &mut account {
            usage(files, &mut cpu)?;
        }
        stats.cpu = Some(cpu);
    }
    stats.cpuset = files("cpuset").map(|mut f| cpuset(&mut f)).transpose()?;
    stats.memory = files("memory").map(|mut f| memory(&mut f)).transpose()?;
    stats.pids = files("pids").map(|mut f| pids(&mut f)).transpose()?;
    stats.io = files("blkio").map(|mut f| io(&mut f)).transpose()?;
    if let Some(mut files) = files("hugetlb") {
        hugetlb(&mut files, &mut stats)?;
    }
    if let Some(mut files) = files("rdma") {
        stats.rdma = files.rdma()?;
    }
    Ok(stats)
}

fn throttling(files: &mut Files<'_>, cpu: &mut Cpu) -> Result<(), CgroupError> {
    files.keyed("cpu.stat", |key, value| match key {
        "nr_periods" => cpu.periods = value,
        "nr_throttled" => cpu.throttled_periods = value,
        "throttled_time" => cpu.throttled = value,
        "nr_bursts" => cpu.burst_periods = value,
        "burst_time" => cpu.burst = value,
        _ => {}
    })?;
    Ok(())
}

fn usage(files: &mut Files<'_>, cpu: &mut Cpu) -> Result<(), CgroupError> {
    cpu.total = files.number_or_0("cpuacct.usage")?;
    files.keyed("cpuacct.stat", |key, ticks| match key {
        "user" => cpu.user = ticks * NANOSECONDS_PER_TICK,
        "system" => cpu.kernel = ticks * NANOSECONDS_PER_TICK,
        _ => {}
    })?;
    if let Some(text) = files.text("cpuacct.usage_percpu")? {
        let totals = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
        cpu.per_cpu = totals.map(|total| PerCpu { total, ..PerCpu::default() }).collect();
    }
    // Linux >= 4.17: "cpu user system", a line for each CPU that is possible.
    if let Some(text) = files.text("cpuacct.usage_all")? {
        for line in text.lines().skip(1) {
            let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
            let (index, user, kernel) = (numbers.next(), numbers.next(), numbers.next());
            let entry = index.and_then(|index| cpu.per_cpu.get_mut(usize::try_from(index).ok()?));
            if let (Some(entry), Some(user), Some(kernel)) = (entry, user, kernel) {
                (entry.user, entry.kernel) = (user, kernel);
            }
        }
    }
    Ok(())
}

fn cpuset(files: &mut Files<'_>) -> Result<Cpuset, CgroupError> {
    let mut list = |name: &str| -> Result<Vec<u32>, CgroupError> {
        let text = files.text(name)?.unwrap_or_default().trim().to_owned();
        let ranges = parse_list(&text).unwrap_or_default();
        Ok(ranges.into_iter().flat_map(|(first, last)| first..=last).collect())
    };
    let (cpus, mems) = (list("cpuset.cpus")?, list("cpuset.mems")?);
    let relax = files.text("cpuset.sched_relax_domain_level")?.and_then(|text| text.trim().parse().ok());
    Ok(Cpuset {
        cpus,
        mems,
        cpu_exclusive: files.number_or_0("cpuset.cpu_exclusive")?,
        mem_exclusive: files.number_or_0("cpuset.mem_exclusive")?,
        mem_hardwall: files.number_or_0("cpuset.mem_hardwall")?,
        memory_migrate: files.number_or_0("cpuset.memory_migrate")?,
        memory_spread_page: files.number_or_0("cpuset.memory_spread_page")?,
        memory_spread_slab: files.number_or_0("cpuset.memory_spread_slab")?,
        memory_pressure: files.number_or_0("cpuset.memory_pressure")?,
        sched_load_balance: files.number_or_0("cpuset.sched_load_balance")?,
        sched_relax_domain_level: relax.unwrap_or(0),
    })
}

fn memory(files: &mut Files<'_>) -> Result<Memory, CgroupError> {
    let mut oom = OomControl::default();
    let there = files.keyed("memory.oom_control", |key, value| match key {
        "oom_kill_disable" => oom.oom_kill_disable = value,
        "under_oom" => oom.under_oom = value,
        "oom_kill" => oom.oom_kill = value,
        _ => {}
    })?;
    Ok(Memory {
        stat: files.map("memory.stat")?.unwrap_or_default(),
        memory: memory_use(files, "memory")?.unwrap_or_default(),
        swap: memory_use(files, "memory.memsw")?,
        kernel: memory_use(files, "memory.kmem")?,
        kernel_tcp: memory_use(files, "memory.kmem.tcp")?,
        use_hierarchy: files.number_or_0("memory.use_hierarchy")? == 1,
        events: None,
        oom_control: there.then_some(oom),
        psi: None,
        v2: false,
    })
}

fn memory_use(files: &mut Files<'_>, prefix: &str) -> Result<Option<MemoryUse>, CgroupError> {
    let Some(usage) = files.number(&format!("{prefix}.usage_in_bytes"))? else { return Ok(None) };
    Ok(Some(MemoryUse {
        usage,
        max_usage: files.number_or_0(&format!("{prefix}.max_usage_in_bytes"))?,
        failcnt: files.number_or_0(&format!("{prefix}.failcnt"))?,
        limit: files.number_or_0(&format!("{prefix}.limit_in_bytes"))?,
    }))
}

pub(super) fn pids(files: &mut Files<'_>) -> Result<Pids, CgroupError> {
    Ok(Pids {
        current: files.number_or_0("pids.current")?,
        limit: files.number("pids.max")?.unwrap_or(u64::MAX),
    })
}

type Table = fn(&mut Io) -> &mut Vec<IoEntry>;

const SERVICE_BYTES: Table = |io| &mut io.service_bytes;
const SERVICED: Table = |io| &mut io.serviced;
const QUEUED: Table = |io| &mut io.queued;
const SERVICE_TIME: Table = |io| &mut io.service_time;
const WAIT_TIME: Table = |io| &mut io.wait_time;
const MERGED: Table = |io| &mut io.merged;
const TIME: Table = |io| &mut io.time;
const SECTORS: Table = |io| &mut io.sectors;

// Which files have figures depends on the scheduler of each device: BFQ with and without CONFIG_BFQ_CGROUP_DEBUG, CFQ
// (until 5.0), or none of them, where only throttling counts. In runc's order; the first group whose first file has a
// line is taken.
const GROUPS: [&[(&str, Table)]; 5] = [
    &[
        ("blkio.bfq.sectors_recursive", SECTORS),
        ("blkio.bfq.io_service_time_recursive", SERVICE_TIME),
        ("blkio.bfq.io_wait_time_recursive", WAIT_TIME),
        ("blkio.bfq.io_merged_recursive", MERGED),
        ("blkio.bfq.io_queued_recursive", QUEUED),
        ("blkio.bfq.time_recursive", TIME),
        ("blkio.bfq.io_serviced_recursive", SERVICED),
        ("blkio.bfq.io_service_bytes_recursive", SERVICE_BYTES),
    ],
    &[("blkio.bfq.io_serviced_recursive", SERVICED), ("blkio.bfq.io_service_bytes_recursive", SERVICE_BYTES)],
    &[
        ("blkio.sectors_recursive", SECTORS),
        ("blkio.io_service_time_recursive", SERVICE_TIME),
        ("blkio.io_wait_time_recursive", WAIT_TIME),
        ("blkio.io_merged_recursive", MERGED),
        ("blkio.io_queued_recursive", QUEUED),
        ("blkio.time_recursive", TIME),
        ("blkio.io_serviced_recursive", SERVICED),
        ("blkio.io_service_bytes_recursive", SERVICE_BYTES),
    ],
    &[
        ("blkio.throttle.io_serviced_recursive", SERVICED),
        ("blkio.throttle.io_service_bytes_recursive", SERVICE_BYTES),
    ],
    &[("blkio.throttle.io_serviced", SERVICED), ("blkio.throttle.io_service_bytes", SERVICE_BYTES)],
];

fn io(files: &mut Files<'_>) -> Result<Io, CgroupError> {
    let mut io = Io::default();
    for group in GROUPS {
        for (index, &(name, table)) in group.iter().enumerate() {
            let entries = match files.text(name)?.map(io_entries) {
                Some(None) => return Err(files.malformed(name, "a line")),
                entries => entries.flatten().unwrap_or_default(),
            };
            if entries.is_empty() && index == 0 {
                break;
            }
            *table(&mut io) = entries;
            if index + 1 == group.len() {
                return Ok(io);
            }
        }
    }
    Ok(io)
}

fn hugetlb(files: &mut Files<'_>, stats: &mut Stats) -> Result<(), CgroupError> {
    for size in page_sizes() {
        // Reservations are what counts since Linux 5.7: they are what can fail.
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            if let Some(usage) = files.number(&format!("{prefix}.usage_in_bytes"))? {
                let use_ = Hugetlb {
                    usage,
                    max_usage: files.number_or_0(&format!("{prefix}.max_usage_in_bytes"))?,
                    failcnt: files.number_or_0(&format!("{prefix}.failcnt"))?,
                    limit: files.number_or_0(&format!("{prefix}.limit_in_bytes"))?,
                };
                stats.hugetlb.insert(size.clone(), use_);
                break;
            }
        }
    }
    Ok(())
}
