//! config.md, "Mounts": uidMappings, gidMappings, idmap and ridmap.

use crate::harness::{Bundle, Need, T, Test, procs};
use crate::test;
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

pub const TESTS: &[Test] = &[
    test!(a_mount_with_its_own_mappings).needs(IDMAPS),
    test!(a_mount_with_the_containers_mappings).needs(IDMAPS),
    test!(what_is_written_belongs_to_the_mapped_owner).needs(IDMAPS),
    test!(several_mappings).needs(IDMAPS),
    test!(an_idmapped_file).needs(IDMAPS),
    test!(an_idmapped_mount_with_other_options).needs(IDMAPS),
    test!(the_source_is_as_it_was).needs(IDMAPS),
    test!(own_mappings_in_a_user_namespace).needs(IDMAPS),
    test!(idmap_is_for_the_top_and_ridmap_for_the_tree).needs(IDMAPS),
    test!(many_idmapped_mounts).needs(IDMAPS),
    test!(a_mount_of_the_containers_own).needs(IDMAPS),
    test!(a_mount_of_the_containers_own_that_is_not_there).needs(IDMAPS),
    test!(an_option_names_the_ids).needs(OPTION),
    test!(an_option_names_ids_of_the_container).needs(OPTION),
    test!(an_option_that_names_no_ids_is_refused).needs(OPTION),
    test!(a_file_system_without_idmaps_is_an_error).needs(IDMAPS),
];

const IDMAPS: &[Need] = &[Need::Kernel(5, 12), Need::Runc("1.2", "idmapped mounts")];

const OPTION: &[Need] = &[Need::Kernel(5, 12), Need::Ours("runc reads no mappings in an option")];

fn volume(t: &T) -> PathBuf {
    let dir = t.make_dir("volume");
    for (name, owner) in [("zero", 0), ("five", 5), ("thousand", 1000)] {
        std::fs::write(dir.join(name), name).unwrap();
        chown(dir.join(name), Some(owner), Some(owner)).unwrap();
    }
    dir
}

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

fn mapped(dir: &PathBuf, option: &str, maps: Option<Value>) -> Value {
    let mut mount = json!({"destination": "/v", "type": "bind", "source": dir, "options": ["rbind", option]});
    if let Some(maps) = maps {
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps;
    }
    mount
}

fn owners(t: &T, bundle: &Bundle) -> String {
    t.sh(bundle, "cd /v; stat -c '%n %u %g' zero five thousand")
}

fn a_mount_with_its_own_mappings(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(mapped(&volume(t), "idmap", Some(map(0, 2000, 1001))));
    assert_eq!(owners(t, &bundle), "zero 2000 2000\nfive 2005 2005\nthousand 3000 3000\n");
}

fn a_mount_with_the_containers_mappings(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(mapped(&volume(t), "idmap", None));
    assert_eq!(owners(t, &bundle), "zero 0 0\nfive 5 5\nthousand 1000 1000\n");
}

fn what_is_written_belongs_to_the_mapped_owner(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let dir = volume(t);
    bundle.mount(mapped(&dir, "idmap", None));
    t.sh(&bundle, "echo x > /v/new; mkdir /v/dir");
    assert_eq!(dir.join("new").metadata().unwrap().uid(), 0);
    assert_eq!(dir.join("dir").metadata().unwrap().gid(), 0);
}

fn several_mappings(t: &T) {
    let maps = json!([
        {"containerID": 0, "hostID": 3000, "size": 1}, {"containerID": 5, "hostID": 4000, "size": 1},
        {"containerID": 1000, "hostID": 0, "size": 1}
    ]);
    let mut bundle = t.bundle();
    bundle.mount(mapped(&volume(t), "idmap", Some(maps)));
    assert_eq!(owners(t, &bundle), "zero 3000 3000\nfive 4000 4000\nthousand 0 0\n");
}

fn an_idmapped_file(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(mapped(&volume(t).join("five"), "idmap", Some(map(0, 700, 100))));
    assert_eq!(t.sh(&bundle, "stat -c '%u %g' /v; cat /v"), "705 705\nfive");
}

fn an_idmapped_mount_with_other_options(t: &T) {
    let mut bundle = t.bundle();
    let mut mount = mapped(&volume(t), "idmap", Some(map(0, 2000, 1001)));
    mount["options"] = json!(["rbind", "ro", "nosuid", "idmap", "rprivate"]);
    bundle.mount(mount);
    let text = t.sh(&bundle, "stat -c %u /v/five; touch /v/x 2>&1; cat /proc/self/mountinfo");
    assert!(text.starts_with("2005\ntouch: /v/x: Read-only file system\n"), "{text}");
    let line = procs::parse_mounts(&text).into_iter().find(|mount| mount.target == "/v").unwrap();
    assert!(line.has("ro") && line.has("nosuid") && line.has("idmapped"), "{line:?}");
}

