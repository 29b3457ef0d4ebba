//! config.md, "Root", and config-linux.md, "Rootfs Mount Propagation".

use crate::harness::{Bundle, Need, T, Test, procs};
use crate::{below, test};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::path::Path;

pub const TESTS: &[Test] = &[
    test!(a_readonly_root_cannot_be_written),
    test!(a_writable_root_can_be_written),
    test!(a_readonly_root_has_writable_mounts),
    test!(only_the_containers_mounts_are_there),
    test!(there_is_nothing_above_the_root),
    test!(there_is_nothing_below_the_root),
    test!(the_rootfs_is_entered_and_no_mount_copied)
        .needs(&[Need::Kernel(7, 0), Need::Ours("nobody else says how")]),
    test!(the_root_is_the_container_s_for_an_exec),
    test!(an_absolute_root_path),
    test!(a_root_path_below_a_link),
    test!(a_bundle_by_a_relative_path),
    test!(a_bundle_that_is_the_working_directory),
    test!(a_root_that_is_not_there_is_refused),
    test!(a_root_that_is_a_file_is_refused),
    test!(a_root_on_a_tmpfs),
    test!(a_root_on_an_overlay),
    test!(a_root_that_is_a_mount_already),
    test!(no_pivot_moves_the_root),
    test!(propagation_is_private),
    test!(propagation_is_private_by_default_beside_a_shared_host),
    test!(propagation_is_slave),
    test!(propagation_is_shared).runc_fails(below!("1.2", "the root of the container stays a slave")),
    test!(propagation_is_unbindable).runc_fails(below!("1.2", "the root of the container stays a slave")),
    test!(a_mount_of_the_host_reaches_a_slave),
    test!(a_mount_of_a_shared_container_reaches_the_host),
    test!(no_mount_of_a_container_reaches_the_host),
    test!(the_host_s_own_propagation_stays),
    test!(root_propagation_with_readonly_root).needs(&[Need::Kernel(5, 12)]),
];

fn a_readonly_root_cannot_be_written(t: &T) {
    let bundle = t.bundle().with(json!({"root": {"readonly": true}}));
    let text = t.sh(&bundle, "touch /x 2>&1; mkdir /tmp/d 2>&1; cat /proc/self/mountinfo");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    let root = procs::parse_mounts(&text).into_iter().find(|mount| mount.target == "/").unwrap();
    assert!(root.has("ro"), "{root:?}");
    assert!(!bundle.file("/x").exists());
}

fn a_writable_root_can_be_written(t: &T) {
    let bundle = t.bundle();
    t.sh(&bundle, "echo text > /x");
    assert_eq!(std::fs::read_to_string(bundle.file("/x")).unwrap(), "text\n");
}

fn a_readonly_root_has_writable_mounts(t: &T) {
    let mut bundle = t.bundle();
    bundle.set(json!({"root": {"readonly": true}}));
    let dir = t.make_dir("volume");
    bundle.mount(
        json!({"destination": "/new/volume", "type": "bind", "source": dir, "options": ["rbind", "rw"]}),
    );
    t.sh(&bundle, "echo text > /new/volume/x; touch /dev/shm/y");
    assert_eq!(std::fs::read_to_string(dir.join("x")).unwrap(), "text\n");
}

fn mounts_in(t: &T, bundle: &Bundle) -> Vec<procs::MountLine> {
    procs::parse_mounts(&t.sh(bundle, "cat /proc/self/mountinfo"))
}

fn only_the_containers_mounts_are_there(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": [], "readonlyPaths": []}}));
    let mut targets: Vec<String> = mounts_in(t, &bundle).into_iter().map(|mount| mount.target).collect();
    targets.retain(|target| !target.starts_with("/sys/fs/cgroup/"));
    targets.sort();
    assert_eq!(
        targets,
        ["/", "/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys", "/sys/fs/cgroup"]
    );
}

fn there_is_nothing_above_the_root(t: &T) {
    let text = t.sh(&t.bundle(), "cd /; cd ..; pwd -P; ls -id / /.. | awk '{print $1}' | uniq | wc -l");
    assert_eq!(text, "/\n1\n");
}

/// Who may unmount may take its root away, and by its own namespace gets at what lay below: where the container's mounts were built on a
/// copy of the host's, or on the machine's first root.
fn there_is_nothing_below_the_root(t: &T) {
    std::fs::write(t.path("secret"), "").unwrap();
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    bundle.add_probe(t);
    let text = t.run(&bundle, &["/bin/probe", "uproot", t.path("secret").to_str().unwrap()]).ok().stdout;
    assert!(
        text.starts_with("taken away\n") && text.contains("nothing") && !text.contains("STOLEN"),
        "{text}"
    );
}

