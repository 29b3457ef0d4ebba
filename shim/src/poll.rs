//! One epoll for everything: listener, connections, signals, processes, streams, OOM notices.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;

/// What an event is about. Numbers are never used twice, so an event that outlives its source finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The socket that containerd connects to.
    Listener,
    /// Signals, by signalfd.
    Signals,
    /// A worker is done.
    Jobs,
    /// Our connection to containerd, for events.
    Publisher,
    /// cgroup v2's memory.events.
    OomFiles,
    /// cgroup v1's OOM notice of a container.
    Oom(u32),
    /// A connection of containerd's.
    Connection(u32),
    /// A process has ended.
    Process(u32),
    /// A stream can go on.
    Stream(u32),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Source::Listener => (0, 0),
            Source::Signals => (1, 0),
            Source::Jobs => (2, 0),
            Source::Publisher => (3, 0),
            Source::OomFiles => (4, 0),
            Source::Oom(number) => (5, number),
            Source::Connection(number) => (6, number),
            Source::Process(number) => (7, number),
            Source::Stream(number) => (8, number),
        };
        (kind << 32) | u64::from(number)
    }

    fn decode(data: u64) -> Source {
        let number = data as u32;
        match data >> 32 {
            0 => Source::Listener,
            1 => Source::Signals,
            2 => Source::Jobs,
            3 => Source::Publisher,
            4 => Source::OomFiles,
            5 => Source::Oom(number),
            6 => Source::Connection(number),
            7 => Source::Process(number),
            _ => Source::Stream(number),
        }
    }
}

/// The epoll instance.
pub struct Poll {
    epoll: Epoll,
    next: u32,
}

impl Poll {
    /// A new one.
    pub fn new() -> nix::Result<Poll> {
        Ok(Poll { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, next: 0 })
    }

    /// A number that no source has had.
    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Watches a descriptor, level-triggered.
    pub fn add(&self, fd: impl AsFd, source: Source, flags: EpollFlags) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(flags, source.encode()))
    }

    /// Changes what is watched for.
    pub fn modify(&self, fd: impl AsFd, source: Source, flags: EpollFlags) -> nix::Result<()> {
        self.epoll.modify(fd, &mut EpollEvent::new(flags, source.encode()))
    }

    /// Stops watching. A descriptor that is not watched is none of our worry.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = self.epoll.delete(fd);
    }

    /// Waits for events, at most `milliseconds` if given.
    pub fn wait(&self, milliseconds: Option<u64>) -> Vec<(Source, EpollFlags)> {
        let mut events = [EpollEvent::empty(); 32];
        let timeout = milliseconds.map_or(EpollTimeout::NONE, |limit| {
            EpollTimeout::try_from(limit.min(i32::MAX as u64)).unwrap_or(EpollTimeout::MAX)
        });
        // EINTR: nothing has happened that signalfd would not tell.
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        events[..count].iter().map(|event| (Source::decode(event.data()), event.events())).collect()
    }
}
