//! Delete: the last output awaited, the runtime's `delete`, the rootfs unmounted, everybody answered who still waited.

use super::{Done, exited_at, key, wait_response};
use crate::{
    publisher::Topic,
    rootfs,
    runtime::Failure,
    server::Call,
    shim::Shim,
    status::Status,
    streams::Key,
    task::{Exit, Io, Process, State},
};
use cofferdam_proto::{Empty, events, task};
use nix::libc;
use std::time::Duration;

/// How long Delete waits for the last output of a process that has ended: a descendant may keep the pipe open for ever.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long Delete waits for the end of an init that it had to kill.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
/// A logger that has read its pipes to their end may take this long before it is asked to go,
const LOGGER_GRACE: Duration = Duration::from_secs(2);
/// and this long in all before it is made to.
const LOGGER_LIMIT: Duration = Duration::from_secs(12);

impl Shim {
    pub(super) fn delete(&mut self, call: Call, request: task::DeleteRequest) {
        self.in_turn(call, key(&request.id, &request.exec_id), move |shim, key| {
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

    pub(super) fn is_gone(&mut self, call: Call) {
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
