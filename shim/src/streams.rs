//! Copying standard streams, all in the event loop: no thread a stream, no buffer a stream.
//!
//! Pipe to fifo goes by splice(2), which moves pages instead of copying them. Terminals and regular files are read and written:
//! a terminal has no pages to move, and a file that is appended to refuses splice. One descriptor of a terminal serves all streams of its
//! process.

use crate::poll::{Poll, Source};
use nix::{
    errno::Errno,
    fcntl::{OFlag, SpliceFFlags, splice},
    poll::{PollFd, PollFlags, PollTimeout},
    sys::epoll::EpollFlags,
    unistd::{read, write},
};
use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Whose stream it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The container.
    pub id: String,
    /// The exec in it; empty for init.
    pub exec: String,
}

/// Which of the standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// From a fifo to the process.
    Input,
    /// From the process.
    Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Sink,
}

/// What a stream reads or writes.
pub enum End {
    /// Nobody else's.
    Own(OwnedFd),
    /// The terminal, which the process's other stream has, too.
    Terminal(Arc<OwnedFd>),
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            End::Own(fd) => fd.as_fd(),
            End::Terminal(fd) => fd.as_fd(),
        }
    }
}

/// One direction of copying.
pub struct Stream {
    /// Whose it is.
    pub owner: Key,
    /// Which way it goes.
    pub role: Role,
    source: End,
    sink: End,
    /// What epoll has of a terminal that takes no more: epoll takes a descriptor once, and has the terminal's own for what is read from it.
    full_terminal: Option<OwnedFd>,
    /// The reading end of the fifo that is written to.
    held: Option<OwnedFd>,
    regular_sink: bool,
    spliced: bool,
    /// Read and not yet written.
    pending: Vec<u8>,
    watched: Option<Side>,
    /// Whether an empty source is its end: of a terminal whose process has ended.
    ends_when_dry: bool,
}

/// How a stream is made.
pub struct Plan {
    /// Whose it is.
    pub owner: Key,
    /// Which way it goes.
    pub role: Role,
    /// Read from, without waiting.
    pub source: End,
    /// Written to, without waiting unless it is a regular file.
    pub sink: End,
    /// The reading end of the fifo that is written to.
    pub held: Option<OwnedFd>,
    /// Whether both are pipes or fifos.
    pub pipes: bool,
    /// Whether the sink is a regular file.
    pub regular_sink: bool,
}

/// A fifo whose reader is away. What is in a fifo is lost when its last end closes, so it stays open until the reader is back or the
/// process is deleted.
pub struct Unread {
    sink: OwnedFd,
    _held: OwnedFd,
}

impl Unread {
    /// Itself, unless somebody else has the fifo open for reading by now. Then it is closed, and the reader gets what is in it, and
    /// its end.
    pub fn if_unread(self) -> Option<Unread> {
        let Unread { sink, _held } = self;
        drop(_held);
        let mut fds = [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)];
        let count = nix::poll::poll(&mut fds, PollTimeout::ZERO);
        // A writing end that no reader is left for is in error.
        let unread =
            count.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if !unread {
            return None;
        }
        let path = format!("/proc/self/fd/{}", sink.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let held = nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty()).ok()?;
        Some(Unread { sink, _held: held })
    }
}

enum Step {
    Moved,
    Blocked(Side),
    Ended,
}

/// What became of a stream that was pumped.
pub enum Pumped {
    /// It goes on when its side is ready again.
    Open,
    /// It is over.
    Ended(Stream),
    /// It writes to a file, which can block: a worker has to pump it, and bring it back.
    ForWorker(Stream),
}

/// All streams.
#[derive(Default)]
pub struct Streams {
    streams: HashMap<u32, Stream>,
    /// Bytes copied since the shim began, for the dump.
    pub copied: u64,
}

/// Chunks of one stream that a worker writes to a file before it comes back.
const WORKER_ROUNDS: usize = 4096;
/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;
/// Chunks of one stream before others have their turn.
const ROUNDS: usize = 16;

