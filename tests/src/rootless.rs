//! Containers of an ordinary user, and of root in a user namespace: runc's rules, for the runtime-spec has none.

use crate::harness::test::Known;
use crate::harness::world::USER;
use crate::harness::{Bundle, Container, Need, T, Test, cgroups, procs};
use crate::sockets::Receiver;
use crate::{always, below, test};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

pub const TESTS: &[Test] = &[
    test!(a_user_runs_a_container).by_driver().needs(USERS),
    test!(the_example_of_spec_runs).needs(USERS),
    test!(a_container_of_a_user_has_its_life).needs(USERS),
    test!(an_exec_of_a_user_while_the_container_is_created).needs(USERS),
    test!(a_user_has_a_time_namespace).needs(&[
        Need::File("/usr/bin/setpriv"),
        Need::CgroupFs,
        Need::Namespace("time"),
        Need::Runc("1.2", "time namespaces"),
    ]),
    test!(the_listener_of_a_users_filter_is_handed_over).needs(&[
        Need::File("/usr/bin/setpriv"),
        Need::CgroupFs,
        Need::Kernel(5, 6),
        Need::Runc("1.1", "seccomp notify"),
    ]),
    test!(without_a_cgroup_there_is_no_list_and_no_pause).by_driver().needs(USERS),
    test!(what_cannot_all_be_killed_is_warned_of).needs(USERS).runc_fails(below!("1.2", "says nothing")),
    test!(the_state_is_in_the_runtime_directory).needs(USERS),
    test!(devices_are_the_hosts).needs(USERS),
    test!(sysfs_without_a_network_of_its_own)
        .needs(USERS)
        .runc_fails(always!("tries to mount a sysfs, which the kernel refuses")),
    test!(the_cgroup_cannot_be_written).needs(USERS),
    test!(a_hook_of_a_user_runs_as_the_user).needs(USERS),
    test!(groups_cannot_be_set).needs(USERS),
    test!(a_namespace_that_denies_setgroups_is_joined)
        .needs(USERS)
        .runc_fails(below!("1.2", "wants mappings beside the path")),
    test!(a_failed_container_of_a_user_leaves_nothing).needs(USERS),
    test!(more_ids_by_the_mapping_tools).needs(TOOLS).runc_fails(NO_GROUPS),
    test!(an_exec_into_many_ids).needs(TOOLS).runc_fails(NO_GROUPS),
    test!(ids_that_are_not_the_users_are_refused).needs(TOOLS),
    test!(without_the_tools_one_id_is_all).needs(USERS),
    test!(a_limit_without_a_cgroup_is_an_error).by_driver().needs(USERS),
    test!(a_cgroup_that_is_named_must_be_made).by_driver().needs(USERS),
    test!(rootless_false_wants_the_cgroup).by_driver().needs(USERS),
    test!(a_delegated_cgroup_limits).by_driver().needs(USERS),
    test!(a_delegated_cgroup_can_be_paused).by_driver().needs(USERS),
    test!(root_of_a_user_namespace_runs_a_container).needs(&[Need::File("/usr/bin/unshare"), Need::CgroupFs]),
    test!(root_of_a_user_namespace_has_its_verbs).needs(&[Need::File("/usr/bin/unshare"), Need::CgroupFs]),
    test!(a_user_namespace_in_a_user_namespace).needs(&[Need::File("/usr/bin/unshare"), Need::CgroupFs]),
];

const NO_GROUPS: &[Known] =
    always!("cannot set any additional groups in a rootless container, also where newgidmap permits it");
const USERS: &[Need] = &[Need::File("/usr/bin/setpriv"), Need::CgroupFs];
const TOOLS: &[Need] = &[
    Need::File("/usr/bin/setpriv"),
    Need::File("/usr/bin/newuidmap"),
    Need::File("/etc/subuid"),
    Need::File("/etc/subgid"),
    Need::CgroupFs,
];

/// A bundle of the user's, who makes the calls from here on.
fn bundle(t: &T) -> Bundle {
    t.as_user("");
    let mut bundle = t.bundle();
    bundle.rootless();
    bundle
}

/// The user may use the ids from `first` on, and is known by a name.
fn give_ids(t: &T, first: u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(t.path("passwd"), passwd + &format!("cofferdam-user:x:{USER}:{USER}::/:/bin/sh\n")).unwrap();
    fs::write(t.path("sub"), format!("{USER}:{first}:65536\n")).unwrap();
    for (name, file) in [("passwd", "passwd"), ("subuid", "sub"), ("subgid", "sub")] {
        t.bind(&t.path(file), &Path::new("/etc").join(name));
    }
}

