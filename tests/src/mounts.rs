//! config.md, "Mounts": every kind of mount and every option of it.

use crate::harness::{Bundle, Need, T, Test, procs};
use crate::{always, below, test};
use nix::mount::MsFlags;
use procs::MountLine;
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

pub const TESTS: &[Test] = &[
    test!(a_file_is_bound),
    test!(a_directory_is_bound),
    test!(a_bind_shows_the_hosts_changes),
    test!(a_relative_source_is_the_bundles),
    test!(bind_takes_one_mount_and_rbind_the_tree),
    test!(a_source_that_is_not_there_is_an_error),
    test!(private_sources_are_what_they_are_from_inside),
    test!(a_destination_of_another_kind_is_an_error),
    test!(a_destination_is_made),
    test!(a_relative_destination_is_below_the_root),
    test!(a_destination_with_dots),
    test!(a_destination_behind_a_link_stays_inside),
    test!(later_mounts_cover_earlier_ones),
    test!(mounts_beside_one_another),
    test!(a_mount_beside_others_fits_its_place),
    test!(a_mount_below_a_read_only_mount),
    test!(options_of_a_bind_mount),
    test!(options_of_a_tmpfs),
    test!(options_that_take_others_back),
    test!(a_bind_mount_has_its_own_flags_instead_of_its_sources)
        .runc_fails(below!("1.2", "keeps them when only words that clear are given")),
    test!(times_of_access_of_a_source_stay_until_others_are_set),
    test!(a_bind_mount_in_a_user_namespace_keeps_what_it_is_not_told_to_lose)
        .runc_fails(below!("1.2", "remounts without them, which the kernel refuses")),
    test!(defaults_changes_nothing).needs(&[Need::Ours("to runc 1.3 it is an option of the file system")]),
    test!(times_of_access),
    test!(a_mount_that_follows_no_links).needs(&[Need::Kernel(5, 10)]),
    test!(lazytime_and_iversion_are_options_of_the_file_system),
    test!(read_only_alone_is_for_the_top),
    test!(recursive_options_reach_what_is_below)
        .needs(&[Need::Kernel(5, 12)])
        .runc_fails(below!("1.2", "rrw does not take rro back")),
    test!(recursive_times_of_access_reach_what_is_below).needs(&[Need::Kernel(5, 12)]),
    test!(recursive_times_of_access_that_are_taken_away_leave_relatime).needs(&[Need::Kernel(5, 12)]),
    test!(recursive_options_in_a_user_namespace).needs(&[Need::Kernel(5, 12)]),
    test!(propagation_of_a_mount),
    test!(a_tmpfs_has_its_size_and_mode),
    test!(a_tmpfs_has_the_mode_of_what_it_covers),
    test!(a_tmpfs_has_other_options_of_its_own),
    test!(a_read_only_tmpfs),
    test!(tmpcopyup_copies_what_is_covered),
    test!(tmpcopyup_with_read_only),
    test!(a_proc_with_options),
    test!(a_sysfs_is_that_of_the_network),
    test!(a_sysfs_without_a_network_of_its_own_in_a_user_namespace)
        .runc_fails(always!("mounts no sysfs there")),
    test!(a_devpts_has_its_options),
    test!(an_mqueue_is_the_ipc_namespaces),
    test!(an_overlay_can_be_mounted),
    test!(an_unknown_kind_of_file_system_is_an_error),
    test!(an_unknown_option_goes_to_the_file_system),
    test!(cgroup_v1_hierarchies_are_mounted).needs(&[Need::CgroupV1]),
    test!(cgroup_v1_hierarchies_show_the_containers_cgroup_only).needs(&[Need::CgroupV1]),
    test!(cgroup_v1_hierarchies_in_a_cgroup_namespace).needs(&[Need::CgroupV1, Need::Namespace("cgroup")]),
    test!(cgroup_v2_is_mounted).needs(&[Need::CgroupV2]),
    test!(cgroup_v2_in_a_cgroup_namespace).needs(&[Need::CgroupV2]),
    test!(a_read_only_cgroup_mount_cannot_be_written).by_driver(),
    test!(locked_flags_of_the_source_stay_in_a_user_namespace)
        .runc_fails(below!("1.2", "remounts without them, which the kernel refuses")),
    test!(locked_times_of_access_stay_in_a_user_namespace),
    test!(what_the_host_has_read_only_is_not_to_be_written_in_a_user_namespace),
    test!(a_source_that_only_the_host_may_reach_in_a_user_namespace),
    test!(a_source_that_is_a_link_is_copied_as_a_link).needs(CRUNS),
    test!(a_link_is_copied_inside_the_root_only).needs(CRUNS),
    test!(a_link_that_is_there_already_may_read_the_same).needs(CRUNS),
    test!(what_is_no_link_is_bound_all_the_same).needs(CRUNS),
    test!(a_mount_lies_on_a_link_instead_of_where_it_leads).needs(CRUNS),
    test!(a_link_itself_is_bound).needs(CRUNS),
    test!(a_mount_over_a_link_of_procfs_is_refused).needs(CRUNS),
    test!(words_for_whole_trees_reach_the_file_system).needs(CRUNS),
    test!(a_hundred_mounts),
    test!(a_bind_of_the_hosts_proc_file_is_refused),
    test!(a_mount_over_proc_is_refused),
    test!(no_mounts_at_all).runc_fails(always!("its init needs the container's /proc")),
];

/// Options that crun has and runc has not.
const CRUNS: &[Need] = &[Need::Ours("to runc it is an option of the file system")];

fn mounts(t: &T, bundle: &Bundle) -> Vec<MountLine> {
    procs::parse_mounts(&t.sh(bundle, "cat /proc/self/mountinfo"))
}

