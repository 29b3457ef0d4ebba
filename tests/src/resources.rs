//! config-linux.md, the rare limits of `linux.resources`, and what else of a processor's or a machine's parts a container is given:
//! memory policy, personality, Intel RDT. What the kernel has is looked up in the cgroup's files; what it lacks is refused by the
//! property's name.

use crate::cgroups::{assert_value, limited};
use crate::harness::{Container, Need, T, Test, cgroups, procs};
use crate::{below, test};
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub const TESTS: &[Test] = &[
    test!(a_limit_without_its_hierarchy_names_its_property).needs(&[Need::CgroupV1, OURS]),
    test!(what_only_v1_has_names_its_property_on_v2).needs(&[Need::CgroupV2, OURS]),
    test!(a_limit_that_is_not_taken_names_its_property).needs(&[Need::Controller("cpu"), OURS]),
    test!(real_time_is_given_or_its_property_named).needs(&[Need::CgroupV1, OURS]),
    test!(swappiness_is_the_configs).needs(&[Need::CgroupV1, Need::Controller("memory")]),
    test!(the_oom_killer_can_be_switched_off).needs(&[Need::CgroupV1, Need::Controller("memory")]),
    test!(kernel_memory_is_ignored_and_said).needs(&[Need::Controller("memory")]),
    test!(a_hierarchy_needs_no_asking).needs(&[Need::Controller("memory")]),
    test!(a_limit_below_the_usage_is_rejected_if_asked).needs(&[
        Need::CgroupV2,
        Need::Controller("memory"),
        Need::Runc("1.2", "memory.checkBeforeUpdate"),
    ]),
    test!(the_nodes_of_memory_are_the_configs).needs(&[Need::Controller("cpuset")]),
    test!(a_node_that_is_not_there_is_an_error).needs(&[Need::Controller("cpuset"), OURS]),
    test!(a_weight_is_set_or_its_property_named).needs(&[OURS]),
    test!(a_devices_weight_is_set_or_its_property_named).needs(&[Need::File("/dev/vda"), OURS]),
    test!(leaf_weights_are_set_or_their_property_named).needs(&[Need::CgroupV1, OURS]),
    test!(a_throttle_of_no_device_names_its_property).needs(&[OURS]),
    test!(a_throttle_can_be_lifted)
        .needs(&[Need::File("/dev/vda")])
        .runc_fails(below!("1.2", "takes a rate of nothing for no change")),
    test!(huge_pages_are_limited).needs(&[Need::CgroupV2, Need::Controller("hugetlb")]),
    test!(a_page_size_that_is_none_is_refused).needs(&[OURS]),
    test!(an_rdma_device_that_is_not_there_is_an_error).needs(&[
        Need::CgroupV2,
        Need::Controller("rdma"),
        OURS,
    ]),
    test!(classes_and_priorities_of_the_network).needs(&[
        Need::CgroupV1,
        Need::CgroupFs,
        Need::Ours("runc looks for hierarchies below /sys/fs/cgroup alone"),
    ]),
    test!(every_unified_value_is_written_last).needs(&[Need::CgroupV2, Need::Controller("memory")]),
    test!(the_memory_policy_is_the_configs).needs(&[Need::File("/proc/self/numa_maps"), NEW_POLICY]),
    test!(an_unknown_memory_policy_is_refused).needs(&[NEW_POLICY]),
    test!(the_personality_is_the_hosts_or_32_bit).needs(&[Need::Runc("1.2", "linux.personality")]),
    test!(intel_rdt_without_its_file_system_is_an_error).needs(&[OURS]),
    test!(update_by_every_flag),
    test!(update_of_the_weight_of_block_io),
    test!(update_of_the_period_of_real_time).needs(&[Need::CgroupV1, Need::Controller("cpu")]),
    test!(update_says_which_limit_it_cannot_set).needs(&[OURS]),
];

const OURS: Need = Need::Ours("the message is");
const NEW_POLICY: Need = Need::Runc("1.4", "linux.memoryPolicy");

