//! Bad input, and failures half-way: each refusal says what is wrong and where, and a failed create leaves nothing.

use crate::harness::{Bundle, Need, T, Test};
use crate::test;
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(bad_json_is_told_with_its_place),
    test!(versions_are_checked),
    test!(what_is_missing_is_told),
    test!(bad_processes_are_refused),
    test!(bad_users_are_refused),
    test!(bad_limits_are_refused).by_driver(),
    test!(bad_capabilities_are_refused),
    test!(bad_schedulers_are_refused).needs(&[Need::Ours("most of these runc leaves to the kernel")]),
    test!(bad_mounts_are_refused),
    test!(bad_idmaps_are_refused).needs(&[Need::Runc("1.2", "idmapped mounts")]),
    test!(bad_hooks_are_refused).needs(&[Need::Ours("runc looks at a hook when it runs it")]),
    test!(bad_namespaces_are_refused),
    test!(bad_mappings_are_refused),
    test!(bad_time_offsets_are_refused).needs(&[Need::Runc("1.2", "time namespaces")]),
    test!(bad_devices_are_refused),
    test!(bad_paths_are_refused),
    test!(bad_sysctls_are_refused),
    test!(bad_names_are_refused),
    test!(bad_odds_and_ends_are_refused),
    test!(what_the_machine_has_not_is_refused_by_name)
        .needs(&[Need::Ours("runc has all of these, or ignores them")]),
    test!(a_failed_create_leaves_nothing).by_driver(),
    test!(a_failed_create_leaves_nothing_in_a_user_namespace).by_driver(),
    test!(a_failed_run_leaves_nothing).by_driver(),
    test!(a_failed_exec_leaves_the_container_alone),
    test!(an_error_is_one_line),
    test!(an_error_names_the_step).needs(&[Need::Ours("only cofferdam has steps")]),
    test!(a_huge_config_is_refused).needs(&[Need::Ours("runc reads what there is")]),
    test!(a_config_that_is_a_fifo_or_a_device_is_refused)
        .needs(&[Need::Ours("runc waits for a fifo's other end")]),
    test!(unknown_properties_are_ignored),
];