impl Streams {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Begins to copy. The stream is pumped as soon as its source has something.
    pub fn add(&mut self, poll: &mut Poll, plan: Plan) -> u32 {
        let number = poll.number();
        let mut stream = Stream {
            owner: plan.owner,
            role: plan.role,
            source: plan.source,
            sink: plan.sink,
            full_terminal: None,
            held: plan.held,
            regular_sink: plan.regular_sink,
            spliced: plan.pipes,
            pending: Vec::new(),
            watched: None,
            ends_when_dry: false,
        };
        stream.watch(poll, number, Side::Source);
        self.streams.insert(number, stream);
        number
    }

    /// Copies what can be copied now.
    pub fn pump(&mut self, poll: &Poll, number: u32) -> Pumped {
        let Some(stream) = self.streams.get_mut(&number) else { return Pumped::Open };
        if stream.regular_sink {
            return self.end(poll, number).map_or(Pumped::Open, Pumped::ForWorker);
        }
        match stream.pump(&mut self.copied) {
            None => self.end(poll, number).map_or(Pumped::Open, Pumped::Ended),
            Some(side) => {
                stream.watch(poll, number, side);
                Pumped::Open
            }
        }
    }

    /// A worker brings a stream back.
    pub fn bring_back(&mut self, poll: &Poll, number: u32, mut stream: Stream, copied: u64) {
        self.copied += copied;
        stream.watch(poll, number, Side::Source);
        self.streams.insert(number, stream);
    }

    /// An empty source is this stream's end from now on.
    pub fn end_when_dry(&mut self, poll: &Poll, number: u32) -> Pumped {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.ends_when_dry = true;
        }
        self.pump(poll, number)
    }

    /// Stops copying at once.
    pub fn end(&mut self, poll: &Poll, number: u32) -> Option<Stream> {
        let mut stream = self.streams.remove(&number)?;
        stream.unwatch(poll);
        Some(stream)
    }
}

impl Stream {
    /// What is left of a stream that has ended: a fifo with output in it that nobody reads yet.
    pub fn into_unread(self) -> Option<Unread> {
        let End::Own(sink) = self.sink else { return None };
        Unread { sink, _held: self.held? }.if_unread()
    }

    /// Copies for a while; the side that has to be waited for, unless the stream is over.
    fn pump(&mut self, copied: &mut u64) -> Option<Side> {
        for _ in 0..ROUNDS {
            match self.step(copied) {
                Step::Moved => {}
                Step::Blocked(Side::Source) if self.ends_when_dry => return None,
                Step::Blocked(side) => return Some(side),
                Step::Ended => return None,
            }
        }
        Some(Side::Source)
    }

    /// The same in a worker, until the source is empty: how much was copied, and whether the stream is over.
    pub fn pump_to_file(&mut self) -> (u64, bool) {
        let mut copied = 0;
        for _ in 0..WORKER_ROUNDS {
            match self.step(&mut copied) {
                Step::Moved => {}
                Step::Blocked(_) => return (copied, self.ends_when_dry),
                Step::Ended => return (copied, true),
            }
        }
        (copied, false)
    }

    fn watch(&mut self, poll: &Poll, number: u32, side: Side) {
        if self.watched == Some(side) {
            return;
        }
        self.unwatch(poll);
        let result = match side {
            Side::Source => poll.add(&self.source, Source::Stream(number), EpollFlags::EPOLLIN),
            Side::Sink => self.watch_sink(poll, Source::Stream(number)),
        };
        match result {
            Ok(()) => self.watched = Some(side),
            Err(errno) => crate::error!("watching a stream of {}: {errno}", self.owner.id),
        }
    }

