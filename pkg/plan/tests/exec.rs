//! The plan of an exec.

mod support;

use cofferdam_plan::{ExecOptions, ExecTarget, Filter, Host, Plan, compile, compile_exec};
use cofferdam_spec::Process;
use cofferdam_step::{Namespace, Step};
use serde_json::{Value, json};
use support::{changed, host_steps, options, steps, userns, v2};

fn process(change: Value) -> Process {
    let mut base =
        json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin", "HOME=/"], "noNewPrivileges": true});
    base.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    Process::parse(base.to_string().as_bytes()).unwrap()
}

fn target(change: Value) -> ExecTarget {
    let mut spec = changed(change);
    spec.read_all().unwrap();
    let plan = compile(&spec, &v2(), &options()).unwrap();
    ExecTarget::of(&spec, &v2(), &options(), &plan).unwrap()
}

fn exec(change: Value) -> Plan {
    compile_exec(&process(change), &target(json!({})), &v2(), &ExecOptions::default()).unwrap()
}

fn refusal(change: Value, options: &ExecOptions) -> String {
    compile_exec(&process(change), &target(json!({})), &v2(), options).unwrap_err().to_string()
}

/// What was never compiled is not "no filter".
#[test]
fn a_target_without_its_filter_has_one_that_no_kernel_takes() {
    let spec = changed(json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}));
    let plan = compile(&spec, &v2(), &options()).unwrap();
    let target = ExecTarget::of(&spec, &v2(), &options(), &plan).unwrap();
    assert_eq!(target.seccomp, Some(Filter::default()));
    let plan = compile_exec(&process(json!({})), &target, &v2(), &ExecOptions::default()).unwrap();
    assert!(plan.init.contains(&Step::LoadSeccomp { filter: Some(Vec::new()), flags: 0 }));
}

#[test]
fn an_exec_joins_by_pidfd_and_comes_in_last() {
    let plan = exec(json!({}));
    assert!(plan.road.staged && plan.road.clone.is_empty());
    assert_eq!(
        steps(&plan),
        [
            "join namespaces ipc uts network pid mount",
            "join a session keyring",
            "set no_new_privs",
            "give stdio to uid 0",
            "become uid 0 gid 0",
            "change directory to /",
            "seal descriptors",
            "find the program",
            "clone",
            "await the host: cgroup joined",
            "set cpu affinity",
            "begin a session",
            "await the host: committed",
            "exec true"
        ]
    );
    assert_eq!(
        host_steps(&plan),
        [
            "spawn init",
            "follow init to its clone",
            "move init into the cgroup",
            "tell init: cgroup joined",
            "publish state and pid file",
            "tell init: committed"
        ]
    );
}

/// What an exec does from its capabilities on, in a container with this profile.
fn end_of(change: Value, seccomp: Value) -> Vec<String> {
    let container = target(json!({"linux": {"seccomp": seccomp}}));
    let given = json!({"noNewPrivileges": false, "capabilities": {"permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}});
    let mut given = given.as_object().unwrap().clone();
    given.extend(change.as_object().unwrap().clone());
    let plan = compile_exec(&process(given.into()), &container, &v2(), &ExecOptions::default()).unwrap();
    let steps = plan.init.iter().map(|step| match step {
        Step::LoadSeccomp { .. } => "load the filter".to_owned(),
        Step::SetCapabilities(sets) => format!("set capabilities {:x}", sets.permitted),
        other => other.to_string(),
    });
    let kept =
        ["clone", "load the filter", "set capabilities", "begin a session", "find the program", "exec"];
    steps.filter(|step| kept.iter().any(|kept| step.starts_with(kept))).collect()
}

/// A profile that allows all calls but these.
fn all_but(names: &[&str]) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]})
}

const MINE: &str = "set capabilities 20";
const WITH_ADMIN: &str = "set capabilities 200020";

#[test]
fn an_exec_comes_in_with_its_filter_where_that_lets_it() {
    let filtered = ["find the program", "load the filter", MINE, "clone", "begin a session", "exec true"];
    assert_eq!(end_of(json!({}), all_but(&["reboot"])), filtered);
    // As in Docker's profile.
    assert_eq!(end_of(json!({}), all_but(&["clone3"])), filtered);
    assert_eq!(end_of(json!({}), all_but(&["ioctl", "prlimit64"])), filtered);
    let namespaces = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["recvmsg", "sendto", "write", "close", "sched_setaffinity", "setsid", "clock_gettime", "exit_group", "prctl", "clone3"],
         "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
    ]});
    assert_eq!(end_of(json!({}), namespaces), filtered);
}

#[test]
fn an_exec_loads_its_filter_at_the_end_where_that_would_stop_it() {
    let last =
        ["find the program", WITH_ADMIN, "clone", "begin a session", "load the filter", MINE, "exec true"];
    for name in [
        "clone",
        "recvmsg",
        "sendto",
        "write",
        "close",
        "prctl",
        "sched_setaffinity",
        "setsid",
        "clock_gettime",
        "exit_group",
    ] {
        assert_eq!(end_of(json!({}), all_but(&[name])), last, "{name}");
    }
    let killed = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_KILL"}]});
    assert_eq!(end_of(json!({}), killed), last);
    let told = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(end_of(json!({}), told), last);
    let limits = json!({"rlimits": [{"type": "RLIMIT_NPROC", "soft": 9, "hard": 9}]});
    assert_eq!(end_of(limits, all_but(&["prlimit64"])), last);
    // No capability is needed then.
    assert_eq!(
        end_of(json!({"noNewPrivileges": true}), all_but(&["reboot"])),
        [MINE, "find the program", "clone", "begin a session", "load the filter", "exec true"]
    );
}

