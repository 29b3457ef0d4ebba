use super::*;
use crate::layout::{Hierarchy, Unified};

fn v1() -> Layout {
    let hierarchy = |name: &str| Hierarchy {
        controllers: vec![name.to_owned()],
        mount_point: format!("/sys/fs/cgroup/{name}"),
        own_path: "/".to_owned(),
    };
    let names = [
        "cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
        "rdma",
    ];
    Layout::V1 { hierarchies: names.map(hierarchy).to_vec() }
}

fn v2() -> Layout {
    Layout::V2(Unified { mount_point: "/sys/fs/cgroup".to_owned(), own_path: "/".to_owned() })
}

fn settings(layout: &Layout, json: &str) -> Result<Settings, Refused> {
    translate(&serde_json::from_str(json).unwrap(), layout, Driver::Fs, false)
}

#[track_caller]
fn lines(layout: &Layout, json: &str) -> Vec<String> {
    let settings = settings(layout, json).unwrap();
    settings
        .writes
        .into_iter()
        .map(|w| {
            let how = match w.how {
                How::Must => String::new(),
                How::IfPresent => " (if present)".to_owned(),
                How::Else { file, value } => format!(" (else {file}: {value})"),
                How::OrAfter { file } => format!(" (or after {file})"),
                How::BeforeIfAbove { file } => format!(" (before {file} if above)"),
                How::KeepFirstWord => " (second word)".to_owned(),
                How::Minus { file } => format!(" (minus {file})"),
                How::Unified => " (unified)".to_owned(),
            };
            format!("{}/{}: {}{how}", w.controller, w.file, w.value)
        })
        .collect()
}

#[track_caller]
fn refused(layout: &Layout, json: &str) -> String {
    settings(layout, json).unwrap_err().to_string().replace("config.json /linux/resources", "")
}

const LIMITS: &str = r#"{"memory":{"limit":67108864,"reservation":33554432,"swap":100663296,"disableOOMKiller":false},
    "cpu":{"quota":50000,"period":100000,"cpus":"0"},"pids":{"limit":77},"blockIO":{}}"#;

#[test]
fn dockers_limits_on_v1() {
    assert_eq!(
        lines(&v1(), LIMITS),
        [
            "cpuset/cpuset.cpus: 0",
            "memory/memory.limit_in_bytes: 67108864",
            "memory/memory.memsw.limit_in_bytes: 100663296 (before memory.limit_in_bytes if above)",
            "memory/memory.soft_limit_in_bytes: 33554432",
            "cpu/cpu.cfs_period_us: 100000 (or after cpu.cfs_quota_us)",
            "cpu/cpu.cfs_quota_us: 50000",
            "pids/pids.max: 77",
        ]
    );
}

#[test]
fn dockers_limits_on_v2() {
    assert_eq!(
        lines(&v2(), LIMITS),
        [
            "cpuset/cpuset.cpus: 0",
            "memory/memory.swap.max: 33554432",
            "memory/memory.max: 67108864",
            "memory/memory.low: 33554432",
            "cpu/cpu.max: 50000 100000",
            "pids/pids.max: 77",
        ]
    );
}

#[test]
fn nothing_asked_nothing_written() {
    for layout in [v1(), v2()] {
        assert_eq!(lines(&layout, "{}"), [""; 0]);
        assert_eq!(
            lines(
                &layout,
                r#"{"memory":{"disableOOMKiller":false},"cpu":{"shares":0,"quota":0},"blockIO":{}}"#
            ),
            [""; 0]
        );
    }
}