/// The error of a container with these resources, of which nothing may be left.
fn refusal(t: &T, resources: Value) -> String {
    t.refused(&t.bundle().with(json!({"linux": {"resources": resources}})))
}

fn a_limit_without_its_hierarchy_names_its_property(t: &T) {
    let mut seen = 0;
    for (controller, resources, property) in [
        ("hugetlb", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}), "hugepageLimits/0"),
        ("net_cls", json!({"network": {"classID": 1_048_577}}), "network/classID"),
        (
            "net_prio",
            json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
            "network/priorities",
        ),
        ("rdma", json!({"rdma": {"mlx5_0": {"hcaHandles": 3}}}), "rdma"),
    ] {
        if t.host.has_controller(controller) {
            continue;
        }
        seen += 1;
        assert_eq!(
            refusal(t, resources),
            format!(
                "config.json /linux/resources/{property}: no cgroup v1 hierarchy of this host has the {controller} controller"
            )
        );
    }
    if seen == 0 {
        t.skip("every controller has a hierarchy");
    }
}

fn what_only_v1_has_names_its_property_on_v2(t: &T) {
    for (resources, property) in [
        (json!({"network": {"classID": 1}}), "network/classID"),
        (json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}), "network/priorities"),
        (json!({"memory": {"swappiness": 10}}), "memory/swappiness"),
        (json!({"memory": {"disableOOMKiller": true}}), "memory/disableOOMKiller"),
        (json!({"cpu": {"realtimeRuntime": 1000}}), "cpu/realtimeRuntime"),
        (json!({"cpu": {"realtimePeriod": 1000}}), "cpu/realtimePeriod"),
        (json!({"blockIO": {"leafWeight": 10}}), "blockIO/leafWeight"),
    ] {
        let message = refusal(t, resources);
        assert!(
            message.starts_with(&format!("config.json /linux/resources/{property}: cgroup v2 ")),
            "{message}"
        );
    }
}

fn a_limit_that_is_not_taken_names_its_property(t: &T) {
    let message = refusal(t, json!({"cpu": {"quota": 5, "period": 50_000}}));
    assert!(message.contains("config.json /linux/resources/cpu/quota: "), "{message}");
    assert!(message.ends_with("invalid argument"), "{message}");
    let message = refusal(t, json!({"cpu": {"cpus": "5000"}}));
    assert!(message.contains("config.json /linux/resources/cpu/cpus: "), "{message}");
}

/// Asserts that a container with these resources either has the value in its cgroup, or is refused by the property's name:
/// because the kernel has no such file, or can do it for another kind of device only.
fn set_or_named(t: &T, resources: Value, property: &str, files: &[(&str, &str, &str)]) {
    let bundle = t.bundle().args(&["sleep", "1000"]).with(json!({"linux": {"resources": resources}}));
    let container = t.container(&bundle);
    let out = container.create();
    if out.code == Some(0) {
        let found = files.iter().find_map(|(controller, file, want)| {
            let dir = container.cgroup_dir(if t.host.cgroup_v2 { "" } else { controller });
            let text = fs::read_to_string(dir.join(file)).ok()?;
            Some((text, *want))
        });
        let (text, want) = found.unwrap_or_else(|| panic!("none of {files:?} is there for {property}"));
        assert!(text.lines().any(|line| line.trim() == want), "{property}: {text:?} and not {want:?}");
        container.force_delete();
        return;
    }
    let message = out.message();
    let named = format!("config.json /linux/resources/{property}: ");
    assert!(message.contains(&named), "{message}");
    let has_none = message.contains(&format!("{named}this kernel has no "));
    assert!(
        has_none && message.ends_with("no such file or directory")
            || message.ends_with("operation not supported"),
        "{message}"
    );
    t.nothing_is_left(&container);
}

