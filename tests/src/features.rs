//! `features`: complete, and true of this build. What a list names is tried, by containers that ask for it; what it does not name is
//! refused, or is somebody else's word.

use crate::harness::{Bundle, Need, T, Test};
use crate::{always, test};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub const TESTS: &[Test] = &[
    test!(the_document_has_the_specs_shape),
    test!(every_mount_option_of_the_spec_is_listed).runc_fails(always!("lists neither idmap nor ridmap")),
    test!(every_listed_mount_option_is_taken).needs(OURS).seconds(120),
    test!(every_listed_capability_can_be_given).needs(OURS),
    test!(every_listed_namespace_can_be_made).needs(OURS),
    test!(every_listed_hook_runs).needs(OURS),
    test!(every_listed_seccomp_word_is_taken).needs(OURS).seconds(120),
    test!(a_word_that_is_not_listed_is_refused).needs(OURS),
    test!(the_features_are_those_of_runc_and_more).needs(&[Need::Peer, Need::Ours("compared with runc")]),
    test!(the_annotations_say_what_engines_look_for).needs(OURS),
    test!(features_need_no_privileges).needs(OURS),
];

const OURS: &[Need] = &[Need::Ours("its own list is tried")];

fn features(t: &T) -> Value {
    t.call(&["features"]).bare().run().ok().json()
}

fn list(features: &Value, pointer: &str) -> Vec<String> {
    let list = features.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("{pointer} is no list"));
    list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// features.md and features-linux.md of runtime-spec 1.3: each property and its type. `?` may be left out.
const SHAPE: &[(&str, &str)] = &[
    ("/ociVersionMin", "string"),
    ("/ociVersionMax", "string"),
    ("/hooks", "strings"),
    ("/mountOptions", "strings"),
    ("/annotations", "object"),
    ("/potentiallyUnsafeConfigAnnotations", "strings"),
    ("/linux/namespaces", "strings"),
    ("/linux/capabilities", "strings"),
    ("/linux/cgroup/v1", "boolean"),
    ("/linux/cgroup/v2", "boolean"),
    ("/linux/cgroup/systemd", "boolean"),
    ("/linux/cgroup/systemdUser", "boolean"),
    ("/linux/cgroup/rdma", "boolean"),
    ("/linux/seccomp/enabled", "boolean"),
    ("/linux/seccomp/actions", "strings"),
    ("/linux/seccomp/operators", "strings"),
    ("/linux/seccomp/archs", "strings"),
    ("/linux/seccomp/knownFlags", "strings"),
    ("/linux/seccomp/supportedFlags", "strings"),
    ("/linux/apparmor/enabled", "boolean"),
    ("/linux/selinux/enabled", "boolean"),
    ("/linux/intelRdt/enabled", "boolean"),
    ("/linux/intelRdt/schemata", "boolean?"),
    ("/linux/intelRdt/monitoring", "boolean?"),
    ("/linux/memoryPolicy/modes", "strings?"),
    ("/linux/memoryPolicy/flags", "strings?"),
    ("/linux/mountExtensions/idmap/enabled", "boolean?"),
    ("/linux/netDevices/enabled", "boolean?"),
];

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "object" => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
        _ => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
    }
}

fn leaves(map: &Map<String, Value>, at: &str, found: &mut BTreeSet<String>) {
    for (key, value) in map {
        let at = format!("{at}/{key}");
        match value {
            Value::Object(map) if at != "/annotations" => leaves(map, &at, found),
            _ => drop(found.insert(at)),
        }
    }
}

fn the_document_has_the_specs_shape(t: &T) {
    let features = features(t);
    for (pointer, kind) in SHAPE {
        match features.pointer(pointer) {
            Some(value) => assert!(is_a(value, kind.trim_end_matches('?')), "{pointer} is {value}"),
            None => assert!(!t.is_ours() && !t.runtime.label.is_empty(), "{pointer} is missing"),
        }
    }
    // And nothing that the specification does not know.
    let mut found = BTreeSet::new();
    leaves(features.as_object().expect("an object"), "", &mut found);
    let known: BTreeSet<String> = SHAPE.iter().map(|(pointer, _)| (*pointer).to_owned()).collect();
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Engines look words up; no word twice.
    for (pointer, _) in SHAPE.iter().filter(|(_, kind)| kind.starts_with("strings")) {
        if features.pointer(pointer).is_some() {
            let words = list(&features, pointer);
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "{pointer}: {words:?}");
            assert!(!words.is_empty(), "{pointer} is empty");
        }
    }
}

/// config.md, "Linux mount options", and config-linux.md's idmap: MUST and SHOULD, and the MAY of tmpcopyup, mand and nomand.
const OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
    noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime \
    remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw \
    rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup \
    unbindable idmap ridmap";

