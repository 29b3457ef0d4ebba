//! The Task service (v2 and v3), method by method, with the semantics, codes and messages of containerd's own shim.
//!
//! Calls about a process that a runtime has to carry out come one at a time, in the order in which they arrived; State, Wait, Connect,
//! CloseIO and ResizePty are answered at once from what the event loop knows, so nothing holds them up.

use crate::{
    bundle::Config,
    cgroup::Cgroup,
    metrics, oom,
    options::{self, Options},
    publisher::{Topic, timestamp},
    rootfs,
    runtime::{self, Engine, Failure, Restore, Started, Stdio},
    server::Call,
    shim::Shim,
    status::Status,
    stdio::{Ends, Owner, Paths},
    streams::{End, Key, Plan, Role},
    task::{Container, Exit, Io, Process, State, init_key},
};
use cofferdam_proto::{Any, Empty, Message, Timestamp, events, runc_options, task, ttrpc, type_url};
use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long Delete waits for the last output of a process that has ended: a descendant may keep the pipe open for ever.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long Delete waits for the end of an init that it had to kill.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
/// A logger that has read its pipes to their end may take this long before it is asked to go,
const LOGGER_GRACE: Duration = Duration::from_secs(2);
/// and this long in all before it is made to.
const LOGGER_LIMIT: Duration = Duration::from_secs(12);

/// When a process ended; Go's zero time for one that has not.
pub fn exited_at(exit: Option<Exit>) -> Timestamp {
    match exit.and_then(|exit| exit.at) {
        Some(at) => timestamp(at),
        None => Timestamp { seconds: -62_135_596_800, ..Default::default() },
    }
}

/// The answer to Wait.
pub fn wait_response(exit: Exit) -> task::WaitResponse {
    task::WaitResponse {
        exit_status: exit.status,
        exited_at: Some(exited_at(Some(exit))).into(),
        ..Default::default()
    }
}

fn key(id: &str, exec: &str) -> Key {
    Key { id: id.into(), exec: exec.into() }
}

type Done<T> = Result<T, Status>;

impl Shim {
    /// Gives a request to its method.
    pub fn dispatch(&mut self, call: Call, request: &ttrpc::Request) {
        if !matches!(request.service.as_str(), "containerd.task.v3.Task" | "containerd.task.v2.Task") {
            let status = Status::unimplemented(format!("service {}", request.service));
            return self.answer(call, Err::<Empty, _>(status));
        }
        crate::debug!("{} of {} bytes", request.method, request.payload.len());
        let bytes = request.payload.as_slice();
        self.jobs.call(&request.method);
        match request.method.as_str() {
            "State" => self.at_once(call, bytes, Shim::state),
            "Connect" => self.at_once(call, bytes, Shim::connect),
            "CloseIO" => self.at_once(call, bytes, Shim::close_io),
            "ResizePty" => self.at_once(call, bytes, Shim::resize_pty),
            "Exec" => self.at_once(call, bytes, Shim::register_exec),
            "Shutdown" => self.at_once(call, bytes, Shim::shutdown),
            "Create" => self.later(call, bytes, Shim::create),
            "Start" => self.later(call, bytes, Shim::start),
            "Delete" => self.later(call, bytes, Shim::delete),
            "Pids" => self.later(call, bytes, Shim::pids),
            "Pause" => self.later(call, bytes, Shim::pause),
            "Resume" => self.later(call, bytes, Shim::resume),
            "Checkpoint" => self.later(call, bytes, Shim::checkpoint),
            "Kill" => self.later(call, bytes, Shim::kill),
            "Update" => self.later(call, bytes, Shim::update),
            "Stats" => self.later(call, bytes, Shim::stats),
            "Wait" => {
                let limit = u64::try_from(request.timeout_nano).ok().filter(|limit| *limit > 0);
                self.later(call, bytes, |shim, call, request| {
                    shim.wait(call, request, limit.map(Duration::from_nanos))
                });
            }
            _ => {
                let status = Status::unimplemented(format!("method {}", request.method));
                self.answer(call, Err::<Empty, _>(status));
            }
        }
    }

    fn at_once<M: Message, R: Message>(
        &mut self,
        call: Call,
        bytes: &[u8],
        method: fn(&mut Shim, M) -> Done<R>,
    ) {
        self.later(call, bytes, |shim, call, message| {
            let result = method(shim, message);
            shim.answer(call, result);
        });
    }

    fn later<M: Message>(&mut self, call: Call, bytes: &[u8], method: impl FnOnce(&mut Shim, Call, M)) {
        match M::parse_from_bytes(bytes) {
            Ok(message) => method(self, call, message),
            Err(error) => {
                let status = Status::internal(format!("ttrpc: error unmarshalling payload: {error}"));
                self.answer(call, Err::<Empty, _>(status));
            }
        }
    }

