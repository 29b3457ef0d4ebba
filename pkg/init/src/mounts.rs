//! One entry of `/mounts`: resolved, mounted, with its attributes, onto a descriptor.
//!
//! A mount is made detached (fsopen and fsmount, or open_tree), gets its attributes there, and is attached to a descriptor
//! last, so that nobody sees it half made. Where a kernel or a filter around us lacks those calls, mount(2) on
//! `self/fd/N` below the private procfs does the same in more steps.

use crate::parents::split;
use crate::{At, Failure, Init, Outcome};
use alloc::{borrow::Cow, format, string::String, vec::Vec};
use cofferdam_step::{
    Attempt, Attributes, Create, FsOption, Links, Mount, Program, Propagation, Source, Step,
};
use cofferdam_sys::mount::{self, MS_BIND, MS_REC, MS_REMOUNT, MountAttr, attr};
use cofferdam_sys::{AsFd, Borrowed, Cwd, Errno, Fd, fs, proc::Proc, root};

/// fsconfig takes strings up to 255 bytes (`fs/fsopen.c`); overlay's lower directories are longer.
const LONGEST_OPTION: usize = 255;

/// Superblock flags and the names that fsconfig has for them (`common_set_sb_flag` in `fs/fs_context.c`); of mount(2)'s others,
/// MS_SILENT means nothing here, and MS_I_VERSION has no name.
const FLAG_NAMES: [(u64, &[u8]); 5] = [
    (mount::MS_RDONLY, b"ro"),
    (mount::MS_SYNCHRONOUS, b"sync"),
    (mount::MS_DIRSYNC, b"dirsync"),
    (mount::MS_MANDLOCK, b"mand"),
    (mount::MS_LAZYTIME, b"lazytime"),
];

impl Init {
    /// A mount, or what the plan has instead when this one is not permitted.
    pub(crate) fn mount(&mut self, mount: &Mount) -> Outcome {
        let outcome = match (self.mount_one(mount), &mount.or_else) {
            // EBUSY is what cgroup2 says to a second mount with other options.
            (Err(Failure { errno: Errno::EPERM | Errno::EBUSY, .. }), Some(other)) => self.mount(other),
            // A rootless container's cgroup that could not be made.
            (
                Err(Failure { errno: Errno::ENOENT, attempt: Attempt::OpenTree | Attempt::Open, .. }),
                Some(other),
            ) => self.mount(other),
            (outcome, _) => outcome,
        };
        self.parents.covered(mount.destination.as_bytes());
        outcome
    }

    fn mount_one(&mut self, mount: &Mount) -> Outcome {
        match &mount.source {
            Source::New { fstype, source, options, flags, inherit_mode } => {
                // One that is not there has no mode to give: the filesystem's own is 1777.
                let covered = match inherit_mode {
                    true => self.covered(mount)?,
                    false => None,
                };
                let options = with_mode_of(options, covered.as_ref())?;
                self.mount_new(mount, fstype, source, &options, u64::from(*flags))
            }
            Source::Bind { path, recursive, ahead } => {
                if *ahead && let Some(tree) = self.sources.next() {
                    // With its propagation; nothing that it is attached to changes that.
                    return self.attach_tree(mount, &tree?, &[]);
                }
                match mount::open_tree_clone(&Cwd, path.as_bytes(), *recursive) {
                    Ok(tree) => self.attach_tree(mount, &tree, &mount.propagation),
                    // A filter around us without the mount interface of Linux 5.2 (a path that may not be read says EACCES).
                    Err(Errno::ENOSYS | Errno::EPERM) => self.bind_by_path(mount, path, *recursive),
                    Err(errno) => Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
                }
            }
            Source::Link { path, recursive } => {
                match mount::open_tree_clone_of_link(&Cwd, path.as_bytes(), *recursive) {
                    Ok(tree) => self.attach_tree(mount, &tree, &mount.propagation),
                    Err(Errno::ENOSYS | Errno::EPERM) => {
                        let link = fs::openat(&Cwd, path.as_bytes(), fs::O_PATH | fs::O_NOFOLLOW, 0);
                        self.bind_what_is_there(mount, &link.at(Attempt::Open)?, path, *recursive)
                    }
                    Err(errno) => Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
                }
            }
            Source::Tree { slot, path, recursive } => {
                let tree = self.slot(*slot)?;
                match self.attach_tree(mount, &tree, &mount.propagation) {
                    Err(_) if is_no_tree(&tree) => self.bind_what_is_there(mount, &tree, path, *recursive),
                    other => other,
                }
            }
            Source::Remount { flags, bind, options } => {
                self.remount(mount, u64::from(*flags), *bind, options)
            }
        }
    }

