//! createContainer and startContainer hooks: they run in the container's namespaces, so init runs them.

use crate::{At, Failure, Outcome, program};
use alloc::format;
use cofferdam_step::{Attempt, Hook, Hooks};
use cofferdam_sys::{Errno, Fd, Strings, fs, net, proc::Proc, process};

/// All hooks of one kind, in order; the first that fails ends the container.
pub(crate) fn run(hooks: &Hooks) -> Outcome {
    let state = format!("{}{}{}", hooks.state_head, process::getpid(), hooks.state_tail);
    for (index, hook) in hooks.hooks.iter().enumerate() {
        run_one(hook, &state).map_err(|failure| {
            // Index in the low half, wait status in the high one.
            Failure { detail: index as i64 | failure.detail << 32, ..failure }
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> Outcome {
    let path = [hook.path.as_str()];
    let args: Strings = if hook.args.is_empty() { Strings::new(&path) } else { Strings::new(&hook.args) }
        .at(Attempt::Execve)?;
    let env = Strings::new(&hook.env).at(Attempt::Execve)?;
    let (ours, theirs) = net::socketpair().at(Attempt::Socket)?;
    match process::fork(0, false).at(Attempt::Fork)? {
        process::Forked::Child => {
            let errno = become_hook(hook, &theirs, &args, &env);
            // The parent reads this as the reason, in place of a status.
            let _ = fs::write_all(&theirs, &errno.0.to_le_bytes());
            process::exit(127)
        }
        process::Forked::Parent(pid) => {
            drop(theirs);
            supervise(pid, hook, state, &ours)
        }
    }
}

/// The hook's program with the state on its stdin and nothing above stderr; why not.
fn become_hook(hook: &Hook, stdin: &Fd, args: &Strings, env: &Strings) -> Errno {
    let prepare = || {
        fs::dup_onto(stdin, 0)?;
        process::reset_signal_handlers();
        process::set_signal_mask(0)?;
        // Linux < 5.11, or a filter around us: a startContainer hook is the container's own program, and what init holds is the
        // host's.
        fs::close_range_on_exec(3).or_else(|_| program::seal_one_by_one(&Proc::open()?, 3))
    };
    match prepare() {
        Ok(()) => process::execve(hook.path.as_bytes(), args, env),
        Err(errno) => errno,
    }
}

/// Feeds the state to the hook and waits for it, no longer than its timeout.
fn supervise(pid: i32, hook: &Hook, state: &str, pipe: &Fd) -> Outcome {
    // A hook need not read its stdin: a closed socket is no failure, and init ignores no SIGPIPE but has it blocked.
    let _ = net::send(pipe, state.as_bytes());
    let _ = net::shut_down_writing(pipe);
    if let Some(seconds) = hook.timeout {
        let pidfd = process::pidfd_open(pid).at(Attempt::HookTimeout)?;
        if !process::poll_readable(&pidfd, i64::from(seconds) * 1000).at(Attempt::HookTimeout)? {
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait(pid, false);
            return Err(Failure { attempt: Attempt::HookTimeout, errno: Errno::ETIMEDOUT, detail: 0 });
        }
    }
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