fn map_many(bundle: &mut Bundle, first: u32) {
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": first, "size": 65_536}
    ]);
    bundle.set(json!({"linux": {"uidMappings": map, "gidMappings": map}}));
}

fn a_user_runs_a_container(t: &T) {
    let bundle = bundle(t);
    let text = t.sh(&bundle, "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; touch /made");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", "4242", "1", "deny"]);
    assert_eq!(bundle.file("/made").metadata().unwrap().uid(), USER);
}

fn a_namespace_that_denies_setgroups_is_joined(t: &T) {
    let other = t.container(&bundle(t).args(&["sleep", "1000"]));
    other.launch();
    let mut bundle = t.bundle();
    bundle.rootless();
    bundle.set(json!({"linux": {"uidMappings": null, "gidMappings": null}}));
    bundle.namespace("user", Some(&format!("/proc/{}/ns/user", other.pid())));
    assert_eq!(t.sh(&bundle, "cat /proc/self/setgroups; id -u"), "deny\n0\n");
    other.force_delete();
}

fn the_example_of_spec_runs(t: &T) {
    let bundle = bundle(t);
    let dir = bundle.dir.to_string_lossy().into_owned();
    t.call(&["spec", "--rootless", "-b", &dir]).run().ok();
    let text = fs::read(bundle.dir.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; ls -d /sys/class /proc/self /sys/fs/cgroup"]);
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let bundle = Bundle { config, ..bundle };
    assert_eq!(t.container(&bundle).run().ok().stdout, "0\n/proc/self\n/sys/class\n/sys/fs/cgroup\n");
}

fn a_container_of_a_user_has_its_life(t: &T) {
    let container = t.container(&bundle(t).script("trap 'exit 3' TERM; while :; do sleep 0.1; done"));
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec_sh("id -u; echo $$ > /tmp/pid; cat /proc/1/comm"), "0\nsh\n");
    let list = t.call(&["list", "--format", "json"]).run().ok().json();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(container.id), &json!("running")));
    assert_eq!(fs::metadata(format!("/proc/{}", container.pid())).unwrap().uid(), USER);
    container.kill("TERM").ok();
    container.await_stop();
    container.delete().ok();
}

fn an_exec_of_a_user_while_the_container_is_created(t: &T) {
    let container = t.container(&bundle(t).args(&["echo", "started"]));
    let out = container.create().ok();
    assert_eq!(container.exec_sh("id -u; ls -A /tmp"), "0\n");
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.await_stop();
    assert_eq!(fs::read_to_string(out.stdout_file).unwrap(), "started\n");
    container.delete().ok();
}

fn a_user_has_a_time_namespace(t: &T) {
    let mut bundle = bundle(t);
    bundle.namespace("time", None).set(
        json!({"linux": {"timeOffsets": {"monotonic": {"secs": 5}, "boottime": {"secs": 200_000_000}}}}),
    );
    let container = t.container(&bundle.args(&["sleep", "1000"]));
    container.launch();
    let script = "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time";
    let seen = container.exec_sh(script);
    let (uptime, namespace) = seen.trim_end().split_once('\n').unwrap();
    assert!(uptime.parse::<u64>().unwrap() > 200_000_000, "{uptime}");
    assert_eq!(namespace, procs::link(format!("/proc/{}/ns/time", container.pid())));
    assert_ne!(namespace, procs::link("/proc/self/ns/time"));
    container.force_delete();
}

fn the_listener_of_a_users_filter_is_handed_over(t: &T) {
    let receiver = Receiver::new(t, "notify");
    fs::set_permissions(&receiver.path, fs::Permissions::from_mode(0o666)).unwrap();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": receiver.path,
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    for no_new_privileges in [true, false] {
        let change =
            json!({"linux": {"seccomp": profile}, "process": {"noNewPrivileges": no_new_privileges}});
        let container = t.container(&bundle(t).with(change).script("mkdir /tmp/x 2>&1; echo after"));
        let running = container.spawn_run();
        let (told, listener) = receiver.receive();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["state"]["id"], json!(container.id));
        // Nobody is going to answer: ENOSYS.
        drop(listener);
        let out = running.wait().ok();
        assert!(out.stdout.contains("Function not implemented\nafter\n"), "{}", out.stdout);
    }
}

