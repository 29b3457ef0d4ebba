//! One test in a place of its own: a private mount namespace, a directory, a cgroup; and what is done when it has ended.
//!
//! The supervisor is the subreaper of whatever the test starts: what outlives its parents ends up here, is waited for, and is
//! found when it outlives the test.

use super::host::Host;
use super::world::{Kind, Runtime};
use super::{T, Test, cgroups, procs};
use cofferdam_sys::{fs::read, process};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The exit status of a skipped test.
pub const SKIPPED: i32 = 77;

/// What a supervisor and its test are told.
#[derive(Clone, Debug)]
pub struct Order {
    /// The test.
    pub test: String,
    /// The runtime.
    pub runtime: Runtime,
    /// The one to compare with.
    pub peer: Option<Runtime>,
    /// An earlier build.
    pub previous: Option<Runtime>,
    /// The test's directory.
    pub dir: PathBuf,
    /// busybox's files.
    pub image: PathBuf,
    /// The probe.
    pub probe: PathBuf,
    /// The test's cgroup.
    pub cgroup: String,
    /// systemd makes the cgroups.
    pub systemd: bool,
    /// Times are multiplied by this.
    pub patience: u64,
    /// The test's time limit on an ordinary machine.
    pub seconds: u64,
}

impl Order {
    /// As one word of a command line.
    pub fn to_word(&self) -> String {
        let peer = self.peer.as_ref().map(runtime_word);
        let previous = self.previous.as_ref().map(runtime_word);
        json!({
            "test": self.test, "runtime": runtime_word(&self.runtime), "peer": peer, "dir": self.dir, "image": self.image,
            "probe": self.probe, "cgroup": self.cgroup, "systemd": self.systemd, "patience": self.patience,
            "seconds": self.seconds, "previous": previous,
        })
        .to_string()
    }

    /// What [`Order::to_word`] made.
    pub fn from_word(word: &str) -> Order {
        let value: Value = serde_json::from_str(word).expect("an order");
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Order {
            test: text("test"),
            runtime: word_runtime(&value["runtime"]).expect("a runtime"),
            peer: word_runtime(&value["peer"]),
            previous: word_runtime(&value["previous"]),
            dir: text("dir").into(),
            image: text("image").into(),
            probe: text("probe").into(),
            cgroup: text("cgroup"),
            systemd: value["systemd"] == true,
            patience: value["patience"].as_u64().unwrap_or(1),
            seconds: value["seconds"].as_u64().unwrap_or(60),
        }
    }
}

fn runtime_word(runtime: &Runtime) -> Value {
    json!([runtime.path, runtime.label])
}

fn word_runtime(value: &Value) -> Option<Runtime> {
    let label = value[1].as_str()?.to_owned();
    let kind = match label.split_once(' ')? {
        ("cofferdam", _) => Kind::Ours,
        ("runc", version) => Kind::Runc(super::test::parse(version)),
        _ => Kind::Other,
    };
    Some(Runtime { path: value[0].as_str()?.into(), kind, label })
}

/// The test's process: never returns when the test fails.
pub fn test(order: Order, tests: &[Test]) -> i32 {
    let test = tests.iter().find(|test| test.name() == order.test).expect("a test");
    let patience = u32::try_from(order.patience).unwrap_or(1);
    let t = T::new(
        order.runtime,
        order.peer,
        order.previous,
        order.dir,
        order.image,
        order.probe,
        order.cgroup,
        order.systemd,
        patience,
    );
    (test.run)(&t);
    t.unmount_all();
    0
}

/// The supervisor's process; its exit status is the test's verdict.
pub fn supervise(order: &Order) -> i32 {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("make / private");
    set_child_subreaper(true).expect("become a subreaper");
    fs::create_dir_all(&order.dir).expect("mkdir");
    let mounts_before = procs::mounts("/proc/self/mountinfo");
    let mut verdict = run(order);
    let left = leftovers(order, &mounts_before);
    if verdict == 0 && !left.is_empty() {
        eprintln!("left behind:\n  {}", left.join("\n  "));
        verdict = 1;
    }
    clean(order);
    verdict
}

