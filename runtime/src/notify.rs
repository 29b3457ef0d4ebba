//! systemd's readiness protocol (`sd_notify(3)`) from inside a container.
//!
//! A service manager that starts us with NOTIFY_SOCKET wants to hear `READY=1` from the container's process, which cannot
//! reach that socket. So a directory of ours (`<root>/@notify/<id>`; no id has an @) is mounted on `/run/notify`, with a socket on which we listen; when the process
//! says that it is ready, we pass it on, add `MAINPID=` with the pid that the manager knows, and wait until the manager has
//! understood both (`BARRIER=1`). As runc does it (notify_socket.go), but waiting on a pidfd instead of looking for a pid ten
//! times a second. Nothing else that the process says goes through: it must not stop watchdogs or name other pids.

use crate::error::Error;
use crate::state::{Init, Liveness, Root};
use cofferdam_spec::{Mount, Spec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, IoSlice, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

const SOCKET: &str = "notify.sock";

/// How long a manager may take for a barrier, in milliseconds; old ones do not know it.
const BARRIER_LIMIT: u16 = 30_000;

/// The manager's socket, if there is a manager that waits.
pub fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// The directory of a container's socket.
fn directory(root: &Root, id: &str) -> PathBuf {
    root.path().join("@notify").join(id)
}

/// Makes the directory of a container to be, and lets the container of `spec` reach it.
pub fn prepare(root: &Root, id: &str, spec: &mut Spec) -> Result<(), Error> {
    root.make()?;
    let path = directory(root, id);
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
    made.map_err(|error| Error::io("make", &path, error))?;
    let source = path.to_str().ok_or_else(|| Error::Usage(format!("{path:?} is not UTF-8")))?;
    spec.mounts.push(Mount {
        destination: "/run/notify".into(),
        source: source.into(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET=/run/notify/{SOCKET}"));
    }
    Ok(())
}

/// Removes what [`prepare`] made, if it did.
pub fn forget(root: &Root, id: &str) -> Result<(), Error> {
    let path = directory(root, id);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        Ok(()) => {
            // The last one leaves nothing behind; others' keep the directory.
            let _ = path.parent().map(fs::remove_dir);
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Our end of the container's socket, and the manager's.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    manager: UnixDatagram,
}

impl Notify {
    /// Listens for a container that was [`prepare`]d; none for another one, or when no manager waits.
    pub fn listen(root: &Root, id: &str) -> Result<Option<Notify>, Error> {
        let Some(name) = manager() else { return Ok(None) };
        let path = directory(root, id);
        match File::open(&path) {
            Ok(dir) => Notify::between(&dir, path, &name).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path, error)),
        }
    }

    fn between(dir: &File, shown: PathBuf, name: &OsStr) -> Result<Notify, Error> {
        let failed = |what: &'static str| {
            let shown = shown.clone();
            move |error| Error::io(what, shown, error)
        };
        // A socket's address has room for 107 bytes, which a long root and a long id exceed.
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(failed("bind"))?;
        // The container's user is anybody.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(failed("chmod"))?;
        let manager = UnixDatagram::unbound().map_err(|error| Error::call("make a socket", error))?;
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(name),
        };
        address
            .and_then(|address| manager.connect_addr(&address))
            .map_err(|error| Error::io("connect to NOTIFY_SOCKET", name, error))?;
        Ok(Notify { socket, manager })
    }

    /// Waits until the container's process is ready, which the manager then hears, or has ended. The pid is named when the
    /// manager is to watch it instead of us.
    pub fn relay(&self, init: &Init, name_pid: bool) -> Result<(), Error> {
        let Liveness::Alive(pidfd) = init.liveness()? else { return Ok(()) };
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Error::call("poll", errno)),
            }
            if fds[0].any() == Some(true) {
                let mut buffer = [0; 4096];
                let count = self
                    .socket
                    .recv(&mut buffer)
                    .map_err(|error| Error::call("receive from the container", error))?;
                if let Some(line) = ready_line(&buffer[..count]) {
                    return self.tell(line, name_pid.then_some(init.pid));
                }
            } else if fds[1].any() == Some(true) {
                return Ok(());
            }
        }
    }

    fn tell(&self, line: &[u8], pid: Option<i32>) -> Result<(), Error> {
        let failed = |error| Error::call("write to NOTIFY_SOCKET", error);
        self.manager.send(&[line, b"\n"].concat()).map_err(failed)?;
        if let Some(pid) = pid {
            self.manager.send(format!("MAINPID={pid}\n").as_bytes()).map_err(failed)?;
        }
        let (theirs, ours) = io::pipe().map(|(reader, writer)| (writer, reader)).map_err(failed)?;
        sendmsg::<()>(
            self.manager.as_raw_fd(),
            &[IoSlice::new(b"BARRIER=1")],
            &[ControlMessage::ScmRights(&[theirs.as_raw_fd()])],
            MsgFlags::empty(),
            None,
        )
        .map_err(|errno| failed(errno.into()))?;
        drop(theirs);
        await_barrier(ours)
    }
}

