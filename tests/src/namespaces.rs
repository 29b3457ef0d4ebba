//! config-linux.md, "Namespaces": new ones, the host's, and those joined by path.

use crate::harness::{Container, Need, T, Test, procs};
use crate::{always, test};
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(a_namespace_in_the_list_is_new),
    test!(a_namespace_not_in_the_list_is_the_hosts),
    test!(each_namespace_can_be_joined_by_path),
    test!(every_namespace_can_be_joined_at_once),
    test!(a_new_pid_namespace_begins_with_the_program),
    test!(a_joined_pid_namespace_has_the_others_processes),
    test!(a_joined_pid_namespace_changes_nothing_else),
    test!(a_joined_pid_namespace_with_every_namespace_and_a_terminal),
    test!(limits_of_one_process_hold_in_a_joined_pid_namespace)
        .needs(&[Need::Ours("runc counts its own processes against the limits")]),
    test!(hooks_in_a_joined_pid_namespace_are_told_the_pid),
    test!(a_new_network_has_its_loopback_up),
    test!(the_hosts_network_is_the_hosts),
    test!(the_hostname_is_the_configs),
    test!(the_domainname_is_the_configs).needs(&[Need::Runc("1.2", "domainname")]),
    test!(the_hosts_name_stays),
    test!(a_user_namespace_has_the_mappings),
    test!(a_user_namespace_with_several_mappings),
    test!(a_user_namespace_with_every_other_namespace),
    test!(a_user_namespace_can_be_joined)
        .needs(&[Need::Runc("1.2", "a user namespace with a path and no mappings")]),
    test!(a_joined_user_namespace_with_the_same_mappings_in_the_config)
        .needs(&[Need::Runc("1.2", "a user namespace with path and mappings")]),
    test!(root_of_a_user_namespace_owns_its_files),
    test!(a_cgroup_namespace_begins_at_the_containers_cgroup).by_driver().needs(&[Need::Namespace("cgroup")]),
    test!(without_a_cgroup_namespace_the_path_is_the_hosts).by_driver(),
    test!(a_time_namespace_has_its_offsets)
        .needs(&[Need::Namespace("time"), Need::Runc("1.2", "time namespaces")]),
    test!(a_time_namespace_reaches_an_exec)
        .needs(&[Need::Namespace("time"), Need::Runc("1.2", "time namespaces")]),
    test!(a_time_namespace_can_be_joined)
        .needs(&[Need::Namespace("time"), Need::Runc("1.2", "time namespaces")]),
    test!(a_namespace_file_of_another_kind_is_refused)
        .runc_fails(always!("joins what it finds, whatever its kind")),
    test!(a_namespace_path_that_is_not_there_is_refused),
    test!(a_namespace_path_that_is_no_namespace_is_refused),
    test!(a_container_in_the_hosts_mounts).needs(&[Need::Ours(
        "runc leaves the container's mounts on the host, and an exec in the host's root",
    )]),
    test!(an_exec_is_in_every_namespace),
    test!(an_exec_from_the_hosts_pid_namespace),
    test!(processes_of_a_shared_pid_namespace_end_with_the_container),
    test!(orphans_of_a_pid_namespace_end_with_it),
];

const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

fn own(file: &str) -> String {
    procs::link(format!("/proc/self/ns/{file}"))
}

/// A container that sleeps, with every kind of new namespace but the user's.
fn sleeper(t: &T) -> Container<'_> {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.namespace("cgroup", None);
    let container = t.container(&bundle);
    container.launch();
    container
}

fn a_namespace_in_the_list_is_new(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("cgroup", None);
    let seen = t.see(&bundle);
    for (kind, file) in KINDS.iter().filter(|(kind, _)| *kind != "user") {
        assert_ne!(seen["ns"][file], own(file), "{kind}");
    }
    assert_eq!(seen["ns"]["user"], own("user"));
}

fn a_namespace_not_in_the_list_is_the_hosts(t: &T) {
    for (kind, file) in KINDS.iter().filter(|(kind, _)| !["user", "mount", "cgroup"].contains(kind)) {
        let mut bundle = t.bundle();
        bundle.without_namespace(kind).set(json!({"hostname": ""}));
        assert_eq!(t.see(&bundle)["ns"][file], own(file), "{kind}");
    }
}