/// The last mount on a path is what one sees there.
fn at(mounts: &[MountLine], target: &str) -> MountLine {
    let found = mounts.iter().rfind(|mount| mount.target == target);
    found.unwrap_or_else(|| panic!("nothing is mounted on {target}: {mounts:#?}")).clone()
}

fn bind(source: &PathBuf, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn volume(t: &T) -> PathBuf {
    let dir = t.make_dir("volume");
    std::fs::write(dir.join("file"), "text").unwrap();
    dir
}

fn a_file_is_bound(t: &T) {
    let mut bundle = t.bundle();
    let file = volume(t).join("file");
    bundle.mount(bind(&file, "/etc/passwd", &["bind"])).mount(bind(&file, "/new/file", &["rbind"]));
    assert_eq!(t.sh(&bundle, "cat /etc/passwd /new/file"), "texttext");
    let on_host = std::fs::read_to_string(bundle.file("/etc/passwd")).unwrap();
    assert!(on_host.starts_with("root:"), "{on_host}");
}

fn a_directory_is_bound(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&volume(t), "/etc", &["bind"])).mount(bind(&volume(t), "/new/dir", &["rbind"]));
    assert_eq!(t.sh(&bundle, "ls /etc; cat /new/dir/file"), "file\ntext");
}

fn a_bind_shows_the_hosts_changes(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = volume(t);
    bundle.mount(bind(&dir, "/v", &["rbind"]));
    let container = t.container(&bundle);
    container.launch();
    std::fs::write(dir.join("later"), "x").unwrap();
    assert_eq!(container.exec_sh("ls /v; echo back > /v/answer"), "file\nlater\n");
    assert_eq!(std::fs::read_to_string(dir.join("answer")).unwrap(), "back\n");
    container.force_delete();
}

fn a_relative_source_is_the_bundles(t: &T) {
    let mut bundle = t.bundle();
    std::fs::write(bundle.dir.join("file"), "text").unwrap();
    bundle.mount(json!({"destination": "/f", "type": "bind", "source": "file", "options": ["bind"]}));
    assert_eq!(t.sh(&bundle, "cat /f"), "text");
}

/// A tmpfs with another one on `below`, both with a file.
fn tree(t: &T) -> PathBuf {
    let dir = t.path("tree");
    t.mount("tmpfs", &dir, "tmpfs", MsFlags::empty(), "");
    t.mount("tmpfs", &dir.join("below"), "tmpfs", MsFlags::empty(), "");
    std::fs::write(dir.join("below/inner"), "").unwrap();
    dir
}

fn bind_takes_one_mount_and_rbind_the_tree(t: &T) {
    let dir = tree(t);
    let mut bundle = t.bundle();
    bundle.mount(bind(&dir, "/one", &["bind"])).mount(bind(&dir, "/all", &["rbind"]));
    assert_eq!(t.sh(&bundle, "ls /one/below /all/below"), "/all/below:\ninner\n\n/one/below:\n");
}

/// The second and the third are looked for beside the first one, where there may be anything.
fn mounts_beside_one_another(t: &T) {
    let source = |name: &str| {
        let dir = t.make_dir(name);
        std::fs::write(dir.join("file"), name).unwrap();
        dir
    };
    let mut bundle = t.bundle();
    for dir in ["/v/a", "/v/b", "/v/d", "/v/e", "/v/e/below", "/else", "/other/g"] {
        bundle.make_dir(dir);
    }
    bundle.link("/v/c", "../else");
    bundle.link("/way", "v");
    std::fs::write(bundle.file("/v/f"), "").unwrap();
    for (name, place) in [
        ("1", "/v/a"),
        ("2", "/v/b"),
        ("3", "/v/c"),   // a link
        ("4", "/v/b"),   // a mount already
        ("5", "/v/new"), // not there
        ("6", "/v/d"),
        ("7", "/v/e"),
        ("8", "/other/g"), // elsewhere
        ("9", "/v/d/.."),  // the folder itself, with all that is mounted in it
        ("10", "/v/x"),
        ("11", "/v/y"),
    ] {
        bundle.mount(bind(&source(name), place, &["rbind", "rprivate"]));
    }
    bundle.mount(bind(&source("12").join("file"), "/else/f", &["bind", "private"]));
    bundle.mount(bind(&source("13"), "/way/z", &["rbind", "rprivate"]));
    let script = "cat /v/file /v/x/file /v/y/file /v/z/file /else/file /else/f /other/g/file; ls /v";
    assert_eq!(t.sh(&bundle, script), "91011133128file\nx\ny\nz\n");
    for name in ["x", "y", "z"] {
        assert!(t.path("9").join(name).is_dir(), "made in what covers the folder");
    }
}

fn a_mount_beside_others_fits_its_place(t: &T) {
    let mut bundle = t.bundle();
    for dir in ["/v/a", "/v/b", "/v/d"] {
        bundle.make_dir(dir);
    }
    std::fs::write(bundle.file("/v/f"), "").unwrap();
    let dir = volume(t);
    for place in ["/v/a", "/v/b"] {
        bundle.mount(bind(&dir, place, &["rbind", "rprivate"]));
    }
    for (source, place) in [(dir.clone(), "/v/f"), (dir.join("file"), "/v/d")] {
        let mut bundle = bundle.clone();
        bundle.mount(bind(&source, place, &["rbind", "rprivate"]));
        let message = t.refused(&bundle);
        assert!(message.contains("a directory"), "{message}");
    }
}

fn a_source_that_is_not_there_is_an_error(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&t.path("nowhere"), "/v", &["bind"]));
    let message = t.refused(&bundle);
    assert!(message.contains("nowhere") && message.contains("no such file or directory"), "{message}");
}

