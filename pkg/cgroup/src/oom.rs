//! Learning of the OOM killer without a thread: a descriptor for the caller's own poll(2), and a counter to look at.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;

/// A watch on a container's lack of memory. Ends when it is dropped.
///
/// Poll [`OomWatch::fd`] for [`OomWatch::interest`]; when it is ready, call [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    path: String,
}

#[derive(Debug)]
enum Source {
    /// v1: the kernel counts the descriptor up at every OOM, before it looks for a process to kill (so the file's own count of kills
    /// comes too late), and once when the cgroup is removed.
    V1 { event: EventFd, _control: File },
    /// v2: `memory.events` itself can be polled; with the kills that have been taken.
    V2 { events: File, taken: u64 },
}

impl Cgroup {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// When there is no memory controller, or the kernel has no such notification.
    pub fn watch_oom(&self) -> Result<OomWatch, CgroupError> {
        let path = self.need("memory")?.to_owned();
        let source = if self.version == Version::V2 {
            let mut events = file::open(&path, "memory.events")?;
            let taken = kills(&mut events, &path)?;
            Source::V2 { events, taken }
        } else {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let event = EventFd::from_value_and_flags(0, flags)
                .map_err(|errno| CgroupError::io("eventfd for", &path, errno.into()))?;
            let control = file::open(&path, "memory.oom_control")?;
            let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
            file::write(&path, "cgroup.event_control", &line)?;
            Source::V1 { event, _control: control }
        };
        Ok(OomWatch { source, path })
    }
}

impl OomWatch {
    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1 { event, .. } => event.as_fd(),
            Source::V2 { events, .. } => events.as_fd(),
        }
    }

    /// The poll(2) event to wait for: POLLIN on v1, POLLPRI on v2 (where POLLIN is always there).
    pub fn interest(&self) -> PollFlags {
        match self.source {
            Source::V1 { .. } => PollFlags::POLLIN,
            Source::V2 { .. } => PollFlags::POLLPRI,
        }
    }

    /// How many processes were killed since this was asked last (v2), or whether memory ran out, 1 or 0 (v1, where one kill may take
    /// several tries, each with a notice); and makes the descriptor wait for the next time. `None`: the cgroup is gone.
    ///
    /// # Errors
    ///
    /// When the counter cannot be read.
    pub fn take(&mut self) -> Result<Option<u64>, CgroupError> {
        let count = match &mut self.source {
            Source::V1 { event, .. } => {
                // Nothing to read is right, too: the caller may look without an event.
                let noticed = event.read().is_ok();
                file::read(&self.path, "memory.oom_control").map(|_| u64::from(noticed))
            }
            Source::V2 { events, taken } => kills(events, &self.path).map(|kills| {
                let before = std::mem::replace(taken, kills);
                kills.saturating_sub(before)
            }),
        };
        match count {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The kills that `memory.events` counts.
fn kills(events: &mut File, path: &str) -> Result<u64, CgroupError> {
    let mut text = String::new();
    file::reread(events, &mut text)
        .map_err(|source| CgroupError::io("read", file::join(path, "memory.events"), source))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}
