//! Control groups of v1 (and hybrid) for real. Needs root and v1 hierarchies; makes everything below a parent cgroup
//! of its own.

mod ground;

use std::fs;

use cofferdam_cgroup::{Cgroup, CgroupError, Options, Settings, Version};
use ground::{Ground, Sleeper, eventually, read};

macro_rules! ground {
    ($name:expr) => {
        match Ground::new($name) {
            None => skip!("needs root"),
            Some(ground) if ground.layout.version() == Version::V2 => skip!("this host has no cgroup v1"),
            Some(ground) => ground,
        }
    };
}

#[track_caller]
fn assert_is_in(ground: &Ground, sleeper: &Sleeper, id: &str) {
    let wanted = format!("{}/{id}", ground.parent);
    for (controllers, path) in sleeper.cgroups() {
        let ours = controllers.is_empty()
            || ground.layout.hierarchies().iter().any(|h| h.controllers.join(",") == controllers);
        assert!(!ours || path == wanted, "{controllers}: {path}");
    }
}

#[test]
fn child_is_in_every_hierarchy_after_enter() {
    let ground = ground!("enter");
    let (cgroup, mut sleeper) = ground.container("c1", "{}");
    assert_is_in(&ground, &sleeper, "c1");
    assert_eq!(cgroup.pids(true).unwrap(), [sleeper.pid]);
    sleeper.kill();
    sleeper.ended_by();
    cgroup.remove().unwrap();
    ground.assert_gone("c1");
}

#[test]
fn child_can_enter_by_itself() {
    let ground = ground!("itself");
    let placement = ground.place("c1");
    let settings = ground.settings("{}");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    assert!(prepared.can_enter_by_itself());
    let entries = prepared.self_entry().unwrap();
    let dir = prepared.clone_dir().map(|dir| std::os::fd::AsRawFd::as_raw_fd(&dir));
    let sleeper = Sleeper::entering(dir, &entries);
    let cgroup = prepared.entered();
    eventually("the child has entered the last hierarchy", || {
        let last = cgroup.dirs().iter().rfind(|dir| !dir.is_unified()).unwrap();
        let procs = fs::read_to_string(format!("{}/cgroup.procs", last.path)).unwrap();
        procs.lines().any(|line| line == sleeper.pid.to_string()).then_some(())
    });
    assert_is_in(&ground, &sleeper, "c1");
    drop(sleeper);
    cgroup.remove().unwrap();
    ground.assert_gone("c1");
}

#[test]
fn limits_are_in_the_files() {
    let ground = ground!("limits");
    let json = r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":77},
                   "cpu":{"shares":512,"quota":50000,"period":200000,"cpus":"0"}}"#;
    let (cgroup, _sleeper) = ground.container("c1", json);
    assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&cgroup, "memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(read(&cgroup, "pids", "pids.max"), "77");
    assert_eq!(read(&cgroup, "cpu", "cpu.shares"), "512");
    assert_eq!(read(&cgroup, "cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&cgroup, "cpu", "cpu.cfs_period_us"), "200000");
    assert_eq!(read(&cgroup, "cpuset", "cpuset.cpus"), "0");
}

#[test]
fn update_changes_limits_in_both_directions() {
    let ground = ground!("update");
    let (cgroup, _sleeper) = ground.container("c1", r#"{"memory":{"limit":67108864},"cpu":{"quota":50000}}"#);
    let update = |json: &str| cgroup.apply(&ground.settings(json));
    for (limit, quota, period) in [("33554432", "200000", "400000"), ("134217728", "10000", "20000")] {
        update(&format!(
            r#"{{"memory":{{"limit":{limit}}},"cpu":{{"quota":{quota},"period":{period}}},"pids":{{"limit":-1}}}}"#
        ))
        .unwrap();
        assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), limit);
        assert_eq!(read(&cgroup, "cpu", "cpu.cfs_quota_us"), quota);
        assert_eq!(read(&cgroup, "cpu", "cpu.cfs_period_us"), period);
        assert_eq!(read(&cgroup, "pids", "pids.max"), "max");
    }
}

