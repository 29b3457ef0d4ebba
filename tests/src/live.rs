//! Mounts of a container that runs (`mounts add` and `mounts remove`): crun's, which neither runc nor the runtime-spec has.

use crate::harness::{Bundle, Container, Need, Out, T, Test};
use crate::test;
use nix::mount::MsFlags;
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    test!(a_bind_mount_is_added_and_removed).needs(LIVE),
    test!(a_tmpfs_is_added_with_its_options).needs(LIVE),
    test!(mounts_are_added_in_a_user_namespace).needs(LIVE),
    test!(what_the_host_has_read_only_is_not_to_be_written_in_a_user_namespace).needs(LIVE),
    test!(a_link_of_the_container_does_not_lead_out).needs(LIVE),
    test!(a_source_is_the_hosts).needs(LIVE),
    test!(all_are_added_or_none).needs(LIVE),
    test!(what_is_no_mount_cannot_be_removed).needs(LIVE),
    test!(what_only_a_creation_can_mount_is_refused).needs(LIVE),
    test!(a_stopped_container_has_no_mounts).needs(LIVE),
];

const LIVE: &[Need] = &[Need::Ours("runc has no such verb")];

fn mounts(t: &T, verb: &str, container: &Container, list: Value) -> Out {
    t.call(&["mounts", verb, &container.id, "-"]).input(&list.to_string()).run()
}

fn running<'t>(t: &'t T, bundle: &Bundle) -> Container<'t> {
    let container = t.container(&bundle.clone().args(&["sleep", "1000"]));
    container.launch();
    container
}

fn a_bind_mount_is_added_and_removed(t: &T) {
    let container = running(t, &t.bundle());
    let dir = t.make_dir("source");
    std::fs::write(dir.join("file"), "there\n").unwrap();
    let list =
        json!([{"destination": "/new/place", "type": "bind", "source": dir, "options": ["rbind", "ro"]}]);
    mounts(t, "add", &container, list.clone()).ok();
    let text = container.exec_sh("cat /new/place/file; touch /new/place/x 2>&1 || true");
    assert_eq!(text, "there\ntouch: /new/place/x: Read-only file system\n");
    mounts(t, "remove", &container, list).ok();
    assert_eq!(container.exec_sh("ls /new/place; grep -c /new/place /proc/self/mounts || true"), "0\n");
    container.force_delete();
}

fn a_tmpfs_is_added_with_its_options(t: &T) {
    let container = running(t, &t.bundle());
    let one = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=64k", "mode=700"]});
    mounts(t, "add", &container, json!({ "mounts": [one] })).ok();
    let text = container.exec_sh("grep ' /t ' /proc/self/mounts; stat -c %a /t");
    assert!(text.contains("noexec") && text.contains("size=64k") && text.ends_with("700\n"), "{text}");
    let one =
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"]});
    mounts(t, "add", &container, json!([one])).ok();
    let text = container.exec_sh("grep -c root /etc/passwd; touch /etc/x 2>&1 || true");
    assert_eq!(text, "1\ntouch: /etc/x: Read-only file system\n");
    container.force_delete();
}

fn mounts_are_added_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let container = running(t, &bundle);
    let file = t.path("file");
    std::fs::write(&file, "bound\n").unwrap();
    let list = json!([
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/t/file", "type": "bind", "source": file, "options": ["bind"]}
    ]);
    mounts(t, "add", &container, list).ok();
    assert_eq!(
        container.exec_sh("stat -c %u /t; touch /t/mine; stat -c %u /t/mine; cat /t/file"),
        "0\n0\nbound\n"
    );
    container.force_delete();
}

