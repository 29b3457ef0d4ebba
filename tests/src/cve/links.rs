//! CVE-2019-18837, -19921, 2023-27561, 2025-54867, 2026-41579, 2026-47766: links of the image lead the runtime to the host.

use super::Outside;
use crate::harness::{Bundle, T, Test};
use crate::{always, below, test};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(cve_2019_19921_proc_is_no_link),
    test!(cve_2023_27561_sys_is_no_link),
    test!(cve_2026_41579_dev_is_no_link).runc_fails(below!("1.3.6", "was not fixed yet")),
    test!(cve_2026_41579_dev_below_a_link).runc_fails(below!("1.3.6", "was not fixed yet")),
    test!(cve_2019_18837_destinations_stay_inside),
    test!(cve_2019_18837_destinations_of_files_stay_inside),
    test!(cve_2019_18837_destinations_through_proc_stay_inside),
    test!(a_volume_cannot_cover_the_root).runc_fails(below!("1.3.3", "mounts over the root")),
    test!(masked_and_readonly_paths_stay_inside),
    test!(devices_stay_inside),
    test!(links_of_dev_stay_inside),
    test!(the_working_directory_is_made_inside),
    test!(tmpcopyup_copies_links_as_links),
    test!(tmpcopyup_of_a_link_stays_inside),
    test!(a_pivot_directory_is_no_link),
    test!(the_root_itself_is_a_link).runc_fails(always!("refuses a root that is a link")),
    test!(cgroup_mounts_stay_inside),
];

/// Links that lead to a name of the outside: absolute, relative, by too many `..`.
fn targets(outside: &Outside, bundle: &Bundle, depth: usize, name: &str) -> [String; 3] {
    [
        outside.path(name),
        outside.relative(bundle, depth, name),
        format!("{}{}", "../".repeat(40), outside.path(name).trim_start_matches('/')),
    ]
}

/// Runs it; whatever comes of it, the outside is as it was.
fn run(t: &T, bundle: &Bundle, outside: &Outside, what: &str) -> crate::harness::Out {
    let container = t.container(bundle);
    let out = container.run();
    container.delete_if_there();
    t.nothing_is_left(&container);
    outside.is_untouched(what);
    out
}

fn cve_2019_19921_proc_is_no_link(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle();
    for target in targets(&outside, &bundle, 0, "proc") {
        bundle.link("/proc", &target);
        let out = run(t, &bundle, &outside, &target).fails();
        assert!(out.message().contains("/proc"), "{}", out.message());
    }
    // Also where the target is there, inside.
    bundle.make_dir("/elsewhere");
    bundle.link("/proc", "elsewhere");
    run(t, &bundle, &outside, "elsewhere").fails();
}

fn cve_2023_27561_sys_is_no_link(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    bundle.without_mount("/sys/fs/cgroup");
    for target in targets(&outside, &bundle, 0, "sys") {
        bundle.link("/sys", &target);
        let out = run(t, &bundle, &outside, &target).fails();
        assert!(out.message().contains("/sys"), "{}", out.message());
    }
}

/// Without a mount on /dev: the image's own is used.
fn without_dev(bundle: &mut Bundle) {
    for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(mount);
    }
}

fn cve_2026_41579_dev_is_no_link(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    without_dev(&mut bundle);
    for target in targets(&outside, &bundle, 0, "dev") {
        bundle.link("/dev", &target);
        run(t, &bundle, &outside, &target);
    }
    // With a mount on it: the link leads somewhere inside.
    let bundle = t.bundle();
    for target in targets(&outside, &bundle, 0, "dev") {
        bundle.link("/dev", &target);
        run(t, &bundle, &outside, &target);
    }
}

fn cve_2026_41579_dev_below_a_link(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    without_dev(&mut bundle);
    bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"]}));
    for target in targets(&outside, &bundle, 0, "dev") {
        bundle.link("/dev", &target);
        run(t, &bundle, &outside, &target);
    }
}

