//! config-linux.md, "Control groups": where a container is put, and every limit that the machine can hold it to.

use crate::harness::{Bundle, Container, Need, T, Test, cgroups, procs};
use crate::{below, test};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[
    test!(the_container_is_in_its_cgroup),
    test!(the_cgroup_goes_with_the_container),
    test!(a_cgroup_that_the_container_made_goes_too).needs(&[Need::CgroupFs]),
    test!(an_absolute_path_is_from_the_top).needs(&[Need::CgroupFs]),
    test!(a_relative_path_is_below_the_runtimes_own).needs(&[Need::CgroupFs, Need::CgroupV1]),
    test!(a_path_does_not_climb).needs(&[Need::CgroupFs]),
    test!(without_a_path_there_is_a_cgroup_too).needs(&[Need::CgroupFs]),
    test!(memory_limits).needs(&[Need::Controller("memory")]),
    test!(a_memory_limit_is_enforced).needs(&[Need::Controller("memory")]),
    test!(an_out_of_memory_is_told_at_start)
        .needs(&[Need::Controller("memory"), Need::Ours("runc's own size is above such a limit")]),
    test!(half_a_megabyte_is_enough)
        .needs(&[Need::Controller("memory"), Need::Ours("runc's own size is above such a limit")]),
    test!(memory_reservation).needs(&[Need::Controller("memory")]),
    test!(cpu_shares).needs(&[Need::Controller("cpu")]),
    test!(cpu_quota_and_period).needs(&[Need::Controller("cpu")]),
    test!(cpu_quota_alone).needs(&[Need::Controller("cpu")]),
    test!(cpu_idle).needs(&[Need::Controller("cpu"), Need::Kernel(5, 15), Need::Runc("1.2", "cpu.idle")]),
    test!(cpu_burst).needs(&[Need::Controller("cpu"), Need::Kernel(5, 14), Need::Runc("1.2", "cpu.burst")]),
    test!(cpusets).needs(&[Need::Controller("cpuset")]),
    test!(pids_limit).needs(&[Need::Controller("pids")]),
    test!(a_pids_limit_is_enforced).needs(&[Need::Controller("pids")]),
    test!(an_unlimited_pids_limit).needs(&[Need::Controller("pids")]),
    test!(a_limit_of_no_processes_is_one)
        .needs(&[Need::Controller("pids")])
        .runc_fails(below!("1.4", "0 is no limit")),
    test!(throttled_devices).needs(&[Need::File("/dev/vda")]),
    test!(unified_values).needs(&[Need::CgroupV2, Need::Controller("memory")]),
    test!(unified_values_win_over_the_others).needs(&[Need::CgroupV2, Need::Controller("memory")]),
    test!(unified_values_on_v1_are_refused).needs(&[Need::CgroupV1]),
    test!(an_unknown_unified_value_is_an_error).needs(&[Need::CgroupV2]),
    test!(a_limit_that_the_kernel_refuses_is_an_error).needs(&[Need::Controller("cpu")]),
    test!(a_limit_without_its_controller_is_an_error),
    test!(update_by_flags),
    test!(update_by_a_document),
    test!(update_by_stdin),
    test!(update_leaves_the_rest),
    test!(update_leaves_devices),
    test!(update_of_memory_and_swap_in_any_order).needs(&[Need::Controller("memory")]),
    test!(update_of_quota_and_period_in_any_order).needs(&[Need::Controller("cpu")]),
    test!(update_of_a_created_and_a_paused_container),
    test!(update_that_the_kernel_refuses_is_an_error),
    test!(update_of_nothing_changes_nothing),
    test!(update_with_bad_words_is_refused),
    test!(update_of_unified_values).needs(&[Need::CgroupV2, Need::Runc("1.2", "update of unified")]),
    test!(an_exec_counts_as_the_containers),
    test!(pause_is_the_freezers),
    test!(a_delegated_cgroup_is_the_containers).needs(&[Need::CgroupV2]),
    test!(a_cgroup_that_is_there_already).needs(&[Need::CgroupFs]),
    test!(limits_that_are_there_already_stay).needs(&[Need::CgroupFs, Need::Controller("cpu")]),
    test!(a_cgroup_that_others_are_in_is_refused)
        .needs(&[Need::CgroupFs, Need::Runc("1.2", "a look into the cgroup")]),
    test!(a_cgroup_that_another_container_is_in_is_refused).runc_fails(below!("1.2", "only warns of it")),
    test!(systemd_makes_the_scope).needs(&[Need::Systemd]),
    test!(systemd_s_scope_has_the_limits).needs(&[Need::Systemd]),
    test!(a_weight_ends_idle_for_systemd).needs(&[
        Need::Systemd,
        Need::CgroupV2,
        Need::Kernel(5, 15),
        Need::Runc("1.2", "cpu.idle"),
    ]),
    test!(systemd_s_scope_goes_with_the_container).needs(&[Need::Systemd]),
    test!(a_quota_is_whole_percents_for_systemd).needs(&[
        Need::Systemd,
        Need::CgroupV2,
        Need::Runc("1.3", "a quota that is rounded in the file, too"),
    ]),
    test!(systemd_is_given_nothing_for_a_frozen_cgroup).needs(&[Need::Systemd, Need::CgroupV2]),
    test!(systemd_is_reached_without_a_message_bus).needs(&[Need::Systemd]),
    test!(systemd_is_reached_by_the_message_bus).needs(&[Need::Systemd, Need::File(SYSTEM_BUS)]),
    test!(without_a_way_to_systemd_nothing_is_made)
        .needs(&[Need::Systemd, Need::Ours("runc prefers the message bus and has other words")]),
    test!(systemd_properties_of_annotations).needs(&[Need::Systemd]),
    test!(systemd_paths_are_three_words),
    test!(host_cgroups_are_untouched),
];

