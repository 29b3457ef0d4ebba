//! The rootfs handle: the home of every path below a container's root.
//!
//! Paths inside the rootfs are allegations: whoever made the image, or shares a volume with a running container, may have put
//! symbolic links anywhere and may exchange them while we look (CVE-2021-30465, CVE-2024-45310, CVE-2025-31133 and their
//! kind). So every path becomes a descriptor once, with the rootfs as the root of all links, and every later call uses the
//! descriptor.

use crate::{AsFd, Borrowed, Errno, Fd, Result, fs};
use alloc_crate::vec::Vec;

/// As many links as the kernel follows in one path (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;
/// openat2 says EAGAIN when somebody renames while `..` is resolved. Each try is a few microseconds.
const TRIES: usize = 128;

/// A directory that is the root of every path given to it.
pub struct Root {
    dir: Fd,
    /// A procfs that knows this process.
    proc: Option<Borrowed>,
}

impl Root {
    /// Takes the rootfs's descriptor.
    pub const fn new(dir: Fd) -> Root {
        Root { dir, proc: None }
    }

    /// The same where /proc may be another pid namespace's, in which this process is not: what must be opened again goes by way of
    /// `proc`, which has to stay open as long as this is used.
    pub fn knowing(dir: Fd, proc: &crate::proc::Proc) -> Root {
        Root { dir, proc: Some(Borrowed(proc.number())) }
    }

    /// What `path` is, links followed inside the root: an `O_PATH` descriptor.
    pub fn resolve(&self, path: &[u8]) -> Result<Fd> {
        self.open(path, fs::O_PATH)
    }

    /// Opens `path`, links followed inside the root.
    pub fn open(&self, path: &[u8], flags: i32) -> Result<Fd> {
        use fs::resolve::{IN_ROOT, NO_MAGICLINKS};
        let path = if path.is_empty() { b"/" } else { path };
        for _ in 0..TRIES {
            match fs::openat2(&self.dir, path, flags, 0, IN_ROOT | NO_MAGICLINKS) {
                Err(Errno::EAGAIN) => {}
                // Linux < 5.6, or a filter around us that does not know openat2.
                Err(Errno::ENOSYS | Errno::EPERM) => return self.walk(path, flags),
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Opens `path` if all of the way there lies on the root's own mount and is no link; else any error.
    pub fn open_on_own_mount(&self, path: &[u8], flags: i32) -> Result<Fd> {
        use fs::resolve::{IN_ROOT, NO_SYMLINKS, NO_XDEV};
        fs::openat2(&self.dir, path, flags, 0, IN_ROOT | NO_SYMLINKS | NO_XDEV)
    }

    /// Whether `file` is this directory, reached by this mount.
    pub fn is(&self, file: &impl AsFd) -> Result<bool> {
        let [own, other] = [fs::stat(&self.dir, b"")?, fs::stat(file, b"")?];
        Ok((own.dev, own.ino, own.mount) == (other.dev, other.ino, other.mount))
    }

    /// The same without openat2: one component at a time, links read and expanded here, `..` by a stack of descriptors, so that
    /// no name is ever looked up above the root.
    fn walk(&self, path: &[u8], flags: i32) -> Result<Fd> {
        let mut stack: Vec<Fd> = Vec::new();
        let mut todo: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).rev().collect();
        let mut links = 0;
        let mut last: Option<Fd> = None;
        while let Some(part) = todo.pop() {
            if let Some(file) = last.take() {
                stack.push(file);
            }
            if part == b".." {
                stack.pop();
                continue;
            }
            let at = Borrowed(stack.last().unwrap_or(&self.dir).raw());
            let next = fs::openat(&at, &part, fs::O_PATH | fs::O_NOFOLLOW, 0)?;
            if fs::stat(&next, b"")?.is_symlink() && !(todo.is_empty() && flags & fs::O_NOFOLLOW != 0) {
                expand(&next, &mut links, &mut stack, &mut todo)?;
                continue;
            }
            last = Some(next);
        }
        let found = match last.or_else(|| stack.pop()) {
            Some(found) => found,
            None => self.dir.duplicate()?,
        };
        if flags & fs::O_PATH != 0 {
            if flags & fs::O_DIRECTORY != 0 && !fs::stat(&found, b"")?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(found);
        }
        match &self.proc {
            Some(proc) => reopen_by(proc, &found, flags),
            None => reopen(&found, flags),
        }
    }

    /// The directory `path`, made with its parents where it is not there.
    pub fn make_dir_all(&self, path: &[u8], mode: u32) -> Result<Fd> {
        let flags = fs::O_PATH | fs::O_DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let parts: Vec<&[u8]> = components(path).collect();
        // The longest part that is there; then one by one below it, without links: what is made here is real.
        for known in (0..parts.len()).rev() {
            match self.open(&parts[..known].join(&b'/'), flags) {
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
                Ok(mut at) => {
                    for part in &parts[known..] {
                        at = match make_dir(&at, part, mode) {
                            // A link to nowhere: what it leads to is made.
                            Err(Errno::ENOTDIR | Errno::ELOOP) => return self.make_behind_links(path, mode),
                            made => made?,
                        };
                    }
                    return Ok(at);
                }
            }
        }
        Err(Errno::ENOENT)
    }

    /// [`Root::make_dir_all`] by way of links that lead to what is not there yet.
    fn make_behind_links(&self, path: &[u8], mode: u32) -> Result<Fd> {
        let (mut at, missing) = self.reach(path)?;
        for part in &missing {
            at = make_dir(&at, part, mode)?;
        }
        Ok(at)
    }

    /// The deepest directory on the way to `path` that is there, and the names that are missing below it, all links expanded
    /// inside the root.
    fn reach(&self, path: &[u8]) -> Result<(Fd, Vec<Vec<u8>>)> {
        let mut stack: Vec<Fd> = Vec::new();
        let mut todo: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).rev().collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                stack.pop();
                continue;
            }
            let at = Borrowed(stack.last().unwrap_or(&self.dir).raw());
            let next = match fs::openat(&at, &part, fs::O_PATH | fs::O_NOFOLLOW, 0) {
                Err(Errno::ENOENT) => {
                    todo.push(part);
                    break;
                }
                next => next?,
            };
            if !fs::stat(&next, b"")?.is_symlink() {
                stack.push(next);
                continue;
            }
            expand(&next, &mut links, &mut stack, &mut todo)?;
        }
        todo.reverse();
        let deepest = match stack.pop() {
            Some(deepest) => deepest,
            None => self.dir.duplicate()?,
        };
        Ok((deepest, todo))
    }

    /// The directory that `path` lies in (made where it is not there) and the path's last name.
    pub fn parent_of<'a>(&self, path: &'a [u8], mode: u32) -> Result<(Fd, &'a [u8])> {
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
        let start = path[..end].iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let name = &path[start..end];
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Errno::EINVAL);
        }
        Ok((self.make_dir_all(&path[..start], mode)?, name))
    }

    /// A symbolic link `path` that reads `target`, made (parents too) where it is not there; EEXIST when something else is.
    pub fn make_link(&self, path: &[u8], target: &[u8]) -> Result<()> {
        let (dir, name) = self.parent_of(path, 0o755)?;
        match fs::symlinkat(target, &dir, name) {
            Err(Errno::EEXIST) => {}
            made => return made,
        }
        let mut buffer = [0u8; 4096];
        match fs::readlinkat(&dir, name, &mut buffer) {
            Ok(text) if text == target => Ok(()),
            _ => Err(Errno::EEXIST),
        }
    }

    /// The file `path`, made empty (parents too) where it is not there.
    pub fn make_file(&self, path: &[u8], mode: u32) -> Result<Fd> {
        match self.resolve(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let (dir, name) = self.parent_of(path, 0o755)?;
        let flags = fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW | fs::O_WRONLY;
        match fs::openat(&dir, name, flags, mode) {
            Ok(made) => Ok(made),
            // A link, or somebody was faster: what it leads to inside the root, made there if that is nowhere.
            Err(Errno::EEXIST) => match self.resolve(path) {
                Err(Errno::ENOENT) => self.make_file_behind_links(path, mode),
                found => found,
            },
            Err(errno) => Err(errno),
        }
    }

    fn make_file_behind_links(&self, path: &[u8], mode: u32) -> Result<Fd> {
        let (mut at, missing) = self.reach(path)?;
        let (name, parents) = missing.split_last().ok_or(Errno::EEXIST)?;
        for part in parents {
            at = make_dir(&at, part, 0o755)?;
        }
        if name == b".." {
            return Err(Errno::EINVAL);
        }
        fs::openat(&at, name, fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW | fs::O_WRONLY, mode)
    }
}