/// They may be opened before init gets there. What lies in the rootfs, or holds it, is another thing by then.
fn private_sources_are_what_they_are_from_inside(t: &T) {
    let private = &["rbind", "rprivate"];
    let (first, tree) = (volume(t), tree(t));
    let mut bundle = t.bundle();
    std::fs::create_dir_all(bundle.file("/first")).unwrap();
    let link = |name: &str, target: &PathBuf| {
        let link = t.path(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        link
    };
    let by_self = PathBuf::from(format!("/proc/self/root{}", first.display()));
    for (source, destination, options) in [
        (first.clone(), "/first", private as &[&str]),
        (link("to-tree", &tree), "/tree", private),
        (tree.clone(), "/top", &["bind", "private"]),
        (link("to-first", &bundle.file("/first")), "/again", private),
        (bundle.file("/tree"), "/inside", private),
        (by_self, "/self", private),
        (bundle.dir.clone(), "/outer", private),
        (first.join("file"), "/last", &["bind", "ro", "rprivate"]),
    ] {
        bundle.mount(bind(&source, destination, options));
    }
    let text = t.sh(
        &bundle,
        "cat /first/file /again/file /self/file /last; ls /tree/below /inside/below; ls /top/below | wc -l
        ls /outer/*/first /outer/*/tree/below",
    );
    let root = bundle.file("/").file_name().unwrap().to_string_lossy().into_owned();
    let below = "/inside/below:\ninner\n\n/tree/below:\ninner\n";
    let outer = format!("/outer/{root}/first:\nfile\n\n/outer/{root}/tree/below:\ninner\n");
    assert_eq!(text, format!("texttexttexttext{below}0\n{outer}"));
    for line in mounts(t, &bundle) {
        assert!(line.propagation.is_empty() || !line.target.starts_with("/t"), "{line:?}");
    }
    bundle.mount(bind(&t.path("nowhere"), "/v", private));
    let message = t.refused(&bundle);
    assert!(message.contains("nowhere") && message.contains("no such file or directory"), "{message}");
}

fn a_destination_of_another_kind_is_an_error(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    bundle.mount(bind(&dir, "/etc/passwd", &["bind"]));
    let message = t.refused(&bundle);
    assert!(message.contains("not a directory"), "{message}");
    let mut bundle = t.bundle();
    bundle.mount(bind(&dir.join("file"), "/etc", &["bind"]));
    let message = t.refused(&bundle);
    assert!(message.contains("a directory"), "{message}");
}

fn a_destination_is_made(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    bundle.mount(bind(&dir, "/a/b/dir", &["bind"])).mount(bind(&dir.join("file"), "/a/b/file", &["bind"]));
    bundle.mount(json!({"destination": "/a/tmp", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(
        t.sh(&bundle, "stat -c '%F %a' /a /a/b; cat /a/b/dir/file /a/b/file"),
        "directory 755\ndirectory 755\ntexttext"
    );
    assert!(bundle.file("/a/b/file").metadata().unwrap().is_file());
}

fn a_relative_destination_is_below_the_root(t: &T) {
    // A MUST until 1.2 of the specification: both warn and take it.
    let mut bundle = t.bundle();
    bundle.mount(bind(&volume(t), "relative/dir", &["bind"]));
    let bundle = bundle.script("cat /relative/dir/file");
    let out = t.container(&bundle).run().ok();
    assert_eq!(out.stdout, "text");
    let warnings = out.warnings();
    let warned = warnings.iter().any(|line| line.contains("absolute") || line.contains("relative"));
    assert!(warned, "{warnings:?}");
}

fn a_destination_with_dots(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&volume(t), "/a/./b/../../../../c", &["bind"]));
    assert_eq!(t.sh(&bundle, "cat /c/file"), "text");
}

fn a_destination_behind_a_link_stays_inside(t: &T) {
    let mut bundle = t.bundle();
    bundle.make_dir("/data/real");
    bundle.link("/data/link", "/data/real");
    bundle.link("/up", "../../../../../data");
    bundle.mount(bind(&volume(t), "/up/link", &["bind"]));
    assert_eq!(t.sh(&bundle, "cat /data/real/file"), "text");
    assert_eq!(at(&mounts(t, &bundle), "/data/real").target, "/data/real");
}

fn later_mounts_cover_earlier_ones(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    bundle.mount(json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(bind(&dir, "/m/below", &["bind"])).mount(bind(&dir, "/m", &["bind"]));
    assert_eq!(t.sh(&bundle, "ls /m"), "file\n");
}

fn a_mount_below_a_read_only_mount(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    bundle.mount(bind(&dir, "/v", &["bind", "ro"]));
    std::fs::create_dir(dir.join("below")).unwrap();
    bundle.mount(json!({"destination": "/v/below", "type": "tmpfs", "source": "tmpfs"}));
    let text = t.sh(&bundle, "touch /v/x 2>&1; touch /v/below/y && ls /v/below");
    assert_eq!(text, "touch: /v/x: Read-only file system\ny\n");
}

fn options_of_a_bind_mount(t: &T) {
    let dir = volume(t);
    for (option, shows) in [
        ("ro", "ro"),
        ("rw", "rw"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("relatime", "relatime"),
    ] {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["bind", option]));
        let line = at(&mounts(t, &bundle), "/v");
        assert!(line.has(shows), "{option}: {line:?}");
        // The host's own mount is as it was.
        assert!(std::fs::write(dir.join("file"), "text").is_ok(), "{option}");
    }
}

fn options_of_a_tmpfs(t: &T) {
    for (option, shows) in [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
    ] {
        let mut bundle = t.bundle();
        let mount = json!({"destination": "/v", "type": "tmpfs", "source": "own", "options": [option]});
        let line = at(&mounts(t, bundle.mount(mount)), "/v");
        assert!(line.has(shows) && line.fstype == "tmpfs" && line.source == "own", "{option}: {line:?}");
    }
    for (option, shows) in [("sync", "sync"), ("dirsync", "dirsync")] {
        let mut bundle = t.bundle();
        let mount = json!({"destination": "/v", "type": "tmpfs", "source": "own", "options": [option]});
        let line = at(&mounts(t, bundle.mount(mount)), "/v");
        assert!(line.super_has(shows), "{option}: {line:?}");
    }
}

fn options_that_take_others_back(t: &T) {
    // Not below whatever this machine's own filesystem is mounted with.
    let dir = flagged(t, MsFlags::MS_RELATIME);
    for (options, not) in [
        (["ro", "rw"], "ro"),
        (["nosuid", "suid"], "nosuid"),
        (["nodev", "dev"], "nodev"),
        (["noexec", "exec"], "noexec"),
        (["noatime", "atime"], "noatime"),
        (["nodiratime", "diratime"], "nodiratime"),
    ] {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["bind", options[0], options[1]]));
        let line = at(&mounts(t, &bundle), "/v");
        assert!(!line.has(not), "{options:?}: {line:?}");
    }
}