pub(crate) fn limited(t: &T, resources: Value) -> Container<'_> {
    let bundle = t.bundle().args(&["sleep", "1000"]).with(json!({"linux": {"resources": resources}}));
    let container = t.container(&bundle);
    container.launch();
    container
}

/// A file of v1 or v2 and its value.
pub(crate) fn assert_value(t: &T, container: &Container, v1: (&str, &str, &str), v2: (&str, &str)) {
    let (controller, file, want) = if t.host.cgroup_v2 { ("", v2.0, v2.1) } else { v1 };
    if !file.is_empty() {
        assert_eq!(container.cgroup_value(controller, file), want, "{file}");
    }
}

fn the_container_is_in_its_cgroup(t: &T) {
    let container = limited(t, json!({}));
    let controller = if t.host.cgroup_v2 { "" } else { "memory" };
    let dir = container.cgroup_dir(controller);
    assert!(dir.to_string_lossy().contains(&container.id), "{}", dir.display());
    assert!(cgroups::members(&dir).contains(&container.pid()));
    container.force_delete();
}

fn a_cgroup_that_another_container_is_in_is_refused(t: &T) {
    let container = limited(t, json!({}));
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for verb in ["create", "run"] {
        let mut other = t.container(&bundle);
        other.bundle.set(json!({"linux": {"cgroupsPath": container.bundle.config["linux"]["cgroupsPath"]}}));
        let message = other.make(&[verb]).run().fails().message();
        assert!(message.contains("container's cgroup is not empty"), "{verb}: {message}");
        assert!(!other.exists(), "{verb}");
    }
    assert_eq!(container.status(), "running");
    let controller = if t.host.cgroup_v2 { "" } else { "memory" };
    assert_eq!(cgroups::members(&container.cgroup_dir(controller)), [container.pid()]);
    container.force_delete();
}

fn the_cgroup_goes_with_the_container(t: &T) {
    let container = limited(t, json!({}));
    let dirs = cgroups::places(&t.host, &container.cgroup);
    assert!(t.systemd || !dirs.is_empty());
    let controller = if t.host.cgroup_v2 { "" } else { "memory" };
    let dir = container.cgroup_dir(controller);
    container.force_delete();
    assert!(!dir.exists(), "{}", dir.display());
    assert!(cgroups::places(&t.host, &container.cgroup).is_empty());
    // runc too leaves the directories above.
    assert!(t.systemd || !cgroups::places(&t.host, &t.cgroup).is_empty());
}

fn a_cgroup_that_the_container_made_goes_too(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_SYS_ADMIN"]).namespace("cgroup", None).without_mount("/sys/fs/cgroup");
    bundle.mount(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
    );
    let container = t.container(&bundle);
    container.launch();
    let dir = if t.host.cgroup_v2 { "/sys/fs/cgroup/inner/more" } else { "/sys/fs/cgroup/memory/inner/more" };
    container.exec_sh(&format!("mkdir -p {dir}; echo $$ > {dir}/cgroup.procs"));
    container.force_delete();
    t.nothing_is_left(&container);
}

fn own_path(bundle: &mut Bundle, path: &str) {
    bundle.own_cgroup = true;
    bundle.set(json!({"linux": {"cgroupsPath": path}}));
}

fn controller(t: &T) -> &'static str {
    if t.host.cgroup_v2 { "" } else { "pids" }
}

fn an_absolute_path_is_from_the_top(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let path = format!("{}/a/b", t.cgroup);
    own_path(&mut bundle, &path);
    let container = t.container(&bundle);
    container.launch();
    let dir = container.cgroup_dir(controller(t));
    let top =
        if t.host.cgroup_v2 { PathBuf::from("/sys/fs/cgroup") } else { t.host.hierarchies["pids"].clone() };
    assert_eq!(dir, top.join(path.trim_start_matches('/')));
    container.force_delete();
    assert!(!dir.exists());
    let _ = fs::remove_dir(dir.parent().unwrap());
    for place in cgroups::places(&t.host, &format!("{}/a", t.cgroup)) {
        let _ = fs::remove_dir(place);
    }
}