#[test]
fn shares_become_weight_on_a_curve_through_the_defaults() {
    for (shares, weight) in [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
    // Computed apart from this code, rounded up.
    for (shares, weight) in [(3, 2), (10, 4), (102, 17), (512, 59), (2048, 174), (4096, 303)] {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
    assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
}

#[test]
fn cpu_on_v1() {
    let json = r#"{"cpu":{"shares":512,"quota":-1,"period":50000,"burst":1000,"idle":1,
                   "realtimeRuntime":950000,"realtimePeriod":1000000,"mems":"0-1"}}"#;
    assert_eq!(
        lines(&v1(), json),
        [
            "cpuset/cpuset.mems: 0-1",
            "cpu/cpu.shares: 512",
            "cpu/cpu.cfs_period_us: 50000 (or after cpu.cfs_quota_us)",
            "cpu/cpu.cfs_burst_us: 1000 (or after cpu.cfs_quota_us)",
            "cpu/cpu.cfs_quota_us: -1",
            "cpu/cpu.idle: 1",
            "cpu/cpu.rt_period_us: 1000000 (or after cpu.rt_runtime_us)",
            "cpu/cpu.rt_runtime_us: 950000",
        ]
    );
    assert_eq!(lines(&v1(), r#"{"cpu":{"period":50000}}"#), ["cpu/cpu.cfs_period_us: 50000"]);
}

#[test]
fn cpu_on_v2() {
    assert_eq!(
        lines(&v2(), r#"{"cpu":{"shares":1024,"quota":-1,"period":50000,"burst":1000,"idle":0}}"#),
        [
            "cpu/cpu.idle: 0",
            "cpu/cpu.weight: 100",
            "cpu/cpu.max.burst: 1000 (or after cpu.max)",
            "cpu/cpu.max: max 50000",
        ]
    );
    assert_eq!(lines(&v2(), r#"{"cpu":{"quota":20000}}"#), ["cpu/cpu.max: 20000"]);
    assert_eq!(lines(&v2(), r#"{"cpu":{"period":20000}}"#), ["cpu/cpu.max: 20000 (second word)"]);
}

#[test]
fn systemd_takes_idle_or_a_weight() {
    for (json, files, warnings) in [
        (r#"{"cpu":{"idle":1,"shares":1024}}"#, vec!["cpu.idle"], 1),
        (r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#, vec!["cpu.idle"], 1),
        (r#"{"cpu":{"idle":1}}"#, vec!["cpu.idle"], 0),
        (r#"{"cpu":{"idle":0,"shares":1024}}"#, vec!["cpu.idle", "cpu.weight"], 0),
        (r#"{"unified":{"cpu.weight":"8"}}"#, vec!["cpu.weight"], 0),
    ] {
        let resources = serde_json::from_str(json).unwrap();
        let by = |driver| translate(&resources, &v2(), driver, false).unwrap();
        let settings = by(Driver::Systemd);
        let written: Vec<_> = settings.writes.iter().map(|write| write.file.as_ref()).collect();
        assert_eq!(written, files, "{json}");
        assert_eq!(settings.warnings.len(), warnings, "{json}");
        assert!(by(Driver::Fs).warnings.is_empty(), "{json}: the kernel's to refuse");
    }
}

#[test]
fn memory_on_v2() {
    let cases: [(&str, &[&str]); 7] = [
        (r#"{"limit":-1}"#, &["memory/memory.swap.max: max (if present)", "memory/memory.max: max"]),
        (r#"{"limit":-1,"swap":5}"#, &["memory/memory.swap.max: 5", "memory/memory.max: max"]),
        (r#"{"limit":5,"swap":5}"#, &["memory/memory.swap.max: 0 (if present)", "memory/memory.max: 5"]),
        (r#"{"limit":5,"swap":-1}"#, &["memory/memory.swap.max: max (if present)", "memory/memory.max: 5"]),
        (r#"{"limit":5}"#, &["memory/memory.max: 5"]),
        (r#"{"swap":5}"#, &["memory/memory.swap.max: 5 (minus memory.max)"]),
        (r#"{"reservation":-1}"#, &["memory/memory.low: max"]),
    ];
    for (json, expected) in cases {
        assert_eq!(lines(&v2(), &format!(r#"{{"memory":{json}}}"#)), expected, "{json}");
    }
}

#[test]
fn memory_on_v1() {
    let cases: [(&str, &[&str]); 4] = [
        (
            r#"{"limit":-1}"#,
            &["memory/memory.memsw.limit_in_bytes: -1 (if present)", "memory/memory.limit_in_bytes: -1"],
        ),
        (r#"{"swap":5}"#, &["memory/memory.memsw.limit_in_bytes: 5"]),
        (
            r#"{"swappiness":0,"disableOOMKiller":true}"#,
            &["memory/memory.oom_control: 1", "memory/memory.swappiness: 0"],
        ),
        (r#"{"swappiness":18446744073709551615}"#, &[]),
    ];
    for (json, expected) in cases {
        assert_eq!(lines(&v1(), &format!(r#"{{"memory":{json}}}"#)), expected, "{json}");
    }
}

#[test]
fn check_before_update_travels_along() {
    let settings = settings(&v2(), r#"{"memory":{"limit":5,"checkBeforeUpdate":true}}"#).unwrap();
    assert_eq!(settings.above_usage, Some(AboveUsage { memory: 5, memory_swap: 0 }));
}

#[test]
fn kernel_memory_is_ignored_with_a_warning() {
    let settings = settings(&v1(), r#"{"memory":{"kernel":5}}"#).unwrap();
    assert_eq!(settings.writes, []);
    assert_eq!(settings.warnings, ["kernel memory limits are ignored: Linux has dropped them"]);
}

#[test]
fn pids_limit() {
    assert_eq!(lines(&v2(), r#"{"pids":{"limit":-1}}"#), ["pids/pids.max: max"]);
    assert_eq!(lines(&v1(), r#"{"pids":{"limit":0}}"#), ["pids/pids.max: 1"]);
}

const IO: &str = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":600}],
    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}],
    "throttleReadIOPSDevice":[{"major":8,"minor":16,"rate":7}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":8}]}}"#;

#[test]
fn block_io_on_v1() {
    assert_eq!(
        lines(&v1(), IO),
        [
            "blkio/blkio.bfq.weight: 500 (else blkio.weight: 500)",
            "blkio/blkio.bfq.weight_device: 8:0 600 (else blkio.weight_device: 8:0 600)",
            "blkio/blkio.throttle.read_bps_device: 8:0 1000",
            "blkio/blkio.throttle.write_bps_device: 8:0 0",
            "blkio/blkio.throttle.read_iops_device: 8:16 7",
            "blkio/blkio.throttle.write_iops_device: 8:0 8",
        ]
    );
    assert_eq!(
        lines(
            &v1(),
            r#"{"blockIO":{"leafWeight":20,"weightDevice":[{"major":8,"minor":0,"leafWeight":30}]}}"#
        ),
        ["blkio/blkio.leaf_weight: 20", "blkio/blkio.leaf_weight_device: 8:0 30"]
    );
}

#[test]
fn block_io_on_v2() {
    assert_eq!(
        lines(&v2(), IO),
        [
            "io/io.bfq.weight: 500 (else io.weight: 4950)",
            "io/io.bfq.weight: 8:0 600 (if present)",
            "io/io.max: 8:0 rbps=1000",
            "io/io.max: 8:0 wbps=max",
            "io/io.max: 8:16 riops=7",
            "io/io.max: 8:0 wiops=8",
        ]
    );
}

#[test]
fn hugepages_limit_use_and_reservation() {
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    assert_eq!(
        lines(&v1(), json),
        [
            "hugetlb/hugetlb.2MB.limit_in_bytes: 4194304",
            "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes: 4194304 (if present)",
        ]
    );
    assert_eq!(
        lines(&v2(), json),
        ["hugetlb/hugetlb.2MB.max: 4194304", "hugetlb/hugetlb.2MB.rsvd.max: 4194304 (if present)"]
    );
}

#[test]
fn network_and_rdma_on_v1() {
    let json = r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]},
                   "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4_0":{"hcaObjects":1}}}"#;
    assert_eq!(
        lines(&v1(), json),
        [
            "net_cls/net_cls.classid: 1048577",
            "net_prio/net_prio.ifpriomap: eth0 5",
            "rdma/rdma.max: mlx4_0 hca_object=1",
            "rdma/rdma.max: mlx5_1 hca_handle=3 hca_object=10000",
        ]
    );
}

#[test]
fn unified_comes_last_and_sorted() {
    let json = r#"{"unified":{"memory.high":"9","cpu.weight":"5","io.max":"8:0 rbps=1\n8:16 rbps=2"},"pids":{"limit":3}}"#;
    assert_eq!(
        lines(&v2(), json),
        [
            "pids/pids.max: 3",
            "cpu/cpu.weight: 5 (unified)",
            "io/io.max: 8:0 rbps=1\n8:16 rbps=2 (unified)",
            "memory/memory.high: 9 (unified)",
        ]
    );
}

#[test]
fn without_a_driver_there_are_no_limits() {
    let disabled =
        |json: &str| translate(&serde_json::from_str(json).unwrap(), &v2(), Driver::Disabled, true);
    // Engines always send the rule for devices, and empty objects.
    for json in ["{}", r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{},"cpu":{},"blockIO":{}}"#] {
        assert_eq!(disabled(json).unwrap(), Settings::default());
    }
    for (json, property) in [
        (r#"{"memory":{"limit":1048576}}"#, "memory"),
        (r#"{"cpu":{"shares":2}}"#, "cpu"),
        (r#"{"pids":{"limit":5}}"#, "pids"),
        (r#"{"blockIO":{"weight":10}}"#, "blockIO"),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#, "hugepageLimits"),
        (r#"{"network":{"classID":1}}"#, "network"),
        (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "rdma"),
        (r#"{"unified":{"memory.high":"1"}}"#, "unified"),
    ] {
        let want = "cannot set limits without cgroups (--cgroup-manager disabled)";
        let refusal = disabled(json).unwrap_err().to_string();
        assert_eq!(refusal, format!("config.json /linux/resources/{property}: {want}"));
    }
}

#[test]
fn what_v2_cannot_do_is_refused() {
    for (json, message) in [
        (r#"{"memory":{"swappiness":60}}"#, "/memory/swappiness: cgroup v2 has no swappiness"),
        (
            r#"{"memory":{"disableOOMKiller":true}}"#,
            "/memory/disableOOMKiller: cgroup v2 cannot disable the OOM killer",
        ),
        (r#"{"cpu":{"realtimeRuntime":1}}"#, "/cpu/realtimeRuntime: cgroup v2 has no real-time CPU limits"),
        (r#"{"cpu":{"realtimePeriod":1}}"#, "/cpu/realtimePeriod: cgroup v2 has no real-time CPU limits"),
        (r#"{"blockIO":{"leafWeight":10}}"#, "/blockIO/leafWeight: cgroup v2 has no leaf weights"),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]}}"#,
            "/blockIO/weightDevice/0/leafWeight: cgroup v2 has no leaf weights",
        ),
        (r#"{"network":{"classID":1}}"#, "/network/classID: cgroup v2 has no net_cls controller"),
        (
            r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#,
            "/network/priorities: cgroup v2 has no net_prio controller",
        ),
    ] {
        assert_eq!(refused(&v2(), json).trim_start_matches("config.json "), message);
    }
}

#[test]
fn what_v1_cannot_do_is_refused() {
    for (json, message) in [
        (
            r#"{"unified":{"memory.high":"1"}}"#,
            "/unified: invalid configuration: cannot use unified on cgroup v1",
        ),
        (r#"{"cpu":{"shares":1}}"#, "/cpu/shares: the minimum allowed cpu-shares is 2"),
        (r#"{"cpu":{"shares":262145}}"#, "/cpu/shares: the maximum allowed cpu-shares is 262144"),
        (
            r#"{"memory":{"swappiness":101}}"#,
            "/memory/swappiness: 101 is outside of the valid range 0 to 100",
        ),
    ] {
        assert_eq!(refused(&v1(), json), message);
    }
}

#[test]
fn nonsense_is_refused_everywhere() {
    for (json, message) in [
        (
            r#"{"memory":{"limit":-2}}"#,
            "/memory/limit: -2 is no limit: -1 means unlimited, and nothing is below that",
        ),
        (
            r#"{"memory":{"limit":10,"swap":5}}"#,
            "/memory/swap: memory+swap limit 5 should be >= memory limit 10",
        ),
        (r#"{"cpu":{"idle":2}}"#, "/cpu/idle: 2 is neither 0 nor 1"),
        (r#"{"cpu":{"cpus":"0-"}}"#, "/cpu/cpus: \"0-\" is no list of numbers and ranges: \"0-\""),
        (r#"{"blockIO":{"weight":5}}"#, "/blockIO/weight: 5 is outside of the valid range 10 to 1000"),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
            "/blockIO/throttleReadBpsDevice/0: -1:0 is no device number",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
            "/hugepageLimits/0/pageSize: \"../2MB\" is no page size: expected a number and KB, MB or GB",
        ),
    ] {
        for layout in [v1(), v2()] {
            assert_eq!(refused(&layout, json), message);
        }
    }
}

#[test]
fn malformed_unified_keys_are_refused() {
    for (key, message) in [
        ("a/b.c", "/unified/a~1b.c: unified resource \"a/b.c\" must be a file name (no slashes)"),
        ("memory", "/unified/memory: unified resource \"memory\" must be in the form CONTROLLER.PARAMETER"),
        (".max", "/unified/.max: unified resource \".max\" must be in the form CONTROLLER.PARAMETER"),
        ("..", "/unified/..: unified resource \"..\" must be in the form CONTROLLER.PARAMETER"),
    ] {
        assert_eq!(refused(&v2(), &format!(r#"{{"unified":{{"{key}":"1"}}}}"#)), message);
    }
}

#[test]
fn a_limit_without_its_v1_hierarchy_is_refused() {
    let bare = Layout::V1 { hierarchies: Vec::new() };
    for (json, message) in [
        (
            r#"{"pids":{"limit":1}}"#,
            "/pids/limit: no cgroup v1 hierarchy of this host has the pids controller",
        ),
        (r#"{"cpu":{"shares":5}}"#, "/cpu: no cgroup v1 hierarchy of this host has the cpu controller"),
        (
            r#"{"cpu":{"cpus":"0"}}"#,
            "/cpu/cpus: no cgroup v1 hierarchy of this host has the cpuset controller",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
            "/hugepageLimits/0: no cgroup v1 hierarchy of this host has the hugetlb controller",
        ),
    ] {
        assert_eq!(refused(&bare, json), message);
    }
}

#[test]
fn settings_survive_json_and_stay_short() {
    let resources = serde_json::from_str(LIMITS).unwrap();
    let settings = translate(&resources, &v2(), Driver::Systemd, true).unwrap();
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
    assert!(json.contains(r#"{"controller":"pids","file":"pids.max","value":"77"}"#), "{json}");
}
