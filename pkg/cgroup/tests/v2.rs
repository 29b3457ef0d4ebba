//! Control groups of v2 for real: on a v2 host all of it, on a hybrid host what its v2 hierarchy can do without most
//! controllers. Needs root; makes everything below a parent cgroup of its own.

mod ground;

use std::fs;
use std::os::unix::fs::MetadataExt;

use cofferdam_cgroup::{Cgroup, Layout, Options, Settings};
use ground::{Ground, Sleeper, eventually, read};

macro_rules! ground {
    ($name:expr) => {
        match Ground::new($name) {
            None => skip!("needs root"),
            Some(mut ground) => match ground.layout.unified().cloned() {
                None => skip!("this host has no cgroup v2"),
                Some(unified) => {
                    ground.layout = Layout::V2(unified);
                    ground
                }
            },
        }
    };
}

macro_rules! need {
    ($ground:expr, $controller:expr) => {
        let root = &$ground.layout.unified().unwrap().mount_point;
        let controllers = fs::read_to_string(format!("{root}/cgroup.controllers")).unwrap();
        if !controllers.split_whitespace().any(|c| c == $controller) {
            skip!("{} is not a controller of this host's cgroup v2", $controller);
        }
    };
}

#[test]
fn child_is_born_in_its_cgroup() {
    let ground = ground!("born");
    let (cgroup, mut sleeper) = ground.container("c1", "{}");
    assert_eq!(cgroup.pids(false).unwrap(), [sleeper.pid]);
    assert!(sleeper.cgroups().contains(&(String::new(), format!("{}/c1", ground.parent))));
    sleeper.kill();
    sleeper.ended_by();
    cgroup.remove().unwrap();
    ground.assert_gone("c1");
}

#[test]
fn child_can_be_moved_as_well() {
    let ground = ground!("moved");
    let placement = ground.place("c1");
    let settings = ground.settings("{}");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let sleeper = Sleeper::new();
    let cgroup = prepared.enter(sleeper.pid, false).unwrap();
    assert_eq!(cgroup.pids(false).unwrap(), [sleeper.pid]);
}

#[test]
fn all_controllers_reach_the_container() {
    let ground = ground!("controllers");
    let (cgroup, _sleeper) = ground.container("c1", "{}");
    let root = &ground.layout.unified().unwrap().mount_point;
    let all = fs::read_to_string(format!("{root}/cgroup.controllers")).unwrap();
    assert_eq!(read(&cgroup, "cgroup", "cgroup.controllers"), all.trim());
}