fn each_namespace_can_be_joined_by_path(t: &T) {
    let other = sleeper(t);
    let pid = other.pid();
    for (kind, file) in KINDS.iter().filter(|(kind, _)| !["user", "mount"].contains(kind)) {
        let path = format!("/proc/{pid}/ns/{file}");
        let mut bundle = t.bundle();
        bundle.namespace(kind, Some(&path)).set(json!({"hostname": ""}));
        assert_eq!(t.see(&bundle)["ns"][file], procs::link(&path), "{kind}");
    }
    other.force_delete();
}

fn every_namespace_can_be_joined_at_once(t: &T) {
    // What a pod's second container does.
    let other = sleeper(t);
    let pid = other.pid();
    let mut bundle = t.bundle();
    for (kind, file) in
        [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")]
    {
        bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
    }
    bundle.set(json!({"hostname": ""}));
    let seen = t.see(&bundle);
    for file in ["pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(seen["ns"][file], procs::link(format!("/proc/{pid}/ns/{file}")), "{file}");
    }
    assert_ne!(seen["ns"]["mnt"], procs::link(format!("/proc/{pid}/ns/mnt")));
    other.force_delete();
}

fn a_new_pid_namespace_begins_with_the_program(t: &T) {
    assert_eq!(t.sh(&t.bundle(), "echo $$; echo /proc/[0-9]*"), "1\n/proc/1\n");
}

fn a_joined_pid_namespace_has_the_others_processes(t: &T) {
    let other = sleeper(t);
    let mut bundle = t.bundle();
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", other.pid())));
    let text = t.sh(&bundle, "tr '\\0' ' ' < /proc/1/cmdline; test $$ -gt 1 && echo and me");
    assert_eq!(text, "sleep 1000 and me\n");
    other.force_delete();
}

/// What the probe sees, without what must differ from container to container.
fn seen_in(t: &T, mut bundle: crate::harness::Bundle, pid: Option<i32>) -> serde_json::Value {
    if let Some(pid) = pid {
        bundle.namespace("pid", Some(&format!("/proc/{pid}/ns/pid")));
    }
    let mut seen = t.see(&bundle);
    for key in ["pid", "cgroup", "ns", "keys", "stat", "mounts"] {
        seen.as_object_mut().unwrap().remove(key);
    }
    let open: Vec<String> = seen["fd"].as_object().unwrap().keys().cloned().collect();
    seen["fd"] = json!(open);
    let status = seen["status"].as_object_mut().unwrap();
    status.retain(|key, _| {
        [
            "Uid",
            "Gid",
            "Groups",
            "Umask",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "SigBlk",
            "SigIgn",
            "SigCgt",
            "SigPnd",
        ]
        .contains(&key.as_str())
            || key.starts_with("Cap")
            || key.ends_with("allowed")
    });
    seen
}

fn a_joined_pid_namespace_changes_nothing_else(t: &T) {
    let other = sleeper(t);
    let pid = other.pid();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    let changes = [
        json!({}),
        json!({"process": {"user": {"uid": 1000, "gid": 1000, "additionalGids": [7], "umask": 63}, "oomScoreAdj": 500}}),
        json!({"process": {"noNewPrivileges": false}, "linux": {"seccomp": profile}}),
        json!({"process": {"noNewPrivileges": true, "user": {"uid": 7, "gid": 7}}, "linux": {"seccomp": profile}}),
        json!({"process": {"capabilities": null}}),
        json!({"process": {
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            },
            "user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": false,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
        }, "linux": {"seccomp": profile, "personality": {"domain": "LINUX32"}}}),
    ];
    for change in changes {
        let bundle = t.bundle().with(change.clone());
        assert_eq!(seen_in(t, bundle.clone(), Some(pid)), seen_in(t, bundle, None), "{change}");
    }
    // It leads a session of its own there, too, and has the group of it.
    let mut bundle = t.bundle();
    bundle.namespace("pid", Some(&format!("/proc/{pid}/ns/pid")));
    let text = t.sh(&bundle, "cut -d' ' -f1,5,6 /proc/$$/stat; ls /proc | grep -c '^1$'");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words[0] == words[1] && words[0] == words[2] && words[3] == "1", "{text}");
    other.force_delete();
}

