//! The daemon: one thread with one epoll, in which everything is decided, and a thread for each job that blocks.

use crate::{
    flags::Flags,
    jobs::Jobs,
    oom,
    poll::{Poll, Source},
    publisher::{Publisher, Topic},
    server::{Call, Server},
    status::Status,
    streams::{Key, Pumped, Role, Stream, Streams, Unread},
    task::{Container, Exit, OomWatch, Process, State, Turn, init_key},
};
use cofferdam_proto::{Message, events};
use cofferdam_sys::{
    children::{self, Ended, Swept},
    shim as memory,
};
use nix::sys::{
    epoll::EpollFlags,
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

/// How long events and answers may take to leave when the shim ends.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// How often output that has ended is looked at whether somebody reads it.
const READER_PAUSE: Duration = Duration::from_millis(100);
/// How long connections wait when there is no descriptor for them, or no memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How soon children are looked at again when one was just being spawned.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// How long after the last job freed memory goes back to the kernel, with the program's own pages, of which waiting needs few.
const TRIM_AFTER: Duration = Duration::from_millis(500);

/// Whose end a pidfd announces.
enum Child {
    Process(Key),
    Logger { pid: i32, pidfd: OwnedFd, then: Option<Turn> },
}

/// Something to be done at a time, and a number that tells it from others of that time.
pub type Timer = (Instant, u32);

/// Everything.
pub struct Shim {
    /// containerd's namespace.
    pub namespace: String,
    /// The epoll.
    pub poll: Poll,
    /// Blocking work.
    pub jobs: Jobs,
    /// Containers by id.
    pub containers: HashMap<String, Container>,
    /// Ids that Create is busy with.
    pub creating: HashSet<String>,
    /// Standard streams.
    pub streams: Streams,
    server: Server,
    publisher: Publisher,
    signals: SignalFd,
    children: HashMap<u32, Child>,
    oom_files: oom::Files,
    timers: BTreeMap<Timer, Turn>,
    sweep_again: Option<Timer>,
    trim_at: Option<Instant>,
    text: Option<memory::Text>,
    socket: Option<PathBuf>,
    listener_copy: OwnedFd,
    /// Set once the shim is to end, to the moment when it does so at the latest.
    ending: Option<Instant>,
}

impl Shim {
    /// Sets up the daemon around its listener.
    ///
    /// # Errors
    /// Of the calls that this takes; there is no shim without any of them.
    pub fn new(flags: &Flags, listener: UnixListener, socket: Option<PathBuf>) -> std::io::Result<Shim> {
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGUSR1,
            Signal::SIGHUP,
            Signal::SIGPIPE,
        ] {
            mask.add(signal);
        }
        // Threads inherit the mask, so these come by the signalfd alone.
        mask.thread_block()?;
        let poll = Poll::new()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        poll.add(&signals, Source::Signals, EpollFlags::EPOLLIN)?;
        let jobs = Jobs::new()?;
        poll.add(jobs.fd(), Source::Jobs, EpollFlags::EPOLLIN)?;
        let listener_copy = listener.as_fd().try_clone_to_owned()?;
        let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
        Ok(Shim {
            namespace: flags.namespace.clone(),
            server: Server::new(listener, &poll)?,
            publisher: Publisher::new(&address, &flags.namespace),
            poll,
            jobs,
            containers: HashMap::new(),
            creating: HashSet::new(),
            streams: Streams::default(),
            signals,
            children: HashMap::new(),
            oom_files: oom::Files::new(),
            timers: BTreeMap::new(),
            sweep_again: None,
            // Being started takes memory, too.
            trim_at: Some(Instant::now() + TRIM_AFTER),
            text: None,
            socket,
            listener_copy,
            ending: None,
        })
    }

    /// Serves until there is nothing to serve any more.
    pub fn run(mut self) {
        loop {
            let events = self.poll.wait(self.next_deadline());
            for (source, flags) in events {
                self.handle(source, flags);
            }
            let now = Instant::now();
            self.publisher.go_on(&self.poll, now);
            self.run_timers(now);
            if self.trim_at.is_some_and(|moment| moment <= now) {
                self.trim_at = None;
                self.text.get_or_insert_with(memory::Text::find).forget();
                memory::trim_allocator();
            }
            if let Some(limit) = self.ending
                && (limit <= now
                    || self.publisher.is_idle() && self.server.is_flushed() && self.jobs.running() == 0)
            {
                if !self.publisher.is_idle() {
                    crate::warn!(
                        "ending with {} events that containerd did not take",
                        self.publisher.waiting().0
                    );
                }
                return;
            }
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let timer = self.timers.first_key_value().map(|((moment, _), _)| *moment);
        let next =
            [timer, self.publisher.deadline(), self.trim_at, self.ending].into_iter().flatten().min()?;
        // One more, for a deadline must have passed when we look.
        Some(next.saturating_duration_since(Instant::now()).as_millis() as u64 + 1)
    }

    fn handle(&mut self, source: Source, flags: EpollFlags) {
        match source {
            Source::Listener => {
                let accepted = self.server.accept(&mut self.poll);
                if accepted.any {
                    self.publisher.hurry(&self.poll);
                }
                if accepted.starved {
                    self.after(ACCEPT_PAUSE, |shim| shim.server.listen_again(&shim.poll));
                }
            }
            Source::Connection(number) => {
                let (requests, gone) = self.server.ready(&self.poll, number, flags);
                for request in requests {
                    self.dispatch(request.call, &request.request);
                }
                if gone {
                    self.forget_waiters(number);
                }
            }
            Source::Signals => self.take_signals(),
            Source::Jobs => {
                for then in self.jobs.done() {
                    then(self);
                }
                if self.jobs.running() == 0 {
                    self.trim_at = Some(Instant::now() + TRIM_AFTER);
                }
            }
            Source::Publisher => self.publisher.ready(&self.poll),
            Source::Process(number) => self.child_ended(number),
            Source::Stream(number) => {
                let pumped = self.streams.pump(&self.poll, number);
                self.stream_pumped(number, pumped);
            }
            Source::Oom(number) => self.oom_noticed(number),
            Source::OomFiles => {
                self.oom_files.drain();
                let ids: Vec<String> = self.containers.keys().cloned().collect();
                ids.iter().for_each(|id| self.check_oom(id));
            }
        }
    }

    // --- timers

    /// Does `turn` after `delay`, unless it is cancelled.
    pub fn after(&mut self, delay: Duration, turn: impl FnOnce(&mut Shim) + Send + 'static) -> Timer {
        let timer = (Instant::now() + delay, self.poll.number());
        self.timers.insert(timer, Box::new(turn));
        timer
    }

    /// There is no need for it any more.
    pub fn cancel(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            entry.remove()(self);
        }
    }

    // --- answers and events

    /// Answers a call.
    pub fn answer(&mut self, call: Call, result: Result<impl Message, Status>) {
        let result = result.and_then(|message| {
            message.write_to_bytes().map_err(|error| Status::internal(error.to_string()))
        });
        if let Err(status) = &result {
            crate::debug!("answers with code {}: {}", status.code, status.message);
        }
        self.server.answer(&self.poll, call, result);
    }

    /// Queues an event.
    pub fn publish(&mut self, topic: Topic, container: &str, event: &impl Message) {
        self.publisher.publish(&self.poll, topic, container, event);
    }

    fn forget_waiters(&mut self, connection: u32) {
        for container in self.containers.values_mut() {
            container.init.waiters.retain(|call| call.connection != connection);
            for exec in container.execs.values_mut() {
                exec.waiters.retain(|call| call.connection != connection);
            }
        }
    }

    // --- turns: one call at a time for each process, in the order in which they came

    /// A process.
    pub fn process(&mut self, key: &Key) -> Option<&mut Process> {
        self.containers.get_mut(&key.id)?.process_mut(&key.exec)
    }

    /// Gives a call its turn at a process, now or when those before it are done. The call ends by [`Shim::done`].
    pub fn enqueue(&mut self, key: &Key, turn: impl FnOnce(&mut Shim) + Send + 'static) {
        let Some(process) = self.process(key) else {
            // It has gone since the caller looked: the turn finds that out by itself.
            turn(self);
            return;
        };
        if process.is_busy {
            process.turns.push_back(Box::new(turn));
        } else {
            process.is_busy = true;
            turn(self);
        }
    }

    /// The call that had its turn at the process is through: the next, please.
    pub fn done(&mut self, key: &Key) {
        let Some(process) = self.process(key) else { return };
        match process.turns.pop_front() {
            Some(turn) => turn(self),
            None => process.is_busy = false,
        }
    }

    // --- ends of processes

    /// Watches for the end of a process that has its pidfd.
    pub fn watch_process(&mut self, key: &Key) {
        let number = self.poll.number();
        let Some(process) =
            self.containers.get_mut(&key.id).and_then(|container| container.process_mut(&key.exec))
        else {
            return;
        };
        let Some(pidfd) = &process.pidfd else { return };
        if let Err(errno) = self.poll.add(pidfd, Source::Process(number), EpollFlags::EPOLLIN) {
            crate::error!("watching process {} of {}: {errno}", process.pid, key.id);
        }
        process.number = Some(number);
        self.children.insert(number, Child::Process(key.clone()));
    }

    /// Looks away for a while: an end that comes now is noticed when it is watched for again. So the exit of a process that is just
    /// being started follows its start.
    pub fn unwatch_process(&mut self, key: &Key) {
        let Some(process) =
            self.containers.get_mut(&key.id).and_then(|container| container.process_mut(&key.exec))
        else {
            return;
        };
        if let (Some(number), Some(pidfd)) = (process.number.take(), &process.pidfd) {
            self.poll.remove(pidfd);
            self.children.remove(&number);
        }
    }

    /// Watches for the end of a logger.
    pub fn watch_logger(&mut self, pid: i32, pidfd: OwnedFd) -> u32 {
        let number = self.poll.number();
        if let Err(errno) = self.poll.add(&pidfd, Source::Process(number), EpollFlags::EPOLLIN) {
            crate::error!("watching a logger: {errno}");
        }
        self.children.insert(number, Child::Logger { pid, pidfd, then: None });
        number
    }

    /// Does `then` when the logger has ended, which may be now.
    pub fn after_logger(&mut self, number: u32, turn: impl FnOnce(&mut Shim) + Send + 'static) {
        match self.children.get_mut(&number) {
            Some(Child::Logger { then, .. }) => *then = Some(Box::new(turn)),
            _ => turn(self),
        }
    }

    /// Sends a logger a signal, if it still runs.
    pub fn signal_logger(&self, number: u32, signal: i32) {
        if let Some(Child::Logger { pidfd, .. }) = self.children.get(&number) {
            let _ = cofferdam_sys::process::pidfd_send_signal(pidfd, signal);
        }
    }

    fn child_ended(&mut self, number: u32) {
        match self.children.get(&number) {
            None => {}
            Some(Child::Logger { pid, pidfd, .. }) if matches!(children::collect(*pid, pidfd), Ok(None)) => {}
            Some(Child::Logger { pidfd, .. }) => {
                self.poll.remove(pidfd);
                if let Some(Child::Logger { then: Some(then), .. }) = self.children.remove(&number) {
                    then(self);
                }
            }
            Some(Child::Process(key)) => {
                let key = key.clone();
                let Some(process) = self.process(&key) else { return };
                let Some(pidfd) = &process.pidfd else { return };
                let status = match children::collect(process.pid, pidfd) {
                    Ok(None) => return,
                    Ok(Some(ended)) => ended.status,
                    Err(errno) => {
                        // A runtime that kept its process for itself: how it ended cannot be known.
                        crate::error!("the end of a process of {}: {errno}", key.id);
                        255
                    }
                };
                self.unwatch_process(&key);
                self.process_ended(&key, status);
            }
        }
    }

    /// Collects who has ended: owners, who see it by their pidfds, find the status of theirs put down for them, and what a subreaper
    /// inherits is gone, whatever jobs are under way.
    fn sweep_children(&mut self) {
        if let Some(timer) = self.sweep_again.take() {
            self.cancel(timer);
        }
        let stranger = |ended: Ended| {
            crate::debug!("collected stranger {} with status {}", ended.pid, ended.status);
        };
        if children::reap_strangers(stranger) == Swept::Later {
            self.sweep_again = Some(self.after(SWEEP_PAUSE, |shim| {
                shim.sweep_again = None;
                shim.sweep_children();
            }));
        }
    }

    fn process_ended(&mut self, key: &Key, status: u32) {
        let exit = Exit { status, at: Some(SystemTime::now()) };
        if !key.exec.is_empty() {
            self.announce_exit(key, exit);
            self.exec_is_over(&key.id);
            return;
        }
        let Some(container) = self.containers.get_mut(&key.id) else { return };
        container.init_exit = Some(exit);
        if container.owns_pids {
            self.announce_init_exit(&key.id);
            return;
        }
        // Nobody else ends the processes of a container that shares its pid namespace.
        let (engine, bundle, id) = (container.engine.clone(), container.bundle.clone(), key.id.clone());
        self.jobs.run(
            {
                let id = id.clone();
                move || engine.kill(&id, &bundle, libc::SIGKILL as u32, true)
            },
            move |shim, result| {
                if let Err(failure) = result {
                    crate::debug!("killing what init of {id} left behind: {failure}");
                }
                shim.announce_init_exit(&id);
            },
        );
    }

    /// An exec has ended, or could not be started.
    pub fn exec_is_over(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.running_execs -= 1;
        }
        self.announce_init_exit(id);
    }

    /// Announces the end of init if it has ended and no exec is left: it is the last exit of its container.
    fn announce_init_exit(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.running_execs > 0 {
            return;
        }
        let Some(exit) = container.init_exit else { return };
        if container.init.exit.is_some() {
            return;
        }
        let was_paused = matches!(container.init.state, State::Paused | State::Pausing);
        let after = container.after_exit.take();
        self.check_oom(id);
        self.announce_exit(&init_key(id), exit);
        if was_paused {
            self.thaw_after_exit(id);
        }
        if let Some(turn) = after {
            turn(self);
        }
    }

    /// A frozen cgroup keeps what was killed in it: thawed, it can go.
    fn thaw_after_exit(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let (engine, bundle, id) = (container.engine.clone(), container.bundle.clone(), id.to_string());
        self.jobs.run(
            {
                let id = id.clone();
                move || engine.resume(&id, &bundle)
            },
            move |_, result| {
                if let Err(failure) = result {
                    crate::warn!("resuming exited container {id} from paused state: {failure}");
                }
            },
        );
    }

    fn announce_exit(&mut self, key: &Key, exit: Exit) {
        let Some(process) = self.process(key) else { return };
        process.state = State::Stopped;
        process.exit = Some(exit);
        process.pidfd = None;
        let pid = process.pid;
        let waiters = std::mem::take(&mut process.waiters);
        let outputs = if process.io.console.is_some() { process.io.outputs.clone() } else { Vec::new() };
        let id = if key.exec.is_empty() { &key.id } else { &key.exec };
        let event = events::TaskExit {
            container_id: key.id.clone(),
            id: id.clone(),
            pid: pid as u32,
            exit_status: exit.status,
            exited_at: Some(crate::calls::exited_at(Some(exit))).into(),
            ..Default::default()
        };
        self.publish(Topic::Exit, &key.id, &event);
        for call in waiters {
            self.answer(call, Ok(crate::calls::wait_response(exit)));
        }
        // Other processes may have the terminal still; what this one has written is all that is waited for.
        for number in outputs {
            let pumped = self.streams.end_when_dry(&self.poll, number);
            self.stream_pumped(number, pumped);
        }
    }

    // --- streams

    fn stream_pumped(&mut self, number: u32, pumped: Pumped) {
        match pumped {
            Pumped::Open => {}
            Pumped::Ended(stream) => self.stream_ended(number, stream),
            Pumped::ForWorker(mut stream) => self.jobs.run(
                move || {
                    let (copied, is_over) = stream.pump_to_file();
                    (stream, copied, is_over)
                },
                move |shim, (stream, copied, is_over)| {
                    let is_wanted = shim
                        .process(&stream.owner)
                        .is_some_and(|process| process.io.outputs.contains(&number));
                    if is_over {
                        shim.stream_ended(number, stream);
                    } else if is_wanted {
                        shim.streams.bring_back(&shim.poll, number, stream, copied);
                    }
                },
            ),
        }
    }

    /// A stream has ended: of input, nothing follows; of output, whoever waits for the last of it.
    pub fn stream_ended(&mut self, number: u32, stream: Stream) {
        let key = stream.owner.clone();
        let role = stream.role;
        let unread = if role == Role::Output { stream.into_unread() } else { None };
        let Some(process) = self.process(&key) else { return };
        match role {
            Role::Input => {
                process.io.input = None;
                process.io.held_input = None;
                // As containerd's shim has it: a terminal whose input is over is given up, and its session hung up.
                if process.io.console.take().is_some() {
                    for number in process.io.outputs.clone() {
                        let pumped = self.streams.end_when_dry(&self.poll, number);
                        self.stream_pumped(number, pumped);
                    }
                }
            }
            Role::Output => {
                process.io.outputs.retain(|other| *other != number);
                let drained = if process.io.outputs.is_empty() { process.drained.take() } else { None };
                if let Some(unread) = unread {
                    process.io.unread.push(unread);
                    self.look_for_readers(key);
                }
                if let Some((turn, limit)) = drained {
                    self.cancel(limit);
                    turn(self);
                }
            }
        }
    }

    /// Looks from time to time whether somebody reads output that has ended already.
    fn look_for_readers(&mut self, key: Key) {
        self.after(READER_PAUSE, move |shim| {
            let Some(process) = shim.process(&key) else { return };
            let unread = std::mem::take(&mut process.io.unread);
            process.io.unread = unread.into_iter().filter_map(Unread::if_unread).collect();
            if !process.io.unread.is_empty() {
                shim.look_for_readers(key);
            }
        });
    }

    // --- OOM

    /// Begins to watch a container's cgroup.
    pub fn watch_oom(&mut self, id: &str, notice: Option<oom::Notice>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(notice) = notice {
            let number = self.poll.number();
            match self.poll.add(notice.fd(), Source::Oom(number), EpollFlags::EPOLLIN) {
                Ok(()) => container.oom = Some(OomWatch::Notice(number, notice)),
                Err(errno) => crate::error!("watching for OOM of {id}: {errno}"),
            }
            return;
        }
        let Some(crate::cgroup::Cgroup::V2(dir)) = container.cgroup.as_deref() else { return };
        let Some((watched, is_new)) = self.oom_files.watch(dir) else { return };
        container.oom = Some(OomWatch::Watched(watched));
        if is_new
            && let Some(fd) = self.oom_files.fd()
            && let Err(errno) = self.poll.add(fd, Source::OomFiles, EpollFlags::EPOLLIN)
        {
            crate::error!("watching for OOM: {errno}");
        }
    }

    /// Stops watching it.
    pub fn unwatch_oom(&mut self, watch: &OomWatch) {
        match watch {
            OomWatch::Notice(_, notice) => self.poll.remove(notice.fd()),
            OomWatch::Watched(watched) => self.oom_files.forget(watched),
        }
    }

    fn oom_noticed(&mut self, number: u32) {
        let is_it = |container: &Container| matches!(&container.oom, Some(OomWatch::Notice(own, _)) if *own == number);
        if let Some(id) =
            self.containers.iter().find(|(_, container)| is_it(container)).map(|(id, _)| id.clone())
        {
            self.check_oom(&id);
        }
    }

    fn check_oom(&mut self, id: &str) {
        let happened = match self.containers.get_mut(id).and_then(|container| container.oom.as_mut()) {
            None => false,
            Some(OomWatch::Notice(_, notice)) => notice.take(),
            Some(OomWatch::Watched(watched)) => watched.take(),
        };
        if happened {
            self.publish(Topic::Oom, id, &events::TaskOOM { container_id: id.into(), ..Default::default() });
        }
    }

    // --- signals and the end

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.sweep_children(),
                Ok(Signal::SIGTERM | Signal::SIGINT) => {
                    crate::info!("ending by signal {}", signal.ssi_signo);
                    self.end();
                }
                Ok(Signal::SIGUSR1) => self.dump(),
                _ => {}
            }
        }
    }

    /// Ends the shim as soon as events and answers are out.
    pub fn end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Instant::now() + SHUTDOWN_LIMIT);
        if let Some(socket) = &self.socket {
            crate::address::remove(socket, Some(&self.listener_copy));
        }
    }

    /// What the shim is at, into its log.
    fn dump(&self) {
        let (events, bytes, given_up) = self.publisher.waiting();
        crate::info!(
            "=== BEGIN dump === connections {}, jobs {}, timers {}, streams {} ({} bytes copied), \
             events waiting {events} ({bytes} bytes), given up {given_up}, {} bytes allocated",
            self.server.len(),
            self.jobs.running(),
            self.timers.len(),
            self.streams.len(),
            self.streams.copied,
            memory::allocated(),
        );
        for (id, container) in &self.containers {
            for (exec, process) in std::iter::once((&String::new(), &container.init)).chain(&container.execs)
            {
                crate::info!(
                    "container {id} exec {exec:?}: {:?}, pid {}, waiters {}, turns {} (busy: {}), outputs open {}",
                    process.state,
                    process.pid,
                    process.waiters.len(),
                    process.turns.len(),
                    process.is_busy,
                    process.io.outputs.len(),
                );
            }
        }
        crate::info!("=== END dump ===");
    }
}