fn real_time_is_given_or_its_property_named(t: &T) {
    // A cgroup can only hand down what it has: those above the container's get some.
    let top = t.host.hierarchies["cpu"].clone();
    let mut above: Vec<_> =
        Path::new(&t.cgroup[1..]).ancestors().filter(|path| path.iter().count() > 0).collect();
    above.reverse();
    for dir in above {
        fs::create_dir_all(top.join(dir)).expect("mkdir");
        let file = top.join(dir).join("cpu.rt_runtime_us");
        if file.exists() {
            fs::write(&file, "20000").expect("real time for the tests");
        }
    }
    let resources = json!({"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 900_000}});
    set_or_named(t, resources.clone(), "cpu/realtimePeriod", &[("cpu", "cpu.rt_period_us", "900000")]);
    set_or_named(t, resources, "cpu/realtimePeriod", &[("cpu", "cpu.rt_runtime_us", "5000")]);
    if top.join("cpu.rt_runtime_us").exists() {
        let message = refusal(t, json!({"cpu": {"realtimeRuntime": 900_000}}));
        assert!(message.contains("config.json /linux/resources/cpu/realtimeRuntime: "), "{message}");
        assert!(message.ends_with("invalid argument"), "{message}");
    }
}

fn swappiness_is_the_configs(t: &T) {
    let container = limited(t, json!({"memory": {"swappiness": 30}}));
    assert_eq!(container.cgroup_value("memory", "memory.swappiness"), "30");
    container.force_delete();
    if t.is_ours() {
        let message = refusal(t, json!({"memory": {"swappiness": 101}}));
        let want =
            "config.json /linux/resources/memory/swappiness: 101 is outside of the valid range 0 to 100";
        assert_eq!(message, want);
    }
}

fn the_oom_killer_can_be_switched_off(t: &T) {
    for (off, line) in [(true, "oom_kill_disable 1"), (false, "oom_kill_disable 0")] {
        let container = limited(t, json!({"memory": {"disableOOMKiller": off}}));
        let text = container.cgroup_value("memory", "memory.oom_control");
        assert!(text.lines().any(|found| found == line), "{text}");
        container.force_delete();
    }
}

fn kernel_memory_is_ignored_and_said(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let limits = json!({"memory": {"kernel": 1_048_576, "kernelTCP": 1_048_576}});
    let container = t.container(&bundle.with(json!({"linux": {"resources": limits}})));
    let out = container.create().ok();
    if t.is_ours() {
        let said = out.warnings();
        assert!(said.iter().any(|text| text.contains("kernel memory limits are ignored")), "{said:?}");
    }
    container.force_delete();
}

fn a_hierarchy_needs_no_asking(t: &T) {
    // Since Linux 5.11 every v1 cgroup counts what is below it, and every v2 one always has.
    let container = limited(t, json!({"memory": {"useHierarchy": true, "limit": 41_943_040}}));
    assert_value(t, &container, ("memory", "memory.use_hierarchy", "1"), ("", ""));
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "41943040"), ("memory.max", "41943040"));
    container.force_delete();
}

fn a_limit_below_the_usage_is_rejected_if_asked(t: &T) {
    let container = limited(t, json!({"memory": {"limit": 104_857_600}}));
    let lower = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string();
    let out = container.verb(&["update", "--resources=-"]).input(&lower).run().fails();
    assert!(out.message().contains("rejecting memory limit 4096 <= usage "), "{}", out.message());
    assert_eq!(container.cgroup_value("", "memory.max"), "104857600");
    assert_eq!(container.exec_sh("echo in"), "in\n");
    container.force_delete();
}

