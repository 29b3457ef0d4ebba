//! A line of `events`, as runc prints it (its `types/events.go`): go-runc and what stands on it parse this.
//!
//! Zeroes are left out where runc leaves them out, and where it does not, they stand.

use cofferdam_cgroup::stats::{self, Stats};
use serde::Serialize;
use std::collections::BTreeMap;

/// One event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

impl Event<'_> {
    /// What a container has used.
    pub fn stats<'a>(id: &'a str, stats: &Stats) -> Event<'a> {
        Event { kind: "stats", id, data: Some(Data::of(stats)) }
    }

    /// A process of a container was killed because memory ran out.
    pub fn oom(id: &str) -> Event<'_> {
        Event { kind: "oom", id, data: None }
    }
}

#[derive(Debug, Default, Serialize)]
struct Data {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: IntelRdt,
    /// runc fills this for networks of libcontainer's own alone, which config.json cannot ask for.
    network_interfaces: Option<()>,
}

const fn zero(number: &u64) -> bool {
    *number == 0
}

fn zero_float(number: &f64) -> bool {
    *number == 0.0
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct Psi {
    some: Pressure,
    full: Pressure,
}

#[derive(Debug, Default, Serialize)]
struct Pressure {
    #[serde(skip_serializing_if = "zero_float")]
    avg10: f64,
    #[serde(skip_serializing_if = "zero_float")]
    avg60: f64,
    #[serde(skip_serializing_if = "zero_float")]
    avg300: f64,
    #[serde(skip_serializing_if = "zero")]
    total: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u32>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u32>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
    event_count: EventCount,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct EventCount {
    #[serde(skip_serializing_if = "zero")]
    low: u64,
    #[serde(skip_serializing_if = "zero")]
    high: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    #[serde(skip_serializing_if = "zero")]
    oom: u64,
    #[serde(skip_serializing_if = "zero")]
    oom_kill: u64,
    #[serde(skip_serializing_if = "zero")]
    oom_group_kill: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    /// Left out for no limit.
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct IntelRdt {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<MbmStats>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<CmtStats>>,
}

#[derive(Debug, Default, Serialize)]
struct L3CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "zero")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "zero")]
    num_closids: u64,
}

#[derive(Debug, Default, Serialize)]
struct MemBwInfo {
    #[serde(skip_serializing_if = "zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "zero")]
    num_closids: u64,
}