fn without_a_cgroup_there_is_no_list_and_no_pause(t: &T) {
    let container = t.container(&bundle(t).args(&["sleep", "1000"]));
    container.launch();
    let (ps, pause) = (container.verb(&["ps"]).run().fails(), container.verb(&["pause"]).run().fails());
    if t.is_ours() {
        ps.says("cannot list processes: cgroups not configured for container");
        pause.says("cannot toggle freezer: cgroups not configured for container");
    }
    container.force_delete();
}

fn what_cannot_all_be_killed_is_warned_of(t: &T) {
    let warnings = |bundle: &Bundle| {
        let container = t.container(bundle);
        let warnings = container.make(&["run"]).run().ok().warnings();
        container.force_delete();
        warnings.join("\n")
    };
    let mut bundle = bundle(t).args(&["true"]);
    assert!(!warnings(&bundle).contains("strongly discouraged"));
    let proc = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    bundle.without_namespace("pid").without_mount("/proc").mount(proc);
    let said = warnings(&bundle);
    assert!(said.contains("Such configuration is strongly discouraged"), "{said}");
}

fn the_state_is_in_the_runtime_directory(t: &T) {
    let container = t.container(&bundle(t).args(&["sleep", "1000"]));
    container.bundle.save();
    let dir = t.make_dir("run");
    chown(&dir, Some(USER), Some(USER)).unwrap();
    let bundle = container.bundle.dir.to_string_lossy().into_owned();
    let call =
        |words: &[&str]| t.call(words).bare().env("XDG_RUNTIME_DIR", &dir).env("USER", "user").run().ok();
    call(&["run", "-d", "-b", &bundle, &container.id]);
    let root = dir.join(if t.is_ours() { "cofferdam" } else { "runc" });
    assert!(root.join(&container.id).is_dir());
    let mode = root.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o1777, 0o1700, "{mode:o}");
    assert_eq!(call(&["state", &container.id]).json()["status"], "running");
    call(&["delete", "--force", &container.id]);
    assert!(!root.join(&container.id).exists());
}

fn devices_are_the_hosts(t: &T) {
    let mut bundle = bundle(t);
    bundle.set(json!({"linux": {"devices": [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}]}}));
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c; stat -c '%F %t:%T' /dev/null /dev/urandom; \
                  mknod /dev/x c 1 3 || true; readlink /dev/ptmx; readlink /dev/fd";
    let text = t.sh(&bundle, script);
    let want = "3\ncharacter special file 1:3\ncharacter special file 1:9\npts/ptmx\n/proc/self/fd\n";
    assert_eq!(text, want);
}

fn sysfs_without_a_network_of_its_own(t: &T) {
    let mut bundle = bundle(t);
    bundle.without_mount("/sys").without_mount("/sys/fs/cgroup");
    let sysfs = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"]});
    bundle.mount(sysfs);
    let text = t.sh(&bundle, "ls /sys/class/net; touch /sys/x 2>&1 || true");
    assert!(text.starts_with("lo\n") || text.contains("\nlo\n"), "{text}");
    assert!(text.ends_with("touch: /sys/x: Read-only file system\n"), "{text}");
}

/// CVE-2023-25809: the cgroups of a /sys that is bound from the host could be written.
fn the_cgroup_cannot_be_written(t: &T) {
    let script = "for f in $(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs); do \
                  mkdir ${f%/*}/x 2>/dev/null && echo $f; ! (echo 0 > $f) 2>/dev/null || echo $f; done; true";
    assert_eq!(t.sh(&bundle(t), script), "");
}