fn every_mount_option_of_the_spec_is_listed(t: &T) {
    let listed = list(&features(t), "/mountOptions");
    let missing: Vec<_> =
        OPTIONS.split_whitespace().filter(|option| !listed.iter().any(|have| have == option)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Runs a container with this change to its end.
fn runs(t: &T, bundle: &Bundle, what: &str) {
    let container = t.container(bundle);
    let out = container.run();
    assert!(out.code == Some(0), "{what}: {out:?}");
    container.delete_if_there();
}

fn every_listed_mount_option_is_taken(t: &T) {
    let source = t.make_dir("source");
    let bind = json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"]});
    // All at once is one start for many words; those that contradict each other are tried one by one.
    for option in list(&features(t), "/mountOptions") {
        let mut bundle = t.bundle();
        let mut mount = bind.clone();
        let options = match option.as_str() {
            "bind" => vec!["bind"],
            "remount" => vec!["bind", "remount"],
            "tmpcopyup" | "iversion" | "noiversion" | "lazytime" | "nolazytime" | "silent" | "loud"
            | "mand" | "nomand" | "sync" | "async" | "dirsync" | "rmand" | "rnomand" | "rsync" | "rasync"
            | "rdirsync" => {
                mount = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"});
                vec![option.as_str()]
            }
            "idmap" | "ridmap" => {
                mount["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
                mount["gidMappings"] = mount["uidMappings"].clone();
                vec!["rbind", option.as_str()]
            }
            word => vec!["rbind", word],
        };
        if option == "remount" {
            bundle.mount(bind.clone());
        }
        mount["options"] = json!(options);
        bundle.mount(mount);
        if !bundle.file("/mnt").exists() {
            bundle.make_dir("/mnt");
        }
        runs(t, &bundle, &option);
    }
}

fn every_listed_capability_can_be_given(t: &T) {
    let names = list(&features(t), "/linux/capabilities");
    let last: usize = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .expect("cap_last_cap")
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(names.len(), last + 1, "all of the kernel's");
    let mask = t.host.capabilities;
    for (bit, name) in names.iter().enumerate() {
        // What this test itself has not it cannot give away.
        if mask & 1 << bit == 0 {
            continue;
        }
        let mut bundle = t.bundle();
        bundle.capabilities(&[name]);
        let status = t.sh(&bundle, "grep CapPrm /proc/self/status");
        let have = status.split_whitespace().last().and_then(|word| u64::from_str_radix(word, 16).ok());
        assert_eq!(have, Some(1 << bit), "{name}: {status}");
    }
}

fn every_listed_namespace_can_be_made(t: &T) {
    let kinds = list(&features(t), "/linux/namespaces");
    assert_eq!(kinds, ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]);
    for kind in kinds {
        let file = match kind.as_str() {
            "network" => "net",
            "mount" => "mnt",
            other => other,
        };
        let mut bundle = t.bundle();
        match kind.as_str() {
            "user" => bundle.user_namespace(),
            kind => bundle.namespace(kind, None),
        };
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).expect("a namespace");
        let inside = t.sh(&bundle, &format!("readlink /proc/self/ns/{file}"));
        assert_ne!(inside.trim(), own.to_string_lossy(), "{kind}");
    }
}

fn every_listed_hook_runs(t: &T) {
    let kinds = list(&features(t), "/hooks");
    let mut bundle = t.bundle().args(&["true"]);
    for kind in &kinds {
        // In the container's own files for those that run there: the same path on both sides.
        let dir = t.make_dir("hooks");
        let inside = bundle.file(&dir.to_string_lossy());
        std::fs::create_dir_all(&inside).expect("mkdir");
        let (path, args) = match kind.as_str() {
            "startContainer" => ("/bin/touch", vec!["touch".to_owned(), format!("/{kind}")]),
            _ => ("/bin/touch", vec!["touch".to_owned(), dir.join(kind).to_string_lossy().into_owned()]),
        };
        bundle.set(json!({"hooks": {kind: [{"path": path, "args": args}]}}));
    }
    let container = t.container(&bundle);
    container.run().ok();
    container.delete_if_there();
    for kind in &kinds {
        let file = match kind.as_str() {
            "startContainer" => bundle.file("/startContainer"),
            _ => t.path("hooks").join(kind),
        };
        assert!(file.exists(), "{kind} has not run");
    }
}

fn profile(profile: Value) -> Value {
    json!({"linux": {"seccomp": profile}})
}

fn every_listed_seccomp_word_is_taken(t: &T) {
    let features = features(t);
    let bundle = t.bundle();
    for action in list(&features, "/linux/seccomp/actions") {
        // A listener is a socket, which another test has.
        if action == "SCMP_ACT_NOTIFY" {
            continue;
        }
        let rule = json!([{"names": ["ptrace"], "action": action}]);
        let wanted = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
        runs(t, &bundle.with(wanted), &action);
    }
    for operator in list(&features, "/linux/seccomp/operators") {
        let args =
            json!([{"index": 0, "value": 4_000_000_000_u64, "valueTwo": 4_000_000_000_u64, "op": operator}]);
        let rule = json!([{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "args": args}]);
        let wanted = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
        runs(t, &bundle.with(wanted), &operator);
    }
    // As with libseccomp, a filter holds architectures of one byte order only.
    for arch in list(&features, "/linux/seccomp/archs") {
        let wanted = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch],
            "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}));
        let container = t.container(&bundle.with(wanted));
        let out = container.run();
        assert!(out.code == Some(0) || out.message().contains("another byte order"), "{arch}: {out:?}");
        container.delete_if_there();
    }
    let (known, supported) =
        (list(&features, "/linux/seccomp/knownFlags"), list(&features, "/linux/seccomp/supportedFlags"));
    assert!(supported.iter().all(|flag| known.contains(flag)), "{supported:?} of {known:?}");
    for flag in supported.iter().filter(|flag| *flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") {
        runs(
            t,
            &bundle.with(profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
            "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}))),
            flag,
        );
    }
}

fn a_word_that_is_not_listed_is_refused(t: &T) {
    for (change, pointer) in [
        (json!({"linux": {"namespaces": [{"type": "nope"}]}}), "/linux/namespaces/0"),
        (profile(json!({"defaultAction": "SCMP_ACT_NOPE"})), "/linux/seccomp/defaultAction"),
        (
            profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]})),
            "/linux/seccomp/architectures",
        ),
        (
            profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOPE"]})),
            "/linux/seccomp/flags",
        ),
        (
            profile(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NOPE"}]}]}),
            ),
            "/linux/seccomp/syscalls/0/args/0",
        ),
        (json!({"linux": {"memoryPolicy": {"mode": "MPOL_NOPE", "nodes": "0"}}}), "/linux/memoryPolicy/mode"),
    ] {
        let message = t.refused(&t.bundle().with(change));
        assert!(message.contains(pointer), "{pointer}: {message}");
    }
}

