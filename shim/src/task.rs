//! Containers and their processes, as the event loop knows them.

use crate::{
    cgroup::Cgroup,
    oom,
    runtime::{Engine, Restore, Stdio},
    server::Call,
    shim::{Shim, Timer},
    stdio::{Ends, Paths},
    streams::{Key, Unread},
};
use cofferdam_proto::task::Status as WireStatus;
use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, but its program does not run yet; an exec is only registered.
    Created,
    /// To be restored from a checkpoint, by its start.
    Checkpointed,
    /// Running.
    Running,
    /// Being frozen.
    Pausing,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl State {
    /// As containerd is told.
    pub fn on_wire(self) -> WireStatus {
        match self {
            State::Created | State::Checkpointed => WireStatus::CREATED,
            State::Running => WireStatus::RUNNING,
            State::Pausing => WireStatus::PAUSING,
            State::Paused => WireStatus::PAUSED,
            State::Stopped => WireStatus::STOPPED,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 and a signal.
    pub status: u32,
    /// When; none for an exec that could not be started.
    pub at: Option<SystemTime>,
}

/// Something to do when a process's turn has come. Each ends by [`Shim::done`].
pub type Turn = Box<dyn FnOnce(&mut Shim) + Send>;

/// Streams of a process under way.
#[derive(Default)]
pub struct Io {
    /// Numbers of its output streams that have not ended.
    pub outputs: Vec<u32>,
    /// Number of its input stream.
    pub input: Option<u32>,
    /// The fifo's writing end that CloseIO closes.
    pub held_input: Option<OwnedFd>,
    /// The terminal, which its streams have, too.
    pub console: Option<Arc<OwnedFd>>,
    /// Output that has ended and that nobody has read yet.
    pub unread: Vec<Unread>,
    /// The logger's pipes, which it reads to their end.
    pub logger_pipes: Vec<OwnedFd>,
    /// Number of the logger's process.
    pub logger: Option<u32>,
}

/// A container's init, or an exec.
pub struct Process {
    /// Where it is in its life.
    pub state: State,
    /// What the call said about its streams.
    pub paths: Paths,
    /// 0 until it is made.
    pub pid: i32,
    /// While it lives.
    pub pidfd: Option<OwnedFd>,
    /// Under which number its end is watched for.
    pub number: Option<u32>,
    /// Once it has ended and that is announced.
    pub exit: Option<Exit>,
    /// Calls that wait for its end.
    pub waiters: Vec<Call>,
    /// Its streams.
    pub io: Io,
    /// What waits for the end of its output, and until when.
    pub drained: Option<(Turn, Timer)>,
    /// runtime-spec's process, of an exec.
    pub spec: Vec<u8>,
    /// Calls that wait for their turn, in the order in which they came.
    pub turns: VecDeque<Turn>,
    /// Whether one has its turn.
    pub is_busy: bool,
}

impl Process {
    /// One that is not made yet.
    pub fn new(state: State, paths: Paths) -> Process {
        Process {
            state,
            paths,
            pid: 0,
            pidfd: None,
            number: None,
            exit: None,
            waiters: Vec::new(),
            io: Io::default(),
            drained: None,
            spec: Vec::new(),
            turns: VecDeque::new(),
            is_busy: false,
        }
    }
}

/// How a container's OOM is noticed.
pub enum OomWatch {
    /// cgroup v1; under this number in the poll.
    Notice(u32, oom::Notice),
    /// cgroup v2.
    Watched(oom::Watched),
}

/// A container.
pub struct Container {
    /// Its bundle.
    pub bundle: PathBuf,
    /// Who carries it.
    pub engine: Arc<dyn Engine>,
    /// Its first process.
    pub init: Process,
    /// The others that containerd asked for.
    pub execs: HashMap<String, Process>,
    /// Execs that run or are being started.
    pub running_execs: usize,
    /// Init has ended, but its end is not announced: execs come first.
    pub init_exit: Option<Exit>,
    /// Whether its other processes end with init.
    pub owns_pids: bool,
    /// Its cgroup.
    pub cgroup: Option<Arc<Cgroup>>,
    /// How its OOM is noticed.
    pub oom: Option<OomWatch>,
    /// What Start restores.
    pub restore: Option<(Restore, Stdio)>,
    /// The shim's side of the streams of what Start restores.
    pub kept_ends: Option<Ends>,
    /// Owner and group of its processes' pipes.
    pub io_owner: (u32, u32),
    /// What waits for init's end to be announced.
    pub after_exit: Option<Turn>,
}

impl Container {
    /// A process by its exec id, or init.
    pub fn process(&self, exec: &str) -> Option<&Process> {
        if exec.is_empty() { Some(&self.init) } else { self.execs.get(exec) }
    }

    /// The same, to be changed.
    pub fn process_mut(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec) }
    }
}

/// The key of a container's init.
pub fn init_key(id: &str) -> Key {
    Key { id: id.into(), exec: String::new() }
}
