//! Annotations that have an effect: what they change, and with what they are refused.

mod support;

use cofferdam_plan::{Host, Plan, SlotSource};
use cofferdam_step::{Hooks, Source, Step};
use serde_json::{Value, json};
use support::{options, plan, refusal, rootless, userns, v2};

fn groups(plan: &Plan) -> Option<Vec<u32>> {
    let user = plan.init.iter().find_map(|step| match step {
        Step::SetUser { additional_gids, .. } => Some(additional_gids.clone()),
        _ => None,
    });
    user.expect("a user")
}

#[test]
fn groups_are_kept_or_set() {
    let config = |value: &str| json!({"annotations": {"run.oci.keep_original_groups": value}, "process": {"user": {"uid": 0, "gid": 0, "additionalGids": [5]}}});
    assert_eq!(groups(&plan(json!({}), &v2())), Some(vec![]));
    assert_eq!(groups(&plan(config("0"), &v2())), Some(vec![5]));
    for value in ["1", "true", ""] {
        let kept = plan(config(value), &v2());
        assert_eq!(groups(&kept), None, "{value:?}");
        assert!(kept.warnings.is_empty(), "{:?}", kept.warnings);
    }
    // Also a group that the namespace does not map, for nobody sets it.
    let mut change = userns(config("1"));
    change["process"]["user"]["additionalGids"] = json!([100_000]);
    assert_eq!(groups(&plan(change, &v2())), None);
    // Who may map only themselves cannot set any; those that are meant to stay are no error.
    let own = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let mut change = userns(config("1"));
    change["linux"]["uidMappings"] = own.clone();
    change["linux"]["gidMappings"] = own;
    change["mounts"] = json!([]);
    change["process"]["user"]["additionalGids"] = json!([0]);
    let rootless_options = cofferdam_plan::Options { rootless: true, ..options() };
    assert_eq!(groups(&support::attempt(change.clone(), &rootless(), &rootless_options).unwrap()), None);
    change["annotations"] = json!({});
    assert_eq!(
        support::attempt(change, &rootless(), &rootless_options).unwrap_err().to_string(),
        "config.json /process/user/additionalGids: cannot set any additional groups in a rootless container"
    );
}

/// Hooks that init runs, and the files of one of them.
fn hooks(annotations: Value) -> (Plan, Vec<Hooks>) {
    let hook = json!([{"path": "/bin/true"}]);
    let plan = plan(
        json!({"annotations": annotations, "hooks": {"createContainer": hook, "startContainer": hook}}),
        &v2(),
    );
    let hooks = plan.init.iter().filter_map(|step| match step {
        Step::RunHooks(hooks) => Some(hooks.clone()),
        _ => None,
    });
    let hooks = hooks.collect();
    (plan, hooks)
}

#[test]
fn hooks_get_files_for_their_output() {
    let (plan, none) = hooks(json!({}));
    assert!(none.iter().all(|hooks| hooks.stdout.is_none() && hooks.stderr.is_none()));
    assert!(!plan.slots.iter().any(|slot| matches!(slot, SlotSource::HookOutput { .. })));

    let (plan, two) = hooks(json!({"run.oci.hooks.stdout": "/out", "run.oci.hooks.stderr": "/err"}));
    let path = |slot: Option<cofferdam_step::Slot>| match &plan.slots[usize::from(slot.unwrap().0)] {
        SlotSource::HookOutput { annotation, path } => (annotation.clone(), path.clone()),
        other => panic!("{other:?}"),
    };
    for hooks in &two {
        assert_eq!(path(hooks.stdout), ("run.oci.hooks.stdout".to_owned(), "/out".to_owned()));
        assert_eq!(path(hooks.stderr), ("run.oci.hooks.stderr".to_owned(), "/err".to_owned()));
    }
    // Both kinds share the files, and a file for both is opened once.
    assert_eq!(
        (two.len(), plan.slots.iter().filter(|slot| matches!(slot, SlotSource::HookOutput { .. })).count()),
        (2, 2)
    );
    let (_, one) = hooks(json!({"run.oci.hooks.stdout": "/both", "run.oci.hooks.stderr": "/both"}));
    assert!(one[0].stdout.is_some() && one[0].stdout == one[0].stderr);
}

#[test]
fn a_label_is_handed_on_as_the_annotation_says() {
    let selinux = Host { selinux: true, ..v2() };
    let key = |annotations: Value| {
        let change = json!({"annotations": annotations, "linux": {"mountLabel": "system_u:object_r:x:s0"},
            "mounts": [{"destination": "/t", "type": "tmpfs", "source": "tmpfs"}]});
        plan(change, &selinux).init.iter().find_map(|step| match step {
            Step::Mount(mount) => match &mount.source {
                Source::New { options, .. } => options.last().map(|option| option.key.clone()),
                _ => None,
            },
            _ => None,
        })
    };
    assert_eq!(key(json!({})).as_deref(), Some("context"));
    for word in ["context", "fscontext", "defcontext", "rootcontext"] {
        assert_eq!(key(json!({"run.oci.mount_context_type": word})).as_deref(), Some(word));
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    for key in ["run.oci.hooks.stdout", "run.oci.hooks.stderr", "run.oci.pidfd_receiver"] {
        for path in ["", "out", "../out"] {
            assert_eq!(
                refusal(json!({"annotations": {key: path}}), &v2()),
                format!("config.json /annotations/{key}: {path:?} is no absolute path")
            );
        }
    }
    assert_eq!(
        refusal(json!({"annotations": {"run.oci.mount_context_type": "size=1"}}), &v2()),
        "config.json /annotations/run.oci.mount_context_type: \"size=1\" is none of context, fscontext, defcontext, rootcontext"
    );
}

#[test]
fn other_annotations_change_nothing() {
    let with = |annotations: Value| {
        let plan = plan(json!({ "annotations": annotations }), &v2());
        (plan.to_string(), plan.slots)
    };
    let others = json!({
        "run.oci.handler": "krun", "run.oci.systemd.subgroup": "../x", "run.oci.delegate-cgroup": "..",
        "run.oci.seccomp.receiver": "x", "run.ocj": "y", "run": "z"
    });
    assert_eq!(with(others), with(json!({})));
}