/// A tmpfs whose mount, but not whose superblock, has these flags.
fn flagged(t: &T, flags: MsFlags) -> PathBuf {
    let dir = t.path(&format!("flagged-{}", t.number()));
    t.mount("tmpfs", &dir, "tmpfs", MsFlags::empty(), "");
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    nix::mount::mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
    dir
}

/// The words for the flags of bind mounts of such sources, in the kernel's order.
fn flags_of_binds(t: &T, mut bundle: Bundle, binds: &[(MsFlags, &[&str], &str)]) {
    for (number, (flags, options, _)) in binds.iter().enumerate() {
        bundle.mount(bind(&flagged(t, *flags), &format!("/v{number}"), options));
    }
    let mounts = mounts(t, &bundle);
    for (number, (flags, options, want)) in binds.iter().enumerate() {
        let seen = at(&mounts, &format!("/v{number}")).options;
        assert_eq!(seen, *want, "{flags:?} bound with {options:?}");
    }
}

const NO_SYMFOLLOW: MsFlags = MsFlags::from_bits_retain(256);

const RESTRICTED: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV).union(NO_SYMFOLLOW);

fn a_bind_mount_has_its_own_flags_instead_of_its_sources(t: &T) {
    let binds: &[(MsFlags, &[&str], &str)] = &[
        (RESTRICTED, &["bind"], "ro,nodev,noexec,relatime,nosymfollow"),
        (RESTRICTED, &["bind", "rprivate"], "ro,nodev,noexec,relatime,nosymfollow"),
        (RESTRICTED, &["bind", "dev"], "rw,relatime"),
        (RESTRICTED, &["bind", "symfollow"], "rw,relatime"),
        (RESTRICTED, &["bind", "ro"], "ro,relatime"),
        (RESTRICTED, &["bind", "nosuid", "rw"], "rw,nosuid,relatime"),
        (RESTRICTED, &["bind", "nosymfollow"], "rw,relatime,nosymfollow"),
    ];
    flags_of_binds(t, t.bundle(), binds);
}

fn times_of_access_of_a_source_stay_until_others_are_set(t: &T) {
    let (no, no_dir, strict) = (MsFlags::MS_NOATIME, MsFlags::MS_NODIRATIME, MsFlags::MS_STRICTATIME);
    let binds: &[(MsFlags, &[&str], &str)] = &[
        (no, &["bind", "rw"], "rw,noatime"),
        (no, &["bind", "atime", "suid"], "rw,noatime"),
        (no, &["bind", "norelatime"], "rw,noatime"),
        (no_dir, &["bind", "diratime"], "rw,nodiratime,relatime"),
        (no, &["bind", "relatime"], "rw,relatime"),
        (no, &["bind", "nodiratime"], "rw,nodiratime,relatime"),
        (no_dir, &["bind", "strictatime"], "rw"),
        (no, &["bind", "nodiratime", "strictatime"], "rw,nodiratime"),
        (strict, &["bind", "rw"], "rw"),
    ];
    flags_of_binds(t, t.bundle(), binds);
}

fn a_bind_mount_in_a_user_namespace_keeps_what_it_is_not_told_to_lose(t: &T) {
    let restricted = RESTRICTED | MsFlags::MS_NOATIME;
    let binds: &[(MsFlags, &[&str], &str)] = &[
        (restricted, &["bind"], "ro,nodev,noexec,noatime,nosymfollow"),
        (restricted, &["bind", "suid"], "ro,nodev,noexec,noatime"),
        (restricted, &["bind", "nosuid", "noexec"], "ro,nosuid,nodev,noexec,noatime"),
    ];
    let mut bundle = t.bundle();
    bundle.user_namespace();
    flags_of_binds(t, bundle, binds);
}

fn defaults_changes_nothing(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&volume(t), "/v", &["bind", "nosuid", "defaults"]));
    bundle
        .mount(json!({"destination": "/t", "type": "tmpfs", "source": "own", "options": ["defaults", "ro"]}));
    let lines = mounts(t, &bundle);
    assert!(at(&lines, "/v").has("nosuid") && at(&lines, "/t").has("ro"), "{lines:?}");
}

