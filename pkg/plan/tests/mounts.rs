//! `/mounts`: the words of each table, and the steps that an entry becomes.

mod support;

use cofferdam_plan::{ExecTarget, Host, IdMap, Options, Plan, SlotSource, compile_mounts};
use cofferdam_step::{Attributes, Create, Links, Mount, Namespace, Propagation, Source, Step};
use serde_json::{Value, json};
use support::{plan, refusal, rootless, steps, userns, v1, v2};

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const ATIME: u64 = 0x70;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

fn mounts(plan: &Plan) -> Vec<Mount> {
    let mount = |step: &Step| if let Step::Mount(mount) = step { Some(mount.clone()) } else { None };
    plan.init.iter().filter_map(mount).collect()
}

fn only(entry: Value, host: &Host) -> Mount {
    let mut all = mounts(&plan(json!({ "mounts": [entry] }), host));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn bind(options: &[&str]) -> Mount {
    only(json!({"destination": "/a", "source": "/b", "options": options}), &v2())
}

fn fresh(options: &[&str]) -> Mount {
    only(json!({"destination": "/a", "type": "ext4", "source": "/dev/x", "options": options}), &v2())
}

/// What a bind mount loses when any option is given that does not keep it.
const INHERITED: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;

#[test]
fn every_word_of_one_mount_has_its_attribute() {
    for (word, set, clear) in [
        ("ro", RDONLY, 0),
        ("nosuid", NOSUID, 0),
        ("nodev", NODEV, 0),
        ("noexec", NOEXEC, 0),
        ("nosymfollow", NOSYMFOLLOW, 0),
        ("noatime", NOATIME, ATIME),
        ("strictatime", STRICTATIME, ATIME),
        ("relatime", 0, ATIME),
        ("nodiratime", NODIRATIME, ATIME),
        ("defaults", 0, 0),
        ("rw", 0, 0),
        ("suid", 0, 0),
        ("dev", 0, 0),
        ("exec", 0, 0),
        ("symfollow", 0, 0),
        ("diratime", 0, 0),
        ("norelatime", 0, 0),
        ("nostrictatime", 0, 0),
        ("atime", 0, 0),
    ] {
        assert_eq!(fresh(&[word]).attributes, Attributes { set, clear }, "{word}");
    }
}

#[test]
fn a_bind_mount_without_options_keeps_what_it_inherits() {
    assert_eq!(bind(&["bind"]).attributes, Attributes::default());
    assert_eq!(bind(&["rbind", "rprivate"]).attributes, Attributes::default());
}

#[test]
fn a_bind_mount_with_options_has_those_and_no_others() {
    for (words, set, clear) in [
        (&["bind", "ro"][..], RDONLY, INHERITED & !RDONLY),
        (&["bind", "nosuid", "nodev"], NOSUID | NODEV, INHERITED & !NOSUID & !NODEV),
        (&["bind", "rw"], 0, INHERITED),
        (&["bind", "noatime"], NOATIME, INHERITED | ATIME | NODIRATIME),
        (&["bind", "relatime"], 0, INHERITED | ATIME | NODIRATIME),
        (&["bind", "nodiratime"], NODIRATIME, INHERITED | ATIME),
        (&["bind", "atime"], 0, INHERITED),
        (&["bind", "diratime"], 0, INHERITED),
        (&["bind", "norelatime"], 0, INHERITED),
        (&["bind", "symfollow"], 0, INHERITED),
        (&["bind", "nosymfollow"], NOSYMFOLLOW, INHERITED & !NOSYMFOLLOW),
        (&["bind", "strictatime", "nodiratime"], STRICTATIME | NODIRATIME, INHERITED | ATIME),
    ] {
        assert_eq!(bind(words).attributes, Attributes { set, clear }, "{words:?}");
    }
}

#[test]
fn in_a_user_namespace_a_bind_mount_loses_only_what_is_taken_by_name() {
    let entry = json!({"destination": "/a", "source": "/b", "options": ["bind", "ro"]});
    let inside = mounts(&plan(userns(json!({ "mounts": [entry] })), &v2()));
    assert_eq!(inside[0].attributes, Attributes { set: RDONLY, clear: NOSYMFOLLOW });
    let entry = json!({"destination": "/a", "source": "/b", "options": ["bind", "ro", "exec"]});
    let nested = Host { user_namespace: true, ..v2() };
    assert_eq!(only(entry, &nested).attributes, Attributes { set: RDONLY, clear: NOEXEC | NOSYMFOLLOW });
}

#[test]
fn the_last_of_two_contrary_words_counts() {
    assert_eq!(fresh(&["ro", "rw"]).attributes, Attributes::default());
    assert_eq!(fresh(&["rw", "ro"]).attributes.set, RDONLY);
    assert_eq!(bind(&["bind", "noexec", "exec"]).attributes.clear & NOEXEC, NOEXEC);
    assert_eq!(fresh(&["noatime", "strictatime"]).attributes.set, STRICTATIME);
    assert_eq!(fresh(&["noatime", "atime", "relatime"]).attributes, Attributes { set: 0, clear: ATIME });
}

#[test]
fn every_word_of_a_whole_tree_has_its_attribute() {
    for (word, set, clear) in [
        ("rro", RDONLY, 0),
        ("rrw", 0, RDONLY),
        ("rnosuid", NOSUID, 0),
        ("rsuid", 0, NOSUID),
        ("rnodev", NODEV, 0),
        ("rdev", 0, NODEV),
        ("rnoexec", NOEXEC, 0),
        ("rexec", 0, NOEXEC),
        ("rnodiratime", NODIRATIME, 0),
        ("rdiratime", 0, NODIRATIME),
        ("rnosymfollow", NOSYMFOLLOW, 0),
        ("rsymfollow", 0, NOSYMFOLLOW),
        ("rrelatime", 0, ATIME),
        ("rnoatime", NOATIME, ATIME),
        ("rstrictatime", STRICTATIME, ATIME),
        ("ratime", 0, ATIME),
        ("rnostrictatime", 0, ATIME),
        ("rnorelatime", 0, ATIME),
    ] {
        let mount = bind(&["rbind", word]);
        assert_eq!(mount.recursive, Attributes { set, clear }, "{word}");
        assert_eq!(mount.attributes, Attributes::default(), "{word}");
    }
    assert_eq!(bind(&["rbind", "rro", "rrw"]).recursive, Attributes { set: 0, clear: RDONLY });
    assert_eq!(
        bind(&["rbind", "rnoatime", "rstrictatime"]).recursive,
        Attributes { set: STRICTATIME, clear: ATIME }
    );
    assert_eq!(
        bind(&["rbind", "rstrictatime", "ratime"]).recursive,
        Attributes { set: STRICTATIME, clear: ATIME }
    );
    assert_eq!(bind(&["rbind", "rnoatime", "ratime"]).recursive, Attributes { set: 0, clear: ATIME });
    assert_eq!(
        bind(&["rbind", "rnoatime", "rnorelatime"]).recursive,
        Attributes { set: NOATIME, clear: ATIME }
    );
}

#[test]
fn every_word_of_propagation_has_its_flag() {
    for (word, flag, recursive) in [
        ("shared", 1 << 20, false),
        ("rshared", 1 << 20, true),
        ("slave", 1 << 19, false),
        ("rslave", 1 << 19, true),
        ("private", 1 << 18, false),
        ("rprivate", 1 << 18, true),
        ("unbindable", 1 << 17, false),
        ("runbindable", 1 << 17, true),
    ] {
        assert_eq!(bind(&["bind", word]).propagation, [Propagation { flag, recursive }], "{word}");
    }
    assert_eq!(bind(&["bind", "shared", "rslave"]).propagation.len(), 2);
    assert_eq!(bind(&["bind"]).propagation, []);
}

#[test]
fn flags_of_the_filesystem_go_to_the_filesystem() {
    let flags = |words: &[&str]| match fresh(words).source {
        Source::New { flags, .. } => flags,
        other => panic!("{other:?}"),
    };
    for (word, flag) in [
        ("ro", 1),
        ("sync", 16),
        ("mand", 64),
        ("dirsync", 128),
        ("silent", 1 << 15),
        ("iversion", 1 << 23),
        ("lazytime", 1 << 25),
        ("nosuid", 0),
    ] {
        assert_eq!(flags(&[word]), flag, "{word}");
    }
    for (word, contrary) in [
        ("sync", "async"),
        ("mand", "nomand"),
        ("silent", "loud"),
        ("iversion", "noiversion"),
        ("lazytime", "nolazytime"),
        ("ro", "rw"),
    ] {
        assert_eq!(flags(&[word, contrary]), 0, "{word},{contrary}");
    }
    // crun's words for the same; a bind mount has no filesystem to give them to, and loses nothing by them.
    for (word, flag) in [("rsync", 16), ("rdirsync", 128), ("rmand", 64), ("rasync", 0), ("rnomand", 0)] {
        assert_eq!(flags(&[word]), flag, "{word}");
        assert_eq!(bind(&["rbind", word]).attributes, Attributes::default(), "{word}");
    }
    for words in [["sync", "rasync"], ["rsync", "async"], ["rsync", "rasync"], ["mand", "rnomand"]] {
        assert_eq!(flags(&words), 0, "{words:?}");
    }
}

#[test]
fn unknown_words_are_the_filesystem_s() {
    let options = |words: &[&str]| match fresh(words).source {
        Source::New { options, .. } => {
            options.into_iter().map(|option| (option.key, option.value)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    assert_eq!(options(&["acl", "size=64k"]), [pair("acl", None), pair("size", Some("64k"))]);
    assert_eq!(
        options(&["mode=755,uid=0", ",,x"]),
        [pair("mode", Some("755")), pair("uid", Some("0")), pair("x", None)]
    );
    assert_eq!(
        options(&["context=\"system_u:object_r:svirt_t:s0:c1,c2\",y"]),
        [pair("context", Some("system_u:object_r:svirt_t:s0:c1,c2")), pair("y", None)]
    );
    assert_eq!(options(&["x=\"open"]), [pair("x", Some("\"open"))]);
    assert_eq!(options(&["lowerdir=/a:/b=c"]), [pair("lowerdir", Some("/a:/b=c"))]);
}

#[test]
fn a_bind_mount_takes_its_source_from_the_bundle() {
    let mount = only(json!({"destination": "/a", "source": "data/../x", "options": ["rbind"]}), &v2());
    assert_eq!(mount.source, Source::Bind { path: "/bundle/x".to_owned(), recursive: true, ahead: false });
    assert_eq!(mount.create, Create::AsSource);
    let mount = only(json!({"destination": "/a", "type": "bind", "source": "/b"}), &v2());
    assert_eq!(mount.source, Source::Bind { path: "/b".to_owned(), recursive: false, ahead: false });
}

#[test]
fn a_relative_destination_counts_from_the_root() {
    let mount = only(json!({"destination": "a/./b/../c", "type": "tmpfs"}), &v2());
    assert_eq!((mount.destination.as_str(), mount.create), ("/a/c", Create::Directory));
}

#[test]
fn proc_and_sys_are_mounted_on_real_directories() {
    let links = |entry| only(entry, &v2()).links;
    assert_eq!(links(json!({"destination": "/proc", "type": "proc"})), Links::Refused);
    assert_eq!(links(json!({"destination": "/sys", "type": "sysfs"})), Links::Refused);
    assert_eq!(links(json!({"destination": "/a", "type": "tmpfs"})), Links::Followed);
}

#[test]
fn links_of_a_bind_mount_are_followed_or_not() {
    let source = Source::Link { path: "/b".to_owned(), recursive: false };
    let copied = bind(&["bind", "copy-symlink"]);
    assert_eq!((copied.create, copied.links), (Create::SameLink, Links::Followed));
    assert_eq!(copied.source, source);
    let itself = bind(&["bind", "src-nofollow"]);
    assert_eq!((itself.create, itself.links), (Create::AsSource, Links::Followed));
    assert_eq!(itself.source, source);
    let over = bind(&["bind", "dest-nofollow"]);
    assert_eq!((over.create, over.links), (Create::AsSource, Links::Covered));
    assert_eq!(over.source, Source::Bind { path: "/b".to_owned(), recursive: false, ahead: false });
    for words in [&["copy-symlink"][..], &["src-nofollow"], &["dest-nofollow"]] {
        assert_eq!(bind(&[&["bind"], words].concat()).attributes, Attributes::default());
    }
    // The host side opens the link itself, where it is the one that opens.
    let entry = json!({"destination": "/a", "source": "/b", "options": ["rbind", "copy-symlink"]});
    let plan = plan(userns(json!({ "mounts": [entry] })), &v2());
    assert_eq!(mounts(&plan)[0].create, Create::SameLink);
    assert!(plan.slots.iter().any(|slot| matches!(slot, SlotSource::Tree { of_link: true, .. })));
    let text = plan.to_string();
    assert!(text.contains("a link as a link") && text.contains("tree /b itself"), "{text}");
}

#[test]
fn words_for_links_are_for_bind_mounts() {
    let refused = |entry| refusal(json!({ "mounts": [entry] }), &v2());
    for word in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
        assert_eq!(
            refused(json!({"destination": "/a", "type": "tmpfs", "options": [word]})),
            "config.json /mounts/0/options: copy-symlink, src-nofollow and dest-nofollow are for bind mounts only"
        );
    }
    assert_eq!(
        refused(
            json!({"destination": "/a", "source": "/b", "options": ["bind", "copy-symlink", "dest-nofollow"]})
        ),
        "config.json /mounts/0/options: copy-symlink excludes src-nofollow and dest-nofollow"
    );
}

#[test]
fn a_read_only_tmpfs_is_filled_first() {
    for (entry, path) in [
        (json!({"destination": "/a", "type": "tmpfs", "options": ["ro", "nosuid"]}), "/a"),
        (json!({"destination": "/dev/", "type": "devtmpfs", "options": ["ro", "nosuid"]}), "/dev"),
    ] {
        let plan = plan(json!({ "mounts": [entry] }), &v2());
        let mount = &mounts(&plan)[0];
        assert_eq!(mount.attributes.set, NOSUID);
        assert!(matches!(mount.source, Source::New { flags: 0, .. }));
        let steps = steps(&plan);
        let late = steps.iter().position(|step| *step == format!("remount {path} read-only")).unwrap();
        assert!(late > steps.iter().position(|step| step == "pivot the root").unwrap());
    }
    let plan = plan(json!({"mounts": [{"destination": "/a", "type": "proc", "options": ["ro"]}]}), &v2());
    assert!(!steps(&plan).iter().any(|step| step.starts_with("remount")));
}

#[test]
fn a_tmpfs_without_a_mode_takes_the_covered_one() {
    let inherits = |options: &[&str]| {
        let mount = only(json!({"destination": "/a", "type": "tmpfs", "options": options}), &v2());
        matches!(mount.source, Source::New { inherit_mode: true, .. })
    };
    assert!(inherits(&[]));
    assert!(inherits(&["size=1m"]));
    assert!(!inherits(&["mode=1777"]));
    assert!(!inherits(&["size=1m,mode=1777"]));
}

#[test]
fn a_remount_changes_what_is_there() {
    let mount = only(json!({"destination": "/a", "options": ["remount", "ro", "size=1m"]}), &v2());
    assert!(
        matches!(&mount.source, Source::Remount { flags: 1, bind: false, options } if options.len() == 1)
    );
    assert_eq!(mount.attributes.set, RDONLY);
    let mount = only(json!({"destination": "/a", "options": ["bind", "remount", "nosuid"]}), &v2());
    assert!(matches!(mount.source, Source::Remount { bind: true, .. }));
}

#[test]
fn copying_up_waits_for_the_cgroup() {
    let plan =
        plan(json!({"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["tmpcopyup"]}]}), &v2());
    let steps = steps(&plan);
    let at = steps.iter().position(|step| step == "mount tmpfs on /a").unwrap();
    assert_eq!(steps[at - 1], "await the host: cgroup joined");
    assert!(mounts(&plan)[0].copy_up);
}

#[test]
fn a_user_namespace_gets_trees_from_the_host() {
    let entry = json!({"destination": "/a", "source": "/b", "options": ["rbind", "ro"]});
    let plan = plan(userns(json!({ "mounts": [entry] })), &v2());
    let Source::Tree { slot, path, recursive: true } = &mounts(&plan)[0].source else { panic!("no tree") };
    assert_eq!(path, "/b");
    let slave = Some(Propagation { flag: 1 << 19, recursive: true });
    assert_eq!(
        plan.slots[usize::from(slot.0)],
        SlotSource::Tree {
            path: "/b".to_owned(),
            recursive: true,
            of_link: false,
            propagation: slave,
            idmap: None,
            idmap_recursive: false,
            locked: false
        }
    );
}

#[test]
fn what_is_added_to_a_user_namespace_keeps_the_host_s_flags() {
    let entry = serde_json::from_value(json!({"destination": "/a", "type": "bind", "source": "/b"})).unwrap();
    for user_namespace in [false, true] {
        let mut target = ExecTarget::default();
        target.namespaces.insert(Namespace::Mount);
        if user_namespace {
            target.namespaces.insert(Namespace::User);
        }
        let plan = compile_mounts(std::slice::from_ref(&entry), &target, &v2()).unwrap();
        let locks = |slot: &SlotSource| matches!(slot, SlotSource::Tree { locked: true, .. });
        assert_eq!(plan.slots.iter().any(locks), user_namespace);
        assert_eq!(mounts(&plan).len(), 1);
    }
}

#[test]
fn without_privileges_the_trees_are_opened_inside() {
    let mut change = userns(json!({"mounts": [{"destination": "/a", "source": "/b", "options": ["bind"]}]}));
    let own = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    change["linux"]["uidMappings"] = own.clone();
    change["linux"]["gidMappings"] = own;
    let plan = plan(change, &rootless());
    assert!(matches!(mounts(&plan)[0].source, Source::Bind { .. }));
    assert!(!plan.slots.iter().any(|slot| matches!(slot, SlotSource::Tree { .. })));
}

#[test]
fn private_sources_are_opened_ahead() {
    let entry =
        |source: &str, options: &[&str]| json!({"destination": "/a", "source": source, "options": options});
    let ahead = |change: Value, host: &Host| {
        let plan = plan(change, host);
        let waits = steps(&plan).iter().filter(|step| step.contains("bind sources opened")).count();
        let mounts = mounts(&plan);
        let ahead =
            mounts.iter().filter(|mount| matches!(mount.source, Source::Bind { ahead: true, .. })).count();
        assert_eq!(waits, usize::from(ahead > 0));
        assert_eq!(plan.host.contains(&cofferdam_plan::HostStep::OpenSources), ahead > 0);
        ahead
    };
    let one = |source: &str, options: &[&str]| ahead(json!({"mounts": [entry(source, options)]}), &v2());
    for (options, count) in [
        (&["rbind", "rprivate"] as &[&str], 1),
        (&["bind", "private", "ro"], 1),
        (&["rbind", "private"], 0),
        (&["rbind", "private", "rprivate"], 1),
        (&["rbind"], 0),
        (&["rbind", "rslave"], 0),
        (&["rbind", "rshared"], 0),
        (&["rbind", "rprivate", "rslave"], 0),
        (&["rbind", "rprivate", "src-nofollow"], 0),
    ] {
        assert_eq!(one("/b", options), count, "{options:?}");
    }
    assert_eq!(one("/bundle/rootfs/b", &["rbind", "rprivate"]), 0, "it lies inside");
    let private = entry("/b", &["rbind", "rprivate"]);
    let two = |first: &Value, host: &Host| ahead(json!({"mounts": [first.clone(), private.clone()]}), host);
    assert_eq!(two(&private, &v1()), 2);
    assert_eq!(two(&entry("/c", &["rbind", "rshared"]), &v2()), 0, "it may lie below what is shared");
    assert_eq!(two(&private, &rootless()), 0);
    assert_eq!(ahead(userns(json!({"mounts": [private.clone()]})), &v2()), 0);
    let shared = json!({"mounts": [private.clone()], "linux": {"rootfsPropagation": "shared"}});
    assert_eq!(ahead(shared, &v2()), 0);
}

#[test]
fn a_rootless_cgroup_that_is_not_there_has_something_in_its_place() {
    let options = Options { rootless: true, ..support::options() };
    let entry =
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let change = || userns(json!({"mounts": [entry.clone()]}));
    let bind = |source: &Source| match source {
        Source::Bind { path, .. } => path.clone(),
        other => panic!("{other:?}"),
    };
    // v1: the caller's own, as read-only.
    let plan = support::attempt(change(), &Host { euid: 1000, egid: 1000, ..v1() }, &options).unwrap();
    let memory =
        mounts(&plan).into_iter().find(|mount| mount.destination == "/sys/fs/cgroup/memory").unwrap();
    assert_eq!(bind(&memory.source), "/sys/fs/cgroup/memory/c1");
    let own = memory.or_else.as_ref().unwrap();
    assert_eq!((bind(&own.source), own.attributes), ("/sys/fs/cgroup/memory".to_owned(), memory.attributes));
    // v2: its own by a bind, or nothing at all.
    let plan = support::attempt(change(), &rootless(), &options).unwrap();
    let first = mounts(&plan).remove(0);
    let bound = first.or_else.as_ref().unwrap();
    assert_eq!(bind(&bound.source), "/sys/fs/cgroup");
    let nothing = bound.or_else.as_ref().unwrap();
    assert!(matches!(&nothing.source, Source::New { fstype, .. } if fstype == "tmpfs"));
    // Root's containers have a cgroup, or fail.
    let plan = support::plan(change(), &v1());
    assert!(mounts(&plan).iter().all(|mount| mount.or_else.is_none()));
}

#[test]
fn an_idmapped_mount_is_mapped_on_the_side_that_can() {
    let own = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let entry = json!({
        "destination": "/a", "source": "/b", "options": ["rbind", "ridmap"], "uidMappings": own, "gidMappings": own
    });
    let outside = plan(json!({ "mounts": [entry] }), &v2());
    let mount = &mounts(&outside)[0];
    assert!(mount.idmap_recursive);
    let slot = mount.idmap.unwrap();
    let SlotSource::UserNamespace(IdMap::Mappings { uid, .. }) = &outside.slots[usize::from(slot.0)] else {
        panic!("no user namespace")
    };
    assert_eq!(uid[0].host_id, 5000);

    let inside = plan(
        userns(json!({"mounts": [{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]})),
        &v2(),
    );
    let mount = &mounts(&inside)[0];
    assert_eq!(mount.idmap, None);
    let Source::Tree { slot, .. } = mount.source else { panic!("no tree") };
    let SlotSource::Tree { idmap: Some(IdMap::Mappings { uid, .. }), idmap_recursive: false, .. } =
        &inside.slots[usize::from(slot.0)]
    else {
        panic!("not idmapped")
    };
    assert_eq!(uid[0].host_id, 100_000);
}

/// containerID, hostID, size.
type Ranges = Vec<(u32, u32, u32)>;

/// The ids that an option names, uids and gids: of a container that maps 0 to 100,000 and 1 to 65,535 to 200,000 and on.
fn named(option: &str) -> Result<[Ranges; 2], String> {
    let maps = json!([
        {"containerID": 0, "hostID": 100_000, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 65_535}
    ]);
    let mut change =
        userns(json!({"mounts": [{"destination": "/a", "source": "/b", "options": ["bind", option]}]}));
    change["linux"]["uidMappings"] = maps.clone();
    change["linux"]["gidMappings"] = maps;
    let plan = support::attempt(change, &v2(), &support::options()).map_err(|refused| refused.to_string())?;
    let triple = |maps: &[cofferdam_spec::IdMapping]| {
        maps.iter().map(|map| (map.container_id, map.host_id, map.size)).collect::<Vec<_>>()
    };
    let found = plan.slots.iter().find_map(|slot| match slot {
        SlotSource::Tree { idmap: Some(IdMap::Mappings { uid, gid }), .. } => {
            Some([triple(uid), triple(gid)])
        }
        _ => None,
    });
    Ok(found.expect("an idmapped tree"))
}

#[test]
fn an_idmap_may_name_its_ids() {
    assert_eq!(
        named("idmap=uids=0-1-10#10-11-10;gids=0-100-10"),
        Ok([vec![(0, 1, 10), (10, 11, 10)], vec![(0, 100, 10)]])
    );
    // Relative to the container: cut where its own mappings are.
    assert_eq!(
        named("idmap=uids=@5-3-10;gids=@0-0-3#@9-20-1"),
        Ok([vec![(5, 200_002, 10)], vec![(0, 100_000, 1), (1, 200_000, 2), (9, 200_019, 1)]])
    );
    // With nothing behind it, it is the container's own.
    assert_eq!(named("idmap="), named("idmap"));
    // On the other side.
    let option = "ridmap=uids=0-5000-1;gids=0-6000-1";
    let entry = json!({"destination": "/a", "source": "/b", "options": ["rbind", option]});
    let outside = plan(json!({ "mounts": [entry] }), &v2());
    let mount = &mounts(&outside)[0];
    assert!(mount.idmap.is_some() && mount.idmap_recursive);
}

#[test]
fn an_idmap_that_names_no_ids_is_refused() {
    let at = "config.json /mounts/0/options/1";
    for (option, message) in [
        ("idmap=uids=0-0-1", "must name uids as well as gids"),
        ("idmap=uids=0-0-1;gids=", "must name uids as well as gids"),
        ("idmap=0-0-1", "\"0-0-1\" is neither uids=… nor gids=…"),
        ("idmap=uids=0-0;gids=0-0-1", "\"0-0\" is no range of ids (as in 0-1000-10)"),
        ("idmap=uids=0-0-4294967296;gids=0-0-1", "\"0-0-4294967296\" is no range of ids (as in 0-1000-10)"),
        (
            "idmap=uids=@0-65530-10;gids=0-0-1",
            "\"@0-65530-10\": 65536 is not mapped into the container's user namespace",
        ),
        ("idmap=uids=@4294967295-0-2;gids=0-0-1", "\"@4294967295-0-2\" goes beyond the last id"),
    ] {
        assert_eq!(named(option), Err(format!("{at}: {message}")), "{option}");
    }
    assert_eq!(named("idmap=uids=0-0-0;gids=0-0-1"), Err(format!("{at}/0/size: must not be zero")));
    assert_eq!(
        named("idmap=uids=0-0-5#4-9-1;gids=0-0-1"),
        Err(format!("{at}/1: overlaps /mounts/0/options/1/0"))
    );
    let entry = json!({"destination": "/a", "type": "tmpfs", "options": ["idmap=uids=0-0-1;gids=0-0-1"]});
    assert_eq!(
        refusal(json!({ "mounts": [entry] }), &v2()),
        "config.json /mounts/0: id-mapped mounts are only supported for bind-mounts"
    );
    let own = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let entry = json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-0-1;gids=0-0-1"],
        "uidMappings": own, "gidMappings": own});
    assert_eq!(
        refusal(json!({ "mounts": [entry] }), &v2()),
        format!("{at}: names ids, and so does the mount with uidMappings and gidMappings")
    );
}

#[test]
fn an_idmapped_mount_of_the_containers_own_is_opened_when_its_turn_comes() {
    let change = json!({"mounts": [
        {"destination": "/a", "type": "tmpfs"},
        {"destination": "/b", "type": "bind", "source": "/bundle/rootfs/a", "options": ["rbind", "idmap"]},
        {"destination": "/c", "type": "bind", "source": "/srv", "options": ["rbind", "idmap"]}
    ]});
    let plan = plan(userns(change), &v2());
    let steps = steps(&plan);
    let at = |step: &str| steps.iter().position(|known| known == step).unwrap();
    let asked = at("tell the host: mount source made");
    assert!(at("await the host: cgroup joined") < asked && at("mount tmpfs on /a") < asked);
    assert_eq!(steps[asked + 1], "await the host: slot 1 opened");
    assert_eq!(steps[asked + 2], "bind /bundle/rootfs/a on /b");
    let host = support::host_steps(&plan);
    let asked = host.iter().position(|step| step == "await init: mount source made").unwrap();
    assert_eq!(
        host[asked + 1..asked + 3],
        ["open slot 1 in init's mount namespace", "tell init: mount source made"]
    );
    // What the host has is there from the beginning.
    assert_eq!(host.iter().filter(|step| step.starts_with("open slot")).count(), 1);
}

#[test]
fn an_idmapped_mount_takes_the_namespace_that_is_joined() {
    let change = json!({
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user", "path": "/u"}]},
        "mounts": [{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]
    });
    let plan = plan(change, &v2());
    assert!(plan.slots.iter().any(|slot| matches!(
        slot,
        SlotSource::Tree { idmap: Some(IdMap::NamespaceFile(path)), .. } if path == "/u"
    )));
}

#[test]
fn an_idmap_without_mappings_is_refused() {
    assert_eq!(
        refusal(
            json!({"mounts": [{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]}),
            &v2()
        ),
        "config.json /mounts/0: is to be idmapped, but neither the mount has mappings nor the container a user namespace"
    );
}

#[test]
fn an_owner_that_is_not_mapped_is_refused() {
    let mut change = userns(json!({}));
    change["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1}]);
    assert_eq!(
        refusal(change, &v2()),
        "config.json /mounts/2/options: gid=5 is not mapped into the container's user namespace"
    );
}

#[test]
fn sysfs_of_a_foreign_network_namespace_is_bound() {
    let mut change = userns(json!({"mounts": [{"destination": "/sys", "type": "sysfs", "options": ["ro"]}]}));
    let own = plan(change.clone(), &v2());
    assert!(mounts(&own)[0].or_else.is_none());
    change["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "network");
    let shared = plan(change, &v2());
    let other = mounts(&shared)[0].or_else.clone().unwrap();
    assert!(matches!(other.source, Source::Tree { ref path, recursive: true, .. } if path == "/sys"));
    assert_eq!((other.attributes.set, other.recursive.set), (0, RDONLY), "cgroups of the host are below");
}

#[test]
fn labels_go_to_what_takes_them() {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let host = Host { selinux: true, ..v2() };
    let plan = plan(json!({"linux": {"mountLabel": label}}), &host);
    for mount in mounts(&plan) {
        let Source::New { fstype, options, .. } = &mount.source else { continue };
        let labelled =
            options.iter().any(|option| option.key == "context" && option.value.as_deref() == Some(label));
        let expected = !matches!(fstype.as_str(), "proc" | "sysfs" | "mqueue" | "cgroup2");
        assert_eq!(labelled, expected, "{fstype}");
    }
    assert!(steps(&plan).contains(&"label /dev/mqueue".to_owned()));
    assert!(
        plan.init
            .iter()
            .any(|step| matches!(step, Step::MaskPath { label: Some(given), .. } if given == label))
    );
}

#[test]
fn cgroup_v1_without_a_namespace_is_the_container_s_own_directories() {
    let plan = plan(json!({}), &v1());
    let steps = steps(&plan);
    assert!(steps.contains(&"mount tmpfs on /sys/fs/cgroup".to_owned()));
    assert!(steps.contains(&"bind /sys/fs/cgroup/memory/c1 on /sys/fs/cgroup/memory".to_owned()));
    assert!(steps.contains(&"bind /sys/fs/cgroup/cpu,cpuacct/c1 on /sys/fs/cgroup/cpu,cpuacct".to_owned()));
    assert!(steps.contains(&"link /sys/fs/cgroup/cpuacct to cpu,cpuacct".to_owned()));
    assert!(steps.contains(&"remount /sys/fs/cgroup read-only".to_owned()));
}

#[test]
fn cgroup_v1_with_a_namespace_is_filesystems_of_its_own() {
    let change = json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}]}});
    let plan = plan(change, &v1());
    let steps = steps(&plan);
    let at = steps.iter().position(|step| step == "unshare cgroup").unwrap();
    assert_eq!(steps[at - 1], "await the host: cgroup joined");
    assert_eq!(steps[at + 1], "mount tmpfs on /sys/fs/cgroup");
    let options = |destination: &str| {
        let mount = mounts(&plan).into_iter().find(|mount| mount.destination == destination).unwrap();
        match mount.source {
            Source::New { fstype, options, .. } if fstype == "cgroup" => {
                options.into_iter().map(|option| (option.key, option.value)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        options("/sys/fs/cgroup/cpu,cpuacct"),
        [("cpu".to_owned(), None), ("cpuacct".to_owned(), None)]
    );
    assert_eq!(options("/sys/fs/cgroup/systemd"), [("name".to_owned(), Some("systemd".to_owned()))]);
}

#[test]
fn cgroup_v2_is_mounted_or_bound() {
    let direct = plan(json!({}), &v2());
    let mount = mounts(&direct).into_iter().find(|mount| mount.destination == "/sys/fs/cgroup").unwrap();
    assert!(matches!(mount.source, Source::New { ref fstype, .. } if fstype == "cgroup2"));
    assert!(mount.or_else.is_none());

    let inside = plan(userns(json!({})), &v2());
    let mount = mounts(&inside).into_iter().find(|mount| mount.destination == "/sys/fs/cgroup").unwrap();
    let other = mount.or_else.unwrap();
    assert!(matches!(other.source, Source::Tree { ref path, .. } if path == "/sys/fs/cgroup"));
    assert_eq!(other.attributes.set & RDONLY, RDONLY, "CVE-2023-25809");

    let mut own = userns(json!({}));
    own["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    let own = plan(own, &v2());
    let mount = mounts(&own).into_iter().find(|mount| mount.destination == "/sys/fs/cgroup").unwrap();
    // By its path: systemd makes it only when init is there.
    assert!(
        matches!(mount.or_else.unwrap().source, Source::Bind { ref path, .. } if path == "/sys/fs/cgroup/system.slice/c1")
    );
}

#[test]
fn the_root_s_propagation_is_set_where_it_can_be() {
    let of = |word: &str| {
        let plan = plan(json!({"linux": {"rootfsPropagation": word}}), &v2());
        let head = plan.init.iter().find_map(|step| match step {
            Step::SetHostPropagation(how) => Some(how.to_string()),
            _ => None,
        });
        let tail = plan.init.iter().find_map(|step| match step {
            Step::SetRootPropagation(how) => Some(how.to_string()),
            _ => None,
        });
        let kept =
            plan.init.iter().any(|step| matches!(step, Step::PrepareRoot { keep_propagation: true, .. }));
        (head.unwrap(), tail, kept)
    };
    let text = |word: &str| Some(word.to_owned());
    assert_eq!(of(""), ("rslave".to_owned(), None, false));
    assert_eq!(of("rslave"), ("rslave".to_owned(), None, false));
    assert_eq!(of("private"), ("private".to_owned(), None, true));
    assert_eq!(of("rprivate"), ("rprivate".to_owned(), None, false));
    assert_eq!(of("rshared"), ("rshared".to_owned(), text("rshared"), true));
    assert_eq!(of("runbindable"), ("rslave".to_owned(), text("runbindable"), false));
}

#[test]
fn a_private_root_needs_a_pivot() {
    let options = Options { no_pivot: true, ..support::options() };
    let error =
        support::attempt(json!({"linux": {"rootfsPropagation": "rprivate"}}), &v2(), &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json /linux/rootfsPropagation: rootfsPropagation of [r]private is not safe without pivot_root"
    );
}

#[test]
fn masks_share_with_a_shared_root_and_come_before_an_unbindable_one() {
    for (word, first) in [("rshared", true), ("runbindable", false)] {
        let steps = steps(&plan(json!({"linux": {"rootfsPropagation": word}}), &v2()));
        let at = |what: &str| steps.iter().position(|step| step == what).unwrap();
        let root = at(&format!("make the root mount {word}"));
        assert_eq!(root < at("mask /proc/acpi"), first, "{word}");
        assert_eq!(root < at("make /proc/bus read-only"), first, "{word}");
    }
}

#[test]
fn cgroups_of_v1_are_mounted_when_all_else_is_in_place() {
    let order = |mounts: Value| {
        let plan = plan(json!({"mounts": mounts}), &v1());
        let steps = steps(&plan);
        let at = |text: &str| steps.iter().position(|step| step.contains(text)).unwrap();
        (at("await the host: cgroup joined") < at("/shm"), at("/shm") < at(" on /sys/fs/cgroup"))
    };
    let cgroup = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
    let shm = |destination| json!({"destination": destination, "type": "tmpfs", "source": "shm"});
    assert_eq!(order(json!([cgroup, shm("/dev/shm")])), (false, true));
    // What lies below them, or above, keeps its place.
    assert_eq!(order(json!([cgroup, shm("/sys/fs/cgroup/shm")])), (true, false));
}
