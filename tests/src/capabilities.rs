//! config.md, "Linux Process": capabilities, all five sets.

use crate::harness::{T, Test};
use crate::{below, test};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(every_set_is_the_configs),
    test!(without_capabilities_they_are_the_callers).runc_fails(below!("1.2", "drops all of them")),
    test!(an_unknown_capability_is_left_out_with_a_warning),
    test!(a_user_has_only_what_is_ambient),
    test!(a_user_with_ambient_capabilities_keeps_them),
    test!(an_exec_has_the_containers_capabilities),
    test!(an_exec_may_have_more),
    test!(an_exec_s_more_leaves_the_other_sets),
    test!(an_exec_as_a_user_has_none),
    test!(a_missing_capability_is_missing),
    test!(without_a_bounding_set_there_is_none),
    test!(a_bounding_set_holds_back_setuid_root),
    test!(what_waits_for_its_start_has_no_more_than_its_filter_takes),
];

const KILL: u64 = 1 << 5;
const BIND: u64 = 1 << 10;
const CHROOT: u64 = 1 << 18;
const CHOWN: u64 = 1;

/// Inheritable, permitted, effective, bounding and ambient.
fn sets(seen: &Value) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|field| u64::from_str_radix(seen["status"][field].as_str().unwrap(), 16).unwrap())
}

fn of_exec(text: &str) -> [u64; 5] {
    let words: Vec<&str> = text.split_whitespace().collect();
    [1, 3, 5, 7, 9].map(|at| u64::from_str_radix(words[at], 16).unwrap())
}

fn every_set_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"capabilities": {
        "bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"],
        "effective": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_KILL"]
    }}}));
    // What is permitted becomes effective when root executes a program.
    let permitted = KILL | BIND | CHOWN;
    let bounding = permitted | CHROOT;
    assert_eq!(sets(&t.see(&bundle)), [KILL | BIND, permitted, permitted, bounding, KILL]);
    let user = bundle.with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(sets(&t.see(&user)), [KILL | BIND, KILL, KILL, bounding, KILL]);
}

fn without_capabilities_they_are_the_callers(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"capabilities": null}}));
    let own = t.host.capabilities;
    assert_eq!(sets(&t.see(&bundle))[1..4], [own; 3]);
}

fn an_unknown_capability_is_left_out_with_a_warning(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_KILL", "CAP_NO_SUCH"]);
    bundle.add_probe(t);
    let out = t.run(&bundle, &["/bin/probe", "see"]).ok();
    assert_eq!(sets(&out.json()), [0, KILL, KILL, KILL, 0]);
    let warnings = out.warnings();
    assert!(warnings.iter().any(|line| line.contains("CAP_NO_SUCH")), "{warnings:?}");
}

fn a_user_has_only_what_is_ambient(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_KILL"]).set(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(sets(&t.see(&bundle)), [0, 0, 0, KILL, 0]);
}

fn a_user_with_ambient_capabilities_keeps_them(t: &T) {
    let kill = json!(["CAP_KILL"]);
    let bundle = t.bundle().with(json!({"process": {
        "user": {"uid": 1000, "gid": 1000},
        "capabilities": {"bounding": kill, "permitted": kill, "effective": kill, "inheritable": kill, "ambient": kill}
    }}));
    assert_eq!(sets(&t.see(&bundle)), [KILL; 5]);
}

fn an_exec_has_the_containers_capabilities(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_KILL", "CAP_CHOWN"]);
    let container = t.container(&bundle);
    container.launch();
    let seen = of_exec(&container.exec_sh("grep ^Cap /proc/self/status"));
    assert_eq!(seen, [0, KILL | CHOWN, KILL | CHOWN, KILL | CHOWN, 0]);
    container.force_delete();
}

fn an_exec_may_have_more(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_KILL"]);
    let container = t.container(&bundle);
    container.launch();
    let flags = ["--cap", "CAP_SYS_CHROOT"];
    let out = container.exec_with(&flags, &["grep", "^Cap", "/proc/self/status"]).run().ok();
    let seen = of_exec(&out.stdout);
    assert_eq!(seen[0], 0, "inheritable");
    assert_eq!(seen[1..4], [KILL | CHROOT; 3]);
    assert_eq!(seen[4], 0, "ambient");
    container.force_delete();
}

