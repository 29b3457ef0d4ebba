//! config-linux.md, "Network Devices".

use crate::harness::{Bundle, Need, T, Test};
use crate::test;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::process::Command;

pub const TESTS: &[Test] = &[
    test!(a_device_moves_into_the_container).needs(DEVICES),
    test!(a_device_gets_its_new_name).needs(DEVICES),
    test!(addresses_are_kept).needs(DEVICES),
    test!(a_device_moves_into_a_namespace_that_is_joined).needs(DEVICES),
    test!(a_device_moves_into_a_user_namespace).needs(DEVICES),
    test!(several_devices_move).needs(DEVICES),
    test!(a_device_that_is_not_there_is_an_error).needs(DEVICES),
    test!(a_name_that_is_taken_is_an_error).needs(DEVICES),
    test!(a_bad_name_is_refused).needs(SPEC),
    test!(devices_need_a_network_namespace).needs(SPEC),
];

const SPEC: &[Need] = &[Need::Runc("1.4", "network devices")];
const DEVICES: &[Need] = &[Need::File("/sbin/ip"), Need::Runc("1.4", "network devices")];

/// The test, and the calls that it makes, get a network of their own with some devices: v0 to v2, whose peers are p0 to p2.
fn network(t: &T) -> Bundle {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    for number in 0..3 {
        let (device, peer) = (format!("v{number}"), format!("p{number}"));
        let mut made = Command::new("/sbin/ip");
        made.args(["link", "add", &device, "type", "veth", "peer", "name", &peer]);
        if !made.status().is_ok_and(|status| status.success()) {
            t.skip("needs veth devices");
        }
        ip(&["link", "set", &peer, "up"]);
    }
    t.bundle()
}

fn ip(words: &[&str]) -> String {
    let out = Command::new("/sbin/ip").args(words).output().expect("run ip");
    assert!(out.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn a_device_moves_into_the_container(t: &T) {
    let mut bundle = network(t);
    bundle.set(json!({"linux": {"netDevices": {"v0": {}}}}));
    let text = t.sh(&bundle, "ls /sys/class/net | sort; ip link show v0 | grep -c ',UP'");
    assert_eq!(text, "lo\nv0\n1\n");
}

fn a_device_gets_its_new_name(t: &T) {
    let mut bundle = network(t).args(&["sleep", "1000"]);
    bundle.set(json!({"linux": {"netDevices": {"v0": {"name": "eth0"}}}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("ls /sys/class/net | sort"), "eth0\nlo\n");
    assert!(!ip(&["-o", "link"]).contains(": v0@"), "the host still has it");
    container.force_delete();
}

fn addresses_are_kept(t: &T) {
    let mut bundle = network(t);
    ip(&["link", "set", "v0", "up"]);
    ip(&["address", "add", "10.1.2.3/24", "broadcast", "10.1.2.255", "dev", "v0"]);
    ip(&["address", "add", "10.9.0.1", "peer", "10.9.0.2/32", "dev", "v0"]);
    ip(&["address", "add", "169.254.7.7/16", "scope", "link", "dev", "v0"]);
    let v6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    if v6 {
        ip(&["address", "add", "fd00::7/64", "dev", "v0", "nodad"]);
    }
    bundle.set(json!({"linux": {"netDevices": {"v0": {"name": "net1"}}}}));
    let text = t.sh(&bundle, "ip address show dev net1");
    assert!(text.contains("inet 10.1.2.3/24 brd 10.1.2.255 scope global"), "{text}");
    assert!(text.contains("inet 10.9.0.1 peer 10.9.0.2/32 scope global"), "{text}");
    assert!(!text.contains("169.254"), "{text}");
    assert_eq!(text.contains("inet6 fd00::7/64"), v6, "{text}");
}

fn a_device_moves_into_a_namespace_that_is_joined(t: &T) {
    let mut holder = network(t);
    holder.set(json!({"process": {"args": ["sleep", "1000"]}}));
    let holder = t.container(&holder);
    holder.launch();
    let mut bundle = t.bundle();
    bundle.namespace("network", Some(&format!("/proc/{}/ns/net", holder.pid())));
    bundle.set(json!({"linux": {"netDevices": {"v1": {"name": "two"}}}}));
    assert_eq!(t.sh(&bundle, "ls /sys/class/net | sort"), "lo\ntwo\n");
    assert_eq!(holder.exec_sh("ls /sys/class/net | sort"), "lo\ntwo\n");
    holder.force_delete();
}

fn a_device_moves_into_a_user_namespace(t: &T) {
    let mut bundle = network(t);
    bundle.user_namespace();
    bundle.set(json!({"linux": {"netDevices": {"v0": {}}}}));
    assert_eq!(t.sh(&bundle, "ls /sys/class/net | sort"), "lo\nv0\n");
}

fn several_devices_move(t: &T) {
    let mut bundle = network(t);
    // The names change places: the move and the new name are one request.
    bundle.set(json!({"linux": {"netDevices": {"v0": {"name": "v1"}, "v1": {"name": "v0"}, "v2": {}}}}));
    assert_eq!(t.sh(&bundle, "ls /sys/class/net | sort"), "lo\nv0\nv1\nv2\n");
}

fn a_device_that_is_not_there_is_an_error(t: &T) {
    let mut bundle = network(t);
    bundle.set(json!({"linux": {"netDevices": {"v0": {}, "zzz": {}}}}));
    let message = t.refused(&bundle);
    if t.is_ours() {
        assert_eq!(message, "find network device zzz: no such device");
        assert!(ip(&["-o", "link"]).contains(": v0@"), "v0 is gone");
    }
}

fn a_name_that_is_taken_is_an_error(t: &T) {
    let mut bundle = network(t);
    ip(&["link", "set", "v0", "up"]);
    ip(&["address", "add", "10.1.2.3/24", "dev", "v0"]);
    let v6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    if v6 {
        ip(&["address", "add", "fd00::7/64", "dev", "v0", "nodad"]);
    }
    // The other one goes first: the list is in the order of its names.
    bundle.set(json!({"linux": {"netDevices": {"v0": {"name": "x"}, "v1": {"name": "lo"}}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("file exists"), "{message}");
    if t.is_ours() {
        assert_eq!(message, "move network device v1: file exists");
        let text = ip(&["address", "show", "dev", "v0"]);
        assert!(text.contains(",UP") && text.contains("inet 10.1.2.3/24"), "it is in use here: {text}");
        assert_eq!(text.contains("inet6 fd00::7/64"), v6, "{text}");
        let text = ip(&["address", "show", "dev", "v1"]);
        assert!(!text.contains(",UP"), "it was down: {text}");
    }
}

fn a_bad_name_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.set(json!({"linux": {"netDevices": {"v0": {"name": "a/b"}}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("invalid network device name \"a/b\""), "{message}");
}

fn devices_need_a_network_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.without_namespace("network");
    bundle.set(json!({"linux": {"netDevices": {"v0": {}}}}));
    let message = t.refused(&bundle);
    assert!(message.contains("unable to move network devices without a"), "{message}");
}