    fn watch_sink(&mut self, poll: &Poll, source: Source) -> nix::Result<()> {
        match &self.sink {
            End::Own(sink) => poll.add(sink, source, EpollFlags::EPOLLOUT),
            End::Terminal(sink) => {
                let sink =
                    sink.try_clone().map_err(|error| Errno::try_from(error).unwrap_or(Errno::EMFILE))?;
                poll.add(&sink, source, EpollFlags::EPOLLOUT)?;
                self.full_terminal = Some(sink);
                Ok(())
            }
        }
    }

    fn unwatch(&mut self, poll: &Poll) {
        match (self.watched.take(), self.full_terminal.take()) {
            (Some(Side::Source), _) => poll.remove(&self.source),
            (Some(Side::Sink), Some(terminal)) => poll.remove(&terminal),
            (Some(Side::Sink), None) => poll.remove(&self.sink),
            (None, _) => {}
        }
    }

    fn step(&mut self, copied: &mut u64) -> Step {
        if self.spliced { self.splice(copied) } else { self.copy(copied) }
    }

    fn splice(&mut self, copied: &mut u64) -> Step {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(&self.source, None, &self.sink, None, CHUNK, flags) {
            Ok(0) => Step::Ended,
            Ok(n) => {
                *copied += n as u64;
                Step::Moved
            }
            // Either side may be meant.
            Err(Errno::EAGAIN) => {
                Step::Blocked(if self.source_is_ready() { Side::Sink } else { Side::Source })
            }
            Err(Errno::EINTR) => Step::Moved,
            Err(Errno::EINVAL) => {
                self.spliced = false;
                Step::Moved
            }
            Err(_) => Step::Ended,
        }
    }

    fn source_is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.source.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    fn copy(&mut self, copied: &mut u64) -> Step {
        if !self.pending.is_empty() {
            return self.write_pending(copied);
        }
        let mut buffer = [0; 8192];
        match read(&self.source, &mut buffer) {
            Ok(0) => Step::Ended,
            Ok(n) => {
                self.pending.extend_from_slice(&buffer[..n]);
                self.write_pending(copied)
            }
            Err(Errno::EAGAIN) => Step::Blocked(Side::Source),
            Err(Errno::EINTR) => Step::Moved,
            // EIO: the terminal's last user has gone.
            Err(_) => Step::Ended,
        }
    }

