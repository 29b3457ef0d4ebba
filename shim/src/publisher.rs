//! Events, on their way to containerd: one queue, in order, forwarded one by one over ttrpc.
//!
//! An event leaves the queue when containerd has answered. While containerd is away they stay, however long that is; after it is
//! back, only the one whose answer was lost can come twice. The queue is bounded by bytes. When it is full, what nobody needs to
//! find out how things stand goes first (starts, pauses, execs added, and OOM notices of a container that has one waiting);
//! exits, deletes and one OOM a container always stay.

use crate::{
    frame::{self, Decoder, Frame},
    poll::{Poll, Source},
};
use cofferdam_proto::{Any, Message, Timestamp, events, ttrpc};
use nix::sys::{
    epoll::EpollFlags,
    socket::{self, AddressFamily, SockFlag, SockType, UnixAddr},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of waiting events beyond which some are given up.
const QUEUE_MAX: usize = 1 << 20;
/// How long containerd may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Stream id of the first call of a connection.
const FIRST_STREAM: u32 = 3;
/// Attempts at an event that containerd itself refuses.
const REFUSALS_MAX: u32 = 5;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A container was made.
    Create,
    /// Its program runs.
    Start,
    /// A process has ended.
    Exit,
    /// A container is gone.
    Delete,
    /// The kernel killed for want of memory.
    Oom,
    /// An exec was registered.
    ExecAdded,
    /// An exec runs.
    ExecStarted,
    /// A container is frozen.
    Paused,
    /// A container is thawed.
    Resumed,
    /// A checkpoint was written.
    Checkpointed,
}

impl Topic {
    /// The topic, and the message's name.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Topic::Create => ("/tasks/create", "containerd.events.TaskCreate"),
            Topic::Start => ("/tasks/start", "containerd.events.TaskStart"),
            Topic::Exit => ("/tasks/exit", "containerd.events.TaskExit"),
            Topic::Delete => ("/tasks/delete", "containerd.events.TaskDelete"),
            Topic::Oom => ("/tasks/oom", "containerd.events.TaskOOM"),
            Topic::ExecAdded => ("/tasks/exec-added", "containerd.events.TaskExecAdded"),
            Topic::ExecStarted => ("/tasks/exec-started", "containerd.events.TaskExecStarted"),
            Topic::Paused => ("/tasks/paused", "containerd.events.TaskPaused"),
            Topic::Resumed => ("/tasks/resumed", "containerd.events.TaskResumed"),
            Topic::Checkpointed => ("/tasks/checkpointed", "containerd.events.TaskCheckpointed"),
        }
    }

    fn is_essential(self) -> bool {
        matches!(self, Topic::Exit | Topic::Delete | Topic::Oom)
    }
}

struct Waiting {
    topic: Topic,
    container: String,
    /// The payload of a ForwardRequest.
    message: Vec<u8>,
}

impl Waiting {
    fn size(&self) -> usize {
        self.message.len() + self.container.len() + size_of::<Waiting>()
    }
}

struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    /// Of the current frame, not written yet.
    output: Vec<u8>,
    stream: u32,
}

/// The queue and the connection that it goes through.
pub struct Publisher {
    address: String,
    namespace: String,
    queue: VecDeque<Waiting>,
    bytes: usize,
    connection: Option<Connection>,
    /// Until when an answer to the first of the queue must have come.
    answer_by: Option<Instant>,
    /// Before which there is no further attempt.
    not_before: Option<Instant>,
    pause: Duration,
    refusals: u32,
    given_up: u64,
    /// What was given up for want of room, by topic.
    spared: BTreeMap<&'static str, u64>,
}

