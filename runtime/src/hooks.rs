//! Hooks of the runtime's namespaces: prestart, createRuntime, poststart and poststop.
//!
//! A hook reads the container's state from stdin. What it writes to stdout and stderr is kept, the last few kilobytes, and
//! becomes part of the error when it fails.

use crate::error::{Ending, Error, HookFailure};
use cofferdam_spec::Hook;
use cofferdam_sys::shim::{self, Program};
use cofferdam_sys::{Fd, Strings, children, process};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How much of a hook's output is kept.
const OUTPUT: usize = 4096;

/// Runs the hooks of one kind in order, each with `state` on stdin.
///
/// # Errors
/// [`Error::HookFailed`] of the first hook that fails; those behind it are not run.
pub fn run(kind: &'static str, hooks: &[Hook], state: &str) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err((failure, output)) = run_one(hook, state.as_bytes()) {
            return Err(Error::HookFailed { kind, index, path: hook.path.clone(), failure, output });
        }
    }
    Ok(())
}

/// Runs all hooks of one kind; failures are logged and change nothing (poststop).
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &str) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err((failure, output)) = run_one(hook, state.as_bytes()) {
            let error = Error::HookFailed { kind, index, path: hook.path.clone(), failure, output };
            tracing::warn!("{error}");
        }
    }
}

/// The static name of a kind that a plan names.
pub fn kind(name: &str) -> &'static str {
    match name {
        "prestart" => "prestart",
        "createRuntime" => "createRuntime",
        "poststart" => "poststart",
        _ => "poststop",
    }
}

/// A hook without an environment of its own has the runtime's, as with runc and crun.
fn environment(hook: &Hook) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    if !hook.env.is_empty() {
        return hook.env.iter().map(|entry| entry.clone().into_bytes()).collect();
    }
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        [name.into_vec(), value.into_vec()].join(&b'=')
    };
    std::env::vars_os().map(entry).collect()
}

type Failed = (HookFailure, String);

/// Runs one program as a hook, with `state` on stdin; its failure with the end of what it wrote.
pub(crate) fn run_one(hook: &Hook, state: &[u8]) -> Result<(), Failed> {
    let not_started = |errno: i32| (HookFailure::NotStarted(errno), String::new());
    let args = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
    let args = Strings::new(args).map_err(|errno| not_started(errno.0))?;
    let env = Strings::new(&environment(hook)).map_err(|errno| not_started(errno.0))?;
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| not_started(errno as i32));
    let (stdin, feed) = pipe()?;
    let (output, out) = pipe()?;
    let fds = [(0, stdin.as_raw_fd()), (1, out.as_raw_fd()), (2, out.as_raw_fd())];
    let program = Program {
        path: hook.path.as_bytes(),
        args: &args,
        env: &env,
        fds: &fds,
        new_group: false,
        dies_with_thread: false,
    };
    let child = shim::start(&program).map_err(|errno| not_started(errno.0))?;
    drop((stdin, out));
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.unsigned_abs()));
    let mut supervised =
        Supervised { pidfd: &child.pidfd, feed: Some(feed), output: Some(output), kept: Vec::new() };
    let ended = supervised.until_end(state, deadline);
    if !ended {
        let _ = process::pidfd_send_signal(&child.pidfd, nix::libc::SIGKILL);
    }
    let status = children::wait(child.pid);
    let output = String::from_utf8_lossy(&supervised.kept).into_owned();
    match (ended, status) {
        (false, _) => Err((HookFailure::TimedOut(hook.timeout.unwrap_or_default().unsigned_abs()), output)),
        (true, Ok(0)) => Ok(()),
        (true, Err(errno)) => Err((HookFailure::Ended(Ending::Unheard(errno.0)), output)),
        (true, Ok(status)) if nix::libc::WIFSIGNALED(status) => {
            Err((HookFailure::Ended(Ending::Killed(nix::libc::WTERMSIG(status))), output))
        }
        (true, Ok(status)) => {
            Err((HookFailure::Ended(Ending::Exited(nix::libc::WEXITSTATUS(status))), output))
        }
    }
}