fn times_of_access(t: &T) {
    for (options, want) in [
        (vec!["strictatime"], [false, false]),
        (vec!["noatime"], [true, false]),
        (vec!["relatime"], [false, true]),
        (vec!["noatime", "strictatime"], [false, false]),
    ] {
        let mut bundle = t.bundle();
        let mount = json!({"destination": "/v", "type": "tmpfs", "source": "own", "options": options});
        let line = at(&mounts(t, bundle.mount(mount)), "/v");
        assert_eq!([line.has("noatime"), line.has("relatime")], want, "{options:?}: {line:?}");
    }
}

fn a_mount_that_follows_no_links(t: &T) {
    let mut bundle = t.bundle();
    let dir = volume(t);
    std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
    bundle.mount(bind(&dir, "/v", &["bind", "nosymfollow"]));
    let text = t.sh(&bundle, "cat /v/link 2>&1; cat /v/file");
    assert!(text.contains("Too many") || text.contains("Symbolic link loop"), "{text}");
}

fn lazytime_and_iversion_are_options_of_the_file_system(t: &T) {
    let mut bundle = t.bundle();
    let options = json!(["lazytime", "noiversion", "silent"]);
    bundle.mount(json!({"destination": "/v", "type": "tmpfs", "source": "own", "options": options}));
    let line = at(&mounts(t, &bundle), "/v");
    assert!(line.super_has("lazytime"), "{line:?}");
}

fn read_only_alone_is_for_the_top(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&tree(t), "/v", &["rbind", "ro"]));
    let lines = mounts(t, &bundle);
    assert!(at(&lines, "/v").has("ro"));
    assert!(at(&lines, "/v/below").has("rw"));
}

fn recursive_options_reach_what_is_below(t: &T) {
    let dir = tree(t);
    for (option, shows) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnodiratime", "nodiratime"),
    ] {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["rbind", option]));
        let lines = mounts(t, &bundle);
        assert!(at(&lines, "/v").has(shows), "{option}: {:?}", at(&lines, "/v"));
        assert!(at(&lines, "/v/below").has(shows), "{option}: {:?}", at(&lines, "/v/below"));
    }
    let mut bundle = t.bundle();
    bundle.mount(bind(&dir, "/v", &["rbind", "ro", "rro", "rrw"]));
    let lines = mounts(t, &bundle);
    assert!(at(&lines, "/v/below").has("rw"), "{:?}", at(&lines, "/v/below"));
    // The host's mounts are as they were.
    std::fs::write(dir.join("below/more"), "").unwrap();
}

fn recursive_times_of_access_reach_what_is_below(t: &T) {
    let dir = tree(t);
    for (option, want) in
        [("rnoatime", [true, false]), ("rrelatime", [false, true]), ("rstrictatime", [false, false])]
    {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["rbind", option]));
        let line = at(&mounts(t, &bundle), "/v/below");
        assert_eq!([line.has("noatime"), line.has("relatime")], want, "{option}: {line:?}");
    }
}

fn recursive_times_of_access_that_are_taken_away_leave_relatime(t: &T) {
    let dir = tree(t);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_STRICTATIME;
    nix::mount::mount(None::<&str>, &dir.join("below"), None::<&str>, flags, None::<&str>).unwrap();
    for (option, want) in [
        ("rsuid", false),
        ("ratime", true),
        ("rnostrictatime", true),
        ("rnorelatime", true),
        ("rrelatime", true),
    ] {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["rbind", option]));
        let line = at(&mounts(t, &bundle), "/v/below");
        assert_eq!([line.has("noatime"), line.has("relatime")], [false, want], "{option}: {line:?}");
    }
}

fn recursive_options_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(bind(&tree(t), "/v", &["rbind", "rro", "rnosuid"]));
    let line = at(&mounts(t, &bundle), "/v/below");
    assert!(line.has("ro") && line.has("nosuid"), "{line:?}");
}

fn propagation_of_a_mount(t: &T) {
    let dir = t.make_dir("shared");
    t.bind(&dir, &dir);
    nix::mount::mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    for (option, want) in [
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master"),
        ("rslave", "master"),
        ("shared", "shared"),
        ("rshared", "shared"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ] {
        let mut bundle = t.bundle();
        bundle.mount(bind(&dir, "/v", &["rbind", option]));
        let line = at(&mounts(t, &bundle), "/v");
        let kinds: Vec<&str> =
            line.propagation.split(' ').map(|word| word.split(':').next().unwrap()).collect();
        // A peer group of the host's may be a master besides.
        let seen = if want == "shared" { kinds[0] } else { &kinds.join(" ") };
        assert_eq!(seen, want, "{option}: {line:?}");
    }
}

fn a_tmpfs_has_its_size_and_mode(t: &T) {
    let mut bundle = t.bundle();
    let options = json!(["nosuid", "mode=1700", "size=128k"]);
    bundle.mount(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options}));
    let text = t.sh(&bundle, "stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'");
    assert_eq!(text, "1700\n128\n");
}

fn a_tmpfs_has_the_mode_of_what_it_covers(t: &T) {
    let mut bundle = t.bundle();
    let dir = bundle.make_dir("/old");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o2751)).unwrap();
    bundle.mount(json!({"destination": "/old", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({"destination": "/new", "type": "tmpfs", "source": "tmpfs"}));
    let text = t.sh(&bundle, "stat -c %a /old /new");
    assert!(text == "2751\n1777\n" || text == "2751\n755\n", "{text}");
}

fn a_tmpfs_has_other_options_of_its_own(t: &T) {
    let mut bundle = t.bundle();
    let options = json!(["nr_inodes=17", "uid=12", "gid=34"]);
    bundle.mount(json!({"destination": "/v", "type": "tmpfs", "source": "tmpfs", "options": options}));
    let lines = mounts(t, &bundle);
    assert!(at(&lines, "/v").super_has("nr_inodes=17"), "{:?}", at(&lines, "/v"));
    assert_eq!(t.sh(&bundle, "stat -c '%u %g' /v"), "12 34\n");
}

fn a_read_only_tmpfs(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/v", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}));
    assert_eq!(t.sh(&bundle, "touch /v/x 2>&1; true"), "touch: /v/x: Read-only file system\n");
}

fn tmpcopyup_copies_what_is_covered(t: &T) {
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
    let file = bundle.write("/data/dir/file", "text");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
    chown(&file, Some(12), Some(34)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
    bundle.link("/data/link", "dir/file");
    let options = json!(["tmpcopyup", "size=1m"]);
    bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options}));
    let script =
        "cd /data; cat dir/file; echo; stat -c '%a %u %g' dir/file; readlink link; echo new > dir/file";
    assert_eq!(t.sh(&bundle, script), "text\n4711 12 34\ndir/file\n");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
    assert_eq!(at(&mounts(t, &bundle), "/data").fstype, "tmpfs");
}