    fn container(&mut self, id: &str) -> Done<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| Status::not_found("container not created"))
    }

    fn process_of(&mut self, id: &str, exec: &str) -> Done<&mut Process> {
        let container = self.container(id)?;
        container
            .process_mut(exec)
            .ok_or_else(|| Status::not_found(&format!("process does not exist {exec}")))
    }

    // --- what the event loop knows

    fn state(&mut self, request: task::StateRequest) -> Done<task::StateResponse> {
        self.process_of(&request.id, &request.exec_id)?;
        let container = self.container(&request.id)?;
        let Some(process) = container.process(&request.exec_id) else {
            return Err(Status::not_found("process"));
        };
        // What freezes a container freezes all of it.
        let frozen = matches!(container.init.state, State::Paused | State::Pausing);
        let state = if frozen { container.init.state } else { process.state };
        Ok(task::StateResponse {
            id: if request.exec_id.is_empty() { request.id } else { request.exec_id },
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid as u32,
            status: state.on_wire().into(),
            stdin: process.paths.stdin.clone(),
            stdout: process.paths.stdout.clone(),
            stderr: process.paths.stderr.clone(),
            terminal: process.paths.terminal,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: Some(exited_at(process.exit)).into(),
            ..Default::default()
        })
    }

    fn connect(&mut self, request: task::ConnectRequest) -> Done<task::ConnectResponse> {
        let task_pid = self.containers.get(&request.id).map_or(0, |container| container.init.pid);
        Ok(task::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid as u32,
            ..Default::default()
        })
    }

    fn wait(&mut self, call: Call, request: task::WaitRequest, limit: Option<Duration>) {
        let process = match self.process_of(&request.id, &request.exec_id) {
            Ok(process) => process,
            Err(status) => return self.answer(call, Err::<Empty, _>(status)),
        };
        if let Some(exit) = process.exit {
            return self.answer(call, Ok(wait_response(exit)));
        }
        process.waiters.push(call);
        if let Some(limit) = limit {
            let key = key(&request.id, &request.exec_id);
            self.after(limit, move |shim| {
                let Some(process) = shim.process(&key) else { return };
                let Some(at) = process.waiters.iter().position(|waiter| *waiter == call) else { return };
                process.waiters.swap_remove(at);
                shim.answer(call, Err::<Empty, _>(Status::deadline_exceeded()));
            });
        }
    }

    fn close_io(&mut self, request: task::CloseIORequest) -> Done<Empty> {
        self.process_of(&request.id, &request.exec_id)?.io.held_input = None;
        Ok(Empty::new())
    }

    fn resize_pty(&mut self, request: task::ResizePtyRequest) -> Done<Empty> {
        let process = self.process_of(&request.id, &request.exec_id)?;
        if !request.exec_id.is_empty() && process.state == State::Stopped {
            return Err(Status::unknown("cannot resize a stopped container"));
        }
        if let Some(console) = &process.io.console {
            let (rows, columns) = (request.height as u16, request.width as u16);
            cofferdam_sys::net::set_window_size(&**console, rows, columns)
                .map_err(|errno| Status::unknown(errno.to_string()))?;
        }
        Ok(Empty::new())
    }

    fn shutdown(&mut self, _: task::ShutdownRequest) -> Done<Empty> {
        if self.containers.is_empty() && self.creating.is_empty() {
            self.end();
        }
        Ok(Empty::new())
    }

    // --- Create

    fn create(&mut self, call: Call, request: task::CreateTaskRequest) {
        if self.containers.contains_key(&request.id) || !self.creating.insert(request.id.clone()) {
            let status = Status::already_exists(&format!("container {}", request.id));
            return self.answer(call, Err::<Empty, _>(status));
        }
        let namespace = self.namespace.clone();
        self.jobs.run(
            move || (make_container(&request, &namespace), request),
            move |shim, (made, request)| {
                shim.creating.remove(&request.id);
                match made {
                    Ok(made) => shim.created(call, request, made),
                    Err(status) => shim.answer(call, Err::<Empty, _>(status)),
                }
            },
        );
    }

    fn created(&mut self, call: Call, request: task::CreateTaskRequest, made: Made) {
        let id = request.id.clone();
        let key = init_key(&id);
        let pid = made.started.as_ref().map_or(0, |started| started.pid);
        self.containers.insert(id.clone(), made.container);
        self.publish(
            Topic::Create,
            &id,
            &events::TaskCreate {
                container_id: id.clone(),
                bundle: request.bundle,
                rootfs: request.rootfs,
                io: Some(events::TaskIO {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    terminal: request.terminal,
                    ..Default::default()
                })
                .into(),
                checkpoint: request.checkpoint,
                pid: pid as u32,
                ..Default::default()
            },
        );
        self.watch_oom(&id, made.notice);
        match made.started {
            Some(started) => {
                self.connect_streams(&key, made.ends, started);
                self.watch_process(&key);
            }
            None => self.keep_ends(&key, made.ends),
        }
        self.answer(call, Ok(task::CreateTaskResponse { pid: pid as u32, ..Default::default() }));
    }

    /// The process is there: its streams begin to flow.
    fn connect_streams(&mut self, key: &Key, ends: Ends, started: Started) {
        let console = started.console.map(Arc::new);
        let terminal = || console.clone().map(End::Terminal);
        if let Some(console) = &console
            && let Err(error) = crate::stdio::set_nonblocking(console)
        {
            crate::error!("terminal of {}: {error}", key.id);
        }
        let mut io = Io::default();
        if let Some(input) = ends.input {
            io.held_input = Some(input.held);
            let pipes = input.pipe.is_some();
            if let Some(sink) = input.pipe.map(End::Own).or_else(terminal) {
                let plan = Plan {
                    owner: key.clone(),
                    role: Role::Input,
                    source: End::Own(input.fifo),
                    sink,
                    held: None,
                    pipes,
                    regular_sink: false,
                };
                io.input = Some(self.streams.add(&mut self.poll, plan));
            }
        }
        for output in ends.outputs {
            let pipes = output.pipe.is_some() && !output.sink.regular;
            let Some(source) = output.pipe.map(End::Own).or_else(terminal) else { continue };
            let plan = Plan {
                owner: key.clone(),
                role: Role::Output,
                source,
                sink: End::Own(output.sink.file),
                held: output.sink.held,
                pipes,
                regular_sink: output.sink.regular,
            };
            io.outputs.push(self.streams.add(&mut self.poll, plan));
        }
        if let Some(logger) = ends.logger {
            io.logger_pipes.extend(logger.stdout);
            io.logger_pipes.extend(logger.stderr);
            io.logger = Some(self.watch_logger(logger.pid, logger.pidfd));
        }
        io.console = console;
        let Some(process) = self.process(key) else { return };
        (process.pid, process.pidfd, process.io) = (started.pid, Some(started.pidfd), io);
    }

    /// The process comes later, out of a checkpoint: until then its streams' ends wait.
    fn keep_ends(&mut self, key: &Key, ends: Ends) {
        if let Some(container) = self.containers.get_mut(&key.id) {
            container.kept_ends = Some(ends);
        }
    }

    // --- Start

    fn start(&mut self, call: Call, request: task::StartRequest) {
        if let Err(status) = self.process_of(&request.id, &request.exec_id) {
            return self.answer(call, Err::<Empty, _>(status));
        }
        let key = key(&request.id, &request.exec_id);
        self.enqueue(&key.clone(), move |shim| {
            let begun =
                if key.exec.is_empty() { shim.start_init(call, &key) } else { shim.start_exec(call, &key) };
            if let Err(status) = begun {
                shim.answer(call, Err::<Empty, _>(status));
                shim.done(&key);
            }
        });
    }

    fn start_init(&mut self, call: Call, key: &Key) -> Done<()> {
        let container = self.container(&key.id)?;
        match container.init.state {
            State::Created => {}
            State::Checkpointed => return self.start_restored(call, key),
            State::Running | State::Pausing => return Err(Status::unknown("cannot start a running process")),
            State::Paused => return Err(Status::unknown("cannot start a paused process")),
            State::Stopped => return Err(Status::unknown("cannot start a stopped process")),
        }
        let (engine, bundle) = (container.engine.clone(), container.bundle.clone());
        self.unwatch_process(key);
        let (id, key) = (key.id.clone(), key.clone());
        self.jobs.run(
            move || engine.start(&id, &bundle),
            move |shim, result| {
                if result.is_ok() {
                    shim.announce_start(&key);
                }
                shim.watch_process(&key);
                shim.finish_start(call, &key, result.map_err(Status::from));
            },
        );
        Ok(())
    }

    fn start_restored(&mut self, call: Call, key: &Key) -> Done<()> {
        let container = self.container(&key.id)?;
        let (engine, bundle) = (container.engine.clone(), container.bundle.clone());
        let (Some((restore, stdio)), ends) = (container.restore.take(), container.kept_ends.take()) else {
            return Err(Status::unknown("the checkpoint was used already"));
        };
        let (id, key) = (key.id.clone(), key.clone());
        self.jobs.run(
            move || {
                let started = engine.restore(&id, &bundle, &restore, stdio)?;
                let cgroup = Cgroup::of(started.pid);
                let notice = cgroup.as_ref().and_then(oom::Notice::ask);
                Ok((started, cgroup, notice))
            },
            move |shim, result: Result<_, Failure>| match result {
                Err(failure) => shim.finish_start(call, &key, Err(failure.into())),
                Ok((started, cgroup, notice)) => {
                    if let Some(container) = shim.containers.get_mut(&key.id) {
                        container.cgroup = cgroup.map(Arc::new);
                    }
                    shim.watch_oom(&key.id, notice);
                    shim.connect_streams(&key, ends.unwrap_or_default(), started);
                    shim.announce_start(&key);
                    shim.watch_process(&key);
                    shim.finish_start(call, &key, Ok(()));
                }
            },
        );
        Ok(())
    }

    fn start_exec(&mut self, call: Call, key: &Key) -> Done<()> {
        let namespace = self.namespace.clone();
        let container = self.container(&key.id)?;
        if container.init_exit.is_some() {
            let text = format!("container {} init process is not running", key.id);
            return Err(Status::failed_precondition(&text));
        }
        let (engine, bundle, (uid, gid)) =
            (container.engine.clone(), container.bundle.clone(), container.io_owner);
        let Some(process) = container.execs.get_mut(&key.exec) else {
            return Err(Status::not_found(&format!("process does not exist {}", key.exec)));
        };
        match process.state {
            State::Created if process.exit.is_none() => {}
            State::Stopped => return Err(Status::unknown("cannot start a stopped process")),
            _ => return Err(Status::unknown("cannot start a running process")),
        }
        let (paths, spec) = (process.paths.clone(), process.spec.clone());
        container.running_execs += 1;
        let (id, exec, key) = (key.id.clone(), key.exec.clone(), key.clone());
        self.jobs.run(
            move || {
                let owner = Owner { uid, gid, id: &exec, namespace: &namespace };
                let (stdio, ends) = paths
                    .open(&owner)
                    .map_err(|error| Failure::Other(format!("failed to create init process I/O: {error}")))?;
                Ok((engine.exec(&id, &bundle, &exec, &spec, stdio)?, ends))
            },
            move |shim, result: Result<_, Failure>| match result {
                Ok((started, ends)) => {
                    shim.connect_streams(&key, ends, started);
                    shim.announce_start(&key);
                    shim.watch_process(&key);
                    shim.finish_start(call, &key, Ok(()));
                }
                Err(failure) => {
                    shim.exec_failed(&key);
                    shim.exec_is_over(&key.id);
                    shim.finish_start(call, &key, Err(failure.into()));
                }
            },
        );
        Ok(())
    }

    /// Who waits for an exec that could not be started has waited long enough.
    fn exec_failed(&mut self, key: &Key) {
        let exit = Exit { status: 0, at: None };
        let Some(process) = self.process(key) else { return };
        process.exit = Some(exit);
        for waiter in std::mem::take(&mut process.waiters) {
            self.answer(waiter, Ok(wait_response(exit)));
        }
    }

    fn announce_start(&mut self, key: &Key) {
        let Some(process) = self.process(key) else { return };
        process.state = State::Running;
        process.spec = Vec::new();
        let pid = process.pid as u32;
        if key.exec.is_empty() {
            let event = events::TaskStart { container_id: key.id.clone(), pid, ..Default::default() };
            self.publish(Topic::Start, &key.id, &event);
        } else {
            let event = events::TaskExecStarted {
                container_id: key.id.clone(),
                exec_id: key.exec.clone(),
                pid,
                ..Default::default()
            };
            self.publish(Topic::ExecStarted, &key.id, &event);
        }
    }

    fn finish_start(&mut self, call: Call, key: &Key, result: Done<()>) {
        let pid = self.process(key).map_or(0, |process| process.pid) as u32;
        self.answer(call, result.map(|()| task::StartResponse { pid, ..Default::default() }));
        self.done(key);
    }

    // --- Exec: registers only

    fn register_exec(&mut self, request: task::ExecProcessRequest) -> Done<Empty> {
        let container = self.container(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Status::already_exists(&format!("id {}", request.exec_id)));
        }
        if !is_plain_name(&request.exec_id) {
            return Err(Status::invalid_argument(format!("invalid exec id {:?}", request.exec_id)));
        }
        match container.init.state {
            State::Checkpointed => return Err(Status::unknown("cannot exec in a created state")),
            State::Paused | State::Pausing => return Err(Status::unknown("cannot exec in a paused state")),
            State::Stopped => return Err(Status::unknown("cannot exec in a stopped state")),
            State::Created | State::Running => {}
        }
        let bytes = request.spec.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        let mut spec: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| Status::unknown(error.to_string()))?;
        let object = spec.as_object_mut().ok_or_else(|| Status::unknown("the process is no JSON object"))?;
        object.insert("terminal".into(), request.terminal.into());
        let paths = Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let mut process = Process::new(State::Created, paths);
        process.spec = spec.to_string().into_bytes();
        container.execs.insert(request.exec_id.clone(), process);
        let event = events::TaskExecAdded {
            container_id: request.id.clone(),
            exec_id: request.exec_id,
            ..Default::default()
        };
        self.publish(Topic::ExecAdded, &request.id, &event);
        Ok(Empty::new())
    }

    // --- Kill, Pause, Resume, Update, Pids, Stats, Checkpoint

    fn kill(&mut self, call: Call, request: task::KillRequest) {
        if let Err(status) = self.process_of(&request.id, &request.exec_id) {
            return self.answer(call, Err::<Empty, _>(status));
        }
        let key = key(&request.id, &request.exec_id);
        self.enqueue(&key.clone(), move |shim| {
            if !key.exec.is_empty() {
                let result = shim.kill_exec(&key, request.signal);
                shim.answer(call, result.map(|()| Empty::new()));
                return shim.done(&key);
            }
            // A Delete whose turn was before this one has forgotten it.
            let Ok(container) = shim.container(&key.id) else { return shim.is_gone(call) };
            let (engine, bundle) = (container.engine.clone(), container.bundle.clone());
            if container.init.state == State::Stopped && !request.all {
                shim.answer(call, Err::<Empty, _>(Status::not_found("process already finished")));
                return shim.done(&key);
            }
            let id = key.id.clone();
            shim.jobs.run(
                move || engine.kill(&id, &bundle, request.signal, request.all),
                move |shim, result| {
                    shim.answer(call, result.map(|()| Empty::new()).map_err(Status::of_kill));
                    shim.done(&key);
                },
            );
        });
    }

    fn kill_exec(&mut self, key: &Key, signal: u32) -> Done<()> {
        let process = self.process_of(&key.id, &key.exec)?;
        if process.exit.is_some() {
            return Err(Status::not_found("process already finished"));
        }
        let Some(pidfd) = &process.pidfd else {
            return Err(Status::failed_precondition("process not created"));
        };
        cofferdam_sys::process::pidfd_send_signal(pidfd, signal as i32).map_err(|errno| match errno {
            cofferdam_sys::Errno::ESRCH => Status::not_found("exec kill error: process already finished"),
            errno => Status::unknown(format!("exec kill error: unknown error after kill: {errno}")),
        })
    }

    /// A verb on a whole container: its state is looked at when its turn comes, and what follows success is `after`.
    fn verb(
        &mut self,
        call: Call,
        id: &str,
        check: impl FnOnce(&mut Container) -> Done<()> + Send + 'static,
        work: impl FnOnce(&dyn Engine, &str, &Path) -> Result<(), Failure> + Send + 'static,
        after: impl FnOnce(&mut Shim, &str, bool) + Send + 'static,
    ) {
        if let Err(status) = self.container(id) {
            return self.answer(call, Err::<Empty, _>(status));
        }
        let key = init_key(id);
        self.enqueue(&key.clone(), move |shim| {
            if let Err(status) = shim.container(&key.id).and_then(check) {
                shim.answer(call, Err::<Empty, _>(status));
                return shim.done(&key);
            }
            let Ok(container) = shim.container(&key.id) else { return };
            let (engine, bundle, id) = (container.engine.clone(), container.bundle.clone(), key.id.clone());
            shim.jobs.run(
                move || work(&*engine, &id, &bundle),
                move |shim, result| {
                    after(shim, &key.id, result.is_ok());
                    shim.answer(call, result.map(|()| Empty::new()).map_err(Status::from));
                    shim.done(&key);
                },
            );
        });
    }

    fn pause(&mut self, call: Call, request: task::PauseRequest) {
        let check = |container: &mut Container| {
            match container.init.state {
                State::Running => {}
                State::Created | State::Checkpointed => {
                    return Err(Status::unknown("cannot pause task in created state"));
                }
                State::Paused | State::Pausing => {
                    return Err(Status::unknown("cannot pause a paused container"));
                }
                State::Stopped => return Err(Status::unknown("cannot pause a stopped container")),
            }
            container.init.state = State::Pausing;
            Ok(())
        };
        let work = |engine: &dyn Engine, id: &str, bundle: &Path| engine.pause(id, bundle);
        self.verb(call, &request.id, check, work, |shim, id, paused| {
            let Ok(container) = shim.container(id) else { return };
            // It may have ended meanwhile.
            if container.init.state == State::Pausing {
                container.init.state = if paused { State::Paused } else { State::Running };
            }
            if paused {
                shim.publish(
                    Topic::Paused,
                    id,
                    &events::TaskPaused { container_id: id.into(), ..Default::default() },
                );
            }
        });
    }

    fn resume(&mut self, call: Call, request: task::ResumeRequest) {
        let check = |container: &mut Container| match container.init.state {
            State::Paused => Ok(()),
            State::Running | State::Pausing => Err(Status::unknown("cannot resume a running process")),
            State::Created | State::Checkpointed => {
                Err(Status::unknown("cannot resume task in created state"))
            }
            State::Stopped => Err(Status::unknown("cannot resume a stopped container")),
        };
        let work = |engine: &dyn Engine, id: &str, bundle: &Path| engine.resume(id, bundle);
        self.verb(call, &request.id, check, work, |shim, id, resumed| {
            let Ok(container) = shim.container(id) else { return };
            if resumed {
                if container.init.state == State::Paused {
                    container.init.state = State::Running;
                }
                shim.publish(
                    Topic::Resumed,
                    id,
                    &events::TaskResumed { container_id: id.into(), ..Default::default() },
                );
            }
        });
    }

    fn update(&mut self, call: Call, request: task::UpdateTaskRequest) {
        let check = |container: &mut Container| match container.init.state {
            State::Stopped => Err(Status::unknown("cannot update a stopped container")),
            _ => Ok(()),
        };
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        let work = move |engine: &dyn Engine, id: &str, bundle: &Path| engine.update(id, bundle, &resources);
        self.verb(call, &request.id, check, work, |_, _, _| {});
    }

    fn checkpoint(&mut self, call: Call, request: task::CheckpointTaskRequest) {
        let options = match options::of_checkpoint(request.options.as_ref()) {
            Ok(options) => options,
            Err(error) => return self.answer(call, Err::<Empty, _>(Status::invalid_argument(error))),
        };
        let check = |container: &mut Container| match container.init.state {
            State::Created | State::Checkpointed => {
                Err(Status::unknown("cannot checkpoint a task in created state"))
            }
            State::Stopped => Err(Status::unknown("cannot checkpoint a stopped container")),
            _ => Ok(()),
        };
        let path = request.path;
        let image = PathBuf::from(&path);
        let work = move |engine: &dyn Engine, id: &str, bundle: &Path| {
            write_checkpoint(engine, id, bundle, &image, &options)
        };
        self.verb(call, &request.id, check, work, |shim, id, written| {
            if written {
                let event = events::TaskCheckpointed {
                    container_id: id.into(),
                    checkpoint: path,
                    ..Default::default()
                };
                shim.publish(Topic::Checkpointed, id, &event);
            }
        });
    }

    fn pids(&mut self, call: Call, request: task::PidsRequest) {
        let container = match self.container(&request.id) {
            Ok(container) => container,
            Err(status) => return self.answer(call, Err::<Empty, _>(status)),
        };
        let (engine, bundle, id) = (container.engine.clone(), container.bundle.clone(), request.id.clone());
        self.jobs.run(
            move || engine.pids(&id, &bundle),
            move |shim, result| {
                let result = result.map(|pids| shim.describe_pids(&request.id, &pids)).map_err(Status::from);
                shim.answer(call, result);
            },
        );
    }

    fn describe_pids(&self, id: &str, pids: &[i32]) -> task::PidsResponse {
        let exec_of = |pid: i32| {
            let mut execs = self.containers.get(id)?.execs.iter();
            execs.find(|(_, process)| process.pid == pid).map(|(exec_id, _)| exec_id.clone())
        };
        let describe = |pid: &i32| {
            let info = exec_of(*pid).map(|exec_id| {
                let details = runc_options::ProcessDetails { exec_id, ..Default::default() };
                Any {
                    type_url: type_url::RUNC_PROCESS_DETAILS.into(),
                    value: details.write_to_bytes().unwrap_or_default(),
                    ..Default::default()
                }
            });
            task::ProcessInfo { pid: *pid as u32, info: info.into(), ..Default::default() }
        };
        task::PidsResponse { processes: pids.iter().map(describe).collect(), ..Default::default() }
    }

    fn stats(&mut self, call: Call, request: task::StatsRequest) {
        let cgroup = self.container(&request.id).and_then(|container| {
            container.cgroup.clone().ok_or_else(|| Status::not_found("cgroup does not exist"))
        });
        let cgroup = match cgroup {
            Ok(cgroup) => cgroup,
            Err(status) => return self.answer(call, Err::<Empty, _>(status)),
        };
        self.jobs.run(
            move || metrics::collect(&cgroup),
            move |shim, result| {
                let result =
                    result.map(|any| task::StatsResponse { stats: Some(any).into(), ..Default::default() });
                shim.answer(call, result.map_err(Status::unknown));
            },
        );
    }

    // --- Delete

    fn delete(&mut self, call: Call, request: task::DeleteRequest) {
        if let Err(status) = self.process_of(&request.id, &request.exec_id) {
            return self.answer(call, Err::<Empty, _>(status));
        }
        let key = key(&request.id, &request.exec_id);
        self.enqueue(&key.clone(), move |shim| {
            let state = match shim.process_of(&key.id, &key.exec) {
                Ok(process) => process.state,
                Err(status) => return shim.answer(call, Err::<Empty, _>(status)),
            };
            let status = match state {
                State::Created | State::Checkpointed | State::Stopped => None,
                State::Running | State::Pausing => Some(Status::unknown("cannot delete a running process")),
                State::Paused => Some(Status::unknown("cannot delete a paused process")),
            };
            if let Some(status) = status {
                shim.answer(call, Err::<Empty, _>(status));
                return shim.done(&key);
            }
            match (key.exec.is_empty(), state) {
                (false, _) => shim.drain(&key.clone(), move |shim| shim.forget_exec(call, &key)),
                // What has not ended keeps its pipes open: there is nothing to wait for before it is killed.
                (true, State::Created) => shim.delete_init(call, key),
                (true, _) => shim.drain(&key.clone(), move |shim| shim.delete_init(call, key)),
            }
        });
    }

    /// Goes on when all output is out, or after a while.
    fn drain(&mut self, key: &Key, then: impl FnOnce(&mut Shim) + Send + 'static) {
        let Some(process) = self.process(key) else { return then(self) };
        if process.io.outputs.is_empty() {
            return then(self);
        }
        let waiting = key.clone();
        let limit = self.after(DRAIN_LIMIT, move |shim| {
            if let Some((turn, _)) = shim.process(&waiting).and_then(|process| process.drained.take()) {
                crate::error!("failed to drain {} {} io in {DRAIN_LIMIT:?}", waiting.id, waiting.exec);
                turn(shim);
            }
        });
        if let Some(process) = self.process(key) {
            process.drained = Some((Box::new(then), limit));
        }
    }

    fn forget_exec(&mut self, call: Call, key: &Key) {
        // The container's own Delete may be quicker, and takes its execs with it.
        let Ok(container) = self.container(&key.id) else { return self.is_gone(call) };
        let Some(process) = container.execs.get_mut(&key.exec) else { return self.is_gone(call) };
        let io = std::mem::take(&mut process.io);
        let _ = std::fs::remove_file(container.bundle.join(format!("{}.pid", key.exec)));
        let key = key.clone();
        self.close_streams(io, move |shim| {
            let container = shim.containers.get_mut(&key.id);
            match container.and_then(|container| container.execs.remove(&key.exec)) {
                Some(process) => shim.dismiss(process, call),
                None => shim.is_gone(call),
            }
        });
    }

    fn is_gone(&mut self, call: Call) {
        self.answer(call, Err::<Empty, _>(Status::not_found("container not created")));
    }

    /// Answers a Delete, and what still waited for the process: it is gone.
    fn dismiss(&mut self, process: Process, call: Call) {
        let response = task::DeleteResponse {
            pid: process.pid as u32,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: Some(exited_at(process.exit)).into(),
            ..Default::default()
        };
        self.answer(call, Ok(response));
        let exit = process.exit.unwrap_or(Exit { status: 0, at: None });
        for waiter in process.waiters {
            self.answer(waiter, Ok(wait_response(exit)));
        }
        for turn in process.turns {
            turn(self);
        }
    }

    fn delete_init(&mut self, call: Call, key: Key) {
        let Some(container) = self.containers.get(&key.id) else { return self.is_gone(call) };
        let (engine, bundle, id) = (container.engine.clone(), container.bundle.clone(), key.id.clone());
        self.jobs.run(
            move || {
                match engine.delete(&id, &bundle, false) {
                    // After a checkpoint, or after somebody else deleted it.
                    Ok(()) | Err(Failure::NoSuchContainer) => {}
                    Err(failure) => return Err(failure.into()),
                }
                rootfs::unmount(&bundle.join("rootfs"))
                    .map_err(|error| Status::unknown(format!("failed rootfs umount: {error}")))
            },
            move |shim, result: Done<()>| match result {
                Err(status) => {
                    shim.answer(call, Err::<Empty, _>(status));
                    shim.done(&key);
                }
                Ok(()) => shim.await_init_exit(call, key),
            },
        );
    }

    /// A container that was never started ends by its delete; its exit is announced before it is gone.
    fn await_init_exit(&mut self, call: Call, key: Key) {
        let Some(container) = self.containers.get_mut(&key.id) else { return };
        if container.init.pidfd.is_none() {
            return self.close_container(call, &key);
        }
        let id = key.id.clone();
        container.after_exit = Some(Box::new(move |shim| shim.close_container(call, &key)));
        self.after(EXIT_LIMIT, move |shim| {
            if let Some(turn) = shim.containers.get_mut(&id).and_then(|container| container.after_exit.take())
            {
                crate::error!("init of {id} outlived its delete");
                turn(shim);
            }
        });
    }

    fn close_container(&mut self, call: Call, key: &Key) {
        let Some(container) = self.containers.get_mut(&key.id) else { return };
        let mut ios = vec![std::mem::take(&mut container.init.io)];
        ios.extend(container.execs.values_mut().map(|exec| std::mem::take(&mut exec.io)));
        self.close_all(ios, call, key.clone());
    }

    fn close_all(&mut self, mut ios: Vec<Io>, call: Call, key: Key) {
        match ios.pop() {
            Some(io) => self.close_streams(io, move |shim| shim.close_all(ios, call, key)),
            None => self.forget_container(call, &key.id),
        }
    }

    fn forget_container(&mut self, call: Call, id: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some(watch) = container.oom.take() {
            self.unwatch_oom(&watch);
        }
        let exit = container.init.exit;
        let event = events::TaskDelete {
            container_id: id.into(),
            pid: container.init.pid as u32,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: Some(exited_at(exit)).into(),
            ..Default::default()
        };
        self.publish(Topic::Delete, id, &event);
        for (_, exec) in container.execs.drain() {
            let exit = exec.exit.unwrap_or(Exit { status: 0, at: None });
            for waiter in exec.waiters {
                self.answer(waiter, Ok(wait_response(exit)));
            }
            // A Delete that waits for the exec's output, and what waits behind it: each finds that there is nothing any more.
            let drained = exec.drained.map(|(turn, limit)| {
                self.cancel(limit);
                turn
            });
            for turn in drained.into_iter().chain(exec.turns) {
                turn(self);
            }
        }
        self.dismiss(container.init, call);
    }

    /// Ends what is left of a process's streams, and its logger, and goes on then.
    fn close_streams(&mut self, io: Io, then: impl FnOnce(&mut Shim) + Send + 'static) {
        for number in io.outputs.into_iter().chain(io.input) {
            drop(self.streams.end(&self.poll, number));
        }
        drop((io.held_input, io.console, io.unread, io.logger_pipes));
        let Some(logger) = io.logger else { return then(self) };
        // It reads the end of its pipes now.
        self.after_logger(logger, then);
        self.after(LOGGER_GRACE, move |shim| shim.signal_logger(logger, libc::SIGTERM));
        self.after(LOGGER_LIMIT, move |shim| shim.signal_logger(logger, libc::SIGKILL));
    }
}