    /// Opens the sources that the host side has left to us, as long as their paths lead there. What cannot be opened is said when its turn
    /// comes.
    pub(crate) fn open_sources(&mut self, program: &Program) {
        let ahead = program.steps.iter().filter_map(Step::opened_ahead);
        let mut sources: Vec<_> = core::mem::take(&mut self.sources).collect();
        for (mount, path, recursive) in ahead.skip(sources.len()) {
            let tree = mount::open_tree_clone(&Cwd, path.as_bytes(), recursive).at(Attempt::OpenTree);
            sources.push(tree.and_then(|tree| {
                self.propagate(&mount.propagation, &tree)?;
                Ok(tree)
            }));
        }
        self.sources = sources.into_iter();
    }

    /// The directory that will be covered, if it is there.
    fn covered(&mut self, mount: &Mount) -> Outcome<Option<Fd>> {
        match self.root()?.open(mount.destination.as_bytes(), fs::O_PATH | fs::O_DIRECTORY) {
            Err(Errno::ENOENT) => Ok(None),
            found => found.at(Attempt::Resolve).map(Some),
        }
    }

    /// The destination, if it is there and lies on the rootfs's own mount with no link on the way, as most volumes' do: then it is no
    /// file of procfs and not the root itself, and nobody needs to ask.
    fn at_hand<'p>(&mut self, mount: &'p Mount, flags: i32) -> Option<Place<'p>> {
        /// What engines mount first: below these there is another mount on the way.
        const COVERED: [&[u8]; 3] = [b"/proc/", b"/dev/", b"/sys/"];
        let path = mount.destination.as_bytes();
        let made = self.known_parent(path).is_some(); // as things are made there, this one is not there
        let special = mount.links != Links::Followed || mount.create == Create::SameLink;
        if special || made || COVERED.iter().any(|dir| path.starts_with(dir)) {
            return None;
        }
        if let Some((dir, name)) = self.beside(path, flags & fs::O_DIRECTORY != 0) {
            return Some(Place::Named(dir, name));
        }
        let plain_root = self.plain_root;
        let root = self.root().ok()?;
        if !plain_root {
            not_on_procfs(root).ok()?;
        }
        let found = root.open_on_own_mount(path, fs::O_PATH | flags);
        self.plain_root = true;
        let found = found.ok()?;
        self.parents.placed(path);
        Some(Place::Held(found))
    }

    /// Where a filesystem goes.
    fn place<'p>(&mut self, mount: &'p Mount) -> Outcome<Place<'p>> {
        match self.at_hand(mount, fs::O_DIRECTORY) {
            Some(place) => Ok(place),
            None => self.place_anywhere(mount, true),
        }
    }

    /// Where the destination is, made where it is not there. A directory that is made here is known by its parent's descriptor
    /// and its name: move_mount follows no link at the end of a path, so whoever exchanges it gets an error.
    fn place_anywhere<'p>(&mut self, mount: &'p Mount, directory: bool) -> Outcome<Place<'p>> {
        self.parents.placed_anywhere();
        let path = mount.destination.as_bytes();
        if !directory || mount.links != Links::Followed {
            return self.target(mount, directory).map(Place::Held);
        }
        let parent = match self.known_parent(path) {
            Some(known) => Some(known),
            None => match self.root()?.open(path, fs::O_PATH | fs::O_DIRECTORY) {
                Ok(found) => {
                    self.may_be_covered(path, &found)?;
                    return Ok(Place::Held(found));
                }
                Err(Errno::ENOENT) if split(path).is_some() => Some(self.parent(path)?),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(Failure { attempt: Attempt::Resolve, errno, detail: 0 }),
            },
        };
        if let Some((dir, name)) = parent {
            match fs::mkdirat(&dir, name, 0o755) {
                Ok(()) => return Ok(Place::Named(dir, name)),
                // It is there, or there is a link to it.
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Failure { attempt: Attempt::MakeDir, errno, detail: 0 }),
            }
        }
        self.target(mount, directory).map(Place::Held)
    }

    /// The destination as a descriptor, made where it is not there.
    fn target(&mut self, mount: &Mount, directory: bool) -> Outcome<Fd> {
        self.parents.placed_anywhere();
        let path = mount.destination.as_bytes();
        let root = self.root()?;
        if mount.links == Links::Refused {
            match root.open(path, fs::O_PATH | fs::O_NOFOLLOW | fs::O_DIRECTORY) {
                Err(Errno::ENOENT) => {}
                Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                    return Err(Failure { attempt: Attempt::Symlinked, errno, detail: 0 });
                }
                other => return other.at(Attempt::Resolve),
            }
        }
        let made = || match directory || mount.create == Create::Directory {
            true => root.make_dir_all(path, 0o755).at(Attempt::MakeDir),
            false => root.make_file(path, 0o755).at(Attempt::MakeFile),
        };
        let itself = || root.open(path, fs::O_PATH | fs::O_NOFOLLOW);
        let target = match mount.links {
            Links::Covered => match itself() {
                Err(Errno::ENOENT) => made().and_then(|_| itself().at(Attempt::Resolve)),
                found => found.at(Attempt::Resolve),
            },
            _ => made(),
        }?;
        self.may_be_covered(path, &target)?;
        Ok(target)
    }

    /// The plan allows some places below /proc, by their text. Whoever gets there by a link of the rootfs has not been allowed; and the
    /// rootfs itself nobody may cover.
    fn may_be_covered(&mut self, path: &[u8], target: &impl AsFd) -> Outcome {
        if !path.starts_with(b"/proc/") {
            not_on_procfs(target)?;
        }
        self.not_the_root(target)
    }

    /// Refuses a mount over the rootfs itself, which a link of the rootfs leads to: the container's own process would not see it, and those
    /// that enter the mount namespace later, by exec or a hook, would have it for their root, with nothing masked or read-only.
    /// Test: cve::links::a_volume_cannot_cover_the_root
    fn not_the_root(&mut self, target: &impl AsFd) -> Outcome {
        match self.root()?.is(target).at(Attempt::Stat)? {
            true => Err(Failure { attempt: Attempt::CoversRoot, errno: Errno::EBUSY, detail: 0 }),
            false => Ok(()),
        }
    }

    fn mount_new(
        &mut self,
        mount: &Mount,
        fstype: &str,
        source: &str,
        options: &[FsOption],
        flags: u64,
    ) -> Outcome {
        let long =
            |option: &FsOption| option.value.as_ref().is_some_and(|value| value.len() > LONGEST_OPTION);
        if options.iter().any(long) || source.len() > LONGEST_OPTION || flags & mount::MS_I_VERSION != 0 {
            return self.mount_new_by_path(mount, fstype, source, options, flags);
        }
        let context = match mount::fsopen(fstype.as_bytes()) {
            // mount(2) has no descriptor of a pid namespace to give.
            Err(Errno::ENOSYS | Errno::EPERM) if mount.pid_namespace.is_none() => {
                return self.mount_new_by_path(mount, fstype, source, options, flags);
            }
            other => other.at(Attempt::FsOpen)?,
        };
        if let Some(slot) = mount.pid_namespace {
            let namespace = self.slot(slot)?;
            mount::fsconfig_fd(&context, b"pidns", &namespace).at(Attempt::PidNamespaceOfProc)?;
        }
        if !source.is_empty() {
            mount::fsconfig(&context, b"source", Some(source.as_bytes())).at(Attempt::FsConfigSource)?;
        }
        for (index, option) in options.iter().enumerate() {
            let value = option.value.as_ref().map(|value| value.as_bytes());
            mount::fsconfig(&context, option.key.as_bytes(), value).map_err(|errno| Failure {
                attempt: Attempt::FsConfig,
                errno,
                detail: index as i64,
            })?;
        }
        for (flag, name) in FLAG_NAMES {
            if flags & flag != 0 {
                mount::fsconfig(&context, name, None).at(Attempt::FsConfig)?;
            }
        }
        mount::fsconfig_create(&context).at(Attempt::FsConfigCreate)?;
        // NOSYMFOLLOW came to fsmount with mount_setattr; it is set with the rest below.
        let at_birth = mount.attributes.set & !attr::NOSYMFOLLOW;
        let tree = mount::fsmount(&context, at_birth).at(Attempt::FsMount)?;
        let rest = Attributes { set: mount.attributes.set & attr::NOSYMFOLLOW, clear: 0 };
        self.dress(mount, &tree, rest)?;
        let place = match mount.copy_up {
            true => Place::Held(self.target(mount, true)?),
            false => self.place(mount)?,
        };
        if let (true, Place::Held(covered)) = (mount.copy_up, &place) {
            self.copy_up(&tree, covered)?;
        }
        place.take(&tree)?;
        self.propagate(&mount.propagation, &tree)?;
        let own = options.is_empty() && mount.pid_namespace.is_none();
        if fstype == "proc" && self.proc.is_none() && mount.destination == "/proc" && own {
            // Everything above this descriptor is procfs itself: lookups cross no mount.
            self.proc = Some(Proc::mounted(tree));
        }
        Ok(())
    }

    /// Gives a detached tree its attributes, attaches it, and sets its propagation then.
    fn attach_tree(&mut self, mount: &Mount, tree: &impl AsFd, propagation: &[Propagation]) -> Outcome {
        // What the tree is matters where its place must be made; that both are of a kind is looked at by the kernel.
        let place = match self.at_hand(mount, 0) {
            Some(place) => place,
            None => {
                let source = fs::stat(tree, b"").at(Attempt::Stat)?;
                if mount.create == Create::SameLink && source.is_symlink() {
                    return self.same_link(mount, tree);
                }
                self.place_anywhere(mount, source.is_dir())?
            }
        };
        let undressed = self.dress(mount, tree, mount.attributes);
        if !matches!(
            undressed,
            Err(Failure { errno: Errno::ENOSYS | Errno::EPERM, attempt: Attempt::MountSetattr, .. })
        ) {
            undressed?;
            place.take(tree)?;
            return self.propagate(propagation, tree);
        }
        // Linux < 5.12 has no mount_setattr: a remount of the attached mount does the same. Recursive attributes
        // and idmaps have no older form.
        if !mount.recursive.is_empty() || mount.idmap.is_some() {
            return undressed;
        }
        place.take(tree)?;
        self.remount_attributes(tree, mount.attributes)?;
        self.propagate(propagation, tree)
    }

    /// `copy-symlink`: a link with the text of the source in place of the mount.
    fn same_link(&mut self, mount: &Mount, link: &impl AsFd) -> Outcome {
        let mut buffer = [0u8; 4096];
        let text = fs::readlinkat(link, b"", &mut buffer).at(Attempt::Readlink)?;
        self.root()?.make_link(mount.destination.as_bytes(), text).at(Attempt::Symlink)
    }

    /// Attributes, recursive attributes and the idmap of a detached tree.
    fn dress(&mut self, mount: &Mount, tree: &impl AsFd, attributes: Attributes) -> Outcome {
        if let Some(slot) = mount.idmap {
            let namespace = self.slot(slot)?;
            let change =
                MountAttr { set: attr::IDMAP, userns_fd: namespace.number() as u64, ..MountAttr::default() };
            mount::mount_setattr(tree, mount.idmap_recursive, &change).at(Attempt::Idmap)?;
        }
        for (change, recursive) in [(attributes, false), (mount.recursive, true)] {
            if !change.is_empty() {
                set_attributes(tree, recursive, change).at(Attempt::MountSetattr)?;
            }
        }
        Ok(())
    }

    /// Propagation goes last: a mount that is attached below a shared one becomes shared by that alone.
    fn propagate(&mut self, changes: &[Propagation], tree: &impl AsFd) -> Outcome {
        for how in changes {
            self.propagate_one(tree, *how)?;
        }
        Ok(())
    }

    fn propagate_one(&mut self, tree: &impl AsFd, how: Propagation) -> Outcome {
        match mount::set_propagation(tree, how.recursive, how.flag) {
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let flags = how.flag | if how.recursive { MS_REC } else { 0 };
                self.mount_on(b"", tree, b"", flags, b"").at(Attempt::Propagation)
            }
            other => other.at(Attempt::Propagation),
        }
    }

    /// mount(2) of a new filesystem, for what fsopen cannot.
    fn mount_new_by_path(
        &mut self,
        mount: &Mount,
        fstype: &str,
        source: &str,
        options: &[FsOption],
        flags: u64,
    ) -> Outcome {
        let target = self.target(mount, true)?;
        let data = joined(options);
        let flags = flags | old_flags(mount.attributes.set);
        self.mount_on(source.as_bytes(), &target, fstype.as_bytes(), flags, data.as_bytes())
            .at(Attempt::Mount)?;
        let mounted = self.root()?.open(mount.destination.as_bytes(), fs::O_PATH).at(Attempt::Resolve)?;
        if mount.copy_up {
            self.copy_up(&mounted, &target)?;
        }
        self.propagate(&mount.propagation, &mounted)
    }

    /// The same as [`Init::bind_by_path`] where the source has been opened, and may be a link that is meant itself.
    fn bind_what_is_there(
        &mut self,
        mount: &Mount,
        source: &impl AsFd,
        path: &str,
        recursive: bool,
    ) -> Outcome {
        if !fs::stat(source, b"").at(Attempt::Stat)?.is_symlink() {
            return self.bind_by_path(mount, path, recursive);
        }
        if mount.create == Create::SameLink {
            return self.same_link(mount, source);
        }
        if mount.idmap.is_some() || !mount.recursive.is_empty() {
            return Err(Failure { attempt: Attempt::OpenTree, errno: Errno::ENOSYS, detail: 0 });
        }
        let target = self.target(mount, false)?;
        // By its descriptor: mount(2) follows links, but not behind that one. Its paths are looked up in the private procfs.
        let mut text = [0u8; 32];
        let by_number = root::decimal_path(b"self/fd/", source.number(), &mut text);
        self.mount_on(by_number, &target, b"", MS_BIND, b"").at(Attempt::Mount)?;
        let flags = fs::O_PATH | fs::O_NOFOLLOW;
        let mounted = self.root()?.open(mount.destination.as_bytes(), flags).at(Attempt::Resolve)?;
        self.remount_attributes(&mounted, mount.attributes)?;
        self.propagate(&mount.propagation, &mounted)
    }

    /// mount(2) of a bind, for a filter around us that refuses open_tree.
    fn bind_by_path(&mut self, mount: &Mount, path: &str, recursive: bool) -> Outcome {
        if mount.idmap.is_some() || !mount.recursive.is_empty() {
            return Err(Failure { attempt: Attempt::OpenTree, errno: Errno::ENOSYS, detail: 0 });
        }
        let source = fs::openat(&Cwd, path.as_bytes(), fs::O_PATH, 0).at(Attempt::Open)?;
        let directory = fs::stat(&source, b"").at(Attempt::Stat)?.is_dir();
        let target = self.target(mount, directory)?;
        let flags = MS_BIND | if recursive { MS_REC } else { 0 };
        self.mount_on(path.as_bytes(), &target, b"", flags, b"").at(Attempt::Mount)?;
        let mounted = self.root()?.open(mount.destination.as_bytes(), fs::O_PATH).at(Attempt::Resolve)?;
        self.remount_attributes(&mounted, mount.attributes)?;
        self.propagate(&mount.propagation, &mounted)
    }

    /// By a descriptor of what the path leads to below the rootfs handle; EINVAL when that is no mount's root.
    pub(crate) fn unmount(&mut self, path: &str) -> Outcome {
        let mounted = self.root()?.resolve(path.as_bytes()).at(Attempt::Resolve)?;
        let back = fs::openat(&Cwd, b".", fs::O_PATH | fs::O_DIRECTORY, 0).at(Attempt::Open)?;
        fs::fchdir(self.proc()?).at(Attempt::Proc)?;
        let mut text = [0u8; 32];
        let path = root::decimal_path(b"self/fd/", mounted.number(), &mut text);
        let done = mount::umount(path, libc::MNT_DETACH);
        fs::fchdir(&back).at(Attempt::Open)?;
        done.at(Attempt::Umount)
    }

    /// A `remount` entry: of the mount, or of the filesystem.
    fn remount(&mut self, mount: &Mount, flags: u64, bind: bool, options: &[FsOption]) -> Outcome {
        let target = self.root()?.resolve(mount.destination.as_bytes()).at(Attempt::Resolve)?;
        if !bind {
            let flags = MS_REMOUNT | flags | old_flags(mount.attributes.set);
            self.mount_on(b"", &target, b"", flags, joined(options).as_bytes()).at(Attempt::Remount)?;
        } else if !matches!(self.dress(mount, &target, mount.attributes), Ok(())) {
            self.remount_attributes(&target, mount.attributes)?;
        }
        self.propagate(&mount.propagation, &target)
    }

    /// Attributes of an attached mount by mount(2): all flags must be repeated, the locked ones too, or EPERM follows.
    fn remount_attributes(&mut self, mounted: &impl AsFd, change: Attributes) -> Outcome {
        if change.is_empty() {
            return Ok(());
        }
        let flags = remount_flags(mounted, change.set, change.clear).at(Attempt::Stat)?;
        self.mount_on(b"", mounted, b"", flags, b"").at(Attempt::Remount)
    }

    /// mount(2) whose target is a descriptor.
    pub(crate) fn mount_on(
        &mut self,
        source: &[u8],
        target: &impl AsFd,
        fstype: &[u8],
        flags: u64,
        data: &[u8],
    ) -> cofferdam_sys::Result<()> {
        // The working directory is init's own business until ChangeDirectory.
        let back = fs::openat(&Cwd, b".", fs::O_PATH | fs::O_DIRECTORY, 0)?;
        let proc = self.proc().map_err(|failure| failure.errno)?;
        fs::fchdir(proc)?;
        let mut text = [0u8; 32];
        let path = root::decimal_path(b"self/fd/", target.number(), &mut text);
        let done = mount::mount(source, path, fstype, flags, data);
        fs::fchdir(&back)?;
        done
    }

    /// `tmpcopyup`: copies what the mount will cover into the tmpfs, by descriptors on both sides.
    fn copy_up(&mut self, to: &impl AsFd, from: &Fd) -> Outcome {
        let from = open_dir(from).at(Attempt::CopyUp)?;
        let to = open_dir(to).at(Attempt::CopyUp)?;
        copy_tree(&from, &to, 0).at(Attempt::CopyUp)
    }
}