#[test]
fn an_exec_that_must_see_itself_comes_in_first() {
    let first = ["clone", "begin a session", "find the program", "load the filter", MINE];
    for change in [
        json!({"cwd": "/proc/self/fd/7"}),
        json!({"cwd": "/x/../proc"}),
        json!({"args": ["/proc/self/exe"]}),
        json!({"args": ["/dev/fd/3"]}),
        json!({"scheduler": {"policy": "SCHED_FIFO", "priority": 1}}),
    ] {
        assert_eq!(end_of(change.clone(), all_but(&["reboot"]))[..5], first, "{change}");
    }
    for change in [json!({"args": ["/process"]}), json!({"cwd": "/dev/fds"})] {
        assert_eq!(end_of(change.clone(), all_but(&["reboot"]))[3], "clone", "{change}");
    }
}

#[test]
fn an_exec_into_a_user_namespace_clones() {
    let inside = target(userns(json!({})));
    let plan = compile_exec(&process(json!({})), &inside, &v2(), &ExecOptions::default()).unwrap();
    assert!(plan.road.staged);
    let Step::JoinProcess { namespaces, .. } = &plan.init[0] else { panic!("{:?}", plan.init[0]) };
    assert!(namespaces.contains(Namespace::User) && namespaces.contains(Namespace::Pid));
    assert_eq!(steps(&plan)[1..3], ["clone", "become root of the user namespace"]);
}

#[test]
fn a_container_that_shares_all_but_the_pid_namespace_needs_no_join() {
    let spec = json!({"hostname": "", "linux": {"namespaces": [{"type": "mount"}]}});
    let plan = compile_exec(&process(json!({})), &target(spec), &v2(), &ExecOptions::default()).unwrap();
    assert!(!plan.road.staged);
    assert_eq!(steps(&plan)[0], "join namespaces mount");
}

#[test]
fn an_exec_has_the_container_s_filter_and_personality() {
    let change = json!({"linux": {
        "personality": {"domain": "LINUX32"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}
    }});
    let plan = compile_exec(&process(json!({})), &target(change), &v2(), &ExecOptions::default()).unwrap();
    assert!(plan.init.contains(&Step::SetPersonality { persona: 8 }));
    assert!(plan.init.iter().any(|step| matches!(step, Step::LoadSeccomp { .. })));
}

#[test]
fn a_cpu_mask_is_first_for_the_runtime_and_then_for_the_process() {
    let masks = |affinity: Value| -> Vec<(usize, Vec<u8>)> {
        let plan = exec(affinity);
        let mask = |(i, step): (usize, &Step)| {
            if let Step::SetAffinity { mask } = step { Some((i, mask.clone())) } else { None }
        };
        plan.init.iter().enumerate().filter_map(mask).collect()
    };
    let both = masks(json!({"execCPUAffinity": {"initial": "0", "final": "0-1"}}));
    assert_eq!(both, [(1, vec![1]), (11, vec![3])]);
    assert_eq!(masks(json!({"execCPUAffinity": {"initial": "1"}})), [(1, vec![2])]);
    assert_eq!(masks(json!({"execCPUAffinity": {"final": "1"}})), [(10, vec![2])]);
    assert_eq!(masks(json!({})), [(10, vec![])]);
}

#[test]
fn the_umask_of_an_exec_is_the_caller_s_unless_given() {
    let umask = |plan: Plan| {
        plan.init
            .iter()
            .find_map(|step| if let Step::SetUser { umask, .. } = step { Some(*umask) } else { None })
    };
    assert_eq!(umask(exec(json!({}))), Some(None));
    assert_eq!(umask(exec(json!({"user": {"umask": 63}}))), Some(Some(63)));
}

#[test]
fn a_refusal_points_into_the_process() {
    let none = ExecOptions::default();
    assert_eq!(refusal(json!({"args": []}), &none), "process.json /args: args must not be empty");
    assert_eq!(
        refusal(json!({"cwd": "x"}), &none),
        "process.json /cwd: Cwd must be an absolute path, not \"x\""
    );
    assert_eq!(
        refusal(json!({"terminal": true}), &none),
        "process.json /terminal: cannot allocate tty if the runtime will detach without setting console socket"
    );
    assert_eq!(
        refusal(json!({}), &ExecOptions { console: true, ..none }),
        "process.json /terminal: cannot use console socket if the runtime will not allocate tty"
    );
    let inside = target(userns(json!({})));
    let outside = process(json!({"user": {"uid": 70_000}}));
    assert_eq!(
        compile_exec(&outside, &inside, &v2(), &ExecOptions::default()).unwrap_err().to_string(),
        "process.json /user/uid: uid 70000 is not mapped into the container's user namespace"
    );
    let without = compile_exec(
        &process(json!({"apparmorProfile": "p"})),
        &target(json!({})),
        &Host { apparmor: false, ..v2() },
        &ExecOptions::default(),
    );
    assert!(without.unwrap().warnings.iter().any(|warning| warning.contains("AppArmor is not enabled")));
}

#[test]
fn a_target_survives_json() {
    let target = target(userns(json!({"linux": {"personality": {"domain": "LINUX"}}})));
    let text = serde_json::to_string(&target).unwrap();
    assert_eq!(serde_json::from_str::<ExecTarget>(&text).unwrap(), target);
}
