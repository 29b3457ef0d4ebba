//! config-linux.md, "Seccomp": every action, operator and flag, on system calls that reach the kernel as they are.

use crate::harness::{Bundle, Need, Out, T, Test, procs};
use crate::machine::{self, Call};
use crate::sockets::Receiver;
use crate::{always, below, test};
use cofferdam_sys::{Fd, process};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(errno_is_eperm_without_a_number).needs(&[X86]),
    test!(errno_is_the_configs).needs(&[X86]),
    test!(errno_of_the_default_action).needs(&[X86, Need::Runc("1.1", "defaultErrnoRet")]),
    test!(killing_actions_kill).needs(&[X86]),
    test!(trap_is_a_signal).needs(&[X86]),
    test!(trace_without_a_tracer_is_enosys).needs(&[X86]),
    test!(log_lets_through).needs(&[X86]),
    test!(every_operator_compares_64_bits).needs(&[X86]),
    test!(conditions_on_several_arguments_must_all_hold).needs(&[X86]),
    test!(conditions_on_one_argument_are_alternatives).needs(&[X86]),
    test!(an_entry_may_name_several_calls).needs(&[X86]),
    test!(two_entries_of_one_call).needs(&[X86]),
    test!(unknown_names_are_no_error),
    test!(newer_calls_than_the_profile_are_enosys).needs(&[X86]),
    test!(dockers_profile_blocks_what_it_should).needs(&[X86]),
    test!(i386_calls_are_filtered_by_name).needs(&[X86]),
    test!(i386_calls_without_the_architecture_kill).needs(&[X86]),
    test!(x32_calls_are_no_x86_64_calls).needs(&[X86]),
    test!(a_filter_without_no_new_privileges),
    test!(a_filter_of_a_container_without_capabilities),
    test!(a_filter_with_no_new_privileges),
    test!(a_filter_holds_for_an_exec),
    test!(a_filter_holds_in_a_user_namespace),
    test!(flags_are_taken).runc_fails(below!("1.2", "takes no flags")),
    test!(without_a_profile_there_is_no_filter),
    test!(an_empty_profile_that_allows).needs(&[X86]),
    test!(notify_hands_the_listener_over).needs(&[Need::Kernel(5, 6)]),
    test!(notify_with_create_and_start).needs(&[Need::Kernel(5, 6)]),
    test!(notify_of_what_a_start_needs)
        .needs(&[Need::Kernel(5, 6), Need::Ours("runc's init makes no such calls there")]),
    test!(notify_without_a_receiver_is_an_error),
    test!(notify_of_an_exec)
        .needs(&[Need::Kernel(5, 6)])
        .runc_fails(below!("1.1", "seccomp notify is unknown")),
    test!(bad_profiles_are_refused),
    test!(a_bad_profile_is_refused_in_front_of_hooks)
        .runc_fails(always!("runs them before it compiles the profile")),
    test!(a_filter_that_forbids_getcwd),
    test!(an_exec_makes_no_calls_but_those_it_looks_for)
        .needs(&[X86, Need::Ours("runc's calls of an exec are others")]),
    test!(an_exec_passes_a_filter_that_forbids_a_step_of_its_way).seconds(90).needs(&[X86]),
];

const X86: Need = Need::Machine("x86_64");
/// `sched_get_priority_max(policy)`: 0 for SCHED_OTHER, 99 for SCHED_FIFO, else EINVAL.
const SCHED_MAX: u64 = 146;
const GETPRIORITY: u64 = 140;
const GETPID: u64 = 39;
const EINVAL: i64 = -22;

fn allow_but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn with(t: &T, profile: &Value) -> Bundle {
    t.bundle().with(json!({"linux": {"seccomp": profile}}))
}

/// Runs the calls under a profile.
fn outcome(t: &T, profile: &Value, calls: &[Call]) -> Out {
    let bundle = with(t, profile).args(&["/calls"]);
    bundle.write_program("/calls", machine::x86_64(calls));
    t.container(&bundle).run()
}

