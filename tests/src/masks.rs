//! config-linux.md, "Masked Paths" and "Readonly Paths".

use crate::harness::{T, Test, procs};
use crate::test;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(masked_file_reads_empty),
    test!(masked_directory_is_empty_and_read_only),
    test!(masked_path_that_is_not_there_is_no_error),
    test!(masks_below_a_mask_are_no_error),
    test!(masked_pipes_sockets_and_devices_read_empty),
    test!(a_masked_link_to_nothing_is_no_error),
    test!(masked_paths_stay_masked_for_an_exec),
    test!(a_masked_path_behind_a_link),
    test!(the_default_masks_hide_kernel_files),
    test!(readonly_file_cannot_be_written),
    test!(readonly_directory_cannot_be_written),
    test!(readonly_path_that_is_not_there_is_no_error),
    test!(readonly_paths_keep_what_they_had),
    test!(readonly_proc_sys_cannot_be_written_by_root),
    test!(a_mask_wins_over_a_read_only_path),
    test!(a_mask_hides_a_mount),
    test!(masks_in_a_user_namespace),
    test!(the_masked_file_of_the_host_is_untouched),
];

fn masked_file_reads_empty(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/secret", "/etc/passwd"]}}));
    bundle.write("/secret", "secret");
    let text = t.sh(&bundle, "cat /secret /etc/passwd; test -c /secret && stat -c '%t:%T' /secret");
    assert_eq!(text, "1:3\n");
}

fn masked_directory_is_empty_and_read_only(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/secrets"]}}));
    bundle.write("/secrets/one", "secret");
    let text = t.sh(&bundle, "ls -A /secrets; touch /secrets/x 2>&1; grep ' /secrets ' /proc/self/mountinfo");
    assert!(text.starts_with("touch: /secrets/x: Read-only file system\n"), "{text}");
    let mount = procs::parse_mounts(&text).pop().unwrap();
    assert!(mount.fstype == "tmpfs" && mount.has("ro"), "{mount:?}");
}

fn masked_path_that_is_not_there_is_no_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/nowhere", "/nowhere/below"]}}));
    assert_eq!(t.sh(&bundle, "test -e /nowhere || echo gone"), "gone\n");
}

fn masks_below_a_mask_are_no_error(t: &T) {
    let paths = json!(["/secrets", "/secrets/below", "/secrets/one", "/secrets/below/two"]);
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": paths}}));
    bundle.write("/secrets/one", "secret");
    bundle.write("/secrets/below/two", "secret");
    assert_eq!(t.sh(&bundle, "find /secrets"), "/secrets\n");
}

fn masked_pipes_sockets_and_devices_read_empty(t: &T) {
    let paths = json!(["/pipe", "/socket", "/disk", "/zero"]);
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": paths}}));
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&bundle.file("/pipe"), SFlag::S_IFIFO, mode, 0).unwrap();
    mknod(&bundle.file("/socket"), SFlag::S_IFSOCK, mode, 0).unwrap();
    mknod(&bundle.file("/disk"), SFlag::S_IFBLK, mode, makedev(240, 1)).unwrap();
    mknod(&bundle.file("/zero"), SFlag::S_IFCHR, mode, makedev(1, 5)).unwrap();
    assert_eq!(
        t.sh(&bundle, "for f in /pipe /socket /disk /zero; do cat $f; stat -c %t:%T $f; done"),
        "1:3\n".repeat(4)
    );
}

fn a_masked_link_to_nothing_is_no_error(t: &T) {
    // There is nothing to hide, and nothing is made where the link leads to.
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/link"]}}));
    bundle.link("/link", "../nowhere");
    assert_eq!(t.sh(&bundle, "readlink /link; test -e /nowhere || echo gone"), "../nowhere\ngone\n");
}

fn masked_paths_stay_masked_for_an_exec(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/secret"]}}));
    bundle.write("/secret", "secret");
    let container = t.container(&bundle.args(&["sleep", "1000"]));
    container.launch();
    assert_eq!(container.exec_sh("cat /secret"), "");
    container.force_delete();
}

