//! The root file system as CRIU wants it: mounted on a folder whose parent nothing covers, with every mount point in it there.
//!
//! That is made in a mount namespace of its own, which belongs to a thread and then to the CRIU that this thread starts: the host
//! sees none of it, and nothing is left of it when CRIU has ended, however it ends.

use crate::error::Error;
use cofferdam_plan::Plan;
use cofferdam_spec::lies_in;
use cofferdam_step::{Create, Mount, Namespace, Source, Step};
use cofferdam_sys::root::Root;
use cofferdam_sys::{AsFd, Cwd, Fd, fs, mount, process};
use nix::libc;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder on which the root file system is mounted, removed when this is dropped.
pub(super) struct Scaffold {
    path: PathBuf,
}

impl Scaffold {
    /// Makes the folder in the container's directory.
    pub fn new(home: &Path) -> Result<Scaffold, Error> {
        let path = home.join("criu-root");
        std::fs::create_dir(&path).map_err(|error| Error::io("make", &path, error))?;
        let real = path.canonicalize().map_err(|error| Error::io("resolve", &path, error));
        match real {
            Ok(path) => Ok(Scaffold { path }),
            Err(error) => {
                let _ = std::fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts `rootfs` there, completes the mount points of `plan`, and does `work` in the mount namespace where all that is so.
    pub fn raise<T: Send>(
        &self,
        rootfs: &Path,
        plan: &Plan,
        work: impl FnOnce(&Root) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let in_thread = || {
            let failed = |errno| Error::call("make a mount namespace for criu", errno);
            process::unshare(Namespace::Mount.clone_flag()).map_err(failed)?;
            // What the host mounts meanwhile may come in, nothing goes out.
            mount::mount(b"", b"/", b"", mount::MS_SLAVE | mount::MS_REC, b"").map_err(failed)?;
            let root = self.mount(rootfs)?;
            make_mount_points(&root, plan)?;
            drop(root);
            // With it go the mounts that were made for mount points in mounts.
            mount::umount(self.path.as_os_str().as_bytes(), libc::MNT_DETACH)
                .map_err(|errno| Error::io("unmount", &self.path, errno))?;
            work(&self.mount(rootfs)?)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .spawn_scoped(scope, in_thread)
                .map_err(|error| Error::call("start a thread", error))?;
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::Unsupported("the thread for criu's mounts died".into())))
        })
    }

    fn mount(&self, rootfs: &Path) -> Result<Root, Error> {
        let (from, to) = (rootfs.as_os_str().as_bytes(), self.path.as_os_str().as_bytes());
        mount::mount(from, to, b"", mount::MS_BIND | mount::MS_REC, b"")
            .map_err(|errno| Error::io("bind the root file system", rootfs, errno))?;
        let root = fs::openat(&Cwd, to, fs::O_PATH | fs::O_DIRECTORY, 0);
        root.map(Root::new).map_err(|errno| Error::io("open", &self.path, errno))
    }
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes what create would have made in the root file system. What lies in a file system that CRIU fills is none of our business.
fn make_mount_points(root: &Root, plan: &Plan) -> Result<(), Error> {
    let mut filled: Vec<&str> = Vec::new();
    for step in &plan.init {
        let Step::Mount(mount) = step else { continue };
        if filled.iter().any(|above| is_below(&mount.destination, above)) {
            continue;
        }
        let made = match &mount.source {
            Source::Remount { .. } => Ok(()),
            Source::New { fstype, .. } if fstype.starts_with("cgroup") => Ok(()),
            Source::New { .. } => {
                filled.push(&mount.destination);
                root.make_dir_all(mount.destination.as_bytes(), 0o755).map(drop)
            }
            Source::Bind { path, .. } | Source::Link { path, .. } | Source::Tree { path, .. } => {
                match copied_link(mount, path) {
                    Some(text) => root.make_link(mount.destination.as_bytes(), text.as_bytes()),
                    None => bind(root, mount, path),
                }
            }
        };
        made.map_err(|errno| Error::io("make the mount point", &mount.destination, errno))?;
    }
    Ok(())
}

/// What the link reads that was made in place of a mount.
pub(super) fn copied_link(mount: &Mount, source: &str) -> Option<OsString> {
    let copies = mount.create == Create::SameLink;
    copies.then(|| std::fs::read_link(source).ok().map(PathBuf::into_os_string)).flatten()
}

/// There may be mount points in what is mounted.
fn bind(root: &Root, mount: &Mount, source: &str) -> cofferdam_sys::Result<()> {
    // What a link leads to is what will be mounted.
    let is_dir = fs::stat(&fs::openat(&Cwd, source.as_bytes(), fs::O_PATH, 0)?, b"")?.is_dir();
    let point: Fd = match is_dir {
        true => root.make_dir_all(mount.destination.as_bytes(), 0o755)?,
        false => root.make_file(mount.destination.as_bytes(), 0o755)?,
    };
    let point = format!("/proc/self/fd/{}", point.number());
    mount::mount(source.as_bytes(), point.as_bytes(), b"", mount::MS_BIND | mount::MS_REC, b"")
}

fn is_below(path: &str, above: &str) -> bool {
    path != above && lies_in(path, above)
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn below_means_by_whole_names() {
        assert!(is_below("/dev/pts", "/dev") && is_below("/a", "/") && is_below("/a/b/c", "/a/b"));
        assert!(!is_below("/dev", "/dev") && !is_below("/device", "/dev"));
    }
}