/// The manager closes its end when it has worked through what came before.
fn await_barrier(mut pipe: PipeReader) -> Result<(), Error> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, BARRIER_LIMIT) {
        Ok(0) => {
            tracing::warn!("NOTIFY_SOCKET: no answer to BARRIER=1 within 30 s");
            return Ok(());
        }
        Ok(_) => {}
        Err(errno) => return Err(Error::call("poll", errno)),
    }
    match pipe.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::Usage("NOTIFY_SOCKET: unexpected answer to BARRIER=1".into())),
        Err(error) => Err(Error::call("wait for NOTIFY_SOCKET", error)),
    }
}

/// The line of a message that says whether the process is ready.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Root;
    use nix::sys::socket::{ControlMessageOwned, RecvMsg, recvmsg};
    use std::io::IoSliceMut;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn only_readiness_goes_through() {
        assert_eq!(ready_line(b"STATUS=x\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"MAINPID=1\nX=READY=1"), None);
    }

    /// What the manager hears next, and the descriptors that came with it (closed at once).
    fn hear(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message: RecvMsg<'_, '_, ()> =
            recvmsg(manager.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        let count = message.bytes;
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                fds.iter().for_each(|fd| nix::unistd::close(*fd).unwrap());
            }
        }
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_ready_then_the_pid_then_a_barrier() {
        let root = Root::new(std::env::temp_dir().join(format!("cofferdam-notify-{}", std::process::id())));
        let mut spec = cofferdam_spec::default_spec(false);
        prepare(&root, "web", &mut spec).unwrap();
        let mount = spec.mounts.pop().unwrap();
        let directory = PathBuf::from(&mount.source);
        assert_eq!(directory, root.path().join("@notify/web"));
        assert_eq!(mount.destination, "/run/notify");
        assert_eq!(spec.process.unwrap().env.pop().unwrap(), "NOTIFY_SOCKET=/run/notify/notify.sock");
        assert!(root.ids().unwrap().is_empty());
        let name = format!("cofferdam-notify-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let notify = Notify::between(
            &File::open(&directory).unwrap(),
            directory.clone(),
            OsStr::new(&format!("@{name}")),
        )
        .unwrap();

        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let pidfd = cofferdam_sys::process::pidfd_open(child.id() as i32).unwrap();
        let init = Init::of(child.id() as i32, pidfd.as_fd()).unwrap();
        let process = UnixDatagram::unbound().unwrap();
        let path = directory.join(SOCKET);
        process.send_to(b"STATUS=coming\n", &path).unwrap();
        process.send_to(b"STATUS=there\nREADY=1\nMAINPID=1\n", &path).unwrap();
        std::thread::scope(|scope| {
            let relay = scope.spawn(|| notify.relay(&init, true));
            assert_eq!(hear(&manager), "READY=1\n");
            assert_eq!(hear(&manager), format!("MAINPID={}\n", init.pid));
            assert_eq!(hear(&manager), "BARRIER=1");
            relay.join().unwrap().unwrap();
            // A process that ends without a word ends the relay too.
            let relay = scope.spawn(|| notify.relay(&init, true));
            child.kill().unwrap();
            relay.join().unwrap().unwrap();
        });
        child.wait().unwrap();
        forget(&root, "web").unwrap();
        forget(&root, "web").unwrap();
        assert!(!directory.exists());
        fs::remove_dir_all(root.path()).unwrap();
    }
}
