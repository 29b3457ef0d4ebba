//! A procfs that nobody else can change: the home of every read and write below /proc.
//!
//! Writing an LSM label or a sysctl through a path in /proc trusts every mount on the way (CVE-2019-16884,
//! CVE-2025-52881). The handle here is a directory descriptor of a procfs root that was either mounted by us and never
//! attached anywhere, or checked to be one, and every lookup below it crosses no mount and follows no magic link.

use crate::{AsFd, Borrowed, Errno, Fd, Result, fs, mount};

/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: i64 = 0x9fa0;
/// `PROC_ROOT_INO`
const ROOT_INODE: u64 = 1;

/// A trusted procfs root.
pub struct Proc(Fd);

impl Proc {
    /// Mounts a private procfs of the current pid namespace, or, where that is refused (a user namespace that may not see
    /// all of /proc: `mount_too_revealing`), takes the one at `/proc` after a check.
    pub fn open() -> Result<Proc> {
        Self::private().or_else(|_| Self::in_place())
    }

    /// Takes the one at `/proc` after a check, of whatever pid namespace it is.
    pub fn in_place() -> Result<Proc> {
        Self::adopt(fs::openat(&crate::Cwd, b"/proc", fs::O_PATH | fs::O_DIRECTORY, 0)?)
    }

    /// Mounts a private procfs.
    pub fn private() -> Result<Proc> {
        let context = mount::fsopen(b"proc")?;
        mount::fsconfig_create(&context)?;
        let flags = mount::attr::NOSUID | mount::attr::NODEV | mount::attr::NOEXEC;
        mount::fsmount(&context, flags).map(Proc)
    }

    /// Takes a procfs that the caller has mounted itself and holds by the mount's own descriptor.
    pub const fn mounted(root: Fd) -> Proc {
        Proc(root)
    }

    /// Takes a directory that claims to be a procfs root. EXDEV when it is none.
    pub fn adopt(dir: Fd) -> Result<Proc> {
        let magic = fs::statfs(&dir)?.0;
        if magic != PROC_MAGIC || fs::stat(&dir, b"")?.ino != ROOT_INODE {
            return Err(Errno::EXDEV);
        }
        Ok(Proc(dir))
    }

    /// Opens a file below it, crossing no mount and following no magic link.
    pub fn open_file(&self, path: &[u8], flags: i32) -> Result<Fd> {
        use fs::resolve::{BENEATH, NO_MAGICLINKS, NO_XDEV};
        match fs::openat2(&self.0, path, flags | fs::O_NOFOLLOW, 0, BENEATH | NO_MAGICLINKS | NO_XDEV) {
            // Linux < 5.6, or a filter around us that does not know openat2 (EPERM: Docker before 20.10).
            Err(Errno::ENOSYS | Errno::EPERM) => self.walk(path, flags),
            other => other,
        }
    }

    /// Component by component, no links but `self` and `thread-self`, and the result must still be procfs. A mount over a
    /// component is only seen when it is of another filesystem: the reason why openat2 is the first choice.
    fn walk(&self, path: &[u8], flags: i32) -> Result<Fd> {
        let mut dir: Option<Fd> = None;
        let mut parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let at = Borrowed(dir.as_ref().unwrap_or(&self.0).raw());
            let last = parts.peek().is_none();
            let mut name = [0u8; 32];
            let part = if dir.is_none() && (part == b"self" || part == b"thread-self") {
                fs::readlinkat(&at, part, &mut name)?
            } else {
                part
            };
            let flags =
                if last { flags | fs::O_NOFOLLOW } else { fs::O_PATH | fs::O_NOFOLLOW | fs::O_DIRECTORY };
            // thread-self reads "PID/task/TID": three components without links.
            let next = fs::openat(&at, part, flags, 0)?;
            if fs::statfs(&next)?.0 != PROC_MAGIC {
                return Err(Errno::EXDEV);
            }
            dir = Some(next);
        }
        dir.ok_or(Errno::EINVAL)
    }

    /// Writes a whole value to a file.
    pub fn write(&self, path: &[u8], value: &[u8]) -> Result<()> {
        let file = self.open_file(path, fs::O_WRONLY)?;
        // A sysctl or an attribute takes its value in one write; a short one means it was not taken.
        if fs::write(&file, value)? == value.len() { Ok(()) } else { Err(Errno::EIO) }
    }
}

impl AsFd for Proc {
    fn number(&self) -> crate::Raw {
        self.0.raw()
    }
}