fn a_joined_pid_namespace_with_every_namespace_and_a_terminal(t: &T) {
    let other = sleeper(t);
    let pid = other.pid();
    let mut bundle = t.bundle().script("tty; exec < /dev/tty && echo have one; read line; echo got $line");
    bundle.namespace("pid", Some(&format!("/proc/{pid}/ns/pid")));
    bundle.namespace("network", Some(&format!("/proc/{pid}/ns/net"))).namespace("cgroup", None);
    bundle.set(json!({"process": {"terminal": true}}));
    let (container, mut terminal) = crate::console::created(t, t.container(&bundle));
    container.start().ok();
    terminal.await_output("have one");
    terminal.type_in("some words\n");
    terminal.await_output("got some words");
    container.await_stop();
    container.force_delete();
    other.force_delete();
}

fn limits_of_one_process_hold_in_a_joined_pid_namespace(t: &T) {
    let other = sleeper(t);
    let mut bundle = t.bundle();
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", other.pid())));
    // An id that no other test's processes have.
    bundle.set(json!({
        "process": {
            "user": {"uid": 61_234, "gid": 61_234}, "rlimits": [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}],
            "capabilities": {"bounding": [], "permitted": [], "effective": [], "inheritable": [], "ambient": []}
        },
        "linux": {"resources": {"pids": {"limit": 1}}}
    }));
    assert_eq!(t.sh(&bundle, "echo alone; ulimit -u"), "alone\n1\n");
    other.force_delete();
}

fn hooks_in_a_joined_pid_namespace_are_told_the_pid(t: &T) {
    let other = sleeper(t);
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", other.pid())));
    let told = t.path("told");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", told.display())]}]);
    bundle.set(json!({"hooks": {"createRuntime": hook}}));
    let container = t.container(&bundle);
    container.create();
    let state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(state["pid"], container.pid());
    container.force_delete();
    other.force_delete();
}

fn a_new_network_has_its_loopback_up(t: &T) {
    let text =
        t.sh(&t.bundle(), "ip -o link | wc -l; ip -o addr show dev lo; ping -c1 -W2 127.0.0.1 2>&1; true");
    assert!(text.contains("127.0.0.1/8"), "{text}");
    let flags = t.sh(&t.bundle(), "cat /sys/class/net/lo/flags");
    assert_eq!(u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap() & 1, 1, "IFF_UP");
}

fn the_hosts_network_is_the_hosts(t: &T) {
    let mut bundle = t.bundle();
    bundle.without_namespace("network");
    let mut here: Vec<String> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    here.sort();
    let text = t.sh(&bundle, "ls /sys/class/net | sort");
    assert_eq!(text.lines().collect::<Vec<_>>(), here);
}

fn the_hostname_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"hostname": "inside.example"}));
    assert_eq!(t.sh(&bundle, "hostname; cat /proc/sys/kernel/hostname"), "inside.example\ninside.example\n");
}

fn the_domainname_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"domainname": "nis.example"}));
    assert_eq!(t.sh(&bundle, "cat /proc/sys/kernel/domainname"), "nis.example\n");
}

fn the_hosts_name_stays(t: &T) {
    let name = || nix::unistd::gethostname().unwrap();
    let before = name();
    t.sh(&t.bundle().with(json!({"hostname": "inside"})), "hostname");
    assert_eq!(name(), before);
}

/// `container host size` of a map, without the blanks.
fn map(text: &serde_json::Value) -> Vec<Vec<u64>> {
    let line = |line: &str| line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    text.as_str().unwrap().lines().map(line).collect()
}

fn a_user_namespace_has_the_mappings(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let seen = t.see(&bundle);
    assert_ne!(seen["ns"]["user"], own("user"));
    assert_eq!(map(&seen["uid_map"]), [[0, 100_000, 65_536]]);
    assert_eq!(map(&seen["gid_map"]), [[0, 100_000, 65_536]]);
    assert_eq!(seen["status"]["Uid"], "0 0 0 0");
}