fn results(t: &T, profile: &Value, calls: &[Call]) -> Vec<i64> {
    let out = outcome(t, profile, calls).ok();
    machine::results_64(&std::fs::read(&out.stdout_file).unwrap())
}

fn args(first: u64, second: u64) -> [u64; 6] {
    [first, second, 0, 0, 0, 0]
}

fn errno_is_eperm_without_a_number(t: &T) {
    let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_ERRNO"}]));
    assert_eq!(results(t, &profile, &[(SCHED_MAX, args(1, 0))]), [-1]);
}

fn errno_is_the_configs(t: &T) {
    let rule = |errno: u32| {
        allow_but(
            json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]),
        )
    };
    assert_eq!(results(t, &rule(77), &[(SCHED_MAX, args(1, 0))]), [-77]);
    // Not called, and no error either.
    assert_eq!(results(t, &rule(0), &[(SCHED_MAX, args(1, 0))]), [0]);
}

/// What the program, and runc's init before it, need to get along.
fn enough() -> Value {
    let profile = docker();
    let mut names: Vec<Value> = profile["syscalls"][0]["names"].as_array().unwrap().clone();
    names.retain(|name| !["sched_get_priority_max", "getpriority"].contains(&name.as_str().unwrap()));
    json!(names)
}

fn docker() -> Value {
    let text = include_str!("../data/docker-default.json");
    let config: Value = serde_json::from_str(text).unwrap();
    config["linux"]["seccomp"].clone()
}

fn errno_of_the_default_action(t: &T) {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 88,
        "syscalls": [{"names": enough(), "action": "SCMP_ACT_ALLOW"}]});
    assert_eq!(results(t, &profile, &[(SCHED_MAX, args(1, 0)), (GETPRIORITY, args(0, 0))]), [-88, -88]);
}

fn killing_actions_kill(t: &T) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
        let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": action}]));
        let out = outcome(t, &profile, &[(SCHED_MAX, args(1, 0))]);
        assert_eq!(out.code, Some(128 + 31), "{action}: {out:?}");
    }
}

fn trap_is_a_signal(t: &T) {
    let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_TRAP"}]));
    let out = outcome(t, &profile, &[(SCHED_MAX, args(1, 0))]);
    assert_eq!(out.code, Some(128 + 31), "{out:?}");
}

fn trace_without_a_tracer_is_enosys(t: &T) {
    let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_TRACE"}]));
    assert_eq!(results(t, &profile, &[(SCHED_MAX, args(1, 0))]), [-38]);
}

fn log_lets_through(t: &T) {
    let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_LOG"}]));
    assert_eq!(results(t, &profile, &[(SCHED_MAX, args(1, 0))]), [99]);
}

