//! The socket that a shim serves on: where it lies, and taking it.
//!
//! CVE-2020-15257: an abstract socket is reachable from every container that shares the host's network. So: a path, a folder of
//! mode 0700, a socket of mode 0600, and the peer's uid is checked on top of it.

use crate::sha256;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{DirBuilder, File, Permissions},
    io::{Error, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// The longest path that every containerd dials (`sun_path` less a NUL, and one to be safe, as containerd has it).
const PATH_MAX: usize = 106;

/// The folder of sockets when containerd names none: root's, else the first of the user's own.
fn default_dir() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return "/run/containerd/s".into();
    }
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Path::new(&dir).join("containerd/s");
    }
    let run = PathBuf::from(format!("/run/{uid}"));
    if run.is_dir() { run.join("containerd/s") } else { format!("/tmp/containerd-s-{uid}").into() }
}

/// Where the shim of `group` in `namespace` of the containerd at `containerd` serves.
///
/// # Errors
/// ENAMETOOLONG when the folder's name is too long for a socket.
pub fn path(dir: Option<&str>, containerd: &str, namespace: &str, group: &str) -> std::io::Result<PathBuf> {
    let dir = dir.filter(|dir| !dir.is_empty()).map_or_else(default_dir, PathBuf::from);
    let digest = sha256::hex_digest(format!("{containerd}/{namespace}/{group}").as_bytes());
    let path = dir.join(digest);
    if path.as_os_str().len() > PATH_MAX {
        let text = format!("{}: unix socket path too long (> {PATH_MAX})", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(path)
}

/// Name of the link in a bundle to the folder of its shim's socket, as containerd's own shim has it.
const LINK: &str = "s";

/// Leaves the folder that containerd named where `delete` finds it: to `delete` containerd does not name it.
pub fn remember_dir(dir: Option<&str>) {
    if let Some(dir) = dir.filter(|dir| !dir.is_empty()) {
        // A restarted container finds the link there.
        let _ = std::os::unix::fs::symlink(dir, LINK);
    }
}

/// The folder that was remembered in a bundle.
pub fn remembered_dir(bundle: &Path) -> Option<String> {
    std::fs::read_link(bundle.join(LINK)).ok()?.into_os_string().into_string().ok()
}

/// What became of the wish to serve at a path.
pub enum Taken {
    /// It is ours.
    Listening(UnixListener),
    /// A shim serves there already.
    Served,
}

/// Takes the path, unless a living shim has it. What a dead shim left is replaced.
pub fn take(path: &Path) -> std::io::Result<Taken> {
    let _lock = lock_dir(path, true)?;
    // The socket is private from its first moment; nobody else makes files here while we do.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let result = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                Ok(Taken::Served)
            } else {
                std::fs::remove_file(path).and_then(|()| UnixListener::bind(path)).map(Taken::Listening)
            }
        }
        other => other.map(Taken::Listening),
    };
    nix::sys::stat::umask(mask);
    result
}

/// Removes the socket of a shim that is gone, or our own; one that somebody serves on stays.
pub fn remove(path: &Path, own: Option<&OwnedFd>) {
    let Ok(_lock) = lock_dir(path, false) else { return };
    // Our own listener must not answer this.
    if own.is_some() || UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}

/// Makes the socket's folder if it is to be made, and holds its lock: takers and removers of sockets come one at a time.
fn lock_dir(path: &Path, make: bool) -> std::io::Result<Flock<File>> {
    let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = File::open(dir)?;
    // A folder that an older containerd made more widely accessible, if it is ours.
    let metadata = file.metadata()?;
    if make && metadata.mode() & 0o077 != 0 && metadata.uid() == nix::unistd::geteuid().as_raw() {
        file.set_permissions(Permissions::from_mode(0o700))?;
    }
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_once_and_again_after_its_owner_died() {
        let dir = std::env::temp_dir().join(format!("shim-address-{}", std::process::id()));
        let path = path(dir.to_str(), "/run/c.sock", "ns", "group").unwrap();
        assert!(path.ends_with(sha256::hex_digest(b"/run/c.sock/ns/group")));
        let Ok(Taken::Listening(first)) = take(&path) else { panic!("not taken") };
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(take(&path), Ok(Taken::Served)));
        remove(&path, None);
        assert!(path.exists(), "somebody serves there");
        drop(first);
        assert!(matches!(take(&path), Ok(Taken::Listening(_))));
        remove(&path, None);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let error = path(Some(&"/x".repeat(30)), "a", "b", "c").unwrap_err();
        assert!(error.to_string().ends_with(": unix socket path too long (> 106)"), "{error}");
    }
}
