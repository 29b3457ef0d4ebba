//! What is done to a container that is there: Kill, Pause, Resume, Update, Checkpoint, Pids, Stats.

use super::{Done, key};
use crate::{
    metrics, options,
    publisher::Topic,
    runtime::{Engine, Failure},
    server::Call,
    shim::Shim,
    status::Status,
    streams::Key,
    task::{Container, State, init_key},
};
use cofferdam_proto::{Any, Empty, Message, events, runc_options, task, type_url};
use std::path::{Path, PathBuf};

impl Shim {
    pub(super) fn kill(&mut self, call: Call, request: task::KillRequest) {
        self.in_turn(call, key(&request.id, &request.exec_id), move |shim, key| {
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
        self.in_turn(call, init_key(id), move |shim, key| {
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

    pub(super) fn pause(&mut self, call: Call, request: task::PauseRequest) {
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

    pub(super) fn resume(&mut self, call: Call, request: task::ResumeRequest) {
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

    pub(super) fn update(&mut self, call: Call, request: task::UpdateTaskRequest) {
        let check = |container: &mut Container| match container.init.state {
            State::Stopped => Err(Status::unknown("cannot update a stopped container")),
            _ => Ok(()),
        };
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        let work = move |engine: &dyn Engine, id: &str, bundle: &Path| engine.update(id, bundle, &resources);
        self.verb(call, &request.id, check, work, |_, _, _| {});
    }

    pub(super) fn checkpoint(&mut self, call: Call, request: task::CheckpointTaskRequest) {
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

    pub(super) fn pids(&mut self, call: Call, request: task::PidsRequest) {
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

    pub(super) fn stats(&mut self, call: Call, request: task::StatsRequest) {
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