fn every_operator_compares_64_bits(t: &T) {
    const HIGH: u64 = 1 << 32;
    // Operator, value, second value, arguments that it holds for, and those that it does not.
    type Row<'a> = (&'a str, u64, u64, &'a [u64], &'a [u64]);
    let table: [Row; 10] = [
        ("SCMP_CMP_EQ", 1, 0, &[1], &[0, 2, HIGH | 1]),
        ("SCMP_CMP_EQ", HIGH | 1, 0, &[HIGH | 1], &[1, HIGH]),
        ("SCMP_CMP_NE", 1, 0, &[0, 2, HIGH | 1], &[1]),
        ("SCMP_CMP_LT", 5, 0, &[0, 4], &[5, 6, HIGH]),
        ("SCMP_CMP_LT", HIGH, 0, &[0, HIGH - 1], &[HIGH, HIGH | 1]),
        ("SCMP_CMP_LE", 5, 0, &[0, 5], &[6, HIGH | 1]),
        ("SCMP_CMP_GT", 5, 0, &[6, HIGH, u64::MAX], &[0, 5]),
        ("SCMP_CMP_GE", HIGH | 5, 0, &[HIGH | 5, HIGH | 6, HIGH << 1], &[HIGH | 4, 5, u64::MAX >> 33]),
        ("SCMP_CMP_MASKED_EQ", 0xff00, 0x1200, &[0x1200, 0x1234, HIGH | 0x12ff], &[0x1334, 0, HIGH]),
        ("SCMP_CMP_MASKED_EQ", HIGH | 1, HIGH, &[HIGH, HIGH | 2], &[HIGH | 1, 2, 0]),
    ];
    for (op, value, value_two, holds, holds_not) in table {
        let condition = json!([{"index": 0, "value": value, "valueTwo": value_two, "op": op}]);
        let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_ERRNO",
            "errnoRet": 77, "args": condition}]));
        let calls: Vec<Call> =
            holds.iter().chain(holds_not).map(|value| (SCHED_MAX, args(*value, 0))).collect();
        let seen: Vec<bool> = results(t, &profile, &calls).iter().map(|result| *result == -77).collect();
        let want: Vec<bool> = holds.iter().map(|_| true).chain(holds_not.iter().map(|_| false)).collect();
        assert_eq!(seen, want, "{op} {value:#x} {value_two:#x} on {holds:x?} and {holds_not:x?}");
    }
}

fn conditions_on_several_arguments_must_all_hold(t: &T) {
    let conditions = json!([
        {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}
    ]);
    let profile = allow_but(
        json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": conditions}]),
    );
    let calls = [(GETPRIORITY, args(0, 0)), (GETPRIORITY, args(0, 1)), (GETPRIORITY, args(1, 0))];
    let seen = results(t, &profile, &calls);
    assert!(seen[0] == -77 && seen[1] > 0 && seen[2] > 0, "{seen:?}");
}

fn conditions_on_one_argument_are_alternatives(t: &T) {
    // So libseccomp's rules are: runc makes a rule of each.
    let conditions =
        json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]);
    let profile = allow_but(json!([{"names": ["sched_get_priority_max"], "action": "SCMP_ACT_ERRNO",
        "errnoRet": 77, "args": conditions}]));
    let calls = [(SCHED_MAX, args(1, 0)), (SCHED_MAX, args(3, 0)), (SCHED_MAX, args(0, 0))];
    assert_eq!(results(t, &profile, &calls), [-77, -77, 0]);
}

fn an_entry_may_name_several_calls(t: &T) {
    let names = json!(["sched_get_priority_max", "getpriority"]);
    let profile = allow_but(json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]));
    let calls = [(SCHED_MAX, args(1, 0)), (GETPRIORITY, args(0, 0)), (GETPID, [0; 6])];
    assert_eq!(results(t, &profile, &calls), [-77, -77, 1]);
}