/// What runc alone means: its label of the bundle's path, and two options of 1.1 that mount(2) has never looked at.
fn of_its_own(word: &str) -> bool {
    ["bundle", "acl", "noacl"].contains(&word)
}

fn the_features_are_those_of_runc_and_more(t: &T) {
    let peer = t.peer.clone().expect("a peer");
    let out = crate::harness::Call::new(t, &peer, &["features"]).bare().run();
    if out.code != Some(0) {
        t.skip(&format!("{} has no features", peer.label));
    }
    let (ours, theirs) = (features(t), out.json());
    for (pointer, kind) in SHAPE {
        let Some(wanted) = theirs.pointer(pointer) else { continue };
        match *kind {
            "strings" | "strings?" => {
                let have = list(&ours, pointer);
                let missing: Vec<_> = list(&theirs, pointer)
                    .into_iter()
                    .filter(|word| !have.contains(word) && !of_its_own(word))
                    .collect();
                assert!(missing.is_empty(), "{pointer}: {} has {missing:?} too", peer.label);
            }
            "boolean" | "boolean?" => {
                let have = ours.pointer(pointer).and_then(Value::as_bool);
                assert!(have == Some(true) || *wanted == json!(false), "{pointer}");
            }
            _ => {}
        }
    }
}

fn the_annotations_say_what_engines_look_for(t: &T) {
    let features = features(t);
    let annotations = features["annotations"].as_object().expect("annotations");
    // CRI-O asks for this before it offers checkpoints.
    assert_eq!(annotations["org.opencontainers.runc.checkpoint.enabled"], "true");
    let version = t.call(&["--version"]).bare().run().ok().stdout;
    let first = version.lines().next().unwrap_or_default();
    assert_eq!(
        first,
        format!("cofferdam version {}", annotations["cofferdam.version"].as_str().expect("a version"))
    );
    let commit = annotations["cofferdam.commit"].as_str().expect("a commit");
    assert!(version.contains(&format!("commit: {commit}")), "{version}");
    // Each of these does something; the last dot stands for all that begin so.
    let unsafe_ones = list(&features, "/potentiallyUnsafeConfigAnnotations");
    assert_eq!(unsafe_ones, ["cofferdam.", "org.criu.config", "org.systemd.property.", "run.oci."]);
}

fn features_need_no_privileges(t: &T) {
    let as_root = features(t);
    t.as_user("");
    assert_eq!(features(t), as_root);
}
