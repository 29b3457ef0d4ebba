//! What init inherits: each slot of the plan as a descriptor, opened with the host's rights.

use super::aside::aside;
use super::ids;
use super::road::{self, Departure, Traveller};
use crate::error::Error;
use crate::hooks;
use cofferdam_plan::{IdMap, SlotSource};
use cofferdam_step::{Barrier, Namespace, Program, Propagation, Step};
use cofferdam_sys::mount::{self, MountAttr, attr};
use cofferdam_sys::{AsFd, Cwd, Errno, Fd, fs, net, process};
use std::os::fd::OwnedFd;

/// Descriptors that only the caller has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// A connected socket that takes the terminal's master.
    pub console: Option<&'a Fd>,
    /// The listening socket for `start`.
    pub listener: Option<&'a Fd>,
    /// A pidfd of the container's first process.
    pub process: Option<&'a Fd>,
}

/// Opens all slots, in their order; with `trees_later` not those that are for [`open_trees`].
pub(super) fn open(
    sources: &[SlotSource],
    given: &Given,
    trees_later: bool,
) -> Result<Vec<Option<Fd>>, Error> {
    // All trees of a plan, or none.
    let locked =
        !trees_later && sources.iter().any(|source| matches!(source, SlotSource::Tree { locked: true, .. }));
    let mut trees = Vec::new();
    if locked {
        let mounts = LockedMounts::copy()?;
        trees = open_trees(sources, mounts.0.pid)?;
    }
    let mut trees = trees.into_iter();
    let one = |source: &SlotSource| match source {
        SlotSource::Tree { .. } if trees_later => Ok(None),
        SlotSource::Tree { .. } if locked => Ok(trees.next().map(Fd::from)),
        source => open_one(source, given).map(Some),
    };
    sources.iter().map(one).collect()
}

/// A copy of this mount namespace, which a user namespace owns that nobody is in but the process that holds both: in it, the flags of
/// all mounts are locked (`copy_mnt_ns` in `fs/namespace.c`).
struct LockedMounts(Traveller);

impl LockedMounts {
    fn copy() -> Result<LockedMounts, Error> {
        depart_and_wait(&[Namespace::User, Namespace::Mount])
            .map(LockedMounts)
            .map_err(|errno| Error::call("copy the host's mounts into a user namespace", errno))
    }
}

impl Drop for LockedMounts {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// An init in new namespaces that does nothing until it is ended.
fn depart_and_wait(namespaces: &[Namespace]) -> Result<Traveller, Errno> {
    let departure = Departure {
        staged: false,
        namespaces: namespaces.iter().copied().collect(),
        cgroup: None,
        inherit: &[],
        stdio: None,
    };
    let waits = Program { steps: vec![Step::Await(Barrier::IdsMapped)].into(), ..Program::default() };
    road::depart(&departure, &waits)
}

/// Opens the trees, in their order, in the mount namespace of the process `pid`, with the host's rights.
pub(super) fn open_trees<'s>(
    sources: impl IntoIterator<Item = &'s SlotSource>,
    pid: i32,
) -> Result<Vec<OwnedFd>, Error> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = fs::openat(&Cwd, path.as_bytes(), fs::O_RDONLY, 0)
        .map_err(|errno| Error::io("open the mount namespace", path, errno))?;
    let trees: Vec<_> =
        sources.into_iter().filter(|source| matches!(source, SlotSource::Tree { .. })).collect();
    let open = || trees.iter().map(|tree| open_one(tree, &Given::default()).map(OwnedFd::from)).collect();
    aside(Namespace::Mount, || {
        // Whoever enters a mount namespace may not share its root and working directory with others (setns(2)).
        process::unshare(nix::libc::CLONE_FS as u32)
            .and_then(|()| process::setns(&namespace, Namespace::Mount.clone_flag()))
            .map_err(|errno| Error::call("enter the container's mount namespace", errno))?;
        open()
    })
    .unwrap_or_else(|errno| Err(Error::call("open the mount sources", errno)))
}

fn open_one(source: &SlotSource, given: &Given) -> Result<Fd, Error> {
    let copy = |fd: Option<&Fd>, what: &str| match fd {
        Some(fd) => fd.duplicate().map_err(|errno| Error::call(format!("duplicate {what}"), errno)),
        None => Err(Error::Unsupported(format!("the plan wants {what}, and there is none"))),
    };
    match source {
        SlotSource::Namespace { kind, path } => namespace(*kind, path),
        SlotSource::Tree { path, recursive, of_link, propagation, idmap, idmap_recursive, locked: _ } => {
            let which = Which { path, recursive: *recursive, of_link: *of_link };
            tree(which, *propagation, idmap.as_ref(), *idmap_recursive)
        }
        SlotSource::HookOutput { annotation, path } => hooks::open_output(annotation, path).map(Fd::from),
        SlotSource::UserNamespace(map) => user_namespace(map),
        SlotSource::ConsoleSocket => copy(given.console, "the console socket"),
        SlotSource::StartListener => copy(given.listener, "the socket for start"),
        SlotSource::Process => copy(given.process, "the container's process"),
    }
}

