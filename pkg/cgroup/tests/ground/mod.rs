//! The ground that root tests stand on: an own parent cgroup in every hierarchy, removed at the end, and processes
//! that do nothing.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use cofferdam_cgroup::{
    Cgroup, CgroupError, Driver, Layout, Options, Placement, Settings, place, probe, translate,
};
use cofferdam_sys::{Fd, Strings, process, spawn};

/// Says why and returns from the test.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("skipped: {}", format!($($reason)*));
        return;
    }};
}

/// `/cofferdam-test-<pid>-<name>` in every hierarchy.
pub struct Ground {
    pub layout: Layout,
    pub parent: String,
}

impl Ground {
    /// `None` without the rights to make cgroups.
    pub fn new(name: &str) -> Option<Ground> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let parent = format!("/cofferdam-test-{}-{name}", std::process::id());
        Some(Ground { layout: probe().unwrap(), parent })
    }

    pub fn place(&self, id: &str) -> Placement {
        place(&self.layout, id, Some(&format!("{}/{id}", self.parent)), Driver::Fs, false).unwrap()
    }

    pub fn settings(&self, json: &str) -> Settings {
        translate(&serde_json::from_str(json).unwrap(), &self.layout, Driver::Fs, false).unwrap()
    }

    pub fn settings_with_devices(&self, json: &str) -> Settings {
        let mut resources: oci_spec::runtime::LinuxResources = serde_json::from_str(json).unwrap();
        let mut rules = resources.devices().clone().unwrap_or_default();
        rules.extend(cofferdam_cgroup::default_device_rules());
        resources.set_devices(Some(rules));
        translate(&resources, &self.layout, Driver::Fs, true).unwrap()
    }

    /// A container's cgroup with a process in it.
    pub fn container(&self, id: &str, json: &str) -> (Cgroup, Sleeper) {
        self.container_with(id, &self.settings(json))
    }

    pub fn container_with(&self, id: &str, settings: &Settings) -> (Cgroup, Sleeper) {
        let placement = self.place(id);
        let prepared = Cgroup::prepare(&placement, settings, &Options::default()).unwrap();
        let sleeper = Sleeper::into(prepared.clone_dir().map(|dir| dir.as_raw_fd()));
        let cloned = prepared.clone_dir().is_some();
        let cgroup = prepared.enter(sleeper.pid, cloned).unwrap();
        (cgroup, sleeper)
    }

    pub fn prepare_error(&self, id: &str, settings: &Settings) -> CgroupError {
        match Cgroup::prepare(&self.place(id), settings, &Options::default()) {
            Ok(_) => panic!("prepare succeeded"),
            Err(error) => error,
        }
    }

    /// Nothing of the container is left in any hierarchy.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        for dir in self.place(id).dirs {
            assert!(!std::path::Path::new(&dir.path).exists(), "{} is left", dir.path);
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for dir in self.place("x").dirs {
            let parent = dir.path.rsplit_once('/').unwrap().0.to_owned();
            remove(&parent);
        }
    }
}

fn remove(path: &str) {
    if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove(entry.path().to_str().unwrap());
        }
    }
    let _ = std::fs::remove_dir(path);
}

/// A process that sleeps until it is killed; reaped when dropped.
pub struct Sleeper {
    pub pid: i32,
    pub pidfd: Fd,
    reaped: bool,
}

impl Sleeper {
    pub fn new() -> Sleeper {
        Sleeper::into(None)
    }

    /// Born in the v2 cgroup with this directory.
    pub fn into(cgroup: Option<i32>) -> Sleeper {
        Sleeper::script(cgroup, "exec sleep 1000", &[])
    }

    /// Runs `script` in a shell that inherits the descriptors. Born in a cgroup it starts with all signals blocked, as
    /// every process that `cofferdam_sys` spawns.
    pub fn script(cgroup: Option<i32>, script: &str, inherit: &[i32]) -> Sleeper {
        let Some(cgroup) = cgroup else {
            for &number in inherit {
                let borrowed = cofferdam_sys::Borrowed(number);
                cofferdam_sys::fs::set_close_on_exec(&borrowed, false).unwrap();
            }
            #[expect(clippy::zombie_processes, reason = "reaped by its pid when dropped")]
            let child = std::process::Command::new("/bin/sh").arg("-c").arg(script).spawn().unwrap();
            let pid = child.id() as i32;
            return Sleeper { pid, pidfd: process::pidfd_open(pid).unwrap(), reaped: false };
        };
        let image = Fd::from(std::os::fd::OwnedFd::from(File::open("/bin/sh").unwrap()));
        let spawned = spawn::spawn(&spawn::Spawn {
            image: &image,
            namespaces: 0,
            cgroup: Some(cgroup),
            args: &Strings::new(&["sh", "-c", script]).unwrap(),
            env: &Strings::new(&["PATH=/usr/bin:/bin"]).unwrap(),
            inherit,
            stdio: None,
        })
        .unwrap();
        Sleeper { pid: spawned.pid, pidfd: spawned.pidfd, reaped: false }
    }

    /// A shell that moves itself into the cgroups behind `entries` and then sleeps.
    pub fn entering(cgroup: Option<i32>, entries: &[impl AsFd]) -> Sleeper {
        let mut script = String::new();
        let mut inherit = Vec::new();
        for entry in entries {
            let number = entry.as_fd().as_raw_fd();
            // dash knows no descriptor above 9 by its number.
            script += &format!("echo 0 >/proc/$$/fd/{number}; ");
            inherit.push(number);
        }
        Sleeper::script(cgroup, &(script + "exec sleep 1000"), &inherit)
    }

    /// Lines of `/proc/PID/cgroup`, as (controllers, path).
    pub fn cgroups(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap();
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned())
            })
            .collect()
    }

    pub fn kill(&self) {
        let _ = process::pidfd_send_signal(&self.pidfd, 9);
    }

    /// Waits for its end, up to ten seconds: the number of the signal that ended it.
    pub fn ended_by(&mut self) -> i32 {
        let status = eventually("process ends", || process::wait(self.pid, true).unwrap());
        self.reaped = true;
        status & 0x7f
    }

    pub fn is_running(&self) -> bool {
        !process::poll_readable(&self.pidfd, 0).unwrap()
    }

    /// User and system time in clock ticks.
    pub fn ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = process::wait(self.pid, false);
        }
    }
}

/// Asks up to ten seconds long.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn read(cgroup: &Cgroup, controller: &str, file: &str) -> String {
    let path = format!("{}/{file}", cgroup.path(controller).unwrap());
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}