/// Linux 5.12 and 5.13 have mount_setattr and do not know this attribute there (it came with 5.14): EINVAL, and what cannot be set
/// is not there to be cleared, but for a source that mount(2) made so.
fn set_attributes(tree: &impl AsFd, recursive: bool, change: Attributes) -> cofferdam_sys::Result<()> {
    let mut change = MountAttr { set: change.set, clear: change.clear, ..MountAttr::default() };
    match mount::mount_setattr(tree, recursive, &change) {
        Err(Errno::EINVAL) if change.clear & attr::NOSYMFOLLOW != 0 => {
            change.clear &= !attr::NOSYMFOLLOW;
            mount::mount_setattr(tree, recursive, &change)
        }
        other => other,
    }
}

/// Why move_mount said EINVAL: EISDIR and ENOTDIR are what callers know.
fn mismatch(tree: &impl AsFd, target: &Fd) -> Errno {
    match (fs::stat(tree, b""), fs::stat(target, b"")) {
        (Ok(tree), Ok(target)) if tree.is_dir() && !target.is_dir() => Errno::ENOTDIR,
        (Ok(tree), Ok(target)) if !tree.is_dir() && target.is_dir() => Errno::EISDIR,
        _ => Errno::EINVAL,
    }
}

/// Refuses a mount over a file of procfs (CVE-2019-16884: what is mounted there answers in the kernel's place).
fn not_on_procfs(target: &impl AsFd) -> Outcome {
    const PROC_MAGIC: i64 = 0x9fa0;
    match fs::statfs(target).at(Attempt::Stat)? {
        (PROC_MAGIC, _) => Err(Failure { attempt: Attempt::WrongType, errno: Errno::EPERM, detail: 0 }),
        _ => Ok(()),
    }
}