impl AsFd for Root {
    fn number(&self) -> crate::Raw {
        self.dir.raw()
    }
}

/// Puts where a link leads in front of what is still to do; what is absolute begins at the root again. ELOOP after many.
fn expand(link: &Fd, links: &mut usize, stack: &mut Vec<Fd>, todo: &mut Vec<Vec<u8>>) -> Result<()> {
    *links += 1;
    if *links > MOST_LINKS {
        return Err(Errno::ELOOP);
    }
    let mut buffer = [0u8; 4096];
    let target = fs::readlinkat(link, b"", &mut buffer)?;
    if target.first() == Some(&b'/') {
        stack.clear();
    }
    todo.extend(components(target).map(<[u8]>::to_vec).rev());
    Ok(())
}

/// The names in a path; `.` and empty ones left out.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Makes one directory (or takes the one that is there, but no link) and opens it.
fn make_dir(at: &Fd, name: &[u8], mode: u32) -> Result<Fd> {
    if name == b".." {
        return Err(Errno::EINVAL);
    }
    match fs::mkdirat(at, name, mode) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    fs::openat(at, name, fs::O_PATH | fs::O_DIRECTORY | fs::O_NOFOLLOW, 0)
}

/// Opens what an `O_PATH` descriptor is, by way of a procfs that is checked to be one.
pub fn reopen(file: &impl AsFd, flags: i32) -> Result<Fd> {
    reopen_by(&crate::proc::Proc::open()?, file, flags)
}

fn reopen_by(proc: &impl AsFd, file: &impl AsFd, flags: i32) -> Result<Fd> {
    let mut text = [0u8; 32];
    // `fd/N` is a magic link, which the handle refuses for everybody else: here it is the very thing that is wanted.
    let path = decimal_path(b"self/fd/", file.number(), &mut text);
    fs::openat(proc, path, flags & !fs::O_NOFOLLOW, 0)
}

/// `prefix` followed by a number in decimal.
pub fn decimal_path<'a>(prefix: &[u8], number: i32, buffer: &'a mut [u8; 32]) -> &'a [u8] {
    buffer[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0u8; 10];
    let mut rest = number.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let length = prefix.len() + digits.len() - at;
    buffer[prefix.len()..length].copy_from_slice(&digits[at..]);
    &buffer[..length]
}
