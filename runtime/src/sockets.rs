//! Unix sockets: where init waits for its start, where terminals, pidfds and seccomp listeners go.

use crate::container::Saved;
use crate::error::Error;
use crate::state::{Home, Status};
use cofferdam_plan::Filter;
use cofferdam_sys::{Fd, net};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as nix_connect, listen as nix_listen,
    socket,
};
use serde::Serialize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

fn stream() -> Result<OwnedFd, Error> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::call("make a socket", errno))
}

/// A second descriptor of a socket that the caller keeps.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Error> {
    fd.try_clone().map_err(|error| Error::call("duplicate a socket", error))
}

/// Connects to a socket by its path.
///
/// # Errors
/// When the path is longer than an address holds (107 bytes) or nobody listens.
pub fn connect(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::errno::Errno| Error::io("connect to", path, errno);
    let address = UnixAddr::new(path).map_err(failed)?;
    let socket = stream()?;
    nix_connect(socket.as_raw_fd(), &address).map_err(failed)?;
    Ok(socket)
}

/// The path of a name in a container's directory that fits an address, however long the directory's own path is.
fn short(home: &Home, name: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(home.dir().as_raw_fd().to_string()).join(name)
}

/// Connects to a socket in a container's directory.
pub(crate) fn connect_in(home: &Home, name: &str) -> Result<OwnedFd, Error> {
    connect(&short(home, name))
}

/// Listens on a new socket in a container's directory.
pub(crate) fn listen(home: &Home, name: &str) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::errno::Errno| Error::io("listen on", home.path().join(name), errno);
    let address = UnixAddr::new(&short(home, name)).map_err(failed)?;
    let socket = stream()?;
    bind(socket.as_raw_fd(), &address).map_err(failed)?;
    nix_listen(&socket, Backlog::new(4).map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

/// `--pidfd-socket`: sends a process's pidfd, as runc does.
pub(crate) fn send_pidfd(path: &Path, pidfd: &Fd) -> Result<(), Error> {
    let socket = connect(path)?;
    net::send_fd(&socket, b"pidfd", pidfd).map_err(|errno| Error::io("send the pidfd to", path, errno))
}

/// The container process state that goes with a seccomp listener (config-linux.md, "The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: serde_json::Value,
}

/// Sends the listener of a filter to the agent that the profile names.
pub(crate) fn send_seccomp_listener(
    filter: &Filter,
    saved: &Saved,
    status: Status,
    pid: i32,
    listener: &Fd,
) -> Result<(), Error> {
    if filter.listener_path.is_empty() {
        return Err(Error::Unsupported("config.json /linux/seccomp: NOTIFY without a listenerPath".into()));
    }
    let path = Path::new(&filter.listener_path);
    let init = saved.init.map_or(pid, |init| init.pid);
    let state = crate::container::hook_state(saved, status, init);
    let message = ContainerProcessState {
        oci_version: &saved.oci_version,
        fds: ["seccompFd"],
        pid,
        metadata: &filter.listener_metadata,
        state: serde_json::from_str(&state).unwrap_or_default(),
    };
    let text =
        serde_json::to_vec(&message).map_err(|error| Error::below("write the process state", error))?;
    let socket =
        connect(path).map_err(|error| Error::below("failed to connect with seccomp agent", error))?;
    net::send_fd(&socket, &text, listener)
        .map_err(|errno| Error::io("send the seccomp listener to", path, errno))
}
