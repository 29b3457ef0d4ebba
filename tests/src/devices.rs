//! config-linux.md, "Devices", "Default Devices" and the device rules of "Control groups".

use crate::harness::{Bundle, T, Test};
use crate::{between, test};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(the_default_devices_are_there),
    test!(the_default_links_are_there),
    test!(the_default_devices_work),
    test!(default_devices_do_not_follow_the_umask),
    test!(a_configured_device_is_made),
    test!(every_kind_of_device_is_made),
    test!(a_device_in_a_new_directory),
    test!(a_configured_default_device_wins),
    test!(a_device_that_is_there_already).runc_fails(between!(
        "1.3",
        "1.4",
        "follows the links that the first run has made"
    )),
    test!(other_devices_cannot_be_opened),
    test!(an_allowed_device_can_be_opened),
    test!(a_device_allowed_for_reading_cannot_be_written),
    test!(a_later_rule_wins),
    test!(nodes_can_be_made_but_not_opened),
    test!(device_rules_hold_for_an_exec),
    test!(devices_in_a_user_namespace_are_the_hosts),
    test!(a_bound_dev_is_taken_as_it_is),
    test!(without_device_rules_there_is_deny_all),
    test!(ptmx_is_the_containers_own),
    test!(a_device_whose_type_differs_is_an_error),
];

/// The rules as config.json has them: deny everything, then these.
fn rules(bundle: &mut Bundle, rules: &[Value]) {
    let mut all = vec![json!({"allow": false, "access": "rwm"})];
    all.extend_from_slice(rules);
    bundle.set(json!({"linux": {"resources": {"devices": all}}}));
}

fn the_default_devices_are_there(t: &T) {
    let script =
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %a %u %g %t:%T' $d; done";
    let want = "null character special file 666 0 0 1:3\n\
                zero character special file 666 0 0 1:5\n\
                full character special file 666 0 0 1:7\n\
                random character special file 666 0 0 1:8\n\
                urandom character special file 666 0 0 1:9\n\
                tty character special file 666 0 0 5:0\n";
    assert_eq!(t.sh(&t.bundle(), script), want);
}

fn the_default_links_are_there(t: &T) {
    let script = "cd /dev; for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done";
    let want = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\n\
                ptmx pts/ptmx\n";
    assert_eq!(t.sh(&t.bundle(), script), want);
}

fn the_default_devices_work(t: &T) {
    let script = "echo x > /dev/null; head -c3 /dev/zero | od -An -tx1; head -c4 /dev/urandom | wc -c; \
                  echo x 2>&1 > /dev/full; head -c1 /dev/random | wc -c";
    let text = t.sh(&t.bundle(), script);
    assert_eq!(text, " 00 00 00\n4\nsh: write error: No space left on device\n1\n");
}

fn default_devices_do_not_follow_the_umask(t: &T) {
    let mut bundle = t.bundle().script("stat -c %a /dev/null /dev/fuse");
    bundle.list("/linux/devices").push(json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}));
    let out = t.container(&bundle).make(&["run"]).after("umask 077").run().ok();
    assert_eq!(out.stdout, "666\n666\n");
}

fn a_configured_device_is_made(t: &T) {
    let mut bundle = t.bundle();
    bundle.list("/linux/devices").push(json!({
        "path": "/dev/own", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 12, "gid": 34
    }));
    assert_eq!(
        t.sh(&bundle, "stat -c '%F %a %u %g %t:%T' /dev/own"),
        "character special file 640 12 34 a:e5\n"
    );
}

fn every_kind_of_device_is_made(t: &T) {
    let mut bundle = t.bundle();
    for (path, kind) in [("/dev/c1", "c"), ("/dev/u1", "u"), ("/dev/b1", "b")] {
        bundle.list("/linux/devices").push(json!({"path": path, "type": kind, "major": 250, "minor": 300}));
    }
    bundle.list("/linux/devices").push(json!({"path": "/dev/p1", "type": "p"}));
    let want =
        "character special file fa:12c\ncharacter special file fa:12c\nblock special file fa:12c\nfifo 0:0\n";
    assert_eq!(t.sh(&bundle, "cd /dev; for d in c1 u1 b1 p1; do stat -c '%F %t:%T' $d; done"), want);
}

fn a_device_in_a_new_directory(t: &T) {
    let mut bundle = t.bundle();
    bundle.list("/linux/devices").push(json!({"path": "/dev/a/b/null", "type": "c", "major": 1, "minor": 3}));
    bundle.list("/linux/devices").push(json!({"path": "/opt/null", "type": "c", "major": 1, "minor": 3}));
    let text =
        t.sh(&bundle, "stat -c %a /dev/a/b; echo x > /dev/a/b/null; echo x > /opt/null; cat /opt/null");
    assert_eq!(text, "755\n");
}

fn a_configured_default_device_wins(t: &T) {
    let mut bundle = t.bundle();
    bundle
        .list("/linux/devices")
        .push(json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5}));
    // runc takes the default's rule away with the default.
    rules(&mut bundle, &[json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"})]);
    assert_eq!(t.sh(&bundle, "stat -c '%a %u %t:%T' /dev/null"), "600 5 1:3\n");
}

fn a_device_that_is_there_already(t: &T) {
    // Two starts of a bundle whose /dev is the image's own directory.
    let mut bundle = t.bundle();
    for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(mount);
    }
    for _ in 0..2 {
        assert_eq!(t.sh(&bundle, "stat -c '%F %t:%T' /dev/null"), "character special file 1:3\n");
    }
}