#[test]
fn limits_are_in_the_files() {
    let ground = ground!("limits");
    need!(ground, "memory");
    let json = r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":77},
                   "cpu":{"shares":1024,"quota":50000,"period":200000,"cpus":"0"},
                   "unified":{"memory.high":"50331648"}}"#;
    let (cgroup, _sleeper) = ground.container("c1", json);
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("pids.max", "77"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 200000"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(read(&cgroup, "", file), value, "{file}");
    }
    for (json, file, value) in [
        (r#"{"cpu":{"quota":20000}}"#, "cpu.max", "20000 200000"),
        (r#"{"cpu":{"period":100000}}"#, "cpu.max", "20000 100000"),
        (r#"{"cpu":{"quota":-1}}"#, "cpu.max", "max 100000"),
        (r#"{"memory":{"swap":100663296}}"#, "memory.swap.max", "33554432"),
        (r#"{"memory":{"limit":-1}}"#, "memory.max", "max"),
        (r#"{"pids":{"limit":-1}}"#, "pids.max", "max"),
    ] {
        cgroup.apply(&ground.settings(json)).unwrap();
        assert_eq!(read(&cgroup, "", file), value, "{json}");
    }
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.pids.unwrap().current, 1);
    assert!(stats.memory.unwrap().events.is_some());
}

#[test]
fn a_unified_key_of_a_missing_controller_is_explained() {
    let ground = ground!("unified");
    let error = ground.prepare_error("c1", &ground.settings(r#"{"unified":{"nonsense.max":"1"}}"#));
    assert_eq!(
        error.to_string(),
        "unified resource \"nonsense.max\" can't be set: controller \"nonsense\" not available"
    );
    ground.assert_gone("c1");
}

#[test]
fn a_device_that_is_not_allowed_cannot_be_opened() {
    let ground = ground!("devices");
    let settings = ground.settings_with_devices(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    let placement = ground.place("c1");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let out = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-v2dev", std::process::id()));
    let dir = prepared.clone_dir().map(|dir| std::os::fd::AsRawFd::as_raw_fd(&dir));
    let opens = |out: &std::path::Path| {
        format!(
            "exec 2>/dev/null >{}; cat /dev/null && echo null; head -c0 /dev/kmsg && echo kmsg; head -c1 /dev/zero && \
             echo zero; :",
            out.display()
        )
    };
    let mut shell = Sleeper::script(dir, &opens(&out), &[]);
    shell.ended_by();
    let cgroup = prepared.entered();
    assert_eq!(fs::read_to_string(&out).unwrap(), "null\n\0zero\n");
    // Replaced in one step by an update of the policy: now /dev/kmsg may be read as well.
    cgroup
        .apply(&ground.settings_with_devices(
            r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
        ))
        .unwrap();
    let mut shell =
        Sleeper::script(dir_of(&cgroup).as_ref().map(std::os::fd::AsRawFd::as_raw_fd), &opens(&out), &[]);
    shell.ended_by();
    assert_eq!(fs::read_to_string(&out).unwrap(), "null\nkmsg\n\0zero\n");
    fs::remove_file(&out).unwrap();
    cgroup.remove().unwrap();
}

fn dir_of(cgroup: &Cgroup) -> Option<std::os::fd::OwnedFd> {
    Some(cgroup.v2_dir_fd(None).unwrap())
}

#[test]
fn freezing_stops_and_thawing_resumes() {
    let ground = ground!("freeze");
    let placement = ground.place("c1");
    let settings = ground.settings("{}");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let busy = Sleeper::script(None, "while :; do :; done", &[]);
    let cgroup = prepared.enter(busy.pid, false).unwrap();
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let before = busy.ticks();
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert_eq!(busy.ticks(), before);
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    eventually("it runs again", || (busy.ticks() > before).then_some(()));
}

#[test]
fn everything_is_killed_in_sub_cgroups_and_when_frozen() {
    let ground = ground!("kill");
    let (cgroup, mut first) = ground.container("c1", "{}");
    let sub = format!("{}/sub", cgroup.unified_path().unwrap());
    fs::create_dir(&sub).unwrap();
    let mut second = Sleeper::new();
    cgroup.join_sub(second.pid, &[(None, "sub")]).unwrap();
    let mut pids = cgroup.pids(true).unwrap();
    pids.sort_unstable();
    let mut expected = [first.pid, second.pid];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    assert_eq!(cgroup.pids(false).unwrap(), [first.pid]);
    cgroup.freeze().unwrap();
    cgroup.kill_all(9).unwrap();
    assert_eq!((first.ended_by(), second.ended_by()), (9, 9));
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.remove().unwrap();
    ground.assert_gone("c1");
}

#[test]
fn exec_follows_init_when_the_own_cgroup_is_no_leaf() {
    let ground = ground!("leaf");
    need!(ground, "hugetlb");
    let (cgroup, init) = ground.container("c1", "{}");
    let own = cgroup.unified_path().unwrap();
    let sub = format!("{own}/init.scope");
    fs::create_dir(&sub).unwrap();
    cgroup.join_sub(init.pid, &[(None, "init.scope")]).unwrap();
    // What systemd in a container does: from now on no process may be in the container's own cgroup.
    fs::write(format!("{own}/cgroup.subtree_control"), "+hugetlb").unwrap();
    let second = Sleeper::new();
    cgroup.join(second.pid, None).expect_err("the cgroup takes a process");
    cgroup.join(second.pid, Some(init.pid)).unwrap();
    assert!(second.cgroups().contains(&(String::new(), format!("{}/c1/init.scope", ground.parent))));
    drop((init, second));
    cgroup.remove().unwrap();
}

#[test]
fn the_owner_can_make_sub_cgroups() {
    let ground = ground!("owner");
    let placement = ground.place("c1");
    let settings = ground.settings("{}");
    let options = Options { owner: Some(12345), ..Options::default() };
    let prepared = Cgroup::prepare(&placement, &settings, &options).unwrap();
    let path = prepared.cgroup().unified_path().unwrap();
    for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
        assert_eq!(fs::metadata(format!("{path}{file}")).unwrap().uid(), 12345, "{file}");
    }
    assert_eq!(fs::metadata(format!("{path}/cgroup.max.depth")).unwrap().uid(), 0);
}

#[test]
fn used_and_frozen_cgroups_are_refused() {
    let ground = ground!("used");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    let error = ground.prepare_error("c1", &ground.settings("{}"));
    assert!(error.to_string().starts_with("container's cgroup is not empty: 1 process(es)"), "{error}");
    assert!(sleeper.is_running());
    drop(sleeper);
    cgroup.freeze().unwrap();
    let error = ground.prepare_error("c1", &ground.settings("{}"));
    assert!(error.to_string().starts_with("container's cgroup unexpectedly frozen: /"), "{error}");
    assert!(cgroup.exists());
}

#[test]
fn a_cgroup_in_a_threaded_tree_cannot_have_memory_limits() {
    let ground = ground!("threaded");
    need!(ground, "hugetlb");
    let root = ground.layout.unified().unwrap().mount_point.clone();
    let parent = format!("{root}{}", ground.parent);
    fs::create_dir_all(format!("{parent}/threads")).unwrap();
    fs::write(format!("{parent}/threads/cgroup.type"), "threaded").unwrap();
    let error = ground.prepare_error("c1", &ground.settings(r#"{"memory":{"limit":1000000}}"#));
    assert!(error.to_string().contains("with domain controllers: it is domain threaded"), "{error}");
    fs::remove_dir(format!("{parent}/threads")).unwrap();
}

#[test]
fn an_oom_kill_is_noticed() {
    let ground = ground!("oom");
    need!(ground, "memory");
    let json = r#"{"memory":{"limit":8388608,"swap":8388608}}"#;
    let placement = ground.place("c1");
    let settings = ground.settings(json);
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let go = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-v2oom", std::process::id()));
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exec tail /dev/zero", go.display());
    let mut hungry = Sleeper::script(None, &script, &[]);
    let cgroup = prepared.enter(hungry.pid, false).unwrap();
    let mut watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), Some(0));
    fs::write(&go, "").unwrap();
    let mut poll = [nix::poll::PollFd::new(watch.fd(), watch.interest())];
    assert_eq!(nix::poll::poll(&mut poll, 60_000u16).unwrap(), 1);
    assert_eq!(hungry.ended_by(), 9);
    fs::remove_file(&go).unwrap();
    eventually("the counter counts", || (watch.take().unwrap() == Some(1)).then_some(()));
    assert_eq!(watch.take().unwrap(), Some(0));
    cgroup.remove().unwrap();
    assert_eq!(watch.take().unwrap(), None);
}

#[test]
fn a_limit_of_no_process_at_all_can_be_settled_later() {
    let ground = ground!("settle");
    need!(ground, "pids");
    let placement = ground.place("c1");
    let settings = Settings { settle_later: true, ..ground.settings(r#"{"pids":{"limit":0}}"#) };
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let dir = prepared.clone_dir().map(|dir| std::os::fd::AsRawFd::as_raw_fd(&dir));
    let _sleeper = Sleeper::into(dir);
    let cgroup = prepared.entered();
    assert_eq!(read(&cgroup, "pids", "pids.max"), "max");
    cgroup.settle(&settings).unwrap();
    assert_eq!(read(&cgroup, "pids", "pids.max"), "0");
}
