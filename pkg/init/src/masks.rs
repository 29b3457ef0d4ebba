//! Masked and read-only paths, and sysctls: what of the kernel's files the container may see and change.

use crate::{At, Failure, Init, Outcome};
use alloc::vec::Vec;
use cofferdam_step::{Attempt, Attributes};
use cofferdam_sys::mount::{self, MS_BIND, MS_REC, MountAttr, attr};
use cofferdam_sys::{AsFd, Errno, Fd, fs};

impl Init {
    pub(crate) fn mask_path(&mut self, path: &str, label: Option<&str>) -> Outcome {
        let Some(target) = self.present(path)? else { return Ok(()) };
        if fs::stat(&target, b"").at(Attempt::Stat)?.is_dir() {
            return self.mask_directory(&target, label);
        }
        let null = match self.null.take() {
            Some(null) => null,
            None => self.null_device()?,
        };
        let bound = self.bind_onto(&null, &target, false);
        self.null = Some(null);
        bound.map(drop)
    }

    /// The container's /dev/null, proved to be it: whoever exchanges it for a link to a kernel's file gets an error and no bind
    /// of that file (CVE-2025-31133). From here on the descriptor counts, not the path.
    fn null_device(&mut self) -> Outcome<Fd> {
        let null = self.root()?.open(b"/dev/null", fs::O_PATH | fs::O_NOFOLLOW).at(Attempt::Open)?;
        if fs::stat(&null, b"").at(Attempt::Stat)?.is_char_device(1, 3) {
            Ok(null)
        } else {
            Err(Failure { attempt: Attempt::WrongType, errno: Errno::ENXIO, detail: 0 })
        }
    }

    /// An empty read-only tmpfs; all masked directories share one superblock, each its own mount.
    fn mask_directory(&mut self, target: &Fd, label: Option<&str>) -> Outcome {
        if let Some(mask) = self.mask.take() {
            let again = self.bind_onto(&mask, target, false);
            self.mask = Some(mask);
            return again.map(drop);
        }
        let context = match mount::fsopen(b"tmpfs") {
            Err(Errno::ENOSYS | Errno::EPERM) => return self.mask_directory_by_path(target, label),
            other => other.at(Attempt::FsOpen)?,
        };
        mount::fsconfig(&context, b"source", Some(b"tmpfs")).at(Attempt::FsConfigSource)?;
        mount::fsconfig(&context, b"ro", None).at(Attempt::FsConfig)?;
        for key in [b"nr_blocks".as_slice(), b"nr_inodes".as_slice()] {
            mount::fsconfig(&context, key, Some(b"1")).at(Attempt::FsConfig)?;
        }
        if let Some(label) = label {
            mount::fsconfig(&context, b"context", Some(label.as_bytes())).at(Attempt::FsConfig)?;
        }
        mount::fsconfig_create(&context).at(Attempt::FsConfigCreate)?;
        let tree = mount::fsmount(&context, attr::RDONLY).at(Attempt::FsMount)?;
        mount::move_mount(&tree, target).at(Attempt::MoveMount)?;
        self.mask = Some(tree);
        Ok(())
    }

    fn mask_directory_by_path(&mut self, target: &Fd, label: Option<&str>) -> Outcome {
        let mut data = Vec::from(&b"nr_blocks=1,nr_inodes=1"[..]);
        if let Some(label) = label {
            data.extend_from_slice(b",context=\"");
            data.extend_from_slice(label.as_bytes());
            data.push(b'"');
        }
        self.mount_on(b"tmpfs", target, b"tmpfs", mount::MS_RDONLY, &data).at(Attempt::Mount)
    }

    pub(crate) fn make_readonly(&mut self, path: &str) -> Outcome {
        let Some(target) = self.present(path)? else { return Ok(()) };
        let tree = self.bind_onto(&target, &target, true)?;
        match tree {
            Some(tree) => self.set_readonly(&tree),
            None => self.remount_readonly(path),
        }
    }

    pub(crate) fn remount_readonly(&mut self, path: &str) -> Outcome {
        let mounted = self.root()?.resolve(path.as_bytes()).at(Attempt::Resolve)?;
        self.set_readonly(&mounted)
    }

    /// Read-only is set after the move: the mount is attached either way, and a failure ends the container.
    fn set_readonly(&mut self, mounted: &Fd) -> Outcome {
        let change = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        match mount::mount_setattr(mounted, false, &change) {
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let change = Attributes { set: attr::RDONLY, clear: 0 };
                let flags =
                    crate::mounts::remount_flags(mounted, change.set, change.clear).at(Attempt::Stat)?;
                self.mount_on(b"", mounted, b"", flags, b"").at(Attempt::Remount)
            }
            other => other.at(Attempt::MountSetattr),
        }
    }

    /// The path, unless it is not there.
    fn present(&mut self, path: &str) -> Outcome<Option<Fd>> {
        match self.root()?.resolve(path.as_bytes()) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(Failure { attempt: Attempt::Resolve, errno, detail: 0 }),
        }
    }

    /// Binds what one descriptor is onto another; the new mount's descriptor, where the kernel gives one.
    fn bind_onto(&mut self, what: &Fd, onto: &Fd, recursive: bool) -> Outcome<Option<Fd>> {
        match mount::open_tree_clone(what, b"", recursive) {
            Ok(tree) => {
                mount::move_mount(&tree, onto).at(Attempt::MoveMount)?;
                Ok(Some(tree))
            }
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let mut text = [0u8; 32];
                let source = cofferdam_sys::root::decimal_path(b"self/fd/", what.number(), &mut text);
                let flags = MS_BIND | if recursive { MS_REC } else { 0 };
                self.mount_on(source, onto, b"", flags, b"").at(Attempt::Mount)?;
                Ok(None)
            }
            Err(errno) => Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
        }
    }

    /// The label of a file that takes no `context=` mount option, by its extended attribute.
    pub(crate) fn set_file_label(&mut self, path: &str, label: &str) -> Outcome {
        let file = self.root()?.open(path.as_bytes(), fs::O_RDONLY | fs::O_NONBLOCK).at(Attempt::Open)?;
        match fs::fsetxattr(&file, b"security.selinux", label.as_bytes()) {
            // A filesystem without labels: as with runc, no reason to fail.
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(Failure { attempt: Attempt::Write, errno, detail: 0 }),
        }
    }

    /// One sysctl: dots become slashes unless the key has slashes already (`net/ipv4/conf/eth0.1/…`).
    pub(crate) fn set_sysctl(&mut self, key: &str, value: &str) -> Outcome {
        let mut path = Vec::from(&b"sys/"[..]);
        if key.contains('/') {
            path.extend_from_slice(key.as_bytes());
        } else {
            path.extend(key.bytes().map(|b| if b == b'.' { b'/' } else { b }));
        }
        self.write_own(&path, value.as_bytes())
    }
}
