//! `containerd-shim-cofferdam-v2`: between containerd and containers.
//!
//! containerd starts it (`start`) and gets an address back; from then on it speaks ttrpc with the daemon behind that address. One
//! thread with one epoll decides everything; only what blocks (a runtime's verbs) is done by threads, each for one job. So 200 calls
//! that wait for a process's end cost 200 small entries in a list, and one container never waits for another one's runtime.

mod address;
mod bootstrap;
mod bundle;
mod calls;
mod cgroup;
mod cleanup;
mod flags;
mod frame;
mod info;
mod jobs;
mod log;
mod logger;
mod metrics;
mod oom;
mod options;
mod poll;
mod publisher;
mod rootfs;
mod runtime;
mod server;
mod sha256;
mod shim;
mod status;
mod stdio;
mod streams;
mod task;

use flags::Flags;
use nix::fcntl::{OFlag, open};
use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    process::ExitCode,
};

/// The runtime's name, which is also what engines call it by.
const NAME: &str = "io.containerd.cofferdam.v2";

fn main() -> ExitCode {
    match Flags::parse(std::env::args().skip(1)).and_then(|flags| run(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    if flags.version {
        println!("containerd-shim-cofferdam-v2:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return info::print();
    }
    if flags.namespace.is_empty() {
        return Err("shim namespace cannot be empty".into());
    }
    log::set_debug(flags.debug);
    match flags.action.as_str() {
        "start" => bootstrap::start(flags),
        "delete" => {
            // Processes that lose their parent on the way come to us, and go with us.
            become_subreaper()?;
            cleanup::delete(flags)
        }
        "" => serve(flags),
        other => Err(format!("unknown action {other:?}")),
    }
}

fn become_subreaper() -> Result<(), String> {
    cofferdam_sys::process::prctl(libc::PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0])
        .map(drop)
        .map_err(|errno| format!("become a subreaper: {errno}"))
}

fn serve(flags: &Flags) -> Result<(), String> {
    cofferdam_sys::shim::frugal_allocator();
    open_log();
    install_library_log(flags.debug);
    become_subreaper()?;
    let (listener, socket) = listener(flags)?;
    let shim = shim::Shim::new(flags, listener, socket).map_err(|error| format!("set up: {error}"))?;
    info!("serving {} in namespace {}", flags.id, flags.namespace);
    shim.run();
    Ok(())
}

/// What the library has to say goes to the same log.
fn install_library_log(debug: bool) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    match cofferdam::log::Log::open(None, cofferdam::log::Format::Text, level) {
        Ok(log) => log.install(),
        Err(error) => error!("log: {error}"),
    }
}

/// The socket that `start` left at descriptor 3, or the one that the flags name; and its path.
fn listener(flags: &Flags) -> Result<(UnixListener, Option<PathBuf>), String> {
    if !flags.socket.is_empty() {
        let listener =
            UnixListener::bind(&flags.socket).map_err(|error| format!("{}: {error}", flags.socket))?;
        return Ok((listener, Some(PathBuf::from(&flags.socket))));
    }
    let inherited = cofferdam_sys::Fd::from_raw(3);
    cofferdam_sys::fs::set_close_on_exec(&inherited, true)
        .map_err(|errno| format!("inherited listener: {errno}"))?;
    let listener = UnixListener::from(OwnedFd::from(inherited));
    let address = listener.local_addr().map_err(|error| format!("inherited listener: {error}"))?;
    Ok((listener, address.as_pathname().map(PathBuf::from)))
}

/// Standard error becomes the bundle's `log`, a fifo that containerd reads.
fn open_log() {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if let Ok(log) = open("log", flags, nix::sys::stat::Mode::empty())
        && let Err(errno) = nix::unistd::dup2_stderr(log.as_fd())
    {
        error!("log: {errno}");
    }
}
