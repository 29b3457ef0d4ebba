//! CVE-2019-5736: the container gets hold of the runtime's program by /proc/PID/exe and writes to it.

use crate::harness::{Bundle, T, Test, procs};
use crate::test;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub const TESTS: &[Test] = &[
    test!(cve_2019_5736_self_exe_is_sealed),
    test!(cve_2019_5736_self_exe_as_the_entry_point),
    test!(cve_2019_5736_self_exe_as_a_scripts_interpreter),
    test!(cve_2019_5736_self_exe_by_an_exec).seconds(90),
    test!(cve_2019_5736_self_exe_with_ptrace).seconds(90),
    test!(cve_2019_5736_self_exe_with_every_capability).seconds(90),
    test!(cve_2019_5736_self_exe_in_a_user_namespace).seconds(90),
];

/// A copy of the runtime that takes its place in this test's mount namespace: what is attacked is the copy.
fn decoy(t: &T) -> (PathBuf, Vec<u8>) {
    let copy = t.path("decoy");
    let content = fs::read(&t.runtime.path).unwrap();
    fs::copy(&t.runtime.path, &copy).unwrap();
    t.bind(&copy, &t.runtime.path);
    (copy, content)
}

fn is_whole(t: &T, decoy: &(PathBuf, Vec<u8>)) {
    assert!(fs::read(&decoy.0).unwrap() == decoy.1, "the runtime's program has been changed");
    t.call(&["--version"]).bare().run().ok();
}

fn cve_2019_5736_self_exe_is_sealed(t: &T) {
    // Init of a created container, seen from outside: it is not the host's file, and nobody may write to it.
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    let exe = format!("/proc/{}/exe", container.pid());
    let (init, host) = (fs::metadata(&exe).unwrap(), fs::metadata(&t.runtime.path).unwrap());
    // runc 1.1 binds its own file read-only.
    let same = (init.dev(), init.ino()) == (host.dev(), host.ino());
    assert!(!same || t.is_runc_below("1.2"), "init is the host's own file");
    let link = procs::link(&exe);
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err(), "{link} can be written to");
    container.force_delete();
}

fn cve_2019_5736_self_exe_as_the_entry_point(t: &T) {
    let decoy = decoy(t);
    let container = t.container(&t.bundle().args(&["/proc/self/exe", "init"]));
    container.run().fails();
    container.delete_if_there();
    is_whole(t, &decoy);
    t.nothing_is_left(&container);
}

fn cve_2019_5736_self_exe_as_a_scripts_interpreter(t: &T) {
    let decoy = decoy(t);
    let bundle = t.bundle().args(&["/entry"]);
    bundle.write_program("/entry", "#!/proc/self/exe\n");
    let container = t.container(&bundle);
    container.run().fails();
    container.delete_if_there();
    is_whole(t, &decoy);
}

/// Attackers in the container look out for foreign programs, while the host calls `exec` again and again.
fn attack(t: &T, bundle: &Bundle) {
    let decoy = decoy(t);
    bundle.add_probe(t);
    let container = t.container(&bundle.clone().args(&["/bin/probe", "rewrite", "1000"]));
    let out = container.launch();
    assert!(procs::wait_until(t.seconds(10), || fs::read(&out.stdout_file).unwrap().starts_with(b"ready")));
    for round in 0..t.rounds(30) {
        let args = if round % 2 == 0 { ["/proc/self/exe", "init"] } else { ["true", ""] };
        container.exec(&args);
        assert_eq!(container.status(), "running");
    }
    // What was caught may be written to when nobody executes it any more.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let said = fs::read_to_string(&out.stdout_file).unwrap();
    container.force_delete();
    assert!(!said.contains("WROTE"), "{said}");
    is_whole(t, &decoy);
}

fn cve_2019_5736_self_exe_by_an_exec(t: &T) {
    attack(t, &t.bundle());
}

fn cve_2019_5736_self_exe_with_ptrace(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"]);
    attack(t, &bundle);
}

fn cve_2019_5736_self_exe_with_every_capability(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&[
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_SYS_CHROOT",
        "CAP_SYS_RAWIO",
        "CAP_LINUX_IMMUTABLE",
    ]);
    attack(t, &bundle);
}

fn cve_2019_5736_self_exe_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace().capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    attack(t, &bundle);
}
