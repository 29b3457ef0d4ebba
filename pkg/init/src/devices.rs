//! Device nodes, links and directories below the rootfs.

use crate::{At, Failure, Init, Outcome};
use cofferdam_step::{Attempt, Slot};
use cofferdam_sys::mount::{self, MS_BIND};
use cofferdam_sys::{Cwd, Errno, fs};

impl Init {
    pub(crate) fn make_directory(&mut self, path: &str, mode: u32) -> Outcome {
        self.root()?.make_dir_all(path.as_bytes(), mode).map(drop).at(Attempt::MakeDir)
    }

    /// Makes a node; one that is there is good if it is the same device (a /dev that the image or a volume brought).
    pub(crate) fn make_device(
        &mut self,
        path: &str,
        mode: u32,
        (major, minor): (u32, u32),
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Outcome {
        let (dir, name) = self.parent(path.as_bytes())?;
        // The file creation mask is 0 until SetUser, so the mode is what was asked for.
        match fs::mknodat(&dir, name, mode, major, minor) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let found = fs::stat(&dir, name).at(Attempt::Stat)?;
                let same_type = (found.mode ^ mode) & libc::S_IFMT == 0;
                let node = mode & libc::S_IFMT != libc::S_IFIFO;
                if !same_type || (node && found.rdev != (major, minor)) {
                    return Err(Failure { attempt: Attempt::WrongType, errno: Errno::EEXIST, detail: 0 });
                }
                return Ok(());
            }
            Err(errno) => return Err(Failure { attempt: Attempt::MakeNode, errno, detail: 0 }),
        }
        let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
        if uid == 0 && gid == 0 {
            return Ok(());
        }
        fs::lchownat(&dir, name, uid, gid).at(Attempt::Chown)
    }

    /// Binds the host's device onto an empty file: a user namespace's owner may not make nodes.
    pub(crate) fn bind_device(&mut self, path: &str, source: &str, slot: Option<Slot>) -> Outcome {
        let tree = match slot {
            Some(slot) => Some(self.slot(slot)?),
            None => None,
        };
        let target = self.root()?.make_file(path.as_bytes(), 0o644).at(Attempt::MakeFile)?;
        let bind =
            |init: &mut Init| init.mount_on(source.as_bytes(), &target, b"", MS_BIND, b"").at(Attempt::Mount);
        if let Some(tree) = tree {
            return match mount::move_mount(&tree, &target) {
                Err(_) if crate::mounts::is_no_tree(&tree) => bind(self),
                moved => moved.at(Attempt::MoveMount),
            };
        }
        match mount::open_tree_clone(&Cwd, source.as_bytes(), false) {
            Ok(tree) => mount::move_mount(&tree, &target).at(Attempt::MoveMount),
            Err(Errno::ENOSYS | Errno::EPERM) => bind(self),
            Err(errno) => Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
        }
    }

    pub(crate) fn make_symlink(&mut self, path: &str, target: &str, replace: bool) -> Outcome {
        let (dir, name) = self.parent(path.as_bytes())?;
        match fs::symlinkat(target.as_bytes(), &dir, name) {
            Err(Errno::EEXIST) if replace => {
                fs::unlinkat(&dir, name, 0).at(Attempt::Unlink)?;
                fs::symlinkat(target.as_bytes(), &dir, name).at(Attempt::Symlink)
            }
            // What an image or a volume has there is its own business, as with runc.
            Err(Errno::EEXIST) => Ok(()),
            other => other.at(Attempt::Symlink),
        }
    }
}
