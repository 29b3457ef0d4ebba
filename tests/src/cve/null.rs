//! CVE-2025-31133, -52565, -52881 and relatives: /dev/null, /dev/console and /proc are not what the runtime takes them for.

use super::Outside;
use crate::harness::{Bundle, T, Test};
use crate::sockets::Receiver;
use crate::{below, test};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use std::fs;

pub const TESTS: &[Test] = &[
    test!(cve_2025_31133_null_is_a_link).runc_fails(below!("1.3.3", "was not fixed yet")),
    test!(cve_2025_31133_null_is_a_file),
    test!(cve_2025_31133_null_is_a_fifo).runc_fails(below!("1.3.3", "was not fixed yet")),
    test!(cve_2025_31133_null_is_another_device),
    test!(cve_2025_31133_null_is_swapped).seconds(120),
    test!(cve_2025_52565_console_is_a_link).runc_fails(below!("1.3.3", "was not fixed yet")),
    test!(cve_2025_52565_pts_is_a_link),
    test!(cve_2025_52881_proc_is_no_tmpfs),
    test!(cve_2025_52881_nothing_is_mounted_over_files_that_are_written)
        .runc_fails(below!("1.2", "looks at the destination's text")),
    test!(cve_2019_16884_a_volume_over_proc_is_refused),
];

/// A container that masks `/secret`, with an image's own /dev.
fn masking(t: &T) -> Bundle {
    let mut bundle = t.bundle().script("cat /secret; echo x > /secret; echo ran");
    for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(mount);
    }
    bundle.write("/secret", "the secret\n");
    bundle.set(json!({"linux": {"maskedPaths": ["/secret", "/proc/kcore", "/proc/timer_list"]}}));
    bundle
}

/// The secret is not read, and what the false /dev/null leads to is not written.
fn assert_masked(t: &T, bundle: &Bundle, outside: &Outside) {
    let container = t.container(bundle);
    let out = container.run();
    container.delete_if_there();
    assert!(!out.stdout.contains("the secret"), "{out:?}");
    assert_eq!(fs::read_to_string(bundle.file("/secret")).unwrap(), "the secret\n", "{out:?}");
    outside.is_untouched("masks");
}

fn cve_2025_31133_null_is_a_link(t: &T) {
    let outside = Outside::new(t);
    for target in ["/proc/sys/kernel/domainname", "/bait", "/nowhere", "null", &outside.path("null")] {
        let bundle = masking(t);
        bundle.write("/bait", "bait");
        bundle.link("/dev/null", target);
        assert_masked(t, &bundle, &outside);
        assert_eq!(fs::read_to_string(bundle.file("/bait")).unwrap(), "bait", "{target}");
    }
}

fn cve_2025_31133_null_is_a_file(t: &T) {
    let outside = Outside::new(t);
    let bundle = masking(t);
    bundle.write("/dev/null", "bait");
    assert_masked(t, &bundle, &outside);
}

fn node(bundle: &Bundle, kind: SFlag, device: u64) {
    mknod(&bundle.file("/dev/null"), kind, Mode::from_bits_truncate(0o666), device).unwrap();
}

fn cve_2025_31133_null_is_a_fifo(t: &T) {
    // Whoever opens it for writing waits for a reader: nothing may hang.
    let outside = Outside::new(t);
    let bundle = masking(t);
    node(&bundle, SFlag::S_IFIFO, 0);
    assert_masked(t, &bundle, &outside);
}

fn cve_2025_31133_null_is_another_device(t: &T) {
    let outside = Outside::new(t);
    let bundle = masking(t);
    node(&bundle, SFlag::S_IFCHR, makedev(1, 11));
    assert_masked(t, &bundle, &outside);
}

fn cve_2025_31133_null_is_swapped(t: &T) {
    let outside = Outside::new(t);
    let bundle = masking(t);
    node(&bundle, SFlag::S_IFCHR, makedev(1, 3));
    bundle.write("/bait", "bait");
    let link = bundle.link("/dev/other", "/bait");
    super::races::while_swapping(&bundle.file("/dev/null"), &link, || {
        for _ in 0..t.rounds(25) {
            let container = t.container(&bundle);
            let out = container.run();
            container.delete_if_there();
            assert!(!out.stdout.contains("the secret"), "{out:?}");
        }
    });
    assert_eq!(fs::read_to_string(bundle.file("/secret")).unwrap(), "the secret\n");
    outside.is_untouched("swapped masks");
}

