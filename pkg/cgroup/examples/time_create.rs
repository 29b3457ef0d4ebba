//! Times the cgroup of a container on this host against the bare kernel operations: make, enter, remove.
//!
//! `time_create [ROUNDS] [PAUSE_MS]`, as root. Entering another process by `cgroup.procs` waits for an RCU grace
//! period unless somebody has just done so: compare a pause of 0 with one of 20.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use cofferdam_cgroup::{Cgroup, Driver, Options, Placement, Settings, place, probe, translate};
use cofferdam_sys::{Fd, Strings, process, spawn};

/// What Docker 28 writes for a container with limits.
const RESOURCES: &str = r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":77},
    "cpu":{"quota":50000,"period":100000},"devices":[{"allow":false,"access":"rwm"}]}"#;

struct Samples {
    name: &'static str,
    micros: Vec<f64>,
}

impl Samples {
    fn new(name: &'static str) -> Self {
        Samples { name, micros: Vec::new() }
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.micros.push(start.elapsed().as_secs_f64() * 1e6);
        result
    }

    fn print(mut self) {
        self.micros.sort_by(f64::total_cmp);
        let at = |part: usize| self.micros[(self.micros.len() - 1) * part / 100];
        println!("{:<28} min {:>7.0}  median {:>7.0}  p90 {:>7.0} us", self.name, at(0), at(50), at(90));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let rounds = arguments.next().unwrap_or(200);
    let pause = Duration::from_millis(arguments.next().unwrap_or(0));
    let layout = probe().expect("cgroups");
    let path = format!("/cofferdam-time-{}", std::process::id());
    let placement = place(&layout, "time", Some(&path), Driver::Fs, false).expect("a placement");
    let mut resources: oci_spec::runtime::LinuxResources = serde_json::from_str(RESOURCES).expect("JSON");
    let plain: oci_spec::runtime::LinuxResources = serde_json::from_str("{}").expect("JSON");
    let bare = translate(&plain, &layout, Driver::Fs, false).expect("settings");
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.extend(cofferdam_cgroup::default_device_rules());
    resources.set_devices(Some(rules));
    let full = translate(&resources, &layout, Driver::Fs, true).expect("settings");
    let mut samples = [
        "probe",
        "floor: make",
        "floor: enter by procs",
        "floor: remove",
        "ours: make",
        "ours: enter by procs",
        "ours: remove",
        "ours: make with limits",
        "ours: enter by itself",
        "ours: remove after",
    ]
    .map(Samples::new);
    for _ in 0..rounds {
        samples[0].time(probe).expect("cgroups");
        floor(&placement, &mut samples[1..4]);
        std::thread::sleep(pause);
        by_procs(&placement, &bare, &mut samples[4..7]);
        std::thread::sleep(pause);
        by_itself(&placement, &full, &mut samples[7..10]);
        std::thread::sleep(pause);
    }
    samples.into_iter().for_each(Samples::print);
}

fn write(path: &str, value: &str) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .expect(path);
}

/// A shell that waits for its input to end; with `entries` it enters the cgroups first, and says how long that took by
/// being waited for.
fn shell(script: &str, cgroup: Option<i32>) -> (i32, std::os::fd::OwnedFd) {
    let image = Fd::from(std::os::fd::OwnedFd::from(fs::File::open("/bin/sh").expect("sh")));
    let (input, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    let spawned = spawn::spawn(&spawn::Spawn {
        image: &image,
        namespaces: 0,
        cgroup,
        args: &Strings::new(&["sh", "-c", script]).expect("arguments"),
        env: &Strings::new(&["PATH=/bin"]).expect("environment"),
        inherit: &[],
        stdio: Some([input.as_raw_fd(), 1, 2]),
    })
    .expect("spawn");
    (spawned.pid, hold)
}

fn floor(placement: &Placement, samples: &mut [Samples]) {
    samples[0].time(|| {
        for dir in &placement.dirs {
            fs::create_dir(&dir.path).expect("mkdir");
            if dir.controllers.iter().any(|c| c == "cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = fs::read_to_string(format!("{}/{file}", dir.mount_point)).expect("cpuset");
                    write(&format!("{}/{file}", dir.path), value.trim());
                }
            }
        }
    });
    let (pid, hold) = shell("read x", None);
    samples[1].time(|| {
        for dir in &placement.dirs {
            write(&format!("{}/cgroup.procs", dir.path), &pid.to_string());
        }
    });
    drop(hold);
    process::wait(pid, false).expect("wait");
    samples[2].time(|| placement.dirs.iter().for_each(|dir| fs::remove_dir(&dir.path).expect("rmdir")));
}

fn by_procs(placement: &Placement, settings: &Settings, samples: &mut [Samples]) {
    let prepared =
        samples[0].time(|| Cgroup::prepare(placement, settings, &Options::default())).expect("prepare");
    let (pid, hold) = shell("read x", None);
    let cgroup = samples[1].time(|| prepared.enter(pid, false)).expect("enter");
    drop(hold);
    process::wait(pid, false).expect("wait");
    samples[2].time(|| cgroup.remove()).expect("remove");
}

fn by_itself(placement: &Placement, settings: &Settings, samples: &mut [Samples]) {
    let prepared =
        samples[0].time(|| Cgroup::prepare(placement, settings, &Options::default())).expect("prepare");
    // What a child does for itself is done by this thread here: it is the same system calls, and the only way to time
    // them alone. (This process has one thread.)
    let home: Vec<_> = home(placement);
    let entries = samples[1].time(|| {
        let entries = prepared.self_entry().expect("entries");
        for entry in &entries {
            nix::unistd::write(entry, b"0").expect("enter");
        }
        entries
    });
    for path in &home {
        write(path, "0");
    }
    drop(entries);
    let (pid, hold) = shell("read x", prepared.clone_dir().map(|dir| dir.as_fd().as_raw_fd()));
    let cgroup = prepared.entered();
    drop(hold);
    process::wait(pid, false).expect("wait");
    samples[2].time(|| cgroup.remove()).expect("remove");
}

/// The `tasks` files of where this process is now.
fn home(placement: &Placement) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let mut files = Vec::new();
    for dir in placement.dirs.iter().filter(|dir| !dir.controllers.is_empty()) {
        let name = format!(":{}:", dir.controllers.join(","));
        let path = own.lines().find_map(|line| line.split_once(&name)).expect("own cgroup").1;
        files.push(format!("{}{}/tasks", dir.mount_point, path.trim_end_matches('/')));
    }
    files
}