/// Whether the host side could not open a tree, for a filter around both of us that does not know open_tree.
pub(crate) fn is_no_tree(fd: &Borrowed) -> bool {
    matches!(mount::open_tree_clone(fd, b"", false), Err(Errno::ENOSYS | Errno::EPERM))
}

/// Where a mount goes.
enum Place<'p> {
    /// What was just made or looked at: its directory and its name.
    Named(Borrowed, &'p [u8]),
    /// What is there.
    Held(Fd),
}

impl Place<'_> {
    /// Attaches a detached tree.
    fn take(&self, tree: &impl AsFd) -> Outcome {
        let moved = match self {
            Place::Named(dir, name) => mount::move_mount_to(tree, dir, name),
            Place::Held(target) => mount::move_mount(tree, target),
        };
        // A directory on a file or the other way round: mount(2) says so, move_mount does not.
        let told = |errno: Errno| match (errno, self) {
            (Errno::EINVAL, Place::Held(target)) => mismatch(tree, target),
            (Errno::EINVAL, Place::Named(dir, name)) => {
                let target = fs::openat(dir, name, fs::O_PATH | fs::O_NOFOLLOW, 0);
                target.map_or(errno, |target| mismatch(tree, &target))
            }
            _ => errno,
        };
        moved.map_err(told).at(Attempt::MoveMount)
    }
}

