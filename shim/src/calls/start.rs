//! Exec, which only registers a process, and Start of that or of the first one.

use super::{Done, key, wait_response};
use crate::{
    cgroup::Cgroup,
    oom,
    publisher::Topic,
    runtime::Failure,
    server::Call,
    shim::Shim,
    status::Status,
    stdio::{Owner, Paths},
    streams::Key,
    task::{Exit, Process, State},
};
use cofferdam_proto::{Empty, events, task};
use std::sync::Arc;

impl Shim {
    pub(super) fn start(&mut self, call: Call, request: task::StartRequest) {
        self.in_turn(call, key(&request.id, &request.exec_id), move |shim, key| {
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

    pub(super) fn register_exec(&mut self, request: task::ExecProcessRequest) -> Done<Empty> {
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
}

/// An exec id becomes part of a file's name.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}
