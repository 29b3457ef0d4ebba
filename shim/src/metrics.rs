//! Stats, as containerd's Metrics of cgroup v1 and v2: every field that containerd's own shim fills.

use crate::cgroup::Cgroup;
use cofferdam_proto::{Any, Message, cgroups_v1 as v1, cgroups_v2 as v2, type_url};
use std::{collections::HashMap, fs, path::Path};

/// The statistics of a cgroup now, packed for containerd.
///
/// # Errors
/// A sentence when the cgroup is gone.
pub fn collect(cgroup: &Cgroup) -> Result<Any, String> {
    let (url, value) = match cgroup {
        Cgroup::V2(dir) => (type_url::CGROUPS_V2_METRICS, collect_v2(dir)?.write_to_bytes()),
        Cgroup::V1(dirs) => (type_url::CGROUPS_V1_METRICS, collect_v1(dirs).write_to_bytes()),
    };
    let value = value.map_err(|error| error.to_string())?;
    Ok(Any { type_url: url.into(), value, ..Default::default() })
}

/// A file of `key value` lines; what is not there counts 0.
struct Table(HashMap<String, u64>);

impl Table {
    fn read(path: &Path) -> Table {
        Table::parse(&fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(text: &str) -> Table {
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_string(), number(value)?))
        };
        Table(text.lines().filter_map(pair).collect())
    }

    fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// A number as cgroup files have it: `max` is the greatest there is, and a negative one none.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text if text.starts_with('-') => Some(0),
        text => text.parse().ok(),
    }
}

fn file_number(dir: &Path, name: &str) -> u64 {
    fs::read_to_string(dir.join(name)).ok().and_then(|text| number(&text)).unwrap_or(0)
}

/// Sizes of huge pages as cgroup files name them.
fn huge_page_sizes() -> Vec<String> {
    let Ok(dir) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let sizes = dir.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kilobytes {
            1_048_576.. => format!("{}GB", kilobytes >> 20),
            1024.. => format!("{}MB", kilobytes >> 10),
            _ => format!("{kilobytes}KB"),
        })
    });
    sizes.collect()
}

fn collect_v1(dirs: &[(String, std::path::PathBuf)]) -> v1::Metrics {
    let mut metrics = v1::Metrics::default();
    for (controller, dir) in dirs {
        match controller.as_str() {
            "hugetlb" => {
                metrics.hugetlb = huge_page_sizes().iter().map(|size| v1_huge_pages(dir, size)).collect()
            }
            "pids" => metrics.pids = Some(v1_pids(dir)).into(),
            "cpuacct" => v1_cpu(&mut metrics).usage = Some(v1_usage(dir)).into(),
            "cpu" => v1_cpu(&mut metrics).throttling = Some(v1_throttling(dir)).into(),
            "memory" => {
                metrics.memory = Some(v1_memory(dir)).into();
                metrics.memory_oom_control = Some(v1_oom_control(dir)).into();
            }
            "blkio" => metrics.blkio = Some(v1_block_io(dir)).into(),
            "rdma" => {
                let rdma = v1::RdmaStat {
                    current: rdma(&dir.join("rdma.current"), v1_rdma),
                    limit: rdma(&dir.join("rdma.max"), v1_rdma),
                    ..Default::default()
                };
                metrics.rdma = Some(rdma).into();
            }
            _ => {}
        }
    }
    metrics
}

fn v1_cpu(metrics: &mut v1::Metrics) -> &mut v1::CPUStat {
    metrics.cpu.mut_or_insert_default()
}

fn v1_huge_pages(dir: &Path, size: &str) -> v1::HugetlbStat {
    let value = |name: &str| file_number(dir, &format!("hugetlb.{size}.{name}"));
    v1::HugetlbStat {
        usage: value("usage_in_bytes"),
        max: value("max_usage_in_bytes"),
        failcnt: value("failcnt"),
        pagesize: size.into(),
        ..Default::default()
    }
}

fn v1_pids(dir: &Path) -> v1::PidsStat {
    // "max" is told as 0 here, as containerd's cgroup v1 code does.
    let limit = Some(file_number(dir, "pids.max")).filter(|limit| *limit != u64::MAX).unwrap_or(0);
    v1::PidsStat { current: file_number(dir, "pids.current"), limit, ..Default::default() }
}