impl Publisher {
    /// For a containerd whose ttrpc socket is at `address` (`unix://` before it or not).
    pub fn new(address: &str, namespace: &str) -> Publisher {
        Publisher {
            address: address.trim_start_matches("unix://").into(),
            namespace: namespace.into(),
            queue: VecDeque::new(),
            bytes: 0,
            connection: None,
            answer_by: None,
            not_before: None,
            pause: Duration::ZERO,
            refusals: 0,
            given_up: 0,
            spared: BTreeMap::new(),
        }
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Events and bytes waiting, and how many were given up.
    pub fn waiting(&self) -> (usize, usize, u64) {
        (self.queue.len(), self.bytes, self.given_up)
    }

    /// Queues an event, stamped with the time.
    pub fn publish(&mut self, poll: &Poll, topic: Topic, container: &str, event: &impl Message) {
        let (name, type_url) = topic.names();
        let event = Any { type_url: type_url.into(), value: encode(event), ..Default::default() };
        let envelope = events::Envelope {
            timestamp: Some(timestamp(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: name.into(),
            event: Some(event).into(),
            ..Default::default()
        };
        let message =
            encode(&events::ForwardRequest { envelope: Some(envelope).into(), ..Default::default() });
        let waiting = Waiting { topic, container: container.into(), message };
        if let Some(told) = self.queue(waiting) {
            crate::warn!("{told}");
        }
        self.go_on(poll, Instant::now());
    }

    /// Puts an event at the end of the queue; what the log is told when others had to give way.
    fn queue(&mut self, waiting: Waiting) -> Option<String> {
        self.bytes += waiting.size();
        self.queue.push_back(waiting);
        if self.bytes > QUEUE_MAX { self.make_room() } else { None }
    }

    /// Gives up the oldest events that can be spared, but never the one that is on its way.
    fn make_room(&mut self) -> Option<String> {
        let first = usize::from(self.answer_by.is_some());
        let mut spared: Vec<&'static str> = Vec::new();
        let mut at = first;
        while self.bytes > QUEUE_MAX && at < self.queue.len() {
            let waiting = &self.queue[at];
            let repeated = waiting.topic == Topic::Oom
                && self
                    .queue
                    .iter()
                    .take(at)
                    .any(|other| other.topic == Topic::Oom && other.container == waiting.container);
            if waiting.topic.is_essential() && !repeated {
                at += 1;
                continue;
            }
            if let Some(waiting) = self.queue.remove(at) {
                self.bytes -= waiting.size();
                spared.push(waiting.topic.names().0);
            }
        }
        let before = self.given_up;
        for topic in spared {
            *self.spared.entry(topic).or_default() += 1;
            self.given_up += 1;
        }
        // Told when it begins, and each time that there are twice as many.
        let told = self.given_up.checked_ilog2() > before.checked_ilog2();
        told.then(|| format!("event queue is full, gave up so far: {:?}", self.spared))
    }

    /// When something is to be done although nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        if self.queue.is_empty() { None } else { self.answer_by.or(self.not_before) }
    }

    /// containerd gave a sign of life: no reason to wait with the next attempt.
    pub fn hurry(&mut self, poll: &Poll) {
        self.not_before = None;
        self.go_on(poll, Instant::now());
    }

    /// Sends the first of the queue if it is its time.
    pub fn go_on(&mut self, poll: &Poll, now: Instant) {
        if self.answer_by.is_some_and(|limit| limit <= now) {
            crate::warn!("containerd did not answer an event in {ANSWER_TIMEOUT:?}, connecting again");
            self.lose(poll, now);
        }
        if self.queue.is_empty()
            || self.answer_by.is_some()
            || self.not_before.is_some_and(|moment| moment > now)
        {
            return;
        }
        if self.connection.is_none() && !self.connect(poll) {
            self.lose(poll, now);
            return;
        }
        let (Some(connection), Some(first)) = (&mut self.connection, self.queue.front()) else { return };
        let request = ttrpc::Request {
            service: "containerd.services.events.ttrpc.v1.Events".into(),
            method: "Forward".into(),
            payload: first.message.clone(),
            timeout_nano: ANSWER_TIMEOUT.as_nanos() as i64,
            metadata: vec![ttrpc::KeyValue {
                key: "containerd-namespace-ttrpc".into(),
                value: self.namespace.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        connection.stream += 2;
        connection.output = frame::encode(connection.stream, frame::REQUEST, &encode(&request));
        self.answer_by = Some(now + ANSWER_TIMEOUT);
        self.flush(poll, now);
    }

    fn connect(&mut self, poll: &Poll) -> bool {
        if self.address.is_empty() {
            return false;
        }
        let Ok(socket) = connect(&self.address) else { return false };
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let watched = poll.add(&socket, Source::Publisher, flags).is_ok();
        if watched {
            // Stream ids of a client are odd, and grow.
            self.connection = Some(Connection {
                socket,
                decoder: Decoder::default(),
                output: Vec::new(),
                stream: FIRST_STREAM - 2,
            });
        }
        watched
    }

    /// The connection is gone, or was never there: the next attempt comes after a pause.
    fn lose(&mut self, poll: &Poll, now: Instant) {
        if let Some(connection) = self.connection.take() {
            poll.remove(&connection.socket);
        }
        self.answer_by = None;
        self.pause = (self.pause * 2).clamp(Duration::from_millis(20), PAUSE_MAX);
        self.not_before = Some(now + self.pause);
    }

    fn flush(&mut self, poll: &Poll, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        while !connection.output.is_empty() {
            match connection.socket.write(&connection.output) {
                Ok(n) => drop(connection.output.drain(..n)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lose(poll, now);
                    return;
                }
            }
        }
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        if !connection.output.is_empty() {
            flags |= EpollFlags::EPOLLOUT;
        }
        let _ = poll.modify(&connection.socket, Source::Publisher, flags);
    }

    /// The connection can be read or written.
    pub fn ready(&mut self, poll: &Poll) {
        let now = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let Some(connection) = &mut self.connection else { return };
            match connection.socket.read(&mut buffer) {
                Ok(0) => {
                    self.lose(poll, now);
                    // containerd hangs up on an idle connection when it restarts; there is nothing to be late for.
                    self.go_on(poll, now);
                    return;
                }
                Ok(n) => {
                    let mut answers = Vec::new();
                    connection.decoder.take(&buffer[..n], |frame| answers.push(frame));
                    for answer in answers {
                        self.answered(answer, now);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lose(poll, now);
                    return;
                }
            }
        }
        self.flush(poll, now);
        self.go_on(poll, now);
    }

    fn answered(&mut self, answer: Frame, now: Instant) {
        let Frame::Whole(header, payload) = answer else { return };
        let current = self.connection.as_ref().is_some_and(|connection| connection.stream == header.stream);
        if header.kind != frame::RESPONSE || !current || self.answer_by.is_none() {
            return;
        }
        self.answer_by = None;
        let status =
            ttrpc::Response::parse_from_bytes(&payload).map(|response| response.status.unwrap_or_default());
        let refusal = match status {
            Ok(status) if status.code == 0 => None,
            Ok(status) => Some(status.message),
            Err(error) => Some(error.to_string()),
        };
        match refusal {
            None => self.forget_first(),
            Some(message) => {
                self.refusals += 1;
                if self.refusals >= REFUSALS_MAX {
                    if let Some(first) = self.queue.front() {
                        let topic = first.topic.names().0;
                        crate::error!("containerd refuses {topic} of {}: {message}", first.container);
                    }
                    self.given_up += 1;
                    self.forget_first();
                } else {
                    self.pause = (self.pause * 2).clamp(Duration::from_millis(100), PAUSE_MAX);
                    self.not_before = Some(now + self.pause);
                }
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.bytes -= first.size();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        (self.pause, self.not_before, self.refusals) = (Duration::ZERO, None, 0);
    }
}

/// Connects without waiting. A containerd that stands still accepts nobody, while every shim on the machine tries again and again: one
/// that came when the backlog was full (EAGAIN) would wait in connect(2) until it goes on, and its containers' output with it.
fn connect(address: &str) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(address)?)?;
    Ok(socket.into())
}

/// Messages of ours are always complete, so this cannot fail.
fn encode(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().unwrap_or_default()
}

/// A time as protobuf has it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(publisher: &mut Publisher, poll: &Poll, id: &str) {
        let event = events::TaskExit { container_id: id.into(), ..Default::default() };
        publisher.publish(poll, Topic::Exit, id, &event);
    }

    fn topics(publisher: &Publisher) -> Vec<(Topic, &str)> {
        publisher.queue.iter().map(|waiting| (waiting.topic, waiting.container.as_str())).collect()
    }

    #[test]
    fn a_full_queue_keeps_exits_and_one_oom_a_container() {
        let poll = Poll::new().unwrap();
        let mut publisher = Publisher::new("/nonexistent/containerd.sock", "ns");
        let oom = |id: &str| events::TaskOOM { container_id: id.into(), ..Default::default() };
        publisher.publish(&poll, Topic::Oom, "a", &oom("a"));
        let paused = events::TaskPaused { container_id: "x".repeat(1000), ..Default::default() };
        exit(&mut publisher, &poll, "first");
        for _ in 0..1500 {
            publisher.publish(&poll, Topic::Paused, "p", &paused);
            publisher.publish(&poll, Topic::Oom, "a", &oom("a"));
        }
        publisher.publish(&poll, Topic::Oom, "b", &oom("b"));
        exit(&mut publisher, &poll, "last");
        let before = publisher.waiting();
        assert!(before.1 <= QUEUE_MAX && before.2 > 0, "{before:?}");
        for _ in 0..2000 {
            let big = events::TaskExit { container_id: "y".repeat(1000), ..Default::default() };
            publisher.publish(&poll, Topic::Exit, "big", &big);
        }
        let kept = topics(&publisher);
        assert_eq!(
            &kept[..4],
            [(Topic::Oom, "a"), (Topic::Exit, "first"), (Topic::Oom, "b"), (Topic::Exit, "last")]
        );
        assert_eq!(kept.len(), 4 + 2000, "every exit is kept, even beyond the bound");
        let spared = publisher.spared.clone();
        assert_eq!(spared.values().sum::<u64>(), publisher.waiting().2);
        assert!(spared["/tasks/paused"] == 1500 && spared["/tasks/oom"] > 0, "{spared:?}");
    }

    #[test]
    fn a_containerd_that_accepts_nobody_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("shim-backlog-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        let _fills_it = UnixStream::connect(&path).unwrap();
        let poll = Poll::new().unwrap();
        let mut publisher = Publisher::new(path.to_str().unwrap(), "ns");
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            exit(&mut publisher, &poll, "web");
            tell.send(()).unwrap();
            publisher
        });
        told.recv_timeout(Duration::from_secs(10)).expect("it does not wait in connect");
        let publisher = thread.join().unwrap();
        assert_eq!(topics(&publisher), [(Topic::Exit, "web")]);
        assert!(publisher.connection.is_none() && publisher.deadline().is_some(), "it tries again");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_given_up_is_told_when_it_begins_and_at_every_doubling() {
        let mut publisher = Publisher::new("/nonexistent/containerd.sock", "ns");
        let big = || Waiting { topic: Topic::Paused, container: "p".into(), message: vec![0; QUEUE_MAX / 4] };
        let told: Vec<String> = (0..8).filter_map(|_| publisher.queue(big())).collect();
        let so_far =
            |count: u64| format!("event queue is full, gave up so far: {{\"/tasks/paused\": {count}}}");
        assert_eq!(told, [so_far(1), so_far(2), so_far(4)]);
    }
}