fn the_nodes_of_memory_are_the_configs(t: &T) {
    let container = limited(t, json!({"cpu": {"mems": "0"}}));
    assert_value(t, &container, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0"));
    let allowed = container.exec_sh("grep Mems_allowed_list /proc/1/status");
    assert_eq!(allowed.split_whitespace().last(), Some("0"), "{allowed}");
    container.force_delete();
}

fn a_node_that_is_not_there_is_an_error(t: &T) {
    let message = refusal(t, json!({"cpu": {"mems": "900"}}));
    assert!(message.contains("config.json /linux/resources/cpu/mems: "), "{message}");
}

fn a_weight_is_set_or_its_property_named(t: &T) {
    let files = if t.host.cgroup_v2 {
        [("io", "io.bfq.weight", "default 500"), ("io", "io.weight", "default 4950")]
    } else {
        [("blkio", "blkio.bfq.weight", "500"), ("blkio", "blkio.weight", "500")]
    };
    set_or_named(t, json!({"blockIO": {"weight": 500}}), "blockIO/weight", &files);
    for weight in [9, 1001] {
        let message = refusal(t, json!({"blockIO": {"weight": weight}}));
        let want = format!("{weight} is outside of the valid range 10 to 1000");
        assert_eq!(message, format!("config.json /linux/resources/blockIO/weight: {want}"));
    }
}

/// Major and minor number of the machine's disk.
fn disk() -> (u64, u64) {
    let device = fs::metadata("/dev/vda").expect("the disk").rdev();
    (nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

fn a_devices_weight_is_set_or_its_property_named(t: &T) {
    let (major, minor) = disk();
    let resources = json!({"blockIO": {"weightDevice": [{"major": major, "minor": minor, "weight": 300}]}});
    if !t.host.cgroup_v2 {
        let want = format!("{major}:{minor} 300");
        let files = [
            ("blkio", "blkio.bfq.weight_device", want.as_str()),
            ("blkio", "blkio.weight_device", want.as_str()),
        ];
        return set_or_named(t, resources, "blockIO/weightDevice", &files);
    }
    // As in runc, a device's weight is left out without BFQ: there is nothing else that means the same.
    let container = limited(t, resources);
    let file = container.cgroup_dir("").join("io.bfq.weight");
    if let Ok(text) = fs::read_to_string(file) {
        assert!(text.lines().any(|line| line == format!("{major}:{minor} 300")), "{text}");
    }
    container.force_delete();
}

fn leaf_weights_are_set_or_their_property_named(t: &T) {
    let files = [("blkio", "blkio.leaf_weight", "20")];
    set_or_named(t, json!({"blockIO": {"leafWeight": 20}}), "blockIO/leafWeight", &files);
    let resources = json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 20}]}});
    set_or_named(t, resources, "blockIO/weightDevice", &[("blkio", "blkio.leaf_weight_device", "8:0 20")]);
}

fn a_throttle_of_no_device_names_its_property(t: &T) {
    let device = json!([{"major": 4000, "minor": 1, "rate": 1000}]);
    for property in [
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ] {
        let message = refusal(t, json!({"blockIO": {property: device}}));
        let named = if t.host.cgroup_v2 { "blockIO" } else { &format!("blockIO/{property}") };
        assert!(message.contains(&format!("config.json /linux/resources/{named}: ")), "{message}");
        assert!(message.ends_with("no such device"), "{message}");
    }
    let message =
        refusal(t, json!({"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}}));
    let want = "config.json /linux/resources/blockIO/throttleReadBpsDevice/0: -1:0 is no device number";
    assert_eq!(message, want);
}

fn a_throttle_can_be_lifted(t: &T) {
    let (major, minor) = disk();
    let rate = |rate: u64| json!({"blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": rate}]}});
    let container = limited(t, rate(1_048_576));
    container.verb(&["update", "--resources=-"]).input(&rate(0).to_string()).run().ok();
    assert_value(t, &container, ("blkio", "blkio.throttle.read_bps_device", ""), ("io.max", ""));
    container.force_delete();
}

fn huge_pages_are_limited(t: &T) {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").map_or(0, Iterator::count);
    if sizes == 0 {
        t.skip("no huge pages");
    }
    let container = limited(t, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}));
    assert_eq!(container.cgroup_value("", "hugetlb.2MB.max"), "4194304");
    if container.cgroup_dir("").join("hugetlb.2MB.rsvd.max").exists() {
        assert_eq!(container.cgroup_value("", "hugetlb.2MB.rsvd.max"), "4194304");
    }
    container.force_delete();
    if t.is_ours() {
        let message = refusal(t, json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}));
        let want = "config.json /linux/resources/hugepageLimits: this kernel has no hugetlb.3MB.max";
        assert!(message.contains(want), "{message}");
    }
}

