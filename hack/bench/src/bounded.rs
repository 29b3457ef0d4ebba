//! One command, timed and bounded in time: a runtime that hangs is killed and reported.

use crate::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What one command took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From before the spawn until its end was seen, by the monotonic clock.
    pub wall: f64,
    /// Processor time of the command and of all it waited for, in user and kernel mode.
    pub cpu: f64,
}

/// How one command ended.
#[derive(Debug)]
pub enum Outcome {
    /// With status 0.
    Done(Sample),
    /// Otherwise: its status and the last line it wrote.
    Failed(String),
    /// Not by itself.
    Hung,
}

/// Runs commands one at a time, each no longer than a limit.
pub struct Bounded {
    watch: Arc<(Mutex<Watch>, Condvar)>,
    limit: Duration,
    errors: File,
}

#[derive(Default)]
struct Watch {
    /// The process that runs, and when it will have run too long.
    running: Option<(Pid, Instant)>,
    killed: bool,
    over: bool,
}

impl Bounded {
    /// `errors` is the file that takes the commands' standard error.
    ///
    /// # Errors
    /// If that file cannot be made, or no thread.
    pub fn new(errors: &Path, limit: Duration) -> Result<Bounded> {
        let watch = Arc::new((Mutex::new(Watch::default()), Condvar::new()));
        let theirs = Arc::clone(&watch);
        std::thread::Builder::new().name("limit".into()).spawn(move || keep_limit(&theirs))?;
        let errors = File::options().read(true).append(true).create(true).open(errors)?;
        Ok(Bounded { watch, limit, errors })
    }

    /// Runs `command` with no input and no output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, command: &mut Command) -> Result<Outcome> {
        self.errors.set_len(0)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.errors.try_clone()?);
        let used = cpu()?;
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let pid = Pid::from_raw(child.id() as i32);
        self.set(Some((pid, begin + self.limit)));
        // Without reaping: until the pid is off the watch, nobody else may have it.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        let wall = begin.elapsed();
        let killed = self.set(None);
        let status = child.wait()?;
        if killed {
            return Ok(Outcome::Hung);
        }
        if !status.success() {
            return Ok(Outcome::Failed(format!("{status}: {}", self.last_line()?)));
        }
        Ok(Outcome::Done(Sample { wall: wall.as_secs_f64() * 1e3, cpu: cpu()? - used }))
    }

    fn set(&self, running: Option<(Pid, Instant)>) -> bool {
        let mut watch = self.watch.0.lock().expect("nobody panics with it");
        watch.running = running;
        std::mem::take(&mut watch.killed)
    }

    fn last_line(&self) -> Result<String> {
        let mut file = &self.errors;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.watch.0.lock().expect("nobody panics with it").over = true;
        self.watch.1.notify_one();
    }
}

/// Processor time of all children waited for, in milliseconds.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e3)
}

/// Looks a few times a second: whoever woke it at every command would measure that, too.
fn keep_limit((watch, changed): &(Mutex<Watch>, Condvar)) {
    let mut watch = watch.lock().expect("nobody panics with it");
    while !watch.over {
        if let Some((pid, end)) = watch.running
            && end < Instant::now()
        {
            let _ = kill(pid, Signal::SIGKILL);
            watch.killed = true;
            watch.running = None;
        }
        watch = changed.wait_timeout(watch, Duration::from_millis(250)).expect("nobody panics with it").0;
    }
}