/// tmpfs without a mode takes the mode of the directory that it covers, as runc has it.
fn with_mode_of<'o>(options: &'o [FsOption], covered: Option<&Fd>) -> Outcome<Cow<'o, [FsOption]>> {
    let Some(covered) = covered else { return Ok(Cow::Borrowed(options)) };
    let mode = fs::stat(covered, b"").at(Attempt::Stat)?.mode & 0o7777;
    let mut options = options.to_vec();
    options.push(FsOption { key: "mode".into(), value: Some(format!("{mode:o}")) });
    Ok(Cow::Owned(options))
}

fn joined(options: &[FsOption]) -> String {
    let mut text = String::new();
    for option in options {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&option.key);
        if let Some(value) = &option.value {
            text.push('=');
            text.push_str(value);
        }
    }
    text
}

/// `MOUNT_ATTR_*` as mount(2)'s flags.
fn old_flags(attributes: u64) -> u64 {
    let mut flags = [
        (attr::RDONLY, mount::MS_RDONLY),
        (attr::NOSUID, mount::MS_NOSUID),
        (attr::NODEV, mount::MS_NODEV),
        (attr::NOEXEC, mount::MS_NOEXEC),
        (attr::NODIRATIME, mount::MS_NODIRATIME),
        (attr::NOSYMFOLLOW, 256),
    ]
    .iter()
    .fold(0, |flags, (attribute, flag)| if attributes & attribute != 0 { flags | flag } else { flags });
    flags |= match attributes & attr::ATIME {
        attr::NOATIME => mount::MS_NOATIME,
        attr::STRICTATIME => mount::MS_STRICTATIME,
        _ => 0,
    };
    flags
}