fn a_user_namespace_with_several_mappings(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let maps = json!([
        {"containerID": 0, "hostID": 100_000, "size": 1000},
        {"containerID": 1000, "hostID": 0, "size": 1},
        {"containerID": 1001, "hostID": 101_001, "size": 5000}
    ]);
    bundle.set(json!({"linux": {"uidMappings": maps, "gidMappings": maps}}));
    let seen = t.see(&bundle);
    assert_eq!(map(&seen["uid_map"]), [[0, 100_000, 1000], [1000, 0, 1], [1001, 101_001, 5000]]);
}

fn a_user_namespace_with_every_other_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace().namespace("cgroup", None);
    let seen = t.see(&bundle);
    for (kind, file) in KINDS {
        assert_ne!(seen["ns"][file], own(file), "{kind}");
    }
    // All of them belong to it: root in there may do what root does.
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    let script = "hostname new && hostname; ip link set lo down && mount -t tmpfs x /tmp && echo done";
    assert_eq!(t.sh(&bundle, script), "new\ndone\n");
}

fn a_user_namespace_can_be_joined(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.user_namespace();
    let other = t.container(&bundle);
    other.launch();
    let pid = other.pid();
    let mut bundle = t.bundle();
    bundle.user_namespace().set(json!({"linux": {"uidMappings": null, "gidMappings": null}, "hostname": ""}));
    for (kind, file) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
    }
    let seen = t.see(&bundle);
    for file in ["user", "net", "ipc", "uts"] {
        assert_eq!(seen["ns"][file], procs::link(format!("/proc/{pid}/ns/{file}")), "{file}");
    }
    assert_eq!(seen["status"]["Uid"], "0 0 0 0");
    other.force_delete();
}

fn a_joined_user_namespace_with_the_same_mappings_in_the_config(t: &T) {
    // containerd and CRI-O send both.
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.user_namespace();
    let other = t.container(&bundle);
    other.launch();
    let path = format!("/proc/{}/ns/user", other.pid());
    let mut bundle = t.bundle();
    bundle.user_namespace().namespace("user", Some(&path));
    assert_eq!(t.see(&bundle)["ns"]["user"], procs::link(&path));
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    bundle.set(json!({"linux": {"uidMappings": map, "gidMappings": map}}));
    t.container(&bundle).create().fails();
    other.force_delete();
}

fn root_of_a_user_namespace_owns_its_files(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let script = "touch /tmp/new && stat -c '%u %g' /tmp/new /etc/passwd; stat -c %u /proc/1/status";
    assert_eq!(t.sh(&bundle, script), "0 0\n0 0\n0\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&bundle.file("/tmp/new").metadata().unwrap());
    assert_eq!(owner, 100_000);
}

fn a_cgroup_namespace_begins_at_the_containers_cgroup(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("cgroup", None);
    let text = t.sh(&bundle, "cat /proc/self/cgroup");
    let hierarchies = if t.host.cgroup_v2 { vec![""] } else { vec!["memory", "devices", "freezer", "pids"] };
    for name in hierarchies {
        let line = text.lines().find(|line| line.split(':').nth(1) == Some(name)).unwrap();
        assert!(line.ends_with(":/"), "{line}");
    }
}

fn without_a_cgroup_namespace_the_path_is_the_hosts(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let text = container.exec_sh("cat /proc/1/cgroup");
    assert_eq!(text, std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap());
    assert!(text.contains(&container.id), "{text}");
    container.force_delete();
}

fn time(t: &T) -> crate::harness::Bundle {
    let mut bundle = t.bundle();
    bundle.namespace("time", None).set(json!({"linux": {"timeOffsets": {
        "monotonic": {"secs": 100_000, "nanosecs": 500}, "boottime": {"secs": 200_000}
    }}}));
    bundle
}

fn offsets(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

const OFFSETS: [[&str; 3]; 2] = [["monotonic", "100000", "500"], ["boottime", "200000", "0"]];

fn a_time_namespace_has_its_offsets(t: &T) {
    let text = t.sh(&time(t), "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime");
    let (clocks, uptime) = text.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(offsets(clocks), OFFSETS);
    assert!(uptime.parse::<u64>().unwrap() > 200_000, "{uptime}");
}

fn a_time_namespace_reaches_an_exec(t: &T) {
    let container = t.container(&time(t).args(&["sleep", "1000"]));
    container.launch();
    assert_eq!(offsets(&container.exec_sh("cat /proc/self/timens_offsets")), OFFSETS);
    let link = procs::link(format!("/proc/{}/ns/time", container.pid()));
    assert_eq!(container.exec_sh("readlink /proc/self/ns/time").trim(), link);
    container.force_delete();
}

fn a_time_namespace_can_be_joined(t: &T) {
    let container = t.container(&time(t).args(&["sleep", "1000"]));
    container.launch();
    let path = format!("/proc/{}/ns/time", container.pid());
    let mut bundle = t.bundle();
    bundle.namespace("time", Some(&path));
    assert_eq!(t.see(&bundle)["ns"]["time"], procs::link(&path));
    container.force_delete();
}

fn a_namespace_file_of_another_kind_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("ipc", Some("/proc/self/ns/uts"));
    let message = t.refused(&bundle);
    assert!(message.contains("/proc/self/ns/uts"), "{message}");
}

fn a_namespace_path_that_is_not_there_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("ipc", Some("/no/such/file"));
    let message = t.refused(&bundle);
    assert!(message.contains("/no/such/file"), "{message}");
}

