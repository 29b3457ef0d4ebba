//! The directories that things are made in, looked up once.
//!
//! `/dev` gets six nodes, six links and three mounts, `/sys/fs/cgroup` a dozen mounts: each lookup that is saved is a system
//! call of every container's start. A descriptor stays right for as long as nothing is mounted over its directory, which is
//! what [`Parents::covered`] is told.

use crate::{At, Init, Outcome};
use alloc::vec::Vec;
use cofferdam_step::Attempt;
use cofferdam_sys::{AsFd, Borrowed, Errno, Fd};

/// Directories by their path as the plan writes it.
#[derive(Default)]
pub(crate) struct Parents(Vec<(Vec<u8>, Fd)>);

impl Parents {
    fn find(&self, path: &[u8]) -> Option<Borrowed> {
        self.0.iter().find(|(known, _)| known == path).map(|(_, dir)| Borrowed(dir.number()))
    }

    /// Something is mounted on `path` now: what was known at and below it is hidden.
    pub(crate) fn covered(&mut self, path: &[u8]) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.0.retain(|(known, _)| {
            known.strip_prefix(path).is_none_or(|rest| !rest.is_empty() && rest.first() != Some(&b'/'))
        });
    }
}

/// Directory and last name of a clean absolute path; none for the root and for what ends in dots.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|b| *b == b'/')?;
    let (dir, name) = (&path[..at], &path[at + 1..]);
    if name.is_empty() || name == b"." || name == b".." { None } else { Some((dir, name)) }
}

impl Init {
    /// The directory of `path`, if it is known already, and the last name.
    pub(crate) fn known_parent<'p>(&self, path: &'p [u8]) -> Option<(Borrowed, &'p [u8])> {
        let (dir, name) = split(path)?;
        Some((self.parents.find(dir)?, name))
    }

    /// The directory of `path`, made with its parents where it is not there, and the last name.
    pub(crate) fn parent<'p>(&mut self, path: &'p [u8]) -> Outcome<(Borrowed, &'p [u8])> {
        let Some((dir, name)) = split(path) else { return Err(Errno::EINVAL).at(Attempt::Resolve) };
        if let Some(known) = self.parents.find(dir) {
            return Ok((known, name));
        }
        let opened = self.root()?.make_dir_all(dir, 0o755).at(Attempt::MakeDir)?;
        let number = opened.number();
        self.parents.0.push((Vec::from(dir), opened));
        Ok((Borrowed(number), name))
    }
}