fn a_page_size_that_is_none_is_refused(t: &T) {
    let message = refusal(t, json!({"hugepageLimits": [{"pageSize": "2Mb", "limit": 1}]}));
    let want = "\"2Mb\" is no page size: expected a number and KB, MB or GB";
    assert_eq!(message, format!("config.json /linux/resources/hugepageLimits/0/pageSize: {want}"));
}

fn an_rdma_device_that_is_not_there_is_an_error(t: &T) {
    let message = refusal(t, json!({"rdma": {"nowhere_0": {"hcaHandles": 3, "hcaObjects": 10_000}}}));
    assert!(message.contains("config.json /linux/resources/rdma: "), "{message}");
    assert!(message.contains("nowhere_0 hca_handle=3 hca_object=10000"), "{message}");
}

/// net_cls and net_prio are in hardly any host's hierarchies any more: the test mounts them for itself, where it finds them free. But a
/// hierarchy is in every process's /proc/PID/cgroup, and containerd's shim gives up where one is not mounted: so only when asked.
fn classes_and_priorities_of_the_network(t: &T) {
    if std::env::var_os("MOUNT_HIERARCHIES").is_none() {
        t.skip("mounts hierarchies that the whole machine notices: only with MOUNT_HIERARCHIES=1");
    }
    let table = fs::read_to_string("/proc/cgroups").expect("/proc/cgroups");
    let free = |name: &str| table.lines().any(|line| line.split('\t').take(2).eq([name, "0"]));
    if !free("net_cls") || !free("net_prio") {
        t.skip("net_cls and net_prio are in use, or not in this kernel");
    }
    let tops = ["net_cls", "net_prio"].map(|name| t.path(name));
    for (name, top) in ["net_cls", "net_prio"].iter().zip(&tops) {
        t.mount("cgroup", top, "cgroup", MsFlags::empty(), name);
    }
    let network = json!({"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 7}]});
    let container = limited(t, json!({"network": network}));
    let dirs = tops.each_ref().map(|top| top.join(container.cgroup.trim_start_matches('/')));
    let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).expect(file);
    assert_eq!(read(&dirs[0], "net_cls.classid"), "1048577\n");
    let map = read(&dirs[1], "net_prio.ifpriomap");
    assert!(map.lines().any(|line| line == "lo 7"), "{map}");
    for dir in &dirs {
        assert!(cgroups::members(dir).contains(&container.pid()));
    }
    container.force_delete();
    assert!(dirs.iter().all(|dir| !dir.exists()));
    let priorities = json!({"priorities": [{"name": "nowhere0", "priority": 7}]});
    let message = refusal(t, json!({"network": priorities}));
    assert!(message.contains("config.json /linux/resources/network/priorities: "), "{message}");
    // Or the hierarchies would outlive the mounts.
    for dir in dirs.iter().flat_map(|dir| dir.ancestors().skip(1).take(2)) {
        let _ = fs::remove_dir(dir);
    }
}

fn every_unified_value_is_written_last(t: &T) {
    let resources = json!({
        "memory": {"limit": 104_857_600},
        "pids": {"limit": 50},
        "unified": {"memory.high": "41943040", "memory.max": "83886080", "pids.max": "60", "cpu.weight": "77"}
    });
    let container = limited(t, resources);
    for (file, want) in
        [("memory.high", "41943040"), ("memory.max", "83886080"), ("pids.max", "60"), ("cpu.weight", "77")]
    {
        assert_eq!(container.cgroup_value("", file), want, "{file}");
    }
    container.force_delete();
}

fn policy(t: &T, policy: Value) -> Container<'_> {
    let bundle = t.bundle().args(&["sleep", "1000"]).with(json!({"linux": {"memoryPolicy": policy}}));
    t.container(&bundle)
}