/// mount(2)'s flags for a bind remount that keeps what the mount has but for a change (`ST_*` equal `MS_*` up to relatime). A remount
/// without a word about times of access keeps those that are, and `nodiratime` alone makes them relatime: so they are always named.
pub(crate) fn remount_flags(mounted: &impl AsFd, set: u64, clear: u64) -> cofferdam_sys::Result<u64> {
    const ST_RELATIME: u64 = 0x1000;
    const KEPT: u64 = mount::MS_RDONLY
        | mount::MS_NOSUID
        | mount::MS_NODEV
        | mount::MS_NOEXEC
        | mount::MS_NOATIME
        | mount::MS_NODIRATIME;
    let has = fs::statfs(mounted)?.1;
    let mut flags = has & KEPT;
    if clear & attr::ATIME != 0 {
        flags &= !mount::MS_NOATIME;
        if set & attr::ATIME == attr::RELATIME {
            flags |= mount::MS_RELATIME;
        }
    } else if has & ST_RELATIME != 0 {
        flags |= mount::MS_RELATIME;
    } else if has & mount::MS_NOATIME == 0 {
        flags |= mount::MS_STRICTATIME;
    }
    Ok((flags & !old_flags(clear & !attr::ATIME)) | old_flags(set) | MS_BIND | MS_REMOUNT)
}

