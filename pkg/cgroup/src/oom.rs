//! Learning of the OOM killer without a thread: a descriptor for the caller's own poll(2), and a counter to look at.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;

/// A watch on a container's OOM kills. Ends when it is dropped.
///
/// Poll [`OomWatch::fd`] for [`OomWatch::interest`]; when it is ready, call [`OomWatch::kills`].
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    path: String,
}

#[derive(Debug)]
enum Source {
    /// v1: the kernel counts the descriptor up at every OOM, and once when the cgroup is removed.
    V1 { event: EventFd, _control: File },
    /// v2: `memory.events` itself can be polled.
    V2(File),
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
            Source::V2(file::open(&path, "memory.events")?)
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

    /// How many processes of the container the OOM killer has killed so far; 0 without a memory controller.
    ///
    /// # Errors
    ///
    /// When the counter cannot be read, above all because the cgroup is gone.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match self.path("memory") {
            Some(path) => count(path, self.version == Version::V2),
            None => Ok(0),
        }
    }
}

impl OomWatch {
    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1 { event, .. } => event.as_fd(),
            Source::V2(events) => events.as_fd(),
        }
    }

    /// The poll(2) event to wait for: POLLIN on v1, POLLPRI on v2 (where POLLIN is always there).
    pub fn interest(&self) -> PollFlags {
        match self.source {
            Source::V1 { .. } => PollFlags::POLLIN,
            Source::V2(_) => PollFlags::POLLPRI,
        }
    }

    /// How many processes have been killed since the container began, and makes the descriptor wait for the next
    /// event. `None`: the cgroup is gone.
    ///
    /// # Errors
    ///
    /// When the counter cannot be read.
    pub fn kills(&mut self) -> Result<Option<u64>, CgroupError> {
        let result = match &mut self.source {
            Source::V1 { event, .. } => {
                // Nothing to read is right, too: the caller may look without an event.
                let _ = event.read();
                count(&self.path, false)
            }
            Source::V2(events) => {
                let mut text = String::new();
                match file::reread(events, &mut text) {
                    Ok(()) => Ok(find(&text)),
                    Err(source) => {
                        Err(CgroupError::io("read", file::join(&self.path, "memory.events"), source))
                    }
                }
            }
        };
        match result {
            Ok(kills) => Ok(Some(kills)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn count(path: &str, v2: bool) -> Result<u64, CgroupError> {
    let name = if v2 { "memory.events" } else { "memory.oom_control" };
    Ok(find(&file::read(path, name)?))
}

/// The counter's name is the same in both files; v1 has it since Linux 4.13.
fn find(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}
