//! `events`: what go-runc and what stands on it reads, in the shape of runc's `types/events.go`.

use crate::cgroups::limited;
use crate::harness::{Call, Container, Need, T, Test};
use crate::{always, test};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub const TESTS: &[Test] = &[
    test!(figures_have_runcs_keys).needs(&[Need::Peer, Need::Ours("compared with runc")]),
    test!(figures_are_those_of_the_cgroup).needs(&[Need::Controller("memory"), Need::Controller("pids")]),
    test!(a_lack_of_memory_is_an_event).needs(&[Need::Controller("memory")]),
    test!(every_kill_is_an_event).needs(&[Need::CgroupV2, Need::Controller("memory"), OURS]),
    test!(pressure_is_among_the_figures).needs(&[Need::CgroupV2, Need::Runc("1.2", "PSI")]),
    test!(figures_follow_each_other_to_the_end)
        .runc_fails(always!("on cgroup v1 it goes on until the cgroup is removed")),
    test!(an_interval_of_nothing_is_refused),
    test!(a_paused_container_has_figures),
    test!(a_container_without_a_cgroup_has_no_figures).needs(&[Need::CgroupFs, OURS]),
];

const OURS: Need = Need::Ours("the events are");

/// Pointers of everything in a document; what stands in a list is named once.
fn keys(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                keys(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, &format!("{at}/-"), found)),
        _ => drop(found.insert(at.to_owned())),
    }
}

/// Whether a key can be absent for a good reason: its value is zero at one of the two moments, or that runc does not have it yet.
fn explained(key: &str, old: bool) -> bool {
    // Zeroes are left out; and below systemd runc hands down every controller on its way, so hugetlb is there behind it.
    let of_a_moment = [
        "/data/blkio/",
        "/data/cpu/throttling/",
        "/data/memory/cache",
        "/max",
        "/usage/percpu",
        "/data/hugetlb/",
    ];
    // runc has PSI since 1.2, the count of memory's events since 1.3.
    let new = ["/psi", "/data/memory/event_count"];
    of_a_moment.iter().any(|part| key.contains(part)) || old && new.iter().any(|part| key.contains(part))
}

fn figures_have_runcs_keys(t: &T) {
    let peer = t.peer.clone().expect("a peer");
    let bundle = t
        .bundle()
        .args(&["sh", "-c", "cat /bin/busybox /bin/busybox >/tmp/x; sleep 1000"])
        .with(json!({"linux": {"resources": {"memory": {"limit": 104_857_600}, "pids": {"limit": 50}}}}));
    let figures = |runtime| {
        let container = t.container(&bundle);
        container.bundle.save();
        let dir = container.bundle.dir.to_string_lossy().into_owned();
        let call = |words: &[&str]| Call::new(t, runtime, words).run().ok();
        call(&["create", "--bundle", &dir, &container.id]);
        call(&["start", &container.id]);
        let figures = call(&["events", "--stats", &container.id]).json();
        call(&["delete", "--force", &container.id]);
        assert_eq!(figures["id"], container.id.as_str());
        let mut found = BTreeSet::new();
        keys(&figures, "", &mut found);
        found
    };
    let (ours, theirs) = (figures(&t.runtime), figures(&peer));
    let differ: Vec<_> = ours
        .symmetric_difference(&theirs)
        .filter(|key| !explained(key, !theirs.contains("/data/memory/event_count")))
        .collect();
    assert!(differ.is_empty(), "only one of us and {} has {differ:?}", peer.label);
    for key in [
        "/type",
        "/data/cpu/usage/total",
        "/data/cpu/usage/kernel",
        "/data/memory/usage/limit",
        "/data/pids/limit",
    ] {
        assert!(ours.contains(key), "{key} is not in {ours:?}");
    }
}

fn stats(container: &Container) -> Value {
    let event = container.verb(&["events", "--stats"]).run().ok().json();
    assert_eq!(event["type"], "stats");
    event["data"].clone()
}

