//! Hooks of the runtime's namespaces: prestart, createRuntime, poststart and poststop.
//!
//! A hook reads the container's state from stdin. What it writes to stdout and stderr is kept, the last few kilobytes, and
//! becomes part of the error when it fails; or it goes into files that annotations name.

use crate::error::{Ending, Error, HookFailure, message};
use cofferdam_plan::{HOOKS_STDERR, HOOKS_STDOUT};
use cofferdam_spec::Hook;
use cofferdam_sys::shim::{self, Program};
use cofferdam_sys::{Fd, Strings, children, process};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// How much of a hook's output is kept.
const OUTPUT: usize = 4096;

/// Runs the hooks of one kind in order, each with `state` on stdin.
///
/// # Errors
/// [`Error::HookFailed`] of the first hook that fails; those behind it are not run. A file for their output that cannot be opened.
pub fn run(
    kind: &'static str,
    hooks: &[Hook],
    state: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let files = Output::of(annotations)?;
    for (index, hook) in hooks.iter().enumerate() {
        if let Err((failure, output)) = run_one(hook, state.as_bytes(), &files) {
            return Err(Error::HookFailed { kind, index, path: hook.path.clone(), failure, output });
        }
    }
    Ok(())
}

/// Runs all hooks of one kind; failures are logged and change nothing (poststop).
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &str, annotations: &BTreeMap<String, String>) {
    if hooks.is_empty() {
        return;
    }
    let files = Output::of(annotations).unwrap_or_else(|error| {
        tracing::warn!("{}", message(&error));
        Output::default()
    });
    for (index, hook) in hooks.iter().enumerate() {
        if let Err((failure, output)) = run_one(hook, state.as_bytes(), &files) {
            let error = Error::HookFailed { kind, index, path: hook.path.clone(), failure, output };
            tracing::warn!("{error}");
        }
    }
}

/// Where hooks' output goes instead of into pipes of ours, as crun's annotations have it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Output {
    fn of(annotations: &BTreeMap<String, String>) -> Result<Output, Error> {
        let open = |key: &str| annotations.get(key).map(|path| open_output(key, path)).transpose();
        Ok(Output { stdout: open(HOOKS_STDOUT)?, stderr: open(HOOKS_STDERR)? })
    }
}

/// Filesystems whose files do something when they are written to, by their magic (`include/uapi/linux/magic.h`): proc, sysfs, cgroup,
/// cgroup2, debugfs, tracefs, securityfs, selinuxfs, bpf, configfs, efivarfs, pstore, devpts.
const DOES_SOMETHING: [i64; 13] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xf97c_ff8c,
    0xcafe_4a11,
    0x6265_6570,
    0xde5e_81e4,
    0x6165_676c,
    0x1cd1,
];