fn a_relative_path_is_below_the_runtimes_own(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let name = format!("relative-{}", t.tag);
    own_path(&mut bundle, &name);
    let container = t.container(&bundle);
    container.launch();
    let own = cgroups::dir_of(&t.host, nix::unistd::getpid().as_raw(), "memory").unwrap();
    let dir = container.cgroup_dir("memory");
    container.force_delete();
    assert_eq!(dir, own.join(&name));
    assert!(!dir.exists());
}

fn a_path_does_not_climb(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    own_path(&mut bundle, &format!("{}/x/../../../../{}/y", t.cgroup, t.cgroup));
    let container = t.container(&bundle);
    container.launch();
    let dir = container.cgroup_dir(controller(t));
    assert!(dir.to_string_lossy().ends_with(&format!("{}/y", t.cgroup)), "{}", dir.display());
    container.force_delete();
    assert!(!dir.exists());
}

fn without_a_path_there_is_a_cgroup_too(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.own_cgroup = true;
    let container = t.container(&bundle);
    container.launch();
    let dir = container.cgroup_dir(controller(t));
    assert!(dir.ends_with(&container.id), "{}", dir.display());
    container.force_delete();
    assert!(!dir.exists());
}

fn memory_limits(t: &T) {
    let container = limited(t, json!({"memory": {"limit": 41_943_040}}));
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "41943040"), ("memory.max", "41943040"));
    container.force_delete();
    // Without swap accounting there is no file, and runc says so.
    let has_swap = container_has_swap(t);
    if has_swap {
        let container = limited(t, json!({"memory": {"limit": 41_943_040, "swap": 62_914_560}}));
        let v1 = ("memory", "memory.memsw.limit_in_bytes", "62914560");
        assert_value(t, &container, v1, ("memory.swap.max", "20971520"));
        container.force_delete();
    }
    let container = limited(t, json!({"memory": {"limit": -1}}));
    let v1 = ("memory", "memory.limit_in_bytes", "9223372036854771712");
    assert_value(t, &container, v1, ("memory.max", "max"));
    container.force_delete();
}

fn container_has_swap(t: &T) -> bool {
    if t.host.cgroup_v2 {
        Path::new("/sys/fs/cgroup/system.slice/memory.swap.max").exists()
    } else {
        t.host.hierarchies["memory"].join("memory.memsw.limit_in_bytes").exists()
    }
}

fn a_memory_limit_is_enforced(t: &T) {
    let mut resources = json!({"memory": {"limit": 20_000_000}});
    if container_has_swap(t) {
        resources["memory"]["swap"] = json!(20_000_000);
    }
    let mut bundle = t.bundle();
    bundle.set(json!({"linux": {"resources": resources}}));
    bundle
        .mount(json!({"destination": "/big", "type": "tmpfs", "source": "tmpfs", "options": ["size=100m"]}));
    let out = t.run(&bundle, &["dd", "if=/dev/zero", "of=/big/file", "bs=1M", "count=50"]);
    assert_eq!(out.code, Some(137), "{out:?}");
}

fn an_out_of_memory_is_told_at_start(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"memory": {"limit": 8192}}}}));
    let container = t.container(&bundle);
    let out = container.run();
    assert!(out.code != Some(0), "{out:?}");
    container.delete_if_there();
    t.nothing_is_left(&container);
}

fn half_a_megabyte_is_enough(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"memory": {"limit": 524_288}}}}));
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
    let container = t.container(&bundle.args(&["sleep", "1000"]));
    container.launch();
    assert_eq!(container.exec_sh("echo in"), "in\n");
    container.force_delete();
}

fn memory_reservation(t: &T) {
    let container = limited(t, json!({"memory": {"reservation": 20_971_520}}));
    let v1 = ("memory", "memory.soft_limit_in_bytes", "20971520");
    assert_value(t, &container, v1, ("memory.low", "20971520"));
    container.force_delete();
}

fn cpu_shares(t: &T) {
    let container = limited(t, json!({"cpu": {"shares": 512}}));
    if t.host.cgroup_v2 {
        // 20 by runc's first formula, 59 by the one of 2025.
        let weight: u32 = container.cgroup_value("", "cpu.weight").parse().unwrap();
        assert!((20..=60).contains(&weight), "{weight}");
    } else {
        assert_eq!(container.cgroup_value("cpu", "cpu.shares"), "512");
    }
    container.force_delete();
}

fn cpu_quota_and_period(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 20_000, "period": 50_000}}));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000"));
    assert_value(t, &container, ("cpu", "cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000"));
    container.force_delete();
}

fn cpu_quota_alone(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 30_000}}));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 100000"));
    container.force_delete();
    let container = limited(t, json!({"cpu": {"quota": -1}}));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"));
    container.force_delete();
}

