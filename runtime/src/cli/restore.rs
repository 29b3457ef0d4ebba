//! `cofferdam restore`

use super::Context;
use super::args::{ANY, Grammar, Words, switch, value};
use super::checkpoint::{
    self, AUTO_DEDUP, EMPTY_NS, EXT_UNIX_SK, FILE_LOCKS, IMAGE_PATH, LAZY_PAGES, MANAGE_CGROUPS_MODE,
    NETWORK_LOCK, SHELL_JOB, TCP_ESTABLISHED, WORK_PATH,
};
use super::create::{self, BUNDLE, CONSOLE_SOCKET, NO_NEW_KEYRING, NO_PIVOT, PID_FILE};
use super::run::DETACH;
use crate::console::Foreground;
use crate::criu::RestoreOptions;
use crate::error::Error;

pub static GRAMMAR: Grammar = Grammar {
    name: "restore",
    summary: "make a container of a checkpoint and let it run",
    arguments: "<container-id>",
    about: "Bundle and config.json are those that the container was made of. Like run, it waits for the process unless told\n\
            otherwise, and deletes the container then.",
    flags: &[
        BUNDLE,
        CONSOLE_SOCKET,
        PID_FILE,
        DETACH,
        switch("no-subreaper", "", "do not become the parent of the container's orphans"),
        NO_PIVOT.ignored(),
        NO_NEW_KEYRING.ignored(),
        IMAGE_PATH,
        WORK_PATH,
        // go-runc says it; CRIU finds earlier images by the link that the checkpoint has left.
        value("parent-path", "", "folder of earlier images; the images know it").ignored(),
        TCP_ESTABLISHED,
        switch("tcp-close", "", "close TCP connections instead of restoring them"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        FILE_LOCKS,
        MANAGE_CGROUPS_MODE,
        EMPTY_NS,
        AUTO_DEDUP,
        NETWORK_LOCK,
        value("lsm-profile", "", "apparmor:NAME or selinux:LABEL in place of what was saved"),
        value("lsm-mount-context", "", "SELinux context of mounts in place of what was saved"),
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let mut options = RestoreOptions {
        container: create::options(context, said)?,
        images: checkpoint::images(said)?,
        tcp_close: said.on("tcp-close"),
        lsm_profile: said.text("lsm-profile")?.map(str::to_owned),
        lsm_mount_context: said.text("lsm-mount-context")?.map(str::to_owned),
    };
    checkpoint::keep_to_ourselves()?;
    let terminal = create::terminal(&options.container);
    create::check_terminal(terminal, said.on("detach"), options.container.console_socket.is_some())?;
    if said.on("detach") {
        return context.store().restore(options).map(|_| 0);
    }
    let mut foreground = Foreground::begin(!said.on("no-subreaper"))?;
    if terminal {
        options.container.console = Some(foreground.console()?);
        options.container.foreground = true;
    }
    let (container, process) = context.store().restore(options)?;
    let status = foreground.attend(&process);
    container.delete(true)?;
    status
}