fn the_rootfs_is_entered_and_no_mount_copied(t: &T) {
    let bundle = t.bundle();
    bundle.save();
    let plan = t.call(&["plan", "--bundle", bundle.dir.to_str().unwrap()]).run().ok().stdout;
    assert!(
        plan.contains("enter a mount namespace of rootfs ") && !plan.contains("pivot the root"),
        "{plan}"
    );
}

fn the_root_is_the_container_s_for_an_exec(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let script = "test /proc/1/root/etc/passwd -ef /etc/passwd && readlink /proc/self/root && ls /";
    let text = container.exec_sh(script);
    assert!(text.starts_with("/\nbin\ndev\netc\n"), "{text}");
    container.force_delete();
}

fn an_absolute_root_path(t: &T) {
    let mut bundle = t.bundle();
    let elsewhere = t.path("elsewhere");
    std::fs::rename(bundle.root(), &elsewhere).unwrap();
    bundle.set(json!({"root": {"path": elsewhere}}));
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
}

fn a_root_path_below_a_link(t: &T) {
    let bundle = t.bundle();
    let link = t.path("link");
    std::os::unix::fs::symlink(&bundle.dir, &link).unwrap();
    bundle.clone().script("echo in").save();
    let mut container = t.container(&bundle.script("echo in"));
    container.bundle.dir = link;
    assert_eq!(container.run().ok().stdout, "in\n");
}

fn a_bundle_by_a_relative_path(t: &T) {
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    let call = t.call(&["run", "--bundle", "bundle1", &container.id]).cwd(&t.dir);
    assert_eq!(call.run().ok().stdout, "in\n");
}

fn a_bundle_that_is_the_working_directory(t: &T) {
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    assert_eq!(container.verb(&["run"]).cwd(&container.bundle.dir).run().ok().stdout, "in\n");
}

fn a_root_that_is_not_there_is_refused(t: &T) {
    let bundle = t.bundle().with(json!({"root": {"path": "nowhere"}}));
    let message = t.refused(&bundle);
    assert!(message.contains("nowhere") && message.contains("no such file or directory"), "{message}");
}

fn a_root_that_is_a_file_is_refused(t: &T) {
    let bundle = t.bundle().with(json!({"root": {"path": "rootfs/etc/passwd"}}));
    let message = t.refused(&bundle);
    assert!(message.contains("not a directory"), "{message}");
}

fn a_root_on_a_tmpfs(t: &T) {
    let mut bundle = t.bundle();
    let target = t.path("tmpfs");
    t.mount("tmpfs", &target, "tmpfs", MsFlags::empty(), "");
    crate::harness::bundle::copy_tree(&bundle.root(), &target).unwrap();
    bundle.set(json!({"root": {"path": target, "readonly": true}}));
    let text = t.sh(&bundle, "touch /x 2>&1; echo in");
    assert_eq!(text, "touch: /x: Read-only file system\nin\n");
    // The mount that was bound is not the container's own: it stays writable.
    std::fs::write(target.join("y"), "").unwrap();
}

fn a_root_on_an_overlay(t: &T) {
    let mut bundle = t.bundle();
    let [upper, work] = [t.make_dir("upper"), t.make_dir("work")];
    let lower = bundle.root();
    let data =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let target = t.path("merged");
    t.mount("overlay", &target, "overlay", MsFlags::empty(), &data);
    bundle.set(json!({"root": {"path": target}}));
    assert_eq!(t.sh(&bundle, "echo text > /x; rm /etc/group; ls /etc"), "passwd\n");
    assert_eq!(std::fs::read_to_string(upper.join("x")).unwrap(), "text\n");
    assert!(lower.join("etc/group").exists());
}

fn a_root_that_is_a_mount_already(t: &T) {
    let bundle = t.bundle();
    t.bind(&bundle.root(), &bundle.root());
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
}

fn no_pivot_moves_the_root(t: &T) {
    let bundle = t.bundle().script("ls -id / /.. | awk '{print $1}' | uniq | wc -l");
    let out = t.container(&bundle).make(&["run", "--no-pivot"]).run().ok();
    assert_eq!(out.stdout, "1\n");
}