fn cpu_idle(t: &T) {
    let container = limited(t, json!({"cpu": {"idle": 1}}));
    assert_value(t, &container, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1"));
    container.force_delete();
}

fn cpu_burst(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 50_000, "burst": 20_000}}));
    assert_value(t, &container, ("cpu", "cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000"));
    container.force_delete();
}

fn cpusets(t: &T) {
    let container = limited(t, json!({"cpu": {"cpus": "0", "mems": "0"}}));
    assert_value(t, &container, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    assert_value(t, &container, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0"));
    let text = container.exec_sh("grep Cpus_allowed_list /proc/1/status /proc/self/status | cut -f2");
    assert_eq!(text, "0\n0\n");
    container.force_delete();
}

fn pids_limit(t: &T) {
    let container = limited(t, json!({"pids": {"limit": 33}}));
    assert_value(t, &container, ("pids", "pids.max", "33"), ("pids.max", "33"));
    container.force_delete();
}

fn a_pids_limit_is_enforced(t: &T) {
    let mut bundle = t.bundle();
    bundle.set(json!({"linux": {"resources": {"pids": {"limit": 5}}}}));
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>/dev/null; echo unreachable";
    let out = t.run(&bundle, &["sh", "-c", &format!("({script}) 2>&1; ls -d /proc/[0-9]* | wc -l")]);
    assert!(!out.stdout.contains("unreachable"), "{out:?}");
}

fn an_unlimited_pids_limit(t: &T) {
    let container = limited(t, json!({"pids": {"limit": -1}}));
    assert_value(t, &container, ("pids", "pids.max", "max"), ("pids.max", "max"));
    container.force_delete();
}

fn a_limit_of_no_processes_is_one(t: &T) {
    let container = limited(t, json!({"pids": {"limit": 0}}));
    assert_value(t, &container, ("pids", "pids.max", "1"), ("pids.max", "1"));
    container.verb(&["update", "--pids-limit", "7"]).run().ok();
    container.verb(&["update", "--pids-limit", "0"]).run().ok();
    assert_value(t, &container, ("pids", "pids.max", "1"), ("pids.max", "1"));
    container.force_delete();
}

fn throttled_devices(t: &T) {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata("/dev/vda").unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let one = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let container = limited(
        t,
        json!({"blockIO": {"throttleReadBpsDevice": one(1_048_576), "throttleWriteBpsDevice":
        one(2_097_152), "throttleReadIOPSDevice": one(100), "throttleWriteIOPSDevice": one(200)}}),
    );
    if t.host.cgroup_v2 {
        let want = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        assert_eq!(container.cgroup_value("", "io.max"), want);
    } else {
        for (file, rate) in
            [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 100), ("write_iops", 200)]
        {
            let value = container.cgroup_value("blkio", &format!("blkio.throttle.{file}_device"));
            assert_eq!(value, format!("{major}:{minor} {rate}"), "{file}");
        }
    }
    container.force_delete();
}

fn unified_values(t: &T) {
    let unified = json!({"memory.high": "30000128", "memory.min": "4096", "pids.max": "77"});
    let container = limited(t, json!({"unified": unified}));
    assert_eq!(container.cgroup_value("", "memory.high"), "29999104");
    assert_eq!(container.cgroup_value("", "memory.min"), "4096");
    assert_eq!(container.cgroup_value("", "pids.max"), "77");
    container.force_delete();
}

fn unified_values_win_over_the_others(t: &T) {
    let unified =
        json!({"memory.max": "41943040", "cpu.max": "5000 50000", "cpu.weight": "42", "pids.max": "42"});
    let container = limited(
        t,
        json!({
            "memory": {"limit": 33_554_432},
            "cpu": {"shares": 3333, "quota": 40_000, "period": 100_000},
            "pids": {"limit": 77},
            "unified": unified
        }),
    );
    for (file, want) in unified.as_object().unwrap() {
        assert_eq!(container.cgroup_value("", file), want.as_str().unwrap(), "{file}");
    }
    container.force_delete();
}

fn unified_values_on_v1_are_refused(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"unified": {"memory.high": "30000000"}}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("unified"), "{message}");
}

fn an_unknown_unified_value_is_an_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"unified": {"memory.nonsense": "1"}}}}));
    assert!(t.refused(&bundle).contains("memory.nonsense"));
    let bundle = t.bundle().with(json!({"linux": {"resources": {"unified": {"../cgroup.procs": "1"}}}}));
    assert!(t.refused(&bundle).contains("cgroup.procs"));
}

fn a_limit_that_the_kernel_refuses_is_an_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"cpu": {"quota": 5, "period": 50_000}}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("invalid argument"), "{message}");
}

fn a_limit_without_its_controller_is_an_error(t: &T) {
    if t.host.has_controller("rdma") {
        t.skip("there is an rdma controller");
    }
    let bundle = t.bundle().with(json!({"linux": {"resources": {"rdma": {"mlx": {"hcaHandles": 3}}}}}));
    t.refused(&bundle);
}