/// An exec id becomes part of a file's name.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// What Create's worker has made.
struct Made {
    container: Container,
    started: Option<Started>,
    ends: Ends,
    notice: Option<oom::Notice>,
}

/// All of Create that blocks. Whatever fails, what was done before is undone.
fn make_container(request: &task::CreateTaskRequest, namespace: &str) -> Done<Made> {
    let bundle = PathBuf::from(&request.bundle);
    let options = Options::from_any(request.options.as_ref()).map_err(Status::invalid_argument)?;
    let config = Config::read(&bundle)
        .map_err(|error| Status::unknown(format!("{}/config.json: {error}", request.bundle)))?;
    let engine = runtime::engine(&options, namespace, Some(&config));
    options.save(&bundle).map_err(|error| Status::unknown(format!("options.json: {error}")))?;
    let root = bundle.join("rootfs");
    if !request.rootfs.is_empty() {
        match std::fs::DirBuilder::new().mode(0o711).create(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Status::unknown(format!("mkdir {}: {error}", root.display())));
            }
            _ => {}
        }
    }
    let mounted = rootfs::mount(&request.rootfs, &root).map_err(Status::unknown)?;
    let paths = Paths {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    // Engines tell the owner of pipes to io.containerd.runc.v2 alone, but a remapped root must be able to open its /dev/stdout, too.
    let io_owner = match (options.io_uid, options.io_gid) {
        (0, 0) => config.root_owner(),
        owner => owner,
    };
    let owner = Owner { uid: io_owner.0, gid: io_owner.1, id: &request.id, namespace };
    let (stdio, ends) = paths
        .open(&owner)
        .map_err(|error| Status::unknown(format!("failed to create init process I/O: {error}")))?;
    let mut made = Made {
        container: Container {
            bundle: bundle.clone(),
            engine: engine.clone(),
            init: Process::new(State::Created, paths),
            execs: Default::default(),
            running_execs: 0,
            init_exit: None,
            owns_pids: config.has_own_pid_namespace(),
            cgroup: None,
            oom: None,
            restore: None,
            kept_ends: None,
            io_owner,
            after_exit: None,
        },
        started: None,
        ends,
        notice: None,
    };
    if request.checkpoint.is_empty() {
        made.start(&*engine, &request.id, &bundle, stdio)?;
    } else {
        made.container.init.state = State::Checkpointed;
        made.container.restore = Some((restore_of(request, &options, &bundle), stdio));
    }
    mounted.keep();
    Ok(made)
}