/// The propagation of the container's `/` when the host's mount of it is shared.
fn propagation_in(t: &T, wanted: Option<&str>) -> String {
    let mut bundle = t.bundle();
    shared(t, &bundle.root());
    bundle.set(json!({"linux": {"rootfsPropagation": wanted}}));
    let root = mounts_in(t, &bundle).into_iter().find(|mount| mount.target == "/").unwrap();
    let kind = root.propagation.split(' ').map(|word| word.split(':').next().unwrap_or_default());
    kind.collect::<Vec<_>>().join(" ")
}

fn shared(t: &T, dir: &Path) {
    t.bind(dir, dir);
    mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
}

fn propagation_is_private(t: &T) {
    assert_eq!(propagation_in(t, Some("private")), "");
    assert_eq!(propagation_in(t, Some("rprivate")), "");
}

fn propagation_is_private_by_default_beside_a_shared_host(t: &T) {
    assert_ne!(propagation_in(t, None), "shared");
}

fn propagation_is_slave(t: &T) {
    // runc makes the mount that the root is bound from private first, which leaves it no master.
    for how in ["slave", "rslave"] {
        let seen = propagation_in(t, Some(how));
        assert!(seen.is_empty() || seen == "master", "{how}: {seen}");
    }
}

fn propagation_is_shared(t: &T) {
    assert!(propagation_in(t, Some("shared")).contains("shared"));
    assert!(propagation_in(t, Some("rshared")).contains("shared"));
}

fn propagation_is_unbindable(t: &T) {
    assert_eq!(propagation_in(t, Some("unbindable")), "unbindable");
}

fn a_mount_of_the_host_reaches_a_slave(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = t.make_dir("volume/sub");
    let volume = dir.parent().unwrap().to_owned();
    shared(t, &volume);
    bundle.set(json!({"linux": {"rootfsPropagation": "rslave"}}));
    for (at, how) in [("/slave", "rslave"), ("/private", "rprivate")] {
        bundle.mount(json!({"destination": at, "type": "bind", "source": volume, "options": ["rbind", how]}));
    }
    let container = t.container(&bundle);
    container.launch();
    t.mount("tmpfs", &dir, "tmpfs", MsFlags::empty(), "");
    std::fs::write(dir.join("late"), "").unwrap();
    assert_eq!(container.exec_sh("ls /slave/sub /private/sub"), "/private/sub:\n\n/slave/sub:\nlate\n");
    container.force_delete();
}

fn a_mount_of_a_shared_container_reaches_the_host(t: &T) {
    let mut bundle =
        t.bundle().script("mount -t tmpfs x /shared/sub && touch /shared/sub/inner && sleep 1000");
    bundle.capabilities(&["CAP_SYS_ADMIN"]).set(json!({"linux": {"rootfsPropagation": "shared"}}));
    let dir = t.make_dir("volume/sub");
    let volume = dir.parent().unwrap().to_owned();
    shared(t, &volume);
    bundle.mount(
        json!({"destination": "/shared", "type": "bind", "source": volume, "options": ["rbind", "rshared"]}),
    );
    let container = t.container(&bundle);
    container.launch();
    let seen = procs::wait_until(t.seconds(5), || dir.join("inner").exists());
    container.force_delete();
    let _ = nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH);
    assert!(seen, "the mount did not arrive");
}

fn no_mount_of_a_container_reaches_the_host(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    shared(t, &bundle.root());
    let before = procs::mounts("/proc/self/mountinfo");
    for propagation in ["private", "rslave", "shared"] {
        let container = t.container(&bundle.with(json!({"linux": {"rootfsPropagation": propagation}})));
        container.launch();
        assert_eq!(procs::mounts("/proc/self/mountinfo"), before, "{propagation}");
        container.force_delete();
    }
    assert_eq!(procs::mounts("/proc/self/mountinfo"), before);
}

fn the_host_s_own_propagation_stays(t: &T) {
    let bundle = t.bundle();
    shared(t, &bundle.root());
    let of = || {
        let mounts = procs::mounts("/proc/self/mountinfo");
        mounts.into_iter().map(|mount| (mount.target, mount.propagation)).collect::<Vec<_>>()
    };
    let before = of();
    t.sh(&bundle, "true");
    assert_eq!(of(), before);
}

fn root_propagation_with_readonly_root(t: &T) {
    let bundle = t.bundle();
    shared(t, &bundle.root());
    let bundle = bundle.with(json!({"root": {"readonly": true}, "linux": {"rootfsPropagation": "rslave"}}));
    let root = mounts_in(t, &bundle).into_iter().find(|mount| mount.target == "/").unwrap();
    assert!(root.has("ro") && !root.propagation.contains("shared"), "{root:?}");
    // Read-only in there alone.
    std::fs::write(bundle.file("/x"), "").unwrap();
}