/// A hook that runs.
struct Supervised<'a> {
    pidfd: &'a Fd,
    /// Its stdin, until the state is written.
    feed: Option<OwnedFd>,
    /// Its stdout and stderr, until it closes them.
    output: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Supervised<'_> {
    /// Feeds the state and keeps the output until the hook has ended; false when the deadline came first. A grandchild that
    /// holds the output open does not matter.
    fn until_end(&mut self, mut state: &[u8], deadline: Option<Instant>) -> bool {
        if let Some(feed) = &self.feed {
            let _ = nix::fcntl::fcntl(feed, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        loop {
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
                }
            };
            let (ended, writable, readable) = self.poll(timeout);
            if readable {
                self.read();
            }
            if writable {
                state = self.write(state);
            }
            if ended {
                self.drain();
                return true;
            }
        }
    }

    fn poll(&self, timeout: PollTimeout) -> (bool, bool, bool) {
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let feed = self.feed.as_ref().map(|fd| {
            fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLOUT));
            fds.len() - 1
        });
        let output = self.output.as_ref().map(|fd| {
            fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        let _ = poll(&mut fds, timeout);
        let ready = |index: Option<usize>| index.is_some_and(|index| fds[index].any().unwrap_or(false));
        (ready(Some(0)), ready(feed), ready(output))
    }

    /// Writes some of the state, and closes stdin at its end or when nobody reads it.
    fn write<'s>(&mut self, state: &'s [u8]) -> &'s [u8] {
        let Some(feed) = self.feed.take() else { return state };
        let mut file = std::fs::File::from(feed);
        match file.write(state) {
            Ok(length) if length < state.len() => {
                self.feed = Some(file.into());
                &state[length..]
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.feed = Some(file.into());
                state
            }
            _ => &[],
        }
    }

    fn read(&mut self) -> bool {
        let Some(output) = self.output.take() else { return false };
        let mut file = std::fs::File::from(output);
        let mut chunk = [0; OUTPUT];
        match file.read(&mut chunk) {
            Ok(length) if length > 0 => {
                self.kept.extend_from_slice(&chunk[..length]);
                let excess = self.kept.len().saturating_sub(OUTPUT);
                self.kept.drain(..excess);
                self.output = Some(file.into());
                true
            }
            _ => false,
        }
    }

    /// What is still in the pipe when the hook has ended.
    fn drain(&mut self) {
        if let Some(output) = &self.output {
            let _ = nix::fcntl::fcntl(output, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        while self.read() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["GREETING=hello".into()],
            timeout,
        }
    }

    fn failure(hook: Hook, state: &str) -> String {
        run("poststart", &[hook], state).unwrap_err().to_string()
    }

    #[test]
    fn a_hook_reads_the_state_and_its_environment_only() {
        run(
            "poststart",
            &[shell("test \"$(cat)\" = state && test $GREETING = hello && test -z \"$HOME\"", None)],
            "state",
        )
        .unwrap();
    }

    #[test]
    fn a_hook_that_fails_is_told_with_its_output() {
        let text = failure(shell("echo one; echo two >&2; exit 3", None), "");
        assert_eq!(
            text,
            "error running poststart hook #0: /bin/sh exited with status 3, output: \"one\\ntwo\""
        );
        let text = failure(shell("kill -9 $$", None), "");
        assert_eq!(text, "error running poststart hook #0: /bin/sh was killed by SIGKILL");
    }

    #[test]
    fn a_hook_that_is_not_there_is_told_so() {
        let hook = Hook { path: "/nonexistent".into(), ..Hook::default() };
        assert_eq!(
            failure(hook, ""),
            "error running poststart hook #0: /nonexistent: no such file or directory"
        );
    }

    #[test]
    fn a_hook_beyond_its_timeout_is_killed() {
        let text = failure(shell("sleep 30", Some(1)), "");
        assert_eq!(text, "error running poststart hook #0: /bin/sh took longer than its timeout of 1 s");
    }

    #[test]
    fn a_hook_need_not_read_a_large_state_nor_end_its_children() {
        let state = "x".repeat(1 << 20);
        run("poststart", &[shell("sleep 3 & exit 0", None)], &state).unwrap();
        run("poststart", &[shell("test $(wc -c) = 1048576", None)], &state).unwrap();
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let text = failure(shell("yes no | head -c 100000; echo last; exit 1", None), "");
        assert!(text.len() < 3 * OUTPUT && text.ends_with("last\""), "{text}");
    }
}
