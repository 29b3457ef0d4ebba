//! The systemd driver for real. Needs root on a host that systemd has booted; makes units of its own. All but one test
//! want cgroup v2.

mod ground;

use std::fs;
use std::process::Command;

use cofferdam_cgroup::systemd::{annotation, booted};
use cofferdam_cgroup::{Cgroup, Driver, Options, Placement, Settings, Version, place, probe, translate};
use ground::{Sleeper, eventually, read};

/// A placement in system.slice, with a name of its own.
fn unit(name: &str, v2: bool) -> Option<Placement> {
    if !nix::unistd::geteuid().is_root() || !booted() || (probe().unwrap().version() == Version::V2) != v2 {
        return None;
    }
    let path = format!("system.slice:cofferdam-test:{}-{name}", std::process::id());
    Some(place(&probe().unwrap(), name, Some(&path), Driver::Systemd, false).unwrap())
}

macro_rules! unit {
    ($name:expr) => {
        match unit($name, true) {
            None => skip!("needs root, systemd and cgroup v2"),
            Some(placement) => placement,
        }
    };
}

fn settings(json: &str) -> Settings {
    let mut resources: oci_spec::runtime::LinuxResources = serde_json::from_str(json).unwrap();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.extend(cofferdam_cgroup::default_device_rules());
    resources.set_devices(Some(rules));
    translate(&resources, &probe().unwrap(), Driver::Systemd, true).unwrap()
}

fn update(json: &str) -> Settings {
    translate(&serde_json::from_str(json).unwrap(), &probe().unwrap(), Driver::Systemd, false).unwrap()
}

fn start(placement: &Placement, settings: &Settings) -> (Cgroup, Sleeper) {
    let prepared = Cgroup::prepare(placement, settings, &Options::default()).unwrap();
    assert!(prepared.clone_dir().is_none() && !prepared.can_enter_by_itself());
    let sleeper = Sleeper::new();
    (prepared.enter(sleeper.pid, false).unwrap(), sleeper)
}

fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl")
        .args(["show", "--value", "-p", property, unit])
        .output()
        .expect("systemctl");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn name(placement: &Placement) -> &str {
    &placement.unit.as_ref().unwrap().name
}

fn end(cgroup: &Cgroup) {
    cgroup.kill_all(9).unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn a_scope_holds_the_child_and_its_limits() {
    let placement = unit!("limits");
    let settings = settings(
        r#"{"memory":{"limit":67108864,"swap":100663296,"reservation":1048576},"pids":{"limit":77},
            "cpu":{"shares":512,"quota":33333,"period":100000,"cpus":"0"},
            "unified":{"memory.high":"50331648","memory.oom.group":"1"}}"#,
    );
    let (cgroup, sleeper) = start(&placement, &settings);
    let unit = name(&placement);
    assert_eq!(cgroup.pids(true).unwrap(), [sleeper.pid]);
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "1048576"),
        ("MemoryHigh", "50331648"),
        ("TasksMax", "77"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "340ms"),
        ("CPUQuotaPeriodUSec", "100ms"),
        ("AllowedCPUs", "0"),
        ("DevicePolicy", "strict"),
    ] {
        assert_eq!(show(unit, property), value, "{property}");
    }
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("pids.max", "77"),
        // The file has what was asked for, where systemd has it rounded up.
        ("cpu.max", "33333 100000"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("memory.oom.group", "1"),
    ] {
        assert_eq!(read(&cgroup, "", file), value, "{file}");
    }
    end(&cgroup);
    assert!(!cgroup.exists());
    assert_eq!(show(unit, "LoadState"), "not-found");
}