fn on_a_terminal(t: &T, bundle: &Bundle, outside: &Outside, what: &str) {
    let bundle =
        bundle.with(json!({"process": {"terminal": true, "args": ["sh", "-c", "echo x > /dev/console"]}}));
    let container = t.container(&bundle);
    let receiver = Receiver::new(t, &format!("console{}", t.number()));
    let out = container.make(&["create", "--console-socket", &receiver.word()]).run();
    if out.code == Some(0) {
        container.start();
        container.await_stop();
    }
    container.delete_if_there();
    outside.is_untouched(what);
}

fn cve_2025_52565_console_is_a_link(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    for mount in ["/dev", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(mount);
    }
    for target in [
        outside.path("console"),
        outside.relative(&bundle, 1, "console"),
        outside.path("new-file"),
        "/bait".into(),
    ] {
        bundle.write("/bait", "bait");
        bundle.link("/dev/console", &target);
        on_a_terminal(t, &bundle, &outside, &target);
        assert_eq!(fs::read_to_string(bundle.file("/bait")).unwrap(), "bait", "{target}");
    }
}

fn cve_2025_52565_pts_is_a_link(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    for mount in ["/dev", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(mount);
    }
    for target in [outside.path("pts"), outside.relative(&bundle, 1, "pts"), "/elsewhere".into()] {
        bundle.make_dir("/elsewhere");
        bundle.link("/dev/pts", &target);
        on_a_terminal(t, &bundle, &outside, &target);
    }
}

fn cve_2025_52881_proc_is_no_tmpfs(t: &T) {
    for kind in ["tmpfs", "ramfs"] {
        let mut bundle = t.bundle();
        bundle.without_mount("/proc");
        bundle.mount(json!({"destination": "/proc", "type": kind, "source": kind}));
        let message = t.refused(&bundle);
        assert!(message.contains("/proc"), "{message}");
    }
    // By another name.
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/tmp/../proc/.", "type": "tmpfs", "source": "tmpfs"}));
    t.refused(&bundle);
}

fn cve_2025_52881_nothing_is_mounted_over_files_that_are_written(t: &T) {
    let file = t.path("file");
    fs::write(&file, "bait").unwrap();
    for destination in [
        "/proc/self/attr/exec",
        "/proc/thread-self/attr/current",
        "/proc/self/oom_score_adj",
        "/proc/sys",
        "/proc/sys/net",
        "/proc/self",
        "/proc/1",
        "/proc/self/fd",
        "/proc/self/setgroups",
        "/proc/sysrq-trigger",
    ] {
        let mut bundle = t.bundle();
        bundle
            .mount(json!({"destination": destination, "type": "bind", "source": file, "options": ["bind"]}));
        t.refused(&bundle);
        let mut bundle = t.bundle();
        bundle.mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        t.refused(&bundle);
        // Behind a link.
        let mut bundle = t.bundle();
        bundle.link("/link", destination);
        bundle.mount(json!({"destination": "/link", "type": "bind", "source": file, "options": ["bind"]}));
        let container = t.container(&bundle.script("cat /link"));
        let out = container.run();
        container.delete_if_there();
        assert!(out.code != Some(0) || !out.stdout.contains("bait"), "{destination}: {out:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "bait");
}

fn cve_2019_16884_a_volume_over_proc_is_refused(t: &T) {
    let volume = t.make_dir("volume");
    fs::create_dir_all(volume.join("self/attr")).unwrap();
    fs::write(volume.join("self/attr/exec"), "").unwrap();
    for destination in ["/proc", "/proc/", "//proc", "/tmp/../proc"] {
        let mut bundle = t.bundle();
        bundle.mount(
            json!({"destination": destination, "type": "bind", "source": volume, "options": ["rbind"]}),
        );
        let message = t.refused(&bundle);
        assert!(message.contains("/proc"), "{message}");
    }
    assert_eq!(fs::read_to_string(volume.join("self/attr/exec")).unwrap(), "");
}
