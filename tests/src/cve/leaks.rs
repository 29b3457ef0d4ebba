//! CVE-2024-21626 and CVE-2016-9962: descriptors and working directories of the host's that a container gets hold of.

use super::Outside;
use crate::harness::{Bundle, Container, Need, Out, T, Test, procs};
use crate::{always, test};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};
use serde_json::json;
use std::fs;

pub const TESTS: &[Test] = &[
    test!(cve_2024_21626_no_descriptor_is_a_working_directory).seconds(180),
    test!(cve_2024_21626_no_descriptor_behind_a_link_is_a_working_directory),
    test!(cve_2024_21626_no_descriptor_is_an_execs_working_directory).seconds(180),
    test!(cve_2024_21626_only_stdio_is_open),
    test!(cve_2024_21626_a_waiting_init_has_nothing_of_the_hosts),
    test!(cve_2024_21626_the_working_directory_is_inside),
    test!(cve_2024_21626_a_working_directory_that_is_swapped),
    test!(cve_2016_9962_an_exec_gives_nothing_away).seconds(90),
    test!(cve_2016_9962_an_exec_gives_nothing_away_to_ptrace).seconds(90),
    test!(cve_2016_9962_an_exec_gives_nothing_away_in_a_user_namespace).seconds(90),
    test!(what_an_exec_brings_in_has_its_programs_rights)
        .seconds(120)
        .runc_fails(always!("has all rights when it is born into the pid namespace")),
    test!(cve_2016_9962_a_container_of_the_same_pid_namespace_gives_nothing_away)
        .seconds(90)
        .needs(&[Need::Kernel(6, 18)])
        .runc_fails(always!("has the host's root when it is born into the pid namespace")),
    test!(what_enters_a_shared_pid_namespace_has_its_programs_rights)
        .seconds(90)
        .needs(&[Need::Kernel(6, 18)])
        .runc_fails(always!("has all rights when it is born into the pid namespace")),
];

/// A script that tries to read the host's secret from where it stands; says STOLEN.
fn thief(outside: &Outside) -> String {
    let secret = outside.path("secret");
    let mut script = "pwd -P 2>&1;".to_owned();
    for depth in 0..12 {
        script += &format!(
            "grep -q secret ./{}{} 2>/dev/null && echo STOLEN;",
            "../".repeat(depth),
            secret.trim_start_matches('/')
        );
    }
    script + "true"
}

/// Asserts that a link of /proc was no way out: it is refused. Only openat2 knows such links; without it their text is a path in the
/// container, which may be there.
fn is_refused(out: &Out, path: &str) {
    assert!(!out.stdout.contains("STOLEN"), "{path}: {out:?}");
    let by_text = openat2(AT_FDCWD, "/", OpenHow::new().flags(OFlag::O_PATH)).is_err();
    if !(by_text && out.stdout.starts_with('/')) {
        assert_ne!(out.code, Some(0), "{path}: {out:?}");
    }
}

fn cwd(t: &T, path: &str) -> Bundle {
    t.bundle().with(json!({"process": {"cwd": path}}))
}

fn cve_2024_21626_no_descriptor_is_a_working_directory(t: &T) {
    let outside = Outside::new(t);
    let script = thief(&outside);
    for number in 3..24 {
        for dir in ["/proc/self/fd", "/proc/1/fd", "/proc/thread-self/fd"] {
            let container = t.container(&cwd(t, &format!("{dir}/{number}")).script(&script));
            let out = container.run();
            container.delete_if_there();
            is_refused(&out, &format!("{dir}/{number}"));
        }
    }
    outside.is_untouched("working directories");
}

fn cve_2024_21626_no_descriptor_behind_a_link_is_a_working_directory(t: &T) {
    let outside = Outside::new(t);
    let script = thief(&outside);
    for number in 3..16 {
        let bundle = cwd(t, "/link").script(&script);
        bundle.link("/link", &format!("/proc/self/fd/{number}"));
        let container = t.container(&bundle);
        let out = container.run();
        container.delete_if_there();
        is_refused(&out, &format!("{number}"));
    }
    outside.is_untouched("working directories");
}

fn cve_2024_21626_no_descriptor_is_an_execs_working_directory(t: &T) {
    let outside = Outside::new(t);
    let script = thief(&outside);
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    for number in 3..24 {
        for dir in ["/proc/self/fd", "/proc/1/fd", "/proc/1/cwd/../proc/self/fd"] {
            let path = format!("{dir}/{number}");
            let out = container.exec_with(&["--cwd", &path], &["sh", "-c", &script]).run();
            is_refused(&out, &path);
        }
    }
    container.force_delete();
    outside.is_untouched("working directories of execs");
}

fn cve_2024_21626_only_stdio_is_open(t: &T) {
    let text = t.sh(&t.bundle(), "ls /proc/$$/fd; true");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    let mut bundle = t.bundle();
    bundle.user_namespace().namespace("cgroup", None);
    let text = t.sh(&bundle, "ls /proc/$$/fd; true");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
}

fn cve_2024_21626_a_waiting_init_has_nothing_of_the_hosts(t: &T) {
    // Whoever is executed in a created container may look at its init, as root with CAP_SYS_PTRACE.
    let outside = Outside::new(t);
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    bundle.add_probe(t);
    let container = t.container(&bundle);
    container.create().ok();
    let out = container.exec(&["/bin/probe", "steal", &outside.path("secret"), "0"]).ok();
    assert!(!out.stdout.contains("STOLEN"), "{}", out.stdout);
    container.force_delete();
}