fn what_the_host_has_read_only_is_not_to_be_written_in_a_user_namespace(t: &T) {
    let dir = t.make_dir("volume");
    for below in [dir.clone(), dir.join("below")] {
        t.mount("tmpfs", &below, "tmpfs", MsFlags::empty(), "");
        std::fs::create_dir(below.join("below")).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        nix::mount::mount(None::<&str>, &below, None::<&str>, flags, None::<&str>).unwrap();
    }
    let mut bundle = t.bundle();
    bundle.user_namespace();
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    let container = running(t, &bundle);
    let list = json!([{"destination": "/v", "type": "bind", "source": dir, "options": ["rbind"]}]);
    let alone = json!([{"destination": "/v", "type": "bind", "source": dir, "options": ["bind"]}]);
    mounts(t, "add", &container, alone)
        .fails()
        .says("a user namespace may not see what they hide; rbind takes");
    mounts(t, "add", &container, list.clone()).ok();
    let script = "for o in rw ro,suid; do for v in /v /v/below; do mount -o remount,bind,$o $v 2>&1 && echo $o; done; done;
        umount /v/below 2>&1 && echo uncovered; touch /v/new /v/below/new; ls /v /v/below";
    let out = container.exec_sh(script);
    assert!(out.ends_with("/v:\nbelow\n\n/v/below:\nbelow\n"), "{out}");
    assert_eq!(out.matches("ermi").count(), 4, "{out}");
    assert!(!out.contains("uncovered"), "{out}");
    mounts(t, "remove", &container, list).ok();
    assert_eq!(container.exec_sh("ls /v; grep -c ' /v' /proc/self/mounts || true"), "0\n");
    container.force_delete();
}

fn a_link_of_the_container_does_not_lead_out(t: &T) {
    let bundle = t.bundle();
    let outside = t.make_dir("outside");
    bundle.make_dir(&outside.to_string_lossy());
    bundle.link("/link", &format!("../../../../../../../..{}", outside.display()));
    let container = running(t, &bundle);
    let one = json!({"destination": "/link/below", "type": "tmpfs", "source": "tmpfs"});
    mounts(t, "add", &container, json!([one])).ok();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(container.exec_sh("cat /proc/self/mounts").contains(&format!(" {}/below ", outside.display())));
    container.force_delete();
}

fn a_source_is_the_hosts(t: &T) {
    let bundle = t.bundle();
    let dir = t.make_dir("both");
    std::fs::write(dir.join("whose"), "host\n").unwrap();
    bundle.write(&format!("{}/whose", dir.display()), "container\n");
    let container = running(t, &bundle);
    let one = json!({"destination": "/v", "type": "bind", "source": dir, "options": ["bind"]});
    mounts(t, "add", &container, json!([one])).ok();
    assert_eq!(container.exec_sh("cat /v/whose"), "host\n");
    container.force_delete();
}

fn all_are_added_or_none(t: &T) {
    let container = running(t, &t.bundle());
    let list = json!([
        {"destination": "/one", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/two", "type": "nofs", "source": "none"}
    ]);
    let message = mounts(t, "add", &container, list).fails().message();
    assert!(message.contains("mount nofs on /two") && message.contains("no such device"), "{message}");
    assert_eq!(container.exec_sh("grep -c /one /proc/self/mounts || true"), "0\n");
    container.force_delete();
}

fn what_is_no_mount_cannot_be_removed(t: &T) {
    let container = running(t, &t.bundle());
    let message = mounts(t, "remove", &container, json!([{"destination": "/bin"}])).fails().message();
    assert!(message.contains("unmount /bin: umount2: invalid argument"), "{message}");
    let message = mounts(t, "remove", &container, json!([{"destination": "/.."}])).fails().message();
    assert_eq!(message, "config.json /mounts/0/destination: \"/..\" is no mount that can be removed");
    container.force_delete();
}

fn what_only_a_creation_can_mount_is_refused(t: &T) {
    let container = running(t, &t.bundle());
    let message = |mount: Value| mounts(t, "add", &container, json!([mount])).fails().message();
    assert_eq!(
        message(json!({"destination": "/p", "type": "proc", "source": "proc"})),
        "config.json /mounts/0/type: \"proc\" cannot be mounted in a running container"
    );
    assert_eq!(
        message(json!({"destination": "/", "type": "tmpfs", "source": "tmpfs"})),
        "config.json /mounts/0/destination: mountpoint \"/\" is on the top of rootfs"
    );
    assert_eq!(
        message(json!({"destination": "/", "options": ["remount", "ro"]})),
        "config.json /mounts/0/destination: the root mount of a running container stays as it is"
    );
    assert_eq!(
        message(json!({"destination": "/p", "type": "bind", "source": "here", "options": ["bind"]})),
        "config.json /mounts/0/source: \"here\" is no absolute path"
    );
    let nowhere = json!({"destination": "/p", "type": "bind", "source": "/nowhere", "options": ["bind"]});
    assert!(message(nowhere).contains("no such file or directory"));
    container.force_delete();
}

fn a_stopped_container_has_no_mounts(t: &T) {
    let container = t.container(&t.bundle());
    container.launch();
    container.await_stop();
    mounts(t, "add", &container, json!([])).fails().says("container not running");
    container.delete().ok();
}
