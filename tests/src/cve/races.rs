//! CVE-2021-30465 and CVE-2024-45310: directories become links between the look and the deed.

use super::Outside;
use crate::harness::{T, Test};
use crate::{below, test};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    test!(cve_2021_30465_a_destination_is_swapped)
        .seconds(180)
        .runc_fails(below!("1.1.14", "makes the directories of a destination outside: CVE-2024-45310")),
    test!(cve_2024_45310_a_directory_above_is_swapped)
        .seconds(180)
        .runc_fails(below!("1.1.14", "was not fixed yet")),
    test!(cve_2024_45310_a_file_s_directory_is_swapped)
        .seconds(180)
        .runc_fails(below!("1.1.14", "was not fixed yet")),
    test!(cve_2019_19921_proc_is_swapped).seconds(180),
    test!(a_device_s_directory_is_swapped)
        .seconds(180)
        .runc_fails(below!("1.3.6", "makes the device on the host")),
    test!(a_working_directory_s_parent_is_swapped).seconds(180),
];

/// Swaps two paths with each other, as often as it can, while something is done.
pub fn while_swapping(one: &Path, other: &Path, deed: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).expect("renameat2");
                std::thread::yield_now();
            }
        });
        deed();
        over.store(true, Ordering::Relaxed);
    });
}

/// Creates containers with a change of the config while `/volume/dir` is now a directory and now a link to the outside.
fn swapped(t: &T, change: impl Fn(&mut crate::harness::Bundle)) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    let volume = t.make_dir("volume");
    for name in ["dir/dir", "dir/other"] {
        std::fs::create_dir_all(volume.join(name)).unwrap();
    }
    let link = volume.join("link");
    let target = format!("{}{}", "../".repeat(40), outside.path("etc").trim_start_matches('/'));
    std::os::unix::fs::symlink(target, &link).unwrap();
    bundle.mount(json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}));
    change(&mut bundle);
    let bundle = bundle.script("true");
    while_swapping(&volume.join("dir"), &link, || {
        for round in 0..t.rounds(60) {
            let container = t.container(&bundle);
            container.run();
            container.delete_if_there();
            outside.is_untouched(&format!("round {round}"));
        }
    });
    outside.is_untouched("the last round");
}

fn cve_2021_30465_a_destination_is_swapped(t: &T) {
    swapped(t, |bundle| {
        bundle.mount(json!({"destination": "/volume/dir", "type": "tmpfs", "source": "tmpfs"}));
        bundle.mount(json!({"destination": "/volume/dir/dir", "type": "tmpfs", "source": "tmpfs"}));
    });
}

fn cve_2024_45310_a_directory_above_is_swapped(t: &T) {
    swapped(t, |bundle| {
        for number in 0..8 {
            let destination = format!("/volume/dir/new{number}/a/b");
            bundle.mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        }
    });
}

fn cve_2024_45310_a_file_s_directory_is_swapped(t: &T) {
    let file = t.path("file");
    std::fs::write(&file, "file").unwrap();
    swapped(t, |bundle| {
        for number in 0..8 {
            let destination = format!("/volume/dir/new{number}/file");
            bundle.mount(
                json!({"destination": destination, "type": "bind", "source": file, "options": ["bind"]}),
            );
        }
    });
}

fn cve_2019_19921_proc_is_swapped(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle().script("true");
    let link = bundle.link("/other", &outside.path("proc"));
    while_swapping(&bundle.file("/proc"), &link, || {
        for round in 0..t.rounds(60) {
            let container = t.container(&bundle);
            container.run();
            container.delete_if_there();
            outside.is_untouched(&format!("round {round}"));
        }
    });
}

fn a_device_s_directory_is_swapped(t: &T) {
    swapped(t, |bundle| {
        for number in 0..8 {
            let path = format!("/volume/dir/device{number}");
            bundle.list("/linux/devices").push(json!({"path": path, "type": "c", "major": 1, "minor": 3}));
        }
    });
}

fn a_working_directory_s_parent_is_swapped(t: &T) {
    swapped(t, |bundle| {
        bundle.set(json!({"process": {"cwd": "/volume/dir/new/a/b/c"}}));
    });
}
