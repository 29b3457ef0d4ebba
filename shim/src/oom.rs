//! OOM notices without a thread a container: an eventfd each on cgroup v1, one inotify for all on v2.

use crate::cgroup::Cgroup;
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// cgroup v1: the kernel counts up an eventfd when the cgroup runs out of memory, and once when it is removed.
pub struct Notice {
    eventfd: EventFd,
    control: PathBuf,
}

impl Notice {
    /// Asks for the notice; none where there is no memory controller.
    pub fn ask(cgroup: &Cgroup) -> Option<Notice> {
        let dir = cgroup.v1_dir("memory")?;
        let control = dir.join("memory.oom_control");
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        let file = fs::File::open(&control).ok()?;
        let line = format!("{} {}", eventfd.as_fd().as_raw_fd(), file.as_raw_fd());
        if let Err(error) = fs::write(dir.join("cgroup.event_control"), line) {
            crate::error!("add cg to OOM monitor: {}: {error}", dir.display());
            return None;
        }
        Some(Notice { eventfd, control })
    }

    /// Whether there was a notice that was not the cgroup's end.
    pub fn take(&self) -> bool {
        self.eventfd.read().is_ok_and(|count| count > 0) && self.control.exists()
    }

    /// Becomes readable with a notice.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// cgroup v2: `memory.events` is modified, and its `oom_kill` has grown.
pub struct Watched {
    descriptor: WatchDescriptor,
    file: PathBuf,
    kills: u64,
}

impl Watched {
    /// Whether the kernel has killed since the last time this was asked.
    pub fn take(&mut self) -> bool {
        let kills = kills(&self.file).unwrap_or(self.kills);
        let grown = kills > self.kills;
        self.kills = kills;
        grown
    }
}

fn kills(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|number| number.parse().ok())
}

/// The inotify that all containers share.
pub struct Files {
    inotify: Option<Inotify>,
}

impl Files {
    /// Made when it is first needed, which on cgroup v1 is never.
    pub fn new() -> Files {
        Files { inotify: None }
    }

    /// Watches a cgroup; whether the inotify is new, too.
    pub fn watch(&mut self, dir: &Path) -> Option<(Watched, bool)> {
        let is_new = self.inotify.is_none();
        if is_new {
            self.inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        }
        let file = dir.join("memory.events");
        let watch = self.inotify.as_ref()?.add_watch(&file, AddWatchFlags::IN_MODIFY);
        let descriptor = watch
            .inspect_err(|errno| crate::error!("failed to watch oom events of {}: {errno}", dir.display()))
            .ok()?;
        // What happened between the cgroup's birth and now counts.
        Some((Watched { descriptor, file, kills: 0 }, is_new))
    }

    /// Stops watching.
    pub fn forget(&self, watched: &Watched) {
        if let Some(inotify) = &self.inotify {
            // The kernel forgets by itself when the cgroup is removed.
            let _ = inotify.rm_watch(watched.descriptor);
        }
    }

    /// Reads the notices away: which files they were of is found by looking at all of them.
    pub fn drain(&self) {
        while self
            .inotify
            .as_ref()
            .is_some_and(|inotify| inotify.read_events().is_ok_and(|events| !events.is_empty()))
        {}
    }

    /// Becomes readable when some file was modified.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }
}
