//! config-linux.md, "Sysctl".

use crate::harness::{T, Test};
use crate::test;
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(a_network_sysctl_is_set),
    test!(an_ipc_sysctl_is_set),
    test!(a_message_queue_sysctl_is_set),
    test!(a_sysctl_with_slashes_is_set),
    test!(the_hosts_sysctls_stay),
    test!(a_sysctl_in_a_user_namespace_is_set),
    test!(a_sysctl_that_is_not_there_is_an_error),
    test!(a_sysctl_s_bad_value_is_an_error),
    test!(sysctls_of_the_host_are_refused),
    test!(a_sysctl_in_a_joined_network_is_set),
];

fn a_network_sysctl_is_set(t: &T) {
    let sysctl = json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "777"});
    let bundle = t.bundle().with(json!({"linux": {"sysctl": sysctl}}));
    let text = t.sh(&bundle, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn");
    assert_eq!(text, "1\n777\n");
}

fn an_ipc_sysctl_is_set(t: &T) {
    let sysctl = json!({"kernel.shmmax": "65536", "kernel.sem": "100 1000 10 50", "kernel.msgmnb": "4096"});
    let bundle = t.bundle().with(json!({"linux": {"sysctl": sysctl}}));
    let text = t.sh(&bundle, "cd /proc/sys/kernel; cat shmmax msgmnb; tr '\\t' ' ' < sem");
    assert_eq!(text, "65536\n4096\n100 1000 10 50\n");
}

fn a_message_queue_sysctl_is_set(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"sysctl": {"fs.mqueue.queues_max": "33"}}}));
    assert_eq!(t.sh(&bundle, "cat /proc/sys/fs/mqueue/queues_max"), "33\n");
}

fn a_sysctl_with_slashes_is_set(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"sysctl": {"net/ipv4/ip_forward": "1"}}}));
    assert_eq!(t.sh(&bundle, "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

fn the_hosts_sysctls_stay(t: &T) {
    let host = || std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let before = host();
    let bundle = t.bundle().with(json!({"linux": {"sysctl": {"net.core.somaxconn": "777"}}}));
    assert_eq!(t.sh(&bundle, "cat /proc/sys/net/core/somaxconn"), "777\n");
    assert_eq!(host(), before);
}

fn a_sysctl_in_a_user_namespace_is_set(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace().set(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}));
    assert_eq!(t.sh(&bundle, "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

fn a_sysctl_that_is_not_there_is_an_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"sysctl": {"net.ipv4.no_such_thing": "1"}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("no_such_thing") && message.contains("no such file"), "{message}");
}

fn a_sysctl_s_bad_value_is_an_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "many"}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("ip_forward") && message.contains("invalid argument"), "{message}");
}

fn sysctls_of_the_host_are_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.without_namespace("network").without_namespace("ipc");
    for (key, says) in [
        ("net.ipv4.ip_forward", "not allowed in host network namespace"),
        ("kernel.shmmax", "is not allowed in the hosts ipc namespace"),
        ("vm.overcommit_memory", "is not in a separate kernel namespace"),
        ("kernel.core_pattern", "is not in a separate kernel namespace"),
    ] {
        let message = t.refused(&bundle.with(json!({"linux": {"sysctl": {key: "1"}}})));
        assert!(message.contains(says) && message.contains(key), "{message}");
    }
    let message = t.refused(&t.bundle().with(json!({"linux": {"sysctl": {"kernel.hostname": "x"}}})));
    assert!(message.contains("conflicts with the OCI \"hostname\" field"), "{message}");
}

fn a_sysctl_in_a_joined_network_is_set(t: &T) {
    let other = t.container(&t.bundle().args(&["sleep", "1000"]));
    other.launch();
    let mut bundle = t.bundle();
    bundle.namespace("network", Some(&format!("/proc/{}/ns/net", other.pid())));
    bundle.set(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}));
    t.sh(&bundle, "true");
    assert_eq!(other.exec_sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    other.force_delete();
}