fn update_by_flags(t: &T) {
    let container =
        limited(t, json!({"memory": {"limit": 83_886_080}, "pids": {"limit": 100}, "cpu": {"shares": 1000}}));
    let words =
        ["update", "--memory", "64M", "--pids-limit", "55", "--cpu-quota", "30000", "--cpu-period", "60000"];
    container.verb(&words).run().ok();
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
    assert_value(t, &container, ("pids", "pids.max", "55"), ("pids.max", "55"));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 60000"));
    container.verb(&["update", "--cpuset-cpus", "0", "--cpu-share", "512"]).run().ok();
    assert_value(t, &container, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    assert_value(t, &container, ("cpu", "cpu.shares", "512"), ("", ""));
    container.force_delete();
}

fn update_by_a_document(t: &T) {
    let container = limited(t, json!({}));
    let file = t.path("resources.json");
    let resources = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 44}, "cpu": {"quota": 40_000}});
    fs::write(&file, resources.to_string()).unwrap();
    container.verb(&["update", "--resources", &file.to_string_lossy()]).run().ok();
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
    assert_value(t, &container, ("pids", "pids.max", "44"), ("pids.max", "44"));
    container.force_delete();
}

fn update_by_stdin(t: &T) {
    let container = limited(t, json!({}));
    let resources = json!({"pids": {"limit": 43}});
    container.verb(&["update", "--resources=-"]).input(&resources.to_string()).run().ok();
    assert_value(t, &container, ("pids", "pids.max", "43"), ("pids.max", "43"));
    container.verb(&["update", "--resources=-"]).input("{").run().fails();
    container.force_delete();
}

fn update_leaves_the_rest(t: &T) {
    let resources =
        json!({"memory": {"limit": 83_886_080}, "pids": {"limit": 100}, "cpu": {"quota": 30_000}});
    let container = limited(t, resources);
    container.verb(&["update", "--pids-limit", "50"]).run().ok();
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "83886080"), ("memory.max", "83886080"));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 100000"));
    assert_value(t, &container, ("pids", "pids.max", "50"), ("pids.max", "50"));
    container.verb(&["update", "--memory", "100M"]).run().ok();
    assert_value(t, &container, ("pids", "pids.max", "50"), ("pids.max", "50"));
    container.force_delete();
}

fn update_leaves_devices(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_MKNOD"]);
    let container = t.container(&bundle);
    container.launch();
    let resources = json!({"devices": [{"allow": true, "access": "rwm"}], "pids": {"limit": 60}});
    container.verb(&["update", "--resources=-"]).input(&resources.to_string()).run().ok();
    let text = container.exec_sh("mknod /tmp/x c 1 11; cat /tmp/x 2>&1; echo x > /dev/null && echo fine");
    assert_eq!(text, "cat: can't open '/tmp/x': Operation not permitted\nfine\n");
    container.force_delete();
}

fn update_of_memory_and_swap_in_any_order(t: &T) {
    if !container_has_swap(t) {
        t.skip("no swap accounting");
    }
    let container = limited(t, json!({"memory": {"limit": 41_943_040, "swap": 41_943_040}}));
    for (memory, swap) in [("80M", "100M"), ("20M", "30M"), ("200M", "200M"), ("30M", "-1"), ("50M", "60M")] {
        container.verb(&["update", "--memory", memory, "--memory-swap", swap]).run().ok();
    }
    let v1 = ("memory", "memory.memsw.limit_in_bytes", "62914560");
    assert_value(t, &container, v1, ("memory.swap.max", "10485760"));
    container.force_delete();
}

fn update_of_quota_and_period_in_any_order(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 50_000, "period": 100_000}}));
    for (quota, period) in [("900000", "1000000"), ("2000", "4000"), ("10000", "200000")] {
        container.verb(&["update", "--cpu-quota", quota, "--cpu-period", period]).run().ok();
        let max = format!("{quota} {period}");
        assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", quota), ("cpu.max", &max));
    }
    container.force_delete();
}

fn update_of_a_created_and_a_paused_container(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    container.verb(&["update", "--pids-limit", "31"]).run().ok();
    assert_value(t, &container, ("pids", "pids.max", "31"), ("pids.max", "31"));
    container.start().ok();
    container.verb(&["pause"]).run().ok();
    container.verb(&["update", "--pids-limit", "32"]).run().ok();
    assert_value(t, &container, ("pids", "pids.max", "32"), ("pids.max", "32"));
    assert_eq!(container.status(), "paused");
    container.force_delete();
}

fn update_that_the_kernel_refuses_is_an_error(t: &T) {
    let container = limited(t, json!({"cpu": {"quota": 50_000}}));
    container.verb(&["update", "--cpu-quota", "1"]).run().fails();
    container.verb(&["update", "--cpuset-cpus", "5000"]).run().fails();
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
    assert_eq!(container.status(), "running");
    container.force_delete();
}

