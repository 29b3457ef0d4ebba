//! Machines and configs for the tests of plans.
#![allow(dead_code)] // each test program takes what it needs

use cofferdam_plan::{Host, Options, Plan, Refused, Spec, compile};
use cofferdam_seccomp::{ActionSet, Target, flag};
use oci_spec::runtime::Arch;
use serde_json::{Value, json};

/// A server with cgroup v1, controllers mounted in pairs as systemd has them; the runtime runs in a cgroup of its own.
pub fn v1() -> Host {
    let hierarchy = |controllers: &[&str], name: &str| json!({"controllers": controllers, "mount_point": format!("/sys/fs/cgroup/{name}"), "own_path": "/"});
    let hierarchies = [
        hierarchy(&["name=systemd"], "systemd"),
        hierarchy(&["pids"], "pids"),
        hierarchy(&["memory"], "memory"),
        hierarchy(&["cpu", "cpuacct"], "cpu,cpuacct"),
        hierarchy(&["devices"], "devices"),
        hierarchy(&["cpuset"], "cpuset"),
        hierarchy(&["freezer"], "freezer"),
        hierarchy(&["blkio"], "blkio"),
    ];
    host(json!({"v1": {"hierarchies": hierarchies}}))
}

/// A server with cgroup v2 and AppArmor.
pub fn v2() -> Host {
    Host {
        apparmor: true,
        ..host(json!({"v2": {"mount_point": "/sys/fs/cgroup", "own_path": "/system.slice/x.service"}}))
    }
}

/// The same under Linux 6.18, whose procfs shows what pid namespace it is told.
pub fn newest() -> Host {
    Host { kernel: (6, 18), procfs_pidns: true, ..v2() }
}

/// The same under Linux 7.0, whose mount namespaces need no copy of the host's.
pub fn linux_7() -> Host {
    Host { kernel: (7, 0), tree_namespaces: true, ..newest() }
}

/// A user's session on the same.
pub fn rootless() -> Host {
    Host { euid: 1000, egid: 1000, ..v2() }
}

fn host(cgroup: Value) -> Host {
    Host {
        kernel: (6, 12),
        euid: 0,
        egid: 0,
        user_namespace: false,
        setgroups_denied: false,
        apparmor: false,
        selinux: false,
        kcore: true,
        procfs_pidns: false,
        tree_namespaces: false,
        seccomp: Some(Target { arch: Arch::ScmpArchX86_64, actions: ActionSet::ALL, flags: flag::ALL }),
        cgroup: serde_json::from_value(cgroup).expect("a layout as pkg/cgroup writes it"),
    }
}

/// The default config with `change` merged into it, objects key by key; a list replaces a list.
pub fn changed(change: Value) -> Spec {
    fn merge(base: &mut Value, change: Value) {
        match (base, change) {
            (Value::Object(base), Value::Object(change)) => {
                for (key, value) in change {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, change) => *base = change,
        }
    }
    let mut base: Value = serde_json::from_str(include_str!("../golden/runc-spec.json")).unwrap();
    base["process"]["terminal"] = false.into();
    merge(&mut base, change);
    Spec::parse_most(base.to_string()).unwrap()
}

/// `create` of a container called `c1`.
pub fn options() -> Options {
    Options { id: "c1".to_owned(), bundle: "/bundle".to_owned(), ..Options::default() }
}

/// The plan of the changed default config.
pub fn plan(change: Value, host: &Host) -> Plan {
    compile(&changed(change), host, &options()).unwrap()
}

/// The message with which the changed default config is refused.
pub fn refusal(change: Value, host: &Host) -> String {
    compile(&changed(change), host, &options()).map(|plan| plan.to_string()).unwrap_err().to_string()
}

/// The result as it is.
pub fn attempt(change: Value, host: &Host, options: &Options) -> Result<Plan, Refused> {
    compile(&changed(change), host, options)
}

/// Init's steps as they are printed, without details.
pub fn steps(plan: &Plan) -> Vec<String> {
    plan.init.iter().map(ToString::to_string).collect()
}

/// The host's steps as they are printed.
pub fn host_steps(plan: &Plan) -> Vec<String> {
    plan.host.iter().map(ToString::to_string).collect()
}

/// A user namespace with the usual mappings, and whatever else.
pub fn userns(change: Value) -> Value {
    let mut base = json!({"linux": {
        "namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}
        ],
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    }});
    if let Value::Object(change) = change {
        for (key, value) in change {
            match (base.get_mut(&key), value) {
                (Some(Value::Object(base)), Value::Object(value)) => base.extend(value),
                (_, value) => base[&key] = value,
            }
        }
    }
    base
}
