//! `start`: tells a waiting init to become the container's program, and hears whether it did.

use crate::container::{Container, START, hook_state};
use crate::error::{Ending, Error, Verb};
use crate::hooks;
use crate::launch::end_process;
use crate::report::StepFailed;
use crate::sockets;
use crate::state::Status;
use cofferdam_step::{Report, ReportKind, Step};
use cofferdam_sys::{Fd, fs, net, process};

/// The byte that starts.
const GO: u8 = b's';

/// Starts a created container.
pub(crate) fn start(container: &Container) -> Result<(), Error> {
    // Two starts at once: the second one finds the socket gone.
    let home = container.home().reopen()?.lock()?;
    let status = container.status()?;
    if status != Status::Created {
        return Err(container.wrong_state(Verb::Start, status));
    }
    let socket = Fd::from(sockets::connect_in(container.home(), START)?);
    net::send(&socket, &[GO]).map_err(|errno| Error::call("speak to init", errno))?;
    // From here on the container is no longer "created": hooks that ask see it running or gone.
    let heard = hear(container, &socket);
    home.remove_file(START)?;
    heard?;
    let poststart = &container.saved().hooks.poststart;
    if poststart.is_empty() {
        return Ok(());
    }
    let pid = container.pid().unwrap_or_default();
    let done = hooks::run("poststart", poststart, &hook_state(container.saved(), Status::Running, pid));
    if done.is_err()
        && let Some(pidfd) = container.pidfd()?
    {
        end_process(&pidfd);
    }
    done
}

/// Reads init's records until its socket closes with the execve.
fn hear(container: &Container, socket: &Fd) -> Result<(), Error> {
    let mut executing = false;
    loop {
        match read(socket)? {
            Some(Report { kind: ReportKind::Executing, .. }) => executing = true,
            Some(report) if report.kind == ReportKind::SeccompListener => {
                pass_listener(container, report.detail as i32)?;
                net::send(socket, &[0]).map_err(|errno| Error::call("speak to init", errno))?;
            }
            Some(report) if report.kind == ReportKind::Failed => return Err(failed(container, report)),
            None if executing => return Ok(()),
            other => {
                let hint = "a process that dies without a word was mostly killed";
                let at = match other {
                    Some(report) => format!("an unknown ({:?} out of turn)", report.kind),
                    None => "an unknown".into(),
                };
                let id = container.id().into();
                return Err(Error::InitDied {
                    verb: "start",
                    id,
                    end: Ending::Unknown,
                    at,
                    hint: Some(hint),
                });
            }
        }
    }
}

fn read(socket: &Fd) -> Result<Option<Report>, Error> {
    let mut bytes = [0; Report::SIZE];
    match fs::read_full(socket, &mut bytes) {
        Ok(Report::SIZE) => Ok(Report::from_bytes(&bytes)),
        Ok(_) | Err(cofferdam_sys::Errno::ECONNRESET) => Ok(None),
        Err(errno) => Err(Error::call("listen to init", errno)),
    }
}

/// The sentence of a step behind the barrier: its number counts from the plan's beginning, of which only the end was kept.
fn failed(container: &Container, report: Report) -> Error {
    let kept = container.saved().kept();
    let first = kept.steps.saturating_sub(kept.late.len());
    let mut steps = vec![Step::NewSession; first];
    steps.extend(kept.late.iter().cloned());
    StepFailed::new("start", container.id(), &steps, report).into()
}

fn pass_listener(container: &Container, number: i32) -> Result<(), Error> {
    let saved = container.saved();
    let (Some(filter), Some(pidfd)) = (&saved.kept().target.seccomp, container.pidfd()?) else {
        return Err(Error::Unsupported("a filter without a profile has a listener".into()));
    };
    let listener = process::pidfd_getfd(&pidfd, number);
    let listener = listener.map_err(|errno| Error::call("take the seccomp listener", errno))?;
    let pid = container.pid().unwrap_or_default();
    sockets::send_seccomp_listener(filter, saved, Status::Creating, pid, &listener)
}