#[test]
fn memory_and_swap_move_together() {
    let ground = ground!("swap");
    let (cgroup, _sleeper) = ground.container("c1", "{}");
    if !fs::exists(format!("{}/memory.memsw.limit_in_bytes", cgroup.path("memory").unwrap())).unwrap() {
        skip!("this kernel has no swap accounting");
    }
    // Down from unlimited, further down, up above the old sum, and back to unlimited: each needs its own order.
    for (limit, swap) in [(64, 96), (16, 32), (128, 256), (32, 32)] {
        let (limit, swap) = (limit << 20, swap << 20);
        cgroup
            .apply(&ground.settings(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#)))
            .unwrap();
        assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(read(&cgroup, "memory", "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    cgroup.apply(&ground.settings(r#"{"memory":{"limit":-1}}"#)).unwrap();
    assert!(read(&cgroup, "memory", "memory.limit_in_bytes").len() > 15);
}

#[test]
fn cpuset_is_inherited_through_new_parents() {
    let ground = ground!("cpuset");
    let placement = cofferdam_cgroup::place(
        &ground.layout,
        "x",
        Some(&format!("{}/a/b/c1", ground.parent)),
        Default::default(),
        false,
    )
    .unwrap();
    let settings = ground.settings("{}");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let path = prepared.cgroup().path("cpuset").unwrap();
    let root = ground.layout.hierarchy("cpuset").unwrap().mount_point.clone();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |dir: &str| fs::read_to_string(format!("{dir}/{file}")).unwrap();
        assert_eq!(read(path), read(&root));
    }
    let sleeper = Sleeper::new();
    let cgroup = prepared.enter(sleeper.pid, false).unwrap();
    drop(sleeper);
    cgroup.remove().unwrap();
}

#[test]
fn device_rules_are_an_allow_list() {
    let ground = ground!("devices");
    let settings = ground.settings_with_devices(
        r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
    );
    let (cgroup, _sleeper) = ground.container_with("c1", &settings);
    let list = read(&cgroup, "devices", "devices.list");
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "b *:* m",
            "c *:* m",
            "c 10:200 rwm",
            "c 10:229 rw",
            "c 136:* rwm",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm"
        ]
    );
    // Applied again, to a cgroup in use: only what differs is written, and the result is checked.
    cgroup.apply(&ground.settings_with_devices(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#)).unwrap();
    assert!(!read(&cgroup, "devices", "devices.list").contains("10:229"));
}

#[test]
fn a_device_that_is_not_allowed_cannot_be_opened() {
    let ground = ground!("devopen");
    let settings = ground.settings_with_devices(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    let placement = ground.place("c1");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let out = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-devopen", std::process::id()));
    let (pipe, output) = nix::unistd::pipe().unwrap();
    let input = std::os::fd::AsRawFd::as_raw_fd(&pipe);
    let script = format!(
        "read go </proc/$$/fd/{input}; exec 2>/dev/null >{}; cat /dev/null && echo null; head -c0 /dev/kmsg && echo kmsg",
        out.display()
    );
    let mut shell = Sleeper::script(None, &script, &[input]);
    let cgroup = prepared.enter(shell.pid, false).unwrap();
    nix::unistd::write(&output, b"go\n").unwrap();
    shell.ended_by();
    assert_eq!(fs::read_to_string(&out).unwrap(), "null\n");
    fs::remove_file(&out).unwrap();
    cgroup.remove().unwrap();
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
fn everything_is_killed_also_when_frozen() {
    let ground = ground!("kill");
    let (cgroup, mut first) = ground.container("c1", "{}");
    let mut second = Sleeper::new();
    cgroup.join(second.pid, None).unwrap();
    cgroup.freeze().unwrap();
    cgroup.kill_all(9).unwrap();
    assert_eq!((first.ended_by(), second.ended_by()), (9, 9));
    assert_eq!(cgroup.pids(true).unwrap(), [0; 0]);
    cgroup.remove().unwrap();
}

#[test]
fn other_signals_reach_all_and_leave_it_thawed() {
    let ground = ground!("term");
    let (cgroup, _first) = ground.container("c1", "{}");
    let mut second = Sleeper::new();
    cgroup.join(second.pid, None).unwrap();
    cgroup.kill_all(15).unwrap();
    assert_eq!(second.ended_by(), 15);
    assert!(!cgroup.is_frozen().unwrap());
}

#[test]
fn killing_what_is_gone_is_no_error() {
    let ground = ground!("gone");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    drop(sleeper);
    cgroup.remove().unwrap();
    cgroup.kill_all(9).unwrap();
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    assert!(!cgroup.exists());
    cgroup.remove().unwrap();
}

#[test]
fn sub_cgroups_are_removed_too() {
    let ground = ground!("nested");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    for dir in cgroup.dirs() {
        fs::create_dir_all(format!("{}/a/b", dir.path)).unwrap();
        fs::create_dir_all(format!("{}/c", dir.path)).unwrap();
    }
    let mut nested = Sleeper::new();
    cgroup.join_sub(nested.pid, &[(None, "/c")]).unwrap_err_cpuset_or_ok();
    let pids = cgroup.pids(true).unwrap();
    assert!(pids.contains(&sleeper.pid));
    nested.kill();
    nested.ended_by();
    drop(sleeper);
    cgroup.remove().unwrap();
    ground.assert_gone("c1");
}

trait CpusetAside {
    fn unwrap_err_cpuset_or_ok(self);
}

impl CpusetAside for Result<(), CgroupError> {
    /// A sub-cgroup that a container makes has no CPUs until somebody writes them: ENOSPC.
    fn unwrap_err_cpuset_or_ok(self) {
        if let Err(error) = self {
            assert!(error.to_string().contains("cpuset"), "{error}");
        }
    }
}

#[test]
fn exec_can_choose_a_sub_cgroup_of_some_controllers() {
    let ground = ground!("sub");
    let (cgroup, _init) = ground.container("c1", "{}");
    fs::create_dir(format!("{}/inner", cgroup.path("memory").unwrap())).unwrap();
    let second = Sleeper::new();
    cgroup.join_sub(second.pid, &[(Some("memory"), "inner")]).unwrap();
    for (controllers, path) in second.cgroups() {
        match controllers.as_str() {
            "memory" => assert_eq!(path, format!("{}/c1/inner", ground.parent)),
            "pids" => assert_eq!(path, format!("{}/c1", ground.parent)),
            _ => {}
        }
    }
    let error = cgroup.join_sub(second.pid, &[(None, "../../x")]).unwrap_err();
    assert_eq!(error.to_string(), "bad sub cgroup path: ../../x");
    let error = cgroup.join_sub(second.pid, &[(Some("nonsense"), "x")]).unwrap_err();
    assert_eq!(error.to_string(), "unknown controller \"nonsense\": the container has no such cgroup");
}

#[test]
fn a_limit_that_fails_leaves_nothing_behind() {
    let ground = ground!("rollback");
    // Valid for us, but no such CPU.
    let error = ground.prepare_error("c1", &ground.settings(r#"{"cpu":{"cpus":"4000"}}"#));
    assert_eq!(error.to_string(), "config.json /linux/resources/cpu/cpus");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("cpuset.cpus"), "{cause}");
    ground.assert_gone("c1");
    for dir in ground.place("c1").dirs {
        let parent = dir.path.rsplit_once('/').unwrap().0;
        assert!(!fs::exists(parent).unwrap(), "{parent} was made for nothing");
    }
}

#[test]
fn dropping_what_was_prepared_removes_it() {
    let ground = ground!("drop");
    let placement = ground.place("c1");
    let settings = ground.settings("{}");
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    assert!(prepared.cgroup().exists());
    drop(prepared);
    ground.assert_gone("c1");
}

#[test]
fn a_cgroup_with_processes_in_it_is_refused_and_untouched() {
    let ground = ground!("used");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    let error = ground.prepare_error("c1", &ground.settings("{}"));
    assert!(
        error.to_string().starts_with("container's cgroup is not empty: 1 process(es) found in /"),
        "{error}"
    );
    assert!(sleeper.is_running() && cgroup.exists());
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let ground = ground!("frozen");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    drop(sleeper);
    cgroup.freeze().unwrap();
    let error = ground.prepare_error("c1", &ground.settings("{}"));
    assert!(error.to_string().starts_with("container's cgroup unexpectedly frozen: /"), "{error}");
    cgroup.thaw().unwrap();
}

#[test]
fn what_was_there_before_outlives_the_container() {
    let ground = ground!("kept");
    for dir in ground.place("c1").dirs {
        fs::create_dir_all(&dir.path).unwrap();
    }
    let (cgroup, sleeper) = ground.container("c1", r#"{"pids":{"limit":9}}"#);
    let json = serde_json::to_string(&cgroup).unwrap();
    let cgroup: Cgroup = serde_json::from_str(&json).unwrap();
    drop(sleeper);
    cgroup.remove().unwrap();
    assert!(cgroup.exists());
    assert_eq!(read(&cgroup, "pids", "pids.max"), "9");
}

#[test]
fn removal_waits_for_the_last_process() {
    let ground = ground!("wait");
    let (cgroup, sleeper) = ground.container("c1", "{}");
    let remover = cgroup.clone();
    let thread = std::thread::spawn(move || remover.remove());
    std::thread::sleep(std::time::Duration::from_millis(30));
    drop(sleeper);
    thread.join().unwrap().unwrap();
    ground.assert_gone("c1");
}

#[test]
fn removal_fails_while_a_process_stays() {
    let ground = ground!("busy");
    let (cgroup, _sleeper) = ground.container("c1", "{}");
    let error = cgroup.remove().unwrap_err();
    assert!(error.to_string().starts_with("cgroup: rmdir /"), "{error}");
    assert_eq!(error.errno(), Some(16));
}

#[test]
fn paths_are_by_controller() {
    let ground = ground!("paths");
    let (cgroup, _sleeper) = ground.container("c1", "{}");
    let paths = cgroup.paths();
    assert_eq!(paths["memory"], cgroup.path("memory").unwrap());
    assert!(paths["memory"].ends_with(&format!("{}/c1", ground.parent)));
    assert_eq!(paths.contains_key(""), ground.layout.version() == Version::Hybrid);
}

#[test]
fn statistics_are_complete() {
    let ground = ground!("stats");
    let (cgroup, sleeper) = ground.container("c1", r#"{"memory":{"limit":67108864},"pids":{"limit":9}}"#);
    let busy = Sleeper::script(None, "while :; do :; done", &[]);
    cgroup.join(busy.pid, None).unwrap();
    let stats = cgroup.stats().unwrap();
    let cpu = eventually("time is counted", || cgroup.stats().unwrap().cpu.filter(|cpu| cpu.total > 0));
    assert_eq!(cpu.per_cpu.len(), possible_cpus());
    assert!(cpu.per_cpu.iter().any(|one| one.total > 0));
    let memory = stats.memory.unwrap();
    assert_eq!(memory.memory.limit, 67_108_864);
    assert!(memory.stat.contains_key("total_rss"), "{:?}", memory.stat.keys());
    assert_eq!(memory.oom_control.unwrap().oom_kill, 0);
    assert_eq!(stats.pids.unwrap(), cofferdam_cgroup::stats::Pids { current: 2, limit: 9 });
    let cpuset = stats.cpuset.unwrap();
    assert!(cpuset.cpus.contains(&0) && cpuset.mems.contains(&0));
    assert!(stats.io.is_some());
    drop((sleeper, busy));
    cgroup.remove().unwrap();
    let error = cgroup.stats().unwrap_err();
    assert!(error.to_string().starts_with("cgroup: read statistics of /"), "{error}");
}

fn possible_cpus() -> usize {
    let online = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    online.trim().split('-').next_back().unwrap().parse::<usize>().unwrap() + 1
}

#[test]
fn an_oom_kill_is_noticed() {
    let ground = ground!("oom");
    let placement = ground.place("c1");
    let memsw = fs::exists(format!(
        "{}/memory.memsw.limit_in_bytes",
        ground.layout.hierarchy("memory").unwrap().mount_point
    ));
    // Where swap is not accounted for there is none here either.
    let swap = if memsw.unwrap() { r#","swap":8388608"# } else { "" };
    let settings = ground.settings(&format!(r#"{{"memory":{{"limit":8388608{swap}}}}}"#));
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let go = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-oom", std::process::id()));
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exec tail /dev/zero", go.display());
    let mut hungry = Sleeper::script(None, &script, &[]);
    let cgroup = prepared.enter(hungry.pid, false).unwrap();
    let mut watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), Some(0));
    let mut poll = [nix::poll::PollFd::new(watch.fd(), watch.interest())];
    assert_eq!(nix::poll::poll(&mut poll, 0u8).unwrap(), 0);
    fs::write(&go, "").unwrap();
    assert_eq!(nix::poll::poll(&mut poll, 10_000u16).unwrap(), 1);
    assert_eq!(watch.take().unwrap(), Some(1), "though nothing may have been killed yet");
    assert_eq!(hungry.ended_by(), 9);
    fs::remove_file(&go).unwrap();
    cgroup.remove().unwrap();
    assert_eq!(watch.take().unwrap(), None);
}

#[test]
fn a_tight_limit_can_be_settled_later() {
    let ground = ground!("settle");
    let placement = ground.place("c1");
    for (limit, first) in [("1", "max"), ("77", "77")] {
        let settings =
            Settings { settle_later: true, ..ground.settings(&format!(r#"{{"pids":{{"limit":{limit}}}}}"#)) };
        let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
        let sleeper = Sleeper::new();
        let cgroup = prepared.enter(sleeper.pid, false).unwrap();
        assert_eq!(read(&cgroup, "pids", "pids.max"), first);
        cgroup.settle(&settings).unwrap();
        assert_eq!(read(&cgroup, "pids", "pids.max"), limit);
        drop(sleeper);
        cgroup.remove().unwrap();
    }
}