impl Made {
    fn start(&mut self, engine: &dyn Engine, id: &str, bundle: &Path, stdio: Stdio) -> Done<()> {
        let started = engine.create(id, bundle, stdio)?;
        let cgroup = Cgroup::of(started.pid);
        if let Some(cgroup) = &cgroup {
            cgroup.enable_controllers();
        }
        self.notice = cgroup.as_ref().and_then(oom::Notice::ask);
        self.container.cgroup = cgroup.map(Arc::new);
        self.started = Some(started);
        Ok(())
    }
}

fn restore_of(request: &task::CreateTaskRequest, options: &Options, bundle: &Path) -> Restore {
    let work = Some(&options.criu_work_path).filter(|path| !path.is_empty());
    Restore {
        image: PathBuf::from(&request.checkpoint),
        parent: Some(&request.parent_checkpoint).filter(|path| !path.is_empty()).map(PathBuf::from),
        work: work.map_or_else(|| bundle.join("work"), PathBuf::from),
    }
}

/// Writes a checkpoint; where CRIU's log goes when the folder that it worked in is not kept.
fn write_checkpoint(
    engine: &dyn Engine,
    id: &str,
    bundle: &Path,
    image: &Path,
    options: &runc_options::CheckpointOptions,
) -> Result<(), Failure> {
    let own_work = options.work_path.is_empty();
    let work = if own_work { bundle.join("work/criu-work") } else { PathBuf::from(&options.work_path) };
    let result = engine.checkpoint(id, bundle, image, &work, options).map_err(|failure| {
        let log = bundle.join("criu-dump.log");
        if let Err(error) = std::fs::copy(work.join("dump.log"), &log) {
            crate::error!("failed to copy dump.log to criu-dump.log: {error}");
        }
        let text = failure.to_string();
        Failure::Other(format!("{} path= {}", text.lines().next().unwrap_or_default(), log.display()))
    });
    if own_work {
        let _ = std::fs::remove_dir_all(&work);
    }
    result
}