fn v1_usage(dir: &Path) -> v1::CPUUsage {
    let stat = Table::read(&dir.join("cpuacct.stat"));
    // cpuacct.stat counts in USER_HZ, which is 100 on every Linux.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let per_cpu = fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
    v1::CPUUsage {
        total: file_number(dir, "cpuacct.usage"),
        kernel: stat.get("system") * NANOSECONDS_PER_TICK,
        user: stat.get("user") * NANOSECONDS_PER_TICK,
        per_cpu: per_cpu.split_whitespace().filter_map(number).collect(),
        ..Default::default()
    }
}

fn v1_throttling(dir: &Path) -> v1::Throttle {
    let stat = Table::read(&dir.join("cpu.stat"));
    v1::Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
        ..Default::default()
    }
}

fn v1_memory(dir: &Path) -> v1::MemoryStat {
    let stat = Table::read(&dir.join("memory.stat"));
    let entry = |module: &str| {
        let value = |name: &str| file_number(dir, &format!("memory.{module}{name}"));
        let entry = v1::MemoryEntry {
            limit: value("limit_in_bytes"),
            usage: value("usage_in_bytes"),
            max: value("max_usage_in_bytes"),
            failcnt: value("failcnt"),
            ..Default::default()
        };
        Some(entry).into()
    };
    v1::MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..Default::default()
    }
}

fn v1_oom_control(dir: &Path) -> v1::MemoryOomControl {
    let stat = Table::read(&dir.join("memory.oom_control"));
    v1::MemoryOomControl {
        oom_kill_disable: stat.get("oom_kill_disable"),
        under_oom: stat.get("under_oom"),
        oom_kill: stat.get("oom_kill"),
        ..Default::default()
    }
}

fn v1_block_io(dir: &Path) -> v1::BlkIOStat {
    let devices = devices();
    let entries =
        |name: &str| block_io_entries(&fs::read_to_string(dir.join(name)).unwrap_or_default(), &devices);
    let mut stat = v1::BlkIOStat {
        io_service_bytes_recursive: entries("blkio.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.io_serviced_recursive"),
        io_queued_recursive: entries("blkio.io_queued_recursive"),
        io_service_time_recursive: entries("blkio.io_service_time_recursive"),
        io_wait_time_recursive: entries("blkio.io_wait_time_recursive"),
        io_merged_recursive: entries("blkio.io_merged_recursive"),
        io_time_recursive: entries("blkio.time_recursive"),
        sectors_recursive: entries("blkio.sectors_recursive"),
        ..Default::default()
    };
    // Only CFQ and BFQ fill those above; the throttling layer counts for every scheduler.
    if stat.io_serviced_recursive.is_empty() && stat.io_service_bytes_recursive.is_empty() {
        stat.io_serviced_recursive = entries("blkio.throttle.io_serviced");
        stat.io_service_bytes_recursive = entries("blkio.throttle.io_service_bytes");
    }
    stat
}

/// Names of block devices by their numbers.
fn devices() -> HashMap<(u64, u64), String> {
    let table = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let device = |line: &str| {
        let mut fields = line.split_whitespace();
        let numbers = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((numbers, format!("/dev/{}", fields.nth(1)?)))
    };
    table.lines().skip(2).filter_map(device).collect()
}

/// Lines of `major:minor operation value` or `major:minor value`; the line of the total is left out.
fn block_io_entries(text: &str, devices: &HashMap<(u64, u64), String>) -> Vec<v1::BlkIOEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (first, second) = (fields.next()?, fields.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(v1::BlkIOEntry {
            op: op.into(),
            device: devices.get(&(major, minor)).cloned().unwrap_or_default(),
            major,
            minor,
            value: value.parse().ok()?,
            ..Default::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines of `device hca_handle=N hca_object=N`, N being a number or `max`.
fn rdma<T>(path: &Path, make: impl Fn(&str, u32, u32) -> T) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = |field: Option<&str>, name: &str| {
        let value = field?.strip_prefix(name)?;
        if value == "max" { Some(u32::MAX) } else { value.parse().ok() }
    };
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?;
        Some(make(device, value(fields.next(), "hca_handle=")?, value(fields.next(), "hca_object=")?))
    };
    text.lines().filter_map(entry).collect()
}

fn v1_rdma(device: &str, hca_handles: u32, hca_objects: u32) -> v1::RdmaEntry {
    v1::RdmaEntry { device: device.into(), hca_handles, hca_objects, ..Default::default() }
}

fn v2_rdma(device: &str, hca_handles: u32, hca_objects: u32) -> v2::RdmaEntry {
    v2::RdmaEntry { device: device.into(), hca_handles, hca_objects, ..Default::default() }
}

fn collect_v2(dir: &Path) -> Result<v2::Metrics, String> {
    if !dir.is_dir() {
        return Err(format!("cgroup {} is gone", dir.display()));
    }
    let events = Table::read(&dir.join("memory.events"));
    Ok(v2::Metrics {
        pids: Some(v2::PidsStat {
            current: file_number(dir, "pids.current"),
            limit: file_number(dir, "pids.max"),
            ..Default::default()
        })
        .into(),
        cpu: Some(v2_cpu(dir)).into(),
        memory: Some(v2_memory(dir)).into(),
        memory_events: Some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            ..Default::default()
        })
        .into(),
        io: Some(v2::IOStat {
            usage: io_entries(&fs::read_to_string(dir.join("io.stat")).unwrap_or_default()),
            psi: pressure(&dir.join("io.pressure")).into(),
            ..Default::default()
        })
        .into(),
        rdma: Some(v2::RdmaStat {
            current: rdma(&dir.join("rdma.current"), v2_rdma),
            limit: rdma(&dir.join("rdma.max"), v2_rdma),
            ..Default::default()
        })
        .into(),
        hugetlb: huge_page_sizes().iter().map(|size| v2_huge_pages(dir, size)).collect(),
        ..Default::default()
    })
}