fn update_of_nothing_changes_nothing(t: &T) {
    let container = limited(t, json!({"pids": {"limit": 21}, "cpu": {"quota": 50_000}}));
    container.verb(&["update"]).run().ok();
    container.verb(&["update", "--resources=-"]).input("{}").run().ok();
    assert_value(t, &container, ("pids", "pids.max", "21"), ("pids.max", "21"));
    assert_value(t, &container, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
    container.force_delete();
}

fn update_with_bad_words_is_refused(t: &T) {
    let container = limited(t, json!({}));
    for words in [["--memory", "much"], ["--cpu-share", "-1"], ["--pids-limit", "x"], ["--memory-swap", "5Q"]]
    {
        container.verb(&["update", words[0], words[1]]).run().fails();
    }
    container.force_delete();
}

fn update_of_unified_values(t: &T) {
    let container = limited(t, json!({}));
    let resources = json!({"unified": {"memory.high": "41943040"}});
    container.verb(&["update", "--resources=-"]).input(&resources.to_string()).run().ok();
    assert_eq!(container.cgroup_value("", "memory.high"), "41943040");
    container.force_delete();
}

fn an_exec_counts_as_the_containers(t: &T) {
    let container = limited(t, json!({"pids": {"limit": 2}}));
    let out = container.exec(&["sh", "-c", "sleep 0.1; echo done"]);
    // One more than the container and its shell does not fit.
    assert!(out.code != Some(0) || !out.stdout.contains("done") || !out.stderr.is_empty(), "{out:?}");
    container.force_delete();
}

fn pause_is_the_freezers(t: &T) {
    let container = limited(t, json!({}));
    container.verb(&["pause"]).run().ok();
    assert_value(t, &container, ("freezer", "freezer.state", "FROZEN"), ("cgroup.freeze", "1"));
    container.verb(&["resume"]).run().ok();
    assert_value(t, &container, ("freezer", "freezer.state", "THAWED"), ("cgroup.freeze", "0"));
    container.force_delete();
}

fn a_delegated_cgroup_is_the_containers(t: &T) {
    // cgroup namespace, user namespace, writable cgroup mount: the container may divide its cgroup further.
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.user_namespace().namespace("cgroup", None).without_mount("/sys/fs/cgroup");
    bundle.mount(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
    );
    let container = t.container(&bundle);
    container.launch();
    container.exec_sh("mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs");
    container.exec(&["sh", "-c", "echo 1 > /sys/fs/cgroup/pids.max"]).fails();
    container.force_delete();
    t.nothing_is_left(&container);
}

fn a_cgroup_that_is_there_already(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let top =
        if t.host.cgroup_v2 { PathBuf::from("/sys/fs/cgroup") } else { t.host.hierarchies["pids"].clone() };
    let dir = top.join(container.cgroup.trim_start_matches('/'));
    fs::create_dir_all(&dir).unwrap();
    container.launch();
    container.force_delete();
    // The specification: a runtime removes what it has made. runc removes the rest too.
    assert!(dir.exists() || !t.is_ours());
    let _ = fs::remove_dir(dir);
    t.nothing_is_left(&container);
}

/// Of a cgroup that somebody has made for the container: what config.json does not speak of.
fn limits_that_are_there_already_stay(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let (top, file, value) = match t.host.cgroup_v2 {
        true => (PathBuf::from("/sys/fs/cgroup"), "cpu.max", "250000 250000"),
        false => (t.host.hierarchies["cpu"].clone(), "cpu.cfs_quota_us", "30000"),
    };
    let dir = top.join(container.cgroup.trim_start_matches('/'));
    fs::create_dir_all(&dir).unwrap();
    if t.host.cgroup_v2 {
        let above = dir.ancestors().skip(1).take_while(|above| above.starts_with(&top));
        for above in above.collect::<Vec<_>>().into_iter().rev() {
            fs::write(above.join("cgroup.subtree_control"), "+cpu").unwrap();
        }
    }
    fs::write(dir.join(file), value).unwrap();
    container.launch();
    assert_value(t, &container, ("cpu", file, value), (file, value));
    container.force_delete();
    let _ = fs::remove_dir(dir);
    t.nothing_is_left(&container);
}

fn a_cgroup_that_others_are_in_is_refused(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    own_path(&mut bundle, &format!("{}/shared", t.cgroup));
    let first = t.container(&bundle);
    first.launch();
    let second = t.container(&bundle);
    let out = second.create().fails();
    assert!(out.message().contains("not empty") || out.message().contains("cgroup"), "{}", out.message());
    // The first one does not suffer.
    assert_eq!(first.status(), "running");
    assert_eq!(first.exec_sh("echo in"), "in\n");
    assert!(!second.exists());
    first.force_delete();
}

fn show(unit: &str, property: &str) -> String {
    let words = ["show", "--value", "--property", property, unit];
    let out = std::process::Command::new("systemctl").args(words).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A container by systemd's driver, whatever the suite's own is.
fn by_systemd<'t>(t: &'t T, change: Value) -> (Container<'t>, String) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.own_cgroup = true;
    bundle.set(change);
    let id = t.id();
    bundle.set(json!({"linux": {"cgroupsPath": format!("system.slice:cofferdam-test:{id}")}}));
    let container = Container::new(t, &bundle, id.clone());
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    let state = t.state_dir().to_string_lossy().into_owned();
    let words = ["--root", &state, "--systemd-cgroup", "create", "--bundle", &dir, &id];
    t.call(&words).bare().run().ok();
    container.start().ok();
    (container, format!("cofferdam-test-{id}.scope"))
}

fn systemd_makes_the_scope(t: &T) {
    let (container, unit) = by_systemd(t, json!({}));
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Slice"), "system.slice");
    assert_eq!(show(&unit, "Delegate"), "yes");
    assert!(show(&unit, "ControlGroup").ends_with(&unit));
    let dir = container.cgroup_dir(controller(t));
    assert!(dir.to_string_lossy().contains(&format!("/system.slice/{unit}")), "{}", dir.display());
    container.force_delete();
}

fn systemd_s_scope_has_the_limits(t: &T) {
    let resources = json!({"memory": {"limit": 41_943_040}, "pids": {"limit": 33},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024}});
    let (container, unit) = by_systemd(t, json!({"linux": {"resources": resources}}));
    assert_eq!(show(&unit, "TasksMax"), "33");
    assert_eq!(show(&unit, "MemoryMax"), "41943040");
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "500ms");
    // systemd writes its own values again at every reload: they must be there too.
    let reload = std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap();
    assert!(reload.success());
    assert_value(t, &container, ("pids", "pids.max", "33"), ("pids.max", "33"));
    assert_value(t, &container, ("memory", "memory.limit_in_bytes", "41943040"), ("memory.max", "41943040"));
    assert_eq!(container.exec_sh("echo x > /dev/null && echo fine"), "fine\n");
    container.verb(&["update", "--pids-limit", "44"]).run().ok();
    assert_eq!(show(&unit, "TasksMax"), "44");
    container.force_delete();
}

