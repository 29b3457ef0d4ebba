//! config.md, "POSIX process": rlimits.

use crate::harness::test::SYS_RESOURCE;
use crate::harness::{T, Test};
use crate::{below, test};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(every_limit_is_the_configs),
    test!(a_limit_can_be_raised).needs(&[SYS_RESOURCE]),
    test!(a_limit_that_cannot_be_raised_is_an_error),
    test!(other_limits_are_the_callers)
        .runc_fails(below!("1.2", "the soft limit of open files that Go raises for itself stays")),
    test!(a_limit_is_in_force),
    test!(an_exec_has_the_containers_limits),
    test!(unlimited_is_the_largest_number),
];

fn limit(text: &Value, name: &str) -> [String; 2] {
    let text = text.as_str().unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    let mut words = line[26..].split_whitespace();
    [(); 2].map(|()| words.next().unwrap().to_owned())
}

fn every_limit_is_the_configs(t: &T) {
    // Name in config.json, in /proc/self/limits, soft, hard.
    let table = [
        ("RLIMIT_CORE", "Max core file size", 0, 4096),
        ("RLIMIT_CPU", "Max cpu time", 100, 200),
        ("RLIMIT_DATA", "Max data size", 1 << 30, 1 << 31),
        ("RLIMIT_FSIZE", "Max file size", 1 << 20, 1 << 21),
        ("RLIMIT_LOCKS", "Max file locks", 10, 11),
        ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 4096, 8192),
        ("RLIMIT_NICE", "Max nice priority", 0, 0),
        ("RLIMIT_NOFILE", "Max open files", 100, 200),
        ("RLIMIT_NPROC", "Max processes", 1000, 2000),
        ("RLIMIT_RSS", "Max resident set", 1 << 30, 1 << 31),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
        ("RLIMIT_RTTIME", "Max realtime timeout", 1000, 2000),
        ("RLIMIT_SIGPENDING", "Max pending signals", 10, 20),
        ("RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 22),
        ("RLIMIT_AS", "Max address space", 1 << 32, 1 << 33),
    ];
    let rlimits: Vec<Value> =
        table.iter().map(|(kind, _, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard})).collect();
    let seen = t.see(&t.bundle().with(json!({"process": {"rlimits": rlimits}})));
    for (kind, name, soft, hard) in table {
        let soft: u64 = soft;
        assert_eq!(limit(&seen["limits"], name), [soft.to_string(), u64::to_string(&hard)], "{kind}");
    }
}

fn a_limit_can_be_raised(t: &T) {
    let rlimits = json!([{"type": "RLIMIT_NOFILE", "soft": 4000, "hard": 5000}]);
    let bundle = t.bundle().with(json!({"process": {"rlimits": rlimits}})).script("ulimit -Sn; ulimit -Hn");
    let out = t.container(&bundle).make(&["run"]).after("ulimit -n 3000").run().ok();
    assert_eq!(out.stdout, "4000\n5000\n");
}

fn a_limit_that_cannot_be_raised_is_an_error(t: &T) {
    if t.host.capabilities & 1 << 24 != 0 {
        t.skip("CAP_SYS_RESOURCE raises every limit");
    }
    let rlimits = json!([{"type": "RLIMIT_NOFILE", "soft": 4000, "hard": 5000}]);
    let container = t.container(&t.bundle().with(json!({"process": {"rlimits": rlimits}})));
    let out = container.make(&["create"]).after("ulimit -n 3000").run().fails();
    assert!(out.message().contains("not permitted"), "{}", out.message());
    t.nothing_is_left(&container);
}

fn other_limits_are_the_callers(t: &T) {
    // Go's runtime raises the soft limit of open files for itself.
    let mut bundle = t.bundle().script("ulimit -Sn; ulimit -Hn; ulimit -c");
    bundle.set(json!({"process": {"rlimits": null}}));
    let caller = "ulimit -Sn 512; ulimit -Hn 900; ulimit -c 7";
    let out = t.container(&bundle).make(&["run"]).after(caller).run().ok();
    assert_eq!(out.stdout, "512\n900\n7\n");
}

fn a_limit_is_in_force(t: &T) {
    let rlimits = json!([{"type": "RLIMIT_FSIZE", "soft": 1024, "hard": 1024}]);
    let bundle = t.bundle().with(json!({"process": {"rlimits": rlimits}}));
    let script = "sh -c 'dd if=/dev/zero of=/tmp/f bs=2048 count=2' 2>/dev/null; stat -c %s /tmp/f";
    assert_eq!(t.sh(&bundle, script), "1024\n");
}

fn an_exec_has_the_containers_limits(t: &T) {
    let rlimits = json!([{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]);
    let bundle = t.bundle().with(json!({"process": {"rlimits": rlimits, "args": ["sleep", "1000"]}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("ulimit -Sn; ulimit -Hn"), "123\n456\n");
    container.force_delete();
}

fn unlimited_is_the_largest_number(t: &T) {
    let rlimits = json!([{"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX}]);
    let bundle = t.bundle().with(json!({"process": {"rlimits": rlimits}}));
    assert_eq!(t.sh(&bundle, "ulimit -Sc; ulimit -Hc"), "unlimited\nunlimited\n");
}