fn v2_huge_pages(dir: &Path, size: &str) -> v2::HugeTlbStat {
    v2::HugeTlbStat {
        current: file_number(dir, &format!("hugetlb.{size}.current")),
        max: file_number(dir, &format!("hugetlb.{size}.max")),
        pagesize: size.into(),
        ..Default::default()
    }
}

fn v2_cpu(dir: &Path) -> v2::CPUStat {
    let stat = Table::read(&dir.join("cpu.stat"));
    v2::CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        psi: pressure(&dir.join("cpu.pressure")).into(),
        ..Default::default()
    }
}

fn v2_memory(dir: &Path) -> v2::MemoryStat {
    let stat = Table::read(&dir.join("memory.stat"));
    v2::MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: file_number(dir, "memory.current"),
        usage_limit: file_number(dir, "memory.max"),
        max_usage: file_number(dir, "memory.peak"),
        swap_usage: file_number(dir, "memory.swap.current"),
        swap_limit: file_number(dir, "memory.swap.max"),
        swap_max_usage: file_number(dir, "memory.swap.peak"),
        psi: pressure(&dir.join("memory.pressure")).into(),
        ..Default::default()
    }
}

/// Lines of `major:minor key=value ...`.
fn io_entries(text: &str) -> Vec<v2::IOEntry> {
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let (major, minor) = fields.next()?.split_once(':')?;
        let mut entry =
            v2::IOEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Default::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// A pressure file; none where the kernel has no PSI or it is switched off.
fn pressure(path: &Path) -> Option<v2::PSIStats> {
    let text = fs::read_to_string(path).ok()?;
    let mut stats = v2::PSIStats::default();
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        let mut data = v2::PSIData::default();
        for (key, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        match kind {
            "some" => stats.some = Some(data).into(),
            "full" => stats.full = Some(data).into(),
            _ => {}
        }
    }
    Some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_numbers_are_read_as_containerd_reads_them() {
        let table = Table::parse("cache 12\nrss -3\nswap max\nbroken\n");
        assert_eq!(
            (table.get("cache"), table.get("rss"), table.get("swap"), table.get("none")),
            (12, 0, u64::MAX, 0)
        );
    }

    #[test]
    fn block_io_lines_lose_their_total() {
        let devices = HashMap::from([((254, 0), "/dev/vda".to_string())]);
        let entries = block_io_entries("254:0 Read 4096\n254:0 Total 4096\n8:0 77\nTotal 8192\n", &devices);
        let brief: Vec<_> =
            entries.iter().map(|e| (e.device.as_str(), e.op.as_str(), e.major, e.value)).collect();
        assert_eq!(
            brief,
            [("/dev/vda", "Read", 254, 4096), ("/dev/vda", "Total", 254, 4096), ("", "", 8, 77)]
        );
    }

    #[test]
    fn io_and_pressure_of_v2_are_read() {
        let entries = io_entries("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\nbroken\n");
        let entry = &entries[0];
        assert_eq!((entries.len(), entry.major, entry.rbytes, entry.wios), (1, 254, 1, 4));
        let path = std::env::temp_dir().join(format!("shim-psi-{}", std::process::id()));
        fs::write(&path, "some avg10=0.50 avg60=0.00 avg300=0.00 total=77\n").unwrap();
        let stats = pressure(&path).unwrap();
        assert_eq!((stats.some.avg10, stats.some.total, stats.full.is_some()), (0.5, 77, false));
        fs::remove_file(path).unwrap();
    }
}