fn a_weight_ends_idle_for_systemd(t: &T) {
    let (container, unit) = by_systemd(t, json!({"linux": {"resources": {"cpu": {"shares": 512}}}}));
    let update = |words: &[&str]| container.verb(&[&["update"], words].concat()).run();
    let idle = || container.cgroup_value("cpu", "cpu.idle");
    let both = update(&["--cpu-idle", "1", "--cpu-share", "1024"]);
    assert!(both.log.contains("unable to apply both"), "{both:?}");
    assert!(!t.is_ours() || both.code == Some(0), "{both:?}");
    assert_eq!((idle().as_str(), show(&unit, "CPUWeight").as_str()), ("1", "idle"));
    update(&["--cpu-share", "1024"]).ok();
    assert_eq!((idle().as_str(), show(&unit, "CPUWeight").as_str()), ("0", "100"));
    assert_eq!(container.cgroup_value("cpu", "cpu.weight"), "100");
    container.force_delete();
}

fn systemd_s_scope_goes_with_the_container(t: &T) {
    let (container, unit) = by_systemd(t, json!({}));
    let dir = container.cgroup_dir(controller(t));
    container.force_delete();
    assert!(procs::wait_until(t.seconds(5), || !dir.exists()), "{}", dir.display());
    assert!(
        procs::wait_until(t.seconds(5), || show(&unit, "LoadState") == "not-found"),
        "{}",
        show(&unit, "LoadState")
    );
}

/// Where D-Bus's daemon listens.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

// As it keeps it, and writes it again at every reload.
fn a_quota_is_whole_percents_for_systemd(t: &T) {
    let resources = json!({"cpu": {"quota": 60_000, "period": 90_000}});
    let (container, unit) = by_systemd(t, json!({"linux": {"resources": resources}}));
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "670ms");
    assert_eq!(container.cgroup_value("cpu", "cpu.max"), "60300 90000");
    container.verb(&["update", "--cpu-quota", "50000"]).run().ok();
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "560ms");
    assert_eq!(container.cgroup_value("cpu", "cpu.max"), "50400 90000");
    let reload = std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap();
    assert!(reload.success());
    assert_eq!(container.cgroup_value("cpu", "cpu.max"), "50400 90000");
    container.verb(&["update", "--pids-limit", "44"]).run().ok();
    assert_eq!(container.cgroup_value("cpu", "cpu.max"), "50400 90000", "nothing was said of it");
    container.force_delete();
}