/// A namespace file, proved to be one of its kind.
pub(super) fn namespace(kind: Namespace, path: &str) -> Result<Fd, Error> {
    let file = fs::openat(&Cwd, path.as_bytes(), fs::O_RDONLY, 0)
        .map_err(|errno| Error::io(format!("open the {} namespace", kind.spec_name()), path, errno))?;
    match net::namespace_type(&file) {
        Ok(found) if found == kind.clone_flag() => Ok(file),
        Ok(_) => Err(Error::usage(format!("{path} is a namespace, but no {} namespace", kind.spec_name()))),
        Err(Errno::ENOTTY) => Err(Error::usage(format!("{path} is no namespace"))),
        Err(errno) => Err(Error::io("ask for the kind of namespace", path, errno)),
    }
}

/// Which tree.
#[derive(Clone, Copy)]
struct Which<'a> {
    path: &'a str,
    recursive: bool,
    of_link: bool,
}

impl Which<'_> {
    fn open(self) -> Result<Fd, Errno> {
        match self.of_link {
            true => mount::open_tree_clone_of_link(&Cwd, self.path.as_bytes(), self.recursive),
            false => mount::open_tree_clone(&Cwd, self.path.as_bytes(), self.recursive),
        }
    }
}

/// A detached copy of a mount tree, with the propagation that a bind mount inside would have got. Below a filter that does not
/// know open_tree it is the source alone: init then finds that it has no tree, and binds by the path.
fn tree(
    which: Which<'_>,
    propagation: Option<Propagation>,
    idmap: Option<&IdMap>,
    idmap_recursive: bool,
) -> Result<Fd, Error> {
    let Which { path, recursive, of_link } = which;
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| Error::io(what, path, errno)
    };
    let mut tree = match which.open() {
        Err(Errno::ENOSYS | Errno::EPERM) if idmap.is_none() => {
            let flags = fs::O_PATH | if of_link { fs::O_NOFOLLOW } else { 0 };
            let source = fs::openat(&Cwd, path.as_bytes(), flags, 0);
            return source.map_err(failed("open the mount source"));
        }
        // In a mount namespace with locked mounts, one is not to be had without what is mounted below it (`has_locked_children`).
        Err(errno @ Errno::EINVAL) if !recursive => {
            let what = "open the mount source without the mounts below it (a user namespace may not see what they hide; \
                        rbind takes them along)";
            return Err(failed(what)(errno));
        }
        tree => tree.map_err(failed("open the mount source"))?,
    };
    if let Some(how) = propagation {
        let changed = match mount::set_propagation(&tree, how.recursive, how.flag) {
            Err(Errno::ENOSYS | Errno::EPERM) => tree_of_copy(which, how).map(|copy| tree = copy),
            changed => changed,
        };
        changed.map_err(failed("set the propagation of"))?;
    }
    if let Some(map) = idmap {
        let namespace = user_namespace(map)?;
        let change =
            MountAttr { set: attr::IDMAP, userns_fd: namespace.number() as u64, ..MountAttr::default() };
        mount::mount_setattr(&tree, idmap_recursive, &change).map_err(failed("idmap the mount source"))?;
    }
    Ok(tree)
}

/// Linux < 5.12 (and a filter that knows no mount_setattr) cannot change a detached tree. So the tree is taken from a copy of our
/// mount namespace in which everything has the propagation already; it belongs to a thread, and goes with it.
fn tree_of_copy(which: Which<'_>, how: Propagation) -> Result<Fd, Errno> {
    aside(Namespace::Mount, || {
        process::unshare(Namespace::Mount.clone_flag())?;
        mount::mount(b"", b"/", b"", how.flag | mount::MS_REC, b"")?;
        which.open()
    })?
}

/// A user namespace with the wanted mappings, held by nothing but the descriptor: it is made by an init that is ended at once.
fn user_namespace(map: &IdMap) -> Result<Fd, Error> {
    let (uid, gid) = match map {
        IdMap::NamespaceFile(path) => return namespace(Namespace::User, path),
        IdMap::Mappings { uid, gid } => (uid, gid),
    };
    let traveller = depart_and_wait(&[Namespace::User])
        .map_err(|errno| Error::call("make a user namespace for an idmapped mount", errno))?;
    let path = format!("/proc/{}/ns/user", traveller.pid);
    let opened = ids::map(traveller.pid, uid, gid, false).and_then(|()| {
        fs::openat(&Cwd, path.as_bytes(), 0, 0).map_err(|errno| Error::io("open", path, errno))
    });
    traveller.end();
    opened
}

/// Whether `--preserve-fds` names descriptors that are there.
pub fn check_preserved(count: u32) -> Result<(), Error> {
    // In numbers that cannot wrap around: behind this check the count is added to as it is.
    let is_open = |number: i64| i32::try_from(number).is_ok_and(cofferdam_sys::is_open);
    match (3..3 + i64::from(count)).find(|number| !is_open(*number)) {
        None => Ok(()),
        Some(number) => Err(Error::usage(format!(
            "--preserve-fds {count}: file descriptor {number} (argument {}) is not open",
            number - 2
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_than_there_are_numbers_are_not_preserved() {
        for count in [1 << 31, u32::MAX - 2, u32::MAX - 1, u32::MAX] {
            let refusal = check_preserved(count).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("--preserve-fds {count}: file descriptor ")), "{refusal}");
        }
        check_preserved(0).unwrap();
    }
}