fn figures_are_those_of_the_cgroup(t: &T) {
    let resources = json!({"memory": {"limit": 104_857_600}, "pids": {"limit": 50}});
    let container = limited(t, resources);
    let data = stats(&container);
    assert_eq!(data["memory"]["usage"]["limit"], 104_857_600);
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| (1..104_857_600).contains(&bytes)));
    assert_eq!(data["pids"], json!({"current": 1, "limit": 50}));
    assert_eq!(data["memory"]["kernelTCP"]["failcnt"], 0);
    assert_eq!(data["network_interfaces"], Value::Null);
    assert_eq!(data["intel_rdt"], json!({}));
    let raw = data["memory"]["raw"].as_object().expect("memory.stat");
    assert!(raw.contains_key(if t.host.cgroup_v2 { "anon" } else { "rss" }), "{raw:?}");
    if !t.host.cgroup_v2 {
        assert_eq!(data["cpuset"]["sched_load_balance"], 1);
        assert_eq!(data["cpuset"]["mems"], json!([0]));
    }
    container.exec_sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    let later = stats(&container);
    let total = |data: &Value| data["cpu"]["usage"]["total"].as_u64().unwrap_or(0);
    assert!(total(&later) > total(&data), "{later}");
    container.force_delete();
}

/// Uses more memory than there is, without ending the container.
const TOO_MUCH: &str = "dd if=/dev/zero of=/dev/null bs=200M count=1; true";

fn small(t: &T) -> Container<'_> {
    limited(t, json!({"memory": {"limit": 20_971_520, "swap": 20_971_520}}))
}

fn a_lack_of_memory_is_an_event(t: &T) {
    if !t.host.cgroup_v2 && !t.host.hierarchies["memory"].join("memory.memsw.limit_in_bytes").exists() {
        t.skip("no swap accounting");
    }
    let container = small(t);
    let mut events = container.verb(&["events", "--interval", "100ms"]).spawn();
    events.await_output("\"stats\"");
    container.exec(&["sh", "-c", TOO_MUCH]);
    events.await_output("\"oom\"");
    let line = format!(r#"{{"type":"oom","id":"{}"}}"#, container.id);
    assert!(events.printed().lines().any(|printed| printed == line), "{}", events.printed());
    assert!(!events.has_ended(), "the container goes on");
    container.force_delete();
    events.wait().ok();
}

fn every_kill_is_an_event(t: &T) {
    let container = small(t);
    let events = container.verb(&["events", "--interval", "100ms"]).spawn();
    events.await_output("\"stats\"");
    for _ in 0..3 {
        container.exec(&["sh", "-c", TOO_MUCH]);
    }
    let kills = stats(&container)["memory"]["event_count"]["oom_kill"].as_u64().expect("kills");
    assert!(kills >= 3, "{kills}");
    container.force_delete();
    let printed = events.wait().ok().stdout;
    assert_eq!(printed.matches("\"oom\",").count() as u64, kills, "{printed}");
}

fn pressure_is_among_the_figures(t: &T) {
    if !std::path::Path::new("/proc/pressure/cpu").exists() {
        t.skip("this kernel measures no pressure");
    }
    let container = limited(t, json!({}));
    let data = stats(&container);
    for part in ["cpu", "memory", "blkio"] {
        let psi = &data[part]["psi"];
        assert!(psi["some"].is_object() && psi["full"].is_object(), "{part}: {psi}");
    }
    container.force_delete();
}

fn figures_follow_each_other_to_the_end(t: &T) {
    let container = limited(t, json!({}));
    let events = container.verb(&["events", "--interval=50ms"]).spawn();
    events.await_output("}\n{");
    container.kill("KILL").ok();
    let out = events.wait().ok();
    for line in out.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id)));
    }
    container.await_stop();
    container.verb(&["events", "--stats"]).run().fails();
    container.force_delete();
}

fn an_interval_of_nothing_is_refused(t: &T) {
    let container = limited(t, json!({}));
    for interval in ["0", "0s", "-1s"] {
        let out = container.verb(&["events", "--interval", interval]).run().fails();
        assert!(out.message().contains("interval"), "{}", out.message());
    }
    container.force_delete();
}

fn a_paused_container_has_figures(t: &T) {
    let container = limited(t, json!({}));
    container.verb(&["pause"]).run().ok();
    assert!(stats(&container)["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0));
    container.force_delete();
}

fn a_container_without_a_cgroup_has_no_figures(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.bundle.save();
    let bundle = container.bundle.dir.to_string_lossy().into_owned();
    let state = t.state_dir().to_string_lossy().into_owned();
    let words =
        ["--root", &state, "--cgroup-manager", "disabled", "create", "--bundle", &bundle, &container.id];
    t.call(&words).bare().run().ok();
    container.start().ok();
    for words in [&["events", "--stats"][..], &["pause"], &["ps"]] {
        let out = container.verb(words).run().fails();
        assert!(out.message().contains("cgroups not configured for container"), "{}", out.message());
    }
    container.force_delete();
}
