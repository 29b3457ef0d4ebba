//! The container's root: taken, entered or pivoted to, made read-only.

use crate::{At, Failure, Init, Outcome};
use alloc::vec::Vec;
use cofferdam_step::{Attempt, Namespace, Program, Propagation, Slot};
use cofferdam_sys::mount::{self, MS_MOVE, MS_PRIVATE, MS_REC, MS_SLAVE, MountAttr, attr};
use cofferdam_sys::{Cwd, Errno, Fd, fs, process, root::Root};

const MNT_DETACH: i32 = 2;

/// Propagation of all of the host's mounts, in our copy of them.
pub(crate) fn set_host_propagation(how: Propagation) -> Outcome {
    propagate(b"/", how)
}

/// Propagation of the container's root mount, at the end.
pub(crate) fn set_root_propagation(how: Propagation) -> Outcome {
    propagate(b"/", how)
}

fn propagate(path: &[u8], how: Propagation) -> Outcome {
    let flags = how.flag | if how.recursive { MS_REC } else { 0 };
    mount::mount(b"", path, b"", flags, b"").at(Attempt::Propagation)
}

/// The root of the mount namespace that this process is in.
pub(crate) fn current_root(handle: impl FnOnce(Fd) -> Root) -> Outcome<Root> {
    fs::openat(&Cwd, b"/", fs::O_PATH | fs::O_DIRECTORY, 0).map(handle).at(Attempt::OpenRoot)
}

impl Init {
    /// Mounts the rootfs onto itself: pivot_root wants a mount, and its flags must be the container's own.
    pub(crate) fn prepare_root(&mut self, path: &str, slot: Option<Slot>, keep_propagation: bool) -> Outcome {
        let path = path.as_bytes();
        self.shared_with_host = keep_propagation;
        if keep_propagation {
            make_parent_private(path)?;
        }
        let tree = match slot {
            Some(slot) => Some(self.slot(slot)?),
            None => None,
        };
        let onto = fs::openat(&Cwd, path, fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::OpenRoot)?;
        let root = match tree {
            Some(tree) => match mount::move_mount(&tree, &onto) {
                Err(_) if crate::mounts::is_no_tree(&tree) => bind_onto_itself(path)?,
                moved => {
                    moved.at(Attempt::MoveMount)?;
                    fs::openat(&Cwd, path, fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::OpenRoot)?
                }
            },
            None => match mount::open_tree_clone(&onto, b"", true) {
                Ok(tree) => {
                    mount::move_mount(&tree, &onto).at(Attempt::MoveMount)?;
                    tree
                }
                // A filter around us without the mount interface of Linux 5.2.
                Err(Errno::ENOSYS | Errno::EPERM) => bind_onto_itself(path)?,
                Err(errno) => return Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
            },
        };
        self.root = Some(Root::new(root));
        Ok(())
    }

    /// Whoever enters a mount namespace gets its root for root and working directory. As a copy of the host's mounts, these are the
    /// peers of what they were copied from, until their propagation is set.
    pub(crate) fn enter_root(&mut self, path: &str, how: Propagation, program: &Program) -> Outcome {
        self.open_sources(program);
        let namespace = mount::open_tree_namespace(path.as_bytes()).at(Attempt::OpenTree)?;
        process::setns(&namespace, Namespace::Mount.clone_flag()).at(Attempt::Setns)?;
        propagate(b"/", how)?;
        self.root = Some(current_root(Root::new)?);
        Ok(())
    }

    pub(crate) fn pivot_root(&mut self, no_pivot: bool) -> Outcome {
        let shared = self.shared_with_host;
        let root = self.root()?;
        let old = match shared && !no_pivot {
            true => Some(fs::openat(&Cwd, b"/", fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::OpenRoot)?),
            false => None,
        };
        fs::fchdir(root).at(Attempt::Fchdir)?;
        if no_pivot {
            return self.move_root();
        }
        mount::pivot_root_here().at(Attempt::PivotRoot)?;
        // The old root now lies over the new one. To umount2, "." is the topmost mount there, the old root; to mount(2) it is the
        // working directory itself, so that one has to be the old root when its propagation is cut.
        if let Some(old) = old {
            fs::fchdir(&old).at(Attempt::Fchdir)?;
            mount::mount(b"", b".", b"", MS_SLAVE | MS_REC, b"").at(Attempt::Propagation)?;
        }
        mount::umount(b".", MNT_DETACH).at(Attempt::Umount)?;
        fs::chdir(b"/").at(Attempt::Chdir)
    }

