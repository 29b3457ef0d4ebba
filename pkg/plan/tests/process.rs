//! `/process`, devices, labels, cgroup: what the default plan looks like when one thing changes.

mod support;

use cofferdam_plan::{Host, HostStep, Options, Plan, SlotSource};
use cofferdam_step::Step;
use serde_json::{Value, json};
use support::{attempt, options, plan, refusal, steps, userns, v1, v2};

fn env(plan: &Plan) -> &[String] {
    match plan.init.last() {
        Some(Step::Exec { env, .. }) => env,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_value_of_a_variable_counts() {
    let plan = plan(json!({"process": {"env": ["A=1", "B=2", "A=3", "C=", "B=4=5"]}}), &v2());
    assert_eq!(env(&plan), ["A=3", "C=", "B=4=5"]);
}

#[test]
fn home_is_looked_up_when_it_is_missing_or_empty() {
    let looked_up = |env: &[&str]| {
        let plan = plan(json!({"process": {"env": env, "user": {"uid": 7}}}), &v2());
        plan.init.contains(&Step::SetHome { uid: 7 })
    };
    assert!(looked_up(&["A=1"]));
    assert!(looked_up(&["HOME="]));
    assert!(!looked_up(&["HOME=/x"]));
}

#[test]
fn the_umask_of_a_container_is_022() {
    let umask = |user: Value| {
        let plan = plan(json!({"process": {"user": user}}), &v2());
        plan.init
            .iter()
            .find_map(|step| if let Step::SetUser { umask, .. } = step { Some(*umask) } else { None })
    };
    assert_eq!(umask(json!({})), Some(Some(0o022)));
    assert_eq!(umask(json!({"umask": 0})), Some(Some(0)));
}

#[test]
fn silence_about_capabilities_leaves_them_alone() {
    let plan = plan(json!({"process": {"capabilities": null}}), &v2());
    assert!(
        !plan.init.iter().any(|step| matches!(step, Step::SetCapabilities(_) | Step::DropBounding { .. }))
    );
    let plan = support::plan(
        json!({"process": {"capabilities": {"bounding": null, "effective": [], "permitted": []}}}),
        &v2(),
    );
    assert!(plan.init.contains(&Step::DropBounding { keep: 0 }));
}

#[test]
fn capabilities_become_bits_and_nothing_is_inheritable_unasked() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NOPE"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]
    });
    let change = json!({"process": {"capabilities": sets}});
    let silent = plan(change.clone(), &v2());
    let set = |plan: &Plan| {
        plan.init
            .iter()
            .find_map(|step| if let Step::SetCapabilities(sets) = step { Some(*sets) } else { None })
            .unwrap()
    };
    let sets = set(&silent);
    assert_eq!((sets.permitted, sets.effective, sets.inheritable, sets.ambient), (1 | 1 << 5, 1, 0, 0));
    assert!(silent.init.contains(&Step::DropBounding { keep: 1 | 1 << 21 }));
    assert_eq!(silent.warnings.len(), 2, "{:?}", silent.warnings);

    let mut both = change;
    both["process"]["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
    assert_eq!(set(&plan(both, &v2())).ambient, 1);
}

#[test]
fn a_terminal_needs_a_socket_and_a_socket_a_terminal() {
    let with = Options { console: true, ..options() };
    let terminal = json!({"process": {"terminal": true, "consoleSize": {"height": 24, "width": 80}}});
    let plan = attempt(terminal.clone(), &v2(), &with).unwrap();
    let Some(Step::OpenConsole { socket, size, mount: true, .. }) =
        plan.init.iter().find(|step| matches!(step, Step::OpenConsole { .. }))
    else {
        panic!("no console")
    };
    assert_eq!(*size, Some((24, 80)));
    assert_eq!(plan.slots[usize::from(socket.0)], SlotSource::ConsoleSocket);
    assert_eq!(
        attempt(terminal, &v2(), &options()).unwrap_err().to_string(),
        "config.json /process/terminal: cannot allocate tty if the runtime will detach without setting console socket"
    );
    assert_eq!(
        attempt(json!({}), &v2(), &with).unwrap_err().to_string(),
        "config.json /process/terminal: cannot use console socket if the runtime will not allocate tty"
    );
}

#[test]
fn a_working_directory_is_made_in_front_of_a_read_only_root() {
    let plan = plan(json!({"process": {"cwd": "/srv/../x/y"}}), &v2());
    let steps = steps(&plan);
    let at = |what: &str| steps.iter().position(|step| step == what).unwrap();
    assert!(at("make directory /x/y") < at("make the root mount read-only"));
    assert!(steps.contains(&"change directory to /srv/../x/y".to_owned()));
    assert!(
        !support::steps(&support::plan(json!({}), &v2()))
            .iter()
            .any(|step| step.starts_with("make directory"))
    );
}

