//! CVE-2016-3697, 2026-30892, 2022-29162, 2021-43784: who a process is, and what it may.

use crate::harness::{Need, T, Test};
use crate::{below, test};
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(cve_2026_30892_a_user_is_a_whole_number).runc_fails(below!("1.4", "takes some of these")),
    test!(cve_2026_30892_fine_users_are_taken),
    test!(cve_2016_3697_a_number_is_no_name),
    test!(cve_2024_40635_a_number_does_not_wrap),
    test!(cve_2022_29162_inheritable_capabilities_are_empty),
    test!(cve_2023_25173_a_negative_group_stays),
    test!(cve_2021_43784_long_strings_are_only_long),
    test!(annotations_do_nothing).needs(&[Need::CgroupFs]),
    test!(annotations_of_systemd_are_on_a_list).needs(&[Need::Systemd, Need::Ours("runc sets any property")]),
    test!(an_execs_cgroup_does_not_climb).needs(&[Need::CgroupFs, Need::Runc("1.1", "exec --cgroup")]),
    test!(cve_2023_25809_a_bound_cgroup_is_read_only),
];

fn sleeper(t: &T) -> crate::harness::Container<'_> {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container
}

fn cve_2026_30892_a_user_is_a_whole_number(t: &T) {
    let container = sleeper(t);
    for user in [
        " ",
        "-1",
        "+1",
        "1x",
        "x1",
        "0x0",
        " 1",
        "1 ",
        "1\n",
        "1:",
        ":1",
        ":",
        "1:x",
        "1:-1",
        "1:2:3",
        "1.0",
        "1e3",
        "root",
        "4294967295",
        "4294967296",
        "18446744073709551617",
        "1:4294967296",
        "١",
    ] {
        let out = container.exec_with(&["--user", user], &["id", "-u"]).run();
        assert!(out.code != Some(0) && out.stdout.is_empty(), "{user:?}: {out:?}");
    }
    container.force_delete();
}

fn cve_2026_30892_fine_users_are_taken(t: &T) {
    let container = sleeper(t);
    for (user, want) in
        [("0", "0\n0\n"), ("1", "1\n0\n"), ("1:1", "1\n1\n"), ("65534:65534", "65534\n65534\n")]
    {
        let out = container.exec_with(&["--user", user], &["sh", "-c", "id -u; id -g"]).run().ok();
        assert_eq!(out.stdout, want, "{user}");
    }
    container.force_delete();
}

fn cve_2016_3697_a_number_is_no_name(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    bundle.write("/etc/passwd", "1000:x:0:0:a trap:/root:/bin/sh\n1001:x:0:0::/root:/bin/sh\n");
    bundle.write("/etc/group", "1000:x:0:1000\nwheel:x:10:1000\n");
    let script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '";
    let want = "Uid: 1000 1000 1000 1000\nGid: 1000 1000 1000 1000\nGroups: \n";
    assert_eq!(t.sh(&bundle, script), want);
    let container = t.container(&bundle.args(&["sleep", "1000"]));
    container.launch();
    let out = container.exec_with(&["--user", "1001:1001"], &["sh", "-c", "id -u; id -g; id -G"]).run().ok();
    assert_eq!(out.stdout, "1001\n1001\n1001\n");
    container.force_delete();
}

fn cve_2024_40635_a_number_does_not_wrap(t: &T) {
    for id in ["4294967296", "4294968296", "18446744073709551616", "-1", "1e9", "0.5"] {
        for field in ["uid", "gid"] {
            let text = t
                .bundle()
                .config
                .to_string()
                .replace(&format!("\"{field}\":0"), &format!("\"{field}\":{id}"));
            assert!(text.contains(id), "{text}");
            let dir = t.make_dir("wrapping");
            std::fs::write(dir.join("config.json"), text).unwrap();
            t.call(&["create", "--bundle", &dir.to_string_lossy(), &t.id()]).run().fails();
        }
    }
}

fn cve_2022_29162_inheritable_capabilities_are_empty(t: &T) {
    let container = sleeper(t);
    let field = |text: &str| crate::harness::procs::field_of(text, "CapInh").unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert_eq!(field(&seen), "0000000000000000", "run");
    for flags in [
        &[][..],
        &["--cap", "CAP_SYS_CHROOT"],
        &["--user", "1000:1000"],
        &["--user", "1:1", "--cap", "CAP_KILL"],
    ] {
        let out = container.exec_with(flags, &["cat", "/proc/self/status"]).run().ok();
        assert_eq!(field(&out.stdout), "0000000000000000", "exec {flags:?}");
    }
    container.force_delete();
}

fn cve_2023_25173_a_negative_group_stays(t: &T) {
    // A file that a group may not read: whoever is in that group must not lose it on the way.
    let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [29]});
    let bundle = t.bundle().with(json!({"process": {"user": user, "args": ["sleep", "1000"]}}));
    let file = bundle.write("/not-for-29", "text");
    std::os::unix::fs::chown(&file, Some(0), Some(29)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    let container = t.container(&bundle);
    container.launch();
    container.exec(&["cat", "/not-for-29"]).fails();
    container.force_delete();
}