fn mount(destination: &str, kind: &str, source: &str) -> Value {
    let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn cve_2019_18837_destinations_stay_inside(t: &T) {
    let outside = Outside::new(t);
    let volume = t.make_dir("volume").to_string_lossy().into_owned();
    let bundle = t.bundle();
    for target in targets(&outside, &bundle, 0, "etc") {
        bundle.link("/link", &target);
        for destination in ["/link", "/link/below", "/link/../below", "/link/new/dir"] {
            for (kind, source) in [("tmpfs", "tmpfs"), ("bind", volume.as_str())] {
                let mut bundle = bundle.script("echo ran");
                bundle.mount(mount(destination, kind, source));
                run(t, &bundle, &outside, &format!("{kind} on {destination} -> {target}"));
            }
        }
    }
}

fn cve_2019_18837_destinations_of_files_stay_inside(t: &T) {
    let outside = Outside::new(t);
    std::fs::write(t.path("file"), "file").unwrap();
    let file = t.path("file").to_string_lossy().into_owned();
    let bundle = t.bundle();
    for name in ["target", "new-file", "etc/passwd", "new/dir/file"] {
        for target in targets(&outside, &bundle, 0, name) {
            bundle.link("/link", &target);
            let mut bundle = bundle.script("echo ran");
            bundle.mount(mount("/link", "bind", &file));
            run(t, &bundle, &outside, &format!("a file on /link -> {target}"));
        }
    }
}

fn cve_2019_18837_destinations_through_proc_stay_inside(t: &T) {
    // Links of /proc lead anywhere at once, out of whatever root: they must not be followed.
    let outside = Outside::new(t);
    let volume = t.make_dir("volume").to_string_lossy().into_owned();
    for target in
        ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/self/fd/3", "/proc/thread-self/root"]
    {
        for below in ["", &outside.path("etc")] {
            let mut bundle = t.bundle().script("echo ran");
            bundle.link("/link", target);
            bundle.mount(mount(&format!("/link{below}"), "bind", &volume));
            run(t, &bundle, &outside, &format!("/link{below} -> {target}"));
            let mut bundle = t.bundle().script("echo ran");
            bundle.mount(mount(&format!("{target}{below}"), "bind", &volume));
            run(t, &bundle, &outside, &format!("{target}{below}"));
        }
    }
}

fn a_volume_cannot_cover_the_root(t: &T) {
    // An exec enters by the topmost mount on the root: it would have the volume for its root, with nothing masked in it.
    let volume = t.make_dir("volume").to_string_lossy().into_owned();
    for target in ["/", ".", "..", "./..", "other"] {
        for (kind, source) in [("tmpfs", "tmpfs"), ("bind", volume.as_str())] {
            let mut bundle = t.bundle().script("echo ran");
            bundle.link("/other", "/");
            bundle.link("/data", target);
            bundle.mount(mount("/data", kind, source));
            let message = t.container(&bundle).run().fails().message();
            assert!(message.contains("is on the top of rootfs"), "{target}: {message}");
        }
    }
    let mut bundle = t.bundle().script("echo ran");
    bundle.mount(mount("/", "bind", &volume));
    let message = t.container(&bundle).run().fails().message();
    assert!(message.contains("is on the top of rootfs"), "{message}");
    // What lies below is the volume's business, as ever.
    let mut bundle = t.bundle().script("echo in > /data/below/file");
    bundle.link("/data", "/");
    bundle.mount(mount("/data/below", "bind", &volume));
    t.container(&bundle).run().ok();
    assert_eq!(std::fs::read_to_string(t.path("volume/file")).unwrap(), "in\n");
}

fn masked_and_readonly_paths_stay_inside(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle();
    for name in ["secret", "etc"] {
        for target in targets(&outside, &bundle, 0, name) {
            bundle.link("/link", &target);
            for list in ["maskedPaths", "readonlyPaths"] {
                let bundle =
                    bundle.with(json!({"linux": {list: ["/link", "/link/passwd"]}})).script("echo ran");
                run(t, &bundle, &outside, &format!("{list} -> {target}"));
            }
        }
    }
}

fn devices_stay_inside(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle();
    for name in ["dev", "null"] {
        for target in targets(&outside, &bundle, 0, name) {
            bundle.link("/link", &target);
            for path in ["/link", "/link/own"] {
                let device =
                    json!([{"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 511, "uid": 7}]);
                let bundle = bundle.with(json!({"linux": {"devices": device}})).script("echo ran");
                run(t, &bundle, &outside, &format!("{path} -> {target}"));
            }
        }
    }
    let mut bundle = bundle.clone();
    bundle.user_namespace();
    for target in targets(&outside, &bundle, 0, "null") {
        bundle.link("/link", &target);
        let device = json!([{"path": "/link", "type": "c", "major": 1, "minor": 3}]);
        run(t, &bundle.with(json!({"linux": {"devices": device}})), &outside, "a bound device");
    }
}

fn links_of_dev_stay_inside(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    without_dev(&mut bundle);
    for (name, target) in [
        ("ptmx", "ptmx"),
        ("null", "null"),
        ("fd", "dev"),
        ("stdin", "target"),
        ("core", "target"),
        ("pts", "pts"),
        ("tty", "target"),
    ] {
        for target in targets(&outside, &bundle, 1, target) {
            bundle.remove("/dev");
            bundle.make_dir("/dev");
            bundle.link(&format!("/dev/{name}"), &target);
            run(t, &bundle, &outside, &format!("/dev/{name} -> {target}"));
        }
    }
}

fn the_working_directory_is_made_inside(t: &T) {
    let outside = Outside::new(t);
    let bundle = t.bundle().with(json!({"process": {"cwd": "/link/new/dir"}}));
    for target in targets(&outside, &bundle, 0, "etc") {
        bundle.link("/link", &target);
        run(t, &bundle, &outside, &target);
    }
}

fn tmpcopyup_copies_links_as_links(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    bundle.write("/data/file", "text");
    bundle.link("/data/secret", &outside.path("secret"));
    bundle.link("/data/dir", &outside.path("etc"));
    bundle
        .mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    let text = t.sh(&bundle, "cd /data; cat file; echo; test -L secret && test -L dir && echo links; cat secret dir/passwd 2>/dev/null; true");
    assert_eq!(text, "text\nlinks\n");
    outside.is_untouched("tmpcopyup");
}

fn tmpcopyup_of_a_link_stays_inside(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle().script("cat /data/passwd 2>/dev/null; cat /data/* 2>/dev/null; true");
    bundle
        .mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    for target in targets(&outside, &bundle, 0, "etc") {
        bundle.link("/data", &target);
        let out = run(t, &bundle, &outside, &target);
        assert!(!out.stdout.contains("secret"), "{out:?}");
    }
}

fn a_pivot_directory_is_no_link(t: &T) {
    // Runtimes that make a directory for the old root have been led astray by one that is there.
    let outside = Outside::new(t);
    let bundle = t.bundle();
    for name in ["/.pivot_root", "/old_root", "/.old", "/put_old"] {
        bundle.link(name, &outside.path("etc"));
    }
    let out = run(t, &bundle.script("ls /"), &outside, "old roots").ok();
    assert!(out.stdout.contains("bin"), "{out:?}");
}

fn the_root_itself_is_a_link(t: &T) {
    // The bundle is the caller's, and may be so; what it leads to is the root.
    let bundle = t.bundle();
    let elsewhere = t.path("elsewhere");
    std::fs::rename(bundle.root(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bundle.root()).unwrap();
    assert_eq!(t.run(&bundle, &["sh", "-c", "echo in > /x; echo in"]).ok().stdout, "in\n");
    assert!(elsewhere.join("x").exists());
}

fn cgroup_mounts_stay_inside(t: &T) {
    let outside = Outside::new(t);
    let mut bundle = t.bundle();
    bundle.without_mount("/sys/fs/cgroup").without_mount("/sys");
    bundle.mount(json!({"destination": "/link", "type": "cgroup", "source": "cgroup", "options": ["ro"]}));
    for target in targets(&outside, &bundle, 0, "sys") {
        bundle.link("/link", &target);
        run(t, &bundle, &outside, &target);
    }
}