fn cve_2024_21626_the_working_directory_is_inside(t: &T) {
    let outside = Outside::new(t);
    for target in [outside.path("dev"), "/".into(), "../../../../..".into(), "/proc/self/cwd".into()] {
        let bundle = cwd(t, "/link").script(&thief(&outside));
        bundle.link("/link", &target);
        let container = t.container(&bundle);
        let out = container.run();
        container.delete_if_there();
        assert!(!out.stdout.contains("STOLEN"), "{target}: {out:?}");
    }
    outside.is_untouched("working directories behind links");
}

fn cve_2024_21626_a_working_directory_that_is_swapped(t: &T) {
    // Two containers share a volume, and one swaps the other's working directory.
    let outside = Outside::new(t);
    let mut bundle = cwd(t, "/volume/dir").script(&thief(&outside));
    let volume = t.make_dir("volume/dir").parent().unwrap().to_owned();
    std::os::unix::fs::symlink("/proc/self/fd/7", volume.join("link")).unwrap();
    bundle.mount(json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["bind"]}));
    super::races::while_swapping(&volume.join("dir"), &volume.join("link"), || {
        for _ in 0..t.rounds(15) {
            let container = t.container(&bundle);
            let out = container.run();
            container.delete_if_there();
            assert!(!out.stdout.contains("STOLEN"), "{out:?}");
        }
    });
    outside.is_untouched("swapped working directories");
}

const THIEF: [&str; 4] = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"];

/// Thieves in the container look at every process that turns up, while the host does something again and again.
fn robbed(t: &T, bundle: Bundle, deed: impl Fn(&Container)) {
    let outside = Outside::new(t);
    let said = watched(t, bundle, &["steal", &outside.path("secret"), "1000"], deed);
    assert!(!said.contains("STOLEN"), "{said}");
    outside.is_untouched("execs");
}

/// What the probe in the container says, while the host does something again and again.
fn watched(t: &T, bundle: Bundle, words: &[&str], deed: impl Fn(&Container)) -> String {
    let bundle = bundle.args(&[&["/bin/probe"], words].concat());
    bundle.add_probe(t);
    let container = t.container(&bundle);
    let out = container.launch();
    assert!(procs::wait_until(t.seconds(10), || fs::read(&out.stdout_file).unwrap().starts_with(b"ready")));
    for _ in 0..t.rounds(30) {
        deed(&container);
    }
    let said = fs::read_to_string(&out.stdout_file).unwrap();
    container.force_delete();
    said
}

fn executing(container: &Container) {
    container.exec(&["true"]);
}

fn cve_2016_9962_an_exec_gives_nothing_away(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
    robbed(t, bundle, executing);
}

fn cve_2016_9962_an_exec_gives_nothing_away_to_ptrace(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&THIEF);
    robbed(t, bundle, executing);
}

fn cve_2016_9962_an_exec_gives_nothing_away_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace().capabilities(&THIEF);
    robbed(t, bundle, executing);
}

fn what_an_exec_brings_in_has_its_programs_rights(t: &T) {
    // A container that may trace, as `docker run --cap-add SYS_PTRACE` makes it, and what a health check executes there.
    let allowed = ["CAP_KILL", "CAP_CHOWN", "CAP_SYS_PTRACE"];
    let (chown, kill, ptrace, admin) = (1u64 << 0, 1u64 << 5, 1u64 << 19, 1u64 << 21);
    let rights = |no_new_privileges: bool, seccomp: Option<serde_json::Value>, more: u64| {
        let mut bundle = t.bundle();
        bundle.capabilities(&allowed);
        bundle.set(json!({"process": {"noNewPrivileges": no_new_privileges}, "linux": {"seccomp": seccomp}}));
        let mask = format!("{:x}", chown | kill | ptrace | more);
        let said = watched(t, bundle, &["rights", &mask, "1000"], executing);
        assert_eq!(said, "ready\n", "no_new_privs {no_new_privileges}, {seccomp:?}");
    };
    let all_but = |name: &str| {
        Some(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}),
        )
    };
    rights(true, None, 0);
    rights(false, None, 0);
    rights(true, all_but("reboot"), 0);
    rights(false, all_but("reboot"), 0);
    rights(false, all_but("clone3"), 0);
    // Its filter can only be loaded by the process itself then, which takes CAP_SYS_ADMIN.
    rights(false, all_but("setsid"), admin);
}

/// Another container in the pid namespace of the first one, from its beginning to its end.
fn joining<'t>(t: &'t T, other: &Bundle) -> impl Fn(&Container) + 't {
    let other = other.clone();
    move |container| {
        let mut other = other.clone();
        other.namespace("pid", Some(&format!("/proc/{}/ns/pid", container.pid())));
        t.run(&other, &["true"]);
    }
}

fn cve_2016_9962_a_container_of_the_same_pid_namespace_gives_nothing_away(t: &T) {
    // What a pod with a shared pid namespace is.
    let mut bundle = t.bundle();
    bundle.capabilities(&THIEF);
    let other = t.bundle();
    robbed(t, bundle, joining(t, &other));
}

fn what_enters_a_shared_pid_namespace_has_its_programs_rights(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&THIEF);
    let mut other = t.bundle();
    other.capabilities(&["CAP_KILL", "CAP_CHOWN"]);
    let (chown, kill, admin) = (1 << 0, 1 << 5, 1 << 21);
    let mask = |bits: u64| format!("{bits:x}");
    other.set(json!({"process": {"noNewPrivileges": true}}));
    let said = watched(t, bundle.clone(), &["rights", &mask(chown | kill), "1000"], joining(t, &other));
    assert_eq!(said, "ready\n");
    // Without no_new_privs loading a filter takes CAP_SYS_ADMIN.
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    other.set(json!({"process": {"noNewPrivileges": false}, "linux": {"seccomp": profile}}));
    let said = watched(t, bundle, &["rights", &mask(chown | kill | admin), "1000"], joining(t, &other));
    assert_eq!(said, "ready\n");
}