#[test]
fn labels_need_their_module() {
    let profile = json!({"process": {"apparmorProfile": "p"}});
    let without = plan(profile.clone(), &v1());
    assert!(!without.init.iter().any(|step| matches!(step, Step::SetAppArmor { .. })));
    assert!(without.warnings.iter().any(|warning| warning.contains("AppArmor is not enabled")));
    assert!(plan(profile, &v2()).init.contains(&Step::SetAppArmor { profile: "p".to_owned() }));
    let label = json!({"process": {"selinuxLabel": "l"}});
    assert_eq!(
        refusal(label.clone(), &v2()),
        "config.json /process/selinuxLabel: label \"l\": SELinux is not enabled on this machine"
    );
    let host = Host { selinux: true, ..v2() };
    let plan = plan(label, &host);
    assert!(plan.init.contains(&Step::SetSelinux { label: "l".to_owned() }));
    assert!(plan.init.iter().any(|step| matches!(step, Step::JoinSessionKeyring { label: Some(_), .. })));
}

#[test]
fn a_filter_needs_a_kernel_that_has_filters() {
    let host = Host { seccomp: None, ..v2() };
    assert_eq!(
        refusal(json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}), &host),
        "config.json /linux/seccomp: this kernel has no seccomp filters"
    );
}

#[test]
fn a_profile_that_contradicts_itself_is_refused_with_its_place() {
    let profile = json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"});
    let message = refusal(json!({"linux": {"seccomp": profile}}), &v2());
    assert!(message.starts_with("config.json /linux/seccomp/defaultAction: "), "{message}");
}

#[test]
fn a_resource_that_the_machine_has_not_is_refused_with_its_place() {
    let message = refusal(json!({"linux": {"resources": {"unified": {"memory.high": "1"}}}}), &v1());
    assert!(message.starts_with("config.json /linux/resources/unified"), "{message}");
    let options = Options { driver: cofferdam_plan::Driver::Systemd, ..options() };
    let error = attempt(json!({"linux": {"cgroupsPath": "a:b"}}), &v2(), &options).unwrap_err().to_string();
    assert!(
        error.starts_with("config.json /linux/cgroupsPath: expected cgroupsPath to be of format"),
        "{error}"
    );
}

#[test]
fn devices_are_the_default_ones_and_the_config_s() {
    let devices = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 8630, "uid": 3, "gid": 4},
        {"path": "/dev/zero", "type": "u", "major": 1, "minor": 5},
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 1},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}
    ]);
    let plan = plan(json!({"linux": {"devices": devices}}), &v2());
    let made: Vec<_> = plan
        .init
        .iter()
        .filter_map(|step| match step {
            Step::MakeDevice { path, mode, major, minor, uid, gid } => {
                Some((path.as_str(), *mode, *major, *minor, uid.unwrap(), gid.unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        made,
        [
            ("/dev/null", 0o020_666, 1, 3, 0, 0),
            ("/dev/random", 0o020_666, 1, 8, 0, 0),
            ("/dev/full", 0o020_666, 1, 7, 0, 0),
            ("/dev/tty", 0o020_666, 5, 0, 0, 0),
            ("/dev/urandom", 0o020_666, 1, 9, 0, 0),
            ("/dev/fuse", 0o020_666, 10, 229, 3, 4),
            ("/dev/zero", 0o020_666, 1, 5, 0, 0),
            ("/dev/disk", 0o060_666, 8, 1, 0, 0),
            ("/dev/pipe", 0o010_666, 0, 0, 0, 0),
        ]
    );
}

#[test]
fn devices_of_a_user_namespace_are_the_host_s() {
    let inside = plan(userns(json!({})), &v2());
    assert!(!inside.init.iter().any(|step| matches!(step, Step::MakeDevice { .. })));
    assert_eq!(
        inside.init.iter().filter(|step| matches!(step, Step::BindDevice { slot: Some(_), .. })).count(),
        6
    );
    let nested = plan(json!({}), &Host { user_namespace: true, ..v2() });
    assert_eq!(
        nested.init.iter().filter(|step| matches!(step, Step::BindDevice { slot: None, .. })).count(),
        6
    );
}

#[test]
fn a_dev_that_is_bound_is_left_alone() {
    let mounts = json!([{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}]);
    let steps = steps(&plan(json!({ "mounts": mounts }), &v2()));
    assert!(support::steps(&plan(json!({}), &v2())).contains(&"link /dev/core to /proc/kcore".to_owned()));
    let without = Host { kcore: false, ..v2() };
    assert!(
        !support::steps(&plan(json!({}), &without)).contains(&"link /dev/core to /proc/kcore".to_owned())
    );
    assert!(
        !steps.iter().any(|step| step.starts_with("make device") || step.starts_with("link ")),
        "{steps:?}"
    );
}

#[test]
fn a_keyring_is_joined_unless_told_otherwise() {
    let name = |plan: &Plan| {
        plan.init.iter().find_map(|step| {
            if let Step::JoinSessionKeyring { name, .. } = step { Some(name.clone()) } else { None }
        })
    };
    assert_eq!(name(&plan(json!({}), &v2())), Some("_ses.c1".to_owned()));
    let options = Options { no_new_keyring: true, ..options() };
    assert_eq!(name(&attempt(json!({}), &v2(), &options).unwrap()), None);
}

#[test]
fn scheduler_and_io_priority_are_numbers() {
    let change = json!({"process": {
        "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
            "runtime": 1, "deadline": 2, "period": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4}
    }});
    let plan = plan(change, &v2());
    let scheduler = plan
        .init
        .iter()
        .find_map(|step| if let Step::SetScheduler(attr) = step { Some(*attr) } else { None });
    let scheduler = scheduler.unwrap();
    assert_eq!(
        (scheduler.policy, scheduler.flags, scheduler.runtime, scheduler.deadline, scheduler.period),
        (6, 5, 1, 2, 3)
    );
    assert!(
        plan.init
            .iter()
            .any(|step| matches!(step, Step::SetIoPriority(io) if (io.class, io.priority) == (3, 4)))
    );
}

#[test]
fn rlimits_have_the_kernel_s_numbers() {
    let names = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let limits: Vec<_> =
        names.iter().map(|name| json!({"type": format!("RLIMIT_{name}"), "hard": 2, "soft": 1})).collect();
    let plan = plan(json!({"process": {"rlimits": limits}}), &v2());
    let numbers: Vec<u32> = plan
        .init
        .iter()
        .filter_map(|step| if let Step::SetRlimit(limit) = step { Some(limit.resource) } else { None })
        .collect();
    assert_eq!(numbers, (0..16).collect::<Vec<u32>>());
}

#[test]
fn personality_and_memory_policy_are_numbers() {
    let change = json!({"linux": {
        "personality": {"domain": "LINUX32"},
        "memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]}
    }});
    let plan = plan(change, &v2());
    assert!(plan.init.contains(&Step::SetPersonality { persona: 8 }));
    assert!(plan.init.contains(&Step::SetMemoryPolicy { mode: 3 | 1 << 15, nodes: vec![3] }));
    assert_eq!(
        refusal(json!({"linux": {"memoryPolicy": {"mode": "MPOL_NOPE"}}}), &v2()),
        "config.json /linux/memoryPolicy/mode: \"MPOL_NOPE\" is no memory policy"
    );
    assert_eq!(
        refusal(
            json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}}}),
            &v2()
        ),
        "config.json /linux/memoryPolicy/flags/0: \"X\" is no flag of a memory policy"
    );
    assert_eq!(
        refusal(json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "1-0"}}}), &v2()),
        "config.json /linux/memoryPolicy/nodes: range \"1-0\" runs backwards"
    );
}