fn the_source_is_as_it_was(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    bundle.mount(mapped(&dir, "idmap", Some(map(0, 2000, 1001))));
    t.sh(&bundle, "true");
    assert_eq!(dir.join("five").metadata().unwrap().uid(), 5);
}

fn own_mappings_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    // On disk 0; on the host 100,007; in the container 7.
    bundle.mount(mapped(&volume(t), "idmap", Some(map(0, 100_007, 1001))));
    assert_eq!(owners(t, &bundle), "zero 7 7\nfive 12 12\nthousand 1007 1007\n");
}

/// A directory of the test's own file system with another directory of it bound below.
fn tree(t: &T) -> PathBuf {
    let dir = volume(t);
    let inner = t.make_dir("inner");
    std::fs::write(inner.join("file"), "").unwrap();
    std::fs::create_dir(dir.join("below")).unwrap();
    t.bind(&inner, &dir.join("below"));
    dir
}

fn idmap_is_for_the_top_and_ridmap_for_the_tree(t: &T) {
    let dir = tree(t);
    for (option, want) in [("idmap", "2000\n0\n"), ("ridmap", "2000\n2000\n")] {
        let mut bundle = t.bundle();
        bundle.mount(mapped(&dir, option, Some(map(0, 2000, 1001))));
        assert_eq!(t.sh(&bundle, "stat -c %u /v/zero /v/below/file"), want, "{option}");
    }
}

fn many_idmapped_mounts(t: &T) {
    let dir = volume(t);
    let mut bundle = t.bundle();
    bundle.user_namespace();
    for number in 0..20 {
        let mut mount = mapped(&dir, "idmap", Some(map(0, 100_000 + number, 1001)));
        mount["destination"] = json!(format!("/m/{number}"));
        bundle.mount(mount);
    }
    let want: String = (0..20).map(|number| format!("{number}\n")).collect();
    assert_eq!(t.sh(&bundle, "for i in $(seq 0 19); do stat -c %u /m/$i/zero; done"), want);
}

/// The same mount again, mapped: only the container's mount namespace has it.
fn own_mount(t: &T, source: &str) -> Bundle {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(json!({"destination": "/mnt", "type": "bind", "source": volume(t), "options": ["rbind"]}));
    let mut again = mapped(&bundle.file(source), "idmap", Some(map(0, 100_000, 1001)));
    bundle.mount(again.clone());
    // And once more, behind one that the host has.
    bundle.mount(
        json!({"destination": "/host", "type": "bind", "source": t.path("volume"), "options": ["rbind"]}),
    );
    again["destination"] = json!("/w");
    bundle.mount(again);
    bundle
}

fn a_mount_of_the_containers_own(t: &T) {
    let bundle = own_mount(t, "/mnt");
    let text = t.sh(&bundle, "for d in /v /w /host; do stat -c '%u %g' $d/five; done");
    assert_eq!(text, "5 5\n5 5\n65534 65534\n");
}

fn a_mount_of_the_containers_own_that_is_not_there(t: &T) {
    let bundle = own_mount(t, "/nowhere");
    let container = t.container(&bundle);
    let message = container.run().fails().message();
    assert!(message.contains("/nowhere: no such file or directory"), "{message}");
    t.nothing_is_left(&container);
}

fn a_file_system_without_idmaps_is_an_error(t: &T) {
    let dir = t.path("proc");
    t.mount("proc", &dir, "proc", MsFlags::empty(), "");
    let mut bundle = t.bundle();
    bundle.mount(mapped(&dir, "idmap", Some(map(0, 2000, 1001))));
    let message = t.refused(&bundle);
    assert!(message.contains("invalid argument") || message.contains("idmap"), "{message}");
}

fn an_option_names_the_ids(t: &T) {
    let mut bundle = t.bundle();
    let option = "idmap=uids=0-2000-1#5-3000-1#1000-0-1;gids=0-4000-1001";
    bundle.mount(mapped(&volume(t), option, None));
    assert_eq!(owners(t, &bundle), "zero 2000 4000\nfive 3000 4005\nthousand 0 5000\n");
}

fn an_option_names_ids_of_the_container(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(mapped(&volume(t), "idmap=uids=@0-7-1#@5-0-1#@1000-70-1;gids=@0-0-1001", None));
    assert_eq!(owners(t, &bundle), "zero 7 0\nfive 0 5\nthousand 70 1000\n");
}

fn an_option_that_names_no_ids_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(mapped(&volume(t), "idmap=uids=@0-0-1;gids=@0-0-1", None));
    let message = t.refused(&bundle);
    assert!(message.contains("/options/1") && message.contains("is not mapped"), "{message}");
}
