//! config.md, "User".

use crate::harness::{Need, T, Test};
use crate::test;
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(ids_are_the_configs),
    test!(groups_are_the_configs_and_no_others),
    test!(there_are_no_groups_without_any),
    test!(groups_do_not_come_from_the_image),
    test!(a_user_owns_its_output),
    test!(the_largest_ids),
    test!(an_exec_has_the_configs_user),
    test!(an_exec_may_be_another_user),
    test!(an_exec_may_have_more_groups),
    test!(groups_of_the_caller_are_kept_where_an_annotation_says_so).needs(KEEPS),
    test!(groups_of_the_caller_are_kept_in_a_user_namespace).needs(KEEPS),
];

const KEEPS: &[Need] = &[Need::Ours("the annotation is crun's"), Need::File("/usr/bin/setpriv")];

fn ids_are_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 1234, "gid": 5678}}}));
    let seen = t.see(&bundle);
    assert_eq!(seen["status"]["Uid"], "1234 1234 1234 1234");
    assert_eq!(seen["status"]["Gid"], "5678 5678 5678 5678");
}

fn groups_are_the_configs_and_no_others(t: &T) {
    let user = json!({"uid": 0, "gid": 0, "additionalGids": [20, 5, 4_000_000]});
    let bundle = t.bundle().with(json!({"process": {"user": user}}));
    assert_eq!(t.see(&bundle)["status"]["Groups"], "5 20 4000000");
}

fn there_are_no_groups_without_any(t: &T) {
    assert_eq!(t.see(&t.bundle())["status"]["Groups"], "");
}

fn groups_do_not_come_from_the_image(t: &T) {
    // /etc/group of the image has the user in "audio".
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(t.see(&bundle)["status"]["Groups"], "");
}

fn a_user_owns_its_output(t: &T) {
    // runc gives the process's stdio to its user, so that /dev/stdout can be opened again.
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    let mut bundle = bundle.script("echo again > /dev/stdout; echo once");
    bundle.set(json!({"process": {"noNewPrivileges": true}}));
    let container = t.container(&bundle);
    let (reader, writer) = std::io::pipe().unwrap();
    let running = container.make(&["run"]).spawn_with(writer.try_clone().unwrap(), writer);
    running.wait().ok();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut { reader }, &mut text).unwrap();
    assert_eq!(text, "again\nonce\n");
}

fn the_largest_ids(t: &T) {
    let user = json!({"uid": 2_147_483_647u32, "gid": 2_147_483_647u32});
    let bundle = t.bundle().with(json!({"process": {"user": user}}));
    let seen = t.see(&bundle);
    assert_eq!(seen["status"]["Uid"], "2147483647 2147483647 2147483647 2147483647");
    assert_eq!(seen["status"]["Gid"], "2147483647 2147483647 2147483647 2147483647");
}

fn an_exec_has_the_configs_user(t: &T) {
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    let bundle = t.bundle().with(json!({"process": {"user": user, "args": ["sleep", "1000"]}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("id -u; id -g; id -G"), "7\n8\n8 9\n");
    container.force_delete();
}

fn an_exec_may_be_another_user(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let id = |user: &str| {
        container.exec_with(&["--user", user], &["sh", "-c", "id -u; id -g; echo $HOME"]).run().ok().stdout
    };
    assert_eq!(id("1000:1001"), "1000\n1001\n/home\n");
    assert_eq!(id("77:88"), "77\n88\n/\n");
    // Without a group: group 0, whatever passwd says, as runc does.
    assert_eq!(id("1000"), "1000\n0\n/home\n");
    container.force_delete();
}

fn an_exec_may_have_more_groups(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let flags = ["--user", "1:2", "--additional-gids", "100", "--additional-gids", "65534"];
    let out = container.exec_with(&flags, &["sh", "-c", "grep ^Groups /proc/self/status"]).run().ok();
    assert_eq!(out.stdout.split_whitespace().collect::<Vec<_>>(), ["Groups:", "100", "65534"]);
    container.force_delete();
}

/// A caller in these groups.
const CALLER: &[&str] = &["/usr/bin/setpriv", "--groups=1234,5678", "--"];
const GROUPS: &str = "grep Groups /proc/self/status";

fn groups_of_the_caller_are_kept_where_an_annotation_says_so(t: &T) {
    let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [20]});
    for (value, groups) in
        [("1", "Groups:\t1234 5678 \n"), ("", "Groups:\t1234 5678 \n"), ("0", "Groups:\t20 \n")]
    {
        let annotations = json!({"run.oci.keep_original_groups": value});
        let bundle = t.bundle().with(json!({"process": {"user": user}, "annotations": annotations}));
        let container = t.container(&bundle.script(&format!("{GROUPS}; sleep 1000")));
        container.make(&["create"]).through(CALLER).run().ok();
        container.start().ok();
        let exec = container.exec_with(&[], &["sh", "-c", GROUPS]).through(CALLER).run().ok();
        assert_eq!(exec.stdout, groups, "{value:?}");
        let pid = container.pid();
        assert_eq!(
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .unwrap()
                .lines()
                .find(|line| line.starts_with("Groups")),
            Some(groups.trim_end_matches('\n'))
        );
        container.force_delete();
    }
}

fn groups_of_the_caller_are_kept_in_a_user_namespace(t: &T) {
    // As podman's --group-add keep-groups: what they may reach, they may reach inside.
    let dir = t.make_dir("shared");
    std::fs::write(dir.join("file"), "reached\n").unwrap();
    std::os::unix::fs::chown(&dir, Some(0), Some(5678)).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    for (value, found) in [("1", "reached\n"), ("0", "")] {
        let mut bundle = t.bundle();
        bundle.user_namespace();
        bundle.mount(json!({"destination": "/shared", "type": "bind", "source": dir, "options": ["bind"]}));
        bundle.set(json!({"annotations": {"run.oci.keep_original_groups": value}}));
        let container = t.container(&bundle.script("cat /shared/file 2>/dev/null || true"));
        assert_eq!(container.make(&["run"]).through(CALLER).run().ok().stdout, found);
    }
}