    /// `--no-pivot`, for a host whose root is the initramfs: what the host has mounted stays reachable in principle, so
    /// what shows the host (its /proc and /sys) is detached first, as runc does.
    fn move_root(&mut self) -> Outcome {
        for path in host_kernel_mounts()? {
            // A mount that is busy or locked stays: the best that this mode has to give.
            let _ = mount::mount(b"", &path, b"", MS_SLAVE | MS_REC, b"");
            if let Err(Errno::EINVAL | Errno::EPERM) = mount::umount(&path, MNT_DETACH) {
                let _ = mount::mount(b"tmpfs", &path, b"tmpfs", 0, b"");
            }
        }
        mount::mount(b".", b"/", b"", MS_MOVE, b"").at(Attempt::MoveMount)?;
        mount::chroot(b".").at(Attempt::Chroot)?;
        fs::chdir(b"/").at(Attempt::Chdir)
    }

    /// For a container that shares the host's mounts: nothing can be pivoted or detached there.
    pub(crate) fn change_root(&mut self, path: Option<&str>) -> Outcome {
        if let Some(path) = path {
            let root =
                fs::openat(&Cwd, path.as_bytes(), fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::OpenRoot)?;
            self.root = Some(Root::new(root));
        }
        fs::fchdir(self.root()?).at(Attempt::Fchdir)?;
        mount::chroot(b".").at(Attempt::Chroot)?;
        fs::chdir(b"/").at(Attempt::Chdir)
    }

    pub(crate) fn make_root_readonly(&mut self) -> Outcome {
        let change = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        match mount::mount_setattr(self.root()?, false, &change) {
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let root = self.root()?;
                let flags = crate::mounts::remount_flags(root, attr::RDONLY, 0).at(Attempt::Stat)?;
                mount::mount(b"", b"/", b"", flags, b"").at(Attempt::Remount)
            }
            other => other.at(Attempt::MountSetattr),
        }
    }
}

/// The mount that the rootfs lies on stops propagating: pivot_root refuses a shared parent, and our bind of the rootfs must
/// not appear on the host. The nearest path upwards that is a mount point is that mount.
fn make_parent_private(path: &[u8]) -> Outcome {
    let mut end = path.len();
    loop {
        let at = if end == 0 { b"/" } else { &path[..end] };
        match mount::mount(b"", at, b"", MS_PRIVATE, b"") {
            Ok(()) => return Ok(()),
            Err(Errno::EINVAL) if end > 0 => end = path[..end].iter().rposition(|b| *b == b'/').unwrap_or(0),
            Err(errno) => return Err(Failure { attempt: Attempt::Propagation, errno, detail: 0 }),
        }
    }
}

fn bind_onto_itself(path: &[u8]) -> Outcome<Fd> {
    mount::mount(path, path, b"", mount::MS_BIND | MS_REC, b"").at(Attempt::Mount)?;
    fs::openat(&Cwd, path, fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::OpenRoot)
}

/// Mount points of procfs and sysfs outside the container's root, from mountinfo.
fn host_kernel_mounts() -> Outcome<Vec<Vec<u8>>> {
    let proc = cofferdam_sys::proc::Proc::open().at(Attempt::Proc)?;
    let file = proc.open_file(b"self/mountinfo", fs::O_RDONLY).at(Attempt::Open)?;
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let length = fs::read(&file, &mut chunk).at(Attempt::Read)?;
        if length == 0 {
            break;
        }
        text.extend_from_slice(&chunk[..length]);
    }
    let mut cwd = [0u8; 4096];
    let cwd = fs::getcwd(&mut cwd).at(Attempt::Getcwd)?;
    let mut found = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let point = fields.nth(4).unwrap_or_default();
        let fstype = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
        if (fstype == b"proc" || fstype == b"sysfs") && !point.starts_with(cwd) {
            found.push(point.to_vec());
        }
    }
    Ok(found)
}
