//! `/linux/namespaces`: roads, joins and mappings.

mod support;

use cofferdam_plan::{Condition, Plan, SlotSource};
use cofferdam_step::{Namespace, Step};
use serde_json::{Value, json};
use support::{host_steps, options, plan, refusal, rootless, steps, userns, v2};

fn with(namespaces: Value) -> Plan {
    plan(json!({"linux": {"namespaces": namespaces}}), &v2())
}

/// The steps in front of the session, with which all work begins.
fn head(plan: &Plan) -> Vec<String> {
    steps(plan).into_iter().take_while(|step| step != "begin a session").collect()
}

#[test]
fn a_new_pid_namespace_comes_with_the_clone_and_init_makes_the_others() {
    let plan = plan(json!({}), &v2());
    assert!(!plan.road.staged);
    let kinds: Vec<_> = plan.road.clone.iter().map(Namespace::spec_name).collect();
    assert_eq!(kinds, ["pid"]);
    assert_eq!(head(&plan), ["unshare ipc uts network mount"]);
}

#[test]
fn joined_namespaces_are_joined_by_init_and_the_mount_namespace_last() {
    let plan = with(json!([
        {"type": "mount", "path": "/m"}, {"type": "uts", "path": "/u"}, {"type": "network", "path": "/n"},
        {"type": "ipc", "path": "/i"}, {"type": "cgroup", "path": "/c"}, {"type": "time", "path": "/t"}
    ]));
    assert!(!plan.road.staged);
    assert_eq!(
        head(&plan),
        [
            "join cgroup namespace /c",
            "join ipc namespace /i",
            "join uts namespace /u",
            "join network namespace /n",
            "join time namespace /t",
            "join mount namespace /m"
        ]
    );
}