#[test]
fn on_v1_the_child_enters_what_systemd_leaves_out() {
    let Some(placement) = unit("v1", false) else { skip!("needs root, systemd and cgroup v1") };
    let settings =
        settings(r#"{"memory":{"limit":67108864},"pids":{"limit":77},"cpu":{"shares":512,"cpus":"0"}}"#);
    let (cgroup, sleeper) = start(&placement, &settings);
    for (controllers, path) in sleeper.cgroups() {
        let ours = placement.dirs.iter().find(|dir| dir.controllers.join(",") == controllers);
        if let Some(dir) = ours {
            assert_eq!(format!("{}{path}", dir.mount_point), dir.path, "{controllers}");
        }
    }
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("pids", "pids.max", "77"),
        ("cpu", "cpu.shares", "512"),
        ("cpuset", "cpuset.cpus", "0"),
    ] {
        assert_eq!(read(&cgroup, controller, file), value);
    }
    assert!(!read(&cgroup, "devices", "devices.list").contains("a *:*"));
    assert_eq!(show(name(&placement), "TasksMax"), "77");
    cgroup.freeze().unwrap();
    cgroup.thaw().unwrap();
    cgroup.apply(&update(r#"{"pids":{"limit":60}}"#)).unwrap();
    assert_eq!(read(&cgroup, "pids", "pids.max"), "60");
    assert!(!cgroup.is_frozen().unwrap());
    end(&cgroup);
    for dir in &placement.dirs {
        assert!(!fs::exists(&dir.path).unwrap(), "{}", dir.path);
    }
}

#[test]
fn limits_outlive_a_reload_of_systemd_after_an_update() {
    let placement = unit!("update");
    let settings = settings(r#"{"memory":{"limit":67108864},"pids":{"limit":50}}"#);
    let (cgroup, _sleeper) = start(&placement, &settings);
    cgroup
        .apply(&update(r#"{"memory":{"limit":33554432},"pids":{"limit":60},"cpu":{"quota":50000}}"#))
        .unwrap();
    let check = || {
        assert_eq!(read(&cgroup, "", "memory.max"), "33554432");
        assert_eq!(read(&cgroup, "", "pids.max"), "60");
        assert_eq!(read(&cgroup, "", "cpu.max"), "50000 100000");
    };
    check();
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    check();
    end(&cgroup);
}

#[test]
fn devices_are_filtered() {
    let placement = unit!("devices");
    let settings = settings(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let out = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-sddev", std::process::id()));
    let go = out.with_extension("go");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; exec 2>/dev/null >{}; cat /dev/null && echo null; head -c0 /dev/kmsg && \
         echo kmsg; sleep 1000",
        go.display(),
        out.display()
    );
    let shell = Sleeper::script(None, &script, &[]);
    let cgroup = prepared.enter(shell.pid, false).unwrap();
    fs::write(&go, "").unwrap();
    let text = eventually("the script is through", || {
        let running = fs::read_to_string(&out).is_ok_and(|text| !text.is_empty());
        // The last line is printed right before the sleep, if it is printed at all.
        (running && cgroup.pids(true).unwrap().len() == 2).then(|| fs::read_to_string(&out).unwrap())
    });
    assert_eq!(text, "null\n");
    fs::remove_file(&out).unwrap();
    fs::remove_file(&go).unwrap();
    end(&cgroup);
}

#[test]
fn annotations_become_properties() {
    let placement = unit!("annotations");
    let mut settings = settings("{}");
    settings.properties.extend(
        annotation::properties([
            ("org.systemd.property.TimeoutStopUSec", "uint64 12000000"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
        ])
        .unwrap(),
    );
    let (cgroup, _sleeper) = start(&placement, &settings);
    assert_eq!(show(name(&placement), "TimeoutStopUSec"), "12s");
    assert_eq!(show(name(&placement), "CollectMode"), "inactive-or-failed");
    end(&cgroup);
}

#[test]
fn a_unit_that_is_in_use_is_left_alone() {
    let placement = unit!("used");
    let settings = settings("{}");
    let (cgroup, sleeper) = start(&placement, &settings);
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let second = Sleeper::new();
    let error = prepared.enter(second.pid, false).unwrap_err();
    assert!(error.to_string().contains("(UnitExists)"), "{error}");
    assert!(sleeper.is_running() && second.is_running());
    assert_eq!(cgroup.pids(true).unwrap(), [sleeper.pid]);
    end(&cgroup);
}

#[test]
fn a_scope_that_is_gone_can_be_removed() {
    let placement = unit!("gone");
    let settings = settings("{}");
    let (cgroup, mut sleeper) = start(&placement, &settings);
    sleeper.kill();
    sleeper.ended_by();
    eventually("systemd has noticed", || (show(name(&placement), "LoadState") == "not-found").then_some(()));
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn a_limit_that_fails_stops_the_unit() {
    let placement = unit!("rollback");
    let settings = settings(r#"{"unified":{"nonsense.max":"1"}}"#);
    let prepared = Cgroup::prepare(&placement, &settings, &Options::default()).unwrap();
    let mut sleeper = Sleeper::new();
    let error = prepared.enter(sleeper.pid, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unified resource \"nonsense.max\" can't be set: controller \"nonsense\" not available"
    );
    assert_eq!(sleeper.ended_by(), 9);
    eventually("the unit is gone", || (show(name(&placement), "LoadState") == "not-found").then_some(()));
}

#[test]
fn a_user_gets_a_scope_of_their_own() {
    if nix::unistd::geteuid().is_root() || !booted() || std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        skip!("needs a user with a systemd manager, not root");
    }
    let layout = probe().unwrap();
    let id = format!("user-{}", std::process::id());
    let placement = place(&layout, &id, None, Driver::Systemd, true).unwrap();
    let settings = settings(r#"{"pids":{"limit":77}}"#);
    let options = Options { rootless: true, ..Options::default() };
    let prepared = Cgroup::prepare(&placement, &settings, &options).unwrap();
    let sleeper = Sleeper::new();
    let cgroup = prepared.enter(sleeper.pid, false).unwrap();
    let path = cgroup.unified_path().unwrap();
    let uid = nix::unistd::geteuid();
    let ending = format!("/user@{uid}.service/user.slice/cofferdam-{id}.scope");
    assert!(path.ends_with(&ending), "{path}");
    assert_eq!(cgroup.pids(true).unwrap(), [sleeper.pid]);
    assert_eq!(read(&cgroup, "pids", "pids.max"), "77");
    end(&cgroup);
    assert!(!cgroup.exists());
}