fn an_exec_s_more_leaves_the_other_sets(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]).with(json!({"process": {
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYS_CHROOT"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": [],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"]
        }
    }}));
    let container = t.container(&bundle);
    container.launch();
    let seen = of_exec(&container.exec_sh("grep ^Cap /proc/self/status"));
    let bounding = KILL | CHOWN | CHROOT;
    assert_eq!(seen, [CHOWN, KILL | CHOWN, KILL | CHOWN, bounding, CHOWN]);
    let out =
        container.exec_with(&["--cap", "CAP_SYS_CHROOT"], &["grep", "^Cap", "/proc/self/status"]).run().ok();
    assert_eq!(of_exec(&out.stdout), [CHOWN, bounding, bounding, bounding, CHOWN]);
    container.force_delete();
}

fn an_exec_as_a_user_has_none(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_KILL"]);
    let container = t.container(&bundle);
    container.launch();
    let out = container.exec_with(&["-u", "1000:1000"], &["grep", "^Cap", "/proc/self/status"]).run().ok();
    assert_eq!(of_exec(&out.stdout), [0, 0, 0, KILL, 0]);
    container.force_delete();
}

fn a_missing_capability_is_missing(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_KILL"]);
    let text = t.sh(&bundle, "chown 1:1 /tmp 2>&1; hostname x 2>&1; mount -t tmpfs x /tmp 2>&1; true");
    assert_eq!(text.matches("not permitted").count() + text.matches("ermission denied").count(), 3, "{text}");
}

fn without_a_bounding_set_there_is_none(t: &T) {
    let sets = |effective: &[&str]| json!({"process": {"capabilities": {"effective": effective, "inheritable": effective, "permitted": effective, "ambient": []}}});
    let mut bundle = t.bundle();
    bundle.set(json!({"process": {"capabilities": null}}));
    bundle.set(sets(&[]));
    let text = t.sh(&bundle, "grep ^Cap /proc/self/status | cut -f2");
    assert_eq!(text, "0000000000000000\n".repeat(5));
    // capabilities(7): what is to be inherited has to be in it.
    bundle.set(sets(&["CAP_SYS_ADMIN"]));
    let out = t.container(&bundle.args(&["true"])).run().fails();
    assert!(out.message().contains("operation not permitted"), "{}", out.message());
}

fn a_bounding_set_holds_back_setuid_root(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_KILL"]);
    bundle.set(json!({"process": {"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": false}}));
    let cat = bundle.file("/opt/cat");
    std::fs::create_dir_all(cat.parent().unwrap()).unwrap();
    std::fs::copy(bundle.file("/bin/busybox"), &cat).unwrap();
    std::fs::set_permissions(&cat, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let out = t.run(&bundle, &["/opt/cat", "/proc/self/status"]).ok();
    let field = |name| crate::harness::procs::field_of(&out.stdout, name).unwrap();
    // busybox gives its set-user-ID up at once, but the bounding set is what it could have had.
    assert_eq!(u64::from_str_radix(&field("CapBnd"), 16).unwrap(), KILL);
    assert!(u64::from_str_radix(&field("CapPrm"), 16).unwrap() & !KILL == 0, "{}", field("CapPrm"));
}

/// Whoever is brought into the container meanwhile may be allowed to trace it.
fn what_waits_for_its_start_has_no_more_than_its_filter_takes(t: &T) {
    const ADMIN: u64 = 1 << 21;
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_KILL"]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kcmp"], "action": "SCMP_ACT_ERRNO"}]});
    for (no_new_privileges, most) in [(true, KILL), (false, KILL | ADMIN)] {
        bundle.set(json!({
            "process": {"args": ["sleep", "1000"], "noNewPrivileges": no_new_privileges}, "linux": {"seccomp": profile}
        }));
        let container = t.container(&bundle);
        container.create().ok();
        let held = |name| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
            u64::from_str_radix(&crate::harness::procs::field_of(&status, name).unwrap(), 16).unwrap()
        };
        assert_eq!(held("CapPrm") & !most, 0, "{no_new_privileges}");
        container.start().ok();
        crate::harness::procs::wait_until(t.seconds(5), || held("CapPrm") == KILL);
        assert_eq!([held("CapPrm"), held("CapEff"), held("CapBnd")], [KILL; 3]);
        container.force_delete();
    }
}
