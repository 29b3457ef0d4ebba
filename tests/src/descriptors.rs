//! Descriptors that a caller passes on by will: `--preserve-fds`, LISTEN_FDS, NOTIFY_SOCKET. What leaks without is in cve.

use crate::harness::{Need, T, Test, procs};
use crate::test;
use serde_json::json;
use std::os::unix::net::UnixDatagram;

pub const TESTS: &[Test] = &[
    test!(no_descriptor_is_passed_on_unasked),
    test!(preserved_descriptors_are_passed_on),
    test!(preserved_descriptors_of_an_exec_are_passed_on),
    test!(a_preserved_descriptor_that_is_not_open_is_an_error)
        .needs(&[Need::Ours("Go has descriptors of its own where the caller has none")]),
    test!(sockets_of_systemd_are_passed_on),
    test!(the_notify_socket_is_passed_on),
    test!(a_notification_is_passed_on),
];

const LIST: &str = "ls /proc/$$/fd; true";

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn no_descriptor_is_passed_on_unasked(t: &T) {
    let container = t.container(&t.bundle().script(LIST));
    let out = container.make(&["run"]).after("exec 3</etc/passwd 4</ 9</tmp").run().ok();
    assert_eq!(numbers(&out.stdout), [0, 1, 2]);
}

fn preserved_descriptors_are_passed_on(t: &T) {
    for file in ["three", "four"] {
        std::fs::write(t.path(file), file).unwrap();
    }
    let open = format!("exec 3<{} 4<{} 5</etc/passwd", t.path("three").display(), t.path("four").display());
    let script = format!("cat <&3; cat <&4; echo; {LIST}");
    let container = t.container(&t.bundle().script(&script));
    let out = container.make(&["run", "--preserve-fds", "2"]).after(&open).run().ok();
    assert_eq!(out.stdout, "threefour\n0\n1\n2\n3\n4\n");
}

fn preserved_descriptors_of_an_exec_are_passed_on(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    std::fs::write(t.path("three"), "three").unwrap();
    let open = format!("exec 3<{} 4</etc/passwd", t.path("three").display());
    let script = format!("cat <&3; echo; {LIST}");
    let call = container.exec_with(&["--preserve-fds", "1"], &["sh", "-c", &script]);
    assert_eq!(call.after(&open).run().ok().stdout, "three\n0\n1\n2\n3\n");
    container.force_delete();
}

fn a_preserved_descriptor_that_is_not_open_is_an_error(t: &T) {
    let container = t.container(&t.bundle());
    container.make(&["create", "--preserve-fds", "5"]).after("exec 3</etc/passwd").run().fails();
    t.nothing_is_left(&container);
}

fn sockets_of_systemd_are_passed_on(t: &T) {
    let script = format!("echo $LISTEN_FDS $LISTEN_PID; {LIST}");
    let container = t.container(&t.bundle().script(&script));
    let call =
        container.make(&["run"]).env("LISTEN_FDS", "2").after("export LISTEN_PID=$$; exec 3</etc/passwd 4</");
    assert_eq!(call.run().ok().stdout, "2 1\n0\n1\n2\n3\n4\n");
}

fn the_notify_socket_is_passed_on(t: &T) {
    let socket = t.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(t.seconds(10))).unwrap();
    let container = t.container(
        &t.bundle().script("echo $NOTIFY_SOCKET; test -S $NOTIFY_SOCKET && echo there; sleep 1000"),
    );
    let out = container.make(&["create"]).env("NOTIFY_SOCKET", &socket).run().ok();
    let start = container.verb(&["start"]).env("NOTIFY_SOCKET", &socket).spawn();
    let printed = || std::fs::read_to_string(&out.stdout_file).unwrap();
    assert!(procs::wait_until(t.seconds(10), || printed().contains("there")), "{}", printed());
    assert!(printed().starts_with('/'), "{}", printed());
    container.kill("KILL").ok();
    start.wait();
    container.force_delete();
}

fn a_notification_is_passed_on(t: &T) {
    let socket = t.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(t.seconds(20))).unwrap();
    let bundle =
        t.bundle().args(&["/bin/probe", "notify", "READY=1\nSTATUS=fine\n"]).with(json!({"linux": {}}));
    bundle.add_probe(t);
    let container = t.container(&bundle);
    container.make(&["create"]).env("NOTIFY_SOCKET", &socket).run().ok();
    let start = container.verb(&["start"]).env("NOTIFY_SOCKET", &socket).spawn();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    // runc has the manager close a descriptor, which it does when it has read all: sd_notify_barrier.
    while !(text.contains("READY=1") && text.contains("MAINPID=") && text.contains("BARRIER=1")) {
        let Ok(length) = manager.recv(&mut buffer) else { break };
        text += &String::from_utf8_lossy(&buffer[..length]);
        text.push('\n');
    }
    assert!(text.contains("READY=1"), "{text}");
    assert!(text.contains(&format!("MAINPID={}", container.pid())), "{text}");
    container.kill("KILL").ok();
    start.wait();
    container.force_delete();
}
