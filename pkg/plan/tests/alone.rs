//! Mount namespaces of the rootfs alone, for which nothing of the host's is copied (Linux 7.0).

mod support;

use cofferdam_plan::{Options, Plan, compile};
use cofferdam_step::{Barrier, Namespace, Step};
use serde_json::{Value, json};
use support::{changed, linux_7, options, plan, rootless, userns, v1, v2};

/// The steps by which the container gets its root.
fn ways(plan: &Plan) -> Vec<String> {
    let is_way = |step: &&Step| match step {
        Step::Unshare { namespaces } | Step::Clone { namespaces } => namespaces.contains(Namespace::Mount),
        Step::SetHostPropagation(_)
        | Step::PrepareRoot { .. }
        | Step::EnterRoot { .. }
        | Step::PivotRoot { .. } => true,
        _ => false,
    };
    plan.init.iter().filter(is_way).map(ToString::to_string).collect()
}

fn bind(source: &str, options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "bind", "source": source, "options": options})
}

fn mounts(entry: Value) -> Value {
    json!({"mounts": [entry]})
}

#[test]
fn the_rootfs_is_entered_and_nothing_is_copied() {
    let alone = ["enter a mount namespace of rootfs /bundle/rootfs, rslave"];
    let start = json!({"hooks": {"startContainer": [{"path": "/h"}], "poststart": [{"path": "/h"}]}});
    let changes = [
        json!({}),
        start,
        mounts(bind("/srv", &["rbind", "rprivate"])),
        mounts(json!({"destination": "/a", "type": "tmpfs", "options": ["tmpcopyup"]})),
        json!({"root": {"path": "rootfs", "readonly": true}}),
        json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "time"}]}}),
        json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/p"}]}}),
        json!({"linux": {"rootfsPropagation": "unbindable"}}),
    ];
    for change in changes {
        assert_eq!(ways(&plan(change.clone(), &linux_7())), alone, "{change}");
    }
    let private = plan(json!({"linux": {"rootfsPropagation": "rprivate"}}), &linux_7());
    assert_eq!(ways(&private), ["enter a mount namespace of rootfs /bundle/rootfs, rprivate"]);
    // on v1 with a cgroup namespace, too, which binds nothing
    let mut host = v1();
    host.tree_namespaces = true;
    let namespaces = json!([{"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}]);
    let v1 = json!({"linux": {"namespaces": namespaces}, "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup"}]});
    assert_eq!(ways(&plan(v1, &host)), alone);
}

#[test]
fn where_a_path_of_the_hosts_is_wanted_later_it_is_copied() {
    let mapped = json!({
        "destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rprivate"],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]
    });
    let changes = [
        mounts(bind("/srv", &["rbind", "rslave"])),
        mounts(bind("/srv", &["rbind"])),
        mounts(bind("/bundle/rootfs/a", &["rbind", "rprivate"])),
        mounts(bind("/srv", &["rbind", "rprivate", "src-nofollow"])),
        mounts(mapped),
        mounts(json!({"destination": "/o", "type": "overlay", "options": ["lowerdir=/a:/b"]})),
        mounts(json!({"destination": "/d", "type": "ext4", "source": "/dev/sdb"})),
        json!({"mounts": vec![bind("/srv", &["rbind", "rprivate"]); 257]}),
        json!({"hooks": {"prestart": [{"path": "/h"}]}}),
        json!({"hooks": {"createRuntime": [{"path": "/h"}]}}),
        json!({"hooks": {"createContainer": [{"path": "/h"}]}}),
        json!({"linux": {"rootfsPropagation": "shared"}}),
        json!({"linux": {"rootfsPropagation": "private"}}),
        userns(json!({})),
    ];
    for change in changes {
        let ways = ways(&plan(change.clone(), &linux_7()));
        assert!(ways.len() == 4 && ways[3] == "pivot the root", "{change}: {ways:?}");
    }
    let no_pivot = Options { no_pivot: true, ..options() };
    let moved = ways(&compile(&changed(json!({})), &linux_7(), &no_pivot).unwrap());
    assert_eq!(moved.last().unwrap(), "move the root");
    let mut others = linux_7();
    (others.euid, others.egid) = (rootless().euid, rootless().egid);
    assert!(ways(&plan(userns(json!({})), &others)).contains(&"pivot the root".to_owned()));
    others = linux_7();
    others.user_namespace = true;
    assert!(ways(&plan(json!({}), &others)).contains(&"pivot the root".to_owned()));
    assert!(ways(&plan(json!({}), &v2())).contains(&"pivot the root".to_owned()));
}

/// Behind it their paths lead elsewhere.
#[test]
fn sources_are_there_when_the_rootfs_is_entered() {
    let change = json!({"mounts": [
        {"destination": "/proc", "type": "proc"}, bind("/srv", &["rbind", "rprivate"]), bind("/etc", &["bind", "private"])
    ]});
    let plan = plan(change, &linux_7());
    let at = |wanted: fn(&Step) -> bool| plan.init.iter().position(wanted).unwrap();
    let opened = at(|step| *step == Step::Await(Barrier::SourcesOpened));
    assert!(opened < at(|step| matches!(step, Step::EnterRoot { .. })));
    assert_eq!(plan.init.iter().filter(|step| **step == Step::Await(Barrier::SourcesOpened)).count(), 1);
}
