//! The directory of a container, `<root>/<id>`: who may touch it.
//!
//! - The id is reserved by `mkdir`; the directory (0700) is also what verbs lock (`flock`), so no lock file is left over.
//!   A lock is the kernel's and dies with its holder. Readers take none: state.json is replaced by a rename and is always whole.
//! - A directory without state.json and without a lock is what a creator left that died: it does not exist for verbs, and the
//!   next `create` of that id takes it over.
//! - Nothing is flushed to disk: the root is on a tmpfs, and after a reboot no container runs anyway.

use super::{FORMAT, State};
use crate::error::Error;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// More than this is no state file of ours; annotations may be large.
const MAX_STATE: u64 = 16 << 20;

const STATE: &str = "state.json";
const STATE_NEW: &str = "state.json.new";

/// runc's rule: letters, digits and `_+-.`, not empty, and a clean path element (no `.`, no `..`).
pub fn check_id(id: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() {
        return Err(Error::usage("container id cannot be empty"));
    }
    if id == "." || id == ".." || !id.bytes().all(legal) {
        return Err(Error::InvalidId { id: id.into() });
    }
    Ok(())
}

/// The directory that holds every container's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    sticky: bool,
}

impl Root {
    /// A root of the caller's choice; it is made by the first [`Root::reserve`].
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root { path: path.into(), sticky: false }
    }

    /// `/run/cofferdam`, or for ordinary users `$XDG_RUNTIME_DIR/cofferdam`, with the sticky bit that keeps the
    /// cleaners of such directories away.
    pub fn by_default(rootless: bool, runtime_dir: Option<&OsStr>) -> Root {
        match runtime_dir {
            Some(dir) if rootless && !dir.is_empty() => {
                Root { path: Path::new(dir).join("cofferdam"), sticky: true }
            }
            _ => Root::new("/run/cofferdam"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory and its parents, if it is not there.
    pub fn make(&self) -> Result<(), Error> {
        let failed = |error| Error::io("make the state root", &self.path, error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        if self.sticky {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o1700)).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the id for a new container and locks it.
    ///
    /// Fails with [`Error::Exists`] when a container has it, or is being created or deleted under it.
    pub fn reserve(&self, id: &str) -> Result<LockedHome, Error> {
        check_id(id)?;
        let path = self.path.join(id);
        // Twice at most for the root, and once more when a delete finishes between mkdir and open.
        for _ in 0..4 {
            let fresh = match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make()?;
                    continue;
                }
                Err(error) => return Err(Error::io("make the container's directory", &path, error)),
            };
            match take(id, &path, fresh) {
                Ok(Some(home)) => return Ok(home),
                Ok(None) | Err(Error::Busy { .. }) => break,
                Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    if fresh {
                        // Nobody else can have put anything into it: they find it without state, or not at all.
                        let _ = fs::remove_dir(&path);
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Exists { id: id.into() })
    }

    /// Removes what a creator of this id left that died. A container, or one that is being created, is not touched.
    pub fn sweep(&self, id: &str) -> Result<(), Error> {
        match self.find(id).and_then(Home::try_lock) {
            Ok(home) if !home.has_state()? => home.remove(),
            Ok(_) | Err(Error::NotFound { .. } | Error::Busy { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The home of a container; [`Error::NotFound`] when there is none.
    pub fn find(&self, id: &str) -> Result<Home, Error> {
        check_id(id)?;
        Home::open(id, &self.path.join(id))
    }

    /// Every id that has a directory, in alphabetical order. A root that is not there has none.
    pub fn ids(&self) -> Result<Vec<String>, Error> {
        let failed = |error| Error::io("read the state root", &self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if let Some(id) = entry.file_name().to_str().filter(|id| check_id(id).is_ok())
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Locks a directory for a new container, and empties one that is left of a creator that died; none when a container has it.
fn take(id: &str, path: &Path, fresh: bool) -> Result<Option<LockedHome>, Error> {
    let home = Home::open(id, path)?.try_lock()?;
    if home.has_state()? {
        return Ok(None);
    }
    if !fresh {
        home.empty()?;
    }
    home.written.store(false, Ordering::Relaxed);
    Ok(Some(home))
}

/// A container's directory, open.
#[derive(Debug)]
pub struct Home {
    id: String,
    path: PathBuf,
    dir: File,
}

impl Home {
    fn open(id: &str, path: &Path) -> Result<Home, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(dir) => Ok(Home { id: id.into(), path: path.into(), dir: dir.into() }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Error::NotFound { id: id.into() }),
            Err(errno) => Err(Error::io("open", path, errno)),
        }
    }

    /// The same directory once more: a lock belongs to the opening, so a second one can wait for it.
    pub fn reopen(&self) -> Result<Home, Error> {
        Home::open(&self.id, &self.path)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, for calls below it.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Who owns the directory, and so the container.
    pub fn owner(&self) -> Result<u32, Error> {
        self.dir.metadata().map(|data| data.uid()).map_err(|error| Error::io("stat", &self.path, error))
    }

    /// Whether there is a state.json.
    pub fn has_state(&self) -> Result<bool, Error> {
        self.has(STATE)
    }

    /// Whether something has this name in the directory.
    pub fn has(&self, name: &str) -> Result<bool, Error> {
        match cofferdam_sys::fs::stat(&self.dir, name.as_bytes()) {
            Ok(_) => Ok(true),
            Err(cofferdam_sys::Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Error::io("look for", self.path.join(name), errno)),
        }
    }

    /// Waits until no other verb works on the container, then locks it; [`Error::NotFound`] when it was deleted meanwhile.
    pub fn lock(self) -> Result<LockedHome, Error> {
        self.dir.lock().map_err(|error| Error::io("lock", &self.path, error))?;
        self.locked()
    }

    /// Locks the container, or fails with [`Error::Busy`] when another verb works on it.
    pub fn try_lock(self) -> Result<LockedHome, Error> {
        match self.dir.try_lock() {
            Ok(()) => self.locked(),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { id: self.id }),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &self.path, error)),
        }
    }

    fn locked(self) -> Result<LockedHome, Error> {
        let data = self.dir.metadata().map_err(|error| Error::io("stat", &self.path, error))?;
        // A directory that was removed while we waited: another one may have its name by now.
        if data.nlink() == 0 {
            Err(Error::NotFound { id: self.id })
        } else {
            Ok(LockedHome { home: self, written: AtomicBool::new(true) })
        }
    }

    /// Reads state.json; [`Error::NotFound`] when the container is not created yet, or no more there.
    pub fn read<C: DeserializeOwned, T: DeserializeOwned>(&self) -> Result<State<C, T>, Error> {
        let bytes = match self.read_file(STATE, MAX_STATE)? {
            Some(bytes) => bytes,
            None => return Err(Error::NotFound { id: self.id.clone() }),
        };
        let path = || self.path.join(STATE);
        let quick = str::from_utf8(&bytes).ok().and_then(cofferdam_json::read::<State<C, T>>);
        let parsed = quick.map_or_else(|| serde_json::from_slice(&bytes), Ok);
        let format = match &parsed {
            Ok(state) => state.format,
            Err(_) => format_of(&bytes).unwrap_or(FORMAT),
        };
        if format != FORMAT {
            return Err(Error::StateFormat { path: path(), found: format, known: FORMAT });
        }
        let state = parsed.map_err(|error| Error::StateDamaged { path: path(), why: error.to_string() })?;
        if state.id != self.id {
            let why = format!("it is that of container {:?}", state.id);
            return Err(Error::StateDamaged { path: path(), why });
        }
        Ok(state)
    }

    /// Reads a file of the directory, at most `limit` bytes; none when it is not there.
    pub fn read_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let failed = |error: io::Error| Error::io("read", self.path.join(name), error);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match nix::fcntl::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        };
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = Vec::with_capacity(size.min(limit) as usize + 1);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            let why = format!("it is larger than {limit} bytes");
            return Err(Error::StateDamaged { path: self.path.join(name), why });
        }
        Ok(Some(bytes))
    }
}

/// The format number of a file that does not read as a whole.
fn format_of(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Header {
        format: u64,
    }
    serde_json::from_slice::<Header>(bytes).ok().map(|header| header.format)
}

/// A container's directory that no other verb works on. The lock ends when this is dropped.
#[derive(Debug)]
pub struct LockedHome {
    home: Home,
    /// There may be a state.json.
    written: AtomicBool,
}

impl Deref for LockedHome {
    type Target = Home;
    fn deref(&self) -> &Home {
        &self.home
    }
}

impl LockedHome {
    /// Gives the lock back and keeps the directory.
    pub fn unlock(self) -> Result<Home, Error> {
        match self.dir.unlock() {
            Ok(()) => Ok(self.home),
            // The container is made by now: it must not fail for this. The lock goes with its descriptor.
            Err(_) => self.home.reopen(),
        }
    }

    /// Replaces state.json: a reader sees the old one or the new one, whole.
    pub fn write<C: Serialize, T: Serialize>(&self, state: &State<C, T>) -> Result<(), Error> {
        self.draft(state)?;
        self.publish()
    }

    /// Writes beside state.json what is to replace it.
    pub fn draft<C: Serialize, T: Serialize>(&self, state: &State<C, T>) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(2048);
        serde_json::to_writer(&mut bytes, state).map_err(|error| Error::below("write the state", error))?;
        self.write_file(STATE_NEW, &bytes)
    }

    /// Lets readers see what was drafted.
    pub fn publish(&self) -> Result<(), Error> {
        self.put_in_place().map_err(|errno| {
            let what = format!("rename {} to", self.path.join(STATE_NEW).display());
            Error::io(what, self.path.join(STATE), errno)
        })
    }

    /// Where there is an old state, the two change places and the old one goes: a rename over it makes ext4 write the new
    /// file to the disk at once (`auto_da_alloc`), and whoever removes the container then waits for that, 1 ms against 20 µs.
    fn put_in_place(&self) -> Result<(), Errno> {
        if !self.written.swap(true, Ordering::Relaxed) {
            return nix::fcntl::renameat(&self.dir, STATE_NEW, &self.dir, STATE);
        }
        let dir = cofferdam_sys::Borrowed(self.dir.as_raw_fd());
        let exchanged = cofferdam_sys::fs::exchange(&dir, STATE_NEW.as_bytes(), STATE.as_bytes());
        match exchanged.map_err(|errno| Errno::from_raw(errno.0)) {
            Ok(()) => unlinkat(&self.dir, STATE_NEW, UnlinkatFlags::NoRemoveDir),
            // ENOENT: there is none after all. EINVAL: a filesystem without exchange (NFS).
            Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => {
                nix::fcntl::renameat(&self.dir, STATE_NEW, &self.dir, STATE)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Writes a file into the directory, mode 0600; not atomic: state.json names what counts.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("write", self.path.join(name), error);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.dir, name, flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| failed(errno.into()))?;
        File::from(file).write_all(bytes).map_err(failed)
    }

    /// Removes a file of the directory; one that is not there is good.
    pub fn remove_file(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::io("remove", self.path.join(name), errno)),
        }
    }

    /// Removes everything but the directory.
    fn empty(&self) -> Result<(), Error> {
        let failed = |error| Error::io("empty", &self.path, error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_type().map_err(failed)? {
                kind if kind.is_dir() => fs::remove_dir_all(entry.path()).map_err(failed)?,
                _ => fs::remove_file(entry.path()).map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Forgets the container: the id is free. A death half-way leaves a directory without state, see above.
    pub fn remove(self) -> Result<(), Error> {
        let failed = |error| Error::io("remove", &self.path, error);
        self.remove_file(STATE)?;
        // Mostly that was all.
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.empty()?;
                fs::remove_dir(&self.path).map_err(failed)
            }
            removed => removed.map_err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Init, tests::sample};
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// A root of this test's own, removed at its end.
    struct TestRoot(Root);

    impl TestRoot {
        fn new() -> TestRoot {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("cofferdam-state-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            TestRoot(Root::new(std::env::temp_dir().join(name)))
        }
    }

    impl Deref for TestRoot {
        type Target = Root;
        fn deref(&self) -> &Root {
            &self.0
        }
    }

    impl Drop for TestRoot {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.path());
        }
    }

    #[test]
    fn ids_follow_runcs_rule() {
        for good in ["a", "web_1", "a+b", "A.b-c", "...", ".hidden", "0", &"x".repeat(200)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a/b", "/", "a b", "a\n", "ü", "a:b", "a\0"] {
            let text = check_id(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid container ID format: {bad:?}"));
        }
        assert_eq!(check_id("").unwrap_err().to_string(), "container id cannot be empty");
    }

    #[test]
    fn what_is_written_is_read() {
        let root = TestRoot::new();
        let mut state = sample("web");
        state.annotations.insert("a".into(), "b".into());
        state.init = Some(Init { pid: 4, inode: Some(1 << 40), start: None });
        let home = root.reserve("web").unwrap();
        home.write(&state).unwrap();
        assert_eq!(home.read::<String, ()>().unwrap(), state);
        assert_eq!(fs::metadata(home.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(home.path().join(STATE)).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(root.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(root.ids().unwrap(), ["web"]);
        home.remove().unwrap();
        assert!(root.ids().unwrap().is_empty());
        let home = root.reserve("web").unwrap();
        home.write(&state).unwrap();
        home.write_file("filter", b"x").unwrap();
        fs::create_dir_all(home.path().join("a/b")).unwrap();
        home.remove().unwrap();
        assert!(root.ids().unwrap().is_empty());
    }

    #[test]
    fn an_id_is_taken_once() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        let taken = root.reserve("web").unwrap_err().to_string();
        assert_eq!(taken, "container with given ID already exists: web");
        home.write(&sample("web")).unwrap();
        drop(home);
        let taken = root.reserve("web").unwrap_err().to_string();
        assert_eq!(taken, "container with given ID already exists: web");
    }

    #[test]
    fn what_a_dead_creator_left_is_taken_over() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        home.write_file(STATE_NEW, b"{\"form").unwrap();
        home.write_file("filter", b"x").unwrap();
        drop(home);
        assert!(matches!(root.find("web").unwrap().read::<String, ()>(), Err(Error::NotFound { .. })));
        let home = root.reserve("web").unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_removes_only_what_a_dead_creator_left() {
        let root = TestRoot::new();
        root.sweep("web").unwrap();
        let home = root.reserve("web").unwrap();
        root.sweep("web").unwrap();
        assert_eq!(root.ids().unwrap(), ["web"], "it is locked");
        drop(home);
        root.sweep("web").unwrap();
        assert!(root.ids().unwrap().is_empty());
        root.reserve("web").unwrap().write(&sample("web")).unwrap();
        root.sweep("web").unwrap();
        assert_eq!(root.ids().unwrap(), ["web"], "it has state");
    }

    #[test]
    fn a_writer_that_dies_leaves_the_old_state() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        let state = sample("web");
        home.write(&state).unwrap();
        home.write_file(STATE_NEW, b"{\"format\":1,\"bootId\":\"").unwrap();
        assert_eq!(home.read::<String, ()>().unwrap(), state);
        let later = State { rootfs: "/later".into(), ..state };
        home.write(&later).unwrap();
        assert_eq!(home.read::<String, ()>().unwrap(), later);
        assert!(!home.has(STATE_NEW).unwrap());
    }

    #[test]
    fn a_reader_always_finds_a_whole_state() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        home.write(&sample("web")).unwrap();
        let reader = root.find("web").unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for length in 0..500 {
                    home.write(&State { rootfs: "x".repeat(length), ..sample("web") }).unwrap();
                }
            });
            while !writer.is_finished() {
                let state = reader.read::<String, ()>().unwrap();
                assert!(state.rootfs.bytes().all(|byte| byte == b'x') || state.rootfs == "/b/rootfs");
            }
        });
    }

    #[test]
    fn a_second_verb_waits_or_is_told() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        home.write(&sample("web")).unwrap();
        let busy = root.find("web").unwrap().try_lock().unwrap_err().to_string();
        assert_eq!(busy, "container \"web\" is being worked on by another process");
        let waiting = root.find("web").unwrap();
        let waiter = std::thread::spawn(move || waiting.lock().map(drop));
        home.remove().unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(Error::NotFound { id }) if id == "web"));
    }

    #[test]
    fn a_foreign_format_is_named() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        for (content, want) in [
            (r#"{"format":7,"future":true}"#, "state format 7 is not the one this version knows (1)"),
            (r#"{"format":1}"#, "damaged state: missing field"),
            ("{", "damaged state: EOF"),
        ] {
            home.write_file(STATE, content.as_bytes()).unwrap();
            let text = home.read::<String, ()>().unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        }
        let mut state = sample("web");
        state.format = 2;
        home.write(&state).unwrap();
        let text = home.read::<String, ()>().unwrap_err().to_string();
        assert!(text.ends_with("state format 2 is not the one this version knows (1)"), "{text}");
        home.write(&sample("other")).unwrap();
        let text = home.read::<String, ()>().unwrap_err().to_string();
        assert!(text.ends_with("damaged state: it is that of container \"other\""), "{text}");
    }

    #[test]
    fn what_is_read_is_bounded() {
        let root = TestRoot::new();
        let home = root.reserve("web").unwrap();
        home.write_file("big", &[b'x'; 100]).unwrap();
        assert_eq!(home.read_file("big", 100).unwrap().unwrap().len(), 100);
        let text = home.read_file("big", 99).unwrap_err().to_string();
        assert!(text.ends_with("it is larger than 99 bytes"), "{text}");
        assert!(home.read_file("none", 9).unwrap().is_none());
    }
}