fn a_masked_path_behind_a_link(t: &T) {
    // What the path leads to inside the container is masked, and nothing of the host's that has the link's name.
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": ["/link"]}}));
    bundle.write("/real/secret", "secret");
    bundle.link("/link", "/real/secret");
    assert_eq!(t.sh(&bundle, "cat /link; cat /real/secret; echo end"), "end\n");
}

fn the_default_masks_hide_kernel_files(t: &T) {
    let text = t.sh(
        &t.bundle(),
        "for f in kcore keys timer_list; do test -e /proc/$f && wc -c < /proc/$f; done; true",
    );
    assert!(!text.is_empty() && text.lines().all(|line| line.trim() == "0"), "{text}");
}

fn readonly_file_cannot_be_written(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"readonlyPaths": ["/etc/passwd"]}}));
    let text = t.sh(&bundle, "echo x 2>&1 >> /etc/passwd; head -c 4 /etc/passwd");
    assert_eq!(text, "sh: can't create /etc/passwd: Read-only file system\nroot");
}

fn readonly_directory_cannot_be_written(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"readonlyPaths": ["/etc"]}}));
    let text =
        t.sh(&bundle, "touch /etc/new 2>&1; rm /etc/passwd 2>&1; cat /etc/hostname 2>/dev/null; ls /etc");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.ends_with("group\npasswd\n"), "{text}");
}

fn readonly_path_that_is_not_there_is_no_error(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"readonlyPaths": ["/nowhere"]}}));
    assert_eq!(t.sh(&bundle, "test -e /nowhere || echo gone"), "gone\n");
}

fn readonly_paths_keep_what_they_had(t: &T) {
    // What is below /dev/shm has its own mount's flags; read-only comes on top.
    let bundle = t.bundle().with(json!({"linux": {"readonlyPaths": ["/dev/shm", "/proc/sys"]}}));
    let mounts = procs::parse_mounts(&t.sh(&bundle, "cat /proc/self/mountinfo"));
    let of = |target: &str| mounts.iter().rfind(|mount| mount.target == target).unwrap();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(of("/dev/shm").has(option), "{option}: {:?}", of("/dev/shm"));
    }
    assert!(of("/proc/sys").has("ro"), "{:?}", of("/proc/sys"));
}

fn readonly_proc_sys_cannot_be_written_by_root(t: &T) {
    let script = "for f in domainname msgmax; do echo 1 2>&1 > /proc/sys/kernel/$f; done; true";
    let text = t.sh(&t.bundle(), script);
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
}

fn a_mask_wins_over_a_read_only_path(t: &T) {
    let paths = json!(["/secret"]);
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": paths, "readonlyPaths": paths}}));
    bundle.write("/secret", "secret");
    assert_eq!(t.sh(&bundle, "cat /secret"), "");
}

fn a_mask_hides_a_mount(t: &T) {
    let mut bundle = t.bundle();
    let file = t.path("file");
    std::fs::write(&file, "secret").unwrap();
    bundle.mount(json!({"destination": "/mounted", "type": "bind", "source": file, "options": ["bind"]}));
    bundle.set(json!({"linux": {"maskedPaths": ["/mounted"]}}));
    assert_eq!(t.sh(&bundle, "cat /mounted"), "");
}

fn masks_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.set(
        json!({"linux": {"maskedPaths": ["/secret", "/secrets"], "readonlyPaths": ["/etc", "/proc/sys"]}}),
    );
    bundle.write("/secret", "secret");
    bundle.write("/secrets/x", "secret");
    let script =
        "cat /secret; ls /secrets; touch /etc/x 2>&1; echo x 2>&1 > /proc/sys/kernel/domainname; true";
    let text = t.sh(&bundle, script);
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(!text.contains("secret\n"), "{text}");
}

fn the_masked_file_of_the_host_is_untouched(t: &T) {
    let mut bundle = t.bundle();
    bundle.set(json!({"linux": {"maskedPaths": ["/secret"]}}));
    let file = bundle.write("/secret", "secret");
    t.sh(&bundle, "cat /secret; echo x > /secret");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "secret");
}