#[derive(Debug, Default, Serialize)]
struct MbmStats {
    #[serde(skip_serializing_if = "zero")]
    mbm_total_bytes: u64,
    #[serde(skip_serializing_if = "zero")]
    mbm_local_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
struct CmtStats {
    #[serde(skip_serializing_if = "zero")]
    llc_occupancy: u64,
}

impl Data {
    fn of(stats: &Stats) -> Data {
        let hugetlb = stats.hugetlb.iter().map(|(size, pages)| {
            (size.clone(), Hugetlb { usage: pages.usage, max: pages.max_usage, failcnt: pages.failcnt })
        });
        Data {
            cpu: stats.cpu.as_ref().map(Cpu::of).unwrap_or_default(),
            cpuset: stats.cpuset.as_ref().map(Cpuset::of).unwrap_or_default(),
            memory: stats.memory.as_ref().map(Memory::of).unwrap_or_default(),
            pids: stats.pids.as_ref().map(Pids::of).unwrap_or_default(),
            blkio: stats.io.as_ref().map(Blkio::of).unwrap_or_default(),
            hugetlb: hugetlb.collect(),
            intel_rdt: stats.intel_rdt.as_ref().map(IntelRdt::of).unwrap_or_default(),
            network_interfaces: None,
        }
    }
}

impl Cpu {
    fn of(cpu: &stats::Cpu) -> Cpu {
        let each = |time: fn(&stats::PerCpu) -> u64| cpu.per_cpu.iter().map(time).collect();
        Cpu {
            usage: CpuUsage {
                total: cpu.total,
                percpu: each(|one| one.total),
                percpu_kernel: each(|one| one.kernel),
                percpu_user: each(|one| one.user),
                kernel: cpu.kernel,
                user: cpu.user,
            },
            throttling: Throttling {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled,
            },
            psi: cpu.psi.map(Psi::of),
        }
    }
}

impl Psi {
    fn of(psi: stats::Psi) -> Psi {
        let line = |line: stats::Pressure| Pressure {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total,
        };
        Psi { some: line(psi.some), full: line(psi.full) }
    }
}

impl Cpuset {
    fn of(set: &stats::Cpuset) -> Cpuset {
        Cpuset {
            cpus: set.cpus.clone(),
            cpu_exclusive: set.cpu_exclusive,
            mems: set.mems.clone(),
            mem_hardwall: set.mem_hardwall,
            mem_exclusive: set.mem_exclusive,
            memory_migrate: set.memory_migrate,
            memory_spread_page: set.memory_spread_page,
            memory_spread_slab: set.memory_spread_slab,
            memory_pressure: set.memory_pressure,
            sched_load_balance: set.sched_load_balance,
            sched_relax_domain_level: set.sched_relax_domain_level,
        }
    }
}

impl Memory {
    fn of(memory: &stats::Memory) -> Memory {
        let entry = |kind: stats::MemoryUse| MemoryEntry {
            limit: kind.limit,
            usage: kind.usage,
            max: kind.max_usage,
            failcnt: kind.failcnt,
        };
        let events = memory.events.unwrap_or_default();
        Memory {
            cache: memory.cache(),
            usage: entry(memory.memory),
            swap: entry(memory.memory_and_swap()),
            kernel: entry(memory.kernel.unwrap_or_default()),
            kernel_tcp: entry(memory.kernel_tcp.unwrap_or_default()),
            raw: memory.stat.clone(),
            psi: memory.psi.map(Psi::of),
            event_count: EventCount {
                low: events.low,
                high: events.high,
                max: events.max,
                oom: events.oom,
                oom_kill: events.oom_kill,
                oom_group_kill: events.oom_group_kill,
            },
        }
    }
}

impl Pids {
    fn of(pids: &stats::Pids) -> Pids {
        Pids { current: pids.current, limit: if pids.limit == u64::MAX { 0 } else { pids.limit } }
    }
}

impl Blkio {
    fn of(io: &stats::Io) -> Blkio {
        let table = |entries: &[stats::IoEntry]| {
            let entry = |entry: &stats::IoEntry| BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: entry.op.clone(),
                value: entry.value,
            };
            entries.iter().map(entry).collect()
        };
        Blkio {
            io_service_bytes_recursive: table(&io.service_bytes),
            io_serviced_recursive: table(&io.serviced),
            io_queued_recursive: table(&io.queued),
            io_service_time_recursive: table(&io.service_time),
            io_wait_time_recursive: table(&io.wait_time),
            io_merged_recursive: table(&io.merged),
            io_time_recursive: table(&io.time),
            sectors_recursive: table(&io.sectors),
            psi: io.psi.map(Psi::of),
        }
    }
}

