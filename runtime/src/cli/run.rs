//! `cofferdam run`

use super::args::{ANY, Flag, Grammar, Words, switch};
use super::create::{
    self, BUNDLE, CONFIG, CONSOLE_SOCKET, NO_NEW_KEYRING, NO_PIVOT, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS,
};
use super::{Context, TIMELINE};
use crate::console::{self, Foreground};
use crate::container::{Container, CreateOptions, Process};
use crate::error::{Ending, Error, message};
use crate::notify::{self, Notify};
use crate::timeline;

pub const DETACH: Flag = switch("detach", "d", "do not wait for the process");

pub static GRAMMAR: Grammar = Grammar {
    name: "run",
    summary: "create a container and run its process",
    arguments: "<container-id>",
    about: "Waits for the process, passes signals on to it, ends with its exit status (128 and the signal's number, if a\n\
            signal killed it), and deletes the container.",
    flags: &[
        BUNDLE,
        CONFIG,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        DETACH,
        switch("keep", "", "leave the container there when its process has ended"),
        switch("no-subreaper", "", "do not become the parent of the container's orphans"),
        NO_PIVOT,
        NO_NEW_KEYRING,
        TIMELINE,
        PRESERVE_FDS,
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let mut options = create::options(context, said)?;
    options.run = true;
    let terminal = create::terminal(&options);
    create::check_terminal(terminal, said.on("detach"), options.console_socket.is_some())?;
    if said.on("detach") {
        return detached(context, options);
    }
    let mut foreground = Foreground::begin(!said.on("no-subreaper"))?;
    if terminal {
        options.console = Some(foreground.console()?);
        options.foreground = true;
        let process = options.spec.as_mut().and_then(|spec| spec.process.as_mut());
        if let Some(process) = process {
            process.console_size = console::own_size().or(process.console_size);
        }
    } else {
        options.stdio = foreground.streams()?;
    }
    let (notify, container, process) = match start(context, options) {
        // Whoever knows the pid file may end the process a moment before it runs its program: its end like any other.
        Err(error @ Error::InitDied { end: Ending::Killed(signal), .. }) => {
            crate::log::fatal(&message(&error));
            return Ok(128 + signal);
        }
        started => started?,
    };
    let waited_for = notify.is_some();
    let id = container.id().to_owned();
    let status = std::thread::scope(|scope| {
        if let (Some(notify), Some(init)) = (notify, container.saved().init) {
            scope.spawn(move || warn(notify.relay(&init, false)));
        }
        timeline::timed("wait for the process", || foreground.attend(&process))
    });
    if !said.on("keep") {
        let _span = timeline::span("delete the container");
        match container.delete(true) {
            // Whoever else has ended it by `delete --force` has done this, too: the process's status is what there is to say.
            Err(Error::NotFound { .. }) => {}
            deleted => deleted?,
        }
        if waited_for {
            notify::forget(&context.root, &id)?;
        }
    }
    status
}

fn detached(context: &Context, options: CreateOptions) -> Result<i32, Error> {
    let (notify, container, _) = start(context, options)?;
    if let (Some(notify), Some(init)) = (notify, container.saved().init) {
        notify.relay(&init, true)?;
    }
    Ok(0)
}

fn start(context: &Context, options: CreateOptions) -> Result<(Option<Notify>, Container, Process), Error> {
    create::with_notify(context, options, |options| {
        let notify = Notify::listen(&context.root, &options.id)?;
        let (container, process) = context.store().create(options)?;
        Ok((notify, container, process))
    })
}

/// The process is what counts: that its manager did not hear of it is no failure of the process.
fn warn(relayed: Result<(), Error>) {
    if let Err(error) = relayed {
        tracing::warn!("{}", message(&error));
    }
}
