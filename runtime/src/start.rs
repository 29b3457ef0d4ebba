//! `start`: tells a waiting init to become the container's program, and hears whether it did.

use crate::container::{Container, GONE_WITHIN, START, hook_state};
use crate::error::{Ending, Error, Verb};
use crate::hooks;
use crate::launch::{end_process, rest, unless_gone};
use crate::report::StepFailed;
use crate::sockets;
use crate::state::Status;
use crate::timeline;
use cofferdam_step::{Report, ReportKind, Step, start};
use cofferdam_sys::{Fd, fs, net, process};

/// Starts a created container.
pub(crate) fn start(container: &Container) -> Result<(), Error> {
    // Two starts at once: the second one finds the socket gone.
    let home = container.home().reopen()?.lock()?;
    let status = container.status()?;
    if status != Status::Created {
        return Err(container.wrong_state(Verb::Start, status));
    }
    let socket = timeline::timed("reach init", || connect(container))?;
    let said = |sent| unless_gone(sent).map_err(|errno| Error::call("speak to init", errno));
    // Without the name the container is no longer "created". It goes before the program can run, so that the death of this
    // process at any point leaves no running container that says it waits for its start, and no init that waits in vain.
    said(net::send(&socket, &[start::READY]))?;
    home.remove_file(START)?;
    let kept = container.saved().kept();
    if timeline::recording() {
        timeline::init(container.pid().unwrap_or_default(), &numbered(kept.steps, &kept.late));
    }
    said(net::send(&socket, &[if timeline::recording() { start::GO_TIMED } else { start::GO }]))?;
    if let Err(error) = timeline::timed("await the program", || hear(container, &socket)) {
        drop(socket);
        await_end(container);
        return Err(error);
    }
    timeline::gone();
    let poststart = &container.saved().hooks.poststart;
    if poststart.is_empty() {
        return Ok(());
    }
    let pid = container.pid().unwrap_or_default();
    let state = hook_state(container.saved(), Status::Running, pid);
    let done = hooks::run("poststart", poststart, &state, &container.saved().annotations);
    if done.is_err()
        && let Some(pidfd) = container.pidfd()?
    {
        end_process(&pidfd);
        await_end(container);
    }
    done
}

/// Init has said what failed, or been killed, and takes its namespaces with it before it has ended: a millisecond in which the container
/// would seem to run, and the delete that follows be refused.
fn await_end(container: &Container) {
    if let Ok(Some(pidfd)) = container.pidfd() {
        let _ = process::poll_readable(&pidfd, GONE_WITHIN);
    }
}

/// Reaches init, unless it has just been killed.
fn connect(container: &Container) -> Result<Fd, Error> {
    sockets::connect_in(container.home(), START).map(Fd::from).map_err(|error| match error.errno() {
        // Nobody listens any more, and nobody else can have started it.
        Some(nix::libc::ECONNREFUSED) => container.wrong_state(Verb::Start, Status::Stopped),
        _ => error,
    })
}

/// Reads init's records until its socket closes with the execve.
fn hear(container: &Container, socket: &Fd) -> Result<(), Error> {
    let mut executing = false;
    loop {
        match read(socket)? {
            Some(Report { kind: ReportKind::Executing, .. }) => executing = true,
            Some(report) if report.kind == ReportKind::Timed => timeline::step(&report),
            Some(report) if report.kind == ReportKind::SeccompListener => {
                pass_listener(container, report.detail as i32)?;
                net::send(socket, &[0]).map_err(|errno| Error::call("speak to init", errno))?;
            }
            Some(report) if report.kind == ReportKind::Failed => {
                return Err(failed(container, report, socket));
            }
            None if executing => return Ok(()),
            Some(report) => {
                let id = container.id();
                return Err(Error::Unsupported(format!(
                    "start {id}: init said {:?} out of turn",
                    report.kind
                )));
            }
            None => {
                let hint = Some("a process that dies without a word was mostly killed");
                return Err(Error::InitDied {
                    verb: "start",
                    id: container.id().into(),
                    end: Ending::Unknown,
                    hint,
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
fn failed(container: &Container, report: Report, socket: &Fd) -> Error {
    let kept = container.saved().kept();
    let failed = StepFailed::new("start", container.id(), &numbered(kept.steps, &kept.late), report);
    if failed.is_a_hook { failed.with_output(&rest(socket)).into() } else { failed.into() }
}

/// The steps of which only the last were kept, by their numbers.
fn numbered(count: usize, late: &[Step]) -> Vec<Step> {
    let mut steps = vec![Step::NewSession; count.saturating_sub(late.len())];
    steps.extend(late.iter().cloned());
    steps
}

/// The listener of a filter that does not let through the wait for a start; of any, in containers that earlier versions made.
fn pass_listener(container: &Container, number: i32) -> Result<(), Error> {
    let saved = container.saved();
    let (Some(filter), Some(pidfd)) = (&saved.kept().target.seccomp, container.pidfd()?) else {
        return Err(Error::Unsupported("a filter without a profile has a listener".into()));
    };
    let listener = process::pidfd_getfd(&pidfd, number);
    let listener = listener.map_err(|errno| Error::call("take the seccomp listener", errno))?;
    let pid = container.pid().unwrap_or_default();
    sockets::send_seccomp_listener(filter, saved, Status::Created, pid, &listener)
}
