//! createContainer and startContainer hooks: they run in the container's namespaces, so init runs them.

use crate::{At, Failure, Init, Outcome, program};
use alloc::{format, string::String, vec::Vec};
use cofferdam_step::{Attempt, Hook, Hooks, Program, Slot};
use cofferdam_sys::{AsFd, Borrowed, Errno, Fd, Raw, Strings, fs, net, proc::Proc, process, root::Root};

/// How much of a hook's output is kept: the last of it.
const OUTPUT: usize = 4096;

/// A hook's program and where it runs.
struct Run<'a> {
    hook: &'a Hook,
    args: Strings,
    env: Strings,
    /// The rootfs, for hooks in front of the pivot.
    directory: Option<&'a Root>,
    /// Files for its stdout and stderr.
    files: [Option<Borrowed>; 2],
}

/// The hook's ends of what connects it with init: the state comes in on its stdin, its stdout and stderr go out, by one pipe unless they
/// go into different files. The files themselves stay with init: a startContainer hook is the container's own program.
struct Ends {
    stdin: Fd,
    stdout: Fd,
    stderr: Option<Fd>,
}

/// The state on its way to the hook, which need not read it.
struct Feed<'a> {
    socket: &'a Fd,
    rest: &'a [u8],
}

impl Feed<'_> {
    /// Sends what there is room for. At the end, and where nobody reads it, the hook reads the end. A closed socket is no failure, and
    /// init has SIGPIPE blocked.
    fn go_on(&mut self) {
        while !self.rest.is_empty() {
            match net::send_some(self.socket, self.rest) {
                Ok(length) => self.rest = &self.rest[length..],
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => self.rest = &[],
            }
        }
        let _ = net::shut_down_writing(self.socket);
    }

    /// The socket, while there is something left to send.
    fn waits(&self) -> Option<Raw> {
        (!self.rest.is_empty()).then(|| self.socket.number())
    }
}

/// What init reads of the hook.
struct Stream {
    from: Fd,
    file: Option<Borrowed>,
}

