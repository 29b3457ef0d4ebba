//! The directories that things are made in, looked up once.
//!
//! `/dev` gets six nodes, six links and three mounts, `/sys/fs/cgroup` a dozen mounts: each lookup that is saved is a system
//! call of every container's start. A descriptor stays right for as long as nothing is mounted over its directory, which is
//! what [`Parents::covered`] is told.

use crate::{At, Init, Outcome};
use alloc::vec::Vec;
use cofferdam_step::Attempt;
use cofferdam_sys::{AsFd, Borrowed, Errno, Fd, fs};

/// Directories by their path as the plan writes it.
#[derive(Default)]
pub(crate) struct Parents {
    made_in: Vec<(Vec<u8>, Fd)>,
    last: Option<Last>,
}

/// The directory of the last mount whose place was there already, on the rootfs's own mount with no link on the way.
struct Last {
    path: Vec<u8>,
    /// The directory, from the second mount in it on, and its mount's id.
    dir: Option<(Fd, u64)>,
}

impl Parents {
    fn find(&self, path: &[u8]) -> Option<Borrowed> {
        self.made_in.iter().find(|(known, _)| known == path).map(|(_, dir)| Borrowed(dir.number()))
    }

    /// Something is mounted on `path` now: what was known at and below it is hidden.
    pub(crate) fn covered(&mut self, path: &[u8]) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.made_in.retain(|(known, _)| {
            known.strip_prefix(path).is_none_or(|rest| !rest.is_empty() && rest.first() != Some(&b'/'))
        });
    }

    /// A mount is made on `path`, which is where its letters say.
    pub(crate) fn placed(&mut self, path: &[u8]) {
        let dir = split(path).map(|(dir, _)| dir);
        if self.last.as_ref().map(|last| &*last.path) != dir {
            self.last = dir.map(|dir| Last { path: Vec::from(dir), dir: None });
        }
    }

    /// A mount is made where links may lead: it could be what covers the last one's directory.
    pub(crate) fn placed_anywhere(&mut self) {
        self.last = None;
    }
}

/// Directory and last name of a clean absolute path; none for the root and for what ends in dots.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|b| *b == b'/')?;
    let (dir, name) = (&path[..at], &path[at + 1..]);
    if name.is_empty() || name == b"." || name == b".." { None } else { Some((dir, name)) }
}

/// The root has no letters in front of its slash.
fn dir_of(dir: &[u8]) -> &[u8] {
    if dir.is_empty() { b"/" } else { dir }
}

impl Init {
    /// The directory of `path`, if it is known already, and the last name.
    pub(crate) fn known_parent<'p>(&self, path: &'p [u8]) -> Option<(Borrowed, &'p [u8])> {
        let (dir, name) = split(path)?;
        Some((self.parents.find(dir)?, name))
    }

    /// The directory of the last mount and the name in it, if `path` lies beside that one, is there, on the same mount, and no link: one look
    /// in place of a way from the root, a descriptor and its end. move_mount follows no link that it might become.
    pub(crate) fn beside<'p>(&mut self, path: &'p [u8], directory: bool) -> Option<(Borrowed, &'p [u8])> {
        let (dir, name) = split(path)?;
        let mut last = self.parents.last.take_if(|last| last.path == dir)?;
        if last.dir.is_none() {
            let opened =
                self.root().ok()?.open_on_own_mount(dir_of(dir), fs::O_PATH | fs::O_DIRECTORY).ok()?;
            let mount = fs::stat(&opened, b"").ok()?.mount;
            last.dir = Some((opened, mount));
        }
        let (opened, mount) = last.dir.as_ref()?;
        let found = fs::stat(opened, name).ok()?;
        let place = Borrowed(opened.number());
        // Linux < 5.8 tells no mount's id: 0.
        let same = found.mount == *mount && *mount != 0;
        self.parents.last = Some(last);
        (same && !found.is_symlink() && (found.is_dir() || !directory)).then_some((place, name))
    }

    /// The directory of `path`, made with its parents where it is not there, and the last name.
    pub(crate) fn parent<'p>(&mut self, path: &'p [u8]) -> Outcome<(Borrowed, &'p [u8])> {
        let Some((dir, name)) = split(path) else { return Err(Errno::EINVAL).at(Attempt::Resolve) };
        if let Some(known) = self.parents.find(dir) {
            return Ok((known, name));
        }
        let opened = self.root()?.make_dir_all(dir, 0o755).at(Attempt::MakeDir)?;
        let number = opened.number();
        self.parents.made_in.push((Vec::from(dir), opened));
        Ok((Borrowed(number), name))
    }
}
