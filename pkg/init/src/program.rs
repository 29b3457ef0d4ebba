//! The last steps: where the program starts, which one it is, what it may call, and the execve.

use crate::{At, Failure, Init, Outcome};
use alloc::{format, string::String, vec::Vec};
use cofferdam_step::{Attempt, Program, ReportKind, Step};
use cofferdam_sys::{Borrowed, Cwd, Errno, Fd, Raw, Strings, fs, proc::Proc, process};

/// An /etc/passwd beyond this is not read to its end: it belongs to the image (CVE-2026-47262).
const LONGEST_PASSWD: usize = 1 << 20;
/// Asks seccomp(2) for a listener.
const NEW_LISTENER: u32 = 8;

impl Init {
    /// Changes directory by a descriptor that was resolved without magic links, and proves that the kernel can name it.
    pub(crate) fn change_directory(&mut self, path: &str, create: bool) -> Outcome {
        let root = self.root()?;
        let dir = match root.open(path.as_bytes(), fs::O_PATH | fs::O_DIRECTORY) {
            Err(Errno::ENOENT) if create => root.make_dir_all(path.as_bytes(), 0o755).at(Attempt::MakeDir)?,
            other => other.at(Attempt::Chdir)?,
        };
        fs::fchdir(&dir).at(Attempt::Chdir)?;
        let mut buffer = [0u8; 4096];
        match fs::getcwd(&mut buffer) {
            Ok(cwd) if cwd.first() == Some(&b'/') => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => {
                Err(Failure { attempt: Attempt::OutsideRoot, errno: Errno::EXDEV, detail: 0 })
            }
            Err(errno) => Err(Failure { attempt: Attempt::Getcwd, errno, detail: 0 }),
        }
    }