fn other_devices_cannot_be_opened(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE"]);
    let text = t.sh(
        &bundle,
        "mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg 2>&1; mknod /tmp/d b 8 0; head -c1 /tmp/d 2>&1; true",
    );
    assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
}

fn an_allowed_device_can_be_opened(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]);
    let script = "mknod /tmp/kmsg c 1 11; dd if=/tmp/kmsg of=/dev/null bs=8192 count=1 2>&1 | grep -c 'not permitted'; true";
    assert_eq!(t.sh(&bundle, script), "1\n");
    rules(&mut bundle, &[json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"})]);
    bundle.remove("/tmp/kmsg");
    assert_eq!(t.sh(&bundle, script), "0\n");
}

fn a_device_allowed_for_reading_cannot_be_written(t: &T) {
    let mut bundle = t.bundle();
    bundle.list("/linux/devices").push(json!({"path": "/dev/own", "type": "c", "major": 1, "minor": 11}));
    bundle.capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"]);
    rules(&mut bundle, &[json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"})]);
    let text = t.sh(&bundle, "exec 3</dev/own && echo open; (exec 4>/dev/own) 2>&1; true");
    assert!(text.starts_with("open\n") && text.contains("Operation not permitted"), "{text}");
}

fn a_later_rule_wins(t: &T) {
    let mut bundle = t.bundle();
    bundle.list("/linux/devices").push(json!({"path": "/dev/own", "type": "c", "major": 1, "minor": 11}));
    bundle.capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"]);
    let allow = json!({"allow": true, "type": "c", "major": 1, "access": "rwm"});
    let deny = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let script = "(exec 3</dev/own) 2>/dev/null && echo open || echo shut";
    // The model is v1's list on both versions: it cannot take one device out of an allowed range, and runc refuses that too.
    rules(&mut bundle, &[allow.clone(), deny.clone()]);
    let message = t.refused(&bundle);
    assert!(message.contains("punch a hole") || message.contains("devices"), "{message}");
    rules(&mut bundle, &[deny, allow]);
    assert_eq!(t.sh(&bundle, script), "open\n");
}

fn nodes_can_be_made_but_not_opened(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_MKNOD"]);
    let text = t.sh(&bundle, "mknod /tmp/x c 200 200 && echo made; cat /tmp/x 2>&1; true");
    assert_eq!(text, "made\ncat: can't open '/tmp/x': Operation not permitted\n");
}

fn device_rules_hold_for_an_exec(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_MKNOD"]);
    let container = t.container(&bundle);
    container.launch();
    let text = container.exec_sh("mknod /tmp/x c 1 11 && echo made; cat /tmp/x 2>&1; echo x > /dev/null");
    assert_eq!(text, "made\ncat: can't open '/tmp/x': Operation not permitted\n");
    container.force_delete();
}

fn devices_in_a_user_namespace_are_the_hosts(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let fuse = std::path::Path::new("/dev/fuse").exists();
    if fuse {
        bundle
            .list("/linux/devices")
            .push(json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}));
    }
    let script = "stat -c '%F %t:%T' /dev/null /dev/urandom; echo x > /dev/null; head -c1 /dev/zero | wc -c; \
                  stat -c %t:%T /dev/fuse 2>/dev/null; true";
    let mut want = "character special file 1:3\ncharacter special file 1:9\n1\n".to_owned();
    if fuse {
        want += "a:e5\n";
    }
    assert_eq!(t.sh(&bundle, script), want);
}

fn a_bound_dev_is_taken_as_it_is(t: &T) {
    let mut bundle = t.bundle();
    let dir = t.make_dir("dev");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&dir.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    for mount in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"] {
        bundle.without_mount(mount);
    }
    bundle.mount(json!({"destination": "/dev", "type": "bind", "source": dir, "options": ["rbind"]}));
    assert_eq!(t.sh(&bundle, "ls /dev"), "null\n");
}

fn without_device_rules_there_is_deny_all(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_MKNOD"]).set(json!({"linux": {"resources": null}}));
    let text = t.sh(&bundle, "mknod /tmp/x c 1 11 && cat /tmp/x 2>&1; echo x > /dev/null && echo fine");
    assert_eq!(text, "cat: can't open '/tmp/x': Operation not permitted\nfine\n");
}

fn ptmx_is_the_containers_own(t: &T) {
    // Who opens it gets a terminal of the container's devpts, not of the host's.
    let text = t.sh(&t.bundle(), "exec 3<>/dev/ptmx; ls /dev/pts; stat -c %a /dev/pts/ptmx");
    assert_eq!(text, "0\nptmx\n666\n");
}

fn a_device_whose_type_differs_is_an_error(t: &T) {
    // runc 1.1 overwrites nothing either: mknod says EEXIST, and what is there is kept.
    let mut bundle = t.bundle();
    bundle.list("/linux/devices").push(json!({"path": "/opt/x", "type": "a", "major": 1, "minor": 3}));
    let message = t.refused(&bundle);
    assert!(message.contains('a'), "{message}");
}