fn the_memory_policy_is_the_configs(t: &T) {
    // numa_maps names the policy of each mapping: that of the process where it has none of its own.
    for (mode, nodes, flags, want) in [
        ("MPOL_BIND", "0", json!([]), " bind:0 "),
        ("MPOL_INTERLEAVE", "0", json!([]), " interleave:0 "),
        ("MPOL_PREFERRED", "0", json!([]), " prefer:0 "),
        ("MPOL_BIND", "0", json!(["MPOL_F_STATIC_NODES"]), " bind=static:0 "),
        ("MPOL_LOCAL", "", json!([]), " local "),
        ("MPOL_DEFAULT", "", json!([]), " default "),
    ] {
        let container = policy(t, json!({"mode": mode, "nodes": nodes, "flags": flags}));
        container.launch();
        let maps = fs::read_to_string(format!("/proc/{}/numa_maps", container.pid())).expect("numa_maps");
        assert!(maps.lines().any(|line| line.contains(want)), "{mode}: {maps}");
        container.force_delete();
    }
}

fn an_unknown_memory_policy_is_refused(t: &T) {
    for (wanted, pointer) in [
        (json!({"mode": "MPOL_NOPE", "nodes": "0"}), "/linux/memoryPolicy/mode"),
        (json!({"mode": "MPOL_BIND", "nodes": "x"}), "/linux/memoryPolicy/nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOPE"]}), "/linux/memoryPolicy/flags"),
    ] {
        let container = policy(t, wanted);
        let message = container.create().fails().message();
        assert!(!t.is_ours() || message.contains(pointer), "{message}");
        t.nothing_is_left(&container);
    }
    // Nodes that the machine has not: the kernel's to refuse.
    let container = policy(t, json!({"mode": "MPOL_BIND", "nodes": "900"}));
    container.create().fails();
    t.nothing_is_left(&container);
}

fn the_personality_is_the_hosts_or_32_bit(t: &T) {
    let machine = t.host.machine.clone();
    for (domain, want) in [("LINUX", machine.as_str()), ("LINUX32", "i686")] {
        if domain == "LINUX32" && machine != "x86_64" {
            continue;
        }
        let bundle = t.bundle().with(json!({"linux": {"personality": {"domain": domain}}}));
        assert_eq!(t.sh(&bundle, "uname -m"), format!("{want}\n"));
        let container = t.container(&bundle.args(&["sleep", "1000"]));
        container.launch();
        assert_eq!(container.exec_sh("uname -m"), format!("{want}\n"), "an exec");
        container.force_delete();
    }
    let message = t.refused(&t.bundle().with(json!({"linux": {"personality": {"domain": "BSD"}}})));
    assert!(!t.is_ours() || message.contains("/linux/personality"), "{message}");
}

fn intel_rdt_without_its_file_system_is_an_error(t: &T) {
    if procs::mounts("/proc/self/mountinfo").iter().any(|mount| mount.fstype == "resctrl") {
        t.skip("resctrl is mounted");
    }
    let want = "config.json /linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted";
    for rdt in
        [json!({"l3CacheSchema": "L3:0=f"}), json!({"closID": "gold"}), json!({"enableMonitoring": true})]
    {
        let message = t.refused(&t.bundle().with(json!({"linux": {"intelRdt": rdt}})));
        assert!(message.contains(want), "{message}");
    }
    let container = limited(t, json!({}));
    let out = container.verb(&["update", "--l3-cache-schema", "L3:0=f"]).run().fails();
    assert!(out.message().contains("no resctrl is mounted"), "{}", out.message());
    container.force_delete();
}