fn cve_2021_43784_long_strings_are_only_long(t: &T) {
    // 64 kB and a little: lengths of 16 bits begin anew there.
    for length in [65_535, 65_536, 70_000, 131_072] {
        let long = "x".repeat(length);
        let mut bundle = t.bundle();
        bundle.namespace("ipc", Some(&format!("/{long}")));
        t.refused(&bundle);
        let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/bin", format!("LONG={long}")]}}));
        let out = t.run(&bundle, &["sh", "-c", "echo ${#LONG}"]);
        // The kernel takes strings up to 128 kB.
        assert!(out.code != Some(0) || out.stdout == format!("{length}\n"), "{length}: {:?}", out.code);
        let bundle = t.bundle().with(json!({"annotations": {"long": long}}));
        assert_eq!(t.run(&bundle, &["echo", "in"]).ok().stdout, "in\n");
    }
}

fn annotations_do_nothing(t: &T) {
    // Who writes a pod's annotations is not who runs the machine.
    let file = t.path("file").to_string_lossy().into_owned();
    let annotations = json!({
        // Without hooks there is no output for it.
        "run.oci.hooks.stdout": file, "run.oci.hooks.stderr": file, "run.oci.systemd.subgroup": "../../x",
        "run.oci.delegate-cgroup": "../..", "run.oci.seccomp.receiver": "/no/such",
        "run.oci.handler": "krun", "module.wasm.image/variant": "compat",
        "org.systemd.property.ExecStartPre": "'/bin/touch /tmp/x'", "bundle": "/elsewhere", "org.criu.config": "/x"
    });
    let bundle = t.bundle().with(json!({"annotations": annotations}));
    let seen = t.see(&bundle);
    assert_eq!(seen["status"]["Groups"], "");
    assert!(!std::path::Path::new(&file).exists());
    let container = t.container(&bundle.args(&["sleep", "1000"]));
    container.launch();
    assert_eq!(container.state()["bundle"], json!(container.bundle.dir));
    assert!(container.cgroup_dir(if t.host.cgroup_v2 { "" } else { "pids" }).ends_with(&container.id));
    container.force_delete();
}

fn annotations_of_systemd_are_on_a_list(t: &T) {
    for (name, value) in [
        ("ExecStartPre", "'/bin/touch /tmp/x'"),
        ("Slice", "'other.slice'"),
        ("DevicePolicy", "'auto'"),
        ("Delegate", "false"),
        ("DeviceAllow", "[('/dev/sda', 'rwm')]"),
        ("User", "'root'"),
    ] {
        let mut bundle = t.bundle().args(&["sleep", "1000"]);
        bundle.own_cgroup = true;
        let id = t.id();
        bundle.set(json!({"annotations": {format!("org.systemd.property.{name}"): value},
            "linux": {"cgroupsPath": format!("system.slice:cofferdam-test:{id}")}}));
        bundle.save();
        let dir = bundle.dir.to_string_lossy().into_owned();
        let state = t.state_dir().to_string_lossy().into_owned();
        let words = ["--root", &state, "--systemd-cgroup", "create", "--bundle", &dir, &id];
        let out = t.call(&words).bare().run().fails();
        assert!(out.stderr.contains(name), "{out:?}");
    }
}

fn an_execs_cgroup_does_not_climb(t: &T) {
    let container = sleeper(t);
    let before = container.cgroup_dir(if t.host.cgroup_v2 { "" } else { "memory" });
    for path in ["../..", "/../..", "../../../../../..", "a/../../.."] {
        let word = if t.host.cgroup_v2 { path.to_owned() } else { format!("memory:{path}") };
        let out = container.exec_with(&["--cgroup", &word], &["cat", "/proc/self/cgroup"]).run();
        let inside = before.to_string_lossy();
        let name = inside.rsplit('/').next().unwrap();
        let line =
            out.stdout.lines().find(|line| line.contains(if t.host.cgroup_v2 { "::" } else { ":memory:" }));
        assert!(line.is_none_or(|line| line.contains(name)), "{path}: {out:?}");
    }
    container.force_delete();
}

fn cve_2023_25809_a_bound_cgroup_is_read_only(t: &T) {
    // Without a cgroup namespace a user namespace gets the host's directory bound.
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let script = "find /sys/fs/cgroup -mindepth DEPTH -maxdepth 2 -type d 2>/dev/null | while read d; do mkdir $d/x 2>/dev/null && echo WROTE $d; done; true";
    // On v1 the directory above the hierarchies is a tmpfs of the container's own.
    let depth = if t.host.cgroup_v2 { "0" } else { "1" };
    assert_eq!(t.sh(&bundle, &script.replace("DEPTH", depth)), "");
}