fn two_entries_of_one_call(t: &T) {
    let rule = |value: u64, errno: u32| {
        json!({"names": ["sched_get_priority_max"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let profile = allow_but(json!([rule(0, 70), rule(1, 71)]));
    let calls = [(SCHED_MAX, args(0, 0)), (SCHED_MAX, args(1, 0)), (SCHED_MAX, args(9, 0))];
    assert_eq!(results(t, &profile, &calls), [-70, -71, EINVAL]);
}

fn unknown_names_are_no_error(t: &T) {
    let names = json!(["no_such_call", "sched_get_priority_max"]);
    let profile = allow_but(json!([{"names": names, "action": "SCMP_ACT_ERRNO"}]));
    assert_eq!(t.sh(&with(t, &profile), "echo in"), "in\n");
}

fn newer_calls_than_the_profile_are_enosys(t: &T) {
    // A program that finds a new call refused with EPERM takes that for an answer; ENOSYS makes it use the old one.
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": enough(), "action": "SCMP_ACT_ALLOW"}]});
    let calls = [(SCHED_MAX, args(1, 0)), (9_999, [0; 6]), (1_000, [0; 6])];
    assert_eq!(results(t, &profile, &calls), [-1, -38, -38]);
}

fn dockers_profile_blocks_what_it_should(t: &T) {
    // keyctl, add_key, unshare(CLONE_NEWUSER), mount, bpf, kexec_load; then getpid, and personality(0).
    let calls = [
        (250, args(0, 0)),
        (248, args(0, 0)),
        (272, args(0x1000_0000, 0)),
        (165, args(0, 0)),
        (321, args(0, 0)),
        (246, args(0, 0)),
        (GETPID, [0; 6]),
        (135, args(0, 0)),
        (135, args(0x1234, 0)),
    ];
    let seen = results(t, &docker(), &calls);
    assert_eq!(seen, [-1, -1, -1, -1, -1, -1, 1, 0, -1]);
}

const I386_GETPID: u32 = 20;
const I386_KEYCTL: u32 = 288;

fn i386(t: &T, profile: &Value, calls: &[(u32, [u32; 5])]) -> Out {
    let bundle = with(t, profile).args(&["/calls"]);
    let file = bundle.write_program("/calls", machine::i386(calls));
    let here = std::process::Command::new(file).output();
    if here.is_err() {
        t.skip("this kernel runs no i386 programs");
    }
    t.container(&bundle).run()
}

fn i386_calls_are_filtered_by_name(t: &T) {
    let out = i386(t, &docker(), &[(I386_GETPID, [0; 5]), (I386_KEYCTL, [0; 5])]).ok();
    assert_eq!(machine::results_32(&std::fs::read(out.stdout_file).unwrap()), [1, -1]);
}

fn i386_calls_without_the_architecture_kill(t: &T) {
    let profile = allow_but(json!([{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}]));
    let out = i386(t, &profile, &[(I386_GETPID, [0; 5])]);
    assert_eq!(out.code, Some(128 + 31), "{out:?}");
}

fn x32_calls_are_no_x86_64_calls(t: &T) {
    const X32: u64 = 0x4000_0000;
    let profile = allow_but(json!([{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}]));
    let out = outcome(t, &profile, &[(X32 | GETPID, [0; 6])]);
    assert_eq!(out.code, Some(128 + 31), "{out:?}");
    // With the architecture named, rules hold for its numbers too.
    let mut profile = profile;
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]);
    let seen = results(t, &profile, &[(X32 | 250, [0; 6]), (X32 | GETPID, [0; 6])]);
    assert!(seen[0] == -1 && (seen[1] == 1 || seen[1] == -38), "{seen:?}");
}

fn block_mkdir() -> Value {
    let names = json!(["mkdir", "mkdirat"]);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}]})
}

fn a_filter_without_no_new_privileges(t: &T) {
    let bundle = with(t, &block_mkdir()).with(json!({"process": {"noNewPrivileges": false}}));
    let text = t.sh(&bundle, "mkdir /tmp/x 2>&1; grep -E '^(Seccomp|NoNewPrivs|CapEff)' /proc/self/status");
    assert!(text.starts_with("mkdir: can't create directory '/tmp/x': Operation not permitted\n"), "{text}");
    assert_eq!(procs::field_of(&text, "Seccomp").as_deref(), Some("2"));
    assert_eq!(procs::field_of(&text, "NoNewPrivs").as_deref(), Some("0"));
    // Loading it took CAP_SYS_ADMIN, which is gone.
    assert_eq!(procs::field_of(&text, "CapEff").as_deref(), Some("0000000020000420"));
}

fn a_filter_of_a_container_without_capabilities(t: &T) {
    // Only before CAP_SYS_ADMIN is given up can the filter be loaded, by init and by an exec.
    for change in [json!({"noNewPrivileges": false}), json!({"noNewPrivileges": null})] {
        let mut bundle = with(t, &block_mkdir()).with(json!({"process": change})).args(&["sleep", "1000"]);
        bundle.capabilities(&[]);
        let container = t.container(&bundle);
        container.launch();
        for pid in ["1", "self"] {
            let status = container.exec_sh(&format!("cat /proc/{pid}/status"));
            for (field, want) in [("Seccomp", "2"), ("NoNewPrivs", "0"), ("CapBnd", "0000000000000000")] {
                assert_eq!(procs::field_of(&status, field).as_deref(), Some(want), "{pid}: {field}");
            }
        }
        container.force_delete();
    }
}

