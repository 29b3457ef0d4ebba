//! One `criu swrk` process and the socket to it: a request goes out, notifications come in and are answered, then the response.

use super::rpc;
use crate::error::{Ending, Error};
use cofferdam_proto::Message;
use cofferdam_sys::shim::{self, Program};
use cofferdam_sys::{Errno, Fd, Raw, Strings, children, net, process};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The descriptor of `criu swrk`'s end of the socket.
const SOCKET: Raw = 3;
/// Where further descriptors begin in CRIU's table.
pub(super) const FIRST: Raw = SOCKET + 1;
/// Longer messages are nobody's: runc's bound.
const MESSAGE: usize = 40 * 1024;

/// What CRIU says while it works.
pub(super) struct Notice {
    /// What has happened, or is about to: the names are those of CRIU's action scripts.
    pub script: String,
    /// Of whom.
    pub pid: i32,
    /// What came along.
    pub fd: Option<Fd>,
}

/// A CRIU that works for us. Dropped, it is ended.
pub(super) struct Session {
    socket: OwnedFd,
    pub pid: i32,
    pidfd: Fd,
    ended: Cell<bool>,
}

/// How a request failed.
pub(super) enum Failure {
    /// CRIU said so, or died; the log may tell more than CRIU's own message behind it.
    Criu(String, String),
    /// What we were to do meanwhile failed.
    Ours(Error),
}

/// `criu` in PATH.
fn find() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|folder| folder.join("criu"))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
        .ok_or_else(|| {
            Error::usage("exec: \"criu\": executable file not found in $PATH: checkpoint and restore need it")
        })
}

impl Session {
    /// Starts CRIU with these descriptors as stdin, stdout, stderr and, from [`FIRST`] on, more.
    pub fn start(stdio: [Raw; 3], more: &[Raw]) -> Result<Session, Error> {
        let program = find()?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Error::call("make a socket pair", errno))?;
        let failed = |errno: Errno| Error::io("execute", &program, errno);
        let args = Strings::new(&["criu", "swrk", "3"]).map_err(failed)?;
        let env: Vec<Vec<u8>> = std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), b"=".to_vec(), value.into_vec()].concat())
            .collect();
        let env = Strings::new(&env).map_err(failed)?;
        let mut fds: Vec<(Raw, Raw)> = (0..).zip(stdio).collect();
        fds.push((SOCKET, theirs.as_raw_fd()));
        fds.extend((FIRST..).zip(more.iter().copied()));
        let child = shim::start(&Program {
            path: program.as_os_str().as_bytes(),
            args: &args,
            env: &env,
            fds: &fds,
            new_group: false,
            dies_with_thread: false,
        })
        .map_err(failed)?;
        Ok(Session { socket: ours, pid: child.pid, pidfd: child.pidfd, ended: Cell::new(false) })
    }

    /// Sends a request and hears notifications until it is answered.
    pub fn ask(
        &self,
        request: &rpc::Request,
        heard: &mut dyn FnMut(Notice) -> Result<(), Error>,
    ) -> Result<rpc::Response, Failure> {
        self.send(request)?;
        let mut ours = None;
        loop {
            let (response, fd) = match (self.receive(), ours.take()) {
                (Ok(answer), failed) => {
                    ours = failed;
                    answer
                }
                // What failed here made CRIU give up.
                (Err(_), Some(error)) => return Err(Failure::Ours(error)),
                (Err(failure), None) => return Err(failure),
            };
            let kind = response.type_.map(|kind| kind.enum_value_or(rpc::Kind::EMPTY));
            if kind == Some(rpc::Kind::NOTIFY) && response.success() {
                let notify = response.notify.unwrap_or_default();
                let notice = Notice { script: notify.script().into(), pid: notify.pid(), fd };
                tracing::debug!("criu: {}", notice.script);
                let done = heard(notice);
                self.send(&rpc::Request {
                    type_: Some(rpc::Kind::NOTIFY.into()),
                    notify_success: Some(done.is_ok()),
                    ..rpc::Request::default()
                })?;
                ours = ours.or(done.err());
                continue;
            }
            if let Some(error) = ours {
                return Err(Failure::Ours(error));
            }
            if !response.success() {
                let name = kind.map_or_else(String::new, |kind| format!("{kind:?}"));
                let what = format!("criu failed: type {name} errno {}", response.cr_errno());
                return Err(Failure::Criu(what, response.cr_errmsg().into()));
            }
            return Ok(response);
        }
    }

    fn send(&self, request: &rpc::Request) -> Result<(), Failure> {
        let failed = |error: Error| Failure::Ours(error);
        let bytes = request
            .write_to_bytes()
            .map_err(|error| failed(Error::below("write CRIU's request", std::io::Error::from(error))))?;
        match net::send(&self.socket, &bytes) {
            // Why it is gone shows at the next read.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(failed(Error::call("speak to criu", errno))),
        }
    }

    fn receive(&self) -> Result<(rpc::Response, Option<Fd>), Failure> {
        let mut bytes = vec![0; MESSAGE];
        match net::receive_fd(&self.socket, &mut bytes) {
            Ok((0, _)) | Err(Errno::ECONNRESET) => Err(self.gone()),
            Ok((length, fd)) => match rpc::Response::parse_from_bytes(&bytes[..length]) {
                Ok(response) => Ok((response, fd)),
                Err(error) => Err(Failure::Criu(
                    format!("criu failed: its answer makes no sense: {error}"),
                    String::new(),
                )),
            },
            Err(errno) => Err(Failure::Ours(Error::call("listen to criu", errno))),
        }
    }

    /// Waits for CRIU to end by itself, which it does once it has answered.
    pub fn end(self) -> Result<(), Failure> {
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        match self.wait()? {
            Ending::Exited(0) => Ok(()),
            ending => Err(Failure::Criu(format!("criu failed: it {ending}"), String::new())),
        }
    }

    fn wait(&self) -> Result<Ending, Failure> {
        self.ended.set(true);
        let status =
            children::wait(self.pid).map_err(|errno| Failure::Ours(Error::call("wait for criu", errno)))?;
        Ok(match libc::WIFSIGNALED(status) {
            true => Ending::Killed(libc::WTERMSIG(status)),
            false => Ending::Exited(libc::WEXITSTATUS(status)),
        })
    }

    /// Its socket is closed, and so it has ended or is about to.
    fn gone(&self) -> Failure {
        let is_over = process::poll_readable(&self.pidfd, UNDONE_WITHIN).unwrap_or(false);
        let how = match is_over.then(|| self.wait()) {
            Some(Ok(ending)) => format!(": it {ending}"),
            _ => String::new(),
        };
        Failure::Criu(format!("criu failed: no answer{how}"), String::new())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended.get() {
            return;
        }
        // Without its socket it undoes what it has begun, and lets go of processes that it holds; that must not be cut short.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if !process::poll_readable(&self.pidfd, UNDONE_WITHIN).unwrap_or(true) {
            let _ = process::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        }
        let _ = children::wait(self.pid);
    }
}

/// How long CRIU may take to undo what it has begun, in milliseconds.
const UNDONE_WITHIN: i64 = 10_000;