/// A readable descriptor of a directory that is held by an `O_PATH` one.
fn open_dir(dir: &impl AsFd) -> cofferdam_sys::Result<Fd> {
    fs::openat(&Borrowed(dir.number()), b".", fs::O_RDONLY | fs::O_DIRECTORY, 0)
}

/// Deeper trees are refused: the depth is bounded by what a path may be long.
const DEEPEST: usize = 2048;

fn copy_tree(from: &Fd, to: &Fd, depth: usize) -> cofferdam_sys::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::ELOOP);
    }
    fs::entries(from, |name| copy_entry(from, to, name, depth))
}

fn copy_entry(from: &Fd, to: &Fd, name: &[u8], depth: usize) -> cofferdam_sys::Result<()> {
    let stat = fs::stat(from, name)?;
    if stat.is_dir() {
        fs::mkdirat(to, name, stat.mode & 0o7777)?;
        let flags = fs::O_RDONLY | fs::O_DIRECTORY | fs::O_NOFOLLOW;
        let (below, copy) = (fs::openat(from, name, flags, 0)?, fs::openat(to, name, flags, 0)?);
        copy_tree(&below, &copy, depth + 1)?;
    } else if stat.is_symlink() {
        let mut buffer = [0u8; 4096];
        fs::symlinkat(fs::readlinkat(from, name, &mut buffer)?, to, name)?;
    } else if stat.is_file() {
        let source = fs::openat(from, name, fs::O_RDONLY | fs::O_NOFOLLOW, 0)?;
        let flags = fs::O_WRONLY | fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW;
        let copy = fs::openat(to, name, flags, stat.mode & 0o7777)?;
        while fs::sendfile(&copy, &source, 1 << 20)? > 0 {}
    } else {
        fs::mknodat(to, name, stat.mode, stat.rdev.0, stat.rdev.1)?;
    }
    fs::lchownat(to, name, stat.uid, stat.gid)?;
    // chown clears set-user-id bits; a link has no mode.
    if stat.is_symlink() { Ok(()) } else { fs::fchmodat(to, name, stat.mode & 0o7777) }
}