fn a_filter_with_no_new_privileges(t: &T) {
    let text = t.sh(&with(t, &block_mkdir()), "mkdir /tmp/x 2>&1; grep -E '^Seccomp' /proc/self/status");
    assert!(text.contains("Operation not permitted"), "{text}");
    assert_eq!(procs::field_of(&text, "Seccomp_filters").as_deref(), Some("1"));
}

fn a_filter_holds_for_an_exec(t: &T) {
    let container = t.container(&with(t, &block_mkdir()).args(&["sleep", "1000"]));
    container.launch();
    let text = container.exec_sh("mkdir /tmp/x 2>&1; grep ^Seccomp: /proc/self/status");
    assert!(text.contains("Operation not permitted") && text.ends_with("2\n"), "{text}");
    container.force_delete();
}

fn a_filter_holds_in_a_user_namespace(t: &T) {
    let mut bundle = with(t, &block_mkdir());
    bundle.user_namespace();
    assert!(t.sh(&bundle, "mkdir /tmp/x 2>&1; true").contains("Operation not permitted"));
}

fn flags_are_taken(t: &T) {
    let mut profile = block_mkdir();
    for flag in ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"] {
        profile["flags"] = json!([flag]);
        assert_eq!(t.sh(&with(t, &profile), "grep ^Seccomp: /proc/self/status"), "Seccomp:\t2\n", "{flag}");
    }
}

fn without_a_profile_there_is_no_filter(t: &T) {
    assert_eq!(t.see(&t.bundle())["status"]["Seccomp"], "0");
}

fn an_empty_profile_that_allows(t: &T) {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    assert_eq!(results(t, &profile, &[(GETPID, [0; 6]), (SCHED_MAX, args(1, 0))]), [1, 99]);
}

fn notifying(t: &T, path: &std::path::Path) -> Bundle {
    let names = json!(["mkdir", "mkdirat"]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "note",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]});
    with(t, &profile)
}

/// What the receiver of the listener is told, and the listener.
fn receive(receiver: &Receiver) -> (Value, Fd) {
    let (bytes, fd) = receiver.receive();
    (serde_json::from_slice(&bytes).unwrap(), fd)
}

fn notify_hands_the_listener_over(t: &T) {
    let receiver = Receiver::new(t, "notify");
    let bundle = notifying(t, &receiver.path).with(json!({"annotations": {"a": "b"}}));
    let container = t.container(&bundle.script("echo before; mkdir /tmp/x 2>&1; echo after"));
    let mut running = container.spawn_run();
    let (told, fd) = receive(&receiver);
    running.await_output("before");
    assert_eq!(told["ociVersion"].as_str().map(|version| &version[..2]), Some("1."));
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!(told["metadata"], "note");
    assert_eq!(told["state"]["id"], json!(container.id));
    assert_eq!(told["state"]["annotations"]["a"], "b");
    assert_eq!(told["pid"], json!(container.pid()));
    // It waits for an answer.
    assert!(process::poll_readable(&fd, 5000).unwrap(), "no notification");
    assert!(!running.has_ended() && !running.printed().contains("after"), "{}", running.printed());
    // Nobody is going to answer: ENOSYS.
    drop(fd);
    let out = running.wait().ok();
    assert!(out.stdout.contains("Function not implemented\nafter\n"), "{}", out.stdout);
}