fn a_hook_of_a_user_runs_as_the_user(t: &T) {
    let mut bundle = bundle(t);
    let file = t.path("hook").to_string_lossy().into_owned();
    let script = format!("id -u > {file}");
    bundle.set(json!({"hooks": {"createRuntime": [{"path": "/bin/busybox", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin"]}]}}));
    t.sh(&bundle, "true");
    assert_eq!(fs::read_to_string(file).unwrap(), "4242\n");
}

fn groups_cannot_be_set(t: &T) {
    let bundle = bundle(t).with(json!({"process": {"user": {"additionalGids": [0]}}}));
    let message = t.container(&bundle).create().fails().message();
    assert!(message.contains("cannot set any additional groups in a rootless container"), "{message}");
}

fn a_failed_container_of_a_user_leaves_nothing(t: &T) {
    let bundle = bundle(t);
    let missing = bundle.clone().args(&["/nowhere"]);
    let message = t.refused(&missing);
    assert!(message.contains("no such file or directory"), "{message}");
}

fn more_ids_by_the_mapping_tools(t: &T) {
    give_ids(t, 300_000);
    let mut bundle = bundle(t);
    map_many(&mut bundle, 300_000);
    bundle.set(json!({"process": {"user": {"uid": 1000, "gid": 1001, "additionalGids": [5, 7]}}}));
    fs::set_permissions(bundle.make_dir("/open"), fs::Permissions::from_mode(0o777)).unwrap();
    let text =
        t.sh(&bundle, "id -u; id -g; id -G; touch /open/made; cat /proc/self/uid_map /proc/self/gid_map");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..5], ["1000", "1001", "1001", "5", "7"]);
    assert_eq!(words[5..11], ["0", "4242", "1", "1", "300000", "65536"]);
    assert_eq!(words[11..], ["0", "4242", "1", "1", "300000", "65536"]);
    let made = bundle.file("/open/made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (300_999, 301_000));
}

fn an_exec_into_many_ids(t: &T) {
    give_ids(t, 300_000);
    let mut bundle = bundle(t).args(&["sleep", "1000"]);
    map_many(&mut bundle, 300_000);
    let container = t.container(&bundle);
    container.launch();
    let out = container.exec_with(&["--user", "7:8", "--additional-gids", "9"], &["id"]).run().ok();
    assert_eq!(out.stdout, "uid=7 gid=8 groups=9\n");
    container.force_delete();
}

fn ids_that_are_not_the_users_are_refused(t: &T) {
    give_ids(t, 300_000);
    let mut bundle = bundle(t);
    map_many(&mut bundle, 500_000);
    let message = t.refused(&bundle);
    if t.is_ours() {
        assert!(
            message.contains("/usr/bin/newgidmap exited with status 1: newgidmap: gid range "),
            "{message}"
        );
    }
}

fn without_the_tools_one_id_is_all(t: &T) {
    let mut bundle = bundle(t);
    map_many(&mut bundle, 300_000);
    let container = t.container(&bundle);
    let out = container.make(&["run"]).env("PATH", "/nowhere").run().fails();
    if t.is_ours() {
        out.says(
            "newgidmap is not in $PATH: a user without privileges cannot map more than its own id without it",
        );
    }
    t.nothing_is_left(&container);
}

fn a_limit_without_a_cgroup_is_an_error(t: &T) {
    let bundle = bundle(t).with(json!({"linux": {"resources": {"pids": {"limit": 9}}}}));
    let message = t.refused(&bundle);
    let want = if t.host.cgroup_v2 {
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
    } else {
        "cannot set pids limit: container could not join or create cgroup"
    };
    assert!(message.contains(want), "{message}");
}

fn a_cgroup_that_is_named_must_be_made(t: &T) {
    let mut bundle = bundle(t);
    bundle.own_cgroup = false;
    let message = t.refused(&bundle);
    assert!(message.contains("permission denied"), "{message}");
}

fn rootless_false_wants_the_cgroup(t: &T) {
    let container = t.container(&bundle(t));
    container.bundle.save();
    let (state, dir) = (t.state_dir(), container.bundle.dir.clone());
    let (state, dir) = (state.to_string_lossy(), dir.to_string_lossy());
    let run = |word: &str| {
        t.call(&["--root", &state, "--rootless", word, "run", "-b", &dir, &container.id]).bare().run()
    };
    let out = run("false").fails();
    assert!(out.stderr.contains("permission denied"), "{out:?}");
    run("true").ok();
    run("auto").ok();
    run("maybe").fails();
}

/// The calls are made in a cgroup that belongs to the user; a container in it.
fn delegated<'t>(t: &'t T, bundle: &Bundle) -> Container<'t> {
    let mut container = t.container(bundle);
    let path = container.cgroup.clone();
    let mut bundle = bundle.clone();
    bundle.set(json!({"linux": {"cgroupsPath": path}}));
    container.bundle = bundle;
    container
}

/// Gives the test's cgroup to the user, who makes the calls from below it.
fn delegate(t: &T) -> Bundle {
    let mounts: Vec<std::path::PathBuf> = if t.host.cgroup_v2 {
        vec!["/sys/fs/cgroup".into()]
    } else {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let unified = unified.exists().then(|| unified.to_owned());
        t.host.hierarchies.values().cloned().chain(unified).collect()
    };
    let mut first = String::new();
    for mount in mounts {
        let dir = mount.join(t.cgroup.trim_start_matches('/'));
        let caller = dir.join("caller");
        fs::create_dir_all(&caller).expect("make a cgroup");
        for dir in [&dir, &caller] {
            chown(dir, Some(USER), Some(USER)).unwrap();
            for file in ["cgroup.procs", "cgroup.subtree_control", "tasks"] {
                let _ = chown(dir.join(file), Some(USER), Some(USER));
            }
        }
        if t.host.cgroup_v2 {
            for dir in mount.ancestors().take(1).chain(dir.parent()).chain([dir.as_path()]) {
                let _ = fs::write(dir.join("cgroup.subtree_control"), "+pids +memory");
            }
            first = format!("echo $$ > {}/cgroup.procs", caller.display());
        } else if mount.ends_with("cpuset") {
            for dir in [dir.parent().unwrap(), &dir, &caller] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let text = fs::read_to_string(dir.parent().unwrap().join(file)).unwrap();
                    let _ = fs::write(dir.join(file), text);
                }
            }
        }
    }
    t.as_user(&first);
    let mut bundle = t.bundle();
    bundle.rootless();
    bundle
}

fn leave(t: &T, container: &Container) {
    container.force_delete();
    let left = cgroups::places(&t.host, &container.cgroup);
    assert!(left.is_empty(), "{left:?}");
    for dir in cgroups::places(&t.host, &t.cgroup) {
        cgroups::remove(&dir);
    }
}

fn a_delegated_cgroup_limits(t: &T) {
    let bundle = delegate(t).with(json!({"linux": {"resources": {"pids": {"limit": 77}}}}));
    let container = delegated(t, &bundle.args(&["sleep", "1000"]));
    container.launch();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "77");
    let ps = container.verb(&["ps", "--format", "json"]).run().ok();
    assert_eq!(ps.json(), json!([container.pid()]));
    t.call(&["update", "--pids-limit", "55", &container.id]).run().ok();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "55");
    let stats = container.verb(&["events", "--stats"]).run().ok().json();
    assert_eq!(stats["data"]["pids"]["limit"], 55);
    assert!(container.exec_sh("cat /proc/self/cgroup").contains(&container.id));
    leave(t, &container);
}