impl Init {
    /// All hooks of one kind, in order; the first that fails ends the container.
    pub(crate) fn run_hooks(&mut self, hooks: &Hooks, program: &Program) -> Outcome {
        let state = format!("{}{}{}", hooks.state_head, process::getpid(), hooks.state_tail);
        let inside = hooks.kind == "startContainer";
        let file = |slot: Option<Slot>| slot.map(|slot| self.slot(slot)).transpose();
        let files = [file(hooks.stdout)?, file(hooks.stderr)?];
        for (index, hook) in hooks.hooks.iter().enumerate() {
            // As with runc, a startContainer hook without an environment has that of the program.
            let env = match hook.env.is_empty() && inside {
                true => self.environment(program::last(program)?.1),
                false => hook.env.iter().map(String::as_str).collect(),
            };
            let own_path = [hook.path.as_str()];
            let args = if hook.args.is_empty() { Strings::new(&own_path) } else { Strings::new(&hook.args) };
            let (args, env) = (args.at(Attempt::Execve)?, Strings::new(&env).at(Attempt::Execve)?);
            let directory = if inside { None } else { self.root.as_ref() };
            let mut output = Vec::new();
            let ended = Run { hook, args, env, directory, files }.run(&state, &mut output);
            if let Err(failure) = ended {
                self.hook_output = output;
                // Index in the low half, wait status in the high one.
                return Err(Failure { detail: index as i64 | failure.detail << 32, ..failure });
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    fn run(&self, state: &str, output: &mut Vec<u8>) -> Outcome {
        let (ours, stdin) = net::socketpair().at(Attempt::Socket)?;
        let [file, other] = self.files;
        let (from, stdout) = fs::pipe().at(Attempt::Socket)?;
        let mut streams = alloc::vec![Stream { from, file }];
        let mut stderr = None;
        if file.map(|file| file.number()) != other.map(|file| file.number()) {
            let (from, to) = fs::pipe().at(Attempt::Socket)?;
            streams.push(Stream { from, file: other });
            stderr = Some(to);
        }
        let ends = Ends { stdin, stdout, stderr };
        match process::fork(0, false).at(Attempt::Fork)? {
            process::Forked::Child => {
                let errno = self.become_hook(&ends);
                // The parent reads this as the reason, in place of a status.
                let _ = fs::write_all(&ends.stdin, &errno.0.to_le_bytes());
                process::exit(127)
            }
            process::Forked::Parent(pid) => {
                drop(ends);
                let mut feed = Feed { socket: &ours, rest: state.as_bytes() };
                feed.go_on();
                self.watch(pid, feed, streams, output)?;
                judge(pid, &ours)
            }
        }
    }

    /// The hook's program with nothing open above stderr; why not.
    fn become_hook(&self, ends: &Ends) -> Errno {
        let prepare = || {
            fs::dup_onto(&ends.stdin, 0)?;
            fs::dup_onto(&ends.stdout, 1)?;
            fs::dup_onto(ends.stderr.as_ref().unwrap_or(&ends.stdout), 2)?;
            if let Some(directory) = self.directory {
                fs::fchdir(directory)?;
            }
            process::reset_signal_handlers();
            process::set_signal_mask(0)?;
            // Linux < 5.11, or a filter around us: a startContainer hook is the container's own program, and what init holds is
            // the host's. A failed execve still wants to be told on the socket, a copy of which is stdin.
            fs::close_range_on_exec(3).or_else(|_| program::seal_one_by_one(&Proc::open()?, 3))
        };
        match prepare() {
            Ok(()) => process::execve(self.hook.path.as_bytes(), &self.args, &self.env),
            Err(errno) => errno,
        }
    }

    /// Feeds the hook and keeps its output until it has ended, which may take no longer than its timeout. A grandchild that holds the
    /// output open does not matter.
    fn watch(&self, pid: i32, mut feed: Feed, mut streams: Vec<Stream>, output: &mut Vec<u8>) -> Outcome {
        let pidfd = process::pidfd_open(pid).at(Attempt::HookTimeout)?;
        let limit = self.hook.timeout.map(|seconds| i64::from(seconds) * 1000);
        let deadline = match limit {
            Some(limit) => Some(process::monotonic().at(Attempt::HookTimeout)? + limit),
            None => None,
        };
        let mut ended = false;
        while !streams.is_empty() || feed.waits().is_some() {
            let left = match deadline {
                _ if ended => 0,
                Some(deadline) => (deadline - process::monotonic().at(Attempt::HookTimeout)?).max(0),
                None => -1,
            };
            let mut fds: Vec<_> = streams.iter().map(|stream| stream.from.number()).collect();
            fds.push(pidfd.number());
            match process::poll_any(&fds, feed.waits(), left).at(Attempt::HookTimeout)? {
                Some(ready) if ready < streams.len() => {
                    if !keep(&streams[ready], output)? {
                        streams.remove(ready);
                    }
                }
                Some(ready) if ready > streams.len() => feed.go_on(),
                // What it wrote last may be in the pipes still.
                Some(_) if !ended => ended = true,
                _ if ended => break,
                _ => return end(pid, &pidfd),
            }
        }
        if !ended && let Some(deadline) = deadline {
            let left = (deadline - process::monotonic().at(Attempt::HookTimeout)?).max(0);
            if !process::poll_readable(&pidfd, left).at(Attempt::HookTimeout)? {
                return end(pid, &pidfd);
            }
        }
        Ok(())
    }
}

/// Takes one portion of output; false at its end.
fn keep(stream: &Stream, output: &mut Vec<u8>) -> Outcome<bool> {
    let mut chunk = [0u8; 1024];
    let length = fs::read(&stream.from, &mut chunk).at(Attempt::Read)?;
    output.extend_from_slice(&chunk[..length]);
    if let Some(file) = &stream.file {
        // A full disk is no failure of the hook.
        let _ = fs::write_all(file, &chunk[..length]);
    }
    if output.len() > OUTPUT {
        output.drain(..output.len() - OUTPUT);
    }
    Ok(length > 0)
}

/// Ends a hook whose time is over.
fn end(pid: i32, pidfd: &Fd) -> Outcome {
    let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
    let _ = process::wait(pid, false);
    Err(Failure { attempt: Attempt::HookTimeout, errno: Errno::ETIMEDOUT, detail: 0 })
}

/// Waits for the hook and tells what its end means.
fn judge(pid: i32, pipe: &Fd) -> Outcome {
    let status = process::wait(pid, false).at(Attempt::HookStatus)?.unwrap_or(0);
    if status == 0 {
        return Ok(());
    }
    let mut errno = [0u8; 4];
    if status == 127 << 8 && fs::read_full(pipe, &mut errno) == Ok(errno.len()) {
        let errno = Errno(i32::from_le_bytes(errno));
        return Err(Failure { attempt: Attempt::Execve, errno, detail: 0 });
    }
    Err(Failure { attempt: Attempt::HookStatus, errno: Errno(0), detail: i64::from(status) })
}