// The test is waited for by its pid among all that is reparented to us.
#[allow(clippy::zombie_processes)]
fn run(order: &Order) -> i32 {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&children), None).expect("block SIGCHLD");
    let changes = process::signalfd(1 << (libc::SIGCHLD - 1)).expect("signalfd");
    let me = std::env::current_exe().expect("my own path");
    let child = Command::new(me).arg("--as-test").arg(order.to_word()).spawn().expect("start the test");
    let pid = child.id() as i32;
    let end = Instant::now() + Duration::from_secs(order.seconds * order.patience);
    loop {
        if let Reaped::Test(status) = reap(pid) {
            return status;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let stuck: Vec<String> =
                procs::descendants(process::getpid()).into_iter().map(procs::command_line).collect();
            eprintln!(
                "the test takes longer than {} s; its processes:\n  {}",
                order.seconds,
                stuck.join("\n  ")
            );
            return 1;
        }
        let wait = i64::try_from(left.as_millis()).unwrap_or(i64::MAX).min(1000);
        if process::poll_readable(&changes, wait).unwrap_or(false) {
            let _ = read(&changes, &mut [0; 128]);
        }
    }
}

/// What waiting for all that has ended has found.
enum Reaped {
    /// The test, with this exit status.
    Test(i32),
    /// Somebody is still there.
    Others,
    /// There is no child left, and so no descendant: whoever loses its parent becomes a subreaper's child.
    Nobody,
}

/// Waits for all that has ended.
fn reap(test: i32) -> Reaped {
    let mut verdict = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == test => verdict = Some(code),
            Ok(WaitStatus::Signaled(pid, ..)) if pid.as_raw() == test => verdict = Some(1),
            Ok(WaitStatus::StillAlive) => return verdict.map_or(Reaped::Others, Reaped::Test),
            Ok(_) => {}
            Err(_) => return verdict.map_or(Reaped::Nobody, Reaped::Test),
        }
    }
}

/// Whether no process of the test is left.
fn alone() -> bool {
    matches!(reap(0), Reaped::Nobody)
}

/// What a test that has passed must not leave.
fn leftovers(order: &Order, mounts_before: &[procs::MountLine]) -> Vec<String> {
    let mut left = Vec::new();
    // Whoever is on the way out may take a moment.
    if !procs::wait_until(Duration::from_secs(2 * order.patience), alone) {
        let pids = procs::descendants(process::getpid()).into_iter();
        left.extend(pids.map(|pid| format!("process {}", procs::command_line(pid))));
    }
    let host = Host::probe();
    for dir in cgroups::places(&host, &order.cgroup) {
        let below = cgroups::tree(&dir).into_iter().filter(|other| *other != dir);
        left.extend(below.map(|dir| format!("cgroup {}", dir.display())));
    }
    left.extend(scopes(order).iter().map(|dir| format!("cgroup {}", dir.display())));
    for mount in procs::mounts("/proc/self/mountinfo") {
        if !mounts_before.iter().any(|before| before.id == mount.id && before.target == mount.target) {
            left.push(format!("mount {} ({})", mount.target, mount.fstype));
        }
    }
    for entry in fs::read_dir(order.dir.join("state")).into_iter().flatten().flatten() {
        left.push(format!("state {}", entry.path().display()));
    }
    left
}

/// The scopes of the test's containers that systemd has made and that are still there.
fn scopes(order: &Order) -> Vec<PathBuf> {
    let mark = format!("-{}-", super::world::tag(&order.cgroup));
    let slice = Path::new(Host::UNIFIED).join("system.slice");
    let entries = fs::read_dir(slice).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_ours = |dir: &PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".scope") && name.contains(&mark)
    };
    entries.filter(is_ours).collect()
}

/// Ends and removes everything, in whatever state it is.
fn clean(order: &Order) {
    let host = Host::probe();
    let dirs = cgroups::places(&host, &order.cgroup);
    dirs.iter().for_each(|dir| cgroups::thaw(dir));
    let scopes = scopes(order);
    scopes.iter().for_each(|dir| cgroups::thaw(dir));
    procs::wait_until(Duration::from_secs(10 * order.patience), || {
        alone() || {
            procs::descendants(process::getpid()).into_iter().for_each(procs::end);
            alone()
        }
    });
    dirs.iter().chain(&scopes).for_each(|dir| cgroups::remove(dir));
    unmount_below(&order.dir);
    let _ = fs::remove_dir_all(&order.dir);
}

fn unmount_below(dir: &Path) {
    for mount in procs::mounts("/proc/self/mountinfo").iter().rev() {
        if Path::new(&mount.target).starts_with(dir) {
            let _ = umount2(mount.target.as_str(), MntFlags::MNT_DETACH);
        }
    }
}