fn a_namespace_path_that_is_no_namespace_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("ipc", Some("/etc/passwd"));
    t.refused(&bundle);
}

fn a_container_in_the_hosts_mounts(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.without_namespace("mount");
    bundle.set(json!({"linux": {"maskedPaths": [], "readonlyPaths": []}}));
    let ours = |container: &Container| {
        let rootfs = container.bundle.dir.join("rootfs").to_string_lossy().into_owned();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().filter(|line| line.contains(&rootfs)).count()
    };
    let container = t.container(&bundle);
    container.launch();
    assert!(ours(&container) > 3, "its mounts are the host's");
    let own = procs::link("/proc/self/ns/mnt");
    assert_eq!(procs::link(format!("/proc/{}/ns/mnt", container.pid())), own);
    assert_eq!(
        container.exec_sh("ls -d /proc/1/root/bin /bin; cat /proc/1/cmdline | tr '\\0' ' '"),
        "/bin\n/proc/1/root/bin\nsleep 1000 "
    );
    container.force_delete();
    assert_eq!(ours(&container), 0, "they go with it");
    bundle.set(json!({"process": {"args": ["/nothing/here"]}}));
    let container = t.container(&bundle);
    container.create().fails();
    assert_eq!(ours(&container), 0, "nor does a failed one leave any");
}

fn an_exec_is_in_every_namespace(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.user_namespace().namespace("cgroup", None);
    let container = t.container(&bundle);
    container.launch();
    for (kind, file) in KINDS {
        let inside = container.exec(&["readlink", &format!("/proc/self/ns/{file}")]).ok().stdout;
        assert_eq!(inside.trim(), procs::link(format!("/proc/{}/ns/{file}", container.pid())), "{kind}");
    }
    container.force_delete();
}

fn an_exec_from_the_hosts_pid_namespace(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.without_namespace("pid");
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec(&["readlink", "/proc/self/ns/pid"]).ok().stdout.trim(), own("pid"));
    container.force_delete();
}

fn processes_of_a_shared_pid_namespace_end_with_the_container(t: &T) {
    let mut bundle = t.bundle().script("sleep 1000 & sleep 1000 & echo ready; wait");
    bundle.without_namespace("pid");
    let container = t.container(&bundle);
    let out = container.launch();
    procs::wait_until(t.seconds(5), || std::fs::read(&out.stdout_file).unwrap() == b"ready\n");
    let pids = container.verb(&["ps", "--format", "json"]).run().ok().json();
    let pids: Vec<i32> = serde_json::from_value(pids).unwrap();
    assert_eq!(pids.len(), 3, "{pids:?}");
    container.kill("KILL").ok();
    container.await_stop();
    container.delete().ok();
    let gone = procs::wait_until(t.seconds(5), || !pids.iter().any(|pid| procs::is_alive(*pid)));
    assert!(gone, "{pids:?} are left");
}

fn orphans_of_a_pid_namespace_end_with_it(t: &T) {
    let bundle = t.bundle().script("setsid sleep 1000 & exit 3");
    assert_eq!(t.container(&bundle).run().code, Some(3));
}