    fn write_pending(&mut self, copied: &mut u64) -> Step {
        match write(&self.sink, &self.pending) {
            Ok(n) => {
                *copied += n as u64;
                self.pending.drain(..n);
                if self.pending.is_empty() {
                    self.pending = Vec::new();
                }
                Step::Moved
            }
            Err(Errno::EAGAIN) => Step::Blocked(Side::Sink),
            Err(Errno::EINTR) => Step::Moved,
            // A full disk loses output, but must not stop a container.
            Err(Errno::ENOSPC | Errno::EDQUOT) if self.regular_sink => {
                self.pending = Vec::new();
                Step::Moved
            }
            Err(_) => Step::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap()
    }

    fn plan(source: OwnedFd, sink: OwnedFd, pipes: bool) -> Plan {
        let owner = Key { id: "web".into(), exec: String::new() };
        let (source, sink) = (End::Own(source), End::Own(sink));
        Plan { owner, role: Role::Output, source, sink, held: None, pipes, regular_sink: false }
    }

    /// Pumps whatever epoll says until nothing happens; whether the stream ended.
    fn settle(streams: &mut Streams, poll: &Poll) -> bool {
        loop {
            let events = poll.wait(Some(0));
            if events.is_empty() {
                return false;
            }
            for (source, _) in events {
                let Source::Stream(number) = source else { panic!("{source:?}") };
                if matches!(streams.pump(poll, number), Pumped::Ended(_)) {
                    return true;
                }
            }
        }
    }

    #[test]
    fn a_full_sink_holds_the_stream_up_and_loses_nothing() {
        for spliced in [true, false] {
            let (source, writer) = pipe();
            let (reader, sink) = pipe();
            let (mut poll, mut streams) = (Poll::new().unwrap(), Streams::default());
            streams.add(&mut poll, plan(source, sink, spliced));
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let mut ended = false;
            for round in 0..400usize {
                let bytes = vec![round as u8; 3000];
                if let Ok(n) = write(&writer, &bytes) {
                    sent.extend_from_slice(&bytes[..n]);
                }
                ended |= settle(&mut streams, &poll);
                if round % 7 == 0 {
                    let mut buffer = [0; 9000];
                    let n = read(&reader, &mut buffer).unwrap_or(0);
                    got.extend_from_slice(&buffer[..n]);
                }
            }
            drop(writer);
            let mut buffer = [0; 9000];
            while got.len() < sent.len() {
                ended |= settle(&mut streams, &poll);
                let n = read(&reader, &mut buffer).unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            ended |= settle(&mut streams, &poll);
            assert!(ended, "the end of the source ends the stream");
            assert!(sent == got, "spliced: {spliced}");
            assert_eq!(streams.copied, sent.len() as u64);
        }
    }

    #[test]
    fn a_full_terminal_is_waited_for_and_read_from_meanwhile() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        // as a terminal: one descriptor for both ways
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let terminal = Arc::new(ours);
        let (source, writer) = pipe();
        let (reader, sink) = pipe();
        let (mut poll, mut streams) = (Poll::new().unwrap(), Streams::default());
        let both = |source, sink| Plan { source, sink, ..plan(pipe().0, pipe().1, false) };
        streams.add(&mut poll, both(End::Terminal(terminal.clone()), End::Own(sink)));
        streams.add(&mut poll, both(End::Own(source), End::Terminal(terminal.clone())));
        let mut sent = 0;
        // until the terminal takes no more, and then the pipe
        while let Ok(n) = write(&writer, &[b'i'; 4096]) {
            sent += n;
            settle(&mut streams, &poll);
        }
        assert!(streams.copied > 0 && sent as u64 > streams.copied, "{sent} of {}", streams.copied);
        write(&theirs, b"output").unwrap();
        settle(&mut streams, &poll);
        let mut buffer = [0; 4096];
        assert_eq!(read(&reader, &mut buffer), Ok(6), "input that waits holds no output up");
        let mut got = 0;
        while got < sent {
            got += read(&theirs, &mut buffer).expect("input goes on when there is room");
            settle(&mut streams, &poll);
        }
        drop(writer);
        assert!(settle(&mut streams, &poll), "the end of the source ends the stream");
        assert_eq!(Arc::strong_count(&terminal), 2, "ours and the output's");
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_kept_until_somebody_does() {
        let path = std::env::temp_dir().join(format!("shim-unread-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let open = |flags| {
            nix::fcntl::open(&path, flags | OFlag::O_NONBLOCK, nix::sys::stat::Mode::empty()).unwrap()
        };
        let held = open(OFlag::O_RDONLY);
        let sink = open(OFlag::O_WRONLY);
        write(&sink, b"kept").unwrap();
        let unread = Unread { sink, _held: held }.if_unread().expect("nobody reads");
        let reader = open(OFlag::O_RDONLY);
        assert!(unread.if_unread().is_none(), "somebody reads");
        let mut buffer = [0; 64];
        assert_eq!(read(&reader, &mut buffer), Ok(4));
        assert_eq!(read(&reader, &mut buffer), Ok(0), "and then its end");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_dry_source_ends_a_stream_whose_process_is_gone() {
        let (source, writer) = pipe();
        let (reader, sink) = pipe();
        let (mut poll, mut streams) = (Poll::new().unwrap(), Streams::default());
        let number = streams.add(&mut poll, plan(source, sink, false));
        write(&writer, b"last words").unwrap();
        assert!(matches!(streams.end_when_dry(&poll, number), Pumped::Ended(_)));
        let mut buffer = [0; 64];
        assert_eq!(read(&reader, &mut buffer), Ok(10));
    }
}