#[test]
fn the_container_s_user_owns_its_cgroup_when_it_may_write_to_it() {
    let owner = |change: Value| match plan(change, &v2()).host.into_iter().nth(1) {
        Some(HostStep::PrepareCgroup { owner, .. }) => owner,
        other => panic!("{other:?}"),
    };
    let mounts = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]);
    let mut change = userns(json!({"mounts": mounts, "process": {"user": {"uid": 7}}}));
    assert_eq!(owner(change.clone()), None);
    change["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    assert_eq!(owner(change.clone()), Some(100_007));
    change["mounts"][0]["options"] = json!(["ro"]);
    assert_eq!(owner(change), None);
}

#[test]
fn a_printed_plan_has_no_secrets() {
    let change = json!({
        "process": {"env": ["TOKEN=hunter2", "PATH=/bin"]},
        "hooks": {
            "prestart": [{"path": "/bin/true", "env": ["KEY=hunter2"]}],
            "createContainer": [{"path": "/bin/true", "env": ["KEY=hunter2"]}]
        }
    });
    let plan = plan(change, &v2());
    for text in [plan.to_string(), plan.to_json()] {
        assert!(!text.contains("hunter2") && text.contains("TOKEN"), "{text}");
    }
    assert!(env(&plan).contains(&"TOKEN=hunter2".to_owned()), "printing leaves the plan alone");
}

#[test]
fn annotations_reach_the_systemd_unit_and_no_other_cgroup() {
    let change = json!({"annotations": {"org.systemd.property.TimeoutStopUSec": "uint64 5", "x": "y"}});
    let names = |options: &Options| {
        let plan = attempt(change.clone(), &v2(), options).unwrap();
        match plan.host.into_iter().nth(1) {
            Some(HostStep::PrepareCgroup { settings, .. }) => {
                settings.properties.into_iter().map(|one| one.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(names(&options()), Vec::<String>::new());
    let systemd = Options { driver: cofferdam_plan::Driver::Systemd, ..options() };
    assert_eq!(names(&systemd).last().unwrap(), "TimeoutStopUSec");
    let bad = json!({"annotations": {"org.systemd.property.OnFailure": "'x.service'"}});
    assert_eq!(
        attempt(bad, &v2(), &systemd).unwrap_err().to_string(),
        "config.json /annotations/org.systemd.property.OnFailure: the unit property OnFailure cannot be set by an annotation"
    );
}

#[test]
fn a_terminal_in_the_foreground_keeps_line_ends() {
    let terminal = json!({"process": {"terminal": true}});
    for foreground in [false, true] {
        let with = Options { console: true, foreground, ..options() };
        let plan = attempt(terminal.clone(), &v2(), &with).unwrap();
        assert!(
            plan.init
                .iter()
                .any(|step| matches!(step, Step::OpenConsole { plain, .. } if *plain == foreground))
        );
    }
}