fn notify_with_create_and_start(t: &T) {
    let receiver = Receiver::new(t, "notify");
    let container = t.container(&notifying(t, &receiver.path).script("mkdir /tmp/x; sleep 1000"));
    container.make(&["create"]).run().ok();
    // Whoever is to answer hears of the container before its start.
    let (told, fd) = receive(&receiver);
    assert_eq!(told["pid"], json!(container.pid()));
    assert_eq!(told["state"]["status"], "creating");
    let held = std::fs::read_dir(format!("/proc/{}/fd", container.pid())).unwrap();
    let names = held.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap());
    let names: Vec<String> = names.map(|name| name.display().to_string()).collect();
    assert!(!names.iter().any(|name| name.contains("seccomp")), "{names:?}");
    container.verb(&["start"]).run().ok();
    assert!(process::poll_readable(&fd, 5000).unwrap(), "no notification");
    drop(fd);
    container.force_delete();
}

/// What such a filter asks about is asked by init itself, too: it waits for its start without.
fn notify_of_what_a_start_needs(t: &T) {
    let receiver = Receiver::new(t, "notify");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": receiver.path,
        "syscalls": [{"names": ["accept4", "mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    let container = t.container(&with(t, &profile).script("mkdir /tmp/x; sleep 1000"));
    container.create().ok();
    let start = container.verb(&["start"]).spawn();
    let (told, fd) = receive(&receiver);
    assert_eq!(told["pid"], json!(container.pid()));
    assert_eq!(told["state"]["status"], "created");
    start.wait().ok();
    assert!(process::poll_readable(&fd, 5000).unwrap(), "no notification");
    drop(fd);
    container.force_delete();
}

fn notify_without_a_receiver_is_an_error(t: &T) {
    let container = t.container(&notifying(t, &t.path("nobody")));
    let out = container.run().fails();
    assert!(out.message().contains("nobody") || out.message().contains("connect"), "{}", out.message());
    container.delete_if_there();
    t.nothing_is_left(&container);
    let out = container.create().fails();
    assert!(out.message().contains("nobody") || out.message().contains("connect"), "{}", out.message());
    container.delete_if_there();
    t.nothing_is_left(&container);
}

fn notify_of_an_exec(t: &T) {
    let receiver = Receiver::new(t, "notify");
    let container = t.container(&notifying(t, &receiver.path).args(&["sleep", "1000"]));
    container.create().ok();
    let first = receive(&receiver);
    container.verb(&["start"]).run().ok();
    let exec = container.exec_with(&[], &["sh", "-c", "mkdir /tmp/x 2>&1; echo done"]).spawn();
    let (told, fd) = receive(&receiver);
    assert_ne!(told["pid"], first.0["pid"]);
    assert!(process::poll_readable(&fd, 5000).unwrap(), "no notification");
    drop(fd);
    let out = exec.wait().ok();
    assert!(out.stdout.ends_with("Function not implemented\ndone\n"), "{}", out.stdout);
    container.force_delete();
}

fn bad_profiles_are_refused(t: &T) {
    let rule = |rule: Value| allow_but(json!([rule]));
    let table = [
        (json!({"defaultAction": "SCMP_ACT_NOPE"}), "SCMP_ACT_NOPE"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}), "SCMP_ACT_NOTIFY"),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "istenerPath"),
        (
            {
                let mut profile = rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"}));
                profile["listenerPath"] = json!("/x");
                profile
            },
            "write",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NOPE"}]})),
            "SCMP_CMP_NOPE",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
            "SCMP_ARCH_NOPE",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOPE"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
            "SECCOMP_FILTER_FLAG_NOPE",
        ),
    ];
    let mut wrong = Vec::new();
    for (profile, says) in table {
        if t.is_runc_below("1.2") && says.contains("FLAG") {
            continue;
        }
        let message = t.refused(&with(t, &profile));
        if !message.contains(says) {
            wrong.push(format!("{message:?} does not say {says}"));
        }
        if t.is_ours() && !message.contains("/linux/seccomp") && !message.contains("config.json") {
            wrong.push(format!("{message:?} names no place"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// It is read and compiled when init is on its way already.
fn a_bad_profile_is_refused_in_front_of_hooks(t: &T) {
    let mut bundle = with(
        t,
        &allow_but(json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}])),
    );
    let ran = t.dir.join("ran");
    let touch = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("touch {}", ran.display())]}]);
    bundle.set(json!({"hooks": {"prestart": touch, "createRuntime": touch, "createContainer": touch}}));
    let message = t.refused(&bundle);
    let place =
        "config.json /linux/seccomp/syscalls/0/args/0/index: a system call has the arguments 0 to 5, not 6";
    assert!(!t.is_ours() || message.contains(place), "{message}");
    assert!(!ran.exists(), "a hook has run");
    // Nor is its form looked at before: with its place in the whole file.
    bundle.config["linux"]["seccomp"]["syscalls"][0]["args"][0]["op"] = json!("SCMP_CMP_NOPE");
    let message = t.refused(&bundle);
    let text = std::fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let line = 1 + text[..text.find("SCMP_CMP_NOPE").unwrap()].matches('\n').count();
    let says = [
        "config.json /linux/seccomp/syscalls/0/args/0/op: unknown variant `SCMP_CMP_NOPE`",
        &format!("(line {line})"),
    ];
    assert!(!t.is_ours() || says.iter().all(|says| message.contains(says)), "{message}");
    assert!(!ran.exists(), "a hook has run");
}

