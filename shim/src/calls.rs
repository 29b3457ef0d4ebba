//! The Task service (v2 and v3), method by method, with the semantics, codes and messages of containerd's own shim.
//!
//! Calls about a process that a runtime has to carry out come one at a time, in the order in which they arrived; State, Wait, Connect,
//! CloseIO and ResizePty are answered at once from what the event loop knows, so nothing holds them up. These are here; `create`, `start`
//! (and Exec), `verbs` and `delete` have the others.

mod create;
mod delete;
mod start;
mod verbs;

use crate::{
    publisher::timestamp,
    server::Call,
    shim::Shim,
    status::Status,
    streams::Key,
    task::{Container, Exit, Process, State},
};
use cofferdam_proto::{Empty, Message, Timestamp, task, ttrpc};
use std::time::Duration;

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

    /// Does something to a process that is there, when its turn comes.
    fn in_turn(&mut self, call: Call, key: Key, turn: impl FnOnce(&mut Shim, Key) + Send + 'static) {
        if let Err(status) = self.process_of(&key.id, &key.exec) {
            return self.answer(call, Err::<Empty, _>(status));
        }
        self.enqueue(&key.clone(), |shim| turn(shim, key));
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
}