fn update_by_every_flag(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 50_000}}));
    let update = |words: &[&str]| {
        let mut all = vec!["update"];
        all.extend(words);
        container.verb(&all).run()
    };
    for (words, v1, v2) in [
        (["--cpu-period", "50000"], ("cpu", "cpu.cfs_period_us", "50000"), ("cpu.max", "50000 50000")),
        (["--cpu-quota", "40000"], ("cpu", "cpu.cfs_quota_us", "40000"), ("cpu.max", "40000 50000")),
        (["--cpu-burst", "10000"], ("cpu", "cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000")),
        (["--cpu-share", "1024"], ("cpu", "cpu.shares", "1024"), ("cpu.weight", "100")),
        (["--cpuset-cpus", "0"], ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        (["--cpuset-mems", "0"], ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
        (["--memory", "64m"], ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
        (
            ["--memory-reservation", "32M"],
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("memory.low", "33554432"),
        ),
        (["--pids-limit", "77"], ("pids", "pids.max", "77"), ("pids.max", "77")),
        (["--pids-limit", "-1"], ("pids", "pids.max", "max"), ("pids.max", "max")),
        (["--cpu-idle", "1"], ("cpu", "cpu.idle", "1"), ("cpu.idle", "1")),
        (["--cpu-idle", "0"], ("cpu", "cpu.idle", "0"), ("cpu.idle", "0")),
        (["--kernel-memory", "1m"], ("", "", ""), ("", "")),
        (["--kernel-memory-tcp", "1m"], ("", "", ""), ("", "")),
    ] {
        if t.is_runc_below("1.2") && (words[0] == "--cpu-burst" || words[0] == "--cpu-idle") {
            continue;
        }
        let out = update(&words);
        assert!(out.code == Some(0), "{out:?}");
        assert_value(t, &container, v1, v2);
    }
    container.force_delete();
}

fn update_of_the_weight_of_block_io(t: &T) {
    let container = limited(t, json!({}));
    let files = if t.host.cgroup_v2 {
        [("", "io.bfq.weight", "default 300"), ("", "io.weight", "default 2930")]
    } else {
        [("blkio", "blkio.bfq.weight", "300"), ("blkio", "blkio.weight", "300")]
    };
    let there = |file: &&(&str, &str, &str)| container.cgroup_dir(file.0).join(file.1).exists();
    let Some((controller, file, want)) = files.iter().find(there) else {
        container.force_delete();
        t.skip("no I/O scheduler here knows weights");
    };
    container.verb(&["update", "--blkio-weight", "300"]).run().ok();
    assert_eq!(&container.cgroup_value(controller, file), want, "{file}");
    container.verb(&["update", "--blkio-weight", "0"]).run().ok();
    assert_eq!(&container.cgroup_value(controller, file), want, "nothing was asked for");
    let message = container.verb(&["update", "--blkio-weight", "1001"]).run().fails().message();
    if t.is_ours() {
        let reason = "1001 is outside of the valid range 10 to 1000";
        assert!(
            message.contains(&format!("config.json /linux/resources/blockIO/weight: {reason}")),
            "{message}"
        );
    }
    assert_eq!(&container.cgroup_value(controller, file), want, "after a refusal");
    container.force_delete();
}

fn update_of_the_period_of_real_time(t: &T) {
    let container = limited(t, json!({}));
    if !container.cgroup_dir("cpu").join("cpu.rt_period_us").exists() {
        container.force_delete();
        t.skip("the kernel has no groups of real-time processes (RT_GROUP_SCHED)");
    }
    container.verb(&["update", "--cpu-rt-period", "900000"]).run().ok();
    assert_eq!(container.cgroup_value("cpu", "cpu.rt_period_us"), "900000");
    // A second's more than what the kernel takes, 2^31 microseconds.
    let message = container.verb(&["update", "--cpu-rt-period", "99999999999999999"]).run().fails().message();
    if t.is_ours() {
        assert!(message.contains("config.json /linux/resources/cpu/realtimePeriod: "), "{message}");
    }
    assert_eq!(container.cgroup_value("cpu", "cpu.rt_period_us"), "900000", "after a refusal");
    container.force_delete();
}

fn update_says_which_limit_it_cannot_set(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 50_000}}));
    for (words, property) in [
        (["--cpu-quota", "1"], "cpu/quota"),
        (["--cpuset-cpus", "5000"], "cpu/cpus"),
        (["--cpuset-mems", "900"], "cpu/mems"),
        (["--cpu-rt-runtime", "1000"], "cpu/realtimeRuntime"),
    ] {
        let out = container.verb(&["update", words[0], words[1]]).run();
        // Some kernels have real-time groups.
        if out.code == Some(0) && words[0] == "--cpu-rt-runtime" {
            continue;
        }
        let message = out.fails().message();
        assert!(message.contains(&format!("config.json /linux/resources/{property}: ")), "{message}");
    }
    assert_eq!(container.status(), "running");
    container.force_delete();
}