/// Opens a file for hooks' output: appended to, made (0600) where it is not there. `/dev/stdout` and `/dev/stderr` are ours.
///
/// Who wrote the annotation need not be who runs this machine. So it is a file of our own user without other names, a fifo, or
/// /dev/null; no link; and nothing that does something when it is written to. That it can still be any log or configuration that is
/// our user's is why `features` calls the annotation unsafe, as crun's does.
///
/// # Errors
/// It cannot be opened, or is none of these.
pub(crate) fn open_output(annotation: &str, path: &str) -> Result<OwnedFd, Error> {
    let standard = match path {
        "/dev/stdout" => Some(std::io::stdout().as_fd().try_clone_to_owned()),
        "/dev/stderr" => Some(std::io::stderr().as_fd().try_clone_to_owned()),
        _ => None,
    };
    let failed = |error| Error::io(format!("annotation {annotation}: open"), path, error);
    if let Some(copied) = standard {
        return copied.map_err(failed);
    }
    let refused = |why: &str| Error::usage(format!("annotation {annotation}: {path} {why}"));
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let opened =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let null = nix::libc::makedev(1, 3);
    if found.is_file() {
        if found.uid() != nix::unistd::geteuid().as_raw() || found.nlink() != 1 {
            return Err(refused("belongs to somebody else, or has another name"));
        }
        let filesystem = nix::sys::statfs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        if DOES_SOMETHING.contains(&(filesystem.filesystem_type().0 as i64 & 0xffff_ffff)) {
            return Err(refused("lies in a filesystem of the kernel's"));
        }
    } else if !(found.file_type().is_fifo() || found.file_type().is_char_device() && found.rdev() == null) {
        return Err(refused("is neither a file nor a fifo"));
    }
    // A hook that writes to a full fifo waits, as it would anywhere.
    let blocking = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_APPEND);
    nix::fcntl::fcntl(&file, blocking).map_err(|errno| failed(errno.into()))?;
    Ok(file.into())
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
pub(crate) fn run_one(hook: &Hook, state: &[u8], files: &Output) -> Result<(), Failed> {
    let not_started = |errno: i32| (HookFailure::NotStarted(errno), String::new());
    let args = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
    let args = Strings::new(args).map_err(|errno| not_started(errno.0))?;
    let env = Strings::new(&environment(hook)).map_err(|errno| not_started(errno.0))?;
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| not_started(errno as i32));
    let (stdin, feed) = pipe()?;
    let (output, out) = pipe()?;
    let or_pipe = |file: &Option<OwnedFd>| file.as_ref().map_or(out.as_fd(), OwnedFd::as_fd).as_raw_fd();
    let fds = [(0, stdin.as_raw_fd()), (1, or_pipe(&files.stdout)), (2, or_pipe(&files.stderr))];
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
        run("poststart", &[hook], state, &BTreeMap::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_hook_reads_the_state_and_its_environment_only() {
        run(
            "poststart",
            &[shell("test \"$(cat)\" = state && test $GREETING = hello && test -z \"$HOME\"", None)],
            "state",
            &BTreeMap::new(),
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
        run("poststart", &[shell("sleep 3 & exit 0", None)], &state, &BTreeMap::new()).unwrap();
        run("poststart", &[shell("test $(wc -c) = 1048576", None)], &state, &BTreeMap::new()).unwrap();
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let text = failure(shell("yes no | head -c 100000; echo last; exit 1", None), "");
        assert!(text.len() < 3 * OUTPUT && text.ends_with("last\""), "{text}");
    }

    /// An empty folder for files of hooks.
    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("cofferdam-hooks-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn annotations(stdout: &std::path::Path, stderr: &std::path::Path) -> BTreeMap<String, String> {
        [(HOOKS_STDOUT, stdout), (HOOKS_STDERR, stderr)]
            .map(|(key, path)| (key.to_owned(), path.to_str().unwrap().to_owned()))
            .into()
    }

    #[test]
    fn output_goes_where_annotations_say() {
        let folder = folder("output");
        let (out, err) = (folder.join("out"), folder.join("err"));
        std::fs::write(&err, "before\n").unwrap();
        let hooks = [shell("echo one; echo two >&2", None), shell("echo three; echo four >&2; exit 3", None)];
        let error = run("poststart", &hooks, "", &annotations(&out, &err)).unwrap_err();
        assert_eq!(error.to_string(), "error running poststart hook #1: /bin/sh exited with status 3");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "one\nthree\n");
        assert_eq!(std::fs::read_to_string(&err).unwrap(), "before\ntwo\nfour\n");
        assert_eq!(std::fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
        // One file for both keeps the order, and what has no file stays in the error.
        run("poststart", &[shell("echo a; echo b >&2; echo c", None)], "", &annotations(&out, &out)).unwrap();
        assert!(std::fs::read_to_string(&out).unwrap().ends_with("a\nb\nc\n"));
        let mut only_stdout = annotations(&out, &out);
        only_stdout.remove(HOOKS_STDERR);
        let error =
            run("poststart", &[shell("echo d; echo e >&2; exit 1", None)], "", &only_stdout).unwrap_err();
        assert!(error.to_string().ends_with("status 1, output: \"e\""), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn output_goes_into_no_file_that_is_not_meant_for_it() {
        let folder = folder("unsafe");
        let file = folder.join("file");
        std::fs::write(&file, "").unwrap();
        std::fs::hard_link(&file, folder.join("twice")).unwrap();
        std::os::unix::fs::symlink(&file, folder.join("link")).unwrap();
        for (path, why) in [
            (folder.join("twice"), "belongs to somebody else, or has another name"),
            (folder.join("link"), "too many levels of symbolic links"),
            (folder.clone(), "is a directory"),
            ("/proc/self/comm".into(), "lies in a filesystem of the kernel's"),
            ("/dev/zero".into(), "is neither a file nor a fifo"),
            ("/nowhere/at/all".into(), "no such file or directory"),
        ] {
            let error =
                run("poststart", &[shell("echo x", None)], "", &annotations(&path, &path)).unwrap_err();
            let text = message(&error);
            assert!(text.starts_with("annotation run.oci.hooks.stdout: ") && text.ends_with(why), "{text}");
            // poststop goes on without it.
            run_all("poststop", &[shell("true", None)], "", &annotations(&path, &path));
        }
        run(
            "poststart",
            &[shell("echo x", None)],
            "",
            &annotations("/dev/null".as_ref(), "/dev/null".as_ref()),
        )
        .unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