/// A change of the config, the exact words of cofferdam's refusal, and whether runc refuses it too.
type Case = (Value, &'static str, bool);

const RUNC_TOO: bool = true;
const OURS_ALONE: bool = false;

/// Each case is refused, in the right words, and leaves nothing.
fn refusals(t: &T, cases: Vec<Case>) {
    let bundle = t.bundle();
    let mut wrong = Vec::new();
    for (change, want, runc_too) in cases {
        if !t.is_ours() && !runc_too {
            continue;
        }
        let mut bundle = bundle.with(change.clone());
        bundle.own_cgroup = !bundle.config["linux"]["cgroupsPath"].is_null();
        let message = t.refused(&bundle);
        // The line depends on what else is in the config.
        let message = message.split(" (line ").next().unwrap_or_default();
        if t.is_ours() && message != want {
            wrong.push(format!("{change}\n    wanted {want}\n    is     {message}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The refusal of a config.json of this text.
fn refused_text(t: &T, text: &str) -> String {
    let dir = t.make_dir("text");
    std::fs::write(dir.join("config.json"), text).unwrap();
    let id = t.id();
    let out = t.call(&["create", "--bundle", &dir.to_string_lossy(), &id]).run().fails();
    assert!(!t.state_dir().join(id).exists());
    out.message()
}

fn bad_json_is_told_with_its_place(t: &T) {
    for (text, want) in [
        ("", "config.json: EOF while parsing a value (line 1)"),
        ("{\n\"ociVersion\": ", "config.json: EOF while parsing a value (line 2)"),
        ("{\"ociVersion\": \"1.0.0\",}", "config.json: trailing comma (line 1)"),
        (
            "{\"ociVersion\": \"1.0.0\", \"process\": {\"user\": {\"uid\": -1}}}",
            "config.json /process/user/uid: invalid value: integer `-1`, expected u32 (line 1)",
        ),
        (
            "{\"ociVersion\": \"1.0.0\", \"process\": {\"args\": [\"a\", 5]}}",
            "config.json /process/args/1: invalid type: integer `5`, expected a string (line 1)",
        ),
        (
            "{\"ociVersion\": \"1.0.0\",\n \"process\": {\"user\": {\"uid\": 4294967296}}}",
            "config.json /process/user/uid: invalid value: integer `4294967296`, expected u32 (line 2)",
        ),
        ("[]", "config.json: invalid length 0, expected struct Spec with 10 elements (line 1)"),
    ] {
        let message = refused_text(t, text);
        if t.is_ours() && text != "[]" {
            assert_eq!(message, want);
        }
    }
}

fn versions_are_checked(t: &T) {
    refusals(
        t,
        vec![
            (json!({"ociVersion": null}), "config.json /ociVersion: is missing", OURS_ALONE),
            (
                json!({"ociVersion": "0.9.0"}),
                "config.json /ociVersion: version 0.9.0 is not supported: 1.0.0 to 1.3.0 are",
                OURS_ALONE,
            ),
            (
                json!({"ociVersion": "2.0.0"}),
                "config.json /ociVersion: version 2.0.0 is not supported: 1.0.0 to 1.3.0 are",
                OURS_ALONE,
            ),
            (
                json!({"ociVersion": "one"}),
                "config.json /ociVersion: \"one\" is no semantic version",
                OURS_ALONE,
            ),
        ],
    );
    for version in ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0"] {
        t.sh(&t.bundle().with(json!({"ociVersion": version})), "true");
    }
}

fn what_is_missing_is_told(t: &T) {
    refusals(
        t,
        vec![
            (json!({"root": null}), "config.json /root: root must be specified", RUNC_TOO),
            (json!({"root": {"path": ""}}), "config.json /root/path: must not be empty", OURS_ALONE),
        ],
    );
}

fn bad_processes_are_refused(t: &T) {
    refusals(
        t,
        vec![
            (
                json!({"process": {"cwd": ""}}),
                "config.json /process/cwd: Cwd property must not be empty",
                RUNC_TOO,
            ),
            (
                json!({"process": {"cwd": "tmp"}}),
                "config.json /process/cwd: Cwd must be an absolute path, not \"tmp\"",
                RUNC_TOO,
            ),
            (json!({"process": {"args": []}}), "config.json /process/args: args must not be empty", RUNC_TOO),
            (
                json!({"process": {"args": ["sh", "a\0"]}}),
                "config.json /process/args/1: contains a NUL character",
                OURS_ALONE,
            ),
            (
                json!({"process": {"env": ["A"]}}),
                "config.json /process/env/0: invalid environment variable: missing '='",
                RUNC_TOO,
            ),
            (
                json!({"process": {"env": ["PATH=/bin", "=x"]}}),
                "config.json /process/env/1: invalid environment variable: name cannot be empty",
                RUNC_TOO,
            ),
            (
                json!({"process": {"env": ["A=x\0y"]}}),
                "config.json /process/env/0: contains a NUL character",
                OURS_ALONE,
            ),
            (
                json!({"process": {"oomScoreAdj": 1001}}),
                "config.json /process/oomScoreAdj: 1001 is not within -1000 and 1000",
                RUNC_TOO,
            ),
            (
                json!({"process": {"oomScoreAdj": -1001}}),
                "config.json /process/oomScoreAdj: -1001 is not within -1000 and 1000",
                RUNC_TOO,
            ),
            (
                json!({"process": {"selinuxLabel": "a\0b"}}),
                "config.json /process/selinuxLabel: contains a NUL character",
                OURS_ALONE,
            ),
            (
                json!({"process": {"apparmorProfile": "a\0b"}}),
                "config.json /process/apparmorProfile: contains a NUL character",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_users_are_refused(t: &T) {
    refusals(
        t,
        vec![
            (
                json!({"process": {"user": {"uid": 4_294_967_295u32}}}),
                "config.json /process/user/uid: 4294967295 is no uid",
                RUNC_TOO,
            ),
            (
                json!({"process": {"user": {"gid": 4_294_967_295u32}}}),
                "config.json /process/user/gid: 4294967295 is no gid",
                RUNC_TOO,
            ),
            (
                json!({"process": {"user": {"additionalGids": [4_294_967_295u32]}}}),
                "config.json /process/user/additionalGids/0: 4294967295 is no gid",
                OURS_ALONE,
            ),
            (
                json!({"process": {"user": {"umask": 512}}}),
                "config.json /process/user/umask: 512 is more than 511, which is 0777",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_limits_are_refused(t: &T) {
    let core = |soft: u64, hard: u64| json!({"type": "RLIMIT_CORE", "soft": soft, "hard": hard});
    refusals(
        t,
        vec![
            (
                json!({"process": {"rlimits": [{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]}}),
                "config.json /process/rlimits/0/type: \"RLIMIT_NOPE\" is no rlimit",
                RUNC_TOO,
            ),
            (
                json!({"process": {"rlimits": [core(1, 1), core(2, 2)]}}),
                "config.json /process/rlimits/1: \"RLIMIT_CORE\" is listed twice (first at /process/rlimits/0)",
                OURS_ALONE,
            ),
            (
                json!({"process": {"rlimits": [core(2, 1)]}}),
                "config.json /process/rlimits/0: the soft limit 2 is above the hard limit 1",
                RUNC_TOO,
            ),
        ],
    );
}

fn bad_capabilities_are_refused(t: &T) {
    refusals(
        t,
        vec![(
            json!({"process": {"capabilities": {"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]}}}),
            "config.json /process/capabilities/effective/1: CAP_CHOWN is effective, but not in \
             /process/capabilities/permitted",
            RUNC_TOO,
        )],
    );
}

fn bad_schedulers_are_refused(t: &T) {
    let case = |scheduler: Value, want| (json!({"process": {"scheduler": scheduler}}), want, OURS_ALONE);
    let at = |priority: Value, want| (json!({"process": {"ioPriority": priority}}), want, OURS_ALONE);
    refusals(
        t,
        vec![
            case(json!({"nice": 1}), "config.json /process/scheduler/policy: scheduler policy is required"),
            case(
                json!({"policy": "SCHED_NOPE"}),
                "config.json /process/scheduler/policy: \"SCHED_NOPE\" is no scheduling policy",
            ),
            case(
                json!({"policy": "SCHED_OTHER", "nice": 20}),
                "config.json /process/scheduler/nice: invalid scheduler.nice: 20 is not within -20 and 19",
            ),
            case(
                json!({"policy": "SCHED_BATCH", "priority": 1}),
                "config.json /process/scheduler/priority: scheduler.priority can only be specified for SCHED_FIFO or \
                 SCHED_RR policy",
            ),
            case(
                json!({"policy": "SCHED_FIFO", "priority": 100}),
                "config.json /process/scheduler/priority: 100 is not within 1 and 99, as SCHED_FIFO needs",
            ),
            case(
                json!({"policy": "SCHED_FIFO", "priority": 1, "runtime": 5}),
                "config.json /process/scheduler/runtime: scheduler.runtime can only be specified for SCHED_DEADLINE \
                 policy",
            ),
            case(
                json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOPE"]}),
                "config.json /process/scheduler/flags/0: \"SCHED_FLAG_NOPE\" is no scheduler flag",
            ),
            at(
                json!({"class": "BE", "priority": 1}),
                "config.json /process/ioPriority/class: \"BE\" is no io priority class",
            ),
            at(
                json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
                "config.json /process/ioPriority/priority: 8 is not within 0 and 7",
            ),
            (
                json!({"process": {"execCPUAffinity": {"initial": "0", "final": "3-1"}}}),
                "config.json /process/execCPUAffinity/final: range \"3-1\" runs backwards",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_mounts_are_refused(t: &T) {
    let case = |mount: Value, want, runc_too| (json!({"mounts": [mount]}), want, runc_too);
    refusals(
        t,
        vec![
            case(
                json!({"destination": "", "type": "tmpfs", "source": "tmpfs"}),
                "config.json /mounts/0/destination: must not be empty",
                OURS_ALONE,
            ),
            case(
                json!({"destination": "/x", "type": "bind", "options": ["bind"]}),
                "config.json /mounts/0/source: must not be empty, as this is a bind mount",
                OURS_ALONE,
            ),
            case(
                json!({"destination": "/x", "source": "x"}),
                "config.json /mounts/0/type: must not be empty, as this is neither a bind mount nor a remount",
                RUNC_TOO,
            ),
            case(
                json!({"destination": "/x", "type": "proc", "source": "proc", "options": ["tmpcopyup"]}),
                "config.json /mounts/0/options: tmpcopyup is for a new tmpfs only",
                RUNC_TOO,
            ),
            case(
                json!({"destination": "/x\0y", "type": "tmpfs", "source": "tmpfs"}),
                "config.json /mounts/0/destination: contains a NUL character",
                OURS_ALONE,
            ),
            case(
                json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["a\0b"]}),
                "config.json /mounts/0/options/0: contains a NUL character",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_idmaps_are_refused(t: &T) {
    let dir = t.make_dir("volume");
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let bind = |change: Value| {
        let mut mount =
            json!({"destination": "/x", "type": "bind", "source": dir, "options": ["bind", "idmap"]});
        crate::harness::bundle::merge(&mut mount, change);
        json!({"mounts": [mount]})
    };
    refusals(
        t,
        vec![
            (
                bind(json!({"type": "tmpfs", "options": ["idmap"], "uidMappings": map, "gidMappings": map})),
                "config.json /mounts/0: id-mapped mounts are only supported for bind-mounts",
                RUNC_TOO,
            ),
            (
                bind(json!({"uidMappings": map})),
                "config.json /mounts/0: id-mapped mounts must have both uidMappings and gidMappings specified",
                RUNC_TOO,
            ),
            (
                bind(json!({})),
                "config.json /mounts/0: is to be idmapped, but neither the mount has mappings nor the container a user \
                 namespace",
                RUNC_TOO,
            ),
            (
                bind(
                    json!({"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 0}], "gidMappings": map}),
                ),
                "config.json /mounts/0/uidMappings/0/size: must not be zero",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_hooks_are_refused(t: &T) {
    let case = |hooks: Value, want| (json!({"hooks": hooks}), want, OURS_ALONE);
    refusals(
        t,
        vec![
            case(
                json!({"prestart": [{"path": "/bin/true"}, {"path": "bin/true"}]}),
                "config.json /hooks/prestart/1/path: \"bin/true\" is no absolute path",
            ),
            case(
                json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}),
                "config.json /hooks/poststop/0/timeout: 0 seconds: must be greater than zero, and fit 32 bits",
            ),
            case(
                json!({"createRuntime": [{"path": "/bin/true", "timeout": -5}]}),
                "config.json /hooks/createRuntime/0/timeout: -5 seconds: must be greater than zero, and fit 32 bits",
            ),
        ],
    );
}

fn namespaces(list: Value) -> Value {
    json!({"linux": {"namespaces": list}})
}

fn bad_namespaces_are_refused(t: &T) {
    refusals(
        t,
        vec![
            (
                namespaces(json!([{"type": "mount"}, {"type": "mnt"}, {"type": "uts"}])),
                "config.json /linux/namespaces/1/type: \"mnt\" is no kind of namespace",
                RUNC_TOO,
            ),
            (
                namespaces(json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "pid"}])),
                "config.json /linux/namespaces/3: \"pid\" is listed twice (first at /linux/namespaces/0)",
                RUNC_TOO,
            ),
            (
                namespaces(
                    json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "proc/1/ns/pid"}]),
                ),
                "config.json /linux/namespaces/2/path: \"proc/1/ns/pid\" is no absolute path",
                RUNC_TOO,
            ),
        ],
    );
}

fn user(uid: Value, gid: Value) -> Value {
    json!({"linux": {"uidMappings": uid, "gidMappings": gid, "namespaces":
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "user"}]}})
}

fn bad_mappings_are_refused(t: &T) {
    let fine = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let other = json!([{"containerID": 1, "hostID": 100_000, "size": 10}]);
    let overlap = json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 9, "hostID": 5000, "size": 1}]);
    let many: Vec<Value> =
        (0..341).map(|id| json!({"containerID": id, "hostID": 100_000 + id, "size": 1})).collect();
    let mut unmapped = user(fine.clone(), fine.clone());
    unmapped["process"] = json!({"user": {"uid": 10, "gid": 0}});
    let mut unmapped_group = user(fine.clone(), fine.clone());
    unmapped_group["process"] = json!({"user": {"uid": 0, "gid": 0, "additionalGids": [3, 10]}});
    refusals(
        t,
        vec![
            (
                json!({"linux": {"uidMappings": fine}}),
                "config.json /linux/uidMappings: user namespace mappings specified, but user namespace isn't enabled in \
                 the config",
                OURS_ALONE,
            ),
            (
                user(json!([]), json!([])),
                "config.json /linux/uidMappings: user namespaces enabled, but no mapping found for uid 0",
                RUNC_TOO,
            ),
            (
                user(fine.clone(), other),
                "config.json /linux/gidMappings: user namespaces enabled, but no mapping found for gid 0",
                RUNC_TOO,
            ),
            (
                user(overlap, fine.clone()),
                "config.json /linux/uidMappings/1: overlaps /linux/uidMappings/0",
                RUNC_TOO,
            ),
            (
                user(json!(many), fine.clone()),
                "config.json /linux/uidMappings: has 341 entries, and the kernel takes 340",
                RUNC_TOO,
            ),
            (
                user(json!([{"containerID": 0, "hostID": 4_294_967_290u32, "size": 10}]), fine),
                "config.json /linux/uidMappings/0/hostID: 4294967290 and 10 ids go beyond the last one",
                RUNC_TOO,
            ),
            (
                unmapped,
                "config.json /process/user/uid: uid 10 is not mapped into the container's user namespace",
                RUNC_TOO,
            ),
            (
                unmapped_group,
                "config.json /process/user/additionalGids/1: gid 10 is not mapped into the container's user namespace",
                RUNC_TOO,
            ),
        ],
    );
}

fn bad_time_offsets_are_refused(t: &T) {
    let with = |kind: &str, offsets: Value| {
        json!({"linux": {"timeOffsets": offsets, "namespaces":
            [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": kind}]}})
    };
    refusals(
        t,
        vec![
            (
                with("ipc", json!({"monotonic": {"secs": 1}})),
                "config.json /linux/timeOffsets: time namespace offsets specified, but time namespace isn't enabled in \
                 the config",
                RUNC_TOO,
            ),
            (
                with("time", json!({"realtime": {"secs": 1}})),
                "config.json /linux/timeOffsets: \"realtime\" is no clock that has an offset",
                RUNC_TOO,
            ),
            (
                with("time", json!({"boottime": {"secs": 1, "nanosecs": 1_000_000_000}})),
                "config.json /linux/timeOffsets/boottime/nanosecs: 1000000000 is a second or more",
                RUNC_TOO,
            ),
        ],
    );
}

fn bad_devices_are_refused(t: &T) {
    let case = |device: Value, want, runc_too| (json!({"linux": {"devices": [device]}}), want, runc_too);
    let fuse = |minor: u32| json!({"path": "/dev/x", "type": "c", "major": 10, "minor": minor});
    refusals(
        t,
        vec![
            case(
                json!({"path": "dev/x", "type": "c", "major": 1, "minor": 3}),
                "config.json /linux/devices/0/path: \"dev/x\" is no absolute path",
                OURS_ALONE,
            ),
            case(
                json!({"path": "/dev/x", "type": "a", "major": 1, "minor": 3}),
                "config.json /linux/devices/0/type: unknown variant `a`, expected one of `c`, `u`, `b`, `p`",
                OURS_ALONE,
            ),
            case(
                json!({"path": "/dev/x", "type": "b", "major": -1, "minor": 3}),
                "config.json /linux/devices/0/major: -1 is not within 0 and 4095",
                OURS_ALONE,
            ),
            case(
                json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 1_048_576}),
                "config.json /linux/devices/0/minor: 1048576 is not within 0 and 1048575",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"devices": [fuse(1), fuse(2)]}}),
                "config.json /linux/devices/1: \"/dev/x\" is listed twice (first at /linux/devices/0)",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_paths_are_refused(t: &T) {
    refusals(
        t,
        vec![
            (
                json!({"linux": {"maskedPaths": ["/a", "b"]}}),
                "config.json /linux/maskedPaths/1: \"b\" is no absolute path",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"readonlyPaths": ["./b"]}}),
                "config.json /linux/readonlyPaths/0: \"./b\" is no absolute path",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"maskedPaths": ["/a\0b"]}}),
                "config.json /linux/maskedPaths/0: contains a NUL character",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"cgroupsPath": "/a\0b"}}),
                "config.json /linux/cgroupsPath: contains a NUL character",
                OURS_ALONE,
            ),
        ],
    );
}

fn bad_sysctls_are_refused(t: &T) {
    let case = |key: &str, want| (json!({"linux": {"sysctl": {key: "1"}}}), want, RUNC_TOO);
    refusals(
        t,
        vec![
            case(
                "vm.overcommit_memory",
                "config.json /linux/sysctl/vm.overcommit_memory: sysctl \"vm.overcommit_memory\" is not in a separate \
                 kernel namespace",
            ),
            case(
                "kernel.hostname",
                "config.json /linux/sysctl/kernel.hostname: sysctl \"kernel.hostname\" is not allowed as it conflicts \
                 with the OCI \"hostname\" field",
            ),
            case(
                "net/../kernel/core_pattern",
                "config.json /linux/sysctl/net~1..~1kernel~1core_pattern: \"net.//.kernel.core_pattern\" is no name of a \
                 sysctl",
            ),
        ],
    );
}

fn bad_names_are_refused(t: &T) {
    let none = json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}});
    let long: &'static str = "config.json /hostname: has 65 bytes, and the kernel takes 64";
    refusals(
        t,
        vec![
            (none, "config.json /hostname: unable to set hostname without a private UTS namespace", RUNC_TOO),
            (json!({"hostname": "x".repeat(65)}), long, RUNC_TOO),
            (json!({"hostname": "a\0b"}), "config.json /hostname: contains a NUL character", OURS_ALONE),
            (json!({"annotations": {"": "x"}}), "config.json /annotations: a key is empty", OURS_ALONE),
        ],
    );
}

fn bad_odds_and_ends_are_refused(t: &T) {
    refusals(
        t,
        vec![
            (
                json!({"linux": {"rootfsPropagation": "rhared"}}),
                "config.json /linux/rootfsPropagation: rootfsPropagation=rhared is not supported",
                RUNC_TOO,
            ),
            (
                json!({"linux": {"personality": {"domain": "BSD"}}}),
                "config.json /linux/personality/domain: invalid personality domain \"BSD\"",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"personality": {"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}}}),
                "config.json /linux/personality/flags/0: \"ADDR_NO_RANDOMIZE\": the specification supports no flag values",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"memoryPolicy": {"mode": "MPOL_NOPE", "nodes": "0"}}}),
                "config.json /linux/memoryPolicy/mode: \"MPOL_NOPE\" is no memory policy",
                OURS_ALONE,
            ),
        ],
    );
}

fn what_the_machine_has_not_is_refused_by_name(t: &T) {
    if std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| text.contains(" - resctrl ")) {
        t.skip("has resctrl");
    }
    refusals(
        t,
        vec![
            (
                json!({"linux": {"intelRdt": {"closID": "x"}}}),
                "unable to apply cgroup configuration: config.json /linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted",
                OURS_ALONE,
            ),
            (
                json!({"linux": {"intelRdt": {"closID": "../x"}}}),
                "config.json /linux/intelRdt/closID: invalid intelRdt.ClosID \"../x\"",
                OURS_ALONE,
            ),
        ],
    );
}

/// Failures at many points of a creation, early to late; the bundle may be changed as each wants it.
fn failures(t: &T, bundle: &Bundle) -> Vec<(&'static str, Bundle)> {
    let nowhere = t.path("nowhere");
    let failing = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 1"]}]);
    let mut list = vec![
        ("a program that is not there", bundle.clone().args(&["/no/such/program"])),
        ("a working directory that is a file", bundle.with(json!({"process": {"cwd": "/etc/passwd"}}))),
        ("a sysctl that is not there", bundle.with(json!({"linux": {"sysctl": {"net.ipv4.nonsense": "1"}}}))),
        ("a prestart hook", bundle.with(json!({"hooks": {"prestart": failing}}))),
        ("a createRuntime hook", bundle.with(json!({"hooks": {"createRuntime": failing}}))),
        ("a createContainer hook", bundle.with(json!({"hooks": {"createContainer": failing}}))),
        ("a root that is not there", bundle.with(json!({"root": {"path": "nowhere"}}))),
        (
            "a limit that the kernel refuses",
            bundle.with(json!({"linux": {"resources": {"cpu": {"quota": 1}}}})),
        ),
    ];
    for (name, mount) in [
        (
            "a source that is not there",
            json!({"destination": "/x", "type": "bind", "source": nowhere, "options": ["bind"]}),
        ),
        ("a file system that is not there", json!({"destination": "/x", "type": "nosuchfs", "source": "x"})),
        (
            "an option that is refused",
            json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=x"]}),
        ),
        (
            "a destination of another kind",
            json!({"destination": "/etc/passwd", "type": "tmpfs", "source": "x"}),
        ),
    ] {
        let mut with = bundle.clone();
        with.mount(mount);
        list.push((name, with));
    }
    let mut with = bundle.clone();
    with.namespace("ipc", Some("/no/such/namespace"));
    list.push(("a namespace that is not there", with));
    list
}

fn all_leave_nothing(t: &T, bundle: &Bundle) {
    let mounts = crate::harness::procs::mounts("/proc/self/mountinfo");
    for (name, failing) in failures(t, bundle) {
        println!("{name}");
        let message = t.refused(&failing);
        println!("  {message}");
        assert_eq!(crate::harness::procs::mounts("/proc/self/mountinfo"), mounts, "{name}");
        // The next one has the way free.
        t.sh(bundle, "true");
    }
}

fn a_failed_create_leaves_nothing(t: &T) {
    all_leave_nothing(t, &t.bundle());
}

fn a_failed_create_leaves_nothing_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    all_leave_nothing(t, &bundle);
}

fn a_failed_run_leaves_nothing(t: &T) {
    for (name, failing) in failures(t, &t.bundle()) {
        println!("{name}");
        let container = t.container(&failing);
        container.run().fails();
        t.nothing_is_left(&container);
    }
}

fn a_failed_exec_leaves_the_container_alone(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    for (flags, args) in [
        (&["--cwd", "/no/such"][..], &["true"][..]),
        (&["--cwd", "/etc/passwd"], &["true"]),
        (&["--user", "x"], &["true"]),
        (&["--console-socket", "/no/such", "--tty", "--detach"], &["true"]),
        (&["--pid-file", "/no/such/file"], &["true"]),
        (&[], &["no-such-program"]),
        (&["--process", "/no/such/file"], &[]),
    ] {
        container.exec_with(flags, args).run().fails();
        assert_eq!(container.status(), "running", "{flags:?}");
    }
    let alone =
        || container.verb(&["ps", "--format", "json"]).run().ok().json().as_array().unwrap().len() == 1;
    assert!(crate::harness::procs::wait_until(t.seconds(5), alone));
    assert_eq!(container.exec_sh("echo in"), "in\n");
    container.force_delete();
}

fn an_error_is_one_line(t: &T) {
    for (name, failing) in failures(t, &t.bundle()).into_iter().take(3) {
        let out = t.container(&failing).create().fails();
        assert!(!out.message().contains('\n'), "{name}: {}", out.message());
        let errors = out.log.lines().filter(|line| line.contains("\"level\":\"error\"")).count();
        assert_eq!(errors, 1, "{name}: {}", out.log);
    }
}

fn an_error_names_the_step(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/v", "type": "nosuchfs", "source": "x"}));
    let container = t.container(&bundle);
    let message = container.create().fails().message();
    let front = format!("create {}: step ", container.id);
    assert!(message.starts_with(&front) && message.contains("mount nosuchfs on /v"), "{message}");
}

fn a_huge_config_is_refused(t: &T) {
    let text = format!("{{\"ociVersion\": \"1.0.0\", \"hostname\": \"{}\"}}", "x".repeat(17 << 20));
    assert_eq!(refused_text(t, &text), "config.json: is larger than 16777216 bytes");
}

fn a_config_that_is_a_fifo_or_a_device_is_refused(t: &T) {
    let dir = t.make_dir("device");
    std::os::unix::fs::symlink("/dev/zero", dir.join("config.json")).unwrap();
    let out = t.call(&["create", "--bundle", &dir.to_string_lossy(), &t.id()]).run().fails();
    assert!(!out.message().is_empty());
}

fn unknown_properties_are_ignored(t: &T) {
    let bundle =
        t.bundle().with(json!({"future": {"x": 1}, "linux": {"future": [1]}, "process": {"future": true}}));
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
}