fn tmpcopyup_with_read_only(t: &T) {
    let mut bundle = t.bundle();
    bundle.write("/data/file", "text");
    let options = json!(["tmpcopyup", "ro"]);
    bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options}));
    assert_eq!(
        t.sh(&bundle, "cat /data/file; touch /data/x 2>&1; true"),
        "texttouch: /data/x: Read-only file system\n"
    );
}

fn a_proc_with_options(t: &T) {
    let mut bundle = t.bundle();
    bundle.without_mount("/proc");
    let options = json!(["nosuid", "noexec", "nodev", "hidepid=2"]);
    let mut list =
        vec![json!({"destination": "/proc", "type": "proc", "source": "proc", "options": options})];
    list.append(bundle.list("/mounts"));
    bundle.set(json!({"mounts": list}));
    let line = at(&mounts(t, &bundle), "/proc");
    assert!(line.has("nosuid") && line.has("noexec") && line.has("nodev"), "{line:?}");
    assert!(line.super_has("hidepid=invisible") || line.super_has("hidepid=2"), "{line:?}");
}

fn a_sysfs_is_that_of_the_network(t: &T) {
    assert_eq!(t.sh(&t.bundle(), "cd /sys/class/net; for i in *; do test -L $i && echo $i; done"), "lo\n");
    let text = t.sh(&t.bundle(), "mkdir /sys/x 2>&1; grep ' /sys ' /proc/self/mountinfo");
    assert!(text.contains("Read-only file system"), "{text}");
}

fn a_sysfs_without_a_network_of_its_own_in_a_user_namespace(t: &T) {
    // The kernel mounts no sysfs for who does not own the network: the host's is bound in its place.
    let mut bundle = t.bundle();
    bundle.user_namespace().without_namespace("network").without_mount("/sys/fs/cgroup");
    let text = t.sh(&bundle, "test -d /sys/class && mkdir /sys/x 2>&1; true");
    assert!(text.contains("Read-only file system") || text.contains("ermission denied"), "{text}");
}

fn a_devpts_has_its_options(t: &T) {
    let line = at(&mounts(t, &t.bundle()), "/dev/pts");
    for option in ["gid=5", "mode=620", "ptmxmode=666"] {
        assert!(line.super_has(option), "{option}: {line:?}");
    }
    assert!(line.has("nosuid") && line.has("noexec"), "{line:?}");
}

fn an_mqueue_is_the_ipc_namespaces(t: &T) {
    assert_eq!(t.sh(&t.bundle(), "touch /dev/mqueue/q && ls /dev/mqueue"), "q\n");
    assert_eq!(t.sh(&t.bundle(), "ls /dev/mqueue"), "");
}

fn an_overlay_can_be_mounted(t: &T) {
    let mut bundle = t.bundle();
    let lower = volume(t);
    let (upper, work) = (t.make_dir("upper"), t.make_dir("work"));
    let options = json!([
        format!("lowerdir={}", lower.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display())
    ]);
    bundle.mount(json!({"destination": "/o", "type": "overlay", "source": "overlay", "options": options}));
    assert_eq!(t.sh(&bundle, "cat /o/file; echo new > /o/file; cat /o/file"), "textnew\n");
    assert_eq!(std::fs::read_to_string(lower.join("file")).unwrap(), "text");
    assert_eq!(std::fs::read_to_string(upper.join("file")).unwrap(), "new\n");
}

fn an_unknown_kind_of_file_system_is_an_error(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/v", "type": "nosuchfs", "source": "x"}));
    let message = t.refused(&bundle);
    assert!(
        message.contains("no such device") && (!t.is_ours() || message.contains("nosuchfs")),
        "{message}"
    );
}

fn an_unknown_option_goes_to_the_file_system(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/v", "type": "tmpfs", "source": "x", "options": ["nosuchoption=1"]}));
    let message = t.refused(&bundle);
    assert!(message.contains("invalid argument"), "{message}");
}

fn hierarchies(t: &T) -> Vec<String> {
    let mut names: Vec<String> = t
        .host
        .hierarchies
        .values()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn cgroup_v1_hierarchies_are_mounted(t: &T) {
    let lines = mounts(t, &t.bundle());
    let top = at(&lines, "/sys/fs/cgroup");
    // runc leaves the tmpfs itself writable.
    assert!(top.fstype == "tmpfs" && (top.has("ro") || !t.is_ours()), "{top:?}");
    for name in hierarchies(t) {
        let line = at(&lines, &format!("/sys/fs/cgroup/{name}"));
        assert!(line.fstype == "cgroup" && line.has("ro") && line.has("nosuid"), "{line:?}");
    }
}

fn cgroup_v1_hierarchies_show_the_containers_cgroup_only(t: &T) {
    let mut bundle = t.bundle().script("cat /sys/fs/cgroup/memory/memory.limit_in_bytes");
    bundle.set(json!({"linux": {"resources": {"memory": {"limit": 40_000_000}}}}));
    let limit: u64 = t.container(&bundle).run().ok().stdout.trim().parse().unwrap();
    assert!((39_000_000..=40_000_000).contains(&limit), "{limit}");
}

fn cgroup_v1_hierarchies_in_a_cgroup_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("cgroup", None);
    let lines = mounts(t, &bundle);
    for name in hierarchies(t) {
        let line = at(&lines, &format!("/sys/fs/cgroup/{name}"));
        assert!(line.fstype == "cgroup" && line.root == "/" && line.has("ro"), "{line:?}");
    }
}