#[test]
fn a_pid_namespace_is_joined_by_the_sealed_image() {
    let plan = with(json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/p"}]));
    assert!(plan.road.staged && plan.road.clone.is_empty());
    assert_eq!(head(&plan)[0], "join pid namespace /p");
}

#[test]
fn a_new_user_namespace_comes_behind_what_the_host_owns() {
    let mut change = userns(json!({}));
    let list = change["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|entry| entry["type"] != "network" && entry["type"] != "pid");
    list.push(json!({"type": "network", "path": "/n"}));
    list.push(json!({"type": "pid", "path": "/p"}));
    let plan = plan(change, &v2());
    assert!(plan.road.staged && plan.road.clone.is_empty());
    assert_eq!(
        head(&plan),
        [
            "join network namespace /n",
            "join pid namespace /p",
            "clone with user uts mount",
            "await the host: ids mapped",
            "await the host: mount sources opened",
            "become root of the user namespace",
            "unshare ipc"
        ]
    );
    assert!(host_steps(&plan).contains(&"map uids 0:100000:65536 gids 0:100000:65536".to_owned()));
}

#[test]
fn what_a_joined_user_namespace_owns_is_joined_behind_it_at_the_latest() {
    let plan = with(json!([
        {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/n"}, {"type": "user", "path": "/u"}
    ]));
    assert!(plan.road.staged);
    assert_eq!(
        head(&plan),
        [
            "join network namespace /n, if the caller may",
            "join user namespace /u",
            "join network namespace /n",
            "clone with uts mount",
            "await the host: mount sources opened",
            "become root of the user namespace"
        ]
    );
    assert!(!host_steps(&plan).iter().any(|step| step.starts_with("map")));
}

#[test]
fn a_time_namespace_has_its_offsets_before_its_first_process() {
    let change = json!({"linux": {
        "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "time"}],
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 9}}
    }});
    let plan = plan(change, &v2());
    assert_eq!(head(&plan), ["unshare time", "set time offsets", "clone with uts mount"]);
    let Step::SetTimeOffsets { offsets } = &plan.init[1] else { panic!("no offsets") };
    let offsets: Vec<_> =
        offsets.iter().map(|offset| (offset.clock.as_str(), offset.secs, offset.nanosecs)).collect();
    assert_eq!(offsets, [("boottime", 9, 0), ("monotonic", -5, 7)]);
}

#[test]
fn a_time_namespace_belongs_to_a_new_user_namespace() {
    let change = json!({"linux": {
        "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "time"}],
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
        "timeOffsets": {"boottime": {"secs": 9}}
    }});
    let head = head(&plan(change, &v2()));
    assert!(head[0].starts_with("clone with") && head[0].contains("user"), "{head:?}");
    assert_eq!(head[1..4], ["unshare time", "set time offsets", "enter the time namespace"]);
}

#[test]
fn loopback_is_for_a_new_network_namespace() {
    let up = |plan: &Plan| steps(plan).contains(&"bring up lo".to_owned());
    assert!(up(&plan(json!({}), &v2())));
    assert!(!up(&with(json!([{"type": "mount"}, {"type": "uts"}]))));
    assert!(!up(&with(json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/n"}]))));
}

#[test]
fn a_container_in_the_hosts_mounts_leaves_them_alone() {
    let namespaces = json!([{"type": "pid"}, {"type": "uts"}]);
    let change = json!({"linux": {"namespaces": namespaces, "maskedPaths": [], "readonlyPaths": []}});
    let steps = steps(&plan(change, &v2()));
    assert!(steps.contains(&"change the root".to_owned()), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("pivot") || step.contains("propagation")), "{steps:?}");
    let change = json!({"linux": {"namespaces": namespaces, "maskedPaths": ["/proc/kcore"]}});
    assert_eq!(
        refusal(change, &v2()),
        "config.json /linux/maskedPaths: unable to restrict sys entries without a private MNT namespace"
    );
}

#[test]
fn a_user_that_is_not_mapped_is_refused() {
    let with_user = |user: Value| {
        let mut change = userns(json!({"process": {"user": user}}));
        let few = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        change["linux"]["uidMappings"] = few.clone();
        change["linux"]["gidMappings"] = few;
        refusal(change, &v2())
    };
    assert_eq!(
        with_user(json!({"uid": 10})),
        "config.json /process/user/uid: uid 10 is not mapped into the container's user namespace"
    );
    assert_eq!(
        with_user(json!({"gid": 10})),
        "config.json /process/user/gid: gid 10 is not mapped into the container's user namespace"
    );
    assert_eq!(
        with_user(json!({"additionalGids": [9, 10]})),
        "config.json /process/user/additionalGids/1: gid 10 is not mapped into the container's user namespace"
    );
}

#[test]
fn an_unprivileged_caller_denies_setgroups() {
    let mut change = userns(json!({"mounts": []}));
    let own = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    change["linux"]["uidMappings"] = own.clone();
    change["linux"]["gidMappings"] = own;
    let plan = plan(change.clone(), &rootless());
    assert!(host_steps(&plan).contains(&"map uids 0:1000:1 gids 0:1000:1, deny setgroups".to_owned()));
    assert!(plan.init.iter().any(|step| matches!(step, Step::SetUser { additional_gids: None, .. })));

    change["process"] = json!({"user": {"additionalGids": [0]}});
    let options = cofferdam_plan::Options { rootless: true, ..options() };
    assert_eq!(
        support::attempt(change, &rootless(), &options).unwrap_err().to_string(),
        "config.json /process/user/additionalGids: cannot set any additional groups in a rootless container"
    );
}

#[test]
fn what_only_the_machine_can_tell_is_a_condition() {
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let change = json!({"linux": {
        "namespaces": [
            {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/n"}, {"type": "user", "path": "/u"}
        ],
        "uidMappings": mappings, "gidMappings": mappings,
        "sysctl": {"net.ipv4.ip_forward": "1"}
    }});
    let plan = plan(change, &v2());
    let path = |slot: cofferdam_step::Slot| match &plan.slots[usize::from(slot.0)] {
        SlotSource::Namespace { path, .. } => path.as_str(),
        other => panic!("{other:?}"),
    };
    let [Condition::Maps { slot: user, uid, .. }, Condition::NotOurs { slot: network, message }] =
        &plan.conditions[..]
    else {
        panic!("{:?}", plan.conditions)
    };
    assert_eq!((path(*user), path(*network)), ("/u", "/n"));
    assert_eq!(uid[0].host_id, 100_000);
    assert_eq!(message, "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace");
}

#[test]
fn limits_of_a_user_namespace_are_set_by_the_host() {
    let plan = plan(userns(json!({"process": {"oomScoreAdj": -5}})), &v2());
    let host = host_steps(&plan);
    assert!(host.contains(&"set oom_score_adj of init to -5".to_owned()));
    assert!(host.contains(&"set 1 rlimits of init".to_owned()));
    assert!(!plan.init.iter().any(|step| matches!(step, Step::SetOomScoreAdj { .. } | Step::SetRlimit(_))));
}

/// The tail of a create, from the rights on.
const LATE: [&str; 13] = [
    "become uid 0 gid 0",
    "change directory to /",
    "seal descriptors",
    "set capabilities",
    "find the program",
    "clone",
    "await the host: clone followed",
    "set rlimit 6 to 5:7",
    "begin a session",
    "take the terminal",
    "tell the host: committed",
    "await the host: committed",
    "await start",
];

#[test]
fn a_process_comes_into_a_shared_pid_namespace_last() {
    let namespaces =
        json!([{"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "pid", "path": "/p"}]);
    let change = json!({
        "process": {"terminal": true, "rlimits": [{"type": "RLIMIT_NPROC", "soft": 5, "hard": 7}]},
        "linux": {"namespaces": namespaces}
    });
    let options = cofferdam_plan::Options { console: true, ..options() };
    let last = support::attempt(change.clone(), &support::newest(), &options).unwrap();
    assert!(last.road.staged);
    let all = steps(&last);
    assert_eq!(all[..3], ["join pid namespace /p", "unshare uts network mount", "join a session keyring"]);
    let from = all.iter().position(|step| step == LATE[0]).unwrap();
    assert_eq!(all[from..from + LATE.len()], LATE);
    let at = |step: &str| all.iter().position(|known| known == step).unwrap();
    assert!(at("open the console") < from && at("raise rlimit 6 to 7") < from);
    assert_eq!(
        host_steps(&last)[2..],
        [
            "spawn init",
            "complete the cgroup",
            "move init into the cgroup",
            "tell init: cgroup joined",
            "follow init to its clone",
            "tell init: clone followed",
            "draft the state",
            "await init: committed",
            "publish state and pid file",
            "tell init: committed"
        ]
    );
    // Linux < 6.18
    let first = support::attempt(change, &v2(), &options).unwrap();
    assert_eq!(steps(&first)[..2], ["join pid namespace /p", "clone with uts network mount"]);
}

#[test]
fn a_process_that_others_must_know_comes_first() {
    let namespaces =
        json!([{"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "pid", "path": "/p"}]);
    for other in [
        json!({"hooks": {"createRuntime": [{"path": "/bin/true"}]}}),
        json!({"hooks": {"prestart": [{"path": "/bin/true"}]}}),
        json!({"hooks": {"createContainer": [{"path": "/bin/true"}]}}),
        json!({"linux": {"netDevices": {"eth1": {}}}}),
        json!({"process": {"scheduler": {"policy": "SCHED_BATCH"}}}),
    ] {
        let mut change = other.clone();
        change["linux"]["namespaces"] = namespaces.clone();
        let plan = plan(change, &support::newest());
        assert_eq!(steps(&plan)[1], "clone with uts network mount", "{other}");
    }
}

#[test]
fn init_is_born_in_the_network_that_devices_move_into() {
    let devices = json!({"linux": {"netDevices": {"eth1": {"name": "eth0"}, "eth2": {}}}});
    let plan = plan(devices.clone(), &v2());
    assert_eq!(plan.road.clone, [Namespace::Pid, Namespace::Network].into_iter().collect());
    let move_step = "move network devices eth1 as eth0, eth2 as eth2".to_owned();
    let steps = host_steps(&plan);
    let at = |step: &str| steps.iter().position(|known| known == step).unwrap();
    assert!(at("spawn init") < at(&move_step) && at(&move_step) < at("tell init: cgroup joined"));
    let rootless_options = cofferdam_plan::Options { rootless: true, ..options() };
    assert_eq!(
        support::attempt(devices, &v2(), &rootless_options).unwrap_err().to_string(),
        "config.json /linux/netDevices: network devices are not supported for rootless containers"
    );
    assert_eq!(
        refusal(json!({"linux": {"netDevices": {"a": {"name": "x"}, "b": {"name": "x"}}}}), &v2()),
        "config.json /linux/netDevices/b/name: \"x\" is the name of \"a\" already"
    );
}
