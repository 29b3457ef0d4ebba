//! A call of the runtime: bounded in time, with everything that it said.

use super::T;
use super::world::Runtime;
use cofferdam_sys::process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a call may take unless it is told otherwise.
const LIMIT: u64 = 20;

/// What a call finds programs in, behind the folder of `$CRIU`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A call that is being put together.
pub struct Call<'t> {
    t: &'t T,
    words: Vec<String>,
    front: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Stdio,
    files: Files,
    limit: Duration,
    cwd: Option<PathBuf>,
}

#[derive(Clone)]
struct Files {
    log: PathBuf,
    out: PathBuf,
    err: PathBuf,
}

impl<'t> Call<'t> {
    /// A call with the global flags that every test has.
    pub fn new<S: AsRef<str>>(t: &'t T, runtime: &Runtime, words: &[S]) -> Call<'t> {
        let call = t.dir.join(format!("call{}", t.number()));
        let files = Files {
            log: call.with_extension("log"),
            out: call.with_extension("out"),
            err: call.with_extension("err"),
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (front, program) = t.caller();
        let program = if runtime.path == t.runtime.path { program } else { runtime.path.clone() };
        let mut all = vec![text(&program), "--root".into(), text(&t.state_dir())];
        all.extend(["--log".into(), text(&files.log), "--log-format".into(), "json".into()]);
        if t.systemd {
            all.push("--systemd-cgroup".into());
        }
        all.extend(words.iter().map(|word| word.as_ref().to_owned()));
        Call {
            t,
            words: all,
            front,
            env: Vec::new(),
            stdin: Stdio::null(),
            files,
            limit: t.seconds(LIMIT),
            cwd: None,
        }
    }

    /// The same without the global flags.
    pub fn bare(mut self) -> Call<'t> {
        let globals = if self.t.systemd { 8 } else { 7 };
        self.words.drain(1..globals);
        self
    }

    /// The call is made by another program, which gets the call's words behind its own.
    pub fn through<S: AsRef<str>>(mut self, front: &[S]) -> Call<'t> {
        self.front.extend(front.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The call is made by a shell that does something first.
    pub fn after(self, script: &str) -> Call<'t> {
        let script = format!("{script}; exec \"$@\"");
        self.through(&["/bin/busybox", "sh", "-c", &script, "sh"])
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call<'t> {
        self.env.push((name.into(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Where the call is made.
    pub fn cwd(mut self, dir: &Path) -> Call<'t> {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// What stdin is; else it is empty.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Call<'t> {
        self.stdin = stdin.into();
        self
    }

    /// stdin has this text.
    pub fn input(self, text: &str) -> Call<'t> {
        let path = self.files.out.with_extension("in");
        fs::write(&path, text).expect("write the input");
        let file = File::open(path).expect("open the input");
        self.stdin(file)
    }

    /// It may take this many seconds.
    pub fn within(mut self, seconds: u64) -> Call<'t> {
        self.limit = self.t.seconds(seconds);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Running {
        let out = File::create(&self.files.out).expect("make the output");
        let err = File::create(&self.files.err).expect("make the output");
        self.spawn_with(out, err)
    }

    /// Starts it with a stdout and stderr of the caller's.
    pub fn spawn_with(self, out: impl Into<Stdio>, err: impl Into<Stdio>) -> Running {
        let words: Vec<String> = self.front.into_iter().chain(self.words).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear();
        let criu = super::host::criu_folder().map_or_else(String::new, |dir| format!("{}:", dir.display()));
        command.env("PATH", format!("{criu}{PATH}"));
        command.env("HOME", "/root").env("USER", "root").envs(self.env);
        command.stdin(self.stdin).stdout(out).stderr(err);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")));
        Running { what: words.join(" "), child, files: self.files, limit: self.limit }
    }

    /// Makes it, and waits for its end.
    pub fn run(self) -> Out {
        self.spawn().wait()
    }
}

/// A call that is being carried out.
pub struct Running {
    what: String,
    child: Child,
    files: Files,
    limit: Duration,
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn kill(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("kill the call");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        text(&self.files.out)
    }

    /// Waits until what it has printed contains the words.
    pub fn await_output(&self, words: &str) {
        let there = super::procs::wait_until(self.limit, || self.printed().contains(words));
        assert!(
            there,
            "{}: did not print {words:?} but {:?} {:?}",
            self.what,
            self.printed(),
            text(&self.files.err)
        );
    }

    /// Waits for its end. A hang is a failure.
    pub fn wait(mut self) -> Out {
        // Whoever has seen that it has ended has reaped it.
        let ended = self.has_ended() || {
            let pidfd = process::pidfd_open(self.pid()).expect("pidfd_open");
            let limit = i64::try_from(self.limit.as_millis()).unwrap_or(i64::MAX);
            process::poll_readable(&pidfd, limit).expect("poll")
        };
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("wait");
        let out = Out {
            code: status.code(),
            signal: status.signal(),
            stdout: text(&self.files.out),
            stderr: text(&self.files.err),
            log: text(&self.files.log),
            stdout_file: self.files.out,
            what: self.what,
        };
        assert!(ended, "hung: {out:?}");
        out
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What came of a call.
pub struct Out {
    /// The words of the call.
    pub what: String,
    /// Its exit status.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed until its end.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// Its log: one JSON object a line.
    pub log: String,
    /// The file of its stdout, to which a container may still print.
    pub stdout_file: PathBuf,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        writeln!(f, "{}\n  -> {end}", self.what)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr), ("log", &self.log)] {
            if !text.is_empty() && (name != "log" || self.stderr.is_empty()) {
                writeln!(f, "  {name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

impl Out {
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Out {
        assert!(self.code == Some(0), "failed: {self:?}");
        self
    }

    /// Asserts failure, by an exit status.
    #[track_caller]
    pub fn fails(self) -> Out {
        assert!(self.code.is_some_and(|code| code != 0), "should have failed: {self:?}");
        self
    }

    /// Asserts an exit status.
    #[track_caller]
    pub fn code(self, code: i32) -> Out {
        assert!(self.code == Some(code), "not {code}: {self:?}");
        self
    }

    /// The error that the log ends with: what engines read.
    #[track_caller]
    pub fn message(&self) -> String {
        let errors = self.log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let error = errors.rev().find(|entry| entry["level"] == "error");
        match error {
            Some(entry) => entry["msg"].as_str().unwrap_or_default().to_owned(),
            None => panic!("the log has no error: {self:?}"),
        }
    }

    /// Asserts that the error contains the words.
    #[track_caller]
    pub fn says(self, words: &str) -> Out {
        assert!(self.message().contains(words), "{:?} does not say {words:?}", self.message());
        self
    }

    /// The warnings of the log.
    pub fn warnings(&self) -> Vec<String> {
        let entries = self.log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let warnings = entries.filter(|entry| entry["level"] == "warning");
        warnings.map(|entry| entry["msg"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