fn cgroup_v2_is_mounted(t: &T) {
    let line = at(&mounts(t, &t.bundle()), "/sys/fs/cgroup");
    assert!(line.fstype == "cgroup2" && line.has("ro") && line.has("nosuid"), "{line:?}");
}

fn cgroup_v2_in_a_cgroup_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.namespace("cgroup", None);
    let line = at(&mounts(t, &bundle), "/sys/fs/cgroup");
    assert!(line.fstype == "cgroup2" && line.root == "/", "{line:?}");
    assert_eq!(t.sh(&bundle, "cat /sys/fs/cgroup/cgroup.procs | head -1"), "1\n");
}

fn a_read_only_cgroup_mount_cannot_be_written(t: &T) {
    let dir = if t.host.cgroup_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    let text = t.sh(&t.bundle(), &format!("mkdir {dir}/x 2>&1; true"));
    assert!(text.contains("Read-only file system"), "{text}");
}

fn locked_flags_of_the_source_stay_in_a_user_namespace(t: &T) {
    // Without the flags that a source is mounted with, a remount in a user namespace fails with EPERM.
    let dir = t.path("locked");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    t.mount("tmpfs", &dir, "tmpfs", flags, "");
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(bind(&dir, "/v", &["rbind", "ro"]));
    let line = at(&mounts(t, &bundle), "/v");
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(line.has(option), "{option}: {line:?}");
    }
}

fn locked_times_of_access_stay_in_a_user_namespace(t: &T) {
    let (no, strict) = (MsFlags::MS_NOATIME, MsFlags::MS_STRICTATIME);
    let (no_dir, relative) = (MsFlags::MS_NODIRATIME, MsFlags::MS_RELATIME);
    let user_namespace = || {
        let mut bundle = t.bundle();
        bundle.user_namespace();
        bundle
    };
    for (flags, option) in [
        (strict, "relatime"),
        (strict, "noatime"),
        (strict, "nodiratime"),
        (relative, "strictatime"),
        (relative, "noatime"),
        (no, "relatime"),
        (no, "strictatime"),
        (no_dir, "strictatime"),
    ] {
        let mut bundle = user_namespace();
        bundle.mount(bind(&flagged(t, flags), "/v", &["bind", option]));
        let message = t.refused(&bundle);
        assert!(message.contains("operation not permitted"), "{flags:?} bound with {option}: {message}");
    }
    let binds: &[(MsFlags, &[&str], &str)] = &[
        (strict, &["bind", "ro"], "ro"),
        (strict.union(no_dir), &["bind", "ro"], "ro,nodiratime"),
        (no_dir, &["bind", "ro"], "ro,nodiratime,relatime"),
    ];
    flags_of_binds(t, user_namespace(), binds);
}

fn what_the_host_has_read_only_is_not_to_be_written_in_a_user_namespace(t: &T) {
    let dir = volume(t);
    t.bind(&dir, &dir);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    nix::mount::mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.capabilities(&["CAP_SYS_ADMIN"]).mount(bind(&dir, "/v", &["rbind"]));
    let script =
        "for o in rw ro,suid; do mount -o remount,bind,$o /v 2>&1 && echo $o; done; touch /v/new; ls /v";
    let out = t.sh(&bundle, script);
    assert!(out.ends_with("file\n") && out.matches("ermi").count() == 2, "{out}");
}

