//! Profiles that are refused, and what the caller hears.

use cofferdam_seccomp::{ActionSet, Error, MAX_INSTRUCTIONS, Program, Target, compile, flag, syscalls};
use serde_json::{Value, json};

use crate::{profile, target};

fn on(json: Value, target: Target) -> Result<Program, Error> {
    compile(&profile(&json), &target)
}

fn here(json: Value) -> Result<Program, Error> {
    on(json, target("SCMP_ARCH_X86_64"))
}

#[track_caller]
fn refused(json: Value, message: &str) {
    assert_eq!(here(json).unwrap_err().to_string(), message);
}

/// A profile with one rule.
fn rule(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
}

#[test]
fn errno_ret_is_refused_where_no_number_is_returned() {
    refused(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
        "/linux/seccomp/syscalls/0/errnoRet: SCMP_ACT_KILL returns no error number",
    );
    refused(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
        "/linux/seccomp/defaultErrnoRet: SCMP_ACT_ALLOW returns no error number",
    );
}

#[test]
fn errno_ret_is_bounded() {
    refused(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
        "/linux/seccomp/syscalls/0/errnoRet: 4096 is more than 4095, the largest that SCMP_ACT_ERRNO takes",
    );
    refused(
        json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}),
        "/linux/seccomp/defaultErrnoRet: 65536 is more than 65535, the largest that SCMP_ACT_TRACE takes",
    );
}

#[test]
fn arguments_end_at_five() {
    refused(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
        "/linux/seccomp/syscalls/0/args/1/index: a system call has the arguments 0 to 5, not 6",
    );
}

#[test]
fn names_must_be_there() {
    refused(
        rule(json!({"names": [], "action": "SCMP_ACT_KILL"})),
        "/linux/seccomp/syscalls/0/names: there must be at least one name",
    );
    refused(
        rule(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"})),
        "/linux/seccomp/syscalls/0/names/1: an empty string names no system call",
    );
}

#[test]
fn notify_needs_an_agent_that_can_be_reached() {
    refused(
        json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent"}),
        "/linux/seccomp/defaultAction: SCMP_ACT_NOTIFY cannot be the default action",
    );
    refused(
        rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})),
        "/linux/seccomp/listenerPath: SCMP_ACT_NOTIFY needs the socket of an agent, and none is set",
    );
    let mut json = rule(json!({"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}));
    json["listenerPath"] = "/run/agent".into();
    refused(json, "/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the write syscall");
    refused(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "", "listenerMetadata": "x"}),
        "/linux/seccomp/listenerMetadata: it must not be set while listenerPath is not",
    );
}

#[test]
fn foreign_byte_order_is_refused() {
    refused(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]}),
        "/linux/seccomp/architectures/1: SCMP_ARCH_S390X has another byte order than this machine's SCMP_ARCH_X86_64",
    );
}

#[test]
fn what_the_kernel_lacks_is_refused() {
    let old = Target {
        actions: ActionSet::from_actions_avail("kill_thread trap errno trace allow"),
        flags: flag::TSYNC,
        ..target("SCMP_ARCH_X86_64")
    };
    let error = |json| on(json, old).unwrap_err().to_string();
    assert_eq!(
        error(rule(json!({"names": ["read"], "action": "SCMP_ACT_LOG"}))),
        "/linux/seccomp/syscalls/0/action: this kernel does not know SCMP_ACT_LOG (kernel.seccomp.actions_avail)"
    );
    assert_eq!(
        error(json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"})),
        "/linux/seccomp/defaultAction: this kernel does not know SCMP_ACT_KILL_PROCESS (kernel.seccomp.actions_avail)"
    );
    assert_eq!(
        error(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]})),
        "/linux/seccomp/flags/0: this kernel does not know SECCOMP_FILTER_FLAG_LOG"
    );
    let absent = on(json!({"defaultAction": "SCMP_ACT_ALLOW"}), old).unwrap();
    assert_eq!(absent.flags, 0);
}

#[test]
fn flags_are_those_of_the_kernel() {
    let flags = |json| here(json).unwrap().flags;
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW"})), flag::SPEC_ALLOW);
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": []})), 0);
    let listed = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_LOG"];
    assert_eq!(
        flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": listed})),
        flag::TSYNC | flag::TSYNC_ESRCH | flag::LOG
    );
    let notify = |flags: Value| {
        let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/a", "syscalls": rules})
    };
    let killable = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let program = here(notify(killable.clone())).unwrap();
    assert_eq!(program.flags, flag::NEW_LISTENER | flag::WAIT_KILLABLE_RECV);
    assert!(program.uses_notify);
    refused(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": killable}),
        "/linux/seccomp/flags/0: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is only for filters with SCMP_ACT_NOTIFY \
         (EINVAL from the kernel)",
    );
    let before_5_7 = Target { flags: flag::TSYNC | flag::NEW_LISTENER, ..target("SCMP_ARCH_X86_64") };
    assert_eq!(
        on(notify(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), before_5_7).unwrap_err().to_string(),
        "/linux/seccomp/flags/0: before Linux 5.7, SECCOMP_FILTER_FLAG_TSYNC does not go with SCMP_ACT_NOTIFY"
    );
}

#[test]
fn unknown_names_are_passed_over_with_a_warning() {
    let program = here(rule(json!({"names": ["read", "raed"], "action": "SCMP_ACT_KILL"}))).unwrap();
    assert_eq!(
        program.warnings,
        ["/linux/seccomp/syscalls/0/names/1: the system call \"raed\" is not known and has no effect"]
    );
    assert!(!program.uses_notify);
}

#[test]
fn a_program_too_long_for_the_kernel_is_refused() {
    let wide: Vec<Value> = (0..400_u64)
        .map(|value| json!({"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "value": value << 33, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": value, "op": "SCMP_CMP_EQ"}]}))
        .collect();
    let json = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": wide});
    assert!(here(json.clone()).unwrap().instructions.len() <= MAX_INSTRUCTIONS);
    let all: Vec<&str> = syscalls::names().collect();
    let mut too_long = json;
    too_long["architectures"] = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    for entry in too_long["syscalls"].as_array_mut().unwrap() {
        entry["names"] = json!(["ioctl", "prctl"]);
    }
    too_long["syscalls"]
        .as_array_mut()
        .unwrap()
        .push(json!({"names": all, "action": "SCMP_ACT_LOG", "args": [
        {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}));
    let error = here(too_long).unwrap_err();
    assert_eq!(error.pointer, "/linux/seccomp/syscalls");
    assert!(error.sentence.ends_with("instructions, and the kernel takes 4096 (BPF_MAXINSNS)"), "{error}");
}
