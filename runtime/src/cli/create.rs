//! `cofferdam create`

use super::args::{ANY, Flag, Grammar, Words, switch, value};
use super::{Context, TIMELINE, absolute};
use crate::container::CreateOptions;
use crate::error::Error;
use crate::notify;
use crate::timeline;
use cofferdam_spec::Spec;
use std::path::PathBuf;

pub const BUNDLE: Flag = value("bundle", "b", "directory with config.json; the current one if absent");
pub const CONFIG: Flag = value("config", "f", "file in place of the bundle's config.json");
pub const CONSOLE_SOCKET: Flag =
    value("console-socket", "", "socket that gets the master of the process's terminal");
pub const PIDFD_SOCKET: Flag = value("pidfd-socket", "", "socket that gets a pidfd of the process");
pub const PID_FILE: Flag = value("pid-file", "", "file that gets the pid of the process");
pub const NO_PIVOT: Flag =
    switch("no-pivot", "", "move the root instead of pivoting to it: for a rootfs on a ramdisk");
pub const NO_NEW_KEYRING: Flag = switch("no-new-keyring", "", "keep the caller's session keyring");
pub const PRESERVE_FDS: Flag =
    value("preserve-fds", "", "pass on this many descriptors behind stdio and LISTEN_FDS");
pub const NO_SUBREAPER: Flag = switch("no-subreaper", "", "processes are never reparented to us").ignored();

pub static GRAMMAR: Grammar = Grammar {
    name: "create",
    summary: "create a container; start runs its process",
    arguments: "<container-id>",
    about: "The id is yours to choose: letters, digits and _ + - . , unique below the root.",
    flags: &[
        BUNDLE,
        CONFIG,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        NO_PIVOT,
        NO_NEW_KEYRING,
        TIMELINE,
        PRESERVE_FDS,
        NO_SUBREAPER,
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let options = options(context, said)?;
    check_terminal(terminal(&options), true, options.console_socket.is_some())?;
    // Its next parent is whoever takes orphans: nobody waits here.
    with_notify(context, options, |options| context.store().create(options)).map(|_| 0)
}

/// Creates a container, for a manager that waits for it too.
pub fn with_notify<T>(
    context: &Context,
    mut options: CreateOptions,
    create: impl FnOnce(CreateOptions) -> Result<T, Error>,
) -> Result<T, Error> {
    let spec = options.spec.as_mut().filter(|_| notify::manager().is_some());
    let Some(spec) = spec else { return create(options) };
    let id = options.id.clone();
    notify::prepare(&context.root, &id, spec)?;
    create(options).inspect_err(|error| {
        // The directory of a container that has the id already is its own.
        if !matches!(error, Error::Exists { .. })
            && let Err(left) = notify::forget(&context.root, &id)
        {
            tracing::warn!("{}", crate::error::message(&left));
        }
    })
}

/// What the flags of create and run say.
pub fn options(context: &Context, said: &Words) -> Result<CreateOptions, Error> {
    let id = said.argument(0)?.to_owned();
    crate::state::check_id(&id)?;
    let bundle = absolute(&said.path("bundle").unwrap_or_else(|| PathBuf::from(".")))?;
    let config = said.path("config").unwrap_or_else(|| bundle.join("config.json"));
    let mut spec = timeline::timed("read config.json", || Spec::load(&config))?;
    let inherited = pass_on(&mut spec.process, said)?;
    Ok(CreateOptions {
        id,
        bundle,
        spec: Some(spec),
        console_socket: said.path("console-socket"),
        pid_file: said.path("pid-file"),
        pidfd_socket: said.path("pidfd-socket"),
        no_pivot: said.on("no-pivot"),
        no_new_keyring: said.on("no-new-keyring"),
        preserve_fds: inherited,
        driver: context.driver,
        rootless: context.rootless,
        ..CreateOptions::default()
    })
}

/// How many descriptors behind stdio the process gets: those of socket activation (`sd_listen_fds(3)`), of which it is told,
/// and what `--preserve-fds` says.
pub fn pass_on(process: &mut Option<cofferdam_spec::Process>, said: &Words) -> Result<u32, Error> {
    let preserved: u32 = said.number("preserve-fds")?.unwrap_or(0);
    let text = |name| std::env::var(name).ok();
    let ours = text("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let activated: u32 =
        text("LISTEN_FDS").filter(|_| ours).and_then(|count| count.parse().ok()).unwrap_or(0);
    if activated > 0
        && let Some(process) = process
    {
        process.env.push(format!("LISTEN_FDS={activated}"));
        process.env.push("LISTEN_PID=1".into());
        process.env.extend(text("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    preserved.checked_add(activated).ok_or_else(|| Error::usage("--preserve-fds: too many descriptors"))
}

/// Whether the process gets a terminal.
pub fn terminal(options: &CreateOptions) -> bool {
    let process = options.spec.as_ref().and_then(|spec| spec.process.as_ref());
    process.is_some_and(|process| process.terminal)
}

/// A terminal needs somebody who holds its master, and a socket needs a terminal.
pub fn check_terminal(terminal: bool, detach: bool, socket: bool) -> Result<(), Error> {
    match (terminal, detach, socket) {
        (true, true, false) => {
            Err(Error::usage("cannot allocate tty if cofferdam will detach without setting console socket"))
        }
        (false, _, true) | (_, false, true) => {
            Err(Error::usage("cannot use console socket if cofferdam will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_and_its_socket_belong_together() {
        assert!(check_terminal(true, true, true).is_ok() && check_terminal(true, false, false).is_ok());
        assert!(check_terminal(false, true, false).is_ok() && check_terminal(false, false, false).is_ok());
        let text = check_terminal(true, true, false).unwrap_err().to_string();
        assert_eq!(text, "cannot allocate tty if cofferdam will detach without setting console socket");
        for (terminal, detach) in [(false, true), (false, false), (true, false)] {
            let text = check_terminal(terminal, detach, true).unwrap_err().to_string();
            assert_eq!(text, "cannot use console socket if cofferdam will not detach or allocate tty");
        }
    }
}