    /// HOME of the user, from the container's /etc/passwd, `/` if it is not in there; only where the environment has none.
    pub(crate) fn set_home(&mut self, uid: u32, program: &Program) -> Outcome {
        let (_, env) = last(program)?;
        if env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
            return Ok(());
        }
        let home = self.home_of(uid).unwrap_or_else(|| String::from("/"));
        self.home = Some(format!("HOME={home}"));
        Ok(())
    }

    fn home_of(&mut self, uid: u32) -> Option<String> {
        let file = self.root().ok()?.open(b"/etc/passwd", fs::O_RDONLY | fs::O_NONBLOCK).ok()?;
        if !fs::stat(&file, b"").ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        let mut chunk = [0u8; 4096];
        while text.len() < LONGEST_PASSWD {
            match fs::read(&file, &mut chunk).ok()? {
                0 => break,
                length => text.extend_from_slice(&chunk[..length]),
            }
        }
        text.split(|b| *b == b'\n').find_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let id: u32 = core::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
            let home = core::str::from_utf8(fields.nth(2)?).ok()?;
            (id == uid && !home.is_empty()).then(|| String::from(home))
        })
    }

    /// Finds the program as execvp would, so that `create` fails when it is not there.
    pub(crate) fn resolve_program(&mut self, program: &Program) -> Outcome {
        let (args, env) = last(program)?;
        let name = args.first().map_or("", |arg| arg.as_str());
        if name.contains('/') {
            executable(name.as_bytes()).at(Attempt::Resolve)?;
            self.program = Vec::from(name);
            return Ok(());
        }
        // Without a PATH nothing is found, as with runc.
        let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let mut worst = Errno::ENOENT;
        for dir in path.split(':').filter(|_| !name.is_empty() && !path.is_empty()) {
            let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
            match executable(candidate.as_bytes()) {
                Ok(()) => {
                    self.program = candidate.into_bytes();
                    return Ok(());
                }
                Err(Errno::EACCES | Errno::EISDIR) => worst = Errno::EACCES,
                Err(_) => {}
            }
        }
        Err(Failure { attempt: Attempt::Resolve, errno: worst, detail: 0 })
    }

    /// Says that the program is next, while a filter cannot yet forbid to say so.
    fn announce(&mut self) -> Outcome {
        if !self.announced {
            self.announced = true;
            self.conversation.say(ReportKind::Executing, 0)?;
        }
        Ok(())
    }

    /// Loads the filter; with a listener, whoever started this takes the listener from our table and sends a byte. In front of a clone, or
    /// of the wait for a start, the plan has made sure that the filter forbids nothing of what comes.
    pub(crate) fn load_seccomp(&mut self, filter: Option<&[u8]>, flags: u32) -> Outcome {
        let sent = self.filter.take();
        let missing = Failure { attempt: Attempt::Decode, errno: Errno::ENOENT, detail: 0 };
        let (filter, flags) = match (filter, &sent) {
            (Some(filter), _) => (filter, flags),
            (None, Some((filter, flags))) => (filter.as_slice(), *flags),
            (None, None) => return Err(missing),
        };
        let last = !self.clones && !self.waits;
        if last {
            self.announce()?;
        }
        let listener = process::seccomp_set_filter(filter, flags).at(Attempt::Seccomp)?;
        if flags & NEW_LISTENER == 0 {
            return Ok(());
        }
        self.conversation.say(ReportKind::SeccompListener, listener as i64)?;
        if self.conversation.read_byte()?.is_none() {
            crate::give_up(None)
        }
        if !last {
            // Else the execve does it, whatever the filter says of close().
            drop(Fd::from_raw(listener as Raw));
        }
        Ok(())
    }

    /// Everything above the preserved descriptors vanishes at the execve (CVE-2024-21626).
    pub(crate) fn seal_descriptors(&mut self, preserve: u32) -> Outcome {
        let first = 3 + preserve;
        match fs::close_range_on_exec(first) {
            // Linux < 5.11, or a filter around us that does not know close_range.
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                seal_one_by_one(self.proc()?, first as i32).at(Attempt::CloseRange)
            }
            other => other.at(Attempt::CloseRange),
        }
    }

    /// The program's environment: config.json's, and HOME where that has none.
    pub(crate) fn environment<'a>(&'a self, env: &'a [String]) -> Vec<&'a str> {
        let kept = env.iter().filter(|entry| self.home.is_none() || !entry.starts_with("HOME="));
        kept.map(String::as_str).chain(self.home.as_deref()).collect()
    }

    /// Replaces init by the container's program. Nothing of init's signal state survives: what execve would keep is the mask
    /// and what is ignored.
    pub(crate) fn exec(&mut self, args: &[String], env: &[String]) -> Outcome {
        self.announce()?;
        let args = Strings::new(args).at(Attempt::Execve)?;
        let env = Strings::new(&self.environment(env)).at(Attempt::Execve)?;
        process::reset_signal_handlers();
        process::set_signal_mask(0).at(Attempt::Execve)?;
        Err(Failure {
            attempt: Attempt::Execve,
            errno: process::execve(&self.program, &args, &env),
            detail: 0,
        })
    }
}

/// Marks `first` and all above close-on-exec, by their list in procfs.
pub(crate) fn seal_one_by_one(proc: &Proc, first: i32) -> cofferdam_sys::Result<()> {
    let dir = proc.open_file(b"self/fd", fs::O_RDONLY | fs::O_DIRECTORY)?;
    fs::entries(&dir, |name| {
        let number = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).unwrap_or(0);
        if number >= first { fs::set_close_on_exec(&Borrowed(number), true) } else { Ok(()) }
    })
}

/// args and env of the step that all others lead to.
pub(crate) fn last<'p>(program: &'p Program<'_>) -> Outcome<(&'p [String], &'p [String])> {
    match program.steps.last() {
        Some(Step::Exec { args, env }) => Ok((args, env)),
        _ => Err(Failure { attempt: Attempt::Decode, errno: Errno::EPROTO, detail: 0 }),
    }
}

/// Whether a path can be executed: a file, not a directory, with permission for the user that this process has become.
fn executable(path: &[u8]) -> cofferdam_sys::Result<()> {
    let file = fs::openat(&Cwd, path, fs::O_PATH, 0)?;
    if fs::stat(&file, b"")?.is_dir() {
        return Err(Errno::EISDIR);
    }
    fs::access(&Cwd, path, libc::X_OK)
}