fn a_filter_that_forbids_getcwd(t: &T) {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]});
    assert_eq!(t.sh(&with(t, &profile), "echo in"), "in\n");
}

/// A container that waits, without a libc; below it `/calls` asks for its pid.
fn waiting(t: &T, profile: &Value) -> Bundle {
    const PAUSE: u64 = 34;
    let mut bundle = with(t, profile).with(json!({"process": {"noNewPrivileges": false}})).args(&["/wait"]);
    bundle.list("/process/rlimits").push(json!({"type": "RLIMIT_NPROC", "soft": 900, "hard": 900}));
    bundle.write_program("/wait", machine::x86_64(&[(PAUSE, [0; 6])]));
    bundle.write_program("/calls", machine::x86_64(&[(GETPID, [0; 6])]));
    bundle
}

fn an_exec_makes_no_calls_but_those_it_looks_for(t: &T) {
    let names = json!([
        // From the load to the execve, as `lets_come_in` in pkg/plan/src/exec.rs has them,
        "clone",
        "clone3",
        "recvmsg",
        "sendto",
        "write",
        "close",
        "sched_setaffinity",
        "setsid",
        "clock_gettime",
        "exit_group",
        "prctl",
        "prlimit64",
        "ioctl",
        // what every process does behind its filter,
        "capset",
        "rt_sigaction",
        "rt_sigprocmask",
        "execve",
        "brk",
        "mmap",
        "munmap",
        // and the programs.
        "pause",
        "getpid"
    ]);
    let profile = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let container = t.container(&waiting(t, &profile));
    container.launch();
    let timeline = t.path("timeline").to_string_lossy().into_owned();
    for flags in [&["--timeline", &timeline][..], &["--tty"], &["--user", "1000"], &["--cwd", "/tmp"]] {
        container.exec_with(flags, &["/calls"]).run().ok();
    }
    let text = std::fs::read_to_string(timeline).unwrap();
    let at = |step: &str| text.rfind(step).unwrap_or_else(|| panic!("{step}: {text}"));
    assert!(at("load seccomp filter") < at(" clone\""), "{text}");
    container.force_delete();
}

fn an_exec_passes_a_filter_that_forbids_a_step_of_its_way(t: &T) {
    for name in
        ["clone", "clone3", "recvmsg", "close", "sched_setaffinity", "setsid", "clock_gettime", "ioctl"]
    {
        let profile = allow_but(json!([{"names": [name], "action": "SCMP_ACT_KILL_PROCESS"}]));
        let container = t.container(&waiting(t, &profile));
        container.launch();
        container.exec(&["/calls"]).ok();
        container.force_delete();
    }
}
