//! A container of a test.

use super::call::{Call, Out, Running};
use super::{Bundle, T, cgroups, procs};
use cofferdam_sys::process;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A container: its name, its bundle, and calls that are about it.
pub struct Container<'t> {
    t: &'t T,
    /// Its name.
    pub id: String,
    /// Its bundle, config.json not yet written.
    pub bundle: Bundle,
    /// Its cgroup's path below the hierarchies' roots (cgroupfs).
    pub cgroup: String,
}

impl<'t> Container<'t> {
    /// A container that does not exist yet.
    pub fn new(t: &'t T, bundle: &Bundle, id: String) -> Container<'t> {
        let mut bundle = bundle.clone();
        let cgroup = format!("{}/{id}", t.cgroup);
        if !bundle.own_cgroup {
            let path = if t.systemd { format!("system.slice:cofferdam:{id}") } else { cgroup.clone() };
            bundle.set(json!({"linux": {"cgroupsPath": path}}));
        }
        Container { t, id, bundle, cgroup }
    }

    /// A call of a verb with the words behind it, and the container's name last.
    pub fn verb(&self, words: &[&str]) -> Call<'t> {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words.push(self.id.clone());
        self.t.call(&words)
    }

    /// A `create` or `run`, config.json written.
    pub fn make(&self, words: &[&str]) -> Call<'t> {
        self.bundle.save();
        let bundle = self.bundle.dir.to_string_lossy().into_owned();
        let mut all = vec![words[0], "--bundle", &bundle];
        all.extend(&words[1..]);
        self.verb(&all)
    }

    /// Creates it.
    pub fn create(&self) -> Out {
        self.make(&["create"]).run()
    }

    /// Creates and starts it; its output goes to the file of the result.
    #[track_caller]
    pub fn launch(&self) -> Out {
        let out = self.create().ok();
        self.start().ok();
        out
    }

    /// Runs it to its end.
    pub fn run(&self) -> Out {
        self.make(&["run"]).run()
    }

    /// Starts it.
    pub fn start(&self) -> Out {
        self.verb(&["start"]).run()
    }

    /// Deletes it.
    pub fn delete(&self) -> Out {
        self.verb(&["delete"]).run()
    }

    /// Deletes it whatever its state, and sees that nothing is left.
    #[track_caller]
    pub fn force_delete(&self) {
        self.verb(&["delete", "--force"]).run().ok();
        let state = self.t.state_dir().join(&self.id);
        assert!(!state.exists(), "{} is left", state.display());
    }

    /// Deletes what a failed run may have left.
    pub fn delete_if_there(&self) {
        if self.exists() {
            self.verb(&["delete", "--force"]).run();
        }
    }

    /// Whether it has a state.
    pub fn exists(&self) -> bool {
        self.t.state_dir().join(&self.id).exists()
    }

    /// Sends it a signal.
    pub fn kill(&self, signal: &str) -> Out {
        self.t.call(&["kill", &self.id, signal]).run()
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb(&["state"]).run().ok().json()
    }

    /// The status that `state` prints.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    /// Its first process's pid.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("a pid");
        assert!(pid > 0, "no pid: {}", self.state());
        pid as i32
    }

    /// Runs something in it, to its end.
    pub fn exec(&self, args: &[&str]) -> Out {
        self.exec_with(&[], args).run()
    }

    /// Runs a script in it; what it printed.
    #[track_caller]
    pub fn exec_sh(&self, script: &str) -> String {
        self.exec(&["sh", "-c", script]).ok().stdout
    }

    /// A call that runs something in it, with flags.
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Call<'t> {
        let mut words = vec!["exec"];
        words.extend(flags);
        words.push(&self.id);
        words.extend(args);
        self.t.call(&words)
    }

    /// Runs it in the foreground, from behind.
    pub fn spawn_run(&self) -> Running {
        self.make(&["run"]).spawn()
    }

    /// Waits until it has stopped: until its process has ended, if there is one, and then until `state` says so.
    #[track_caller]
    pub fn await_stop(&self) {
        let pid = self.state()["pid"].as_i64().unwrap_or(0) as i32;
        if pid > 0
            && let Ok(pidfd) = process::pidfd_open(pid)
        {
            let limit = self.t.seconds(20).as_millis();
            let _ = process::poll_readable(&pidfd, i64::try_from(limit).unwrap_or(i64::MAX));
        }
        self.await_status("stopped");
    }

    /// Waits for a status.
    #[track_caller]
    pub fn await_status(&self, status: &str) {
        let mut last = String::new();
        let there = procs::wait_until(self.t.seconds(20), || {
            last = self.status();
            last == status
        });
        assert!(there, "still {last}, not {status}");
    }

    /// The directory of its cgroup.
    #[track_caller]
    pub fn cgroup_dir(&self, controller: &str) -> PathBuf {
        let dir = cgroups::dir_of(&self.t.host, self.pid(), controller);
        dir.unwrap_or_else(|| panic!("no cgroup of {controller}"))
    }

    /// A value in its cgroup.
    #[track_caller]
    pub fn cgroup_value(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup_dir(controller).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim_end().to_owned()
    }
}