// It would move init in there, which then never runs, and the runtime would wait for it for ever.
fn systemd_is_given_nothing_for_a_frozen_cgroup(t: &T) {
    let mut bundle = t.bundle();
    bundle.own_cgroup = true;
    let container = t.container(&bundle);
    bundle.set(json!({"linux": {"cgroupsPath": format!("system.slice:cofferdam-test:{}", container.id)}}));
    bundle.save();
    let unit = format!("cofferdam-test-{}.scope", container.id);
    let place = Path::new("/sys/fs/cgroup/system.slice").join(&unit);
    fs::create_dir(&place).unwrap();
    fs::write(place.join("cgroup.freeze"), "1").unwrap();
    let (dir, state) =
        (bundle.dir.to_string_lossy().into_owned(), t.state_dir().to_string_lossy().into_owned());
    let words = ["--root", &state, "--systemd-cgroup", "create", "--bundle", &dir, &container.id];
    let out = t.call(&words).bare().run();
    fs::remove_dir(&place).unwrap();
    assert!(out.code == Some(1) && out.stderr.contains("container's cgroup unexpectedly frozen"), "{out:?}");
    assert_eq!(show(&unit, "ActiveState"), "inactive");
    t.nothing_is_left(&container);
}

/// Where systemd itself does, for root alone.
const PRIVATE: &str = "/run/systemd/private";

/// In this test's mount namespace no socket is here.
fn hide(t: &T, socket: &str) {
    let file = t.path("no-socket");
    fs::write(&file, "").unwrap();
    if Path::new(socket).exists() {
        t.bind(&file, Path::new(socket));
    }
}

fn assert_scope(t: &T) {
    let (container, unit) = by_systemd(t, json!({}));
    let dir = container.cgroup_dir(controller(t));
    assert!(dir.ends_with(format!("system.slice/{unit}")), "{}", dir.display());
    container.force_delete();
    assert!(procs::wait_until(t.seconds(5), || !dir.exists()), "{}", dir.display());
}

fn systemd_is_reached_without_a_message_bus(t: &T) {
    hide(t, SYSTEM_BUS);
    assert_scope(t);
}

fn systemd_is_reached_by_the_message_bus(t: &T) {
    hide(t, PRIVATE);
    assert_scope(t);
}

fn without_a_way_to_systemd_nothing_is_made(t: &T) {
    hide(t, SYSTEM_BUS);
    hide(t, PRIVATE);
    let mut bundle = t.bundle();
    bundle.own_cgroup = true;
    bundle.set(json!({"linux": {"cgroupsPath": "system.slice:cofferdam-test:nobody"}}));
    let container = t.container(&bundle);
    let state = t.state_dir().to_string_lossy().into_owned();
    let log = t.path("log").to_string_lossy().into_owned();
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    let words =
        ["--root", &state, "--log", &log, "--systemd-cgroup", "create", "--bundle", &dir, &container.id];
    let out = t.call(&words).bare().run().fails();
    assert!(out.stderr.contains("connect to systemd"), "{out:?}");
    t.nothing_is_left(&container);
    assert!(!Path::new("/sys/fs/cgroup/system.slice/cofferdam-test-nobody.scope").exists());
}

fn systemd_properties_of_annotations(t: &T) {
    let annotations = json!({"org.systemd.property.TimeoutStopUSec": "uint64 123456789",
        "org.systemd.property.CollectMode": "'inactive-or-failed'"});
    let (container, unit) = by_systemd(t, json!({"annotations": annotations}));
    assert_eq!(show(&unit, "CollectMode"), "inactive-or-failed");
    assert_eq!(show(&unit, "TimeoutStopUSec"), "2min 3.456789s");
    container.force_delete();
}

fn systemd_paths_are_three_words(t: &T) {
    let mut bundle = t.bundle();
    own_path(&mut bundle, "/not/three/words");
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    let state = t.state_dir().to_string_lossy().into_owned();
    let log = t.path("log").to_string_lossy().into_owned();
    let words =
        ["--root", &state, "--log", &log, "--systemd-cgroup", "create", "--bundle", &dir, "three-words"];
    let out = t.call(&words).bare().run().fails();
    let says = "slice:prefix:name";
    assert!(out.stderr.contains(says) || out.stderr.contains("systemd"), "{}", out.stderr);
    assert!(!t.state_dir().join("three-words").exists());
}

fn host_cgroups_are_untouched(t: &T) {
    let of = || {
        let names = [
            "memory.limit_in_bytes",
            "cpu.shares",
            "pids.max",
            "cpuset.cpus",
            "devices.list",
            "memory.max",
            "cpu.weight",
        ];
        let own = cgroups::places(&t.host, "/");
        let mut seen = Vec::new();
        for dir in own {
            seen.extend(names.iter().filter_map(|name| fs::read_to_string(dir.join(name)).ok()));
        }
        seen
    };
    let before = of();
    limited(t, json!({"memory": {"limit": 41_943_040}, "pids": {"limit": 33}})).force_delete();
    assert_eq!(of(), before);
}