fn a_source_that_only_the_host_may_reach_in_a_user_namespace(t: &T) {
    let dir = t.make_dir("closed/volume");
    std::fs::write(dir.join("file"), "text").unwrap();
    std::fs::set_permissions(dir.parent().unwrap(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.mount(bind(&dir, "/v", &["bind"])).mount(bind(&dir.join("file"), "/etc/passwd", &["bind", "ro"]));
    assert_eq!(t.sh(&bundle, "cat /v/file /etc/passwd"), "texttext");
}

/// A bundle without and one with a user namespace: init finds the link in the first, the host's side in the second.
fn both(t: &T) -> [Bundle; 2] {
    let mut inside = t.bundle();
    inside.user_namespace();
    [t.bundle(), inside]
}

fn link(t: &T, name: &str, text: &str) -> PathBuf {
    let path = t.path(name);
    let _ = std::fs::remove_file(&path);
    std::os::unix::fs::symlink(text, &path).unwrap();
    path
}

fn a_source_that_is_a_link_is_copied_as_a_link(t: &T) {
    // It need not lead anywhere on the host.
    for mut bundle in both(t) {
        bundle.mount(bind(
            &link(t, "link", "../usr/share/zone"),
            "/new/localtime",
            &["bind", "copy-symlink", "ro"],
        ));
        let text = t.sh(&bundle, "readlink /new/localtime; grep -c localtime /proc/self/mountinfo || true");
        assert_eq!(text, "../usr/share/zone\n0\n");
    }
}

fn a_link_is_copied_inside_the_root_only(t: &T) {
    for mut bundle in both(t) {
        let outside = t.make_dir("outside");
        bundle.link("/way", outside.to_str().unwrap());
        bundle.mount(bind(&link(t, "link", "text"), "/way/here", &["bind", "copy-symlink"]));
        assert_eq!(t.sh(&bundle, &format!("readlink {}/here", outside.display())), "text\n");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}

fn a_link_that_is_there_already_may_read_the_same(t: &T) {
    let source = link(t, "link", "text");
    let mut bundle = t.bundle();
    bundle.link("/same", "text");
    bundle.mount(bind(&source, "/same", &["bind", "copy-symlink"]));
    assert_eq!(t.sh(&bundle, "readlink /same"), "text\n");
    for other in ["/other", "/file"] {
        let mut bundle = t.bundle();
        bundle.link("/other", "elsewhere");
        bundle.write("/file", "mine");
        bundle.mount(bind(&source, other, &["bind", "copy-symlink"]));
        let message = t.refused(&bundle);
        assert!(message.contains(other) && message.contains("file exists"), "{message}");
        assert_eq!(std::fs::read_to_string(bundle.file("/file")).unwrap(), "mine");
    }
}

fn what_is_no_link_is_bound_all_the_same(t: &T) {
    let dir = volume(t);
    for mut bundle in both(t) {
        bundle.mount(bind(&dir, "/dir", &["rbind", "copy-symlink", "ro"]));
        bundle.mount(bind(&dir.join("file"), "/one", &["bind", "copy-symlink"]));
        bundle.mount(bind(&dir.join("file"), "/two", &["bind", "src-nofollow", "dest-nofollow"]));
        let text = t.sh(&bundle, "cat /dir/file /one /two; touch /dir/x 2>&1 || true");
        assert_eq!(text, "texttexttexttouch: /dir/x: Read-only file system\n");
    }
}

fn a_mount_lies_on_a_link_instead_of_where_it_leads(t: &T) {
    for mut bundle in both(t) {
        bundle.write("/real", "real");
        bundle.link("/link", "real");
        bundle.mount(bind(&volume(t).join("file"), "/link", &["bind", "dest-nofollow"]));
        let text = t.sh(&bundle, "cat /link; echo; cat /real; echo; [ -L /link ] && echo link || echo none");
        assert_eq!(text, "text\nreal\nnone\n");
        // Links on the way are followed, inside; what is not there is made.
        bundle.link("/way", "/etc");
        bundle.mount(bind(&volume(t).join("file"), "/way/new", &["bind", "dest-nofollow"]));
        assert_eq!(t.sh(&bundle, "cat /etc/new"), "text");
    }
}

fn a_link_itself_is_bound(t: &T) {
    for mut bundle in both(t) {
        bundle.write("/real", "real");
        bundle.link("/link", "real");
        let source = link(t, "source", "/etc/passwd");
        bundle.mount(bind(&source, "/link", &["bind", "src-nofollow", "dest-nofollow"]));
        bundle.mount(bind(&source, "/new/file", &["bind", "src-nofollow"]));
        let text = t.sh(&bundle, "readlink /link; readlink /new/file; head -c 5 /link; cat /real");
        assert_eq!(text, "/etc/passwd\n/etc/passwd\nroot:real");
    }
}

fn a_mount_over_a_link_of_procfs_is_refused(t: &T) {
    // Not by the path, which config.json is refused for, but by a link on the way.
    let mut bundle = t.bundle();
    bundle.link("/way", "proc");
    bundle.mount(bind(&volume(t).join("file"), "/way/mounts", &["bind", "dest-nofollow"]));
    let message = t.refused(&bundle);
    assert!(message.contains("/way/mounts"), "{message}");
}

fn words_for_whole_trees_reach_the_file_system(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(
        json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["rsync", "rdirsync"]}),
    );
    let found = at(&mounts(t, &bundle), "/t");
    assert!(found.super_has("sync") && found.super_has("dirsync"), "{found:?}");
}

fn a_hundred_mounts(t: &T) {
    let dir = volume(t);
    for user_namespace in [false, true] {
        let mut bundle = t.bundle();
        if user_namespace {
            bundle.user_namespace();
        }
        for number in 0..100 {
            bundle.mount(bind(&dir, &format!("/many/{number}"), &["rbind", "ro", "rprivate"]));
        }
        assert_eq!(
            t.sh(&bundle, "cat /many/*/file | wc -c; grep -c ' /many/' /proc/self/mountinfo"),
            "400\n100\n"
        );
    }
}

fn a_bind_of_the_hosts_proc_file_is_refused(t: &T) {
    // Over files of /proc only lxcfs's few are let through.
    let mut bundle = t.bundle();
    let file = volume(t).join("file");
    bundle.mount(bind(&file, "/proc/meminfo", &["bind"]));
    assert_eq!(t.sh(&bundle, "cat /proc/meminfo"), "text");
    let mut bundle = t.bundle();
    bundle.mount(bind(&file, "/proc/self/attr/exec", &["bind"]));
    let message = t.refused(&bundle);
    assert!(message.contains("inside /proc"), "{message}");
}

fn a_mount_over_proc_is_refused(t: &T) {
    let mut bundle = t.bundle();
    bundle.mount(bind(&volume(t), "/proc", &["bind"]));
    let message = t.refused(&bundle);
    assert!(message.contains("/proc"), "{message}");
    let mut bundle = t.bundle();
    bundle.mount(json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}));
    let message = t.refused(&bundle);
    assert!(message.contains("/proc"), "{message}");
}

fn no_mounts_at_all(t: &T) {
    let bundle = t.bundle().with(json!({"mounts": []}));
    assert_eq!(t.sh(&bundle, "echo in; ls /proc | wc -l"), "in\n0\n");
}