fn a_delegated_cgroup_can_be_paused(t: &T) {
    let container = delegated(t, &delegate(t).args(&["sleep", "1000"]));
    container.launch();
    container.verb(&["pause"]).run().ok();
    assert_eq!(container.status(), "paused");
    container.verb(&["resume"]).run().ok();
    assert_eq!(container.status(), "running");
    leave(t, &container);
}

/// From here on root of a user namespace makes the calls: one of a single id, with the host's network and a procfs of the host's.
fn inside(t: &T) -> Bundle {
    t.through("", &["/usr/bin/unshare", "--user", "--map-root-user", "--mount"]);
    let mut bundle = t.bundle();
    for mount in bundle.list("/mounts") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    bundle.own_cgroup = true;
    bundle
}

fn root_of_a_user_namespace_runs_a_container(t: &T) {
    let mut bundle = inside(t);
    bundle.without_mount("/sys/fs/cgroup");
    let script = "id -u; hostname; stat -c '%F' /dev/null; ls /sys/class/net; ip link show lo | grep -c UP";
    assert_eq!(t.sh(&bundle, script), "0\nrunc\ncharacter special file\nlo\n1\n");
}

fn root_of_a_user_namespace_has_its_verbs(t: &T) {
    // Each call in a namespace of its own could not reach the others' containers: one shell makes them all.
    let mut bundle = inside(t).args(&["sleep", "1000"]);
    bundle.without_mount("/sys/fs/cgroup");
    let container = t.container(&bundle);
    let (_, program) = t.caller();
    container.bundle.save();
    let runtime = format!("{} --root {}", program.display(), t.state_dir().display());
    let (id, dir) = (&container.id, container.bundle.dir.display());
    let script = format!(
        "set -e; r='{runtime}'; $r create -b {dir} {id} </dev/null >/dev/null 2>&1; $r start {id}; $r exec {id} id -u; \
         $r state {id} | grep status; $r kill {id} KILL; sleep 0.3; $r delete {id}"
    );
    let out = t.call(&[] as &[&str]).bare().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let out = out.through(&["/bin/busybox", "sh", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "0\n  \"status\": \"running\",\n");
}

fn a_user_namespace_in_a_user_namespace(t: &T) {
    let mut bundle = inside(t);
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    bundle.without_mount("/sys/fs/cgroup").namespace("user", None);
    bundle.set(json!({"linux": {"uidMappings": map, "gidMappings": map, "resources": null}}));
    assert_eq!(
        t.sh(&bundle, "id -u; cat /proc/self/uid_map").split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "0", "1"]
    );
}