impl IntelRdt {
    fn of(rdt: &stats::IntelRdt) -> IntelRdt {
        let (l3, bandwidth) = (rdt.l3.as_ref(), rdt.memory_bandwidth.as_ref());
        let counts = |counts: &Vec<stats::BandwidthCount>| {
            let count = |count: &stats::BandwidthCount| MbmStats {
                mbm_total_bytes: count.total,
                mbm_local_bytes: count.local,
            };
            counts.iter().map(count).collect()
        };
        let occupancy =
            |caches: &Vec<u64>| caches.iter().map(|&llc_occupancy| CmtStats { llc_occupancy }).collect();
        IntelRdt {
            l3_cache_info: l3.map(|l3| L3CacheInfo {
                cbm_mask: l3.cbm_mask.clone(),
                min_cbm_bits: l3.min_cbm_bits,
                num_closids: l3.num_closids,
            }),
            l3_cache_schema_root: l3.map(|l3| l3.schema_root.clone()).unwrap_or_default(),
            l3_cache_schema: l3.map(|l3| l3.schema.clone()).unwrap_or_default(),
            mem_bw_info: bandwidth.map(|bandwidth| MemBwInfo {
                bandwidth_gran: bandwidth.bandwidth_gran,
                delay_linear: bandwidth.delay_linear,
                min_bandwidth: bandwidth.min_bandwidth,
                num_closids: bandwidth.num_closids,
            }),
            mem_bw_schema_root: bandwidth.map(|one| one.schema_root.clone()).unwrap_or_default(),
            mem_bw_schema: bandwidth.map(|one| one.schema.clone()).unwrap_or_default(),
            mbm_stats: rdt.bandwidth_counts.as_ref().map(counts),
            cmt_stats: rdt.occupancy.as_ref().map(occupancy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_have_runcs_shape() {
        let mut stats = Stats {
            cpu: Some(stats::Cpu {
                total: 3,
                user: 1,
                kernel: 2,
                per_cpu: vec![stats::PerCpu { total: 3, user: 1, kernel: 2 }],
                throttled_periods: 4,
                ..Default::default()
            }),
            pids: Some(stats::Pids { current: 1, limit: u64::MAX }),
            memory: Some(stats::Memory {
                v2: true,
                stat: BTreeMap::from([("file".into(), 9)]),
                memory: stats::MemoryUse { usage: 10, limit: 100, ..Default::default() },
                swap: Some(stats::MemoryUse { usage: 5, limit: 50, ..Default::default() }),
                psi: Some(stats::Psi {
                    some: stats::Pressure { avg10: 0.5, total: 7, ..Default::default() },
                    ..Default::default()
                }),
                events: Some(stats::MemoryEvents { oom_kill: 1, ..Default::default() }),
                ..Default::default()
            }),
            io: Some(stats::Io {
                queued: vec![stats::IoEntry { major: 8, op: "Read".into(), value: 6, ..Default::default() }],
                ..Default::default()
            }),
            ..Stats::default()
        };
        stats.hugetlb.insert("2MB".into(), Default::default());
        let value = serde_json::to_value(Event::stats("web", &stats)).unwrap();
        assert_eq!((&value["type"], &value["id"]), (&"stats".into(), &"web".into()));
        let data = &value["data"];
        for (pointer, want) in [
            (
                "/cpu/usage",
                r#"{"total":3,"percpu":[3],"percpu_kernel":[2],"percpu_user":[1],"kernel":2,"user":1}"#,
            ),
            ("/cpu/throttling", r#"{"throttledPeriods":4}"#),
            ("/memory/cache", "9"),
            ("/memory/usage", r#"{"limit":100,"usage":10,"failcnt":0}"#),
            ("/memory/swap", r#"{"limit":150,"usage":15,"failcnt":0}"#),
            ("/memory/kernelTCP", r#"{"limit":0,"failcnt":0}"#),
            ("/memory/psi", r#"{"some":{"avg10":0.5,"total":7},"full":{}}"#),
            ("/memory/event_count", r#"{"oom_kill":1}"#),
            ("/pids", r#"{"current":1}"#),
            ("/blkio", r#"{"ioQueueRecursive":[{"major":8,"op":"Read","value":6}]}"#),
            ("/hugetlb", r#"{"2MB":{"failcnt":0}}"#),
            ("/intel_rdt", "{}"),
            ("/network_interfaces", "null"),
        ] {
            let want: serde_json::Value = serde_json::from_str(want).unwrap();
            assert_eq!(data.pointer(pointer), Some(&want), "{pointer}");
        }
        assert!(data["cpu"].get("psi").is_none());
    }

    #[test]
    fn caches_and_bandwidth_have_runcs_shape() {
        let rdt = stats::IntelRdt {
            l3: Some(stats::L3Cache {
                cbm_mask: "fffff".into(),
                min_cbm_bits: 1,
                num_closids: 16,
                schema_root: "L3:0=fffff".into(),
                schema: "L3:0=f".into(),
            }),
            memory_bandwidth: Some(stats::MemoryBandwidth {
                bandwidth_gran: 10,
                min_bandwidth: 10,
                num_closids: 8,
                schema: "MB:0=20".into(),
                ..Default::default()
            }),
            bandwidth_counts: Some(vec![stats::BandwidthCount { total: 9, local: 0 }]),
            occupancy: Some(vec![4096]),
        };
        let stats = Stats { intel_rdt: Some(rdt), ..Stats::default() };
        let value = serde_json::to_value(Event::stats("web", &stats)).unwrap();
        let want = serde_json::json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff",
            "l3_cache_schema": "L3:0=f",
            "mem_bw_info": {"bandwidth_gran": 10, "min_bandwidth": 10, "num_closids": 8},
            "mem_bw_schema": "MB:0=20",
            "mbm_stats": [{"mbm_total_bytes": 9}],
            "cmt_stats": [{"llc_occupancy": 4096}]
        });
        assert_eq!(value["data"]["intel_rdt"], want);
    }

    #[test]
    fn an_oom_has_no_data() {
        assert_eq!(serde_json::to_string(&Event::oom("web")).unwrap(), r#"{"type":"oom","id":"web"}"#);
    }
}
