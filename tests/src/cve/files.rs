//! CVE-2026-47262 and relatives: what the runtime reads of an image is bounded, and is a file.

use super::Outside;
use crate::harness::{Bundle, T, Test, procs};
use crate::{always, below, test};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use std::fs;

pub const TESTS: &[Test] = &[
    test!(a_huge_passwd_is_not_read_whole).runc_fails(always!("reads it whole")),
    test!(a_passwd_of_one_endless_line).runc_fails(below!("1.2", "reads it whole")),
    test!(a_passwd_that_is_a_fifo).runc_fails(always!("waits for its other end")),
    test!(a_passwd_that_is_a_device),
    test!(a_passwd_that_is_a_directory),
    test!(a_passwd_that_leads_outside),
    test!(a_program_that_leads_outside),
    test!(an_interpreter_that_leads_outside),
    test!(hooks_of_the_image_are_not_the_hosts),
];

/// HOME of a user, and how much the runtime's largest process took.
fn home(t: &T, bundle: &Bundle) -> Option<String> {
    let bundle = bundle.with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    // A runtime that would read a gigabyte gets no more than a part of one.
    let container = t.container(&bundle.script("echo $HOME"));
    let out = container.make(&["run"]).after("ulimit -v 6000000").within(10).run();
    container.delete_if_there();
    (out.code == Some(0)).then_some(out.stdout)
}

fn a_huge_passwd_is_not_read_whole(t: &T) {
    let bundle = t.bundle();
    let mut text = "filler:x:5:5::/filler:/bin/sh\n".repeat(4_000_000);
    text += "user:x:1000:1000::/late:/bin/sh\n";
    bundle.write("/etc/passwd", &text);
    // The entry is out of reach, the container runs.
    assert_eq!(home(t, &bundle).as_deref(), Some("/\n"));
}

fn a_passwd_of_one_endless_line(t: &T) {
    let bundle = t.bundle();
    let file = fs::File::create(bundle.file("/etc/passwd")).unwrap();
    file.set_len(8 << 30).unwrap();
    assert_eq!(home(t, &bundle).as_deref(), Some("/\n"));
}

fn special(bundle: &Bundle, kind: SFlag, device: u64) {
    bundle.remove("/etc/passwd");
    mknod(&bundle.file("/etc/passwd"), kind, Mode::from_bits_truncate(0o644), device).unwrap();
}

fn a_passwd_that_is_a_fifo(t: &T) {
    let bundle = t.bundle();
    special(&bundle, SFlag::S_IFIFO, 0);
    assert!(home(t, &bundle).is_none_or(|home| home == "/\n"));
}

fn a_passwd_that_is_a_device(t: &T) {
    let bundle = t.bundle();
    special(&bundle, SFlag::S_IFCHR, makedev(1, 5));
    assert!(home(t, &bundle).is_none_or(|home| home == "/\n"));
}

fn a_passwd_that_is_a_directory(t: &T) {
    let bundle = t.bundle();
    bundle.remove("/etc/passwd");
    bundle.make_dir("/etc/passwd");
    assert!(home(t, &bundle).is_none_or(|home| home == "/\n"));
}

fn a_passwd_that_leads_outside(t: &T) {
    let outside = Outside::new(t);
    fs::write(outside.dir.join("etc/passwd"), "user:x:1000:1000::/of-the-host:/bin/sh\n").unwrap();
    let bundle = t.bundle();
    for target in [outside.path("etc/passwd"), outside.relative(&bundle, 1, "etc/passwd")] {
        bundle.link("/etc/passwd", &target);
        assert_eq!(home(t, &bundle).as_deref(), Some("/\n"), "{target}");
    }
}

fn a_program_that_leads_outside(t: &T) {
    let outside = Outside::new(t);
    let program = outside.dir.join("program");
    fs::write(&program, "#!/bin/sh\necho STOLEN\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bundle = t.bundle().args(&["/link"]);
    for target in [outside.path("program"), outside.relative(&bundle, 0, "program")] {
        bundle.link("/link", &target);
        t.refused(&bundle);
    }
}

fn an_interpreter_that_leads_outside(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle().args(&["/script"]);
    bundle.write_program("/script", format!("#!{}\n", outside.path("secret")));
    let container = t.container(&bundle);
    container.run().fails();
    container.delete_if_there();
}

fn hooks_of_the_image_are_not_the_hosts(t: &T) {
    // A runtime hook's path is the host's, whatever the image has there.
    let mut bundle = t.bundle().args(&["true"]);
    let file = t.path("seen");
    bundle.write_program("/bin/hook", format!("#!/bin/sh\necho image > {}\n", file.display()));
    bundle.set(json!({"hooks": {"createRuntime": [{"path": "/bin/hook"}]}}));
    t.refused(&bundle);
    assert!(!procs::wait_until(std::time::Duration::ZERO, || file.exists()));
}
